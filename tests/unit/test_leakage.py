"""The leak report: naive against available, per feature and as a score."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from fakes import FrameLog
from html_page import Page
from makers import asked, at, table, temps, weather

import alignment as al
from alignment.baseline import fit_ridge, score
from alignment.errors import DefinitionError, MissingColumnError
from alignment.leakage_text import as_text

NAN = float("nan")
INF = float("inf")


def compared(frame, *features, spine=None, **arguments):
    """The report's one row for each feature of a view of weather, as dictionaries."""
    view = weather(frame, *features, **arguments.pop("view", {}))
    return al.leak_report(spine if spine is not None else asked("11:00", "12:00"), [view], **arguments).frame.to_dicts()


def differing(frame, *features, **arguments):
    (row,) = compared(frame, *features, **arguments)
    return row["rows_differing"], row["rows_naive_only"], row["rows_available_only"]


# --- what naive is ----------------------------------------------------------------------------------------------------


def test_naive_sees_a_value_from_its_event_on():
    # At 11:00 naive has the event of 11:00, available that of 10:00; at 12:00 both have that of 11:00.
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 2.0))
    (row,) = compared(frame, al.latest("temp"))
    assert row == {
        "feature": "weather__temp",
        "rows": 2,
        "rows_differing": 1,
        "share_differing": 0.5,
        "rows_naive_only": 0,
        "rows_available_only": 0,
        "mean_difference": 1.0,
        "median_difference": 1.0,
        "max_difference": 1.0,
        "mean_difference_sd": pytest.approx(1 / np.sqrt(0.5)),  # available: 1.0 and 2.0
        "unit": None,
    }


def test_infinities_differ_and_are_no_distance_apart():
    # Naive has -inf at 11:00 and 12:00, available 1.0 and -inf; what is infinite is no distance, and no warning (which is an error here).
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", -INF))
    (row,) = compared(frame, al.latest("temp"))
    assert (row["rows_differing"], row["mean_difference"], row["max_difference"]) == (1, None, None)
    (row,) = compared(temps(("a", "10:00", "10:10", 1e308), ("a", "11:00", "11:10", -1e308)), al.latest("temp"))
    assert (row["rows_differing"], row["max_difference"]) == (1, None)  # further apart than a float can say


def test_naive_sees_the_last_revision_at_all_times():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "10:00", "20:00", 1.5))
    assert differing(frame, al.latest("temp")) == (2, 0, 0)
    assert differing(frame, al.latest("temp"), as_of=at("19:59")) == (0, 0, 0)  # the revision is not in that table
    assert differing(frame, al.latest("temp"), as_of=at("20:00")) == (2, 0, 0)


def test_naive_never_knew_what_was_retracted_later():
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "10:00", "10:10", False, 1.0),
        ("a", "10:00", "20:00", True, None),
        temp=pl.Float64,
    )
    assert differing(frame, al.latest("temp")) == (2, 0, 2)


def test_naive_sees_a_forecast_from_its_issue_on_and_falls_back_to_older_issues():
    frame = table(
        "station event_time issue_time arrival_time wind",
        ("a", "13:00", "09:00", "09:10", 1.0),
        ("a", "13:00", "11:00", "12:30", 2.0),
        wind=pl.Float64,
    )
    view = al.FeatureView(
        "nwp", ["station"], frame, [al.forecast("wind", "2h"), al.forecast("wind", "1h")], kind="forecast"
    )
    report = al.leak_report(asked("11:00", "12:00"), view)
    # At 11:00 naive takes the run of 11:00 for 13:00; at 12:00 too. Available has that of 09:00 both times.
    assert report.frame["rows_differing"].to_list() == [1, 1]
    early = al.leak_report(asked("10:00", "10:59"), view)
    assert early.frame["rows_differing"].to_list() == [0, 0]  # before 11:00 naive has the run of 09:00 as well


