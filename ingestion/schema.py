"""Columns: what a log stores, as what, and since when.

Delta knows fewer types than Polars. A column is stored as the nearest type that loses nothing (`stored_type`), and the
field's metadata remembers the type that was meant, since which `log_sequence` the column could carry a value, and the
names it had before.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace

import polars as pl
from deltalake import Field, Schema

from ingestion.errors import ColumnTypeError

INSTANT = pl.Datetime("us", "UTC")

SYSTEM_COLUMNS: dict[str, pl.DataType] = {
    "event_time": INSTANT,
    "arrival_time": INSTANT,
    "received_time": INSTANT,
    "published_time": INSTANT,
    "issue_time": INSTANT,
    "arrival_kind": pl.String(),
    "is_retraction": pl.Boolean(),
    "log_sequence": pl.Int64(),
    "batch_id": pl.String(),
    "record_kind": pl.String(),
    "record_detail": pl.String(),
}
TIME_COLUMNS = ("event_time", "arrival_time", "received_time", "published_time", "issue_time")
STATS_COLUMNS = ("event_time", "arrival_time", "issue_time", "log_sequence", "record_kind")
"""The columns whose smallest and greatest values stand in the Delta log. Never keys or values: they name people."""

_PLAIN: tuple[pl.DataType, ...] = (
    pl.Int8(),
    pl.Int16(),
    pl.Int32(),
    pl.Int64(),
    pl.Float32(),
    pl.Float64(),
    pl.Boolean(),
    pl.String(),
    pl.Binary(),
    pl.Date(),
    INSTANT,
)
_STORED: dict[pl.DataType, pl.DataType] = {
    pl.UInt8(): pl.Int16(),
    pl.UInt16(): pl.Int32(),
    pl.UInt32(): pl.Int64(),
    pl.UInt64(): pl.Decimal(20, 0),
    pl.Time(): pl.Int64(),
    pl.Categorical(): pl.String(),
}
_SINCE, _TYPE, _ALIASES = "asknown.since", "asknown.type", "asknown.aliases"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of entities or values.

    Attributes:
        name: Its name now.
        dtype: The Polars type that it is read as.
        since: The first `log_sequence` that could carry it; 0 if it was there from the start.
        aliases: Names it had before; a question may still use them.
    """

    name: str
    dtype: pl.DataType
    since: int = 0
    aliases: tuple[str, ...] = ()

    @property
    def stored(self) -> pl.DataType:
        """The type in the files."""
        return stored_type(self.dtype, self.name)


def stored_type(dtype: pl.DataType, column: str, place: str = "the batch") -> pl.DataType:
    """The type that a column of `dtype` has in the files; nothing is lost on the way there and back.

    Args:
        dtype: A Polars type.
        column: The column's name, for the message.
        place: Where the column was found, for the message.

    Returns:
        A type that Delta knows.

    Raises:
        ColumnTypeError: If there is none.

    Example:
        >>> stored_type(pl.UInt8(), "level")
        Int16
    """
    if dtype in _PLAIN or isinstance(dtype, pl.Decimal):
        return dtype
    if dtype in _STORED:
        return _STORED[dtype]
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return pl.Int64()
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_nested(dtype.inner, column, place))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _nested(field.dtype, column, place) for field in dtype.fields})
    hint = (
        f"every value is null: cast it, e.g. pl.col({column!r}).cast(pl.Float64)."
        if dtype == pl.Null
        else f"cast it to a type that Arrow tables keep, e.g. pl.col({column!r}).cast(pl.Float64)."
    )
    raise ColumnTypeError(column, dtype, place, hint)


def _nested(inner: object, column: str, place: str) -> pl.DataType:
    dtype = inner if isinstance(inner, pl.DataType) else pl.Float64()
    if isinstance(dtype, pl.Datetime | pl.Duration | pl.Time | pl.Enum | pl.Categorical) and dtype != INSTANT:
        raise ColumnTypeError(
            column, dtype, place, f"inside lists and structs use pl.Datetime('us', 'UTC') or text; cast {column!r}."
        )
    return stored_type(dtype, column, place)


def to_stored(column: Column) -> pl.Expr:
    """An expression that turns the column into what the files hold."""
    source = pl.col(column.name)
    if isinstance(column.dtype, pl.Datetime | pl.Duration | pl.Time) and column.dtype != INSTANT:
        return source.to_physical().cast(pl.Int64)
    return source if column.stored == column.dtype else source.cast(column.stored)


def from_stored(column: Column) -> pl.Expr:
    """An expression that turns what the files hold into the column."""
    source = pl.col(column.name)
    return source if column.stored == column.dtype else source.cast(column.dtype)


def delta_fields(columns: list[Column]) -> list[Field]:
    """The Delta fields of `columns`, with what Delta cannot say in their metadata."""
    empty = pl.DataFrame(schema={column.name: column.stored for column in columns})
    plain = Schema.from_arrow(empty.to_arrow().schema).fields
    return [
        Field(field.name, field.type, nullable=True, metadata=_metadata(column))
        for field, column in zip(plain, columns, strict=True)
    ]


def system_fields() -> list[Field]:
    """The Delta fields that every log has."""
    empty = pl.DataFrame(schema=SYSTEM_COLUMNS)
    return [Field(f.name, f.type, nullable=True) for f in Schema.from_arrow(empty.to_arrow().schema).fields]


def columns_of(schema: Schema) -> list[Column]:
    """The entity and value columns that a Delta schema describes, in its order."""
    return [_column(field) for field in schema.fields if field.name not in SYSTEM_COLUMNS]


def renamed(column: Column, name: str) -> Column:
    """The same column under another name; the old one stays an alias."""
    return replace(column, name=name, aliases=(*column.aliases, column.name))


def _metadata(column: Column) -> dict[str, str]:
    metadata = {_SINCE: str(column.since), _TYPE: _encode(column.dtype)}
    if column.aliases:
        metadata[_ALIASES] = json.dumps(list(column.aliases))
    return metadata


def _column(field: Field) -> Column:
    metadata = field.metadata
    aliases = tuple(json.loads(str(metadata.get(_ALIASES, "[]"))))
    return Column(field.name, _decode(str(metadata[_TYPE])), int(str(metadata.get(_SINCE, "0"))), aliases)


_BY_NAME = {str(dtype): dtype for dtype in (*_PLAIN, *_STORED)}


def _encode(dtype: pl.DataType) -> str:
    """A simple type by its name, any other as an empty Arrow stream."""
    if str(dtype) in _BY_NAME and _BY_NAME[str(dtype)] == dtype:
        return str(dtype)
    buffer = io.BytesIO()
    pl.DataFrame(schema={"c": dtype}).write_ipc(buffer, compat_level=pl.CompatLevel.newest())
    return f"{dtype} " + base64.b64encode(buffer.getvalue()).decode()


def _decode(text: str) -> pl.DataType:
    if text in _BY_NAME:
        return _BY_NAME[text]
    buffer = io.BytesIO(base64.b64decode(text.rsplit(" ", 1)[1]))
    return pl.read_ipc(buffer).schema["c"]
