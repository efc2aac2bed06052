"""Rows on their way through Spark: Arrow blobs of one bucket each, so that the JVM moves columns and not rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from alignment.parts import bucket_of

if TYPE_CHECKING:
    import pyarrow as pa

PACKED = "bucket int, input int, place long, payload binary"
"""A blob: its bucket; which input's rows it has; its place among the input's blobs; the rows, as an Arrow stream."""
SPINE = -1
"""The input number of the spine."""
PACK_ROWS = 1_000_000
"""Rows that are split at a time."""
_PLACES = 1 << 20
"""Most blobs of one bucket that one piece of an input gives."""


class Destination(Protocol):
    """Where the rows of an input go."""

    @property
    def number(self) -> int:
        """The input; `SPINE` for the spine."""

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of each bucket, in their order."""


@dataclass(frozen=True)
class Address:
    """Where the rows of an input go by a hash of their keys.

    Attributes:
        number: The input; `SPINE` for the spine.
        keys: Its columns that the bucket depends on.
        buckets: How many buckets there are.
    """

    number: int
    keys: tuple[str, ...]
    buckets: int

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of each bucket, in their order."""
        if not frame.height:
            return
        if self.buckets == 1 or not self.keys:
            yield 0, frame
            return
        of = bucket_of(frame, self.keys, self.buckets).to_numpy()
        order = np.argsort(of, kind="stable")
        rows, of = frame[order], of[order]
        starts = np.flatnonzero(np.diff(of.astype(np.int64), prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(of)]):
            yield int(of[start]), rows.slice(start, end - start)


@dataclass
class Bucket:
    """The blobs of a bucket, by input."""

    blobs: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)

    def frame(self, number: int, empty: pl.DataFrame) -> pl.DataFrame:
        """An input's rows, in the order in which they were packed; `empty` if there are none. The blobs are given back."""
        frames = _frames(self.blobs.pop(number, []))
        return pl.concat(frames) if frames else empty

    def frames(self) -> list[pl.DataFrame]:
        """What is in every blob."""
        return [frame for blobs in self.blobs.values() for frame in _frames(blobs)]


def _frames(blobs: list[tuple[int, bytes]]) -> list[pl.DataFrame]:
    return [pl.read_ipc_stream(io.BytesIO(payload)) for _, payload in sorted(blobs)]


def pack(frames: Iterable[pl.DataFrame], to: Destination, *, piece: int = 0) -> Iterator[pa.RecordBatch]:
    """Blobs of an input's rows.

    Args:
        frames: The rows, in order.
        to: Where they go.
        piece: Number of this piece of the input, in the order of its rows.
    """
    import pyarrow as pa

    place = piece * _PLACES
    for frame in frames:
        for part in frame.iter_slices(PACK_ROWS):
            rows = [(bucket, to.number, place, payload(mine)) for bucket, mine in to.split(part)]
            if rows:
                columns = [
                    pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), _types(), strict=True)
                ]
                yield pa.RecordBatch.from_arrays(columns, names=["bucket", "input", "place", "payload"])
            place += 1


def payload(frame: pl.DataFrame) -> bytes:
    """A frame as bytes; every type comes back as it was."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc_stream(buffer, compression="lz4")
    return buffer.getvalue()


def unpack(batches: Iterable[pa.RecordBatch]) -> dict[int, Bucket]:
    """The buckets of a task's blobs."""
    found: dict[int, Bucket] = {}
    for batch in batches:
        buckets, inputs, places, payloads = (column.to_pylist() for column in batch.columns)
        for bucket, number, place, blob in zip(buckets, inputs, places, payloads, strict=True):
            found.setdefault(bucket, Bucket()).blobs.setdefault(number, []).append((place, blob))
    return found


def packed_table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Blobs made on the driver, as one table."""
    import pyarrow as pa

    names = ["bucket", "input", "place", "payload"]
    schema = pa.schema(list(zip(names, _types(), strict=True)))
    return pa.Table.from_batches(batches, schema=schema)


def _types() -> list[pa.DataType]:
    import pyarrow as pa

    return [pa.int32(), pa.int32(), pa.int64(), pa.binary()]
