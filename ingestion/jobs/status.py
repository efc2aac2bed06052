"""How a provider is doing, from its log and its ledger alone: no job needs to run for it.

Reading is cheap, whatever the log's size: the newest polls and the newest rows, three columns of them. What they tell is
summed up (`Recent`), and judged at an instant (`judge`), so that a watcher can judge again every second without reading again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from ingestion.errors import LogNotFoundError
from ingestion.instants import duration_us
from ingestion.ledger import HEARTBEATS
from ingestion.log import open_log
from ingestion.reading import DROPPED, OBSERVATION, POLL, QUARANTINED, RELEASED

if TYPE_CHECKING:
    from ingestion.log import ObservationLog
    from ingestion.providers import Provider

POLLS: Final = 200
ARRIVALS: Final = 100
ROWS: Final = 300_000
_OVERDUE_CADENCES: Final = 3
_DAY: Final = timedelta(days=1)

State = Literal["ok", "overdue", "failing", "no log"]


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
    def of(cls, seconds: pl.Series) -> Spread | None:
        """The spread of some values; `None` of none."""
        values = seconds.drop_nulls()
        if values.is_empty():
            return None
        q50, q95, q99 = (float(values.quantile(q, "linear") or 0.0) for q in (0.5, 0.95, 0.99))
        return cls(count=values.len(), q50=q50, q95=q95, q99=q99, max=float(values.max()))  # type: ignore[arg-type]


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
        quarantined_day: Rows that the polls of the last day set aside.
        rows_day: Rows that they brought, quarantined ones included.
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
    quarantined_day: int = 0
    rows_day: int = 0
    quarantine_rate: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a provider is doing at an instant.

    Attributes:
        recent: What its log tells.
        now: The instant.
        exists: Whether there is a log.
        silent_for: Since the last sign of life.
        arrival_age: Since the newest rows arrived.
        down_since: When it went silent for too long, if it still is.
        missed: How many times it should have sent since and has not, by its cadence.
        overdue: What has not come in time; `None` if nothing is.
    """

    recent: Recent
    now: datetime
    exists: bool = True
    silent_for: timedelta | None = None
    arrival_age: timedelta | None = None
    down_since: datetime | None = None
    missed: int = 0
    overdue: str | None = None

    @property
    def provider(self) -> str:
        """Whose status."""
        return self.recent.provider

    @property
    def state(self) -> State:
        """In one word."""
        if not self.exists:
            return "no log"
        if self.overdue is not None:
            return "overdue"
        return "failing" if self.recent.failures else "ok"

    def to_dict(self) -> dict[str, Any]:
        """The status as plain values: instants as text, lengths in seconds."""
        plain = asdict(self)
        recent = plain.pop("recent")
        plain = {"provider": recent.pop("provider"), "state": self.state, **plain, **recent}
        return {name: _plain(value) for name, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


# ------------------------------------------------------------------------------------------------------------- reading


def status_of(
    provider: Provider,
    root: str,
    *,
    now: datetime,
    storage_options: dict[str, str] | None = None,
) -> Status:
    """How a provider is doing; a provider without a log is not an error but a state.

    Args:
        provider: Its declaration.
        root: Where the logs are.
        now: The instant.
        storage_options: Passed through to the store.
    """
    try:
        log = open_log(root, provider.name, storage_options=storage_options)
    except LogNotFoundError:
        return Status(recent=Recent(provider=provider.name), now=now, exists=False)
    return judge(provider, read_recent(log, now=now, quantile=provider.alerts.delay_quantile), now=now)


def read_recent(log: ObservationLog, *, now: datetime, quantile: float | None = None) -> Recent:
    """Sum up what the newest polls and rows of a log tell.

    Args:
        log: The log.
        now: The instant at which the last day ends.
        quantile: Of the usual delays, what the newest is compared with.
    """
    log.table.refresh()
    recent = _of_arrivals(Recent(provider=log.provider, position=log.position()), _arrivals(log), quantile)
    recent = _of_polls(recent, _polls(log), now)
    records = log.info().records
    decided = records.get(RELEASED, 0) + records.get(DROPPED, 0)
    waiting = records.get(QUARANTINED, 0)
    if waiting and decided:
        waiting = log.quarantine().height
    return replace(recent, quarantined=waiting)


def _newest_files(log: ObservationLog, kind: str, wanted_rows: int, wanted_files: int) -> list[str]:
    """The newest files that have rows of a kind: so many rows, and where files are small, so many files."""
    files = (
        log.table.files()
        .filter((pl.col("min.record_kind") <= kind).fill_null(value=True))
        .filter((pl.col("max.record_kind") >= kind).fill_null(value=True))
        .sort("max.log_sequence", descending=True)
        .with_columns(before=pl.col("num_records").cum_sum() - pl.col("num_records"))
        .with_row_index("number")
    )
    enough = files.filter((pl.col("before") < wanted_rows) & (pl.col("number") < wanted_files))
    return [str(path) for path in enough["path"]]


def _arrivals(log: ObservationLog) -> pl.DataFrame:
    """The newest measured arrivals: `arrival_time`, `delay` of their freshest row, `lag` of the store, `event_time`."""
    about = "issue_time" if log.kind == "forecast" else "event_time"
    files = _newest_files(log, OBSERVATION, ROWS, 2 * ARRIVALS)
    columns = ["arrival_time", "event_time", "received_time", "arrival_kind", "record_kind"]
    frame = log.table.read(list(reversed(files)), list(dict.fromkeys([*columns, about])))
    return (
        frame.tail(ROWS)
        .filter(pl.col("record_kind") == OBSERVATION, pl.col("arrival_kind") == "measured")
        .group_by("arrival_time")
        .agg(
            pl.col("event_time").max(),
            freshest=pl.col(about).max(),
            received=pl.col("received_time").max(),
        )
        .sort("arrival_time")
        .tail(2 * ARRIVALS)
        .with_columns(
            delay=(pl.col("arrival_time") - pl.col("freshest")).dt.total_microseconds() / 1e6,
            lag=(pl.col("arrival_time") - pl.col("received")).dt.total_microseconds() / 1e6,
            gap=pl.col("arrival_time").diff().dt.total_microseconds() / 1e6,
        )
        .collect()
    )


def _of_arrivals(recent: Recent, arrivals: pl.DataFrame, quantile: float | None) -> Recent:
    if arrivals.is_empty():
        return recent
    newest = arrivals.row(-1, named=True)
    delays = arrivals["delay"]
    before = delays[:-2].drop_nulls()
    return replace(
        recent,
        last_arrival=newest["arrival_time"],
        last_event=newest["event_time"],
        delay=newest["delay"],
        delay_before=delays[-2] if delays.len() > 1 else None,
        delays=Spread.of(before),
        delay_limit=before.quantile(quantile, "linear") if quantile is not None and before.len() else None,
        gaps=Spread.of(arrivals["gap"]),
        store_lag=Spread.of(arrivals["lag"]),
        last_heartbeat=newest["arrival_time"],
    )


def _polls(log: ObservationLog) -> pl.DataFrame:
    """The newest polls."""
    files = _newest_files(log, POLL, POLLS, POLLS)
    if not files:
        return log.polls(since=log.position() + 1)
    newest = (
        log.table.read(files, ["log_sequence", "record_kind"])
        .filter(pl.col("record_kind") == POLL)
        .select(pl.col("log_sequence").top_k(POLLS).min())
        .collect()
        .item()
    )
    return log.polls(since=newest if isinstance(newest, int) else log.position() + 1)


def _of_polls(recent: Recent, polls: pl.DataFrame, now: datetime) -> Recent:
    if polls.is_empty():
        return recent
    newest = polls.row(-1, named=True)
    alive = polls.filter(pl.col("outcome").is_in(HEARTBEATS))["recorded_time"].max()
    beats = [beat for beat in (recent.last_heartbeat, alive) if isinstance(beat, datetime)]
    bad = polls["outcome"].is_in(["failed", "refused"]).reverse()
    failures = bad.len() if bad.all() else int(bad.arg_min() or 0)
    brought = pl.sum_horizontal("new", "revised", "retracted", "unchanged", "quarantined")
    day = polls.filter(pl.col("ended") > now - _DAY).select(pl.col("quarantined").sum(), rows=brought.sum()).row(0)
    batches = polls.with_columns(rows=brought).filter(pl.col("rows") > 0)
    batch = batches.row(-1, named=True) if batches.height else None
    return replace(
        recent,
        last_poll=LastPoll(
            started=newest["started"],
            ended=newest["ended"],
            outcome=newest["outcome"],
            source=newest["source"],
            error=newest["error"],
        ),
        first_poll=polls["started"][0],
        last_heartbeat=max(beats) if beats else None,
        failures=failures,
        quarantined_day=day[0],
        rows_day=day[1],
        quarantine_rate=batch["quarantined"] / batch["rows"] if batch is not None else 0.0,
        notes=tuple(batch["notes"] or ()) if batch is not None else (),
    )


# ------------------------------------------------------------------------------------------------------------- judging


def judge(provider: Provider, recent: Recent, *, now: datetime) -> Status:
    """What the recent past means at an instant; pure.

    A provider is overdue if it has given no sign of life for `silent_after`; with a `cadence` also if it polls well but has
    brought no rows for three of them and its usual delay.

    Args:
        provider: Its declaration.
        recent: What its log tells.
        now: The instant.
    """
    heartbeat, arrival = recent.last_heartbeat, recent.last_arrival
    since = heartbeat or recent.first_poll
    silent_for = max(now - since, timedelta(0)) if since is not None else None
    arrival_age = max(now - arrival, timedelta(0)) if arrival is not None else None
    limit = provider.silent_after
    down = limit is not None and silent_for is not None and silent_for >= limit
    overdue = None
    missed = 0
    cadence = _length(provider.cadence)
    if cadence is not None and arrival_age is not None:
        missed = max(0, int(arrival_age / cadence - 0.5))  # half a cadence late is still in time
    if down and silent_for is not None:
        overdue = f"no sign of life for {_seconds(silent_for)}, {_seconds(limit)} allowed"
    elif cadence is not None and arrival_age is not None and missed >= _OVERDUE_CADENCES:
        overdue = f"no rows for {_seconds(arrival_age)}, due every {provider.cadence}"
    return Status(
        recent=recent,
        now=now,
        silent_for=silent_for,
        arrival_age=arrival_age,
        down_since=since + limit if down and since is not None and limit is not None else None,
        missed=missed,
        overdue=overdue,
    )


def _length(text: str | None) -> timedelta | None:
    return timedelta(microseconds=duration_us(text, "cadence")) if text is not None else None


def _seconds(length: timedelta | None) -> str:
    """A length of time for people: `45s`, `12m`, `3h`, `2d`."""
    seconds = length.total_seconds() if length is not None else 0.0
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
