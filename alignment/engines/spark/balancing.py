"""The parts of a pass on Spark: counted first, then every input sent where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from alignment.engines.spark.evenness import QUESTION_ROWS, Parts, plan_parts
from alignment.engines.spark.frames import chosen, is_spark_frame
from alignment.engines.spark.packing import PACK_ROWS, SPINE, Destination, unpack
from alignment.engines.spark.reading import packed_input, pieces_of
from alignment.engines.spark.spines import SparkSpine, packed_spine
from alignment.engines.spark.splitting import (
    LabelReach,
    Routed,
    Tallied,
    may_cut,
    observations_of,
    readers,
)
from alignment.labels import label_source
from alignment.parts import Input, Pass

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LABEL = -2
"""The input number of what labels of a stretch look at."""
Bounds = Callable[[int], tuple[int | None, int | None]]
"""Per input the latest arrival and the earliest event that can matter."""


@dataclass(frozen=True)
class Balance:
    """Where the rows of a pass go.

    Attributes:
        answering: The pass.
        spine: What is asked.
        parts: What goes where.
        as_of_us: Nothing that arrived later counts.
        bounds: Which rows of the inputs can matter.
    """

    answering: Pass
    spine: SparkSpine
    parts: Parts
    as_of_us: int | None
    bounds: Bounds

    @property
    def of_spine(self) -> Destination:
        """Where the spine goes."""
        return Routed(SPINE, self.answering.keys, self.parts, self.spine.prediction_time)

    def packed_inputs(self, session: SparkSession) -> list[DataFrame]:
        """Blobs of all inputs, and of what labels look at."""
        one, parts = self.answering.detached(), self.parts
        found = []
        for number, read in enumerate(self.answering.inputs):
            rows, views = observations_of(one, number)[0], tuple(readers(one, number))
            to = Routed(number, read.keys, parts, observations=rows, views=views, as_of_us=self.as_of_us)
            found.append(self._packed(session, number, to))
            if parts.cuts and one.label is not None and one.label_reads == number:
                span = (self.spine.first_us, self.spine.last_us)
                looked_at = label_source(one.label, ())[0]
                reach = LabelReach(LABEL, read.keys, parts, one.label, looked_at, span)
                found.append(self._packed(session, number, reach))
        return found

    def _packed(self, session: SparkSession, number: int, to: Destination) -> DataFrame:
        until, since = self.bounds(number)
        return packed_input(session, self.answering.inputs[number], to, as_of_us=until, event_from_us=since)


def balance(
    session: SparkSession,
    one: Pass,
    spine: SparkSpine,
    count: int,
    *,
    as_of_us: int | None,
    bounds: Bounds,
    cut: bool = True,
) -> Balance:
    """Count the rows of a pass by entity, and decide what goes where.

    Args:
        session: The session.
        one: The pass.
        spine: What is asked.
        count: About how many parts there are to be.
        as_of_us: Nothing that arrived later counts.
        bounds: Which rows of the inputs can matter.
        cut: Whether an entity may be cut by time.
    """
    bare = one.detached()
    counted = [(table, QUESTION_ROWS) for table in _spine_tallies(session, spine, one.keys)]
    for number, read in enumerate(one.inputs):
        to = Tallied(number, read.keys, None, observations_of(bare, number)[0])
        counted += [(table, 1) for table in _tallies(session, read, to, bounds(number))]
    return Balance(one, spine, plan_parts(counted, count, may_cut=cut and may_cut(bare)), as_of_us, bounds)


def _tallies(
    session: SparkSession, read: Input, to: Tallied, bounds: tuple[int | None, int | None]
) -> list[pl.DataFrame]:
    thin = replace(read, columns=tuple(name for name in to.columns if name in read.columns))
    rows = read.observations
    assert rows is not None  # noqa: S101 - the driver's passes have rows
    until, since = bounds
    if not is_spark_frame(rows.frame) and pieces_of(thin, as_of_us=until, event_from_us=since) is None:
        return _counted_here(thin.rows(as_of_us=until, event_from_us=since).collect(), to)
    return collected(packed_input(session, thin, to, as_of_us=until, event_from_us=since))


def _spine_tallies(session: SparkSession, spine: SparkSpine, keys: tuple[str, ...]) -> list[pl.DataFrame]:
    to = Tallied(SPINE, keys, spine.prediction_time)
    if isinstance(spine.given, pl.DataFrame):
        return _counted_here(spine.given, to)
    if is_spark_frame(spine.given):
        columns = list(dict.fromkeys(to.columns))
        schema = {name: spine.schema[name] for name in columns}
        spine = replace(spine, given=chosen(spine.given, columns), schema=schema)
    return collected(packed_spine(session, spine, to))


def _counted_here(frame: pl.DataFrame, to: Tallied) -> list[pl.DataFrame]:
    return [table for part in frame.iter_slices(PACK_ROWS) for _, table in to.split(part)]


def collected(blobs: DataFrame) -> list[pl.DataFrame]:
    """The frames that blobs hold, here."""
    buckets = unpack(blobs.toArrow().to_batches())
    return [table for bucket in buckets.values() for table in bucket.frames()]
