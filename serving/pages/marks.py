"""The rows of one entity as marks of a picture: when each was about, when it arrived, which revision it is, what replaced it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, ISSUE, ORDER, RETRACTION, canonical, check_rows
from serving.pages.plain import value_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import alignment as al

MOST_MARKS: Final = 1_500
MOST_COLUMNS: Final = 6
_REVISION, _REVISIONS, _REPLACED = "@revision", "@revisions", "@replaced"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPANS: Final = tuple(
    timedelta(hours=hours)
    for hours in (1, 3, 6, 12, 24, 48, 96, 7 * 24, 14 * 24, 28 * 24, 91 * 24, 182 * 24, 364 * 24, 1820 * 24)
)
_EVENTS_SHOWN: Final = 72
_MOST_LETTERS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityTimes:
    """When an entity's rows were about and arrived.

    Attributes:
        events: Microseconds, distinct, ascending.
        arrivals: The same, of arrivals.
    """

    events: pl.Series
    arrivals: pl.Series

    @property
    def last_arrival(self) -> datetime:
        """When the newest row arrived."""
        return instant(int(self.arrivals[-1]))

    def before(self, t: datetime) -> datetime | None:
        """The last arrival before t."""
        place = int(self.arrivals.search_sorted(_us(t), side="left"))
        return instant(int(self.arrivals[place - 1])) if place else None

    def after(self, t: datetime) -> datetime | None:
        """The first arrival after t."""
        place = int(self.arrivals.search_sorted(_us(t), side="right"))
        return instant(int(self.arrivals[place])) if place < len(self.arrivals) else None

    def span(self) -> timedelta:
        """A length of time that holds a few dozen events."""
        if len(self.events) < 2:
            return _SPANS[0]
        gap = float(self.events.diff().drop_nulls().quantile(0.5, "linear") or 0)
        whole = max(self.events[-1], self.arrivals[-1]) - self.events[0]
        wanted = timedelta(microseconds=min(gap * _EVENTS_SHOWN, 1.5 * whole))
        return next((span for span in _SPANS if span >= wanted), _SPANS[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """One mark per revision.

    Attributes:
        rows: Each with `event`, `arrival`, `issue` (of forecasts), `revision` from 1, `revisions` of its key, `current` (from when
            until when it is the one that counts for its event; no end is null), `retraction`, `arrival_kind`, `values` as text by
            column.
        columns: The columns that `values` have.
        every: Of so many events one is drawn.
        events: How many events there are in the window.
    """

    rows: list[dict[str, Any]]
    columns: list[str]
    every: int
    events: int


def entity_rows(view: al.FeatureView, entity: Mapping[str, Any], columns: list[str]) -> pl.LazyFrame:
    """The canonical rows of one entity, before they are checked."""
    observations = view.observations
    rows = canonical(observations, columns)
    for name, observed in zip(view.spine_entities, observations.entities, strict=True):
        value = pl.lit(entity[name], observations.schema[observed])
        rows = rows.filter(pl.col(observed) == value)
    return rows


def times_of(view: al.FeatureView, entity: Mapping[str, Any]) -> EntityTimes | None:
    """When an entity's rows were about and arrived; None if it has no rows.

    Raises:
        AlignmentError: If the rows break a rule; see `alignment.rows.checked`.
    """
    frame, _ = check_rows(view.observations, entity_rows(view, entity, []).collect())
    if not frame.height:
        return None
    return EntityTimes(events=frame[EVENT].drop_nulls().unique().sort(), arrivals=frame[ARRIVAL].unique().sort())


def entities_of(view: al.FeatureView, most: int) -> tuple[list[dict[str, Any]], int]:
    """Entities of a view, the first in their order, and how many there are."""
    names = view.observations.entities
    found = view.observations.lazy().select(names).unique().drop_nulls().sort(names).collect()
    renamed = found.head(most).rename(dict(zip(names, view.spine_entities, strict=True)))
    return renamed.to_dicts(), found.height


def marks_of(view: al.FeatureView, entity: Mapping[str, Any], begin: datetime, end: datetime) -> Marks:
    """The revisions of an entity's events in `[begin, end]`; of too many events every second or third, and so on.

    Raises:
        AlignmentError: If the rows break a rule; see `alignment.rows.checked`.
    """
    observations = view.observations
    columns = [name for name in view.columns_read if name not in observations.entities][:MOST_COLUMNS]
    rows = entity_rows(view, entity, columns)
    window = pl.col(EVENT).is_between(_us(begin), _us(end))
    if not observations.key:  # where ids are declared, a revision may have moved its event out of the window (R4)
        rows = rows.filter(window)
    frame, _ = check_rows(observations, rows.collect())
    key = [*(observations.key or [EVENT]), *([ISSUE] if ISSUE in frame.columns else [])]
    order = [ARRIVAL, *([ORDER] if ORDER in frame.columns else [])]
    frame = frame.sort(*order, maintain_order=True).with_columns(
        pl.int_range(1, pl.len() + 1).over(key).alias(_REVISION),
        pl.len().over(key).alias(_REVISIONS),
        pl.col(ARRIVAL).shift(-1).over(key).alias(_REPLACED),
    )
    frame = frame.filter(window).sort(EVENT, *order, maintain_order=True)
    events = frame[EVENT].unique().sort()
    every = max(1, -(-frame.height // MOST_MARKS))
    if every > 1:
        frame = frame.filter(pl.col(EVENT).is_in(events.gather_every(every).implode())).head(4 * MOST_MARKS)
    found = [_mark(row, columns) for row in frame.iter_rows(named=True)]
    if observations.kind == "forecast":
        _set_current_issues(found)
    return Marks(rows=found, columns=columns, every=every, events=len(events))


def _mark(row: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    issue, replaced, retraction = row.get(ISSUE), row[_REPLACED], bool(row.get(RETRACTION))
    counts = not retraction and replaced != row[ARRIVAL]
    until = None if replaced is None else instant(replaced)
    return {
        "event": instant(row[EVENT]),
        "arrival": instant(row[ARRIVAL]),
        "issue": None if issue is None else instant(issue),
        "revision": row[_REVISION],
        "revisions": row[_REVISIONS],
        "current": [[instant(row[ARRIVAL]), until]] if counts else [],
        "retraction": retraction,
        "arrival_kind": row.get(ARRIVAL_KIND),
        "values": {name: value_text(row[name], _MOST_LETTERS) for name in columns},
    }


def _set_current_issues(marks: list[dict[str, Any]]) -> None:
    """Of forecasts, when each revision is that of its event's greatest present issue (R2, R3); marks are in order of arrival."""
    for _, group in groupby(marks, key=lambda mark: mark["event"]):
        present: dict[datetime, dict[str, Any]] = {}
        current: dict[str, Any] | None = None
        for mark in group:
            mark["current"] = []
            if not mark["retraction"]:
                present[mark["issue"]] = mark
            elif mark["issue"] is None:
                present.clear()
            else:
                present.pop(mark["issue"], None)
            newest = present[max(present)] if present else None
            if newest is not current:
                if current is not None:
                    current["current"][-1][1] = mark["arrival"]
                if newest is not None:
                    newest["current"].append([mark["arrival"], None])
            current = newest
    for mark in marks:
        mark["current"] = [span for span in mark["current"] if span[0] != span[1]]


def is_current(mark: Mapping[str, Any], t: datetime) -> bool:
    """Whether a mark's revision is the one that counts for its event at t."""
    return any(begin <= t and (end is None or t < end) for begin, end in mark["current"])


def instant(us: int) -> datetime:
    """The instant so many microseconds after 1970 began in UTC."""
    return _EPOCH + timedelta(microseconds=us)


def _us(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)
