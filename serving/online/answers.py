"""What a server answers: one value, status and two instants per feature and entity, and the (t, position) they hold at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from alignment import PREDICTION_TIME

INSTANT = pl.Datetime("us", "UTC")


@dataclass(slots=True)
class AnsweredColumn:
    """One feature for all entities of a request.

    Attributes:
        name: `<view>__<feature>`.
        provider: Whose observations it is computed from.
        dtype: Type of the values in frames.
        values: One per entity, as Python has them; null is None.
        status: One per entity: `present`, `null`, `expired`, `retracted` or `missing` (R20).
        events: Event time in microseconds of the row that was used, or None; of windows and sequences that of the newest row.
        arrivals: Arrival of that row, likewise.
    """

    name: str
    provider: str
    dtype: pl.DataType
    values: list[Any]
    status: list[str]
    events: list[int | None]
    arrivals: list[int | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to one request.

    Attributes:
        t: The instant it holds at: the server's clock, or how far the log is known to be complete if that is less (R19).
        positions: Position in the log of each provider that was read.
        entities: The request's entities, name to values.
        columns: The features asked for, in their order.
        definition: Hash of the definitions that were evaluated.
        past: Whether an instant in the past was asked for, and answered from the log.
        entity_dtypes: Types of the entities in frames, as far as the views know them.
    """

    t: datetime
    positions: Mapping[str, int]
    entities: Mapping[str, Sequence[Any]]
    columns: Sequence[AnsweredColumn]
    definition: str
    past: bool = False
    entity_dtypes: Mapping[str, pl.DataType] = field(default_factory=dict)

    def to_frame(self, *, status: bool = False) -> pl.DataFrame:
        """The answer as `point_in_time_join` would return it: entities, `prediction_time`, features, statuses.

        Args:
            status: Add `<feature>__status` after each feature.
        """
        height = max((len(values) for values in self.entities.values()), default=1)
        series = [
            pl.Series(name, list(values), dtype=self.entity_dtypes.get(name)) for name, values in self.entities.items()
        ]
        series.append(pl.repeat(self.t, height, dtype=INSTANT, eager=True).alias(PREDICTION_TIME))
        for column in self.columns:
            series.append(pl.Series(column.name, column.values, dtype=column.dtype))
            if status:
                series.append(pl.Series(f"{column.name}__status", column.status, dtype=pl.String))
        return pl.DataFrame(series)
