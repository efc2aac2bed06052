"""Windows as SQL (R8): every aggregate over the current events of a range, in two passes where a mean is needed first.

`x` stands for a column that is null wherever the row is not current, `hours` for the time from the window's end.
"""

from __future__ import annotations

from collections.abc import Iterable

from alignment.engines.sql_rules import sql
from alignment.features import Window, quantile_of

TOTAL = "CASE WHEN bool_and(isfinite({x})) THEN fsum({x}) ELSE sum({x}) END"
"""Compensated, so that it hardly depends on the order; with an infinity in it, what plain addition makes of it."""

AGGREGATES = {
    "count": "count({x})",
    "mean": f"({TOTAL}) / count({{x}})",
    "var": "CASE WHEN count({x}) > 1 THEN sum(({x} - {x}_mean) ** 2) / (count({x}) - 1) END",
    "std": "CASE WHEN count({x}) > 1 THEN sqrt(sum(({x} - {x}_mean) ** 2) / (count({x}) - 1)) END",
    # Of 0.0 and -0.0, which are equal, the first in order.
    "min": "CASE WHEN min({x}) = 0 THEN min_by({x}, place) FILTER (WHERE {x} = 0) ELSE min({x}) END",
    "max": "CASE WHEN max({x}) = 0 THEN min_by({x}, place) FILTER (WHERE {x} = 0) ELSE max({x}) END",
    "first": "min_by(row, place) FILTER (WHERE {x} IS NOT NULL)",
    "last": "max_by(row, place) FILTER (WHERE {x} IS NOT NULL)",
    "slope": """CASE WHEN min(event) FILTER (WHERE {x} IS NOT NULL) < max(event) FILTER (WHERE {x} IS NOT NULL)
            THEN sum((hours - {x}_hour) * ({x} - {x}_mean)) / sum((hours - {x}_hour) ** 2) FILTER (WHERE {x} IS NOT NULL) END""",
}
SUM_OF_INTEGERS = "try_cast(sum({x}) AS BIGINT)"
QUANTILE = "quantile_cont({x}::DOUBLE, {share}::DOUBLE)"
UNLESS_NAN = "CASE WHEN NOT bool_or(isnan({x})) THEN {aggregate} WHEN count({x}) > 0 THEN {otherwise} END"

MEANS = f"""({TOTAL.replace("{x}", "{x}::DOUBLE")}) / count({{x}}) AS {{x}}_mean,
        fsum(hours) FILTER (WHERE {{x}} IS NOT NULL) / count({{x}}) AS {{x}}_hour"""

WINDOWS = """
WITH {candidates},
valued AS (
    SELECT ask, row, event, place, is_current, is_withdrawn, (event - hi) / 3.6e9 AS hours, {values}
    FROM rows_to_use
){centres}
SELECT ask, bool_or(is_current) AS some_current, bool_or(is_withdrawn) AS some_withdrawn, {aggregates}
FROM {valued}
GROUP BY ask
"""

CENTRES = """,
centres AS (
    SELECT ask, {means}
    FROM valued GROUP BY ask
)"""

PARTS = """
CREATE OR REPLACE TEMP TABLE parts AS
SELECT *, (sum(hi_block - lo_block + 1) OVER (ORDER BY ask) // {blocks})::BIGINT AS part FROM asks
"""


def aggregate_sql(feature: Window, x: str, *, is_float: bool) -> str:
    """What computes `feature` from the column `x`.

    Args:
        feature: A window.
        x: Its column's name in SQL.
        is_float: Whether there may be NaN, which makes all but count NaN.
    """
    share = quantile_of(feature.aggregate)
    if share is not None:
        text = QUANTILE.format(x=x, share=f"'{share!r}'")
    elif feature.aggregate == "sum":
        text = TOTAL.format(x=x) if is_float else SUM_OF_INTEGERS.format(x=x)
    elif feature.aggregate == "mean" and not is_float:
        text = AGGREGATES["mean"].format(x=f"{x}::DOUBLE")
    else:
        text = AGGREGATES[feature.aggregate].format(x=x)
    if not is_float or feature.aggregate == "count":
        return text
    otherwise = "-1" if feature.aggregate in ("first", "last") else "'NaN'::DOUBLE"
    return UNLESS_NAN.format(x=x, aggregate=text, otherwise=otherwise)


def windows_sql(candidates: str, columns: Iterable[str], aggregates: dict[str, str]) -> str:
    """The query of all windows over one range.

    Args:
        candidates: The rules up to `rows_to_use`.
        columns: Columns in SQL that are aggregated.
        aggregates: Output name to SQL.
    """
    names = list(columns)
    centred = [x for x in names if any(f"{x}_mean" in text for text in aggregates.values())]
    return sql(
        WINDOWS,
        candidates=candidates,
        values=", ".join(f"CASE WHEN is_current THEN {x} END AS {x}" for x in names),
        centres=CENTRES.format(means=",\n        ".join(MEANS.format(x=x) for x in centred)) if centred else "",
        valued="valued JOIN centres USING (ask)" if centred else "valued",
        aggregates=",\n    ".join(f"{text} AS {name}" for name, text in aggregates.items()),
    )