def test_naive_has_no_issue_that_was_withdrawn_and_those_that_came_after():
    frame = table(
        "station event_time issue_time arrival_time is_retraction wind",
        ("a", "13:00", "08:00", "08:10", False, 1.0),
        ("a", "13:00", "09:00", "09:10", False, 2.0),
        ("a", "13:00", None, "15:00", True, None),  # withdraws both
        ("a", "13:00", "08:00", "16:00", False, 3.0),  # comes back, later
        wind=pl.Float64,
    )
    view = al.FeatureView("nwp", ["station"], frame, [al.forecast("wind", "1h")], kind="forecast")
    (row,) = al.leak_report(asked("12:00"), view).frame.to_dicts()
    assert (row["rows_differing"], row["max_difference"]) == (1, 1.0)  # naive 3.0 of 08:00, available 2.0 of 09:00
    (row,) = al.leak_report(asked("12:00"), view, as_of=at("15:00")).frame.to_dicts()
    assert (row["rows_differing"], row["rows_available_only"]) == (1, 1)


def test_naive_has_a_moved_event_where_it_ended_up():
    frame = table(
        "station event_time arrival_time ident temp",
        ("a", "10:00", "10:10", "q", 1.0),
        ("a", "11:30", "12:30", "q", 1.0),
        temp=pl.Float64,
    )
    # At 11:00 available has the event of 10:00, naive none yet; at 12:00 both say 1.0.
    assert differing(frame, al.latest("temp"), view={"key": ["ident"]}) == (1, 0, 1)


def test_naive_keeps_the_order_in_which_events_of_one_instant_arrived():
    frame = table(
        "station event_time arrival_time ident temp",
        ("a", "10:00", "10:10", "z", 1.0),
        ("a", "10:00", "10:20", "b", 2.0),  # the later arrival is the latest, whatever the ids
        temp=pl.Float64,
    )
    assert differing(frame, al.latest("temp"), view={"key": ["ident"]}) == (0, 0, 0)


def test_a_log_is_read_at_one_position():
    frame = table(
        "station event_time arrival_time log_sequence temp",
        ("a", "10:00", "10:10", 0, 1.0),
        ("a", "10:00", "11:30", 1, 2.0),
        temp=pl.Float64,
    )
    log = FrameLog(frame, "weather", ["station"])
    view = al.FeatureView("weather", observations=log, features=[al.latest("temp")])
    late = at("12:00")  # so that only the position keeps the revision out
    assert al.leak_report(asked("11:00"), view, as_of=late).frame["rows_differing"].to_list() == [1]
    report = al.leak_report(asked("11:00"), view, as_of=late, positions={"weather": 0})
    assert report.frame["rows_differing"].to_list() == [0]


def test_declared_arrivals_are_ignored_too():
    frame = temps(("a", "10:30", "10:30", 1.0)).drop("arrival_time")
    assert differing(frame, al.latest("temp"), view={"delay": al.FixedDelay("45m")}) == (1, 1, 0)  # arrives at 11:15


def test_renamed_columns_derived_columns_and_entity_maps_are_kept():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 2.0)).rename(
        {"event_time": "happened", "arrival_time": "came"}
    )
    rows = al.Observations(
        frame, ["station"], event_time="happened", arrival_time="came", derive={"twice": pl.col("temp") * 2}
    )
    view = al.FeatureView("weather", observations=rows, features=[al.latest("twice")], entity_map={"site": "station"})
    (row,) = al.leak_report(asked("11:00").rename({"station": "site"}), view).frame.to_dicts()
    assert (row["rows_differing"], row["max_difference"]) == (1, 2.0)


