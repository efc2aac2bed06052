"""What a delay costs: scores under shifted arrivals, typed by hand and by plain loops."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from fakes import FrameLog
from makers import at

import alignment as al
from alignment.baseline import fit_ridge, score
from alignment.errors import DefinitionError, LabelError, MissingColumnError
from alignment.models import train
from alignment.resampling import Drawing, Errors
from alignment.whatif_text import Figures

HOUR = timedelta(hours=1)
START = at("00:00")


class Newest:
    """Says the first feature; where it is missing, 0."""

    def fit(self, rows, target):
        self.fitted = (len(rows), len(target))

    def predict(self, rows):
        return np.nan_to_num(rows[:, 0])


class Offset:
    """Learns how far the label lies above the first feature, and adds it."""

    def fit(self, rows, target):
        self.above = float(np.nanmean(target - rows[:, 0]))

    def predict(self, rows):
        return np.nan_to_num(rows[:, 0]) + self.above


def hours(count):
    return [START + number * HOUR for number in range(count)]


def readings(values, delay="1h", station="a"):
    """One value an hour, each arriving `delay` after its event."""
    frame = pl.DataFrame({"station": station, "event_time": hours(len(values)), "load": [float(v) for v in values]})
    return frame.with_columns(arrival_time=pl.col("event_time").dt.offset_by(delay))


def meter(frame, *features):
    return al.FeatureView("meter", ["station"], frame, list(features) or [al.latest("load")])


def ramp(days=10, **arguments):
    """A load that rises by 1 an hour, known an hour late; the label is the load in an hour: 2 above what is known."""
    view = meter(readings(range(24 * days)))
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(24 * days)})
    arguments = {"label": al.label("load", "1h"), "model": Newest} | arguments
    return al.delay_cost(spine, view, **arguments)


def maes(report, model="deployed"):
    return dict(report.frame.filter(pl.col("model") == model).select("shift", "mae").iter_rows())


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_on_a_ramp_each_hour_of_delay_costs_exactly_one_hour_of_the_ramp():
    report = ramp(shifts=["0m", "1h", "2h", "5h"], retrain=False)
    assert maes(report) == {"0m": 2.0, "1h": 3.0, "2h": 4.0, "5h": 7.0}
    changes = report.frame.select("mae_change", "mae_change_low", "mae_change_high", "rmse_change").rows()
    assert changes == [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (2.0, 2.0, 2.0, 2.0), (5.0, 5.0, 5.0, 5.0)]
    assert report.frame["share_changed"].to_list() == [0.0, 1.0, 1.0, 1.0]


def test_nothing_arrives_before_its_event():
    # An hour earlier is at the event; three hours earlier too.
    assert maes(ramp(shifts=["-3h", "-1h", "-30m", "0m"])) == {"-3h": 1.0, "-1h": 1.0, "-30m": 2.0, "0m": 2.0}


def test_the_deployed_model_pays_for_what_a_retrained_one_learns():
    # What is known lies 2 below the label, and 2 more with 2 hours' shift: one model adds 2, the other learned 4.
    report = ramp(shifts=["2h", "0m"], model=Offset)
    assert maes(report) == {"0m": 0.0, "2h": 2.0}
    assert maes(report, "retrained") == {"0m": 0.0, "2h": 0.0}
    assert report.frame["shift"].to_list() == ["0m", "0m", "2h", "2h"]  # ascending, whatever was asked first


@pytest.mark.parametrize(
    ("asked", "told"), [(["1h"], ["0m", "1h"]), (["off", "-1h"], ["-1h", "0m", "off"]), (["0h", "off"], ["0h", "off"])]
)
def test_no_shift_is_in_the_report_whatever_was_asked(asked, told):
    report = ramp(shifts=asked, retrain=False)
    assert report.frame["shift"].to_list() == told
    assert maes(report)[told[-2 if "off" in told else 0]] == 2.0
    assert report.to_html().count("<tr>") == 1 + len(told)


def test_shifts_count_from_the_arrivals_as_they_were():
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0] * 30
    frame = readings(values, "30m")
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)[24:]})
    report = al.delay_cost(
        spine, meter(frame), label=al.label("load", "1h"), model=Newest, shifts=["0m", "30m", "31m"], retrain=False
    )
    tested = [n for n in range(24, 239) if hours(240)[n] >= report.trained_at]

    def expected(back):  # the newest event that has arrived lies `back` hours before t; the label an hour after it
        return pytest.approx(np.mean([abs(values[n - back] - values[n + 1]) for n in tested]), abs=1e-12)

    # The event at t has not arrived at t (30 min), that of an hour before has, until the delay exceeds an hour.
    assert maes(report) == {"0m": expected(1), "30m": expected(1), "31m": expected(2)}


def test_one_provider_is_moved_and_labels_and_the_others_stay():
    frame = readings(range(240))
    views = [meter(frame), al.FeatureView("spare", ["station"], frame, [al.latest("load")])]
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)})
    label = al.label("load", "1h", observations=views[0])
    arguments = {"label": label, "model": Newest, "shifts": ["0m", "3h"], "retrain": False}
    report = al.delay_cost(spine, views, **arguments)
    # Newest looks at the meter only; the label is the meter's as well, and does not move with it.
    rows = report.frame.select("provider", "shift", "mae").rows()
    assert rows == [("meter", "0m", 2.0), ("meter", "3h", 5.0), ("spare", "0m", 2.0), ("spare", "3h", 2.0)]
    assert al.delay_cost(spine, views, **arguments, providers=["spare"]).frame["mae"].to_list() == [2.0, 2.0]


# --- against the rules, written again ---------------------------------------------------------------------------------


def noisy(seed=3, count=24 * 12):
    """Two stations with delays that differ from row to row, some rows corrected later."""
    draws = np.random.default_rng(seed)
    parts = []
    for station in ("a", "b"):
        first = pl.DataFrame(
            {
                "station": station,
                "event_time": hours(count),
                "load": draws.standard_normal(count).cumsum(),
                "wait": draws.integers(5, 150, count),
            }
        ).with_columns(arrival_time=pl.col("event_time") + pl.duration(minutes=pl.col("wait")))
        later = first.filter(pl.Series(draws.random(count) < 0.2)).with_columns(
            pl.col("load") + 1.0, pl.col("arrival_time") + timedelta(minutes=100)
        )
        parts += [first, later]
    return pl.concat(parts).drop("wait")


@pytest.mark.parametrize("shift", [-20, 0, 45, 130])
def test_plain_loops_find_the_same_error(shift):
    frame = noisy()
    spine = pl.DataFrame({"station": ["a", "b"]}).join(pl.DataFrame({"prediction_time": hours(280)[40:]}), how="cross")
    label = al.label("load", "1h", observations=al.Observations(frame, ["station"]), release="first")
    report = al.delay_cost(spine, meter(frame), label=label, model=Newest, shifts=[f"{shift}m"], retrain=False)
    rows = frame.sort("arrival_time").to_dicts()
    moved, first_of = [], {}
    for row in rows:  # the first arrival of a key moves, later ones keep their distance, none before its event
        key = (row["station"], row["event_time"])
        begin = first_of.setdefault(key, (row["arrival_time"], row["load"]))[0]
        to = max(begin + timedelta(minutes=shift), row["event_time"])
        moved.append((row["station"], row["event_time"], to + (row["arrival_time"] - begin), row["load"]))
    errors = []
    for station in ("a", "b"):
        for t in hours(280)[40:]:
            if t < report.trained_at:
                continue
            known = [one for one in moved if one[0] == station and one[1] <= t and one[2] <= t]
            newest = max((one[1:3] for one in known), default=None)
            said = next((one[3] for one in known if one[1:3] == newest), 0.0)
            errors.append(abs(said - first_of[station, t + HOUR][1]))
    assert report.test_rows == len(errors)
    assert report.frame.filter(shift=f"{shift}m")["mae"].item() == pytest.approx(np.mean(errors), abs=1e-12)


def test_no_shift_is_the_score_of_the_plain_data_set():
    frame = noisy()
    features = [al.latest("load"), al.window("load", ["mean", "count"], "6h"), al.event_age()]
    spine = pl.DataFrame({"station": ["a", "b"]}).join(pl.DataFrame({"prediction_time": hours(280)[40:]}), how="cross")
    label = al.label("load", "1h", release="first")
    cut = hours(280)[200]
    report = al.delay_cost(spine, meter(frame, *features), label=label, shifts=["0m", "off"], test_from=cut)
    dataset = al.build_dataset(spine, [meter(frame, *features)], label=label)
    split = al.split_at(dataset, cut)
    train_rows, test = split.train_frame(dataset), split.test_frame(dataset)
    model = fit_ridge(train_rows, dataset.feature_columns, train_rows["label"].to_numpy())
    plain = score(test["label"].to_numpy(), model.predict(test))
    assert set(report.frame.filter(pl.col("shift") == "0m").select("mae", "rmse").rows()) == {(plain.mae, plain.rmse)}

    # Off: the same model on rows without values, where a count is 0 and the rest null.
    def without(frame):
        return frame.with_columns(
            pl.when(False).then(pl.col(name)).alias(name) if "count" not in name else pl.lit(0, pl.Int64).alias(name)
            for name in dataset.feature_columns
        )

    again = fit_ridge(without(train_rows), dataset.feature_columns, train_rows["label"].to_numpy())
    off = [score(test["label"].to_numpy(), one.predict(without(test))).mae for one in (model, again)]
    assert report.frame.filter(pl.col("shift") == "off")["mae"].to_list() == off


def test_a_shift_of_nothing_moves_nothing():
    # Answered by the arrivals as they were: moving them by nothing gives the same.
    frame = noisy()
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(280)})
    moved = al.transform_arrivals(meter(frame), delays={"meter": al.ShiftedDelay("0m")})
    assert al.point_in_time_join(spine, moved).equals(al.point_in_time_join(spine, meter(frame)))


def test_a_log_is_read_at_the_position_that_was_asked_for():
    rows = readings(range(240)).with_row_index("log_sequence").with_columns(pl.col("log_sequence").cast(pl.Int64))
    correction = rows.tail(100).with_columns(pl.col("log_sequence") + 100, pl.col("load") + 1000.0)
    log = FrameLog(pl.concat([rows, correction]), "met", ["station"])
    view = al.FeatureView("meter", observations=log, features=[al.latest("load")])
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)})
    label = al.label("load", "1h", observations=al.Observations(readings(range(240)), ["station"]))
    arguments = {"label": label, "model": Newest, "shifts": ["0m", "1h"], "retrain": False}
    report = al.delay_cost(spine, view, **arguments, positions={"meter": 239})
    assert report.frame.select("provider", "mae").row(1) == ("met", 3.0)
    assert al.delay_cost(spine, view, **arguments).frame["mae"][1] > 900


# --- how sure ---------------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_whole_days_drawn_again():
    t = np.arange(5 * 24, dtype=np.int64) * 3_600_000_000
    draws = np.random.default_rng(1)
    mine, theirs = Errors(draws.random(120)), Errors(draws.random(120))
    days = Drawing(seed=7, draws=50, confidence=0.8).of(t)
    counts = np.random.default_rng(7).multinomial(5, [0.2] * 5, size=50)
    means, differences = [], []
    for drawn in counts:
        rows = [24 * day + hour for day in range(5) for _ in range(drawn[day]) for hour in range(24)]
        means.append(mine.absolute[rows].mean())
        differences.append(
            math.sqrt((mine.absolute[rows] ** 2).mean()) - math.sqrt((theirs.absolute[rows] ** 2).mean())
        )
    facts = mine.facts(days)
    assert (facts["mae_low"], facts["mae_high"]) == pytest.approx(np.percentile(means, [10, 90]), abs=1e-12)
    less = mine.less(theirs, days, "change")
    assert (less["rmse_change_low"], less["rmse_change_high"]) == pytest.approx(np.percentile(differences, [10, 90]))
    assert less["mae_change"] == mine.absolute.mean() - theirs.absolute.mean()


def test_the_same_seed_draws_the_same_days():
    frame = noisy()
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(280)[40:]})
    label = al.label("load", "1h", release="first")
    one, same, other = (
        al.delay_cost(spine, meter(frame), label=label, shifts=["1h"], seed=seed, test_from=hours(280)[90]).frame
        for seed in (1, 1, 2)
    )
    assert one.equals(same)
    assert one["mae"].equals(other["mae"])
    assert not one["mae_low"].equals(other["mae_low"])
    (row,) = one.filter(model="deployed", shift="1h").to_dicts()
    assert row["mae_low"] < row["mae"] < row["mae_high"]
    assert row["mae_change_low"] <= row["mae_change"] <= row["mae_change_high"]


def test_days_are_those_of_the_zone():
    t = np.array([22, 23, 24], np.int64) * 3_600_000_000  # 22:00, 23:00 and midnight UTC
    assert Drawing().of(t).day.tolist() == [0, 0, 1]
    assert Drawing(zone="Europe/Berlin").of(t).day.tolist() == [0, 1, 1]  # an hour ahead in January


def test_one_day_has_no_intervals():
    report = ramp(shifts=["0m", "1h"], test_from=hours(240)[-10])
    assert report.test_days == 1
    assert report.frame.select("mae_low", "mae_change_high").null_count().row(0) == (4, 4)
    assert report.notes[1] == "the tested rows lie on one day, so there are no intervals"
    assert "1 day (UTC)" in str(report)


# --- models -----------------------------------------------------------------------------------------------------------


def test_any_scikit_learn_estimator_or_what_makes_one():
    linear = pytest.importorskip("sklearn.linear_model")
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    unfitted = make_pipeline(SimpleImputer(), linear.LinearRegression())
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)[10:]})
    arguments = {"label": al.label("load", "1h"), "shifts": ["0m", "2h", "off"]}
    report = al.delay_cost(spine, meter(readings(range(240))), model=unfitted, **arguments)
    assert maes(report)["2h"] == pytest.approx(2.0)  # the deployed one adds 2 to what is known
    assert maes(report, "retrained")["2h"] == pytest.approx(0.0, abs=1e-9)  # the retrained one adds 4
    assert not hasattr(unfitted[-1], "coef_")  # a copy was trained
    made = al.delay_cost(spine, meter(readings(range(240))), model=unfitted.set_params, **arguments)
    assert made.frame.equals(report.frame)
    with pytest.raises(DefinitionError) as caught:
        al.delay_cost(spine, meter(readings(range(240))), model=linear.LinearRegression, **arguments)
    assert str(caught.value) == (
        "LinearRegression does not take the rows: Input X contains NaN.\n\nhint: features can be missing, and are NaN then: put "
        "an imputer in front, e.g. make_pipeline(SimpleImputer(), model)."
    )


def test_what_is_no_model_is_refused():
    rows, target = pl.DataFrame({"x": [1.0, 2.0]}), np.array([1.0, 2.0])
    with pytest.raises(DefinitionError, match="model=3 is no model: int has no fit"):
        train(3, rows, ["x"], target)
    with pytest.raises(DefinitionError, match="dict has no fit"):
        train(dict, rows, ["x"], target)

    class Silent(Newest):
        def predict(self, rows):
            return [math.nan] * len(rows)

    class Short(Newest):
        def predict(self, rows):
            return rows[0]

    with pytest.raises(DefinitionError, match="Silent was asked for 2 rows and said 2 that are not finite"):
        train(Silent(), rows, ["x"], target).predict(rows)
    with pytest.raises(DefinitionError, match="Short was asked for 2 rows and said 1 numbers"):
        train(Short, rows, ["x"], target).predict(rows)


def test_a_column_without_a_value_in_training_is_not_taught():
    class Widths(Newest):
        def fit(self, rows, target):
            self.width = rows[: len(target)].shape[1]

        def predict(self, rows):
            assert rows.shape[1] == self.width
            return np.full(len(rows), float(self.width))

    rows = pl.DataFrame({"x": [1.0, None], "never": [None, None]}, schema={"x": pl.Float64, "never": pl.Float64})
    full = rows.with_columns(never=1.0)
    target = np.array([1.0, 2.0])
    assert train(Widths, rows, ["x", "never"], target).predict(full).tolist() == [1.0, 1.0]
    assert train(Widths, full, ["x", "never"], target).predict(rows).tolist() == [2.0, 2.0]
    # Of nothing a model can still say the same everywhere.
    assert train(Widths, rows, ["never"], target).predict(full).tolist() == [1.0, 1.0]


def test_columns_of_the_spine_come_first():
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240), "plan": [float(n) + 1 for n in range(240)]})
    arguments = {"label": al.label("load", "1h"), "model": Newest, "shifts": ["0m", "off"], "retrain": False}
    report = al.delay_cost(spine, meter(readings(range(240))), **arguments, known_columns=["plan"])
    assert maes(report) == {"0m": 0.0, "off": 0.0}  # the plan is the truth, and nobody's delay matters
    with pytest.raises(MissingColumnError, match="did you mean 'plan'"):
        al.delay_cost(spine, meter(readings(range(240))), **arguments, known_columns=["plans"])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"providers": ["metre"]}, "'metre' is no provider of the views\n\nhint: did you mean 'meter'?"),
        ({"shifts": ["1h", "60m"]}, "shifts=['1h', '60m'] name one shift twice\n\nhint: name each once."),
        ({"shifts": []}, 'shifts=[] is not a list of shifts\n\nhint: e.g. shifts=["0m", "30m", "off"].'),
        ({"shifts": "1h"}, 'shifts=\'1h\' is not a list of shifts\n\nhint: e.g. shifts=["0m", "30m", "off"].'),
        ({"draws": 0}, "draws=0 is not a positive integer\n\nhint: e.g. draws=1000."),
        ({"confidence": 95}, "confidence=95 is not between 0 and 1\n\nhint: e.g. confidence=0.95."),
    ],
)
def test_what_cannot_mean_anything_is_refused(arguments, message):
    with pytest.raises(DefinitionError) as caught:
        ramp(**arguments)
    assert str(caught.value) == message


def test_a_label_that_is_no_number_has_no_score():
    frame = readings(range(48)).with_columns(load=pl.lit("high"))
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(48)})
    with pytest.raises(LabelError, match="the label is String, not a number"):
        al.delay_cost(spine, meter(frame), label=al.label("load", "1h"))


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_the_text_is_a_plain_table():
    # Off, 0 is said: the errors are the labels, 193 to 239; on the first day 204.5 on average, on the second 228.
    assert str(ramp(shifts=["0m", "1h", "off"], model=Newest, unit="kW", test_from=at("13 00:00"), retrain=False)) == (
        "What a delay costs: load (kW), 47 rows tested on 2 days (UTC)\n"
        "\n"
        "provider  shift  rows changed  MAE deployed  change            95 %\n"
        "meter     0m            0.0 %           2.0       -               -\n"
        "meter     1h          100.0 %           3.0    +1.0      1.0 to 1.0\n"
        "meter     off         100.0 %         216.0  +214.0  202.5 to 226.0\n"
        "\n"
        "Dearest is meter off: the deployed model's MAE is 214.0 kW greater (95 %: 202.5 to 226.0).\n"
        "\n"
        "The model is Newest.\n"
        "\n"
        "Trained at T = 2026-01-13 00:00:00Z, tested on the rows from T on.\n"
        "\n"
        "191 rows train and 47 are tested; not trained on: 1 by label_overlap.\n"
        "\n"
        "2 days are few to draw from: intervals are rough, and rather too narrow."
    )


def test_the_dictionary_is_json():
    plain = json.loads(json.dumps(ramp(shifts=["1h", "off"]).to_dict(), allow_nan=False))
    assert [row["moved"] for row in plain["costs"]] == [0.0, 0.0, 3600.0, 3600.0, None, None]
    assert (plain["confidence"], plain["zone"], plain["model"]) == (0.95, "UTC", "Newest")


def test_the_page_and_the_notebook_stand_alone():
    report = ramp(shifts=["0m", "1h"])
    page = report.to_html()
    assert page.startswith("<!doctype html>")
    assert page.count("<tr>") == 3  # the head and two shifts
    assert not any(word in page for word in ("<script", "src=", "href="))
    piece = report._repr_html_()
    assert not any(word in piece for word in ("<html", "<style"))
    assert "Dearest is meter 1h later" in piece


def test_a_shift_that_makes_it_worse_by_being_earlier_is_said_so():
    class Older(Newest):  # 3 above what is known, which is right when that is an hour older
        def predict(self, rows):
            return rows[:, 0] + 3

    assert "Dearest is meter 1h earlier: the deployed model's MAE is 1" in str(ramp(shifts=["-1h"], model=Older))


def test_figures_have_as_many_digits_as_the_greatest_error_needs():
    assert Figures.of([0.0123]).plain(0.001) == "0.00100"
    assert Figures.of([12345.0]).plain(1234.4) == "1,234"
    assert Figures.of([]).plain(0.5) == "0.500"
    assert Figures.of([100.0]).signed(-0.04) == "0.0"


def test_the_picture_has_a_panel_per_provider_with_its_axes_named():
    pytest.importorskip("matplotlib")
    frame = readings(range(240))
    views = [meter(frame), al.FeatureView("spare", ["station"], frame, [al.latest("load")])]
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)})
    label = al.label("load", "1h", observations=views[0])
    figure = al.delay_cost(spine, views, label=label, model=Newest, unit="kW").plot()
    first, second = (panel for panel in figure.axes if panel.get_visible())
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("meter", "spare")
    assert first.get_ylabel() == "MAE of load, kW"
    assert first.get_xlabel() == "arrivals moved by"
    assert [text.get_text() for text in first.get_xticklabels()] == ["-15m", "0m", "15m", "30m", "1h", "2h", "off"]
    lines = {line.get_label(): line for line in first.get_lines()}
    assert list(lines["deployed"].get_xdata()) == [-15.0, 0.0, 15.0, 30.0, 60.0, 120.0]
    assert list(lines["deployed"].get_ydata()) == [2.0, 2.0, 3.0, 3.0, 3.0, 4.0]
    assert lines["deployed"].get_color() != lines["retrained"].get_color()
    assert "(UTC)" in figure.texts[-1].get_text()


@pytest.mark.parametrize("score", ["mae", "rmse"])
@pytest.mark.parametrize("unit", [None, "a unit that is written out"])
def test_the_picture_of_one_provider_and_shift_has_room_for_its_title_and_a_band(score, unit):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    name = "load" if unit is None else "load_of_all_that_is_there"
    frame = readings(range(240)).rename({"load": name})
    spine = pl.DataFrame({"station": "a", "prediction_time": hours(240)})
    view, label = meter(frame, al.latest(name)), al.label(name, "1h")
    figure = al.delay_cost(spine, view, label=label, model=Newest, shifts=["2h"], unit=unit).plot(score=score)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    assert len(drawn) == 2  # the title, and what is below it
    assert all(box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in drawn)
    (panel,) = figure.axes
    (deployed, _) = panel.collections
    corners = {tuple(corner) for corner in deployed.get_paths()[0].vertices}
    assert {x for x, _ in corners} == {0.0, 120.0}  # from no shift to two hours
    assert (120.0, 4.0) in corners
