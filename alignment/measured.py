"""What was measured of delays: when each key first arrived, and what arrived together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl

from alignment.durations import DAY_US, instant_us
from alignment.empirical_delay import Travels
from alignment.errors import DelayFitError
from alignment.observations import Observations
from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, ISSUE, ORDER, RETRACTION, canonical

ORIGIN = "@origin"
"""From when a delay counts: the issue of a forecast, else the event; microseconds."""

_TOGETHER = 0.9
"""Rows travel together if so many do of those that could."""
_YOUNG, _YOUNG_AT_MOST = 0.99, 0.5
"""Batches younger than this quantile of the delays are left out, at most so much of the time."""
_RUN = "@run"
_POLLED = 2.0
"""Keys that travel alone are polled if so many arrive per instant."""


def key_of(rows: Observations) -> list[str]:
    """What tells keys apart, under the names of observations: entities, id or `event_time`, of forecasts `issue_time`."""
    event = rows.key or ["event_time"]
    return list(dict.fromkeys([*rows.entities, *event, *(["issue_time"] if rows.kind == "forecast" else [])]))


def first_arrivals(rows: Observations, *, until: datetime | None = None, measured: bool = True) -> pl.DataFrame:
    """When each key first arrived, of the keys whose first arrival was measured.

    Args:
        rows: The observations.
        until: Rows that arrived later are left out.
        measured: Leave out keys whose first arrival was not measured.

    Returns:
        The columns of `key_of` (instants as Datetime("us", "UTC")), `event_time`, `@origin` and `@arrival` in microseconds; one row
        per key, in order of arrival.

    Raises:
        DelayFitError: If these are forecasts that do not say when they were issued.
    """
    if rows.kind == "forecast" and not rows.has_issue_time:
        raise DelayFitError(
            f"{rows.place} are forecasts without an issue_time, and their delay counts from it",
            'name the column, e.g. al.Observations(..., issue_time="run_time").',
        )
    stored = canonical(rows, [])
    names = stored.collect_schema().names()
    stored = stored.filter(pl.col(ARRIVAL).is_not_null(), pl.col(EVENT).is_not_null())
    if until is not None:
        stored = stored.filter(pl.col(ARRIVAL) <= instant_us(until, "until"))
    if RETRACTION in names:
        stored = stored.filter(~pl.col(RETRACTION))
    origin = EVENT
    if rows.kind == "forecast":
        stored, origin = stored.filter(pl.col(ISSUE).is_not_null()), ISSUE
    times = {"event_time": EVENT} | ({"issue_time": ISSUE} if rows.kind == "forecast" else {})
    key = key_of(rows)
    order = [ARRIVAL, *([ORDER] if ORDER in names else [])]
    firsts = (
        stored.sort(*order, maintain_order=True)
        .with_columns(pl.col(origin).alias(ORIGIN))
        .with_columns(pl.col(column).cast(pl.Datetime("us", "UTC")).alias(name) for name, column in times.items())
        .unique(key, keep="first", maintain_order=True)
    )
    if measured and ARRIVAL_KIND in names:
        firsts = firsts.filter(pl.col(ARRIVAL_KIND) == "measured")
    late = pl.max_horizontal(ARRIVAL, ORIGIN).alias(ARRIVAL)
    return firsts.select(*dict.fromkeys([*key, "event_time", ORIGIN]), late).collect()


@dataclass(frozen=True, slots=True)
class Batches:
    """Measured batches.

    Attributes:
        frame: `@origin`, `@arrival` (microseconds), and the columns that batches are grouped by; in order of these and
            `@origin`.
        travels: What a batch is.
        key: The columns that tell batches apart, where each travels alone.
        columns: The columns that batches are grouped by.
        start: From when batches were measured completely, microseconds.
        end: Up to when.
    """

    frame: pl.DataFrame
    travels: Travels
    key: tuple[str, ...]
    columns: tuple[str, ...]
    start: int
    end: int

    @classmethod
    def of(cls, rows: Observations, columns: Sequence[str], *, until: datetime | None, place: str) -> Self:
        """The batches that were sent while arrivals were being measured, except for those that are too young.

        Raises:
            DelayFitError: If there are none.
        """
        firsts = first_arrivals(rows, until=until)
        if firsts.is_empty():
            raise DelayFitError(
                f"{place}: no arrival was measured", 'measure some, or declare a delay, e.g. al.FixedDelay("45m").'
            )
        travels, key = _travels(rows, firsts)
        apart = [name for name in key if name not in ("event_time", "issue_time")]
        batch = list(dict.fromkeys([ORIGIN, *columns, *apart]))
        arrival = pl.col(ARRIVAL).quantile(0.5, "lower").cast(pl.Int64)
        frame = firsts.group_by(batch).agg(arrival).select(ORIGIN, ARRIVAL, *columns).sort(*columns, ORIGIN, ARRIVAL)
        known = frame.filter(pl.col(ORIGIN) >= firsts[ARRIVAL].min())
        if known.is_empty() or firsts[ARRIVAL].n_unique() < 2:
            raise DelayFitError(
                f"{place}: too little was measured to fit a delay: {firsts.height:,} keys, which first arrived at "
                f"{firsts[ARRIVAL].n_unique():,} instants, {known.height:,} of them new then",
                'declare a delay instead, e.g. al.FixedDelay("45m").',
            )
        start, last = int(firsts[ARRIVAL].min()), int(firsts[ARRIVAL].max())  # type: ignore[arg-type]
        delay = (known[ARRIVAL] - known[ORIGIN]).quantile(_YOUNG, "linear") or 0.0
        end = last - min(int(delay), int((last - start) * _YOUNG_AT_MOST))
        old_enough = known.filter(pl.col(ORIGIN) <= end)
        if old_enough.is_empty():
            raise DelayFitError(
                f"{place}: too little was measured to fit a delay: all batches may still have late ones to come",
                'measure longer, or declare a delay, e.g. al.FixedDelay("45m").',
            )
        return cls(old_enough, travels, key, tuple(columns), start, end)

    def told_by(self, count: int) -> Self:
        """The batches that tell what all of them do, at most so many.

        Of a run of batches that arrived at the same instant the first and last are enough. Of those that came alone every second,
        third, ... is left, all over the time; if runs alone are too many, the newest.
        """
        if self.travels == "key":
            run = pl.lit(value=False)
            frame = self.frame
        else:
            with_last, with_next = (
                pl.all_horizontal(
                    (pl.col(name) == pl.col(name).shift(step)).fill_null(value=False)
                    for name in (ARRIVAL, *self.columns)
                )
                for step in (1, -1)
            )
            run = with_last | with_next
            frame = self.frame.filter(~(with_last & with_next))
        if frame.height > count:
            runs = frame.select(run.sum()).item() if self.travels != "key" else 0
            step = -(-(frame.height - runs) // max(count - runs, 1))
            frame = frame.with_columns(run.alias(_RUN)).filter(
                pl.col(_RUN) | (((~pl.col(_RUN)).cum_sum() - 1) % step == 0)
            )
            frame = frame.drop(_RUN)
        if frame.height <= count:
            return replace(self, frame=frame)
        start = int(frame[ORIGIN].top_k(count).min())  # type: ignore[arg-type]
        return replace(self, frame=frame.filter(pl.col(ORIGIN) >= start), start=start)

    @property
    def delays(self) -> pl.Series:
        """In microseconds."""
        return self.frame[ARRIVAL] - self.frame[ORIGIN]

    def days_of_silence(self) -> int:
        """Whole days that hold the longest time without an arrival; at most a quarter of what was measured."""
        gaps = np.diff(np.unique(self.frame[ARRIVAL].to_numpy()))
        longest = int(gaps.max()) if len(gaps) else 0
        return max(1, min(-(-longest // DAY_US), (self.end - self.start) // DAY_US // 4))

    def are_polled(self) -> bool:
        """Whether several batches arrive at one instant as a rule."""
        return self.frame.height >= _POLLED * self.frame[ARRIVAL].n_unique()


def _travels(rows: Observations, firsts: pl.DataFrame) -> tuple[Travels, tuple[str, ...]]:
    """What arrives together, as the rows tell, and the columns that tell batches apart where it is not all of one origin."""
    own: Travels = "issue" if rows.kind == "forecast" else "event"
    share = _together(firsts, [ORIGIN])
    if share is None:
        several = rows.entities and firsts.select(rows.entities).n_unique() > 1
        return ("key", tuple(key_of(rows))) if rows.kind == "measurement" and (rows.key or several) else (own, ())
    if share >= _TOGETHER:
        return own, ()
    if rows.kind == "forecast" and (_together(firsts, [ORIGIN, *rows.entities]) or 0.0) >= _TOGETHER:
        return "key", (*rows.entities, "issue_time")
    return "key", tuple(key_of(rows))


def _together(firsts: pl.DataFrame, columns: Sequence[str]) -> float | None:
    """Share of the rows that arrived with all others of their batch, of the rows that are not alone in it; None if all are."""
    batches = firsts.group_by(columns).agg(pl.len().alias("rows"), same=pl.col(ARRIVAL).n_unique() == 1)
    several = batches.filter(pl.col("rows") > 1)
    if several.is_empty():
        return None
    return int(several.filter("same")["rows"].sum()) / int(several["rows"].sum())
