"""Bytes to rows. Pure: the same bytes and the same layout always give the same frame."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ingestion.errors import PayloadError, nearest
from ingestion.sources.layout import ABSENT, BROKEN, Format, Layout
from ingestion.sources.times import read_instants
from ingestion.sources.values import as_text, column_of, column_of_texts

MAX_BYTES: Final = 1 << 30
"""How much a compressed payload may become, unless the caller says otherwise."""
_SHOWN = 80
_decode_lines = msgspec.json.Decoder().decode_lines
_GZIP = b"\x1f\x8b"
_MEDIA_TYPES: dict[str, Format] = {
    "application/json": "json",
    "text/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/geo+json-seq": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
}
_ENDINGS: dict[str, Format] = {
    "json": "json",
    "geojson": "json",
    "ndjson": "ndjson",
    "jsonl": "ndjson",
    "csv": "csv",
    "parquet": "parquet",
    "arrow": "arrow",
    "arrows": "arrow",
    "ipc": "arrow",
    "feather": "arrow",
}


def parse_payload(
    content: bytes, layout: Layout, *, provider: str, label: str, media_type: str = "", max_bytes: int = MAX_BYTES
) -> pl.DataFrame:
    r"""The rows in some bytes.

    Args:
        content: The bytes, perhaps gzipped.
        layout: Where the rows are and what their columns are called.
        provider: For messages.
        label: Where the bytes came from, for messages; its ending tells the format if nothing else does.
        media_type: What the sender said they are.
        max_bytes: How much they may be once decompressed.

    Returns:
        One row per record, in their order; our columns in the layout's order, then its constants. Instants are Datetime us
        UTC, everything else keeps its type (see `column_of`). A mapped column that no row has is left out. With
        `mark_absent`, `__absent` (List of String) names the columns that were not sent. If something in a row cannot be
        read, it is null there and `__broken` (String) says why; where nothing in a column can be read, that is an error.

    Raises:
        PayloadError: If the bytes are cut off, malformed, or not laid out like this; it names the place.

    Example:
        >>> layout = Layout(format="csv", columns={"event_time": "at", "load_kw": "kw"})
        >>> content = b"at,kw\n2025-06-01T12:00:00Z,310\n"
        >>> parse_payload(content, layout, provider="meter", label="june.csv").row(0, named=True)["load_kw"]
        310
    """
    at = _Place(provider, label)
    content = _decompressed(content, at, max_bytes)
    try:
        return _rows(_read(content, layout, at, media_type), layout, at)
    except (pl.exceptions.PolarsError, pa.ArrowException, OverflowError) as error:
        at.fail(f"cannot be read: {_first_line(error)}")


def state_time_of(
    content: bytes, layout: Layout, *, provider: str, label: str, max_bytes: int = MAX_BYTES
) -> datetime | None:
    """The instant that a whole state says it tells of; `None` if its layout names no such field, or the field is null.

    Raises:
        PayloadError: If the document cannot be read, or holds no instant there.
    """
    how = layout.state_time
    if how is None:
        return None
    at = _Place(provider, label)
    found = _at_path(_json(_decompressed(content, at, max_bytes), at), how.path)
    if found is _MISSING or found is None:
        return None
    instants, problems = read_instants(column_of(how.path, [found]), how)
    if problems[0] is not None:
        at.fail(f"{how.path}: {problems[0]}")
    result: datetime | None = instants[0]
    return result


# ---- places ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something is wrong."""

    provider: str
    label: str

    def fail(self, problem: str, hint: str = "") -> NoReturn:
        """Say what is wrong here.

        Raises:
            PayloadError: Always.
        """
        raise PayloadError(self.provider, self.label, problem, hint) from None


def shown(content: bytes | str, position: int = 0) -> str:
    """At most 80 characters from some place on, on one line."""
    text = content[position : position + 4 * _SHOWN]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return repr(text[:_SHOWN])


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def count_records(content: bytes, layout: Layout, *, provider: str, label: str, media_type: str = "") -> int:
    """How many rows are in some bytes.

    Raises:
        PayloadError: If they cannot be read.
    """
    at = _Place(provider, label)
    return _read(_decompressed(content, at, MAX_BYTES), layout, at, media_type).height


def find_in_json(content: bytes, path: str, *, provider: str, label: str) -> Any:
    """What a dot path leads to in a JSON document; `None` if it leads nowhere.

    Raises:
        PayloadError: If the bytes are not JSON.
    """
    at = _Place(provider, label)
    found = _at_path(_json(_decompressed(content, at, MAX_BYTES), at), path)
    return None if found is _MISSING else found


# ---- bytes to records ------------------------------------------------------------------------------------------------


