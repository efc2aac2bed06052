"""Heartbeats: when providers showed that they live, and which of them were down (R20)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.rows import ARRIVAL, checked
from alignment.views import FeatureView
from alignment.wallclock import Instants

Bools = npt.NDArray[np.bool_]
NEVER = int(np.iinfo(np.int64).min)
"""Stands for the last heartbeat where there is none."""


def provider_of(view: FeatureView) -> str:
    """Who sends a view's observations: the log's provider; of a plain frame the view stands for it."""
    source = view.observations.source
    return view.name if source is None else source.provider


def heartbeats_of(views: Iterable[FeatureView], *, position: int | None = None) -> Instants:
    """When a provider showed that it lives, in microseconds, ascending, each instant once.

    A log says so itself: batches and successful empty polls, as stamped and sequenced. Of a plain frame nothing is known of
    polls: its heartbeats are the arrivals of its rows.

    Args:
        views: Views of one provider.
        position: Heartbeats with a greater `log_sequence` are left out.

    Raises:
        AlignmentError: If a frame breaks a rule of frames; see `checked`.
    """
    found = [np.empty(0, np.int64)]
    for rows in {id(view.observations.source or view): view.observations for view in views}.values():
        told: Any = getattr(rows.source, "heartbeats", None)
        if told is not None:
            found.append(told(position=position)["arrival_time"].dt.epoch("us").to_numpy())
        else:
            found.append(checked(rows, [], position=position).frame[ARRIVAL].to_numpy())
    return np.unique(np.concatenate(found))


def last_heartbeats(beats: Instants, t: Instants, as_of_us: int | None = None) -> Instants:
    """Per instant the last heartbeat that counts there, `NEVER` if none does.

    Args:
        beats: Heartbeats, ascending.
        t: Instants in microseconds.
        as_of_us: Heartbeats after it do not count.

    Example:
        >>> last_heartbeats(np.array([10, 20]), np.array([9, 10, 25]), as_of_us=15)[1:].tolist()
        [10, 10]
    """
    known = t if as_of_us is None else np.minimum(t, as_of_us)
    place = np.searchsorted(beats, known, side="right")
    return np.where(place > 0, beats[np.maximum(place, 1) - 1], NEVER) if len(beats) else np.full(len(t), NEVER)


def is_down(last: Instants, t: Instants, down_after_us: int) -> Bools:
    """Whether no heartbeat lies in `(t - down_after, t]`, from the last one.

    Example:
        >>> is_down(np.array([10, 11, NEVER]), np.array([15, 15, 15]), 5).tolist()
        [True, False, True]
    """
    return np.asarray(last <= t - down_after_us, np.bool_)


def is_stale(last: Instants, t: Instants, max_age_us: int) -> Bools:
    """Whether the last heartbeat is older than `max_age`; exactly the limit is kept, as everywhere (R7).

    Example:
        >>> is_stale(np.array([10, 9]), np.array([15, 15]), 5).tolist()
        [False, True]
    """
    return np.asarray(last < t - max_age_us, np.bool_)
