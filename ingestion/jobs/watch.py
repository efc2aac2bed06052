"""Alerts in a job: providers are looked at after their polls, judged every few seconds, and told of once per incident."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ingestion.checks import MIN_ROWS, ShiftDetector
from ingestion.jobs.alerts import BOOK, IncidentBook, Notice, alone, evaluate
from ingestion.jobs.job import Part
from ingestion.jobs.observability import logger
from ingestion.jobs.recent import History, Recent
from ingestion.jobs.status import judge

if TYPE_CHECKING:
    import polars as pl

    from ingestion.jobs.webhook import Webhook
    from ingestion.jobs.workplace import Polled, Workplace

JUDGE_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 10.0
"""A provider's log is read at most so often."""
BLOCK_ROWS: Final = 500


class Distributions:
    """Whether a provider's values are as they were; learns from the log what that is.

    Args:
        ignored: Columns that are not watched.

    Attributes:
        shifted: What is not as it was, a sentence each.
    """

    def __init__(self, ignored: Iterable[str]) -> None:
        self._detector = ShiftDetector(frozenset(ignored))
        self._since = 0
        self.shifted: tuple[str, ...] = ()

    def take(self, rows: pl.DataFrame) -> None:
        """Compare rows, in the order in which they came, with those before, some hundred at a time."""
        for start in range(0, rows.height, BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            shifts = self._detector.observe(block)
            self._since += block.height
            if shifts:
                self.shifted, self._since = tuple(map(str, shifts)), 0
            elif self._since >= 2 * MIN_ROWS:  # fewer rows wait for the next, and say nothing
                self.shifted = ()


class Watch(Part):
    """Looks at providers and tells when something is wrong, and when it is over.

    Args:
        workplace: Where the logs are.
        names: Providers to watch.
        folder: Where open incidents are kept.
        webhook: Where messages go, besides the log and the numbers.
        judge_every: Seconds between two judgements of all providers.
        look_every: A provider's log is read at most so often, in seconds.
    """

    name = "watch"

    def __init__(
        self,
        workplace: Workplace,
        names: Sequence[str],
        *,
        folder: Path,
        webhook: Webhook | None = None,
        judge_every: float = JUDGE_SECONDS,
        look_every: float = LOOK_SECONDS,
    ) -> None:
        self._workplace, self._metrics = workplace, workplace.metrics
        self._names = list(names)
        self._folder = folder
        self._webhook = webhook
        self._judge_every, self._look_every = judge_every, look_every
        self._say = logger("alerts")
        self._mutex = threading.Lock()
        self._changed: dict[str, None] = {}
        self._looked: dict[str, float] = {}
        self._histories: dict[str, History] = {}
        self._recent: dict[str, Recent] = {}
        self._distributions: dict[str, Distributions] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="watch")
        workplace.after_poll.append(self.polled)

    def polled(self, done: Polled) -> None:
        """A provider was polled, or rows of it were stored; called in that thread."""
        with self._mutex:
            self._changed[done.provider] = None

    async def work(self) -> None:
        """Look, judge, tell."""
        told = False
        while True:
            with alone(self._folder) as mine:
                if mine:
                    await self._watch(IncidentBook(self._folder / BOOK))
            if not told:
                self._say.info("another job tells of these providers; this one does not")
                told = True
            await asyncio.sleep(self._judge_every)

    async def _watch(self, book: IncidentBook) -> None:
        book.forget(self._names)
        for incident in book.open():
            self._metrics.opened(incident.provider, incident.kind, known=True)
        delivery = asyncio.create_task(self._deliver(book))
        try:
            while True:
                await self._look()
                notices = self.judge(book)
                if self._webhook is None:
                    book.outbox.clear()
                book.save()  # before it is told: after a crash nothing is told twice
                for notice in notices:
                    self._tell(notice)
                await asyncio.sleep(self._judge_every)
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)
            book.save()
            if self._webhook is not None:
                await self._webhook.close()

    async def _look(self) -> None:
        """Read what has changed, one provider after the other, in a thread."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        with self._mutex:
            due = [name for name in self._changed if now - self._looked.get(name, -1e9) >= self._look_every]
            for name in due:
                del self._changed[name]
        for name in due:
            self._looked[name] = now
            try:
                self._recent[name] = await loop.run_in_executor(self._reader, self._read, name)
            except Exception as error:  # noqa: BLE001 - a log that cannot be read now is looked at after the next poll
                self._say.warning("cannot look", provider=name, error=self._workplace.redact(str(error)))

    def _read(self, name: str) -> Recent:
        provider = self._workplace.providers[name]
        history = self._histories.get(name)
        if history is None:
            history = History(provider.alerts.delay_quantile, values=provider.alerts.shifts)
            self._histories[name] = history
            self._distributions[name] = Distributions({*provider.entities, *(provider.key or ())})
        with self._workplace.logs.borrow(name) as log:
            recent = history.look(log)
        self._distributions[name].take(history.fresh)
        history.fresh = history.fresh.clear()
        if recent.last_arrival is not None:
            self._metrics.last_arrival.labels(self._metrics.label(name)).set(recent.last_arrival.timestamp())
        return recent

    def judge(self, book: IncidentBook) -> list[Notice]:
        """What has begun and what is over, of all providers that were looked at."""
        now = self._workplace.clock()
        notices: list[Notice] = []
        for name, recent in self._recent.items():
            provider = self._workplace.providers[name]
            status = judge(provider, recent, now=now)
            findings = evaluate(provider, status, shifts=self._distributions[name].shifted)
            settle = provider.silent_after
            notices += book.update(
                name, findings, now, settle=min(settle, timedelta(hours=6)) if settle is not None else None
            )
        return notices

    def _tell(self, notice: Notice) -> None:
        """To the log and the numbers; the webhook has its own pace."""
        incident = notice.incident
        what = {"provider": incident.provider, "kind": incident.kind, "id": incident.id}
        summary = self._workplace.redact(incident.summary)
        if notice.event == "opened":
            self._metrics.opened(incident.provider, incident.kind)
            self._say.warning("alert", summary=summary, **what)
        else:
            self._metrics.closed(incident.provider, incident.kind)
            self._say.info("recovered", summary=summary, opened=incident.opened.isoformat(), **what)

    async def _deliver(self, book: IncidentBook) -> None:
        """Messages to the webhook, one after the other; what is cut short is sent again, with the same key."""
        if self._webhook is None:
            return
        while True:
            if not book.outbox:
                book.save()
                await asyncio.sleep(0.5)
                continue
            notice = book.outbox[0]
            if not await self._webhook.send(notice, now=self._workplace.clock()):
                self._metrics.alert_failures.labels(self._webhook.name).inc()
            book.delivered(notice)

    async def stop(self) -> None:
        """Read no more; what was not delivered is by the next job."""
        self._reader.shutdown(wait=False, cancel_futures=True)
