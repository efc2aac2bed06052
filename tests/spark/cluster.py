"""What tests of Spark share: bringing results here, and many small joins in one job."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

import alignment as al
from alignment.engines.spark.failures import labelled
from alignment.engines.spark.frames import arrow_batches
from alignment.engines.spark.packing import PACKED, SPINE, Address, pack, packed_table, unpack
from alignment.hashing import frame_hash

ROW = "row"


def numbered(spine: pl.DataFrame) -> pl.DataFrame:
    """A spine whose rows can be told apart and put in order again."""
    return spine.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW))


def here(frame: Any, like: pl.DataFrame) -> pl.DataFrame:
    """A result of Spark in this process: in the spine's order, its columns in the types of the local engine."""
    found = pl.DataFrame(frame.toArrow())
    assert found.columns == like.columns
    return found.cast(pl.Schema(like.schema)).sort(ROW)


def same(got: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Columns, types, and every value bit for bit."""
    assert_frame_equal(got, expected, check_exact=True)
    assert frame_hash(got) == frame_hash(expected)


def same_as_local(spine: pl.DataFrame, views: Sequence[al.FeatureView], **arguments: Any) -> pl.DataFrame:
    """A join on Spark is that of the local engine; what that is."""
    expected = al.point_in_time_join(spine, views, **arguments)
    same(here(al.point_in_time_join(spine, views, engine="spark", **arguments), expected), expected)
    return expected


# --- many joins in one job --------------------------------------------------------------------------------------------


def in_one_job(spark: Any, joins: Sequence[Any], buckets: int) -> list[pl.DataFrame]:
    """The results of many prepared joins, each with buckets of its own, from one shuffle.

    Args:
        spark: The session.
        joins: Of each its one task's work, and its spine and inputs with the keys that the bucket depends on.
        buckets: How many each of them has.
    """
    blobs = [
        batch
        for place, (_, frames) in enumerate(joins)
        for number, (frame, keys) in enumerate(frames, SPINE)
        for batch in moved(pack([frame], Address(number, keys, buckets)), place * buckets)
    ]
    rows = spark.createDataFrame(packed_table(blobs)).repartitionById(len(joins) * buckets // 7 or 1, "bucket")
    works = [pickle.dumps(work) for work, _ in joins]
    done = rows.mapInArrow(partial(answer_many, works, buckets), PACKED).toArrow()
    results = unpack(done.to_batches())
    found = []
    for place, (work, _) in enumerate(joins):
        empty = pl.DataFrame(schema=work.plain)
        parts = [results[place].frame(0, empty)] if place in results else [empty]
        found.append(pl.concat(parts))
    return found


def moved(batches: Iterator[Any], by: int) -> Iterator[Any]:
    """Blobs with other bucket numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in batches:
        numbers = pc.add(batch.column(0), pa.scalar(by, pa.int32()))
        yield batch.set_column(0, "bucket", numbers)


def answer_many(works: list[bytes], buckets: int, batches: Iterator[Any]) -> Iterator[Any]:
    """What `Work` does, for whichever join a bucket is of."""
    with labelled():
        for number, bucket in sorted(unpack(batches).items()):
            work = pickle.loads(works[number // buckets])
            found = work.answered(bucket)
            if not found.height:
                continue
            rows = pl.concat([pl.DataFrame(batch) for batch in arrow_batches(work.form.made(found), work.plain)])
            to = Address(0, (), 1)
            yield from moved(pack([rows], to, piece=number), number // buckets)
