"""Spines: what is asked, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from alignment.durations import DAY_US, Duration, DurationLike, instant_us, parse_duration
from alignment.errors import ColumnTypeError, DefinitionError, MissingColumnError, NaiveTimeError, NullTimeError
from alignment.observations import FrameLike, as_lazy
from alignment.wallclock import Instants, check_zone, time_of_day_us, to_instants, to_local

PREDICTION_TIME = "prediction_time"
_PLACE = "the spine"
_MOST_TICKS = 1 << 30


@dataclass(frozen=True, slots=True)
class Spine:
    """A checked spine.

    Attributes:
        frame: The rows as given.
        t: Prediction times, UTC microseconds (nanoseconds are cut off).
    """

    frame: pl.DataFrame
    t: Instants


def check_spine(spine: FrameLike, entities: Iterable[str], prediction_time: str) -> Spine:
    """The spine in memory, with its prediction times.

    Args:
        spine: Entity columns and the prediction time column; Polars, Arrow, pandas, or a Parquet path.
        entities: Columns that must be there.
        prediction_time: Column of the instants at which the model is asked; Datetime with zone.

    Raises:
        MissingColumnError: If a column is not there.
        NaiveTimeError: If the prediction time has no zone.
        ColumnTypeError: If it is no instant.
        NullTimeError: If it is null (R21).
    """
    frame = as_lazy(spine, _PLACE).collect()
    if prediction_time not in frame.columns:
        raise MissingColumnError(prediction_time, _PLACE, frame.columns, argument="prediction_time")
    for name in entities:
        if name not in frame.columns:
            raise MissingColumnError(name, _PLACE, frame.columns)
    kind = frame.schema[prediction_time]
    if not isinstance(kind, pl.Datetime):
        raise ColumnTypeError(
            f"{_PLACE}: {prediction_time!r} is {kind}, not an instant",
            'it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
        )
    if kind.time_zone is None:
        raise NaiveTimeError(prediction_time, _PLACE)
    series = frame[prediction_time]
    if series.null_count():
        row = int(series.is_null().arg_max() or 0)
        raise NullTimeError(
            f"{_PLACE}: {prediction_time!r} is null in {series.null_count()} rows, first in row {row}",
            f'drop them, e.g. spine.drop_nulls("{prediction_time}").',
        )
    physical = series.to_physical().to_numpy()
    t = physical // 1000 if kind.time_unit == "ns" else physical * 1000 if kind.time_unit == "ms" else physical
    return Spine(frame, np.ascontiguousarray(t))


def make_spine(
    entities: FrameLike | Sequence[Any] | Mapping[str, Sequence[Any]],
    start: datetime,
    end: datetime,
    every: DurationLike | Sequence[str],
    zone: str | None = None,
    *,
    entity: str = "entity",
    prediction_time: str = PREDICTION_TIME,
) -> pl.DataFrame:
    """Entities times a schedule: one row per entity and instant in `[start, end)`.

    Args:
        entities: A frame of entity columns, a mapping of column to values (read row by row), a list of mappings, or a list
            of values for the one column `entity`.
        start: First instant, with zone.
        end: The instant before which the schedule stops.
        every: Time between instants. In `d` and `w` with a zone: calendar days at the local time of `start` (R15). Or times of
            day on the wall clock of `zone`, e.g. `["06:00", "18:00"]`.
        zone: IANA zone of the schedule.
        entity: Name of the entity column where `entities` is a list of values.
        prediction_time: Name of the instant column.

    Returns:
        Entity columns, then `prediction_time` (Datetime("us", "UTC")); entity by entity, instants ascending.

    Raises:
        NaiveTimeError: If `start` or `end` has no zone.
        DurationError: If `every` is not a duration.
        DefinitionError: If `end` is before `start`, entities are given twice, or times of day have no zone.

    Example:
        >>> from datetime import UTC, datetime
        >>> make_spine(
        ...     {"station": ["a", "b"]}, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC), "30m"
        ... ).shape
        (4, 2)
    """
    instants = schedule(start, end, every, zone)
    ticks = pl.DataFrame({prediction_time: pl.Series(instants, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))})
    frame = entity_frame(entities, entity)
    if not frame.width:
        return ticks
    return frame.join(ticks, how="cross", maintain_order="left_right")


def schedule(start: datetime, end: datetime, every: DurationLike | Sequence[str], zone: str | None) -> Instants:
    """The instants of a schedule in `[start, end)`, ascending, each once; microseconds.

    Args:
        start: First instant that may be one.
        end: The instant before which it stops.
        every: Time between instants, or times of day on the wall clock of `zone`; see `make_spine`.
        zone: IANA zone.

    Raises:
        NaiveTimeError: If `start` or `end` has no zone.
        DurationError: If `every` is not a duration.
        DefinitionError: If `end` is before `start`, or times of day have no zone.

    Example:
        >>> from datetime import UTC
        >>> days = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC)
        >>> np.diff(schedule(*days, ["12:00"], "Europe/Berlin")) / 3_600_000_000
        array([23.])
    """
    first, last = instant_us(start, "start"), instant_us(end, "end")
    if last < first:
        raise DefinitionError(f"end={end.isoformat()} is before start={start.isoformat()}", "swap them.")
    check_zone(zone)
    if not isinstance(every, str | timedelta | list | tuple):
        raise DefinitionError(
            f"every={every!r} is neither a duration nor times of day", 'e.g. every="10m", or every=["06:00", "18:00"].'
        )
    if not isinstance(every, str | timedelta):
        instants = _times_of_day(first, last, every, zone)
    else:
        instants = _steps(first, last, parse_duration(every, "every"), zone)
    return instants[(instants >= first) & (instants < last)]


def _steps(first: int, last: int, step: Duration, zone: str | None) -> Instants:
    if (last - first) // step.total_us > _MOST_TICKS:
        raise DefinitionError(
            f"every={step.text!r} from start to end is {(last - first) // step.total_us:,} instants, and {_MOST_TICKS:,} are the most",
            "ask for a shorter span, or less often.",
        )
    if zone is None or not step.days:
        return np.arange(first, last, step.total_us, dtype=np.int64)
    if step.elapsed_us:
        raise DefinitionError(
            f"every={step.text!r} mixes calendar days and hours in a zone", "use days or hours, not both."
        )
    count = (last - first) // step.total_us + 2
    local = to_local(np.array([first], dtype=np.int64), zone)[0]
    return to_instants(local + np.arange(count + 1, dtype=np.int64) * step.days * DAY_US, zone)


def _times_of_day(first: int, last: int, times: Sequence[str], zone: str | None) -> Instants:
    if zone is None:
        raise DefinitionError(
            f"every={list(times)!r} are times of day, and no zone says on which clock",
            'name it, e.g. zone="Europe/Berlin" or zone="UTC".',
        )
    clock = np.array(sorted({time_of_day_us(text, "every") for text in times}), np.int64)
    day_before, day_after = to_local(np.array([first, last], np.int64), zone) // DAY_US + np.array([-1, 1])
    days = np.arange(day_before, day_after + 1, dtype=np.int64) * DAY_US
    return np.unique(to_instants((days[:, None] + clock).ravel(), zone))


def entity_frame(entities: Any, entity: str = "entity") -> pl.DataFrame:
    """Entities as `make_spine` takes them, one row each.

    Raises:
        DefinitionError: If one is given twice, or they are one value.
        ColumnTypeError: If they are no frame, mapping or list.
    """
    frame = _as_frame(entities, entity)
    if frame.is_duplicated().any():
        raise DefinitionError("entities are given twice", "pass each once, e.g. entities.unique().")
    return frame


def _as_frame(entities: Any, entity: str) -> pl.DataFrame:
    if isinstance(entities, Mapping):
        return pl.DataFrame(dict(entities))
    if isinstance(entities, list | tuple):
        if entities and isinstance(entities[0], Mapping):
            return pl.DataFrame(list(entities))
        return pl.DataFrame({entity: list(entities)}) if entities else pl.DataFrame()
    if isinstance(entities, pl.Series):
        return entities.to_frame(entities.name or entity)
    if isinstance(entities, str) and not set(entities) & set("./\\*"):
        raise DefinitionError(
            f"entities={entities!r} is one value, not a list of them, and no path of a Parquet file",
            f'write [{entities!r}], or name the column: {{"site": [{entities!r}]}}.',
        )
    return as_lazy(entities, "entities").collect()
