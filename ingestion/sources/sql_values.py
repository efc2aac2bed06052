"""What databases answer, as Arrow; and where a reading stopped, as JSON that keeps every type."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import polars as pl

from ingestion.sources.values import column_of

_MOST_DIGITS = 38


def to_arrow(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Rows as an Arrow IPC stream.

    Instants with an offset become UTC; those without stay without. Decimals stay decimals. What Arrow has no common type for
    becomes text.

    Args:
        names: The columns' names, all different.
        rows: The values, row by row.
    """
    columns = [_column(name, [row[at] for row in rows]) for at, name in enumerate(names)]
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_ipc_stream(buffer)
    return buffer.getvalue()


def _column(name: str, values: list[Any]) -> pl.Series:
    values = [bytes(value) if isinstance(value, memoryview | bytearray) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {datetime}:
        aware = {value.tzinfo is not None for value in values if value is not None}
        if aware == {True}:
            utc = [None if value is None else value.astimezone(UTC) for value in values]
            return pl.Series(name, utc, dtype=pl.Datetime("us", "UTC"))
        if aware == {False}:
            return pl.Series(name, values, dtype=pl.Datetime("us"))
    elif len(kinds) == 1 and (dtype := _SIMPLE.get(next(iter(kinds)))) is not None:
        return pl.Series(name, values, dtype=dtype)
    elif Decimal in kinds and kinds <= {Decimal, int}:
        decimals = [None if value is None else Decimal(value) for value in values]
        if (scale := _scale(decimals)) is not None:
            return pl.Series(name, decimals, dtype=pl.Decimal(_MOST_DIGITS, scale))
    return column_of(name, [_plain(value) for value in values])


_SIMPLE: dict[type, pl.DataType] = {
    date: pl.Date(),
    time: pl.Time(),
    timedelta: pl.Duration("us"),
    bytes: pl.Binary(),
}


def _scale(decimals: list[Decimal | None]) -> int | None:
    """The digits after the point that hold all values; `None` if no decimal type does."""
    before = after = 0
    for value in decimals:
        if value is None:
            continue
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):  # NaN, infinity
            return None
        after = max(after, -exponent)
        before = max(before, len(digits) + exponent)
    return after if before + after <= _MOST_DIGITS else None


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


# ---- positions -------------------------------------------------------------------------------------------------------


def encode_value(value: Any) -> dict[str, Any]:
    """A cursor's value as JSON that says its type.

    Raises:
        ValueError: If it is null, NaN, or of a type that has no order.

    Example:
        >>> encode_value(Decimal("1.50"))
        {'type': 'decimal', 'value': '1.50'}
    """
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no value to go on from")
    if isinstance(value, int):
        return {"type": "int", "value": value}
    if isinstance(value, float) and not math.isnan(value):
        return {"type": "float", "value": value.hex()}
    if isinstance(value, Decimal) and not value.is_nan():
        return {"type": "decimal", "value": str(value)}
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return {"type": "local", "value": value.isoformat()}
        return {"type": "instant", "value": value.astimezone(UTC).isoformat()}
    if isinstance(value, date):
        return {"type": "date", "value": value.isoformat()}
    if isinstance(value, str):
        return {"type": "text", "value": value}
    if isinstance(value, UUID):
        return {"type": "uuid", "value": str(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"type": "bytes", "value": bytes(value).hex()}
    raise ValueError(f"{value!r} of type {type(value).__name__} is no value to go on from")


def decode_value(encoded: dict[str, Any]) -> Any:
    """The value that `encode_value` encoded."""
    value = encoded["value"]
    match encoded["type"]:
        case "float":
            return float.fromhex(value)
        case "decimal":
            return Decimal(value)
        case "instant" | "local":
            return datetime.fromisoformat(value)
        case "date":
            return date.fromisoformat(value)
        case "uuid":
            return UUID(value)
        case "bytes":
            return bytes.fromhex(value)
    return value


def step_back(value: Any, overlap: timedelta | int) -> Any:
    """A value some way before another.

    Raises:
        ValueError: If there is no such way, e.g. from a text, or by a duration from a number.
    """
    if isinstance(overlap, timedelta):
        if isinstance(value, datetime):
            return value - overlap
        if isinstance(value, date):  # whole days, and one more for the part that is none
            return value - timedelta(days=-(-overlap // timedelta(days=1)))
        raise ValueError(f"overlap is a duration, but the cursor column holds {type(value).__name__}")
    if isinstance(value, int | float | Decimal):
        return value - overlap
    raise ValueError(f"overlap is a number, but the cursor column holds {type(value).__name__}")
