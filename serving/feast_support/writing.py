"""What Feast writes: saved data sets, pushed rows, logs of served features."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingDestination
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.infra.offline_stores.offline_utils import get_pyarrow_schema_from_batch_source

from serving.errors import OptionError
from serving.feast_support.reading import file_address, is_delta, storage_options
from serving.feast_support.sources import LogSource

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig
    from feast.saved_dataset import SavedDatasetStorage


def persist(
    answer: Callable[[], pa.Table], storage: SavedDatasetStorage, repo_path: Path | None, *, overwrite: bool
) -> None:
    """Keep a data set.

    Args:
        answer: What makes the rows; not called if they may not be written.
        storage: Where.
        repo_path: The feature repository's folder.
        overwrite: Whether what is there may be replaced.

    Raises:
        SavedDatasetLocationAlreadyExists: If something is there that may not be replaced.
        OptionError: If it is a kind of storage that this store cannot write.
    """
    source = storage.to_data_source()
    if not isinstance(source, FileSource):
        raise OptionError(
            f"a data set cannot be kept as a {type(source).__name__}", "use SavedDatasetFileStorage (Parquet or Delta)."
        )
    address = file_address(source, repo_path)
    if not overwrite and Path(address).exists():
        raise SavedDatasetLocationAlreadyExists(location=address)
    if is_delta(source):
        from deltalake import write_deltalake

        write_deltalake(
            address, answer(), mode="overwrite", schema_mode="overwrite", storage_options=storage_options(source)
        )
    elif address.endswith(".parquet"):
        _write_file(answer(), source, address)
    else:
        filesystem, path = _filesystem(source, address)
        pyarrow.dataset.write_dataset(
            answer(), path, format="parquet", filesystem=filesystem, existing_data_behavior="delete_matching"
        )


def append(config: RepoConfig, view: FeatureView, table: pa.Table) -> None:
    """Append rows to a view's batch source.

    A log stamps them with the arrival of now, whatever they say. A Parquet file is written anew and put in the place of
    the old one in one step; a folder gets one more file.

    Args:
        config: Feast's configuration.
        view: The view.
        table: The source's columns, in its order.

    Raises:
        ValueError: If the columns are others.
        OptionError: If the source is of a kind that this store cannot write.
    """
    source = view.batch_source
    if source is None:
        raise OptionError(f"feature view {view.name!r} has no batch source", "give it one: rows are written there.")
    schema, names = get_pyarrow_schema_from_batch_source(config, source)
    if names != table.column_names:
        raise ValueError(  # Feast's own words and class: its tests and users look for them
            f"The input pyarrow table has schema {table.schema} with the incorrect columns {table.column_names}. "
            f"The schema is expected to be {schema} with the columns (in this exact order) to be {names}."
        )
    if isinstance(source, LogSource):
        source.open(config.repo_path).append(_with_zones(table), arrivals="stamp")
    elif not isinstance(source, FileSource):
        raise OptionError(
            f"source {source.name!r} is a {type(source).__name__}, which this store cannot write",
            "use a FileSource (Parquet or Delta) or serving.feast_support.sources.LogSource.",
        )
    else:
        _append_to_file(table, source, config.repo_path)


def write_log(data: pa.Table | Path, destination: LoggingDestination, repo_path: Path | None) -> None:
    """Add a log of served features to its folder, as one more file.

    Args:
        data: The rows, or the folder of Parquet files that holds them.
        destination: Where.
        repo_path: The feature repository's folder.

    Raises:
        OptionError: If the destination is no folder of files.
    """
    if not isinstance(destination, FileLoggingDestination):
        raise OptionError(
            f"served features cannot be logged to a {type(destination).__name__}",
            "use FileLoggingDestination(path=...).",
        )
    source = cast("FileSource", destination.to_data_source())
    filesystem, path = _filesystem(source, file_address(source, repo_path))
    rows = pyarrow.dataset.dataset(data, format="parquet") if isinstance(data, Path) else data
    pyarrow.dataset.write_dataset(
        rows,
        path,
        format="parquet",
        basename_template=f"{uuid.uuid4().hex}-{{i}}.parquet",
        partitioning=destination.partition_by,
        filesystem=filesystem,
        existing_data_behavior="overwrite_or_ignore",
    )


def _append_to_file(table: pa.Table, source: FileSource, repo_path: Path | None) -> None:
    address = file_address(source, repo_path)
    if is_delta(source):
        from deltalake import DeltaTable, write_deltalake

        target = DeltaTable(address, storage_options=storage_options(source))
        rows = table.cast(pa.schema(target.schema().to_arrow()))
        write_deltalake(target, rows, mode="append")
        return
    filesystem, path = _filesystem(source, address)
    if Path(address).is_dir():
        known = pyarrow.dataset.dataset(path, format="parquet").schema
        pyarrow.parquet.write_table(table.cast(known), Path(address) / f"{uuid.uuid4().hex}.parquet")
        return
    before = pyarrow.parquet.read_table(path, filesystem=filesystem)
    after = pa.concat_tables([before, table.cast(before.schema)])
    _write_file(after, source, address)


def _filesystem(source: FileSource, address: str) -> tuple[Any, str]:
    """How Arrow writes there; no file system is the local one."""
    return FileSource.create_filesystem_and_path(
        address, source.s3_endpoint_override or "", source.resolve_credentials()
    )


def _write_file(table: pa.Table, source: FileSource, address: str) -> None:
    """A Parquet file that is there whole or not at all."""
    filesystem, path = _filesystem(source, address)
    if filesystem is not None:
        pyarrow.parquet.write_table(table, path, filesystem=filesystem)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    beside = Path(f"{path}.{uuid.uuid4().hex}.part")
    try:
        pyarrow.parquet.write_table(table, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _with_zones(table: pa.Table) -> pa.Table:
    """Naive times are UTC at this border (R15)."""
    fields = [
        pa.field(f.name, pa.timestamp(f.type.unit, "UTC")) if pa.types.is_timestamp(f.type) and f.type.tz is None else f
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))
