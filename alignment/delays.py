"""Delay rules: when rows without a measured arrival are taken to have arrived (R13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl

from alignment.durations import DAY_US, Duration, DurationLike, parse_duration
from alignment.errors import ColumnTypeError, DefinitionError, MissingColumnError, NaiveTimeError
from alignment.wallclock import check_zone, time_of_day_us, to_instants, to_local

_INSTANT = pl.Datetime("us", "UTC")
_FRAME = "the frame that delays are applied to"


@runtime_checkable
class DelayRule(Protocol):
    """What gives arrivals to rows that have none."""

    @property
    def arrival_kind(self) -> str:
        """`declared` or `modelled`: how rows stamped by this rule are marked."""

    def arrival_times(self, frame: pl.DataFrame) -> pl.Series:
        """One arrival per row of `frame`, Datetime("us", "UTC").

        Args:
            frame: Columns `event_time` and, for forecasts, `issue_time`; Datetime("us", "UTC"). Where arrivals are known and are
                to be others (R23), `arrival_time` as well; and the entity and key columns.
        """


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """Every row arrives a fixed time after its event; a forecast after its issue.

    Args:
        delay: How long after; not negative.

    Raises:
        DurationError: If `delay` is not a duration.

    Example:
        >>> from datetime import UTC, datetime
        >>> frame = pl.DataFrame({"event_time": [datetime(2026, 1, 1, 12, tzinfo=UTC)]})
        >>> FixedDelay("45m").arrival_times(frame).dt.to_string("%H:%M").to_list()
        ['12:45']
    """

    delay: DurationLike
    arrival_kind: str = field(default="declared", init=False)

    def __post_init__(self) -> None:
        parse_duration(self.delay, "delay", allow_zero=True)

    @property
    def duration(self) -> Duration:
        """The delay, parsed."""
        return parse_duration(self.delay, "delay", allow_zero=True)

    def arrival_times(self, frame: pl.DataFrame) -> pl.Series:
        """See `DelayRule.arrival_times`."""
        return _as_instants(origin_of(frame).to_physical() + self.duration.total_us)


@dataclass(frozen=True, slots=True)
class PublishSchedule:
    """Rows arrive at a time of day, some days after (or before) the local day of their event, or of their issue.

    The day is that of `event_time` (or `issue_time`) in `zone`, plus `days`. Where it is not a working day, the next working day is
    taken. A time of day in a gap is the transition instant, a doubled one its first (R15).

    Args:
        at: Local time of day, `HH:MM` or `HH:MM:SS`.
        zone: IANA zone of the provider.
        days: Days from the event's local day to the publication's; negative for day-ahead forecasts.
        weekdays: Days on which it publishes, 1 = Monday to 7 = Sunday.
        holidays: Local dates on which it does not.
        day_of: Whose day counts: that of the `"event"`, or of a forecast's `"issue"`.

    Raises:
        DefinitionError: If a time, zone or weekday is none, or `day_of` is unknown.

    Example:
        >>> from datetime import UTC, datetime
        >>> frame = pl.DataFrame({"event_time": [datetime(2018, 3, 25, tzinfo=UTC)]})
        >>> PublishSchedule("12:00", "Europe/Amsterdam", days=-1).arrival_times(frame).dt.to_string(
        ...     "%d %H:%M"
        ... ).to_list()
        ['24 11:00']
    """

    at: str
    zone: str
    days: int = 1
    weekdays: Sequence[int] = (1, 2, 3, 4, 5, 6, 7)
    holidays: Sequence[date] = ()
    day_of: Literal["event", "issue"] = "event"
    arrival_kind: str = field(default="declared", init=False)

    def __post_init__(self) -> None:
        check_zone(self.zone)
        time_of_day_us(self.at, "at")
        if not self.weekdays or not set(self.weekdays) <= set(range(1, 8)):
            raise DefinitionError(
                f"weekdays={self.weekdays!r} are not days of the week",
                "1 is Monday, 7 is Sunday, e.g. weekdays=range(1, 6).",
            )
        if self.day_of not in ("event", "issue"):
            raise DefinitionError(f"day_of={self.day_of!r} is unknown", 'choose "event" or "issue".')

    def arrival_times(self, frame: pl.DataFrame) -> pl.Series:
        """See `DelayRule.arrival_times`."""
        events = (_instants(frame, "event_time") if self.day_of == "event" else origin_of(frame)).to_physical()
        known = events.fill_null(0).to_numpy()
        day = to_local(known, self.zone) // DAY_US + self.days
        mask = "".join("1" if weekday in self.weekdays else "0" for weekday in range(1, 8))
        day = np.busday_offset(
            day.astype("datetime64[D]"),
            0,
            roll="forward",
            weekmask=mask,
            holidays=[np.datetime64(d) for d in self.holidays],
        ).astype(np.int64)
        instants = to_instants(day * DAY_US + time_of_day_us(self.at, "at"), self.zone)
        return _as_instants(pl.select(pl.when(events.is_not_null()).then(pl.Series(instants))).to_series())


@dataclass(frozen=True, slots=True)
class ShiftedDelay:
    """Every row arrives a fixed time later, or earlier, than it did; a measurement never before its event.

    For rows whose arrival is known: `transform_arrivals`, replay, what-if questions.

    Args:
        by: How much later; negative for earlier.

    Raises:
        DurationError: If `by` is not a duration.

    Example:
        >>> from datetime import UTC, datetime
        >>> frame = pl.DataFrame({"arrival_time": [datetime(2026, 1, 1, 12, 40, tzinfo=UTC)]})
        >>> ShiftedDelay("-15m").arrival_times(frame).dt.to_string("%H:%M").to_list()
        ['12:25']
    """

    by: DurationLike
    arrival_kind: str = field(default="modelled", init=False)

    def __post_init__(self) -> None:
        parse_duration(self.by, "by", allow_zero=True, allow_negative=True)

    @property
    def duration(self) -> Duration:
        """The shift, parsed."""
        return parse_duration(self.by, "by", allow_zero=True, allow_negative=True)

    def arrival_times(self, frame: pl.DataFrame) -> pl.Series:
        """See `DelayRule.arrival_times`; `frame` has the known `arrival_time`.

        Raises:
            DefinitionError: If the arrivals are not known.
        """
        if "arrival_time" not in frame.columns:
            raise DefinitionError(
                "a shift needs the arrivals that it shifts, and they are unknown", 'e.g. al.FixedDelay("45m").'
            )
        return _as_instants(frame["arrival_time"].to_physical() + self.duration.total_us)


def origin_of(frame: pl.DataFrame) -> pl.Series:
    """From when the delay of each row counts: its issue, or where it has none its event (Datetime("us")).

    Raises:
        MissingColumnError: If there is no `event_time`.
        NaiveTimeError: If they have no zone.
        ColumnTypeError: If they are no times.
    """
    events = _instants(frame, "event_time")
    if "issue_time" not in frame.columns:
        return events
    return _instants(frame, "issue_time").zip_with(frame["issue_time"].is_not_null(), events)


def _instants(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise MissingColumnError(name, _FRAME, frame.columns)
    column, kind = frame[name], frame.schema[name]
    if kind == pl.Null:
        return column.cast(_INSTANT)
    if not isinstance(kind, pl.Datetime):
        raise ColumnTypeError(
            f"{_FRAME}: {name!r} is {kind}, not an instant", f'pass instants, e.g. pl.col("{name}").str.to_datetime().'
        )
    if kind.time_zone is None:
        raise NaiveTimeError(name, _FRAME)
    return column.cast(_INSTANT)


def _as_instants(microseconds: pl.Series) -> pl.Series:
    return microseconds.cast(_INSTANT).alias("arrival_time")
