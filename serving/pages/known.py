"""The page "what was known when": one entity's revisions, the features at t, what changed since another t, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import alignment as al
from serving.http.refusals import RefusalError, shown
from serving.pages.marks import EntityTimes, Marks, marks_of, times_of
from serving.pages.plain import iso
from serving.pages.questions import (
    Query,
    UnknownNameError,
    address,
    entity_text,
    entity_words,
    length_text,
    read_entity,
)
from serving.pages.vector import vector

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 15, 30, 60, 180, 360, 720, 1440, 7 * 1440))
_STEPS_IN_A_SPAN: Final = 150
_MOST_USED: Final = 24
_LAST: Final = datetime(9990, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in time a page is: everything that its address holds.

    Attributes:
        path: The page without its question.
        entity: Entity column to value.
        t: The prediction time.
        was: What the features are compared with.
        begin: Where the picture and the slider begin.
        span: How long they are.
        step: How far the slider moves at once.
        feature: The feature that is explained; None for none.
        late: Whether the picture reaches from the first arrival to the last.
    """

    path: str
    entity: Mapping[str, Any]
    t: datetime
    was: datetime
    begin: datetime
    span: timedelta
    step: timedelta
    feature: str | None
    late: bool

    @property
    def end(self) -> datetime:
        """Where the picture and the slider end."""
        return self.begin + self.span

    def words(self, *without: str) -> list[tuple[str, str]]:
        """What the address says, but for some parts."""
        words: list[tuple[str, str | None]] = [
            *entity_words(self.entity),
            ("t", iso(self.t)),
            ("was", iso(self.was)),
            ("from", iso(self.begin)),
            ("span", length_text(self.span)),
            ("feature", self.feature),
            ("late", "1" if self.late else None),
        ]
        return [(name, text) for name, text in words if text is not None and name not in without]

    def at(self, t: datetime) -> str:
        """The address of the same page at another instant, compared with this one."""
        return replace(self, t=t, was=self.t, begin=_begin(t, self.span, self.step, self.begin)).address()

    def explaining(self, feature: str | None) -> str:
        """The address of the same page with another cell explained."""
        return replace(self, feature=feature).address()

    def address(self) -> str:
        """The address of this very page."""
        return address(self.path, self.words())


def place_of(view: al.FeatureView, query: Query, path: str, entity: Mapping[str, Any], times: EntityTimes) -> Place:
    """What an address asks, with what it leaves out: the last arrival as t, a window of a few dozen events round it.

    Raises:
        RefusalError: If a part of it cannot be read.
        UnknownNameError: If it names no feature of the view.
    """
    t = query.instant("t") or _whole_second(times.last_arrival)
    span = query.length("span") or times.span()
    step = next((step for step in _STEPS if span / step <= _STEPS_IN_A_SPAN), _STEPS[-1])
    feature = query.one("feature")
    if feature is not None and feature not in view.column_names:
        raise UnknownNameError("feature", feature, view.column_names, f"view {view.name!r}")
    for name, value in (("t", t), ("from", query.instant("from") or t)):
        if not _EPOCH + 2 * span < value < _LAST:
            raise RefusalError(
                400, f"{name}={shown(iso(value))} is too far away", "name an instant near the observations."
            )
    return Place(
        path=path,
        entity=entity,
        t=t,
        was=query.instant("was") or t - step,
        begin=_begin(t, span, step, query.instant("from")),
        span=span,
        step=step,
        feature=feature,
        late=query.one("late") == "1",
    )


