"""Each provider polled until it has nothing more, and then an end: for a cron job, a first look, a test."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ingestion.jobs.workplace import Polled, Workplace

if TYPE_CHECKING:
    from ingestion.providers import Provider

MOST_POLLS: Final = 100_000
_COUNTS: Final = ("rows", "revised", "retracted", "unchanged", "quarantined")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceReport:
    """What polling a provider until it had nothing more has done.

    Attributes:
        provider: Whose.
        outcome: Of the last poll; `nothing to poll` if the provider sends by itself.
        polls: How many.
        rows: Observations that were stored: new ones, revisions, retractions.
        revised: Of these, rows whose key had one already.
        retracted: Of these, rows that withdraw.
        unchanged: Rows that repeat what is known, not stored.
        quarantined: Rows set aside.
        bytes: How much was fetched.
        seconds: How long it took.
        position: The log's position afterwards; `None` if nothing was stored.
        flags: What the contract let pass and wants to be known.
        error: Why the last poll failed.
    """

    provider: str
    outcome: str
    polls: int = 0
    rows: int = 0
    revised: int = 0
    retracted: int = 0
    unchanged: int = 0
    quarantined: int = 0
    bytes: int = 0
    seconds: float = 0.0
    position: int | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the last poll went well."""
        return self.outcome not in {"failed", "refused"}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "flags": list(self.flags)}


def drain(
    workplace: Workplace, names: Iterable[str], *, workers: int = 8, stop: threading.Event | None = None
) -> list[OnceReport]:
    """Poll providers until each has nothing more.

    Args:
        workplace: Where they are polled.
        names: Which.
        workers: How many at once.
        stop: Ends it after the polls in flight when it is set.

    Returns:
        A report per provider, in the order of `names`.
    """
    wanted = list(names)
    ending = stop or threading.Event()

    def one(name: str) -> OnceReport:
        return _until_nothing_more(workplace, workplace.providers[name], ending)

    if not wanted:
        return []
    with ThreadPoolExecutor(min(workers, len(wanted)), thread_name_prefix="poll") as pool:
        return list(pool.map(one, wanted))


def _until_nothing_more(workplace: Workplace, provider: Provider, ending: threading.Event) -> OnceReport:
    if not provider.polled:
        return OnceReport(provider=provider.name, outcome="nothing to poll")
    done: list[Polled] = []
    while len(done) < MOST_POLLS and not ending.is_set():
        polled = workplace.poll(provider.name)
        done.append(polled)
        if not polled.ok or not polled.more:
            break
    return _summed(provider.name, done)


def _summed(provider: str, done: Sequence[Polled]) -> OnceReport:
    if not done:
        return OnceReport(provider=provider, outcome="stopped")
    reports = [polled.report for polled in done if polled.report is not None]
    stored = [report.report for report in reports if report.report is not None]
    counts = {name: sum(getattr(report, name) or 0 for report in stored) for name in _COUNTS}
    brought = any(polled.outcome == "rows" for polled in done)
    last = done[-1]
    return OnceReport(
        provider=provider,
        outcome="rows" if brought and last.outcome == "empty" else last.outcome,
        polls=len(done),
        **counts,
        bytes=sum(report.bytes for report in reports),
        seconds=round(sum(polled.seconds for polled in done), 3),
        position=stored[-1].position if stored else None,
        flags=tuple(dict.fromkeys(flag for report in reports for flag in report.flags)),
        error=last.error,
    )
