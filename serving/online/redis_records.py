"""Rows as bytes: fixed-width records, and a heap for what has no fixed width.

A record is one row: its times, which values are null, and every value of fixed width. Records of several entities, put one
after the other, are one array to NumPy, so that reading a hundred entities costs little more than reading one. A text of
at most 12 bytes lies in the record as an Arrow view; a longer one, a list and everything else lie in the heap. Each record
says how many bytes of the heap are its own: records and heap are appended to and cut in step, and need no addresses.

A restamp (R14) is a record too: it names a row by its sequence, brings a later arrival and has a sequence of its own, so
that the position decides whether it counts, as it does of any row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.layout import Ints
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION
from serving.online.redis_columns import Bits, Part, joined, kind_of

ENCODING = 1
"""Raised when the same rows become other bytes."""

RETRACTED, NO_EVENT, NO_ISSUE, RESTAMP = 1, 2, 4, 8
SEQUENCE = "sequence"

Records = npt.NDArray[Any]


class RecordLayout:
    """How the rows of one view are laid out.

    Args:
        columns: Id and value columns with their types.
        forecast: Whether rows have an issue time.
    """

    def __init__(self, columns: Mapping[str, pl.DataType], *, forecast: bool) -> None:
        self.columns = dict(columns)
        self.forecast = forecast
        self.kinds = {name: kind_of(dtype) for name, dtype in self.columns.items()}
        self.fields = {name: f"c{i}" for i, name in enumerate(self.columns)}
        self.places = {name: i for i, name in enumerate(self.columns)}
        self.has_heap = any(kind.heap for kind in self.kinds.values())
        fields: list[tuple[Any, ...]] = [(SEQUENCE, "<i8")]
        if self.has_heap:
            fields.append(("heap", "<u4"))
        else:
            fields.append(("unused", "<u4"))
        fields += [("flags", "u1"), ("valid", "u1", (max(1, -(-len(self.columns) // 8)),))]
        head = np.dtype(fields)
        if -head.itemsize % 8:
            fields.append(("pad", f"V{-head.itemsize % 8}"))
        fields += [("event", "<i8"), ("arrival", "<i8")]
        if forecast:
            fields.append(("issue", "<i8"))
        stored = [(self.fields[name], *_as_field(kind.width)) for name, kind in self.kinds.items() if kind.width]
        fields += sorted(stored, key=lambda item: -np.dtype([item]).itemsize)
        size = np.dtype(fields).itemsize
        if -size % 8:
            fields.append(("rest", f"V{-size % 8}"))
        self.dtype = np.dtype(fields)

    @property
    def width(self) -> int:
        """Bytes of a record."""
        return int(self.dtype.itemsize)

    @property
    def fingerprint(self) -> str:
        """Changes whenever bytes written under one layout cannot be read under another."""
        said = repr((ENCODING, self.forecast, [(name, repr(dtype)) for name, dtype in self.columns.items()]))
        return hashlib.sha256(said.encode()).hexdigest()

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """Canonical rows (see `alignment.rows`) as bytes, row for row.

        Args:
            frame: `@order`, `@event`, `@arrival`, perhaps `@issue` and `@retraction`, and the columns.
        """
        records = np.zeros(frame.height, self.dtype)
        records[SEQUENCE] = frame[ORDER].to_numpy()
        records["arrival"] = frame[ARRIVAL].to_numpy()
        flags = records["flags"]
        _times(records, "event", frame[EVENT], NO_EVENT)
        if self.forecast:
            _times(records, "issue", frame[ISSUE], NO_ISSUE)
        if RETRACTION in frame.columns:
            flags |= frame[RETRACTION].to_numpy().astype(np.uint8) * np.uint8(RETRACTED)
        used = np.zeros(frame.height, np.uint32)
        parts: list[list[Part]] = []
        for name, kind in self.kinds.items():
            series, place = frame[name], self.places[name]
            there = series.is_not_null().to_numpy().astype(np.uint8)
            records["valid"][:, place >> 3] |= there << np.uint8(place & 7)
            if kind.width is not None and frame.height:
                found = kind.encode(series, records[self.fields[name]], used)
                if found is not None:
                    parts.append(found)
        if self.has_heap:
            records["heap"] = used
        return Encoded(records, joined(parts) if parts else b"")

    def restamps(self, targets: Ints, arrivals: Ints, sequences: Ints) -> Encoded:
        """Records that say: the row `targets` arrived at `arrivals`, by the restamp `sequences`."""
        records = np.zeros(len(targets), self.dtype)
        records[SEQUENCE], records["arrival"], records["event"] = sequences, arrivals, targets
        records["flags"] = RESTAMP
        return Encoded(records, b"")

    def decode(self, pieces: Sequence[tuple[bytes, bytes]], position: int | None = None) -> Decoded:
        """Rows of several entities with `log_sequence <= position`, restamped as they count there.

        Args:
            pieces: Records and heap of each entity.
            position: None for all.
        """
        data = b"".join([piece[0] for piece in pieces]) if len(pieces) != 1 else pieces[0][0]
        heap = b"".join([piece[1] for piece in pieces]) if len(pieces) != 1 else pieces[0][1]
        records = np.frombuffer(data, self.dtype)
        sizes = np.fromiter((len(piece[0]) for piece in pieces), np.int64, len(pieces)) // self.width
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        found = Decoded(self, records, heap, offsets)
        sequence, flags = found.sequence, found.flags
        beyond = position is not None and bool((sequence > position).any())
        if beyond or (flags & RESTAMP).any():
            found = _as_known(found, np.iinfo(np.int64).max if position is None else position)
        return found


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as bytes.

    Attributes:
        records: One record per row, in the order of the rows.
        heap: The bytes that are not in the records, in the same order.
    """

    records: Records
    heap: bytes

    def pieces(self, offsets: Sequence[int]) -> list[tuple[bytes, bytes]]:
        """The bytes of records and heap from each offset to the next."""
        if not self.heap:
            return [(self.records[a:b].tobytes(), b"") for a, b in pairwise(offsets)]
        ends = _heap_ends(self.records)
        return [(self.records[a:b].tobytes(), self.heap[ends[a] : ends[b]]) for a, b in pairwise(offsets)]

    def take(self, rows: npt.NDArray[Any]) -> Encoded:
        """Some of the rows, in the order given."""
        if not self.heap:
            return Encoded(self.records[rows], b"")
        ends = _heap_ends(self.records)
        return Encoded(self.records[rows], b"".join([self.heap[ends[i] : ends[i + 1]] for i in rows]))


