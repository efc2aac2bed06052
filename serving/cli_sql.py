"""`asknown sql`: ask the logs in SQL, once or at a prompt, or print the SQL for use elsewhere."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from decimal import Decimal
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import polars as pl
import polars.selectors as cs
import typer

import ingestion
from serving import render
from serving.cli_ingest import FILES, ROOT, File, LogRoot
from serving.cli_log import StorageOption, storage_options
from serving.errors import NoLogsError, OptionError, QueryError
from serving.files import ParquetFile
from serving.sql_session import Answer, SqlSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

_INSTANT: Final = "%Y-%m-%dT%H:%M:%S%.6f"
_HELP: Final = """A statement ends with a semicolon and may go over several lines.
  .tables    the views and functions, and the log position of each provider
  .refresh   see what the logs hold now
  .limit N   rows to print
  .quit      end; so does Ctrl-D. Ctrl-C drops a line or a query."""


class Format(StrEnum):
    """How a result is written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Dialect(StrEnum):
    """Whose SQL is printed."""

    duckdb = "duckdb"
    spark = "spark"


class Source(StrEnum):
    """What printed SQL reads."""

    delta = "delta"
    files = "files"


def sql(
    query: Annotated[
        str | None, typer.Argument(help="The query; without one it is read from a pipe, or asked for at a prompt.")
    ] = None,
    root: LogRoot = None,
    file: File = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="How to write the result; by default as --output ends, or a table."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the result to this .csv, .json or .parquet file.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a table to print; the other formats have all.", min=1)] = 40,
    print_macros: Annotated[
        bool, typer.Option("--print-macros", help="Print the SQL that makes the views and functions, and stop.")
    ] = False,
    dialect: Annotated[Dialect, typer.Option(help="Whose SQL to print.")] = Dialect.duckdb,
    source: Annotated[
        Source,
        typer.Option(help="What printed SQL reads: the Delta tables, or the Parquet files that they have now."),
    ] = Source.delta,
    storage_option: StorageOption = None,
) -> None:
    """Ask the logs in SQL, by DuckDB: a view per provider, and <provider>_as_of(t) for what was known at t.

    Nothing is written to the logs. Instants are in UTC.
    """
    where, options = _root(root, file), storage_options(storage_option)
    if print_macros:
        _print_macros(where, options, dialect, source)
        return
    chosen = _format(form, output)
    with SqlSession(where, storage_options=options) as session:
        if query is None and sys.stdin.isatty():
            if output is not None or form is not None:
                raise OptionError("--format and --output are for one query", 'write it: asknown sql "FROM ..."')
            _greet(session)
            prompt(session, input, limit)
            return
        text = sys.stdin.read() if query is None else query
        if not text.strip():
            raise OptionError("there is no query", 'write it: asknown sql "FROM ..."')
        session.stoppable(lambda: _run(session, text, chosen, output, limit))


def _root(root: str | None, file: Path | None) -> str:
    """Where the logs are: as said, else as the file of providers says."""
    if root is not None:
        return root
    found = file or next((Path(name) for name in FILES if Path(name).is_file()), None)
    if found is None:
        return ROOT
    from ingestion.providers import load_providers

    return load_providers(found).root or ROOT


def _format(form: Format | None, output: Path | None) -> Format:
    if output is None:
        if form is Format.parquet:
            raise OptionError("Parquet goes to a file", "add --output rows.parquet")
        return form or Format.table
    endings = {".csv": Format.csv, ".json": Format.json, ".parquet": Format.parquet}
    chosen = form or endings.get(output.suffix.lower())
    if chosen is None or chosen is Format.table:
        raise OptionError(f"--output {output}: it is not said in which form", "end it in .csv, .json or .parquet")
    return chosen


# -------------------------------------------------------------------------------------------------------------- writing


def _run(session: SqlSession, text: str, form: Format, output: Path | None, limit: int) -> None:
    answer = session.ask(text)
    if answer is None:
        return
    if form is Format.table:
        _table(answer, limit)
    elif output is None:
        _write_text(answer, form, sys.stdout)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        rows = _write_parquet(answer, output) if form is Format.parquet else _write_file(answer, form, output)
        render.say(f"{rows:,} rows -> {output}")


def _table(answer: Answer, limit: int) -> None:
    found, more = answer.head(limit)
    if answer.columns == ["explain_key", "explain_value"]:
        typer.echo("\n".join(found["explain_value"]))
        return
    if found.is_empty():
        render.say(f"no rows; the columns are {', '.join(answer.columns)}")
        return
    render.table(found.to_dicts())
    if more:
        render.say(f"the first {limit} rows; --limit N prints more, --format csv all")


def _write_parquet(answer: Answer, output: Path) -> int:
    rows = 0
    with ParquetFile(output) as target:
        for frame in answer.frames():
            target.write(frame)
            rows += frame.height
    return rows


