"""Features of one view that are asked for together, planned once for many small questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment import codes
from alignment.bounds import age_floor, earliest_event, feature_range
from alignment.durations import Duration
from alignment.features import Age, Feature, Forecast, Latest, SequenceOf, Window
from alignment.layout import frozen
from alignment.plan import Asked, Sweep, plan_sweeps, table_of_bounds
from alignment.sweeps import needs_values, question_arguments
from alignment.views import FeatureView

NEWEST = Age(name="@newest", column=None, of="event_time")
"""What `latest` over all columns picks: the row whose instants stand for windows and sequences."""


@dataclass(frozen=True, slots=True)
class WindowsOf:
    """Windows of one length and offset over one column.

    Attributes:
        target: Row of the counts and states.
        features: The features, and the row in which each aggregate is found.
    """

    target: int
    features: Sequence[tuple[Window, int]]


@dataclass(frozen=True, slots=True)
class PicksOf:
    """Features that use the same row.

    Attributes:
        target: First row of the picks.
        length: How many rows: 1, or those of a sequence.
        features: The features.
        unbounded: Whether the row may be however old.
        sequences: Whether the features are sequences.
    """

    target: int
    length: int
    features: Sequence[Feature]
    unbounded: bool
    sequences: bool


@dataclass(frozen=True, slots=True)
class PlannedSweep:
    """A sweep with all that does not depend on who asks.

    Attributes:
        sweep: The sweep.
        windows: The windows that it answers.
        picks: The other features that it answers, `NEWEST` among them.
        counts: How many rows of picks, counts and aggregates it gives.
        arguments: The questions as the kernel takes them; bounds for one row.
        uneven: Which of `arguments` is the table of bounds that must be repeated for each row; -1 if it is empty.
        computes: Whether the sweep computes with values.
    """

    sweep: Sweep
    windows: Sequence[WindowsOf]
    picks: Sequence[PicksOf]
    counts: tuple[int, int, int]
    arguments: tuple[npt.NDArray[Any], ...]
    uneven: int
    computes: bool

    def questions(self, n: int) -> tuple[npt.NDArray[Any], ...]:
        """`arguments` for n rows that ask at the same instant."""
        if self.uneven < 0 or n == 1:
            return self.arguments
        table = np.repeat(self.arguments[self.uneven], n, axis=1)
        return (*self.arguments[: self.uneven], table, *self.arguments[self.uneven + 1 :])


@dataclass(frozen=True, slots=True)
class Plan:
    """Sweeps for one instant, or for all where no zone makes days uneven.

    Attributes:
        sweeps: The sweeps.
        limits: Per feature that has age limits: (from t to the earliest instant kept, or the instant itself) for event,
            arrival and issue; None for no limit.
        at: The instant that it is for; None for all.
    """

    sweeps: Sequence[PlannedSweep]
    limits: dict[str, tuple[int | None, int | None, int | None]]
    at: int | None


class CompiledView:
    """Some features of a view.

    Args:
        view: The view.
        features: Those of its features that are asked for; None for all.
    """

    def __init__(self, view: FeatureView, features: Sequence[Feature] | None = None) -> None:
        self.view = view
        self.provider = view.observations.source.provider if view.observations.source is not None else ""
        self.features = tuple(view.features if features is None else features)
        self.columns = list(dict.fromkeys(feature.column for feature in self.features if feature.column is not None))
        self._plan: Plan | None = None

    @cached_property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The type of each feature in frames."""
        return {feature.name: self.view.column_type(feature) for feature in self.features}

    @cached_property
    def notices(self) -> list[Duration | None]:
        """The notices that its features ask for (R10): each needs an arrangement of its own."""
        return list(dict.fromkeys(sweep.sweep.notice for sweep in self.plan(0).sweeps))

    @cached_property
    def computed(self) -> set[str]:
        """The columns with whose values the kernel computes."""
        return {item.sweep.column for item in self.plan(0).sweeps if item.computes and item.sweep.column is not None}

    @cached_property
    def booleans(self) -> set[str]:
        """The columns that hold booleans."""
        return {name for name in self.columns if self.view.observations.schema[name] == pl.Boolean}

    @cached_property
    def unbounded(self) -> bool:
        """Whether any feature may use an event however old."""
        return any(
            earliest_event(feature, np.zeros(1, np.int64), self.view.zone, None) is None for feature in self.features
        )

    def reach(self, t: int) -> tuple[int, int]:
        """From which event back unbounded features look at `t`, and how many events one of them may take."""
        moment = np.array([t], np.int64)
        start, events = t, 1
        for feature in self.features:
            if earliest_event(feature, moment, self.view.zone, None) is not None:
                continue
            upper = feature_range(feature, moment, self.view.zone)[1]
            start = min(start, int(upper[0]) if isinstance(upper, np.ndarray) else t + upper)
            if isinstance(feature, SequenceOf):
                events = max(events, feature.length)
        return start, events

    def floor(self, t: int) -> int | None:
        """The earliest event that a bounded feature may use at `t` or later; None if no feature is bounded."""
        moment = np.array([t], np.int64)
        floors = [
            floor
            for feature in self.features
            if (floor := earliest_event(feature, moment, self.view.zone, None)) is not None
        ]
        return min(floors, default=None)

    def plan(self, t: int) -> Plan:
        """The sweeps for the instant t, microseconds."""
        plan = self._plan
        if plan is None or (plan.at is not None and plan.at != t):
            plan = self._plan = self._planned(t)
        return plan

    def _planned(self, t: int) -> Plan:
        moment = np.array([t], np.int64)
        zone = self.view.zone
        sweeps = []
        uneven = False
        for sweep, asked in plan_sweeps([*self.features, NEWEST], moment, zone):
            counts = sweep.number()
            bounds = table_of_bounds(sweep.questions, np.zeros(1, np.int32))
            kind = self.view.observations.schema[sweep.column] if sweep.column is not None else None
            table = 5 if len(bounds.table) else -1
            uneven |= table >= 0
            arguments = question_arguments(sweep.questions, bounds)
            computes = kind is not None and needs_values(sweep, kind)
            sweeps.append(PlannedSweep(sweep, *_grouped(asked), counts, arguments, table, computes))
        limits = {}
        for feature in self.features:
            given = self.view.limits(feature) if isinstance(feature, Latest | Forecast) else (None, None, None)
            if any(limit is not None for limit in given):
                event, arrival, issue = (
                    None if limit is None else int(age_floor(limit, moment, zone)[0]) - t for limit in given
                )
                limits[feature.name] = event, arrival, issue
                uneven |= zone is not None and any(limit is not None and limit.days for limit in given)
        return Plan(sweeps, limits, t if uneven else None)


def _grouped(asked: Sequence[Asked]) -> tuple[list[WindowsOf], list[PicksOf]]:
    """Features by the question that they share."""
    by_question: dict[int, list[Asked]] = {}
    for one in asked:
        by_question.setdefault(id(one.question), []).append(one)
    windows, picks = [], []
    for sharing in by_question.values():
        question = sharing[0].question
        if question.kind == codes.WINDOW:
            of = [(cast("Window", one.feature), question.aggregate_targets[one.aggregate]) for one in sharing]
            windows.append(WindowsOf(question.target, of))
            continue
        many = question.kind in (codes.LAST_N, codes.GRID)
        unbounded = question.low is None and question.kind != codes.GRID
        length = question.parameter if many else 1
        picks.append(PicksOf(question.target, length, [one.feature for one in sharing], unbounded, many))
    return windows, picks


EVERYWHERE = frozen(np.empty(0, np.uint8))
"""No column of validity: nothing is null."""
NO_VALUES = frozen(np.empty(0, np.float64))
UNKNOWN_CODES = {codes.MISSING: "missing", codes.RETRACTED: "retracted", codes.EXPIRED: "expired", codes.NULL: "null"}
"""Status of what was not picked, by the kernel's code."""
