"""R12: which event a label is, in which revision, and from when it could have been used."""

from __future__ import annotations

import polars as pl
from makers import asked, at, table, temps, weather

import alignment as al


def labelled(frame, *instants, as_of=None, name=None, view=None, **arguments):
    """The three label columns of a data set, as rows."""
    arguments = {"horizon": "20m"} | arguments
    dataset = al.build_dataset(
        asked(*instants),
        [view or weather(frame, al.latest("temp"))],
        label=al.label("temp", **arguments),
        as_of=at(as_of),
    )
    return dataset.frame.select("label", "label_event_time", "label_arrival_time").rows()


def test_the_label_is_the_event_at_the_horizon_and_says_when_it_was_known():
    frame = temps(("a", "10:20", "10:50", 5.0), ("a", "10:30", "10:55", 6.0))
    assert labelled(frame, "10:00", "10:10") == [(5.0, at("10:20"), at("10:50")), (6.0, at("10:30"), at("10:55"))]


def test_without_tolerance_the_event_must_lie_exactly_at_the_horizon():
    frame = temps(("a", "10:20", "10:50", 5.0))
    assert labelled(frame, "10:01") == [(None, None, None)]


def test_with_tolerance_the_greatest_event_in_the_range_wins_both_ends_included():
    frame = temps(("a", "10:15", "10:16", 1.0), ("a", "10:20", "10:21", 2.0))
    got = labelled(frame, "09:59", "10:00", "10:04", "10:05", "10:06", tolerance="5m")
    # ranges: [10:14,10:19] [10:15,10:20] [10:19,10:24] [10:20,10:25] [10:21,10:26]
    assert [value for value, _, _ in got] == [1.0, 2.0, 2.0, 2.0, None]


def test_a_final_label_is_the_revision_current_at_as_of():
    frame = temps(("a", "10:20", "10:50", 5.0), ("a", "10:20", "12:00", 5.5))
    assert labelled(frame, "10:00") == [(5.5, at("10:20"), at("12:00"))]  # as_of: the greatest arrival
    assert labelled(frame, "10:00", as_of="11:59") == [(5.0, at("10:20"), at("10:50"))]


def test_a_retracted_event_is_no_final_label():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:20", "10:50", False, 5.0),
        ("a", "10:20", "12:00", True, None),
    )
    assert labelled(frame, "10:00") == [(None, None, None)]


def test_a_first_label_is_the_first_value_whatever_came_later():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:20", "10:40", True, None),  # a retraction of nothing is no release
        ("a", "10:20", "10:50", False, 5.0),
        ("a", "10:20", "11:00", False, 5.5),
        ("a", "10:20", "12:00", True, None),
    )
    assert labelled(frame, "10:00", release="first") == [(5.0, at("10:20"), at("10:50"))]


def test_a_label_released_after_a_wait_is_what_was_current_then_and_arrives_then():
    frame = temps(("a", "10:20", "10:50", 5.0), ("a", "10:20", "11:20", 5.5), ("a", "10:20", "11:21", 6.0))
    assert labelled(frame, "10:00", release="1h") == [(5.5, at("10:20"), at("11:20"))]  # 11:20 is included
    assert labelled(frame, "10:00", release="59m") == [(5.0, at("10:20"), at("11:19"))]


def test_a_label_that_is_not_released_by_as_of_is_no_label():
    frame = temps(("a", "10:20", "10:50", 5.0))
    assert labelled(frame, "10:00", release="1h", as_of="11:20") == [(5.0, at("10:20"), at("11:20"))]
    assert labelled(frame, "10:00", release="1h", as_of="11:19") == [(None, None, None)]


def quake_labels(*rows, release):
    frame = table("net quake event_time arrival_time mag", *(("us", *row) for row in rows), mag=pl.Float64)
    view = al.FeatureView("q", ["net"], frame, [al.latest("mag")], key=["quake"])
    spine = table("net prediction_time", ("us", "10:00"))
    label = al.label("mag", horizon="20m", release=release)
    return (
        al.build_dataset(spine, [view], label=label, as_of=at("15:00"))
        .frame.select("label", "label_arrival_time")
        .rows()
    )


def test_an_event_that_moves_after_its_release_keeps_the_label_it_was_released_with():
    rows = [("q1", "10:20", "10:30", 4.0), ("q1", "10:25", "12:00", 4.5)]
    assert quake_labels(*rows, release="1h") == [(4.0, at("11:20"))]


def test_an_event_that_moved_away_before_its_release_is_no_label():
    rows = [("q1", "10:20", "10:30", 4.0), ("q1", "09:00", "11:00", 4.5)]  # at 11:20 it is an event of 09:00
    assert quake_labels(*rows, release="1h") == [(None, None)]


def test_a_null_value_is_a_null_label_with_its_instants():
    frame = temps(("a", "10:20", "10:50", None))
    assert labelled(frame, "10:00") == [(None, at("10:20"), at("10:50"))]


def test_labels_look_ahead_of_t_while_features_do_not():
    view = weather(temps(("a", "10:00", "10:00", 1.0), ("a", "10:20", "10:21", 2.0)), al.latest("temp"))
    frame = al.build_dataset(asked("10:00"), [view], label=al.label("temp", horizon="20m")).frame
    assert frame["weather__temp"].to_list() == [1.0]
    assert frame["label"].to_list() == [2.0]


def test_a_label_may_come_from_observations_of_its_own():
    demand = al.Observations(
        table("station event_time arrival_time load_kw", ("a", "10:20", "11:00", 7), load_kw=pl.Int64),
        entities=["station"],
    )
    view = weather(temps(("a", "10:00", "10:00", 1.0)), al.latest("temp"))
    frame = al.build_dataset(
        asked("10:00"), [view], label=al.label("load_kw", horizon="20m", observations=demand)
    ).frame
    assert frame["label"].to_list() == [7]
    assert frame.schema["label"] == pl.Int64


def test_a_label_in_calendar_days_keeps_the_time_of_day():
    # Berlin, Saturday 28 March 2026, 12:00 = 11:00 UTC; one calendar day later 12:00 is 10:00 UTC.
    frame = temps(
        ("a", "2026-03-29T10:00:00", "2026-03-29T10:30:00", 1.0),
        ("a", "2026-03-29T11:00:00", "2026-03-29T11:30:00", 2.0),
    )
    view = weather(frame, al.latest("temp"), zone="Europe/Berlin")
    assert labelled(frame, "2026-03-28T11:00:00", horizon="1d", view=view)[0][0] == 1.0
    assert labelled(frame, "2026-03-28T11:00:00", horizon="24h", view=view)[0][0] == 2.0
