"""Wall clocks and durations of the oracle, as plain loops over `zoneinfo` (rules R11 and R15).

Instants are integers, microseconds since 1970-01-01 UTC. Nothing here is shared with the product: the product converts whole
columns with Polars, the oracle one instant at a time with the standard library, so a mistake of either shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

UNITS = {"us": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """A duration: whole calendar days (only in a view with a zone) and elapsed microseconds."""

    days: int = 0
    micros: int = 0

    def __neg__(self) -> Span:
        return Span(-self.days, -self.micros)

    def __add__(self, other: Span) -> Span:
        return Span(self.days + other.days, self.micros + other.micros)


NOTHING = Span()


def span(duration: str | timedelta, zone: str | None) -> Span:
    """R15: us ms s m h d w; d and w are 24 h multiples, with a zone they are calendar days there."""
    if isinstance(duration, timedelta):
        micros = duration // timedelta(microseconds=1)
        if zone is not None and micros % DAY == 0:  # named by the largest unit that divides it, so "1d" and not "24h"
            return Span(days=micros // DAY)
        return Span(micros=micros)
    sign = -1 if duration.startswith("-") else 1
    days = micros = 0
    for number, unit in re.findall(r"(\d+)(us|ms|s|m|h|d|w)", duration):
        if zone is not None and unit in ("d", "w"):
            days += int(number) * UNITS[unit] // DAY
        else:
            micros += int(number) * UNITS[unit]
    return Span(sign * days, sign * micros)


def micros_of(instant: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, without a float on the way."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def datetime_of(micros: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return EPOCH + timedelta(microseconds=micros)


def local_of(instant: int, zone: str) -> datetime:
    """What a clock on the wall in `zone` shows: a naive datetime, `fold=1` in the second pass of a doubled hour."""
    return datetime_of(instant).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def instant_of(wall: datetime, zone: str) -> int:
    """R15: the instant of a local time; in a gap the transition instant, of a doubled one the first."""
    first = micros_of(wall.replace(tzinfo=ZoneInfo(zone), fold=0))
    if local_of(first, zone).replace(fold=0) == wall.replace(fold=0):
        return first
    second = micros_of(wall.replace(tzinfo=ZoneInfo(zone), fold=1))
    low, high = min(first, second), max(first, second)  # the transition lies in (low, high]
    before = offset_of(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_of(middle, zone) == before:
            low = middle
        else:
            high = middle
    return high


def offset_of(instant: int, zone: str) -> timedelta:
    """Local time minus UTC at an instant."""
    return local_of(instant, zone) - datetime_of(instant).replace(tzinfo=None)


def end_of_first_pass(instant: int, zone: str) -> int:
    """The last microsecond of the first pass of the doubled hour whose second pass holds `instant`."""
    low, high = instant - 12 * HOUR, instant  # the clock went back once in between
    before = offset_of(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_of(middle, zone) == before:
            low = middle
        else:
            high = middle
    return low


def move(instant: int, by: Span, zone: str | None) -> int:
    """R15: `instant + by`: move the local date and keep the time of day, then add what is elapsed time.

    A bound never goes back as t grows: in the second pass of a doubled hour it stays where the first pass ended.
    """
    if by.days != 0:
        assert zone is not None
        if local_of(instant, zone).fold == 1:
            instant = end_of_first_pass(instant, zone)
        instant = instant_of(local_of(instant, zone).replace(fold=0) + timedelta(days=by.days), zone)
    return instant + by.micros


def grid(t: int, step: Span, slots: int, zone: str | None) -> list[int]:
    """R11: the last `slots + 1` grid points, ending at the last one <= t, oldest first (slot g is `(g - 1, g]`)."""
    points: list[int] = []
    point = last_grid_point(t, step, zone)
    while len(points) < slots + 1:
        points.append(point)
        point = last_grid_point(point - 1, step, zone)
    return points[::-1]


def last_grid_point(t: int, step: Span, zone: str | None) -> int:
    """R11: multiples of step from 1970-01-01 UTC, or from local midnight if the view names a zone."""
    if zone is None:
        return t // step.micros * step.micros
    day = local_of(t, zone).date()
    while midnight(day + timedelta(days=1), zone) <= t:  # clocks that go back across midnight show the old date again
        day += timedelta(days=1)
    while step.days and (day - date(1970, 1, 1)).days % step.days != 0:
        day -= timedelta(days=1)
    begin = midnight(day, zone)
    if step.days:
        return begin
    return begin + (t - begin) // step.micros * step.micros


def midnight(day: date, zone: str) -> int:
    """The instant at which a local day begins."""
    return instant_of(datetime.combine(day, time()), zone)
