"""R12: how long until labels settle, in histories small enough to be settled by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from makers import at, table, temps

import alignment as al
from alignment.settling import readable

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def maturity(frame, column="temp", *, entities=("station",), **arguments):
    return al.label_maturity(al.Observations(frame, list(entities)), column, **arguments)


def daily(days, *revisions, station="a"):
    """One event a day at midnight; of each, revisions as (days late, value)."""
    rows = [
        (station, MONDAY + timedelta(days=day), MONDAY + timedelta(days=day + late), value)
        for day in range(days)
        for late, value in revisions
    ]
    return temps(*rows)


def test_a_value_is_settled_from_the_last_arrival_at_which_it_was_still_far():
    # 90 after a day, 99.5 after three (near), 80 after five (far again), 100 after six: settled at six.
    report = maturity(daily(40, (1, 90.0), (3, 99.5), (5, 80.0), (6, 100.0)))
    assert (report.settled.min, report.settled.max) == (6 * 86_400.0, 6 * 86_400.0)
    assert report.release == "6d"
    assert report.watched == timedelta(days=12)  # twice six days
    # 40 events; day 0 is before the first arrival; the log ends on day 45, so events after day 33 are too young.
    assert report.events == 33
    assert report.left_out == {"retracted": 0, "no_value": 0, "not_measured": 0, "before_log": 1, "too_young": 6}


def test_the_curve_says_what_is_there_near_and_settled_and_how_wrong_it_is():
    report = maturity(
        daily(40, (1, 90.0), (3, 99.5), (5, 80.0), (6, 100.0)), ages=["0s", "1d", "3d", "4d", "5d", "6d", "7d"]
    )
    assert report.curve.select("release", "present", "within", "settled", "bias", "mae").rows() == [
        ("first", 1.0, 0.0, 0.0, -10.0, 10.0),
        ("0s", 0.0, 0.0, 0.0, None, None),  # nothing has arrived
        ("1d", 1.0, 0.0, 0.0, -10.0, 10.0),
        ("3d", 1.0, 1.0, 0.0, -0.5, 0.5),  # near, but not for good
        ("4d", 1.0, 1.0, 0.0, -0.5, 0.5),
        ("5d", 1.0, 0.0, 0.0, -20.0, 20.0),
        ("6d", 1.0, 1.0, 1.0, 0.0, 0.0),
        ("7d", 1.0, 1.0, 1.0, 0.0, 0.0),
    ]
    assert report.curve["relative_bias"].to_list()[:3] == [-0.1, None, -0.1]


def test_what_is_never_revised_is_released_at_first():
    report = maturity(daily(10, (1, 90.0)), horizon="2d")
    assert (report.release, report.embargo) == ("first", "3d")  # a day until it arrives, two of horizon
    assert maturity(daily(10, (1, 99.1), (2, 100.0))).release == "first"  # revised, but within 1 %
    assert maturity(daily(10, (1, 99.1), (2, 100.0)), within="0.5%").release == "2d"


def test_a_tolerance_is_a_share_of_the_final_value_or_a_distance():
    frame = daily(30, (1, 99.0), (2, 100.0))
    assert maturity(frame, within="1%").release == "first"  # exactly the limit is near
    assert maturity(frame, within="0.9%").release == "2d"
    assert maturity(frame, within=1).release == maturity(frame, within="1").release == "first"
    assert maturity(frame, within=0.9).release == "2d"


def test_a_null_is_no_label_until_a_value_comes():
    report = maturity(daily(30, (1, None), (4, 7.0)), ages=["1d", "4d"])
    assert report.arrived.min == 4 * 86_400.0
    assert report.curve.select("release", "present", "within").rows() == [
        ("first", 0.0, 0.0),
        ("1d", 0.0, 0.0),
        ("4d", 1.0, 1.0),
    ]
    assert report.release == "4d"


def test_an_event_that_is_null_or_retracted_in_the_end_does_not_count_and_is_counted():
    gone = pl.concat([daily(12, (1, 5.0)).with_columns(is_retraction=pl.lit(value=False))])
    last = gone[4, "event_time"], gone[6, "event_time"]
    more = table(
        "station event_time arrival_time temp is_retraction",
        ("a", last[0], last[0] + timedelta(days=2), None, True),
        ("a", last[1], last[1] + timedelta(days=2), None, False),
        temp=pl.Float64,
    )
    report = maturity(pl.concat([gone, more]))
    assert (report.left_out["retracted"], report.left_out["no_value"]) == (1, 1)


def test_a_retraction_in_between_is_no_label_then():
    start = table(
        "station event_time arrival_time temp is_retraction",
        *(
            ("a", MONDAY + timedelta(days=day), MONDAY + timedelta(days=day + late), value, gone)
            for day in range(20)
            for late, value, gone in ((1, 5.0, False), (2, None, True), (3, 5.0, False))
        ),
        temp=pl.Float64,
    )
    report = maturity(start, ages=["1d", "2d", "3d"])
    assert report.curve.filter(pl.col("age").is_not_null())["present"].to_list() == [1.0, 0.0, 1.0]
    assert report.settled.min == 3 * 86_400.0


def test_of_a_log_that_is_too_short_nothing_is_recommended():
    report = maturity(daily(5, (1, 1.0), (2, 2.0), (9, 3.0)))
    assert (report.release, report.embargo, report.watched) == (None, None, None)
    assert "too short" in report.notes[0]
    assert report.series["release"].to_list() == [None]
    assert "Recommended" not in str(report)


def test_a_log_of_one_load_of_history_says_nothing():
    load = temps(*(("a", f"0{day} 10:00", "09 00:00", 1.0) for day in range(1, 9)))
    report = maturity(load)
    assert (report.events, report.release) == (0, None)
    assert report.left_out["before_log"] == 8
    assert report.notes == ("no event counts, so there is no recommendation",)
    assert str(report).endswith("No event counts, so there is no recommendation.")


def test_arrivals_that_are_not_measured_are_no_evidence():
    frame = daily(30, (1, 5.0)).with_columns(
        arrival_kind=pl.when(pl.col("event_time") < MONDAY + timedelta(days=10))
        .then(pl.lit("declared"))
        .otherwise(pl.lit("measured"))
    )
    report = maturity(frame)
    assert report.left_out["not_measured"] == 10
    assert report.left_out["before_log"] == 1  # the log listens from day 11 on
    assert report.events == 30 - 11 - 1  # one is younger than twice a day
    modelled = al.label_maturity(
        al.Observations(
            daily(9, (1, 5.0)).drop("arrival_time").with_columns(arrival_time=pl.lit(None, pl.Datetime("us", "UTC"))),
            ["station"],
            delay=al.FixedDelay("1d"),
        ),
        "temp",
    )
    assert (modelled.events, modelled.left_out["not_measured"]) == (0, 9)


def test_each_series_has_its_own_wait_the_slowest_first():
    frame = pl.concat([daily(40, (1, 5.0), station="quick"), daily(40, (1, 4.0), (8, 5.0), station="slow")])
    report = maturity(frame, share=0.5)
    assert report.release == "1d"  # half of all labels are settled then
    assert report.series.select("station", "settled_share", "first_within", "settled_by_release", "release").rows() == [
        ("slow", timedelta(days=8), 0.0, 0.0, "8d"),
        ("quick", timedelta(days=1), 1.0, 1.0, "first"),
    ]


def test_revisions_of_an_id_count_from_the_event_time_it_has_in_the_end():
    rows = [
        ("a", day, MONDAY + timedelta(days=day, minutes=moved), MONDAY + timedelta(days=day, hours=late), value)
        for day in range(20)
        for moved, late, value in ((30, 1, 4.0), (0, 6, 5.0))  # the event moves back by half an hour
    ]
    frame = table("net quake event_time arrival_time mag", *rows, mag=pl.Float64)
    report = al.label_maturity(al.Observations(frame, ["net"], key=["quake"]), "mag", ages=["1h", "6h"])
    assert report.release == "6h"
    assert report.curve.filter(pl.col("age").is_not_null())["bias"].to_list() == [-1.0, 0.0]


def test_texts_must_be_equal_and_have_no_bias():
    frame = daily(20, (1, 1.0), (2, 2.0)).with_columns(temp=pl.col("temp").cast(pl.String))
    report = maturity(frame)
    assert report.release == "2d"
    assert report.curve["bias"].null_count() == report.curve.height


def test_as_of_takes_the_report_back():
    frame = daily(60, (1, 90.0), (3, 100.0))
    then = maturity(frame, as_of=MONDAY + timedelta(days=30))
    assert then.as_of == MONDAY + timedelta(days=30)
    assert then.events == 24  # days 1 to 24 are six days old by then
    assert then.settled == maturity(frame, as_of=MONDAY + timedelta(days=30), watched="6d").settled


def test_one_series_without_entities_and_a_view_are_fine():
    frame = daily(30, (1, 4.0), (2, 5.0))
    report = maturity(frame.drop("station"), entities=())
    assert report.series.is_empty()
    assert "series" not in str(report).partition("release  events")[2]
    view = al.FeatureView("weather", ["station"], frame, [al.latest("temp")])
    assert al.label_maturity(view, "temp").release == report.release == "2d"


def test_an_entity_column_may_be_called_as_a_column_of_the_report():
    frame = daily(30, (1, 4.0), (2, 5.0)).rename({"station": "events"})
    report = maturity(frame, entities=["events"])
    assert report.series.select("events (entity)", "events").rows() == [
        ("a", 27)
    ]  # days 1 to 27 are 4 days old on day 31
    assert "events (entity)" in str(report)


def test_two_different_rows_of_one_key_and_arrival_are_refused_as_everywhere():
    with pytest.raises(al.AmbiguousRevisionsError):
        maturity(temps(("a", "10:00", "10:30", 1.0), ("a", "10:00", "10:30", 2.0)))


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"within": "much"}, al.DefinitionError, "within='much' is no tolerance"),
        ({"within": -1.0}, al.DefinitionError, "within=-1.0 is no tolerance"),
        ({"share": 0.0}, al.DefinitionError, "share=0.0 is no share of events"),
        ({"watched": "soon"}, al.DurationError, "watched='soon' is not a duration"),
        ({"ages": ["9d"], "watched": "4d"}, al.DurationError, "ages='9d' is beyond 4d"),
        ({"column": "humidity"}, al.MissingColumnError, "'humidity'"),
    ],
)
def test_what_means_nothing_is_refused(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        maturity(daily(30, (1, 5.0)), **arguments)


def test_forecasts_and_nothing_at_all_are_no_labels():
    with pytest.raises(al.LabelError, match="is a forecast"):
        al.label_maturity(al.Observations(daily(3, (1, 5.0)), ["station"], "forecast"), "temp")
    with pytest.raises(al.LabelError, match="have no row"):
        maturity(daily(3, (1, 5.0)).clear())


def test_the_text_says_what_to_do_and_what_it_would_cost_not_to():
    report = maturity(daily(40, (1, 90.0), (3, 100.0)), horizon="12h")
    text = str(report)
    assert "Recommended: al.label('temp', ..., release='3d'), and an embargo of 3d12h or more" in text
    assert (
        "Trained on labels released 'first' instead, they are off by -10 on average (-10.0 % of the mean), MAE 10."
        in text
    )
    assert "Every event was watched for at least 6d. Left out: 1 from before the first arrival, 3 too young" in text


def test_the_report_as_data_page_and_picture():
    report = maturity(daily(40, (1, 90.0), (3, 100.0)))
    plain = report.to_dict()
    assert plain["watched"] == 6 * 86_400.0
    assert plain["curve"][1]["age"] == 86_400.0
    assert plain["series"][0]["station"] == "a"
    page = report.to_html()
    assert "<script" not in page
    assert "Label maturity of temp" in page
    assert report._repr_html_().startswith("<div")
    axes = report.plot().axes
    assert axes[0].get_title() == "How ripe labels are"
    assert [line.get_label() for line in axes[0].lines][-1] == "release='3d'"


def test_a_heading_says_whether_below_it_are_ages_or_shares():
    text = str(maturity(daily(40, (1, 90.0), (3, 100.0)), share=0.9))
    heads = [line for line in text.splitlines() if "events  " in line]
    assert [[name.strip() for name in head.split("  ") if name] for head in heads] == [
        ["release", "events", "present", "within", "for good", "bias", "MAE", "bias %", "MAE %"],
        [
            "station",
            "events",
            "half arrived by",
            "half settled by",
            "90 % settled by",
            "first ok",
            "ok at release",
            "own release",
        ],
    ]


def test_lines_that_agree_are_both_seen():
    lines = maturity(daily(40, (1, 90.0), (3, 100.0))).plot().axes[0].lines[:3]
    present, within, settled = sorted(lines, key=lambda line: line.get_zorder(), reverse=True)
    assert [line.get_label() for line in (present, within, settled)] == [
        "label is there",
        "within 1 % of the final value",
        "the same, for good",
    ]
    assert list(within.get_ydata()) == list(settled.get_ydata())  # here it makes no difference
    assert settled.get_linewidth() >= 2 * within.get_linewidth()
    assert (within.get_linestyle(), settled.get_linestyle()) == ("--", "-")


def test_ages_between_two_at_which_nothing_differs_are_not_in_the_curve():
    frame = daily(90, (1, 90.0), (30, 100.0))
    curve = maturity(frame).curve
    assert 4 <= curve.height <= 6  # the first release, a day, what is before the correction, and the correction
    points = curve.filter(pl.col("age").is_not_null()).drop("release", "age").rows()
    assert not any(points[n - 1] == points[n] == points[n + 1] for n in range(1, len(points) - 1))
    asked = ["1d", "2d", "3d", "4d"]
    assert maturity(frame, ages=asked).curve["release"].to_list() == ["first", *asked]  # who asks is answered
    assert maturity(daily(90, (1, 90.0))).curve.height <= 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0101, "11ms"), (59, "1m"), (61, "2m"), (21 * 60, "25m"), (23.5 * 3600, "1d"), (71 * 86_400, "75d"), (400 * 86_400, "420d")],
)  # fmt: skip
def test_lengths_are_rounded_up_to_what_people_say(seconds, text):
    assert readable(round(seconds * 1e6)) == text


def test_the_label_released_so_is_the_one_the_report_speaks_of():
    frame = daily(40, (1, 90.0), (3, 100.0))
    report = maturity(frame)
    view = al.FeatureView("weather", ["station"], frame, [al.latest("temp")])
    spine = al.make_spine({"station": ["a"]}, MONDAY + timedelta(days=5), MONDAY + timedelta(days=20), "1d")
    dataset = al.build_dataset(spine, [view], label=al.label("temp", "1d", release=report.release))
    assert dataset.frame["label"].unique().to_list() == [100.0]
    assert at("06 00:00") == MONDAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"share": "95%"}, "share='95%' is no share of events"),
        ({"share": True}, "share=True is no share of events"),
        ({"ages": "1h"}, "ages='1h' is not a list of ages"),
        ({"ages": timedelta(hours=1)}, "ages=datetime.timedelta(seconds=3600) is not a list of ages"),
        ({"position": 5}, "position=5: the observations have no 'log_sequence', and so no position"),
        ({"position": "5"}, "position='5' is not a log position"),
    ],
)
def test_arguments_that_mean_nothing_are_named(wrong, problem):
    with pytest.raises(al.DefinitionError) as caught:
        maturity(daily(10, (1, 90.0)), **wrong)
    assert caught.value.problem == problem
    assert caught.value.hint


def test_rows_after_a_position_do_not_count():
    frame = daily(10, (1, 90.0), (3, 100.0)).sort("arrival_time").with_row_index("log_sequence", offset=1)
    numbered = frame.with_columns(pl.col("log_sequence").cast(pl.Int64))
    assert maturity(numbered, position=1).as_of == MONDAY + timedelta(days=1)
