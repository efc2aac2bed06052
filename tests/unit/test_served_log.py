"""The served log: what is kept, what is not, and that nobody waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import alignment as al
from ingestion import ObservationLog, create_log, open_log
from serving.cli import run
from serving.errors import OptionError
from serving.online import Answer, AnsweredColumn, FeatureServer
from serving.served import ServedLog, ServedPlace, audit, last_served, read_served, training_frame
from serving.served.tables import list_tables

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Clock:
    """A clock that is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> ObservationLog:
    log = create_log(tmp_path, "weather", entities=["station"], clock=clock)
    log.append(
        pl.DataFrame(
            {
                "station": ["a", "b", "b"],
                "event_time": [NOON - timedelta(minutes=minutes) for minutes in (9, 8, 7)],
                "arrival_time": [NOON - timedelta(minutes=5)] * 3,
                "temp": [1.5, None, float("nan")],
                "level": pl.Series([1, 2, 255], dtype=pl.UInt8),
                "vector": pl.Series([[0.0, -0.0], None, [1.0, None]], dtype=pl.Array(pl.Float32, 2)),
            }
        )
    )
    return log


@pytest.fixture
def view(log: ObservationLog) -> al.FeatureView:
    features = [
        al.latest("temp"),
        al.latest("level"),
        al.latest("vector"),
        al.sequence("temp", 2),
        al.event_age(),
    ]
    return al.FeatureView("weather", observations=log, features=features, entity_map={"site": "station"})


@pytest.fixture
def server(view: al.FeatureView, clock: Clock) -> Iterator[FeatureServer]:
    server = FeatureServer([view], clock=clock)
    server.catch_up()
    yield server
    server.close()


def keep(root: Path, view: al.FeatureView, clock: Clock, **options: Any) -> ServedLog:
    """A served log that commits only when it is told to."""
    return ServedLog(root, [view], **({"replica": "one", "every": 3600.0, "clock": clock} | options))


def test_vectors_come_back_with_the_types_that_they_were_served_as(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock
) -> None:
    with keep(tmp_path, view, clock) as served:
        server.on_answer.append(served.offer)
        answer = server.read(None, {"site": ["a", "b", "nowhere"]})
    frame = read_served(str(tmp_path))
    whole = answer.to_frame(status=True)
    assert frame.select(whole.columns).equals(whole, null_equal=True)
    assert frame.select(whole.columns).schema == whole.schema
    assert frame["weather__level"].dtype == pl.UInt8
    assert frame["weather__vector"].dtype == pl.Array(pl.Float32, 2)
    assert frame["weather__event_age"].dtype == pl.Duration("us")
    assert frame.select("served_positions", "served_definition", "served_past", "served_time", "served_by").row(0) == (
        {"weather": 2},
        answer.definition,
        False,
        NOON,
        "one",
    )


def test_a_feature_that_was_not_asked_for_has_no_status(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock
) -> None:
    with keep(tmp_path, view, clock) as served:
        served.offer(server.read(["weather:temp"], {"site": ["nowhere"]}))
    frame = read_served(str(tmp_path))
    assert frame.select("weather__temp__status", "weather__level__status").row(0) == ("missing", None)
    assert audit(str(tmp_path)).values == 1
    assert list(last_served(str(tmp_path))) == ["weather__temp"]
    assert last_served(str(tmp_path))["weather__temp"] == NOON