def test_input_order_and_threads_change_nothing():
    frame = temps(
        *(("a", f"{hour:02}:00", f"{hour:02}:{hour % 7}0", float(hour % 5)) for hour in range(20) if hour % 7 < 6)
    )
    spine = asked(*(f"{hour:02}:30" for hour in range(20)))
    features = [al.latest("temp"), al.window("temp", ["mean", "std"], "6h"), al.sequence("temp", 3)]
    one = al.leak_report(spine, weather(frame, *features), threads=1)
    other = al.leak_report(spine, weather(frame.reverse(), *features), threads=2)
    assert one.to_dict() == other.to_dict()
    assert str(one) == str(other)


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_engines_agree(engine):
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 2.0), ("a", "11:00", "20:10", 2.5))
    report = al.leak_report(
        asked("11:00", "12:00"), weather(frame, al.latest("temp"), al.window("temp", "sum", "2h")), engine=engine
    )
    assert report.frame["rows_differing"].to_list() == [2, 2]


# --- how values are compared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "kind", "expected"),
    [
        (1.0, None, pl.Float64, (1, 0, 1)),  # null is a value: naive null where available has 1.0
        (None, 1.0, pl.Float64, (1, 1, 0)),
        (NAN, NAN, pl.Float64, (0, 0, 0)),
        (NAN, 1.0, pl.Float64, (1, 0, 0)),
        (0.0, -0.0, pl.Float64, (0, 0, 0)),
        (1.0, 1.0 + 2**-52, pl.Float64, (1, 0, 0)),  # nothing is rounded
        ("x", "y", pl.String, (1, 0, 0)),
        (True, False, pl.Boolean, (1, 0, 0)),
        ([1.0, NAN], [1.0, NAN], pl.Array(pl.Float64, 2), (0, 0, 0)),
        ([1.0, 2.0], [1.0, 3.0], pl.Array(pl.Float64, 2), (1, 0, 0)),
        (["x", None], ["x", "y"], pl.List(pl.String), (1, 0, 0)),
        ({"u": 1.0}, {"u": 2.0}, pl.Struct({"u": pl.Float64}), (1, 0, 0)),
    ],
)
def test_values_are_compared_exactly(first, second, kind, expected):
    frame = temps(("a", "10:00", "10:10", first), ("a", "11:00", "11:10", second), temp=kind)
    assert differing(frame, al.latest("temp"), spine=asked("11:00")) == expected


def test_differences_are_taken_where_both_are_numbers_and_differ():
    # available at 11:00, 12:00, 13:00, 14:00: 1, 4, 4, NaN; naive: 4, 4, 14 (13:00), NaN -> differences 3 and 10.
    frame = temps(
        ("a", "10:00", "10:10", 1.0),
        ("a", "11:00", "11:10", 4.0),
        ("a", "13:00", "13:10", 14.0),
        ("a", "13:30", "13:40", NAN),
    )
    (row,) = compared(frame, al.latest("temp"), spine=asked("11:00", "12:00", "13:00", "14:00"))
    assert (row["rows_differing"], row["mean_difference"], row["median_difference"], row["max_difference"]) == (
        2,
        6.5,
        6.5,
        10.0,
    )
    assert row["mean_difference_sd"] == pytest.approx(6.5 / np.sqrt(3))  # of 1, 4, 4: mean 3, squares 4 + 1 + 1, over 2


def test_slots_of_a_sequence_are_compared_one_by_one():
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 4.0))
    (row,) = compared(frame, al.sequence("temp", 2), spine=asked("09:30", "11:00"))
    # At 09:30 both are [null, null]; at 11:00 naive has [1, 4] and available [null, 1]: one slot has two numbers.
    assert (row["rows_differing"], row["rows_naive_only"], row["max_difference"]) == (1, 0, 3.0)
    (row,) = compared(frame, al.sequence("temp", 2), spine=asked("10:05"))
    assert row["rows_naive_only"] == 1  # [null, 1] against [null, null]


