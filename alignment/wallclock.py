"""Wall clocks: local days and times of day as UTC instants (R15).

A local time in a gap is the transition instant, a doubled one its first.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.durations import DAY_US, instant_from_us
from alignment.errors import DefinitionError

Instants = npt.NDArray[np.int64]
"""Microseconds from 1970-01-01 UTC; `NULL_US` where there is none."""

NULL_US = np.iinfo(np.int64).min
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def check_zone(zone: str | None, what: str = "zone") -> str | None:
    """`zone`, if it is a name of the IANA database (or None).

    Raises:
        DefinitionError: If no zone has that name.
    """
    if zone is None:
        return None
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise DefinitionError(
            f"{what}={zone!r} is not a zone of the IANA database", f'name a place, e.g. {what}="Europe/Berlin".'
        ) from None
    return zone


def time_of_day_us(text: str, what: str) -> int:
    """Microseconds from local midnight to a time written `HH:MM` or `HH:MM:SS`.

    Raises:
        DefinitionError: If `text` is no time of day.
    """
    match = _TIME_OF_DAY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise DefinitionError(f"{what}={text!r} is not a time of day", f'write it as HH:MM, e.g. {what}="06:00".')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000


def to_local(instants: Instants, zone: str) -> Instants:
    """What a clock on the wall shows: microseconds from 1970-01-01 00:00 local, without zone."""
    series = pl.Series(instants, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    return _physical(series.dt.convert_time_zone(zone).dt.replace_time_zone(None))


def to_instants(local: Instants, zone: str) -> Instants:
    """The instants at which a clock on the wall shows `local`, by the rule at the top of this page."""
    series = pl.Series(local, dtype=pl.Int64).cast(pl.Datetime("us"))
    found = series.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    instants = found.dt.convert_time_zone("UTC").to_physical()
    if instants.null_count() == 0:
        return instants.to_numpy(writable=True)
    result = instants.fill_null(0).to_numpy().copy()
    for row in np.flatnonzero(instants.is_null().to_numpy()):
        result[row] = _gap_transition(int(local[row]), zone)
    return result


def shift_days(instants: Instants, days: int, zone: str) -> Instants:
    """Each instant moved by whole calendar days: the date moves, the time of day stays.

    Results never go back as the instants grow: within the second pass of a doubled hour the result is that of the last
    microsecond of the first pass, where that is later.

    Args:
        instants: UTC microseconds.
        days: How many days; negative goes back.
        zone: IANA zone in which dates and times of day are read.

    Returns:
        UTC microseconds, same shape.

    Example:
        >>> noon = np.array([1_774_767_600_000_000])  # 2026-03-29 09:00 in Berlin, the day clocks go forward
        >>> int((noon - shift_days(noon, -1, "Europe/Berlin"))[0]) // 3_600_000_000
        23
    """
    local = to_local(instants, zone)
    moved = to_instants(local + days * DAY_US, zone)
    first_pass = to_instants(local, zone)
    for row in np.flatnonzero(first_pass != instants):
        end = _fold_transition(int(first_pass[row]), int(instants[row]), zone) - 1
        last = np.array([end], dtype=np.int64)
        moved[row] = max(moved[row], to_instants(to_local(last, zone) + days * DAY_US, zone)[0])
    return moved


def local_midnight(instants: Instants, zone: str) -> Instants:
    """The instant at which the local day of each instant began."""
    local = to_local(instants, zone)
    return to_instants(local - local % DAY_US, zone)


@lru_cache(maxsize=4096)
def _gap_transition(local: int, zone: str) -> int:
    wall = instant_from_us(local).replace(tzinfo=ZoneInfo(zone))
    after = wall.replace(fold=0).astimezone(UTC)
    before = wall.replace(fold=1).astimezone(UTC)
    return _transition(before, after, zone)


@lru_cache(maxsize=4096)
def _fold_transition(first: int, second: int, zone: str) -> int:
    return _transition(instant_from_us(first), instant_from_us(second), zone)


def _transition(before: datetime, after: datetime, zone: str) -> int:
    """The first instant in `(before, after]` that has the UTC offset of `after`."""
    info = ZoneInfo(zone)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    low, high = (before - epoch) // timedelta(microseconds=1), (after - epoch) // timedelta(microseconds=1)
    offset = after.astimezone(info).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if instant_from_us(middle).astimezone(info).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high


def _physical(series: pl.Series) -> Instants:
    return series.to_physical().to_numpy()
