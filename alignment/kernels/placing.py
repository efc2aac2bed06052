"""Rows of single entities brought into regions of their own, one entity at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.jit import jit
from alignment.kernels.arranging import arrange


@jit
def arrange_each(
    old_starts: Any,
    old_lengths: Any,
    starts: Any,
    new_offsets: Any,
    new_rows: Any,
    event: Any,
    arrival: Any,
    order: Any,
    identity: Any,
    issue: Any,
    withdraws: Any,
    forecast: bool,
    rows: Any,
    events: Any,
    arrivals: Any,
    subject: Any,
    slot: Any,
    issue_key: Any,
    key_start: Any,
    subjects: Any,
    slots: Any,
) -> None:
    """Copy each entity's rows and its new ones into its new region, and arrange them there; see `arrange`.

    Args:
        old_starts: Where each entity's region is now.
        old_lengths: How many rows are in it.
        starts: Where its new region begins.
        new_offsets: Where its rows begin among `new_rows`, one more than entities.
        new_rows: Row numbers that are added.
        event: Event times by row number.
        arrival: Arrival times by row number.
        order: Log sequence by row number.
        identity: Number of the declared id by row number; empty if the key is the event.
        issue: Issue time by row number; empty for measurements.
        withdraws: By row number, 1 where a retraction names no issue; empty for measurements.
        forecast: Whether issues are part of the key.
        rows: All regions, as all that follow: row numbers.
        events: Event times of slots.
        arrivals: Arrival times.
        subject: Subjects.
        slot: Slots; the same array as `subject` where there is no id.
        issue_key: Issue keys; forecasts only.
        key_start: First issue keys; forecasts only.
        subjects: Out, per entity: how many subjects.
        slots: Out, per entity: how many slots.
    """
    bounds = np.zeros(2, np.int64)
    ties = np.zeros(1, np.int64)
    for entity in range(len(starts)):
        start, kept = starts[entity], old_lengths[entity]
        first, last = new_offsets[entity], new_offsets[entity + 1]
        n = kept + last - first
        for i in range(kept):
            rows[start + i] = rows[old_starts[entity] + i]
        for i in range(last - first):
            rows[start + kept + i] = new_rows[first + i]
        for i in range(n):
            row = rows[start + i]
            events[start + i] = event[row]
            arrivals[start + i] = arrival[row]
        bounds[1] = n
        tied = np.zeros(n, np.int32)
        stop = start + n
        there = slice(start, stop)
        about = subject[there]
        place = slot[there] if len(identity) > 0 else about
        keys = issue_key[there] if forecast else issue_key
        begins = key_start[there] if forecast else key_start
        arrange(
            0,
            1,
            bounds,
            rows[there],
            events[there],
            arrivals[there],
            order,
            identity,
            issue,
            withdraws,
            forecast,
            about,
            place,
            keys,
            begins,
            subjects[entity : entity + 1],
            slots[entity : entity + 1],
            tied,
            ties,
        )