def test_ages_and_instants_differ_in_seconds():
    frame = temps(
        ("a", "10:00", "10:10", at("10:00")), ("a", "11:00", "11:10", at("11:00")), temp=pl.Datetime("us", "UTC")
    )
    for feature in (al.event_age(), al.latest("temp")):
        (row,) = compared(frame, feature, spine=asked("11:00"))
        assert (row["max_difference"], row["unit"]) == (3600.0, "s")


def test_texts_have_no_distance():
    frame = temps(("a", "10:00", "10:10", "x"), ("a", "11:00", "11:10", "y"), temp=pl.String)
    (row,) = compared(frame, al.latest("temp"))
    assert [row[name] for name in ("mean_difference", "max_difference", "mean_difference_sd", "unit")] == [None] * 4


def test_an_empty_spine_has_no_shares():
    (row,) = compared(temps(("a", "10:00", "10:10", 1.0)), al.latest("temp"), spine=asked("11:00").clear())
    assert (row["rows"], row["rows_differing"], row["share_differing"]) == (0, 0, None)


# --- the score --------------------------------------------------------------------------------------------------------


def telling(n: int = 120) -> tuple[pl.DataFrame, al.FeatureView, al.Label]:
    """Rows every hour. The label one hour on is the signal of now, which arrives three hours late."""
    draws = np.random.default_rng(5).normal(size=n)
    instants = pl.datetime_range(at("00:00"), at("28 00:00"), "1h", time_unit="us", eager=True)[: n + 1]
    signal = pl.DataFrame({"station": "a", "event_time": instants[:n], "signal": draws}).with_columns(
        arrival_time=pl.col("event_time").dt.offset_by("3h")
    )
    outcome = pl.DataFrame({"station": "a", "event_time": instants[1:], "load": draws}).with_columns(
        arrival_time=pl.col("event_time").dt.offset_by("5m")
    )
    spine = pl.DataFrame({"station": "a", "prediction_time": instants[:n]})
    label = al.label("load", horizon="1h", observations=al.Observations(outcome, ["station"]))
    return spine, al.FeatureView("feed", ["station"], signal, [al.latest("signal")]), label


def test_a_model_that_knows_the_answer_offline_knows_nothing_live():
    spine, view, label = telling()
    report = al.leak_report(spine, view, label=label)
    scores = {(row["trained_on"], row["scored"]): row for row in report.skill.to_dicts()}
    assert list(scores) == [("naive", "offline"), ("naive", "live"), ("available", "offline"), ("available", "live")]
    assert scores["naive", "offline"]["r2"] > 0.99  # naive has the very value that the label will be
    assert scores["naive", "live"]["r2"] < 0.0  # live it has one three hours old, of independent draws
    assert -0.2 < scores["available", "live"]["r2"] < 0.1
    for name in ("r2", "mae", "rmse"):
        assert scores["available", "offline"][name] == scores["available", "live"][name]
    fake = report.fake_skill
    assert fake["r2"] == scores["naive", "offline"]["r2"] - scores["naive", "live"]["r2"] > 1.0
    assert fake["mae"] == scores["naive", "live"]["mae"] - scores["naive", "offline"]["mae"] > 0.5


def test_the_test_rows_are_the_last_three_tenths():
    spine, view, label = telling(100)
    report = al.leak_report(spine, view, label=label)
    assert report.trained_at == spine["prediction_time"][70]
    # Row 69 has its label at T: 69 rows train. T - 0: latest without an age limit has no look-back.
    assert set(report.skill.select("train_rows", "test_rows").rows()) == {(69, 30)}
    assert report.notes == ("69 rows train and 30 are tested; not trained on: 1 by label_overlap",)


def test_t_and_embargo_can_be_chosen():
    spine, view, label = telling(100)
    report = al.leak_report(spine, view, label=label, test_from=spine["prediction_time"][50], embargo="10h")
    assert set(report.skill.select("train_rows", "test_rows").rows()) == {(41, 50)}
    with pytest.raises(DefinitionError, match="nothing to train on"):
        al.leak_report(spine, view, label=label, test_from=spine["prediction_time"][0])


