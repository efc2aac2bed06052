"""Quarantined payloads made rows again: JSON in the types of the log, with what an operator changed."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from ingestion.errors import BatchError, ColumnTypeError, IngestionError
from ingestion.instants import from_us, to_us
from ingestion.schema import INSTANT, SYSTEM_COLUMNS
from ingestion.table import LogTable

SEQUENCE = "__sequence"
_NOT_AGAIN = ("arrival_time", "arrival_kind", "log_sequence", "batch_id", "record_kind", "record_detail")
_LIST_OF_NAMES = pl.List(pl.String())
_FINE = re.compile(r"\.(\d{6})(\d{1,3})(?!\d)")
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?")
_ISO_DURATION = re.compile(r"(-?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,9}))?S)?)?")


def rows_of(
    table: LogTable,
    picked: pl.DataFrame,
    *,
    changes: Mapping[str, Any],
    rename: Mapping[str, str],
    parse: Callable[[bytes], pl.DataFrame] | None,
) -> tuple[list[pl.DataFrame], dict[int, str], list[int], list[int]]:
    """The rows in quarantined payloads.

    Args:
        table: The log, whose columns give the types.
        picked: `log_sequence`, `reason`, `payload` and `form` of quarantined rows.
        changes: Columns to set in all rows; text is read as the column's type.
        rename: Names in the payload to names in the log.
        parse: Reads payloads that gave no rows when they came.

    Returns:
        The rows as frames, in each those that have the same columns, with the `log_sequence` of their payload as
        `__sequence`; why other payloads give none, by `log_sequence`; which payloads `parse` read; and which of these
        hold no row.

    Raises:
        BatchError: If a changed or renamed column is the log's own to fill.
        ColumnTypeError: If a value for a column cannot be read in its type.
    """
    _check_names(table, changes, rename)
    types = _types(table)
    held: dict[int, str] = {}
    plain: list[tuple[int, dict[str, Any]]] = []
    whole: list[tuple[int, bytes]] = []
    for sequence, payload, form, reason in picked.select("log_sequence", "payload", "form", "reason").iter_rows():
        row = json.loads(payload) if form != "text" else payload
        if form == "row" and not isinstance(row, dict):
            held[sequence] = "the payload is not a row"
        elif form == "row":
            plain.append((sequence, {rename.get(name, name): value for name, value in row.items()}))
        elif parse is None:
            held[sequence] = f"{reason}; name the providers' declaration, so that it can be parsed again"
        else:
            whole.append((sequence, base64.b64decode(row["content"]) if form == "bytes" else payload.encode()))
    alike: dict[frozenset[str], list[tuple[int, dict[str, Any]]]] = {}
    for sequence, row in plain:  # a column that a row lacks is not null: rows with other columns are other frames
        alike.setdefault(frozenset(row), []).append((sequence, row))
    parts = [_typed(rows, types, changes, held) for rows in alike.values()]
    emptied = []
    for sequence, content in whole:
        assert parse is not None  # noqa: S101 - else these are held
        try:
            frame = parse(content)
        except IngestionError as error:
            held[sequence] = error.problem
            continue
        if frame.is_empty():
            emptied.append(sequence)
            continue
        fixed = [_constant(name, value, types) for name, value in changes.items()]
        renamed = frame.rename({name: ours for name, ours in rename.items() if name in frame.columns})
        parts.append(renamed.with_columns(*fixed, pl.lit(sequence, pl.Int64).alias(SEQUENCE)))
    return [part for part in parts if part.height], held, [sequence for sequence, _ in whole], emptied


def _check_names(table: LogTable, changes: Mapping[str, Any], rename: Mapping[str, str]) -> None:
    for name in (*changes, *rename.values()):
        if name in _NOT_AGAIN or name == "received_time":
            raise BatchError(
                f"provider {table.provider!r}: {name!r} is the log's own and cannot be set",
                "released rows arrive when they are released, and keep when they were received.",
            )


def _types(table: LogTable) -> dict[str, pl.DataType]:
    own = {column.name: column.dtype for column in table.columns}
    former = {alias: column.dtype for column in table.columns for alias in column.aliases}
    return {**former, **own, **{name: dtype for name, dtype in SYSTEM_COLUMNS.items() if name not in own}}


def _typed(
    rows: list[tuple[int, dict[str, Any]]],
    types: Mapping[str, pl.DataType],
    changes: Mapping[str, Any],
    held: dict[int, str],
) -> pl.DataFrame:
    """Rows as a frame in the log's types; a row with a value of another type goes to `held`."""
    names = [name for name in dict.fromkeys(name for _, row in rows for name in row) if name not in _NOT_AGAIN]
    values: dict[str, list[Any]] = {name: [] for name in (*names, *changes)}
    sequences: list[int] = []
    for sequence, row in rows:
        ready: dict[str, Any] = {}
        for name in names:
            if name in changes:
                continue
            dtype = _LIST_OF_NAMES if name.startswith("__") else types.get(name)
            try:
                ready[name] = row.get(name) if dtype is None else _value(row.get(name), dtype)
            except (ValueError, TypeError, OverflowError, pl.exceptions.PolarsError):
                held[sequence] = f"{name}: {json.dumps(row.get(name), ensure_ascii=False)[:80]} is not {dtype}"
                break
        else:
            sequences.append(sequence)
            for name in names:
                if name not in changes:
                    values[name].append(ready[name])
    series = [_series(name, values[name], types) for name in names if name not in changes]
    frame = pl.DataFrame([*series, pl.Series(SEQUENCE, sequences, dtype=pl.Int64)])
    return frame.with_columns(_constant(name, value, types) for name, value in changes.items())


