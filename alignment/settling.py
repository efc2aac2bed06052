"""When values settle: revisions of a key side by side, and from which one on they stay near the final one.

Profiles of logs and the maturity of labels measure the same thing; this is where it is said once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
QUANTILE_NAMES = ("min", "q05", "q25", "q50", "q75", "q95", "q99", "max")
KEY, FIRST, LAST, ROW = "__key", "__first", "__last", "__row"
"""Marks of `side_by_side`: number of the key, whether the row is its first, its last, and the row's own number."""


_UNITS = ((1_000, "ms"), (1_000_000, "s"), (60_000_000, "m"), (3_600_000_000, "h"), (86_400_000_000, "d"))
_STEPS = {
    "ms": ((20, 1), (100, 5), (1000, 20)),
    "s": ((20, 1), (60, 5)),
    "m": ((20, 1), (60, 5)),
    "h": ((24, 1), (48, 2)),
    "d": ((30, 1), (90, 5), (180, 10)),
}
_LONG_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Quantiles of a length of time in seconds; all `None` if there was nothing to measure."""

    count: int
    min: float | None
    q05: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    q95: float | None
    q99: float | None
    max: float | None


def quantiles(lengths: pl.Series) -> Quantiles:
    """Quantiles in seconds of a column of durations; nulls do not count."""
    seconds = lengths.drop_nulls().dt.total_microseconds().cast(pl.Float64) / 1e6
    ordered = seconds.sort()
    found = [ordered.quantile(q, "linear") for q in QUANTILES]
    return Quantiles(count=len(seconds), **dict(zip(QUANTILE_NAMES, found, strict=True)))


def human(seconds: float | None) -> str:
    """A length of time as people say it.

    Example:
        >>> human(5400.0)
        '1.5h'
    """
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if abs(seconds) >= length:
            return f"{seconds / length:.3g}{unit}"
    return "0s" if seconds == 0 else f"{seconds * 1e3:.3g}ms"


def readable(length_us: int) -> str:
    """A length of time rounded up to what people say.

    Example:
        >>> [readable(hours * 3_600_000_000) for hours in (0, 5, 24, 27, 49, 24 * 58, 24 * 400)]
        ['0s', '5h', '1d', '28h', '3d', '60d', '420d']
    """
    if length_us <= 0:
        return "0s"
    for unit_us, unit in _UNITS:
        count = -(-length_us // unit_us)
        for until, step in _STEPS[unit]:
            rounded = -(-count // step) * step
            if rounded < until:
                return "1d" if (rounded, unit) == (24, "h") else f"{rounded}{unit}"
    return f"{-(-count // _LONG_DAYS) * _LONG_DAYS}d"


def side_by_side(rows: pl.DataFrame, key: Sequence[str], order: Sequence[str]) -> pl.DataFrame:
    """All rows, revisions of a key side by side in their order, with the marks `KEY`, `FIRST`, `LAST` and `ROW`.

    Args:
        rows: One row per revision.
        key: Columns that say what is revised.
        order: Columns that order its revisions (R2).
    """
    codes = [  # texts sort five times slower than the codes of their categories, and any order of keys will do
        pl.col(name).cast(pl.Categorical).to_physical() if rows.schema[name] == pl.String else pl.col(name)
        for name in key
    ]
    rows = rows.sort(*codes, *order, maintain_order=True)
    change = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in key)
    first = (change | (pl.int_range(pl.len()) == 0)).alias(FIRST)
    return rows.with_columns(first).with_columns(
        pl.col(FIRST).shift(-1, fill_value=True).alias(LAST),
        (pl.col(FIRST).cum_sum() - 1).cast(pl.Int64).alias(KEY),
        pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW),
    )


def final_rows(rows: pl.DataFrame) -> pl.Series:
    """For every row of `side_by_side` the number of its key's last one."""
    return rows.filter(pl.col(LAST)).select(KEY, ROW)[ROW].gather(rows[KEY])


def near(value: pl.Series, final: pl.Series, *, share: float = 0.0, absolute: float = 0.0) -> pl.Series:
    """Whether each value is its final one, or a number no further from it than allowed.

    Null is near null and NaN near NaN; what is no number must be equal.

    Args:
        value: Values.
        final: What each became in the end.
        share: Greatest distance as a share of `|final|`.
        absolute: Greatest distance in the unit of the values.

    Example:
        >>> near(pl.Series([99.0, 98.0, None]), pl.Series([100.0, 100.0, 1.0]), share=0.01).to_list()
        [True, False, False]
    """
    same = value.eq_missing(final)
    if not value.dtype.is_numeric():
        return same
    numbers = pl.DataFrame({"value": value.cast(pl.Float64), "final": final.cast(pl.Float64)})
    distance = (pl.col("value") - pl.col("final")).abs()
    allowed = share * pl.col("final").abs() + absolute
    close = numbers.select(((distance <= allowed) & pl.col("final").is_finite()).fill_null(value=False))
    return same | close.to_series()


def settled_rows(rows: pl.DataFrame, far: pl.Series) -> pl.DataFrame:
    """Per key, which row its value was near the final one from, for good.

    Args:
        rows: What `side_by_side` returned.
        far: Per row, whether it is not near its key's final one; the last of a key is near.

    Returns:
        One row per key in order: `KEY`, `first` and `settled` (numbers of rows), `late` (whether they differ).
    """
    ends = rows.select(KEY, ROW).filter(far).group_by(KEY).agg((pl.col(ROW).max() + 1).alias("settled"))
    firsts = rows.filter(FIRST).select(KEY, pl.col(ROW).alias("first"))
    return firsts.join(ends, on=KEY, how="left", maintain_order="left").select(
        KEY,
        "first",
        pl.coalesce("settled", "first").alias("settled"),
        pl.col("settled").is_not_null().alias("late"),
    )
