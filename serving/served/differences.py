"""Whether two columns are equal bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Flags = npt.NDArray[np.bool_]
CLOSE = 1e-9


def differs(one: pl.Series, other: pl.Series, *, close: bool = False) -> Flags:
    """Per row whether two columns of one type differ: null and NaN are two things, 0.0 and -0.0 too, every NaN is one.

    Args:
        one: A column.
        other: The same length. If its type is wider (the log's column was widened since) the first is taken in it; else another
            type differs everywhere.
        close: Floats may be 1e-9 of the greater apart: for an engine that has its own arithmetic (R17).

    Example:
        >>> differs(pl.Series([0.0, None, float("nan")]), pl.Series([-0.0, float("nan"), float("nan")])).tolist()
        [True, True, False]
    """
    if one.dtype != other.dtype:
        widened = _widened(one, other.dtype)
        if widened is None:
            return np.ones(len(one), np.bool_)
        one = widened
    null = one.is_null().to_numpy()
    found: Flags = null != other.is_null().to_numpy()
    both = np.flatnonzero(~null & ~found)
    if len(both):
        found[both] = _values(one.gather(both), other.gather(both), close=close)
    return found


def _widened(column: pl.Series, kind: pl.DataType) -> pl.Series | None:
    """The column in a wider type of number, if nothing of it is lost there."""
    if _family(column.dtype) is None or _family(column.dtype) != _family(kind):
        return None
    try:
        wide = column.cast(kind)
        back = wide.cast(column.dtype)
    except pl.exceptions.PolarsError:
        return None
    return None if differs(column, back).any() else wide


def _family(kind: pl.DataType) -> str | None:
    """Whether a type holds whole numbers, floats, or neither; of a list what is in it."""
    if isinstance(kind, pl.Array | pl.List):
        inner = _family(pl.Series(dtype=kind).explode().dtype)
        return None if inner is None else f"lists of {inner}"
    return "integers" if kind.is_integer() else "floats" if kind.is_float() else None


def _values(one: pl.Series, other: pl.Series, *, close: bool) -> Flags:
    """The same where no row is null."""
    kind = one.dtype
    if isinstance(kind, pl.Float32 | pl.Float64):
        return _floats(one.to_numpy(), other.to_numpy(), close=close)
    if isinstance(kind, pl.Array):
        return _values(one.arr.to_list(), other.arr.to_list(), close=close)
    if isinstance(kind, pl.List):
        lengths = one.list.len().to_numpy()
        found: Flags = lengths != other.list.len().to_numpy()
        same = np.flatnonzero(~found & (lengths > 0))
        if len(same):
            inner = differs(one.gather(same).explode(), other.gather(same).explode(), close=close)
            found[np.repeat(same, lengths[same])[inner]] = True
        return found
    if isinstance(kind, pl.Struct):
        parts = [differs(one.struct.field(name), other.struct.field(name), close=close) for name in one.struct.fields]
        return np.logical_or.reduce(parts) if parts else np.zeros(len(one), np.bool_)
    return one.ne_missing(other).to_numpy()


def _floats(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], *, close: bool) -> Flags:
    bits = np.int64 if one.dtype == np.float64 else np.int32
    found: Flags = one.view(bits) != other.view(bits)
    found &= ~(np.isnan(one) & np.isnan(other))
    if close:
        with np.errstate(invalid="ignore", over="ignore"):
            found &= ~(np.abs(one - other) <= CLOSE * np.maximum(np.abs(one), np.abs(other)))
    return found
