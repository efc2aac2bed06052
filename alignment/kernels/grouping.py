"""Which entity each row belongs to, and rows of one entity side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.jit import inner, jit


@jit
def count_rows(codes: Any, arrival: Any, limit: int, start: int, stop: int, counts: Any) -> None:
    """Count the rows of each entity in `[start, stop)` that had arrived by `limit`."""
    for row in range(start, stop):
        code = codes[row]
        if code >= 0 and arrival[row] <= limit:
            counts[code] += 1


@jit
def scatter_rows(
    codes: Any,
    event: Any,
    arrival: Any,
    limit: int,
    start: int,
    stop: int,
    cursor: Any,
    rows: Any,
    events: Any,
    arrivals: Any,
) -> None:
    """Put the rows counted by `count_rows` into their entity's place, in the order given."""
    for row in range(start, stop):
        code = codes[row]
        if code >= 0 and arrival[row] <= limit:
            place = cursor[code]
            cursor[code] = place + 1
            rows[place] = row
            events[place] = event[row]
            arrivals[place] = arrival[row]


@inner
def _table_place(keys: Any, row: int, shift: int) -> Any:
    mixed = np.uint64(0)
    for part in range(keys.shape[1]):
        mixed = (mixed ^ np.uint64(keys[row, part])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return np.int64((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))


@inner
def _same_key(keys: Any, row: int, other: Any, code: int) -> bool:
    for part in range(keys.shape[1]):
        if keys[row, part] != other[code, part]:
            return False
    return True


@jit
def fill_table(keys: Any, shift: int, table: Any) -> None:
    """Enter the number of each of `keys` (words of 64 bits, one row per key) into an empty table for `look_up`."""
    mask = len(table) - 1
    for code in range(len(keys)):
        place = _table_place(keys, code, shift)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = code


@jit
def look_up(wanted: Any, keys: Any, shift: int, table: Any, start: int, stop: int, codes: Any) -> None:
    """The number of each of `wanted` among `keys` by open addressing; -1 for one that is not there."""
    mask = len(table) - 1
    for row in range(start, stop):
        place = _table_place(wanted, row, shift)
        while table[place] >= 0 and not _same_key(wanted, row, keys, table[place]):
            place = (place + 1) & mask
        codes[row] = table[place]
