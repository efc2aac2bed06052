"""How fresh a provider is now: signs of life, outages, rows, what lies in the quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

import ingestion

if TYPE_CHECKING:
    from ingestion import LogInfo, ObservationLog

SILENT_GAPS: Final = 10
"""A provider counts as down after so many of its usual gaps, where nobody says after which silence it does..."""
RARE_GAPS: Final = 3
"""...and after so many of the gap that one in a hundred exceeds: providers with many entities send in bursts."""
_WHOLE_MINUTES: Final = 600
MOST_OUTAGES: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How a provider is doing at an instant.

    Attributes:
        provider: Whose log.
        state: `up`, `down`, or `unknown` where no arrival was measured.
        now: The instant.
        last_heartbeat: The last sign of life: rows, or a successful poll that brought none.
        silent_for: How long ago that was.
        down_after: The silence after which it counts as down; None where that is not known.
        down_by: What that is: `asked`, ten times the `usual` gap, three times the `rare` one, or the `least` limit; None likewise.
        usual_gap: The median time between two signs of life.
        rare_gap: The time between them that one in a hundred exceeds.
        newest_event: The latest event.
        event_age: How long ago that was; below zero for forecasts.
        rows: Observations.
        position: The log's position.
        quarantined: Rows that wait in the quarantine.
        entities: Entity columns.
        kind: `measurement` or `forecast`.
    """

    provider: str
    state: str
    now: datetime
    last_heartbeat: datetime | None
    silent_for: timedelta | None
    down_after: timedelta | None
    down_by: str | None
    usual_gap: timedelta | None
    rare_gap: timedelta | None
    newest_event: datetime | None
    event_age: timedelta | None
    rows: int
    position: int
    quarantined: int
    entities: list[str]
    kind: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Signs:
    """What a log at one position tells of its provider's freshness, whatever the time is.

    Attributes:
        info: What the log holds.
        beats: When the provider gave signs of life, in order.
        quarantined: Rows that wait in the quarantine.
    """

    info: LogInfo
    beats: pl.Series
    quarantined: int


def signs_of(log: ObservationLog) -> Signs:
    """What a log tells now of its provider's freshness."""
    return Signs(log.info(), log.heartbeats()["arrival_time"], log.quarantine().height)


def freshness(signs: Signs, now: datetime, *, down_after: timedelta | None = None) -> Freshness:
    """How fresh a provider is.

    Args:
        signs: What its log tells.
        now: The instant to judge at; what was stamped later does not count.
        down_after: For how long it may be silent; None is the longer of ten usual gaps and three rare ones.

    Returns:
        Its state and what it is judged by.
    """
    info = signs.info
    beats = signs.beats.filter(signs.beats <= now)
    last = beats.max()
    usual, rare = _gaps(beats)
    limit, down_by = (down_after, "asked") if down_after else _limit(usual, rare)
    silent = max(now - last, timedelta(0)) if isinstance(last, datetime) else None
    state = "unknown" if silent is None or limit is None else "down" if silent >= limit else "up"
    return Freshness(
        provider=info.provider,
        state=state,
        now=now,
        last_heartbeat=last if isinstance(last, datetime) else None,
        silent_for=silent,
        down_after=limit,
        down_by=down_by,
        usual_gap=usual,
        rare_gap=rare,
        newest_event=info.last_event,
        event_age=None if info.last_event is None else now - info.last_event,
        rows=info.rows,
        position=info.position,
        quarantined=signs.quarantined,
        entities=list(info.definition["entities"]),
        kind=str(info.definition["kind"]),
    )


def outages(log: ObservationLog, now: datetime, down_after: timedelta | None) -> tuple[list[dict[str, Any]], int]:
    """When the provider was down, the longest of them if there are many, and how many there were in all.

    Args:
        log: Its log.
        now: An outage that lasts until then has no end.
        down_after: For how long it may be silent; None finds none.
    """
    if down_after is None:
        return [], 0
    found = ingestion.outages(log, f"{round(down_after / timedelta(microseconds=1))}us", now=now)
    lasted = (pl.coalesce("end", pl.lit(now)) - pl.col("start")).alias("lasted")
    kept = found.with_columns(lasted).top_k(MOST_OUTAGES, by="lasted").sort("start")
    return kept.to_dicts(), found.height


def _gaps(beats: pl.Series) -> tuple[timedelta | None, timedelta | None]:
    """The usual gap between two signs of life, and the one that one in a hundred exceeds."""
    seconds = beats.diff().drop_nulls().dt.total_microseconds() / 1e6
    if not len(seconds):
        return None, None
    usual, rare = (timedelta(seconds=float(seconds.quantile(q, "linear") or 0)) for q in (0.5, 0.99))
    return usual, rare


def _limit(usual: timedelta | None, rare: timedelta | None) -> tuple[timedelta | None, str | None]:
    """The silence that is far beyond what happens every day, in whole seconds or minutes, and what it was made of."""
    if usual is None or rare is None:
        return None, None
    least = timedelta(seconds=1)
    limit, word = max((SILENT_GAPS * usual, "usual"), (RARE_GAPS * rare, "rare"), (least, "least"))
    whole = timedelta(minutes=1) if limit >= timedelta(seconds=_WHOLE_MINUTES) else least
    return -(-limit // whole) * whole, word
