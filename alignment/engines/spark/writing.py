"""A data set's rows written by executors: part files in the spine's order, of which only those count that the driver was told of.

A task that is run twice, or given up, leaves a file that nobody names; it is removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignment.dataset_writing import ROW_GROUP
from alignment.engines.spark.failures import labelled, spark_errors
from alignment.engines.spark.frames import by_place, from_batches

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
        folder: Where files go; every executor can write there.
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
        put(f"{self.folder}/{name}", data)
        return Facts(
            name,
            rows.height,
            len(data),
            hashlib.sha256(data).hexdigest(),
            {answer: rows[answer].null_count() for answer in self.answers},
            told,
            int(rows["provisional"].sum()),
        )


def put(address: str, data: bytes) -> None:
    """Write a file that does not exist yet, in a folder or in object storage (credentials from the environment)."""
    if "://" not in address:
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).write_bytes(data)
        return
    from deltalake.fs import DeltaStorageHandler

    folder, name = address.rsplit("/", 1)
    with DeltaStorageHandler(folder).open_output_stream(name) as stream:
        stream.write(data)


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


def commit_files(folder: Path, attempts: Path, parts: Sequence[tuple[int, Facts]]) -> list[Path]:
    """Give the parts their names in the data set, and remove what else was written.

    Args:
        folder: Where they are to be; new.
        attempts: Where tasks wrote.
        parts: What the driver was told.
    """
    folder.mkdir(parents=True)
    found = []
    for number, (_, facts) in enumerate(parts):
        found.append(folder / f"part-{number:05d}.parquet")
        (attempts / facts.name).replace(found[-1])
    if attempts.exists():
        for left in attempts.iterdir():
            left.unlink()
        attempts.rmdir()
    return found


def commit_delta(address: str, parts: Sequence[tuple[int, Facts]], schema: Mapping[str, pl.DataType]) -> None:
    """Make a Delta table of the files that the driver was told of; any other file is none of the table's.

    Args:
        address: The table: a folder or an address in object storage. Tasks wrote into it.
        parts: What the driver was told.
        schema: The columns.
    """
    from deltalake import Schema
    from deltalake.transaction import AddAction, create_table_with_add_actions

    actions = [
        AddAction(facts.name, facts.size, {}, 0, data_change=True, stats=json.dumps({"numRecords": facts.rows}))
        for _, facts in parts
    ]
    columns = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    create_table_with_add_actions(address, Schema.from_arrow(columns), actions)