class _Records(Protocol):
    """Rows of which columns can be asked for by the provider's names."""

    height: int

    def names(self) -> list[str]:
        """Names of the top-level fields, in the order in which they first occur."""
        ...

    def column(self, path: str, *, text: bool) -> tuple[pl.Series | None, pl.Series | None]:
        """The values there, and in which rows the field is absent (`None`: in none); no values if no row has it."""
        ...


def _decompressed(content: bytes, at: _Place, max_bytes: int) -> bytes:
    if not content.startswith(_GZIP):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            plain = stream.read(max_bytes + 1)
    except EOFError:
        at.fail(f"the gzip data is cut off after {len(content)} bytes")
    except (OSError, zlib.error) as error:
        at.fail(f"the gzip data is damaged: {_first_line(error)}")
    if len(plain) > max_bytes:
        at.fail(f"the gzip data becomes more than {max_bytes} bytes", "raise max_bytes if that is right.")
    return plain


def _read(content: bytes, layout: Layout, at: _Place, media_type: str) -> _Records:
    kind = layout.format if layout.format != "auto" else _guess(content, at, media_type)
    if kind == "json":
        return _json_records(content, layout, at)
    if kind == "ndjson":
        rows = _whole_lines(content) or list(_json_lines(content, at))
        return _Objects(rows, None)
    if kind == "csv":
        return _Table(_csv(content, layout, at), layout)
    return _Table(_parquet(content, at) if kind == "parquet" else _arrow(content, at), None)


def _guess(content: bytes, at: _Place, media_type: str) -> Format:
    essence = media_type.partition(";")[0].strip().lower()
    ending = urlsplit(at.label).path.lower().removesuffix(".gz").rpartition(".")[2]
    if found := _MEDIA_TYPES.get(essence) or _ENDINGS.get(ending):
        return found
    if essence.endswith("+json") or content.lstrip()[:1] in {b"{", b"["}:
        return "json"
    if content.startswith(b"PAR1"):
        return "parquet"
    if content.startswith(b"ARROW1"):
        return "arrow"
    return at.fail(f"of unknown format, begins with {shown(content)}", "say it in the layout, e.g. format: csv.")


def _json(content: bytes, at: _Place) -> Any:
    if not content.strip():
        at.fail("empty where JSON was expected")
    root = None
    try:
        root = json.loads(content)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
            at.fail(f"the JSON is cut off after {len(content)} bytes, which begin with {shown(content)}")
        at.fail(f"not JSON at character {error.pos}: {shown(error.doc, error.pos)}")
    except UnicodeDecodeError as error:
        at.fail(f"not text in {error.encoding} at byte {error.start}: {shown(content, error.start)}")
    except RecursionError:
        at.fail(f"JSON that is nested too deeply, begins with {shown(content)}")
    except ValueError as error:  # a number with thousands of digits
        at.fail(f"not usable JSON: {_first_line(error)}")
    return root


def _whole_lines(content: bytes) -> list[dict[str, Any]]:
    """The rows in lines that are beyond reproach, several times as quickly; none of others, which are looked at one by one."""
    try:
        rows = _decode_lines(content)
    except (ValueError, RecursionError):
        return []
    plain = len(rows) == content.count(b"\n") + (not content.endswith(b"\n"))
    return rows if plain and all(type(row) is dict for row in rows) else []


def _json_lines(content: bytes, at: _Place) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        text = line.strip(b"\x1e \t\r")
        if not text:
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            at.fail(f"line {number} is not JSON: {shown(text)}")
        if not isinstance(row, dict):
            at.fail(f"line {number} is not an object: {shown(text)}")
        yield row


def _json_records(content: bytes, layout: Layout, at: _Place) -> _Records:
    root = _json(content, at)
    found = root if layout.records is None else _at_path(root, layout.records)
    if found is _MISSING:
        at.fail(
            f"no rows at {layout.records!r}; it begins with {shown(content)}",
            f"its top-level fields are {', '.join(map(repr, list(root)[:12]))}." if isinstance(root, dict) else "",
        )
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            at.fail(f"row {number} is not an object: {shown(as_text(row))}")
    return _Objects(rows, root)


def _csv(content: bytes, layout: Layout, at: _Place) -> pl.DataFrame:
    """All columns as text: empty is null, `""` is empty text."""
    if not content.strip():
        at.fail("empty where CSV was expected")
    if b"\0" in content and not layout.encoding.lower().startswith("utf-16"):
        at.fail(f"not CSV: a zero byte at byte {content.index(0)}")
    if content.count(b'"') % 2:
        _check_quotes(content, layout, at)
    parse = pacsv.ParseOptions(delimiter=layout.separator, newlines_in_values=True)
    try:
        names = _csv_names(content, layout, parse)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            at.fail(f"its header names {twice[0]!r} twice")
        table = pacsv.read_csv(
            io.BytesIO(content),
            read_options=pacsv.ReadOptions(encoding=layout.encoding),
            parse_options=parse,
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=["", *layout.nulls],
            ),
        )
    except UnicodeDecodeError as error:
        at.fail(f"not text in {layout.encoding} at byte {error.start}: {shown(content, error.start)}")
    except pa.ArrowInvalid as error:
        at.fail(f"not CSV: {_first_line(error)}")
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker
    return frame


