"""The default engine: Polars for everything relational, the kernel for time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment import codes
from alignment.bounds import age_floor, earliest_event
from alignment.durations import Duration
from alignment.features import Age, Forecast, Latest, SequenceOf, Window
from alignment.layout import Codes, Ints, Layout, Pool, encode_entities, given_notice, lay_out, lay_out_questions
from alignment.plan import Asked, plan_sweeps
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, Rows, checked
from alignment.spine import Spine
from alignment.status import status_of_picks, status_of_windows
from alignment.sweeps import Answers, row_index, run_sweep
from alignment.views import FeatureView

_AGE_OF = {"event_time": EVENT, "arrival_time": ARRIVAL, "issue_time": ISSUE}


@dataclass(slots=True)
class Timings:
    """Where the time of a join went, in seconds; added up over views.

    Attributes:
        read: Reading and checking rows, numbering entities.
        arrange: Grouping and ordering rows and questions.
        kernel: Applying rows and answering questions.
        gather: Making columns of the answers.
    """

    read: float = 0.0
    arrange: float = 0.0
    kernel: float = 0.0
    gather: float = 0.0

    def lap(self, part: str, since: float) -> float:
        """Add the time since `since` to `part`; the time now."""
        now = time.perf_counter()
        setattr(self, part, getattr(self, part) + now - since)
        return now


@dataclass(frozen=True, slots=True)
class Answered:
    """A feature's column, and its status where that was asked for."""

    values: pl.Series
    status: pl.Series | None


def evaluate(
    view: FeatureView,
    spine: Spine,
    *,
    as_of_us: int | None,
    position: int | None,
    status: bool,
    threads: int | None,
    timings: Timings | None = None,
) -> list[Answered]:
    """The columns of `view` for every spine row, in the order of its features.

    Args:
        view: What to compute.
        spine: Checked spine.
        as_of_us: Nothing that arrived later counts; None for no limit besides each row's own t.
        position: Nothing later in the log counts; None for all.
        status: Whether to say why values are null.
        threads: How many threads; None for one per processor.
        timings: Where to add up how long each part took.

    Raises:
        AlignmentError: What `checked`, `encode_entities`, `lay_out` and `run_sweep` raise.
    """
    with Pool(threads) as pool:
        latest = int(spine.t.max()) if len(spine.t) else 0
        floor = earliest_needed(view, spine.t, status=status)
        until = latest if as_of_us is None else min(latest, as_of_us)
        ready = Prepared(view, spine.frame, pool, until_us=until, from_us=floor, position=position, timings=timings)
        return ready.answer(spine.t, ready.asking, as_of_us=as_of_us, status=status)


class Prepared:
    """A view's rows in the order that the kernel walks, to be asked at several times.

    Args:
        view: What to compute.
        keys: The entities that will be asked about, by the spine's names of their columns; may repeat, and have more columns.
        pool: Threads.
        until_us: The last instant that will be asked at.
        from_us: Rows of a log with an earlier event may be left out.
        position: Nothing later in the log counts; None for all.
        timings: Where to add up how long each part took.

    Raises:
        AlignmentError: What `checked` and `encode_entities` raise.
    """

    def __init__(
        self,
        view: FeatureView,
        keys: pl.DataFrame,
        pool: Pool,
        *,
        until_us: int,
        from_us: int | None,
        position: int | None,
        timings: Timings | None = None,
    ) -> None:
        self._view, self._pool, self._limit = view, pool, until_us
        self._spent = timings or Timings()
        clock = time.perf_counter()
        self._rows = rows = checked(
            view.observations, view.columns_read, position=position, as_of_us=until_us, event_from_us=from_us
        )
        names = view.observations.entities
        self._entities, self.asking, self._given = encode_entities(
            keys, view.spine_entities, rows.frame, names, view.place, pool
        )
        rows.forget([name for name in names if name not in [*view.columns_read, *view.observations.key]])
        self._layouts: dict[Duration | None, Layout] = {}
        self._spent.lap("read", clock)

    def answer(self, t: Ints, asking: Codes, *, as_of_us: int | None, status: bool) -> list[Answered]:
        """The view's columns for questions about entities at instants, in the order of its features.

        Args:
            t: When, microseconds; none later than `until_us`.
            asking: Number of each question's entity: some of `self.asking`, which has one per row of `keys`.
            as_of_us: Nothing that arrived later counts; None for no limit besides each question's own t.
            status: Whether to say why values are null.

        Raises:
            AlignmentError: What `lay_out` and `run_sweep` raise.
        """
        view, rows, pool, spent = self._view, self._rows, self._pool, self._spent
        clock = time.perf_counter()
        questions = lay_out_questions(asking, self._entities, t, pool)
        clock = spent.lap("arrange", clock)
        reader = _Reader(view, t, rows, status=status)
        found: dict[str, Answered] = {}
        for sweep, asked in plan_sweeps(view.features, t, view.zone):
            if sweep.notice not in self._layouts:
                self._layouts[sweep.notice] = self._lay_out(sweep.notice)
                clock = spent.lap("arrange", clock)
            answers = run_sweep(sweep, self._layouts[sweep.notice], questions, rows, len(t), as_of_us, pool)
            clock = spent.lap("kernel", clock)
            found |= reader.read_all(asked, answers, pool)
            clock = spent.lap("gather", clock)
        return [found[feature.name] for feature in view.features]

    def _lay_out(self, notice: Duration | None) -> Layout:
        rows, view = self._rows, self._view
        counting = self._given if notice is None else given_notice(rows.frame, self._given, notice, view.zone)
        return lay_out(view.observations, rows.frame, counting, self._entities, self._limit, self._pool, rows.position)


