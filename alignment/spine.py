"""Spines: what is asked, and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from alignment.durations import DAY_US, DurationLike, instant_us, parse_duration
from alignment.errors import ColumnTypeError, DefinitionError, MissingColumnError, NaiveTimeError, NullTimeError
from alignment.observations import FrameLike, as_lazy
from alignment.wallclock import Instants, check_zone, to_instants, to_local

PREDICTION_TIME = "prediction_time"
_PLACE = "the spine"


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
    every: DurationLike,
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
        every: Time between instants. In `d` and `w` with a zone: calendar days at the local time of `start` (R15).
        zone: IANA zone of the schedule.
        entity: Name of the entity column where `entities` is a list of values.
        prediction_time: Name of the instant column.

    Returns:
        Entity columns, then `prediction_time` (Datetime("us", "UTC")); entity by entity, instants ascending.

    Raises:
        NaiveTimeError: If `start` or `end` has no zone.
        DurationError: If `every` is not a duration.
        DefinitionError: If `end` is before `start`, or entities are given twice.

    Example:
        >>> from datetime import UTC, datetime
        >>> make_spine(
        ...     {"station": ["a", "b"]}, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC), "30m"
        ... ).shape
        (4, 2)
    """
    first, last = instant_us(start, "start"), instant_us(end, "end")
    step = parse_duration(every, "every")
    if last < first:
        raise DefinitionError(f"end={end.isoformat()} is before start={start.isoformat()}", "swap them.")
    check_zone(zone)
    if zone is not None and step.days:
        count = (last - first) // step.total_us + 2
        local = to_local(np.array([first], dtype=np.int64), zone)[0]
        if step.elapsed_us:
            raise DefinitionError(
                f"every={step.text!r} mixes calendar days and hours in a zone", "use days or hours, not both."
            )
        instants = to_instants(local + np.arange(count + 1, dtype=np.int64) * step.days * DAY_US, zone)
    else:
        instants = np.arange(first, last, step.total_us, dtype=np.int64)
    instants = instants[(instants >= first) & (instants < last)]
    schedule = pl.DataFrame({prediction_time: pl.Series(instants, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))})
    frame = _entity_frame(entities, entity)
    if frame.is_duplicated().any():
        raise DefinitionError("entities are given twice", "pass each once, e.g. entities.unique().")
    if not frame.width:
        return schedule
    return frame.join(schedule, how="cross", maintain_order="left_right")


def _entity_frame(entities: Any, entity: str) -> pl.DataFrame:
    if isinstance(entities, Mapping):
        return pl.DataFrame(dict(entities))
    if isinstance(entities, list | tuple):
        if entities and isinstance(entities[0], Mapping):
            return pl.DataFrame(list(entities))
        return pl.DataFrame({entity: list(entities)}) if entities else pl.DataFrame()
    if isinstance(entities, pl.Series):
        return entities.to_frame(entities.name or entity)
    return as_lazy(entities, "entities").collect()
