"""Numbers that depend on values alone: the same on every machine, in every process, whatever the order of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.errors import DefinitionError, KeyTypeError

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


def check_seed(seed: Any) -> None:
    """Refuse what cannot seed draws.

    Raises:
        DefinitionError: If it is not an integer from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DefinitionError(f"seed={seed!r} is not a seed", "it is an integer from 0 on, e.g. seed=7.")


def kind_of(kind: pl.DataType) -> str:
    """What sort of value a type holds; values of one sort can be told apart by `value_texts`. Empty of a column of nulls.

    Example:
        >>> kind_of(pl.Int8()), kind_of(pl.Float64()), kind_of(pl.Enum(["a"]))
        ('number', 'number', 'text')
    """
    if isinstance(kind, pl.Datetime):
        return "instant" if kind.time_zone else "wall time"
    return "number" if kind.is_numeric() else _KINDS.get(kind.base_type(), str(kind))


def value_texts(column: pl.Series) -> pl.Series:
    """One text per value, the same in every type that holds the value; nulls stay.

    Numbers are written by value, instants and lengths as microseconds, bytes in hexadecimal.

    Args:
        column: A key: text, number, time, boolean or bytes.

    Raises:
        KeyTypeError: If it is a list, a struct or the like.

    Example:
        >>> value_texts(pl.Series([1.0, 0.25])).to_list(), value_texts(pl.Series([1])).to_list()
        (['1', '0.25'], ['1'])
    """
    kind = column.dtype
    if isinstance(kind, pl.Datetime | pl.Duration):
        column = column.dt.cast_time_unit("us").to_physical()
    elif kind == pl.Binary:
        return column.bin.encode("hex")
    elif kind.is_float():
        column = column.cast(pl.Float64)
        once = column.drop_nulls().unique()
        return column.replace_strict(once, [_number(one) for one in once], default=None, return_dtype=pl.String)
    elif isinstance(kind, pl.Decimal):
        return column.cast(pl.String).str.replace(r"(\.\d*?)0+$", "$1").str.strip_suffix(".")
    elif kind_of(kind) not in (*_KINDS.values(), "number"):
        raise KeyTypeError(
            f"{column.name!r} is {kind}, not a key", "a key is text, number, time, boolean or bytes: cast it."
        )
    return column.cast(pl.String)


_KINDS: dict[Any, str] = {
    **dict.fromkeys((pl.String, pl.Categorical, pl.Enum), "text"),
    pl.Boolean: "boolean",
    pl.Date: "date",
    pl.Time: "time",
    pl.Duration: "length",
    pl.Binary: "bytes",
    pl.Null: "",
}


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")


def row_hashes(columns: Sequence[pl.Series], start: np.uint64) -> Hashes:
    """One hash per row of the values of several columns.

    Integers of any width hash by their value, texts and categories by their UTF-8, instants by their microseconds, decimals of
    any scale by their value.

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
        words = column.cast(pl.Float64).fill_nan(np.nan).fill_null(0.0).to_numpy() + 0.0  # one NaN, no -0.0
    elif kind in (pl.Int128, pl.UInt128):
        words = _wide_words(column)
    elif column.dtype.is_integer():
        words = column.fill_null(0).to_numpy()
        words = words if column.dtype == pl.UInt64 else words.astype(np.int64)
    else:
        words = _text_words(column if kind == pl.Binary else value_texts(column).cast(pl.Binary))
    return np.where(column.is_null().to_numpy(), _NULL, np.ascontiguousarray(words).view(np.uint64))


def _wide_words(column: pl.Series) -> Hashes:
    """Integers of 128 bits: those that fit in 64 as these do, the others by their digits."""
    signed = column.cast(pl.Int64, strict=False)
    unsigned = column.cast(pl.UInt64, strict=False)
    small = np.where(
        signed.is_not_null().to_numpy(),
        signed.fill_null(0).to_numpy().astype(np.int64).view(np.uint64),
        unsigned.fill_null(0).to_numpy(),
    )
    fits = (signed.is_not_null() | unsigned.is_not_null()).to_numpy()
    return small if fits.all() else np.where(fits, small, _text_words(column.cast(pl.String).cast(pl.Binary)))


def _text_words(texts: pl.Series) -> Hashes:
    texts = texts.fill_null(b"")
    return np.concatenate([_bytes_hashes(texts.slice(n, _CHUNK)) for n in range(0, max(len(texts), 1), _CHUNK)])


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
