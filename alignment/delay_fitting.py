"""Delay rules from measured stamps: the empirical one, and the declared ones that come nearest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from alignment.delay_report import DelayReport, assess_delay
from alignment.delays import DelayRule, FixedDelay, PublishSchedule
from alignment.durations import DAY_US, DurationLike, instant_from_us, instant_us
from alignment.empirical_delay import CLOCK, EmpiricalDelay
from alignment.errors import DefinitionError, DelayFitError, MissingColumnError
from alignment.heartbeats import provider_of
from alignment.measured import ORIGIN, Batches, first_arrivals
from alignment.observations import FrameLike, Observations
from alignment.rows import ARRIVAL
from alignment.snapshot import as_observations
from alignment.stable_hash import check_seed, kind_of, value_texts
from alignment.views import FeatureView
from alignment.wallclock import check_zone, to_local

_HOUR_EXPLAINS, _DAYS_FOR_HOURS = 0.25, 5
"""Delays go by the hour if it explains so much of the variance of their ranks, and so many days were measured."""
_STEP_US = 15 * 60_000_000
"""Times of day that a publication schedule is looked for at."""

Rows = Observations | FeatureView | FrameLike


def fit_delay(
    observations: Rows,
    *,
    by: str | Sequence[str] | None = "auto",
    zone: str | None = None,
    provider: str | None = None,
    until: datetime | None = None,
    holdout: float | datetime | None = None,
    block_days: int | None = None,
    max_batches: int = 10_000,
    seed: int = 0,
) -> EmpiricalDelay:
    """The delays that were measured, as a rule for rows whose arrival nobody measured (R13).

    A key's first arrival decides; of forecasts it counts from the issue, of measurements from the event. Rows that were there when
    measuring began, and batches so young that late ones are missing among them, are left out. What travels together is found in
    the rows: one issue, all entities of one event, or each key alone.

    Args:
        observations: `Observations`, a view, or a log. Rows whose `arrival_kind` is not `measured` are left out.
        by: What delays go by: `"hour"` of day, `"weekday"` (and hour), names of entity columns, or several; None for nothing;
            `"auto"` for the hour if it explains a quarter of their variance.
        zone: Zone of hours and weekdays; None for UTC.
        provider: Whose rows; None for the log's provider, or of a frame `"observations"`.
        until: Stamps later than this are not looked at.
        holdout: First fit on what was measured before this instant (or the last such share of the time) and assess the rule on the
            rest, see `assess_delay`; then fit on all. The rule has it as `assessment`.
        block_days: How many days are drawn at once; None for enough to hold the longest silence.
        max_batches: How many batches the rule keeps: all, or every second, third, ... of those that came alone.
        seed: Seed of the draws.

    Returns:
        The rule; a frozen value, `to_dict` and `from_dict` keep it.

    Raises:
        DelayFitError: If too little was measured.
        DefinitionError: If an argument is out of its range.
        MissingColumnError: If `by` names no column of the entities or key.
        KeyTypeError: If a column in `by` is a list, a struct or the like.
        AlignmentError: What the observations break; see `Observations`.

    Example:
        >>> from datetime import UTC, timedelta
        >>> event = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(96)]
        >>> frame = pl.DataFrame({"event_time": event, "temp": 1.0}).with_columns(
        ...     arrival_time=pl.col("event_time") + timedelta(minutes=20)
        ... )
        >>> fit_delay(Observations(frame, [])).arrival_times(frame[:1]).dt.to_string("%H:%M").to_list()
        ['00:20']
    """
    rows = as_observations(observations)
    name = provider or _provider_of(observations)
    check_zone(zone)
    check_seed(seed)
    named = _names(by)
    _check_count("max_batches", max_batches, "10_000")
    if block_days is not None:
        _check_count("block_days", block_days, "2")
    assessment = None
    if holdout is not None:
        assessment = compare_delays(
            rows,
            holdout,
            by=by,
            zone=zone,
            provider=name,
            until=until,
            block_days=block_days,
            max_batches=max_batches,
            seed=seed,
        )
    columns = [column for column in named if column not in (*CLOCK, "auto")]
    for column in columns:
        if column not in (*rows.entities, *rows.key):
            raise MissingColumnError(column, f"provider {name!r}", [*rows.entities, *rows.key, *CLOCK])
    measured = Batches.of(rows, columns, until=until, place=f"provider {name!r}")
    if "auto" in named:
        named = tuple(columns) + (("hour",) if _goes_by_hour(measured, zone or "UTC") else ())
    kept = measured.told_by(max_batches)
    groups, members = _groups(kept.frame, columns)
    origins = kept.frame[ORIGIN] // 1000
    return EmpiricalDelay(
        provider=name,
        travels=measured.travels,
        origins_ms=tuple(origins),
        delays_ms=tuple(-(-kept.frame[ARRIVAL] // 1000) - origins),
        stretch_ms=(-(-kept.start // 1000), kept.end // 1000),
        by=named,
        zone=zone or "UTC",
        groups=groups,
        members=members,
        kinds=tuple(kind_of(kept.frame.schema[column]) for column in columns),
        keys=measured.key,
        block_days=measured.days_of_silence() if block_days is None else block_days,
        polled=measured.travels == "key" and measured.are_polled(),
        seed=seed,
        assessment=assessment,
    )


def fit_fixed_delay(observations: Rows, *, until: datetime | None = None) -> FixedDelay:
    """The fixed delay that half of the measured batches kept: their median.

    Args:
        observations: `Observations`, a view, or a log.
        until: Stamps later than this are not looked at.

    Raises:
        DelayFitError: If too little was measured.

    Example:
        >>> from datetime import UTC, timedelta
        >>> event = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(48)]
        >>> frame = pl.DataFrame({"event_time": event, "temp": 1.0}).with_columns(
        ...     arrival_time=pl.col("event_time") + timedelta(minutes=20)
        ... )
        >>> fit_fixed_delay(Observations(frame, [])).delay
        '1200s'
    """
    rows = as_observations(observations)
    measured = Batches.of(rows, [], until=until, place=f"provider {_provider_of(observations)!r}")
    return FixedDelay(f"{-(-int(measured.delays.quantile(0.5, 'linear') or 0) // 1_000_000)}s")


def fit_publish_schedule(observations: Rows, *, zone: str = "UTC", until: datetime | None = None) -> PublishSchedule:
    """The daily publication that comes nearest to the measured arrivals: least mean absolute error, to a quarter of an hour.

    Only times are tried that come after all that was measured of their day, for nothing arrives before it is there.

    Args:
        observations: `Observations`, a view, or a log. Of forecasts the issue's day counts.
        zone: Zone of days and times.
        until: Stamps later than this are not looked at.

    Raises:
        DelayFitError: If too little was measured.
        DefinitionError: If the zone is unknown.
    """
    rows = as_observations(observations)
    measured = Batches.of(rows, [], until=until, place=f"provider {_provider_of(observations)!r}")
    check_zone(zone)
    local = to_local(measured.frame[ORIGIN].to_numpy(), zone)
    arrived = to_local(measured.frame[ARRIVAL].to_numpy(), zone) - local // DAY_US * DAY_US
    least = int((local % DAY_US).max())
    steps = np.arange(-(-least // _STEP_US), -(-max(least, int(np.median(arrived))) // _STEP_US) + DAY_US // _STEP_US)
    errors = [float(np.abs(arrived - step * _STEP_US).mean()) for step in steps]
    days, at = divmod(int(steps[int(np.argmin(errors))]) * _STEP_US, DAY_US)
    minutes = at // 60_000_000
    return PublishSchedule(
        f"{minutes // 60:02d}:{minutes % 60:02d}",
        zone,
        days=days,
        day_of="issue" if rows.kind == "forecast" else "event",
    )


def compare_delays(
    observations: Rows,
    holdout: float | datetime = 0.5,
    *,
    by: str | Sequence[str] | None = "auto",
    zone: str | None = None,
    provider: str | None = None,
    until: datetime | None = None,
    block_days: int | None = None,
    max_batches: int = 10_000,
    seed: int = 0,
    lookback: DurationLike | None = None,
    column: str | None = None,
) -> DelayReport:
    """Rules fitted to what was measured first, held against what was measured then: fixed (median), daily, empirical.

    Args:
        observations: `Observations`, a view, or a log.
        holdout: From when stamps are hidden from the fit, or the last share of the time.
        by: See `fit_delay`; so are `provider`, `until`, `block_days`, `max_batches`, `seed`.
        zone: Zone of hours, weekdays and the daily publication; None for UTC.
        provider: Whose rows.
        until: Stamps later than this are not looked at.
        block_days: How many days are drawn at once.
        max_batches: How many batches the empirical rule keeps.
        seed: Seed of the draws.
        lookback: See `assess_delay`; so is `column`.
        column: The column of values.

    Raises:
        DelayFitError: If too little was measured.
        AlignmentError: See `fit_delay` and `assess_delay`.
    """
    rows = as_observations(observations)
    since = cut_of(rows, holdout, until=until)
    name = provider or _provider_of(observations)
    rules: dict[str, DelayRule] = {
        "fixed": fit_fixed_delay(rows, until=since),
        "daily": fit_publish_schedule(rows, zone=zone or "UTC", until=since),
        "empirical": fit_delay(
            rows,
            by=by,
            zone=zone,
            provider=name,
            until=since,
            block_days=block_days,
            max_batches=max_batches,
            seed=seed,
        ),
    }
    return assess_delay(rules, rows, since=since, until=until, lookback=lookback, column=column, provider=name)


def cut_of(rows: Observations, holdout: float | datetime, *, until: datetime | None = None) -> datetime:
    """The instant from which stamps are held out: as given, or so that the last share of the time is.

    Raises:
        DefinitionError: If the share is not between 0 and 1.
        DelayFitError: If nothing was measured.
    """
    if isinstance(holdout, datetime):
        instant_us(holdout, "holdout")
        return holdout
    if isinstance(holdout, bool) or not isinstance(holdout, float | int) or not 0 < holdout < 1:
        raise DefinitionError(f"holdout={holdout!r} is no share of the time", "e.g. holdout=0.5, or an instant.")
    arrivals = first_arrivals(rows, until=until)[ARRIVAL]
    if arrivals.is_empty():
        raise DelayFitError(f"{rows.place}: no arrival was measured", 'declare a delay, e.g. al.FixedDelay("45m").')
    first, last = int(arrivals[0]), int(arrivals[-1])
    return instant_from_us(last - int((last - first) * holdout))


def _names(by: str | Sequence[str] | None) -> tuple[str, ...]:
    """What delays go by, by name.

    Raises:
        DefinitionError: If something is no name.
    """
    given = (by,) if isinstance(by, str) else () if by is None else by
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise DefinitionError(
            f"by={by!r} is neither a name nor a list of names", 'e.g. by="hour", by=["station", "weekday"] or by=None.'
        )
    return tuple(given)


def _check_count(what: str, count: int, example: str) -> None:
    if type(count) is not int or count < 1:
        raise DefinitionError(
            f"{what}={count!r} is not a whole number from 1 on", f"leave it out, or e.g. {what}={example}."
        )


def _provider_of(given: Rows) -> str:
    if isinstance(given, FeatureView):
        return provider_of(given)
    source = given.source if isinstance(given, Observations) else given
    return str(getattr(source, "provider", "observations"))


def _groups(kept: pl.DataFrame, columns: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """The groups that batches are in, their values as text, and per batch which."""
    if not columns:
        return (), ()
    told = kept.select(value_texts(kept[column]) for column in columns)
    groups = told.unique().sort(columns)
    numbered = groups.with_row_index("@group")
    members = told.join(numbered, on=columns, how="left", maintain_order="left", nulls_equal=True)["@group"]
    return tuple(groups.iter_rows()), tuple(members)


def _goes_by_hour(measured: Batches, zone: str) -> bool:
    """Whether the hour of day explains enough of the delays: eta squared of their ranks, adjusted for the number of hours."""
    if measured.end - measured.start < _DAYS_FOR_HOURS * DAY_US:
        return False
    hour = to_local(measured.frame[ORIGIN].to_numpy(), zone) % DAY_US // (DAY_US // 24)
    ranks = pl.DataFrame({"hour": hour, "rank": measured.delays.rank("average")})
    within = ranks.select((pl.col("rank") - pl.col("rank").mean().over("hour")).pow(2).sum()).item()
    total = ranks.select((pl.col("rank") - pl.col("rank").mean()).pow(2).sum()).item()
    free = ranks.height - ranks["hour"].n_unique()
    return bool(total > 0 and free > 0 and 1 - within / free / (total / (ranks.height - 1)) >= _HOUR_EXPLAINS)
