"""Two jobs poll one bad provider, are killed, and their clock jumps: every row once, stamps in order, nothing seen too soon."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

import ingestion

FULL_COUNT = 100
PAGE = 20
JOB = """
import sys, os
from datetime import timedelta
from pathlib import Path
from ingestion import system_clock
from ingestion.jobs import JobSettings, configure_logging, run
from ingestion.providers import load_providers

declared, offset, state = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def clock():
    return system_clock() + timedelta(seconds=float(offset.read_text()))

configure_logging()
found = load_providers(Path(declared))
settings = JobSettings(root=str(found.root), state=state, port=None, compact_after=15)
run(list(found.providers.values()), settings, clock=clock, started=lambda job: print("ready", flush=True))
"""
PROVIDERS = """
root: {root}
providers:
  meters:
    entities: [meter]
    contract:
      columns: {{kw: Float64, version: Int64}}
    source:
      kind: http
      url: "http://127.0.0.1:{port}/rows?since={{since}}"
      start: 1d
      look_back: 1h
      layout: {{records: rows}}
      paging: {{kind: page_number, parameter: page, size: {page}, stop: short}}
      timeout: 300ms
      connect_timeout: 1s
      attempts: 2
      wait: 20ms
      longest_wait: 100ms
      failures: 1000
    schedule: {{every: 250ms}}
"""


class QuietServer(ThreadingHTTPServer):
    """Connections that a killed job left are no news."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        return


class Sender:
    """A provider that keeps adding and correcting rows, and answers badly as often as not."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.rows: dict[tuple[str, int], int] = {}
        self.began = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
        self.bad = 0.4
        self.faults: dict[str, int] = {}
        sender = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                sender.answer(self)

            def log_message(self, *_: object) -> None:
                return

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def grow(self) -> None:
        """A few new rows, one correction; values only ever grow, so that no old one can come back."""
        with self.lock:
            for _ in range(self.chance.randint(1, 6)):
                self.rows[self.chance.choice("ab"), len(self.rows)] = 1
            self.rows[self.chance.choice(list(self.rows))] += 1

    def now(self) -> dict[tuple[str, datetime], int]:
        with self.lock:
            return {(meter, self.began + timedelta(milliseconds=n)): v for (meter, n), v in self.rows.items()}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        page = int(parse_qs(urlsplit(handler.path).query).get("page", ["1"])[0])
        rows = [
            {"meter": meter, "event_time": event.isoformat(), "kw": version / 2, "version": version}
            for (meter, event), version in self.now().items()
        ]
        rows = rows[(page - 1) * PAGE : page * PAGE]
        with self.lock:
            fault = ""
            if self.chance.random() < self.bad:
                fault = self.chance.choice(["reset", "hang", "cut", "500", "429", "html", "repeat", "shuffle"])
                self.faults[fault] = self.faults.get(fault, 0) + 1
            if fault == "repeat" and len(rows) < PAGE:
                rows = [*rows, *rows[: PAGE - len(rows) - 1]]
            elif fault == "shuffle":
                self.chance.shuffle(rows)
        body = json.dumps({"rows": rows}).encode()
        if fault == "hang":
            time.sleep(0.6)
        if fault in {"reset", "hang"}:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response({"500": 500, "429": 429}.get(fault, 200))
        if fault == "429":
            handler.send_header("Retry-After", "0")
        if fault == "html":
            body = b"<html>We will be back soon</html>"
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault == "cut":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        handler.wfile.write(body)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Job:
    """A job in a process of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.errors = (folder / f"{name}.err").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(folder / "asknown.yaml"), str(folder / "offset"), str(folder / name)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", Path(self.errors.name).read_text()[-2000:]

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()
        return code


