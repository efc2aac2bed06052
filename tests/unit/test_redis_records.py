"""Rows as bytes for a shared state, and what entities are called there: no server is needed for these."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import series

from alignment.layout import rows_differ
from serving.online.redis_keys import ViewKeys, entities_of, key_texts
from serving.online.redis_records import Encoded, RecordLayout

LONG = "a text that is longer than twelve bytes"


def rows(n: int, **columns: Any) -> pl.DataFrame:
    """n canonical rows with log sequences 0, 1, ..."""
    times = {"@event": range(n), "@arrival": range(100, 100 + n), "@order": range(n)}
    return pl.DataFrame([pl.Series(name, list(at), dtype=pl.Int64) for name, at in times.items()]).with_columns(
        pl.Series(name, values, strict=False) for name, values in columns.items()
    )


def layout_of(frame: pl.DataFrame) -> RecordLayout:
    kinds = {name: kind for name, kind in frame.schema.items() if not name.startswith("@")}
    return RecordLayout(kinds, forecast="@issue" in frame.columns)


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    found = found.select(wanted.columns)
    assert_frame_equal(found, wanted, check_exact=True)
    floats = [name for name, kind in wanted.schema.items() if kind.is_float()]
    assert not rows_differ(found.select(floats), wanted.select(floats)).any()  # -0.0 is not 0.0


KINDS: list[Any] = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64),
    *(pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Time, pl.Null, pl.Int128),
    *(pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Datetime("ns", "Europe/Berlin"), pl.Duration("us")),
    *(pl.Decimal(38, 5), pl.Categorical, pl.Enum(["low", "a much longer one"])),
    *(pl.List(pl.Int16), pl.List(pl.Float64), pl.List(pl.Boolean), pl.List(pl.String), pl.List(pl.List(pl.Int8))),
    *(pl.Array(pl.Float32, 3), pl.Array(pl.Int64, 1), pl.Array(pl.String, 2), pl.Array(pl.Int8, (2, 2))),
    *(pl.Struct({"u": pl.Float64, "v": pl.String}), pl.List(pl.Struct({"u": pl.Int8}))),
]


@given(st.data(), st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), st.integers(0, 6))
def test_every_type_comes_back_as_it_was_however_entities_are_cut(
    data: st.DataObject, kinds: list[Any], n: int
) -> None:
    columns = {
        f"c{i}": data.draw(series(dtype=kind, min_size=n, max_size=n, allow_null=True)) for i, kind in enumerate(kinds)
    }
    frame = rows(n).with_columns(**columns)
    layout = layout_of(frame)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    found = layout.decode(layout.encode(frame).pieces([0, *cuts, n]))
    assert_same(found.frame(), frame)
    assert found.offsets.tolist() == [0, *cuts, n]


def test_hand_picked_values_come_back_bit_for_bit() -> None:
    frame = rows(
        4,
        real=[float("nan"), -0.0, None, float("-inf")],
        text=["", "twelve bytes", LONG, None],
        money=pl.Series([Decimal("1.10"), None, Decimal("-0.01"), Decimal("99999999.99")], dtype=pl.Decimal(12, 2)),
        vector=pl.Series([[1.0, None], None, [-0.0, float("nan")], [0.0, 0.0]], dtype=pl.Array(pl.Float32, 2)),
        texts=[["a", None], [], None, [LONG]],
    )
    found = layout_of(frame).decode(layout_of(frame).encode(frame).pieces([0, 4])).frame()
    assert_same(found, frame)
    assert [str(np.signbit(x)) for x in found["vector"][2]] == ["True", "False"]


def test_null_events_and_issues_and_retractions_come_back() -> None:
    frame = rows(3, temp=[1, 2, 3]).with_columns(
        pl.Series("@event", [None, 5, 6]),
        pl.Series("@issue", [1, None, 3]),
        pl.Series("@retraction", [True, True, False]),
    )
    assert_same(layout_of(frame).decode(layout_of(frame).encode(frame).pieces([0, 3])).frame(), frame)


def test_rows_beyond_the_position_are_left_out_with_their_part_of_the_heap() -> None:
    frame = rows(6, text=[LONG + str(i) for i in range(6)])
    found = layout_of(frame).decode(layout_of(frame).encode(frame).pieces([0, 3, 6]), position=3)
    assert found.series("text").to_list() == [LONG + "0", LONG + "1", LONG + "2", LONG + "3"]
    assert found.offsets.tolist() == [0, 3, 4]
    assert found.series("text", np.array([3, 0])).to_list() == [LONG + "3", LONG + "0"]


def test_a_restamp_counts_from_its_own_position_and_never_makes_a_row_earlier() -> None:
    frame = rows(3, text=[LONG, "b", None])  # arrivals 100, 101, 102
    layout = layout_of(frame)
    late = layout.restamps(np.array([1, 1, 2, 9]), np.array([500, 400, 50, 900]), np.array([7, 8, 8, 8]))
    [(records, heap)] = layout.encode(frame).pieces([0, 3])
    piece = (records + late.records.tobytes(), heap)
    assert layout.decode([piece], position=6).arrival.tolist() == [100, 101, 102]
    assert layout.decode([piece], position=7).arrival.tolist() == [100, 500, 102]
    assert layout.decode([piece], position=8).arrival.tolist() == [100, 500, 102]
    assert layout.decode([piece], position=8).series("text").to_list() == [LONG, "b", None]


def test_taken_rows_bring_their_own_part_of_the_heap() -> None:
    frame = rows(4, text=[LONG, "short", None, LONG[::-1]], more=[[1], [2, 3], [], None])
    layout = layout_of(frame)
    taken = layout.encode(frame).take(np.array([3, 1]))
    assert_same(layout.decode(taken.pieces([0, 2])).frame(), frame[[3, 1]])


def test_nothing_is_nothing() -> None:
    frame = rows(0, text=pl.Series([], dtype=pl.String), more=pl.Series([], dtype=pl.List(pl.Int8)))
    layout = layout_of(frame)
    assert_same(layout.decode([]).frame(), frame)
    assert_same(layout.decode([(b"", b""), (b"", b"")]).frame(), frame)
    assert isinstance(layout.encode(frame), Encoded)


def test_a_layout_of_other_types_has_another_fingerprint() -> None:
    one = RecordLayout({"a": pl.Int64(), "b": pl.String()}, forecast=False)
    assert one.fingerprint == RecordLayout({"a": pl.Int64(), "b": pl.String()}, forecast=False).fingerprint
    others = [
        RecordLayout({"a": pl.Float64(), "b": pl.String()}, forecast=False),
        RecordLayout({"b": pl.String(), "a": pl.Int64()}, forecast=False),
        RecordLayout({"a": pl.Int64(), "b": pl.String()}, forecast=True),
        RecordLayout({"a": pl.Int64(), "b": pl.Enum(["x"])}, forecast=False),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), unique=True))
def test_different_entities_are_called_differently_whatever_is_in_them(keys: list[tuple[str, str]]) -> None:
    texts = key_texts(keys, [pl.String(), pl.String()])
    assert len(set(texts)) == len(keys)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pl.String(), "a b/{x}:é", b"a%20b%2F%7Bx%7D%3A%C3%A9"),
        (pl.Int64(), -3, b"-3"),
        (pl.UInt64(), 2**64 - 1, b"18446744073709551615"),
        (pl.Boolean(), True, b"1"),
        (pl.Float64(), -0.0, b"0.0"),
        (pl.Float64(), float("nan"), b"nan"),
        (pl.Date(), datetime(1970, 1, 3, tzinfo=UTC).date(), b"2"),
        (pl.Datetime("us", "UTC"), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), b"1000000"),
        (pl.Duration("ms"), timedelta(seconds=1), b"1000"),
        (pl.Binary(), b"\x00\xff", b"00ff"),
        (pl.Enum(["x y"]), "x y", b"x%20y"),
    ],
)
def test_a_key_is_called_the_same_in_a_frame_and_in_a_request(kind: Any, value: Any, text: bytes) -> None:
    assert key_texts([value, None], [kind]) == [text, None]
    frame = pl.DataFrame({"key": pl.Series([value, value], dtype=kind)})
    numbers, names = entities_of(frame, ["key"])
    assert (numbers.tolist(), names) == ([0, 0], [text])


def test_a_view_without_entities_has_one_series() -> None:
    assert key_texts([(), None, ()], []) == [b"", None, b""]
    numbers, names = entities_of(rows(2), [])
    assert (numbers.tolist(), names) == ([0, 0], [b""])


def test_all_keys_of_a_view_lie_in_one_slot_and_other_definitions_have_other_keys() -> None:
    keys = ViewKeys("my app", "wind {north}", "definition", "layout")
    names = [keys.head, keys.lock, keys.records(b"a%7D"), keys.heap(b"a%7D")]
    assert len({name[name.index(b"{") : name.index(b"}")] for name in names}) == 1
    assert keys.records(b"a").startswith(b"my%20app:{wind%20%7Bnorth%7D/")
    assert keys.entity_of(keys.records(b"a%7D")) == b"a%7D"
    others = [
        ViewKeys("my app", "wind {north}", "definition", "other"),
        ViewKeys("b", "wind {north}", "definition", "layout"),
    ]
    assert len({keys.head, *(other.head for other in others)}) == 3