def _series(name: str, values: list[Any], types: Mapping[str, pl.DataType]) -> pl.Series:
    if name.startswith("__"):
        return pl.Series(name, values, dtype=_LIST_OF_NAMES)
    if name in types:
        return pl.Series(name, values, dtype=types[name], strict=True)
    return pl.Series(name, values, strict=False)  # a column that the log does not know


def _constant(name: str, value: Any, types: Mapping[str, pl.DataType]) -> pl.Expr:
    """A column with one value in all rows.

    Raises:
        ColumnTypeError: If the value cannot be read in the column's type.
    """
    dtype = types.get(name)
    if dtype is None:
        return pl.lit(value).alias(name)
    try:
        return pl.lit(pl.Series([_value(value, dtype)], dtype=dtype)).first().alias(name)
    except (ValueError, TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise ColumnTypeError(
            name, dtype, f"the value {value!r}", f"write a value that {dtype} can hold; empty means null."
        ) from error


def _value(value: Any, dtype: pl.DataType) -> Any:
    """A value of JSON, or text that an operator wrote, as Python has it for a type.

    Raises:
        ValueError: If it is not one.
    """
    if value is None or (value == "" and dtype not in (pl.String(), pl.Binary())):
        return None
    if isinstance(dtype, pl.Datetime):
        return _instant(value, dtype)
    if dtype == pl.Boolean():
        return _boolean(value)
    if isinstance(value, bool):
        raise ValueError("a truth value is no number and no text")  # noqa: TRY004 - like any other value that does not fit
    if dtype.is_float():
        number = float(value)
        return number if not isinstance(value, int) or number == value else _no(value)
    if dtype.is_integer():
        return _integer(value)
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        return _nested(json.loads(value) if isinstance(value, str) else value, dtype)
    readers: dict[type[pl.DataType], Callable[[str], Any]] = {
        pl.String: str,
        pl.Categorical: str,
        pl.Enum: str,
        pl.Binary: bytes.fromhex,
        pl.Date: date.fromisoformat,
    }
    reader = readers.get(type(dtype))
    if reader is not None:
        return reader(value if isinstance(value, str) else json.dumps(value))
    if dtype == pl.Time():
        return _time(value)
    if isinstance(dtype, pl.Duration):
        return _duration(value, dtype)
    return pl.Series([value], dtype=dtype, strict=True)[0]


def _nested(value: Any, dtype: pl.List | pl.Array | pl.Struct) -> Any:
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _instance(field.dtype) for field in dtype.fields}
        if not isinstance(value, dict) or not set(value) <= set(fields):
            return _no(value)
        return {name: _inner(value.get(name), inner) for name, inner in fields.items()}
    if not isinstance(value, list) or (isinstance(dtype, pl.Array) and len(value) != dtype.size):
        return _no(value)
    return [_inner(item, _instance(dtype.inner)) for item in value]


def _inner(value: Any, dtype: pl.DataType) -> Any:
    return _no(value) if value == "" and dtype not in (pl.String(), pl.Binary()) else _value(value, dtype)


def _instance(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found


def _instant(value: Any, dtype: pl.Datetime) -> datetime | int:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if (moment.tzinfo is None) != (dtype.time_zone is None):
        raise ValueError("with a zone where the column has none, or the other way round")
    found = _FINE.search(value) if isinstance(value, str) else None
    nanoseconds = int(found.group(2).ljust(3, "0")) if found is not None else 0
    whole = to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    if dtype.time_unit == "ns":
        return int(whole * 1_000 + nanoseconds)
    if nanoseconds and dtype != INSTANT:
        raise ValueError("finer than the column can tell")
    if moment.tzinfo is None:
        return moment
    return from_us(whole + (nanoseconds > 0))  # as a batch's nanoseconds are: never earlier than it was (R15)


def _time(value: Any) -> int:
    """A time of day in nanoseconds."""
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return int(_no(value))
    hours, minutes, seconds = (int(part or 0) for part in found.group(1, 2, 3))
    if hours > 23 or minutes > 59 or seconds > 59:
        return int(_no(value))
    return ((hours * 60 + minutes) * 60 + seconds) * 10**9 + int((found.group(4) or "").ljust(9, "0"))


def _duration(value: Any, dtype: pl.Duration) -> int:
    """An ISO 8601 duration, as payloads have them, in the units of a type."""
    found = _ISO_DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or not any(found.group(2, 3, 4, 5)):
        return int(_no(value))
    days, hours, minutes, seconds = (int(part or 0) for part in found.group(2, 3, 4, 5))
    nanoseconds = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**9
    nanoseconds += int((found.group(6) or "").ljust(9, "0"))
    whole, rest = divmod(nanoseconds, {"ns": 1, "us": 10**3, "ms": 10**6}[dtype.time_unit])
    return int(_no(value)) if rest else -whole if found.group(1) else whole


def _boolean(value: Any) -> bool:
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    return known[value.lower()] if isinstance(value, str) and value.lower() in known else _no(value)


def _integer(value: Any) -> int:
    number = int(value)
    return number if isinstance(value, str) or number == value else _no(value)


def _no(value: Any) -> Any:
    raise ValueError(f"{value!r} is of another type")
