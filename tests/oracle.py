"""The rules of time as plain Python loops, never optimised: what every engine is compared with.

Read it beside the rules R1-R23 of the design. Instants are integers (microseconds UTC), rows are dictionaries, and one
call answers one feature at one (entity, t, as_of, position). Frames become rows in `oracle_frames.py`.

A row has the keys `entity` (a tuple), `event`, `arrival`, `given` (the arrival before R5 raised it), `issue`, `gone`
(is_retraction), `sequence` (log_sequence, 0 without one), `place` (in the frame, where `on_tie="last"` asks for it, else
0), `id` (a tuple or None) and `values` (a dict).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from oracle_clock import HOUR, NOTHING, Span, grid, move

Row = dict[str, Any]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class View:
    """What the rules need to know of a view."""

    kind: str = "measurement"
    zone: str | None = None
    max_event_age: Span | None = None
    max_arrival_age: Span | None = None
    max_issue_age: Span | None = None
    column_since: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Feature:
    """One declared feature, one output column; `what` names the rule."""

    what: str  # latest, lag, window, sequence, forecast, event_age, arrival_age, issue_age
    name: str
    column: str | None = None
    dtype: str = "float"  # float, int, bool, other: decides the arithmetic of `sum` and what NaN means
    skip_null: bool = False
    max_event_age: Span | None = None
    max_arrival_age: Span | None = None
    max_issue_age: Span | None = None
    by: Span = NOTHING
    tolerance: Span | None = None
    aggregate: str = ""
    length: Span = NOTHING
    offset: Span = NOTHING
    slots: int = 0
    step: Span | None = None
    max_span: Span | None = None
    lead: Span = NOTHING
    min_notice: Span | None = None


@dataclass(frozen=True)
class Answer:
    """A value and its status (R20)."""

    value: Any
    status: str


# --- R1: which rows count -------------------------------------------------------------------------------------------


def counting(rows: Sequence[Row], t: int, as_of: int | None = None, position: int | None = None) -> list[Row]:
    """R1: a row counts at (t, p) iff `log_sequence <= p` and `arrival_time <= min(t, as_of)`; inclusive."""
    known = []
    for row in rows:
        if position is not None and row["sequence"] > position:
            continue
        if row["arrival"] > t:
            continue
        if as_of is not None and row["arrival"] > as_of:
            continue
        known.append(row)
    return known


# --- R2, R3, R4: from rows to current events ------------------------------------------------------------------------


def revision_order(row: Row) -> tuple[Any, ...]:
    """R2: revisions of one key are ordered by (arrival_time, log_sequence); without one, R5 keeps the order they had."""
    return (row["arrival"], row["sequence"], row["given"], row["place"])


def event_order(row: Row) -> tuple[Any, ...]:
    """R4: wherever events are ordered; ids decide only where a frame has no log_sequence."""
    return (row["event"], row["arrival"], row["sequence"], row["given"], row["id"] or ())


def subject(row: Row) -> Any:
    """R4: what a row is about: its declared id, or else its event."""
    return row["id"] if row["id"] is not None else row["event"]


def current(rows: Sequence[Row], kind: str) -> tuple[list[Row], list[Row]]:
    """R2, R3: the current events in the order of R4, and the last row of each key that is withdrawn by a retraction."""
    last: dict[Any, Row] = {}
    withdrawn: dict[Any, bool] = {}
    for row in sorted(rows, key=revision_order):
        key = (subject(row), row["issue"])
        if not row["gone"]:
            last[key] = row  # the whole row is replaced; null is a value
            withdrawn[key] = False
        elif kind == "forecast" and row["issue"] is None:
            for known in last:  # R3: without issue_time all issues of that event before it
                if known[0] == subject(row):
                    withdrawn[known] = True
        elif key in last:
            withdrawn[key] = True
        # else R3: a retraction of an unknown key changes nothing

    events: dict[Any, Row] = {}
    for key, row in last.items():
        about = key[0]
        if withdrawn[key]:
            continue
        if about not in events or row["issue"] > events[about]["issue"]:
            events[about] = row  # R2: of a forecast event the present row of its greatest issue_time
    gone = [last[key] for key in last if withdrawn[key]]
    return sorted(events.values(), key=event_order), gone


# --- R6 - R11: features ---------------------------------------------------------------------------------------------


def answer(
    rows: Sequence[Row],
    view: View,
    feature: Feature,
    entity: tuple[Any, ...],
    t: int,
    *,
    as_of: int | None = None,
    position: int | None = None,
) -> Answer:
    """The value and status of one feature for one entity at one prediction time."""
    mine = [row for row in rows if row["entity"] == entity]
    known = counting(mine, t, as_of, position)
    if feature.what == "forecast":
        return forecast(known, view, feature, t)
    events, gone = current(known, view.kind)
    if feature.what == "latest":
        return latest(events, gone, view, feature, t)
    if feature.what in ("event_age", "arrival_age", "issue_age"):
        return age(events, gone, feature, t)
    if feature.what == "lag":
        return lag(events, gone, view, feature, t)
    if feature.what == "window":
        return window(events, gone, view, feature, t)
    if feature.what == "sequence" and feature.step is None:
        return sequence(events, gone, view, feature, t)
    if feature.what == "sequence":
        return sequence_on_grid(events, gone, view, feature, t)
    raise AssertionError(feature.what)


def between(rows: Sequence[Row], low: int | None, high: int, *, low_counts: bool) -> list[Row]:
    """Rows with an event in `(low, high]`, or `[low, high]` with `low_counts`; `low=None` has no lower end."""
    inside = []
    for row in rows:
        if row["event"] > high:
            continue
        if low is not None and (row["event"] < low or (row["event"] == low and not low_counts)):
            continue
        inside.append(row)
    return inside


def nothing(gone: Sequence[Row], value: Any = None) -> Answer:
    """R3, R20: no event in the range is `retracted` if a withdrawn key lies there, else `missing`."""
    return Answer(value, "retracted" if gone else "missing")


def picked(row: Row, view: View, column: str) -> Answer:
    """The value of one row, `null` apart from `present`; a row from before the column existed is `missing`."""
    if row["sequence"] < view.column_since.get(column, row["sequence"]):
        return Answer(None, "missing")
    value = row["values"][column]
    return Answer(value, "null" if value is None else "present")


def newest(events: Sequence[Row], column: str | None, *, skip_null: bool) -> Row | None:
    """R6: the last event in order, or with `skip_null` the last one whose value is not null."""
    found = None
    for row in events:
        if skip_null and row["values"][column] is None:
            continue
        found = row
    return found


def too_old(row: Row, view: View, feature: Feature, t: int) -> bool:
    """R7: judged on the one row that was picked; exactly the limit is kept."""
    for instant, limit in (
        (row["event"], feature.max_event_age),
        (row["arrival"], feature.max_arrival_age),
        (row["issue"], feature.max_issue_age),
    ):
        if limit is not None and instant < move(t, -limit, view.zone):
            return True
    return False


def latest(events: list[Row], gone: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R6, R7: the current event with the greatest event_time <= t, null when it is too old."""
    assert feature.column is not None
    inside = between(events, None, t, low_counts=True)
    if not inside:
        return nothing(between(gone, None, t, low_counts=True))
    row = newest(inside, feature.column, skip_null=feature.skip_null)
    if row is None:
        return Answer(None, "null")  # events were there, none with a value
    if too_old(row, view, feature, t):
        return Answer(None, "expired")
    return picked(row, view, feature.column)