def _csv_names(content: bytes, layout: Layout, parse: pacsv.ParseOptions) -> list[str]:
    options = pacsv.ReadOptions(encoding=layout.encoding, block_size=1 << 16)
    try:
        with pacsv.open_csv(io.BytesIO(content), read_options=options, parse_options=parse) as reader:
            return list(reader.schema.names)
    except pa.ArrowInvalid:  # types that were guessed from the first block, or a very long row
        return list(
            pacsv.read_csv(
                io.BytesIO(content), read_options=pacsv.ReadOptions(encoding=layout.encoding), parse_options=parse
            ).column_names
        )


def _check_quotes(content: bytes, layout: Layout, at: _Place) -> None:
    """An odd number of quotation marks: does one of them open a field that never ends?"""
    lines = io.StringIO(content.decode(layout.encoding, "replace"), newline="")
    try:
        for _ in csv.reader(lines, delimiter=layout.separator, strict=True):
            pass
    except csv.Error as error:
        at.fail(f"the CSV is cut off inside a quoted field, or its quotation marks are wrong: {error}")


def _parquet(content: bytes, at: _Place) -> pl.DataFrame:
    if not content.startswith(b"PAR1"):
        at.fail(f"not Parquet, begins with {shown(content)}")
    if not content.endswith(b"PAR1") or len(content) < 12:
        at.fail(f"the Parquet is cut off after {len(content)} bytes: its footer is missing")
    try:
        return _frame(pq.read_table(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, ValueError) as error:
        at.fail(f"the Parquet is damaged: {_first_line(error)}")


def _arrow(content: bytes, at: _Place) -> pl.DataFrame:
    if not content:
        at.fail("empty where Arrow was expected")
    source = pa.BufferReader(content)
    try:
        if content.startswith(b"ARROW1"):
            with pa.ipc.open_file(source) as reader:
                return _frame(reader.read_all())
        with pa.ipc.open_stream(source) as reader:
            return _frame(reader.read_all())
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        at.fail(f"not whole Arrow IPC: {_first_line(error)}")


def _frame(table: pa.Table) -> pl.DataFrame:
    """A frame of a table that came from elsewhere, whose buffers may lie."""
    table.validate(full=True)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker
    return frame


# ---- records to columns ----------------------------------------------------------------------------------------------

_MISSING: Final = object()


def _at_path(value: Any, path: str) -> Any:
    """What a dot path leads to, or `_MISSING`."""
    if isinstance(value, dict) and path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    if isinstance(value, list):
        found = value[int(head)] if head.isdecimal() and int(head) < len(value) else _MISSING
    elif isinstance(value, dict):
        found = value.get(head, _MISSING)
    else:
        return _MISSING
    return _at_path(found, rest) if dot and found is not _MISSING else found


class _Objects:
    """Rows that are JSON objects."""

    def __init__(self, rows: list[dict[str, Any]], root: Any) -> None:
        self.rows = rows
        self.root = root
        self.height = len(rows)

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, path: str, *, text: bool) -> tuple[pl.Series | None, pl.Series | None]:  # noqa: ARG002 - JSON says it
        if path.startswith("$."):
            found = [_at_path(self.root, path[2:])] * self.height
        elif "." in path:
            found = [_at_path(row, path) for row in self.rows]
        else:
            found = [row.get(path, _MISSING) for row in self.rows]
        gone = [value is _MISSING for value in found]
        if not any(gone):
            return column_of(path, found), None
        values = None if all(gone) else column_of(path, [None if value is _MISSING else value for value in found])
        return values, pl.Series(gone, dtype=pl.Boolean)


class _Table:
    """Rows that came as a table; of CSV all columns are text."""

    def __init__(self, frame: pl.DataFrame, text_of: Layout | None) -> None:
        self.frame = frame
        self.text_of = text_of
        self.height = frame.height

    def names(self) -> list[str]:
        return self.frame.columns

    def column(self, path: str, *, text: bool) -> tuple[pl.Series | None, pl.Series | None]:
        found = self._at(path)
        if found is None:
            return None, pl.Series([True] * self.height, dtype=pl.Boolean)
        if self.text_of is None or text:
            return found, None
        return column_of_texts(found, decimal_comma=self.text_of.decimal_comma), None

    def _at(self, path: str) -> pl.Series | None:
        if path in self.frame.columns:
            return self.frame[path]
        head, *rest = path.split(".")
        if head not in self.frame.columns:
            return None
        found = self.frame[head]
        for step in rest:
            if isinstance(found.dtype, pl.Struct) and step in found.struct.fields:
                found = found.struct.field(step)
            elif isinstance(found.dtype, pl.List) and step.isdecimal():
                found = found.list.get(int(step), null_on_oob=True)
            elif isinstance(found.dtype, pl.Array) and step.isdecimal() and int(step) < found.dtype.size:
                found = found.arr.get(int(step))
            else:
                return None
        return found


