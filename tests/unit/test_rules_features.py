"""R6 to R11: what each feature picks, and where its bounds lie."""

from __future__ import annotations

import math
from datetime import date, timedelta

import polars as pl
import pytest
from makers import answers, asked, at, table, temps, weather

import alignment as al


def hourly(*values, start=10):
    """One event per ten minutes from 10:00, each known at once."""
    return temps(
        *(("a", f"{start + i // 6}:{i % 6}0", f"{start + i // 6}:{i % 6}0", value) for i, value in enumerate(values))
    )


def statuses(view, *instants):
    joined = al.point_in_time_join(asked(*instants), [view], status=True)
    return joined[next(name for name in joined.columns if name.endswith("__status"))].to_list()


# --- R6, R7 ---------------------------------------------------------------------------------------------------------


def test_latest_goes_by_event_and_not_by_arrival():
    view = weather(temps(("a", "10:10", "10:20", 2.0), ("a", "10:00", "10:30", 1.0)), al.latest("temp"))
    assert answers(asked("10:40"), view, "weather__temp") == [2.0]  # 10:00 arrived later and is still the older event


def test_latest_of_a_null_is_null_unless_nulls_are_skipped():
    view = weather(hourly(1.0, None), al.latest("temp"), al.latest("temp", skip_null=True, name="kept"))
    joined = al.point_in_time_join(asked("10:30"), [view])
    assert joined["weather__temp"].to_list() == [None]
    assert joined["weather__kept"].to_list() == [1.0]


def test_exactly_the_age_limit_is_kept_and_a_microsecond_more_is_expired():
    view = weather(temps(("a", "10:00", "10:05", 1.0)), al.latest("temp"), max_event_age="2h")
    assert answers(asked("12:00", "12:00:00.000001"), view, "weather__temp") == [1.0, None]
    assert statuses(view, "12:00", "12:00:00.000001") == ["present", "expired"]


def test_an_arrival_limit_judges_the_row_that_was_picked_and_brings_up_no_other():
    frame = temps(("a", "10:10", "10:10", 2.0), ("a", "10:00", "11:00", 1.0))
    view = weather(frame, al.latest("temp", max_arrival_age="30m"))
    # 10:10 is picked (the later event), it arrived 50 minutes ago; that 10:00 arrived just now does not help.
    assert answers(asked("11:00"), view, "weather__temp") == [None]
    assert statuses(view, "11:00") == ["expired"]


def test_a_feature_may_override_the_limit_of_its_view():
    view = weather(
        temps(("a", "10:00", "10:00", 1.0)),
        al.latest("temp"),
        al.latest("temp", max_event_age="3h", name="patient"),
        max_event_age="1h",
    )
    joined = al.point_in_time_join(asked("12:00"), [view])
    assert joined["weather__temp"].to_list() == [None]
    assert joined["weather__patient"].to_list() == [1.0]


def test_age_limits_leave_windows_lags_and_sequences_alone():
    view = weather(
        hourly(1.0, 2.0),
        al.window("temp", "sum", "5h"),
        al.lag("temp", "1h"),
        al.sequence("temp", 2),
        max_event_age="10m",
    )
    joined = al.point_in_time_join(asked("13:00"), [view])
    assert joined.row(0)[2:] == (3.0, 2.0, [1.0, 2.0])


def test_ages_are_of_the_row_that_latest_picks_even_when_it_is_expired_or_null():
    view = weather(
        temps(("a", "10:00", "10:20", None)), al.latest("temp"), al.event_age(), al.arrival_age(), max_event_age="1m"
    )
    joined = al.point_in_time_join(asked("10:10", "10:30"), [view])
    assert joined.schema["weather__event_age"] == pl.Duration("us")
    assert joined["weather__event_age"].to_list() == [None, timedelta(minutes=30)]
    assert joined["weather__arrival_age"].to_list() == [None, timedelta(minutes=10)]


def test_an_issue_limit_judges_forecasts():
    frame = table("station event_time issue_time arrival_time wind", ("a", "12:00", "06:00", "06:30", 6.0))
    view = weather(frame, al.forecast("wind", ["6h", "5h"], "0s"), kind="forecast", max_issue_age="6h")
    joined = al.point_in_time_join(
        asked("12:00", "07:00"), [weather(frame, al.latest("wind"), kind="forecast", max_issue_age="6h")]
    )
    assert joined["weather__wind"].to_list() == [6.0, None]  # exactly six hours; at 07:00 the event is not past
    assert answers(asked("07:00"), view, "weather__wind_forecast_5h") == [6.0]