def test_columns_of_the_spine_that_are_known_may_help():
    spine, view, label = telling()
    known = spine.with_columns(hint=view.observations.frame["signal"])
    report = al.leak_report(known, view, label=label, known_columns=["hint"])
    assert report.skill["r2"][3] > 0.99  # the hint is the answer, and is there when it is asked
    assert report.skill["r2"][1] < 0.9  # the naive model leans on the signal as well, which is not
    with pytest.raises(MissingColumnError) as caught:
        al.leak_report(known, view, label=label, known_columns=["hints"])
    assert str(caught.value) == ("the spine has no column 'hints'\n\nhint: did you mean 'hint'?")


def test_without_a_label_there_is_no_score():
    spine, view, _ = telling(20)
    report = al.leak_report(spine, view)
    assert (report.skill.height, report.fake_skill, report.label) == (0, None, None)
    assert "trained on" not in str(report)


@pytest.mark.parametrize(
    ("load", "note"),
    [
        (pl.lit("high"), "no score: the label is String, not a number"),
        (pl.lit(None, pl.Float64), "no score: no row has a label"),
        (pl.lit(NAN), "no score: the labels are not finite"),
    ],
)
def test_a_label_that_cannot_be_scored_is_said_to_be_none(load, note):
    spine, view, label = telling(20)
    rows = label.observations.frame.with_columns(load=load)
    report = al.leak_report(
        spine, view, label=al.label("load", horizon="1h", observations=al.Observations(rows, ["station"]))
    )
    assert report.notes == (note,)
    assert report.fake_skill is None


def test_an_embargo_that_leaves_nothing_to_train_on_is_said():
    spine, view, label = telling(20)
    (note,) = al.leak_report(spine, view, label=label, embargo="30d").notes
    assert note == (
        "no score: the split at 2026-01-05T14:00:00+00:00 has nothing to train on: of 14 rows before it 1 struck by "
        "label_overlap, 13 by embargo"
    )


def test_labels_as_known_train_as_they_were_known_at_t():
    spine, view, label = telling()
    changed = label.observations.frame.with_columns(pl.col("load") * 100, arrival_time=pl.lit(at("27 00:00")))
    both = pl.concat([label.observations.frame, changed])
    observations = al.Observations(both, ["station"])
    for release, trains in (("as_known", 83), ("first", 83)):
        late = al.label("load", horizon="1h", observations=observations, release=release)
        report = al.leak_report(spine, view, label=late)
        assert report.skill["train_rows"].to_list() == [trains] * 4
    (note,) = al.leak_report(spine, view, label=al.label("load", horizon="1h", observations=observations)).notes
    assert note.startswith(
        "no score: the split at 2026-01-08T12:00:00+00:00 has nothing to train on"
    )  # all revised later


# --- the baseline -----------------------------------------------------------------------------------------------------


def test_ridge_solves_a_line():
    rows = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "constant": [7.0] * 4})
    model = fit_ridge(rows, ["x", "constant"], np.array([1.0, 3.0, 5.0, 7.0]), penalty=1e-12)
    assert model.predict(pl.DataFrame({"x": [10.0], "constant": [7.0]})).round(6).tolist() == [21.0]


def test_ridge_shrinks_as_the_closed_form_says():
    rows = pl.DataFrame({"x": [-1.0, 1.0]})
    model = fit_ridge(rows, ["x"], np.array([-3.0, 3.0]), penalty=1.0)
    assert model.weights.tolist() == [2.0]  # x'y / (x'x + 1) = 6 / 3


def test_what_is_missing_takes_the_mean_and_is_told_apart():
    rows = pl.DataFrame({"x": [-1.0, 1.0, None, NAN, float("inf")]})
    model = fit_ridge(rows, ["x"], np.array([-1.0, 1.0, 10.0, 10.0, 10.0]), penalty=1e-9)
    assert model.predict(pl.DataFrame({"x": [1.0, None]})).round(6).tolist() == [1.0, 10.0]


