"""The oracle itself, against values worked out by hand."""

from __future__ import annotations

import math
from datetime import datetime

import oracle
import pytest
from oracle import Answer, Feature, View, aggregate
from oracle_clock import DAY, HOUR, MINUTE, Span, datetime_of, grid, micros_of, move, span

BERLIN = "Europe/Berlin"
PLAIN = View()


def row(event, arrival, value, *, issue=None, gone=False, sequence=0, ident=None):
    return {
        "entity": ("a",),
        "event": event,
        "arrival": arrival,
        "given": arrival,
        "issue": issue,
        "gone": gone,
        "sequence": sequence,
        "place": 0,
        "id": None if ident is None else (ident,),
        "values": {"x": value},
    }


def utc(text: str) -> int:
    return micros_of(datetime.fromisoformat(text + "+00:00"))


def ask(rows, feature, t, view=PLAIN, **arguments):
    return oracle.answer(rows, view, feature, ("a",), t, **arguments)


def test_a_row_that_arrives_at_t_counts_and_one_microsecond_later_does_not():
    rows = [row(10, 20, 1.0)]
    assert ask(rows, Feature("latest", "x", "x"), 20) == Answer(1.0, "present")
    assert ask(rows, Feature("latest", "x", "x"), 19) == Answer(None, "missing")


def test_a_retraction_brings_the_earlier_event_back():
    rows = [row(10, 10, 1.0), row(20, 20, 2.0), row(20, 30, None, gone=True)]
    assert ask(rows, Feature("latest", "x", "x"), 29).value == 2.0
    assert ask(rows, Feature("latest", "x", "x"), 30).value == 1.0
    assert ask(rows[1:], Feature("latest", "x", "x"), 30) == Answer(None, "retracted")


def test_a_retraction_of_an_unknown_key_changes_nothing():
    assert ask([row(20, 30, None, gone=True)], Feature("latest", "x", "x"), 40) == Answer(None, "missing")


def test_an_old_run_that_arrives_late_does_not_displace_a_newer_one():
    rows = [row(50, 12, 2.0, issue=10), row(50, 20, 1.0, issue=5)]
    feature = Feature("forecast", "x", "x", lead=Span(micros=20))
    assert ask(rows, feature, 30, View(kind="forecast")).value == 2.0


def test_a_withdrawn_issue_shows_the_older_one_again_and_one_without_issue_withdraws_all_before_it():
    rows = [row(50, 6, 1.0, issue=5), row(50, 12, 2.0, issue=10), row(50, 20, None, issue=10, gone=True)]
    feature = Feature("latest", "x", "x")
    assert ask(rows, feature, 60, View(kind="forecast")).value == 1.0
    rows += [row(50, 30, None, gone=True)]
    assert ask(rows, feature, 60, View(kind="forecast")) == Answer(None, "retracted")
    rows += [row(50, 40, 3.0, issue=5)]
    assert ask(rows, feature, 60, View(kind="forecast")).value == 3.0


def test_a_moved_event_leaves_no_orphan():
    rows = [row(10, 10, 1.0, ident="q"), row(15, 20, 1.5, ident="q")]
    count = Feature("window", "n", "x", aggregate="count", length=Span(micros=100))
    assert ask(rows, count, 30).value == 1
    assert ask(rows, Feature("lag", "l", "x", by=Span(micros=18)), 30) == Answer(None, "missing")


def test_exactly_the_age_limit_is_kept_and_no_other_row_is_brought_up():
    rows = [row(10, 10, 1.0), row(5, 12, 0.5)]
    feature = Feature("latest", "x", "x", max_event_age=Span(micros=10))
    assert ask(rows, feature, 20) == Answer(1.0, "present")
    assert ask(rows, feature, 21) == Answer(None, "expired")
    by_arrival = Feature("latest", "x", "x", max_arrival_age=Span(micros=10))
    assert ask(rows, by_arrival, 21) == Answer(None, "expired")  # event 10 arrived at 10, though event 5 arrived at 12


def test_a_window_is_open_at_its_start_and_closed_at_its_end():
    rows = [row(event, event, float(event)) for event in (10, 20, 30)]
    feature = Feature("window", "s", "x", aggregate="sum", length=Span(micros=20))
    assert ask(rows, feature, 30).value == 50.0  # (10, 30]
    assert ask(rows, feature, 29).value == 30.0  # (9, 29]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("count", [1.0, math.nan], 2),
        ("mean", [1.0, 2.0, 6.0], 3.0),
        ("var", [1.0, 2.0, 6.0], 7.0),  # (4 + 1 + 9) / 2
        ("std", [3.0], None),
        ("median", [4.0, 1.0, 3.0, 2.0], 2.5),
        ("q90", [0.0, 10.0], 9.0),
        ("q25", [1.0, 2.0, 3.0, 4.0, 5.0], 2.0),
        ("min", [0.0, -0.0], 0.0),
        ("sum", [1e16, 1.0, -1e16], 0.0),  # left to right: the 1.0 is lost
    ],
)
def test_aggregates_by_hand(name, values, expected):
    assert aggregate(name, values, [0] * len(values), "float") == expected


