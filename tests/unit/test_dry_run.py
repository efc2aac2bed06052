"""What a build would read and take: rows and files counted by hand, sums typed, and nothing read but metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import alignment as al
import ingestion
from alignment.advice import Advice, Together, advise
from alignment.dry_run import Read
from alignment.engines import spilling
from alignment.estimates import arranged_width, row_width
from alignment.extents import Extent, measure_rows, measure_spine
from alignment.larger import Larger
from alignment.memory import Portions, buckets_under, parse_bytes, room_under
from serving.machine import available_memory
from tests.makers import asked, at, temps, weather

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOTHING = al.UnitCosts(
    **{name: 0.0 for name in al.UnitCosts().to_dict() if name != "base_bytes"}, base_bytes=0
)  # every step costs nothing, so that a test can price one


def batch(first: int, hours: int = 10) -> pl.DataFrame:
    """Readings of two stations, one per hour from the hour `first` on, each half an hour late."""
    events = [START + (first + n) * HOUR for n in range(hours)]
    rows = [(station, event, event + HOUR / 2, 1.0) for station in ("a", "b") for event in events]
    return temps(*rows)


@pytest.fixture
def log(tmp_path: Path) -> ingestion.ObservationLog:
    """Four files of 20 rows, ten hours each: 0..9, 10..19, 20..29, 30..39."""
    log = ingestion.create_log(tmp_path / "logs", "mast", entities=["station"])
    for first in (0, 10, 20, 30):
        log.append(batch(first), arrivals="given")
    return log


def spine(first: float, last: float) -> pl.DataFrame:
    """One question of station a at each of two hours."""
    return pl.DataFrame({"station": ["a", "a"], "prediction_time": [START + first * HOUR, START + last * HOUR]})


def extent(plan: al.BuildPlan, place: int = 0) -> Extent:
    return plan.reads[place].extent


def test_rows_of_a_log_are_exact_where_no_bound_cuts_a_file(log: ingestion.ObservationLog) -> None:
    plan = al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))])
    found = extent(plan)
    assert (found.rows, found.rows_least, found.rows_most, found.stored_rows) == (80, 80, 80, 80)
    assert (found.files_read, found.files_skipped, found.position) == (4, {}, 79)
    assert found.bytes_read == log.info().bytes
    assert plan.as_of_us == measure_rows(weather(log, al.latest("temp")).observations).latest_arrival_us


def test_files_are_left_out_by_the_bound_that_rules_them_out(log: ingestion.ObservationLog) -> None:
    # Questions at hours 35 and 100, a look-back of 10 hours: events from hour 25 on, so the files of 0..9 and 10..19 are not opened.
    bounded = weather(log, al.window("temp", "mean", "10h"))
    found = extent(al.plan_dataset(spine(35, 100), [bounded]))
    assert (found.files_read, found.files_skipped) == (2, {"event_from": 2})
    assert (found.rows_least, found.rows_most) == (20, 40)  # 30..39 lies inside; 20..29 is cut
    # The last question is asked at hour 15: 20..29 and 30..39 arrive later, and 10..19 is cut.
    found = extent(al.plan_dataset(spine(5, 15), [weather(log, al.latest("temp"))]))
    assert (found.files_read, found.files_skipped, found.rows_least, found.rows_most) == (2, {"as_of": 2}, 20, 40)


def test_a_position_leaves_out_what_came_later(log: ingestion.ObservationLog) -> None:
    found = extent(al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))], positions={"weather": 39}))
    assert (found.position, found.files_read, found.rows, found.stored_rows) == (39, 2, 40, 40)


@pytest.mark.parametrize("hours", [(0, 100), (5, 15), (12, 22), (35, 38), (39.5, 39.5)])
@pytest.mark.parametrize("back", ["1h", "7h", "30h"])
def test_the_rows_that_are_read_lie_between_least_and_most(
    log: ingestion.ObservationLog, hours: tuple[float, float], back: str
) -> None:
    view = weather(log, al.window("temp", "mean", back))
    found = extent(al.plan_dataset(spine(*hours), [view]))
    length = timedelta(hours=int(back[:-1]))
    first, last = START + hours[0] * HOUR - length, START + hours[1] * HOUR
    read = log.scan(as_of=last, event_from=first + timedelta(microseconds=1)).select(pl.len()).collect().item()
    assert found.rows_least <= read <= found.rows_most
    assert found.rows_least <= found.rows <= found.rows_most


def test_a_label_is_read_whatever_the_views_look_back(log: ingestion.ObservationLog) -> None:
    view = weather(log, al.window("temp", "mean", "1h"))
    plan = al.plan_dataset(spine(38, 39), [view], label=al.label("temp", horizon="1h"))
    assert [(read.name, read.extent.rows_most) for read in plan.reads] == [("weather", 20), ("label", 80)]
    assert plan.reads[1].columns == ["station", "event_time", "arrival_time", "is_retraction", "log_sequence", "temp"]


def test_nothing_is_read_but_metadata(log: ingestion.ObservationLog, tmp_path: Path) -> None:
    rows, questions = tmp_path / "rows.parquet", tmp_path / "spine.parquet"
    batch(0, 3000).write_parquet(rows)
    spine(0, 100).write_parquet(questions)

    def plan() -> str:
        again = ingestion.open_log(tmp_path / "logs", "mast")
        views = [weather(again, al.latest("temp")), al.FeatureView("file", ["station"], rows, [al.latest("temp")])]
        return str(al.plan_dataset(questions, views, label=al.label("temp", horizon="1h", observations=views[0])))

    before = plan()
    for file in [*(tmp_path / "logs" / "mast").glob("*.parquet"), rows]:
        content = file.read_bytes()
        footer = 8 + int.from_bytes(content[-8:-4], "little")
        data = b"\0" * (len(content) - footer)  # the pages are gone, the footer is there
        file.write_bytes(data + content[-footer:] if file == rows else b"nothing of the log's own files is opened")
    assert plan() == before
    with pytest.raises(pl.exceptions.PolarsError):
        al.build_dataset(questions, [weather(ingestion.open_log(tmp_path / "logs", "mast"), al.latest("temp"))])


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_parquet_file_says_rows_and_times_in_its_footer(tmp_path: Path, unit: str) -> None:
    file = tmp_path / "rows.parquet"
    frame = batch(0).with_columns(pl.col("event_time", "arrival_time").dt.cast_time_unit(unit))
    frame.write_parquet(file, row_group_size=7)
    view = al.FeatureView("file", ["station"], file, [al.latest("temp")])
    found = measure_rows(view.observations)
    assert (found.source, found.rows, found.files_read, found.bytes_read) == ("parquet", 20, 1, file.stat().st_size)
    ends = (found.first_event_us, found.last_event_us, found.latest_arrival_us)
    hour = 3_600_000_000
    zero = int(START.timestamp()) * 1_000_000
    assert ends == (zero, zero + 9 * hour, zero + 9 * hour + hour // 2)


def test_folders_and_patterns_of_parquet_files_are_added_up(tmp_path: Path) -> None:
    for number in range(3):
        batch(10 * number).write_parquet(tmp_path / f"part-{number}.parquet")
    for frame, files in ((tmp_path, 3), (tmp_path / "part-[01].parquet", 2), (str(tmp_path / "*.parquet"), 3)):
        found = measure_rows(al.Observations(frame, ["station"]))
        assert (found.files_read, found.rows) == (files, 20 * files)


def test_a_lazy_frame_counts_if_it_need_not_be_run(tmp_path: Path) -> None:
    batch(0).write_parquet(tmp_path / "rows.parquet")
    lazy = pl.scan_parquet(tmp_path / "rows.parquet")
    view = weather(lazy.with_columns(temp=pl.col("temp") * 2), al.latest("temp"))
    assert extent(al.plan_dataset(spine(0, 9), [view])).rows == 20
    plan = al.plan_dataset(spine(0, 9), [weather(lazy.filter(pl.col("temp") > 0), al.latest("temp"))])
    assert extent(plan).rows is None
    assert plan.unknown == ["weather"]
    assert "pass the path of its Parquet file, or collect it" in str(plan)


def test_a_spine_is_counted_wherever_it_is(tmp_path: Path) -> None:
    frame = asked("10:00", "12:00", "11:00")
    frame.write_parquet(tmp_path / "spine.parquet")
    for given in (frame, frame.to_arrow(), tmp_path / "spine.parquet"):
        found = measure_spine(given, ["station"])
        assert (found.rows, found.entities) == (3, 1)
        ends = [int(at(clock).timestamp()) * 1_000_000 for clock in ("10:00", "12:00")]
        assert [found.first_us, found.last_us] == ends


def test_widths_are_those_of_the_columns_that_are_read(log: ingestion.ObservationLog) -> None:
    rows = weather(log, al.latest("temp")).observations
    # station 16, event 8, arrival 8, sequence 8, retraction 1/8, temp 8
    assert row_width(rows, ["temp"]) == 48.125
    assert arranged_width(rows) == 41  # 37, and 4 for the number of the entity


def test_seconds_are_units_times_what_is_counted(log: ingestion.ObservationLog) -> None:
    view = weather(log, al.window("temp", ["mean", "max"], "10h"), al.latest("temp"))
    million = 1e6

    def seconds(**costs: float) -> float:
        return al.plan_dataset(spine(0, 100), [view], costs=replace(NOTHING, **costs)).total_seconds

    assert seconds(start=2.0) == 2.0
    assert seconds(read_rows=million) == 80
    assert seconds(read_values=million) == 80  # one column
    assert seconds(summarize_rows=million) == 80
    assert seconds(arrange_rows=million) == 82  # and two questions
    assert seconds(sweep_rows=million) == 80  # one pass answers both
    # One station of two asked: all 80 rows are taken to be its own, over 39 hours; so 80 / 39 rows an hour.
    assert seconds(window_events=million) == pytest.approx(2 * 10 * 80 / 39)
    assert seconds(window_aggregates=million) == pytest.approx(2 * 2 * 10 * 80 / 39)
    assert seconds(gather_answers=million) == 2 * 3


def test_memory_is_the_process_the_spine_the_answers_and_the_largest_read(log: ingestion.ObservationLog) -> None:
    costs = replace(NOTHING, base_bytes=1000, read_copies=1.0)
    plan = al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))], costs=costs)
    # spine 2 x (16 + 8 + 8), answers 2 x 8, rows 80 x (48.125 + 41), questions 2 x 24 and a picked row of 4 bytes each
    assert plan.peak_bytes == 1000 + 64 + 16 + 7130 + 2 * 28


def large(plan: al.BuildPlan, rows: int) -> tuple[list[Read], list[Together]]:
    """The plan's read with so many rows of 50 bytes, as one pass."""
    read = plan.reads[0]
    grown = replace(read, extent=replace(read.extent, rows=rows, rows_most=rows, rows_least=rows))
    return [grown], [Together(rows, rows * 50, rows * (2.5 * 50 + 80), divisible=True)]