def age(events: list[Row], gone: list[Row], feature: Feature, t: int) -> Answer:
    """R7: t minus an instant of the row that `latest` over all columns picks, reported even when expired."""
    inside = between(events, None, t, low_counts=True)
    if not inside:
        return nothing(between(gone, None, t, low_counts=True))
    instant = inside[-1][feature.what.removesuffix("_age")]
    return Answer(t - instant, "present")


def lag(events: list[Row], gone: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R9: as latest, at or before `t - by` and not before `t - by - tolerance`; the revision is the one current at t."""
    assert feature.column is not None
    high = move(t, -feature.by, view.zone)
    low = None if feature.tolerance is None else move(t, -(feature.by + feature.tolerance), view.zone)
    inside = between(events, low, high, low_counts=True)
    if not inside:
        return nothing(between(gone, low, high, low_counts=True))
    row = newest(inside, feature.column, skip_null=feature.skip_null)
    if row is None:
        return Answer(None, "null")
    return picked(row, view, feature.column)


def forecast(known: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R10: first the event, the greatest in `[t+lead-tolerance, t+lead]` that a present issue has; then the newest issue."""
    assert feature.column is not None
    tolerance = feature.tolerance or NOTHING
    high = move(t, feature.lead, view.zone)
    low = move(t, feature.lead + -tolerance, view.zone)
    noticed = []
    for row in known:  # R10: min_notice counts rows before anything is chosen
        if feature.min_notice is None or row["arrival"] <= move(row["event"], -feature.min_notice, view.zone):
            noticed.append(row)
    events, gone = current(noticed, "forecast")
    inside = between(events, low, high, low_counts=True)
    if not inside:
        return nothing(between(gone, low, high, low_counts=True))
    row = newest(inside, feature.column, skip_null=feature.skip_null)
    if row is None:
        return Answer(None, "null")
    if too_old(row, view, feature, t):
        return Answer(None, "expired")
    return picked(row, view, feature.column)


def sequence(events: list[Row], gone: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R11: the last `length` current events, oldest first, left-padded with null: of nothing, all of it."""
    assert feature.column is not None
    low = None if feature.max_span is None else move(t, -feature.max_span, view.zone)
    inside = between(events, low, t, low_counts=False)
    if not inside:
        return nothing(between(gone, low, t, low_counts=False), [None] * feature.slots)
    last = [row["values"][feature.column] for row in inside[-feature.slots :]]
    return Answer([None] * (feature.slots - len(last)) + last, "present")


def sequence_on_grid(events: list[Row], gone: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R11: slot g holds the last current event in `(g - step, g]`, or null."""
    assert feature.column is not None
    assert feature.step is not None
    points = grid(t, feature.step, feature.slots, view.zone)
    floor = points[0] if feature.max_span is None else max(points[0], move(t, -feature.max_span, view.zone))
    values = []
    for previous, point in pairwise(points):
        slot = between(events, max(previous, floor), point, low_counts=False)
        values.append(slot[-1]["values"][feature.column] if slot else None)
    if not between(events, floor, points[-1], low_counts=False):
        return nothing(between(gone, floor, points[-1], low_counts=False), [None] * feature.slots)
    return Answer(values, "present")


# --- R8: windows ----------------------------------------------------------------------------------------------------


def window(events: list[Row], gone: list[Row], view: View, feature: Feature, t: int) -> Answer:
    """R8: the current events with event_time in `(t-offset-length, t-offset]`."""
    low, high = window_range(view, feature, t)
    inside = between(events, low, high, low_counts=False)
    empty = 0 if feature.aggregate == "count" else None
    if not inside:
        return nothing(between(gone, low, high, low_counts=False), empty)
    instants, values = window_values(inside, feature)
    if not values:
        return Answer(empty, "null")
    value = aggregate(feature.aggregate, values, instants, feature.dtype)
    return Answer(value, "null" if value is None else "present")  # one value has no spread: events, but no result


def window_range(view: View, feature: Feature, t: int) -> tuple[int, int]:
    """R8: `(t-offset-length, t-offset]`."""
    return move(t, -(feature.offset + feature.length), view.zone), move(t, -feature.offset, view.zone)


def window_values(inside: Sequence[Row], feature: Feature) -> tuple[list[int], list[Any]]:
    """R8: nulls are skipped."""
    assert feature.column is not None
    instants, values = [], []
    for row in inside:
        if row["values"][feature.column] is not None:
            instants.append(row["event"])
            values.append(row["values"][feature.column])
    return instants, values


def aggregate(name: str, values: list[Any], instants: list[int], dtype: str) -> Any:
    """R8: one aggregate of the non-null values of a window, in the order of R4; rounding depends on them alone."""
    if name == "count":
        return len(values)
    if dtype == "float" and any(math.isnan(value) for value in values):
        return math.nan
    if name == "first":
        return values[0]
    if name == "last":
        return values[-1]
    if name == "min":
        return extreme(values, smallest=True)
    if name == "max":
        return extreme(values, smallest=False)
    if name == "sum" and dtype in ("int", "bool"):
        return integer_sum(values)
    if name == "sum":
        return float_sum(values)
    if name == "mean":
        return mean(values)
    if name == "var":
        return variance(values)
    if name == "std":
        spread = variance(values)
        return None if spread is None else math.nan if math.isnan(spread) else math.sqrt(spread)
    if name == "median":
        return quantile(values, 0.5)
    if name == "slope":
        return slope(values, instants)
    assert name.startswith("q")
    return quantile(values, float(name[1:]) / 100)


def extreme(values: list[Any], *, smallest: bool) -> Any:
    """Left to right with < and >: of equal values (0.0 and -0.0) the first wins."""
    best = values[0]
    for value in values[1:]:
        if (value < best) if smallest else (value > best):
            best = value
    return best


def integer_sum(values: list[Any]) -> int:
    """R8: integers sum in int64; a sum that does not fit is an error."""
    total = 0
    for value in values:
        total += int(value)
    if not INT64_MIN <= total <= INT64_MAX:
        raise OverflowError(total)
    return total


def float_sum(values: list[Any]) -> float:
    """R8: left-to-right float64."""
    total = 0.0
    for value in values:
        total += float(value)
    return total


def mean(values: list[Any]) -> float:
    """The left-to-right sum over the count."""
    return float_sum(values) / len(values)


def variance(values: list[Any]) -> float | None:
    """R8: ddof 1, two passes."""
    if len(values) < 2:
        return None
    centre = mean(values)
    total = 0.0
    for value in values:
        total += (float(value) - centre) * (float(value) - centre)
    return total / (len(values) - 1)


def quantile(values: list[Any], q: float) -> float:
    """R8: quantiles interpolate linearly; sorted stably, so that 0.0 and -0.0 keep their order.

    Beside or between equal infinities it is that infinity; between -inf and inf NaN.
    """
    ordered = sorted(float(value) for value in values)
    place = (len(ordered) - 1) * q
    low = math.floor(place)
    fraction = place - low
    if fraction == 0:
        return ordered[low]
    gap = ordered[low + 1] - ordered[low]
    if not math.isfinite(gap):
        return ordered[low] * (1.0 - fraction) + ordered[low + 1] * fraction
    return ordered[low] + gap * fraction


def slope(values: list[Any], instants: list[int]) -> float | None:
    """R8: least squares per hour, hours since the first value."""
    if len(values) < 2 or len(set(instants)) < 2:
        return None
    hours = [float(instant - instants[0]) / float(HOUR) for instant in instants]
    middle_x, middle_y = mean(hours), mean(values)
    sxy = sxx = 0.0
    for x, y in zip(hours, values, strict=True):
        sxy += (x - middle_x) * (float(y) - middle_y)
        sxx += (x - middle_x) * (x - middle_x)
    return sxy / sxx


# --- snapshot and labels --------------------------------------------------------------------------------------------


def snapshot(rows: Sequence[Row], kind: str, as_of: int, position: int | None = None) -> list[Row]:
    """One row per (entity, event) as known at `as_of`, ordered by entity and then as in R4."""
    found: list[Row] = []
    for entity in sorted({row["entity"] for row in rows}):
        mine = [row for row in rows if row["entity"] == entity]
        found += current(counting(mine, as_of, None, position), kind)[0]
    return found


@dataclass(frozen=True)
class Label:
    """R12: a label with the instants of its event and of its arrival, or nothing."""

    value: Any = None
    event: int | None = None
    arrival: int | None = None


def label(
    rows: Sequence[Row],
    view: View,
    column: str,
    entity: tuple[Any, ...],
    t: int,
    *,
    horizon: Span,
    tolerance: Span = NOTHING,
    release: str | Span = "final",
    as_of: int,
    position: int | None = None,
    trained_at: int | None = None,
) -> Label:
    """R12: the greatest event in `[t+horizon-tolerance, t+horizon]`, in the revision that `release` names."""
    high = move(t, horizon, view.zone)
    low = move(t, horizon + -tolerance, view.zone)
    mine = counting([row for row in rows if row["entity"] == entity], as_of, None, position)
    if release == "as_known":
        assert trained_at is not None
        mine = counting(mine, trained_at)
    if release in ("final", "as_known"):
        candidates = [(row, row["arrival"]) for row in current(mine, view.kind)[0]]
    elif release == "first":
        candidates = [(row, row["arrival"]) for row in first_revisions(mine)]
    else:
        candidates = released_after(mine, view, release, as_of)
    best = Label()
    for row, arrival in sorted(candidates, key=lambda pair: event_order(pair[0])):
        if low <= row["event"] <= high:
            best = Label(row["values"][column], row["event"], arrival)
    return best


def first_revisions(rows: Sequence[Row]) -> list[Row]:
    """R12 `first`: the first non-retraction revision of each key, whatever came later."""
    first: dict[Any, Row] = {}
    for row in sorted(rows, key=revision_order):
        if not row["gone"]:
            first.setdefault(subject(row), row)
    return list(first.values())


def released_after(rows: Sequence[Row], view: View, wait: Any, as_of: int) -> list[tuple[Row, int]]:
    """R12 duration d: the revision current at `event_time + d`, known then; not yet a label if that is after as_of."""
    found = []
    for event in sorted({row["event"] for row in rows if row["event"] is not None}):
        due = move(event, wait, view.zone)
        if due > as_of:
            continue
        for row in current(counting(rows, due), view.kind)[0]:
            if row["event"] == event:
                found.append((row, due))
    return found
