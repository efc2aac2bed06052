"""The DuckDB engine, where it is on its own: reading in batches, looking block by block, spilling, refusing, any type."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from compare import check_loosely
from fakes import FrameLog
from hypothesis import given, settings
from oracle_frames import view_of
from polars.testing import assert_frame_equal
from strategies import questions

import alignment as al
from alignment.engines import duckdb, sql_questions, sql_rows, sql_rules
from alignment.spine import check_spine

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = pl.Datetime("us", "UTC")


@contextmanager
def tiny_steps():
    """Blocks, batches and parts so small that a handful of rows crosses all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_rules, "BLOCK", 2)
        patch.setattr(sql_questions, "_PART_BLOCKS", 20)
        patch.setattr(sql_questions, "_PART_ROWS", 20)
        patch.setattr(sql_rows, "_BATCH_ROWS", 5)
        yield


def join(spine, views, **arguments):
    return al.point_in_time_join(spine, views, engine="duckdb", **({"status": True, "threads": 1} | arguments))


def streamed(source):
    """The source's frame as something that is read batch by batch: a log where rows have a sequence, else lazily."""
    if "log_sequence" in source.frame.columns:
        return FrameLog(
            source.frame, "provider", list(source.entities), source.kind, list(source.key) if source.key else None
        )
    return source.frame.lazy()


@settings(max_examples=8)
@given(questions())
def test_rows_read_in_batches_and_found_block_by_block_are_those_of_the_oracle(question):
    views = [view_of(source, streamed(source)) for source in question.sources]
    with tiny_steps():
        joined = join(question.spine, views, as_of=question.as_of)
    check_loosely(joined, question.spine, question.sources, as_of=question.as_of)


def world(kind, rows=3000, entities=3, events=120):
    """Many revisions, issues and retractions of few events, in no order."""
    random = np.random.default_rng(7)
    event = random.integers(0, events, rows)
    wait = random.integers(0, 50, rows)
    frame = pl.DataFrame(
        {
            "station": random.integers(0, entities, rows),
            "event_time": [START + int(hour) * HOUR for hour in event],
            "arrival_time": [
                START + int(hour) * HOUR for hour in (event + wait if kind == "measurement" else event - wait)
            ],
            "is_retraction": random.random(rows) < 0.25,
            "log_sequence": random.permutation(rows),
            "temp": random.normal(size=rows),
            "steps": random.integers(-9, 9, rows),
        },
        schema_overrides={"event_time": INSTANT, "arrival_time": INSTANT},
    ).with_columns(temp=pl.when(pl.col("steps") != 0).then("temp"))
    if kind == "forecast":
        late = pl.Series([timedelta(hours=int(hour)) for hour in random.integers(0, 4, rows)])
        frame = frame.with_columns(issue_time=pl.col("arrival_time") - late)
        without = frame["is_retraction"] & pl.Series(random.random(rows) < 0.2)
        frame = frame.with_columns(issue_time=pl.when(~without).then("issue_time"))
    spine = pl.DataFrame(
        {
            "station": random.integers(0, entities + 1, 200),
            "prediction_time": [
                START + timedelta(minutes=int(minute)) for minute in random.integers(-600, 170 * 60, 200)
            ],
        },
        schema_overrides={"prediction_time": INSTANT},
    )
    return frame, spine


FEATURES = [
    al.latest("temp"),
    al.latest("temp", skip_null=True, name="temp_kept"),
    al.lag("temp", ["24h", "72h"], "3h"),
    al.window(
        "temp", ["count", "sum", "mean", "std", "var", "min", "max", "first", "last", "median", "q90", "slope"], "48h"
    ),
    al.window("steps", ["sum", "mean", "q25", "max"], ["6h", "200h"]),
    al.sequence("temp", 40),
    al.sequence("steps", 8, step="5h"),
    al.event_age(),
    al.arrival_age(),
]