# ---- the layout applied ----------------------------------------------------------------------------------------------


def _rows(records: _Records, layout: Layout, at: _Place) -> pl.DataFrame:
    """The frame that the layout describes."""
    if layout.columns is None and (own := {ABSENT, BROKEN} & set(records.names())):
        at.fail(f"has a field {min(own)!r}, which is a name of our own", "give it another: columns: {ours: theirs}.")
    columns: dict[str, pl.Series] = {}
    absent: dict[str, pl.Series] = {}
    broken: dict[str, pl.Series] = {}
    for ours, path in _mapped(records, layout):
        how = layout.time_format(ours)
        values, gone = records.column(path, text=how is not None or ours in layout.text)
        if gone is not None and gone.any():
            absent[ours] = gone
        if values is None:
            if records.height and not layout.mark_absent:
                continue
            values = pl.Series(ours, [None] * records.height, dtype=pl.Null)
        if layout.nulls and values.dtype == pl.String:
            values = values.set(values.is_in(list(layout.nulls)).fill_null(value=False), None)
        if how is not None:
            values, problems = read_instants(values, how)
            _check_some_are_read(ours, values, problems, at)
            broken[ours] = problems
        columns[ours] = values.alias(ours)
    _check_some_are_there(columns, records, layout, at)
    for name, value in layout.constants.items():
        columns[name] = column_of(name, [value] * records.height).cast(column_of(name, [value]).dtype)
    if layout.retraction is not None:
        columns["is_retraction"] = _retractions(records, layout)
    if layout.mark_absent:
        columns[ABSENT] = _joined(absent, records.height)
    if any(problems.null_count() < len(problems) for problems in broken.values()):
        columns[BROKEN] = _reasons(broken)
    return pl.DataFrame(columns)


def _mapped(records: _Records, layout: Layout) -> list[tuple[str, str]]:
    """Our names with the provider's paths; constants hide fields of their name."""
    if layout.columns is None:
        return [(name, name) for name in records.names() if name not in layout.constants]
    pairs = list(layout.columns.items())
    if layout.others == "keep":
        taken = {*layout.columns, *layout.columns.values(), *layout.constants, ABSENT, BROKEN}
        pairs += [(name, name) for name in records.names() if name not in taken]
    return pairs


def _check_some_are_read(ours: str, instants: pl.Series, problems: pl.Series, at: _Place) -> None:
    first = problems.drop_nulls().head(1).to_list()
    if first and instants.null_count() == len(instants):
        at.fail(
            f"no value of {ours!r} can be read: {first[0]}",
            f'say how it is written, e.g. times: {{{ours}: {{format: iso, zone: "Europe/Berlin"}}}}.',
        )


def _check_some_are_there(columns: dict[str, pl.Series], records: _Records, layout: Layout, at: _Place) -> None:
    if isinstance(records, _Table) and (problem := layout.header_problem(records.names())):
        at.fail(*problem)
    for ours, path in (layout.columns or {}).items():
        if records.height and ours in layout.required and ours not in columns:
            at.fail(f"there is no field {path!r} (for {ours})", nearest(path, records.names()))
    if layout.columns and records.height and not columns:
        named = ", ".join(map(repr, records.names()[:12]))
        at.fail("has none of the columns that are declared", f"its own are {named}.")


def _retractions(records: _Records, layout: Layout) -> pl.Series:
    rule = layout.retraction
    assert rule is not None  # noqa: S101 - for the type checker
    values, _ = records.column(rule.column, text=True)
    if values is None:
        return pl.Series([False] * records.height, dtype=pl.Boolean)
    wanted = [value if isinstance(value, str) else as_text(value) for value in rule.values]
    return values.cast(pl.String).is_in(wanted).fill_null(value=False)


def _joined(absent: dict[str, pl.Series], height: int) -> pl.Series:
    if not absent:
        return pl.Series([[] for _ in range(height)], dtype=pl.List(pl.String))
    return pl.select(
        pl.concat_list(pl.when(gone).then(pl.lit(name)) for name, gone in absent.items()).list.drop_nulls()
    ).to_series()


def _reasons(broken: dict[str, pl.Series]) -> pl.Series:
    said = [pl.lit(f"{name}: ") + problems for name, problems in broken.items()]
    joined = pl.select(pl.concat_str(said, separator="; ", ignore_nulls=True)).to_series()
    return joined.set(joined == "", None)
