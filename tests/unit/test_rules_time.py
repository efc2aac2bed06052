"""R13, R15: instants, durations, calendar days, arrivals that have to be declared."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from makers import answers, asked, at, table, temps, weather

import alignment as al

BERLIN = "Europe/Berlin"


def sums(zone, length, *events):
    """A view that adds up powers of two, one per event, so that a sum names its events."""
    rows = [("a", event, event, 2.0**place) for place, event in enumerate(events)]
    return weather(temps(*rows), al.window("temp", "sum", length), zone=zone)


# --- calendar days --------------------------------------------------------------------------------------------------


def test_a_day_is_24_hours_without_a_zone_and_a_calendar_day_with_one():
    # Sunday 29 March 2026 has 23 hours in Berlin. t = Sunday 12:00 (10:00 UTC); the day before at 12:00 is 11:00 UTC,
    # 24 hours before is 10:00 UTC.
    events = ("2026-03-28T10:30:00", "2026-03-28T11:30:00")
    t = asked("2026-03-29T10:00:00")
    assert answers(t, sums(None, "1d", *events), "weather__temp_sum_1d") == [3.0]
    assert answers(t, sums(BERLIN, "1d", *events), "weather__temp_sum_1d") == [2.0]
    assert answers(t, sums(BERLIN, "24h", *events), "weather__temp_sum_24h") == [3.0]  # hours are elapsed time anywhere


def test_a_bound_in_the_hour_that_does_not_exist_is_the_transition():
    # t = Monday 30 March 02:30 Berlin (00:30 UTC); Sunday 02:30 does not exist: the bound is 01:00 UTC.
    events = ("2026-03-29T01:00:00", "2026-03-29T01:00:00.000001")
    assert answers(asked("2026-03-30T00:30:00"), sums(BERLIN, "1d", *events), "weather__temp_sum_1d") == [2.0]


def test_a_bound_in_the_doubled_hour_is_its_first_pass():
    # t = Monday 26 October 02:30 Berlin (01:30 UTC); Sunday 02:30 comes twice: the first is 00:30 UTC.
    events = ("2026-10-25T00:30:00", "2026-10-25T00:31:00", "2026-10-25T01:31:00")
    assert answers(asked("2026-10-26T01:30:00"), sums(BERLIN, "1d", *events), "weather__temp_sum_1d") == [6.0]


def test_in_the_second_pass_of_the_doubled_hour_a_bound_does_not_go_back():
    # t = 02:59 first pass (00:59 UTC), then 02:10 second pass (01:10 UTC). The day before: 02:59 is 00:59 UTC; 02:10
    # would be 00:10 UTC, earlier than the bound had been. It stays at the end of the first pass, just before 01:00 UTC.
    events = ("2026-10-24T00:30:00", "2026-10-24T00:59:30", "2026-10-24T01:00:00")
    t = asked("2026-10-25T00:59:00", "2026-10-25T01:10:00")
    assert answers(t, sums(BERLIN, "1d", *events), "weather__temp_sum_1d") == [6.0, 4.0]


def test_a_week_is_seven_calendar_days():
    events = (
        "2026-03-25T11:00:00",
        "2026-03-25T11:00:01",
    )  # t = Wednesday 1 April 12:00 (10:00 UTC), a week before 11:00 UTC
    assert answers(asked("2026-04-01T10:00:00"), sums(BERLIN, "1w", *events), "weather__temp_sum_1w") == [2.0]


def test_a_calendar_lag_finds_the_same_time_of_day():
    view = weather(
        temps(("a", "2026-03-28T11:00:00", "2026-03-28T11:00:00", 1.0)), al.lag("temp", "1d", "0s"), zone=BERLIN
    )
    assert answers(asked("2026-03-29T10:00:00", "2026-03-29T11:00:00"), view, "weather__temp_lag_1d") == [1.0, None]


def test_a_notice_in_calendar_days_follows_the_clock_on_the_wall():
    # The event of Sunday 04:00 summer time (02:00 UTC); a calendar day before it was Saturday 04:00 winter time, 03:00 UTC:
    # the run arrived just then, 23 hours before the event.
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "2026-03-29T02:00:00", "2026-03-28T03:00:00", "2026-03-28T03:00:00", 1.0),
    )
    t = asked("2026-03-29T01:00:00")
    for zone, expected in ((BERLIN, [1.0]), (None, [None])):
        view = weather(frame, al.forecast("wind", "1h", "0s", "1d"), kind="forecast", zone=zone)
        assert answers(t, view, "weather__wind_forecast_1h") == expected


def test_an_age_limit_in_calendar_days_follows_the_clock_on_the_wall():
    view = weather(
        temps(("a", "2026-10-24T10:00:00", "2026-10-24T10:00:00", 1.0)),
        al.latest("temp"),
        zone=BERLIN,
        max_event_age="1d",
    )
    # Saturday 12:00 to Sunday 12:00 is 25 hours that weekend: 11:00 UTC is exactly the limit.
    assert answers(asked("2026-10-25T11:00:00", "2026-10-25T11:00:01"), view, "weather__temp") == [1.0, None]


def test_a_daily_grid_ends_at_local_midnight():
    frame = temps(
        *(
            ("a", event, event, value)
            for event, value in [
                ("2026-10-23T22:00:00", 1.0),  # Saturday 00:00 Berlin
                ("2026-10-24T22:00:00", 2.0),  # Sunday 00:00
                ("2026-10-24T22:00:01", 3.0),
                ("2026-10-25T23:00:00", 4.0),  # Monday 00:00, 25 hours later
            ]
        )
    )
    view = weather(frame, al.sequence("temp", 3, step="1d"), zone=BERLIN)
    assert answers(asked("2026-10-26T12:00:00"), view, "weather__temp_sequence_3_step_1d") == [[1.0, 2.0, 4.0]]


# --- durations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1s", 1),
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("7us", 7e-6),
    ],
)
def test_durations_mean_what_they_say(written, seconds):
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp", max_event_age=written))
    just = at("10:00") + timedelta(seconds=seconds)
    assert answers(asked(just, just + timedelta(microseconds=1)), view, "weather__temp") == [1.0, None]


def test_a_timedelta_is_a_duration_too():
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.lag("temp", timedelta(hours=1)))
    assert answers(asked("11:00"), view, "weather__temp_lag_1h") == [1.0]


# --- instants -------------------------------------------------------------------------------------------------------


def nanoseconds(name, *values):
    base = int(at("10:00").timestamp()) * 1_000_000_000
    return pl.Series(name, [base + value for value in values], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))


def test_nanoseconds_of_arrivals_round_up_and_of_prediction_times_down():
    frame = pl.DataFrame({"station": ["a"], "temp": [1.0]}).with_columns(
        nanoseconds("event_time", 0), nanoseconds("arrival_time", 1)
    )
    spine = pl.DataFrame({"station": ["a"] * 3}).with_columns(nanoseconds("prediction_time", 1, 999, 1000))
    # Known from 10:00:00.000001 on; 999 ns after 10:00 is asked at 10:00:00.000000.
    joined = al.point_in_time_join(spine, [weather(frame, al.latest("temp"))])
    assert joined["weather__temp"].to_list() == [None, None, 1.0]
    assert joined.schema["prediction_time"] == pl.Datetime("ns", "UTC")  # the spine's columns are kept as they are


def test_other_zones_are_the_same_instants():
    tokyo = temps(("a", "10:00", "10:00", 1.0)).with_columns(
        pl.col("event_time", "arrival_time").dt.convert_time_zone("Asia/Tokyo")
    )
    spine = asked("10:00", "09:59").with_columns(pl.col("prediction_time").dt.convert_time_zone("America/New_York"))
    joined = al.point_in_time_join(spine, [weather(tokyo, al.latest("temp"))])
    assert joined["weather__temp"].to_list() == [1.0, None]
    assert joined.schema["prediction_time"] == pl.Datetime("us", "America/New_York")


def test_milliseconds_are_widened():
    frame = temps(("a", "10:00", "10:00:00.5", 1.0)).with_columns(
        pl.col("event_time", "arrival_time").dt.cast_time_unit("ms")
    )
    assert answers(asked("10:00", "10:00:00.5"), weather(frame, al.latest("temp")), "weather__temp") == [None, 1.0]


def test_a_date_as_arrival_is_the_next_local_midnight():
    frame = pl.DataFrame(
        {"station": ["a"], "event_time": [at("10:00")], "arrival_time": [date(2026, 1, 5)], "temp": [1.0]}
    )
    observations = al.Observations(frame, entities=["station"], date_zone=BERLIN)
    view = weather(observations, al.latest("temp"), entities=None)
    assert answers(asked("22:59", "23:00"), view, "weather__temp") == [None, 1.0]  # 6 January 00:00 Berlin is 23:00 UTC


@pytest.mark.parametrize(("means", "known"), [("end", "06 00:00"), ("start", "05 00:00")])
def test_a_date_as_event_says_which_end_of_the_day_it_means(means, known):
    frame = pl.DataFrame(
        {"station": ["a"], "event_time": [date(2026, 1, 5)], "arrival_time": [at("07 00:00")], "temp": [1.0]}
    )
    observations = al.Observations(frame, entities=["station"], date_zone="UTC", date_means=means)
    view = weather(observations, al.event_age(), entities=None)
    age = answers(asked("07 00:00"), view, "weather__event_age")[0]
    assert age == at("07 00:00") - at(known)


# --- arrivals that nobody measured ----------------------------------------------------------------------------------


def test_a_declared_delay_fills_null_arrivals_and_leaves_measured_ones():
    frame = temps(("a", "10:00", None, 1.0), ("a", "10:10", "10:11", 2.0))
    view = weather(frame, al.latest("temp"), delay=al.FixedDelay("45m"))
    assert answers(asked("10:10", "10:11"), view, "weather__temp") == [None, 2.0]
    assert answers(
        asked("10:45"), weather(frame[:1], al.latest("temp"), delay=al.FixedDelay("45m")), "weather__temp"
    ) == [1.0]


def test_a_declared_delay_of_a_forecast_runs_from_its_issue():
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "12:00", "06:00", None, 6.0),
        arrival_time=pl.Datetime("us", "UTC"),
    )
    view = weather(frame, al.forecast("wind", ["5h", "4h"], "1h"), kind="forecast", delay=al.FixedDelay("1h"))
    assert answers(asked("06:59", "07:00"), view, "weather__wind_forecast_5h") == [None, 6.0]


def test_a_publish_schedule_keeps_its_time_of_day_across_both_clock_changes():
    rule = al.PublishSchedule(at="06:00", zone=BERLIN)
    events = pl.DataFrame(
        {
            "event_time": [
                datetime(2026, month, day, 12, tzinfo=UTC) for month, day in [(3, 27), (3, 28), (10, 23), (10, 24)]
            ]
        }
    )
    got = rule.arrival_times(events)
    # 06:00 in Berlin the day after: 05:00 UTC in winter, 04:00 in summer; clocks change on 29 March and 25 October.
    assert got.dt.to_string("%m-%d %H:%M").to_list() == ["03-28 05:00", "03-29 04:00", "10-24 04:00", "10-25 05:00"]


def test_a_publish_schedule_takes_the_event_s_local_day():
    rule = al.PublishSchedule(at="06:00", zone=BERLIN)
    late = pl.DataFrame({"event_time": [datetime(2026, 1, 5, 23, 30, tzinfo=UTC)]})  # 00:30 of the 6th in Berlin
    assert rule.arrival_times(late).to_list() == [datetime(2026, 1, 7, 5, tzinfo=UTC)]


# --- schedules ------------------------------------------------------------------------------------------------------


def test_make_spine_is_half_open_and_entity_major():
    spine = al.make_spine({"station": ["b", "a"]}, at("10:00"), at("10:30"), "10m")
    assert spine["station"].to_list() == ["b"] * 3 + ["a"] * 3
    assert spine["prediction_time"].dt.to_string("%H:%M").to_list() == ["10:00", "10:10", "10:20"] * 2
    assert spine.schema["prediction_time"] == pl.Datetime("us", "UTC")


def test_make_spine_every_day_follows_the_clock_on_the_wall_in_a_zone():
    begin, end = datetime(2026, 3, 27, 11, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
    local = al.make_spine({"station": ["a"]}, begin, end, "1d", zone=BERLIN)["prediction_time"]
    assert local.dt.convert_time_zone(BERLIN).dt.hour().unique().to_list() == [12]
    elapsed = al.make_spine({"station": ["a"]}, begin, end, "1d")["prediction_time"]
    assert elapsed.dt.hour().unique().to_list() == [11]
    assert elapsed.len() == local.len() == 4
