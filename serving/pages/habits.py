"""How a provider's habits change with time: delays and revisions by day, few enough points for a page.

`ingestion.profile` says what they are over all; here the same rows are grouped by the day of their event (an hour where there
are few days, a week or a month where there are many). Everything is grouped in Polars, nothing is drawn row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from ingestion import ObservationLog

QUANTILES: Final = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
BINS: Final = 40
_DAY_US: Final = 86_400_000_000
_SIZES: Final = (
    ("hour", _DAY_US // 24),
    ("day", _DAY_US),
    ("7 days", 7 * _DAY_US),
    ("30 days", 30 * _DAY_US),
    ("365 days", 365 * _DAY_US),
)
_FINEST: Final = 200
_MOST_POINTS: Final = 400
_FEW_DAYS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """A provider's delays and revisions over time.

    Attributes:
        rows: Observations.
        keys: Distinct keys; of a forecast, all issues of one event count as revisions of it.
        retractions: Rows that withdraw.
        delay_of: What delays are measured from: `event` or, of forecasts, `issue`.
        every: The length of time that one point stands for, in words.
        over_time: `start` of each such time, `keys`, `q05` .. `q95` of the delay of first arrivals in seconds, `revisions` per key.
        histogram: `from` and `until` in seconds, `keys` with such a delay; the last one has no `until`.
        arrival_kinds: Rows by how their arrival is known.
    """

    rows: int
    keys: int
    retractions: int
    delay_of: str
    every: str
    over_time: list[dict[str, Any]]
    histogram: list[dict[str, Any]]
    arrival_kinds: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def habits(log: ObservationLog, *, position: int | None = None) -> Habits:
    """A provider's delays and revisions over time.

    Args:
        log: The log.
        position: The log position to read at; None reads all.

    Returns:
        The habits; without rows all of it is empty.

    Raises:
        PositionError: If the log has not got as far as `position`.
    """
    forecast = log.kind == "forecast"
    rows = log.scan(position=position, columns=[]).collect()
    since = pl.col("issue_time" if forecast else "event_time")
    names = [*log.entities, *(log.key or ("event_time",))]
    firsts = (
        rows.lazy()
        .with_columns(
            pl.col("is_retraction").fill_null(value=False),
            (pl.col("arrival_time") - since).dt.total_microseconds().alias("delay"),
        )
        .filter(pl.col("event_time").is_not_null())
        .group_by(names)
        .agg(
            pl.len().alias("rows"),
            pl.col("event_time").min().alias("event") if log.key else pl.lit(0).alias("event"),
            pl.col("delay").sort_by("arrival_time").first() if log.key or forecast else pl.col("delay").min(),
        )
    )
    firsts = firsts.select(pl.col("event" if log.key else "event_time").alias("event"), "rows", "delay")
    found = firsts.collect()
    word, size = _size(found)
    return Habits(
        rows=rows.height,
        keys=found.height,
        retractions=int(rows["is_retraction"].sum() or 0),
        delay_of="issue" if forecast else "event",
        every=word,
        over_time=_over_time(found, size),
        histogram=_histogram(found["delay"].drop_nulls()),
        arrival_kinds=dict(sorted(rows["arrival_kind"].value_counts().iter_rows())),
    )


def _size(found: pl.DataFrame) -> tuple[str, int]:
    """The time that one point stands for: a day, unless that makes too few points or too many."""
    first, last = (found["event"].dt.epoch("us").min(), found["event"].dt.epoch("us").max()) if found.height else (0, 0)
    assert isinstance(first, int)  # noqa: S101 - of instants
    assert isinstance(last, int)  # noqa: S101
    length = last - first
    if length < _FEW_DAYS * _DAY_US:
        return _SIZES[0]
    return next((each for each in _SIZES[1:] if length / each[1] <= _MOST_POINTS), _SIZES[-1])


def _over_time(found: pl.DataFrame, size: int) -> list[dict[str, Any]]:
    delay = pl.col("delay") / 1e6
    return (
        found.with_columns(
            (pl.col("event").dt.epoch("us") // size * size).cast(pl.Datetime("us", "UTC")).alias("start")
        )
        .group_by("start")
        .agg(
            pl.len().alias("keys"),
            *(delay.quantile(q, "linear").round(3).alias(name) for name, q in QUANTILES.items()),
            ((pl.col("rows").sum() - pl.len()) / pl.len()).round(6).alias("revisions"),
        )
        .sort("start")
        .tail(_MOST_POINTS + 1)
        .to_dicts()
    )


def _histogram(delays: pl.Series) -> list[dict[str, Any]]:
    """How many keys had which delay, in bins of one width up to what one in a hundred exceeds; the rest is in the last."""
    if not len(delays):
        return []
    low, high, greatest = (delays.quantile(q, "linear") for q in (0.0, 0.99, 1.0))
    low, high, greatest = float(low or 0), float(high or 0), float(greatest or 0)
    width = max((high - low) / BINS, abs(high) / _FINEST, 1e6)  # where all are equal, one bar
    numbers = ((delays - low) / width).floor().clip(0, BINS).cast(pl.Int64)
    counts = dict(numbers.value_counts().iter_rows())
    bins = [
        {
            "from": round((low + number * width) / 1e6, 6),
            "until": round((low + (number + 1) * width) / 1e6, 6),
            "keys": counts.get(number, 0),
        }
        for number in range(BINS)
    ]
    more = counts.get(BINS, 0)
    if more:
        bins.append({"from": round((low + BINS * width) / 1e6, 6), "until": None, "keys": more})
    while len(bins) > 1 and not bins[-1]["keys"]:
        bins.pop()
    return bins
