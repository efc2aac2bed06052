"""The rows of one view that a server may need, in memory: log rows only, never values that were current or results.

One thread changes a store, others may read it: `take_in` prepares a change beside what is read, `switch` makes it count. The caller
keeps readers out of `switch`, `restamp` and `restore` with a lock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.durations import Duration
from alignment.errors import AggregateOverflowError
from alignment.layout import NO_EVENT, Ints, given_notice
from alignment.online.compiled import CompiledView
from alignment.online.growing import Growing, ValueColumn
from alignment.online.regions import Placement, Regions
from alignment.online.trimming import needed_rows
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION

NOBODY = 0
"""The number of every entity that has no rows."""


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that are in the store and do not count yet.

    Attributes:
        placements: New regions, by notice.
    """

    placements: dict[Duration | None, Placement]


class RowStore:
    """Rows of a view by entity.

    Args:
        compiled: The features that are to be answered.
        frame: Canonical checked rows, ascending by `@order`.
        like: A store whose numbers of entities and ids `frame` has in place of their values.
        marks: Of entities that were trimmed, the event below which rows may be missing.
    """

    def __init__(
        self,
        compiled: CompiledView,
        frame: pl.DataFrame,
        *,
        like: RowStore | None = None,
        marks: dict[int, int] | None = None,
    ) -> None:
        observations = compiled.view.observations
        self.compiled = compiled
        self.keys = observations.entities
        self.provider = compiled.provider
        self.forecast = observations.kind == "forecast"
        self.with_id = bool(observations.key)
        self.numbers: dict[Hashable, int] = {} if like is None else like.numbers
        self._ids: dict[Hashable, int] = {} if like is None else like._ids  # noqa: SLF001 - a store made of another
        self.marks = marks or {}
        """Per entity that was trimmed: the event below which rows may be missing."""
        self.whole: set[int] = set() if like is None else like.whole
        """Entities that were asked for rows below their mark; they are not trimmed again."""
        empty = np.empty(0, np.int64)
        self.event, self.arrival, self.order = Growing(empty), Growing(empty), Growing(empty)
        self.issue, self.identity = Growing(empty), Growing(empty)
        self.withdraws, self.retraction = Growing(np.empty(0, np.uint8)), Growing(np.empty(0, np.uint8))
        self.retracts = False
        self.entity = Growing(np.empty(0, np.int32))
        self.columns: dict[str, ValueColumn] = {}
        self.regions = {notice: Regions(forecast=self.forecast, with_id=self.with_id) for notice in compiled.notices}
        self.switch(self.take_in(frame))

    def __len__(self) -> int:
        return self.event.size

    def number_of(self, key: Hashable) -> int:
        """The number of an entity; `NOBODY` if it has no rows."""
        return self.numbers.get(key, NOBODY)

    def take_in(self, frame: pl.DataFrame) -> Change:
        """Add rows that do not count before `switch`.

        Args:
            frame: Canonical checked rows, ascending by `@order`, all later than those that are there.

        Raises:
            AggregateOverflowError: If integers of a column that is computed with do not fit in 64 signed bits.
        """
        for regions in self.regions.values():
            regions.make_room(len(self.numbers) + frame.height + 1)  # before a reader can learn of a new number
        entities = self._number(frame)
        first = self.event.size
        self._append(frame, entities)
        rows = np.arange(first, self.event.size, dtype=np.int32)
        return Change(self._place(frame, entities, rows))

    def switch(self, change: Change) -> None:
        """Let a change count."""
        for notice, placement in change.placements.items():
            self.regions[notice].switch(placement)

    def restamp(self, orders: Ints, arrivals: Ints) -> None:
        """Give rows that are there a later arrival, at once (R14); rows that are not there are passed over."""
        there = np.flatnonzero(np.isin(self.order.array, orders))
        by_order = np.lexsort((arrivals, orders))  # of several restamps of a row the latest is the last
        place = by_order[np.searchsorted(orders[by_order], self.order.array[there], side="right") - 1]
        later = np.maximum(arrivals[place], self.arrival.array[there])
        self.arrival.set(there, later)
        touched = np.unique(self.entity.array[there]).astype(np.int64)
        whole = [self.regions[None].rows_of(entity) for entity in touched]
        for notice, regions in self.regions.items():
            # A later arrival may not have given the notice any more: what counts is chosen anew.
            rows = [self._given(of, notice) for of in whole] if notice is not None else whole
            offsets = np.concatenate([[0], np.cumsum([len(of) for of in rows])]).astype(np.int64)
            together = np.concatenate([np.empty(0, np.int32), *rows])
            regions.switch(regions.place(touched, offsets, together, self._source(), anew=True))

    def _given(self, rows: npt.NDArray[np.int32], notice: Duration) -> npt.NDArray[np.int32]:
        """Those of some rows that were given a notice before their event (R10)."""
        event = pl.Series(self.event.array[rows])
        frame = pl.DataFrame({EVENT: event, ARRIVAL: self.arrival.array[rows]})
        frame = frame.with_columns(pl.when(pl.col(EVENT) != NO_EVENT).then(EVENT).alias(EVENT))
        everyone = np.zeros(len(rows), np.int32)
        return rows[given_notice(frame, everyone, notice, self.compiled.view.zone) >= 0]

    def restore(self, frame: pl.DataFrame, number: int) -> None:
        """Take in again, at once, rows of one entity that were trimmed; it is not trimmed any more.

        Args:
            frame: Its canonical checked rows up to the store's position, ascending by `@order`.
            number: Its number.
        """
        there = self.order.array[self.regions[None].rows_of(number)]
        missing = frame.filter(~pl.col(ORDER).is_in(pl.Series(there).implode()))
        self.switch(self.take_in(missing))
        self.whole.add(number)
        self.marks.pop(number, None)

    def trimmed(self, *, oldest: int, keep_events: int) -> RowStore:
        """A store without the rows that no question at `oldest` or later can need; see `needed_rows`.

        Args:
            oldest: Microseconds.
            keep_events: How many events of an entity are kept at least where a feature has no floor.
        """
        stays, marks = needed_rows(
            self.compiled, self._described(), oldest=oldest, keep_events=keep_events, whole=self.whole
        )
        at = stays.arg_true().cast(pl.Int64).to_numpy()
        return RowStore(self.compiled, self._taken(at), like=self, marks=_higher(self.marks, marks))

    def _described(self) -> pl.DataFrame:
        """The rows as `needed_rows` wants them."""
        retraction = self.retraction.array.astype(bool)
        found = {
            "@entity": self.entity.array.astype(np.int64),
            EVENT: self.event.array,
            ARRIVAL: self.arrival.array,
            ORDER: self.order.array,
            RETRACTION: retraction,
        }
        frame = pl.DataFrame(found)
        if self.forecast:
            named = pl.Series(self.withdraws.array == 0)
            frame = frame.with_columns(pl.Series(ISSUE, self.issue.array)).with_columns(
                pl.when(named).then(ISSUE).alias(ISSUE)
            )
        return frame.with_columns(pl.Series("@key", self.identity.array)) if self.with_id else frame

    def _taken(self, at: Ints) -> pl.DataFrame:
        """Some rows in canonical form, entities and ids by their number."""
        frame = self._described()[at].with_columns(pl.when(pl.col(EVENT) != NO_EVENT).then(EVENT).alias(EVENT))
        return frame.with_columns(column.take(at).alias(name) for name, column in self.columns.items())

    # ------------------------------------------------------------------------------------------------------ one by one

    def _number(self, frame: pl.DataFrame) -> Ints:
        """The number of each row's entity; new entities get the next ones."""
        if not frame.height:
            return np.empty(0, np.int64)
        if "@entity" in frame.columns:
            return frame["@entity"].to_numpy()
        if not self.keys:
            self.numbers.setdefault((), 1)
            return np.ones(frame.height, np.int64)
        return _numbered(frame.select(self.keys), self.numbers, first=NOBODY + 1)

    def _append(self, frame: pl.DataFrame, entities: Ints) -> None:
        event = frame[EVENT]
        self.event.append((event.fill_null(NO_EVENT) if event.null_count() else event).to_numpy())
        self.arrival.append(frame[ARRIVAL].to_numpy())
        self.order.append(frame[ORDER].to_numpy())
        self.entity.append(entities.astype(np.int32))
        gone = frame[RETRACTION] if RETRACTION in frame.columns else pl.repeat(value=False, n=frame.height, eager=True)
        self.retraction.append(gone.to_numpy().astype(np.uint8))
        self.retracts |= bool(gone.any())
        if self.forecast:
            issue = frame[ISSUE]
            self.issue.append(issue.fill_null(0).to_numpy())
            self.withdraws.append((issue.is_null() & gone).to_numpy().astype(np.uint8))
        if self.with_id:
            self.identity.append(self._identify(frame))
        for name in self.compiled.columns:
            self._append_values(name, frame[name])

    def _identify(self, frame: pl.DataFrame) -> Ints:
        if "@key" in frame.columns or not frame.height:
            return frame["@key"].to_numpy() if frame.height else np.empty(0, np.int64)
        return _numbered(frame.select(self.compiled.view.observations.key), self._ids, first=0)

    def _append_values(self, name: str, values: pl.Series) -> None:
        try:
            if name in self.columns:
                self.columns[name].append(values)
            else:
                self.columns[name] = ValueColumn(values, computed=name in self.compiled.computed)
        except pl.exceptions.InvalidOperationError:
            raise AggregateOverflowError(
                f"{self.compiled.view.place}: {name!r} is {values.dtype} and holds values that do not fit in 64 signed bits",
                f'aggregate it as float64, e.g. derive={{"{name}_real": pl.col("{name}").cast(pl.Float64)}}.',
            ) from None

    def _place(self, frame: pl.DataFrame, entities: Ints, rows: Any) -> dict[Duration | None, Placement]:
        placements = {}
        source = self._source()
        for notice, regions in self.regions.items():
            counting = entities
            if notice is not None:
                coded = given_notice(frame, entities.astype(np.int32), notice, self.compiled.view.zone)
                counting = coded.astype(np.int64)
            kept = counting >= 0
            by_entity = np.argsort(counting[kept], kind="stable")
            touched, counts = np.unique(counting[kept], return_counts=True)
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            placements[notice] = regions.place(touched, offsets, rows[kept][by_entity], source)
        return placements

    def _source(self) -> tuple[Any, ...]:
        return (
            *(self.event.array, self.arrival.array, self.order.array),
            *(self.identity.array, self.issue.array, self.withdraws.array),
        )


def _higher(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    """The marks of both: what was trimmed below the higher one does not come back with a lower one."""
    return one | {entity: max(mark, one.get(entity, mark)) for entity, mark in other.items()}


def _numbered(keys: pl.DataFrame, known: dict[Hashable, int], *, first: int) -> Ints:
    """The number of each row's key in `known`; new keys get the next ones."""
    once = keys.unique(maintain_order=True).with_row_index("@row")
    found = np.empty(once.height, np.int64)
    for i, key in enumerate(key_values(once.drop("@row"))):
        number = known.get(key)
        if number is None:
            number = known[key] = len(known) + first
        found[i] = number
    if once.height == keys.height:
        return found
    at = keys.join(once, on=keys.columns, how="left", maintain_order="left", nulls_equal=True)["@row"]
    return np.asarray(found[at.to_numpy()], np.int64)


def key_values(keys: pl.DataFrame) -> Iterable[Hashable]:
    """Keys as Python has them: the value of one column, a tuple of several."""
    return keys.to_series().to_list() if keys.width == 1 else keys.rows()
