"""Columns from values of no declared type: the narrowest type that loses nothing, and text where there is none."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

EXACT_FLOAT = 2**53
"""Whole numbers up to this size are floats without loss."""
_INT64, _INT128 = 2**63, 2**127
_WHOLE = r"^(?:0|-?[1-9]\d{0,17})$"
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?$"
_NOT_FINITE = {"nan": "NaN", "inf": "inf", "+inf": "inf", "-inf": "-inf", "infinity": "inf", "-infinity": "-inf"}


def column_of(name: str, values: list[Any]) -> pl.Series:
    """A column of values as JSON has them.

    Whole numbers stay whole, however great. Whole numbers and fractions together are Float64 if that loses nothing. Lists of
    one kind are lists. Whatever else comes together, objects included, becomes JSON text, so that nothing is lost and the
    contract can say which rows are at fault.

    Args:
        name: The column's name.
        values: `None`, bool, int, float, str, list or dict.

    Returns:
        A column of the same length; of dtype Null if all values are `None`.

    Example:
        >>> column_of("load", [1, 2.5, None]).to_list()
        [1.0, 2.5, None]
        >>> column_of("load", [1, "n/a"]).to_list()
        ['1', 'n/a']
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {list}:
        found = _lists(name, values)
        if found is not None:
            return found
    elif (dtype := _common(kinds, values)) is not None:
        return _series(name, values, dtype)
    texts = [None if value is None else value if isinstance(value, str) else as_text(value) for value in values]
    return _series(name, texts, pl.String())


def as_text(value: object) -> str:
    """A value as JSON writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _common(kinds: set[type], values: list[Any]) -> pl.DataType | None:
    """The type that holds all values without loss, if there is one."""
    if not kinds:
        return pl.Null()
    if kinds == {bool}:
        return pl.Boolean()
    if kinds == {str}:
        return pl.String()
    if kinds == {int}:
        least, greatest = _bounds(values)
        if least >= -_INT64 and greatest < _INT64:
            return pl.Int64()
        return pl.Int128() if least >= -_INT128 and greatest < _INT128 else None
    if kinds == {float}:
        return pl.Float64()
    if kinds == {int, float}:
        least, greatest = _bounds(values)
        return pl.Float64() if max(-least, greatest) <= EXACT_FLOAT else None
    return None


def _bounds(values: list[Any]) -> tuple[int, int]:
    whole = [value for value in values if type(value) is int]
    return min(whole), max(whole)


def _lists(name: str, values: list[Any]) -> pl.Series | None:
    """Lists of plain values of one kind, as such."""
    flat = [item for value in values if value is not None for item in value]
    kinds = set(map(type, flat)) - {type(None)}
    dtype = _common(kinds, flat) if not kinds & {list, dict} else None
    return None if dtype is None else _series(name, values, pl.List(dtype))


def _series(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    try:
        return pl.Series(name, values, dtype=dtype, strict=dtype != pl.Float64() and dtype != pl.List(pl.Float64()))
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape and UTF-8 cannot hold
        return pl.Series(name, [_whole_text(value) for value in values], dtype=dtype)


def _whole_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole_text(item) for item in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def column_of_texts(texts: pl.Series, *, decimal_comma: bool = False) -> pl.Series:
    """A column of CSV's texts, as numbers or booleans if every one of them is one.

    Numbers with leading zeros are names (`007`), and make their column text. So do whole numbers beyond 18 digits, and
    fractions beside whole numbers that no float holds.

    Args:
        texts: Text and nulls.
        decimal_comma: Whether fractions are written `1,5`.

    Returns:
        Int64, Float64, Boolean or String.
    """
    there = texts.drop_nulls()
    if there.is_empty():
        return texts.cast(pl.Null)
    if there.str.contains(_WHOLE).all():
        return texts.cast(pl.Int64)
    if there.str.to_lowercase().is_in(["true", "false"]).all():
        return texts.str.to_lowercase() == "true"
    if decimal_comma and there.str.contains(".", literal=True).any():  # perhaps a thousand, perhaps not
        return texts
    numbers = texts.str.replace(",", ".", literal=True) if decimal_comma else texts
    lower = numbers.str.to_lowercase()
    odd = lower.is_in(list(_NOT_FINITE))
    plain = numbers.set(odd.fill_null(value=False), None).drop_nulls()
    if plain.str.contains(_NUMBER).all() and not plain.str.contains(r"^[+-]?0\d").any():
        whole = plain.filter(plain.str.contains(r"^[+-]?\d+$"))
        if not whole.is_empty() and (whole.str.len_chars() > 15).any():
            return texts
        return lower.replace(_NOT_FINITE).cast(pl.Float64, strict=False)
    return texts
