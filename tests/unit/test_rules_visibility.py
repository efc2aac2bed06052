"""R1 to R5: which rows count, which revision is current, what a retraction takes away."""

from __future__ import annotations

import polars as pl
import pytest
from fakes import FrameLog
from makers import answers, asked, at, table, temps, weather

import alignment as al

# --- R1 -------------------------------------------------------------------------------------------------------------


def test_a_row_that_arrives_exactly_at_t_counts():
    view = weather(temps(("a", "10:00", "10:30", 1.0)), al.latest("temp"))
    # 10:29:59.999999 is before the arrival, 10:30 is the arrival itself.
    assert answers(asked("10:29:59.999999", "10:30"), view, "weather__temp") == [None, 1.0]


def test_as_of_hides_what_arrived_later_though_t_is_later_still():
    view = weather(temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:40", 2.0)), al.latest("temp"))
    spine = asked("11:00")
    assert answers(spine, view, "weather__temp") == [2.0]
    assert answers(spine, view, "weather__temp", as_of=at("10:39:59.999999")) == [1.0]
    assert answers(spine, view, "weather__temp", as_of=at("10:40")) == [2.0]  # inclusive


def test_as_of_does_not_move_windows_which_are_measured_from_t():
    view = weather(temps(("a", "10:00", "10:00", 1.0), ("a", "10:30", "10:30", 2.0)), al.window("temp", "sum", "1h"))
    # t = 11:10: the window is (10:10, 11:10] whatever is pretended, so only the second event lies in it.
    assert answers(asked("11:10"), view, "weather__temp_sum_1h", as_of=at("10:45")) == [2.0]


def test_ages_are_measured_from_t_and_not_from_as_of():
    view = weather(temps(("a", "10:00", "10:05", 1.0)), al.event_age(), al.arrival_age())
    frame = al.point_in_time_join(asked("12:00"), [view], as_of=at("10:30"))
    assert frame["weather__event_age"].dt.total_minutes().to_list() == [120]
    assert frame["weather__arrival_age"].dt.total_minutes().to_list() == [115]


def test_a_position_hides_rows_of_the_log_that_came_after_it():
    frame = table(
        "station event_time arrival_time temp log_sequence",
        ("a", "10:00", "10:10", 1.0, 5),
        ("a", "10:00", "10:20", 2.0, 6),
    )
    view = weather(FrameLog(frame, "met", ["station"]), al.latest("temp"))
    spine = asked("11:00")
    assert answers(spine, [view], "weather__temp") == [2.0]
    assert answers(spine, [view], "weather__temp", positions={"weather": 5}) == [1.0]
    assert answers(spine, [view], "weather__temp", positions={"weather": 4}) == [None]


def test_a_frame_with_a_log_sequence_has_positions_too():
    frame = table(
        "station event_time arrival_time temp log_sequence",
        ("a", "10:00", "10:10", 1.0, 5),
        ("a", "10:00", "10:20", 2.0, 6),
    )
    view = weather(frame, al.latest("temp"))
    assert answers(asked("11:00"), view, "weather__temp", positions={"weather": 5}) == [1.0]
    assert answers(asked("11:00"), view, "weather__temp", positions=6) == [2.0]


def test_rows_later_than_as_of_are_provisional():
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"))
    frame = al.point_in_time_join(asked("10:30", "10:31"), [view], as_of=at("10:30"), status=True)
    assert frame["provisional"].to_list() == [False, True]


def test_rows_later_than_what_was_observed_are_provisional():
    frame = temps(("a", "10:00", "10:00", 1.0)).with_columns(log_sequence=pl.lit(0, pl.Int64))
    view = weather(FrameLog(frame, "met", ["station"], through=at("10:30")), al.latest("temp"))
    joined = al.point_in_time_join(asked("10:30", "10:31"), [view], status=True)
    assert joined["provisional"].to_list() == [False, True]
    assert joined["weather__temp"].to_list() == [1.0, 1.0]  # marked, not withheld


# --- R2 -------------------------------------------------------------------------------------------------------------


def test_the_last_revision_to_arrive_is_current_whatever_its_value():
    view = weather(
        temps(("a", "10:00", "10:10", 5.0), ("a", "10:00", "10:20", 3.0), ("a", "10:00", "10:30", 4.0)),
        al.latest("temp"),
    )
    assert answers(asked("10:15", "10:25", "10:35"), view, "weather__temp") == [5.0, 3.0, 4.0]


def test_of_two_revisions_with_one_arrival_the_greater_log_sequence_wins():
    frame = table(
        "station event_time arrival_time temp log_sequence",
        ("a", "10:00", "10:10", 2.0, 8),
        ("a", "10:00", "10:10", 1.0, 7),
    )
    assert answers(asked("10:10"), weather(frame, al.latest("temp")), "weather__temp") == [2.0]


def test_arrival_comes_before_log_sequence():
    frame = table(
        "station event_time arrival_time temp log_sequence",
        ("a", "10:00", "10:20", 1.0, 7),
        ("a", "10:00", "10:10", 2.0, 8),  # later in the log, earlier in arrival (a backfill): superseded at 10:20
    )
    assert answers(asked("10:15", "10:20"), weather(frame, al.latest("temp")), "weather__temp") == [2.0, 1.0]


def test_a_revision_to_null_is_a_value_and_does_not_bring_the_old_one_back():
    view = weather(temps(("a", "10:00", "10:10", 5.0), ("a", "10:00", "10:20", None)), al.latest("temp"))
    frame = al.point_in_time_join(asked("10:25"), [view], status=True)
    assert frame["weather__temp"].to_list() == [None]
    assert frame["weather__temp__status"].to_list() == ["null"]


def test_a_revision_replaces_the_whole_row():
    frame = table(
        "station event_time arrival_time temp wind",
        ("a", "10:00", "10:10", 5.0, 1.0),
        ("a", "10:00", "10:20", 6.0, None),
    )
    view = weather(frame, al.latest("temp"), al.latest("wind"))
    assert al.point_in_time_join(asked("10:30"), [view])["weather__wind"].to_list() == [None]


def runs(*rows):
    return table("station event_time issue_time arrival_time wind", *rows, wind=pl.Float64)


def test_an_old_run_that_arrives_late_does_not_displace_a_newer_one():
    frame = runs(("a", "12:00", "08:00", "08:30", 8.0), ("a", "12:00", "06:00", "09:00", 6.0))
    view = weather(frame, al.forecast("wind", "2h"), kind="forecast")
    assert answers(asked("10:00"), view, "weather__wind_forecast_2h") == [8.0]


def test_a_forecast_without_issue_time_takes_each_arrival_as_its_own_issue():
    frame = table("station event_time arrival_time wind", ("a", "12:00", "08:30", 8.0), ("a", "12:00", "09:00", 9.0))
    view = weather(frame, al.forecast("wind", ["2h", "3h"]), al.issue_age(), kind="forecast")
    joined = al.point_in_time_join(asked("09:00", "10:00"), [view])
    assert joined["weather__wind_forecast_3h"].to_list() == [9.0, None]
    assert joined["weather__wind_forecast_2h"].to_list() == [None, 9.0]
    late = al.point_in_time_join(asked("12:00"), [view])
    assert late["weather__issue_age"].dt.total_minutes().to_list() == [180]  # 12:00 minus the arrival 09:00


# --- R3 -------------------------------------------------------------------------------------------------------------


def withdrawn(*rows):
    return table("station event_time arrival_time is_retraction temp", *rows, temp=pl.Float64)


def test_a_retraction_takes_the_event_away_and_an_earlier_event_shows_again():
    frame = withdrawn(
        ("a", "10:00", "10:05", False, 1.0),
        ("a", "10:10", "10:15", None, 2.0),  # null means false
        ("a", "10:10", "10:30", True, None),
    )
    assert answers(asked("10:29", "10:30"), weather(frame, al.latest("temp")), "weather__temp") == [2.0, 1.0]


def test_a_re_insertion_counts_from_its_own_arrival():
    frame = withdrawn(
        ("a", "10:00", "10:05", False, 1.0),
        ("a", "10:00", "10:20", True, None),
        ("a", "10:00", "10:40", False, 1.5),
    )
    joined = al.point_in_time_join(
        asked("10:19", "10:20", "10:39", "10:40"), [weather(frame, al.latest("temp"))], status=True
    )
    assert joined["weather__temp"].to_list() == [1.0, None, None, 1.5]
    assert joined["weather__temp__status"].to_list() == ["present", "retracted", "retracted", "present"]


def test_a_retraction_of_an_unknown_key_changes_nothing():
    frame = withdrawn(("a", "10:00", "10:05", True, None), ("a", "10:00", "10:20", False, 1.0))
    joined = al.point_in_time_join(asked("10:10", "10:20"), [weather(frame, al.latest("temp"))], status=True)
    assert joined["weather__temp__status"].to_list() == ["missing", "present"]  # never seen is not retracted


def test_null_retracted_and_never_seen_are_three_things():
    frame = withdrawn(
        ("a", "10:00", "10:00", False, None),
        ("b", "10:00", "10:00", False, 1.0),
        ("b", "10:00", "10:10", True, None),
    )
    spine = table("station prediction_time", ("a", "10:30"), ("b", "10:30"), ("c", "10:30"))
    joined = al.point_in_time_join(spine, [weather(frame, al.latest("temp"))], status=True)
    assert joined["weather__temp"].to_list() == [None, None, None]
    assert joined["weather__temp__status"].to_list() == ["null", "retracted", "missing"]


def test_a_retraction_twice_is_a_retraction_once():
    frame = withdrawn(
        ("a", "10:00", "10:00", False, 1.0), ("a", "10:00", "10:10", True, None), ("a", "10:00", "10:20", True, None)
    )
    joined = al.point_in_time_join(asked("10:30"), [weather(frame, al.window("temp", "count", "1h"))], status=True)
    assert joined["weather__temp_count_1h"].to_list() == [0]
    assert joined["weather__temp_count_1h__status"].to_list() == ["retracted"]


def withdrawn_runs(*rows):
    return table("station event_time issue_time arrival_time is_retraction wind", *rows, wind=pl.Float64)


def test_a_withdrawn_issue_shows_the_older_issue_again():
    frame = withdrawn_runs(
        ("a", "12:00", "06:00", "06:30", False, 6.0),
        ("a", "12:00", "08:00", "08:30", False, 8.0),
        ("a", "12:00", "08:00", "09:00", True, None),
    )
    view = weather(frame, al.forecast("wind", "3h"), kind="forecast")
    assert answers(asked("09:00"), view, "weather__wind_forecast_3h") == [6.0]


def test_a_retraction_without_issue_time_withdraws_all_issues_before_it_and_none_after():
    frame = withdrawn_runs(
        ("a", "12:00", "06:00", "06:30", False, 6.0),
        ("a", "12:00", "08:00", "08:30", False, 8.0),
        ("a", "12:00", None, "09:00", True, None),
        ("a", "12:00", "07:00", "10:00", False, 7.0),
    )
    view = weather(frame, al.forecast("wind", ["3h", "2h"]), kind="forecast")
    joined = al.point_in_time_join(asked("09:00", "10:00"), [view], status=True)
    assert joined["weather__wind_forecast_3h__status"].to_list() == ["retracted", "missing"]
    assert joined["weather__wind_forecast_2h"].to_list() == [None, 7.0]


# --- R4 -------------------------------------------------------------------------------------------------------------


def quakes(*rows):
    return table("net quake_id event_time arrival_time is_retraction mag", *rows, mag=pl.Float64)


def quake_view(frame, *features):
    return al.FeatureView("q", ["net"], frame, list(features), key=["quake_id"])


def net(*instants):
    return table("net prediction_time", *(("us", instant) for instant in instants))


def test_with_an_id_an_event_that_moves_leaves_no_orphan():
    frame = quakes(("us", "q1", "10:00", "10:10", False, 4.0), ("us", "q1", "10:20", "10:30", False, 4.2))
    view = quake_view(frame, al.window("mag", ["count", "sum"], "1h"))
    joined = al.point_in_time_join(net("10:15", "10:30"), [view])
    assert joined["q__mag_count_1h"].to_list() == [1, 1]
    assert joined["q__mag_sum_1h"].to_list() == [4.0, 4.2]


def test_an_event_that_moves_back_makes_another_one_the_latest():
    frame = quakes(
        ("us", "q1", "10:20", "10:21", False, 4.0),
        ("us", "q2", "10:10", "10:22", False, 2.0),
        ("us", "q1", "10:05", "10:30", False, 4.5),
    )
    assert answers(net("10:25", "10:30"), quake_view(frame, al.latest("mag")), "q__mag") == [4.0, 2.0]


def test_a_retraction_of_an_id_needs_no_event_time():
    frame = quakes(("us", "q1", "10:00", "10:10", False, 4.0), ("us", "q1", None, "10:30", True, None))
    joined = al.point_in_time_join(net("10:29", "10:30"), [quake_view(frame, al.latest("mag"))], status=True)
    assert joined["q__mag__status"].to_list() == ["present", "retracted"]


def test_events_of_one_instant_are_ordered_by_arrival():
    frame = quakes(("us", "q2", "10:00", "10:10", False, 2.0), ("us", "q1", "10:00", "10:20", False, 1.0))
    view = quake_view(frame, al.latest("mag"), al.window("mag", ["first", "last"], "1h"), al.sequence("mag", 3))
    joined = al.point_in_time_join(net("10:30"), [view])
    assert joined["q__mag"].to_list() == [1.0]  # q1 arrived later
    assert joined["q__mag_first_1h"].to_list() == [2.0]
    assert joined["q__mag_sequence_3"].to_list() == [[None, 2.0, 1.0]]


def test_events_of_one_instant_and_arrival_are_ordered_by_id_without_a_log_sequence():
    frame = quakes(("us", "q2", "10:00", "10:10", False, 2.0), ("us", "q1", "10:00", "10:10", False, 1.0))
    assert answers(net("10:30"), quake_view(frame, al.sequence("mag", 2)), "q__mag_sequence_2") == [[1.0, 2.0]]


def test_events_of_one_instant_and_arrival_are_ordered_by_log_sequence_with_one():
    frame = quakes(("us", "q2", "10:00", "10:10", False, 2.0), ("us", "q1", "10:00", "10:10", False, 1.0))
    frame = frame.with_columns(log_sequence=pl.Series([3, 4], dtype=pl.Int64))
    assert answers(net("10:30"), quake_view(frame, al.sequence("mag", 2)), "q__mag_sequence_2") == [[2.0, 1.0]]


# --- R5 -------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_five_seconds_ahead_is_tolerated_and_the_arrival_raised():
    view = weather(temps(("a", "10:00:05", "10:00", 1.0)), al.latest("temp"), al.arrival_age())
    joined = al.point_in_time_join(asked("10:00:04", "10:00:05", "10:00:15"), [view])
    assert joined["weather__temp"].to_list() == [None, 1.0, 1.0]  # known from its event on, not before
    assert joined["weather__arrival_age"].dt.total_seconds().to_list() == [None, 0, 10]


def test_revisions_raised_to_one_instant_keep_the_order_in_which_they_arrived():
    view = weather(temps(("a", "10:00:05", "10:00:02", 2.0), ("a", "10:00:05", "10:00:01", 1.0)), al.latest("temp"))
    assert answers(asked("10:00:05"), view, "weather__temp") == [2.0]


def test_a_larger_clock_tolerance_is_a_choice():
    view = weather(temps(("a", "10:01", "10:00", 1.0)), al.latest("temp"), clock_tolerance="1m")
    assert answers(asked("10:00:30", "10:01"), view, "weather__temp") == [None, 1.0]


def test_an_early_event_beyond_the_tolerance_raises_and_says_what_to_do():
    view = weather(temps(("a", "10:00", "10:00", 1.0), ("a", "10:00:06", "10:00", 1.0)), al.latest("temp"))
    with pytest.raises(al.EventAfterArrivalError) as caught:
        al.point_in_time_join(asked("11:00"), [view])
    assert str(caught.value) == (
        "the observations of view 'weather': 1 measurements arrived before they happened, first in row 1: "
        "event 2026-01-05T10:00:06+00:00, arrival 2026-01-05T10:00:00+00:00\n"
        "\n"
        'hint: say kind="forecast" if they are forecasts, or raise clock_tolerance (now 5s) if the provider\'s clock is ahead.'
    )
