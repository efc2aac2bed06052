"""Types and values between Polars and Feast.

Feast's values hold no null inside a list and no part of a second. So a sequence of numbers or booleans becomes an array of
floats, in which NaN stands for null; in other arrays null is the type's empty value. Instants lose what is below a second.
Ages are seconds, as floats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as PythonDecimal
from typing import Any, Final, cast

import polars as pl
from feast import types as feast
from feast.protos.feast.types.Value_pb2 import Value

from serving.errors import OptionError

_INSTANT: Final = pl.Datetime("us", "UTC")
_TO_FEAST: Final[tuple[tuple[tuple[type[pl.DataType], ...], feast.PrimitiveFeastType], ...]] = (
    ((pl.Boolean,), feast.Bool),
    ((pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16), feast.Int32),
    ((pl.Int64, pl.UInt32, pl.UInt64), feast.Int64),
    ((pl.Float32,), feast.Float32),
    ((pl.Float64, pl.Duration), feast.Float64),
    ((pl.String, pl.Categorical, pl.Enum), feast.String),
    ((pl.Binary,), feast.Bytes),
    ((pl.Datetime, pl.Date), feast.UnixTimestamp),
    ((pl.Decimal,), feast.Decimal),
    ((pl.Struct,), feast.Json),
)
_TO_POLARS: Final[dict[feast.PrimitiveFeastType, pl.DataType]] = {
    feast.Bool: pl.Boolean(),
    feast.Int32: pl.Int32(),
    feast.Int64: pl.Int64(),
    feast.Float32: pl.Float32(),
    feast.Float64: pl.Float64(),
    feast.String: pl.String(),
    feast.Bytes: pl.Binary(),
    feast.PdfBytes: pl.Binary(),
    feast.ImageBytes: pl.Binary(),
    feast.UnixTimestamp: _INSTANT,
}
_FIELDS: Final[dict[feast.PrimitiveFeastType, str]] = {
    feast.Bool: "bool",
    feast.Int32: "int32",
    feast.Int64: "int64",
    feast.Float32: "float",
    feast.Float64: "double",
    feast.String: "string",
    feast.Bytes: "bytes",
    feast.PdfBytes: "bytes",
    feast.ImageBytes: "bytes",
    feast.UnixTimestamp: "unix_timestamp",
    feast.Decimal: "decimal",
    feast.Json: "json",
}
_EMPTY: Final[dict[str, Any]] = {
    "bool": False,
    "int32": 0,
    "int64": 0,
    "float": math.nan,
    "double": math.nan,
    "string": "",
    "bytes": b"",
    "unix_timestamp": -(2**63),  # what Feast itself writes for NaT
    "decimal": "",
    "json": "null",
}


def feast_type(dtype: pl.DataType, *, padded: bool = False) -> feast.FeastType:
    """Feast's type of the values of a Polars type.

    Args:
        dtype: The type in Polars.
        padded: Whether lists of it hold nulls, as those of `sequence` do: then integers and booleans become floats.

    Raises:
        OptionError: If Feast has none.
    """
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
        whole = inner.is_integer() or inner == pl.Boolean
        return feast.Array(feast.Float64 if padded and whole else feast_type(inner))
    for known, found in _TO_FEAST:
        if isinstance(dtype, known):
            return found
    raise OptionError(f"Feast has no type for {dtype}", "derive a number or a text from it, or leave it out.")


def polars_type(dtype: feast.FeastType) -> pl.DataType:
    """How a column of a Feast type is stored; what has no Polars type is kept as Feast's own bytes."""
    inner = dtype.base_type if isinstance(dtype, feast.Array) else dtype
    found = _TO_POLARS.get(inner) if isinstance(inner, feast.PrimitiveFeastType) else None
    if found is None:
        return pl.Binary()
    return pl.List(found) if isinstance(dtype, feast.Array) else found


def is_opaque(dtype: feast.FeastType) -> bool:
    """Whether values of a Feast type are stored as Feast's own bytes."""
    inner = dtype.base_type if isinstance(dtype, feast.Array) else dtype
    return not isinstance(inner, feast.PrimitiveFeastType) or inner not in _TO_POLARS


def encoder(dtype: feast.FeastType, *, opaque: bool = False) -> Callable[[Any], Value]:
    """What makes Feast's message of a value of a column; null is the empty message.

    Args:
        dtype: Feast's type.
        opaque: The column holds Feast's own bytes.
    """
    if opaque:
        return lambda value: Value() if value is None else Value.FromString(value)
    if isinstance(dtype, feast.Array):
        return _list_encoder(dtype.base_type)
    field = _FIELDS[cast("feast.PrimitiveFeastType", dtype)]
    name, convert = f"{field}_val", _plain(field)
    return lambda value: Value() if value is None else Value(**{name: convert(value)})


def _list_encoder(inner: Any) -> Callable[[Any], Value]:
    if not isinstance(inner, feast.PrimitiveFeastType):
        each = encoder(inner)

        def nested(value: Any) -> Value:
            message = Value()
            if value is not None:
                message.list_val.val.extend(each(item) for item in value)
                message.list_val.SetInParent()
            return message

        return nested
    field = _FIELDS[inner]
    name, empty, convert = f"{field}_list_val", _EMPTY[field], _plain(field)

    def flat(value: Any) -> Value:
        message = Value()
        if value is not None:
            found = getattr(message, name)
            found.SetInParent()
            found.val.extend(empty if item is None else convert(item) for item in value)
        return message

    return flat


def _plain(field: str) -> Callable[[Any], Any]:
    """From what Polars hands out to what the message takes."""
    if field == "unix_timestamp":
        return _seconds
    if field in {"double", "float"}:
        return lambda value: value.total_seconds() if isinstance(value, timedelta) else float(value)
    if field == "decimal":
        return str
    if field == "json":
        return lambda value: json.dumps(value, default=str)
    return lambda value: value


def _seconds(value: date) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return math.floor(value.timestamp())


def decoded(message: Value) -> Any:
    """What Python calls the value of a message: a number, a text, bytes, an instant, a list; None for null."""
    name = message.WhichOneof("val")
    if name is None or name == "null_val":
        return None
    found = getattr(message, name)
    if name == "unix_timestamp_val":
        return _instant(found)
    if name == "unix_timestamp_list_val":
        return [_instant(item) for item in found.val]
    if name == "decimal_val":
        return PythonDecimal(found)
    return list(found.val) if name.endswith("_list_val") and hasattr(found, "val") else found


def _instant(seconds: int) -> datetime | None:
    return None if seconds == _EMPTY["unix_timestamp"] else datetime.fromtimestamp(seconds, UTC)


def column(messages: Iterable[Value | None], dtype: feast.FeastType) -> pl.Series:
    """Messages of one Feast type as a column to be stored."""
    if is_opaque(dtype):
        kept = [None if m is None or m.WhichOneof("val") is None else m.SerializeToString() for m in messages]
        return pl.Series(kept, dtype=pl.Binary)
    return pl.Series([None if m is None else decoded(m) for m in messages], dtype=polars_type(dtype))