@pytest.mark.parametrize("kind", ["measurement", "forecast"])
@pytest.mark.parametrize("lazily", [False, True])
def test_a_crowded_history_is_answered_as_by_the_local_engine(kind, lazily):
    frame, spine = world(kind)
    features = [*FEATURES]
    if kind == "forecast":
        features += [
            al.forecast("temp", ["0s", "6h"], "2h"),
            al.forecast("temp", "3h", "1h", "20h", name="noticed"),
            al.issue_age(),
        ]
    view = al.FeatureView("w", ["station"], frame.lazy() if lazily else frame, features, kind=kind)
    assert_frame_equal(
        join(spine, [view], as_of=START + 150 * HOUR),
        al.point_in_time_join(spine, [view], as_of=START + 150 * HOUR, status=True),
        rel_tol=1e-9,
        abs_tol=1e-12,
    )


def test_rows_that_do_not_fit_into_memory_are_put_aside_and_answered_all_the_same():
    frame, spine = world("measurement", rows=400_000, entities=40, events=5_000)
    view = al.FeatureView(
        "w", ["station"], frame.lazy(), [al.latest("temp"), al.window("steps", ["sum", "count"], "100h")]
    )
    found = duckdb.evaluate(
        view, check_spine(spine, ["station"], "prediction_time"), as_of_us=None, position=None, status=False, threads=1,
        memory_limit="40MB",
    )  # fmt: skip
    local = al.point_in_time_join(spine, [view])
    for name, answered in zip(view.column_names, found, strict=True):
        assert answered.values.equals(local[name])


SORTS = {
    "text": (["a", None, "ü"], pl.String),
    "bytes": ([b"\x00\x01", None, b""], pl.Binary),
    "flag": ([True, None, False], pl.Boolean),
    "day": ([date(2026, 1, 1), None, date(1960, 1, 1)], pl.Date),
    "clock": ([time(1), None, time(23, 59, 59)], pl.Time),
    "span": ([timedelta(1), None, timedelta(-1)], pl.Duration("ms")),
    "instant": ([START, None, START - HOUR], pl.Datetime("ns", "Europe/Berlin")),
    "naive": ([datetime(2026, 1, 1), None, datetime(1960, 1, 1)], pl.Datetime("ms")),  # noqa: DTZ001 - a value may be naive
    "money": ([Decimal("1.10"), None, Decimal("-3.00")], pl.Decimal(10, 2)),
    "level": (["low", None, "high"], pl.Enum(["low", "high"])),
    "sort": (["x", None, "y"], pl.Categorical),
    "embedding": ([[1.0, 2.0], None, [3.0, 4.0]], pl.Array(pl.Float32, 2)),
    "list": ([[1], None, []], pl.List(pl.Int8)),
    "record": ([{"u": 1, "v": "a"}, None, {"u": None, "v": "b"}], pl.Struct({"u": pl.Int16, "v": pl.String})),
    "big": ([2**63, None, 1], pl.UInt64),
    "half": ([0.5, None, 1.5], pl.Float32),
}


@pytest.mark.parametrize("sort", sorted(SORTS))
@pytest.mark.parametrize("lazily", [False, True])
def test_every_type_is_gathered_as_it_is(sort, lazily):
    values, dtype = SORTS[sort]
    frame = pl.DataFrame(
        {
            "event_time": [START + hour * HOUR for hour in range(3)],
            "arrival_time": [START + hour * HOUR for hour in range(1, 4)],
            "value": pl.Series(values, dtype=dtype),
        }
    )
    spine = pl.DataFrame({"prediction_time": [START + hour * HOUR for hour in (3, 0, 2, 1)]})
    features = [
        al.latest("value"),
        al.sequence("value", 2),
        al.lag("value", "2h"),
        al.window("value", ["first", "last", "count"], "9h"),
    ]
    view = al.FeatureView("w", [], frame.lazy() if lazily else frame, features)
    assert_frame_equal(join(spine, [view]), al.point_in_time_join(spine, [view], status=True), categorical_as_str=True)