def test_texts_booleans_durations_and_arrays_are_used_and_the_rest_named():
    rows = pl.DataFrame(
        {
            "text": ["wet", "dry", "wet", None],
            "flag": [True, False, True, None],
            "age": pl.Series([1, 2, 3, 4], dtype=pl.Duration("us")),
            "pair": pl.Series([[1.0, 2.0]] * 4, dtype=pl.Array(pl.Float64, 2)),
            "wide": pl.Series([[1.0] * 65] * 4, dtype=pl.Array(pl.Float64, 65)),
            "words": pl.Series([["a"]] * 4, dtype=pl.Array(pl.String, 1)),
            "moment": [at("10:00")] * 4,
            "list": [[1.0]] * 4,
        }
    )
    model = fit_ridge(rows, rows.columns, np.array([1.0, 0.0, 1.0, 0.5]))
    assert model.encoding.columns == ("text", "flag", "age", "pair")
    assert model.left_out == {
        "wide": "an array of 65 slots, more than 64",
        "words": "an array of String",
        "moment": "Datetime(time_unit='us', time_zone='UTC') is neither number nor text",
        "list": "List(Float64) is neither number nor text",
    }
    assert model.encoding.categories == {"text": ("wet", "dry")}


def test_the_ten_most_frequent_texts_have_a_column_each():
    texts = [f"v{i:02}" for i in range(12)] + ["v11"]
    model = fit_ridge(pl.DataFrame({"text": texts}), ["text"], np.arange(13.0))
    assert model.encoding.categories["text"] == ("v11", "v00", "v01", "v02", "v03", "v04", "v05", "v06", "v07", "v08")
    assert np.isfinite(model.predict(pl.DataFrame({"text": ["never seen", None]}))).all()


def test_no_usable_feature_says_the_mean():
    model = fit_ridge(pl.DataFrame({"list": [[1], [2]]}), ["list"], np.array([1.0, 3.0]))
    assert model.predict(pl.DataFrame({"list": [[9]]})).tolist() == [2.0]


def test_scores_by_hand():
    got = score(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]))
    assert (got.r2, got.mae, got.rmse) == (1 - 9 / 2, 1.0, np.sqrt(3.0))
    assert np.isnan(score(np.array([1.0, 1.0]), np.array([1.0, 2.0])).r2)


# --- how it is shown --------------------------------------------------------------------------------------------------


def small_report() -> al.LeakReport:
    frame = temps(("a", "10:00", "10:10", 1.0), ("a", "11:00", "11:10", 2.0))
    features = [al.lag("temp", "1h"), al.latest("temp"), al.event_age()]
    return al.leak_report(asked("11:00", "12:00"), weather(frame, *features))


def test_the_text_is_a_plain_table_worst_first():
    assert str(small_report()) == (
        "Leak report: 2 rows, 3 features, as of 2026-01-05 11:10:00Z\n"
        "\n"
        "feature               differ  naive only  available only     mean   median      max  mean / sd\n"
        "weather__temp         50.0 %       0.0 %           0.0 %        1        1        1       1.41\n"
        "weather__event_age    50.0 %       0.0 %           0.0 %  3,600 s  3,600 s  3,600 s          -\n"
        "weather__temp_lag_1h   0.0 %       0.0 %           0.0 %        -        -        -          -"
    )


