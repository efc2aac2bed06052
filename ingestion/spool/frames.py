"""Records as frames in a file: what is whole is found again, whatever happened to the rest.

    file   = "asknown spool 1" newline, frame*
    frame  = mark:4 header-length:u32 payload-length:u32 crc32:u32 header payload        (little-endian)

The mark comes from the name of the file, so that a payload cannot pass for a frame. The checksum covers the lengths, the
header and the payload. A header is one JSON object.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

HEAD = b"asknown spool 1\n"
MARK_BYTES = 4
_MARK = struct.Struct("<I")
_PREFIX = struct.Struct("<4sIII")
_NUMBERS = struct.Struct("<III")
_LENGTHS = struct.Struct("<II")
Form = Literal["ndjson", "document", "raw", "group"]


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a record besides its content.

    Attributes:
        provider: Whose rows they are.
        source: The kind of source: `push`, `nats`, `mqtt`, ...
        received_us: When they were in hand.
        rows: How many.
        form: Of the content: `ndjson`, rows as lines of JSON; `document`, bytes that the provider's layout reads; `raw`, bytes
            that cannot be read; `group`, further records that are kept or lost together.
        media_type: Of a document.
        key: An idempotency key.
        digest: Of the content as it was sent, for the key.
        offset: The place in the broker's stream.
        epoch: Which stream: one that is made again counts from 1 again, with a greater epoch.
        label: Where it came from: a subject, a topic.
        problem: Why it could not be read.
        idle: It has no rows and only says that the stream's connection lived, and that nothing was waiting there.
    """

    provider: str
    source: str
    received_us: int
    rows: int
    form: Form = "ndjson"
    media_type: str = ""
    key: str | None = None
    digest: str = ""
    offset: int | None = None
    epoch: int = 0
    label: str = ""
    problem: str = ""
    idle: bool = False

    @property
    def place(self) -> tuple[int, int] | None:
        """Where in the broker's streams it was: comparable, later ones are greater."""
        return (self.epoch, self.offset) if self.offset is not None else None


class Record(msgspec.Struct, frozen=True):
    """A header and its content."""

    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a file holds.

    Attributes:
        records: The whole frames, in order.
        end: The end of the last whole frame.
        gaps: Spans between whole frames that are no frames.
        tail: The span after the last whole frame that is none: a write that was cut off, or one that went bad.
        tail_is_whole: The tail is as long as its own frame says, so that it was once written to its end.
    """

    records: list[Record]
    end: int
    gaps: list[tuple[int, int]]
    tail: tuple[int, int] | None
    tail_is_whole: bool


_encode_group = msgspec.msgpack.Encoder().encode
_decode_group = msgspec.msgpack.Decoder(list[Record]).decode
_encode_header = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Header).decode


def grouped(records: Sequence[Record]) -> Record:
    """Records of one provider as one, so that a crash keeps all of them or none.

    Raises:
        ValueError: If there are none.
    """
    if not records:
        raise ValueError("a group without records")
    if len(records) == 1:
        return records[0]
    first = records[0].header
    rows = sum(record.header.rows for record in records)
    header = Header(
        provider=first.provider, source=first.source, received_us=first.received_us, rows=rows, form="group"
    )
    return Record(header, _encode_group(records))


def members(record: Record) -> list[Record]:
    """The records in a group; of another record, itself."""
    return _decode_group(record.payload) if record.header.form == "group" else [record]


def mark_of(segment: str) -> bytes:
    """What every frame of a segment begins with."""
    return _MARK.pack(zlib.crc32(segment.encode()))


def encode(record: Record) -> bytes:
    """A record as one frame, without its mark."""
    header = _encode_header(record.header)
    lengths = _LENGTHS.pack(len(header), len(record.payload))
    crc = zlib.crc32(record.payload, zlib.crc32(header, zlib.crc32(lengths)))
    return b"".join((_NUMBERS.pack(len(header), len(record.payload), crc), header, record.payload))


def scan(content: bytes, mark: bytes) -> Scanned:
    """The whole frames of a file, and what lies between and after them."""
    records: list[Record] = []
    gaps: list[tuple[int, int]] = []
    place = end = len(HEAD) if content.startswith(HEAD) else 0
    while place < len(content):
        found = _frame_at(content, place, mark)
        if found is None:
            place = content.find(mark, place + 1)
            if place < 0:
                break
            continue
        if place > end:
            gaps.append((end, place))
        record, end = found
        records.append(record)
        place = end
    tail = (end, len(content)) if end < len(content) else None
    return Scanned(records, end, gaps, tail, tail is not None and _claims_to_fit(content, tail[0], mark))


def _frame_at(content: bytes, place: int, mark: bytes) -> tuple[Record, int] | None:
    if len(content) - place < _PREFIX.size:
        return None
    found, header_length, payload_length, crc = _PREFIX.unpack_from(content, place)
    start = place + _PREFIX.size
    middle, end = start + header_length, start + header_length + payload_length
    if found != mark or end > len(content):
        return None
    view = memoryview(content)
    if zlib.crc32(view[start:end], zlib.crc32(view[place + len(mark) : start - 4])) != crc:
        return None
    try:
        return Record(_decode_header(content[start:middle]), content[middle:end]), end
    except msgspec.MsgspecError:
        return None


def _claims_to_fit(content: bytes, place: int, mark: bytes) -> bool:
    if len(content) - place < _PREFIX.size:
        return False
    found, header_length, payload_length, _ = _PREFIX.unpack_from(content, place)
    return bool(found == mark and place + _PREFIX.size + header_length + payload_length <= len(content))
