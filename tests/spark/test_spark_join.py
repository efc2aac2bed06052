"""Joins on a Spark cluster against `engine="local"`: the same columns and, type by type, the same bytes."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import psutil
import pytest
from cluster import ROW, here, in_one_job, numbered, same, same_as_local
from hypothesis import Phase, given, settings
from makers import asked, at, temps, weather
from oracle_frames import view_of
from polars.testing import assert_frame_equal
from strategies import questions

import alignment as al
from alignment.durations import instant_us
from alignment.engines.spark.failures import spark_errors
from alignment.engines.spark.run import join, planned
from ingestion import create_log
from ingestion.sources.simulated import SimulatedWorld
from serving import quickstart

START = datetime(2026, 1, 5, tzinfo=UTC)


def stations(rows: int = 3_000, entities: int = 12) -> pl.DataFrame:
    """Readings of a few stations, one revision in three, some late."""
    rng = np.random.default_rng(7)
    minutes = pl.Series(rng.integers(0, 5_000, rows)) * 60_000_000 + instant_us(START, "start")
    late = pl.Series(rng.integers(0, 90, rows)) * 60_000_000
    return pl.DataFrame(
        {
            "station": [f"s{n}" for n in rng.integers(0, entities, rows)],
            "event_time": minutes.cast(pl.Datetime("us", "UTC")),
            "arrival_time": (minutes + late).cast(pl.Datetime("us", "UTC")),
            "temp": rng.normal(size=rows),
            "state": pl.Series([["ok", "wet", None][n] for n in rng.integers(0, 3, rows)]),
            "log_sequence": np.arange(rows),
        }
    )


FEATURES = [
    al.latest("temp", max_event_age="2h"),
    al.window("temp", ["mean", "std", "q90", "slope"], "6h"),
    al.sequence("temp", 3),
    al.latest("state"),
    al.event_age(),
]


def every(hours: str, names: list[str]) -> pl.DataFrame:
    return numbered(al.make_spine({"station": names}, START, START + timedelta(days=3), hours))


# --- where rows come from ---------------------------------------------------------------------------------------------


def test_frames_of_this_process(spark):
    frame = stations()
    spine = every("1h", [f"s{n}" for n in range(13)])
    expected = same_as_local(spine, [weather(frame, *FEATURES)], status=True)
    assert expected["weather__temp_mean_6h"].null_count() < spine.height / 2
    for buckets in (1, 5):  # the number of buckets changes nothing
        same(here(join(spine, [weather(frame, *FEATURES)], status=True, buckets=buckets), expected), expected)


def test_frames_of_spark(spark):
    frame, spine = stations(), every("1h", ["s1", "s2", "s99"])
    derive = {"half": pl.col("temp") / 2}
    features = [*FEATURES, al.window("half", "sum", "3h")]
    expected = al.point_in_time_join(spine, [weather(frame, *features, derive=derive)], positions=2_000)
    views = [weather(spark.createDataFrame(frame.to_arrow()), *features, derive=derive)]
    asked_there = spark.createDataFrame(spine.to_arrow())
    same(here(al.point_in_time_join(asked_there, views, engine="spark", positions=2_000), expected), expected)


def test_no_questions_of_no_rows_have_no_answers_in_any_number_of_buckets(spark):
    frame, spine = stations(10), every("5h", ["s1"])
    expected = al.point_in_time_join(spine.clear(), [weather(frame.clear(), *FEATURES)])
    rows, questions = (spark.createDataFrame(one.to_arrow()).limit(0) for one in (frame, spine))
    for empty, asked_for in ((rows, questions), (frame.clear(), spine.clear())):
        got = join(asked_for, [weather(empty, *FEATURES)], buckets=3)
        same(here(got, expected), expected)


def test_frames_of_spark_whose_columns_have_dots_and_backticks_and_capitals(spark):
    names = {"station": "a.b", "temp": "t`mp", "state": "T`MP", "log_sequence": "log.seq", "event_time": "e.t"}
    frame = stations(300).rename(names)
    spine = every("5h", ["s1", "s2", "s99"]).rename({"station": "a.b", "prediction_time": "t.p"})
    spine = spine.with_columns(pl.lit(1).alias("A.B"))

    def view(rows) -> al.FeatureView:
        told = al.Observations(rows, entities=["a.b"], event_time="e.t", log_sequence="log.seq")
        return al.FeatureView("weather", None, told, [al.latest("t`mp"), al.latest("T`MP")])

    expected = al.point_in_time_join(spine, [view(frame)], positions=200, prediction_time="t.p")
    rows, asked_there = (spark.createDataFrame(one.to_arrow()) for one in (frame, spine))
    got = join(asked_there, [view(rows)], position_of=lambda _: 200, prediction_time="t.p", buckets=3)
    same(here(got, expected), expected)


def test_files_and_folders_and_delta_tables(spark, tmp_path):
    frame, spine = stations(), every("2h", [f"s{n}" for n in range(5)])
    expected = al.point_in_time_join(spine, [weather(frame, *FEATURES)])
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, part in enumerate(frame.iter_slices(1_000)):
        part.write_parquet(folder / f"{number}.parquet")
        part.write_delta(str(tmp_path / "delta"), mode="append")
    frame.head(700).write_parquet(tmp_path / "delta" / "left-over.parquet")  # no part of the table
    spine.write_parquet(tmp_path / "spine.parquet")
    for path in (folder, str(tmp_path / "delta")):
        views = [weather(path, *FEATURES)]
        same(al.point_in_time_join(spine, views), expected)
        got = al.point_in_time_join(tmp_path / "spine.parquet", views, engine="spark")
        same(here(got, expected), expected)


def test_logs_at_a_position_with_late_commits_and_two_views_of_one(spark, tmp_path):
    frame = stations().sort("arrival_time").drop("log_sequence")
    log = create_log(tmp_path, "stations", entities=["station"])
    for number, part in enumerate(frame.iter_slices(700)):
        log.append(part, batch_id=str(number))
    spine = every("1h", [f"s{n}" for n in range(12)])
    views = [weather(log, *FEATURES), al.FeatureView("again", ["station"], log, [al.window("temp", "count", "1d")])]
    for arguments in ({"status": True}, {"positions": 1_500}, {"as_of": START + timedelta(days=2), "status": True}):
        same_as_local(spine, views, **arguments)


def test_views_without_a_key_in_common_take_a_pass_each(spark):
    frame = stations()
    calendar = frame.drop("station").unique("event_time", maintain_order=True)
    states = pl.DataFrame(
        {
            "state": ["ok", "wet"],
            "event_time": [START, START],
            "arrival_time": [START, START + timedelta(days=1)],
            "size": pl.Series([1, 2], dtype=pl.UInt8),
        }
    )
    spine = every("1h", ["s1", "s2"]).with_columns(state=pl.lit("wet"))
    views = [
        al.FeatureView("all", [], calendar, [al.window("temp", "mean", "1h")]),
        weather(frame, *FEATURES),
        al.FeatureView("states", ["state"], states, [al.latest("size"), al.window("size", "sum", "7d")]),
    ]
    same_as_local(spine, views, status=True)


# --- what they hold ---------------------------------------------------------------------------------------------------


def test_columns_of_every_type_that_spark_can_hold_come_back(spark):
    n = 3
    values = {
        "flag": [True, None, False],
        "tiny": pl.Series([-1, None, 5], dtype=pl.Int8),
        "most": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
        "single": pl.Series([0.1, None, float("nan")], dtype=pl.Float32),
        "zero": [-0.0, None, 0.0],
        "text": ["", None, "é"],
        "kind": pl.Series(["a", None, "b"], dtype=pl.Enum(["a", "b"])),
        "sort": pl.Series(["x", None, "y"], dtype=pl.Categorical),
        "bytes": [b"", None, b"\x00\xff"],
        "day": [date(1900, 1, 1), None, date(2300, 1, 1)],
        "moment": pl.Series([at("10:00"), None, at("11:00")], dtype=pl.Datetime("ms", "Europe/Berlin")),
        "clock": [datetime(2026, 3, 29, 2, 30), None, datetime(1970, 1, 1)],  # noqa: DTZ001
        "took": pl.Series([timedelta(microseconds=-1), None, timedelta(days=400)], dtype=pl.Duration("us")),
        "price": [Decimal("1.50"), None, Decimal("-2.25")],
        "pair": pl.Series([[1.0, 2.0], None, [0.5, -0.5]], dtype=pl.Array(pl.Float32, 2)),
        "codes": pl.Series([[1, None], None, []], dtype=pl.List(pl.UInt8)),
        "both": [{"a": 1, "b": "x"}, None, {"a": None, "b": None}],
        "nothing": [None, None, None],
    }
    moments = pl.Series([at("10:00"), at("11:00"), at("12:00")], dtype=pl.Datetime("us", "UTC"))
    carried = pl.DataFrame({"station": ["a"] * n, "prediction_time": moments} | values)
    observed = pl.DataFrame({"station": ["a"] * n, "event_time": moments, "arrival_time": moments} | values)
    view = weather(observed, *(al.latest(name) for name in values))
    expected = same_as_local(numbered(carried), [view])
    assert expected["weather__most"].to_list() == [2**64 - 1, None, 0]


def test_what_spark_cannot_hold_is_refused_before_anything_runs(spark):
    frame = temps(("a", "10:00", "10:40", 3.5))
    fine = asked("11:00").with_columns(pl.col("prediction_time").cast(pl.Datetime("ns", "UTC")))
    with pytest.raises(al.ColumnTypeError) as caught:
        al.point_in_time_join(fine, [weather(frame, al.latest("temp"))], engine="spark")
    assert str(caught.value) == (
        "the result: 'prediction_time' is Datetime(time_unit='ns', time_zone='UTC'), and Spark keeps no nanoseconds\n\n"
        'hint: e.g. pl.col("prediction_time").dt.cast_time_unit("us").'
    )


def test_rows_of_spark_are_not_brought_here_and_have_no_order(spark):
    rows = spark.createDataFrame(temps(("a", "10:00", "10:40", 3.5)).to_arrow())
    with pytest.raises(al.DefinitionError, match="are in Spark, and this is computed here"):
        al.point_in_time_join(asked("11:00"), [weather(rows, al.latest("temp"))])
    with pytest.raises(al.ViewError, match="rows of a Spark frame have no order"):
        al.point_in_time_join(asked("11:00"), [weather(rows, al.latest("temp"), on_tie="last")], engine="spark")


def test_the_last_of_tied_rows_is_the_last_in_the_frame(spark):
    tied = [("a", "10:00", "10:40", float(n)) for n in range(50)] + [("b", "10:00", "10:40", 1.0)]
    spine = numbered(pl.concat([asked("11:00"), asked("11:00", station="b")]))
    expected = same_as_local(spine, [weather(temps(*tied), al.latest("temp"), on_tie="last")])
    assert expected["weather__temp"].to_list() == [49.0, 1.0]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_an_error_on_an_executor_is_the_error_of_the_local_engine(spark):
    view = weather(temps(("a", "10:00", "10:40", 3.5), ("b", "12:00", "10:00", 1.0)), al.latest("temp"))
    with pytest.raises(al.EventAfterArrivalError) as expected:
        al.point_in_time_join(asked("11:00"), [view])
    with pytest.raises(al.EventAfterArrivalError) as caught, spark_errors():
        al.point_in_time_join(asked("11:00"), [view], engine="spark").collect()
    assert str(caught.value) == str(expected.value)
    assert caught.value.hint == expected.value.hint


def test_a_null_prediction_time_is_found_in_a_frame_of_spark(spark):
    spine = spark.createDataFrame(asked("11:00", "12:00").to_arrow())
    nulls = spine.selectExpr("station", "if(station = 'a', null, prediction_time) prediction_time")
    with pytest.raises(al.NullTimeError, match="'prediction_time' is null in 2 rows"):
        al.point_in_time_join(nulls, [weather(temps(("a", "10:00", "10:40", 3.5)), al.latest("temp"))], engine="spark")


def executors(spark) -> list[psutil.Process]:
    """The executors' JVMs, of this process's own cluster."""
    driver = psutil.Process(spark.sparkContext._gateway.proc.pid)
    alive = [one for one in driver.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in alive if "CoarseGrainedExecutorBackend" in " ".join(one.cmdline())]


def test_an_executor_that_is_killed_in_mid_job_changes_nothing(spark):
    frame = stations(40_000, 200)
    spine = every("30m", [f"s{n}" for n in range(200)])
    views = [weather(frame, *FEATURES)]
    expected = al.point_in_time_join(spine, views, status=True)
    found: list[pl.DataFrame] = []

    def run() -> None:
        found.append(here(join(spine, views, spark=spark, status=True, buckets=40), expected))

    for victim in ("executor", "worker"):
        before = len(found)
        tracker = spark.sparkContext.statusTracker()
        thread = threading.Thread(target=run)
        thread.start()
        done = 0
        end = time.monotonic() + 60
        while done < 5 and thread.is_alive() and time.monotonic() < end:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            done = max((stage.numCompletedTasks for stage in stages if stage and stage.numTasks == 40), default=0)
            time.sleep(0.005)
        assert thread.is_alive(), "it was over before anything could be killed"
        one = executors(spark)[0]
        killed = [one] if victim == "executor" else one.children(recursive=True)
        assert killed
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
        thread.join(120)
        assert len(found) == before + 1
        same(found[-1], expected)


# --- many drawn inputs ------------------------------------------------------------------------------------------------


def test_drawn_joins_are_those_of_the_local_engine(spark):
    drawn = []

    @settings(max_examples=40, phases=[Phase.generate], derandomize=True, database=None)
    @given(questions(views=2))
    def draw(question):
        drawn.append(question)

    draw()
    expected, joins = [], []
    for question in drawn:
        spine = numbered(question.spine)
        views = [view_of(source) for source in question.sources]
        expected.append(al.point_in_time_join(spine, views, as_of=question.as_of, status=True))
        as_of_us = None if question.as_of is None else instant_us(question.as_of, "as_of")
        plan = planned(spine, views, as_of_us=as_of_us, status=True)
        (one,), (work,) = plan.passes, plan.works
        joins.append((work, [(spine, one.keys), *((read.rows().collect(), read.keys) for read in one.inputs)]))
    for got, wanted in zip(in_one_job(spark, joins, buckets=3), expected, strict=True):
        same(got.cast(pl.Schema(wanted.schema)).sort(ROW), wanted)


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_come_with_the_features(spark):
    frame = stations()
    spine = every("1h", ["s1", "s2", "s99"])
    views = [weather(frame, *FEATURES)]
    for release in ("final", "first", "30m"):
        label = al.label("temp", "2h", tolerance="1h", release=release)
        expected = al.build_dataset(spine, views, label=label, as_of=START + timedelta(days=2)).frame
        as_of_us = instant_us(START + timedelta(days=2), "as_of")
        got = join(spine, views, as_of_us=as_of_us, label=label, provisional=True, buckets=3)
        same(here(got, expected), expected)
        assert 0 < expected["label"].null_count() < expected.height


# --- real data --------------------------------------------------------------------------------------------------------


def real(shared, name: str) -> pl.DataFrame:
    """A table of the reference data, its times as instants."""
    frame = pl.read_parquet(shared / "data" / name / "observations.parquet")
    times = [name for name in ("event_time", "arrival_time", "issue_time") if name in frame.columns]
    naive = [name for name in times if frame.schema[name].time_zone is None]
    return frame.with_columns(pl.col(naive).dt.replace_time_zone("UTC"))


def some_times(frame: pl.DataFrame, entity: str) -> pl.DataFrame:
    """Every entity, asked on and just before forty of the arrivals."""
    arrivals = frame["arrival_time"].dt.cast_time_unit("us").dt.convert_time_zone("UTC").unique().sort()
    chosen = arrivals.gather_every(max(1, len(arrivals) // 40))
    instants = pl.concat([chosen, chosen - timedelta(microseconds=1)]).alias("prediction_time").to_frame()
    return numbered(frame.select(entity).unique(maintain_order=True).join(instants, how="cross"))


def test_real_forecasts_revisions_and_moved_events(spark, shared):
    wind, epidemic, quakes = (real(shared, name) for name in ("energy_neso_wind", "epi_delphi_covid", "quakes_usgs"))
    quakes = quakes.drop("commit", "source_updated").with_columns(is_retraction=pl.col("op") == "delete").drop("op")
    mw, rate = "wind_forecast_mw", "case_rate_7d_av"
    forecasts = [al.forecast(mw, ["6h", "48h"], "4h"), al.window(mw, ["mean", "std"], "24h", "-24h"), al.issue_age()]
    views = {
        "zone": al.FeatureView("wind", ["zone"], wind, forecasts, kind="forecast", on_tie="last"),
        "geo_value": al.FeatureView(
            "epi",
            ["geo_value"],
            epidemic,
            [al.latest("percent_cli"), al.window(rate, ["mean", "slope", "q90"], "28d"), al.lag(rate, "7d", "0s")],
        ),
        "net": al.FeatureView(
            "quakes",
            ["net"],
            quakes,
            [al.latest("place"), al.window("mag", ["count", "mean"], "24h"), al.sequence("mag", 5)],
            key=["quake_id"],
        ),
    }
    for (entity, view), frame in zip(views.items(), (wind, epidemic, quakes), strict=True):
        spine = some_times(frame, entity)
        expected = al.point_in_time_join(spine, [view], status=True)
        assert any(0 < expected[name].null_count() < expected.height for name in view.column_names)
        same(here(join(spine, [view], status=True, buckets=4), expected), expected)


# --- the worked example -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    world = SimulatedWorld(seed=5, days=8)
    return world, quickstart.fill_logs(world, tmp_path_factory.mktemp("logs"))


def test_the_worked_example(spark, example):
    world, logs = example
    spine, views = numbered(quickstart.spine(world)), quickstart.views(logs)
    service = quickstart.service(views)
    whole = same_as_local(spine, views, status=True)
    in_sql = al.point_in_time_join(
        spine, views, engine="duckdb", status=True
    )  # the same rows, its own arithmetic (R17)
    assert_frame_equal(in_sql, whole, check_exact=False, rel_tol=1e-9, abs_tol=1e-9)
    expected = same_as_local(spine, views, service=service, variant="no_sky_camera", rows="chosen")
    assert 0 < expected.height < spine.height


def test_arrivals_under_outages_and_delays(spark, example):
    world, logs = example
    down = al.Outage("pyranometer", world.start + timedelta(days=3), world.start + timedelta(days=5))
    moved = al.transform_arrivals(quickstart.views(logs), outages=down, delays={"meter": al.FixedDelay("45m")})
    spine = numbered(quickstart.spine(world))
    expected = same_as_local(spine, moved, status=True)
    assert not expected.equals(al.point_in_time_join(spine, quickstart.views(logs), status=True))


def test_a_service_whose_providers_stand_in_for_each_other(spark, example):
    world, logs = example
    views = quickstart.views(logs)
    service = al.FeatureService(
        "power",
        ["pyranometer__irradiance", "inverter__dc_power_kw"],
        views=views,
        fallbacks={"pyranometer__irradiance": ["meter__power_kw", 0.0], "inverter__dc_power_kw": ["meter__power_kw"]},
        down_after="30m",
    )
    expected = same_as_local(numbered(quickstart.spine(world)), views, service=service, status=True, sources=True)
    assert expected["pyranometer__irradiance__source"].n_unique() > 1


def test_providers_in_frames_of_spark(spark, example):
    world, logs = example
    fresh = al.Variant("fresh", needs=["pyranometer"], max_event_age={"pyranometer": "40m"})

    def ask(views: list[al.FeatureView], **arguments):
        variants = [fresh, al.Variant("other", needs=["meter"])]
        service = al.FeatureService(
            "power",
            ["meter__power_kw"],
            views=views,
            variants=variants,
            down_after={"pyranometer": "30m", "meter": "2h"},
        )
        spine = numbered(quickstart.spine(world))
        return al.point_in_time_join(spine, views, service=service, variant="fresh", **arguments)

    frames = {name: log.scan().collect() for name, log in logs.items() if name in ("pyranometer", "meter")}
    views = [view for view in quickstart.views(logs) if view.name in frames]

    def over(rows) -> list[al.FeatureView]:
        return [al.FeatureView(view.name, ["site"], rows(frames[view.name]), view.features) for view in views]

    expected = ask(over(lambda frame: frame))
    assert 0 < expected.height < quickstart.spine(world).height
    got = ask(over(lambda frame: spark.createDataFrame(frame.to_arrow())), engine="spark")
    same(here(got, expected), expected)
