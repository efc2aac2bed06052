"""Frames of Spark, and what their columns are in Polars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from alignment.errors import ColumnTypeError, DefinitionError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

_BATCH_BYTES = 8 << 20
_WIDER: dict[Any, pl.DataType] = {
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(20, 0),
    pl.Categorical: pl.String(),
    pl.Enum: pl.String(),
}


def is_spark_frame(frame: Any) -> bool:
    """Whether it is a DataFrame of Spark, classic or Connect; Spark is not imported to find out."""
    return type(frame).__module__.startswith("pyspark.sql.") and hasattr(frame, "mapInArrow")


def session_of(spark: SparkSession | None) -> SparkSession:
    """The session that is given, else the active one.

    Raises:
        DefinitionError: If there is none, or PySpark is not installed.
    """
    try:
        from pyspark.sql import SparkSession as Session
    except ImportError as error:
        raise DefinitionError(
            'engine="spark" needs PySpark, which is not installed', "pip install 'asknown[spark]'"
        ) from error
    found = spark if spark is not None else Session.getActiveSession()
    if found is None:
        raise DefinitionError(
            'engine="spark" needs a Spark session, and none is active',
            "start one, e.g. spark = SparkSession.builder.getOrCreate(), or pass spark=.",
        )
    return found


def polars_schema(frame: DataFrame) -> dict[str, pl.DataType]:
    """The types that a Spark frame's rows have once they are in Polars; instants are in UTC."""
    from pyspark.sql.pandas.types import to_arrow_schema

    return dict(pl.DataFrame(to_arrow_schema(frame.schema, timezone="UTC").empty_table()).schema)


def by_place(frame: DataFrame) -> DataFrame:
    """The frame, its columns named c0, c1, ...: Spark takes dots and backticks in names apart, and capitals for small letters."""
    return frame.toDF(*(f"c{place}" for place in range(len(frame.columns))))


def chosen(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Some columns of a frame, whatever they are called."""
    columns = frame.columns
    return by_place(frame).select(*(f"c{columns.index(name)}" for name in names)).toDF(*names)


def refusing(frame: DataFrame, place: str) -> pl.LazyFrame:
    """A lazy frame with a Spark frame's columns that cannot be collected: its rows stay in Spark."""
    from polars.io.plugins import register_io_source

    def refuse(*_: object) -> Iterator[pl.DataFrame]:
        raise DefinitionError(
            f"{place} are in Spark, and this is computed here",
            'pass engine="spark", or bring the rows here: pl.from_arrow(frame.toArrow()).',
        )

    return register_io_source(refuse, schema=polars_schema(frame))


def plain_schema(schema: Mapping[str, pl.DataType], place: str) -> dict[str, pl.DataType]:
    """Types that Spark has, which hold every value of the columns: wider numbers, texts of categories, lists.

    Args:
        schema: Columns in Polars.
        place: What to call the frame in messages.

    Raises:
        ColumnTypeError: If there is none for a column.

    Example:
        >>> plain_schema({"size": pl.UInt32(), "kind": pl.Enum(["a"])}, "the spine")
        {'size': Int64, 'kind': String}
    """
    return {name: _plain(kind, name, place) for name, kind in schema.items()}


def _plain(kind: pl.DataType, name: str, place: str) -> pl.DataType:
    wider = _WIDER.get(kind.base_type())
    if wider is not None:
        return wider
    if isinstance(kind, pl.Datetime | pl.Duration) and kind.time_unit == "ns":
        raise ColumnTypeError(
            f"{place}: {name!r} is {kind}, and Spark keeps no nanoseconds",
            f'e.g. pl.col("{name}").dt.cast_time_unit("us").',
        )
    if isinstance(kind, pl.Datetime):
        return pl.Datetime("us", "UTC" if kind.time_zone else None)
    if isinstance(kind, pl.Duration):
        return pl.Duration("us")
    if isinstance(kind, pl.List | pl.Array):
        return pl.List(_plain(cast("pl.DataType", kind.inner), name, place))
    if isinstance(kind, pl.Struct):
        return pl.Struct({one.name: _plain(cast("pl.DataType", one.dtype), name, place) for one in kind.fields})
    if kind in (pl.Time, pl.Int128, pl.UInt128, pl.Object, pl.Unknown):
        raise ColumnTypeError(f"{place}: {name!r} is {kind}, and Spark has no such type", "cast it, e.g. to text.")
    return kind


def spark_schema(plain: Mapping[str, pl.DataType]) -> StructType:
    """Columns of `plain_schema` as Spark declares them."""
    from pyspark.sql.types import StructField, StructType

    return StructType([StructField(name, _spark_type(kind)) for name, kind in plain.items()])


def _spark_type(kind: pl.DataType) -> DataType:
    from pyspark.sql import types

    simple: dict[Any, DataType] = {
        pl.Boolean: types.BooleanType(),
        pl.Int8: types.ByteType(),
        pl.Int16: types.ShortType(),
        pl.Int32: types.IntegerType(),
        pl.Int64: types.LongType(),
        pl.Float32: types.FloatType(),
        pl.Float64: types.DoubleType(),
        pl.String: types.StringType(),
        pl.Binary: types.BinaryType(),
        pl.Date: types.DateType(),
        pl.Duration: types.DayTimeIntervalType(),
        pl.Null: types.NullType(),
    }
    if isinstance(kind, pl.Datetime):
        return types.TimestampType() if kind.time_zone else types.TimestampNTZType()
    if isinstance(kind, pl.Decimal):
        return types.DecimalType(kind.precision or 38, kind.scale)
    if isinstance(kind, pl.List):
        return types.ArrayType(_spark_type(cast("pl.DataType", kind.inner)))
    if isinstance(kind, pl.Struct):
        fields = [types.StructField(one.name, _spark_type(cast("pl.DataType", one.dtype))) for one in kind.fields]
        return types.StructType(fields)
    return simple[kind.base_type()]


def arrow_batches(frame: pl.DataFrame, plain: Mapping[str, pl.DataType]) -> Iterator[pa.RecordBatch]:
    """A Polars frame as Spark takes it from a function, in batches of a few MiB."""
    from pyspark.sql.pandas.types import to_arrow_schema

    target = to_arrow_schema(spark_schema(plain), timezone="UTC")
    rows = max(1, int(frame.height * _BATCH_BYTES / max(frame.estimated_size(), 1)))
    for piece in frame.select(list(plain)).iter_slices(min(rows, 1 << 16)):
        table = piece.cast(pl.Schema(plain)).to_arrow(compat_level=pl.CompatLevel.oldest())
        yield from table.cast(target).to_batches()


def from_batches(batches: list[pa.RecordBatch], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """What Spark hands to a function, as Polars, with the names and in the types of `polars_schema`; columns by their place."""
    import pyarrow as pa

    table = pa.Table.from_batches(batches).rename_columns(list(schema))
    return cast("pl.DataFrame", pl.from_arrow(table)).cast(pl.Schema(schema))