def test_advice_is_the_simplest_engine_that_will_do(log: ingestion.ObservationLog) -> None:
    reads, passes = large(al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))]), 300_000_000)

    def advice(**told: Any) -> Advice:
        arguments = {"memory": None, "memory_limit": None, "costs": al.UnitCosts()} | told
        peak, seconds = 20 << 30, arguments.pop("seconds", 60.0)
        return advise(reads, passes, peak, seconds, **arguments)

    assert advice().code == 'engine="local"'
    assert advice(memory=40 << 30).reason == (
        "everything at once takes about 20.0 GiB, at most 30.0 GiB of the 40.0 GiB there are."
    )
    small = advice(memory=16 << 30)
    assert small.options == "--engine local --memory-limit 12GiB"
    assert small.reason == "everything at once would take up to 30.0 GiB, more than the 16.0 GiB there are."
    assert small.spilled_bytes == 15_000_000_000
    # 61.5e9 bytes in groups of about 5.9 GiB, four buckets to a group: 40, and the next power of two is 64.
    assert small.buckets == 64
    assert small.spill_seconds == 300 * al.UnitCosts().spill_rows
    assert advice(memory=40 << 30, memory_limit="4GiB").arguments == {"engine": "local", "memory_limit": "4GiB"}
    # 315 MB less 160 MiB, 96 MiB that a build comes to have and 24 bytes for each of 80 rows, 160 and 96 MiB to begin with, 64 MiB between runs
    assert advice(memory=1, resident=0).arguments == {"engine": "local", "memory_limit": "557MiB"}
    with pytest.raises(al.MemoryLimitError) as raised:
        advice(memory_limit="300MiB", resident=200 << 20)
    assert str(raised.value) == (
        "memory_limit='300MiB' leaves too little: before it reads a row a build may have 296.0 MiB in memory\n\n"
        'hint: allow at least "617MiB".'
    )
    far = advice(memory=40 << 30, seconds=100_000.0)
    assert (far.arguments, far.buckets) == ({"engine": "spark"}, 300)
    assert far.reason == "it takes about 27.8 h of processor time, which Spark divides by its cores."


