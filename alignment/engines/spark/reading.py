"""Where rows come from: frames of Spark, logs and files that executors read themselves, frames of this process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from alignment.durations import instant_from_us
from alignment.engines.spark.failures import labelled
from alignment.engines.spark.frames import by_place, chosen, from_batches, is_spark_frame, polars_schema
from alignment.engines.spark.packing import PACK_ROWS, PACKED, Destination, pack, packed_table
from alignment.errors import ViewError
from alignment.observations import Observations, as_lazy, is_delta_folder
from alignment.parts import Input

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


def packed_input(
    spark: SparkSession, read: Input, to: Destination, *, as_of_us: int | None, event_from_us: int | None
) -> DataFrame:
    """An input's rows as blobs.

    Args:
        spark: The session.
        read: What to read.
        to: Where the rows go.
        as_of_us: Rows of a log that arrived later may be left out.
        event_from_us: So may be rows of a log with an earlier event.

    Raises:
        ViewError: If rows of one arrival are told apart by their order, and Spark keeps none.
    """
    rows = read.observations
    assert rows is not None  # noqa: S101 - the driver's passes have rows
    if is_spark_frame(rows.frame):
        if rows.on_tie == "last" and not rows.has_log_sequence:
            raise ViewError(
                f'{rows.place} say on_tie="last", and rows of a Spark frame have no order',
                "give them a log_sequence that says which came last.",
            )
        return _packed_frame(rows, read, to)
    pieces = pieces_of(read, as_of_us=as_of_us, event_from_us=event_from_us)
    if pieces is None:
        return packed_here(spark, read.rows(as_of_us=as_of_us, event_from_us=event_from_us).collect(), to)
    return packed_pieces(spark, pieces, to)


def packed_pieces(spark: SparkSession, pieces: Sequence[pl.LazyFrame], to: Destination) -> DataFrame:
    """The rows of lazy frames that executors collect, one task each, as blobs."""
    plans = [pickle.dumps(piece) for piece in pieces]
    tasks = spark.range(0, len(plans), 1, numPartitions=max(len(plans), 1))
    return tasks.mapInArrow(partial(_read_pieces, plans, to), PACKED)


def packed_here(spark: SparkSession, frame: pl.DataFrame, to: Destination) -> DataFrame:
    """The rows of a frame of this process as blobs."""
    return spark.createDataFrame(packed_table(list(pack([frame], to))))


def _read_pieces(plans: list[bytes], to: Destination, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with labelled():
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from pack([pickle.loads(plans[number]).collect()], to, piece=number)  # noqa: S301 - the driver's own


def _packed_frame(rows: Observations, read: Input, to: Destination) -> DataFrame:
    from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

    frame: DataFrame = rows.frame
    derived = {name: expression for name, expression in rows.derive.items() if name in read.columns}
    roots = [root for expression in derived.values() for root in expression.meta.root_names()]
    names = list(dict.fromkeys([*(name for name in read.columns if name not in derived), *roots]))
    if read.position is not None and rows.has_log_sequence:
        columns = frame.columns
        counted = F.col(f"c{columns.index(rows.log_sequence)}") <= read.position
        frame = by_place(frame).where(counted).toDF(*columns)
    frame = chosen(frame, names)
    work = partial(_pack_frame, polars_schema(frame), derived, read.columns, to)
    return by_place(frame).mapInArrow(work, PACKED)


def _pack_frame(
    schema: dict[str, pl.DataType],
    derived: dict[str, pl.Expr],
    columns: tuple[str, ...],
    to: Destination,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    with labelled():
        yield from pack((frame.with_columns(**derived).select(columns) for frame in gathered(batches, schema)), to)


def gathered(batches: Iterator[pa.RecordBatch], schema: dict[str, pl.DataType]) -> Iterator[pl.DataFrame]:
    """Spark's batches put together to frames that are worth splitting."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= PACK_ROWS:
            yield from_batches(held, schema)
            held, rows = [], 0
    if held:
        yield from_batches(held, schema)


def pieces_of(read: Input, *, as_of_us: int | None, event_from_us: int | None) -> list[pl.LazyFrame] | None:
    """The input's rows in lazy frames that can be read elsewhere, in the order of the rows; None if they are in this process."""
    rows = read.observations
    assert rows is not None  # noqa: S101
    found: list[pl.LazyFrame] | None = None
    if rows.source is not None:
        scan_pieces: Any = getattr(rows.source, "scan_pieces", None)
        if scan_pieces is None:
            return None
        found = scan_pieces(
            PACK_ROWS,
            position=read.position,
            as_of=None if as_of_us is None else instant_from_us(as_of_us),
            event_from=None if event_from_us is None else instant_from_us(event_from_us),
        )
    elif isinstance(rows.frame, str | Path):
        found = file_pieces(rows.frame, rows.place)
        if read.position is not None and rows.has_log_sequence:
            found = [piece.filter(pl.col(rows.log_sequence) <= read.position) for piece in found]
    if found is None:
        return None
    former = [pl.col(now).alias(name) for name, now in rows.former_names.items()]
    return [piece.with_columns(former).with_columns(**rows.derive).select(read.columns) for piece in found]


def file_pieces(path: str | Path, place: str) -> list[pl.LazyFrame]:
    """A Parquet file, folder or pattern, or a Delta table as it is now, in pieces of about `PACK_ROWS` rows, in order."""
    if is_delta_folder(path):
        return _delta_pieces(str(path))
    whole = as_lazy(path, place)
    if "://" in str(path):
        return [whole]
    folder = Path(path)
    if folder.is_dir():
        files = sorted(str(found) for found in folder.rglob("*.parquet") if found.is_file())
    else:
        root = Path(folder.anchor)
        files = sorted(str(found) for found in root.glob(str(folder.relative_to(root)))) or [str(path)]
    if any("=" in part for found in files for part in Path(found).parts[len(folder.parts) :]):
        return [whole]  # values in names of folders
    return _cut(files, whole)


def _delta_pieces(path: str) -> list[pl.LazyFrame]:
    """The files of a Delta table's present version; all at once where the files alone do not say what the rows are."""
    from deltalake import DeltaTable

    table = DeltaTable(path)
    whole = pl.scan_delta(path, version=table.version())  # the same for all tasks, whatever is appended meanwhile
    if table.metadata().partition_columns or table.protocol().reader_features:
        return [whole]
    return _cut(table.file_uris(), whole)


def _cut(files: Sequence[str], whole: pl.LazyFrame) -> list[pl.LazyFrame]:
    """Files with many rows in slices, those with few together."""
    schema = dict(whole.collect_schema())

    def scan(some: Sequence[str]) -> pl.LazyFrame:
        return pl.scan_parquet(
            list(some),
            schema=schema,
            missing_columns="insert",
            extra_columns="ignore",
            glob=False,
            hive_partitioning=False,
        )

    pieces: list[pl.LazyFrame] = []
    few: list[str] = []
    held = 0
    for file in files:
        rows = int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
        if few and held + rows > PACK_ROWS:
            pieces.append(scan(few))
            few, held = [], 0
        if rows > PACK_ROWS:
            pieces += [scan([file]).slice(start, PACK_ROWS) for start in range(0, rows, PACK_ROWS)]
        else:
            few.append(file)
            held += rows
    return [*pieces, scan(few)] if few or not pieces else pieces
