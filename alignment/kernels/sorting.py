"""Sorting that is quick where little is out of place."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.jit import inner, jit

_BLOCK = 16


@inner
def merge_sort(key: Any, tag: Any, spare_key: Any, spare_tag: Any) -> None:
    """Sort `key` ascending and carry `tag` along; equal keys keep their order.

    Blocks are sorted by insertion, then merged; what is already in place on either side of a merge is left alone, so that
    nearly sorted input costs little more than one look at it.
    """
    n = len(key)
    for low in range(0, n, _BLOCK):
        for i in range(low + 1, min(low + _BLOCK, n)):
            k = key[i]
            g = tag[i]
            j = i
            while j > low and key[j - 1] > k:
                key[j] = key[j - 1]
                tag[j] = tag[j - 1]
                j -= 1
            key[j] = k
            tag[j] = g
    width = _BLOCK
    while width < n:
        for low in range(0, n - width, 2 * width):
            _merge(key, tag, spare_key, spare_tag, low, low + width, min(low + 2 * width, n))
        width *= 2


@inner
def _merge(key: Any, tag: Any, spare_key: Any, spare_tag: Any, low: int, middle: int, high: int) -> None:
    if key[middle - 1] <= key[middle]:
        return
    bound = key[middle]
    a, b = low, middle
    while a < b:
        c = (a + b) >> 1
        if key[c] <= bound:
            a = c + 1
        else:
            b = c
    low = a
    bound = key[middle - 1]
    a, b = middle, high
    while a < b:
        c = (a + b) >> 1
        if key[c] < bound:
            a = c + 1
        else:
            b = c
    high = a
    left = middle - low
    for i in range(left):
        spare_key[i] = key[low + i]
        spare_tag[i] = tag[low + i]
    i, j, k = 0, middle, low
    while i < left and j < high:
        if spare_key[i] <= key[j]:
            key[k] = spare_key[i]
            tag[k] = spare_tag[i]
            i += 1
        else:
            key[k] = key[j]
            tag[k] = tag[j]
            j += 1
        k += 1
    while i < left:
        key[k] = spare_key[i]
        tag[k] = spare_tag[i]
        i += 1
        k += 1


@inner
def is_sorted(values: Any) -> bool:
    """Whether no value is less than the one before it."""
    for i in range(1, len(values)):
        if values[i - 1] > values[i]:
            return False
    return True


@jit
def sort_queries(first: int, last: int, offsets: Any, t: Any, rows: Any) -> None:
    """Bring each entity's questions into the order of their prediction times."""
    for entity in range(first, last):
        low, high = offsets[entity], offsets[entity + 1]
        if not is_sorted(t[low:high]):
            n = high - low
            merge_sort(t[low:high], rows[low:high], np.empty(n, np.int64), np.empty(n, np.int32))
