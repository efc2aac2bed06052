"""What every case is given: options, data sets and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.answers import reference_answer
from benchmarks.data import SIZES, VALUES, DataSet, Recipe, data_set
from benchmarks.environments import HERE
from benchmarks.harness import Comparison, Entry, compare
from benchmarks.question import Question

OURS = "asknown_join"
AGGREGATES = ("mean", "std", "min", "max", "sum")


@dataclass(frozen=True)
class Bench:
    """Options of one run of the suite.

    Attributes:
        quick: One size smaller and fewer rounds.
        huge: Also the parts with 100M rows.
        rounds: Timed rounds, or None for the default.
        without: Contenders to leave out.
        folder: Where data sets are kept.
    """

    quick: bool = False
    huge: bool = False
    rounds: int | None = None
    without: frozenset[str] = field(default_factory=frozenset)
    folder: Path = HERE / ".data"

    def size(self, full: str, quick: str) -> str:
        """The name of the size to use."""
        return quick if self.quick else full

    def data(self, size: str, **changes: Any) -> tuple[Recipe, DataSet]:
        """A size's recipe, changed, and its files."""
        recipe = replace(SIZES[size], **changes)
        return recipe, data_set(recipe, self.folder)

    def compare(
        self, title: str, question: Question, data: DataSet, contenders: Sequence[str], **options: Any
    ) -> Comparison:
        """`harness.compare` with this run's options, answers judged by the reference."""
        taking_part = [name for name in contenders if name not in self.without]
        options.setdefault("rounds", self.rounds or (3 if self.quick else 5))
        reference = reference_answer(question, data)
        return compare(title, [Entry(name, name, question, reference) for name in taking_part], **options)

    def compare_own(self, title: str, asked: Mapping[str, tuple[Question, DataSet]], **options: Any) -> Comparison:
        """asknown alone on several questions that take turns, by label."""
        options.setdefault("rounds", self.rounds or (3 if self.quick else 5))
        entries = [Entry(label, OURS, ask, reference_answer(ask, data)) for label, (ask, data) in asked.items()]
        return compare(title, entries, **options)


def ask_latest(data: DataSet, *, kind: str = "latest", **more: Any) -> Question:
    """The newest visible event's five values, for every spine row."""
    return Question(kind, str(data.observations), str(data.spine), data.entities, VALUES, **more)


def ask_windows(data: DataSet, *, minutes: int, **more: Any) -> Question:
    """Five aggregates of the first column over a window."""
    return Question(
        "windows", str(data.observations), str(data.spine), data.entities, VALUES[:1], AGGREGATES, minutes, **more
    )


def ask_snapshot(data: DataSet, *, as_of: str, columns: tuple[str, ...] = VALUES) -> Question:
    """One row per event as known at `as_of`."""
    return Question("snapshot", str(data.observations), "", data.entities, columns, as_of=as_of)
