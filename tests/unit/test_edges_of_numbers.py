"""What happens at the edges of floating point, of keys and of names."""

from __future__ import annotations

import math

import polars as pl
import pytest
from makers import at
from oracle import quantile

import alignment as al

INF = math.inf


def joined(values: list[float], feature, engine: str = "local") -> list:
    n = len(values)
    frame = pl.DataFrame(
        {
            "station": ["a"] * n,
            "event_time": [at(f"10:{i:02}") for i in range(n)],
            "arrival_time": [at(f"10:{i:02}") for i in range(n)],
            "x": values,
        }
    )
    spine = pl.DataFrame({"station": ["a"], "prediction_time": [at("11:00")]})
    return al.point_in_time_join(spine, [al.FeatureView("v", ["station"], frame, [feature])], engine=engine).row(0)[2]


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_a_quantile_between_values_further_apart_than_a_float_can_say_is_finite(engine):
    # half way between -1e308 and 1e308, whose difference is infinite
    assert joined([-1e308, 1e308], al.window("x", "median", "2h"), engine) == 0.0
    assert joined([-1e308, 1e308], al.window("x", "q25", "2h"), engine) == -5e307


@pytest.mark.parametrize("engine", ["local", "duckdb"])
@pytest.mark.parametrize("aggregates", [["median"], ["median", "q25", "q75"]])  # one is selected, three are sorted for
@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([-INF, -INF], -INF),
        ([INF, INF], INF),
        ([1.0, -INF], -INF),  # any way towards an infinity is infinitely far
        ([INF, 1.0], INF),
        ([INF, -INF], math.nan),  # no number is half way
        ([-INF, 1.0, INF], 1.0),
    ],
)
def test_a_quantile_beside_an_infinity_is_that_infinity(values, median, aggregates, engine):
    found = joined(values, al.window("x", aggregates, "2h"), engine)
    assert found == median or (math.isnan(median) and math.isnan(found))
    assert repr(quantile(values, 0.5)) == repr(median)  # the oracle's


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_zero_and_minus_zero_are_different_revisions(engine):
    frame = pl.DataFrame(
        {
            "station": ["a", "a"],
            "event_time": [at("10:00")] * 2,
            "arrival_time": [at("10:05")] * 2,
            "x": [0.0, -0.0],
        }
    )
    spine = pl.DataFrame({"station": ["a"], "prediction_time": [at("11:00")]})
    view = al.FeatureView("v", ["station"], frame, [al.latest("x")])
    with pytest.raises(al.AmbiguousRevisionsError, match="1 pairs of different rows"):
        al.point_in_time_join(spine, [view], engine=engine)


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_a_spine_whose_keys_are_all_null_is_missing_everywhere(engine):
    frame = pl.DataFrame({"station": ["a"], "event_time": [at("10:00")], "arrival_time": [at("10:05")], "x": [1.0]})
    spine = pl.DataFrame({"station": [None], "prediction_time": [at("11:00")]})
    view = al.FeatureView("v", ["station"], frame, [al.latest("x")])
    answer = al.point_in_time_join(spine, [view], engine=engine, status=True)
    assert answer.select("v__x", "v__x__status").row(0) == (None, "missing")


def test_a_name_kept_for_the_engines_is_refused():
    frame = pl.DataFrame({"event_time": [at("10:00")], "arrival_time": [at("10:05")], "@event": [1.0]})
    with pytest.raises(al.ViewError) as refused:
        al.Observations(frame, [])
    assert str(refused.value) == (
        "the observations: the column name '@event' begins with '@', as names kept for the engines do\n\n"
        'hint: rename it, e.g. frame.rename({"@event": "event"}).'
    )