class Reader(threading.Thread):
    """Notes, again and again, what the clock said and how far the log could be read just after."""

    def __init__(self, root: Path, offset: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.offset = root, offset
        self.notes: list[tuple[datetime, int]] = []
        self.done = threading.Event()

    def run(self) -> None:
        log = ingestion.open_log(self.root, "meters")
        while not self.done.wait(0.02):
            now = datetime.now(UTC) + timedelta(seconds=float(self.offset.read_text()))
            self.notes.append((now, log.position()))


@contextmanager
def world(folder: Path, seed: int) -> Iterator[tuple[Sender, Path]]:
    sender = Sender(seed)
    root = folder / "logs"
    (folder / "asknown.yaml").write_text(PROVIDERS.format(root=root, port=sender.port, page=PAGE))
    (folder / "offset").write_text("0")
    try:
        yield sender, root
    finally:
        sender.close()


def shift_clock(folder: Path, seconds: float) -> None:
    draft = folder / "offset.draft"
    draft.write_text(str(seconds))
    draft.replace(folder / "offset")


def stored_of(log: ingestion.ObservationLog) -> pl.DataFrame:
    return log.scan().sort("log_sequence").collect()


def current(log: ingestion.ObservationLog) -> dict[tuple[str, datetime], int]:
    last = stored_of(log).group_by("meter", "event_time", maintain_order=True).last()
    return {
        (meter, event): version for meter, event, version in last.select("meter", "event_time", "version").iter_rows()
    }


def await_equal(log: ingestion.ObservationLog, sender: Sender, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while current(log) != sender.now():
        assert time.monotonic() < limit, f"{len(current(log))} of {len(sender.now())} keys after {seconds} s"
        time.sleep(0.2)


def check(log: ingestion.ObservationLog, reader: Reader) -> None:
    rows = stored_of(log)
    assert rows.select("meter", "event_time", "version").is_unique().all(), "a revision is there twice"
    assert rows.select(pl.col("version").diff().over("meter", "event_time").drop_nulls() > 0).to_series().all()
    assert rows.filter(pl.col("kw") * 2 != pl.col("version")).is_empty(), "values of two revisions are mixed"
    stored = pl.scan_parquet([log.table.address_of(path) for path in log.table.files()["path"]])
    stamps = stored.filter(pl.col("record_kind") == "observation").sort("log_sequence").collect()
    in_order = stamps.group_by("batch_id", maintain_order=True).agg(pl.col("arrival_time").unique())
    assert (in_order["arrival_time"].list.len() == 1).all(), "a batch has two stamps"
    assert (in_order["arrival_time"].list.first().diff().drop_nulls().dt.total_microseconds() > 0).all(), (
        "stamps go back"
    )
    notes = pl.DataFrame(reader.notes, schema={"now": pl.Datetime("us", "UTC"), "position": pl.Int64}, orient="row")
    later = rows.select(pl.col("arrival_time"), pl.col("log_sequence")).sort("arrival_time")
    greatest = later.with_columns(pl.col("log_sequence").cum_max())
    seen = notes.sort("now").join_asof(greatest, left_on="now", right_on="arrival_time", strategy="backward")
    early = seen.filter(pl.col("log_sequence") > pl.col("position"))
    assert early.is_empty(), f"rows counted before they could be read: {early.head()}"


def run(folder: Path, kills: int, seed: int) -> dict[str, int]:
    chance = random.Random(seed)
    with world(folder, seed) as (sender, root):
        sender.grow()
        jobs = {name: Job(folder, name) for name in ("left", "right")}
        reader = None
        try:
            for job in jobs.values():
                job.wait_until_ready()
            for _kill in range(kills):
                for _ in range(chance.randint(1, 5)):
                    sender.grow()
                    time.sleep(chance.uniform(0.0, 0.15))
                if reader is None and "meters" in ingestion.list_logs(root):
                    reader = Reader(root, folder / "offset")
                    reader.start()
                if chance.random() < 0.3:
                    shift_clock(folder, chance.choice([-3600.0, 0.0]))
                victim = chance.choice(list(jobs))
                jobs[victim].kill()
                jobs[victim] = Job(folder, victim)
                if chance.random() < 0.8:  # else it is killed while it starts
                    jobs[victim].wait_until_ready()
                    time.sleep(chance.uniform(0.0, 0.8))
            shift_clock(folder, 0.0)
            sender.bad = 0.1
            log = ingestion.open_log(root, "meters")
            await_equal(log, sender)
        finally:
            for job in jobs.values():
                job.kill()
        assert reader is not None
        reader.done.set()
        reader.join()
        check(log, reader)
        polls = log.polls()
        assert set(polls["outcome"]) <= {"rows", "empty", "failed", "refused"}
        return {"kills": kills, "rows": stored_of(log).height, "polls": polls.height, **sender.faults}


def test_every_row_is_there_once_after_kills_and_faults(tmp_path: Path) -> None:
    run(tmp_path, kills=4, seed=3)


def test_a_job_that_is_told_to_stop_finishes_and_says_so(tmp_path: Path) -> None:
    with world(tmp_path, seed=1) as (sender, root):
        sender.bad = 0.0
        sender.grow()
        job = Job(tmp_path, "only")
        job.wait_until_ready()
        limit = time.monotonic() + 20
        while "meters" not in ingestion.list_logs(root) or ingestion.open_log(root, "meters").position() < 0:
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert job.end(signal.SIGTERM) == 0
        await_equal(ingestion.open_log(root, "meters"), sender, seconds=1.0)


@pytest.mark.soak
def test_nothing_is_lost_or_doubled_when_pollers_are_killed(tmp_path: Path) -> None:
    kills = max(4, int(FULL_COUNT * float(os.environ.get("ASKNOWN_SOAK", "1"))))
    print(run(tmp_path, kills=kills, seed=8))
