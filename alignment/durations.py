"""Durations: how they are written, and what a day means in a zone (R15)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from alignment.errors import DefinitionError, DurationError, NaiveTimeError

UNITS_US: dict[str, int] = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
DAY_US = UNITS_US["d"]
HOUR_US = UNITS_US["h"]
_PART = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")

DurationLike = str | timedelta


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, with the text it was written as.

    Attributes:
        text: As written; features are named after it.
        days: Whole days (of `d` and `w`); calendar days where a zone is named, else 24 h each.
        elapsed_us: The rest, in microseconds of elapsed time.
    """

    text: str
    days: int
    elapsed_us: int

    @property
    def total_us(self) -> int:
        """All of it in microseconds, a day being 24 h."""
        return self.days * DAY_US + self.elapsed_us


ZERO = Duration("0s", 0, 0)


def parse_duration(
    value: DurationLike | Duration,
    what: str,
    *,
    allow_zero: bool = False,
    allow_negative: bool = False,
) -> Duration:
    """The duration that `value` means.

    Units are us, ms, s, m, h, d, w; parts may be joined (`"1h30m"`); a leading minus is read where
    `allow_negative`. A `timedelta` is named by the largest unit that divides it.

    Args:
        value: Text such as `"10m"`, or a `datetime.timedelta`.
        what: The argument's name, for the message.
        allow_zero: Accept a length of nothing.
        allow_negative: Accept a length below nothing.

    Returns:
        The parsed duration.

    Raises:
        DurationError: If it is not a duration, or of the wrong sign.

    Example:
        >>> parse_duration("1h30m", "length").total_us
        5400000000
        >>> from datetime import timedelta
        >>> parse_duration(timedelta(minutes=90), "length").text
        '90m'
    """
    if isinstance(value, Duration):
        return value
    if isinstance(value, timedelta):
        value = _text_of(value)
    if not isinstance(value, str):
        raise DurationError(
            f"{what}={value!r} is not a duration",
            'write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m", or pass a datetime.timedelta.',
        )
    text = value.strip()
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if sign < 0 else text
    parts = _PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise DurationError(
            f"{what}={value!r} is not a duration",
            'write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m" or "1h30m".',
        )
    days = sum(int(number) * (7 if unit == "w" else 1) for number, unit in parts if unit in "dw")
    elapsed = sum(int(number) * UNITS_US[unit] for number, unit in parts if unit not in "dw")
    duration = Duration(text, sign * days, sign * elapsed)
    if duration.total_us == 0 and not allow_zero:
        raise DurationError(f"{what}={value!r} is nothing", f'{what} must be longer than nothing, e.g. "10m".')
    if duration.total_us < 0 and not allow_negative:
        raise DurationError(f"{what}={value!r} is negative", f'{what} counts from zero up, e.g. "{body}".')
    if abs(duration.total_us) >= 1 << 61:
        raise DurationError(f"{what}={value!r} is too long", "the longest duration is about 73,000 years.")
    return duration


def _text_of(value: timedelta) -> str:
    total = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    if total == 0:
        return "0s"
    unit = next(unit for unit in reversed(UNITS_US) if total % UNITS_US[unit] == 0)
    return f"{total // UNITS_US[unit]}{unit}"


def instant_us(value: datetime, what: str) -> int:
    """Microseconds from 1970-01-01 UTC to `value`.

    Raises:
        DefinitionError: If `value` is no datetime.
        NaiveTimeError: If it has no time zone.
    """
    if not isinstance(value, datetime):
        raise DefinitionError(
            f"{what}={value!r} is not an instant",
            f"pass a datetime with a zone, e.g. {what}=datetime(2026, 1, 1, tzinfo=UTC).",
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise NaiveTimeError(
            what,
            f"{what}={value!r}",
            f"pass a datetime with a zone, e.g. datetime(2026, 1, 1, tzinfo=UTC) for {what}.",
        )
    return (value - _EPOCH) // _MICROSECOND


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
"""The first and the last instant that Python can write; a delay may lead beyond it."""


def instant_from_us(value: int) -> datetime:
    """The UTC instant `value` microseconds after 1970-01-01.

    Raises:
        DefinitionError: If it lies outside of the years 1 to 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError as error:
        raise DefinitionError(
            f"the instant {value} microseconds after 1970-01-01 is outside of the years 1 to 9999",
            "shorten the delay or duration that leads there.",
        ) from error


def nearest_instant(value: int) -> datetime:
    """The UTC instant `value` microseconds after 1970-01-01; `EARLIEST` or `LATEST` if it lies beyond.

    Example:
        >>> nearest_instant(0).year, nearest_instant(1 << 62) == LATEST
        (1970, True)
    """
    return _EPOCH + timedelta(microseconds=min(max(value, _EARLIEST_US), _LATEST_US))


_EARLIEST_US, _LATEST_US = instant_us(EARLIEST, "EARLIEST"), instant_us(LATEST, "LATEST")
