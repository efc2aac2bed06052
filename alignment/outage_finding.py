"""Outages as arrivals show them: spans in which nothing came, and what became of the rows (R20, R23)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from alignment.durations import DurationLike, instant_from_us, instant_us, parse_duration
from alignment.errors import DefinitionError
from alignment.heartbeats import heartbeats_in, provider_of
from alignment.observations import FrameLike, Observations
from alignment.outages import Outage
from alignment.rows import ARRIVAL, EVENT, ISSUE, RETRACTION, canonical, check_rows
from alignment.views import FeatureView

TIMES_USUAL: Final = 8
"""How many times the usual gap between arrivals is an outage, where nobody says how long it is."""
_WHO, _LAST, _NEXT, _LIMIT, _USUAL = "@who", "@last", "@next", "@limit", "@usual"
_AT, _KNOWN, _STEP, _FOLLOWING = "@at", "@known", "@step", "@following"


def find_outages(
    observations: FrameLike,
    longer_than: DurationLike | None = None,
    *,
    provider: str | None = None,
    per_entity: bool = False,
    until: datetime | None = None,
) -> list[Outage]:
    """The spans in which a provider was silent for longer than it may be, as outages that can be injected elsewhere.

    An outage begins one microsecond after a heartbeat (of a log a batch or an empty poll, of a frame an arrival) and ends with the next
    one: of the rows that would have arrived in between none did. `lost` is said where they did not come afterwards either: where,
    from the newest event known before the outage (of forecasts: issue) to the next one that ever came, more is missing than half of what
    the silence is longer than usual. Where no later event came, this cannot be told, and the outage is not `lost`.

    Usual is the gap in which a random instant lies: the median of the gaps weighted by their length. So neither rows that arrive
    within seconds of each other nor a few long outages change it; and where rows come at random, about one gap in a million is 8
    times as long.

    Args:
        observations: What was sent: a view, `Observations`, or a log.
        longer_than: Silence that makes an outage; exactly as long is none. By default 8 times the usual gap, of an entity 8 times its
            own. Where a provider sends when something happens, and there are no polls, a long calm looks like an outage.
        provider: The name in the outages; by default the log's, of a frame the view's.
        per_entity: Also find entities that were silent while others were not: more than `longer_than` outside of the outages of
            the whole provider. Each gives an outage of its own with `entities`.
        until: Arrivals after this instant are left out, and a silence that goes on there ends there.

    Returns:
        Outages in order of start, those of the whole provider first.

    Raises:
        DefinitionError: If nothing says who the provider is.
        DurationError: If `longer_than` is not a duration.
        NaiveTimeError: If `until` has no zone.
        AlignmentError: If a frame breaks a rule of frames.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> noon, minute = datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(minutes=1)
        >>> frame = pl.DataFrame(
        ...     {
        ...         "event_time": [noon + 10 * n * minute for n in range(9)],
        ...         "arrival_time": [noon + m * minute for m in (1, 11, 21, 80, 80, 80, 80, 80, 81)],
        ...         "temp": [3.5] * 9,
        ...     }
        ... )
        >>> find_outages(Observations(frame, entities=[]), "30m", provider="mast")
        [Outage('mast', 2026-01-01T12:21:00.000001+00:00, 2026-01-01T13:20:00+00:00)]
    """
    rows, name = _rows(observations, provider)
    limit = None if longer_than is None else parse_duration(longer_than, "longer_than").total_us
    stop = None if until is None else instant_us(until, "until")
    beats = pl.Series(ARRIVAL, heartbeats_in(rows)).unique()
    beats = beats if stop is None else beats.filter(beats <= stop)
    came, entities = _came(rows, beats)
    whole = _silences(beats.to_frame().with_columns(_everybody()), limit, stop)
    found = _as_outages(whole, came.with_columns(_everybody()), name, None)
    if per_entity and rows.entities:
        alone = _without(_silences(came.select(_WHO, ARRIVAL), limit, stop), whole)
        found += _as_outages(alone, came, name, entities)
    return sorted(found, key=lambda outage: (outage.start, outage.entities is not None))


def _rows(given: FrameLike, provider: str | None) -> tuple[Observations, str]:
    if isinstance(given, FeatureView):
        return given.observations, provider or provider_of(given)
    rows = given if isinstance(given, Observations) else Observations(given)
    name = provider or (rows.source.provider if rows.source is not None else None)
    if name is None:
        raise DefinitionError(
            "it is not said whose outages these are: a plain frame has no provider",
            'pass provider="weather", or a view: its name stands for it.',
        )
    return rows, name


def _everybody() -> pl.Expr:
    """All rows as those of one."""
    return pl.lit(0, pl.UInt32).alias(_WHO)


def _came(rows: Observations, beats: pl.Series) -> tuple[pl.DataFrame, list[Any]]:
    """The rows that came with a heartbeat, and their entities: who, arrival, event (of forecasts issue; null for retractions)."""
    frame, _ = check_rows(rows, canonical(rows, []).collect())
    frame = frame.filter(pl.col(ARRIVAL).is_in(beats.implode()))
    at = pl.col(ISSUE if rows.kind == "forecast" else EVENT)
    if RETRACTION in frame.columns:
        at = pl.when(~pl.col(RETRACTION)).then(at)
    frame = frame.with_columns(at.alias(_AT))
    if not rows.entities:
        return frame.select(_everybody(), ARRIVAL, _AT), []
    keys = frame.select(rows.entities).unique(maintain_order=True).with_row_index(_WHO)
    named = keys.drop(_WHO).rows()
    frame = frame.join(keys, on=rows.entities, how="left", maintain_order="left")
    return frame.select(_WHO, ARRIVAL, _AT), [one[0] if len(one) == 1 else one for one in named]


def _usual(gap: str) -> pl.Expr:
    """The median of gaps weighted by their length."""
    gaps = pl.col(gap).drop_nulls().sort()
    return gaps.filter(gaps.cum_sum() * 2 >= gaps.sum()).first()


def _silences(arrivals: pl.DataFrame, limit: int | None, stop: int | None) -> pl.DataFrame:
    """Per who the gaps between arrivals that are longer than the limit: last arrival, next one (or `stop`), usual gap."""
    gaps = (
        arrivals.select(_WHO, pl.col(ARRIVAL).alias(_LAST))
        .unique()
        .sort(_WHO, _LAST)
        .with_columns(pl.col(_LAST).shift(-1).over(_WHO).alias(_NEXT))
        .with_columns((pl.col(_NEXT) - pl.col(_LAST)).alias("@gap"))
    )
    usual = gaps.group_by(_WHO).agg(_usual("@gap").alias(_USUAL))
    limits = pl.lit(limit, pl.Int64) if limit is not None else pl.col(_USUAL) * TIMES_USUAL
    return (
        gaps.with_columns(pl.col(_NEXT).fill_null(pl.lit(stop, pl.Int64)))
        .join(usual, on=_WHO, how="left")
        .with_columns(limits.alias(_LIMIT))
        .filter(pl.col(_NEXT) - pl.col(_LAST) > pl.col(_LIMIT))
        .select(_WHO, _LAST, _NEXT, _LIMIT, _USUAL)
    )


def _without(silences: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
    """The silences of entities that are still too long when those of the whole provider do not count."""
    last, after = silences[_LAST].to_numpy()[:, None], silences[_NEXT].to_numpy()[:, None]
    both = np.minimum(after, whole[_NEXT].to_numpy()) - np.maximum(last, whole[_LAST].to_numpy())
    alone = (after - last)[:, 0] - np.maximum(both, 0).sum(axis=1)
    return silences.filter(pl.Series(alone > silences[_LIMIT].to_numpy()))


def _as_outages(silences: pl.DataFrame, came: pl.DataFrame, name: str, entities: Sequence[Any] | None) -> list[Outage]:
    lost = _lost(silences, came)
    return [
        Outage(
            name,
            instant_from_us(last + 1),
            instant_from_us(after),
            lost=gone,
            entities=None if entities is None else [entities[who]],
        )
        for who, last, after, gone in _sorted(lost.select(_WHO, _LAST, _NEXT, "lost").iter_rows())
    ]


def _sorted(rows: Iterable[tuple[int, int, int, bool]]) -> list[tuple[int, int, int, bool]]:
    return sorted(rows, key=lambda row: (row[1], row[0]))


def _lost(silences: pl.DataFrame, came: pl.DataFrame) -> pl.DataFrame:
    """Silences, and whether the rows that were due in them never came."""
    events = came.drop_nulls(_AT).join(silences.select(_WHO).unique(), on=_WHO, how="semi")
    newest = (
        events.sort(_WHO, ARRIVAL).select(_WHO, ARRIVAL, pl.col(_AT).cum_max().over(_WHO).alias(_KNOWN)).sort(ARRIVAL)
    )
    seen = events.select(_WHO, _AT).unique().sort(_WHO, _AT)
    steps = (
        seen.with_columns(pl.col(_AT).diff().over(_WHO).alias("@gap")).group_by(_WHO).agg(_usual("@gap").alias(_STEP))
    )
    return (
        silences.sort(_LAST)
        .join_asof(newest, left_on=_LAST, right_on=ARRIVAL, by=_WHO, check_sortedness=False)
        .sort(_KNOWN)
        .join_asof(
            seen.select(_WHO, pl.col(_AT).alias(_FOLLOWING)).sort(_FOLLOWING),
            left_on=_KNOWN,
            right_on=_FOLLOWING,
            by=_WHO,
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .join(steps, on=_WHO, how="left")
        .with_columns(
            lost=(
                (pl.col(_FOLLOWING) - pl.col(_KNOWN) - pl.col(_STEP)) * 2
                > pl.col(_NEXT) - pl.col(_LAST) - pl.col(_USUAL)
            ).fill_null(value=False)
        )
    )
