"""Replay on Spark: the schedule is laid over the entities by executors, and joined as any spine is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from alignment.engines.spark.frames import chosen, is_spark_frame, plain_schema, session_of, spark_schema
from alignment.engines.spark.run import join
from alignment.spine import entity_frame
from alignment.views import FeatureView
from alignment.wallclock import Instants

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def replay_spark(
    views: Sequence[FeatureView],
    whole: Sequence[FeatureView],
    entities: Any,
    ticks: Instants,
    *,
    entity: str,
    prediction_time: str,
    as_of_us: int | None,
    at: Mapping[str, int | None],
    status: bool,
    spark: SparkSession | None,
) -> DataFrame:
    """The rows of `replay`, in no order.

    Args:
        views: What to compute.
        whole: The same views with the ages that are asked for besides.
        entities: Whom to ask for: a frame of Spark, each entity once, or what `make_spine` takes.
        ticks: When, microseconds.
        entity: Name of the entity column where `entities` is a list of values.
        prediction_time: Name of the column of ticks.
        as_of_us: Nothing that arrived later counts.
        at: Log position by view.
        status: Whether to say why values are null.
        spark: The session; None for the active one.
    """
    session = session_of(spark)
    spine = spark_spine(session, entities, ticks, entity=entity, prediction_time=prediction_time)
    answered = join(
        *(spine, whole),
        spark=session,
        as_of_us=as_of_us,
        position_of=lambda view: at[view.name],
        status=status,
        prediction_time=prediction_time,
    )
    names = [
        name for view in views for one in view.column_names for name in ([one, f"{one}__status"] if status else [one])
    ]
    ages = [name for few, all_ in zip(views, whole, strict=True) for name in all_.column_names[len(few.features) :]]
    columns = [*spine.columns, *names, *(["provisional"] if status else []), *ages]
    return chosen(answered, columns)


def spark_spine(
    session: SparkSession, entities: Any, ticks: Instants, *, entity: str, prediction_time: str
) -> DataFrame:
    """Entities times ticks, made by executors; of no entity columns the ticks alone.

    Args:
        session: The session.
        entities: Whom to ask for.
        ticks: When, microseconds.
        entity: Name of the entity column where `entities` is a list of values.
        prediction_time: Name of the column of ticks.
    """
    t = pl.Series(prediction_time, ticks, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")).to_frame()
    schedule = _sent(session, t)
    if is_spark_frame(entities):
        return entities.crossJoin(schedule)  # type: ignore[no-any-return]
    asked = entity_frame(entities, entity)
    return _sent(session, asked).crossJoin(schedule) if asked.width else schedule


def _sent(session: SparkSession, frame: pl.DataFrame) -> DataFrame:
    plain = plain_schema(frame.schema, "the entities")
    table = frame.cast(dict(plain)).to_arrow(compat_level=pl.CompatLevel.oldest())  # type: ignore[arg-type]
    return session.createDataFrame(table, spark_schema(plain))
