"""Which delay rule is best on two real providers, fitted on half of their stamps: the part of the claims that is robust."""

from __future__ import annotations

from typing import Any

import pytest

import alignment as al
from benchmarks import delay_models


def scores_of(report: al.DelayReport) -> dict[str, dict[str, Any]]:
    return {row["rule"].removeprefix("EmpiricalDelay "): row for row in report.scores.to_dicts()}


def errors_of(report: al.DelayReport, feature: str) -> dict[str, dict[str, Any]]:
    rows = report.features.filter(feature=feature).to_dicts()
    return {row["rule"].removeprefix("EmpiricalDelay "): row for row in rows}


@pytest.fixture(scope="module")
def wind(shared) -> al.DelayReport:
    return delay_models.compare(delay_models.wind(shared), times=1000, draws=1)


@pytest.fixture(scope="module")
def quakes(shared) -> al.DelayReport:
    return delay_models.compare(delay_models.quakes(shared), times=1000, draws=1)


def test_of_wind_forecasts_fixed_and_empirical_rules_show_nearly_the_true_rows(wind):
    scores = scores_of(wind)
    for name in ("FixedDelay (median)", "EmpiricalDelay", "by hour", "by weekday"):
        assert scores[name]["f1"] > 0.94, name
        assert abs(scores[name]["visible_bias"]) < 0.06, name


def test_of_wind_forecasts_the_fixed_rule_is_as_good_as_any(wind):
    scores = scores_of(wind)
    fixed = scores["FixedDelay (median)"]
    for name in ("EmpiricalDelay", "by hour", "by weekday"):
        assert scores[name]["f1"] > fixed["f1"] - 0.02, name
    assert scores["by weekday"]["latest_differs"] < fixed["latest_differs"] + 0.01
    assert scores["by weekday"]["age_error_s"] < scores["EmpiricalDelay"]["age_error_s"]


def test_one_publication_a_day_is_no_model_of_eight_captures(wind):
    scores = scores_of(wind)
    assert min(scores, key=lambda name: scores[name]["f1"]) == "PublishSchedule (nearest)"
    assert scores["PublishSchedule (nearest)"]["recall"] < 0.4


def test_of_quakes_the_median_shows_far_too_many_and_the_empirical_rule_as_many_as_there_were(quakes):
    scores = scores_of(quakes)
    assert scores["FixedDelay (median)"]["visible_bias"] > 0.3
    for name in ("EmpiricalDelay", "by hour", "by net"):
        assert abs(scores[name]["visible_bias"]) < 0.1, name


def test_of_quakes_counts_in_windows_are_nearest_with_a_delay_by_network(quakes):
    counts = errors_of(quakes, "mag_count_24h")
    assert abs(counts["by net"]["bias"]) < 0.25 * counts["FixedDelay (median)"]["bias"]
    assert counts["by net"]["mae"] < 0.75 * counts["FixedDelay (median)"]["mae"]
    assert counts["by net"]["mae"] < counts["EmpiricalDelay"]["mae"]


def test_of_quakes_a_fixed_rule_still_names_the_rows_best(quakes):
    # Which of two late rows comes first is chance: a draw cannot know it, and a rule that shows all of them misses none.
    scores = scores_of(quakes)
    assert quakes.best("f1") == "FixedDelay (median)"
    assert scores["FixedDelay (median)"]["recall"] > 0.95
    assert scores["by net"]["precision"] > scores["FixedDelay (median)"]["precision"]
    assert scores["by net"]["f1"] > scores["EmpiricalDelay"]["f1"]


def test_what_travels_together_is_found_in_the_rows(shared):
    assert al.fit_delay(delay_models.wind(shared).rows).travels == "issue"
    rule = al.fit_delay(delay_models.quakes(shared).rows)
    assert (rule.travels, rule.keys, rule.polled) == ("key", ("net", "quake_id"), True)
