"""`asknown ingest run` as a process beside a provider on this machine: what tests of jobs share."""

from __future__ import annotations

import contextlib
import json
import os
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


@contextmanager
def serve_feed() -> Iterator[Feed]:
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


def declare(folder: Path, feed: Feed, *, every: str = "1s", more: str = "") -> None:
    """Write `asknown.yaml` for the feed and for a meter that pushes."""
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
      pause: 1s
    schedule: {{every: {every}, jitter: 0s}}
    {more}
  meter:
    entities: [plant]
    source: {{kind: push}}
""")


ENVIRONMENT = {**os.environ, "FEED_TOKEN": TOKEN, "FEED_KEY": KEY, "NO_COLOR": "1", "POLARS_MAX_THREADS": "2"}
ASKNOWN = [sys.executable, "-c", "from serving.cli import main; main()"]


def asknown(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end in a folder."""
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
        """What it has told so far."""
        return [json.loads(line) for line in self.errors.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of its endpoint."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def push(self, provider: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Send rows and wait until they are durable."""
        request = urllib.request.Request(
            f"{self.url}/observations/{provider}",
            data=json.dumps(rows).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202
            return dict(json.loads(answer.read()))

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for something while the job lives."""
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