KEYS = {
    "whole numbers widen": ([1, 2], pl.Int16, [2, 1, 3, None], pl.Int64),
    "signed and unsigned meet": ([1, 2**40], pl.UInt64, [2**40, 1, -1, None], pl.Int64),
    "texts and categories meet": (["a", "b"], pl.Categorical, ["b", "a", "c", None], pl.String),
    "instants in other units meet": (
        [START, START + HOUR],
        pl.Datetime("ms", "UTC"),
        [START + HOUR, START, None],
        pl.Datetime("ns", "UTC"),
    ),
    "days": ([date(2026, 1, 1), date(1960, 1, 1)], pl.Date, [date(1960, 1, 1), None], pl.Date),
    "floats widen": ([0.5, 1.5], pl.Float32, [1.5, 0.5, 2.5, None], pl.Float64),
    "bytes": ([b"a", b"b"], pl.Binary, [b"b", b"a", None], pl.Binary),
}


@pytest.mark.parametrize("case", sorted(KEYS))
def test_keys_match_or_widen_and_null_or_unknown_ones_are_missing(case):
    given, given_type, asked, asked_type = KEYS[case]
    frame = pl.DataFrame(
        {
            "station": pl.Series(given, dtype=given_type),
            "event_time": [START, START],
            "arrival_time": [START, START],
            "temp": [1.0, 2.0],
        }
    )
    spine = pl.DataFrame({"site": pl.Series(asked, dtype=asked_type), "prediction_time": [START] * len(asked)})
    view = al.FeatureView(
        "w", ["station"], frame, [al.latest("temp"), al.window("temp", "count", "1h")], entity_map={"site": "station"}
    )
    found = join(spine, [view])
    assert_frame_equal(found, al.point_in_time_join(spine, [view], status=True))
    assert found["w__temp"].drop_nulls().sort().to_list() == ([1.0, 2.0] if len(asked) > 2 else [2.0])


def rows(**columns):
    """Three rows of one station, an hour apart, with some columns replaced."""
    usual = {
        "station": ["a", "a", "a"],
        "event_time": [START, START + HOUR, START + 2 * HOUR],
        "arrival_time": [START + HOUR, START + 2 * HOUR, START + 3 * HOUR],
        "temp": [1.0, 2.0, 3.0],
    }
    return pl.DataFrame(usual | columns)


REFUSED = {
    "a null key": (rows(station=["a", None, "a"]), {}),
    "a null event": (rows(event_time=[START, START + HOUR, None]), {}),
    "a null arrival": (rows(arrival_time=[START + HOUR, None, START + 3 * HOUR]), {}),
    "an event after its arrival": (rows(arrival_time=[START + HOUR, START, START + 3 * HOUR]), {}),
    "two rows that claim to be one": (
        rows(event_time=[START, START, START + HOUR], arrival_time=[START + HOUR] * 3),
        {},
    ),
    "two ids that claim to be one": (
        rows(arrival_time=[START + 3 * HOUR] * 3, order=["x", "x", "y"]),
        {"key": ["order"]},
    ),
    "a withdrawal beside a row": (
        rows(
            event_time=[START, START, START + HOUR],
            arrival_time=[START + HOUR] * 3,
            issue_time=[START, None, START],
            is_retraction=[False, True, False],
        ),
        {"kind": "forecast"},
    ),
    "a number that does not fit": (rows(temp=pl.Series([1, 2**63, 3], dtype=pl.UInt64)), {}),
    "a sum that does not fit": (rows(temp=pl.Series([1, 2**63 - 1, 3])), {}),
}


@pytest.mark.parametrize("reason", sorted(REFUSED))
@pytest.mark.parametrize("lazily", [False, True])
def test_what_the_local_engine_refuses_is_refused_in_the_same_words(reason, lazily):
    frame, arguments = REFUSED[reason]
    spine = pl.DataFrame({"station": ["a"], "prediction_time": [START + 5 * HOUR]})
    view = al.FeatureView(
        "w", ["station"], frame.lazy() if lazily else frame, [al.window("temp", "sum", "24h")], **arguments
    )
    with pytest.raises(al.AlignmentError) as local:
        al.point_in_time_join(spine, [view])
    with pytest.raises(type(local.value)) as here, tiny_steps():
        join(spine, [view])
    assert str(here.value) == str(local.value)


