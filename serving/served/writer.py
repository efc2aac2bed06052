"""Keeps what was served: answers go into a bounded queue, and a thread of its own commits them about once a second."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from ingestion import Clock, system_clock
from ingestion.storage import Location
from serving.served.tables import (
    DEFINITION,
    PAST,
    POSITIONS,
    PREDICTION_TIME,
    SERVED_BY,
    SERVED_DAY,
    SERVED_TIME,
    STATUS,
    ServedTable,
    ServedView,
    served_view,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable

    import alignment as al
    from serving.online import Answer

_logger = logging.getLogger("asknown.served")
_TIDY_EVERY = 300
_ATTEMPTS = 3


@dataclass(slots=True)
class ServedCounts:
    """What became of the vectors that were offered.

    Attributes:
        offered: How many were.
        passed_over: Not in the sample.
        dropped: The queue was full.
        refused: Could not be written: of a view that was not named, of another type, or the store failed.
        logged: Committed.
        commits: How many commits that took.
    """

    offered: int = 0
    passed_over: int = 0
    dropped: int = 0
    refused: int = 0
    logged: int = 0
    commits: int = 0

    @property
    def pending(self) -> int:
        """Not yet committed."""
        return self.offered - self.passed_over - self.dropped - self.refused - self.logged

    def to_dict(self) -> dict[str, int]:
        """The counts as plain values."""
        return asdict(self) | {"pending": self.pending}


@dataclass(slots=True)
class _Open:
    """A table that this process writes to."""

    table: ServedTable
    delta: DeltaTable
    commits: int = 0


@dataclass(slots=True)
class _Batch:
    """Answers about the same views, whose columns have the same types."""

    views: list[tuple[ServedView, dict[str, pl.DataType]]]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    height: int = 0


class ServedLog:
    """A log of what was served, for `asknown audit`, training sets and lineage.

    `offer` is a callback for `FeatureServer.on_answer`. It never waits and never fails: what does not fit into the queue, or
    cannot be written, is counted in `counts` and told in the process's log.

    Args:
        root: The folder or address of the logs; served vectors go below it.
        views: What is served.
        sample: Share of the answers that are kept.
        replica: Who served; by default host and process id.
        every: Seconds between commits.
        most: How many vectors may wait.
        retain: How long served vectors are kept; None keeps them.
        storage_options: As for the logs.
        clock: Something that tells now.

    Example:
        >>> server.on_answer.append(ServedLog("logs", server.views.values()).offer)  # doctest: +SKIP
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        views: Iterable[al.FeatureView],
        *,
        sample: float = 1.0,
        replica: str | None = None,
        every: float = 1.0,
        most: int = 200_000,
        retain: timedelta | None = None,
        storage_options: dict[str, str] | None = None,
        clock: Clock = system_clock,
    ) -> None:
        if not 0.0 <= sample <= 1.0:
            raise ValueError(f"sample={sample} is no share: give a number from 0 to 1")
        self.counts = ServedCounts()
        self._root = Location.of(root, storage_options)
        self._views = {view.name: served_view(view) for view in views}
        self._view_of = {name: kept.name for kept, _ in self._views.values() for name in kept.features}
        self._sample = sample
        self._replica = f"{socket.gethostname()}:{os.getpid()}" if replica is None else replica
        self._every = every
        self._most = most
        self._retain = retain
        self._clock = clock
        self._queue: deque[tuple[Answer, datetime, int]] = deque()
        self._waiting = 0
        self._told = 0
        self._count = threading.Lock()
        self._writing = threading.Lock()
        self._tables: dict[str, _Open] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asknown-served", daemon=True)
        self._thread.start()

    def offer(self, answer: Answer) -> None:
        """Take an answer into the queue, if it is in the sample and there is room."""
        height = max((len(values) for values in answer.entities.values()), default=1)
        kept = self._sample >= 1.0 or random.random() < self._sample  # noqa: S311 - a share of answers, no secret
        now = self._clock() if kept else None
        with self._count:
            self.counts.offered += height
            if now is None:
                self.counts.passed_over += height
            elif self._waiting + height > self._most:
                self.counts.dropped += height
            else:
                self._waiting += height
                self._queue.append((answer, now, height))

    def flush(self) -> None:
        """Commit all that waits, now and in this thread."""
        with self._writing:
            self._write()

    def close(self) -> None:
        """Commit all that waits, and stop."""
        self._stop.set()
        self._thread.join()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()

    def _write(self) -> None:
        batches: dict[tuple[object, ...], _Batch] = {}
        for _ in range(len(self._queue)):
            answer, now, height = self._queue.popleft()
            try:
                self._add(batches, answer, now, height)
            except Exception as error:  # noqa: BLE001 - an answer that cannot be kept must not stop the others
                self._refuse(height, error)
        for batch in batches.values():
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001 - a store that fails must not stop the server
                self._refuse(batch.height, error)
        if self.counts.dropped > self._told:
            _logger.warning("%d served vectors were dropped: the queue was full", self.counts.dropped - self._told)
            self._told = self.counts.dropped

    def _add(self, batches: dict[tuple[object, ...], _Batch], answer: Answer, now: datetime, height: int) -> None:
        asked = {column.name: column for column in answer.columns}
        views = tuple(sorted({self._view_of[name] for name in asked}))
        for given in answer.columns:
            kept, entities = self._views[self._view_of[given.name]]
            if kept.features[given.name] != given.dtype:  # the log's column was widened while the server ran
                features = {**kept.features, given.name: given.dtype}
                self._views[kept.name] = replace(kept, features=features), entities
        known = [self._views[view] for view in views]
        batch = batches.setdefault(tuple(id(kept) for kept, _ in known), _Batch(known))
        cells: dict[str, list[Any]] = {}
        for view in views:
            kept, entities = self._views[view]
            cells |= {name: list(answer.entities[name]) for name in entities}
            for name in kept.features:
                column = asked.get(name)
                cells[name] = [None] * height if column is None else list(column.values)
                cells[name + STATUS] = [None] * height if column is None else list(column.status)
        providers = {self._views[view][0].provider for view in views}
        positions = {provider: answer.positions[provider] for provider in providers}
        cells[PREDICTION_TIME] = [answer.t] * height
        cells[POSITIONS] = [positions] * height
        cells[DEFINITION] = [answer.definition] * height
        cells[PAST] = [answer.past] * height
        cells[SERVED_TIME] = [now] * height
        if any(len(values) != height for values in cells.values()):
            raise ValueError("an answer's columns are of unequal length")
        for name, values in cells.items():
            batch.columns.setdefault(name, []).extend(values)
        batch.height += height

    def _commit(self, batch: _Batch) -> None:
        known = batch.views
        entities = {name: dtype for _, types in known for name, dtype in types.items()}
        keys = {name: _entity(name, batch.columns[name], dtype) for name, dtype in entities.items()}
        table = ServedTable(
            self._root, tuple(kept for kept, _ in known), {name: key.dtype for name, key in keys.items()}
        )
        day = pl.col(SERVED_TIME).dt.date().alias(SERVED_DAY)
        frame = pl.DataFrame(
            [
                keys[name] if name in keys else pl.Series(name, batch.columns[name], dtype=dtype)
                for name, dtype in table.schema.items()
                if name not in (SERVED_DAY, SERVED_BY)
            ]
        ).with_columns(pl.lit(self._replica).alias(SERVED_BY), day)
        self._append(table, frame)
        with self._count:
            self._waiting -= batch.height
            self.counts.logged += batch.height
            self.counts.commits += 1

    def _append(self, table: ServedTable, frame: pl.DataFrame) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                held = self._tables.get(table.name) or _Open(table, table.open())
                table.append(held.delta, frame)
            except Exception:
                self._tables.pop(table.name, None)
                if attempt == _ATTEMPTS:
                    raise
                continue
            self._tables[table.name] = held
            held.commits += 1
            if held.commits % _TIDY_EVERY == 0:
                self._tidy(held)
            return

    def _tidy(self, held: _Open) -> None:
        try:
            held.table.tidy(held.delta, self._clock().date(), retain=self._retain)
        except Exception as error:  # noqa: BLE001 - another process may be tidying; it is done again later
            _logger.info("served vectors were not tidied: %s", error)

    def _refuse(self, height: int, error: Exception) -> None:
        with self._count:
            self._waiting -= height
            self.counts.refused += height
        _logger.warning("%d served vectors could not be kept: %s: %s", height, type(error).__name__, error)


def _entity(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    """Entities as the log has them; where they do not fit (a log that was empty at the start), as they came."""
    try:
        return pl.Series(name, values, dtype=dtype)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, values)
