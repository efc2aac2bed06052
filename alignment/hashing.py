"""A hash of a frame's content, independent of how it is stored."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over the columns in order: names, types, where nulls are, and the values bit for bit.

    Chunks, row groups, compression and what lies under nulls make no difference.

    Example:
        >>> a = pl.DataFrame({"x": [1.0, None]})
        >>> frame_hash(a) == frame_hash(pl.concat([a[:1], a[1:]], rechunk=False))
        True
        >>> frame_hash(a) == frame_hash(a.reverse())
        False
    """
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        digests = list(pool.map(_digest, frame.get_columns()))
    return hashlib.sha256(b"".join([str(frame.height).encode(), *digests])).hexdigest()


def _digest(series: pl.Series) -> bytes:
    digest = hashlib.sha256(f"\x00{series.name}\x00{series.dtype}\x00".encode())
    _add(digest, series)
    return digest.digest()


def _add(digest: Any, series: pl.Series) -> None:
    kind = series.dtype
    if series.null_count():
        digest.update(series.is_null().cast(pl.UInt8).to_numpy())
        series = series.drop_nulls()
    if isinstance(kind, pl.Array | pl.List):
        digest.update(series.list.len().to_numpy() if isinstance(kind, pl.List) else b"array")
        _add(digest, series.explode(empty_as_null=False) if len(series) else pl.Series([], dtype=kind.inner))
    elif isinstance(kind, pl.Struct):
        for name in series.struct.fields:
            _add(digest, series.struct.field(name))
    elif isinstance(kind, pl.String | pl.Binary | pl.Categorical | pl.Enum):
        data = (series if isinstance(kind, pl.Binary) else series.cast(pl.String).cast(pl.Binary)).rechunk()
        digest.update(data.bin.size().to_numpy())
        arrow = data.to_arrow(compat_level=pl.CompatLevel.oldest())
        buffers = arrow.buffers()
        if buffers[-1] is not None and len(arrow):
            ends = memoryview(buffers[1]).cast("q")
            digest.update(memoryview(buffers[-1])[ends[arrow.offset] : ends[arrow.offset + len(arrow)]])
    elif kind == pl.Boolean:
        digest.update(series.cast(pl.UInt8).to_numpy())
    elif kind == pl.Null:
        digest.update(b"null")
    elif isinstance(kind, pl.Decimal) or kind == pl.Int128:
        _add(digest, series.cast(pl.String))
    else:
        digest.update(series.to_physical().to_numpy())
