"""One poll of one provider with all that belongs to it: an open log, an open source, a line, numbers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from ingestion.errors import IngestionError
from ingestion.instants import Clock, system_clock
from ingestion.jobs.logs import Shelf
from ingestion.jobs.metrics import Metrics
from ingestion.jobs.observability import Redactor, logger, named_secrets
from ingestion.jobs.upkeep import Upkeep, files_to_merge
from ingestion.ledger import Poll

if TYPE_CHECKING:
    from ingestion.jobs.polling import PollReport
    from ingestion.log import ObservationLog
    from ingestion.providers import Provider
    from ingestion.report import AppendReport
    from ingestion.sources.base import Fetched, Progress, Source

_COUNTS = ("rows", "new", "revised", "retracted", "unchanged", "duplicates", "quarantined")


class PollFunction(Protocol):
    """What polls a provider once, as `ingestion.jobs.polling.poll_once` does."""

    def __call__(self, provider: Provider, log: ObservationLog, source: Source, *, clock: Clock) -> PollReport:
        """Fetch, parse, check, append and record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What came of one poll.

    Attributes:
        provider: Whose.
        outcome: As in the ledger; `skipped` if the ledger says that it is not due.
        report: What was polled, if it got that far.
        error: Why it failed, without credentials.
        more: There is more to fetch at once.
        seconds: How long it took.
    """

    provider: str
    outcome: str
    report: PollReport | None = None
    error: str | None = None
    more: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return self.outcome in {"rows", "empty", "idle", "superseded", "skipped"}


class _Considerate:
    """A source that lets others compute while it waits for its provider."""

    def __init__(self, source: Source, slots: threading.Semaphore) -> None:
        self._source, self._slots = source, slots
        self.kind = source.kind
        self.parse = source.parse
        self.close = source.close

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        """As the source does."""
        self._slots.release()
        try:
            return self._source.fetch(progress, now=now)
        finally:
            self._slots.acquire()


class Workplace:
    """Polls providers by name, from any thread, each provider from one at a time.

    As many polls as there are processors parse, check and commit at a time; any number waits for providers. So commits stay
    quick, and batches are in the log by the instant that they are stamped with.

    Args:
        providers: All that may be asked for.
        root: Where the logs are.
        storage_options: Passed through to the store.
        open_logs: Logs, and sources, that are kept open.
        compact_after: Commits after which a log is due for compaction.
        poll: What polls once.
        clock: The wall clock.
        metrics: What counts.
        environment: Where credentials come from.

    Attributes:
        providers: By name.
        metrics: What counts.
        upkeep: Which logs are due for compaction.
        environment: Where credentials come from.
        redact: Takes credentials out of texts.
        after_poll: Called after each poll, in its thread; the rows are still at hand then.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        root: str,
        storage_options: dict[str, str] | None = None,
        open_logs: int = 256,
        compact_after: int = 100,
        poll: PollFunction | None = None,
        clock: Clock = system_clock,
        metrics: Metrics | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.root, self.storage_options, self.clock = root, storage_options, clock
        self.metrics = metrics or Metrics(self.providers)
        self.upkeep = Upkeep(compact_after=compact_after)
        self.environment = os.environ if environment is None else environment
        self.redact = Redactor(named_secrets(providers, self.environment))
        self.after_poll: list[Callable[[Polled], None]] = []
        self._poll = poll or _poll_once()
        self.logs: Shelf[ObservationLog] = Shelf(self.open_log, limit=open_logs)
        self._sources: Shelf[Source] = Shelf(self._open_source, lambda source: source.close(), limit=open_logs)
        self._visited: set[str] = set()
        self._slots = threading.Semaphore(max(2, os.cpu_count() or 2))
        self._say = logger("poll")

    def open_log(self, name: str) -> ObservationLog:
        """A provider's log, made if there is none yet."""
        return self.providers[name].open(self.root, storage_options=self.storage_options, clock=self.clock)

    def _open_source(self, name: str) -> Source:
        return self.providers[name].open_source(self.environment)

    def poll(self, name: str, *, unless_recent: bool = False) -> Polled:
        """Poll a provider once; whatever happens becomes a line, numbers and an outcome, never an exception.

        Args:
            name: The provider.
            unless_recent: Look into the ledger first, and skip the poll if the schedule's last tick has been polled.
        """
        started = time.monotonic()
        self.metrics.polls_running.inc()
        try:
            with self._slots:
                done = self._attempt(name, unless_recent=unless_recent)
        except Exception as error:  # noqa: BLE001 - one provider's trouble is not the others'
            known = isinstance(error, IngestionError | OSError)
            text = self.redact(str(error)) or type(error).__name__
            done = Polled(provider=name, outcome="failed", error=text if known else f"{type(error).__name__}: {text}")
            if not known:
                self._say.exception("fault", provider=name)
            self.looked(done)
        finally:
            self.metrics.polls_running.dec()
        seconds = time.monotonic() - started
        if done.outcome != "skipped":
            self._tell(done, seconds)
        return replace(done, seconds=seconds)

    def _attempt(self, name: str, *, unless_recent: bool) -> Polled:
        provider = self.providers[name]
        with self.logs.borrow(name) as log:
            if name not in self._visited:
                self._visited.add(name)
                self.upkeep.opened(name, small_files=files_to_merge(log), elapsed=time.monotonic())
                if unless_recent and self._is_recent(provider, log):
                    done = Polled(provider=name, outcome="skipped")
                    self.looked(done)
                    return done
            begun = self.clock()
            try:
                with self._sources.borrow(name) as source:
                    report = self._poll(provider, log, _Considerate(source, self._slots), clock=self.clock)
            except IngestionError as error:  # the source cannot even be opened: no credentials, no library
                self._record_failure(provider, log, begun, error)
                raise
            done = Polled(
                provider=name,
                outcome=report.outcome,
                report=report,
                error=None if report.error is None else self.redact(report.error),
                more=report.more,
            )
            self.upkeep.committed(name, elapsed=time.monotonic())
        self.looked(done)
        return replace(done, report=replace(report, batch=None))  # the rows are looked at and need not be kept

    def _is_recent(self, provider: Provider, log: ObservationLog) -> bool:
        """Whether the ledger has a poll of the schedule's current tick already."""
        timetable = provider.timetable()
        if timetable is None:
            return False
        after = log.progress().after
        if after < 0:
            return False
        last: datetime = log.polls(since=after)["started"][-1]
        now = self.clock()
        return last <= now < timetable.next_after(last)

    def _record_failure(self, provider: Provider, log: ObservationLog, begun: datetime, error: Exception) -> None:
        log.record_poll(
            Poll(
                source=source_kind(provider),
                started=begun,
                ended=max(begun, self.clock()),
                outcome="failed",
                error=self.redact(str(error)),
            )
        )

    def looked(self, done: Polled) -> None:
        """Tell those who look on."""
        for look in self.after_poll:
            try:
                look(done)
            except Exception:  # noqa: BLE001 - the poll is recorded, whoever looks on
                self._say.exception("watching failed", provider=done.provider)

    def _tell(self, done: Polled, seconds: float) -> None:
        """One line, and the numbers."""
        provider = self.providers[done.provider]
        source = source_kind(provider)
        self.metrics.polled(done.provider, done.outcome, source=source, seconds=seconds, ended=self.clock())
        line: dict[str, Any] = {"provider": done.provider, "outcome": done.outcome, "source": source}
        if done.report is not None and (report := done.report.report) is not None:
            self.metrics.appended(report, received=done.report.ended)
            line |= appended_fields(report)
        if done.report is not None and done.report.flags:
            line["flags"] = list(done.report.flags)
        if done.error:
            line["error"] = done.error.splitlines()[0]
        line["seconds"] = round(seconds, 3)
        (self._say.info if done.ok else self._say.warning)("poll", **line)

    def close(self) -> None:
        """Close sources and logs that nobody uses."""
        self._sources.close()
        self.logs.close()


def source_kind(provider: Provider) -> str:
    """The kind of a provider's source; `none` if others append its rows."""
    return provider.source.kind if provider.source is not None else "none"


def _poll_once() -> PollFunction:
    from ingestion.jobs.polling import poll_once

    return poll_once


def appended_fields(report: AppendReport) -> dict[str, Any]:
    """What a line says of an append: the counts that are not zero, the position, the store's own part of the delay."""
    counts = {name: getattr(report, name) for name in _COUNTS}
    found: dict[str, Any] = {name: count for name, count in counts.items() if count}
    found["position"] = report.position
    if report.restamped is not None:
        found["restamped"] = True
    if report.attempts > 1:
        found["attempts"] = report.attempts
    return found
