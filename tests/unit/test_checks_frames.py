"""The contract of ingestion holds training rows and served values too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import alignment as al
from ingestion.checks import check_frame
from ingestion.providers import ColumnRule, Contract

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTRACT = Contract(
    columns={
        "temp": ColumnRule(dtype="Float64", unit="degC", min=-60, max=60),
        "temp_soil": ColumnRule(dtype="Float64", unit="degC", min=-20, max=40),
        "state": ColumnRule(dtype="String", categories=("on", "off")),
        "count": ColumnRule(dtype="Int32", min=0),
    }
)


def test_a_frame_that_keeps_the_contract_says_so() -> None:
    report = CONTRACT.check(pl.DataFrame({"weather__temp": [21.5, None], "weather__state": ["on", None]}))
    assert report.ok
    assert report.checked == {"weather__temp": "temp", "weather__state": "state"}
    assert str(report) == "2 rows, 2 columns checked: they keep the contract"


def test_findings_have_counts_and_first_examples() -> None:
    frame = pl.DataFrame(
        {"weather__temp": [412.0, 20.0, -300.0, 99.0, 98.0, 97.0], "weather__state": ["on"] * 5 + ["x"]}
    )
    report = check_frame(frame, CONTRACT)
    assert str(report) == (
        "6 rows, 2 columns checked: 3 rules broken\n"
        "  weather__temp is below min -60 degC: 1 rows; first: row 2, -300.0\n"
        "  weather__temp is above max 60 degC: 4 rows; first: row 0, 412.0\n"
        "  weather__state is not among the categories: 1 rows; first: row 5, 'x'"
    )
    assert report.to_dict()["findings"][1] == {
        "column": "weather__temp",
        "rule": "max",
        "text": "weather__temp is above max 60 degC",
        "count": 4,
        "rows": (0, 3, 4),
        "examples": (412.0, 99.0, 98.0),
    }
    assert report.to_dict()["ok"] is False


@pytest.mark.parametrize(
    ("column", "held_against"),
    [
        ("temp", "temp"),
        ("weather__temp", "temp"),
        ("weather__temp_lag_24h", "temp"),
        ("weather__temp_forecast_6h", "temp"),
        ("weather__temp_mean_1h", "temp"),
        ("weather__temp_q90_1h_offset_1d", "temp"),
        ("weather__temp_soil", "temp_soil"),
        ("weather__temp_soil_max_1h", "temp_soil"),
        ("weather__temp_std_1h", None),  # a spread is no temperature
        ("weather__temp_sum_1h", None),
        ("weather__temp_slope_1h", None),
        ("weather__temp_count_1h", None),
        ("weather__temperature", None),
        ("weather__event_age", None),
    ],
)
def test_features_that_stay_in_the_range_of_their_column_are_held_against_it(
    column: str, held_against: str | None
) -> None:
    report = check_frame(pl.DataFrame({column: [1.0]}), CONTRACT)
    assert report.checked == ({column: held_against} if held_against else {})


def test_names_of_ones_own_are_said() -> None:
    frame = pl.DataFrame({"x": [412.0]})
    assert check_frame(frame, CONTRACT).checked == {}
    assert [finding.rule for finding in check_frame(frame, CONTRACT, columns={"x": "temp"}).findings] == ["max"]
    with pytest.raises(KeyError):
        check_frame(frame, CONTRACT, columns={"x": "pressure"})


def test_a_number_as_text_is_no_served_value_of_its_type_if_it_cannot_be_read() -> None:
    report = check_frame(pl.DataFrame({"weather__temp": ["1.5", "warm"], "weather__count": [1.0, 2.0]}), CONTRACT)
    assert [str(finding.text) for finding in report.findings] == ["weather__temp is no Float64"]


def test_not_a_number_is_outside_every_range() -> None:
    report = check_frame(pl.DataFrame({"weather__temp": [float("nan")]}), CONTRACT)
    assert [finding.rule for finding in report.findings] == ["nan"]


def test_the_features_of_a_view_are_held_against_its_provider_s_contract() -> None:
    observations = pl.DataFrame(
        {
            "station": ["mast"] * 3,
            "event_time": [NOON + timedelta(hours=hour) for hour in range(3)],
            "arrival_time": [NOON + timedelta(hours=hour) for hour in range(3)],
            "temp": [20.0, 412.0, 21.0],
        }
    )
    features = [al.latest("temp"), al.lag("temp", "1h"), al.window("temp", ["mean", "std"], "2h")]
    view = al.FeatureView("weather", ["station"], observations, features)
    spine = al.make_spine({"station": ["mast"]}, NOON, NOON + timedelta(hours=3), "1h")
    report = CONTRACT.check(al.point_in_time_join(spine, [view]))
    assert sorted(report.checked) == ["weather__temp", "weather__temp_lag_1h", "weather__temp_mean_2h"]
    # 412 stands in the second row, its lag in the third; the mean of two hours is 216 in both.
    assert {finding.column: finding.rows for finding in report.findings} == {
        "weather__temp": (1,),
        "weather__temp_lag_1h": (2,),
        "weather__temp_mean_2h": (1, 2),
    }
