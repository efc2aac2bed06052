"""Why a value is null (R20)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment import codes

STATUS = pl.Enum(["present", "null", "expired", "retracted", "missing"])
"""Type of `<feature>__status` columns."""

_PRESENT, _NULL, _EXPIRED, _RETRACTED, _MISSING = range(5)
_OF_PICK = np.full(5, _PRESENT, np.uint8)  # by -code, 0 being any row
_OF_PICK[[-codes.NULL, -codes.EXPIRED, -codes.RETRACTED, -codes.MISSING]] = _NULL, _EXPIRED, _RETRACTED, _MISSING
_OF_STATE = np.empty(4, np.uint8)
_OF_STATE[[codes.NEVER, codes.PRESENT, codes.PRESENT_NULL, codes.WITHDRAWN]] = _MISSING, _PRESENT, _NULL, _RETRACTED


def status_of_picks(
    picks: npt.NDArray[np.int32], is_null: npt.NDArray[np.bool_] | None, before_column: npt.NDArray[np.bool_] | None
) -> pl.Series:
    """The status of picked rows.

    Args:
        picks: Row numbers, or codes where none was picked.
        is_null: Where the picked value is null.
        before_column: Where the picked row is older than the column it is asked for.
    """
    found = _OF_PICK[-np.minimum(picks, 0)]
    if is_null is not None:
        found[is_null & (picks >= 0)] = _NULL
    if before_column is not None:
        found[before_column] = _MISSING
    return _series(found)


def status_of_windows(states: npt.NDArray[np.uint8], is_null: npt.NDArray[np.bool_]) -> pl.Series:
    """The status of windows, from what was in them and whether an aggregate came of it."""
    found = _OF_STATE[states]
    found[is_null & (found == _PRESENT)] = _NULL
    return _series(found)


def _series(found: npt.NDArray[Any]) -> pl.Series:
    return pl.Series(found).cat.to(STATUS)