# --- R8 -------------------------------------------------------------------------------------------------------------


def test_a_window_is_open_at_its_start_and_closed_at_its_end():
    view = weather(hourly(1.0, 2.0, 4.0, 8.0), al.window("temp", "sum", "20m"))
    # (10:10, 10:30] holds 10:20 and 10:30; one microsecond earlier (10:09:59.999999, 10:29:59.999999] holds 10:10, 10:20.
    assert answers(asked("10:30", "10:29:59.999999"), view, "weather__temp_sum_20m") == [12.0, 6.0]


def test_an_offset_moves_both_ends():
    view = weather(hourly(1.0, 2.0, 4.0, 8.0), al.window("temp", "sum", "20m", "10m"))
    assert answers(asked("10:40"), view, "weather__temp_sum_20m_offset_10m") == [12.0]  # (10:10, 10:30]


def test_an_event_known_late_enters_a_window_late():
    view = weather(temps(("a", "10:00", "10:00", 1.0), ("a", "10:10", "10:40", 2.0)), al.window("temp", "count", "1h"))
    assert answers(asked("10:39", "10:40"), view, "weather__temp_count_1h") == [1, 2]


def test_an_empty_window_counts_nothing_and_is_null_otherwise():
    every = ["count", "sum", "mean", "std", "var", "min", "max", "first", "last", "median", "q90", "slope"]
    view = weather(hourly(1.0), al.window("temp", every, "10m"))
    row = al.point_in_time_join(asked("12:00"), [view]).row(0)[2:]
    assert row == (0, *[None] * 11)


def test_nulls_are_skipped_by_every_aggregate():
    view = weather(
        hourly(None, 2.0, None, 4.0, None), al.window("temp", ["count", "mean", "first", "last", "min"], "1h")
    )
    assert al.point_in_time_join(asked("10:50"), [view]).row(0)[2:] == (2, 3.0, 2.0, 4.0, 2.0)


def test_a_window_of_nulls_is_null_and_says_so():
    view = weather(hourly(None, None), al.window("temp", ["sum", "count"], "1h"))
    joined = al.point_in_time_join(asked("10:50"), [view], status=True)
    assert joined["weather__temp_sum_1h__status"].to_list() == ["null"]
    assert joined["weather__temp_count_1h"].to_list() == [0]


def test_aggregates_by_hand():
    view = weather(
        hourly(1.0, 2.0, 6.0),
        al.window(
            "temp", ["sum", "mean", "var", "std", "min", "max", "first", "last", "median", "q50", "q90", "slope"], "1h"
        ),
    )
    row = al.point_in_time_join(asked("10:20"), [view]).row(0, named=True)
    got = {name.removeprefix("weather__temp_").removesuffix("_1h"): value for name, value in row.items()}
    assert got["sum"] == 9.0
    assert got["mean"] == 3.0
    assert got["var"] == 7.0  # ((1-3)^2 + (2-3)^2 + (6-3)^2) / (3 - 1)
    assert got["std"] == math.sqrt(7.0)
    assert (got["min"], got["max"], got["first"], got["last"]) == (1.0, 6.0, 1.0, 6.0)
    assert got["median"] == got["q50"] == 2.0
    assert got["q90"] == 2.0 + 4.0 * (2 * 0.9 - 1)  # between the second and the third value
    assert got["slope"] == pytest.approx(15.0, rel=1e-12)  # 2.5 per ten minutes


def test_one_value_has_a_mean_and_no_spread():
    view = weather(hourly(5.0), al.window("temp", ["mean", "std", "var", "slope", "median", "q90"], "1h"))
    assert al.point_in_time_join(asked("10:00"), [view]).row(0)[2:] == (5.0, None, None, None, 5.0, 5.0)


def test_a_nan_makes_all_but_count_nan():
    view = weather(
        hourly(1.0, math.nan, 3.0), al.window("temp", ["count", "sum", "min", "max", "first", "last", "median"], "1h")
    )
    row = al.point_in_time_join(asked("10:20"), [view]).row(0)[2:]
    assert row[0] == 3
    assert all(math.isnan(value) for value in row[1:])


