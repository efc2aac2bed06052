"""One pass of the kernel over laid out rows, cut into tasks for threads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment import codes
from alignment.errors import AggregateOverflowError
from alignment.layout import Codes, Ints, Layout, Pool, Questions, frozen, numbers
from alignment.plan import Bounds, Question, Sweep, table_of_bounds
from alignment.rows import Rows

_ROW_COST, _PICK_COST, _WINDOW_COST = 40, 40, 400  # nanoseconds, roughly; they only decide how work is cut
_TASKS_PER_THREAD = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """What the kernel found, one column per spine row; see `kernels.sweep`."""

    picks: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    states: npt.NDArray[np.uint8]
    exact: npt.NDArray[Any]
    real: npt.NDArray[np.float64]
    known: npt.NDArray[np.uint8]


def run_sweep(
    sweep: Sweep,
    layout: Layout,
    asked: Questions,
    rows: Rows,
    spine_rows: int,
    as_of_us: int | None,
    pool: Pool,
    *,
    always: bool = False,
) -> Answers:
    """Answer a sweep's questions.

    Args:
        sweep: What is asked.
        layout: The rows.
        asked: By whom and when.
        rows: Where the sweep's column is.
        spine_rows: How many answers there are, those of unknown entities included.
        as_of_us: Nothing that arrived later counts.
        pool: Threads.
        always: Whether everything up to `as_of_us` counts, whatever t (labels).

    Raises:
        AggregateOverflowError: If an integer sum does not fit in 64 bits.
    """
    from alignment import kernels

    values, valid, integers = _column(sweep, rows)
    picks, counts, aggregates = sweep.number()
    questions = sweep.questions
    everything = any(question.kind == codes.EVERYTHING for question in questions)
    n = len(layout.rows) if everything else len(asked.t)
    answers = Answers(
        np.full((picks, n), codes.MISSING, np.int32),
        np.zeros((counts, n), np.int32),
        np.zeros((counts, n), np.uint8),
        np.empty((aggregates, n), values.dtype),
        np.empty((aggregates, n), np.float64),
        np.zeros((aggregates, n), np.uint8),
    )
    bounds = table_of_bounds(questions, asked.rows)
    overflow = np.zeros(1, np.int64)
    tasks, batches = cut_tasks(layout, asked, questions, pool)
    arguments = (
        *(layout.offsets, layout.rows, layout.arrival, layout.event, layout.subject, layout.slot),
        *(layout.issue_key, layout.key_start, layout.subjects, layout.slots, layout.retraction),
        *(layout.forecast, layout.with_id, sweep.first_only),
        *(values, valid, len(values) > 0, integers),
        *(_seen_until(asked.t, as_of_us, always=always), asked.t),
        *question_arguments(questions, bounds),
        *(answers.picks, answers.counts, answers.states, answers.exact, answers.real, answers.known, overflow),
    )
    pool.run([lambda a=a, b=b: kernels.sweep(tasks, a, b, *arguments) for a, b in batches])  # type: ignore[misc,arg-type]
    if overflow[0]:
        raise AggregateOverflowError(
            f"{rows.observations.place}: a sum of {sweep.column!r} does not fit in 64 bits",
            f'sum it as float64, e.g. derive={{"{sweep.column}_real": pl.col("{sweep.column}").cast(pl.Float64)}}.',
        )
    return answers if everything else _in_spine_order(answers, sweep, asked, spine_rows, pool)


def question_arguments(questions: list[Question], bounds: Bounds) -> tuple[npt.NDArray[Any], ...]:
    """What is asked, as the kernel takes it; the questions have been numbered."""
    return (
        *(_ints(q.kind for q in questions), bounds.lows, bounds.highs, bounds.low_rows, bounds.high_rows, bounds.table),
        *(_ints(q.parameter for q in questions), _ints(q.target for q in questions)),
        np.cumsum([0] + [len(q.aggregates) for q in questions]).astype(np.int64),
        _ints(kind for q in questions for kind, _ in q.aggregates),
        np.array([share for q in questions for _, share in q.aggregates], np.float64),
        _ints(target for q in questions for target in q.aggregate_targets),
    )


def _in_spine_order(answers: Answers, sweep: Sweep, asked: Questions, spine_rows: int, pool: Pool) -> Answers:
    """The answers brought from the order of the questions to that of the spine, those of unknown entities included."""
    rows = asked.rows
    if len(rows) == spine_rows and (rows[1:] > rows[:-1]).all():
        return answers
    place = np.full(spine_rows, -1, np.int64)
    place[rows] = np.arange(len(rows))
    unknown = np.flatnonzero(place < 0)
    defaults = {"picks": codes.MISSING}
    found = {
        item.name: np.empty((len(getattr(answers, item.name)), spine_rows), getattr(answers, item.name).dtype)
        for item in fields(answers)
    }

    def move(name: str, row: int) -> None:
        target = found[name][row]
        if len(rows):
            np.take(getattr(answers, name)[row], place, out=target, mode="clip")
        target[unknown] = defaults.get(name, 0)

    exact = sweep.exact_targets()
    unwritten = {("exact" if row not in exact else "real", row) for row in range(len(answers.known))}
    moves = [(name, row) for name, array in found.items() for row in range(len(array))]
    pool.run([partial(move, name, row) for name, row in moves if (name, row) not in unwritten])
    return Answers(**found)


def cut_tasks(
    layout: Layout, asked: Questions, questions: list[Question], pool: Pool
) -> tuple[Ints, list[tuple[int, int]]]:
    """Tasks (entity, first question, one past the last), and batches of tasks of about equal cost.

    An entity with more than its share of the work is cut by time: each of its tasks applies the rows before it anew, so
    that no more are made than answering is worth. The costliest batch comes first.
    """
    per_question = sum(_WINDOW_COST if q.kind == codes.WINDOW else _PICK_COST for q in questions)
    n_questions, n_rows = np.diff(asked.offsets), np.diff(layout.offsets)
    busy = np.flatnonzero(n_questions)
    answer_cost, row_cost = n_questions[busy] * per_question, n_rows[busy] * _ROW_COST
    cost = answer_cost + row_cost
    share = max(1, int(cost.sum()) // (pool.threads * _TASKS_PER_THREAD))
    pieces = np.ones(len(busy), np.int64)
    if pool.threads > 1:
        pieces = np.clip(answer_cost // np.maximum(2 * share, row_cost), 1, n_questions[busy])
    entity = np.repeat(busy, pieces)
    part = np.arange(len(entity)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    base, size, whole = asked.offsets[entity], n_questions[entity], np.repeat(pieces, pieces)
    tasks = np.stack([entity, base + size * part // whole, base + size * (part + 1) // whole], axis=1)
    ends = np.cumsum(np.repeat(cost / pieces, pieces))
    cuts = np.unique(
        np.concatenate(
            [[0], np.searchsorted(ends, np.arange(share, ends[-1], share)) if len(ends) else [], [len(tasks)]]
        )
    )
    batches = [(int(a), int(b)) for a, b in pairwise(cuts)]
    weight = {(a, b): ends[b - 1] - (ends[a - 1] if a else 0) for a, b in batches}
    return np.ascontiguousarray(tasks, np.int64), sorted(batches, key=lambda batch: -weight[batch])


def _seen_until(t: Ints, as_of_us: int | None, *, always: bool) -> Ints:
    if as_of_us is None:
        return t
    return np.full_like(t, as_of_us) if always else np.minimum(t, as_of_us)


def _column(sweep: Sweep, rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8], bool]:
    """A column's values, where they are not null (empty if everywhere), and whether they are integers.

    Raises:
        AggregateOverflowError: If integers do not fit in 64 signed bits.
    """
    nothing, everywhere = frozen(np.empty(0, np.float64)), frozen(np.empty(0, np.uint8))
    if sweep.column is None:
        return nothing, everywhere, False
    series = rows.column(sweep.column)
    valid = frozen(series.is_not_null().to_numpy().view(np.uint8)) if series.null_count() else everywhere
    kind = series.dtype
    if not needs_values(sweep, kind):
        return nothing, valid, False
    if kind.is_float():
        return numbers(series.cast(pl.Float64), np.float64), valid, False
    try:
        return numbers(series.cast(pl.Int64)), valid, True
    except pl.exceptions.PolarsError:
        raise AggregateOverflowError(
            f"{rows.observations.place}: {sweep.column!r} is {kind} and holds values that do not fit in 64 signed bits",
            f'aggregate it as float64, e.g. derive={{"{sweep.column}_real": pl.col("{sweep.column}").cast(pl.Float64)}}.',
        ) from None


def needs_values(sweep: Sweep, kind: pl.DataType) -> bool:
    """Whether a sweep computes with its column's values, or only asks whether they are null (of floats: or NaN)."""
    counted = (codes.COUNT, codes.FIRST, codes.LAST)
    return kind.is_float() or any(code not in counted for q in sweep.questions for code, _ in q.aggregates)


def _ints(values: Any) -> Ints:
    return np.fromiter(values, np.int64)


def row_index(picks: Codes) -> pl.Series:
    """Picked rows as an index for `Series.gather`; null where none was picked."""
    index = pl.Series(picks.view(np.uint32))
    return index.set(pl.Series(picks < 0), None) if (picks < 0).any() else index
