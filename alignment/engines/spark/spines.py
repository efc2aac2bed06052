"""The spine of a join on Spark: what its columns are, from when to when it asks, and its rows as blobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.engines.spark.failures import labelled, spark_errors
from alignment.engines.spark.frames import by_place, chosen, is_spark_frame, polars_schema
from alignment.engines.spark.packing import PACKED, Destination, pack
from alignment.engines.spark.reading import file_pieces, gathered, packed_here, packed_pieces
from alignment.errors import NullTimeError
from alignment.observations import FrameLike, as_lazy
from alignment.spine import check_spine
from alignment.wallclock import Instants

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

Wanted = Callable[[Instants], npt.NDArray[np.bool_] | None]
"""Per prediction time whether rows at it are wanted; None if all are."""


@dataclass(frozen=True)
class SparkSpine:
    """A checked spine, wherever its rows are.

    Attributes:
        given: A frame of Spark, a path, or the rows.
        schema: Its columns in Polars.
        prediction_time: Column of the instants at which the model is asked.
        rows: How many there are.
        first_us: The earliest prediction time, microseconds; 0 without rows.
        last_us: The latest.
    """

    given: FrameLike
    schema: dict[str, pl.DataType]
    prediction_time: str
    rows: int
    first_us: int
    last_us: int


def look_at(spine: FrameLike, entities: Sequence[str], prediction_time: str) -> SparkSpine:
    """The spine, its form checked; one look at its prediction times where they are in Spark or in files.

    Raises:
        FrameError: See `check_spine`.
        NullTimeError: If a prediction time is null.
    """
    if is_spark_frame(spine):
        schema = polars_schema(spine)
        check_spine(pl.DataFrame(schema=schema), entities, prediction_time)
        rows, known, first, last = _times_in_spark(spine, prediction_time)
    else:
        lazy = as_lazy(spine, "the spine")
        if not isinstance(spine, str | Path):
            spine = lazy.collect()
            lazy = spine.lazy()
        schema = dict(lazy.collect_schema())
        check_spine(pl.DataFrame(schema=schema), entities, prediction_time)
        t = pl.col(prediction_time)
        counted = lazy.select(
            pl.len(), t.count().alias("known"), t.min().alias("first"), t.max().alias("last")
        ).collect()
        rows, known = counted.row(0)[:2]
        first, last = (counted[name].dt.epoch("us")[0] or 0 for name in ("first", "last"))
    if known < rows:
        raise NullTimeError(
            f"the spine: {prediction_time!r} is null in {rows - known} rows",
            f'drop them, e.g. spine.drop_nulls("{prediction_time}").',
        )
    return SparkSpine(spine, schema, prediction_time, rows, first, last)


def _times_in_spark(spine: DataFrame, prediction_time: str) -> tuple[int, int, int, int]:
    from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

    t = F.col("t")
    asked = chosen(spine, [prediction_time]).toDF("t")
    with spark_errors():
        found = asked.select(F.count(F.lit(1)), F.count(t), F.unix_micros(F.min(t)), F.unix_micros(F.max(t))).first()
    assert found is not None  # noqa: S101 - an aggregate of everything is one row
    return found[0], found[1], found[2] or 0, found[3] or 0


def packed_spine(spark: SparkSession, spine: SparkSpine, to: Destination, wanted: Wanted | None = None) -> DataFrame:
    """The spine's rows as blobs.

    Args:
        spark: The session.
        spine: The spine.
        to: Where the rows go.
        wanted: Which of them are asked for.
    """
    if is_spark_frame(spine.given):
        work = partial(_pack_spine, spine.schema, spine.prediction_time, wanted, to)
        return by_place(spine.given).mapInArrow(work, PACKED)
    if isinstance(spine.given, str | Path) and wanted is None:
        return packed_pieces(spark, file_pieces(spine.given, "the spine"), to)
    frame = as_lazy(spine.given, "the spine").collect()
    return packed_here(spark, _kept(frame, spine.prediction_time, wanted), to)


def _pack_spine(
    schema: dict[str, pl.DataType],
    prediction_time: str,
    wanted: Wanted | None,
    to: Destination,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    with labelled():
        frames = gathered(batches, schema)
        yield from pack((_kept(frame, prediction_time, wanted) for frame in frames), to)


def _kept(frame: pl.DataFrame, prediction_time: str, wanted: Wanted | None) -> pl.DataFrame:
    if wanted is None:
        return frame
    keep = wanted(check_spine(frame, [], prediction_time).t)
    return frame if keep is None else frame.filter(pl.Series(keep))
