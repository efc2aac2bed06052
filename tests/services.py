"""Real servers for tests: NATS, Mosquitto, PostgreSQL, Redis, each on a free port of the loopback, with a folder of its own.

A test that needs one is skipped where its program is missing; with REQUIRE_SERVICES=1 it fails there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


def program(name: str, *, package: str) -> str:
    """The path of a server's program; the test is skipped, or fails, where there is none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if found is None and name in ("initdb", "postgres"):
        newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(newest[-1]) if newest else None
    if found is None:
        reason = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """A process that listens on a port; can be stopped, killed and started again on the same folder and port.

    Args:
        command: What to run, given the port.
        folder: Where it keeps what it keeps.
        user: Whom to run it as, if this process may choose.
        ends: The signal that it ends at once on, in good order.
        ready: Whether it answers, once its port is open.
    """

    def __init__(
        self,
        command: Callable[[int], list[str]],
        folder: Path,
        *,
        user: str | None = None,
        ends: signal.Signals = signal.SIGTERM,
        ready: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._command = command
        self._user = user
        self._ends = ends
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, seconds: float = 20) -> Server:
        self.launch()
        self.wait(seconds)
        return self

    def launch(self) -> None:
        """Start it without waiting for it."""
        with (self.folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(self.port), cwd=self.folder, stdout=output, stderr=output, user=self._user
            )

    def wait(self, seconds: float = 20) -> None:
        """Until it accepts connections."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                if self._ready(self.port):
                    return
            time.sleep(0.02)
        said = (self.folder / "output.txt").read_text(errors="replace")[-2_000:]
        self.kill()
        raise RuntimeError(f"{self._command(self.port)[0]} does not listen:\n{said}")

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it as an operator does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how or self._ends)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._process = None

    def kill(self) -> None:
        """End it as a power cut does."""
        self.stop(signal.SIGKILL)

    def restart(self, *, killed: bool = False) -> None:
        self.kill() if killed else self.stop()
        self.start()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server.start()
    finally:
        server.stop()


def nats_server(folder: Path) -> Server:
    """NATS with JetStream, its streams in `folder`."""
    path = program("nats-server", package="nats-server")
    store = folder / "jetstream"
    store.mkdir()
    return Server(lambda port: [path, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(store)], folder)


def mosquitto_server(folder: Path, *extra: str) -> Server:
    """Mosquitto, which keeps sessions in `folder`."""
    path = program("mosquitto", package="mosquitto")
    config = folder / "mosquitto.conf"

    def command(port: int) -> list[str]:
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            "max_queued_messages 0",
            *(["user root"] if os.getuid() == 0 else []),
            *extra,
        ]
        config.write_text("\n".join(lines) + "\n")
        return [path, "-c", str(config)]

    return Server(command, folder)


def postgres_server(folder: Path) -> Server:
    """PostgreSQL with a fresh cluster; user `postgres`, no password, database `postgres`."""
    initdb, path = (program(name, package="postgresql") for name in ("initdb", "postgres"))
    user = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = next((name for name in ("postgres", "nobody") if _exists(name)), None)
        shutil.chown(folder, user)
        for parent in folder.parents:
            if str(parent) == tempfile.gettempdir():
                break
            parent.chmod(parent.stat().st_mode | 0o711)
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )

    def command(port: int) -> list[str]:
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(folder), "fsync": "off"}
        return [path, "-D", str(data), "-p", str(port), *(f"-c{name}={value}" for name, value in options.items())]

    def ready(port: int) -> bool:
        asked = [str(Path(path).resolve().with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(asked, check=False).returncode == 0

    return Server(command, folder, user=user, ends=signal.SIGINT, ready=ready)


def redis_server(folder: Path, *extra: str) -> Server:
    """Redis that keeps nothing on disk, unless told otherwise."""
    path = program("redis-server", package="redis-server")

    def command(port: int) -> list[str]:
        own = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        return [path, *own, "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *extra]

    return Server(command, folder)


def _exists(user: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Server]:
    """A NATS server with JetStream."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with running(nats_server(folder)) as server:
        yield server


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Server]:
    """An MQTT server that keeps sessions."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with running(mosquitto_server(folder)) as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis server that keeps nothing on disk."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with running(redis_server(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; tests make tables of their own."""
    # Not in pytest's own folder, which each run of pytest closes to others, that is, to the user PostgreSQL runs as.
    with (
        tempfile.TemporaryDirectory(prefix="asknown-postgres-", ignore_cleanup_errors=True) as folder,
        running(postgres_server(Path(folder))) as server,
    ):
        yield server
