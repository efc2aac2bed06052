"""Several workers behind one port: each a fresh process with its own state; whichever is idle takes the next connection.

Processes are started, never forked: a process that has loaded Numba must not be.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from alignment.errors import AlignmentError
from ingestion import IngestionError
from ingestion.jobs import logger
from serving.errors import ServingError
from serving.http.auth import Tokens
from serving.http.crew import forget
from serving.http.definitions import Definitions
from serving.http.run import Worker, announce, listen, over_redis, run_worker, serve_here, set_up_logging, told_ready
from serving.http.settings import HttpSettings

_LOOK_SECONDS: Final = 0.1
_CODE: Final = "from serving.http.workers import work; work()"
_MOST_STARTS: Final = 5
_STARTS_SECONDS: Final = 60.0


class WorkersError(ServingError):
    """The workers end as soon as they are started."""


def serve(settings: HttpSettings, *, environment: Mapping[str, str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, with as many processes as the settings say.

    Args:
        settings: How.
        environment: Where tokens are; that of the process if None.

    Raises:
        ServingError: If it cannot listen, the views file or an option is refused, or workers do not stay.
        AlignmentError: What a declaration is refused for.
        IngestionError: What a log is refused for.
    """
    if settings.workers == 1:
        serve_here(settings, environment=environment)
        return
    set_up_logging(settings, environment)
    tokens = Tokens(os.environ if environment is None else environment)
    listening = listen(settings)
    with listening, tempfile.TemporaryDirectory(prefix="asknown-serve-") as folder:
        if settings.redis:
            over_redis(settings)
        Definitions(online=settings.online).prepare(settings.views)  # what is wrong is said once, not by every worker
        announce(settings, listening, tokens)
        _Supervisor(settings, listening, Path(folder), environment).run()
    logger("serve").info("stopped")


class _Supervisor:
    """Starts workers, starts them again when they end, and lets them finish when it is told to stop."""

    def __init__(
        self, settings: HttpSettings, listening: socket.socket, folder: Path, environment: Mapping[str, str] | None
    ) -> None:
        self._settings, self._listening, self._folder = settings, listening, folder
        self._environment = dict(os.environ if environment is None else environment)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._starts: list[float] = []
        self._stopping = 0
        self._say = logger("serve")

    def run(self) -> None:
        """Until a signal.

        Raises:
            WorkersError: If workers end again and again.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in range(self._settings.workers):
                self._start(number)
            while not self._stopping:
                time.sleep(_LOOK_SECONDS)
                for number, process in list(self._workers.items()):
                    if process.poll() is not None and not self._stopping:
                        forget(self._folder, number)
                        self._say.error("a worker ended, another is started", worker=number, code=process.returncode)
                        self._start(number)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, number: int) -> None:
        now = time.monotonic()
        self._starts = [start for start in self._starts if start > now - _STARTS_SECONDS]
        if len(self._starts) >= self._settings.workers + _MOST_STARTS:
            raise WorkersError("the workers end as soon as they are started", "look at their lines above.")
        self._starts.append(now)
        listening = self._listening.fileno()
        order = {
            "settings": self._settings,
            "folder": str(self._folder),
            "worker": number,
            "socket": listening,
            "replaces": number in self._workers,
        }
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with code of ours
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            pass_fds=[listening],
            env=self._environment,
            start_new_session=True,  # a terminal's Ctrl-C goes to the supervisor alone
        )
        if process.stdin is not None:
            process.stdin.write(msgspec.json.encode(order, enc_hook=str) + b"\n")
            process.stdin.flush()  # stays open: its end tells the worker that the supervisor is gone
        self._workers[number] = process

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping += 1
        if self._stopping == 1:
            self._listening.close()  # the workers have their own
            for process in self._workers.values():
                process.send_signal(signal.SIGTERM)
        elif number == signal.SIGINT:
            for process in self._workers.values():
                process.kill()

    def _end(self) -> None:
        patience = self._settings.drain_seconds + self._settings.stop_within + 10
        end = time.monotonic() + patience
        for process in self._workers.values():
            if process.poll() is None and not self._stopping:
                process.terminate()
        for number, process in self._workers.items():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say.warning("a worker was ended at once", worker=number)
                process.kill()
                process.wait()


class _Order(msgspec.Struct):
    """What a worker is told.

    Attributes:
        settings: How to serve.
        folder: What the workers share.
        worker: Which it is.
        socket: The descriptor of the socket to accept from.
        replaces: Whether others answer already: it then loads before it accepts, and they are asked until then.
    """

    settings: HttpSettings
    folder: str
    worker: int
    socket: int
    replaces: bool


def work() -> None:
    """Be a worker: read what to do from standard input, and do it."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order, dec_hook=lambda kind, value: kind(value))
    set_up_logging(order.settings, None)
    _end_with_the_supervisor()
    listening = socket.socket(fileno=order.socket)
    try:
        worker = Worker(order.settings, listening, Path(order.folder), worker=order.worker)
        if order.replaces:
            worker.load()
        run_worker(worker, ready=lambda: told_ready(worker))
    except (ServingError, AlignmentError, IngestionError, OSError) as error:
        logger("serve").error("cannot serve", worker=order.worker, error=str(error).splitlines()[0])
        sys.exit(2)


def _end_with_the_supervisor() -> None:
    """Stop in good order when the supervisor is gone, however it went."""
    import threading

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
