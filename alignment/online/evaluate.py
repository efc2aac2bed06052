"""The kernel asked about a few entities at one instant.

The same sweeps over the same rows as `engines.local`, without frames: what a join does once for millions of rows is done here once
for a view, and what is left costs microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np

from alignment import codes
from alignment.errors import AggregateOverflowError
from alignment.features import Age, Feature, Forecast, Latest, SequenceOf, Window
from alignment.layout import Ints
from alignment.online.compiled import EVERYWHERE, NO_VALUES, UNKNOWN_CODES, CompiledView, Plan, PlannedSweep
from alignment.online.store import RowStore
from alignment.plan import Asked

_STATE = {codes.NEVER: "missing", codes.PRESENT: "present", codes.PRESENT_NULL: "null", codes.WITHDRAWN: "retracted"}


@dataclass(slots=True)
class Found:
    """One feature for some entities.

    Attributes:
        values: As Python has them; null is None.
        status: `present`, `null`, `expired`, `retracted`, `missing` (R20).
        events: Event of the row that was used, microseconds, or None; of windows and sequences that of the newest row.
        arrivals: Its arrival.
    """

    values: list[Any]
    status: list[str]
    events: list[int | None]
    arrivals: list[int | None]


@dataclass(slots=True)
class _Lists:
    """What the kernel found, as lists: one row per target."""

    picks: list[list[int]]
    counts: list[list[int]]
    states: list[list[int]]
    exact: list[list[Any]]
    real: list[list[float]]
    known: list[list[int]]


class Evaluation:
    """One question to a store: some entities, one instant.

    Args:
        compiled: The features.
        store: The rows.
        numbers: The entities' numbers in the store.
        t: The instant, microseconds.
        since: For each column that came later, the first `log_sequence` that could carry it.
    """

    def __init__(
        self, compiled: CompiledView, store: RowStore, numbers: Sequence[int], t: int, since: dict[str, int]
    ) -> None:
        self.compiled = compiled
        self.store = store
        self.numbers = numbers
        self.t = t
        self.since = since
        self.plan: Plan = compiled.plan(t)
        self.too_deep: set[int] = set()
        """Places of entities whose answer may need rows that were trimmed."""
        self._lists: list[_Lists] = []

    def run(self) -> dict[str, Found]:
        """The features by name.

        Raises:
            AggregateOverflowError: If an integer sum does not fit in 64 bits.
        """
        n = len(self.numbers)
        tasks = np.empty((n, 3), np.int64)
        tasks[:, 0] = self.numbers
        tasks[:, 0] *= 2
        tasks[:, 1] = range(n)
        tasks[:, 2] = range(1, n + 1)
        moments = np.full(n, self.t, np.int64)
        answers = [(planned, self._sweep(planned, tasks, moments)) for planned in self.plan.sweeps]
        newest = self._newest(answers)
        events, arrivals = self._instants(newest)
        found: dict[str, Found] = {}
        for planned, lists in answers:
            for asked in planned.asked:
                feature = asked.feature
                if isinstance(feature, Window):
                    values, status = self._window(feature, asked, lists)
                    found[feature.name] = Found(values, status, events, arrivals)
                elif isinstance(feature, SequenceOf):
                    values, status = self._sequence(feature, asked, lists)
                    found[feature.name] = Found(values, status, events, arrivals)
                else:
                    picks = lists.picks[asked.question.target]
                    own = (events, arrivals) if picks is newest else self._instants(picks)
                    found[feature.name] = self._pick(feature, picks, own)
        if self.store.marks:
            self._look_for_marks(answers)
        return found

    def _sweep(self, planned: PlannedSweep, tasks: Ints, moments: Ints) -> _Lists:
        from alignment import kernels

        store, sweep, n = self.store, planned.sweep, len(tasks)
        values, valid, integers = NO_VALUES, EVERYWHERE, False
        if sweep.column is not None:
            column = store.columns[sweep.column]
            valid = column.valid
            if planned.computes:
                values = column.computable
                integers = values.dtype == np.int64
        picks, counts, aggregates = planned.counts
        found = (
            np.full((picks, n), codes.MISSING, np.int32),
            np.zeros((counts, n), np.int32),
            np.zeros((counts, n), np.uint8),
            np.empty((aggregates, n), values.dtype),
            np.empty((aggregates, n), np.float64),
            np.zeros((aggregates, n), np.uint8),
        )
        overflow = np.zeros(1, np.int64)
        kernels.sweep(
            *(tasks, 0, n, *store.regions[sweep.notice].arguments),
            *cast(
                "Any", (store.retraction.array if store.retracts else EVERYWHERE, store.forecast, store.with_id, False)
            ),
            *(values, valid, planned.computes, integers, moments, moments, *planned.questions(n), *found, overflow),
        )
        if overflow[0]:
            raise AggregateOverflowError(
                f"{self.compiled.view.place}: a sum of {sweep.column!r} does not fit in 64 bits",
                f'sum it as float64, e.g. derive={{"{sweep.column}_real": pl.col("{sweep.column}").cast(pl.Float64)}}.',
            )
        return _Lists(*cast("Any", (array.tolist() for array in found)))

    @staticmethod
    def _newest(answers: list[tuple[PlannedSweep, _Lists]]) -> list[int]:
        for planned, lists in answers:
            for asked in planned.asked:
                if asked.feature.name == "@newest":
                    return lists.picks[asked.question.target]
        return []

    def _instants(self, picks: list[int]) -> tuple[list[int | None], list[int | None]]:
        event, arrival = self.store.event.at, self.store.arrival.at
        if min(picks, default=0) >= 0:
            return [event[row] for row in picks], [arrival[row] for row in picks]
        return (
            [event[row] if row >= 0 else None for row in picks],
            [arrival[row] if row >= 0 else None for row in picks],
        )

    def _pick(self, feature: Feature, picks: list[int], own: tuple[list[int | None], list[int | None]]) -> Found:
        if isinstance(feature, Age):
            instants = own[0] if feature.of == "event_time" else own[1]
            if feature.of == "issue_time":
                instants = [self.store.issue.at[row] if row >= 0 else None for row in picks]
            ages = [None if at is None else timedelta(microseconds=self.t - at) for at in instants]
            return Found(ages, ["present" if row >= 0 else UNKNOWN_CODES[row] for row in picks], *own)
        limits = self.plan.limits.get(feature.name) if isinstance(feature, Latest | Forecast) else None
        if limits is not None:
            picks = self._expire(limits, picks)
        name = str(feature.column)
        values = self.store.columns[name].of(picks)
        status = [
            "present" if value is not None else UNKNOWN_CODES.get(row, "null")
            for row, value in zip(picks, values, strict=True)
        ]
        since = self.since.get(name)
        if since is not None:
            order = self.store.order.at
            status = [
                "missing" if row >= 0 and order[row] < since else said for row, said in zip(picks, status, strict=True)
            ]
        return Found(values, status, *own)

    def _expire(self, limits: tuple[int | None, int | None, int | None], picks: list[int]) -> list[int]:
        """Strike out picked rows that are older than a limit allows (R7)."""
        for limit, column in zip(limits, (self.store.event, self.store.arrival, self.store.issue), strict=True):
            if limit is not None:
                at, floor = column.at, self.t + limit
                picks = [codes.EXPIRED if row >= 0 and at[row] < floor else row for row in picks]
        return picks

    def _sequence(self, feature: SequenceOf, asked: Asked, lists: _Lists) -> tuple[list[Any], list[str]]:
        first = asked.question.target
        slots = lists.picks[first : first + feature.length]
        column = self.store.columns[str(feature.column)]
        per_slot = [column.of(rows) for rows in slots]
        values = [list(items) for items in zip(*per_slot, strict=True)]
        last = slots[-1]
        status = [
            "present" if any(row >= 0 for row in rows) else UNKNOWN_CODES[last[i]]
            for i, rows in enumerate(zip(*slots, strict=True))
        ]
        return values, status

    def _window(self, feature: Window, asked: Asked, lists: _Lists) -> tuple[list[Any], list[str]]:
        question = asked.question
        values = self._aggregate(
            feature, question.aggregate_targets[asked.aggregate], lists.counts[question.target], lists
        )
        status = [
            "null" if value is None and state == codes.PRESENT else _STATE[state]
            for value, state in zip(values, lists.states[question.target], strict=True)
        ]
        return values, status

    def _aggregate(self, feature: Window, target: int, counts: list[int], lists: _Lists) -> list[Any]:
        if feature.aggregate == "count":
            return counts
        if feature.aggregate in ("first", "last"):
            picks = lists.picks[target]
            values = self.store.columns[str(feature.column)].of(picks)
            if codes.NAN in picks:
                values = [float("nan") if row == codes.NAN else value for row, value in zip(picks, values, strict=True)]
            return values
        exact = feature.aggregate in ("sum", "min", "max")
        raw = (lists.exact if exact else lists.real)[target]
        known = lists.known[target]
        if feature.column in self.compiled.booleans and feature.aggregate != "sum" and exact:
            raw = [bool(value) for value in raw]
        return raw if all(known) else [value if there else None for value, there in zip(raw, known, strict=True)]

    # ------------------------------------------------------------------------------------------------------ trimmed rows

    def _look_for_marks(self, answers: list[tuple[PlannedSweep, _Lists]]) -> None:
        """Note entities of which rows were trimmed that an unbounded feature would have gone on to."""
        trimmed = [
            (place, mark)
            for place, number in enumerate(self.numbers)
            if (mark := self.store.marks.get(number)) is not None
        ]
        if not trimmed:
            return
        event = self.store.event.at
        for planned, lists in answers:
            for asked in planned.asked:
                for rows in _unbounded_picks(asked, lists):
                    for place, mark in trimmed:
                        row = rows[place]
                        if row < 0 or event[row] < mark:
                            self.too_deep.add(place)


def _unbounded_picks(asked: Asked, lists: _Lists) -> list[list[int]]:
    """The picks of a feature that may use an event however old."""
    question = asked.question
    if question.low is not None or question.kind not in (codes.PICK, codes.LAST_N):
        return []
    count = question.parameter if question.kind == codes.LAST_N else 1
    return lists.picks[question.target : question.target + count]
