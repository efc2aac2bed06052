"""Heartbeats: when providers showed that they live, which of them were down, and how far their events had got (R20)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.engines.spark.frames import is_spark_frame
from alignment.observations import Observations
from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, ISSUE, RETRACTION, canonical, check_rows, checked
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
    sent = {id(view.observations.source or view): view.observations for view in views}.values()
    found = [heartbeats_in(rows, position=position) for rows in sent]
    # numpy's own unique hashes, badly where most instants are whole seconds
    return pl.Series(np.concatenate([np.empty(0, np.int64), *found])).unique().sort().to_numpy()


def heartbeats_in(rows: Observations, *, position: int | None = None) -> Instants:
    """The heartbeats that observations show, in microseconds; see `heartbeats_of`."""
    if is_spark_frame(rows.frame):
        from alignment.engines.spark.beats import arrivals_in_spark

        return arrivals_in_spark(rows, position=position)
    told: Any = getattr(rows.source, "heartbeats", None)
    if told is not None:
        return np.asarray(told(position=position)["arrival_time"].dt.epoch("us").to_numpy())
    return np.asarray(checked(rows, [], position=position).frame[ARRIVAL].to_numpy())


@dataclass(frozen=True, slots=True)
class Newest:
    """How far a provider's events had got: from each arrival on, the newest event; both ascending, in microseconds."""

    arrivals: Instants
    events: Instants

    @classmethod
    def of(cls, arrivals: Instants, events: Instants) -> Newest:
        """From rows in any order: those that brought a newer event than all that arrived before."""
        order = np.lexsort((events, arrivals))
        arrivals, events = arrivals[order], np.maximum.accumulate(events[order]) if len(order) else events
        last = np.append(arrivals[1:] != arrivals[:-1], np.ones(min(1, len(order)), np.bool_))
        arrivals, events = arrivals[last], events[last]
        newer = np.append(np.ones(min(1, len(events)), np.bool_), events[1:] > events[:-1])
        return cls(arrivals[newer], events[newer])

    def and_then(self, other: Newest) -> Newest:
        """With further rows."""
        return Newest.of(np.append(self.arrivals, other.arrivals), np.append(self.events, other.events))

    def at(self, t: Instants, as_of_us: int | None = None) -> Instants:
        """Per instant the newest event that is known there, `NEVER` if none is."""
        return _last(self.arrivals, self.events, t, as_of_us)


def newest_of(views: Iterable[FeatureView], *, position: int | None = None, after: int | None = None) -> Newest:
    """How far the events of a provider had got by each arrival; of forecasts its issues. Retractions bring none.

    Args:
        views: Views of one provider.
        position: Rows with a greater `log_sequence` are left out.
        after: So are those with this one or a lower one.

    Raises:
        AlignmentError: If a frame breaks a rule of frames; see `checked`.
    """
    found = Newest(np.empty(0, np.int64), np.empty(0, np.int64))
    for rows in {id(view.observations.source or view): view.observations for view in views}.values():
        found = found.and_then(newest_in(rows, position=position, after=after))
    return found


def newest_in(rows: Observations, *, position: int | None = None, after: int | None = None) -> Newest:
    """How far the events of observations had got; see `newest_of`."""
    if is_spark_frame(rows.frame):
        from alignment.engines.spark.beats import news_in_spark

        return Newest.of(*news_in_spark(rows, position=position))
    lazy = canonical(rows, [], position=position, after=after).drop(ARRIVAL_KIND, strict=False)
    frame = check_rows(rows, lazy.collect())[0]
    frame = frame.filter(~frame[RETRACTION]) if RETRACTION in frame.columns else frame
    instant = ISSUE if rows.kind == "forecast" else EVENT
    return Newest.of(frame[ARRIVAL].to_numpy(), frame[instant].to_numpy())


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
    return _last(beats, beats, t, as_of_us)


def _last(arrivals: Instants, told: Instants, t: Instants, as_of_us: int | None) -> Instants:
    """Per instant what the last arrival that counts there told, `NEVER` if none does."""
    known = t if as_of_us is None else np.minimum(t, as_of_us)
    place = np.searchsorted(arrivals, known, side="right") - 1
    return np.where(place >= 0, told[np.maximum(place, 0)], NEVER) if len(arrivals) else np.full(len(t), NEVER)


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
