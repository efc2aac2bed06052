"""Fallbacks, heartbeats and variants as plain loops: what R20 says of a feature service, never optimised.

Instants are integers. A source is a pair (value, status), or None for a constant, which always answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def last_heartbeat(beats: Sequence[int], t: int, as_of: int | None = None) -> int | None:
    """The last heartbeat that counts at t."""
    last = None
    for beat in beats:
        if beat > t:
            continue
        if as_of is not None and beat > as_of:
            continue
        if last is None or beat > last:
            last = beat
    return last


def is_down(beats: Sequence[int], t: int, down_after: int | None, as_of: int | None = None) -> bool:
    """A provider is down iff none of its heartbeats counts in (t - down_after, t]; without a limit it never is."""
    if down_after is None:
        return False
    for beat in beats:
        counts = beat <= t and (as_of is None or beat <= as_of)
        if counts and t - down_after < beat:
            return False
    return True


def newest_event(rows: Sequence[tuple[int, int]], t: int, as_of: int | None = None) -> int | None:
    """The newest event, of (arrival, event) rows without retractions, that is known at t."""
    newest = None
    for arrival, event in rows:
        if arrival > t or (as_of is not None and arrival > as_of):
            continue
        if newest is None or event > newest:
            newest = event
    return newest


def source(statuses: Sequence[str | None], down: Sequence[bool], *, skip_null: bool = False) -> int:
    """Which source answers: the first whose provider is up and which says something; else the feature itself."""
    for place, status in enumerate(statuses):
        if status is None:
            return place  # a constant
        if down[place]:
            continue
        if status == "present":
            return place
        if status == "null" and not skip_null:
            return place
    return 0


def variant(
    needs: Sequence[Mapping[str, tuple[int | None, int | None]]],
    beats: Mapping[str, Sequence[int]],
    rows: Mapping[str, Sequence[tuple[int, int]]],
    t: int,
    down_after: Mapping[str, int],
    as_of: int | None = None,
) -> int:
    """The first variant whose providers are all up and fresh enough; -1 if there is none."""
    for place, needed in enumerate(needs):
        good = True
        for provider, (max_age, max_event_age) in needed.items():
            if is_down(beats[provider], t, down_after.get(provider), as_of):
                good = False
            if max_age is not None:
                last = last_heartbeat(beats[provider], t, as_of)
                if last is None or t - last > max_age:
                    good = False
            if max_event_age is not None:
                newest = newest_event(rows[provider], t, as_of)
                if newest is None or t - newest > max_event_age:
                    good = False
        if good:
            return place
    return -1