def test_equal_rows_collapse_however_many_there_are():
    frame = pl.concat([rows()] * 5)
    spine = pl.DataFrame({"station": ["a"], "prediction_time": [START + 5 * HOUR]})
    view = al.FeatureView("w", ["station"], frame.lazy(), [al.window("temp", ["count", "sum"], "24h")])
    with tiny_steps():
        assert join(spine, [view], status=False).row(0)[2:] == (3, 6.0)


def test_forecasts_with_ids_may_move_to_another_event():
    # Run 0 says that order x falls due at 10:00, run 1 that it is 12:00: at 10:00 nothing is due any more.
    frame = pl.DataFrame(
        {
            "order": ["x", "x"],
            "event_time": [START + 10 * HOUR, START + 12 * HOUR],
            "issue_time": [START, START + HOUR],
            "arrival_time": [START, START + HOUR],
            "amount": [5, 7],
        }
    )
    spine = pl.DataFrame({"prediction_time": [START, START + HOUR]})
    features = [
        al.forecast("amount", "24h", "24h"),
        al.window("amount", "sum", "12h", "-11h"),
        al.forecast("amount", "10h", "2h", name="ten"),
    ]
    view = al.FeatureView("w", [], frame, features, kind="forecast", key=["order"])
    found = join(spine, [view], status=False)
    assert found["w__amount_forecast_24h"].to_list() == [5, 7]
    assert found["w__amount_sum_12h_offset_-11h"].to_list() == [5, 7]
    assert found["w__ten"].to_list() == [5, None]


def test_min_notice_in_days_counts_calendar_days_where_the_view_names_a_zone():
    # The event is 04:00 in Berlin on the day clocks go forward; a calendar day before is 04:00 there, 23 hours earlier.
    event = datetime(2026, 3, 29, 2, tzinfo=UTC)
    frame = pl.DataFrame(
        {"event_time": [event], "issue_time": [event - 23 * HOUR], "arrival_time": [event - 23 * HOUR], "wind": [1.0]}
    )
    spine = pl.DataFrame({"prediction_time": [event - HOUR]})

    def answer(zone):
        view = al.FeatureView("w", [], frame, [al.forecast("wind", "1h", min_notice="1d")], kind="forecast", zone=zone)
        return join(spine, [view], status=False)["w__wind_forecast_1h"].to_list()

    assert answer("Europe/Berlin") == [1.0]
    assert answer(None) == [None]


def test_logs_are_read_up_to_a_position_and_rows_from_before_a_column_are_missing():
    frame = rows(log_sequence=[0, 1, 2], temp=[None, None, 3.0])
    log = FrameLog(frame, "met", ["station"], since={"temp": 1})
    view = al.FeatureView(
        "w", observations=log, features=[al.latest("temp"), al.window("temp", "count", "24h"), al.event_age()]
    )
    spine = pl.DataFrame({"station": ["a", "a", "a"], "prediction_time": [START + hour * HOUR for hour in (1, 2, 3)]})

    def words(position):
        found = join(spine, [view], positions=position)
        assert_frame_equal(found, al.point_in_time_join(spine, [view], positions=position, status=True))
        return found["w__temp__status"].to_list()

    assert words(None) == ["missing", "null", "present"]
    assert words(1) == ["missing", "null", "null"]
    assert words(-1) == ["missing", "missing", "missing"]


def test_an_empty_spine_and_empty_observations_are_answered():
    view = al.FeatureView(
        "w", ["station"], rows().clear().lazy(), [*FEATURES[:1], al.sequence("temp", 2), al.window("temp", "sum", "1h")]
    )
    spine = pl.DataFrame({"station": ["a"], "prediction_time": [START]})
    for asked in (spine, spine.clear()):
        assert_frame_equal(join(asked, [view]), al.point_in_time_join(asked, [view], status=True))
