"""What Feast is asked: entity frames, SQL, or a range of time; and the spine that each becomes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
from feast.errors import EntityTimestampInferenceException, FeastEntityDFMissingColumnsError

from serving.errors import OptionError
from serving.feast_support.reading import INSTANT, arrow_table, instant, scan

if TYPE_CHECKING:
    from feast.data_source import DataSource

EVENT_TIMESTAMP: Final = "event_timestamp"


@dataclass(frozen=True, slots=True)
class Asked:
    """An entity frame.

    Attributes:
        table: Its rows as Arrow, in their order; the time column in UTC.
        time: The name of the column of prediction times.
        t: The prediction times, Datetime("us", "UTC").
    """

    table: pa.Table
    time: str
    t: pl.Series

    @property
    def first(self) -> datetime | None:
        """The earliest prediction time."""
        return self.t.min()  # type: ignore[return-value]

    @property
    def last(self) -> datetime | None:
        """The latest prediction time."""
        return self.t.max()  # type: ignore[return-value]

    def column(self, name: str) -> pl.Series:
        """One column of the frame.

        Raises:
            FeastEntityDFMissingColumnsError: If there is none.
        """
        if name not in self.table.column_names:
            raise FeastEntityDFMissingColumnsError({name, self.time}, {name})
        return pl.Series(name, self.table.column(name))


def read_entities(frame: Any) -> Asked:
    """An entity frame in memory: pandas, Arrow, or Polars.

    Prediction times are the column `event_timestamp`, or the only column of times there is.

    Raises:
        EntityTimestampInferenceException: If no column of times can be told from the others.
        OptionError: If a prediction time is null or no instant.
    """
    if hasattr(frame, "__arrow_c_stream__") and not hasattr(frame, "iloc"):
        table = pa.table(frame)
    else:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    name = _time_column(table)
    return _asked(table, name)


def query_entities(query: str, sources: Sequence[DataSource], repo_path: str | Path | None) -> Asked:
    """An entity frame from SQL, run by DuckDB in the feature repository's folder.

    Args:
        query: The SQL. It may read files (`FROM read_parquet('orders.parquet')`) and name batch sources of the registry.
        sources: The registry's batch sources.
        repo_path: The feature repository's folder.

    Raises:
        OptionError: If the query fails.
        EntityTimestampInferenceException: If its result has no column of times.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if repo_path is not None:
            connection.execute("SET file_search_path = $folder", {"folder": str(Path(repo_path).resolve())})
        for source in sources:
            if re.search(rf"(?<!\w){re.escape(source.name)}(?!\w)", query):
                connection.register(source.name, scan(source, repo_path).collect().to_arrow())
        try:
            table = connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            raise OptionError(
                f"the SQL of the entity frame failed: {error}",
                "it is DuckDB's SQL: name files (read_parquet('orders.parquet')) or batch sources of the registry.",
            ) from error
    return _asked(table, _time_column(table))


def one_instant(keys: pl.DataFrame, t: datetime) -> Asked:
    """Every entity at one prediction time."""
    frame = keys.with_columns(pl.lit(t, INSTANT).alias(EVENT_TIMESTAMP))
    frame = frame.select(EVENT_TIMESTAMP, *keys.columns)
    return Asked(arrow_table(frame.get_columns()), EVENT_TIMESTAMP, frame[EVENT_TIMESTAMP])


def _time_column(table: pa.Table) -> str:
    if EVENT_TIMESTAMP in table.column_names:
        return EVENT_TIMESTAMP
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise EntityTimestampInferenceException(EVENT_TIMESTAMP)
    return str(times[0])


def _asked(table: pa.Table, name: str) -> Asked:
    place = table.column_names.index(name)
    column = table.column(place)
    if column.null_count:
        raise OptionError(
            f"{name!r} of the entity frame is null in {column.null_count} rows",
            f'drop them: entity_df.dropna(subset=["{name}"]).',
        )
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        import pandas as pd

        column = pa.chunked_array(
            [pa.Array.from_pandas(pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601"))]
        )
    elif pa.types.is_date(kind):
        column = column.cast(pa.timestamp("us"))
    elif not pa.types.is_timestamp(kind):
        raise OptionError(f"{name!r} of the entity frame is {kind}, not an instant", "use pandas.to_datetime.")
    changed = column.type != kind
    if column.type.tz != "UTC":  # a zone is how an instant is shown; naive times are UTC at this border
        column, changed = column.cast(pa.timestamp(column.type.unit, "UTC")), True
    if changed:
        table = table.set_column(place, name, column).replace_schema_metadata(None)
    series = pl.Series(name, column)
    t = series.to_frame().select(instant(name, series.dtype, up=False)).to_series()
    return Asked(table, name, t)
