"""What the newest polls and rows of a log tell, read cheaply: what is new since the last look, three columns of it."""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from ingestion.ledger import COUNTS, HEARTBEATS
from ingestion.reading import DROPPED, OBSERVATION, POLL, QUARANTINED, RELEASED

if TYPE_CHECKING:
    from ingestion.log import ObservationLog

POLLS: Final = 100
ARRIVALS: Final = 100
ROWS: Final = 300_000
_NAN: Final = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Quantiles of some seconds.

    Attributes:
        count: Of how many values.
        q50: The median.
        q95: What one in twenty exceeds.
        q99: What one in a hundred exceeds.
        max: The greatest.
    """

    count: int
    q50: float
    q95: float
    q99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float | None]) -> Spread | None:
        """The spread of some values; `None` of none."""
        values = sorted(value for value in seconds if value is not None)
        if not values:
            return None
        q50, q95, q99 = (quantile_of(values, q) for q in (0.5, 0.95, 0.99))
        return cls(count=len(values), q50=q50, q95=q95, q99=q99, max=values[-1])


def quantile_of(ordered: Sequence[float], q: float) -> float:
    """A quantile of ordered values, interpolated linearly.

    Example:
        >>> quantile_of([1.0, 2.0, 4.0], 0.75)
        3.0
    """
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPoll:
    """The newest entry of the ledger.

    Attributes:
        started: When it began.
        ended: When it was done.
        outcome: `rows`, `empty`, `failed`, `refused` or `idle`.
        source: The kind of source.
        error: Why it failed.
    """

    started: datetime
    ended: datetime
    outcome: str
    source: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What the newest polls and rows of a log tell.

    Attributes:
        provider: Whose log.
        position: The log's position.
        last_arrival: Arrival of the newest measured rows.
        last_event: Their latest event.
        delay: Of the newest arrival: from its latest event (of forecasts, issue) to the arrival; seconds.
        delay_before: The same, of the arrival before.
        delays: The same, of all arrivals before these two.
        delay_limit: The quantile of these that the provider's alerts name.
        gaps: Seconds between two arrivals.
        store_lag: Seconds from the instant at which rows were in hand to their arrival.
        last_poll: The newest entry of the ledger.
        first_poll: When the oldest of the polls that were read began.
        last_heartbeat: The newest sign of life.
        failures: How many polls in a row failed or were refused, the newest included.
        quarantined: Rows in the quarantine, decided ones left out.
        quarantined_lately: Rows that the newest 100 polls set aside.
        rows_lately: Rows that they brought, quarantined ones included.
        quarantine_rate: Share of the newest batch's rows that was set aside.
        notes: What the newest batch was flagged for.
    """

    provider: str
    position: int = -1
    last_arrival: datetime | None = None
    last_event: datetime | None = None
    delay: float | None = None
    delay_before: float | None = None
    delays: Spread | None = None
    delay_limit: float | None = None
    gaps: Spread | None = None
    store_lag: Spread | None = None
    last_poll: LastPoll | None = None
    first_poll: datetime | None = None
    last_heartbeat: datetime | None = None
    failures: int = 0
    quarantined: int = 0
    quarantined_lately: int = 0
    rows_lately: int = 0
    quarantine_rate: float = 0.0
    notes: tuple[str, ...] = ()


