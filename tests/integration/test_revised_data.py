"""Heavily revised epidemic data: its profile, when it settles, and 7-day means as known on every version date."""

from __future__ import annotations

import polars as pl
import pytest

import alignment as al
from benchmarks import covid_replay as covid


@pytest.fixture(scope="module")
def daily(shared) -> pl.DataFrame:
    return covid.read(covid.DAILY, shared)


def test_the_profile_of_the_archive(daily):
    profile = covid.profiled(daily)
    assert (profile.rows, profile.keys) == (129_638, 2_192)  # the archive's own README
    assert profile.first_delay.q50 == 86_400.0
    cli, cases = profile.columns
    assert (cli.nulls, round(cli.first_within, 3)) == (2_792, 0.007)
    assert round(cases.revision_rate, 3) == 0.681  # "pairs whose value really changed 68.1%"


def test_doctor_visits_settle_after_ten_weeks_and_cases_not_within_the_log(daily):
    found = covid.maturities(daily)
    visits = found["percent_cli within 1%"]
    assert (visits.release, visits.embargo) == ("75d", "82d")
    assert visits.settled.q50 == 59 * 86_400.0
    assert visits.left_out == {"retracted": 0, "no_value": 16, "not_measured": 0, "before_log": 4, "too_young": 548}
    assert found["percent_cli within 5%"].release == "60d"
    cases = found["case_rate_7d_av within 1%"]
    assert (cases.release, cases.watched) == (None, None)
    assert "too short" in cases.notes[0]


def test_values_at_an_age_are_those_of_the_archive(daily):
    # Independently: of each day, the last row that arrived within so many days of it.
    report = al.label_maturity(al.Observations(daily, ["geo_value"]), "percent_cli", ages=["7d", "28d"], watched="142d")
    end = daily["arrival_time"].max()
    rows = daily.sort("arrival_time").filter(
        pl.col("event_time") <= end - pl.duration(days=142), pl.col("event_time") >= daily["arrival_time"].min()
    )
    final = rows.group_by("geo_value", "event_time").agg(pl.col("percent_cli").last().alias("final")).drop_nulls()
    assert report.events == final.height
    for point, days in zip(report.curve.filter(pl.col("age").is_not_null()).to_dicts(), (7, 28), strict=True):
        young = rows.filter(pl.col("arrival_time") <= pl.col("event_time") + pl.duration(days=days))
        then = young.group_by("geo_value", "event_time").agg(pl.col("percent_cli").last())
        both = final.join(then, on=["geo_value", "event_time"], how="left")
        error = both["percent_cli"] - both["final"]
        assert point["present"] == pytest.approx(1 - both["percent_cli"].null_count() / both.height)
        assert point["bias"] == pytest.approx(error.mean(), abs=1e-12)
        assert point["mae"] == pytest.approx(error.abs().mean(), abs=1e-12)
        near = (error.abs() <= 0.01 * both["final"].abs()).fill_null(value=False)
        assert point["within"] == pytest.approx(near.mean())


def test_means_on_every_version_date_are_those_put_together_version_by_version(daily):
    replayed = covid.version_means(daily)
    assert replayed.height == 547 * 4
    found = covid.difference(replayed, covid.plain_means(daily, every=15))
    assert found["compared"] == 37 * 4  # every 15th of 547 versions
    assert (found["differing_counts"], found["differing_nulls"]) == (0, 0)
    assert found["greatest_difference"] < 1e-13


def test_means_are_those_that_the_second_archive_carries(shared):
    found = covid.against_the_archive(covid.read(covid.MONTHLY, shared))
    for rate in covid.RATES:
        assert found[rate]["compared"] == 27_323
        assert found[rate]["incomplete_weeks"] == 0
        assert found[rate]["greatest_difference"] < 1e-12
