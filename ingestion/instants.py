"""Instants as microseconds, and the one place where the clock is read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ingestion.errors import DefinitionError, NaiveTimeError

Clock = Callable[[], datetime]
"""Something that tells the instant; always with a time zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")


def system_clock() -> datetime:
    """The machine's own idea of now, in UTC."""
    return from_us(time.time_ns() // 1_000)


def to_us(instant: datetime, what: str = "instant") -> int:
    """Microseconds from 1970-01-01 UTC to `instant`.

    Raises:
        NaiveTimeError: If `instant` has no time zone.
    """
    if instant.tzinfo is None or instant.utcoffset() is None:
        raise NaiveTimeError(what, f"{what}={instant.isoformat()}")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_us(value: int) -> datetime:
    """The UTC instant `value` microseconds after 1970-01-01."""
    return _EPOCH + timedelta(microseconds=value)


def duration_us(value: str | timedelta, argument: str) -> int:
    """The length of a duration in microseconds; a day is 24 h.

    Args:
        value: Text such as `"5s"` or `"1h30m"`, or a `timedelta`.
        argument: The argument's name, for the message.

    Raises:
        DefinitionError: If it is not a duration, or negative.

    Example:
        >>> duration_us("1h30m", "clock_tolerance")
        5400000000
    """
    if isinstance(value, timedelta):
        length = value // timedelta(microseconds=1)
    else:
        text = value.strip()
        parts = _PART.findall(text)
        whole = "".join(number + unit for number, unit in parts)
        length = sum(int(number) * _UNITS_US[unit] for number, unit in parts) if parts and whole == text else -1
    if length < 0:
        raise DefinitionError(
            argument,
            f"{argument}={value!r} is not a duration",
            'write a number and a unit (us, ms, s, m, h, d, w), e.g. "5s".',
        )
    return length
