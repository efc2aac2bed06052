"""Columns as bytes: how a value of each type lies in a record, or in the heap beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from alignment.layout import Ints

Bits = npt.NDArray[np.bool_]
Views = npt.NDArray[np.int32]
Part = bytes

INLINE = 12
"""Texts of up to this many bytes lie in the record, as in an Arrow view."""
_VIEW = ("<i4", (4,))
_PHYSICAL: dict[Any, str] = {
    pl.Int8: "<i1",
    pl.Int16: "<i2",
    pl.Int32: "<i4",
    pl.Int64: "<i8",
    pl.UInt8: "<u1",
    pl.UInt16: "<u2",
    pl.UInt32: "<u4",
    pl.UInt64: "<u8",
    pl.Float32: "<f4",
    pl.Float64: "<f8",
    pl.Boolean: "?",
    pl.Date: "<i4",
    pl.Datetime: "<i8",
    pl.Duration: "<i8",
    pl.Time: "<i8",
}


class Stored(Protocol):
    """What a kind needs of the records that it decodes.

    Attributes:
        heap: The bytes that are not in the records.
    """

    heap: bytes

    def field(self, name: str) -> npt.NDArray[Any]:
        """What the records hold of a column."""

    def valid(self, name: str) -> Bits | None:
        """Which rows have a value; None if all have."""

    def starts(self) -> Ints:
        """Where each record's own part of the heap begins."""


class ColumnKind:
    """How values of one type are stored.

    Args:
        dtype: The type.

    Attributes:
        width: The NumPy type of what lies in the record; None for nothing.
        heap: Whether something may lie in the heap.
    """

    width: Any = None
    heap = False

    def __init__(self, dtype: pl.DataType) -> None:
        self.dtype = dtype

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:
        """Fill `out`, and return each row's bytes for the heap, if there are any.

        Args:
            series: The values.
            out: What the records hold of the column, all zero.
            used: Bytes of the heap that each record has already; raised here.
        """
        raise NotImplementedError

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:
        """The values again."""
        raise NotImplementedError


class Nothing(ColumnKind):
    """A column of nulls."""

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:  # noqa: ARG002 - of all kinds
        """Nothing is stored."""
        return None

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:  # noqa: ARG002 - of all kinds
        """So many nulls."""
        return pl.Series(name, [None] * count, dtype=pl.Null)


class Fixed(ColumnKind):
    """Numbers, booleans and times: what NumPy knows."""

    def __init__(self, dtype: pl.DataType) -> None:
        super().__init__(dtype)
        self.width = _PHYSICAL[dtype.base_type()]

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:  # noqa: ARG002 - of all kinds
        """Nulls stay zero."""
        out[:] = physical(series)
        return None

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:  # noqa: ARG002 - of all kinds
        """Shares nothing with the records."""
        return restored(np.ascontiguousarray(stored.field(name)), stored.valid(name), self.dtype).alias(name)


class Decimals(ColumnKind):
    """Decimals: the 128 bits that Arrow has."""

    width = ("<u8", (2,))

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:  # noqa: ARG002 - of all kinds
        """Nulls become zero."""
        zero = series.fill_null(pl.Series([0]).cast(self.dtype)[0]) if series.null_count() else series
        array = zero.rechunk().to_arrow()
        words = np.frombuffer(array.buffers()[1], "<u8").reshape(-1, 2)
        out[:] = words[array.offset : array.offset + len(array)]
        return None

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:
        """Exactly the digits that there were."""
        words = np.ascontiguousarray(stored.field(name))
        kind = pl.Series([], dtype=self.dtype).to_arrow().type
        buffers = [_validity(stored.valid(name)), pa.py_buffer(words)]
        return pl.Series(name, pa.Array.from_buffers(kind, count, buffers), dtype=self.dtype)


