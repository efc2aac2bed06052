"""Rows in the memory of this process."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import polars as pl

from alignment.online import Change, CompiledView, RowStore
from serving.online.backend import Reading, Restamps, ViewRows


class LocalBackend:
    """A `Backend` whose rows are in the memory of this process.

    A change is prepared while readers read; they are kept out only while it is switched on.
    """

    fault = fault_hint = ""

    def __init__(self) -> None:
        self._stores: dict[str, RowStore] = {}
        self._loaded: dict[str, RowStore] = {}
        self._prepared: list[tuple[RowStore, Change | None, Restamps]] = []
        self._read = threading.Lock()
        self._write = threading.RLock()
        self._positions: dict[str, int] = {}
        self._complete_through = 0

    def load(self, compiled: CompiledView, definition: str, rows: pl.DataFrame, position: int) -> None:  # noqa: ARG002
        """See `Backend.load`."""
        self._loaded[compiled.view.name] = RowStore(compiled, rows)

    def take_in(
        self,
        compiled: CompiledView,
        rows: pl.DataFrame,
        restamps: Restamps,
        *,
        previous: int,  # noqa: ARG002
        position: int,  # noqa: ARG002
    ) -> None:
        """See `Backend.take_in`."""
        with self._write:
            store = self._stores[compiled.view.name]
            self._prepared.append((store, store.take_in(rows) if rows.height else None, restamps))

    def confirm(self, positions: Mapping[str, int], complete_through: int) -> None:
        """See `Backend.confirm`."""
        with self._write, self._read:
            for store, change, restamps in self._prepared:
                if change is not None:
                    store.switch(change)
                if len(restamps.orders):
                    store.restamp(restamps.orders, restamps.arrivals)
            self._stores |= self._loaded
            self._positions = dict(positions)
            self._complete_through = complete_through
            self._prepared, self._loaded = [], {}

    @contextmanager
    def reading(self, questions: Mapping[str, Sequence[Hashable]]) -> Iterator[Reading]:
        """See `Backend.reading`."""
        with self._read:
            rows = {}
            for view, keys in questions.items():
                store = self._stores[view]
                known = store.numbers
                rows[view] = ViewRows(store, [known.get(key, 0) for key in keys])
            yield Reading(rows, self._positions, self._complete_through)

    def restore(self, view: str, key: Hashable, rows: pl.DataFrame, position: int) -> None:
        """See `Backend.restore`."""
        with self._write, self._read:
            store = self._stores[view]
            if self._prepared or position != self._positions[store.provider]:
                return  # the state has moved on: the next question that needs them asks again
            store.restore(rows, store.number_of(key))

    def trim(self, *, oldest: int, keep_events: int) -> None:
        """See `Backend.trim`."""
        with self._write:
            for view, store in list(self._stores.items()):
                trimmed = store.trimmed(oldest=oldest, keep_events=keep_events)
                with self._read:
                    self._stores[view] = trimmed

    @property
    def size(self) -> int:
        """How many rows there are."""
        return sum(len(store) for store in self._stores.values())

    def close(self) -> None:
        """See `Backend.close`."""
