"""Answers as JSON, column by column, and as an Arrow stream.

Floats are written as the shortest text that reads back as the same number, NaN and the infinities as `"NaN"`, `"Infinity"` and
`"-Infinity"`, instants in UTC with microseconds, integers with all their digits. What is the same for many columns, a row of
`"PRESENT"` or the instants of the rows that were used, is written once and copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

if TYPE_CHECKING:
    from serving.online import Answer

EPOCH: Final = "1970-01-01T00:00:00Z"
FEAST_STATUS: Final = {
    "present": "PRESENT",
    "null": "NULL_VALUE",
    "expired": "OUTSIDE_MAX_AGE",
    "retracted": "NOT_FOUND",
    "missing": "NOT_FOUND",
}
_MOST_INSTANTS: Final = 200_000
_MOST_TYPES: Final = 10_000
_SECOND: Final = timedelta(seconds=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder(
    enc_hook=lambda value: value.item() if hasattr(value, "item") else str(value)
).encode


class _Instants(dict[int | None, str]):
    """The text of an instant, made once: the same rows are used by one answer after the other."""

    def __missing__(self, instant: int | None) -> str:
        if len(self) > _MOST_INSTANTS:
            self.clear()
        text = EPOCH if instant is None else iso(_ZERO + timedelta(microseconds=instant))
        self[instant] = text
        return text


_instant_text = _Instants().__getitem__
_status_text = FEAST_STATUS.__getitem__


def iso(instant: datetime) -> str:
    """An instant as `2026-01-01T00:00:00.000000Z`, without the fraction if there is none."""
    return instant.isoformat().replace("+00:00", "Z")


def as_json(
    answer: Answer, names: Sequence[str], *, definition: str, status: bool = False, ages: bool = False
) -> bytes:
    """An answer in the form of Feast's feature server.

    Args:
        answer: The answer.
        names: What its columns are called there.
        definition: Hash of the definitions that were asked, as a question may name them.
        status: Add `status`, which of five each value has.
        ages: Add `event_age` and `arrival_age`, seconds.
    """
    height = _height(answer)
    of_entities = {"statuses": _all_present(height), "event_timestamps": _no_instants(height)}
    results: list[dict[str, Any]] = [
        {"values": list(map(_named_within, values)), **of_entities} for values in answer.entities.values()
    ]
    instants: dict[int, msgspec.Raw] = {}
    t = (answer.t - _ZERO) // _MICROSECOND
    for column in answer.columns:
        events = column.events
        text = instants.get(id(events))
        if text is None:  # columns of one view share their rows' instants
            text = instants[id(events)] = msgspec.Raw(encode(list(map(_instant_text, events))))
        result = {
            "values": _values(column.values, _how(column.dtype)),
            "statuses": _statuses(column.status),
            "event_timestamps": text,
        }
        if status:
            result["status"] = column.status
        if ages:
            result["event_age"] = [None if event is None else (t - event) / 1e6 for event in events]
            result["arrival_age"] = [None if arrival is None else (t - arrival) / 1e6 for arrival in column.arrivals]
        results.append(result)
    head = {"feature_names": [*answer.entities, *names], **facts(answer, definition)}
    return encode({"metadata": head, "results": results}) + b"\n"


def as_arrow(answer: Answer, *, definition: str, status: bool = False, ages: bool = False) -> bytes:
    """An answer as an Arrow IPC stream of one row per entity; the columns are those of `point_in_time_join`.

    Args:
        answer: The answer.
        definition: Hash of the definitions that were asked, as a question may name them.
        status: Add `<feature>__status`.
        ages: Add `<feature>__event_age` and `<feature>__arrival_age`, durations.

    Returns:
        The stream; `t`, `positions` and `definition` are in the metadata of its schema.
    """
    import pyarrow as pa

    frame = answer.to_frame(status=status)
    if ages:
        t = (answer.t - _ZERO) // _MICROSECOND
        for column in answer.columns:
            for name, instants in (("event_age", column.events), ("arrival_age", column.arrivals)):
                old = pl.Series(f"{column.name}__{name}", instants, dtype=pl.Int64)
                frame.insert_column(frame.width, (t - old).alias(old.name).cast(pl.Duration("us")))
    rows = frame.to_arrow()
    told = facts(answer, definition)
    rows = rows.replace_schema_metadata(
        {name: value if isinstance(value, str) else encode(value) for name, value in told.items()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def facts(answer: Answer, definition: str) -> dict[str, Any]:
    """What every answer says of itself: the instant and the positions that it holds at, and whose definitions it follows."""
    return {"t": iso(answer.t), "positions": dict(answer.positions), "definition": definition}


def _height(answer: Answer) -> int:
    for values in answer.entities.values():
        return len(values)
    return len(answer.columns[0].values) if answer.columns else 0


def _values(values: list[Any], how: str) -> list[Any]:
    """Values as JSON can have them; the list itself where nothing needs another word."""
    if how == "plain":
        return values
    if how == "float":
        if len(values) == 1:
            one = values[0]
            return values if one is None or one - one == 0.0 else [_named(one)]
        # filter and sum run in C and pass over nulls: what is not finite makes the sum so
        return values if math.isfinite(sum(filter(None, values))) else [_named(value) for value in values]
    if how == "duration":
        return [None if value is None else value / _SECOND for value in values]
    if how == "floats" and math.isfinite(sum(filter(None, chain.from_iterable(filter(None, values))))):
        return values
    return [_named_within(value) for value in values]


def _how(dtype: pl.DataType) -> str:
    """What may be in a column that JSON has no word for; kept by identity, since hashing a type takes longer."""
    known = _hows.get(id(dtype))
    if known is None or known[0] is not dtype:
        if len(_hows) > _MOST_TYPES:
            _hows.clear()
        known = _hows[id(dtype)] = (dtype, _how_of(dtype))
    return known[1]


_hows: dict[int, tuple[pl.DataType, str]] = {}


def _how_of(dtype: pl.DataType) -> str:
    if dtype.is_float():
        return "float"
    if isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_float():
        return "floats"
    if isinstance(dtype, pl.Duration):
        return "duration"
    return "mixed" if dtype.is_nested() or dtype.is_temporal() else "plain"


def _named(value: Any) -> Any:
    if value.__class__ is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _named_within(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_named_within(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _named_within(item) for name, item in value.items()}
    if isinstance(value, timedelta):
        return value / _SECOND
    return _named(value)


def _statuses(status: list[str]) -> msgspec.Raw:
    height = len(status)
    if height == 1:
        return _one_status(status[0])
    if status.count("present") == height:
        return _all_present(height)
    return msgspec.Raw(encode(list(map(_status_text, status))))


@lru_cache(8)
def _one_status(status: str) -> msgspec.Raw:
    return msgspec.Raw(encode([FEAST_STATUS[status]]))


@lru_cache(256)
def _all_present(height: int) -> msgspec.Raw:
    return msgspec.Raw(encode(["PRESENT"] * height))


@lru_cache(256)
def _no_instants(height: int) -> msgspec.Raw:
    return msgspec.Raw(encode([EPOCH] * height))
