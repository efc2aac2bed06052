"""The rows of Feast's batch sources, lazily, with instants as our rules want them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from feast.data_format import DeltaFormat, ParquetFormat
from feast.infra.offline_stores.file_source import FileSource

from serving.errors import OptionError
from serving.feast_support.sources import LogSource

if TYPE_CHECKING:
    from feast.data_source import DataSource

    from ingestion import ObservationLog

INSTANT: Final = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Table:
    """A batch source and what its columns are called.

    Attributes:
        source: The source.
        rows: Its rows, as they are.
        log: The log, if it is one.
        schema: Its columns.
        renamed: Feast's name to the source's, where they differ.
        place: What to call it in messages.
    """

    source: DataSource
    rows: pl.LazyFrame
    log: ObservationLog | None
    schema: Mapping[str, pl.DataType]
    renamed: Mapping[str, str]
    place: str

    def column(self, name: str) -> str:
        """What the source calls a column that Feast calls `name`.

        Raises:
            OptionError: If there is none.
        """
        own = self.renamed.get(name, name)
        found = own if own in self.schema else name
        if found not in self.schema:
            raise OptionError(
                f"{self.place} has no column {name!r}",
                f"its columns are {list(self.schema)}; correct the name, or give the source a field_mapping.",
            )
        return found

    @property
    def event(self) -> str:
        """The column of events."""
        return self.column(self.source.timestamp_field)

    @property
    def created(self) -> str | None:
        """The column of arrivals, if the source declares one."""
        name = self.source.created_timestamp_column
        return self.column(name) if name else None


def open_table(source: DataSource, repo_path: str | Path | None) -> Table:
    """A batch source, ready to be read.

    Raises:
        OptionError: If it is of a kind that this store cannot read.
    """
    log = source.open(repo_path) if isinstance(source, LogSource) else None
    rows = log.scan() if log is not None else scan(source, repo_path)
    return Table(
        source=source,
        rows=rows,
        log=log,
        schema=dict(rows.collect_schema()),
        renamed={theirs: own for own, theirs in source.field_mapping.items()},
        place=f"source {source.name!r}",
    )


def scan(source: DataSource, repo_path: str | Path | None) -> pl.LazyFrame:
    """The rows of a source as they are; nothing is read yet.

    Raises:
        OptionError: If it is of a kind that this store cannot read.
    """
    if isinstance(source, LogSource):
        return source.open(repo_path).scan()
    if isinstance(source, FileSource):
        return _scan_file(source, repo_path)
    if hasattr(source, "to_arrow"):
        return pl.DataFrame(source.to_arrow()).lazy()
    raise OptionError(
        f"source {source.name!r} is a {type(source).__name__}, which this store cannot read",
        "use a FileSource (Parquet or Delta) or serving.feast_support.sources.LogSource.",
    )


def file_address(source: FileSource, repo_path: str | Path | None) -> str:
    """Where a file source is; a relative path is taken from the feature repository's folder."""
    return str(FileSource.get_uri_for_file_path(repo_path=repo_path, uri=source.path))


def storage_options(source: FileSource) -> dict[str, str] | None:
    """How to reach the object storage of a file source; None leaves it to the environment."""
    options = dict(source.resolve_credentials() or {})
    if source.s3_endpoint_override:
        options["AWS_ENDPOINT_URL"] = source.s3_endpoint_override
        if source.s3_endpoint_override.startswith("http://"):
            options["AWS_ALLOW_HTTP"] = "true"
    return options or None


def is_delta(source: FileSource) -> bool:
    """Whether a file source is a Delta table."""
    return isinstance(source.file_format, DeltaFormat)


def _scan_file(source: FileSource, repo_path: str | Path | None) -> pl.LazyFrame:
    address, options = file_address(source, repo_path), storage_options(source)
    if is_delta(source):
        return pl.scan_delta(address, storage_options=options)
    if source.file_format is not None and not isinstance(source.file_format, ParquetFormat):
        raise OptionError(
            f"source {source.name!r} has the format {type(source.file_format).__name__}, which this store cannot read",
            "use ParquetFormat() or DeltaFormat().",
        )
    if Path(address).is_dir():
        address = str(Path(address) / "**" / "*.parquet")
    return pl.scan_parquet(address, storage_options=options, hive_partitioning=False, missing_columns="insert")


def instant(name: str, kind: pl.DataType, *, up: bool = True) -> pl.Expr:
    """A column as instants in UTC microseconds; at Feast's border naive times are UTC (R15).

    Args:
        name: The column.
        kind: Its type: Datetime, Date (midnight) or String (ISO 8601).
        up: Round nanoseconds up, as events and arrivals are; else down.

    Raises:
        OptionError: If it is no instant.
    """
    column = pl.col(name)
    if kind == pl.String:
        return column.str.to_datetime(time_zone="UTC", time_unit="us")
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(kind, pl.Datetime):
        raise OptionError(f"column {name!r} is {kind}, not an instant", "Feast's time columns are timestamps.")
    if kind.time_unit == "ns":
        number = column.to_physical()
        return (-((-number) // 1000) if up else number // 1000).cast(INSTANT)
    number = column.to_physical() * 1000 if kind.time_unit == "ms" else column.to_physical()
    return number.cast(INSTANT)


def for_feast(values: pl.Series) -> pl.Series:
    """A column in types that Feast has: ages as seconds, categories as texts."""
    if isinstance(values.dtype, pl.Duration):
        return values.cast(pl.Duration("us")).to_physical() / 1_000_000
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        return values.cast(pl.String)
    return values


def arrow_table(columns: Iterable[pl.Series]) -> Any:
    """Columns as an Arrow table in the types that Feast knows by name: `string`, not `large_string`."""
    import pyarrow as pa

    arrays, fields = [], []
    for values in columns:
        array = for_feast(values).to_arrow(compat_level=pl.CompatLevel.oldest())
        array = array.cast(_short(array.type))
        arrays.append(array)
        fields.append(pa.field(values.name, array.type))
    return pa.table(arrays, schema=pa.schema(fields))


def _short(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_large_list(kind):
        return pa.list_(pa.field("item", _short(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("item", _short(kind.value_type)), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _short(field.type)) for field in kind])
    return kind
