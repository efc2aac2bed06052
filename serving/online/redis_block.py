"""Rows that were read for one question, as the evaluator wants them: a store that lives as long as an answer takes.

Nothing is computed here that the store in memory does not compute: the rows are arranged by the same kernel, and the same
evaluator asks the questions. What differs is where the arrays come from, and that a column is decoded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.durations import Duration
from alignment.errors import AggregateOverflowError
from alignment.layout import NO_EVENT as WITHOUT_EVENT
from alignment.layout import Ints, frozen, given_notice
from alignment.online import CompiledView, RowStore
from alignment.online.compiled import EVERYWHERE
from alignment.online.growing import Growing, ValueColumn
from alignment.rows import ARRIVAL, EVENT
from serving.online.redis_columns import Texts
from serving.online.redis_records import NO_EVENT, NO_ISSUE, RETRACTED, Decoded

_NOTHING = Growing(np.empty(0, np.int64))
_NO_FLAGS = Growing(np.empty(0, np.uint8))
_FEW = 256


class Block(RowStore):
    """The rows of some entities.

    Args:
        compiled: The features that are to be answered.
        decoded: The rows; entity i of them is number i + 1 here, and 0 has none.
        marks: By number, the event below which rows may be missing.
    """

    def __init__(self, compiled: CompiledView, decoded: Decoded, *, marks: dict[int, int] | None = None) -> None:
        # Not RowStore.__init__, which takes a frame: the arrays are there already.
        observations = compiled.view.observations
        self.compiled = compiled
        self.decoded = decoded
        self.keys = observations.entities
        self.provider = observations.source.provider if observations.source is not None else ""
        self.forecast = observations.kind == "forecast"
        self.with_id = bool(observations.key)
        self.numbers = {}
        self.marks = marks or {}
        self.whole = set()
        flags = decoded.flags
        event = decoded.event
        if (flags & NO_EVENT).any():
            event = np.where((flags & NO_EVENT) != 0, WITHOUT_EVENT, event)
        self.event, self.arrival, self.order = Growing(event), Growing(decoded.arrival), Growing(decoded.sequence)
        self.retraction = Growing(flags & np.uint8(RETRACTED))
        self.retracts = bool(self.retraction.array.any())
        self.issue = Growing(decoded.issue) if self.forecast else _NOTHING
        withdrawn = (flags & (RETRACTED | NO_ISSUE)) == RETRACTED | NO_ISSUE
        self.withdraws = Growing(withdrawn.view(np.uint8)) if self.forecast else _NO_FLAGS
        self.identity = Growing(identities(decoded, observations.key)) if self.with_id else _NOTHING
        self.columns = _Columns(compiled, decoded)
        self.regions = {notice: self._arranged(notice) for notice in compiled.notices}  # type: ignore[misc]

    @property
    def entity(self) -> Growing:  # type: ignore[override]
        """By row, the number of its entity."""
        return Growing(
            np.repeat(np.arange(1, len(self.decoded.offsets), dtype=np.int32), np.diff(self.decoded.offsets))
        )

    def __len__(self) -> int:
        return len(self.decoded)

    def _arranged(self, notice: Duration | None) -> _Arranged:
        offsets, rows = self.decoded.offsets, np.arange(len(self.decoded), dtype=np.int32)
        if notice is not None:
            entity = self.entity.array
            times = pl.DataFrame({EVENT: self.event.array, ARRIVAL: self.arrival.array}).with_columns(
                pl.when(pl.col(EVENT) != WITHOUT_EVENT).then(EVENT).alias(EVENT)
            )
            counting = given_notice(times, entity, notice, self.compiled.view.zone) >= 0
            rows = rows[counting]
            offsets = np.zeros_like(offsets)
            np.cumsum(np.bincount(entity[counting] - 1, minlength=len(offsets) - 1), out=offsets[1:])
        return _Arranged(self, offsets, rows)


class _Arranged:
    """Rows in the order that the kernel walks; see `alignment.online.regions.Regions`."""

    def __init__(self, block: Block, offsets: Ints, new_rows: npt.NDArray[np.int32]) -> None:
        from alignment import kernels

        entities, n = len(offsets) - 1, len(new_rows)
        rows, subject = np.empty(n, np.int32), np.empty(n, np.int32)
        event, arrival = np.empty(n, np.int64), np.empty(n, np.int64)
        slot = np.empty(n, np.int32) if block.with_id else subject
        issues = n if block.forecast else 0
        issue_key, key_start = np.empty(issues, np.int32), np.empty(issues, np.int32)
        subjects, slots = np.zeros(entities, np.int64), np.zeros(entities, np.int64)
        starts = offsets[:-1]
        none = np.zeros(entities, np.int64)
        kernels.arrange_each(
            *(none, none, starts, offsets, new_rows, block.event.array, block.arrival.array, block.order.array),
            *(block.identity.array, block.issue.array, block.withdraws.array, block.forecast),
            *(rows, event, arrival, subject, slot, issue_key, key_start, subjects, slots),
        )
        self.arguments = (
            *(_doubled(starts, offsets[1:]), rows, arrival, event, subject, slot, issue_key, key_start),
            *(_doubled(subjects), _doubled(slots)),
        )


class _Columns(dict[str, ValueColumn]):
    """The columns by name, each decoded when it is first asked for."""

    def __init__(self, compiled: CompiledView, decoded: Decoded) -> None:
        super().__init__()
        self._compiled = compiled
        self._decoded = decoded

    def __missing__(self, name: str) -> ValueColumn:
        column = cast("ValueColumn", _BlockColumn(self._compiled, self._decoded, name))
        self[name] = column
        return column


class _BlockColumn:
    """One column of a block; see `alignment.online.growing.ValueColumn`."""

    def __init__(self, compiled: CompiledView, decoded: Decoded, name: str) -> None:
        self._name = name
        self._decoded = decoded
        self._place = compiled.view.place
        self.dtype = decoded.layout.columns[name]
        self._kind = decoded.layout.kinds[name]
        self._there = decoded.valid(name)
        self.valid = EVERYWHERE if self._there is None else frozen(self._there.view(np.uint8))
        self._numbers: Any = None
        if self.dtype == pl.Boolean or self.dtype.is_float() or self.dtype.is_integer():
            self._numbers = decoded.numbers(name)
            self._at: Any = memoryview(self._numbers) if self._numbers is not None else None

    @property
    def computable(self) -> npt.NDArray[Any]:
        """The values as int64 or float64.

        Raises:
            AggregateOverflowError: If integers do not fit in 64 signed bits.
        """
        kind = self.dtype
        if kind.is_float():
            return frozen(self._numbers.astype(np.float64, copy=False))
        if kind in (pl.UInt64, pl.Int128, pl.UInt128):
            try:
                wide = self._decoded.series(self._name).cast(pl.Int64).fill_null(0)
            except pl.exceptions.InvalidOperationError:
                raise AggregateOverflowError(
                    f"{self._place}: {self._name!r} is {kind} and holds values that do not fit in 64 signed bits",
                    f'aggregate it as float64, e.g. derive={{"{self._name}_real": pl.col("{self._name}").cast(pl.Float64)}}.',
                ) from None
            return frozen(np.ascontiguousarray(wide.to_numpy()))
        return frozen(self._numbers.astype(np.int64, copy=False))

    def of(self, rows: Sequence[int]) -> list[Any]:
        """The values of some rows as Python has them; a negative row number gives None."""
        if self._numbers is not None:
            at, there = self._at, self._there
            if there is None:
                return [at[row] if row >= 0 else None for row in rows]
            return [at[row] if row >= 0 and there[row] else None for row in rows]
        there = self._there
        known = [row for row in rows if row >= 0 and (there is None or there[row])]
        if not known:
            return [None] * len(rows)
        if isinstance(self._kind, Texts) and self.dtype in (pl.String, pl.Binary) and len(known) <= _FEW:
            values = iter(self._kind.some(self._decoded, self._name, known))
        else:
            values = iter(self._decoded.series(self._name, np.array(known, np.int64)).to_list())
        return [next(values) if row >= 0 and (there is None or there[row]) else None for row in rows]


def identities(decoded: Decoded, key: Sequence[str]) -> Ints:
    """A number per row: equal for equal ids within the block."""
    if len(key) == 1 and decoded.layout.columns[key[0]] == pl.Int64:
        return decoded.numbers(key[0])
    ids = pl.DataFrame([decoded.series(name) for name in key])
    ranked = ids.select(pl.struct(key).rank("dense") if len(key) > 1 else pl.col(key[0]).rank("dense"))
    return np.ascontiguousarray(ranked.to_series().to_numpy(), np.int64)


def _doubled(values: Ints, ends: Ints | None = None) -> Ints:
    """Per entity two places, as `Regions` has them, and none for entity 0."""
    found = np.zeros(2 * len(values) + 3, np.int64)
    found[2:-1:2] = values
    if ends is not None:
        found[3::2] = ends
        found[-1] = ends[-1] if len(ends) else 0
    return found