def _begin(t: datetime, span: timedelta, step: timedelta, asked: datetime | None) -> datetime:
    """Where the window begins: as asked if t lies in it, else so that t lies in its middle half, and moves seldom."""
    if asked is not None and asked <= t <= asked + span:
        return asked
    half = max(span / 2 // step * step, step)
    return _EPOCH + ((t - half / 2 - _EPOCH) // half) * half


def known(view: al.FeatureView, query: Query, path: str) -> dict[str, Any]:
    """All that the page shows.

    Args:
        view: The view.
        query: What the address asks.
        path: The page's own address, without a question.

    Returns:
        `place` and, as JSON has it too: `view`, `provider`, `entity`, `t`, `was`, `window`, `links`, `vector`, `explanation`, `picture`.

    Raises:
        RefusalError: If the address cannot be read, or there is no such entity.
        AlignmentError: What the rows are refused for.
    """
    entity = read_entity(query, view)
    if entity is None:
        raise RefusalError(400, "no entity is named", f"write entity=VALUE; {path} lists what there is.")
    times = times_of(view, entity)
    if times is None:
        raise RefusalError(
            404,
            f"view {view.name!r} has no rows of {shown(entity_text(entity))}",
            f"{path} lists the entities that have some.",
        )
    place = place_of(view, query, path, entity, times)
    found = vector(view, entity, place.t, place.was)
    for cell in found["features"]:
        cell["href"] = place.explaining(cell["feature"])
    source = view.observations.source
    return {
        "place": place,
        "view": view.name,
        "kind": view.kind,
        "provider": None if source is None else source.provider,
        "position": None if source is None else source.position(),
        "entity": dict(entity),
        "entity_text": entity_text(entity),
        "t": place.t,
        "was": place.was,
        "window": {"from": place.begin, "until": place.end, "step": place.step, "late": place.late},
        "links": _links(place, times),
        "vector": found,
        "explanation": None if place.feature is None else explanation(view, entity, place.t, place.feature),
        "picture": picture(marks_of(view, entity, place.begin, place.end), place)
        if query.one("part") != "vector"
        else None,
    }


def explanation(view: al.FeatureView, entity: Mapping[str, Any], t: datetime, feature: str) -> dict[str, Any]:
    """Why a feature has the value it has.

    Raises:
        AlignmentError: What the rows are refused for.
    """
    found = al.explain(view, dict(entity) or None, t, features=feature)
    told: dict[str, Any] = found.to_dict(used=_MOST_USED)
    one: dict[str, Any] = told["features"][0]
    return one


def _links(place: Place, times: EntityTimes) -> dict[str, str | None]:
    before, after = times.before(place.t), times.after(place.t)
    half = place.span / 2
    return {
        "self": place.address(),
        "earlier": place.at(place.t - place.step),
        "later": place.at(place.t + place.step),
        "arrival_before": None if before is None else place.at(before),
        "arrival_after": None if after is None else place.at(after),
        "window_before": replace(place, t=place.t - half, was=place.t, begin=place.begin - half).address(),
        "window_after": replace(place, t=place.t + half, was=place.t, begin=place.begin + half).address(),
        "wider": _spanned(place, place.span * 2),
        "narrower": _spanned(place, max(place.span / 2, timedelta(minutes=10))),
        "late": replace(place, late=not place.late).address(),
        "last_arrival": place.at(_whole_second(times.last_arrival)),
        "json": address(f"{place.path}.json", place.words()),
    }


def _whole_second(instant: datetime) -> datetime:
    """The first whole second that is not before an instant."""
    return instant + timedelta(microseconds=-instant.microsecond % 1_000_000)


def _spanned(place: Place, span: timedelta) -> str:
    """The same page with a window of another length, which lies as the present one does round t."""
    share = (place.t - place.begin) / place.span
    begin = place.t - span * share
    return replace(place, span=span, begin=begin.replace(second=0, microsecond=0)).address()


def picture(marks: Marks, place: Place) -> dict[str, Any]:
    """The marks with the range of arrivals that the picture shows, and how many lie outside of it and are not drawn.

    Forecasts arrive before their events, so the picture of theirs begins a window earlier.
    """
    arrivals = [mark["arrival"] for mark in marks.rows]
    top, bottom = place.begin, place.end
    if place.late:
        top, bottom = min([top, *arrivals]), max([bottom, *arrivals])
    elif arrivals and min(arrivals) < top:
        top = max(min(arrivals), top - place.span)
    return {
        "marks": marks.rows,
        "columns": marks.columns,
        "every": marks.every,
        "events": marks.events,
        "top": top,
        "bottom": bottom,
        "outside": sum(not top <= arrival <= bottom for arrival in arrivals),
    }