def earliest_needed(view: FeatureView, t: Ints, *, status: bool) -> int | None:
    """The earliest event that questions at `t` can use; None if any, or if events may move (R4)."""
    if view.observations.source is None or view.observations.key or not len(t):
        return None
    floors: list[int] = []
    for feature in view.features:
        limit = view.limits(feature)[0] if isinstance(feature, Latest) and not status else None
        floor = earliest_event(feature, t, view.zone, limit)
        if floor is None:
            return None
        floors.append(floor)
    return min(floors)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes columns of what the kernel answered."""

    view: FeatureView
    t: Ints
    rows: Rows
    status: bool

    def read_all(self, asked: list[Asked], answers: Answers, pool: Pool) -> dict[str, Answered]:
        """The columns of the features that one sweep answered, side by side."""
        found: dict[str, Answered] = {}

        def read(one: Asked) -> None:
            found[one.feature.name] = self.read(one, answers)

        pool.run([partial(read, one) for one in asked])
        return found

    def read(self, asked: Asked, answers: Answers) -> Answered:
        """The column of one feature."""
        feature, question = asked.feature, asked.question
        if isinstance(feature, Window):
            return self._window(feature, asked, answers)
        if isinstance(feature, SequenceOf):
            return self._sequence(feature, answers.picks[question.target : question.target + feature.length])
        picks = answers.picks[question.target]
        if isinstance(feature, Age):
            age = (pl.Series(self.t) - self.rows.frame[_AGE_OF[feature.of]].gather(row_index(picks))).cast(
                pl.Duration("us")
            )
            return Answered(age, self._status(picks, age))
        if isinstance(feature, Latest | Forecast):
            picks = self._expire(feature, picks)
        values = self._column(feature.column).gather(row_index(picks))
        return Answered(values, self._status(picks, values, feature.column))

    def _column(self, name: str | None) -> pl.Series:
        return self.rows.column(cast("str", name))

    def _status(self, picks: Codes, values: pl.Series | None, column: str | None = None) -> pl.Series | None:
        if not self.status:
            return None
        is_null = None if values is None else values.is_null().to_numpy()
        return status_of_picks(picks, is_null, self._before_column(column, picks))

    def _before_column(self, column: str | None, picks: Codes) -> npt.NDArray[np.bool_] | None:
        """Where the picked row is older than the column it is asked for."""
        source = self.view.observations.source
        since = source.column_since().get(column) if source is not None and column is not None else None
        if since is None or ORDER not in self.rows.frame.columns:
            return None
        sequence = self.rows.frame[ORDER].gather(row_index(picks))
        return (sequence < since).fill_null(value=False).to_numpy()

    def _expire(self, feature: Latest | Forecast, picks: Codes) -> Codes:
        """Strike out picked rows that are older than a limit allows (R7)."""
        for limit, column in zip(self.view.limits(feature), (EVENT, ARRIVAL, ISSUE), strict=True):
            if limit is None:
                continue
            floor = pl.Series(age_floor(limit, self.t, self.view.zone))
            old = self.rows.frame[column].gather(row_index(picks)) < floor
            picks = np.where(old.fill_null(value=False).to_numpy(), np.int32(codes.EXPIRED), picks)
        return picks

    def _sequence(self, feature: SequenceOf, picks: npt.NDArray[np.int32]) -> Answered:
        flat = self._column(feature.column).gather(row_index(np.ascontiguousarray(picks.T).ravel()))
        values = _arrays(flat, feature.length)
        none = (picks < 0).all(axis=0)
        return Answered(values, self._status(np.where(none, picks[-1], np.int32(0)), None))

    def _window(self, feature: Window, asked: Asked, answers: Answers) -> Answered:
        counts = answers.counts[asked.question.target]
        values = self._aggregate(feature, asked.question.aggregate_targets[asked.aggregate], counts, answers)
        if not self.status:
            return Answered(values, None)
        return Answered(values, status_of_windows(answers.states[asked.question.target], values.is_null().to_numpy()))

    def _aggregate(self, feature: Window, target: int, counts: npt.NDArray[np.int32], answers: Answers) -> pl.Series:
        if feature.aggregate == "count":
            return pl.Series(counts).cast(pl.Int64)
        kind = self.view.observations.schema[cast("str", feature.column)]
        if feature.aggregate in ("first", "last"):
            picks = answers.picks[target]
            values = self._column(feature.column).gather(row_index(picks))
            nan = picks == codes.NAN
            return values.set(pl.Series(nan), float("nan")) if nan.any() else values
        raw = pl.Series((answers.exact if feature.aggregate in ("sum", "min", "max") else answers.real)[target])
        if not answers.known[target].all():
            raw = raw.set(pl.Series(answers.known[target] == 0), None)
        return raw.cast(kind) if feature.aggregate in ("min", "max") else raw


def _arrays(flat: pl.Series, length: int) -> pl.Series:
    """Consecutive values as arrays of `length`."""
    kind = pl.Array(flat.dtype, length)
    if not len(flat):
        return pl.Series([], dtype=kind)
    if not isinstance(flat.dtype, pl.Array | pl.List):
        return flat.reshape((-1, length))
    ends = pl.Series(np.arange(len(flat), dtype=np.int64) // length)
    return flat.to_frame("value").group_by(ends, maintain_order=True).agg("value").to_series(1).cast(kind)
