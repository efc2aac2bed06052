"""One worker: definitions, application and server in one event loop, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn

from ingestion.jobs import Redactor, bind, configure_logging, logger
from serving.errors import ListeningError
from serving.http.app import Application
from serving.http.auth import VARIABLES, Tokens
from serving.http.crew import Crew
from serving.http.definitions import Definitions
from serving.http.metrics import Metrics
from serving.http.protocol import protocol_class
from serving.http.ui import Ui
from serving.online import FeatureServer

if TYPE_CHECKING:
    from serving.http.definitions import Held
    from serving.http.pushing import Pushing
    from serving.http.settings import HttpSettings

_REDIS: Final = "ASKNOWN_REDIS_URL"
ECHO_SECONDS: Final = 1.0
"""A signal that comes so soon after the first is the same wish to stop."""
WATCH_SECONDS: Final = 0.1


class _Uvicorn(uvicorn.Server):
    """A server that leaves signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: the worker has its own handlers."""
        yield


class Worker:
    """One process that answers.

    Args:
        settings: How.
        listening: The socket to accept from, which other workers may share.
        folder: What the workers share.
        environment: Where tokens are.
        worker: Which this is.
        open_server: Makes a server of views; for tests.
    """

    def __init__(
        self,
        settings: HttpSettings,
        listening: socket.socket,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        worker: int = 0,
        open_server: Callable[..., FeatureServer] | None = None,
    ) -> None:
        known = os.environ if environment is None else environment
        self._settings, self._listening, self._folder, self._worker = settings, listening, folder, worker
        self.tokens = Tokens(known)
        self._prepared: Callable[[], Held] | None = None
        opener = open_server or (over_redis(settings) if settings.redis else None)
        self.definitions = Definitions(opener, online=settings.online, on_open=self._written_down())
        self._crew = Crew(self.definitions, settings.views, folder, worker=worker, workers=settings.workers)
        self._push: Pushing | None = None
        if settings.providers is not None:
            from serving.http.pushing import Pushing

            self._push = Pushing(settings, known, worker=worker)
        self.app = Application(
            self.definitions,
            tokens=self.tokens,
            limits=settings.limits,
            crew=self._crew,
            push=self._push,
            ui=Ui(settings.views, self.tokens),
            waits=settings.redis,
        )
        self._say = logger("serve")
        self._signalled: float | None = None

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Listen, load, answer; return once stopped.

        Args:
            ready: Called once questions are answered.

        Raises:
            Exception: What the views file is refused for.
        """
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
                loop.add_signal_handler(number, self._on_signal, number)
        web = _Uvicorn(self._config())
        serving = asyncio.create_task(web.serve(sockets=[self._listening]), name="web")
        try:
            await self._until_stopped(ready)
        finally:
            self.app.draining = True
            if self._stopping.is_set():
                await asyncio.sleep(self._settings.drain_seconds)
            web.should_exit = True
            await serving
            await self._close()

    def stop(self) -> None:
        """End it; from the loop's own thread."""
        self._stopping.set()

    async def _until_stopped(self, ready: Callable[[], None] | None) -> None:
        """Load, and follow what is wanted of all workers.

        Raises:
            Exception: What the views file is refused for.
        """
        loading = asyncio.create_task(asyncio.to_thread(self.load), name="load")
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.is_set() and not loading.done():
            return
        await loading
        if self._push is not None:
            await self._push.start()
        self._crew.tell()
        following = asyncio.create_task(self._crew.follow(), name="follow")
        watching = asyncio.create_task(self._watch(ready), name="watch")
        gc.collect()
        gc.freeze()  # what is loaded stays: the collector need not look at it again and again
        await asyncio.wait([following, watching, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (following, watching):
            if task.done() and not self._stopping.is_set():
                task.result()
            task.cancel()

    async def _watch(self, ready: Callable[[], None] | None) -> None:
        """Tell when questions begin to be answered, when they no longer are, and when they are again, until cancelled."""
        was: bool | None = None
        told = False
        while True:
            now = self.definitions.current.server.readiness()
            if now.ready and not told:
                told = True
                if ready is not None:
                    ready()
            elif now.ready and not was:
                self._say.info("ready again", worker=self._worker, positions=dict(now.positions))
            elif not now.ready and was is not False:
                said = "not ready any more" if told else "not ready yet"
                self._say.warning(said, worker=self._worker, reason=now.reason, hint=now.hint)
            was = now.ready
            await asyncio.sleep(WATCH_SECONDS)

    def prepare(self) -> None:
        """Read the views file and open the logs, so that what is wrong with them is said before anything else.

        Raises:
            Exception: What the file is refused for.
        """
        self._prepared = self.definitions.prepare(self._settings.views)

    def load(self) -> None:
        """Read the definitions and the logs, unless that is done."""
        if self.app.metrics is not None:
            return
        held = (self._prepared or self.definitions.prepare(self._settings.views))()
        features = sorted(held.server.features)
        mark = blake2b("\n".join(features).encode(), digest_size=8).hexdigest()
        self.app.metrics = Metrics(
            features,
            path=self._folder / f"numbers-{mark}",
            worker=self._worker,
            workers=self._settings.workers,
        )

    def _config(self) -> uvicorn.Config:
        limits = self._settings.limits
        return uvicorn.Config(
            self.app,
            loop="none",
            http=protocol_class(limits),
            lifespan="off",
            interface="asgi3",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=2048,
            timeout_keep_alive=max(1, round(limits.idle_seconds)),
            timeout_graceful_shutdown=max(1, round(self._settings.stop_within)),
        )

    def _on_signal(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self._signalled is not None:
            if now - self._signalled > ECHO_SECONDS:
                os._exit(128 + number)
            return
        self._signalled = now
        self.app.draining = True
        self.stop()

    async def _close(self) -> None:
        if self._push is not None:
            await self._push.stop()
        self.app.close()
        await asyncio.to_thread(self.definitions.close)

    def _written_down(self) -> Callable[[FeatureServer], Callable[[], None]] | None:
        """What puts the answers of a server into the served log, if there is to be one."""
        settings = self._settings
        root = settings.served_log
        if root is None:
            return None
        from serving.served import ServedLog

        def write_down(server: FeatureServer) -> Callable[[], None]:
            log = ServedLog(
                root, server.views.values(), sample=settings.sample, storage_options=settings.storage_options
            )
            server.on_answer.append(log.offer)
            return log.close

        return write_down


def over_redis(settings: HttpSettings) -> Callable[..., FeatureServer]:
    """What makes servers whose rows are in Redis.

    Raises:
        OptionError: If the environment does not say where that is.
        MissingExtraError: If the client library is not installed.
    """
    from serving.online import RedisBackend

    RedisBackend(None, settings.online).close()  # what is wrong with the address is said before anything is loaded
    return lambda views: FeatureServer(views, settings=settings.online, backend=RedisBackend(None, settings.online))


def serve_here(settings: HttpSettings, *, environment: Mapping[str, str] | None = None) -> None:
    """Serve with one process, this one, until SIGTERM or SIGINT.

    Args:
        settings: How.
        environment: Where tokens are; that of the process if None.

    Raises:
        ServingError: If it cannot listen, or the views file or an option is refused.
        AlignmentError: What a declaration is refused for.
        IngestionError: What a log is refused for.
    """
    set_up_logging(settings, environment)
    listening = listen(settings)
    with tempfile.TemporaryDirectory(prefix="asknown-serve-") as folder, listening:
        worker = Worker(settings, listening, Path(folder), environment=environment)
        worker.prepare()
        announce(settings, listening, worker.tokens)
        run_worker(worker, ready=lambda: told_ready(worker))
    logger("serve").info("stopped")


def listen(settings: HttpSettings) -> socket.socket:
    """The socket to accept from.

    Raises:
        ListeningError: If the port is taken, or there is no such address.
    """
    try:
        return bind(settings.host, settings.port)
    except (OSError, UnicodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"cannot listen on {settings.host}: {error}"
        taken = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        hint = (
            "--port 0 takes a free one"
            if taken
            else "--host 127.0.0.1 is this machine alone, --host 0.0.0.0 every address of it"
        )
        raise ListeningError(problem or str(error), hint) from error


def run_worker(worker: Worker, *, ready: Callable[[], None] | None = None) -> None:
    """Run a worker in a loop of its own."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(worker.run(ready))


def told_ready(worker: Worker) -> None:
    """Say that questions are answered."""
    held = worker.definitions.current
    ready = held.server.readiness()
    logger("serve").info(
        "ready",
        definition=held.definition[:12],
        views=len(held.server.views),
        features=len(held.server.features),
        services=len(held.services),
        positions=dict(ready.positions),
    )


def announce(settings: HttpSettings, listening: socket.socket, tokens: Tokens) -> None:
    """The line that tells where what is served, and to whom."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say = logger("serve")
    say.info(
        "started", listening=f"http://{shown}:{port}", views=str(settings.views), workers=settings.workers,
        tokens=[scope for scope in VARIABLES if scope not in tokens.open_scopes],
    )  # fmt: skip
    if tokens.open_scopes:
        names = ", ".join(VARIABLES[scope] for scope in tokens.open_scopes)
        say.warning("open to this machine without a token", scopes=tokens.open_scopes, hint=f"set {names}")


def set_up_logging(settings: HttpSettings, environment: Mapping[str, str] | None) -> None:
    """Lines on standard error, without tokens."""
    known = os.environ if environment is None else environment
    secrets = [known[variable] for variable in (*VARIABLES.values(), _REDIS) if known.get(variable)]
    configure_logging(as_json=settings.as_json, verbose=settings.verbose, redact=Redactor(secrets))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - where uvloop does not run
        return None
    return uvloop.new_event_loop
