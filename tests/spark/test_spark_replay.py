"""Replays and leak reports on Spark say what those of the local engine say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import alignment as al

START = datetime(2026, 1, 5, tzinfo=UTC)


def readings(rows: int = 1_500) -> pl.DataFrame:
    draw = np.random.default_rng(11)
    event = START + pl.Series(draw.integers(0, 3_000, rows)) * timedelta(minutes=1)
    return pl.DataFrame(
        {
            "site": [f"s{n}" for n in draw.integers(0, 7, rows)],
            "event_time": event.dt.convert_time_zone("UTC"),
            "arrival_time": (
                event + pl.Series(draw.integers(0, 240, rows)) * timedelta(minutes=1)
            ).dt.convert_time_zone("UTC"),
            "is_retraction": draw.random(rows) < 0.02,
            "log_sequence": np.arange(rows),
            "load": draw.standard_normal(rows),
        }
    )


def view_over(frame: pl.DataFrame) -> al.FeatureView:
    features = [al.latest("load"), al.window("load", ["mean", "count"], "3h"), al.sequence("load", 2)]
    return al.FeatureView("meter", ["site"], frame, features)


def test_a_replay_on_spark_has_the_rows_of_a_local_one(spark):
    view, sites = view_over(readings()), {"site": [f"s{n}" for n in range(6)]}
    outage = al.Outage("meter", START + timedelta(hours=5), START + timedelta(hours=9))
    span = (START, START + timedelta(days=1), "3h")
    expected = al.replay(view, sites, *span, outages=outage)
    found = pl.DataFrame(al.replay(view, sites, *span, outages=outage, engine="spark", spark=spark).toArrow())
    assert found.columns == expected.columns
    keys = ["site", "prediction_time"]
    assert_frame_equal(found.cast(pl.Schema(expected.schema)).sort(keys), expected.sort(keys), check_exact=True)
    with pytest.raises(al.DefinitionError, match="takes no service"):
        al.replay(view, sites, *span, engine="spark", spark=spark, service=None)


def test_a_leak_report_on_spark_counts_what_a_local_one_counts(spark):
    views = [
        view_over(readings()),
        al.FeatureView("all", [], readings(), [al.latest("load"), al.event_age()], on_tie="last"),
    ]
    spine = al.make_spine({"site": [f"s{n}" for n in range(6)]}, START, START + timedelta(days=1), "41m")
    expected = al.leak_report(spine, views)
    found = al.leak_report(spine, views, engine="spark", spark=spark)
    assert expected.frame["rows_differing"].sum() > 0
    assert (found.as_of, found.rows) == (expected.as_of, expected.rows)
    assert_frame_equal(found.frame, expected.frame, rel_tol=1e-9, abs_tol=1e-12)
    with pytest.raises(al.DefinitionError, match="gives no score"):
        al.leak_report(spine, views, label=al.label("load", "1h", observations=views[0]), engine="spark", spark=spark)
