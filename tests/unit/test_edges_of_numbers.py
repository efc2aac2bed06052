"""What happens at the edges of floating point, of keys and of names."""

from __future__ import annotations

import polars as pl
import pytest
from makers import at

import alignment as al


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
