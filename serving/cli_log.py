"""`asknown log`: append to observation logs, describe, compact and erase."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
import typer

import alignment as al
import ingestion
from serving import render
from serving.delay_options import HELP_FOR_HISTORY, parse_delay
from serving.errors import MissingExtraError, NoLogsError, OptionError
from serving.files import check_picture, read_parquet

if TYPE_CHECKING:
    from ingestion import LogInfo, ObservationLog

app = typer.Typer(help="The observation log: append, look, compact, erase.", no_args_is_help=True)

Root = Annotated[str, typer.Argument(help="Folder or object-store address that holds the logs.")]
Provider = Annotated[str, typer.Argument(help="The provider, also the name of its log.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StorageOption = Annotated[
    list[str] | None,
    typer.Option("--storage-option", help="KEY=VALUE, passed on to the object store; may be repeated."),
]
_TIMES: Final = ("event_time", "arrival_time", "issue_time")


class Kind(StrEnum):
    """What a provider sends."""

    measurement = "measurement"
    forecast = "forecast"


def storage_options(given: list[str] | None) -> dict[str, str] | None:
    """`KEY=VALUE` texts as a mapping; None if there are none.

    Args:
        given: What the command line had.

    Returns:
        Key to value.

    Raises:
        OptionError: If one has no `=`.
    """
    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    if broken := [key for key, equals, _ in pairs if not equals]:
        raise OptionError(f"--storage-option {broken[0]!r} has no value", f"write --storage-option {broken[0]}=VALUE")
    return {key: value for key, _, value in pairs}


def instant(text: str, option: str) -> datetime:
    """An instant given on the command line.

    Args:
        text: ISO 8601 with a zone.
        option: The option, for the message.

    Returns:
        The instant.

    Raises:
        OptionError: If it cannot be read or has no zone.
    """
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise OptionError(f"{option} {text!r} is not an instant", f"write {option} 2026-06-01T12:00:00Z") from error
    if value.tzinfo is None:
        raise OptionError(f"{option} {text!r} has no zone", f"write {option} {value.isoformat()}Z")
    return value


@app.command()
def append(
    root: Root,
    provider: Provider,
    files: Annotated[list[Path], typer.Argument(help="Parquet files, appended in this order, each as one batch.")],
    entities: Annotated[
        str | None,
        typer.Option(help="Entity columns, comma separated; makes the log if there is none. '' is one series."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the provider sends, for a new log.")] = Kind.measurement,
    key: Annotated[str | None, typer.Option(help="Id columns of the provider, comma separated, for a new log.")] = None,
    event_time: Annotated[str, typer.Option(help="Column with the event time.")] = "event_time",
    arrival_time: Annotated[str, typer.Option(help="Column with the arrival; '' stamps now.")] = "arrival_time",
    issue_time: Annotated[str, typer.Option(help="Column with the issue time of forecasts.")] = "issue_time",
    values: Annotated[str | None, typer.Option(help="Value columns to keep, comma separated; all by default.")] = None,
    zone: Annotated[str | None, typer.Option(help="IANA zone of times that have none.")] = None,
    backfill: Annotated[bool, typer.Option("--backfill", help="The rows are history; needs --delay.")] = False,
    delay: Annotated[
        str | None, typer.Option(help=f"How late rows of unknown arrival were. {HELP_FOR_HISTORY}")
    ] = None,
    evolve: Annotated[bool, typer.Option("--evolve", help="Allow new columns and wider types.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be appended, and stop.")] = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Append Parquet files to a provider's log; the same file twice is appended once."""
    times = {"event_time": event_time, "arrival_time": arrival_time or None, "issue_time": issue_time}
    options = storage_options(storage_option)
    if zone is not None:
        _check_zone(zone)
    log = _existing(root, provider, options)
    if log is not None and entities is not None and words(entities) != log.entities:
        raise OptionError(
            f"the log of {provider!r} has the entities {','.join(log.entities)!r}, not {entities!r}",
            "leave --entities out, or name another provider",
        )
    if log is None and entities is None:
        raise OptionError(
            f"{root!r} has no log of provider {provider!r} yet, and it is not said which columns name the entity",
            "say it: --entities station, or --entities '' for one series",
        )
    keys = [*words(entities), *words(key)] if log is None else log.definition.key_columns

    def batch(path: Path) -> tuple[pl.DataFrame, str]:
        return read_batch(path, times, values=words(values), keys=keys, zone=zone)

    rule = parse_delay(delay, provider)
    if log is None:
        definition = ingestion.ProviderDefinition(
            provider=provider, entities=tuple(words(entities)), kind=kind.value, key=tuple(words(key)) or None
        )
    else:
        definition = log.definition

    def checked(path: Path) -> tuple[pl.DataFrame, str]:
        frame, batch_id = batch(path)
        ingestion.check_batch(frame, definition, backfill=backfill, delay=rule)
        return frame, batch_id

    if dry_run:
        _print([_would_append(path, *checked(path)) for path in files], as_json=as_json)
        return
    if log is None:
        checked(files[0])  # what a log is by stays as it is: a slip must not leave an empty one behind
        log = ingestion.create_log(
            root,
            provider,
            entities=words(entities),
            kind=kind.value,
            key=words(key) or None,
            storage_options=options,
            exist_ok=True,
        )
    reports = []
    with render.progress("append", total=len(files)) as bar:
        for path in files:
            frame, batch_id = batch(path)
            reports.append(log.append(frame, batch_id=batch_id, backfill=backfill, delay=rule, evolve=evolve))
            bar.advance(bar.task_ids[0])
    if as_json:
        render.as_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            typer.echo(str(report))


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise OptionError(
            f"--zone {zone!r} is not an IANA zone", "write --zone Europe/Berlin, say, or --zone UTC"
        ) from error


