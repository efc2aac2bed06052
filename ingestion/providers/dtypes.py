"""Column types as a declaration writes them: `Float64`, `Datetime(us, UTC)`, `Array(Float32, 4)`."""

from __future__ import annotations

import difflib
import re

import polars as pl

from ingestion.errors import ColumnTypeError
from ingestion.schema import stored_type

_SIMPLE: dict[str, pl.DataType] = {
    str(dtype): dtype
    for dtype in (
        pl.Float64(),
        pl.Float32(),
        pl.Int8(),
        pl.Int16(),
        pl.Int32(),
        pl.Int64(),
        pl.UInt8(),
        pl.UInt16(),
        pl.UInt32(),
        pl.UInt64(),
        pl.Boolean(),
        pl.String(),
        pl.Binary(),
        pl.Date(),
        pl.Time(),
    )
}
_USUAL = {
    "float": "Float64",
    "double": "Float64",
    "f64": "Float64",
    "f32": "Float32",
    "real": "Float64",
    "number": "Float64",
    "int": "Int64",
    "integer": "Int64",
    "i64": "Int64",
    "long": "Int64",
    "str": "String",
    "text": "String",
    "utf8": "String",
    "bool": "Boolean",
    "bytes": "Binary",
    "datetime": "Datetime(us, UTC)",
    "timestamp": "Datetime(us, UTC)",
    "list": "List(Float64)",
}
_UNITS = ("us", "ms", "ns")


def parse_dtype(text: str) -> pl.DataType:
    """The Polars type that a text names.

    Args:
        text: `Float64`, `Int32`, `String`, `Boolean`, `Date`, `Binary`, ..., `Datetime(us, UTC)`, `Duration(us)`,
            `Decimal(10, 2)`, `List(Float32)`, `Array(Float32, 4)`.

    Raises:
        ValueError: If it names none that a log can keep; the message says which is nearest.

    Example:
        >>> parse_dtype("Array(Float32, 4)")
        Array(Float32, shape=(4,))
    """
    dtype = _parse(text.strip())
    try:
        stored_type(dtype, "the column")
    except ColumnTypeError as error:
        raise ValueError(f"{text!r} cannot be kept in a log; {error.hint}") from error
    return dtype


def dtype_text(dtype: pl.DataType) -> str:
    """How a declaration writes a type; `parse_dtype` reads it back.

    Example:
        >>> dtype_text(pl.Datetime("us", "UTC"))
        'Datetime(us, UTC)'
    """
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit}, {dtype.time_zone})" if dtype.time_zone else f"Datetime({dtype.time_unit})"
    if isinstance(dtype, pl.Duration):
        return f"Duration({dtype.time_unit})"
    if isinstance(dtype, pl.Decimal):
        return f"Decimal({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.Array):
        return f"Array({dtype_text(_inner(dtype))}, {dtype.size})"
    if isinstance(dtype, pl.List):
        return f"List({dtype_text(_inner(dtype))})"
    return str(dtype)


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def _parse(text: str) -> pl.DataType:
    """The type, nested ones by their parts.

    Raises:
        ValueError: If the text is none.
    """
    if text in _SIMPLE:
        return _SIMPLE[text]
    composed = re.fullmatch(r"(\w+)\((.*)\)", text)
    if composed is None:
        raise ValueError(_unknown(text))
    name, inside = composed.groups()
    head, comma, tail = (part.strip() for part in inside.rpartition(","))
    if name == "List":
        return pl.List(_parse(inside.strip()))
    if name == "Array" and comma and tail.isdigit() and int(tail):
        return pl.Array(_parse(head), int(tail))
    if name == "Decimal" and comma and head.isdigit() and tail.isdigit() and 0 < int(head) <= 38:
        return pl.Decimal(int(head), int(tail))
    if name == "Duration" and inside.strip() in _UNITS:
        return pl.Duration(inside.strip())  # type: ignore[arg-type]
    if name == "Datetime" and (head or tail) in _UNITS:
        return pl.Datetime(head or tail, tail if comma else None)  # type: ignore[arg-type]
    raise ValueError(_unknown(text))


def _unknown(text: str) -> str:
    known = [*_SIMPLE, "Datetime(us, UTC)", "Duration(us)", "Decimal(10, 2)", "List(Float64)", "Array(Float32, 4)"]
    usual = _USUAL.get(text.casefold())
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(text.casefold(), folded, n=1, cutoff=0.6)
    nearest = usual or (folded[close[0]] if close else None)
    hint = f"did you mean {nearest!r}?" if nearest else f"it is one of {', '.join(known)}."
    return f"{text!r} is no type of a column; {hint}"
