"""How providers are doing, read from real logs; and alerts of a real job, told once across a restart."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from jobs_process import ENVIRONMENT, Feed, asknown, declare, running, serve_feed

import ingestion
from ingestion import Poll
from ingestion.jobs import History, status_of
from ingestion.jobs.upkeep import files_to_merge, tidy
from ingestion.providers import Provider

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> tuple[ingestion.ObservationLog, Hands]:
    """A log of `mast` with 30 polls, a minute apart, of a reading that is 90 s old each time."""
    clock = Hands()
    log = ingestion.create_log(tmp_path, "mast", entities=["site"], publish_margin="500ms", clock=clock)
    for minute in range(30):
        received = NOON + minute * 60 * SECOND
        rows = pl.DataFrame({"site": ["a", "b"], "event_time": [received - 90 * SECOND] * 2, "wind": [1.0, 2.0]})
        clock.now = received + SECOND
        log.append(
            rows.with_columns(received_time=pl.lit(received)),
            arrivals="stamp",
            poll=Poll(source="http", started=received, ended=received, outcome="rows"),
        )
    return log, clock


def test_a_status_is_read_from_rows_and_ledger(log: tuple[ingestion.ObservationLog, Hands]) -> None:
    mast, _ = log
    last = NOON + 29 * 60 * SECOND
    found = History(0.99).look(mast)
    # Stamped 1.5 s after the rows were in hand: a second until the commit, half a second of margin.
    assert found.last_arrival == last + 1.5 * SECOND
    assert found.last_event == last - 90 * SECOND
    assert (found.delay, found.delay_before, found.delay_limit) == (91.5, 91.5, 91.5)
    assert found.store_lag is not None
    assert (found.store_lag.count, found.store_lag.q50, found.store_lag.max) == (30, 1.5, 1.5)
    assert found.gaps is not None
    assert found.gaps.q50 == 60.0
    assert found.last_poll is not None
    assert (found.last_poll.outcome, found.failures, found.quarantined) == ("rows", 0, 0)
    assert found.last_heartbeat == found.last_arrival


def test_failures_in_a_row_empty_polls_and_quarantine_are_seen(log: tuple[ingestion.ObservationLog, Hands]) -> None:
    mast, clock = log
    at = NOON + 3600 * SECOND
    clock.now = at
    history = History()
    history.look(mast)
    mast.record_poll(Poll(source="http", started=at, ended=at, outcome="empty"))
    for error in ("answered 502", "answered 503"):
        mast.record_poll(Poll(source="http", started=at, ended=at, outcome="failed", error=error))
    found = history.look(mast)
    assert found.failures == 2
    assert found.last_poll is not None
    assert found.last_poll.error == "answered 503"
    assert found.last_heartbeat is not None
    assert timedelta(0) <= found.last_heartbeat - at < SECOND  # the empty poll, not those that failed
    rows = pl.DataFrame({"site": ["a", None], "event_time": [at] * 2, "wind": [1.0, 2.0]})
    mast.append(rows, arrivals="stamp", poll=Poll(source="http", started=at, ended=at, outcome="rows"))
    found = history.look(mast)
    assert (found.failures, found.quarantined, found.quarantined_lately, found.quarantine_rate) == (0, 1, 1, 0.5)


def test_a_compaction_changes_nothing_of_it(log: tuple[ingestion.ObservationLog, Hands]) -> None:
    mast, _ = log
    before = History(0.99).look(mast)
    assert files_to_merge(mast) == 60
    report, deleted = tidy(mast)
    assert (report.files_after, deleted) == (2, 0)  # the merged files are younger than the grace period
    assert History(0.99).look(mast) == before
    assert tidy(mast, grace_hours=0)[1] == 60
    assert mast.scan().collect().height == 60


def test_files_of_a_writer_that_died_are_deleted_after_a_day(
    log: tuple[ingestion.ObservationLog, Hands], tmp_path: Path
) -> None:
    mast, _ = log
    old, young = (tmp_path / "mast" / f"0000000000000000-{name}.parquet" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"never committed")
    day_before = time.time() - 25 * 3600
    os.utime(old, (day_before, day_before))
    assert tidy(mast)[1] == 0
    assert tidy(mast, orphans=True)[1] == 1
    assert (old.exists(), young.exists()) == (False, True)
    assert mast.scan().collect().height == 60


def test_looking_again_and_again_tells_the_same_as_looking_once(tmp_path: Path) -> None:
    clock = Hands()
    mast = ingestion.create_log(tmp_path, "mast", entities=["site"], clock=clock)
    history = History(0.9)
    for minute in range(40):
        clock.now = at = NOON + minute * 60 * SECOND
        outcome = ("rows", "empty", "failed", "rows", "refused")[minute * 7 % 5]
        poll = Poll(source="http", started=at, ended=at, outcome=outcome, notes=("new column: x",) * (minute % 2))
        if outcome == "rows":
            late = (minute * 13 % 17) * SECOND
            sites = ["a", None] if minute % 3 == 0 else ["a", "b"]
            mast.append(pl.DataFrame({"site": sites, "event_time": [at - late] * 2}), arrivals="stamp", poll=poll)
        else:
            mast.record_poll(poll)
        if minute == 25:
            tidy(mast)
        assert history.look(mast) == History(0.9).look(mast)


def test_a_provider_without_a_log_has_a_status(tmp_path: Path) -> None:
    status = status_of(Provider(name="new", entities=()), str(tmp_path), now=NOON)
    assert (status.state, status.overdue) == ("no log", None)
    assert json.loads(json.dumps(status.to_dict()))["provider"] == "new"


# ------------------------------------------------------------------------------------------------------------ in a job


@pytest.fixture
def feed() -> Iterator[Feed]:
    """The feed, served on a free port."""
    with serve_feed() as served:
        yield served


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook: its address, and what it was sent."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/s3cret-path", messages
    server.shutdown()
    server.server_close()


def test_an_incident_is_told_once_across_a_restart(
    tmp_path: Path, feed: Feed, hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, messages = hook
    monkeypatch.setitem(ENVIRONMENT, "HOOK", address)
    declare(tmp_path, feed, more="down_after: 5s")

    def of(kind: str) -> list[str]:
        return [message["event"] for message in messages if message["kind"] == kind]

    with running(tmp_path, "wind", "--webhook-env", "HOOK") as job:
        job.until(lambda: ingestion.list_logs(tmp_path / "logs") == ["wind"])
        feed.failing = True
        job.until(lambda: of("overdue") == ["opened"] and of("failing") == ["opened"], 90)
        assert 'asknown_alert_open{kind="overdue",provider="wind"} 1.0' in job.get("/metrics")[1]
        told = asknown(tmp_path, "status")
        assert told.returncode == 1
        assert "overdue" in told.stdout
        assert "no sign of life" in told.stderr
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(60) == 0
        assert "s3cret-path" not in job.errors.read_text()
    with running(tmp_path, "wind", "--webhook-env", "HOOK") as job:
        job.until(lambda: 'alert_open{kind="overdue"' in job.get("/metrics")[1])
        time.sleep(7)  # longer than judging takes turns
        assert of("overdue") == ["opened"]
        feed.failing = False
        job.until(lambda: of("overdue") == ["opened", "recovered"] and of("failing") == ["opened", "recovered"], 90)
    first, last = (message for message in messages if message["kind"] == "overdue")
    assert first["id"] == last["id"]
    assert first["closed"] is None
    assert last["closed"] > last["opened"]


def test_upkeep_retires_what_is_older_than_the_retention(log: tuple[ingestion.ObservationLog, Hands]) -> None:
    mast, clock = log
    kept = mast.scan().collect()
    tidy(mast)
    assert mast.scan().collect().height == kept.height  # nobody said how long rows are kept
    mast.redefine(retention="1d")
    last = kept["event_time"].max()
    assert isinstance(last, datetime)
    clock.now = last + timedelta(days=1)
    tidy(mast)
    assert set(mast.scan().collect()["event_time"]) == {last}  # an event as old as the retention stays
    assert [removal.kind for removal in mast.removals()] == ["retired"]
