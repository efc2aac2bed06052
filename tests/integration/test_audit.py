"""The audit against the naive way, a join for every (t, position); and what it says of rows that came later."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import alignment as al
from ingestion import ObservationLog, create_log
from serving.cli import run
from serving.online import Answer, AnsweredColumn
from serving.served import ServedLog, audit
from serving.served.differences import differs
from serving.served.positions import Changes

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
FLOATS = [0.0, -0.0, 1.5, float("nan"), float("inf"), None]


class Clock:
    """A clock that is set, and may jump between a stamp and its confirmation."""

    def __init__(self) -> None:
        self.now = START
        self.jumps: list[timedelta] = []

    def __call__(self) -> datetime:
        now = self.now
        if self.jumps:
            self.now += self.jumps.pop()
        return now


def view_of(log: ObservationLog) -> al.FeatureView:
    features = [
        al.latest("temp"),
        al.window("temp", ["sum", "count"], "20m"),
        al.sequence("temp", 3),
        al.lag("temp", "10m", tolerance="10m"),
        al.event_age(),
        al.arrival_age(),
    ]
    return al.FeatureView("weather", observations=log, features=features, max_event_age="30m")


def fill(root: Path, chance: random.Random, kind: str) -> ObservationLog:
    """A log with backfills, overruns, corrections and retractions; ids may move where they are declared."""
    clock = Clock()
    key = ["id"] if kind == "ids" else None
    log = create_log(root, "weather", entities=["station"], key=key, publish_margin="1s", clock=clock)
    for number in range(30):
        clock.now += timedelta(seconds=chance.randint(1, 180))
        event = clock.now.replace(second=0)
        rows = pl.DataFrame(
            {
                "station": [chance.choice("ab") for _ in range(3)],
                "id": [3 * number + place if kind == "events" else chance.randint(0, 30) for place in range(3)],
                "event_time": [event - timedelta(minutes=chance.randint(0, 40)) for _ in range(3)],
                "temp": pl.Series(
                    [chance.choice([*FLOATS, chance.uniform(-9, 9)]) for _ in range(3)], dtype=pl.Float64
                ),
                "is_retraction": [chance.random() < 0.15 for _ in range(3)],
            }
        ).unique(["id"] if key else ["station", "event_time"], keep="first", maintain_order=True)
        what = chance.random()
        if what < 0.2:
            log.append(rows.with_columns(is_retraction=False), backfill=True, delay=al.FixedDelay("5m"))
        elif what < 0.5:
            clock.jumps = [timedelta(seconds=chance.randint(30, 300))]  # between the stamp and what confirms it
            log.append(rows)
            clock.jumps = []
        else:
            log.append(rows)
    assert log.restamps().height > 0
    return log


def answers_at(view: al.FeatureView, t: datetime, position: int) -> Answer:
    """What a server without a fault answers, evaluated by itself."""
    spine = pl.DataFrame({"station": ["a", "b", "c"], "prediction_time": [t] * 3})
    frame = al.point_in_time_join(spine, [view], positions=position, status=True)
    columns = [
        AnsweredColumn(
            name,
            "weather",
            frame.schema[name],
            frame[name].to_list(),
            frame[f"{name}__status"].to_list(),
            [None] * 3,
            [None] * 3,
        )
        for name in view.column_names
    ]
    return Answer(t, {"weather": position}, {"station": ["a", "b", "c"]}, columns, "")


@pytest.mark.parametrize("kind", ["events", "ids"])
@pytest.mark.parametrize("seed", [1, 2])
def test_few_joins_find_what_a_join_for_every_position_finds(tmp_path: Path, seed: int, kind: str) -> None:
    chance = random.Random(f"{kind} {seed}")
    log = fill(tmp_path, chance, kind)
    view, head = view_of(log), log.position()
    asked = [(START + timedelta(seconds=chance.randint(0, 3600)), chance.randint(-1, head)) for _ in range(40)]
    answers = [answers_at(view, t, position) for t, position in asked]
    with ServedLog(tmp_path, [view], replica="one") as served:
        for answer in answers:
            served.offer(answer)
    report = audit(str(tmp_path))
    assert (report.vectors, report.differences, report.unexplained) == (120, 0, 0)
    was = pl.concat(answer.to_frame(status=True) for answer in answers)
    spine = pl.DataFrame(
        {"station": ["a", "b", "c"] * len(asked), "prediction_time": [t for t, _ in asked for _ in range(3)]}
    )
    is_now = al.point_in_time_join(spine, [view], positions=head, status=True)
    later = 0
    for name in view.column_names:
        status = f"{name}__status"
        changed = differs(was[status], is_now[status].cast(pl.String))
        later += int((differs(was[name], is_now[name]) | changed).sum())
    assert report.head_differences == later
    assert later > 0
    assert report.evaluations < len({position for _, position in asked})


def test_each_later_row_is_named_with_what_it_is_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    log = create_log(tmp_path, "weather", entities=["station"], publish_margin="1s", clock=clock)

    def rows(station: str, minute: int, temp: float) -> pl.DataFrame:
        return pl.DataFrame({"station": [station], "event_time": [START + timedelta(minutes=minute)], "temp": [temp]})

    log.append(rows("a", 0, 1.0))  # 0, arrives one second after noon
    log.append(rows("b", 0, 2.0))  # 1
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp")])
    clock.now = START + timedelta(minutes=10)
    with ServedLog(tmp_path, [view], replica="one", clock=clock) as served:
        for minute in (5, 10):
            column = AnsweredColumn("weather__temp", "weather", pl.Float64(), [1.0, 2.0], ["present"] * 2, [], [])
            t = START + timedelta(minutes=minute)
            served.offer(Answer(t, {"weather": 1}, {"station": ["a", "b"]}, [column], ""))
    log.append(rows("a", 6, 3.0), backfill=True, delay=al.FixedDelay("1m"))  # 2: counts at minute 10, not at 5
    log.append(rows("b", 11, 4.0))  # 3: arrives later than all that was answered
    report = audit(str(tmp_path))
    assert (report.ok, report.differences, report.head_differences, report.unexplained) == (True, 0, 1, 0)
    assert report.late.rows(named=True) == [
        {
            "provider": "weather",
            "log_sequence": 2,
            "key": "station=a",
            "event_time": START + timedelta(minutes=6),
            "arrival_time": START + timedelta(minutes=7),
            "why": "backfill",
            "vectors": 1,
        }
    ]
    (found,) = report.first_late
    assert (found.entity, found.t, found.served, found.trained) == (
        {"station": "a"},
        START + timedelta(minutes=10),
        (1.0, "present"),
        (3.0, "present"),
    )
    assert found.rows == [2]
    assert run(["audit", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "4 served vectors, 4 values at 1 positions\n"
        "at (t, position): 0 differences\n"
        "at (t, head): 1 differences, 0 of them without a row behind them\n"
        "  weather 2  station=a  event 2026-01-05T12:06:00+00:00  arrival 2026-01-05T12:07:00+00:00  backfill"
        "  behind 1 vectors\n"
    )
    assert run(["audit", str(tmp_path), "--engine", "duckdb", "--json"]) == 0
    there = "hint: 4 vectors were served between 2026-01-05T12:10:00+00:00 and 2026-01-05T12:10:00+00:00.\n"
    all_of_them = "hint: take more, or all: --sample 1\n"
    for options, problem, hint in (
        (["--until", "2026-01-05T12:00:00Z"], "nothing was served until 2026-01-05T12:00:00+00:00", there),
        (["--since", "2027-01-01T00:00:00Z"], "nothing was served since 2027-01-01T00:00:00+00:00", there),
        (
            ["--since", "2020-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00Z"],
            "nothing was served between 2020-01-01T00:00:00+00:00 and 2021-01-01T00:00:00+00:00",
            there,
        ),
        (["--sample", "0"], "a sample of 0.0 of 4 served vectors is none", all_of_them),
    ):
        capsys.readouterr()
        assert run(["audit", str(tmp_path), *options]) == 2
        assert capsys.readouterr() == ("", f"OptionError: {problem}\n\n{hint}")


def test_a_position_beyond_the_log_is_a_difference(tmp_path: Path) -> None:
    log = create_log(tmp_path, "weather", entities=["station"])
    log.append(pl.DataFrame({"station": ["a"], "event_time": [START], "temp": [1.0]}))
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp")])
    column = AnsweredColumn("weather__temp", "weather", pl.Float64(), [1.0], ["present"], [None], [None])
    with ServedLog(tmp_path, [view], replica="one") as served:
        served.offer(Answer(datetime.now(UTC), {"weather": 7}, {"station": ["a"]}, [column], ""))
    report = audit(str(tmp_path))
    assert (report.ok, report.differences, report.beyond) == (False, 1, 1)
    assert "1 of them at positions that the log has not" in str(report)


@pytest.mark.parametrize("seed", range(5))
def test_the_greatest_position_with_the_same_answers_is_found(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for _ in range(100):
        sequences = np.sort(draw.choice(60, int(draw.integers(0, 30)), replace=False)).astype(np.int64)
        arrivals = draw.integers(0, 20, len(sequences))
        positions, t = draw.integers(-1, 60, 20), draw.integers(-1, 21, 20)
        found = Changes(sequences, arrivals, 60).same_answers(positions, t)
        for position, instant, one in zip(positions, t, found, strict=True):
            late = [s for s, a in zip(sequences, arrivals, strict=True) if s > position and a <= instant]
            assert one == (min(late) - 1 if late else 60)


def test_bits_are_compared() -> None:
    for kind in (pl.Float64(), pl.Float32()):
        for one, other in itertools.product(range(len(FLOATS)), repeat=2):
            left, right = pl.Series([FLOATS[one]], dtype=kind), pl.Series([FLOATS[other]], dtype=kind)
            assert differs(left, right).tolist() == [one != other]
            pair = [pl.Series([[1.0, FLOATS[place]]], dtype=pl.Array(kind, 2)) for place in (one, other)]
            assert differs(*pair).tolist() == [one != other]
    assert differs(pl.Series([1.0]), pl.Series([1])).tolist() == [True]
    texts = pl.Series(["a", None, "b"]), pl.Series(["a", "", "c"])
    assert differs(*texts).tolist() == [False, True, True]
    lists = pl.Series([[1, 2], [], [1], None]), pl.Series([[1, 2], [], [1, None], []])
    assert differs(*lists).tolist() == [False, False, True, True]
    things = [
        pl.Series([{"x": 0.0, "y": "a"}, {"x": 1.0, "y": "b"}, None]),
        pl.Series([{"x": -0.0, "y": "a"}, {"x": 1.0, "y": "b"}, None]),
    ]
    assert differs(*things).tolist() == [True, False, False]