class History:
    """The newest polls and arrivals of a log; each look reads only what came since.

    Args:
        quantile: Of the usual delays, what the newest is compared with.
        values: Whether values are read too, for whoever watches distributions.

    Attributes:
        fresh: The values that the last look found: of measured rows that are no retractions, in their order.
    """

    __slots__ = (
        "_about",
        "_alive",
        "_arrivals",
        "_delays",
        "_failures",
        "_first_poll",
        "_lags",
        "_last_event",
        "_last_poll",
        "_notes",
        "_polls",
        "_quantile",
        "_rate",
        "_seen",
        "_values",
        "fresh",
    )

    def __init__(self, quantile: float | None = None, *, values: bool = False) -> None:
        self._quantile = quantile
        self._values = values
        self.fresh = pl.DataFrame()
        self._seen = -1
        self._arrivals: deque[datetime] = deque(maxlen=ARRIVALS)
        self._delays, self._lags = array("d"), array("d")
        self._last_event: datetime | None = None
        self._polls: deque[tuple[int, int]] = deque(maxlen=POLLS)
        self._first_poll: datetime | None = None
        self._last_poll: LastPoll | None = None
        self._alive: datetime | None = None
        self._failures = 0
        self._rate = 0.0
        self._notes: tuple[str, ...] = ()

    def look(self, log: ObservationLog) -> Recent:
        """Read what has come since the last look, and sum up.

        Args:
            log: The log, always of the same provider.
        """
        position = log.position()
        files = log.table.files().select(_FILES).rows(named=True)
        self.fresh = self.fresh.clear()
        if position > self._seen:
            self._read(log, files)
            self._seen = position
        waiting = sum(file["num_records"] for file in files if file["min.record_kind"] == QUARANTINED)
        if waiting and any(file["min.record_kind"] in {RELEASED, DROPPED} for file in files):
            waiting = log.quarantine().height
        return self._summed(log.provider, position, waiting)

    def _read(self, log: ObservationLog, files: list[dict[str, Any]]) -> None:
        about = "issue_time" if log.kind == "forecast" else "event_time"
        new = [file for file in files if file["max.log_sequence"] is None or file["max.log_sequence"] > self._seen]
        paths = _newest(new, OBSERVATION, rows=ROWS, most=ARRIVALS) | _newest(new, POLL, rows=POLLS, most=POLLS)
        numbers = (
            [column.name for column in log.table.value_columns if column.dtype.is_numeric()] if self._values else []
        )
        wanted = list(dict.fromkeys([*_COLUMNS, about, *numbers]))
        rows = log.table.read(list(paths), wanted).filter(pl.col("log_sequence") > self._seen).collect()
        observed = rows.filter(pl.col("record_kind") == OBSERVATION, pl.col("arrival_kind") == "measured")
        self._take_arrivals(observed, about)
        if numbers:
            told = observed.filter(~pl.col("is_retraction").fill_null(value=False)).sort("log_sequence")
            self.fresh = told.select(numbers)
        self._take_polls(rows.filter(rows["record_kind"] == POLL).sort("log_sequence").tail(POLLS))

    def _take_arrivals(self, rows: pl.DataFrame, about: str) -> None:
        """The freshest row of each arrival."""
        arrivals = (
            rows.lazy()
            .group_by("arrival_time")
            .agg(pl.col("event_time").max(), freshest=pl.col(about).max(), received=pl.col("received_time").max())
            .sort("arrival_time")
            .tail(ARRIVALS)
            .collect()
        )
        for arrival, event, freshest, received in arrivals.iter_rows():
            self._arrivals.append(arrival)
            self._last_event = event
            self._delays.append((arrival - freshest).total_seconds() if freshest is not None else _NAN)
            self._lags.append((arrival - received).total_seconds() if received is not None else _NAN)
        del self._delays[:-ARRIVALS], self._lags[:-ARRIVALS]

    def _take_polls(self, rows: pl.DataFrame) -> None:
        for text, stamp in rows.select("record_detail", "arrival_time").iter_rows():
            poll = json.loads(text)
            started, ended = datetime.fromisoformat(poll["started"]), datetime.fromisoformat(poll["ended"])
            outcome = poll["outcome"]
            self._first_poll = self._first_poll or started
            self._last_poll = LastPoll(
                started=started, ended=ended, outcome=outcome, source=poll["source"], error=poll.get("error")
            )
            self._failures = self._failures + 1 if outcome in {"failed", "refused"} else 0
            if outcome in HEARTBEATS:
                self._alive = stamp or ended
            brought, aside = sum(poll.get(name, 0) for name in COUNTS), poll.get("quarantined", 0)
            self._polls.append((brought, aside))
            if brought:
                self._rate, self._notes = aside / brought, tuple(poll.get("notes", ()))

    def _summed(self, provider: str, position: int, waiting: int) -> Recent:
        arrivals = self._arrivals
        last = arrivals[-1] if arrivals else None
        delays = [delay if delay == delay else None for delay in self._delays]  # noqa: PLR0124 - NaN is none
        before = sorted(delay for delay in delays[:-2] if delay is not None)
        gaps = [(later - sooner).total_seconds() for sooner, later in zip(arrivals, list(arrivals)[1:], strict=False)]
        limit = quantile_of(before, self._quantile) if before and self._quantile is not None else None
        return Recent(
            provider=provider,
            position=position,
            last_arrival=last,
            last_event=self._last_event,
            delay=delays[-1] if delays else None,
            delay_before=delays[-2] if len(delays) > 1 else None,
            delays=Spread.of(before),
            delay_limit=limit,
            gaps=Spread.of(gaps),
            store_lag=Spread.of(lag for lag in self._lags if lag == lag),  # noqa: PLR0124 - NaN is none
            last_poll=self._last_poll,
            first_poll=self._first_poll,
            last_heartbeat=max((beat for beat in (last, self._alive) if beat is not None), default=None),
            failures=self._failures,
            quarantined=waiting,
            quarantined_lately=sum(aside for _, aside in self._polls),
            rows_lately=sum(rows for rows, _ in self._polls),
            quarantine_rate=self._rate,
            notes=self._notes,
        )


_FILES = ("path", "num_records", "min.record_kind", "max.record_kind", "max.log_sequence")
_COLUMNS = (
    "log_sequence",
    "arrival_time",
    "event_time",
    "received_time",
    "arrival_kind",
    "record_kind",
    "record_detail",
    "is_retraction",
)


def _newest(files: list[dict[str, Any]], kind: str, *, rows: int, most: int) -> dict[str, None]:
    """The newest files with records of a kind that together have so many rows."""
    chosen: dict[str, None] = {}
    for file in sorted(files, key=lambda file: file["max.log_sequence"] or 0, reverse=True):
        least = file["min.record_kind"]
        if rows <= 0 or len(chosen) >= most:
            break
        if least is None or least <= kind <= file["max.record_kind"]:
            chosen[file["path"]] = None
            rows -= file["num_records"]
    return chosen
