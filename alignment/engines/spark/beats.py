"""When providers whose rows are in a frame of Spark showed that they live, and how far their events had got; found by executors (R20)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from alignment.engines.spark.balancing import collected
from alignment.engines.spark.failures import spark_errors
from alignment.engines.spark.reading import packed_input
from alignment.observations import Observations
from alignment.parts import Input, over_rows, time_columns
from alignment.wallclock import Instants

FromRows = Callable[[Observations], pl.DataFrame]


@dataclass(frozen=True)
class _Told:
    """Of rows only what they tell is kept.

    Attributes:
        observations: What the rows are.
        tell: What some of them tell.
        number: Of the input.
    """

    observations: Observations
    tell: FromRows
    number: int = 0

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """What some rows tell."""
        yield 0, self.tell(over_rows(self.observations, frame))


def told_by(rows: Observations, tell: FromRows, *, position: int | None = None) -> list[pl.DataFrame]:
    """What executors find in the times of rows that are in a frame of Spark, piece by piece.

    Args:
        rows: The rows.
        tell: What some of them tell; sent to executors.
        position: Rows with a greater `log_sequence` are left out.

    Raises:
        AlignmentError: What `tell` raises.
    """
    columns = time_columns(rows)
    bare = copy.copy(rows)
    bare.frame, bare.derive = None, {}
    bare.schema = {name: rows.schema[name] for name in columns}
    read = Input(rows, position, (), columns)
    with spark_errors():
        blobs = packed_input(rows.frame.sparkSession, read, _Told(bare, tell), as_of_us=None, event_from_us=None)
        return collected(blobs)


def arrivals_in_spark(rows: Observations, *, position: int | None = None) -> Instants:
    """The instants at which rows arrived, each once, ascending, microseconds.

    Raises:
        AlignmentError: If a row breaks a rule of frames; see `checked`.
    """
    found = told_by(rows, _arrivals, position=position)
    return _joined(found, "arrival").unique().sort().to_numpy()


def news_in_spark(rows: Observations, *, position: int | None = None) -> tuple[Instants, Instants]:
    """Arrivals that brought a newer event (of forecasts: issue) than their piece had before, and that event; microseconds.

    Raises:
        AlignmentError: If a row breaks a rule of frames; see `checked`.
    """
    found = told_by(rows, _news, position=position)
    return _joined(found, "arrival").to_numpy(), _joined(found, "event").to_numpy()


def _arrivals(rows: Observations) -> pl.DataFrame:
    from alignment.heartbeats import heartbeats_in

    return pl.DataFrame({"arrival": pl.Series(np.unique(heartbeats_in(rows)), dtype=pl.Int64)})


def _news(rows: Observations) -> pl.DataFrame:
    from alignment.heartbeats import newest_in

    found = newest_in(rows)
    return pl.DataFrame({"arrival": found.arrivals, "event": found.events})


def _joined(tables: list[pl.DataFrame], name: str) -> pl.Series:
    return pl.concat([pl.Series(name, [], pl.Int64), *(table[name] for table in tables)])
