"""`asknown serve` as tests need it: a small log with its views file, a process, and the application without one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl

import ingestion
from serving.http import Application, Definitions, HttpLimits, Tokens
from serving.http.crew import Crew
from serving.http.metrics import Metrics
from serving.online import OnlineSettings

VIEWS = """
from pathlib import Path

import alignment as al
import ingestion

log = ingestion.open_log(Path(__file__).parent / "logs", "weather")
views = [
    al.FeatureView(
        "weather",
        ["station"],
        log,
        [
            al.latest("temp", max_event_age="2h"),
            al.latest("name"),
            al.latest("big"),
            al.window("temp", ["mean", "count"], "1h"),
            al.sequence("temp", 3),
            al.event_age(),
        ],
    )
]
services = [al.FeatureService("basic", ["weather__temp", "weather__big"])]
"""
PROVIDERS = """
root: logs
providers:
  weather:
    entities: [station]
    source: {kind: push}
"""
READ, PUSH, ADMIN = "read-token-1", "push-token-2", "admin-token-3"
TOKENS = {"ASKNOWN_READ_TOKEN": READ, "ASKNOWN_PUSH_TOKEN": PUSH, "ASKNOWN_ADMIN_TOKEN": ADMIN}
QUESTION = {"features": ["weather:temp"], "entities": {"station": ["a"]}}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def make(folder: Path, views: str = VIEWS) -> ingestion.ObservationLog:
    """A log of two stations, and the files that declare what is served from it.

    Station a: 20.0, 21.0, 22.0 at 30, 20 and 10 minutes ago. Station b: 5.0 three hours ago. Station c: NaN, and null.
    """
    log = ingestion.create_log(str(folder / "logs"), "weather", entities=["station"])
    now = datetime.now(UTC).replace(microsecond=0)
    rows = [
        ("a", 30, 20.0, "Anna", 2**53 + 1),
        ("a", 20, 21.0, "Anna", 2**53 + 1),
        ("a", 10, 22.0, "Ännchen \u2028", 2**53 + 1),
        ("b", 180, 5.0, None, 1),
        ("c", 20, float("inf"), "c", 0),
        ("c", 10, float("nan"), "c", 0),
        ("d", 10, None, "d", -1),
    ]
    log.append(
        pl.DataFrame(
            {
                "station": [row[0] for row in rows],
                "event_time": [now - timedelta(minutes=row[1]) for row in rows],
                "temp": [row[2] for row in rows],
                "name": [row[3] for row in rows],
                "big": [row[4] for row in rows],
            }
        )
    )
    (folder / "features.py").write_text(views)
    (folder / "providers.yaml").write_text(PROVIDERS)
    arrived = log.observed_through()
    assert arrived is not None
    while datetime.now(UTC) < arrived + timedelta(seconds=0.5):  # a server's clock allowance is half of it
        time.sleep(0.05)
    return log


@contextmanager
def application(
    folder: Path, *, environment: Mapping[str, str] | None = None, limits: HttpLimits | None = None
) -> Iterator[Application]:
    """The application over the views file of a folder, with its server, without a port."""
    definitions = Definitions(online=OnlineSettings())
    definitions.load(folder / "features.py")
    crew = Crew(definitions, folder / "features.py", folder)
    app = Application(definitions, tokens=Tokens(environment or {}), limits=limits or HttpLimits(), crew=crew)
    app.metrics = Metrics(definitions.current.server.features)
    crew.tell()
    try:
        yield app
    finally:
        app.close()
        definitions.close()


def ask(app: Any, method: str, path: str, *, client: str = "127.0.0.1", **more: Any) -> httpx.Response:
    """One request to an application."""

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 50_000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8320") as session:
            return await session.request(method, path, **more)

    return asyncio.run(one())


@dataclass
class Serving:
    """A server that runs."""

    process: subprocess.Popen[str]
    errors: Path
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict[str, Any]]:
        """What it has told so far."""
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str, token: str = "") -> tuple[int, Any]:
        """Status and decoded body of a GET; -1 if it does not listen."""
        return self.send(urllib.request.Request(self.url + path, headers=bearer(token) if token else {}))

    def post(self, path: str, value: Any = None, token: str = "") -> tuple[int, Any]:
        """The same of a POST."""
        headers = {"Content-Type": "application/json", **(bearer(token) if token else {})}
        body = b"" if value is None else json.dumps(value).encode()
        return self.send(urllib.request.Request(self.url + path, data=body, headers=headers))

    def send(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return -1, None
        return status, json.loads(body) if body.startswith(("{", "[")) else body

    def until_ready(self, seconds: float = 60.0) -> None:
        """Until questions are answered."""
        end = time.monotonic() + seconds
        while not any(line["event"] == "ready" for line in self.lines()) or self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, self.errors.read_text()
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    """`asknown serve features.py` in a folder, once it listens; killed on leaving if it still lives."""
    errors = folder / "errors.txt"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from serving.cli import main; main()",
                "serve",
                "features.py",
                "--port",
                "0",
                *words,
            ],
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1", "POLARS_MAX_THREADS": "2", **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=stream,
            text=True,
        )
    running = Serving(process, errors)
    end = time.monotonic() + 60
    try:
        while not (started := [line for line in running.lines() if line["event"] == "started"]):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < end, errors.read_text()
            time.sleep(0.05)
        running.port = int(started[0]["listening"].rpartition(":")[2])
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
