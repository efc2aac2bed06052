"""R21 in delay models: a key is its value, whatever type holds it, and another sort of value is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

import alignment as al
from alignment import stable_hash

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
PLAIN = datetime(2020, 1, 1)  # noqa: DTZ001 - a wall time as key


def two_lines(first: Any, second: Any, kind: Any = None) -> pl.DataFrame:
    """Two keys over four days, hourly: one arrives after 1 minute, the other after 300."""
    keys = pl.Series("line", [first, second] * 96, dtype=kind)
    frame = pl.DataFrame([keys]).with_columns(event_time=pl.Series([MONDAY + n // 2 * HOUR for n in range(192)]), v=1.0)
    late = pl.Series([1 * MINUTE, 300 * MINUTE] * 96)
    return frame.with_columns(arrival_time=pl.col("event_time") + late)


def delays_of(rule: al.DelayRule, frame: pl.DataFrame) -> list[set[int]]:
    """The minutes that rows of the first key are late, and those of the second."""
    late = (rule.arrival_times(frame) - frame["event_time"]).dt.total_minutes()
    return [set(late.gather_every(2, start)) for start in (0, 1)]


def fitted(frame: pl.DataFrame) -> al.EmpiricalDelay:
    return al.fit_delay(al.Observations(frame, ["line"]), by="line", block_days=1)


@pytest.mark.parametrize(
    "keys",
    [
        ("a", "b"),
        (1, 2),
        (1.5, 2.5),
        (True, False),
        (date(2020, 1, 1), date(2020, 1, 2)),
        (time(1), time(2)),
        (timedelta(hours=1), timedelta(hours=2)),
        (Decimal("0.25"), Decimal("0.50")),
        (MONDAY, MONDAY + HOUR),
        (PLAIN, PLAIN + HOUR),
        (b"\xc8\x01", b"\xc8\x02"),
    ],
)
def test_keys_of_every_type_have_delays_of_their_own(keys: tuple[Any, Any]) -> None:
    frame = two_lines(*keys)
    rule = fitted(frame)
    assert delays_of(rule, frame) == [{1}, {300}]
    again = al.EmpiricalDelay.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert delays_of(again, frame) == [{1}, {300}]


@pytest.mark.parametrize(
    ("frame", "kinds"),
    [
        (two_lines(MONDAY, MONDAY + HOUR), [pl.Datetime("ms", "UTC"), pl.Datetime("ns", "Europe/Berlin")]),
        (two_lines(PLAIN, PLAIN + HOUR), [pl.Datetime("ms")]),
        (two_lines(1, 2), [pl.Int8, pl.UInt64, pl.Int128, pl.Float64, pl.Float32, pl.Decimal(10, 2)]),
        (two_lines("a", "b"), [pl.Categorical, pl.Enum(["b", "a"])]),
        (two_lines(Decimal("0.25"), Decimal("0.50")), [pl.Decimal(20, 6), pl.Float64]),
        (two_lines(HOUR, 2 * HOUR), [pl.Duration("ms")]),
    ],
)
def test_a_key_is_its_value_in_every_type_that_holds_it(frame: pl.DataFrame, kinds: list[Any]) -> None:
    rule = fitted(frame)
    for kind in kinds:
        other = frame.with_columns(pl.col("line").cast(kind))
        assert delays_of(rule, other) == [{1}, {300}], kind
        assert delays_of(fitted(other), frame) == [{1}, {300}], kind


def test_another_sort_of_key_is_refused_and_not_taken_for_an_unknown_one() -> None:
    frame = two_lines(1, 2)
    with pytest.raises(al.KeyTypeError) as caught:
        fitted(frame).arrival_times(frame.with_columns(pl.col("line").cast(pl.String)))
    assert str(caught.value) == (
        "'line' is String; where the delays of 'observations' were measured, it was: number\n\n"
        "hint: make them alike: cast 'line', or fit to rows like these: al.fit_delay(rows, by='line')."
    )
    wall = two_lines(MONDAY, MONDAY + HOUR).with_columns(pl.col("line").dt.replace_time_zone(None))
    with pytest.raises(al.KeyTypeError, match="it was: instant"):
        fitted(two_lines(MONDAY, MONDAY + HOUR)).arrival_times(wall)
    unknown = frame.with_columns(line=pl.lit(None))  # no key was ever known
    assert fitted(frame).arrival_times(unknown).null_count() == 0


def test_groups_that_were_typed_tell_their_kind_themselves() -> None:
    day = 86_400_000
    rule = al.EmpiricalDelay(
        provider="meter", travels="event", by=("line",), groups=((1,), (2,)), members=(0, 1), origins_ms=(0, 0),
        delays_ms=(60_000, 18_000_000), stretch_ms=(0, day),
    )  # fmt: skip
    assert delays_of(rule, two_lines(1.0, 2.0)) == [{1}, {300}]
    with pytest.raises(al.KeyTypeError):
        rule.arrival_times(two_lines("1", "2"))
    with pytest.raises(al.DefinitionError, match="does not fit the groups"):
        al.EmpiricalDelay(
            provider="meter", travels="event", by=("line",), groups=(("1",),), members=(0,), kinds=("number", "text"),
            origins_ms=(0,), delays_ms=(0,), stretch_ms=(0, day),
        )  # fmt: skip


def test_values_are_written_alike_in_every_type() -> None:
    def texts(values: list[Any], kind: Any = None) -> list[str | None]:
        return stable_hash.value_texts(pl.Series(values, dtype=kind)).to_list()

    assert texts([1.0, -0.0, 0.25, 1e-7, 1e20, None]) == ["1", "0", "0.25", "0.0000001", "1" + "0" * 20, None]
    assert texts([float("nan"), float("inf"), float("-inf")]) == ["NaN", "Infinity", "-Infinity"]
    assert texts([Decimal("1.50"), Decimal("-2.00"), Decimal("100.00")]) == ["1.5", "-2", "100"]
    assert texts([Decimal(100), Decimal(0)], pl.Decimal(5, 0)) == ["100", "0"]
    assert texts([2**100], pl.Int128) == ["1267650600228229401496703205376"]
    assert texts([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)], pl.Datetime("ms", "UTC")) == ["1000000"]
    assert texts([b"\xff\x00", None]) == ["ff00", None]
    with pytest.raises(al.KeyTypeError) as caught:
        texts([[1]])
    assert caught.value.problem == "'' is List(Int64), not a key"


def test_wide_integers_and_decimals_of_any_scale_draw_alike() -> None:
    start = stable_hash.salt("x")

    def hashes(values: list[Any], kind: Any) -> list[int]:
        return [int(found) for found in stable_hash.row_hashes([pl.Series(values, dtype=kind)], start)]

    assert hashes([7, -1, None], pl.Int128) == hashes([7, -1, None], pl.Int64)
    assert hashes([7, 2**63 + 5], pl.Int128) == hashes([7, 2**63 + 5], pl.UInt64)
    assert len(set(hashes([2**63, 2**64, 2**100, -(2**100), 0], pl.Int128))) == 5
    narrow, wide = (hashes([Decimal("0.25"), Decimal(3)], pl.Decimal(20, scale)) for scale in (2, 6))
    assert narrow == wide
    assert narrow[0] != narrow[1]
    events = pl.Series([MONDAY] * 3)
    frame = pl.DataFrame({"id": pl.Series([1, 2, 3], dtype=pl.Int128), "event_time": events})
    rule = al.EmpiricalDelay(
        provider="meter", travels="key", keys=("id",), origins_ms=tuple(range(0, 10**8, 10**5)),
        delays_ms=tuple(np.arange(1000).tolist()), stretch_ms=(0, 10**8),
    )  # fmt: skip
    assert rule.arrival_times(frame).equals(rule.arrival_times(frame.with_columns(pl.col("id").cast(pl.Int64))))