def test_the_text_of_a_score():
    report = {
        "as_of": "2026-01-05T11:10:00+00:00",
        "rows": 1200,
        "features": [],
        "label": "load",
        "trained_at": "2026-01-04T00:00:00+00:00",
        "skill": [
            {"trained_on": "naive", "scored": "offline", "r2": 0.95, "mae": 12.0, "rmse": 15.26},
            {"trained_on": "naive", "scored": "live", "r2": 0.5, "mae": 120.0, "rmse": 150.26},
            {"trained_on": "available", "scored": "offline", "r2": 0.7, "mae": 60.0, "rmse": 70.0},
            {"trained_on": "available", "scored": "live", "r2": 0.7, "mae": 60.0, "rmse": 70.0},
        ],
        "fake_skill": {"r2": 0.45, "mae": 108.0, "rmse": 135.0},
        "left_out": {"weather__words": "List(String) is neither number nor text"},
        "notes": ["800 rows train and 400 are tested"],
    }
    assert as_text(report).split("\n\n", 2)[2] == (
        "trained on  scored      R²  MAE  RMSE\n"
        "naive       offline  0.950   12  15.3\n"
        "naive       live     0.500  120   150\n"
        "available   offline  0.700   60    70\n"
        "available   live     0.700   60    70\n"
        "\n"
        "Fake skill: R² 0.450. Trained on naive rows the model scores 0.950 offline and 0.500 live; trained on available rows it "
        "scores 0.700 in both.\n"
        "\n"
        "The model is a ridge regression for the label 'load', trained at T = 2026-01-04 00:00:00Z and tested on the rows from T "
        "on; R² of 0 is always saying the mean of the tested labels.\n"
        "\n"
        "800 rows train and 400 are tested.\n"
        "\n"
        "Not used by the model: weather__words (List(String) is neither number nor text)."
    )


def test_the_dictionary_is_json_and_holds_no_nan():
    spine, view, label = telling()
    constant = al.Observations(label.observations.frame.with_columns(load=pl.lit(1.0)), ["station"])
    report = al.leak_report(spine, view, label=al.label("load", horizon="1h", observations=constant))
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["skill"][0]["r2"] is None  # of a constant label
    assert plain["fake_skill"]["r2"] is None
    assert plain["fake_skill"]["mae"] == 0.0
    assert list(plain) == [
        "as_of",
        "rows",
        "features",
        "label",
        "trained_at",
        "skill",
        "fake_skill",
        "left_out",
        "notes",
    ]
    assert "the model errs by 0 offline and 0 live; trained on available rows by 0 live." in str(report)


def scored_report() -> al.LeakReport:
    spine, view, label = telling()
    return al.leak_report(spine, view, label=label)


def test_the_page_stands_alone_and_adapts_to_light_and_dark():
    page = Page(scored_report().to_html())
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe"}
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "onclick"))
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in page.tags


def test_tables_of_the_page_can_be_read_without_looking():
    page = Page(scored_report().to_html())
    regions = [attributes for tag, attributes in page.tags if attributes.get("role") == "region"]
    assert len(regions) == 2  # scores, features
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2", "caption")] == ["h1", "h2", "caption", "h2", "caption"]


def test_the_page_explains_itself():
    text = "".join(Page(small_report().to_html()).text)
    assert (
        "Every feature was computed twice: from what had arrived by the prediction time (available), and from the table as it stood "
        "at 2026-01-05 11:10:00Z, in which each value is there from its event on, in its last revision (naive). Where the two "
        "differ, a model trained the naive way learns from values that it will not have when it is asked."
    ) in text


def test_names_are_escaped():
    frame = temps(("a", "10:00", "10:10", 1.0))
    report = al.leak_report(asked("11:00"), weather(frame, al.latest("temp", name="<b>&")))
    page = report.to_html()
    assert "weather__&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_a_notebook_shows_a_piece_with_inline_styles_and_not_all_rows():
    frame = temps(("a", "10:00", "10:10", 1.0))
    features = [al.lag("temp", f"{minutes}m") for minutes in range(1, 33)]
    piece = al.leak_report(asked("11:00"), weather(frame, *features))._repr_html_()
    page = Page(piece)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"html", "style", "script"}
    assert sum(tag == "tr" for tag, _ in page.tags) == 31  # the head and 30 of 32
    assert "and 2 more: see <code>report.frame</code>" in piece
