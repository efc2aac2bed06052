"""Arguments of delay models that mean nothing are refused by name, with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

import alignment as al
from alignment.resampling import Drawing

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
EVENTS = pl.DataFrame({"event_time": [MONDAY + n * timedelta(hours=1) for n in range(96)]})
ROWS = al.Observations(EVENTS.with_columns(arrival_time=pl.col("event_time") + timedelta(minutes=20), v=1.0), [])
RULE = al.fit_delay(ROWS)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"by": 5}, "by=5 is neither a name nor a list of names"),
        ({"by": ["hour", 5]}, "by=['hour', 5] is neither a name nor a list of names"),
        ({"holdout": "x"}, "holdout='x' is no share of the time"),
        ({"holdout": True}, "holdout=True is no share of the time"),
        ({"block_days": "2"}, "block_days='2' is not a whole number from 1 on"),
        ({"block_days": 1.5}, "block_days=1.5 is not a whole number from 1 on"),
        ({"block_days": 0}, "block_days=0 is not a whole number from 1 on"),
        ({"max_batches": 0}, "max_batches=0 is not a whole number from 1 on"),
        ({"max_batches": -1}, "max_batches=-1 is not a whole number from 1 on"),
        ({"seed": "x"}, "seed='x' is not a seed"),
        ({"seed": -1}, "seed=-1 is not a seed"),
        ({"seed": 1.5}, "seed=1.5 is not a seed"),
    ],
)
def test_a_fit_names_the_argument_that_means_nothing(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(al.DefinitionError) as caught:
        al.fit_delay(ROWS, **wrong)
    assert caught.value.problem == problem
    assert caught.value.hint


def test_a_naive_cut_is_refused() -> None:
    with pytest.raises(al.NaiveTimeError, match="holdout"):
        al.fit_delay(ROWS, holdout=datetime(2026, 1, 6))  # noqa: DTZ001 - that is the mistake


def test_of_no_rows_no_delay_can_be_fitted() -> None:
    empty = al.Observations(ROWS.lazy().collect()[:0], [], place="the meter")
    with pytest.raises(al.DelayFitError) as caught:
        al.fit_delay(empty)
    assert caught.value.problem == "provider 'observations': no arrival was measured"
    assert caught.value.hint


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"block_days": 0}, {"block_days": 1.5}])
def test_a_rule_names_the_argument_that_means_nothing(wrong: dict[str, Any]) -> None:
    described = RULE.to_dict() | wrong
    with pytest.raises(al.DefinitionError, match=f"{next(iter(wrong))}="):
        al.EmpiricalDelay.from_dict(described)


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        (None, "None does not describe a rule"),
        ({"rule": "empirical"}, "the description of an empirical delay lacks 'first_ms'"),
        (RULE.to_dict() | {"stretch_ms": [1]}, "the description of an empirical delay is broken: not enough values"),
        (RULE.to_dict() | {"after_ms": None}, "the description of an empirical delay is broken: 'NoneType' object"),
    ],
)
def test_what_does_not_describe_a_rule_is_refused(described: Any, problem: str) -> None:
    with pytest.raises(al.DefinitionError) as caught:
        al.EmpiricalDelay.from_dict(described)
    assert caught.value.problem.startswith(problem)
    assert caught.value.hint == "write it with rule.to_dict()."


RULES = [RULE, al.FixedDelay("45m"), al.PublishSchedule("12:00", "UTC")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_refuse_times_that_are_no_instants(rule: al.DelayRule) -> None:
    naive = EVENTS.with_columns(pl.col("event_time").dt.replace_time_zone(None))
    with pytest.raises(al.NaiveTimeError) as caught:
        rule.arrival_times(naive)
    assert caught.value.problem == "the frame that delays are applied to: 'event_time' has no time zone"
    with pytest.raises(al.ColumnTypeError, match="'event_time' is String, not an instant"):
        rule.arrival_times(EVENTS.with_columns(pl.col("event_time").dt.to_string()))
    with pytest.raises(al.MissingColumnError, match="'event_time'"):
        rule.arrival_times(EVENTS.rename({"event_time": "time"}))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_instants_may_be_written_in_any_zone_and_unit(rule: al.DelayRule) -> None:
    told = rule.arrival_times(EVENTS)
    for kind in (pl.Datetime("ms", "UTC"), pl.Datetime("ns", "Europe/Berlin")):
        assert rule.arrival_times(EVENTS.with_columns(pl.col("event_time").cast(kind))).equals(told)


def test_a_forecast_without_an_issue_counts_from_its_event() -> None:
    issues = pl.Series("issue_time", [None, MONDAY], dtype=pl.Datetime("us", "UTC"))
    frame = EVENTS[5:7].with_columns(issues)
    assert al.FixedDelay("1h").arrival_times(frame).to_list() == [
        MONDAY + timedelta(hours=6),
        MONDAY + timedelta(hours=1),
    ]
    nothing = EVENTS[:1].with_columns(issue_time=None)
    assert al.FixedDelay("1h").arrival_times(nothing).to_list() == [MONDAY + timedelta(hours=1)]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [({"seed": "x"}, "seed='x' is not a seed"), ({"confidence": "x"}, "confidence='x' is not between 0 and 1")],
)
def test_a_drawing_of_days_names_the_argument_that_means_nothing(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(al.DefinitionError) as caught:
        Drawing(**wrong)
    assert caught.value.problem == problem
