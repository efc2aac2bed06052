"""Naive and available answers side by side on executors, and how they differ, added up by Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from alignment.engines.spark.balancing import Balance, balance
from alignment.engines.spark.evenness import Parts
from alignment.engines.spark.failures import labelled, spark_errors
from alignment.engines.spark.frames import arrow_batches, session_of, spark_schema
from alignment.engines.spark.packing import SPINE, unpack
from alignment.engines.spark.run import bucket_counts, planned
from alignment.engines.spark.spines import packed_spine
from alignment.join import position_of
from alignment.leakage import distances_of, has_value, unit_of
from alignment.naive import naive_view
from alignment.observations import FrameLike
from alignment.parts import Pass, over
from alignment.views import FeatureView

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_COUNTS = ("rows", "rows_differing", "rows_naive_only", "rows_available_only", "numbers")
_TOLD: dict[str, pl.DataType] = (
    {"feature": pl.String(), "unit": pl.String()}
    | dict.fromkeys(_COUNTS, pl.Int64())
    | {"mean": pl.Float64(), "squares": pl.Float64(), "distances": pl.List(pl.Float64())}
)


@dataclass(frozen=True)
class Comparing:
    """What a task does with a bucket.

    Attributes:
        answering: The pass, without rows.
        schemas: Columns of the spine and of the inputs.
        as_of_us: When the naive table is read; nothing that arrived later counts.
        prediction_time: The spine's column of prediction times.
    """

    answering: Pass
    schemas: tuple[dict[str, pl.DataType], ...]
    as_of_us: int
    prediction_time: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Compare the buckets of a task.

        Yields:
            A row per bucket and feature.
        """
        with labelled():
            for _, bucket in sorted(unpack(batches).items()):
                spine, *frames = (
                    bucket.frame(number, pl.DataFrame(schema=schema))
                    for number, schema in enumerate(self.schemas, SPINE)
                )
                if spine.height:
                    told = [difference(*pair) for pair in self._pairs(spine, frames)]
                    yield from arrow_batches(pl.DataFrame(told, schema=_TOLD), _TOLD)

    def _pairs(self, spine: pl.DataFrame, frames: list[pl.DataFrame]) -> Iterator[tuple[pl.Series, pl.Series]]:
        from alignment.join import point_in_time_join

        one, at = self.answering, self.prediction_time
        available = one.answer(spine, frames, as_of_us=self.as_of_us, status=False, prediction_time=at)
        for view, place in zip(one.views, one.reads, strict=True):
            table = over(view, frames[place])
            naive = naive_view(table, self.as_of_us, position=one.inputs[place].position, threads=1)
            pretended = point_in_time_join(spine, naive, prediction_time=at, threads=1)
            yield from ((pretended[name], available[name]) for name in view.column_names)


def difference(naive: pl.Series, available: pl.Series) -> dict[str, Any]:
    """How two columns differ in some rows, so that differences can be added up."""
    has_naive, has_available, unit = has_value(naive), has_value(available), unit_of(available.dtype)
    told: dict[str, Any] = {
        "feature": available.name,
        "unit": unit,
        "rows": len(available),
        "rows_differing": int(naive.ne_missing(available).sum()),
        "rows_naive_only": int((has_naive & ~has_available).sum()),
        "rows_available_only": int((has_available & ~has_naive).sum()),
        "numbers": 0,
        "mean": 0.0,
        "squares": 0.0,
        "distances": [],
    }
    if unit is None:
        return told
    distance, known = distances_of(naive, available)
    told["distances"] = distance.tolist()
    if len(known):
        told |= {"numbers": len(known), "mean": float(known.mean()), "squares": float(known.var() * len(known))}
    return told


def compare(
    spine: FrameLike,
    views: Sequence[FeatureView],
    *,
    as_of_us: int,
    positions: dict[str, int],
    prediction_time: str,
    spark: SparkSession | None = None,
) -> list[dict[str, Any]]:
    """Rows of `LeakReport.frame`, in declared order.

    Args:
        spine: See `point_in_time_join`.
        views: Whose features.
        as_of_us: When the naive table is read, microseconds.
        positions: Log positions by view.
        prediction_time: The spine's column of prediction times.
        spark: The session; None for the active one.
    """
    session = session_of(spark)
    with spark_errors():
        plan = planned(
            *(spine, views),
            as_of_us=as_of_us,
            position_of=lambda view: position_of(view, positions),
            prediction_time=prediction_time,
        )
        told = []
        for one, count in zip(plan.passes, bucket_counts(session, plan, None), strict=True):
            way = _whole_entities(session, one, plan.spine, count, as_of_us)
            blobs = [packed_spine(session, plan.spine, way.of_spine), *way.packed_inputs(session)]
            schemas = (plan.spine.schema, *(read.schema for read in one.inputs))
            work = Comparing(one.detached(), schemas, as_of_us, prediction_time)
            together = reduce(lambda a, b: a.unionAll(b), blobs).repartitionById(way.parts.count, "bucket")
            told.append(together.mapInArrow(work.__call__, spark_schema(_TOLD)))
        found = {row["feature"]: row for row in _added_up(reduce(lambda a, b: a.unionAll(b), told))}
    return [_facts(name, found.get(name)) for view in views for name in view.column_names]


def _whole_entities(session: SparkSession, one: Pass, spine: Any, count: int, as_of_us: int) -> Balance:
    """Where rows go if no entity is cut: a naive table looks at all that will have arrived."""

    def bounds(_: int) -> tuple[int | None, int | None]:
        return as_of_us, None

    if count == 1:
        return Balance(one, spine, Parts(1, np.zeros(1, np.uint32)), as_of_us, bounds)
    return balance(session, one, spine, count, as_of_us=as_of_us, bounds=bounds, cut=False)


def _added_up(told: DataFrame) -> list[dict[str, Any]]:
    from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

    each = F.explode_outer("distances").alias("distance")
    numbers, mean = F.col("numbers"), F.col("mean")
    sums = told.groupBy("feature").agg(
        F.first("unit").alias("unit"),
        *(F.sum(name).alias(name) for name in _COUNTS),
        F.sum(numbers * mean).alias("total"),
        F.sum("squares").alias("within"),
        F.sum(numbers * mean * mean).alias("between"),
    )
    distances = (
        told.select(F.col("feature").alias("of"), each)
        .groupBy("of")
        .agg(
            F.avg("distance").alias("mean_difference"),
            F.percentile("distance", F.lit(0.5)).alias("median_difference"),
            F.max("distance").alias("max_difference"),
        )
    )
    return sums.join(distances, sums["feature"] == distances["of"]).toArrow().to_pylist()  # type: ignore[no-any-return]


def _facts(name: str, row: dict[str, Any] | None) -> dict[str, Any]:
    """A row of the report's frame."""
    rows = 0 if row is None else row["rows"]
    facts: dict[str, Any] = {"feature": name} | {count: 0 if row is None else row[count] for count in _COUNTS[:4]}
    facts["share_differing"] = facts["rows_differing"] / rows if row is not None and rows else None
    told = ("mean_difference", "median_difference", "max_difference")
    facts |= {one: None if row is None else row[one] for one in told}
    facts |= {"mean_difference_sd": None, "unit": None if row is None else row["unit"] or None}
    if row is not None and row["numbers"] > 1 and facts["mean_difference"] is not None:
        squares = row["within"] + row["between"] - row["total"] ** 2 / row["numbers"]
        spread = (max(squares, 0.0) / (row["numbers"] - 1)) ** 0.5
        facts["mean_difference_sd"] = facts["mean_difference"] / spread if spread > 0 else None
    return facts
