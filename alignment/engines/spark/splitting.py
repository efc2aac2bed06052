"""Entities that are cut by time: what each stretch needs of those before it, and of labels.

Stretch j answers the questions in `(c[j-1], c[j]]` from the rows that arrived in it and a snapshot of the entity at `c[j-1]`: the rows
of earlier stretches that a later question can need. Every piece of the input gives its share of each snapshot where it is read, so no task
ever has the history of an entity in its hands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.carrying import carried
from alignment.durations import DAY_US
from alignment.engines.spark.evenness import Cut, Parts, key_hashes, tally
from alignment.labels import Label, label_source
from alignment.layout import Ints
from alignment.observations import Observations
from alignment.parts import Pass, over_rows
from alignment.rows import ARRIVAL, EVENT, checked
from alignment.spine import check_spine
from alignment.views import FeatureView

_MARGIN_US = 2 * DAY_US
"""A calendar day in a zone is never so much longer or shorter."""


def may_cut(one: Pass) -> bool:
    """Whether the entities of a pass can be cut by time.

    Not where rows of one arrival are told apart by their place alone, where an id's event may move out of a label's range, or where those
    who read the same rows do not agree on their times, their order, or which are retractions: rows are counted and sent once for all.
    """
    for number in range(len(one.inputs)):
        rows = observations_of(one, number)
        if any(each.on_tie == "last" and not each.has_log_sequence for each in rows):
            return False
        if len({_reading(each) for each in rows}) > 1:
            return False
        if one.label_reads == number and rows[0].key:
            return False
    return True


def _reading(rows: Observations) -> tuple[object, ...]:
    """What decides when rows happened and arrived, in which order, and which are retractions."""
    columns = (rows.event_time, rows.arrival_time, rows.issue_time, rows.is_retraction, rows.log_sequence, *rows.key)
    return (columns, rows.kind, rows.on_tie, rows.tolerance.total_us, id(rows.delay), rows.date_zone, rows.date_means)


def observations_of(one: Pass, number: int) -> list[Observations]:
    """What reads an input: the observations of views, and of the label, without rows."""
    found = [view.observations for view in readers(one, number)]
    if one.label is not None and one.label_reads == number:
        found.append(label_source(one.label, ())[0])
    return found


def readers(one: Pass, number: int) -> list[FeatureView]:
    """The views that read an input."""
    return [view for view, place in zip(one.views, one.reads, strict=True) if place == number]


# --- where rows go: each of these splits frames as they are read ---------------------------------------------------------


@dataclass(frozen=True)
class Tallied:
    """Frames are only counted; the tallies are blobs of bucket 0.

    Attributes:
        number: Which input it is.
        keys: Its key columns.
        prediction_time: Of the spine: the column of its instants.
        observations: Of other inputs: what the rows are.
    """

    number: int
    keys: tuple[str, ...]
    prediction_time: str | None = None
    observations: Observations | None = None

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The tally of some rows."""
        removes = events = None
        if self.observations is None:
            instants = frame[str(self.prediction_time)].dt.epoch("us")
        else:
            rows = self.observations
            times = [pl.col(name) for name in (rows.arrival_time, rows.event_time) if name in frame.columns]
            moments = [
                one if frame.schema[one.meta.output_name()] != pl.Date else one.cast(pl.Datetime("us")) for one in times
            ]
            instants = frame.select(pl.coalesce(each.dt.epoch("us") for each in moments).fill_null(0)).to_series()
            if rows.is_retraction in frame.columns:
                removes = frame[rows.is_retraction].fill_null(value=False).to_numpy()
            happened = frame[rows.event_time]
            if rows.kind == "measurement" and happened.dtype.base_type() == pl.Datetime and not happened.has_nulls():
                events = happened.dt.epoch("us").to_numpy()
        yield 0, tally(frame, self.keys, instants.to_numpy(), removes, events)

    @property
    def columns(self) -> list[str]:
        """The columns that are looked at."""
        if self.observations is None:
            return [*self.keys, str(self.prediction_time)]
        rows = self.observations
        return list(dict.fromkeys([*self.keys, rows.arrival_time, rows.event_time, rows.is_retraction]))