class Decoded:
    """Rows of one or more entities, as arrays.

    Args:
        layout: How they are laid out.
        records: The records.
        heap: Their heap.
        offsets: Where each entity's rows begin, one more than entities.
    """

    def __init__(self, layout: RecordLayout, records: Records, heap: bytes, offsets: Ints) -> None:
        self.layout = layout
        self.records = records
        self.heap = heap
        self.offsets = offsets
        self.sequence: Ints = np.ascontiguousarray(records[SEQUENCE])
        self.flags: npt.NDArray[np.uint8] = np.ascontiguousarray(records["flags"])
        self._arrival: Ints | None = None
        self._starts: Ints | None = None
        self._everywhere: list[int] | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def event(self) -> Ints:
        """Event times in microseconds; zero where `flags` says that there is none."""
        return np.ascontiguousarray(self.records["event"])

    @property
    def arrival(self) -> Ints:
        """Arrivals in microseconds, as they count at the position asked for."""
        if self._arrival is None:
            self._arrival = np.ascontiguousarray(self.records["arrival"])
        return self._arrival

    @property
    def issue(self) -> Ints:
        """Issue times of forecasts; zero where `flags` says that there is none."""
        return np.ascontiguousarray(self.records["issue"])

    @property
    def retraction(self) -> npt.NDArray[np.uint8]:
        """1 where the row is a retraction."""
        return self.flags & np.uint8(RETRACTED)

    def field(self, name: str) -> npt.NDArray[Any]:
        """What the records hold of a column; zero where null."""
        return self.records[self.layout.fields[name]]

    def valid(self, name: str) -> Bits | None:
        """Which rows have a value in the column; None if all have."""
        place = self.layout.places[name]
        if self._everywhere is None:
            self._everywhere = np.bitwise_and.reduce(self.records["valid"], axis=0).tolist()
        byte, bit = place >> 3, 1 << (place & 7)
        if self._everywhere[byte] & bit:
            return None
        return (self.records["valid"][:, byte] & np.uint8(bit)) != 0  # type: ignore[no-any-return]

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """The values of a column of numbers, times or booleans as they lie in the records; zero where null."""
        return np.ascontiguousarray(self.field(name))

    def series(self, name: str, rows: Ints | None = None) -> pl.Series:
        """The column as it was, row for row, or some of its rows."""
        stored = self if rows is None else _Some(self, rows)
        return self.layout.kinds[name].decode(stored, name, len(self) if rows is None else len(rows))

    def starts(self) -> Ints:
        """Where each record's own part of the heap begins."""
        if self._starts is None:
            self._starts = _heap_ends(self.records)[:-1]
        return self._starts

    def frame(self) -> pl.DataFrame:
        """The rows under their canonical names (see `alignment.rows`)."""
        columns = [_instants(EVENT, self.event, self.flags & NO_EVENT), pl.Series(ARRIVAL, self.arrival)]
        if self.layout.forecast:
            columns.append(_instants(ISSUE, self.issue, self.flags & NO_ISSUE))
        columns += [pl.Series(RETRACTION, self.retraction.view(np.bool_)), pl.Series(ORDER, self.sequence)]
        return pl.DataFrame([*columns, *(self.series(name) for name in self.layout.columns)])


