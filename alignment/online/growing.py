"""Columns that grow at their end and can be read meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.layout import frozen
from alignment.online.compiled import EVERYWHERE


class Growing:
    """An array with room at its end; reading `array` and `at` never sees a part of an append.

    Args:
        values: What is there at first.
    """

    __slots__ = ("_room", "array", "at", "size")

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._room = values
        self.size = len(values)
        self._publish()

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add values at the end; a full array moves to one twice as long."""
        end = self.size + len(values)
        if end > len(self._room):
            room = np.empty(max(end, 2 * len(self._room), 64), self._room.dtype)
            room[: self.size] = self._room[: self.size]
            self._room = room
        self._room[self.size : end] = values
        self.size = end
        self._publish()

    def set(self, where: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Replace some values."""
        self._room[where] = values

    def _publish(self) -> None:
        self.array = frozen(self._room[: self.size])
        self.at: memoryview[Any] = memoryview(self._room)  # type: ignore[arg-type]
        """Indexing it gives a Python number, several times quicker than indexing an array."""


class ValueColumn:
    """The values of one column by row number: numbers as an array, everything else as Python has it.

    Args:
        values: What is there at first.
        computed: Whether the kernel computes with the values, so that they must be int64 or float64.
    """

    __slots__ = ("_numbers", "_numeric", "_valid", "at", "dtype", "plain")

    def __init__(self, values: pl.Series, *, computed: bool) -> None:
        kind = values.dtype
        self.dtype = kind
        self.plain = (
            kind == pl.Boolean
            or kind in (pl.Float64, pl.Float32)
            or (kind.is_integer() and kind not in (pl.Int128, pl.UInt128))
        )
        filled = _filled(values) if self.plain else None
        self._numbers = Growing(filled) if filled is not None else None
        self._numeric = Growing(_computable(values)) if computed and self._own_numbers(kind) else None
        self._valid = Growing(_validity(values)) if values.null_count() else None
        self.at: Any = self._numbers.at if self._numbers is not None else values.to_list()

    def append(self, values: pl.Series) -> None:
        """Add values at the end."""
        before = len(self)
        if values.null_count() and self._valid is None:
            self._valid = Growing(np.ones(before, np.uint8))
        if self._valid is not None:
            self._valid.append(_validity(values))
        if self._numeric is not None:
            self._numeric.append(_computable(values))
        if self._numbers is None:
            self.at.extend(values.to_list())
        else:
            self._numbers.append(_filled(values))
            self.at = self._numbers.at

    def __len__(self) -> int:
        return self._numbers.size if self._numbers is not None else len(self.at)

    @property
    def valid(self) -> npt.NDArray[np.uint8]:
        """By row, 0 for null; empty if nothing is."""
        return EVERYWHERE if self._valid is None else self._valid.array

    @property
    def computable(self) -> npt.NDArray[Any]:
        """By row, the values as int64 or float64; only of a column that is computed with."""
        found = self._numeric or self._numbers
        assert found is not None  # noqa: S101 - only columns of numbers are computed with
        return found.array

    def of(self, rows: Sequence[int]) -> list[Any]:
        """The values of some rows as Python has them; a negative row number gives None."""
        at = self.at
        if self._valid is None or self._numbers is None:
            if min(rows, default=0) >= 0:
                return [at[row] for row in rows]
            return [at[row] if row >= 0 else None for row in rows]
        valid = self._valid.at
        return [at[row] if row >= 0 and valid[row] else None for row in rows]

    def take(self, rows: npt.NDArray[np.int64]) -> pl.Series:
        """The values of some rows as a series."""
        if self._numbers is None:
            return pl.Series([self.at[row] for row in rows.tolist()], dtype=self.dtype)
        values = pl.Series(self._numbers.array[rows])
        return values if self._valid is None else values.set(pl.Series(self._valid.array[rows] == 0), None)

    @staticmethod
    def _own_numbers(kind: pl.DataType) -> bool:
        return kind not in (pl.Float64, pl.Int64)


def _filled(values: pl.Series) -> npt.NDArray[Any]:
    """Numbers and booleans in their own type; nulls are 0."""
    filled = values.fill_null(False if values.dtype == pl.Boolean else 0) if values.null_count() else values
    return np.array(filled.to_numpy())


def _computable(values: pl.Series) -> npt.NDArray[Any]:
    wide = values.cast(pl.Float64 if values.dtype.is_float() else pl.Int64)
    return np.array(wide.fill_null(0).to_numpy())


def _validity(values: pl.Series) -> npt.NDArray[np.uint8]:
    return values.is_not_null().to_numpy().astype(np.uint8)
