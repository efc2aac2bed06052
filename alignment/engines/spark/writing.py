"""A data set's rows written by executors: part files in the spine's order, of which only those count that the driver was told of.

A task that is run twice, or given up, leaves a file that nobody names; it is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from alignment.dataset_writing import ATTEMPTS, DATA, ROW_GROUP
from alignment.engines.spark.failures import labelled, spark_errors
from alignment.engines.spark.frames import by_place, from_batches
from alignment.location import Location

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

PART_ROWS = 1_000_000
"""Rows of a part file, about; a task has them in memory."""
_TOLD = "part int, name string, facts string"


@dataclass(frozen=True)
class Facts:
    """What is known of a part file.

    Attributes:
        name: Its name.
        rows: How many rows it has.
        size: Bytes.
        sha256: Of its bytes.
        nulls: Per answer how many values are null.
        told: Per feature with fallbacks how many rows each answered.
        provisional: How many rows may still change.
    """

    name: str
    rows: int
    size: int
    sha256: str
    nulls: dict[str, int]
    told: dict[str, dict[str, int]]
    provisional: int


@dataclass(frozen=True)
class Writer:
    """What an executor does with the rows of a part.

    Attributes:
        folder: Where files go, a path or an address; every executor can write there.
        schema: Columns as they come, in the types that Spark has.
        exact: The columns that are written, in their own types.
        answers: Whose nulls are counted.
    """

    folder: str
    schema: Mapping[str, pl.DataType]
    exact: Mapping[str, pl.DataType]
    answers: tuple[str, ...]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write the rows, if there are any, and tell of the file."""
        import pyarrow as pa
        from pyspark import TaskContext

        held = list(batches)
        if not sum(batch.num_rows for batch in held):
            return
        with labelled():
            frame = from_batches(held, self.schema)
            facts = self.written(frame)
        context = TaskContext.get()
        number = 0 if context is None else context.partitionId()
        columns = {"part": pa.array([number], pa.int32()), "name": [facts.name], "facts": [json.dumps(facts.__dict__)]}
        yield pa.RecordBatch.from_pydict(columns)

    def written(self, frame: pl.DataFrame) -> Facts:
        """Write a part."""
        told = {
            name.removesuffix("__source"): dict(Counter(frame[name].to_list()))
            for name in frame.columns
            if name.endswith("__source") and name.removesuffix("__source") in self.answers
        }
        rows = frame.select(pl.col(name).cast(kind) for name, kind in self.exact.items())
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="lz4", row_group_size=ROW_GROUP)
        data = buffer.getvalue()
        name = f"{uuid.uuid4().hex}.parquet"
        Location(self.folder).write(name, data)
        return Facts(
            name,
            rows.height,
            len(data),
            hashlib.sha256(data).hexdigest(),
            {answer: rows[answer].null_count() for answer in self.answers},
            told,
            int(rows["provisional"].sum()),
        )


def write_parts(
    frame: DataFrame, order: Sequence[str], writer: Writer, *, parts: int, numbered: bool
) -> list[tuple[int, Facts]]:
    """Let executors write a frame's rows, in order.

    Args:
        frame: The rows.
        order: Columns by which they are ordered; where rows are alike in all of them it does not matter which is first.
        writer: What is written, and where to.
        parts: About how many files.
        numbered: Whether the first column of `order` numbers the rows from 0, so that parts can be told without a look at them.

    Returns:
        What is known of each part, in order.
    """
    from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

    columns, placed = frame.columns, by_place(frame)
    ordered = [F.col(f"c{columns.index(name)}") for name in order]
    if numbered:
        part = F.floor(ordered[0] / PART_ROWS).cast("int")
        together = placed.withColumn("part", part).repartitionById(parts, "part").drop("part")
    else:
        together = placed.repartitionByRange(parts, *ordered)
    rows = together.sortWithinPartitions(*ordered)
    with spark_errors():
        told = rows.mapInArrow(writer.__call__, _TOLD).toArrow().to_pylist()
    return sorted(((one["part"], Facts(**json.loads(one["facts"]))) for one in told), key=lambda one: one[0])


def commit_files(place: Location, parts: Sequence[tuple[int, Facts]]) -> list[str]:
    """Give the parts their names in the data set.

    Args:
        place: The data set's; tasks wrote to `.attempts` in it.
        parts: What the driver was told.

    Returns:
        The names, in order.
    """
    names = [f"{DATA}/part-{number:05d}.parquet" for number in range(len(parts))]
    for name, (_, facts) in zip(names, parts, strict=True):
        place.move(f"{ATTEMPTS}/{facts.name}", name)
    return names


def commit_delta(place: Location, parts: Sequence[tuple[int, Facts]], schema: Mapping[str, pl.DataType]) -> list[str]:
    """Make a Delta table of the files that the driver was told of; any other file is none of the table's.

    Args:
        place: The table. Tasks wrote into it.
        parts: What the driver was told.
        schema: The columns.

    Returns:
        The names of the files, in order.

    Raises:
        DeltaError: If the store failed; the table was not made.
        OSError: Likewise.
    """
    from deltalake import DeltaTable, Schema
    from deltalake.exceptions import DeltaError
    from deltalake.transaction import AddAction, create_table_with_add_actions

    actions = [
        AddAction(facts.name, facts.size, {}, 0, data_change=True, stats=json.dumps({"numRecords": facts.rows}))
        for _, facts in parts
    ]
    names = [facts.name for _, facts in parts]
    columns = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    try:
        create_table_with_add_actions(place.address, Schema.from_arrow(columns), actions)
    except (DeltaError, OSError):  # an answer can be lost after the table was made
        if not DeltaTable.is_deltatable(place.address):
            raise
        uris = place.patiently(lambda: DeltaTable(place.address).file_uris())
        if {uri.rpartition("/")[2] for uri in uris} != set(names):
            raise
    return names


def remove_leftovers(place: Location, named: Sequence[str]) -> None:
    """Delete the part files that are not the data set's: of tasks that were run twice, or of a write that failed.

    Args:
        place: The data set's.
        named: The files that are its.
    """
    for name in place.files_below():
        if name.endswith(".parquet") and name not in named and not name.startswith("_delta_log/"):
            place.remove(name)
    for folder in [] if place.folder is None else [place.folder / ATTEMPTS, place.folder / DATA]:
        with contextlib.suppress(OSError):  # it is none, or has files
            folder.rmdir()
