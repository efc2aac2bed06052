"""A log in a bucket of a real store: all that a folder can do, once and only once whatever the network loses, and no secret told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from faulty_proxy import FaultyProxy
from object_store import KEY, SECRET, ObjectStore
from typer.testing import CliRunner

import alignment as al
import ingestion
from ingestion import (
    AddressError,
    ObservationLog,
    Poll,
    SupersededError,
    UnsafeStoreError,
    create_log,
    list_logs,
    open_log,
)
from ingestion.storage import Location
from serving.cli import app

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
COLUMNS = {"meter": pl.String, "kw": pl.Float64}
FAULTS = ["lost", "failed after", "cut short", "busy", "refused"]
COMMIT = r"PUT .*/_delta_log/\d+\.json"


@pytest.fixture
def root(object_store: ObjectStore, proxy: FaultyProxy) -> str:
    return f"s3://{object_store.bucket()}/some logs"


def rows(*values: float, meter: str = "a", at: datetime = NOON) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "meter": [meter] * len(values),
            "event_time": [at + timedelta(minutes=n) for n in range(len(values))],
            "kw": values,
        }
    )


def poll(outcome: str = "empty") -> Poll:
    return Poll(source="http", started=NOON, ended=NOON, outcome=outcome)  # type: ignore[arg-type]


def values(log: ObservationLog) -> list[float]:
    return log.scan().sort("log_sequence").collect()["kw"].to_list()


def test_a_log_in_a_bucket_does_what_one_in_a_folder_does(object_store: ObjectStore, root: str, tmp_path: Path) -> None:
    logs = [create_log(place, "meters", entities=["meter"], publish_margin="20s") for place in (root, tmp_path)]
    for log in logs:
        log.append(rows(1.0, 2.0), batch_id="first")
        assert log.append(rows(1.0, 2.0), batch_id="first").duplicates == 2
        log.append(rows(3.0, meter="b").with_columns(note=pl.lit("n")), evolve=True, poll=poll())
        bad = rows(9.0, at=datetime(2100, 1, 1, tzinfo=UTC)).with_columns(note=pl.lit(None, pl.String))
        assert log.append(bad).quarantined == 1
        log.record_poll(poll("failed"))
        log.rename_column("note", "remark")
        old = rows(4.0, at=NOON - timedelta(days=1)).with_columns(remark=pl.lit(None, pl.String))
        log.append(old, backfill=True, delay=al.FixedDelay("1h"))
        log.compact(vacuum=True)
    object_store.restart_gateway(killed=True)  # what was acknowledged is on the disk
    there, here = (open_log(place, "meters") for place in (root, tmp_path))
    assert list_logs(root) == ["meters"]
    assert there.position() == here.position()
    order = ["log_sequence", "meter", "event_time", "kw", "remark", "arrival_kind"]
    assert there.scan().collect().select(order).equals(here.scan().collect().select(order))
    assert there.polls()["outcome"].to_list() == ["rows", "failed"]
    assert there.heartbeats().height == here.heartbeats().height
    assert there.quarantine()["reason"].to_list() == here.quarantine()["reason"].to_list()
    assert there.erase({"meter": "b"}).removal is not None
    assert values(there) == [1.0, 2.0, 4.0]


def test_a_batch_comes_once_whatever_becomes_of_its_commits_answer(root: str, proxy: FaultyProxy) -> None:
    log = create_log(root, "meters", entities=["meter"], schema=COLUMNS, publish_margin="20s")
    for number, fault in enumerate(FAULTS):
        proxy.plan(COMMIT, fault)
        assert log.append(rows(number)).rows == 1  # no batch id: nobody could ask whether it is in
        assert proxy.seen()["planned"] == 0
    assert values(log) == [0.0, 1.0, 2.0, 3.0, 4.0]
    proxy.plan(COMMIT, "lost")
    assert log.append(rows(5.0), stream=("gate", 1)).rows == 1
    assert log.append(rows(5.0), stream=("gate", 1)).duplicates == 1
    proxy.plan(COMMIT, "lost")
    log.append(rows(6.0), poll=poll(), after=-1)
    with pytest.raises(SupersededError):
        log.append(rows(6.0), poll=poll(), after=-1)
    assert proxy.seen()["planned"] == 0
    assert values(log)[5:] == [5.0, 6.0]
    assert log.polls()["outcome"].to_list() == ["rows"]


def test_upkeep_deletes_no_file_of_a_commit_that_was_made(root: str, proxy: FaultyProxy) -> None:
    log = create_log(root, "meters", entities=["meter"], schema=COLUMNS, publish_margin="20s")
    log.append(rows(1.0))
    log.append(rows(2.0, meter="b"))
    for fault, upkeep in (
        ("lost", log.compact),
        ("failed after", lambda: log.erase({"meter": "b"})),
        ("lost", lambda: log.add_column("note", pl.String)),
        ("failed after", lambda: log.rename_column("note", "remark")),
    ):
        proxy.plan(COMMIT, fault)
        upkeep()  # type: ignore[operator]
        assert proxy.seen()["planned"] == 0
    assert open_log(root, "meters").scan().collect().select("meter", "kw", "remark").rows() == [("a", 1.0, None)]


def test_a_store_that_lets_two_writers_make_one_commit_is_refused(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = object_store.bucket()
    with FaultyProxy(object_store.port, unsafe=True) as proxy:
        for name, value in object_store.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UnsafeStoreError) as caught:
            create_log(f"s3://{bucket}/logs", "meters", entities=["meter"])
    assert str(caught.value) == (
        f"the store of 's3://{bucket}/logs' takes two commits where only the first may come\n\n"
        "hint: use one that refuses a put to a name that is taken (If-None-Match: *); the page on object storage names some."
    )
    assert "<Key>" not in object_store.request("GET", f"/{bucket}")[1], "the check left something behind"


def test_no_secret_is_written_shown_or_told(
    object_store: ObjectStore, root: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = create_log(root, "meters", entities=["meter"], schema=COLUMNS)
    log.append(rows(1.0), poll=poll())
    log.compact()
    shown = [
        repr(log),
        str(log.info()),
        repr(log.table.location),
        repr(Location.of(root, {"AWS_SECRET_ACCESS_KEY": SECRET})),
    ]
    location = Location.of(root)
    for name in [*log.table.location.names("_delta_log"), *log.table.location.names()]:
        for folder in ("meters/", "meters/_delta_log/"):
            if location.exists(folder + name):
                shown.append(location.read(folder + name).decode(errors="replace"))
    wrong = SECRET[::-1]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    for attempt in (
        lambda: open_log(root, "meters"),
        lambda: create_log(root, "others", entities=[]),
        lambda: list_logs(root),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it tells nothing
            attempt()
        shown += [str(caught.value), repr(caught.value)]
    told = CliRunner().invoke(app, ["log", "info", root])
    shown += [told.output, *capfd.readouterr()]
    assert told.exit_code != 0
    assert not [text for text in shown if SECRET in text or wrong in text]


def test_an_address_that_holds_a_password_is_refused_and_not_repeated() -> None:
    for ask in (lambda: open_log(f"s3://{KEY}:{SECRET}@bucket/logs", "meters"), lambda: list_logs(f"s3://{SECRET}@b")):
        with pytest.raises(AddressError) as caught:
            ask()
        assert str(caught.value) == (
            "the address holds a user or a password\n\n"
            "hint: write s3://bucket/prefix; credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY."
        )


def test_the_command_line_takes_a_bucket_for_a_folder(root: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    rows(1.0, 2.0).write_parquet(file)

    def asknown(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from serving.cli import main; main()", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2],
            env=dict(os.environ), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    asknown("log", "append", root, "meters", str(file), "--entities", "meter")
    info = json.loads(asknown("log", "info", root, "--json"))
    assert "meters" in json.dumps(info)
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed" / "a.csv").write_text("meter,event_time,kw\na,2026-06-01T12:00:00Z,1.5\n")
    declared = tmp_path / "asknown.yaml"
    declared.write_text(
        f"root: {root}\nproviders:\n  feed:\n    entities: [meter]\n"
        f"    source: {{kind: files, path: {tmp_path / 'feed'}, pattern: '*.csv', settle: 0s}}\n"
    )
    asknown("ingest", "once", "--providers", str(declared), "--state", str(tmp_path / "state"))
    assert open_log(root, "feed").scan().collect()["kw"].to_list() == [1.5]
    assert ingestion.list_logs(root) == ["feed", "meters"]
