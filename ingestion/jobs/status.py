"""How a provider is doing, from its log and its ledger alone: no job needs to run for it.

What the newest polls and rows tell (`Recent`) is judged at an instant (`judge`), so that a watcher can judge again every second
without reading again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from ingestion.errors import LogNotFoundError
from ingestion.instants import duration_us
from ingestion.jobs.recent import History, Recent
from ingestion.log import open_log

if TYPE_CHECKING:
    from ingestion.providers import Provider

_OVERDUE_CADENCES: Final = 3

State = Literal["ok", "overdue", "failing", "waiting", "no log"]


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
        if self.recent.failures:
            return "failing"
        nothing_yet = self.recent.last_poll is None and self.recent.last_arrival is None
        return "waiting" if nothing_yet and self.recent.position < 0 else "ok"

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
    return judge(provider, History(provider.alerts.delay_quantile).look(log), now=now)


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
