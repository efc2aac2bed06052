"""Comparing a joined frame with the oracle, bit for bit, or as far as R17 binds an engine with its own arithmetic."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import oracle
import polars as pl
from oracle_clock import datetime_of, micros_of
from oracle_frames import Source, answers, flat, rows_of, spec_of


def differences(joined: pl.DataFrame, expected: dict[str, list[oracle.Answer]], *, status: bool) -> list[str]:
    """Where a join differs from the oracle: column, row, what was expected, what came; bit for bit."""
    found = []
    for name, column in expected.items():
        got = column_values(joined[name])
        words = joined[f"{name}__status"].to_list() if status else [None] * len(got)
        for place, (answer, value, word) in enumerate(zip(column, got, words, strict=True)):
            if not same(answer.value, value) or (status and word != answer.status):
                found.append(f"{name}[{place}]: expected {answer.value!r} {answer.status}, got {value!r} {word}")
    return found


def column_values(column: pl.Series) -> list[Any]:
    """A column as Python values; durations as microseconds, fixed-size arrays as lists."""
    if column.dtype == pl.Duration:
        return column.dt.total_microseconds().to_list()
    return column.to_list()


def same(expected: Any, got: Any) -> bool:
    """Equal in type and bits; every NaN is the same NaN."""
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(same(one, other) for one, other in zip(expected, got, strict=True))
    if isinstance(expected, float) and isinstance(got, float):
        return (math.isnan(expected) and math.isnan(got)) or struct.pack("d", expected) == struct.pack("d", got)
    return type(expected) is type(got) and bool(expected == got)


def check(
    joined: pl.DataFrame,
    spine: pl.DataFrame,
    sources: Sequence[Source],
    *,
    as_of: Any = None,
    positions: dict[str, int] | None = None,
    status: bool = True,
    move: Any = None,
) -> None:
    """Assert that a join gives the spine back and answers each row as the oracle does."""
    assert joined.select(spine.columns).equals(spine)
    expected = answers(spine, sources, as_of=as_of, positions=positions, move=move)
    assert [
        name for name in joined.columns[spine.width :] if not name.endswith("__status") and name != "provisional"
    ] == list(expected)
    wrong = differences(joined, expected, status=status)
    assert not wrong, "\n".join(wrong[:10])


def check_loosely(joined: pl.DataFrame, spine: pl.DataFrame, sources: Sequence[Source], *, as_of: Any = None) -> None:
    """R17 for other engines: the same rows chosen; arithmetic within 1e-12 of the sum of the absolute values."""
    assert joined.select(spine.columns).equals(spine)
    wrong = []
    for source in sources:
        rows = rows_of(source)
        for feature in flat(source.features):
            spec = spec_of(feature, source)
            got = column_values(joined[spec.name])
            words = joined[f"{spec.name}__status"].to_list()
            expected = answers(spine, [Source(**{**vars(source), "features": (feature,)})], as_of=as_of)[spec.name]
            for place, (answer, value, word) in enumerate(zip(expected, got, words, strict=True)):
                slack = 0.0
                if spec.what == "window" and isinstance(answer.value, float):
                    key = spine.row(place, named=True)
                    slack = allowance(rows, source, spec, key, as_of)
                if word != answer.status or not near(answer.value, value, slack):
                    wrong.append(
                        f"{spec.name}[{place}]: expected {answer.value!r} {answer.status}, got {value!r} {word}, slack {slack}"
                    )
    assert not wrong, "\n".join(wrong[:10])


def near(expected: Any, got: Any, slack: float) -> bool:
    """Equal, or two floats no further apart than `slack`."""
    if isinstance(expected, float) and isinstance(got, float):
        if math.isnan(expected) or math.isnan(got):
            return math.isnan(expected) and math.isnan(got)
        return expected == got or abs(expected - got) <= slack
    return same(expected, got)


def allowance(rows: list[oracle.Row], source: Source, spec: oracle.Feature, key: dict[str, Any], as_of: Any) -> float:
    """How far an engine's own arithmetic may lie off, from the size of the window's values."""
    back = {own: theirs for theirs, own in source.entity_map.items()}
    entity = tuple(key[back.get(name, name)] for name in source.entities)
    t = micros_of(key["prediction_time"])
    known = oracle.counting(
        [row for row in rows if row["entity"] == entity], t, None if as_of is None else micros_of(as_of)
    )
    low, high = oracle.window_range(source.view, spec, t)
    inside = oracle.between(oracle.current(known, source.kind)[0], low, high, low_counts=False)
    instants, values = oracle.window_values(inside, spec)
    numbers = [abs(float(value)) for value in values if math.isfinite(value)]
    if spec.aggregate in ("sum", "mean", "median") or spec.aggregate.startswith("q"):
        return 1e-12 * sum(numbers)
    if spec.aggregate == "var":
        return 1e-11 * sum(number * number for number in numbers)
    if spec.aggregate == "std":
        return (
            1e-5 * math.sqrt(sum(number * number for number in numbers))
            if max(numbers, default=0.0) > 1e6
            else 1e-9 * sum(numbers)
        )
    if spec.aggregate == "slope":
        hours = (max(instants) - min(instants)) / 3.6e9
        return 1e-9 * sum(numbers) / hours if hours else 0.0
    return 0.0


def describe(sources: Sequence[Source], spine: pl.DataFrame, place: int) -> str:
    """The rows of the entity that one spine row asks about, for a failing test to show."""
    key = spine.row(place, named=True)
    lines = [f"t = {key['prediction_time']}"]
    for source in sources:
        for row in sorted(rows_of(source), key=oracle.revision_order):
            lines.append(f"{source.name} {row['entity']} arrival {datetime_of(row['arrival'])} {row}")
    return "\n".join(lines)
