"""Replay, moved arrivals and training sets under outages, on cases that can be checked by hand."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from fakes import FrameLog, PolledLog

import alignment as al
from alignment.heartbeats import heartbeats_of


def at(hour: int, minute: int = 0, day: int = 5) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def readings(*rows: tuple[str, datetime, datetime, float]) -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema=["station", "event_time", "arrival_time", "temp"], orient="row", infer_schema_length=None
    )


HOURLY = readings(
    *(("a", at(hour), at(hour, 20), float(hour)) for hour in range(8, 14)),
    *(("b", at(hour), at(hour, 30), 10.0 * hour) for hour in range(8, 14)),
)


def weather(frame: pl.DataFrame = HOURLY, **more: object) -> al.FeatureView:
    return al.FeatureView("weather", ["station"], frame, [al.latest("temp")], **more)


def temps(replayed: pl.DataFrame, station: str = "a") -> list[float | None]:
    return replayed.filter(pl.col("station") == station)["weather__temp"].to_list()


STATIONS = {"station": ["a", "b"]}


def test_a_replay_gives_what_had_arrived_by_each_tick_with_status_and_ages():
    replayed = al.replay(weather(), STATIONS, at(8), at(10, 30), "30m")
    assert replayed.columns == [
        "station",
        "prediction_time",
        "weather__temp",
        "weather__temp__status",
        "provisional",
        "weather__event_age",
        "weather__arrival_age",
    ]
    assert temps(replayed) == [None, 8.0, 8.0, 9.0, 9.0]
    assert temps(replayed, "b") == [None, 80.0, 80.0, 90.0, 90.0]  # b arrives at half past, inclusive (R1)
    minutes = replayed["weather__event_age"].dt.total_minutes().to_list()
    assert minutes == [None, 30, 60, 30, 60] * 2
    assert replayed["weather__arrival_age"].dt.total_minutes().to_list()[:5] == [None, 10, 40, 10, 40]


def test_values_are_of_the_one_entity_column_that_the_views_have():
    named = al.replay(weather(), ["a", "b"], at(8), at(10), "1h", entity="station")
    assert al.replay(weather(), ["a", "b"], at(8), at(10), "1h").equals(named)
    assert named.columns[0] == "station"
    with pytest.raises(al.MissingColumnError, match="the entities have no column 'station'"):
        al.replay(weather(), ["a"], at(8), at(10), "1h", entity="site")


@pytest.mark.parametrize(
    ("entities", "every", "problem"),
    [
        ("a", "1h", "entities='a' is one value, not a list of them, and no path of a Parquet file"),
        (["a"], 600, "every=600 is neither a duration nor times of day"),
        (["a"], None, "every=None is neither a duration nor times of day"),
    ],
)
def test_what_is_no_list_and_no_schedule_is_said(entities, every, problem):
    with pytest.raises(al.DefinitionError, match=re.escape(problem)):
        al.replay(weather(), entities, at(8), at(10), every)


def test_batches_are_the_replay_cut_into_pieces():
    whole = al.replay(weather(), STATIONS, at(8), at(14), "10m")
    for size in (1, 7, 36, 50, 1000):
        parts = list(al.replay_batches(weather(), STATIONS, at(8), at(14), "10m", batch_rows=size))
        assert pl.concat(parts).equals(whole)
        assert max(part.height for part in parts) <= max(36, size) if size >= 36 else size


def test_without_ticks_or_entities_there_are_the_columns_and_no_rows():
    whole = al.replay(weather(), STATIONS, at(8), at(9), "30m")
    for empty in (
        al.replay(weather(), STATIONS, at(8), at(8), "30m"),
        al.replay(weather(), {"station": pl.Series([], dtype=pl.String)}, at(8), at(9), "30m"),
    ):
        assert empty.height == 0
        assert empty.schema == whole.schema


def test_ticks_stand_at_times_of_day_on_the_wall_clock():
    # Clocks go forward on 29 March 2026: 06:00 in Berlin is 05:00 UTC before and 04:00 UTC from then on.
    spine = al.make_spine(
        [], datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC), ["18:00", "06:00"], "Europe/Berlin"
    )
    hours = [(t.day, t.hour) for t in spine["prediction_time"]]
    assert hours == [(28, 5), (28, 17), (29, 4), (29, 16)]


def test_times_of_day_need_a_zone():
    with pytest.raises(al.DefinitionError) as error:
        al.make_spine([], at(8), at(9), ["06:00"])
    assert str(error.value) == (
        "every=['06:00'] are times of day, and no zone says on which clock\n\n"
        'hint: name it, e.g. zone="Europe/Berlin" or zone="UTC".'
    )


def test_rows_held_up_by_an_outage_arrive_together_at_its_end():
    outage = al.Outage("weather", at(9, 10), at(11, 40))
    replayed = al.replay(weather(), STATIONS, at(9), at(12), "30m", outages=[outage])
    assert temps(replayed) == [8.0, 8.0, 8.0, 8.0, 8.0, 8.0]  # 11:30 is the last tick; all comes at 11:40
    replayed = al.replay(weather(), STATIONS, at(11, 39), at(11, 42), "1m", outages=[outage])
    assert temps(replayed) == [8.0, 11.0, 11.0]


def test_lost_rows_never_arrive_and_other_entities_are_not_concerned():
    outage = al.Outage("weather", at(9, 20), at(11, 20), lost=True, entities=["a"])
    replayed = al.replay(weather(), STATIONS, at(11), at(13), "30m", outages=[outage])
    assert temps(replayed) == [8.0, 11.0, 11.0, 12.0]  # what comes at its end comes; what came at its start is lost
    assert temps(replayed, "b") == [100.0, 110.0, 110.0, 120.0]


def test_a_slow_provider_takes_a_multiple_of_its_delay():
    outage = al.Outage("weather", at(9, 20), at(9, 21), slow=3.0)  # only a's 09:00, on its way for 20 minutes
    replayed = al.replay(weather(), {"station": ["a"]}, at(9, 59), at(10, 2), "1m", outages=[outage])
    assert temps(replayed) == [8.0, 9.0, 9.0]


def test_a_run_that_came_before_its_issue_is_not_quicker_while_its_provider_is_slow():
    run = {"station": "a", "event_time": at(12), "issue_time": at(10), "arrival_time": at(9, 40), "wind": 5.0}
    view = al.FeatureView("wind", ["station"], pl.DataFrame([run]), [al.forecast("wind", "1h")], kind="forecast")
    moved = al.transform_arrivals(view, outages=[al.Outage("wind", at(9), at(11), slow=3.0)])[0]
    assert moved.observations.lazy().collect()["arrival_time"].to_list() == [at(9, 40)]


def test_what_withdraws_all_issues_stays_behind_those_that_came_before_it():
    run = {"station": "a", "event_time": at(12), "issue_time": at(8), "arrival_time": at(10), "wind": 5.0}
    withdrawn = run | {"issue_time": None, "arrival_time": at(10, 5), "wind": None, "is_retraction": True}
    frame = pl.DataFrame([run | {"is_retraction": False}, withdrawn])
    view = al.FeatureView("wind", ["station"], frame, [al.forecast("wind", "1h")], kind="forecast")
    slow = al.Outage("wind", at(10), at(11), slow=3.0)  # the run takes 6 hours, of the withdrawal no delay is known
    view = al.transform_arrivals(view, outages=[slow])[0]
    assert view.observations.lazy().collect()["arrival_time"].to_list() == [at(14), at(14)]


def test_a_catch_up_that_ends_within_the_next_outage_waits_for_its_end():
    outages = [al.Outage("weather", at(11), at(12)), al.Outage("weather", at(9), at(11, 30))]
    replayed = al.replay(weather(), {"station": ["a"]}, at(11, 29), at(12, 1), "31m", outages=outages)
    assert temps(replayed) == [8.0, 11.0]


def test_a_delay_rule_moves_the_first_revision_and_the_others_keep_their_distance():
    frame = readings(("a", at(8), at(8, 20), 1.0), ("a", at(8), at(9, 20), 2.0))
    moved = al.transform_arrivals(weather(frame), delays={"weather": al.FixedDelay("5m")})
    spine = al.make_spine({"station": ["a"]}, at(8, 4), at(9, 6), "1m")
    found = al.point_in_time_join(spine, moved)["weather__temp"].to_list()
    assert found == [None] + 60 * [1.0] + [2.0]


def test_rows_above_the_position_have_no_say_in_how_others_move():
    frame = readings(("a", at(8), at(8, 20), 1.0), ("a", at(8), at(8, 10), 2.0)).with_columns(
        log_sequence=pl.Series([0, 1], dtype=pl.Int64)
    )
    view = weather(FrameLog(frame, "mast", ["station"], "measurement", None))
    rows = al.transform_arrivals(view, delays={"mast": al.FixedDelay("5m")})[0].observations
    # Row 1 came into the log later and is said to have arrived earlier: with it, row 0 is a second revision.
    assert rows.lazy(position=0).collect()["arrival_time"].to_list() == [at(8, 5)]
    assert rows.lazy(position=1).sort("log_sequence").collect()["arrival_time"].to_list() == [at(8, 15), at(8, 5)]


def test_shifted_rows_arrive_no_earlier_than_they_happened():
    frame = readings(("a", at(8), at(8, 20), 1.0))
    moved = al.transform_arrivals(weather(frame), delays={"weather": al.ShiftedDelay("-1h")})
    assert moved[0].observations.lazy().collect()["arrival_time"].to_list() == [at(8)]


def test_moved_rows_are_marked_and_keep_the_arrival_that_they_had():
    moved = al.transform_arrivals(weather(), outages=[al.Outage("weather", at(9, 10), at(9, 25))])[0]
    rows = moved.observations.lazy().collect().filter(station="a").sort("event_time")
    assert rows["arrival_kind"].to_list() == ["measured", "modelled", *["measured"] * 4]
    assert rows["given_arrival_time"][1] == at(9, 20)
    assert moved.observations.values == ["temp"]


def test_rows_can_be_moved_twice_and_keep_the_arrival_that_they_had_at_first():
    for rows in (HOURLY, polled()):
        view = al.FeatureView("mast", ["station"], rows, [al.latest("temp")])
        once = al.transform_arrivals(view, outages=[al.Outage("mast", at(9, 10), at(9, 25))])
        twice = al.transform_arrivals(once, delays={"mast": al.ShiftedDelay("5m")})[0].observations.lazy().collect()
        row = twice.filter(station="a").sort("event_time").row(1, named=True)
        assert (row["given_arrival_time"], row["arrival_time"]) == (at(9, 20), at(9, 30))


def test_a_derived_column_sees_the_arrival_that_a_row_is_given():
    derive = {"minutes": (pl.col("arrival_time") - pl.col("event_time")).dt.total_minutes()}
    for rows in (HOURLY, polled()):
        view = al.FeatureView("mast", ["station"], rows, [al.latest("minutes")], derive=derive)
        replayed = al.replay(
            view, {"station": ["a"]}, at(10), at(11), "30m", outages=[al.Outage("mast", at(9), at(10))]
        )
        assert replayed["mast__minutes"].to_list() == [60, 20]


def test_what_happens_to_nobody_is_an_error_that_names_the_providers():
    with pytest.raises(al.ViewError) as error:
        al.transform_arrivals(weather(), outages=[al.Outage("wether", at(9), at(10))])
    assert str(error.value) == (
        "'wether' is no provider of the views, and something is to happen to it\n\n"
        "hint: did you mean 'weather'? The providers are 'weather'; the view's name stands for that of a plain frame."
    )


def test_a_view_that_is_named_for_its_provider_leads_to_the_provider():
    log = FrameLog(HOURLY.with_row_index("log_sequence"), provider="mast", entities=["station"])
    view = al.FeatureView("weather", ["station"], log, [al.latest("temp")])
    for name, told in [
        (
            "weather",
            "something is to happen to it: view 'weather' is of provider 'mast'\n\nhint: did you mean 'mast'? ",
        ),
        ("mats", "something is to happen to it\n\nhint: did you mean 'mast'? The providers are 'mast'; "),
    ]:
        with pytest.raises(al.ViewError, match=re.escape(told)):
            al.transform_arrivals(view, outages=[al.Outage(name, at(8), at(9))])


def test_one_outage_may_stand_for_a_list_of_one():
    outage = al.Outage("weather", at(9), at(11))
    alone, listed = (al.replay(weather(), STATIONS, at(8), at(12), "30m", outages=one) for one in (outage, [outage]))
    assert alone.equals(listed)
    for wrong in (5, "weather", [outage.to_dict()]):
        with pytest.raises(al.DefinitionError, match="is not an outage"):
            al.transform_arrivals(weather(), outages=wrong)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"views": None}, "there is no view"),
        ({"views": "ab"}, "a str is not a view"),
        ({"delays": al.FixedDelay("5m")}, "does not say whose"),
        ({"delays": {"weather": al.FixedDelay}}, "is not a delay rule"),
        ({"outages": [5]}, "is not an outage"),
    ],
)
def test_what_moves_nothing_is_an_error(arguments, problem):
    arguments = {"views": weather()} | arguments
    with pytest.raises(al.AlignmentError, match=problem):
        al.transform_arrivals(**(arguments | ({"views": []} if arguments["views"] is None else {})))


def test_more_ticks_than_anybody_waits_for_are_an_error():
    with pytest.raises(al.DefinitionError, match="instants, and 1,073,741,824 are the most"):
        al.make_spine([], datetime(1, 1, 2, tzinfo=UTC), at(8), "1us")


def test_an_outage_of_entities_that_do_not_fit_is_an_error():
    with pytest.raises(al.DefinitionError, match="have the entity columns"):
        al.transform_arrivals(weather(), outages=[al.Outage("weather", at(9), at(10), entities=[("a", 1)])])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"start": at(9), "end": at(9)}, "not after its start"),
        ({"lost": True, "slow": 2.0}, "has slow=2.0 and lost=True"),
        ({"slow": 0.5}, "has slow=0.5"),
        ({"slow": "3"}, "has slow='3'"),
        ({"entities": 5}, "is one value, not a list of them"),
        ({"entities": "a"}, "is one value, not a list of them"),
    ],
)
def test_an_outage_that_cannot_be_is_an_error(arguments, problem):
    with pytest.raises(al.DefinitionError, match=problem):
        al.Outage("weather", **({"start": at(9), "end": at(10)} | arguments))


def test_an_outage_is_the_same_after_being_written_down():
    outage = al.Outage("w", at(9), at(10), slow=2.5, entities=[("a", 1), {"station": "b", "sensor": 2}])
    assert al.Outage.from_dict(outage.to_dict()) == outage
    assert hash(al.Outage.from_dict(outage.to_dict())) == hash(outage)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        date(2026, 1, 1),
        timedelta(hours=1),
        time(6),
        Decimal("1.50"),
        b"\x00\xff",
        True,
        2.5,
    ],
)
def test_a_data_set_under_an_outage_of_entities_of_any_type_is_written_and_rebuilt(value, tmp_path):
    frame = HOURLY.filter(station="a").with_columns(station=pl.Series([value] * 6))
    view = al.FeatureView("weather", ["station"], frame, [al.latest("temp")])
    spine = pl.DataFrame({"station": pl.Series([value]), "prediction_time": [at(10)]})
    outage = al.Outage("weather", at(9), at(11), entities=[value, value])
    built = al.build_dataset(spine, view, outages=[outage])
    assert built.frame["weather__temp"].to_list() == [8.0]
    manifest = json.loads(built.write(tmp_path / "set").read_text())
    assert al.rebuild(manifest, spine, {"weather": frame}).same
    assert al.Outage.from_dict(manifest["arrivals"]["outages"][0]) == outage


def test_entities_of_several_types_are_an_error():
    with pytest.raises(al.DefinitionError, match="names entities of several types"):
        al.transform_arrivals(weather(), outages=[al.Outage("weather", at(9), at(10), entities=["a", 1])])


def test_outages_of_one_span_happen_in_an_order_of_their_own():
    outages = [al.Outage("weather", at(9, 20), at(10, 10)), al.Outage("weather", at(9, 20), at(10, 10), slow=10.0)]
    ways = [temps(al.replay(weather(), STATIONS, at(9), at(14), "10m", outages=o)) for o in (outages, outages[::-1])]
    assert ways[0] == ways[1]


def test_what_would_arrive_after_the_last_year_arrives_at_its_end():
    slow = al.Outage("weather", at(9), at(10), slow=999_999.0)
    frame = HOURLY.with_columns(event_time=pl.col("event_time") - pl.duration(days=4000))
    arrivals = al.transform_arrivals(weather(frame), outages=[slow])[0].observations.lazy().collect()["arrival_time"]
    assert arrivals.max() == datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


# --- heartbeats, services --------------------------------------------------------------------------------------------


def polled() -> PolledLog:
    """Hourly rows of a, and an empty poll at half past."""
    frame = HOURLY.filter(station="a").with_columns(log_sequence=pl.int_range(6) * 2)
    empty = pl.DataFrame({"arrival_time": [at(hour, 50) for hour in range(8, 14)], "log_sequence": range(1, 12, 2)})
    empty = empty.with_columns(
        pl.col("arrival_time").cast(pl.Datetime("us", "UTC")), pl.col("log_sequence").cast(pl.Int64)
    )
    return PolledLog(frame, "mast", ["station"], empty=empty)


def beats(*outages: al.Outage, **more: object) -> list[str]:
    view = al.FeatureView("weather", ["station"], polled(), [al.latest("temp")])
    moved = al.transform_arrivals(view, outages=outages, **more)
    return pl.Series(heartbeats_of(moved)).cast(pl.Datetime("us")).dt.to_string("%H:%M").to_list()


def test_heartbeats_move_with_rows_and_empty_polls_fail_while_a_provider_is_down():
    assert beats()[:6] == ["08:20", "08:50", "09:20", "09:50", "10:20", "10:50"]
    assert beats(al.Outage("mast", at(9), at(10, 30)))[:5] == ["08:20", "08:50", "10:30", "10:50", "11:20"]
    assert beats(al.Outage("mast", at(9), at(10, 30), lost=True))[:5] == ["08:20", "08:50", "10:50", "11:20", "11:50"]
    assert beats(al.Outage("mast", at(9), at(10), entities=["a"]))[:5] == ["08:20", "08:50", "09:50", "10:00", "10:20"]
    assert beats(al.Outage("mast", at(9), at(10), slow=2.0))[:5] == ["08:20", "08:50", "09:40", "09:50", "10:20"]
    assert beats(delays={"mast": al.ShiftedDelay("5m")})[:3] == ["08:25", "08:50", "09:25"]


def test_an_outage_makes_a_service_choose_another_variant():
    mast = al.FeatureView("mast", ["station"], polled(), [al.latest("temp")])
    service = al.FeatureService(
        "power",
        ["mast__temp"],
        down_after={"mast": "1h"},
        variants=[al.Variant("full", needs=["mast"]), al.Variant("blind", needs=[])],
    )
    outage = al.Outage("mast", at(9), at(11, 30))
    replayed = al.replay(mast, {"station": ["a"]}, at(9), at(12), "30m", outages=[outage], service=service, ages=False)
    # The last heartbeat before is that of 08:50; from 09:50 on it is more than an hour ago, until all comes at 11:30.
    assert replayed["power__variant"].to_list() == ["full", "full", "blind", "blind", "blind", "full"]
    rows = al.replay(mast, {"station": ["a"]}, at(9), at(12), "30m", outages=[outage], service=service, variant="full")
    assert [t.hour * 60 + t.minute for t in rows["prediction_time"]] == [540, 570, 690]
    assert rows["mast__temp"].to_list() == [8.0, 8.0, 11.0]


def test_an_age_that_only_stands_in_for_another_is_no_column_of_its_own():
    first = al.FeatureView("first", ["station"], HOURLY, [al.event_age(name="age")])
    other = al.FeatureView("other", ["station"], HOURLY, [al.event_age(name="age")])
    service = al.FeatureService("ages", ["first__age"], fallbacks={"first__age": ["other__age"]})
    replayed = al.replay([first, other], {"station": ["a"]}, at(9), at(10), "30m", service=service)
    assert replayed.columns[2:5] == ["first__age", "first__age__status", "provisional"]
    ages = [f"{view}__{age}" for view in ("first", "other") for age in ("event_age", "arrival_age")]
    assert replayed.columns[5:] == ages


# --- training sets ----------------------------------------------------------------------------------------------------


def test_a_training_set_under_an_outage_has_other_features_and_the_same_labels():
    spine = al.make_spine({"station": ["a"]}, at(9, 30), at(12), "1h")
    label = al.label("temp", horizon="30m")
    outage = al.Outage("weather", at(9, 10), at(11, 40))
    plain = al.build_dataset(spine, weather(), label=label)
    held_up = al.build_dataset(spine, weather(), label=label, outages=[outage])
    assert plain.frame["weather__temp"].to_list() == [9.0, 10.0, 11.0]
    assert held_up.frame["weather__temp"].to_list() == [8.0, 8.0, 8.0]
    for column in ("label", "label_event_time", "label_arrival_time"):
        assert held_up.frame[column].to_list() == plain.frame[column].to_list()
    assert plain.frame["label"].to_list() == [10.0, 11.0, 12.0]
    assert "arrivals" not in plain.manifest
    assert held_up.manifest["arrivals"] == {"outages": [outage.to_dict()]}


def test_a_training_set_under_outages_and_delays_is_rebuilt_from_its_manifest():
    spine = al.make_spine({"station": ["a"]}, at(9, 30), at(12), "1h")
    built = al.build_dataset(
        spine,
        weather(),
        outages=[al.Outage("weather", at(9, 10), at(11, 40), entities=["a"])],
        delays={"weather": al.FixedDelay("25m")},
    )
    assert al.rebuild(built.manifest, spine, {"weather": HOURLY}).same


def test_outages_may_overlap_years_of_nothing():
    outage = al.Outage("weather", datetime(1990, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC), lost=True)
    replayed = al.replay(weather(), STATIONS, at(8), at(14), "1h", outages=[outage])
    assert set(replayed["weather__temp__status"]) == {"missing"}
    assert timedelta(0) not in replayed["weather__event_age"].to_list()


# --- the summary ------------------------------------------------------------------------------------------------------


def test_a_summary_counts_statuses_ages_and_patterns():
    sun = al.FeatureView("sun", ["station"], HOURLY.head(1), [al.latest("temp")], max_event_age="30m")
    replayed = al.replay([weather(), sun], {"station": ["a"]}, at(8), at(10), "30m")
    # Ticks 08:00 to 09:30: weather is there from 08:30 on; sun (08:00, arrived 08:20) at 08:30 and then too old.
    summary = al.summarize_replay(replayed)
    assert summary.rows == 4
    assert summary.patterns.rows() == [("weather", 2, 0.5), ("none", 1, 0.25), ("weather + sun", 1, 0.25)]
    assert summary.coverage.rows() == [("weather__temp", 4, 3, 0, 0, 0, 1), ("sun__temp", 4, 1, 0, 2, 0, 1)]
    ages = summary.ages.filter(age="weather__event_age").row(0, named=True)
    assert (ages["rows"], ages["min"], ages["median"], ages["max"]) == (
        3,
        timedelta(minutes=30),
        timedelta(minutes=30),
        timedelta(minutes=60),
    )
    parts = al.replay_batches([weather(), sun], {"station": ["a"]}, at(8), at(10), "30m", batch_rows=1)
    again = al.summarize_replay(parts)
    assert str(again) == str(summary)
    assert again.to_dict() == summary.to_dict()
    assert "<script" not in summary.to_html()


def test_a_summary_says_what_was_asked_and_what_may_still_change():
    log = FrameLog(HOURLY.with_row_index("log_sequence"), provider="weather", entities=["station"], through=at(13, 30))
    view = al.FeatureView("weather", ["station"], log, [al.latest("temp")])
    replayed = al.replay(view, STATIONS, at(13), at(15), "30m")  # of 14:00 and 14:30 nobody knows whether all has come
    assert replayed["provisional"].sum() == 4
    asked = {
        "start": "8:00",
        "end": "9:00",
        "every": ["06:00", "18:00"],
        "zone": "UTC",
        "as_of": "noon",
        "service": "power",
    }
    asked |= {"variant": "full", "rows": "all", "delays": {"weather": {"rule": "shifted", "by": "-5m"}}, "seed": 7}
    summary = al.summarize_replay(replayed, asked=asked)
    assert str(summary).split("\n\n")[0].splitlines() == [
        "8 rows replayed",
        "from 8:00 to 9:00, at 06:00, 18:00, UTC, as of noon, service power, variant full at all ticks",
        "under: delay of weather: 5m earlier; seed 7",
        "4 of 8 rows are provisional: what counts for them may still arrive",
    ]
    assert "delay of weather: 5m earlier" in summary.to_html()
    assert (summary.to_dict()["asked"], summary.to_dict()["provisional"]) == (asked, 4)


def test_ages_stand_view_by_view():
    sun = al.FeatureView("sun", ["station"], HOURLY, [al.latest("temp"), al.arrival_age()])
    summary = al.summarize_replay(al.replay([weather(), sun], ["a"], at(8), at(10), "1h"))
    assert summary.ages["age"].to_list() == [
        "weather__event_age",
        "weather__arrival_age",
        "sun__event_age",
        "sun__arrival_age",
    ]


def test_a_summary_needs_statuses():
    with pytest.raises(al.MissingColumnError, match="status") as caught:
        al.summarize_replay(al.replay(weather(), STATIONS, at(8), at(9), "30m", status=False))
    assert "Pass" not in str(caught.value)  # no argument names the column
