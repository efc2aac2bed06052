"""Joins in parts where inputs are unusual; each against the join in one piece."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import alignment as al
from alignment.engines import spilling_cuts
from alignment.larger import Larger
from alignment.memory import Portions

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are answered however small the portions are."""
    monkeypatch.setattr(spilling_cuts.Cut, "_check", lambda *_: None)


def in_parts(spine: pl.DataFrame, views: list[al.FeatureView], group: int) -> pl.DataFrame:
    larger = Larger(views, None, status=True, prediction_time="prediction_time")
    return pl.concat([frame for frame, _ in larger.parts(spine, Portions(batch=300, group=group, out=500))])


def check(spine: pl.DataFrame, views: list[al.FeatureView], *groups: int) -> None:
    expected = al.point_in_time_join(spine, views, status=True)
    for group in groups:
        assert_frame_equal(in_parts(spine, views, group), expected, check_exact=True)


def rows(n: int, **columns: Any) -> pl.DataFrame:
    events = [at(i) for i in range(n)]
    given = {"k": ["a"] * n, "event_time": events, "arrival_time": [t + timedelta(minutes=1) for t in events]}
    return pl.DataFrame(given | {"x": [float(i) for i in range(n)]} | columns)


def test_a_stream_of_arrow_is_read_once_and_answers_all_the_same() -> None:
    frame, spine = rows(20), pl.DataFrame({"k": ["a"] * 20, "prediction_time": [at(i) for i in range(20)]})

    def stream(of: pl.DataFrame) -> pa.RecordBatchReader:
        table = of.to_arrow()
        return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())

    view = al.FeatureView("v", ["k"], frame, [al.latest("x")])
    expected = al.point_in_time_join(spine, view)
    assert al.point_in_time_join(stream(spine), view, memory_limit="4GiB").equals(expected)
    again = al.FeatureView("v", ["k"], stream(frame), [al.latest("x")])
    assert al.point_in_time_join(spine, again).equals(expected)


def test_views_may_read_retractions_from_different_columns() -> None:
    n = 30
    events, back = [at(i) for i in range(n)], [at(i) for i in reversed(range(n))]
    frame = pl.DataFrame(
        {
            "k": ["a"] * 2 * n,
            "event_time": events + back,
            "arrival_time": [at(i + 1) for i in range(n)] + [at(100 + i) for i in range(n)],
            "is_retraction": [False] * n + [True] * n,
            "gone": [False] * 2 * n,
            "x": [float(i) for i in range(n)] * 2,
        }
    ).with_row_index("log_sequence")
    spine = pl.DataFrame({"k": ["a"] * 20, "prediction_time": [at(8 * i) for i in range(20)]})
    kept = al.Observations(frame, ["k"], is_retraction="gone")
    one = al.FeatureView("one", None, kept, [al.latest("x")])
    other = al.FeatureView("other", None, al.Observations(frame, ["k"]), [al.latest("x"), al.sequence("x", 3)])
    check(spine, [one, other], 64, 1024)
    check(spine, [other, one], 64, 1024)


def test_of_tied_rows_the_last_in_the_frame_stays_the_last_where_an_arrival_was_raised() -> None:
    n = 600
    events = [at(i // 6) for i in range(n)]
    arrivals = [events[i] + timedelta(minutes=1 + i % 6 // 3) for i in range(n)]
    arrivals[7] = events[7] - timedelta(seconds=2)
    frame = rows(n, event_time=events, arrival_time=arrivals)
    spine = pl.DataFrame({"k": ["a"] * 30, "prediction_time": [at(i * 3.5) for i in range(30)]})
    view = al.FeatureView("v", ["k"], frame, [al.sequence("x", 5), al.window("x", "sum", "10m")], on_tie="last")
    check(spine, [view], 2000, 4096, 20000)


def test_the_spine_may_have_a_column_of_any_name() -> None:
    frame = rows(10, k=[0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    spine = pl.DataFrame({"@row": [2, 2, 2, 0], "prediction_time": [at(11)] * 4})
    check(spine, [al.FeatureView("v", ["k"], frame, [al.latest("x")], entity_map={"@row": "k"})], 64, 1024)


def test_nans_of_all_bits_are_one_key() -> None:
    keys = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    frame = rows(9, k=np.tile(keys, 3))
    spine = pl.DataFrame({"k": keys, "prediction_time": [at(20)] * 3})
    check(spine, [al.FeatureView("v", ["k"], frame, [al.latest("x")])], 64, 256)
