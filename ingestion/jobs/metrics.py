"""Counters and gauges of a job, in the text form that Prometheus reads.

The registry is the job's own, so that two jobs in one process, or a test, do not share numbers. Labels are providers that
were declared, never what a request names; beyond `most_providers` all others share the label `(other)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from ingestion.errors import MissingLibraryError
from ingestion.instants import from_us

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
except ImportError as error:  # pragma: no cover - the extra is installed where tests run
    raise MissingLibraryError("prometheus-client", "ingest", "a job's metrics") from error

if TYPE_CHECKING:
    from ingestion.report import AppendReport

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
OTHER: Final = "(other)"
MOST_PROVIDERS: Final = 2_000
_POLL_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_VISIBLE_SECONDS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
_LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
FATES: Final = ("rows", "revised", "retracted", "unchanged", "duplicates", "quarantined")


class Metrics:
    """What a job counts.

    Args:
        providers: Those that get a label of their own, the first `most_providers` of them.
        most_providers: How many.

    Attributes:
        registry: Where the numbers are; more can be registered.
    """

    def __init__(self, providers: Iterable[str] = (), *, most_providers: int = MOST_PROVIDERS) -> None:
        names = list(dict.fromkeys(providers))
        self._labels = frozenset(names[:most_providers])
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="asknown", registry=self.registry)
        gauge = partial(Gauge, namespace="asknown", registry=self.registry)
        histogram = partial(Histogram, namespace="asknown", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self.polls = counter("polls", "Polls by outcome.", ["provider", "outcome"])
        self.rows = counter("rows", "Rows that came, by what became of them.", ["provider", "fate"])
        self.poll_seconds = histogram("poll_seconds", "How long polls took.", ["source"], buckets=_POLL_SECONDS)
        self.visible_seconds = histogram(
            "visible_seconds",
            "From the instant at which rows were in hand to the one from which they can be read.",
            buckets=_VISIBLE_SECONDS,
        )
        self.last_arrival = gauge(
            "last_arrival_timestamp_seconds", "Arrival of the newest rows, Unix time.", ["provider"]
        )
        self.last_poll = gauge("last_poll_timestamp_seconds", "End of the last poll, Unix time.", ["provider"])
        self.alert_open = gauge("alert_open", "1 while an incident is open.", ["provider", "kind"])
        self.incidents = counter("incidents", "Incidents that were opened.", ["kind"])
        self.alert_failures = counter("alert_failures", "Alerts that a sink could not deliver.", ["sink"])
        self.spool_bytes = gauge("spool_bytes", "Bytes that are durable and not yet in a log.")
        self.spool_records = gauge("spool_records", "Records that are durable and not yet in a log.")
        self.broker_connected = gauge("broker_connected", "Whether a provider's broker is reached.", ["provider"])
        self.push_requests = counter("push_requests", "Answers to senders, by status.", ["status"])
        self.push_rows = counter("push_rows", "Rows that were accepted over HTTP.")
        self.commit_retries = counter("commit_retries", "Commits that another commit came before.")
        self.restamps = counter("restamps", "Batches whose commit was confirmed after their stamp.")
        self.polls_running = gauge("polls_running", "Polls in flight.")
        self.providers = gauge("providers", "Providers that this job runs.")
        self.compactions = counter("compactions", "Compactions by outcome.", ["outcome"])
        self.files_deleted = counter("files_deleted", "Data files deleted that no version needs.")
        self.clock_jumps = counter("clock_jumps", "Jumps of the wall clock.")
        self.loop_lag = histogram("loop_lag_seconds", "How late the event loop woke up.", buckets=_LAG_SECONDS)
        self.task_failures = counter("task_failures", "Parts of the job that failed and began again.", ["task"])
        self.providers.set(len(names))

    def label(self, provider: str) -> str:
        """The label of a provider."""
        return provider if provider in self._labels else OTHER

    def polled(self, provider: str, outcome: str, *, source: str, seconds: float, ended: datetime) -> None:
        """Count a poll.

        Args:
            provider: Whose.
            outcome: As in the ledger.
            source: The kind of source.
            seconds: How long it took, the commit included.
            ended: When it was done.
        """
        label = self.label(provider)
        self.polls.labels(label, outcome).inc()
        self.poll_seconds.labels(source).observe(seconds)
        self.last_poll.labels(label).set(ended.timestamp())

    def appended(self, report: AppendReport, *, received: datetime | None = None) -> None:
        """Count the rows of a batch.

        Args:
            report: What the append did.
            received: When its rows were in hand.
        """
        label = self.label(report.provider)
        for fate in FATES:
            if count := getattr(report, fate, 0):
                self.rows.labels(label, fate).inc(count)
        self.commit_retries.inc(max(0, report.attempts - 1))
        if report.restamped is not None:
            self.restamps.inc()
        if report.arrival_time is not None and report.rows:
            visible = max(report.arrival_time, report.restamped or report.arrival_time)
            self.last_arrival.labels(label).set(visible.timestamp())
            if received is not None:
                self.visible_seconds.observe(max(0.0, (visible - received).total_seconds()))

    def pushed(self, status: int, rows: int) -> None:
        """Count an answer to a sender."""
        self.push_requests.labels(str(status)).inc()
        if rows:
            self.push_rows.inc(rows)

    def stored(self, provider: str, outcome: str, report: AppendReport, *, oldest_us: int) -> None:
        """Count a batch that came through the spool.

        Args:
            provider: Whose.
            outcome: As in the ledger.
            report: What the append did.
            oldest_us: When the first of its rows was in hand.
        """
        self.polls.labels(self.label(provider), outcome).inc()
        self.appended(report, received=from_us(oldest_us))

    def opened(self, provider: str, kind: str, *, known: bool = False) -> None:
        """An incident was opened; or one is open that an earlier job has told of (`known`)."""
        self.alert_open.labels(self.label(provider), kind).set(1)
        if not known:
            self.incidents.labels(kind).inc()

    def closed(self, provider: str, kind: str) -> None:
        """An incident is over; its series goes away."""
        if (label := self.label(provider)) != OTHER:
            self.alert_open.remove(label, kind)
        else:
            self.alert_open.labels(label, kind).set(0)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them; without the instants at which counters were made, which double the page."""
        lines = generate_latest(self.registry).split(b"\n")
        return b"\n".join(line for line in lines if b"_created" not in line.partition(b"{")[0])