def test_the_least_that_is_named_is_a_limit_that_a_build_accepts(log: ingestion.ObservationLog) -> None:
    reads, passes = large(al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))]), 300_000_000)
    found = advise(reads, passes, 20 << 30, 60.0, memory=1, memory_limit=None, costs=al.UnitCosts())
    assert room_under(found.arguments["memory_limit"]) > 0
    with pytest.raises(al.MemoryLimitError) as raised:
        room_under("10MiB", frames=False)
    named = raised.value.hint.split('"')[1]
    assert room_under(named) > 0
    assert "frames" not in str(raised.value)


def test_an_engine_that_is_asked_for_is_what_the_plan_is_about(log: ingestion.ObservationLog) -> None:
    views = [weather(log, al.latest("temp"))]
    with pytest.raises(al.UnknownEngineError, match="no engine is called 'sparc'"):
        al.plan_dataset(spine(0, 100), views, engine="sparc")
    with pytest.raises(al.DefinitionError, match="memory_limit='4GiB' is given with engine='spark'"):
        al.plan_dataset(spine(0, 100), views, engine="spark", memory_limit="4GiB")
    for engine, reason in (
        ("spark", "it is asked for, and takes one shuffle, in one bucket. "),
        ("duckdb", "it is asked for; memory and time are told of the local engine alone. "),
    ):
        told = al.plan_dataset(spine(0, 100), views, engine=engine, memory=16 << 30).advice
        assert told.options == f"--engine {engine}"
        assert told.reason.startswith(f'{reason}engine="local" would do: everything at once takes about ')


