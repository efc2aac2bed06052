"""Aggregates of the values in one window, left to right (R8)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alignment.codes import PRESENT, QUANTILE, SLOPE, STD, VAR
from alignment.jit import inner
from alignment.kernels.sorting import merge_sort

HOUR_US = 3_600_000_000.0
_ROUNDS = 64
"""After so many rounds without an end selecting is given up for sorting."""
_SELECTED = 2
"""Up to so many quantiles of one window are selected one by one; for more its values are sorted."""


@inner
def _quantile(values: Any, n: int, share: float) -> float:
    place = (n - 1) * share
    floor = math.floor(place)
    part = place - floor
    i = int(floor)
    x = float(values[i])
    if part == 0.0:
        return x
    y = float(values[i + 1])
    gap = y - x
    if not math.isfinite(gap):  # further apart than a float can say, or infinite themselves
        return x * (1.0 - part) + y * part
    return x + gap * part


@inner
def _split(values: Any, low: int, high: int, pivot: Any) -> Any:
    """Bring what is less than `pivot` before what is greater: (last place of the first part, first place of the second)."""
    i, j = low, high
    while i <= j:
        while values[i] < pivot:
            i += 1
        while values[j] > pivot:
            j -= 1
        if i <= j:
            values[i], values[j] = values[j], values[i]
            i += 1
            j -= 1
    return j, i


@inner
def _select(values: Any, n: int, place: int) -> bool:
    """Bring the value that sorting would bring to `place` there, none greater before it and none less after; False to give up."""
    low, high = 0, n - 1
    rounds = 0
    while low < high:
        rounds += 1
        if rounds > _ROUNDS:
            return False
        a, b, c = values[low], values[(low + high) >> 1], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        j, i = _split(values, low, high, pivot)
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            return True
    return True


@inner
def _as_sorted(values: Any, n: int, place: int, column: Any, state: Any) -> Any:
    """The value at `place`, of zeros of two signs the one that a stable sort has there."""
    x = values[place]
    if x != 0:
        return x
    before = place
    for i in range(n):
        before -= values[i] < 0
    for i in range(len(column)):
        if state[i] == PRESENT and column[i] == 0:
            if before == 0:
                return column[i]
            before -= 1
    return x


@inner
def _selected_quantile(values: Any, n: int, share: float, column: Any, state: Any) -> Any:
    """The quantile of unsorted values, which are brought out of order; NaN to give up (there is none among them)."""
    place = (n - 1) * share
    i = math.floor(place)
    if not _select(values, n, i):
        return np.nan
    pair = np.empty(2, values.dtype)
    pair[0] = _as_sorted(values, n, i, column, state)
    part = place - math.floor(place)
    if part == 0.0:
        return float(pair[0])
    least = i + 1
    for j in range(i + 2, n):
        if values[j] < values[least]:
            least = j
    values[i + 1], values[least] = values[least], values[i + 1]
    pair[1] = _as_sorted(values, n, i + 1, column, state)
    return _quantile(pair, 2, part)


@inner
def _slope(buffer: Any, moments: Any, n: int) -> float:
    """Least squares slope per hour; NaN where it has none (told apart from a NaN among the values by the caller)."""
    x_sum, y_sum = 0.0, 0.0
    for i in range(n):
        x_sum += (moments[i] - moments[0]) / HOUR_US
        y_sum += float(buffer[i])
    x_mean, y_mean = x_sum / n, y_sum / n
    xy, xx = 0.0, 0.0
    for i in range(n):
        x = (moments[i] - moments[0]) / HOUR_US - x_mean
        xy += x * (float(buffer[i]) - y_mean)
        xx += x * x
    return xy / xx


@inner
def _count_quantiles(kinds: Any, low: int, high: int) -> int:
    found = 0
    for k in range(low, high):
        found += kinds[k] == QUANTILE
    return found


@inner
def _squares(column: Any, state: Any, mean: float) -> float:
    squares = 0.0
    for i in range(len(column)):
        if state[i] == PRESENT:
            d = float(column[i]) - mean
            squares += d * d
    return squares


@inner
def _present(values: Any, state: Any, found: Any) -> None:
    """Those of `values` whose slot holds a value, side by side."""
    filled = 0
    for i in range(len(values)):
        if state[i] == PRESENT:
            found[filled] = values[i]
            filled += 1


@inner
def has_nan(column: Any, state: Any, a: int, b: int) -> bool:
    """Whether one of the values in slots `a` to `b` is NaN."""
    for i in range(a, b):
        if state[i] == PRESENT and column[i] != column[i]:
            return True
    return False


@inner
def exact_sum_fits(column: Any, state: Any, a: int, b: int) -> Any:
    """Whether the integers in slots `a` to `b` sum to something that fits in 64 bits."""
    high, low = np.int64(0), np.int64(0)
    for i in range(a, b):
        if state[i] == PRESENT:
            x = np.int64(column[i])
            high += x >> 32
            low += x & 0xFFFFFFFF
    high += low >> 32
    return -(1 << 31) <= high < (1 << 31)


@inner
def totals(column: Any, state: Any, a: int, b: int) -> Any:
    """Of the values in slots `a` to `b`, left to right (R8): how many, their sum as a float and in their own type, least, greatest.

    Where a sum waits for the one before it, looking whether a slot holds a value costs nothing.
    """
    while a < b and state[a] != PRESENT:
        a += 1
    n = 0
    total = 0.0
    whole = column.dtype.type(0)
    least = greatest = column[min(a, b - 1)]
    for i in range(a, b):
        if state[i] == PRESENT:
            x = column[i]
            n += 1
            total += float(x)
            whole += x
            least = x if x < least else least
            greatest = x if x > greatest else greatest
    return n, total, whole, least, greatest


@inner
def aggregate_further(
    events: Any,
    column: Any,
    state: Any,
    n: int,
    total: float,
    nan: bool,
    kinds: Any,
    shares: Any,
    targets: Any,
    low: int,
    high: int,
    out: int,
    real: Any,
    known: Any,
) -> None:
    """Write those of the aggregates numbered `low` to `high` that take more than `totals`: spread, quantiles, slope.

    A call costs more than a short window, so the others are written where the window is looked up.
    """
    squares = -1.0
    sorted_yet = False
    quantiles = -1
    ordered = column[:0]
    for k in range(low, high):
        kind = kinds[k]
        target = targets[k]
        if kind == STD or kind == VAR:
            if n < 2 and not nan:
                known[target, out] = 0
                continue
            if squares == -1.0:
                squares = _squares(column, state, total / n)
            variance = np.nan if nan else squares / (n - 1)
            real[target, out] = math.sqrt(variance) if kind == STD else variance
        elif kind == QUANTILE:
            if nan:
                real[target, out] = np.nan
                continue
            if quantiles == -1:
                quantiles = _count_quantiles(kinds, low, high)
            if quantiles <= _SELECTED and not sorted_yet:
                ordered = np.empty(n, column.dtype)
                _present(column, state, ordered)
                chosen = _selected_quantile(ordered, n, shares[k], column, state)
                if chosen == chosen:
                    real[target, out] = chosen
                    continue
            if not sorted_yet:
                ordered = np.empty(n, column.dtype)
                _present(column, state, ordered)
                sorted_yet = True
                merge_sort(ordered, np.empty(n, np.int32), np.empty(n, ordered.dtype), np.empty(n, np.int32))
            real[target, out] = _quantile(ordered, n, shares[k])
        elif kind == SLOPE:
            if nan:
                real[target, out] = np.nan
                continue
            moments, values = np.empty(n, np.int64), np.empty(n, column.dtype)
            _present(events, state, moments)
            _present(column, state, values)
            if n < 2 or moments[0] == moments[n - 1]:
                known[target, out] = 0
                continue
            real[target, out] = _slope(values, moments, n)
