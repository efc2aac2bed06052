"""R17, R18, R20, R21, R22: one answer per spine row, the same whatever the order, types that match."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from fakes import FrameLog
from makers import answers, asked, at, table, temps, weather
from polars.testing import assert_frame_equal

import alignment as al

# --- R21: the spine -------------------------------------------------------------------------------------------------


def test_the_spine_keeps_its_rows_order_duplicates_and_columns():
    spine = table(
        "station prediction_time weight", ("b", "10:30", 1), ("a", "10:00", 2), ("b", "10:30", 3), ("a", "09:00", 4)
    )
    joined = al.point_in_time_join(
        spine, [weather(temps(("a", "10:00", "10:00", 1.0), ("b", "10:00", "10:00", 2.0)), al.latest("temp"))]
    )
    assert_frame_equal(joined.select(spine.columns), spine)
    assert joined["weather__temp"].to_list() == [2.0, 1.0, 2.0, None]


def test_a_null_or_unknown_entity_has_no_observations():
    spine = table("station prediction_time", ("a", "10:30"), (None, "10:30"), ("nowhere", "10:30"))
    features = [al.latest("temp"), al.window("temp", ["count", "sum"], "1h"), al.sequence("temp", 2)]
    joined = al.point_in_time_join(spine, [weather(temps(("a", "10:00", "10:00", 1.0)), *features)], status=True)
    assert joined["weather__temp"].to_list() == [1.0, None, None]
    assert joined["weather__temp_count_1h"].to_list() == [1, 0, 0]
    assert joined["weather__temp_sum_1h"].to_list() == [1.0, None, None]
    assert joined["weather__temp_sequence_2"].to_list() == [[None, 1.0], [None, None], [None, None]]
    assert joined["weather__temp__status"].to_list() == ["present", "missing", "missing"]


def test_without_entities_all_rows_share_one_series():
    frame = temps(("a", "10:00", "10:00", 1.0)).drop("station")
    view = al.FeatureView("grid", [], frame, [al.latest("temp")])
    spine = table("station prediction_time", ("x", "10:30"), ("y", "09:00"))
    assert answers(spine, view, "grid__temp") == [1.0, None]


def test_an_entity_map_renames_the_key():
    spine = table("site prediction_time", ("a", "10:30"))
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"), entity_map={"site": "station"})
    joined = al.point_in_time_join(spine, [view])
    assert joined.columns == ["site", "prediction_time", "weather__temp"]
    assert joined["weather__temp"].to_list() == [1.0]


def test_composite_keys_of_several_types_must_all_agree():
    frame = table(
        "region meter smart since event_time arrival_time v",
        ("n", 1, True, date(2020, 1, 1), "10:00", "10:00", 1.0),
        ("n", 1, False, date(2020, 1, 1), "10:00", "10:00", 2.0),
        ("n", 2, True, date(2020, 1, 1), "10:00", "10:00", 3.0),
        ("n", 1, True, date(2021, 1, 1), "10:00", "10:00", 4.0),
    )
    keys = ["region", "meter", "smart", "since"]
    spine = frame.select(*keys[::-1]).with_columns(prediction_time=pl.lit(at("10:30"))).reverse()
    view = al.FeatureView("m", keys, frame, [al.latest("v")])
    assert answers(spine, view, "m__v") == [4.0, 3.0, 2.0, 1.0]


def test_key_types_widen():
    frame = temps((1, "10:00", "10:00", 1.0), (2, "10:00", "10:00", 2.0), station=pl.Int8)
    spine = table("station prediction_time", (2, "10:30"), (300, "10:30"), station=pl.Int64)
    joined = al.point_in_time_join(spine, [weather(frame, al.latest("temp"))])
    assert joined["weather__temp"].to_list() == [2.0, None]
    assert joined.schema["station"] == pl.Int64


def test_categorical_keys_match_texts():
    frame = temps(("a", "10:00", "10:00", 1.0)).with_columns(pl.col("station").cast(pl.Categorical))
    assert answers(asked("10:30"), weather(frame, al.latest("temp")), "weather__temp") == [1.0]


def test_another_name_for_the_prediction_time():
    spine = asked("10:30").rename({"prediction_time": "asked_at"})
    joined = al.point_in_time_join(
        spine, [weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"))], prediction_time="asked_at"
    )
    assert joined["weather__temp"].to_list() == [1.0]
    assert joined.columns == ["station", "asked_at", "weather__temp"]


def test_views_come_one_after_the_other():
    frame = temps(("a", "10:00", "10:00", 1.0))
    views = [al.FeatureView(name, ["station"], frame, [al.latest("temp")]) for name in ("second", "first")]
    assert al.point_in_time_join(asked("10:30"), views).columns[2:] == ["second__temp", "first__temp"]


def test_an_empty_spine_gives_an_empty_frame_with_all_columns():
    spine = asked("10:30").clear()
    joined = al.point_in_time_join(
        spine, [weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"))], status=True
    )
    assert joined.height == 0
    assert joined.schema["weather__temp"] == pl.Float64
    assert joined.columns == ["station", "prediction_time", "weather__temp", "weather__temp__status", "provisional"]


def test_no_observations_at_all_answer_nothing():
    frame = temps(("a", "10:00", "10:00", 1.0)).clear()
    view = weather(frame, al.latest("temp"), al.window("temp", "count", "1h"))
    joined = al.point_in_time_join(asked("10:30"), [view], status=True)
    assert joined["weather__temp"].to_list() == [None]
    assert joined["weather__temp__status"].to_list() == ["missing"]
    assert joined["weather__temp_count_1h"].to_list() == [0]


# --- R17: ties in frames without a log_sequence ---------------------------------------------------------------------


def test_equal_rows_of_one_key_and_arrival_are_one_row():
    frame = temps(
        ("a", "10:00", "10:05", 1.0),
        ("a", "10:00", "10:05", 1.0),
        ("a", "10:10", "10:15", float("nan")),
        ("a", "10:10", "10:15", float("nan")),
    )
    view = weather(frame, al.window("temp", "count", "1h"))
    assert answers(asked("10:30"), view, "weather__temp_count_1h") == [2]


def test_different_rows_of_one_key_and_arrival_are_ambiguous():
    view = weather(temps(("a", "10:00", "10:05", 1.0), ("a", "10:00", "10:05", 2.0)), al.latest("temp"))
    with pytest.raises(al.AmbiguousRevisionsError):
        al.point_in_time_join(asked("10:30"), [view])


def test_rows_that_differ_in_a_column_nobody_reads_are_still_ambiguous():
    frame = table(
        "station event_time arrival_time temp wind",
        ("a", "10:00", "10:05", 1.0, 1.0),
        ("a", "10:00", "10:05", 1.0, 2.0),
    )
    with pytest.raises(al.AmbiguousRevisionsError):
        al.point_in_time_join(asked("10:30"), [weather(frame, al.latest("temp"))])


def test_a_row_and_its_retraction_at_one_arrival_are_ambiguous():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:00", "10:05", False, 1.0),
        ("a", "10:00", "10:05", True, None),
    )
    with pytest.raises(al.AmbiguousRevisionsError):
        al.point_in_time_join(asked("10:30"), [weather(frame, al.latest("temp"))])


def test_a_forecast_retraction_without_issue_is_ambiguous_beside_another_row_of_its_event_and_arrival():
    frame = table(
        "station event_time issue_time arrival_time is_retraction wind",
        ("a", "12:00", "06:00", "06:30", False, 1.0),
        ("a", "12:00", None, "06:30", True, None),
    )
    with pytest.raises(al.AmbiguousRevisionsError):
        al.point_in_time_join(asked("10:30"), [weather(frame, al.latest("wind"), kind="forecast")])


def test_on_tie_last_takes_the_last_in_the_frame():
    frame = temps(("a", "10:00", "10:05", 1.0), ("a", "10:00", "10:05", 2.0))
    observations = al.Observations(frame, entities=["station"], on_tie="last")
    assert answers(asked("10:30"), weather(observations, al.latest("temp"), entities=None), "weather__temp") == [2.0]
    observations = al.Observations(frame.reverse(), entities=["station"], on_tie="last")
    assert answers(asked("10:30"), weather(observations, al.latest("temp"), entities=None), "weather__temp") == [1.0]


def test_the_same_event_in_two_runs_of_one_arrival_is_not_ambiguous():
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "12:00", "06:00", "09:00", 6.0),
        ("a", "12:00", "08:00", "09:00", 8.0),
    )
    view = weather(frame, al.forecast("wind", "3h"), kind="forecast")
    assert answers(asked("09:00"), view, "weather__wind_forecast_3h") == [8.0]


# --- R20 ------------------------------------------------------------------------------------------------------------


def test_status_follows_each_feature_and_is_one_of_five_words():
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"), al.window("temp", "count", "1h"))
    joined = al.point_in_time_join(asked("10:30"), [view], status=True)
    assert joined.columns[2:] == [
        "weather__temp",
        "weather__temp__status",
        "weather__temp_count_1h",
        "weather__temp_count_1h__status",
        "provisional",
    ]
    assert joined.schema["weather__temp__status"] == pl.Enum(["present", "null", "expired", "retracted", "missing"])
    assert joined.schema["provisional"] == pl.Boolean


def test_retracted_means_nothing_left_in_the_range_and_a_withdrawn_key_there():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:00", "10:00", False, 1.0),
        ("a", "10:10", "10:10", False, 2.0),
        ("a", "10:10", "10:20", True, None),
    )
    view = weather(frame, al.latest("temp"), al.window("temp", "sum", "15m"), al.lag("temp", "20m", "0s"))
    row = al.point_in_time_join(asked("10:20"), [view], status=True).row(0, named=True)
    assert row["weather__temp__status"] == "present"  # 10:00 shows again
    assert row["weather__temp_sum_15m__status"] == "retracted"  # (10:05, 10:20] held only the withdrawn event
    assert row["weather__temp_lag_20m__status"] == "present"


def test_a_row_from_before_its_column_existed_is_missing_and_not_null():
    frame = table(
        "station event_time arrival_time temp wind log_sequence",
        ("a", "10:00", "10:00", 1.0, None, 0),
        ("a", "10:10", "10:10", 2.0, None, 7),
    )
    view = weather(FrameLog(frame, "met", ["station"], since={"wind": 5}), al.latest("wind"))
    joined = al.point_in_time_join(asked("10:05", "10:15"), [view], status=True)
    assert joined["weather__wind__status"].to_list() == ["missing", "null"]


# --- R22 ------------------------------------------------------------------------------------------------------------


def test_a_derived_column_is_computed_from_each_row_and_used_like_any_other():
    frame = table(
        "station event_time arrival_time u v", ("a", "10:00", "10:00", 3.0, 4.0), ("a", "10:10", "10:10", None, 1.0)
    )
    speed = (pl.col("u").pow(2) + pl.col("v").pow(2)).sqrt()
    view = weather(frame, al.latest("speed"), al.window("speed", ["count", "max"], "1h"), derive={"speed": speed})
    joined = al.point_in_time_join(asked("10:05", "10:15"), [view])
    assert joined["weather__speed"].to_list() == [5.0, None]
    assert joined["weather__speed_count_1h"].to_list() == [1, 1]
    assert joined["weather__speed_max_1h"].to_list() == [5.0, 5.0]


# --- frames of other makes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["lazy", "arrow", "pandas", "parquet", "path text"])
def test_observations_may_be_any_frame(make, tmp_path):
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:20", 2.0))
    path = tmp_path / "rows.parquet"
    frame.write_parquet(path)
    other = {
        "lazy": frame.lazy,
        "arrow": frame.to_arrow,
        "pandas": frame.to_pandas,
        "parquet": lambda: path,
        "path text": lambda: str(path),
    }
    view = weather(other[make](), al.latest("temp"))
    assert answers(asked("10:15", "10:25"), view, "weather__temp") == [1.0, 2.0]


@pytest.mark.parametrize("make", ["arrow", "pandas", "lazy"])
def test_a_spine_may_be_any_frame(make):
    spine = asked("10:15", "10:25")
    other = {"arrow": spine.to_arrow, "pandas": spine.to_pandas, "lazy": spine.lazy}[make]()
    joined = al.point_in_time_join(other, [weather(temps(("a", "10:00", "10:10", 1.0)), al.latest("temp"))])
    assert isinstance(joined, pl.DataFrame)
    assert joined["weather__temp"].to_list() == [1.0, 1.0]


def test_other_column_names_are_declared_once():
    frame = temps(("a", "10:00", "10:10", 1.0)).rename({"event_time": "valid", "arrival_time": "seen"})
    observations = al.Observations(frame, entities=["station"], event_time="valid", arrival_time="seen")
    view = al.FeatureView("weather", observations=observations, features=[al.latest("temp")])
    assert answers(asked("10:09", "10:10"), view, "weather__temp") == [None, 1.0]


# --- snapshot -------------------------------------------------------------------------------------------------------


def test_a_snapshot_has_one_row_per_event_as_known_then():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:00", "10:05", False, 1.0),
        ("a", "10:00", "10:20", False, 1.5),
        ("a", "10:10", "10:15", False, 2.0),
        ("a", "10:10", "10:25", True, None),
        ("b", "10:00", "10:30", False, 9.0),
    )
    observations = al.Observations(frame, entities=["station"])

    def known(text):
        return al.snapshot(observations, at(text)).select("station", "event_time", "arrival_time", "temp").rows()

    assert known("10:19") == [("a", at("10:00"), at("10:05"), 1.0), ("a", at("10:10"), at("10:15"), 2.0)]
    assert known("10:25") == [("a", at("10:00"), at("10:20"), 1.5)]
    assert known("10:30") == [("a", at("10:00"), at("10:20"), 1.5), ("b", at("10:00"), at("10:30"), 9.0)]
    assert known("09:00") == []


def test_a_snapshot_of_forecasts_has_the_newest_issue_of_each_event():
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "12:00", "06:00", "09:00", 6.0),
        ("a", "12:00", "08:00", "08:30", 8.0),
        ("a", "13:00", "06:00", "09:00", 6.5),
    )
    observations = al.Observations(frame, entities=["station"], kind="forecast")
    got = al.snapshot(observations, at("10:00")).select("event_time", "issue_time", "wind").rows()
    assert got == [(at("12:00"), at("08:00"), 8.0), (at("13:00"), at("06:00"), 6.5)]


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_an_arrow_table_may_hold_equal_columns_of_different_names():
    rows = temps(("a", "10:00", "10:00", 1.0), ("b", "10:00", "10:00", 2.0))
    joined = al.point_in_time_join(
        table("station prediction_time", ("b", "10:30")).to_arrow(), [weather(rows.to_arrow(), al.latest("temp"))]
    )
    assert joined["weather__temp"].to_list() == [2.0]


def test_an_arrow_table_with_two_columns_of_one_name_is_refused():
    arrow = temps(("a", "10:00", "10:00", 1.0)).to_arrow()
    twice = arrow.append_column("temp", arrow.column("temp"))
    with pytest.raises(al.DuplicateColumnError, match="'temp' is the name of 2 columns"):
        weather(twice, al.latest("temp"))


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_an_id_may_name_the_entity_again(engine):
    rows = table(
        "station event_time arrival_time temp number",
        ("a", "09:00", "09:30", 1.0, 7),
        ("a", "09:20", "09:50", 3.0, 7),
        ("b", "09:00", "09:00", 5.0, 7),
    )
    spine = table("station prediction_time", ("a", "09:40"), ("a", "10:00"), ("b", "10:00"))
    features = [al.latest("temp"), al.window("temp", "count", "2h")]
    short, long = (
        al.point_in_time_join(spine, [al.FeatureView("v", ["station"], rows, features, key=key)], engine=engine)
        for key in (["number"], ["station", "number"])
    )
    assert short["v__temp"].to_list() == [1.0, 3.0, 5.0]
    assert short["v__temp_count_2h"].to_list() == [1, 1, 1]
    assert_frame_equal(long, short)