def test_slope_is_per_hour():
    assert aggregate("slope", [1.0, 2.0, 3.0], [0, HOUR // 2, HOUR], "float") == 2.0
    assert aggregate("slope", [1.0, 2.0], [5, 5], "float") is None


def test_an_integer_sum_that_does_not_fit_is_an_error_and_one_that_comes_back_is_not():
    with pytest.raises(OverflowError):
        aggregate("sum", [2**63 - 1, 1], [0, 1], "int")
    assert aggregate("sum", [2**63 - 1, 1, -1], [0, 1, 2], "int") == 2**63 - 1


@pytest.mark.parametrize(
    ("start", "by", "expected"),
    [
        ("2026-03-30T00:30", "-1d", "2026-03-29T01:00"),  # 02:30 on the 29th does not exist: 03:00 summer time
        ("2026-03-30T10:00", "-1d", "2026-03-29T10:00"),  # 12:00 to 12:00 summer time
        ("2026-03-29T10:00", "-1d", "2026-03-28T11:00"),  # 12:00 summer to 12:00 winter time: 23 hours
        ("2026-10-26T01:30", "-1d", "2026-10-25T00:30"),  # 02:30 is doubled on the 25th: the first
        ("2026-10-25T00:30", "-1d", "2026-10-24T00:30"),  # first pass of 02:30
        ("2026-10-25T01:30", "-1d", "2026-10-24T00:59:59.999999"),  # second pass: does not go back
        ("2026-10-25T02:00", "-1d", "2026-10-24T01:00"),
    ],
)
def test_a_calendar_day_keeps_the_time_of_day(start, by, expected):
    assert datetime_of(move(utc(start), span(by, BERLIN), BERLIN)) == datetime_of(utc(expected))


def test_calendar_bounds_never_go_back():
    for begin in ("2026-03-28T00:00", "2026-10-24T00:00"):
        instants = [utc(begin) + minutes * 7 * MINUTE for minutes in range(700)]
        for by in ("-1d", "-2d", "1d", "-1w"):
            bounds = [move(t, span(by, BERLIN), BERLIN) for t in instants]
            assert bounds == sorted(bounds)


def test_the_grid_starts_again_at_local_midnight_and_has_25_hours_in_autumn():
    points = grid(utc("2026-10-25T23:00"), span("1h", BERLIN), 25, BERLIN)
    assert points[0] == utc("2026-10-24T22:00")  # midnight of the 25th, summer time
    assert len(set(points)) == 26
    six = grid(utc("2026-10-25T23:30"), span("6h", BERLIN), 5, BERLIN)
    assert [datetime_of(p).strftime("%d %H:%M") for p in six] == [
        "24 22:00",
        "25 04:00",
        "25 10:00",
        "25 16:00",
        "25 22:00",  # 24 hours after midnight, and the day has 25
        "25 23:00",  # midnight of the 26th
    ]


def test_without_a_zone_the_grid_counts_from_1970():
    assert grid(25 * MINUTE, Span(micros=10 * MINUTE), 2, None) == [0, 10 * MINUTE, 20 * MINUTE]
    assert grid(-5 * MINUTE, Span(micros=10 * MINUTE), 1, None) == [-20 * MINUTE, -10 * MINUTE]
    assert span("1d", None) == Span(micros=DAY)


def test_labels_by_release():
    rows = [row(100, 110, 1.0, sequence=0), row(100, 130, 2.0, sequence=1), row(100, 150, 3.0, sequence=2)]

    def at(release, as_of=200, **more):
        return oracle.label(
            rows, View(), "x", ("a",), 80, horizon=Span(micros=20), release=release, as_of=as_of, **more
        )

    assert at("final") == oracle.Label(3.0, 100, 150)
    assert at("final", as_of=149) == oracle.Label(2.0, 100, 130)
    assert at("first") == oracle.Label(1.0, 100, 110)
    assert at(Span(micros=35)) == oracle.Label(2.0, 100, 135)
    assert at(Span(micros=35), as_of=134) == oracle.Label()
    assert at("as_known", trained_at=120) == oracle.Label(1.0, 100, 110)
