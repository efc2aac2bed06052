"""Numbers that depend on values alone: the same on every machine, in every process, whatever the order of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_NULL = np.uint64(0x6E756C6C6E756C6C)
_CHUNK = 1 << 20


def salt(*parts: Any) -> np.uint64:
    """One number for a few plain values, by BLAKE2.

    Example:
        >>> int(salt(0, "weather")), int(salt(1, "weather"))
        (2474079512160624252, 1305641381073671034)
    """
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False, default=str)
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def mixed(numbers: npt.NDArray[Any], start: np.uint64 | Hashes) -> Hashes:
    """Each number mixed with `start` (SplitMix64): near numbers give hashes that have nothing to do with each other."""
    with np.errstate(over="ignore"):
        value = (numbers.astype(np.uint64, copy=False) ^ start) + _GOLDEN
        value = (value ^ (value >> np.uint64(30))) * _FIRST
        value = (value ^ (value >> np.uint64(27))) * _SECOND
        mixed_: Hashes = value ^ (value >> np.uint64(31))
    return mixed_


def row_hashes(columns: Sequence[pl.Series], start: np.uint64) -> Hashes:
    """One hash per row of the values of several columns.

    Integers of any width hash by their value, texts and categories by their UTF-8, instants by their microseconds.

    Args:
        columns: Of one length; at least one.
        start: What else it depends on, see `salt`.
    """
    found: Hashes = np.full(len(columns[0]), start)
    for column in columns:
        found = mixed(_words(column), found)
    return found


def _words(column: pl.Series) -> Hashes:
    """A column as 64 bit words; nulls have one of their own."""
    kind = column.dtype
    words: npt.NDArray[Any]
    if isinstance(kind, pl.Datetime | pl.Duration):
        column = column.dt.cast_time_unit("us").to_physical()
    elif isinstance(kind, pl.Date | pl.Time) or kind == pl.Boolean:
        column = column.to_physical().cast(pl.Int64)
    if kind.is_float():
        words = column.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0  # no -0.0
    elif column.dtype.is_integer():
        words = column.fill_null(0).to_numpy()
        words = words if column.dtype == pl.UInt64 else words.astype(np.int64)
    else:
        texts = (column if kind == pl.Binary else column.cast(pl.String).cast(pl.Binary)).fill_null(b"")
        words = np.concatenate([_bytes_hashes(texts.slice(n, _CHUNK)) for n in range(0, max(len(texts), 1), _CHUNK)])
    return np.where(column.is_null().to_numpy(), _NULL, np.ascontiguousarray(words).view(np.uint64))


def _bytes_hashes(texts: pl.Series) -> Hashes:
    """Eight bytes at a time, rows side by side; a row takes part as long as its text goes on."""
    sizes = texts.bin.size().cast(pl.Int64).to_numpy()
    ends = np.cumsum(sizes)
    begins = ends - sizes
    joined = np.frombuffer(b"".join(texts.to_list()) + b"\0" * 8, np.uint8)
    found = mixed(sizes, np.uint64(0))
    rows, at = np.flatnonzero(sizes > 0), 0
    while len(rows):
        place = begins[rows] + at
        left = np.minimum(sizes[rows] - at, 8)
        word = np.zeros(len(rows), np.uint64)
        for byte in range(8):
            here = np.where(byte < left, joined[place + byte], 0).astype(np.uint64)
            word |= here << np.uint64(8 * byte)
        found[rows] = mixed(word, found[rows])
        at += 8
        rows = rows[sizes[rows] > at]
    return found