@dataclass(frozen=True)
class Routed:
    """Rows go to their part: those of an entity that is cut by when they arrived, the spine's by when they ask.

    What later stretches need of them goes there too.

    Attributes:
        number: Which input it is.
        keys: Its key columns.
        parts: What goes where.
        prediction_time: Of the spine: the column of its instants.
        observations: Of other inputs: what the rows are.
        views: Who reads them.
        as_of_us: Of entities that are cut, rows that arrived later are left out.
    """

    number: int
    keys: tuple[str, ...]
    parts: Parts
    prediction_time: str | None = None
    observations: Observations | None = None
    views: tuple[FeatureView, ...] = ()
    as_of_us: int | None = None

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of each part, in their order."""
        hashes = key_hashes(frame, self.keys)
        of = self.parts.of(hashes)
        for key, cut in self.parts.cuts.items():
            places = np.flatnonzero(hashes == np.uint64(key))
            if not len(places):
                continue
            rows = frame[places]
            instants = self._instants(rows)
            stretch = cut.stretch_of(instants)
            of[places] += stretch
            if self.observations is not None and self.as_of_us is not None:
                of[places[instants > self.as_of_us]] = -1
                stretch[instants > self.as_of_us] = -1
            if self.views:
                yield from self._carried(rows, stretch, cut)
        yield from by_part(frame, of)

    def _instants(self, rows: pl.DataFrame) -> Ints:
        if self.observations is None:
            return check_spine(rows, [], str(self.prediction_time)).t
        return arrivals(self.observations, rows)

    def _carried(self, rows: pl.DataFrame, of: Ints, cut: Cut) -> Iterator[tuple[int, pl.DataFrame]]:
        """The part of each stretch but the first, and what of the rows of stretches before it may be needed there."""
        own = dict(by_part(rows, of))
        state, since = rows.clear(), 0
        for stretch, end in enumerate(cut.ends):
            since = 0 if stretch in own else since + 1
            # What is not needed at one end is not needed later. Without new rows it is not worth a look each time.
            if stretch in own or (state.height and since & (since - 1) == 0):
                state = pl.concat([state, own.pop(stretch, rows.clear())])
                needed = carried(
                    self.views, state, after_us=end, as_of_us=self.as_of_us, removals=cut.removals, alone=True
                )
                state = state.filter(needed)
            if state.height:
                yield cut.first + stretch + 1, state


@dataclass(frozen=True)
class LabelReach:
    """Of entities that are cut, the rows that labels of each stretch look at: by event, whenever they arrived.

    Attributes:
        number: A number of their own among the inputs.
        keys: Key columns.
        parts: What goes where.
        label: What is looked up.
        observations: What the rows are.
        span_us: The first and the last prediction time.
    """

    number: int
    keys: tuple[str, ...]
    parts: Parts
    label: Label
    observations: Observations
    span_us: tuple[int, int]

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The rows of each part; those of an event that two stretches look at go to both."""
        hashes = key_hashes(frame, self.keys)
        for key, cut in self.parts.cuts.items():
            rows = frame.filter(pl.Series(hashes == np.uint64(key)))
            if not rows.height:
                continue
            events = checked(over_rows(self.observations, rows), []).frame[EVENT]
            begins, ends = (self.span_us[0], *cut.ends), (*cut.ends, self.span_us[1])
            for stretch, (begin, end) in enumerate(zip(begins, ends, strict=True)):
                low = begin + self.label.horizon.total_us - self.label.tolerance.total_us - _MARGIN_US
                high = end + self.label.horizon.total_us + _MARGIN_US
                mine = rows.filter((events >= low) & (events <= high))
                if mine.height:
                    yield cut.first + stretch, mine


def arrivals(observations: Observations, rows: pl.DataFrame) -> Ints:
    """When rows arrived as they count: complete, and raised to their event (R5, R13)."""
    return checked(over_rows(observations, rows), []).frame[ARRIVAL].to_numpy()


def by_part(frame: pl.DataFrame, of: npt.NDArray[np.int64]) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of each part, in their order; those of part -1 are left out."""
    order = np.argsort(of, kind="stable")
    if not len(order):
        return
    ordered = of[order]
    rows = frame[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1, [len(ordered)]])
    for begin, end in pairwise(starts):
        if ordered[begin] >= 0:
            yield int(ordered[begin]), rows.slice(begin, end - begin)