class _Some:
    """Some rows of others, for a column to be decoded from."""

    def __init__(self, whole: Decoded, rows: Ints) -> None:
        self._whole = whole
        self._rows = rows
        self.heap = whole.heap

    def field(self, name: str) -> npt.NDArray[Any]:
        return self._whole.field(name)[self._rows]

    def valid(self, name: str) -> Bits | None:
        bits = self._whole.valid(name)
        return None if bits is None else bits[self._rows]

    def starts(self) -> Ints:
        return self._whole.starts()[self._rows]


def _as_known(found: Decoded, position: int) -> Decoded:
    """Rows up to a position, without restamps, their arrivals raised by those that count there."""
    counts = found.sequence <= position
    restamp = (found.flags & RESTAMP) != 0
    entity = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    kept = counts & ~restamp
    rows = np.flatnonzero(kept)
    offsets = np.zeros(len(found.offsets), np.int64)
    np.cumsum(np.bincount(entity[rows], minlength=len(offsets) - 1), out=offsets[1:])
    starts = found.starts()[rows] if found.layout.has_heap else None
    known = Decoded(found.layout, found.records[rows], found.heap, offsets)
    known._starts = starts  # noqa: SLF001 - the heap stays whole
    late = np.flatnonzero(counts & restamp)
    if len(late):
        arrival = known.arrival.copy()
        order = np.argsort(known.sequence, kind="stable")  # a log_sequence is one row of the log
        targets = found.event[late]
        at = np.searchsorted(known.sequence, targets, sorter=order)
        there = at < len(order)
        at, late, targets = order[at[there]], late[there], targets[there]
        hit = known.sequence[at] == targets
        np.maximum.at(arrival, at[hit], found.arrival[late[hit]])
        known._arrival = arrival  # noqa: SLF001
    return known


def _heap_ends(records: Records) -> Ints:
    ends = np.zeros(len(records) + 1, np.int64)
    np.cumsum(records["heap"], out=ends[1:])
    return ends


def _times(records: Records, field: str, series: pl.Series, absent: int) -> None:
    records[field] = series.fill_null(0).to_numpy()
    if series.null_count():
        records["flags"] |= series.is_null().to_numpy().astype(np.uint8) * np.uint8(absent)


def _instants(name: str, values: Ints, absent: npt.NDArray[Any]) -> pl.Series:
    series = pl.Series(name, values)
    return series.set(pl.Series(absent != 0), None) if absent.any() else series


def _as_field(width: Any) -> tuple[Any, ...]:
    return width if isinstance(width, tuple) else (width,)
