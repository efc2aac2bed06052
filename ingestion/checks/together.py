"""Frames that came apart as one, without a value being changed for the sake of a common type."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ingestion.batch import payloads
from ingestion.checks.casting import cast_column


def with_types_of_all(frames: Sequence[pl.DataFrame], another: pl.DataFrame) -> tuple[list[pl.DataFrame], str | None]:
    """Frames of one schema and another with the same columns, in types that hold all their values as they are.

    Args:
        frames: What is together already; at least one.
        another: What is to join them.

    Returns:
        All of them; or those that were together, and a column of which no type holds all values.

    Example:
        >>> whole, parts = pl.DataFrame({"kw": [1]}), pl.DataFrame({"kw": [0.5]})
        >>> [frame["kw"].to_list() for frame in with_types_of_all([whole], parts)[0]]
        [[1.0], [0.5]]
        >>> with_types_of_all([pl.DataFrame({"kw": [2**53 + 1]})], parts)[1]
        'kw'
    """
    together = [*frames, another]
    for name, old in frames[0].schema.items():
        new = another.schema[name]
        if old == new:
            continue
        wider = _wider(old, new)
        if wider is None:
            return [*frames], name
        cast = [cast_column(frame[name], wider) for frame in together]
        if any(fails.any() for _, fails in cast):
            return [*frames], name
        together = [frame.with_columns(values) for frame, (values, _) in zip(together, cast, strict=True)]
    return together, None


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """A type for values of both; `None` if only text or roundings would hold them."""
    try:
        empty = [pl.DataFrame(schema={"both": dtype}) for dtype in (one, other)]
        wider = pl.concat(empty, how="vertical_relaxed").schema["both"]
    except pl.exceptions.PolarsError:
        return None
    texts = (pl.String, pl.Categorical, pl.Enum)
    if wider == pl.String and not (isinstance(one, texts) and isinstance(other, texts)):
        return None
    return None if wider.is_float() and (one.is_decimal() or other.is_decimal()) else wider


def as_they_came(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows as they came, for the quarantine; a column that came in several types is text."""
    types: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, dtype in frame.schema.items():
            if dtype != pl.Null():
                types.setdefault(name, set()).add(dtype)
    mixed = {name for name, dtypes in types.items() if len(dtypes) > 1}
    texts = [frame.with_columns(_text(frame[name]) for name in mixed.intersection(frame.columns)) for frame in frames]
    return pl.concat(texts, how="diagonal_relaxed")


def _text(values: pl.Series) -> pl.Series:
    if not (values.dtype.is_nested() or values.dtype == pl.Binary()):
        return values.cast(pl.String)
    rendered = payloads(pl.DataFrame({"v": values}), pl.int_range(len(values), eager=True))
    plain = rendered.str.slice(len('{"v":')).str.strip_suffix("}")
    return plain.to_frame("v").select(pl.when(values.is_not_null()).then("v")).to_series().alias(values.name)
