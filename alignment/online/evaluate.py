"""The kernel asked about a few entities at one instant.

The same sweeps over the same rows as `engines.local`, without frames: what a join does once for millions of rows is done here once
for a view, and what is left costs microseconds. Lists in answers are shared between features; nobody may change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np

from alignment import codes
from alignment.errors import AggregateOverflowError
from alignment.features import Age, Feature, Window
from alignment.layout import Ints
from alignment.online.compiled import (
    EVERYWHERE,
    NEWEST,
    NO_VALUES,
    UNKNOWN_CODES,
    CompiledView,
    PicksOf,
    Plan,
    PlannedSweep,
    WindowsOf,
)
from alignment.online.store import RowStore

_STATE = {codes.NEVER: "missing", codes.PRESENT: "present", codes.PRESENT_NULL: "null", codes.WITHDRAWN: "retracted"}
_NO_ROWS, _NO_REALS = np.empty((0, 0), np.int32), np.empty((0, 0), np.float64)
_NO_FLAGS, _NO_OVERFLOW = np.empty((0, 0), np.uint8), np.zeros(1, np.int64)
_EXACT = ("sum", "min", "max")


class Found(NamedTuple):
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
        self._present = ["present"] * len(numbers)
        self._found: dict[str, Found] = {}

    def run(self) -> dict[str, Found]:
        """The features by name.

        Raises:
            AggregateOverflowError: If an integer sum does not fit in 64 bits.
        """
        n = len(self.numbers)
        tasks = _tasks(n).copy()
        tasks[:, 0] = self.numbers
        tasks[:, 0] *= 2  # see `Regions`
        moments = np.empty(n, np.int64)
        moments.fill(self.t)
        answers = [(planned, self._sweep(planned, tasks, moments)) for planned in self.plan.sweeps]
        for planned, lists in answers:
            for group in planned.picks:
                if not group.sequences:
                    self._read_picks(group, lists.picks[group.target])
        newest = self._found.pop(NEWEST.name)
        for planned, lists in answers:
            for windows in planned.windows:
                self._read_windows(windows, lists, newest)
            for group in planned.picks:
                if group.sequences:
                    self._read_sequences(group, lists, newest)
        if self.store.marks:
            self._look_for_marks(answers)
        return self._found

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
        found: tuple[Any, ...] = (_NO_ROWS, _NO_ROWS, _NO_FLAGS, np.empty((0, 0), values.dtype), _NO_REALS, _NO_FLAGS)
        if picks:
            rows = np.empty((picks, n), np.int32)
            rows.fill(codes.MISSING)
            found = (rows, *found[1:])
        if counts:
            found = (
                found[0],
                np.zeros((counts, n), np.int32),
                np.zeros((counts, n), np.uint8),
                np.empty((aggregates, n), values.dtype),
                np.empty((aggregates, n), np.float64),
                np.zeros((aggregates, n), np.uint8),
            )
        overflow = np.zeros(1, np.int64) if integers else _NO_OVERFLOW
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
        return _Lists(*[array.tolist() for array in found])

    # ------------------------------------------------------------------------------------------------------------ picks

    def _read_picks(self, group: PicksOf, picks: list[int]) -> None:
        store = self.store
        event, arrival = store.event.at, store.arrival.at
        there = min(picks, default=0) >= 0
        events: list[int | None]
        arrivals: list[int | None]
        if there:
            events, arrivals, status = [event[row] for row in picks], [arrival[row] for row in picks], self._present
        else:
            events = [event[row] if row >= 0 else None for row in picks]
            arrivals = [arrival[row] if row >= 0 else None for row in picks]
            status = [UNKNOWN_CODES[row] if row < 0 else "present" for row in picks]
        found, columns, limits, since = self._found, store.columns, self.plan.limits, self.since
        for feature in group.features:
            if isinstance(feature, Age):
                ages = self._ages(feature, picks, events, arrivals)
                found[feature.name] = Found(ages, status, events, arrivals)
                continue
            values, said = columns[feature.column].of(picks), status  # type: ignore[index]
            if None in values or feature.name in limits or feature.column in since:
                values, said = self._values(feature, picks, status)
            found[feature.name] = Found(values, said, events, arrivals)

    def _ages(
        self, feature: Age, picks: list[int], events: list[int | None], arrivals: list[int | None]
    ) -> list[timedelta | None]:
        if feature is NEWEST:
            return []
        if feature.of == "issue_time":
            issue = self.store.issue.at
            return [timedelta(microseconds=self.t - issue[row]) if row >= 0 else None for row in picks]
        instants = events if feature.of == "event_time" else arrivals
        return [None if at is None else timedelta(microseconds=self.t - at) for at in instants]

    def _values(self, feature: Feature, picks: list[int], status: list[str]) -> tuple[list[Any], list[str]]:
        limits = self.plan.limits.get(feature.name)
        if limits is not None:
            picks, status = self._expire(limits, picks, status)
        name = cast("str", feature.column)
        values = self.store.columns[name].of(picks)
        if None in values:
            status = [
                "null" if value is None and said == "present" else said
                for value, said in zip(values, status, strict=True)
            ]
        since = self.since.get(name)
        if since is not None:
            order = self.store.order.at
            status = [
                "missing" if row >= 0 and order[row] < since else said for row, said in zip(picks, status, strict=True)
            ]
        return values, status

    def _expire(
        self, limits: tuple[int | None, int | None, int | None], picks: list[int], status: list[str]
    ) -> tuple[list[int], list[str]]:
        """Strike out picked rows that are older than a limit allows (R7)."""
        for limit, column in zip(limits, (self.store.event, self.store.arrival, self.store.issue), strict=True):
            if limit is not None:
                at, floor = column.at, self.t + limit
                picks = [codes.EXPIRED if row >= 0 and at[row] < floor else row for row in picks]
        if codes.EXPIRED in picks:
            status = ["expired" if row == codes.EXPIRED else said for row, said in zip(picks, status, strict=True)]
        return picks, status

    def _read_sequences(self, group: PicksOf, lists: _Lists, newest: Found) -> None:
        slots = lists.picks[group.target : group.target + group.length]
        by_entity = list(zip(*slots, strict=True))
        status = ["present" if max(rows) >= 0 else UNKNOWN_CODES[rows[-1]] for rows in by_entity]
        for feature in group.features:
            of = self.store.columns[cast("str", feature.column)].of
            values = [of(rows) for rows in by_entity]
            self._found[feature.name] = Found(values, status, newest.events, newest.arrivals)

    # ---------------------------------------------------------------------------------------------------------- windows

    def _read_windows(self, group: WindowsOf, lists: _Lists, newest: Found) -> None:
        states = lists.states[group.target]
        plain = states.count(codes.PRESENT) == len(states)
        status = self._present if plain else [_STATE[state] for state in states]
        for feature, target in group.features:
            values = self._aggregate(feature, target, lists.counts[group.target], lists)
            said = status
            if None in values:
                said = [
                    "null" if value is None and word == "present" else word
                    for value, word in zip(values, status, strict=True)
                ]
            self._found[feature.name] = Found(values, said, newest.events, newest.arrivals)

    def _aggregate(self, feature: Window, target: int, counts: list[int], lists: _Lists) -> list[Any]:
        aggregate = feature.aggregate
        if aggregate == "count":
            return counts
        if aggregate in ("first", "last"):
            picks = lists.picks[target]
            values = self.store.columns[cast("str", feature.column)].of(picks)
            if codes.NAN in picks:
                values = [float("nan") if row == codes.NAN else value for row, value in zip(picks, values, strict=True)]
            return values
        raw: list[Any] = (lists.exact if aggregate in _EXACT else lists.real)[target]
        known = lists.known[target]
        if aggregate in ("min", "max") and feature.column in self.compiled.booleans:
            raw = [bool(value) for value in raw]
        return [value if there else None for value, there in zip(raw, known, strict=True)] if 0 in known else raw

    # ------------------------------------------------------------------------------------------------------ trimmed rows

    def _look_for_marks(self, answers: list[tuple[PlannedSweep, _Lists]]) -> None:
        """Note entities of which rows were trimmed that an unbounded feature would have gone on to."""
        marks = self.store.marks
        trimmed = [(place, marks[number]) for place, number in enumerate(self.numbers) if number in marks]
        if not trimmed:
            return
        event = self.store.event.at
        for planned, lists in answers:
            for group in planned.picks:
                if not group.unbounded:
                    continue
                for rows in lists.picks[group.target : group.target + group.length]:
                    self.too_deep.update(
                        place for place, mark in trimmed if rows[place] < 0 or event[rows[place]] < mark
                    )


@lru_cache(maxsize=256)
def _tasks(n: int) -> Ints:
    """Tasks of one question each, entities left open."""
    tasks = np.empty((n, 3), np.int64)
    tasks[:, 1] = range(n)
    tasks[:, 2] = range(1, n + 1)
    return tasks
