"""`asknown ingest` as a process: it polls a real HTTP feed, takes pushed rows, tells how it is, and stops when told."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nats as nats_client
import pytest
from brokers import message
from jobs_process import KEY, TOKEN, Feed, asknown, declare, running, serve_feed
from services import Server

import ingestion


@pytest.fixture
def feed() -> Iterator[Feed]:
    """The feed, served on a free port."""
    with serve_feed() as served:
        yield served


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
        job.process.send_signal(signal.SIGTERM)  # as `timeout` does, which signals the process and its group
        time.sleep(1.1)
        assert job.process.poll() is None
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(10) == 128 + signal.SIGTERM
    hang.set()


@pytest.mark.parametrize("command", ["run", "once"])
@pytest.mark.parametrize("place", ["/proc/nope", "a_file"])
@pytest.mark.parametrize("option", ["--root", "--state"])
def test_a_folder_that_cannot_be_written_is_an_error_at_once(
    tmp_path: Path, command: str, place: str, option: str
) -> None:
    (tmp_path / "a_file").touch()
    (tmp_path / "asknown.yaml").write_text("providers: {meter: {entities: [plant], source: {kind: push}}}")
    done = asknown(tmp_path, "ingest", command, option, place, *(["--port", "0"] if command == "run" else []))
    assert done.returncode == 3, done.stderr
    assert place in done.stderr
    assert f"hint: name a folder that this user may write to: {option} FOLDER" in done.stderr
    assert "started" not in done.stderr


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


def test_declarations_are_shown_and_slips_are_usage_errors(tmp_path: Path, feed: Feed) -> None:
    declare(tmp_path, feed, every="10m", more="down_after: 30m")
    told = asknown(tmp_path, "providers", "check")
    assert told.returncode == 0
    assert re.search(r"wind +measurement +site +http +10m ", told.stdout)
    assert re.search(r"meter +measurement +plant +push +- ", told.stdout)
    silence = asknown(tmp_path, "outages", "logs", "wind")
    assert (silence.returncode, "has no log of provider 'wind'" in silence.stderr) == (3, True)
    assert asknown(tmp_path, "ingest", "once", "wind").returncode == 0
    assert "0 outages" in asknown(tmp_path, "outages", "logs", "wind").stderr
    assert "after which silence 'meter'" not in silence.stderr
    file = tmp_path / "asknown.yaml"
    file.write_text(file.read_text().replace("schedule:", "settings: {prot: 1}\n    schedule:"))
    slip = asknown(tmp_path, "providers", "check", "asknown.yaml")
    assert slip.returncode == 2
    assert "there is no field 'settings'" in slip.stderr
    file.write_text("settings: {prot: 1}\nproviders: {a: {entities: [b]}}")
    slip = asknown(tmp_path, "ingest", "once")
    assert slip.returncode == 2
    assert "settings: there is no field 'prot'" in slip.stderr
    file.write_text("settings: {port: eighty}\nproviders: {a: {entities: [b]}}")
    slip = asknown(tmp_path, "ingest", "once")
    assert (slip.returncode, "port is 'eighty', which is not a number" in slip.stderr) == (2, True)


def test_a_port_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "asknown.yaml"
    file.write_text("settings: {port: 99000}\nproviders: {a: {entities: [b]}}")
    for words in (["providers", "check"], ["ingest", "run"]):
        slip = asknown(tmp_path, *words)
        assert (slip.returncode, "port 99000 is none" in slip.stderr) == (2, True), slip.stderr
    file.write_text("providers: {a: {entities: [b]}}")
    slip = asknown(tmp_path, "ingest", "run", "--port", "99000")
    assert (slip.returncode, "port 99000 is none" in slip.stderr) == (2, True), slip.stderr


def test_without_a_file_the_command_says_what_to_do(tmp_path: Path) -> None:
    done = asknown(tmp_path, "ingest", "once")
    assert done.returncode == 2
    assert "there is no file that declares providers" in done.stderr
    assert "--providers FILE" in done.stderr


def test_a_job_consumes_a_broker_and_goes_on_after_kills_of_both(tmp_path: Path, nats: Server) -> None:
    (tmp_path / "asknown.yaml").write_text(f"""
providers:
  counter:
    entities: [station]
    contract: {{columns: {{station: String, n: Int64}}}}
    source: {{kind: nats, servers: ["nats://127.0.0.1:{nats.port}"], stream: COUNTS, subject: "counts.>"}}
    drop_unchanged: false
""")

    async def publish(first: int, last: int) -> None:
        client = await nats_client.connect(f"nats://127.0.0.1:{nats.port}")
        stream = client.jetstream()
        await stream.add_stream(name="COUNTS", subjects=["counts.>"], storage="file")
        for number in range(first, last):
            await stream.publish("counts.mast", message(number))
        await client.close()

    def stored() -> list[int]:
        return sorted(ingestion.open_log(tmp_path / "logs", "counter").scan().collect()["n"].to_list())

    asyncio.run(publish(0, 50))
    with running(tmp_path) as job:
        job.until(lambda: job.get("/readyz")[0] == 200 and len(stored()) == 50)
        # the gauge is set every two seconds
        job.until(lambda: 'asknown_broker_connected{provider="counter"} 1.0' in job.get("/metrics")[1])
        nats.restart(killed=True)
        asyncio.run(publish(50, 100))
        job.until(lambda: len(stored()) == 100)
        asyncio.run(publish(100, 150))
        job.process.kill()
    with running(tmp_path) as job:
        asyncio.run(publish(150, 200))
        job.until(lambda: len(stored()) >= 200)
        job.process.send_signal(signal.SIGTERM)
        assert job.process.wait(60) == 0
    assert stored() == list(range(200))