def test_spark_is_said_to_make_a_bucket_of_a_million_rows(log: ingestion.ObservationLog) -> None:
    reads, passes = large(al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))]), 300_000_000)
    costs = al.UnitCosts()
    found = advise(reads, passes, 20 << 30, 1e6, memory=None, memory_limit=None, costs=costs, engine="spark")
    assert found.reason == (
        "it is asked for, and takes one shuffle, in at least 300 buckets, more the more cores there are."
    )
    assert (found.buckets, found.spilled_bytes) == (300, 15_000_000_000)


def test_more_rows_than_32_bits_number_are_never_read_at_once(log: ingestion.ObservationLog) -> None:
    reads, passes = large(al.plan_dataset(spine(0, 100), [weather(log, al.latest("temp"))]), 3_000_000_000)
    found = advise(reads, passes, 1 << 30, 60.0, memory=1 << 50, memory_limit=None, costs=al.UnitCosts())
    assert "memory_limit" in found.arguments
    assert found.reason == "weather has 3,000,000,000 rows, and 2,147,483,647 are the most that fit into one read."


@pytest.mark.parametrize("limit", ["450MiB", "500MiB"])
def test_buckets_are_those_that_the_engine_makes(tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Watched(spilling.Grouped):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self.buckets)

    monkeypatch.setattr(spilling, "Grouped", Watched)
    monkeypatch.setattr(spilling, "fits", lambda *_: False)
    events = pl.datetime_range(START, START + 400_000 * timedelta(seconds=1), "1s", eager=True, closed="left")
    rows = pl.DataFrame({"event_time": events, "arrival_time": events, "temp": 1.0}).with_row_index("n")
    rows = rows.with_columns(station=(pl.col("n") % 97).cast(pl.String)).drop("n")
    rows.write_parquet(tmp_path / "rows.parquet")
    view = weather(tmp_path / "rows.parquet", al.latest("temp"), al.window("temp", "mean", "1h"))
    plan = al.plan_dataset(asked("10:00", station="5"), [view])
    task = Larger([view], None, status=False, prediction_time="prediction_time").task()
    portions = Portions.of(parse_bytes(limit) - 400 * (1 << 20))
    for _ in spilling.answer_in_parts(asked("10:00", station="5"), task, portions, spill=tmp_path):
        pass
    assert made == [buckets_under(one.cost, portions.group) for one in plan.passes]
    assert made[0] > 1


def test_the_plan_says_so_in_text_json_and_html(log: ingestion.ObservationLog) -> None:
    plan = al.plan_dataset(spine(35, 100), [weather(log, al.window("temp", "mean", "10h"))], memory=16 << 30)
    text = str(plan)
    assert text.startswith("spine: 2 rows of 1 entity, 2026-01-06 11:00:00Z .. 2026-01-09 04:00:00Z, ")
    line = next(line for line in text.splitlines() if line.startswith("weather"))
    assert " ".join(line.split()).startswith("weather log mast about 29 (20 to 40) 2 2 by event_from ")
    assert text.splitlines()[-2] == 'advice: engine="local"'
    told = json.loads(json.dumps(plan.to_dict()))
    assert told["reads"][0]["files_skipped"] == {"event_from": 2}
    assert told["reads"][0]["event_from"] == "2026-01-06T01:00:00.000001+00:00"
    assert told["memory"]["least"] < told["memory"]["bytes"] < told["memory"]["most"]
    for html in (plan.to_html(), plan._repr_html_()):
        assert "2 by event_from" in html
        assert "<script" not in html


def test_a_service_plans_the_views_that_it_reads(log: ingestion.ObservationLog) -> None:
    views = [
        weather(log, al.latest("temp"), al.lag("temp", "1h")),
        al.FeatureView("other", ["station"], batch(0), [al.latest("temp")]),
    ]
    plan = al.plan_dataset(spine(0, 9), views, service=al.FeatureService("power", ["other__temp"]))
    assert [read.name for read in plan.reads] == ["other"]
    assert extent(plan).source == "frame"


def test_the_memory_of_a_machine_is_what_its_container_leaves_of_it(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemAvailable:  4000 kB\n")
    assert available_memory(meminfo, tmp_path) == 4_096_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert available_memory(meminfo, tmp_path) == 4_096_000
    (tmp_path / "memory.max").write_text("1000005\n")
    assert available_memory(meminfo, tmp_path) == 1_000_000
    assert available_memory(tmp_path / "none", tmp_path / "none") is None