def _would_append(path: Path, frame: pl.DataFrame, batch_id: str) -> dict[str, Any]:
    return {"file": str(path), "rows": frame.height, "columns": frame.columns, "batch": batch_id}


def _existing(root: str, provider: str, options: dict[str, str] | None) -> ObservationLog | None:
    if provider not in ingestion.list_logs(root, storage_options=options):
        return None
    return ingestion.open_log(root, provider, storage_options=options)


def read_batch(
    path: Path, times: dict[str, str | None], *, values: list[str], keys: list[str], zone: str | None
) -> tuple[pl.DataFrame, str]:
    """A Parquet file as a batch, and its batch id, which follows from its name and content.

    Args:
        path: The file.
        times: The log's time columns to the file's.
        values: Value columns to keep; empty keeps all.
        keys: Entity and id columns, kept in any case.
        zone: IANA zone of times without one.

    Returns:
        The frame with the log's column names, and the batch id.

    Raises:
        OptionError: If a named column is not there, or two columns would have one name.
    """
    frame = read_parquet(path)
    renames = {source: ours for ours, source in times.items() if source is not None and source != ours}
    if missing := [source for source in renames if source not in frame.columns]:
        option = renames[missing[0]].replace("_", "-")
        raise OptionError(
            f"{path}: it has no column {missing[0]!r} for --{option}", f"its columns are {', '.join(frame.columns)}"
        )
    if taken := sorted(set(renames.values()) & set(frame.columns) - set(renames)):
        raise OptionError(
            f"{path}: it has a column {taken[0]!r} already", f"name it: --{taken[0].replace('_', '-')} {taken[0]}"
        )
    frame = frame.rename(renames)
    if times["arrival_time"] is None:
        frame = frame.drop("arrival_time", strict=False)
    if values:
        kept = [*keys, *_TIMES, "is_retraction", *values]
        frame = frame.select(name for name in frame.columns if name in kept)
    if zone is not None:
        naive = [
            name for name in _TIMES if name in frame.columns and getattr(frame.schema[name], "time_zone", "") is None
        ]
        frame = frame.with_columns(pl.col(name).dt.replace_time_zone(zone) for name in naive)
    return frame, f"{path.name}-{_digest(path)}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def words(text: str | None) -> list[str]:
    """Comma separated words of an option.

    Args:
        text: What the command line had, or None.

    Returns:
        The words, without blanks around them.
    """
    return [word.strip() for word in (text or "").split(",") if word.strip()]


@app.command()
def info(
    root: Root,
    provider: Annotated[str | None, typer.Argument(help="One provider; all by default.")] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show what logs there are: kind, entities, rows, position, time range, columns."""
    options = storage_options(storage_option)
    names = [provider] if provider else ingestion.list_logs(root, storage_options=options)
    if not names:
        raise NoLogsError(root)
    found = [ingestion.open_log(root, name, storage_options=options).info() for name in names]
    if as_json:
        render.as_json([report.to_dict() for report in found])
    elif provider:
        typer.echo(str(found[0]))
    else:
        render.table([_overview(report) for report in found])


def _overview(report: LogInfo) -> dict[str, Any]:
    return {
        "provider": report.provider,
        "kind": report.definition["kind"],
        "entities": ", ".join(report.definition["entities"]),
        "rows": report.rows,
        "files": report.files,
        "first_event": report.first_event,
        "last_event": report.last_event,
        "observed_through": report.observed_through,
        "position": report.position,
    }


@app.command()
def profile(
    root: Root,
    provider: Provider,
    within: Annotated[
        float, typer.Option(help="A value is near its final one within this many percent.", min=0.0)
    ] = 1.0,
    picture: Annotated[Path | None, typer.Option(help="Also draw it, to this .png, .svg or .pdf.")] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show how late a provider is, how often it corrects itself, and what is odd about its arrivals."""
    check_picture(picture)
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    report = ingestion.profile(log, within_percent=within)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        try:
            report.plot(picture)
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot", "--picture") from error
        render.say(f"picture -> {picture}")
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))


@app.command()
def snapshot(
    root: Root,
    provider: Provider,
    as_of: Annotated[str, typer.Argument(help="The instant, ISO 8601 with zone: 2026-06-01T12:00:00Z.")],
    limit: Annotated[int, typer.Option(help="Rows to print; with --out all are written.", min=1)] = 20,
    out: Annotated[Path | None, typer.Option(help="Write all rows to this Parquet file.")] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show every event as it was known at an instant; of forecasts the newest issue."""
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    frame = al.snapshot(al.Observations(log), instant(as_of, "AS_OF"))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(out)
        render.say(f"{frame.height} rows -> {out}")
        return
    _print(frame.tail(limit).to_dicts(), as_json=as_json)
    render.say(f"{min(limit, frame.height)} of {frame.height} rows, the last ones")


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        render.as_json(rows)
    else:
        render.table(rows)
