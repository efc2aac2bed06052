"""Features as questions to the kernel.

Features that read the same column (or none) and count the same rows are answered in one sweep over the rows; features that
pick the same row share a question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from alignment import codes
from alignment.bounds import Bound, feature_range, grid_points
from alignment.durations import Duration
from alignment.features import Feature, Forecast, Lag, Latest, SequenceOf, Window
from alignment.layout import Ints


@dataclass(slots=True)
class Question:
    """One thing that is asked per spine row.

    Attributes:
        kind: `codes.PICK`, `WINDOW`, `LAST_N` or `GRID`.
        low: Lowest event time; None for none. Of a GRID the step.
        high: Highest event time.
        parameter: PICK: 1 to pass over nulls. LAST_N, GRID: how many.
        grid: Grid points, shape (length + 1, rows), where a zone makes them uneven.
        aggregates: Of a WINDOW: (kind, share) each.
        target: First row of the picks (PICK, LAST_N, GRID), or row of the counts (WINDOW).
        aggregate_targets: Row of the picks (FIRST, LAST) or of the other aggregates, for each of `aggregates`.
    """

    kind: int
    low: Bound | None
    high: Bound
    parameter: int = 0
    grid: Ints | None = None
    aggregates: list[tuple[int, float]] = field(default_factory=list)
    target: int = 0
    aggregate_targets: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Sweep:
    """Questions that are answered in one pass over the rows.

    Attributes:
        column: The column whose values (or nulls) matter; None where only rows are picked.
        notice: Rows count only if they arrived this long before their event (R10); None for all.
        first_only: Whether only the first revision of a key counts.
        questions: What is asked.
    """

    column: str | None
    notice: Duration | None = None
    first_only: bool = False
    questions: list[Question] = field(default_factory=list)

    def exact_targets(self) -> set[int]:
        """The aggregates that are of the column's own type: rows of `exact`; the others are rows of `real`."""
        return {
            target
            for question in self.questions
            for (kind, _), target in zip(question.aggregates, question.aggregate_targets, strict=True)
            if kind in (codes.SUM, codes.MIN, codes.MAX)
        }

    def number(self) -> tuple[int, int, int]:
        """Give each question its rows in the answers; how many rows of picks, counts and aggregates there are."""
        picks = counts = aggregates = 0
        for question in self.questions:
            if question.kind != codes.WINDOW:
                question.target = picks
                picks += question.parameter if question.kind in (codes.LAST_N, codes.GRID) else 1
                continue
            question.target = counts
            counts += 1
            question.aggregate_targets = []
            for kind, _ in question.aggregates:
                if kind in (codes.FIRST, codes.LAST):
                    question.aggregate_targets.append(picks)
                    picks += 1
                else:
                    question.aggregate_targets.append(aggregates)
                    aggregates += 1
        return picks, counts, aggregates


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a feature's answer is found: its question, and which of a window's aggregates it is."""

    feature: Feature
    question: Question
    aggregate: int = -1


def plan_sweeps(features: Iterable[Feature], t: Ints, zone: str | None) -> list[tuple[Sweep, list[Asked]]]:
    """The sweeps that answer `features`, and which features each answers.

    Args:
        features: What to compute.
        t: Prediction times, UTC microseconds; only needed where a zone makes bounds uneven.
        zone: The view's zone.
    """
    sweeps: dict[tuple[str | None, Duration | None], tuple[Sweep, list[Asked]]] = {}
    shared: dict[object, Question] = {}
    for feature in features:
        column = feature.column if _looks_at_values(feature) else None
        notice = feature.min_notice if isinstance(feature, Forecast) else None
        sweep, asked = sweeps.setdefault((column, notice), (Sweep(column, notice), []))
        key = (column, notice, _shape(feature))
        question = shared.get(key)
        if question is None:
            question = shared[key] = _question(feature, t, zone)
            sweep.questions.append(question)
        aggregate = -1
        if isinstance(feature, Window):
            aggregate = len(question.aggregates)
            share = feature.quantile
            kind = codes.QUANTILE if share is not None else codes.AGGREGATE_CODES[feature.aggregate]
            question.aggregates.append((kind, share or 0.0))
        asked.append(Asked(feature, question, aggregate))
    _share_passes(sweeps)
    return list(sweeps.values())


def _share_passes(sweeps: dict[tuple[str | None, Duration | None], tuple[Sweep, list[Asked]]]) -> None:
    """Let questions that look at no values ride on a sweep over the same rows: one pass less."""
    for (column, notice), (sweep, asked) in list(sweeps.items()):
        if column is not None:
            continue
        host = next((found for (other, same), found in sweeps.items() if other is not None and same == notice), None)
        if host is not None:
            host[0].questions.extend(sweep.questions)
            host[1].extend(asked)
            del sweeps[column, notice]


def _looks_at_values(feature: Feature) -> bool:
    return isinstance(feature, Window) or (isinstance(feature, Latest) and feature.skip_null)


def _shape(feature: Feature) -> object:
    """Features of equal shape share a question."""
    if isinstance(feature, Window):
        return "window", feature.length, feature.offset
    if isinstance(feature, Lag):
        return "lag", feature.by, feature.tolerance
    if isinstance(feature, Forecast):
        return "forecast", feature.lead, feature.tolerance
    if isinstance(feature, SequenceOf):
        return "sequence", feature.length, feature.step, feature.max_span
    return "latest", isinstance(feature, Latest) and feature.skip_null


def _question(feature: Feature, t: Ints, zone: str | None) -> Question:
    if isinstance(feature, SequenceOf) and feature.step is not None:
        if zone is None:
            return Question(codes.GRID, feature.step.total_us, 0, feature.length)
        return Question(codes.GRID, None, 0, feature.length, grid_points(feature, t, zone))
    low, high = feature_range(feature, t, zone)
    if isinstance(feature, SequenceOf):
        return Question(codes.LAST_N, low, high, feature.length)
    if isinstance(feature, Window):
        return Question(codes.WINDOW, low, high)
    return Question(codes.PICK, low, high, int(isinstance(feature, Latest) and feature.skip_null))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The questions' bounds as the kernel takes them; see `kernels.sweep`."""

    lows: Ints
    highs: Ints
    low_rows: Ints
    high_rows: Ints
    table: Ints


def table_of_bounds(questions: list[Question], order: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Bounds:
    """Bounds per question; those that differ from row to row brought into the questions' `order`."""
    lows, highs, low_rows, high_rows = (np.full(len(questions), fill, np.int64) for fill in (codes.NO_BOUND, 0, -1, -1))
    arrays: list[Ints] = []
    for i, question in enumerate(questions):
        if question.grid is not None:
            low_rows[i] = len(arrays)
            arrays.extend(question.grid)
            continue
        if isinstance(question.low, np.ndarray):
            low_rows[i] = len(arrays)
            arrays.append(question.low)
        elif question.low is not None:
            lows[i] = question.low
        if isinstance(question.high, np.ndarray):
            high_rows[i] = len(arrays)
            arrays.append(question.high)
        else:
            highs[i] = question.high
    table = np.empty((len(arrays), len(order)), np.int64)
    for i, array in enumerate(arrays):
        np.take(array, order, out=table[i])
    return Bounds(lows, highs, low_rows, high_rows, table)