def test_integers_stay_integers_and_their_mean_is_a_float():
    frame = table(
        "station event_time arrival_time n", ("a", "10:00", "10:00", 2**53), ("a", "10:10", "10:10", 1), n=pl.Int64
    )
    view = weather(frame, al.window("n", ["sum", "max", "mean"], "1h"))
    joined = al.point_in_time_join(asked("10:10"), [view])
    assert joined.dtypes[2:] == [pl.Int64, pl.Int64, pl.Float64]
    assert joined.row(0)[2] == 2**53 + 1  # exact, where a float would have lost the 1


def test_booleans_can_be_counted_up():
    frame = table("station event_time arrival_time rain", ("a", "10:00", "10:00", True), ("a", "10:10", "10:10", False))
    view = weather(frame, al.window("rain", ["sum", "mean", "max", "last"], "1h"))
    assert al.point_in_time_join(asked("10:10"), [view]).row(0)[2:] == (1, 0.5, True, False)


def test_sums_are_left_to_right_so_that_a_later_window_forgets_nothing():
    # A running sum that adds 1e16 and takes it away again would leave rubbish; each window starts from nothing.
    view = weather(hourly(1e16, 0.1, 0.2, 0.3), al.window("temp", "sum", "30m"))
    assert answers(asked("10:30"), view, "weather__temp_sum_30m") == [0.1 + 0.2 + 0.3]


def test_a_forecast_window_may_lie_ahead():
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "10:00", "09:00", "09:10", 1.0),
        ("a", "13:00", "09:00", "09:10", 2.0),
        ("a", "16:00", "09:00", "09:10", 4.0),
    )
    view = weather(frame, al.window("wind", "sum", "6h", "-6h"), kind="forecast")
    # At 10:00 (10:00, 16:00] holds 13:00 and 16:00; the event at t itself is not ahead.
    assert answers(asked("10:00"), view, "weather__wind_sum_6h_offset_-6h") == [6.0]


# --- R9 -------------------------------------------------------------------------------------------------------------


def test_a_lag_looks_back_in_events_with_the_revision_known_now():
    view = weather(temps(("a", "10:00", "10:05", 1.0), ("a", "10:00", "11:00", 1.5)), al.lag("temp", "1h"))
    assert answers(asked("11:00"), view, "weather__temp_lag_1h") == [1.5]  # the correction had arrived by 11:00
    assert answers(asked("11:00"), view, "weather__temp_lag_1h", as_of=at("10:59")) == [1.0]


def test_a_lag_without_tolerance_takes_the_newest_event_before_its_point():
    view = weather(hourly(1.0, 2.0), al.lag("temp", "1h"))
    assert answers(asked("11:00", "11:09", "11:10", "10:59"), view, "weather__temp_lag_1h") == [1.0, 1.0, 2.0, None]


def test_a_lag_with_tolerance_zero_asks_for_exactly_that_event():
    view = weather(hourly(1.0, 2.0), al.lag("temp", "1h", "0s"))
    assert answers(asked("11:00", "11:05", "11:10"), view, "weather__temp_lag_1h") == [1.0, None, 2.0]


def test_both_ends_of_a_tolerance_count():
    view = weather(hourly(1.0), al.lag("temp", "1h", "5m"))
    assert answers(asked("11:00", "11:05", "11:05:00.000001"), view, "weather__temp_lag_1h") == [1.0, 1.0, None]


# --- R10 ------------------------------------------------------------------------------------------------------------


def runs(*rows, **dtypes):
    return table("station event_time issue_time arrival_time wind", *rows, **({"wind": pl.Float64} | dtypes))


def test_a_newer_run_that_lacks_the_step_falls_back_to_the_older_run():
    frame = runs(
        ("a", "12:00", "06:00", "06:30", 6.12),
        ("a", "13:00", "06:00", "06:30", 6.13),
        ("a", "12:00", "08:00", "08:30", 8.12),  # the run of 08:00 ends at 12:00
    )
    view = weather(frame, al.forecast("wind", ["3h", "4h"]), kind="forecast")
    assert al.point_in_time_join(asked("09:00"), [view]).row(0)[2:] == (8.12, 6.13)


def test_the_event_is_chosen_before_the_run():
    frame = runs(("a", "12:00", "06:00", "06:30", 6.12), ("a", "11:00", "08:00", "08:30", 8.11))
    view = weather(frame, al.forecast("wind", "3h", "1h"), kind="forecast")
    assert answers(asked("09:00"), view, "weather__wind_forecast_3h") == [
        6.12
    ]  # 12:00 is the greater event, in an older run


