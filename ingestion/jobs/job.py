"""All providers in one process: an event loop that waits, threads that poll, and nothing that one provider does to another.

The loop owns the agenda. Polls run in threads, for sources and logs are synchronous. So many polls may be in flight at once;
one that takes longer than `SLOW_SECONDS` no longer counts, so that providers that hang do not take the place of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ingestion.instants import Clock
from ingestion.jobs.agenda import Agenda
from ingestion.jobs.http import Asgi, Endpoint, Health, bind, server
from ingestion.jobs.observability import logger
from ingestion.jobs.upkeep import tidy
from ingestion.storage import Location

if TYPE_CHECKING:
    import socket

    from ingestion.jobs.workplace import Polled, Workplace

SLOW_SECONDS: Final = 5.0
MOST_THREADS: Final = 256
TICK_SECONDS: Final = 1.0
UPKEEP_SECONDS: Final = 1.0
ECHO_SECONDS: Final = 1.0
"""A signal that comes so soon after the first is the same wish to stop."""
HUNG_SECONDS: Final = 15.0
"""The loop is taken to hang if it has not turned for so long."""


class Part:
    """Something that a job runs beside the polls: the spool, brokers, alerts. Each step may be left out."""

    name = "part"

    async def start(self) -> None:
        """Get ready; a failure is told and tried again."""

    async def work(self) -> None:
        """Go on until cancelled."""

    async def stop(self) -> None:
        """Finish what there is; `work` has been cancelled."""

    def check(self) -> dict[str, str]:
        """Name of a check to `"ok"` or to what is wrong; for readiness."""
        return {}


class Job:
    """Runs providers until it is told to stop.

    Args:
        workplace: Where providers are polled.
        names: Those to run.
        host: Address of the endpoint.
        port: Its port; 0 takes a free one, `None` has no endpoint.
        workers: Polls in flight at once, slow ones not counted.
        grace_hours: How long files that a compaction replaced are kept.
        stop_within: Seconds that polls in flight have to finish when the job is stopped.
        push: The application that takes pushed rows.
        parts: What runs beside the polls.
        monotonic: The monotonic clock.

    Attributes:
        address: Host and port of the endpoint, once it listens.
        abandoned: Polls that were still in flight when the job gave up waiting; the process must be ended, not returned from.
    """

    def __init__(
        self,
        workplace: Workplace,
        names: list[str],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        workers: int = 32,
        grace_hours: int = 1,
        stop_within: float = 30.0,
        push: Asgi | None = None,
        parts: tuple[Part, ...] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workplace, self.metrics = workplace, workplace.metrics
        self._clock: Clock = workplace.clock
        self._monotonic = monotonic
        self._names = names
        self._host, self._port = host, port
        self._workers = max(1, workers)
        self._grace_hours = grace_hours
        self._stop_within = stop_within
        self._push, self._parts = push, parts
        self._agenda = Agenda(self._clock(), monotonic())
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="poll")
        self._upkeep_pool = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        self._in_flight: dict[str, float] = {}
        self._visited: set[str] = set()
        self._tidied: set[str] = set()
        self._polls: set[asyncio.Task[None]] = set()
        self._turned = monotonic()
        self._store = ("not looked yet", -60.0)
        self._say = logger("job")
        self._signalled: float | None = None
        self.address: tuple[str, int] | None = None
        self.abandoned: list[str] = []

    # ------------------------------------------------------------------------------------------------- start and stop

    def run(self, *, stop: threading.Event | None = None, started: Callable[[], None] | None = None) -> int:
        """Run until stopped by a signal or by `stop`.

        Args:
            stop: Ends the job when it is set.
            started: Called once everything is under way.

        Returns:
            0: it was told to stop, and did.

        Raises:
            OSError: If the endpoint cannot listen.
        """
        listening = None if self._port is None else bind(self._host, self._port)
        if listening is not None:
            self.address = listening.getsockname()[:2]
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(self._main(listening, stop, started))

    async def _main(
        self, listening: socket.socket | None, stop: threading.Event | None, started: Callable[[], None] | None
    ) -> int:
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        finished = threading.Event()
        self._hear_signals(loop)
        if stop is not None:
            threading.Thread(target=self._await_stop, args=(loop, stop, finished), daemon=True).start()
        tasks = [
            asyncio.create_task(self._keep(name, work), name=name)
            for name, work in [
                ("agenda", self._poll_all),
                ("upkeep", self._tidy_all),
                ("lag", self._measure_lag),
                *((part.name, self._run_part(part)) for part in self._parts),
            ]
        ]
        web = self._serve(listening) if listening is not None else None
        self._say.info("started", providers=len(self._names), workers=self._workers, listening=_shown(self.address))
        if started is not None:
            started()
        try:
            await self._stopping.wait()
        finally:
            await self._wind_up(tasks, web)
            finished.set()
        return 0

    def stop(self) -> None:
        """End the job; from the loop's own thread."""
        self._stopping.set()
        self._wake.set()

    def _hear_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # pragma: no cover - not on every system
                loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        now = self._monotonic()
        if self._signalled is not None:
            if now - self._signalled < ECHO_SECONDS:  # `timeout` and shells signal a process and then its group
                return
            self._say.warning("stopped at once", signal=number.name)
            os._exit(128 + number)
        self._signalled = now
        self._say.info("stopping", signal=number.name, polls=len(self._in_flight))
        self.stop()

    def _await_stop(self, loop: asyncio.AbstractEventLoop, stop: threading.Event, finished: threading.Event) -> None:
        while not finished.is_set():
            if stop.wait(0.2):
                with contextlib.suppress(RuntimeError):  # the loop is closed already
                    loop.call_soon_threadsafe(self.stop)
                return

    async def _wind_up(self, tasks: list[asyncio.Task[None]], web: asyncio.Task[None] | None) -> None:
        """Take nothing new, finish what is in flight, flush, close."""
        deadline = self._monotonic() + self._stop_within
        for task in tasks:
            if task.get_name() in {"agenda", "upkeep", "lag"}:
                task.cancel()
        if self._polls:
            await asyncio.wait(self._polls, timeout=self._stop_within)
        if web is not None:
            self._web.should_exit = True
            await asyncio.wait([web], timeout=max(1.0, deadline - self._monotonic()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in self._parts:
            try:
                await asyncio.wait_for(part.stop(), max(5.0, deadline - self._monotonic()))
            except Exception:  # noqa: BLE001 - the other parts are stopped all the same
                self._say.exception("did not stop", task=part.name)
        self.abandoned = sorted(self._in_flight)
        if self.abandoned:
            self._say.warning("polls abandoned", providers=self.abandoned[:20], number=len(self.abandoned))
        self._pool.shutdown(wait=not self.abandoned, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: self._upkeep_pool.shutdown(wait=True, cancel_futures=True)
        )
        self.workplace.close()
        self._say.info("stopped", abandoned=len(self.abandoned))

    # ------------------------------------------------------------------------------------------------------- keeping

    async def _keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a part for as long as the job runs; if it fails, begin it again after a pause."""
        pause = 1.0
        while not self._stopping.is_set():
            begun = self._monotonic()
            try:
                await work()
                return
            except Exception:  # noqa: BLE001 - one part never takes the job down
                self._say.exception("failed, begins again", task=name, pause=pause)
                self.metrics.task_failures.labels(name).inc()
            if self._monotonic() - begun > 60.0:
                pause = 1.0
            await self._pause(pause)
            pause = min(2 * pause, 60.0)

    def _run_part(self, part: Part) -> Callable[[], Coroutine[Any, Any, None]]:
        async def work() -> None:
            await part.start()
            await part.work()

        return work

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the job is stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _measure_lag(self) -> None:
        while not self._stopping.is_set():
            before = self._monotonic()
            await asyncio.sleep(TICK_SECONDS)
            self._turned = self._monotonic()
            self.metrics.loop_lag.observe(max(0.0, self._turned - before - TICK_SECONDS))

    # --------------------------------------------------------------------------------------------------------- polls

    async def _poll_all(self) -> None:
        now = self._clock()
        for name in self._names:
            timetable = self.workplace.providers[name].timetable()
            if timetable is not None and name not in self._visited:
                self._agenda.add(name, timetable, first=now)
        while not self._stopping.is_set():
            if jump := self._agenda.notice(self._clock(), self._monotonic()):
                self.metrics.clock_jumps.inc()
                self._say.warning("the wall clock jumped", seconds=round(jump.total_seconds(), 1))
            while self._has_room() and (due := self._agenda.take(self._monotonic())) is not None:
                self._begin(due)
            self._wake.clear()
            wait = self._agenda.wait(self._monotonic()) if self._has_room() else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS if wait is None else min(wait, TICK_SECONDS))

    def _has_room(self) -> bool:
        if len(self._in_flight) < self._workers:
            return True
        if len(self._in_flight) >= MOST_THREADS:
            return False
        slow = self._monotonic() - SLOW_SECONDS
        return sum(begun > slow for begun in self._in_flight.values()) < self._workers

    def _begin(self, name: str) -> None:
        self._in_flight[name] = self._monotonic()
        task = asyncio.create_task(self._poll(name), name=f"poll {name}")
        self._polls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._polls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say.error("fault", task=task.get_name(), error=repr(error))

    async def _poll(self, name: str) -> None:
        first = name not in self._visited
        self._visited.add(name)
        done: Polled | None = None
        try:
            done = await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: self.workplace.poll(name, unless_recent=first)
            )
        except Exception:  # noqa: BLE001 - a fault of the job, for a poll itself does not raise
            self._say.exception("fault", provider=name)
        finally:
            self._in_flight.pop(name, None)
            again = done is not None and done.ok and done.more
            self._agenda.done(
                name, self._clock(), self._monotonic(), again=again, catch_up=done is not None and done.ok
            )
            self._wake.set()

    # -------------------------------------------------------------------------------------------------------- upkeep

    async def _tidy_all(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            name = self.workplace.upkeep.take(self._monotonic())
            if name is None:
                await self._pause(UPKEEP_SECONDS)
                continue
            await loop.run_in_executor(self._upkeep_pool, self._tidy, name)

    def _tidy(self, name: str) -> None:
        """Compact one log; whatever happens is told and counted."""
        begun = self._monotonic()
        try:
            first = name not in self._tidied
            report, deleted = tidy(self.workplace.open_log(name), grace_hours=self._grace_hours, orphans=first)
            self._tidied.add(name)
        except Exception as error:  # noqa: BLE001 - a log that cannot be compacted is a log all the same
            self.metrics.compactions.labels("failed").inc()
            self._say.warning("compaction failed", provider=name, error=self.workplace.redact(str(error)))
            return
        self.metrics.compactions.labels("done").inc()
        self.metrics.files_deleted.inc(deleted)
        self._say.info(
            "compacted",
            provider=name,
            files_before=report.files_before,
            files_after=report.files_after,
            rows=report.rows_rewritten,
            files_deleted=deleted,
            seconds=round(self._monotonic() - begun, 3),
        )

    # ------------------------------------------------------------------------------------------------------ endpoint

    def _serve(self, listening: socket.socket) -> asyncio.Task[None]:
        app = Endpoint(health=self.health, ready=self.ready, metrics=self.metrics.text, push=self._push)
        self._web = server(app)
        return asyncio.create_task(self._web.serve(sockets=[listening]), name="endpoint")

    async def health(self) -> Health:
        """Whether the loop turns and the store can be reached."""
        silent = self._monotonic() - self._turned
        return Health(
            checks={
                "loop": "ok" if silent < HUNG_SECONDS else f"has not turned for {silent:.0f} s",
                "store": await self._look_at_store(),
            },
            facts={
                "providers": len(self._names),
                "polls_in_flight": len(self._in_flight),
                "longest_poll_seconds": round(self._longest(), 3),
            },
        )

    def ready(self) -> Health:
        """Whether rows are taken."""
        checks = {"job": "stopping" if self._stopping.is_set() else "ok"}
        for part in self._parts:
            checks |= part.check()
        return Health(checks=checks)

    def _longest(self) -> float:
        return self._monotonic() - min(self._in_flight.values()) if self._in_flight else 0.0

    async def _look_at_store(self) -> str:
        """List the root, at most every five seconds and for two seconds."""
        state, looked = self._store
        if self._monotonic() - looked < 5.0:
            return state
        location = Location.of(self.workplace.root, self.workplace.storage_options)
        try:
            await asyncio.wait_for(asyncio.to_thread(_touch, location), 2.0)
            state = "ok"
        except TimeoutError:
            state = "does not answer within 2 s"
        except Exception as error:  # noqa: BLE001 - whatever a store raises means the same here
            state = self.workplace.redact(f"{type(error).__name__}: {error}")
        self._store = (state, self._monotonic())
        return state


def _touch(location: Location) -> None:
    """Look whether a store is there and, where it is a folder, whether it can be written to.

    Raises:
        OSError: If not.
    """
    if location.folder is None:
        location.names()
        return
    if not os.access(location.folder, os.W_OK | os.X_OK):
        raise OSError(f"{location.folder} cannot be written to")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - comes with uvicorn[standard], not on every system
        return None
    return uvloop.new_event_loop


def _shown(address: tuple[str, int] | None) -> str | None:
    if address is None:
        return None
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
