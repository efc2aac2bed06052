"""Explanations of small cases typed by hand: each reason once, with what took the row's part."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from fakes import FrameLog
from makers import at, table, temps, weather

import alignment as al
from alignment.durations import instant_from_us
from alignment.errors import (
    DefinitionError,
    FeatureError,
    KeyTypeError,
    MissingColumnError,
    NaiveTimeError,
    ViewError,
)
from alignment.explain_report import REASONS
from ingestion import create_log

NAN = float("nan")


def explained(frame, feature, t, *, entity="a", view=None, **arguments):
    """The explanation of one feature of a view of weather."""
    (found,) = al.explain(weather(frame, feature, **(view or {})), entity, at(t), **arguments).features
    return found


def reasons(found):
    """Row to reason, and the row that took its part."""
    return {row["row"]: (row["reason"], row["by"]) for row in found.unused.to_dicts()}


def used(found):
    return found.used["row"].to_list()


# --- reasons ----------------------------------------------------------------------------------------------------------


def test_a_row_that_has_not_arrived_is_told_from_one_that_is_older():
    frame = temps(("a", "09:00", "09:10", 1.0), ("a", "10:00", "10:10", 2.0), ("a", "11:00", "11:10", 3.0))
    found = explained(frame, al.latest("temp"), "11:05")
    assert (found.value, found.status) == (2.0, "present")
    assert used(found) == [1]
    assert reasons(found) == {0: ("older_event", 1), 2: ("not_arrived", None)}


def test_an_arrival_at_t_counts_and_one_microsecond_later_has_not_arrived():
    frame = temps(("a", "10:00", "10:10", 2.0))
    assert used(explained(frame, al.latest("temp"), "10:10")) == [0]
    found = al.explain(weather(frame, al.latest("temp")), "a", at("10:10") - timedelta(microseconds=1)).features[0]
    (row,) = found.to_dict()["unused"]
    assert row["text"] == "had not arrived: it arrived at 2026-01-05 10:10:00Z, 1us after t"


def test_a_revision_names_the_one_that_replaced_it_and_its_number():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:20", 2.0), ("a", "10:00", "12:00", 3.0))
    found = explained(frame, al.latest("temp"), "11:00")
    assert reasons(found) == {0: ("superseded", 1), 2: ("not_arrived", None)}
    assert found.used.select("revision", "revisions").rows() == [(2, 3)]
    told = {row["row"]: row["text"] for row in found.to_dict()["unused"]}
    assert told[0] == "replaced by revision 2: row 1, which arrived at 2026-01-05 10:20:00Z"


def test_a_retraction_and_what_it_takes_away():
    frame = table(
        "station event_time arrival_time temp is_retraction",
        ("a", "09:00", "09:10", 1.0, None),
        ("a", "10:00", "10:10", 2.0, None),
        ("a", "10:00", "10:30", None, True),
    )
    found = explained(frame, al.latest("temp"), "11:00")
    assert (found.value, used(found)) == (1.0, [0])  # the earlier event shows again (R3)
    assert reasons(found) == {1: ("retracted", 2), 2: ("retraction", None)}


def test_the_row_that_is_too_old_is_told_with_its_limit():
    frame = temps(("a", "08:00", "08:10", 1.0), ("a", "09:00", "09:10", 2.0))
    found = explained(frame, al.latest("temp"), "12:00", view={"max_event_age": "2h"})
    assert (found.value, found.status, used(found)) == (None, "expired", [])
    assert reasons(found) == {1: ("expired", None), 0: ("older_event", 1)}
    assert found.declared["max_event_age"] == "2h"  # the view's limit is in force
    told = {row["row"]: row["text"] for row in found.to_dict()["unused"]}
    assert told[1] == "it was picked and is too old: max_event_age is 2h and this is 3h old"


def test_a_window_uses_its_rows_and_tells_the_others_from_them():
    frame = temps(
        ("a", "09:00", "09:10", 1.0),  # exactly length before t: outside
        ("a", "09:30", "09:40", 2.0),
        ("a", "09:45", "09:50", None),
        ("a", "10:00", "10:00", NAN),
    )
    found = explained(frame, al.window("temp", "count", "1h"), "10:00")
    assert (found.value, used(found)) == (2, [1, 3])
    assert reasons(found) == {0: ("outside_window", None), 2: ("null_skipped", None)}
    assert found.event_from == at("09:00") + timedelta(microseconds=1)
    assert found.event_until == at("10:00")


def test_a_window_holds_what_comes_a_microsecond_after_its_start():
    frame = temps(("a", "09:00", "09:00", 1.0), ("a", "09:30", "09:30", 2.0))
    frame = frame.with_columns(pl.col("event_time", "arrival_time") + timedelta(microseconds=1))
    found = explained(frame, al.window("temp", "count", "1h"), "10:00")
    assert (found.value, used(found)) == (2, [0, 1])


def test_the_first_event_that_a_lag_may_take_is_older_and_not_outside():
    frame = temps(("a", "08:30", "08:30", 1.0), ("a", "09:00", "09:00", 2.0))
    found = explained(frame, al.lag("temp", "1h", "30m"), "10:00")
    assert (used(found), reasons(found)) == ([1], {0: ("older_event", 1)})


def test_nulls_are_passed_over_only_where_that_was_asked_for():
    frame = temps(("a", "08:00", "08:00", None), ("a", "09:00", "09:00", 1.0), ("a", "10:00", "10:00", None))
    plain = explained(frame, al.latest("temp"), "11:00")
    assert (plain.status, used(plain)) == ("null", [2])
    found = explained(frame, al.latest("temp", skip_null=True), "11:00")
    assert (found.value, used(found)) == (1.0, [1])
    assert reasons(found) == {2: ("null_skipped", None), 0: ("older_event", 1)}


def test_a_lag_looks_no_later_than_it_says():
    frame = temps(("a", "08:00", "08:00", 1.0), ("a", "09:00", "09:00", 2.0), ("a", "10:00", "10:00", 3.0))
    found = explained(frame, al.lag("temp", "1h", "30m"), "10:00")
    assert (found.value, used(found)) == (2.0, [1])
    assert reasons(found) == {0: ("outside_window", None), 2: ("outside_window", None)}
    told = {row["row"]: row["text"] for row in found.to_dict()["unused"]}
    assert told[2] == "its event is 1h later than the last that counts, 2026-01-05 09:00:00Z"
    assert told[0] == "its event is 30m earlier than the first that counts, 2026-01-05 08:30:00Z"


def test_a_sequence_names_the_event_that_filled_the_slot():
    frame = temps(("a", "09:52", "09:52", 1.0), ("a", "09:58", "09:58", 2.0), ("a", "10:05", "10:05", 3.0))
    found = explained(frame, al.sequence("temp", 2, step="10m"), "10:10")
    assert found.value.to_list() == [2.0, 3.0]
    assert reasons(found) == {0: ("older_event", 1)}


def test_a_grid_begins_after_its_first_point():
    frame = temps(("a", "09:50", "09:50", 1.0), ("a", "10:05", "10:05", 3.0))
    found = explained(frame, al.sequence("temp", 2, step="10m"), "10:10")
    assert found.value.to_list() == [None, 3.0]
    assert reasons(found) == {0: ("outside_window", None)}
    assert found.event_from == at("09:50") + timedelta(microseconds=1)


def test_what_came_after_as_of_takes_no_rows_part():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:20", 2.0), ("a", "10:00", "10:40", 3.0))
    found = explained(frame, al.latest("temp"), "11:00", as_of=at("10:30"))
    assert (used(found), reasons(found)) == ([1], {0: ("superseded", 1), 2: ("after_as_of", None)})


RUNS = table(
    "station event_time issue_time arrival_time temp",
    ("a", "12:00", "06:00", "06:30", 1.0),
    ("a", "12:00", "09:00", "09:30", 2.0),
    ("a", "12:00", "10:00", "11:30", 3.0),
    ("a", "13:00", "09:00", "09:30", 4.0),
)


def test_an_older_run_names_the_newer_one_that_has_the_event():
    found = explained(RUNS, al.forecast("temp", "2h"), "10:00", view={"kind": "forecast"})
    assert (found.value, used(found)) == (2.0, [1])
    assert reasons(found) == {0: ("older_issue", 1), 2: ("not_arrived", None), 3: ("outside_window", None)}


def test_a_run_without_the_notice_asked_for_does_not_count():
    frame = RUNS.with_columns(pl.col("arrival_time").replace(at("11:30"), at("10:30")))
    found = explained(frame, al.forecast("temp", "1h", "30m", "2h"), "11:00", view={"kind": "forecast"})
    assert (found.value, used(found)) == (2.0, [1])
    assert reasons(found)[2] == ("short_notice", None)
    told = {row["row"]: row["text"] for row in found.to_dict()["unused"]}
    assert told[2] == "it arrived 1h 30m before its event, and min_notice is 2h"


def test_a_withdrawal_of_all_issues_is_a_revision_of_none():
    frame = table(
        "station event_time issue_time arrival_time temp is_retraction",
        ("a", "12:00", "06:00", "06:30", 1.0, None),
        ("a", "12:00", None, "07:00", None, True),
        ("a", "12:00", "08:00", "08:30", 2.0, None),
        ("a", "12:00", "09:00", "09:30", 3.0, None),
    )
    found = explained(frame, al.forecast("temp", "2h"), "10:00", view={"kind": "forecast"})
    assert (found.value, used(found)) == (3.0, [3])
    assert reasons(found) == {0: ("retracted", 1), 1: ("retraction", None), 2: ("older_issue", 3)}
    assert found.rows["revision"].to_list() == [1, None, 1, 1]


def test_as_of_and_the_position_have_their_own_reasons():
    frame = temps(("a", "09:00", "09:10", 1.0), ("a", "10:00", "10:10", 2.0), ("a", "11:00", "11:10", 3.0))
    frame = frame.with_columns(log_sequence=pl.Series([5, 6, 7]))
    found = explained(frame, al.latest("temp"), "12:00", as_of=at("10:30"), position=5)
    assert (found.value, used(found)) == (1.0, [0])
    assert reasons(found) == {1: ("beyond_position", None), 2: ("after_as_of", None)}
    told = {row["row"]: row["text"] for row in found.to_dict()["unused"]}
    assert told[1] == "its log_sequence 6 lies beyond the position 5"
    assert told[2] == "arrived at 2026-01-05 11:10:00Z, 40m after as_of"


def test_naive_at_a_position_names_the_rows_up_to_it():
    frame = temps(("a", "11:00", "11:10", 3.0), ("a", "09:00", "09:10", 1.0), ("a", "10:00", "10:10", 2.0))
    frame = frame.with_columns(log_sequence=pl.Series([7, 5, 6]))
    naive = explained(frame, al.latest("temp"), "10:05", position=6).naive
    assert (naive.value, naive.rows["row"].to_list(), naive.read_at) == (2.0, [2], at("10:10"))


def test_a_retraction_that_repeats_one_is_still_a_retraction():
    frame = table(
        "station event_time arrival_time temp is_retraction",
        ("a", "10:00", "10:10", 2.0, None),
        ("a", "10:00", "10:30", None, True),
        ("a", "10:00", "10:40", None, True),
    )
    found = explained(frame, al.latest("temp"), "11:00")
    assert (found.value, found.status) == (None, "retracted")
    assert reasons(found) == {0: ("retracted", 2), 1: ("retraction", None), 2: ("retraction", None)}


def test_an_id_whose_event_moved_is_one_key():
    frame = table(
        "station ident event_time arrival_time temp",
        ("a", "q", "09:00", "09:10", 1.0),
        ("a", "q", "08:30", "09:30", 2.0),
    )
    found = explained(frame, al.latest("temp"), "10:00", view={"key": ["ident"]})
    assert (found.value, used(found)) == (2.0, [1])
    assert reasons(found) == {0: ("superseded", 1)}


def test_ages_are_those_of_the_row_they_tell_even_when_it_is_expired():
    found = explained(temps(("a", "09:00", "09:10", 1.0)), al.event_age(), "12:00", view={"max_event_age": "1h"})
    assert (found.value, used(found)) == (timedelta(hours=3), [0])
    assert found.to_dict()["value"] == 10_800.0


# --- who and when -----------------------------------------------------------------------------------------------------


def test_an_entity_is_a_value_a_tuple_or_a_mapping():
    frame = table(
        "station sensor event_time arrival_time temp",
        ("a", 1, "09:00", "09:10", 1.0),
        ("a", 2, "09:00", "09:10", 2.0),
        sensor=pl.Int32,
    )
    view = weather(frame, al.latest("temp"), entities=["station", "sensor"], entity_map={"site": "station"})
    for entity in (("a", 2), {"site": "a", "sensor": 2}, {"sensor": 2, "station": "a"}):
        found = al.explain(view, entity, at("10:00"))["weather__temp"]
        assert (found.value, found.rows["row"].to_list()) == (2.0, [1])
    assert al.explain(view, ("a", None), at("10:00"))["weather__temp"].status == "missing"


def test_one_series_needs_no_entity():
    frame = temps(("a", "09:00", "09:10", 1.0)).drop("station")
    for entity in (None, (), {}):
        assert al.explain(weather(frame, al.latest("temp"), entities=[]), entity, at("10:00")).features[0].value == 1.0


def test_one_series_has_no_entity_to_name():
    frame = temps(("a", "09:00", "09:10", 1.0)).drop("station")
    with pytest.raises(DefinitionError, match="entity='a' names one, and the views have no entity columns"):
        al.explain(weather(frame, al.latest("temp"), entities=[]), "a", at("10:00"))


def test_several_views_and_some_features():
    frame = temps(("a", "09:00", "09:10", 1.0))
    one = weather(frame, al.latest("temp"), al.event_age())
    other = al.FeatureView("tides", ["station"], frame, [al.latest("temp")])
    assert [found.feature for found in al.explain([one, other], "a", at("10:00")).features] == [
        "weather__temp",
        "weather__event_age",
        "tides__temp",
    ]
    some = al.explain([one, other], "a", at("10:00"), features=["tides__temp", "event_age"])
    assert [found.feature for found in some.features] == ["weather__event_age", "tides__temp"]
    with pytest.raises(KeyError, match="'weather__temp': the features are weather__event_age, tides__temp"):
        some["weather__temp"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"entity": ("a", "b")}, DefinitionError, "2 values, and the entity columns are"),
        ({"entity": {"place": "a"}}, MissingColumnError, "'station'"),
        ({"entity": 7}, KeyTypeError, "7 is none"),
        ({"t": datetime(2026, 1, 5)}, NaiveTimeError, "t="),  # noqa: DTZ001 - what is refused
        ({"as_of": datetime(2026, 1, 5)}, NaiveTimeError, "as_of="),  # noqa: DTZ001
        ({"t": "10:00"}, DefinitionError, "is not an instant"),
        ({"entity": ()}, DefinitionError, "0 values, and the entity columns are"),
        ({"features": "humidity"}, FeatureError, "choose from weather__temp"),
        ({"features": ["temp", ["temp"]]}, FeatureError, "there is no feature"),
        (
            {"features": 5},
            FeatureError,
            "features=5 names no feature\n\nhint: leave it out for all, or choose from weather__temp",
        ),
        ({"features": []}, FeatureError, "names no feature"),
        ({"position": 3}, ViewError, "no position"),
        ({"position": {"tides": 3}}, ViewError, "no view"),
    ],
)
def test_what_cannot_be_explained_is_refused(arguments, error, words):
    asked = {"entity": "a", "t": at("10:00")} | arguments
    with pytest.raises(error, match=words):
        al.explain(
            weather(temps(("a", "09:00", "09:10", 1.0)), al.latest("temp")),
            asked.pop("entity"),
            asked.pop("t"),
            **asked,
        )


NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dtype", "held", "same", "refused"),
    [
        (pl.Int8, 1, [1], [True, "1", 1.0, 300]),
        (pl.UInt64, 1, [1], [True, -1]),
        (pl.Float32, 1.5, [1.5], ["1.5", 1]),
        (pl.Boolean, True, [True], [1, "true"]),
        (pl.String, "1", ["1"], [1, ["1"]]),
        (pl.Enum(["1", "2"]), "1", ["1"], [1, "9"]),
        (pl.Decimal(10, 2), Decimal("1.50"), [Decimal("1.5")], [1.5, "1.5"]),
        (pl.Duration("ms"), timedelta(1), [timedelta(1)], [1, "1d"]),
        (pl.Date, NOON.date(), [NOON.date()], [NOON, "2026-01-05"]),
        (pl.Datetime("ms", "Asia/Tokyo"), NOON, [NOON, NOON.astimezone(timezone(timedelta(hours=5)))], ["2026-01-05"]),
        (pl.Datetime("us"), NOON.replace(tzinfo=None), [NOON.replace(tzinfo=None)], [NOON]),
    ],
)
def test_an_entity_is_compared_as_a_join_compares_it(dtype, held, same, refused):
    frame = temps(("a", "09:00", "09:10", 1.0)).with_columns(station=pl.Series([held], dtype=dtype))
    view = weather(frame, al.latest("temp"))
    assert [al.explain(view, {"station": one}, at("10:00")).features[0].value for one in same] == [1.0] * len(same)
    for one in refused:
        with pytest.raises(KeyTypeError, match="is none"):
            al.explain(view, {"station": one}, at("10:00"))


def test_an_entity_that_is_an_instant_needs_a_zone():
    frame = temps(("a", "09:00", "09:10", 1.0)).with_columns(station=pl.Series([NOON]))
    with pytest.raises(NaiveTimeError, match="'station' has no time zone"):
        al.explain(weather(frame, al.latest("temp")), NOON.replace(tzinfo=None), at("10:00"))


def test_an_instant_of_another_zone_is_the_same_instant():
    view = weather(temps(("a", "09:00", "09:10", 1.0)), al.latest("temp"))
    there = at("09:30").astimezone(datetime.fromisoformat("2026-01-05T10:30:00+05:00").tzinfo)
    assert al.explain(view, "a", there).to_dict() == al.explain(view, "a", at("09:30")).to_dict()


def test_what_comes_later_may_contradict_itself_without_harm():
    # Two rows of one key and arrival are refused by a join that sees them; at t nobody does.
    frame = temps(("a", "09:00", "09:10", 1.0), ("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:10", 2.0))
    assert used(explained(frame, al.latest("temp"), "09:30")) == [0]


# --- beyond what Python can write -------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_log", [False, True])
def test_an_arrival_beyond_year_9999_is_explained(as_log):
    frame = temps(("a", "10:00", "10:10", 1.0)).with_columns(log_sequence=pl.Series([0]))
    rows = FrameLog(frame, "weather", ["station"]) if as_log else frame
    never = {"weather": al.FixedDelay("8000000d")}  # 21,900 years
    found = al.explain(al.transform_arrivals(weather(rows, al.latest("temp")), delays=never), "a", at("11:00"))
    (feature,) = found.to_dict()["features"]
    (row,) = feature["unused"]
    assert row["arrival_time"] == "9999-12-31T23:59:59.999999+00:00"
    assert row["text"] == ("had not arrived: it arrived at the end of year 9999 or later (given 2026-01-05 10:10:00Z)")
    assert (feature["naive"]["value"], feature["naive"]["read_at"]) == (1.0, row["arrival_time"])
    assert "the end of year 9999 or later" in found.to_html()


def test_a_revision_that_was_replaced_names_the_one_that_did_by_the_limits_of_the_years():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "10:20", 2.0), ("a", "10:00", "10:30", 3.0))
    frame = frame.with_columns(
        arrival_time=pl.Series([at("10:10"), at("10:20"), None]).fill_null(
            pl.lit(1 << 60).cast(pl.Datetime("us", "UTC"))
        )
    )
    told = {row["row"]: row["text"] for row in explained(frame, al.latest("temp"), "11:00").to_dict()["unused"]}
    assert told == {
        0: "replaced by revision 2: row 1, which arrived at 2026-01-05 10:20:00Z",
        2: "had not arrived: it arrived at the end of year 9999 or later",
    }


@pytest.mark.parametrize("as_log", [False, True])
def test_the_first_instant_there_is_has_nothing_before_it(as_log):
    frame = temps(("a", "10:00", "10:10", 1.0)).with_columns(log_sequence=pl.Series([0]))
    view = weather(
        FrameLog(frame, "weather", ["station"]) if as_log else frame,
        al.window("temp", "count", "1h"),
        al.lag("temp", "1d", "1h"),
        al.sequence("temp", 2, step="1h"),
    )
    found = al.explain(view, "a", datetime(1, 1, 1, tzinfo=UTC))
    assert [(one.status, one.unused_counts) for one in found.features] == [("missing", {"not_arrived": 1})] * 3
    assert [one.event_from for one in found.features] == [datetime(1, 1, 1, tzinfo=UTC)] * 3
    assert "events after the start of year 1 or earlier until the start of year 1 or earlier" in str(found)


def test_an_instant_that_cannot_be_written_is_refused_with_its_number():
    assert instant_from_us(253_402_300_799_999_999) == datetime.max.replace(tzinfo=UTC)
    with pytest.raises(
        DefinitionError, match="the instant 253402300800000000 microseconds after 1970-01-01 is outside"
    ):
        instant_from_us(253_402_300_800_000_000)


# --- naive ------------------------------------------------------------------------------------------------------------


def test_naive_is_the_last_revision_visible_from_its_event():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 2.0), ("a", "11:00", "20:00", 2.5))
    naive = explained(frame, al.latest("temp"), "11:00").naive
    assert (naive.value, naive.rows["row"].to_list(), naive.read_at) == (2.5, [2], at("20:00"))
    naive = explained(frame, al.latest("temp"), "11:00", as_of=at("12:00")).naive
    assert (naive.value, naive.rows["row"].to_list(), naive.read_at) == (2.0, [1], at("12:00"))


def test_naive_that_gives_the_same_says_so():
    told = explained(temps(("a", "10:00", "10:10", NAN)), al.latest("temp"), "11:00").to_dict()
    assert told["naive"]["differs"] is False
    assert told["value"] == "NaN"


# --- plain data -------------------------------------------------------------------------------------------------------

ROW = {
    "provider": "weather",
    "row": 0,
    "log_sequence": None,
    "event_time": "2026-01-05T10:00:00+00:00",
    "issue_time": None,
    "published_time": None,
    "received_time": None,
    "arrival_time": "2026-01-05T10:10:00+00:00",
    "given_arrival_time": None,
    "arrival_kind": None,
    "is_retraction": False,
    "revision": 1,
    "revisions": 1,
    "event_age": 1800.0,
    "arrival_age": 1200.0,
    "issue_age": None,
    "value": 1.5,
}


def test_the_plain_data_are_as_documented():
    frame = temps(("a", "10:00", "10:10", 1.5), ("a", "10:20", "10:40", 2.5))
    found = al.explain(weather(frame, al.latest("temp")), "a", at("10:30")).to_dict()
    late = ROW | {
        "row": 1,
        "event_time": "2026-01-05T10:20:00+00:00",
        "arrival_time": "2026-01-05T10:40:00+00:00",
        "event_age": 600.0,
        "arrival_age": -600.0,
        "value": 2.5,
    }
    text = "had not arrived: it arrived at 2026-01-05 10:40:00Z, 10m after t"
    assert found == {
        "entity": {"station": "a"},
        "t": "2026-01-05T10:30:00+00:00",
        "as_of": None,
        "provisional": False,
        "under": [],
        "notes": [],
        "features": [
            {
                "feature": "weather__temp",
                "view": "weather",
                "provider": "weather",
                "kind": "measurement",
                "declared": {"feature": "latest", "name": "temp", "column": "temp", "skip_null": False},
                "value": 1.5,
                "type": "Float64",
                "status": "present",
                "position": None,
                "event_from": None,
                "event_until": "2026-01-05T10:30:00+00:00",
                "used": [ROW],
                "used_count": 1,
                "unused": [late | {"reason": "not_arrived", "by": None, "text": text}],
                "unused_counts": {"not_arrived": 1},
                "naive": {
                    "value": 2.5,
                    "status": "present",
                    "differs": True,
                    "read_at": "2026-01-05T10:40:00+00:00",
                    "rows": [late],
                    "row_count": 1,
                },
            }
        ],
    }
    json.dumps(found, allow_nan=False)


def test_rows_are_bounded_and_the_nearest_are_shown():
    rows = [("a", f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}", 1.0) for hour in range(24) for minute in (0, 30)]
    found = explained(temps(*rows), al.window("temp", "sum", "4h"), "12:00")
    told = found.to_dict(used=2, unused=1)
    assert [row["row"] for row in told["used"]] == [23, 24]  # the newest: 11:30 and 12:00
    assert told["used_count"] == 8
    assert {row["reason"]: row["row"] for row in told["unused"]} == {"not_arrived": 25, "outside_window": 16}
    assert told["unused_counts"] == {"not_arrived": 23, "outside_window": 17}
    assert len(found.to_dict(used=None, unused=None)["unused"]) == 40


def test_of_revisions_that_came_later_the_soonest_is_shown_and_of_those_that_were_there_the_last():
    rows = [("a", "10:00", f"{hour}:00", float(hour)) for hour in range(10, 20)]
    found = explained(temps(*rows), al.latest("temp"), "14:30")
    assert [(row["reason"], row["arrival_time"][11:16]) for row in found.to_dict(unused=1)["unused"]] == [
        ("not_arrived", "15:00"),
        ("superseded", "13:00"),
    ]


@pytest.mark.parametrize(
    ("dtype", "value", "plain"),
    [
        (pl.Float64, float("-inf"), "-Infinity"),
        (pl.Boolean, True, True),
        (pl.Binary, b"\x00\x01", "AAE="),
        (pl.Datetime("us", "UTC"), datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (pl.Array(pl.Float32, 2), [1.0, 2.0], [1.0, 2.0]),
        (pl.Struct({"u": pl.Int8}), {"u": 1}, {"u": 1}),
        (pl.Decimal(10, 2), 1, "1.00"),
    ],
)
def test_values_of_every_type_become_plain(dtype, value, plain):
    frame = temps(("a", "10:00", "10:10", 0.0)).with_columns(temp=pl.Series([value], dtype=dtype))
    found = al.explain(weather(frame, al.latest("temp")), "a", at("11:00"))
    told = found.to_dict()["features"][0]
    assert told["value"] == plain
    assert told["used"][0]["value"] == plain
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert "weather__temp" in str(found)


# --- logs -------------------------------------------------------------------------------------------------------------


def clock_at(*instants):
    """A clock that shows these instants, one a batch."""
    return lambda: instants[0]


def test_a_log_says_when_rows_were_received_and_what_it_set_aside(tmp_path):
    log = create_log(str(tmp_path), "station_feed", entities=["station"])
    rows = table(
        "station event_time received_time arrival_time temp",
        ("a", "10:00", at("10:05"), "10:10", 1.5),
        ("b", "10:00", at("10:05"), "10:10", 7.5),
    )
    log.append(rows)
    log.append(rows.head(1).with_columns(temp=2.5, arrival_time=pl.lit(at("10:40"))))
    columns = "station event_time received_time arrival_time temp"
    log.append(table(columns, ("a", "23:00", at("10:05"), "10:10", 9.9)))  # arrived before it happened
    found = al.explain(weather(log, al.latest("temp"), entities=None), "a", at("10:30"))["weather__temp"]
    assert (found.value, found.provider, found.position) == (1.5, "station_feed", log.position())
    told = found.to_dict()
    (row,) = told["used"]
    assert row["row"] == row["log_sequence"]
    assert row["received_time"] == "2026-01-05T10:05:00+00:00"
    assert row["arrival_kind"] == "measured"
    assert told["unused_counts"] == {"not_arrived": 1, "quarantined": 1}
    aside = told["unused"][-1]
    assert aside["reason"] == "quarantined"
    assert aside["event_time"].startswith("2026-01-05T23:00:00")
    assert aside["text"].startswith("set aside when it was received: ")
    assert set(aside) == set(told["unused"][0])
    other = al.explain(weather(log, al.latest("temp"), entities=None), "b", at("10:30"))["weather__temp"]
    assert "quarantined" not in other.unused_counts


def test_what_was_set_aside_later_is_not_known_yet(tmp_path):
    log = create_log(str(tmp_path), "station_feed", entities=["station"], clock=clock_at(at("13:00")))
    log.append(table("station event_time temp", ("a", "23:00", 9.9)))  # it says that it happens ten hours later
    view = weather(log, al.latest("temp"), entities=None)
    before = at("13:00") - timedelta(microseconds=1)
    known = {"quarantined": 1}
    for t, as_of, counts in (
        (at("13:00"), None, known),
        (at("14:00"), at("13:00"), known),
        (at("12:10"), None, {}),
        (before, at("14:00"), {}),
        (at("14:00"), before, {}),
    ):
        assert al.explain(view, "a", t, as_of=as_of).features[0].unused_counts == counts


def test_a_log_at_a_position_has_its_arrivals_of_that_position():
    frame = temps(("a", "09:00", "09:10", 1.0), ("a", "10:00", "10:10", 2.0)).with_columns(
        log_sequence=pl.Series([0, 1])
    )
    log = FrameLog(frame, "feed", ["station"], since={"temp": 1})
    view = weather(log, al.latest("temp"), entities=None)
    found = al.explain(view, "a", at("11:00"), position=0)["weather__temp"]
    assert (found.value, found.status, used(found)) == (1.0, "missing", [0])  # older than the column (as the join says)
    assert reasons(found) == {1: ("beyond_position", None)}
    joined = al.point_in_time_join(
        pl.DataFrame({"station": ["a"], "prediction_time": [at("11:00")]}), view, status=True, positions=0
    )
    assert joined.select("weather__temp", "weather__temp__status").row(0) == (found.value, found.status)


def test_moved_arrivals_are_shown_beside_those_that_were_given():
    frame = temps(("a", "10:00", "10:10", 1.0)).with_columns(log_sequence=pl.Series([0]))
    for rows in (frame, FrameLog(frame, "weather", ["station"])):
        (view,) = al.transform_arrivals(
            weather(rows, al.latest("temp")), outages=[al.Outage("weather", at("10:00"), at("12:00"))]
        )
        told = al.explain(view, "a", at("11:00")).to_dict()["features"][0]
        (row,) = told["unused"]
        assert (row["reason"], row["arrival_kind"]) == ("not_arrived", "modelled")
        assert row["arrival_time"] == "2026-01-05T12:00:00+00:00"
        assert row["given_arrival_time"] == "2026-01-05T10:10:00+00:00"


def test_every_reason_has_words_and_a_number():
    assert len(REASONS) < 255
    assert all(words and not words.endswith(".") for words in REASONS.values())