class Texts(ColumnKind):
    """Texts and bytes: Arrow views, of which the long ones point into the record's part of the heap."""

    width = _VIEW
    heap = True

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:
        """Short ones lie in the record."""
        values = series.cast(pl.Binary).rechunk()
        array = values.to_arrow(compat_level=pl.CompatLevel.newest())
        views = np.frombuffer(array.buffers()[1], "<i4").reshape(-1, 4)[array.offset : array.offset + len(array)].copy()
        if values.null_count():
            views[values.is_null().to_numpy()] = 0
        long = views[:, 0] > INLINE
        parts: list[Part] | None = None
        if long.any():
            views[long, 2] = 0
            views[long, 3] = used[long]
            used[long] += views[long, 0].astype(np.uint32)
            parts = [value if there else b"" for value, there in zip(values, long, strict=True)]
        out[:] = views
        return parts

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:
        """The texts, in the heap's own memory."""
        views = np.ascontiguousarray(stored.field(name))
        long = views[:, 0] > INLINE
        buffers = [_validity(stored.valid(name)), pa.py_buffer(views)]
        if long.any():
            views = views.copy()
            views[long, 3] += stored.starts()[long].astype(np.int32)
            buffers = [buffers[0], pa.py_buffer(views), pa.py_buffer(stored.heap)]
        kind = pa.binary_view() if self.dtype == pl.Binary else pa.string_view()
        return pl.Series(name, pa.Array.from_buffers(kind, count, buffers))

    def some(self, stored: Stored, name: str, rows: Sequence[int]) -> list[Any]:
        """A few of the values as Python has them; cheaper than a column of them. None of them null."""
        picked = stored.field(name)[list(rows)].tobytes()
        heap, plain = stored.heap, self.dtype == pl.Binary
        found: list[Any] = []
        for i, row in enumerate(rows):
            size = int.from_bytes(picked[16 * i : 16 * i + 4], "little")
            value = picked[16 * i + 4 : 16 * i + 4 + size]
            if size > INLINE:
                at = int(stored.starts()[row]) + int.from_bytes(picked[16 * i + 12 : 16 * i + 16], "little")
                value = bytes(heap[at : at + size])
            found.append(value if plain else value.decode())
        return found


class AsTexts(Texts):
    """Categories, and integers that Arrow does not have: stored as their text."""

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:
        """As the text of each."""
        return super().encode(series.cast(pl.String), out, used)

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:
        """What the texts mean."""
        return super().decode(stored, name, count).cast(self.dtype)


class Lists(ColumnKind):
    """Lists and vectors of what NumPy knows: their items one after the other, then which are null if any is."""

    width = _VIEW
    heap = True

    def __init__(self, dtype: Any) -> None:
        super().__init__(dtype)
        self.inner: pl.DataType = dtype.inner
        self.item = np.dtype(_PHYSICAL[self.inner.base_type()])

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:
        """The record holds bytes, items, whether any is null, and where they begin."""
        lists = series.arr.to_list() if isinstance(self.dtype, pl.Array) else series
        array = lists.rechunk().to_arrow()
        ends = array.offsets.to_numpy()
        there = series.is_not_null().to_numpy()
        counts = np.where(there, np.diff(ends), 0)
        items = pl.Series(array.values, dtype=self.inner)
        data = np.ascontiguousarray(physical(items), self.item).tobytes()
        lacking = items.is_null().to_numpy()
        sums = np.concatenate([[0], np.cumsum(lacking)])
        gaps = there & (sums[ends[1:]] > sums[ends[:-1]])
        width = self.item.itemsize
        out[:, 0], out[:, 1], out[:, 2], out[:, 3] = counts * (width + gaps), counts, gaps, used
        used += out[:, 0].astype(np.uint32)
        return [
            b"" if not n else data[at * width : (at + n) * width] if not gap else _gappy(data, lacking, at, n, width)
            for at, n, gap in zip(ends[:-1].tolist(), counts.tolist(), gaps.tolist(), strict=True)
        ]

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:
        """The lists again; a null item is a null item."""
        views = np.ascontiguousarray(stored.field(name)).astype(np.int64)
        begins = stored.starts() + views[:, 3]
        heap, width = stored.heap, self.item.itemsize
        sizes = views[:, 1] * width
        values = b"".join([heap[a:b] for a, b in zip(begins.tolist(), (begins + sizes).tolist(), strict=True)])
        present = None
        if views[:, 2].any():
            ends = (begins + views[:, 0]).tolist()
            present = np.frombuffer(
                b"".join(
                    heap[a:b] if gap else b"\1" * n
                    for a, b, gap, n in zip(
                        (begins + sizes).tolist(), ends, views[:, 2].tolist(), views[:, 1].tolist(), strict=True
                    )
                ),
                np.bool_,
            )
        items = restored(np.frombuffer(values, self.item), present, self.inner)
        offsets = np.concatenate([[0], np.cumsum(views[:, 1])])
        valid = stored.valid(name)
        mask = None if valid is None else pa.array(~valid)
        array = pa.LargeListArray.from_arrays(pa.array(offsets), items.to_arrow(), mask=mask)
        lists = pl.Series(name, array, dtype=pl.List(self.inner))
        return lists.cast(self.dtype) if isinstance(self.dtype, pl.Array) and count else _typed(lists, self.dtype)