def test_both_ends_of_a_lead_count():
    frame = runs(("a", "12:00", "06:00", "06:30", 6.0))
    view = weather(frame, al.forecast("wind", "3h", "1h"), kind="forecast")
    assert answers(asked("09:00", "10:00", "08:59", "10:01"), view, "weather__wind_forecast_3h") == [
        6.0,
        6.0,
        None,
        None,
    ]


def test_min_notice_keeps_out_what_arrived_too_shortly_before_its_event():
    frame = runs(("a", "12:00", "06:00", "06:30", 6.0), ("a", "12:00", "10:00", "10:30", 10.0))
    view = weather(
        frame, al.forecast("wind", "1h", "0s", "2h", name="early"), al.forecast("wind", "1h"), kind="forecast"
    )
    joined = al.point_in_time_join(asked("11:00"), [view])
    assert joined["weather__early"].to_list() == [6.0]  # 10:30 is only an hour and a half ahead of 12:00
    assert joined["weather__wind_forecast_1h"].to_list() == [10.0]


def test_min_notice_exactly_kept_counts():
    frame = runs(("a", "12:00", "09:00", "10:00", 9.0))
    view = weather(frame, al.forecast("wind", "1h", "0s", "2h"), kind="forecast")
    assert answers(asked("11:00"), view, "weather__wind_forecast_1h") == [9.0]


def test_lead_zero_is_the_forecast_for_now():
    frame = runs(("a", "12:00", "06:00", "06:30", 6.0))
    view = weather(frame, al.forecast("wind", "0s"), kind="forecast")
    assert answers(asked("12:00", "12:00:00.000001"), view, "weather__wind_forecast_0s") == [6.0, None]


def test_latest_of_a_forecast_is_the_current_forecast_of_the_last_event_that_is_past():
    frame = runs(
        ("a", "10:00", "06:00", "06:30", 6.0),
        ("a", "10:00", "08:00", "08:30", 8.0),
        ("a", "11:00", "08:00", "08:30", 8.5),
    )
    view = weather(frame, al.latest("wind"), kind="forecast")
    assert answers(asked("10:00", "10:59", "11:00"), view, "weather__wind") == [8.0, 8.0, 8.5]


# --- R11 ------------------------------------------------------------------------------------------------------------


def test_a_sequence_is_oldest_first_and_padded_on_the_left():
    view = weather(hourly(1.0, 2.0), al.sequence("temp", 3))
    joined = al.point_in_time_join(asked("10:00", "10:10"), [view])
    assert joined["weather__temp_sequence_3"].to_list() == [[None, None, 1.0], [None, 1.0, 2.0]]
    assert joined.schema["weather__temp_sequence_3"] == pl.Array(pl.Float64, 3)


def test_a_null_inside_a_sequence_keeps_its_place():
    view = weather(hourly(1.0, None, 3.0), al.sequence("temp", 2))
    assert answers(asked("10:20"), view, "weather__temp_sequence_2") == [[None, 3.0]]


def test_a_sequence_without_events_is_all_padding():
    view = weather(hourly(1.0), al.sequence("temp", 2))
    assert answers(asked("09:00"), view, "weather__temp_sequence_2") == [[None, None]]
    assert statuses(view, "09:00") == ["missing"]


def test_max_span_is_open_at_its_far_end():
    view = weather(hourly(1.0, 2.0, 3.0), al.sequence("temp", 3, max_span="20m"))
    assert answers(asked("10:20"), view, "weather__temp_sequence_3") == [[None, 2.0, 3.0]]  # (10:00, 10:20]


def test_grid_slots_hold_the_last_event_since_the_previous_grid_point():
    frame = temps(
        ("a", "10:01", "10:01", 1.0),
        ("a", "10:10", "10:10", 2.0),
        ("a", "10:11", "10:11", 3.0),
        ("a", "10:29", "10:29", 4.0),
    )
    view = weather(frame, al.sequence("temp", 3, step="10m"))
    # t = 10:35: grid points 10:10, 10:20, 10:30 hold (10:00,10:10] -> 2, (10:10,10:20] -> 3, (10:20,10:30] -> 4.
    assert answers(asked("10:35"), view, "weather__temp_sequence_3_step_10m") == [[2.0, 3.0, 4.0]]
    # t = 10:29:59: the last grid point is 10:20, so the event of 10:29 waits for its slot.
    assert answers(asked("10:29:59"), view, "weather__temp_sequence_3_step_10m") == [[None, 2.0, 3.0]]


