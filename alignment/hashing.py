"""A hash of a frame's content, independent of how it is stored.

A column is hashed piece by piece, so that a file need never be in memory as a whole. What is hashed stays in the order of
whole columns (where nulls are, then sizes, then values), for which the pieces are gone through several times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

Pieces = Callable[[], Iterable[pl.Series]]
"""Gives a column piece by piece, as often as it is called."""


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
        digests = pool.map(lambda one: _digest(one.name, one.dtype, lambda: [one]), frame.get_columns())
        return hash_of(frame.height, dict(zip(frame.columns, digests, strict=True)))


def hash_of(height: int, digests: Mapping[str, bytes]) -> str:
    """`frame_hash` of so many rows, from what `file_digests` says of their columns, in order."""
    return hashlib.sha256(b"".join([str(height).encode(), *digests.values()])).hexdigest()


def file_digests(
    path: Path | list[str], *, rows: int, schema: Mapping[str, pl.DataType] | None = None
) -> dict[str, bytes]:
    """A digest per column of a Parquet file, for `hash_of`; a column is read in pieces.

    Args:
        path: The file; a folder of part files, or their addresses, in order.
        rows: How many rows to have in memory at once.
        schema: The columns' own types, where the file's are others.

    Example:
        >>> import tempfile
        >>> frame = pl.DataFrame({"x": [1.0, None, 2.0]})
        >>> path = Path(tempfile.mkdtemp()) / "data.parquet"
        >>> frame.write_parquet(path)
        >>> hash_of(3, file_digests(path, rows=2)) == frame_hash(frame)
        True
    """
    stored = pl.scan_parquet(path, glob=False)
    if schema is not None:
        stored = stored.select(pl.col(name).cast(kind) for name, kind in schema.items())
    height = int(stored.select(pl.len()).collect().item())

    def pieces(name: str) -> Iterator[pl.Series]:
        for start in range(0, height, rows):
            yield stored.select(name).slice(start, rows).collect().to_series()

    def digest(name: str, kind: pl.DataType) -> bytes:
        return _digest(name, kind, lambda: pieces(name))

    with ThreadPoolExecutor(2) as pool:
        schema = stored.collect_schema()
        return dict(zip(schema, pool.map(digest, schema, schema.values()), strict=True))


def _digest(name: str, kind: pl.DataType, pieces: Pieces) -> bytes:
    digest = hashlib.sha256(f"\x00{name}\x00{kind}\x00".encode())
    _add(digest, kind, pieces)
    return digest.digest()


def _add(digest: Any, kind: pl.DataType, pieces: Pieces) -> None:
    if any(piece.null_count() for piece in pieces()):
        _update(digest, _each(pieces, lambda piece: piece.is_null().cast(pl.UInt8)))
        pieces = _each(pieces, pl.Series.drop_nulls)
    if isinstance(kind, pl.Array | pl.List):
        _add_lists(digest, kind, pieces)
    elif isinstance(kind, pl.Struct):
        for field in kind.fields:
            part: pl.DataType = field.dtype  # type: ignore[assignment]
            _add(digest, part, _each(pieces, lambda piece, name=field.name: piece.struct.field(name)))  # type: ignore[misc]
    elif isinstance(kind, pl.String | pl.Binary | pl.Categorical | pl.Enum):
        data = _each(pieces, lambda piece: _as_bytes(piece, kind))
        _update(digest, _each(data, lambda piece: piece.bin.size()))
        for piece in data():
            digest.update(_joined(piece))
    elif kind == pl.Null:
        digest.update(b"null")
    elif isinstance(kind, pl.Decimal) or kind == pl.Int128:
        _add(digest, pl.String(), _each(pieces, lambda piece: piece.cast(pl.String)))
    else:
        _update(digest, _each(pieces, lambda piece: piece.cast(pl.UInt8) if kind == pl.Boolean else piece))


def _add_lists(digest: Any, kind: pl.Array | pl.List, pieces: Pieces) -> None:
    inner: pl.DataType = kind.inner  # type: ignore[assignment]
    if isinstance(kind, pl.List):
        _update(digest, _each(pieces, lambda piece: piece.list.len()))
    else:
        digest.update(b"array")
    _add(digest, inner, _each(pieces, lambda piece: _exploded(piece, inner)))


def _update(digest: Any, numbers: Pieces) -> None:
    for piece in numbers():
        digest.update(piece.to_physical().to_numpy())


def _each(pieces: Pieces, change: Callable[[pl.Series], pl.Series]) -> Pieces:
    return lambda: (change(piece) for piece in pieces())


def _exploded(piece: pl.Series, inner: pl.DataType) -> pl.Series:
    return piece.explode(empty_as_null=False) if len(piece) else pl.Series([], dtype=inner)


def _as_bytes(piece: pl.Series, kind: pl.DataType) -> pl.Series:
    return (piece if isinstance(kind, pl.Binary) else piece.cast(pl.String).cast(pl.Binary)).rechunk()


def _joined(texts: pl.Series) -> Any:
    arrow = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    buffers = arrow.buffers()
    if buffers[-1] is None or not len(arrow):
        return b""
    ends = memoryview(buffers[1]).cast("q")
    return memoryview(buffers[-1])[ends[arrow.offset] : ends[arrow.offset + len(arrow)]]
