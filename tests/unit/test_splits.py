"""Splits ordered in time: which rows train at T, and which do not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from makers import asked, at, table, temps, weather

import alignment as al
from alignment.errors import (
    ColumnTypeError,
    DefinitionError,
    DurationError,
    MissingColumnError,
    NaiveTimeError,
    NullTimeError,
)
from alignment.lookback import lookback_floor

INSTANT = pl.Datetime("us", "UTC")


def rows(*cells, label=pl.Float64):
    """A data set by hand: (prediction_time, label, label_event_time, label_arrival_time)."""
    frame = table("prediction_time label label_event_time label_arrival_time", *cells, label=label)
    return frame.with_columns(
        pl.Series(name, [at(row[place]) for row in cells], dtype=INSTANT)
        for place, name in ((2, "label_event_time"), (3, "label_arrival_time"))
    )


def hourly(n: int, *, horizon: str = "1h", late: str = "30m") -> pl.DataFrame:
    """Rows at 00:00, 01:00, ...; each label `horizon` after its row, arriving `late` after that."""
    frame = pl.DataFrame(
        {"prediction_time": [at(f"{hour:02}:00") for hour in range(n)], "label": [float(i) for i in range(n)]}
    )
    event = pl.col("prediction_time").dt.offset_by(horizon)
    return frame.with_columns(label_event_time=event, label_arrival_time=event.dt.offset_by(late))


def facts(split):
    return split.train.to_list(), split.test.to_list(), {name: n for name, n in split.purged.items() if n}


def test_rows_from_t_on_are_tested_and_rows_before_train():
    split = al.split_at(hourly(6), at("04:00"), embargo=None)
    # Row 3 (03:00) has its label at 04:00, which is not before T. Row 2 has it at 03:00, arrived 03:30.
    assert facts(split) == ([0, 1, 2], [4, 5], {"label_overlap": 1})
    assert (split.at, split.until, split.train_until) == (
        at("04:00"),
        at("2026-01-05T05:00:00.000001"),
        at("2026-01-05T03:59:59.999999"),
    )


def test_a_label_that_arrived_at_t_trains_and_a_microsecond_later_does_not():
    frame = rows(
        ("00:00", 1.0, "01:00", "04:00"),
        ("01:00", 1.0, "02:00", "2026-01-05T04:00:00.000001"),
        ("04:00", 1.0, "05:00", "06:00"),
    )
    assert facts(al.split_at(frame, at("04:00"), embargo=None)) == ([0], [2], {"label_arrival_time": 1})


def test_a_label_whose_event_is_t_overlaps_and_a_microsecond_earlier_does_not():
    frame = rows(
        ("00:00", 1.0, "2026-01-05T03:59:59.999999", "04:00"),
        ("01:00", 1.0, "04:00", "04:00"),
        ("04:00", 1.0, "05:00", "06:00"),
    )
    assert facts(al.split_at(frame, at("04:00"), embargo=None)) == ([0], [2], {"label_overlap": 1})


def test_an_embargo_keeps_rows_at_exactly_its_length_before_t():
    frame = rows(
        ("02:00", 1.0, "02:10", "02:20"),
        ("2026-01-05T02:00:00.000001", 1.0, "02:10", "02:20"),
        ("04:00", 1.0, "05:00", "06:00"),
    )
    split = al.split_at(frame, at("04:00"), embargo="2h")
    assert facts(split) == ([0], [2], {"embargo": 1})
    assert split.train_until == at("02:00")


def test_rows_without_a_label_neither_train_nor_test():
    frame = rows(
        ("00:00", None, None, None),
        ("01:00", None, "01:10", "01:20"),  # an event whose value is null
        ("02:00", 1.0, "02:10", "02:20"),
        ("04:00", None, None, None),
        ("05:00", 1.0, "05:10", "05:20"),
    )
    split = al.split_at(frame, at("04:00"), embargo=None)
    assert facts(split) == ([2], [4], {"no_label": 2})
    assert split.untestable == 1


def test_a_row_is_counted_under_the_first_rule_that_strikes_it():
    frame = rows(
        ("00:00", 1.0, "00:10", "00:20"),
        ("03:00", None, None, None),
        ("03:10", 1.0, "04:00", "05:00"),  # overlaps, arrived late, and lies in the embargo
        ("03:20", 1.0, "03:30", "05:00"),  # arrived late, and lies in the embargo
        ("03:30", 1.0, "03:40", "03:50"),
        ("04:00", 1.0, "05:00", "06:00"),
    )
    split = al.split_at(frame, at("04:00"), embargo="2h")
    assert split.purged == {"no_label": 1, "label_overlap": 1, "label_arrival_time": 1, "embargo": 1}


def test_the_test_period_ends_before_its_end():
    split = al.split_at(hourly(8), at("04:00"), test_size="2h", embargo=None)
    assert split.test.to_list() == [4, 5]  # 06:00 is the next period's
    assert split.until == at("06:00")


def test_a_sliding_training_period_begins_at_its_start():
    split = al.split_at(hourly(6), at("04:00"), train_size="3h", embargo=None)
    assert facts(split) == ([1, 2], [4, 5], {"label_overlap": 1})  # 01:00 is in, 00:00 is not, and not counted


def test_rows_need_not_be_in_order():
    frame = hourly(6).reverse()
    assert facts(al.split_at(frame, at("04:00"), embargo=None)) == ([3, 4, 5], [0, 1], {"label_overlap": 1})


def test_equal_parts_of_time_the_first_of_which_only_trains():
    # 00:00 to 05:00 in three parts: T at 01:40 and 03:20, taken at the next row: 02:00 and 04:00.
    splits = al.time_splits(hourly(6), 2, embargo=None)
    assert [facts(split) for split in splits] == [
        ([0], [2, 3], {"label_overlap": 1}),
        ([0, 1, 2], [4, 5], {"label_overlap": 1}),
    ]
    assert splits[0].until == splits[1].at == at("04:00")


def test_periods_of_one_length_lie_side_by_side_and_end_with_the_last_row():
    splits = al.time_splits(hourly(8), 3, test_size="2h", embargo=None)
    assert [(split.at, split.test.to_list()) for split in splits] == [
        (at("02:00"), [2, 3]),
        (at("04:00"), [4, 5]),
        (at("06:00"), [6, 7]),
    ]
    assert len(splits) == 3
    assert [split.at for split in splits[1:]] == [at("04:00"), at("06:00")]


def test_no_split_trains_on_what_it_or_an_earlier_row_of_it_tests():
    frame = hourly(20, horizon="2h", late="1h")
    for split in al.time_splits(frame, 4, embargo="1h"):
        train = frame[split.train]
        assert train["label_arrival_time"].max() <= split.at
        assert train["label_event_time"].max() < split.at
        assert frame[split.test]["prediction_time"].min() >= split.at


def test_sklearn_takes_them():
    model_selection = pytest.importorskip("sklearn.model_selection")
    from sklearn.linear_model import LinearRegression

    frame = hourly(20)
    cv = list(al.time_splits(frame, 3, embargo=None).as_cv())
    assert [(train.dtype, test.dtype) for train, test in cv] == [(np.int64, np.int64)] * 3
    hours = np.arange(20.0).reshape(-1, 1)
    scores = model_selection.cross_val_score(LinearRegression(), hours, frame["label"].to_numpy(), cv=cv)
    assert scores.round(9).tolist() == [1.0, 1.0, 1.0]  # the label is the hour


# --- look-back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feature", "floor"),
    [
        (al.window("temp", "mean", "6h"), "06:00"),  # (06:00, 12:00]: a row at 06:00 shares no event with it
        (al.window("temp", "mean", "6h", "2h"), "04:00"),
        (al.lag("temp", "6h"), "06:00"),  # unbounded below: counts with `by`
        (al.lag("temp", "6h", "1h"), "05:00"),
        (al.sequence("temp", 3, "10m"), "11:30"),
        (al.sequence("temp", 3, max_span="2h"), "10:00"),
        (al.sequence("temp", 3), "12:00"),
        (al.latest("temp"), "12:00"),
        (al.latest("temp", max_event_age="90m"), "10:30"),
        (al.event_age(), "12:00"),
    ],
)
def test_what_a_feature_is_bound_to_look_back_to(feature, floor):
    view = weather(temps(("a", "10:00", "10:10", 1.0)), feature)
    assert lookback_floor([view], int(at("12:00").timestamp() * 1e6)) == int(at(floor).timestamp() * 1e6)


def test_a_grid_reaches_back_from_its_last_point_not_from_t():
    view = weather(temps(("a", "10:00", "10:10", 1.0)), al.sequence("temp", 3, "10m"))
    # At 12:04 the slots end at 12:00, 11:50, 11:40; the oldest begins after 11:30.
    assert lookback_floor([view], int(at("12:04").timestamp() * 1e6)) == int(at("11:30").timestamp() * 1e6)


def test_a_view_gives_its_age_limit_to_its_latest():
    view = weather(temps(("a", "10:00", "10:10", 1.0)), al.latest("temp"), max_event_age="3h")
    assert lookback_floor([view], int(at("12:00").timestamp() * 1e6)) == int(at("09:00").timestamp() * 1e6)


def test_calendar_days_look_back_by_the_wall_clock():
    # Berlin: noon of Sunday 29 March 2026 is 10:00 UTC; noon of the day before is 11:00 UTC, 23 hours earlier.
    view = weather(temps(("a", "10:00", "10:10", 1.0)), al.lag("temp", "1d"), zone="Europe/Berlin")
    noon, before = at("2026-03-29T10:00:00"), at("2026-03-28T11:00:00")
    assert lookback_floor([view], int(noon.timestamp() * 1e6)) == int(before.timestamp() * 1e6)


def test_a_forecast_looks_back_only_where_its_tolerance_exceeds_its_lead():
    frame = table("station event_time issue_time arrival_time wind", ("a", "12:00", "10:00", "10:10", 1.0))
    view = al.FeatureView(
        "nwp", ["station"], frame, [al.forecast("wind", "1h", "3h"), al.forecast("wind", "6h")], kind="forecast"
    )
    assert lookback_floor([view], int(at("12:00").timestamp() * 1e6)) == int(at("10:00").timestamp() * 1e6)


def observed() -> pl.DataFrame:
    """Station a, every hour from 00:00 to 11:00, arriving ten minutes later."""
    return temps(*(("a", f"{hour:02}:00", f"{hour:02}:10", float(hour)) for hour in range(12)))


def test_a_data_set_brings_its_views_label_and_prediction_time():
    view = weather(observed(), al.window("temp", "mean", "3h"))
    spine = asked(*(f"{hour:02}:00" for hour in range(1, 11))).rename({"prediction_time": "asked_at"})
    dataset = al.build_dataset(
        spine, [view], label=al.label("temp", horizon="1h", name="target"), prediction_time="asked_at"
    )
    split = al.split_at(dataset, at("08:00"))
    # T - 3h = 05:00, rows 1:00..5:00. 06:00 lies in the embargo; 07:00 has its label at 08:00.
    assert facts(split) == ([0, 1, 2, 3, 4], [7, 8, 9], {"label_overlap": 1, "embargo": 1})
    assert split.train_frame(dataset)["target"].to_list() == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert split.test_frame(dataset)["target"].to_list() == [9.0, 10.0, 11.0]


def revised(release: str):
    """Labels at 01:00 and 02:00; that of 01:00 is revised at 05:00, that of 02:00 withdrawn at 06:00."""
    frame = table(
        "station event_time arrival_time is_retraction temp",
        ("a", "00:00", "00:10", False, 0.0),
        ("a", "01:00", "01:10", False, 1.0),
        ("a", "01:00", "05:00", False, 1.5),
        ("a", "02:00", "02:10", False, 2.0),
        ("a", "02:00", "06:00", True, None),
        ("a", "05:00", "05:10", False, 5.0),
        temp=pl.Float64,
    )
    view = weather(frame, al.latest("temp"))
    return al.build_dataset(
        asked("04:00", "00:00", "01:00"), [view], label=al.label("temp", horizon="1h", release=release)
    )


def test_final_labels_that_were_revised_after_t_do_not_train():
    dataset = revised("final")
    assert dataset.frame["label"].to_list() == [5.0, 1.5, None]
    with pytest.raises(DefinitionError, match="nothing to train on"):
        al.split_at(dataset, at("04:00"))


def test_labels_as_known_are_those_current_at_t():
    dataset = revised("as_known")
    split = al.split_at(dataset, at("04:00"))
    assert facts(split) == ([1, 2], [0], {})
    columns = ["label", "label_event_time", "label_arrival_time"]
    assert split.train_frame(dataset).select(columns).rows() == [
        (1.0, at("01:00"), at("01:10")),  # not yet 1.5
        (2.0, at("02:00"), at("02:10")),  # not yet withdrawn
    ]
    assert split.train_frame(dataset).columns == dataset.frame.columns
    assert split.test_frame(dataset)["label"].to_list() == [5.0]


def test_labels_as_known_do_not_fit_one_y_for_all_splits():
    splits = al.time_splits(revised("as_known"), 1)
    with pytest.raises(DefinitionError) as caught:
        splits.as_cv()
    assert str(caught.value) == (
        "labels released as_known differ from split to split: row numbers into one y would train on later revisions\n"
        "\n"
        "hint: loop over the splits and take split.train_frame(dataset)."
    )


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "arguments", "kind", "text"),
    [
        (
            hourly(6),
            {},
            DefinitionError,
            (
                "embargo='lookback', and it is not said which features look back\n\n"
                'hint: pass views=[...], a duration such as embargo="24h", or embargo=None.'
            ),
        ),
        (hourly(6), {"n_splits": 0}, DefinitionError, "n_splits=0 is not a positive integer\n\nhint: e.g. n_splits=5."),
        (
            hourly(6),
            {"n_splits": True},
            DefinitionError,
            "n_splits=True is not a positive integer\n\nhint: e.g. n_splits=5.",
        ),
        (
            hourly(6),
            {"n_splits": 6, "embargo": None},
            DefinitionError,
            "6 distinct prediction times do not make 6 test periods and something to train on\n\nhint: ask for fewer splits.",
        ),
        (
            hourly(6),
            {"n_splits": 3, "test_size": "2h", "embargo": None},
            DefinitionError,
            (
                "3 test periods of 2h leave nothing to train on: rows reach from 2026-01-05T00:00:00+00:00 to "
                "2026-01-05T05:00:00+00:00\n\nhint: ask for fewer splits, or a shorter test_size."
            ),
        ),
        (
            hourly(6),
            {"n_splits": 1, "embargo": "1d"},
            DefinitionError,
            (
                "the split at 2026-01-05T03:00:00+00:00 has nothing to train on: of 3 rows before it 1 struck by label_overlap, 2 "
                'by embargo\n\nhint: split later, or shorten the embargo, e.g. embargo="1h".'
            ),
        ),
        (
            hourly(6),
            {"embargo": "-1h"},
            DurationError,
            "embargo='-1h' is negative\n\nhint: embargo counts from zero up, e.g. \"1h\".",
        ),
        (
            hourly(1).clear(),
            {"embargo": None},
            DefinitionError,
            "the data set has no rows\n\nhint: build it over a spine that has some.",
        ),
        (
            hourly(6).rename({"label": "labels"}),
            {"embargo": None},
            MissingColumnError,
            "the data set has no column 'label'\n\nhint: did you mean 'labels'? Pass label=\"labels\".",
        ),
        (
            hourly(6).drop("label_arrival_time", "label_event_time"),
            {"embargo": None},
            MissingColumnError,
            "the data set has no column 'label_event_time'\n\nhint: its columns are 'prediction_time', 'label'.",
        ),
        (
            hourly(6).with_columns(pl.col("prediction_time").dt.replace_time_zone(None)),
            {"embargo": None},
            NaiveTimeError,
            (
                "the data set: 'prediction_time' has no time zone\n\nhint: say what zone it is in, e.g. "
                'pl.col("prediction_time").dt.replace_time_zone("UTC").'
            ),
        ),
        (
            hourly(6).with_columns(label_arrival_time=pl.lit("now")),
            {"embargo": None},
            ColumnTypeError,
            (
                "the data set: 'label_arrival_time' is String, not an instant\n\n"
                'hint: it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").'
            ),
        ),
        (
            hourly(2).with_columns(prediction_time=pl.lit(None, INSTANT)),
            {"embargo": None},
            NullTimeError,
            (
                "the data set: 'prediction_time' is null in 2 rows, first in row 0\n\n"
                'hint: drop them, e.g. frame.drop_nulls("prediction_time").'
            ),
        ),
    ],
)
def test_what_cannot_be_split_says_so(frame, arguments, kind, text):
    with pytest.raises(kind) as caught:
        al.time_splits(frame, **arguments)
    assert str(caught.value) == text


def test_a_split_before_the_first_row_says_so():
    with pytest.raises(DefinitionError) as caught:
        al.split_at(hourly(6), at("00:00"), embargo=None)
    assert str(caught.value) == (
        "the split at 2026-01-05T00:00:00+00:00 has nothing to train on: no row is before it\n\nhint: split later."
    )


def test_a_test_period_without_rows_says_so():
    with pytest.raises(DefinitionError) as caught:
        al.split_at(hourly(6), at("05:30"), test_size="1h", embargo=None)
    assert str(caught.value) == (
        "the split at 2026-01-05T05:30:00+00:00 has nothing to test on: no row with a label is in "
        "[2026-01-05T05:30:00+00:00, 2026-01-05T06:30:00+00:00)\n"
        "\n"
        "hint: split earlier, or test on a longer period."
    )


def test_a_naive_t_is_refused():
    with pytest.raises(NaiveTimeError, match="at=datetime.datetime"):
        al.split_at(hourly(6), at("04:00").replace(tzinfo=None), embargo=None)


def test_a_label_that_arrived_a_nanosecond_after_t_does_not_train():
    frame = hourly(4).with_columns(pl.col("label_arrival_time").cast(pl.Datetime("ns", "UTC")).dt.offset_by("1ns"))
    split = al.split_at(frame, at("02:30"), embargo=None)
    # Row 0's label arrived at 01:30:00.000000001, row 1's at 02:30:00.000000001, after T.
    assert facts(split) == ([0], [3], {"label_overlap": 1, "label_arrival_time": 1})


# --- the rules once more, as plain loops ------------------------------------------------------------------------------

MOMENTS = [at(f"{hour:02}:00") for hour in range(6)]
ROWS = st.tuples(*[st.integers(0, 5)] * 3, st.sampled_from([None, 1.0, 2.0]))


@given(
    st.lists(ROWS, min_size=1, max_size=12),
    st.integers(1, 5),
    st.sampled_from([None, "1h", "2h"]),
    st.sampled_from([None, "1h", "3h"]),
)
def test_every_row_is_where_the_rules_put_it(drawn, place, embargo, train_size):
    frame = pl.DataFrame(
        {
            "prediction_time": [MOMENTS[t] for t, _, _, _ in drawn],
            "label": pl.Series([value for *_, value in drawn], dtype=pl.Float64),
            "label_event_time": [MOMENTS[event] for _, event, _, _ in drawn],
            "label_arrival_time": [MOMENTS[arrival] for _, _, arrival, _ in drawn],
        }
    )
    hours = {None: 0, "1h": 1, "2h": 2, "3h": 3}
    train, test, purged = [], [], dict.fromkeys(("no_label", "label_overlap", "label_arrival_time", "embargo"), 0)
    for row, (t, event, arrival, value) in enumerate(drawn):
        if t >= place:
            test += [row] if value is not None else []
        elif train_size is not None and t < place - hours[train_size]:
            pass
        elif value is None:
            purged["no_label"] += 1
        elif event >= place:
            purged["label_overlap"] += 1
        elif arrival > place:
            purged["label_arrival_time"] += 1
        elif t > place - hours[embargo]:
            purged["embargo"] += 1
        else:
            train.append(row)
    assume(train and test)
    split = al.split_at(frame, MOMENTS[place], embargo=embargo, train_size=train_size)
    assert (split.train.to_list(), split.test.to_list(), split.purged) == (train, test, purged)