def _write_file(answer: Answer, form: Format, output: Path) -> int:
    """A file that is there only once all of it is."""
    partial = output.with_name(output.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as target:
            rows = _write_text(answer, form, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(output)
    return rows


def _write_text(answer: Answer, form: Format, target: TextIO) -> int:
    rows = 0
    for number, frame in enumerate(answer.frames()):
        if form is Format.csv:
            target.write(_csv(frame, header=number == 0))
        else:
            lines = [json.dumps(_plain(row), ensure_ascii=False) for row in frame.iter_rows(named=True)]
            target.write(
                ("[" if number == 0 else "") + "".join(f"{',' if rows + n else ''}\n{x}" for n, x in enumerate(lines))
            )
        rows += frame.height
    target.write("" if form is Format.csv else "\n]\n")
    return rows


def _csv(frame: pl.DataFrame, *, header: bool) -> str:
    """Comma separated values: instants in UTC, durations in seconds, lists and structs as JSON, binary as hexadecimal."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    zoned = [
        name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone is not None
    ]
    frame = frame.with_columns(
        cs.by_name(zoned).dt.convert_time_zone("UTC").dt.strftime(_INSTANT + "Z"),
        (cs.datetime() - cs.by_name(zoned)).dt.strftime(_INSTANT),
        cs.duration().dt.total_microseconds() / 1e6,
        cs.binary().bin.encode("hex"),
        *(
            pl.Series(name, [None if x is None else json.dumps(_plain(x)) for x in frame[name].to_list()], pl.String)
            for name in nested
        ),
    )
    return frame.write_csv(include_header=header)


def _plain(value: Any) -> Any:
    """A value as JSON knows it: instants as ISO 8601 in UTC, durations in seconds, NaN and infinities as texts."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str | int | float) else render.plain(value)


# ------------------------------------------------------------------------------------------------------------ at a prompt


def _greet(session: SqlSession) -> None:
    import duckdb

    render.say(f"DuckDB {duckdb.__version__} over the logs in {session.root}; instants in UTC; .help tells more")
    _tables(session)


def _tables(session: SqlSession) -> None:
    render.table(
        [
            {
                "observations": one.names.view,
                "known at t": f"{one.names.as_of}(t)",
                "all that is stored": one.names.rows,
                "position": one.position,
            }
            for one in session.opened.values()
        ]
    )


def prompt(session: SqlSession, read: Callable[[str], str], limit: int) -> None:
    """Ask for statements and print their results until the end; errors are printed too.

    Args:
        session: What answers.
        read: Shows a prompt and returns a line; raises `EOFError` at the end.
        limit: Rows to print.
    """
    with suppress(ImportError):  # not on every system
        import readline  # noqa: F401 - `input` edits lines and remembers them once this is there
    waiting: list[str] = []
    while True:
        try:
            line = read("    ...> " if waiting else "asknown> ")
        except EOFError:
            render.say("")
            return
        except KeyboardInterrupt:
            waiting = []
            render.say("")
            continue
        word, _, rest = line.strip().partition(" ")
        if not waiting and word.startswith("."):
            if word in (".quit", ".exit"):
                return
            limit = _dot(session, word, rest.strip(), limit)
            continue
        waiting += [line] if line.strip() or waiting else []
        if waiting and line.rstrip().endswith(";"):
            text, waiting = "\n".join(waiting), []
            _answer(session, text, limit)


def _dot(session: SqlSession, word: str, rest: str, limit: int) -> int:
    if word == ".tables":
        _tables(session)
    elif word == ".refresh":
        session.refresh()
        _tables(session)
    elif word == ".limit" and rest.isdecimal() and int(rest) > 0:
        return int(rest)
    else:
        render.say(_HELP)
    return limit


def _answer(session: SqlSession, text: str, limit: int) -> None:
    """One result at the prompt, or what is wrong with the question."""
    try:
        session.stoppable(lambda: _run(session, text, Format.table, None, limit))
    except QueryError as error:
        render.complain(error, type(error).__name__)
    except KeyboardInterrupt:
        render.say("stopped")


# ------------------------------------------------------------------------------------------------------- as text


def _print_macros(root: str, options: dict[str, str] | None, dialect: Dialect, source: Source) -> None:
    providers = ingestion.list_logs(root, storage_options=options)
    if not providers:
        raise NoLogsError(root, or_else="or say where they are: --root FOLDER")
    names = ingestion.sql_names(providers)
    needs = {Dialect.duckdb: "the extension delta (INSTALL delta)", Dialect.spark: "Delta Lake"}[dialect]
    reads = (
        f"the Delta tables, for which it needs {needs}" if source is Source.delta else "the files that there are now"
    )
    typer.echo(f"-- asknown {version('asknown')}: what was known at t, for {dialect.value}. It reads {reads}.")
    for provider in providers:
        log = ingestion.open_log(root, provider, storage_options=options)
        statements = ingestion.snapshot_sql(log, dialect.value, source=source.value, names=names[provider])
        typer.echo(
            f"\n-- {provider}: {log.kind} by {', '.join(log.entities) or 'one series'}, position {log.position()}"
        )
        for statement in statements:
            typer.echo(f"{statement};")
