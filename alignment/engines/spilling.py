"""The local engine over more rows than fit in memory: entities in groups, each answered as ever, the rest on disk.

The spine is read once and kept in its order; then each input, a batch at a time, of which what no question can need is dropped;
both are laid aside by a hash of their entities. As many buckets as fit are answered together, and the answers laid aside by where
they belong in the spine; at last they are put together a stretch of the spine at a time. A bucket that alone is too large is cut
by time (`spilling_cuts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.bounds import shifted
from alignment.durations import EARLIEST, LATEST, nearest_instant
from alignment.engines.spilling_read import batches, buckets_of, count_rows, read_as, row_width, spread, times_of
from alignment.engines.spilling_store import Spill, Store, spill_folder
from alignment.memory import BESIDES, COPIES, PER_QUESTION, Portions, buckets_under, question_cost
from alignment.observations import FrameLike, as_lazy
from alignment.parts import Input, Pass
from alignment.rows import ARRIVAL
from alignment.spine import Spine, check_spine

if TYPE_CHECKING:
    from alignment.engines.local import Timings
    from alignment.service_join import ServiceQuestion

ROW = "@row of the spine"
"""A column of ours beside those of the spine, which may have any name."""
_FINE = 1 << 20
"""Buckets in which it is remembered whether anything is asked; the coarser ones are these modulo their number."""


@dataclass(frozen=True)
class Task:
    """What is asked, apart from the spine.

    Attributes:
        passes: Which rows answer what.
        as_of_us: Nothing that arrived later counts.
        status: Add why values are null.
        prediction_time: The spine's column of prediction times.
        question: What is asked of a service, if one is: which rows of the spine are wanted.
        threads: How many threads; None for one per processor.
        timings: Where to add up how long each part took.
    """

    passes: Sequence[Pass]
    as_of_us: int | None
    status: bool
    prediction_time: str
    question: ServiceQuestion | None = None
    threads: int | None = None
    timings: Timings | None = None

    @property
    def entities(self) -> list[str]:
        """Columns that the spine must have."""
        return list(dict.fromkeys(name for one in self.passes for name in one.spine_columns))

    def answer_width(self) -> float:
        """Bytes of the answers to one row."""
        from alignment.extents import width_of

        asked = [(view, feature) for one in self.passes for view in one.views for feature in view.features]
        widths = [width_of(view.column_type(feature)) + self.status for view, feature in asked]
        return sum(widths) + 40.0 * any(one.label is not None for one in self.passes)


def answer_in_parts(
    spine: FrameLike, task: Task, portions: Portions, *, spill: str | Path | None = None
) -> Iterator[tuple[Spine, pl.DataFrame]]:
    """The answers to a spine, a stretch of it at a time, in order.

    Args:
        spine: See `check_spine`; read once.
        task: What is asked.
        portions: How much to work on at a time.
        spill: Folder for what does not fit in memory; None for the system's folder of temporary files.

    Yields:
        Rows of the spine that are wanted, and what `Pass.answer` says to them; at least once, if only of no rows.

    Raises:
        AlignmentError: See `point_in_time_join`; row numbers in messages count from the beginning of a batch of rows.
        MemoryLimitError: If one entity has more at one instant than fits.
        SpillError: If there is not enough disk.
    """
    lazy = as_lazy(spine, "the spine")
    with spill_folder(spill, int(count_rows(lazy) * (2 * row_width(lazy) + task.answer_width()))) as folder:
        asked = _Asked.read(spine, task, portions, folder)
        answers = []
        for number, one in enumerate(task.passes):
            work = Grouped(one, number, task, portions, asked, folder)
            answers.append(work.answered())
        yield from asked.together(answers)


def fits(spine: FrameLike, task: Task, room: int) -> bool:
    """Whether a join needs no more memory than that, whatever is done at once."""
    questions = count_rows(as_lazy(spine, "the spine"))
    cost = questions * (PER_QUESTION + 2 * task.answer_width() + 2 * row_width(as_lazy(spine, "the spine")))
    for one in task.passes:
        for given in one.inputs:
            rows = given.rows()
            cost += count_rows(rows) * (COPIES * row_width(rows) + BESIDES)
    return cost <= room


def output_bytes(spine: FrameLike, task: Task) -> float:
    """How much memory the result takes, about."""
    lazy = as_lazy(spine, "the spine")
    return count_rows(lazy) * (row_width(lazy) + task.answer_width())


@dataclass
class _Asked:
    """The wanted rows of the spine on disk, and what they say about the rows that can matter.

    Attributes:
        stretches: The rows, by stretch.
        step: Rows in a stretch.
        rows: How many there are.
        latest: The last prediction time, microseconds; 0 without any.
        floors: Per pass and input the earliest event that can matter; None if any can.
    """

    task: Task
    stretches: Store
    step: int
    rows: int = 0
    latest: int = 0
    floors: dict[tuple[int, int], int | None] = field(default_factory=dict)

    @classmethod
    def read(cls, spine: FrameLike, task: Task, portions: Portions, folder: Spill) -> _Asked:
        """Keep the spine.

        Raises:
            AlignmentError: See `check_spine`.
        """
        lazy = as_lazy(spine, "the spine")
        schema = lazy.collect_schema()
        empty = check_spine(pl.DataFrame(schema=schema), task.entities, task.prediction_time)
        for one in task.passes:
            one.check_keys(empty.frame.schema)
        step = max(1, int(portions.out / (row_width(lazy) + task.answer_width())))
        found = cls(task, folder.store(schema), step)
        for batch in batches(lazy, portions.batch):
            asked = check_spine(batch, task.entities, task.prediction_time)
            found._keep(asked if task.question is None else task.question.kept(asked))
        return found

    def _keep(self, asked: Spine) -> None:
        if not len(asked.t):
            return
        start = 0
        while start < asked.frame.height:
            left = self.step - self.rows % self.step
            piece = asked.frame.slice(start, left)
            self.stretches.add(self.rows // self.step, piece)
            self.rows += piece.height
            start += piece.height
        self.latest = max(self.latest, int(asked.t.max()))
        for number, one in enumerate(self.task.passes):
            for place in range(len(one.inputs)):
                floor = _floor(one, place, asked.t, status=self.task.status)
                before = self.floors.get((number, place), floor)
                self.floors[number, place] = None if floor is None or before is None else min(floor, before)

    def pieces(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """The spine's rows in order, with the number of the first."""
        first = 0
        for number in range(-(-self.rows // self.step)):
            for piece in self.stretches.pieces([number]):
                yield first, piece
                first += piece.height

    def together(self, answers: Sequence[Store]) -> Iterator[tuple[Spine, pl.DataFrame]]:
        """The spine with its answers, stretch by stretch."""
        for number in range(max(1, -(-self.rows // self.step))):
            asked = check_spine(self.stretches.read([number]), (), self.task.prediction_time)
            found = [store.read([number]).sort(ROW).drop(ROW) for store in answers]
            yield asked, pl.concat(found, how="horizontal")


def _floor(one: Pass, place: int, t: npt.NDArray[np.int64], *, status: bool) -> int | None:
    """The earliest event of an input that questions at `t` can use; None if any."""
    from alignment.engines.local import earliest_needed

    floors = [
        earliest_needed(v, t, status=status) for v, read in zip(one.views, one.reads, strict=True) if read == place
    ]
    if one.label is not None and one.label_reads == place:
        rows = read_as(one, place, None)[-1]
        low = shifted(t, one.label.zone, (1, one.label.horizon), (-1, one.label.tolerance))
        floors.append(None if rows.key else int(low.min()) if isinstance(low, np.ndarray) else int(t.min()) + low)
    known = [floor for floor in floors if floor is not None]
    return min(known) if known and len(known) == len(floors) else None


class Grouped:
    """One pass over its rows, bucket by bucket."""

    def __init__(self, one: Pass, number: int, task: Task, portions: Portions, asked: _Asked, folder: Spill) -> None:
        self.one, self.number, self.task, self.portions, self.asked = one, number, task, portions, asked
        self._spill = folder
        self._present = np.zeros(_FINE, np.bool_)
        self._answers: Store | None = None
        self._inputs = [self._rows_of(place) for place in range(len(one.inputs))]
        counts = [(count_rows(rows), row_width(rows)) for rows in self._inputs]
        folder.check(int(sum(rows * width for rows, width in counts)))
        total = sum(rows * (COPIES * width + BESIDES) for rows, width in counts)
        cost = total + asked.rows * self._question_cost()
        self.buckets = buckets_under(cost, portions.group) if one.keys else 1

    def answered(self) -> Store:
        """The answers, by stretch of the spine; each has the number of its row."""
        spine = self._spread_spine()
        rows = [self._spread_rows(place) for place in range(len(self.one.inputs))]
        for group in self._groups(spine, rows):
            if len(group) == 1 and self._cost(group[0], spine, rows) > self.portions.group:
                from alignment.engines.spilling_cuts import Cut

                for answers in Cut(self, group[0], spine, rows, self._spill).answered():
                    self.keep(answers)
            else:
                asked = spine.read(group)
                self.keep(self.answer(asked, [store.read(group) for store in rows]))
            for store in (spine, *rows):
                store.forget(group)
        for store in (spine, *rows):
            store.remove()
        assert self._answers is not None  # noqa: S101 - there is a group, if only an empty one
        return self._answers

    def answer(
        self, asked: pl.DataFrame, frames: Sequence[pl.DataFrame], label_rows: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """The answers to some rows of the spine, with their numbers, which ascend."""
        task = self.task
        found = self.one.answer(
            asked,
            frames,
            as_of_us=task.as_of_us,
            status=task.status,
            prediction_time=task.prediction_time,
            label_rows=label_rows,
            threads=task.threads,
            timings=task.timings,
        )
        return found.insert_column(0, asked[ROW]).sort(ROW)

    def keep(self, answers: pl.DataFrame) -> None:
        """Lay answers aside by stretch."""
        if self._answers is None:
            self._answers = self._spill.store(answers.schema)
        numbers = answers[ROW].to_numpy()
        step = self.asked.step
        start = 0
        while start < len(numbers):
            stretch = int(numbers[start]) // step
            end = int(np.searchsorted(numbers, (stretch + 1) * step))
            self._answers.add(stretch, answers.slice(start, end - start))
            start = end

    def cost(self, store: Store, bucket: int) -> float:
        """Bytes that answering from the rows of a bucket takes, about."""
        return COPIES * store.sizes.get(bucket, 0) + BESIDES * store.rows.get(bucket, 0)

    def carried_cost(self, frame: pl.DataFrame) -> float:
        """The same of rows that are in memory."""
        return COPIES * frame.estimated_size() + BESIDES * frame.height

    def _question_cost(self) -> float:
        return question_cost(self.task.answer_width())

    def question_costs(self, spine: Store, bucket: int) -> float:
        """Bytes that answering the questions of a bucket takes, about."""
        return COPIES * spine.sizes.get(bucket, 0) + self._question_cost() * spine.rows.get(bucket, 0)

    def _cost(self, bucket: int, spine: Store, rows: Sequence[Store]) -> float:
        return self.question_costs(spine, bucket) + sum(self.cost(store, bucket) for store in rows)

    def _groups(self, spine: Store, rows: Sequence[Store]) -> Iterator[list[int]]:
        """Buckets side by side that fit together; those about which nothing is asked are left out."""
        group: list[int] = []
        held = 0.0
        for bucket in sorted(spine.rows) or [0]:
            cost = self._cost(bucket, spine, rows)
            if group and held + cost > self.portions.group:
                yield group
                group, held = [], 0.0
            group.append(bucket)
            held += cost
        yield group

    def _rows_of(self, place: int) -> pl.LazyFrame:
        """The rows of an input that can matter, as far as its source can tell."""
        until = self._until(place)
        given: Input = self.one.inputs[place]
        return given.rows(as_of_us=_sayable(until), event_from_us=_sayable(self.asked.floors.get((self.number, place))))

    def _until(self, place: int) -> int:
        latest, as_of = self.asked.latest, self.task.as_of_us
        if as_of is None:
            return latest
        return as_of if self.one.label_reads == place else min(latest, as_of)

    def _spread_spine(self) -> Store:
        names = list(dict.fromkeys([*self.one.spine_columns, self.task.prediction_time]))
        store: Store | None = None
        for first, piece in self.asked.pieces():
            numbered = piece.select(names).with_columns(
                pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(ROW)
            )
            store = store or self._spill.store(numbered.schema)
            fine = buckets_of(numbered, self.one.keys, _FINE)
            self._present[fine] = True
            spread(store, numbered, fine % self.buckets)
        if store is None:
            empty = self.asked.stretches.read([0]).select(names).with_columns(pl.lit(0, pl.Int64).alias(ROW))
            store = self._spill.store(empty.schema)
        return store

    def _spread_rows(self, place: int) -> Store:
        """The rows of an input that can matter, by bucket.

        Raises:
            AlignmentError: If they break a rule of frames.
        """
        given, until = self.one.inputs[place], self._until(place)
        store = self._spill.store(given.schema)
        for batch in batches(self._inputs[place], self.portions.batch):
            fine = buckets_of(batch, given.keys, _FINE)
            wanted = self._present[fine]
            arrived = np.zeros(batch.height, np.bool_)
            for frame in times_of(self.one, place, batch):
                arrived |= frame[ARRIVAL].to_numpy() <= until
            wanted &= arrived
            if not wanted.all():
                batch, fine = batch.filter(pl.Series(wanted)), fine[wanted]  # noqa: PLW2901
            spread(store, batch, fine % self.buckets)
        return store


def _sayable(microseconds: int | None) -> int | None:
    """A bound, if it can be said as an instant: what is beyond leaves nothing out."""
    if microseconds is None or nearest_instant(microseconds) in (EARLIEST, LATEST):
        return None
    return microseconds