def test_a_full_queue_drops_and_counts_and_does_not_wait(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    answer = server.read(None, {"site": ["a", "b", "nowhere"]})
    with keep(tmp_path, view, clock, most=7) as served:
        for _ in range(4):
            served.offer(answer)
        # two answers of three vectors fit into seven, the others do not
        assert (served.counts.offered, served.counts.dropped, served.counts.pending) == (12, 6, 6)
        served.flush()
        served.offer(answer)
    assert (served.counts.logged, served.counts.dropped, served.counts.pending) == (9, 6, 0)
    assert "6 served vectors were dropped: the queue was full" in caplog.text
    assert read_served(str(tmp_path)).height == 9


def test_what_cannot_be_kept_is_refused_and_the_rest_is_kept(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    answer = server.read(None, {"site": ["a", "b"]})
    strange = AnsweredColumn("other__x", "other", pl.Float64(), [1.0], ["present"], [None], [None])
    with keep(tmp_path, view, clock) as served:
        served.offer(Answer(NOON, {"other": 1}, {"site": ["a"]}, [strange], "?"))
        served.offer(answer)
    assert (served.counts.refused, served.counts.logged, served.counts.pending) == (1, 2, 0)
    assert "1 served vectors could not be kept: KeyError: 'other__x'" in caplog.text


def test_a_store_that_fails_does_not_fail_an_answer(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock
) -> None:
    (tmp_path / "_served").write_text("in the way of the folder")
    served = keep(tmp_path, view, clock)
    server.on_answer.append(served.offer)
    server.read(None, {"site": ["a", "b"]})
    served.close()
    assert (served.counts.refused, served.counts.logged) == (2, 0)


def test_a_share_of_the_answers_is_kept(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock
) -> None:
    answer = server.read(None, {"site": ["a"]})
    with keep(tmp_path, view, clock, sample=0.25) as served:
        for _ in range(2000):
            served.offer(answer)
    # 2000 draws at 0.25: 500, and five standard deviations are 97
    assert 400 < served.counts.logged < 600
    assert served.counts.passed_over + served.counts.logged == 2000


def test_a_sample_that_is_no_share_is_refused(tmp_path: Path, view: al.FeatureView) -> None:
    with pytest.raises(ValueError, match=r"sample=1.5 is no share: give a number from 0 to 1"):
        ServedLog(tmp_path, [view], sample=1.5)


def test_commits_come_by_themselves(tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock) -> None:
    served = keep(tmp_path, view, clock, every=0.05)
    served.offer(server.read(None, {"site": ["a"]}))
    deadline = time.monotonic() + 30
    while not served.counts.logged and time.monotonic() < deadline:
        time.sleep(0.02)
    assert read_served(str(tmp_path)).height == 1
    served.close()


def test_many_commits_become_few_files_and_old_days_go(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock
) -> None:
    answer = server.read(None, {"site": ["a"]})
    with keep(tmp_path, view, clock, retain=timedelta(days=30)) as served:
        served.offer(answer)
        served.flush()
        clock.now = NOON + timedelta(days=31)
        for _ in range(4):
            served.offer(answer)
            served.flush()
    (table,) = list_tables(tmp_path)
    delta = table.open()
    assert len(delta.file_uris()) == 5
    table.tidy(delta, clock.now.date(), retain=timedelta(days=30))
    assert len(table.open().file_uris()) == 1
    assert read_served(str(tmp_path)).height == 4


def test_a_changed_definition_is_kept_beside_the_old_one(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, log: ObservationLog, clock: Clock
) -> None:
    with keep(tmp_path, view, clock) as served:
        served.offer(server.read(["weather:temp"], {"site": ["a"]}))
    changed = al.FeatureView("weather", observations=log, features=[al.latest("temp")], max_event_age="1m")
    other = FeatureServer([changed], clock=clock)
    other.catch_up()
    with keep(tmp_path, changed, clock) as served:
        served.offer(other.read(None, {"station": ["a"]}))
    other.close()
    assert len(list_tables(tmp_path)) == 2
    statuses = read_served(str(tmp_path))["weather__temp__status"].to_list()
    assert sorted(statuses) == ["expired", "present"]
    assert audit(str(tmp_path)).ok
    names = [table.name for table in list_tables(tmp_path)]
    assert read_served(str(tmp_path), names[0]).height == 1
    with pytest.raises(OptionError, match="no vectors of 'x' are kept"):
        read_served(str(tmp_path), "x")
    with pytest.raises(OptionError, match="holds vectors of 2 definitions"):
        training_frame(str(tmp_path), al.label("temp", "10m"))


def test_what_was_served_and_came_true_is_a_training_set(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, log: ObservationLog, clock: Clock
) -> None:
    with keep(tmp_path, view, clock) as served:
        served.offer(server.read(None, {"site": ["a", "b"]}))
        served.offer(server.read(None, {"site": ["a"]}, as_of=NOON - timedelta(minutes=2)))
        served.offer(server.read(["weather:temp"], {"site": ["a"]}))
    # a server answers 250 ms before its clock: the label is ten minutes after that
    event = NOON + timedelta(minutes=10) - timedelta(milliseconds=250)
    clock.now = event
    log.append(
        pl.DataFrame({"station": ["a"], "event_time": [event], "temp": [21.0]}).with_columns(
            level=pl.lit(0, pl.UInt8), vector=pl.lit(None, pl.Array(pl.Float32, 2))
        )
    )
    frame = training_frame(str(tmp_path), al.label("temp", "10m"))
    assert frame.select("site", "weather__temp", "weather__level", "label", "label_event_time").rows() == [
        ("a", 1.5, 1, 21.0, event),
        ("b", pytest.approx(float("nan"), nan_ok=True), 255, None, None),
    ]


def test_an_erasure_takes_out_what_was_served(
    tmp_path: Path, server: FeatureServer, view: al.FeatureView, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with keep(tmp_path, view, clock) as served:
        for _ in range(3):
            served.offer(server.read(None, {"site": ["a", "b"]}))
            served.flush()
    place = ServedPlace(tmp_path)
    assert place.count("weather", {"station": "a"}) == 3
    assert place.count("other", {"station": "a"}) == 0
    assert run(["log", "erase", str(tmp_path), "weather", "station=a", "--dry-run"]) == 0
    assert "served vectors" in capsys.readouterr().out
    assert run(["log", "erase", str(tmp_path), "weather", "station=a", "--yes"]) == 0
    assert "served vectors : 3 rows" in capsys.readouterr().out
    assert read_served(str(tmp_path))["site"].to_list() == ["b"] * 3
    assert len(list((tmp_path / "_served").rglob("*.parquet"))) == 1
    assert audit(str(tmp_path)).ok


def test_an_audit_of_nothing_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", str(tmp_path)]) == 2
    assert "hint: start it: asknown serve ... --served-log" in capsys.readouterr().err


WRITER = """
import sys, time
from datetime import UTC, datetime
import alignment as al
from ingestion import open_log
from serving.online import FeatureServer
from serving.served import ServedLog

view = al.FeatureView("weather", observations=open_log(sys.argv[1], "weather"), features=[al.latest("temp")])
server = FeatureServer([view], clock=lambda: datetime(2026, 1, 5, 12, tzinfo=UTC))
server.catch_up()
served = ServedLog(sys.argv[1], [view], replica=sys.argv[2], every=0.01)
for number in range(10**9):
    served.offer(server.read(None, {"station": ["a", "b"]}))
    time.sleep(0.001)
    if number % 50 == 0:
        print(served.counts.logged, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_writers_of_several_processes_lose_nothing_that_was_committed(tmp_path: Path, log: ObservationLog) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    repository = Path(__file__).resolve().parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), f"replica-{number}"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
        for number in range(2)
    ]
    said = []
    for writer in writers:
        assert writer.stdout is not None
        while int(line := writer.stdout.readline()) < 60:
            pass
        said.append(int(line))
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    frame = read_served(str(tmp_path))
    for number, least in enumerate(said):
        assert frame.filter(served_by=f"replica-{number}").height >= least
    assert len(list_tables(tmp_path)) == 1
    assert audit(str(tmp_path)).ok
    assert open_log(tmp_path, "weather").position() == 2
