"""What providers send by themselves, in a job: the spool, the door for pushed rows, brokers, and the way into the logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ingestion.errors import SpoolError
from ingestion.jobs.job import Part
from ingestion.jobs.observability import logger
from ingestion.jobs.workplace import Polled, appended_fields, source_kind
from ingestion.ledger import Poll
from ingestion.push import PushApp
from ingestion.sources.consuming import Consuming
from ingestion.spool.flush import Flushed, Flusher
from ingestion.spool.sink import LogSink, StoreReport
from ingestion.spool.wal import Spool

if TYPE_CHECKING:
    from ingestion.jobs.workplace import Workplace

USAGE_SECONDS: Final = 2.0
FAILED_SECONDS: Final = 60.0
"""That a broker cannot be consumed is put into the ledger at most so often."""
BROKERS: Final = frozenset({"nats", "mqtt", "broker"})


class Receiving(Part):
    """The spool of a job with all that fills and empties it.

    Args:
        workplace: Where the logs are.
        folder: Where the spool is; one job has it at a time.
        names: Providers that send by themselves.
        every: Seconds between two batches of a provider.

    Attributes:
        push: The application that takes pushed rows.

    Raises:
        SpoolLockedError: If another job has the folder.
        ProviderError: If a provider names an environment variable that is not set.
        OSError: If the folder cannot be used.
    """

    name = "receiving"

    def __init__(self, workplace: Workplace, folder: Path, names: Sequence[str], *, every: float = 1.0) -> None:
        self._workplace, self._metrics = workplace, workplace.metrics
        self._say = logger("receiving")
        self._spool = Spool(folder, clock=workplace.clock)
        self._started = False
        self._closed = False
        providers = {name: workplace.providers[name] for name in names}
        try:
            self.push = PushApp(
                self._spool,
                providers,
                environment=workplace.environment,
                clock=workplace.clock,
                on_answer=self._answered,
            )
        except BaseException:
            self._spool.close()
            raise
        self._flusher = Flusher(self._spool, self._sink_of, every=every, on_flushed=self._flushed)
        self._behind_brokers = [name for name, provider in providers.items() if source_kind(provider) in BROKERS]
        self._consuming: dict[str, Consuming] = {}
        self._failed: dict[str, float] = {}

    def _sink_of(self, name: str) -> LogSink:
        workplace = self._workplace
        return LogSink(workplace.providers[name], workplace.open_log(name), clock=workplace.clock)

    async def start(self) -> None:
        """Begin to empty the spool; what an earlier process left in it comes first."""
        if self._started:
            return
        self._started = True
        usage = self._spool.usage()
        if usage.records:
            self._say.info("left over from before", records=usage.records, bytes=usage.bytes)
        for damage in self._spool.damaged:
            self._say.error("damaged", segment=damage.segment, bytes=damage.size, kept=damage.kept)
        self._flusher.start()

    async def work(self) -> None:
        """Consume brokers, each in a task of its own; tell how much waits."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._behind_brokers:
                tasks.create_task(self._consume(name), name=f"consume {name}")
            while True:
                usage = self._spool.usage()
                self._metrics.spool_bytes.set(usage.bytes)
                self._metrics.spool_records.set(usage.records)
                for name, consuming in self._consuming.items():
                    label = self._metrics.label(name)
                    self._metrics.broker_connected.labels(label).set(consuming.intake.connected)
                    if consuming.intake.connected:
                        consuming.intake.problem = None
                    elif consuming.intake.problem is not None:
                        await self._record_failure(name, consuming.intake.problem)
                await asyncio.sleep(USAGE_SECONDS)

    async def _consume(self, name: str) -> None:
        """Consume one provider's broker; whatever fails is told, and begins again."""
        wait = 1.0
        while True:
            try:
                self._consuming[name] = await asyncio.to_thread(self._connection, name)
                await self._consuming[name].run()
            except SpoolError:
                if self._closed:
                    return
                self._say.exception("not consuming", provider=name)
            except Exception as error:  # noqa: BLE001 - one provider's broker is not the others'
                problem = self._workplace.redact(str(error)).splitlines()[0]
                self._say.warning("not consuming", provider=name, problem=problem, again_in=wait)
                self._metrics.task_failures.labels("consume").inc()
                await self._record_failure(name, problem)
            await asyncio.sleep(wait)
            wait = min(2 * wait, 60.0)

    async def _record_failure(self, name: str, problem: str) -> None:
        """Keep in the ledger that a provider's broker cannot be consumed; not each attempt, for there are many."""
        now = time.monotonic()
        if now - self._failed.get(name, -FAILED_SECONDS) < FAILED_SECONDS:
            return
        self._failed[name] = now
        workplace = self._workplace
        at, error = workplace.clock(), workplace.redact(problem)
        kind = source_kind(workplace.providers[name])
        poll = Poll(source=kind, started=at, ended=at, outcome="failed", error=error)

        def record() -> None:
            with workplace.logs.borrow(name) as log:
                log.record_poll(poll)

        try:
            await asyncio.to_thread(record)
        except Exception as failure:  # noqa: BLE001 - the log cannot be written either; the broker is tried all the same
            reason = workplace.redact(str(failure)).splitlines()[0]
            self._say.warning("failure not recorded", provider=name, problem=reason)
            return
        workplace.looked(Polled(provider=name, outcome="failed", error=error))

    def _connection(self, name: str) -> Consuming:
        """A consumer that goes on where the log and the spool end."""
        workplace = self._workplace
        with workplace.logs.borrow(name) as log:
            progress = log.progress()
        return Consuming(
            workplace.providers[name],
            self._spool,
            progress,
            environment=workplace.environment,
            clock=workplace.clock,
            say=self._say,
        )

    async def stop(self) -> None:
        """Flush what is there, and close the spool."""
        await asyncio.to_thread(self.close)

    def flush(self) -> list[Flushed]:
        """Put what waits into the logs now."""
        return self._flusher.flush()

    def close(self) -> None:
        """Flush what is there, and close the spool; what cannot be stored waits for the next job."""
        if self._closed:
            return
        self._closed = True
        self._flusher.stop()
        usage = self._spool.usage()
        if usage.records:
            self._say.warning("waits for the next job", records=usage.records, bytes=usage.bytes)
        self._spool.close()

    def check(self) -> dict[str, str]:
        """Whether rows are taken, and brokers are reached."""
        found = {"spool": "closed" if self._closed else "ok" if self._started else "not started"}
        for name in self._behind_brokers:
            consuming = self._consuming.get(name)
            found[f"broker of {name}"] = (
                "ok" if consuming is not None and consuming.intake.connected else "not connected"
            )
        return found

    # ------------------------------------------------------------------------------------------------------- telling

    def _answered(self, _provider: str, status: int, rows: int) -> None:
        self._metrics.pushed(status, rows)

    def _flushed(self, part: Flushed) -> None:
        """A batch is in its log, or could not be stored."""
        if part.error is not None:
            self._say.warning(
                "not stored yet",
                provider=part.provider,
                error=self._workplace.redact(str(part.error)).splitlines()[0],
                attempts=part.attempts,
            )
            self._metrics.task_failures.labels("flush").inc()
            return
        report = part.report
        if not isinstance(report, StoreReport):
            return
        self._workplace.upkeep.committed(part.provider, elapsed=time.monotonic())
        line: dict[str, Any] = {"provider": part.provider, "outcome": report.outcome, "records": part.records}
        line |= appended_fields(report.append)
        if report.flags:
            line["flags"] = [str(flag) for flag in report.flags]
        self._metrics.stored(part.provider, report.outcome, report.append, oldest_us=report.oldest_us)
        good = report.outcome in {"rows", "empty", "idle"}
        (self._say.info if good else self._say.warning)("stored", **line)
        done = Polled(provider=part.provider, outcome=report.outcome, error=report.refused)
        self._workplace.looked(done)