class Messages(ColumnKind):
    """Everything else: an Arrow message per value."""

    width = _VIEW
    heap = True

    def encode(self, series: pl.Series, out: npt.NDArray[Any], used: npt.NDArray[np.uint32]) -> list[Part] | None:
        """Nulls need no message."""
        array = series.rechunk().to_arrow()
        schema = pa.schema([("", array.type)])
        parts: list[Part] = []
        for i in range(len(array)):
            part = b""
            if array[i].is_valid:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, schema) as stream:
                    stream.write_batch(pa.RecordBatch.from_arrays([array.slice(i, 1)], schema=schema))
                part = sink.getvalue().to_pybytes()
            parts.append(part)
        out[:, 0] = [len(part) for part in parts]
        out[:, 3] = used
        used += out[:, 0].astype(np.uint32)
        return parts

    def decode(self, stored: Stored, name: str, count: int) -> pl.Series:  # noqa: ARG002 - of all kinds
        """The values, one message at a time."""
        views = np.ascontiguousarray(stored.field(name)).astype(np.int64)
        begins = (stored.starts() + views[:, 3]).tolist()
        pieces = []
        for begin, size in zip(begins, views[:, 0].tolist(), strict=True):
            piece = pl.Series([None], dtype=self.dtype)
            if size:
                table = pa.ipc.open_stream(stored.heap[begin : begin + size]).read_all()
                piece = pl.Series(table.column(0).combine_chunks(), dtype=self.dtype)
            pieces.append(piece)
        return pl.concat(pieces).alias(name) if pieces else pl.Series(name, [], dtype=self.dtype)


def kind_of(dtype: pl.DataType) -> ColumnKind:
    """How values of a type are stored."""
    if dtype == pl.Null:
        return Nothing(dtype)
    if dtype.base_type() in _PHYSICAL:
        return Fixed(dtype)
    if isinstance(dtype, pl.Decimal):
        return Decimals(dtype)
    if dtype in (pl.String, pl.Binary):
        return Texts(dtype)
    if isinstance(dtype, pl.Categorical | pl.Enum) or dtype in (pl.Int128, pl.UInt128):
        return AsTexts(dtype)
    if (
        isinstance(dtype, pl.List | pl.Array)
        and _base(dtype.inner) in _PHYSICAL
        and (not isinstance(dtype, pl.Array) or dtype.size)
    ):
        return Lists(dtype)
    return Messages(dtype)


def physical(series: pl.Series) -> npt.NDArray[Any]:
    """The numbers that a column is made of; zero where null."""
    plain = series.to_physical()
    if plain.null_count():
        plain = plain.fill_null(value=False) if plain.dtype == pl.Boolean else plain.fill_null(0)
    return plain.to_numpy()


def restored(values: npt.NDArray[Any], valid: Bits | None, dtype: pl.DataType) -> pl.Series:
    """The column that `physical` took apart."""
    series = pl.Series("", values)
    if valid is not None:
        series = series.set(pl.Series(~valid), None)
    return _typed(series, dtype)


def _typed(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    return series if series.dtype == dtype else series.cast(dtype)


def _validity(valid: Bits | None) -> Any:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _gappy(data: bytes, lacking: Bits, at: int, count: int, width: int) -> bytes:
    return data[at * width : (at + count) * width] + (~lacking[at : at + count]).tobytes()


def _base(dtype: Any) -> Any:
    return dtype.base_type()


def joined(parts: Sequence[list[Part]]) -> bytes:
    """The heap of rows from the parts of its columns: row after row."""
    if len(parts) == 1:
        return b"".join(parts[0])
    return b"".join(part for row in zip(*parts, strict=True) for part in row)
