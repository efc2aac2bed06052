"""What a sender's bytes are: rows that can be stored, or a reason why not. Read once, when they come."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from ingestion.errors import PayloadError
from ingestion.sources.layout import Layout
from ingestion.sources.parsing import parse_payload
from ingestion.spool.frames import Form

JSON: Final = frozenset({"application/json", "text/json"})
LINES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-seq",
    }
)
ARROW: Final = frozenset({"application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"})
NEVER_SENT: Final = frozenset({"log_sequence", "batch_id", "record_kind", "record_detail"})
"""Names of columns that only the log fills."""

_decode = msgspec.json.Decoder().decode
_decode_lines = msgspec.json.Decoder().decode_lines
_encode_lines = msgspec.json.Encoder().encode_lines


class Body(NamedTuple):
    """Bytes that were read.

    Attributes:
        form: How they are kept.
        content: What is kept.
        rows: How many rows.
        media_type: Of a document.
    """

    form: Form
    content: bytes
    rows: int
    media_type: str = ""


def read_body(content: bytes, media_type: str, layout: Layout, *, provider: str, label: str) -> Body:
    """The rows in some bytes.

    JSON becomes lines, so that thousands of bodies can be read in one go later: one object, a list of them, `{"rows": [...]}`,
    or what the layout's `records` leads to. Arrow, and JSON whose layout needs the whole document, are kept as they are.

    Args:
        content: The bytes, not compressed.
        media_type: What the sender said they are, in small letters and without parameters; empty if it said nothing.
        layout: How the provider lays out its rows.
        provider: For messages.
        label: Where they came from, for messages.

    Raises:
        PayloadError: If they are malformed; it names the place.
    """
    kind = _kind(content, media_type, layout)
    if kind == "document" or any(path.startswith("$.") for path in (layout.columns or {}).values()):
        try:
            frame = parse_payload(content, layout, provider=provider, label=label, media_type=media_type)
        except pl.exceptions.PanicException as error:  # not an Exception: bytes must not end a job
            raise PayloadError(provider, label, f"cannot be read: {error}") from None
        return Body("document", content, frame.height, media_type)
    try:
        rows = _lines(content) if kind == "lines" else _records(_decode(content), layout)
    except msgspec.DecodeError as error:
        raise PayloadError(provider, label, _place(error, content, kind)) from None
    except UnicodeDecodeError:
        raise PayloadError(provider, label, f"not UTF-8 at byte {_first_not_text(content)}") from None
    except RecursionError:
        raise PayloadError(provider, label, "JSON that is nested too deeply") from None
    except LookupError as error:
        raise PayloadError(provider, label, f"no rows at {layout.records!r}: there is no {error.args[0]!r}") from None
    _check(rows, provider, label, "line" if kind == "lines" else "row")
    return Body("ndjson", _written(rows), len(rows))


def _kind(content: bytes, media_type: str, layout: Layout) -> str:
    if layout.format not in ("auto", "json", "ndjson"):
        return "document"
    if media_type in LINES or layout.format == "ndjson":
        return "lines"
    if media_type in JSON or layout.format == "json" or media_type.endswith("+json"):
        return "json"
    if media_type:
        return "document"
    return "json" if content.lstrip()[:1] in {b"{", b"["} else "document"


def _lines(content: bytes) -> list[Any]:
    return _decode_lines(content.removeprefix(b"\xef\xbb\xbf").replace(b"\x1e", b""))


def _records(found: Any, layout: Layout) -> list[Any]:
    if layout.records is not None:
        for step in layout.records.split("."):
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise LookupError(step)
    elif isinstance(found, dict) and len(found) == 1 and isinstance(found.get("rows"), list):
        found = found["rows"]
    return found if isinstance(found, list) else [found]


def _check(rows: list[Any], provider: str, label: str, unit: str) -> None:
    """Refuse rows that are no objects, or that fill what only the log fills.

    Raises:
        PayloadError: If there is one; it names the first.
    """
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            shown = json.dumps(row, ensure_ascii=False)[:80]
            raise PayloadError(provider, label, f"{unit} {number} is not an object: {shown}")
        if not NEVER_SENT.isdisjoint(row):
            name = min(NEVER_SENT & set(row))
            raise PayloadError(provider, label, f"{unit} {number} has a field {name!r}, which only the log fills")


def _written(rows: list[Any]) -> bytes:
    try:
        return bytes(_encode_lines(rows)).rstrip(b"\n")
    except (OverflowError, UnicodeEncodeError):  # whole numbers beyond 64 bits, halves of surrogate pairs
        return b"\n".join(json.dumps(row, separators=(",", ":")).encode() for row in rows)


def _place(error: msgspec.DecodeError, content: bytes, kind: str) -> str:
    """What is wrong, and where: of lines, in which one."""
    if not content.strip():
        return "empty where JSON was expected"
    if kind == "lines":
        for number, line in enumerate(content.split(b"\n"), start=1):
            try:
                _decode_lines(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as found:
                return f"line {number}: {_said(found, line)}"
    return _said(error, content)


def _said(error: Exception, content: bytes) -> str:
    message, found, rest = str(error).rpartition(" (byte ")
    if not found:
        return f"{error}, after {len(content)} bytes"
    place = int(rest.rstrip(")"))
    near = content[max(0, place - 20) : place + 20].decode("utf-8", "replace")
    return f"{message} at byte {place}, near {near!r}"


def _first_not_text(content: bytes) -> int:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(content)