def test_the_grid_of_a_zoned_view_starts_at_local_midnight():
    # Berlin, 5 January: midnight is 23:00 UTC of the 4th, so seven-hour steps end at 23:00, 06:00, 13:00 UTC.
    frame = temps(("a", "06:00", "06:00", 1.0), ("a", "06:01", "06:01", 2.0), ("a", "13:00", "13:00", 3.0))
    view = weather(frame, al.sequence("temp", 2, step="7h"), zone="Europe/Berlin")
    assert answers(asked("13:30"), view, "weather__temp_sequence_2_step_7h") == [[1.0, 3.0]]


# --- names and types ------------------------------------------------------------------------------------------------


def test_columns_are_named_after_what_they_are_in_declared_order():
    view = weather(
        hourly(1.0),
        al.latest("temp"),
        al.lag("temp", ["1h", "24h"]),
        al.window("temp", ["mean", "max"], ["1h", "2h"]),
        al.window("temp", "mean", "1h", "24h"),
        al.window("temp", "q90", timedelta(minutes=90)),
        al.lag("temp", timedelta(days=7)),
        al.sequence("temp", 12),
        al.sequence("temp", 12, step="10m"),
        al.event_age(),
        al.arrival_age(),
        al.latest("temp", name="other"),
    )
    assert al.point_in_time_join(asked("10:00"), [view]).columns == [
        "station",
        "prediction_time",
        "weather__temp",
        "weather__temp_lag_1h",
        "weather__temp_lag_24h",
        "weather__temp_mean_1h",
        "weather__temp_max_1h",
        "weather__temp_mean_2h",
        "weather__temp_max_2h",
        "weather__temp_mean_1h_offset_24h",
        "weather__temp_q90_90m",
        "weather__temp_lag_1w",
        "weather__temp_sequence_12",
        "weather__temp_sequence_12_step_10m",
        "weather__event_age",
        "weather__arrival_age",
        "weather__other",
    ]


ANY_TYPE = [
    (pl.String, ["wet", "dry"]),
    (pl.Boolean, [True, False]),
    (pl.Date, [date(2026, 1, 1), date(2026, 1, 2)]),
    (pl.Datetime("us", "UTC"), [at("10:00"), at("11:00")]),
    (pl.Int8, [1, -1]),
    (pl.UInt64, [2**64 - 1, 0]),
    (pl.Float32, [0.5, 0.25]),
    (pl.Decimal(10, 2), ["1.25", "2.50"]),
    (pl.Categorical, ["low", "high"]),
    (pl.Enum(["low", "high"]), ["low", "high"]),
    (pl.Binary, [b"\x00", b"\xff"]),
    (pl.Array(pl.Float32, 3), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    (pl.List(pl.Int64), [[1], [2, 3]]),
    (pl.Struct({"u": pl.Float64, "v": pl.Float64}), [{"u": 1.0, "v": 2.0}, {"u": 3.0, "v": 4.0}]),
    (pl.Duration("us"), [timedelta(1), timedelta(2)]),
]


@pytest.mark.parametrize(("dtype", "values"), ANY_TYPE, ids=lambda case: str(case)[:20])
def test_picking_works_for_every_type(dtype, values):
    column = pl.Series("v", values).cast(dtype) if dtype == pl.Decimal(10, 2) else pl.Series("v", values, dtype=dtype)
    frame = table("station event_time arrival_time", ("a", "10:00", "10:00"), ("a", "10:10", "10:10")).with_columns(
        column
    )
    view = weather(
        frame,
        al.latest("v"),
        al.lag("v", "10m", "0s"),
        al.window("v", ["count", "first", "last"], "1h"),
        al.sequence("v", 3),
    )
    joined = al.point_in_time_join(asked("10:10"), [view])
    first, last = column.to_list()
    assert joined.row(0)[2:] == (last, first, 2, first, last, [None, first, last])
    assert joined.schema["weather__v"] == column.dtype
    assert joined.schema["weather__v_sequence_3"] == pl.Array(column.dtype, 3)
