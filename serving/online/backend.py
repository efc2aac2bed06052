"""Where the rows of the online state are: what a backend offers to the follower and to readers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.online import CompiledView, RowStore

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Restamps:
    """Rows that are in the log already and get a later arrival (R14).

    Attributes:
        orders: Their `log_sequence`, each once.
        arrivals: Their arrival from now on, microseconds.
    """

    orders: Ints
    arrivals: Ints


@dataclass(frozen=True, slots=True)
class ViewRows:
    """What a view's part of a question is answered from.

    Attributes:
        store: A store that has the rows of the entities asked about, up to the position and no further.
        numbers: Their numbers in it, one for each that was asked about.
    """

    store: RowStore
    numbers: list[int]


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows for one question, all of one state of the logs.

    Attributes:
        rows: By view name.
        positions: By provider.
        complete_through: Microseconds: every row that had arrived by then has a `log_sequence` up to the positions (R19).
    """

    rows: Mapping[str, ViewRows]
    positions: Mapping[str, int]
    complete_through: int


class Backend(Protocol):
    """Keeps the rows of views for readers. One follower writes; readers may be in other threads."""

    def load(self, compiled: CompiledView, definition: str, rows: pl.DataFrame, position: int) -> None:
        """Replace all that is known of a view; it counts from `confirm` on.

        Args:
            compiled: The view with all its features.
            definition: Its hash.
            rows: Canonical checked rows up to `position` (see `alignment.rows`), ascending by `@order`.
            position: Up to where they go.
        """

    def take_in(
        self, compiled: CompiledView, rows: pl.DataFrame, restamps: Restamps, *, previous: int, position: int
    ) -> None:
        """Add what a log got since `previous`; it counts from `confirm` on."""

    def confirm(self, positions: Mapping[str, int], complete_through: int) -> None:
        """Let everything that was loaded and taken in count: readers see it all or nothing of it."""

    def reading(self, questions: Mapping[str, Sequence[Hashable]]) -> AbstractContextManager[Reading]:
        """Rows for a question: view names and the keys of entities; they do not change while the context is open.

        A key is the entity's value, a tuple of several, `()` where a view has none; None is no entity.
        """

    def restore(self, view: str, key: Hashable, rows: pl.DataFrame, position: int) -> None:
        """Take in again an entity's rows that were trimmed: all up to `position`, if the state is there still."""

    @property
    def fault(self) -> str:
        """Why nothing can be kept or read now; empty if it can."""

    @property
    def fault_hint(self) -> str:
        """What to do about it."""

    @property
    def size(self) -> int:
        """How many rows are held in this process."""

    def trim(self, *, oldest: int, keep_events: int) -> None:
        """Drop rows that no question at `oldest` or later needs."""

    def close(self) -> None:
        """Give back what is held."""
