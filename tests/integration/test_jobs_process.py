"""`asknown ingest` as a process: it polls a real HTTP feed, takes pushed rows, tells how it is, and stops when told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import ingestion

TOKEN = "t0p-s3cret-value"
KEY = "query-s3cret"


@dataclass
class Feed:
    """A provider that has one more reading each time it is asked."""

    address: str = ""
    asked: int = 0
    tokens: set[str | None] = field(default_factory=set)
    failing: bool = False
    started: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))

    def answer(self) -> bytes:
        self.asked += 1
        events = [self.started + timedelta(seconds=number) for number in range(self.asked)]
        rows = [{"site": "mast", "at": event.isoformat(), "wind": float(number)} for number, event in enumerate(events)]
        return json.dumps({"data": rows}).encode()


@pytest.fixture
def feed() -> Iterator[Feed]:
    """The feed, served on a free port."""
    served = Feed()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.tokens.add(self.headers.get("Authorization"))
            assert self.path == f"/readings?api_key={KEY}"
            body = b"out of order" if served.failing else served.answer()
            self.send_response(503 if served.failing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # a job that was ended at once has left
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}/readings"
    yield served
    server.shutdown()
    server.server_close()


def declare(folder: Path, feed: Feed, *, every: str = "1s") -> None:
    (folder / "asknown.yaml").write_text(f"""
root: logs
providers:
  wind:
    entities: [site]
    contract:
      columns:
        wind: {{dtype: Float64, unit: m/s, min: 0, max: 1000000}}
    source:
      kind: http
      url: {feed.address}
      auth: {{bearer_env: FEED_TOKEN, query_env: {{api_key: FEED_KEY}}}}
      layout:
        format: json
        records: data
        columns: {{site: site, event_time: at, wind: wind}}
      attempts: 1
    schedule: {{every: {every}, jitter: 0s}}
  meter:
    entities: [plant]
    source: {{kind: push}}
""")


ENVIRONMENT = {**os.environ, "FEED_TOKEN": TOKEN, "FEED_KEY": KEY, "NO_COLOR": "1", "POLARS_MAX_THREADS": "2"}
ASKNOWN = [sys.executable, "-c", "from serving.cli import main; main()"]


def asknown(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ASKNOWN, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


@dataclass
class Running:
    """A job that runs."""

    process: subprocess.Popen[str]
    errors: Path
    url: str = ""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def push(self, provider: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/observations/{provider}",
            data=json.dumps(rows).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202
            return dict(json.loads(answer.read()))

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, self.errors.read_text()
            time.sleep(0.05)


@contextmanager
def running(folder: Path, *words: str) -> Iterator[Running]:
    """`asknown ingest run`, killed on leaving if it still lives."""
    errors = folder / "errors.txt"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [*ASKNOWN, "ingest", "run", "--port", "0", *words],
            cwd=folder,
            env=ENVIRONMENT,
            stderr=stream,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    job = Running(process, errors)
    try:
        job.until(lambda: any(line["event"] == "started" for line in job.lines()))
        job.url = next(line["listening"] for line in job.lines() if line["event"] == "started")
        yield job
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def rows_of(folder: Path, provider: str) -> int:
    try:
        return int(ingestion.open_log(folder / "logs", provider).scan().collect().height)
    except ingestion.LogNotFoundError:
        return 0


def test_a_job_polls_receives_tells_and_stops(tmp_path: Path, feed: Feed) -> None:
    declare(tmp_path, feed)
    pushed = [{"plant": "north", "event_time": "2026-01-01T00:00:00Z", "power": 3.0}]
    with running(tmp_path) as job:
        job.until(lambda: job.get("/readyz")[0] == 200)
        assert job.push("meter", pushed)["accepted"] == 1
        job.until(lambda: rows_of(tmp_path, "wind") >= 3 and rows_of(tmp_path, "meter") == 1)
        status, body = job.get("/healthz")
        assert (status, json.loads(body)["checks"]) == (200, {"loop": "ok", "store": "ok"})
        status, numbers = job.get("/metrics")
        assert status == 200
        assert re.search(r'asknown_polls_total\{outcome="rows",provider="wind"\} [1-9]', numbers)
        assert 'asknown_rows_total{fate="rows",provider="meter"} 1.0' in numbers
        assert 'asknown_push_requests_total{status="202"} 1.0' in numbers
        # What is on its way when the signal comes is in the log when the process has ended.
        job.push("meter", [{**pushed[0], "event_time": "2026-01-01T00:01:00Z"}])
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(60) == 0, job.errors.read_text()
    assert rows_of(tmp_path, "meter") == 2
    text = job.errors.read_text()
    assert [line["event"] for line in job.lines() if line["event"] in {"stopping", "stopped"}] == [
        "stopping",
        "stopped",
    ]
    assert feed.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in text
    assert KEY not in text
    assert "Traceback" not in text
    # Every reading once: polls see the same readings again and again.
    log = ingestion.open_log(tmp_path / "logs", "wind")
    frame = log.scan().collect()
    assert frame["event_time"].n_unique() == frame.height
    ledger = asknown(tmp_path, "polls", "logs", "wind", "--json")
    assert ledger.returncode == 0
    assert {poll["outcome"] for poll in json.loads(ledger.stdout)} == {"rows"}
    assert TOKEN not in ledger.stdout + log.polls().write_json()


def test_a_second_signal_ends_a_job_at_once(tmp_path: Path, feed: Feed) -> None:
    hang = threading.Event()
    feed.answer = lambda: json.dumps(hang.wait(60)).encode()  # type: ignore[method-assign]
    declare(tmp_path, feed)
    with running(tmp_path, "wind") as job:
        job.until(lambda: bool(feed.tokens))
        job.process.send_signal(signal.SIGINT)
        job.until(lambda: any(line["event"] == "stopping" for line in job.lines()))
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(10) == 128 + signal.SIGTERM
    hang.set()


def test_once_polls_each_and_status_tells_of_it(tmp_path: Path, feed: Feed) -> None:
    declare(tmp_path, feed, every="10m")
    done = asknown(tmp_path, "ingest", "once", "--json")
    assert done.returncode == 0, done.stderr
    wind, meter = json.loads(done.stdout)
    assert (wind["provider"], wind["outcome"], wind["rows"]) == ("wind", "rows", 1)
    assert meter["outcome"] == "nothing to poll"
    feed.failing = True
    failed = asknown(tmp_path, "ingest", "once", "wind")
    assert failed.returncode == 1
    assert "503" in failed.stdout
    assert "s3cret" not in failed.stdout + failed.stderr
    told = asknown(tmp_path, "status", "--json")
    assert told.returncode == 0, told.stderr  # failing, but not overdue yet
    states = {each["provider"]: each for each in json.loads(told.stdout)}
    assert states["wind"]["state"] == "failing"
    assert states["wind"]["failures"] == 1
    assert states["wind"]["last_poll"]["outcome"] == "failed"
    assert states["meter"]["state"] == "no log"


def test_without_a_file_the_command_says_what_to_do(tmp_path: Path) -> None:
    done = asknown(tmp_path, "ingest", "once")
    assert done.returncode == 2
    assert "there is no file that declares providers" in done.stderr
    assert "--providers FILE" in done.stderr
