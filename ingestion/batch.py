"""A batch before it is stamped: read, typed, checked against the log's columns, bad rows set apart."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

import polars as pl
import polars.selectors as cs

from alignment import DelayRule
from ingestion.definition import SYSTEM_NAMES, ProviderDefinition, refused_name
from ingestion.errors import (
    BatchError,
    ColumnTypeError,
    MissingColumnError,
    NaiveTimeError,
    NullKeyError,
    ReservedColumnError,
    SchemaChangeError,
    UnknownArrivalError,
)
from ingestion.instants import to_us
from ingestion.schema import INSTANT, TIME_COLUMNS

Arrivals = Literal["stamp", "given", "backfill"]
ROW, OWN_ISSUE = "__row", "__own_issue"
_NOT_GIVEN = ("log_sequence", "batch_id", "record_kind", "record_detail")
_KINDS = ("measured", "declared", "modelled")


@dataclass(slots=True)
class Batch:
    """Rows on their way into the log.

    Attributes:
        rows: Entities, values as they came, and every system column that is known by now; `__row` counts from 0.
        bad: The same for rows that cannot be kept, with a `reason`.
        original: The rows as they were handed over, for the quarantine.
        arrivals: Whether rows are stamped by the commit, came with arrivals, or are history under a delay rule.
    """

    rows: pl.DataFrame
    bad: pl.DataFrame
    original: pl.DataFrame
    arrivals: Arrivals


def read_frame(frame: Any, storage_options: dict[str, str] | None = None) -> pl.DataFrame:
    """Rows from Polars, Arrow, pandas or a Parquet path, in memory.

    Raises:
        BatchError: If it is none of these.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, str | os.PathLike):
        address = os.fspath(frame)
        remote = storage_options if "://" in address else None
        return pl.scan_parquet(address, storage_options=remote, hive_partitioning=False).collect()
    if hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
        return pl.DataFrame(frame)
    raise BatchError(
        f"a batch cannot be read from {type(frame).__name__}",
        "pass a Polars frame, an Arrow table, or the path of a Parquet file.",
    )


def prepare_batch(
    frame: pl.DataFrame,
    definition: ProviderDefinition,
    *,
    arrivals: Arrivals | None = None,
    delay: DelayRule | None = None,
    received_time: datetime | None = None,
    reasons: pl.Series | None = None,
    original: pl.DataFrame | None = None,
) -> Batch:
    """The rows of `frame` in the form of the log, without stamp and sequence.

    Args:
        frame: Entity columns, `event_time`, values; optionally the other instants, `is_retraction`, `arrival_kind`.
        definition: Whose rows they are.
        arrivals: `"stamp"` ignores no column but gives the arrival at commit; `"given"` takes `arrival_time` from the
            frame; `"backfill"` declares history, whose arrivals come from `delay`. `None` decides by the columns.
        delay: How late rows without an arrival were (R13).
        received_time: When the batch was in hand; for rows that do not say.
        reasons: Why a row is to be set aside, for rows that are; from a contract.
        original: The rows as they came, if `frame` is not that; for the quarantine.

    Returns:
        The batch, bad rows apart.

    Raises:
        MissingColumnError: If a key column or `event_time` is not there.
        ReservedColumnError: If a column has a name that only the log may fill.
        NaiveTimeError: If an instant has no zone.
        ColumnTypeError: If an instant or flag is of another type.
        UnknownArrivalError: If rows have no arrival and no delay rule is given.
        NullKeyError: If a row has no key and the provider raises on bad rows.
        BatchError: If an `arrival_kind` is unknown, or the delay rule gives another number of rows.
    """
    _check_names(frame, definition)
    if arrivals is None:
        arrivals = "given" if "arrival_time" in frame.columns else "stamp"
    rows = _typed(frame, definition)
    if received_time is not None:
        received = pl.lit(to_us(received_time, "received_time"), dtype=pl.Int64).cast(INSTANT)
        rows = rows.with_columns(pl.col("received_time").fill_null(received))
    rows = _with_arrivals(rows, definition, arrivals, delay).with_row_index(ROW)
    if definition.kind == "forecast" and "issue_time" not in frame.columns:
        rows = rows.with_columns(pl.lit(value=True).alias(OWN_ISSUE))
    reason = _static_reason(rows, definition)
    own = reason.drop_nulls()
    if reasons is not None:
        reason = reason.to_frame().select(pl.coalesce(reasons.cast(pl.String).alias("given"), "reason")).to_series()
    bad = rows.filter(reason.is_not_null()).with_columns(reason=reason.filter(reason.is_not_null()))
    if own.len() and definition.on_bad_row == "raise":
        first = str(own[0])
        column = next((name for name in definition.revision_columns if f"{name} " in first), "event_time")
        raise NullKeyError(definition.provider, column, own.len(), first)
    return Batch(
        rows if bad.is_empty() else rows.filter(reason.is_null()),
        bad,
        frame if original is None else original,
        arrivals,
    )


def check_batch(
    frame: Any, definition: ProviderDefinition, *, backfill: bool = False, delay: DelayRule | None = None
) -> pl.DataFrame:
    """Check a batch before there is a log: what `append` refuses for the batch's own sake is refused here.

    Args:
        frame: What would be appended.
        definition: Whose rows they are.
        backfill: The rows are history.
        delay: How late rows of unknown arrival were.

    Returns:
        The rows that would be quarantined, with a column `reason`.

    Raises:
        BatchError: If the batch cannot be appended; a subclass says why.

    Example:
        >>> check_batch(pl.DataFrame({"station": ["mast"]}), ProviderDefinition(provider="mast", entities=("station",)))
        Traceback (most recent call last):
        ...
        ingestion.errors.MissingColumnError: provider 'mast': the batch has no column 'event_time'
        <BLANKLINE>
        hint: its columns are 'station'.
    """
    rows = read_frame(frame)
    batch = prepare_batch(rows, definition, arrivals="backfill" if backfill else None, delay=delay)
    reasons = batch.bad.select(ROW, "reason")
    return rows.with_row_index(ROW).join(reasons, on=ROW, how="inner", maintain_order="left").drop(ROW)


def _check_names(frame: pl.DataFrame, definition: ProviderDefinition) -> None:
    for name in _NOT_GIVEN:
        if name in frame.columns:
            raise ReservedColumnError(name, definition.provider)
    if (refused := refused_name(frame.columns)) is not None:
        name, problem = refused
        hint = f'rename it: frame.rename({{"{name}": "source_{name.lstrip("@").lower()}"}}).'
        raise SchemaChangeError(name, definition.provider, problem, hint)
    for name in (*definition.entities, *(definition.key or ())):
        if name not in frame.columns:
            raise MissingColumnError(name, definition.provider, frame.columns)
    flags = frame.schema.get("is_retraction") == pl.Boolean()
    only_retractions = flags and bool(frame["is_retraction"].fill_null(value=False).all())
    if "event_time" not in frame.columns and not (definition.key and only_retractions):
        raise MissingColumnError("event_time", definition.provider, frame.columns)


def _typed(frame: pl.DataFrame, definition: ProviderDefinition) -> pl.DataFrame:
    """`frame` with all system columns but the sequence, in their types; text for categories in keys.

    Raises:
        ColumnTypeError: If a flag is not boolean or a kind not text.
    """
    provider = definition.provider
    changes = []
    for name in TIME_COLUMNS:
        if name in frame.columns:
            changes.append(_instants(frame.schema[name], name, provider))
        else:
            changes.append(pl.lit(None, INSTANT).alias(name))
    for name, dtype in (("is_retraction", pl.Boolean()), ("arrival_kind", pl.String())):
        if name not in frame.columns:
            changes.append(pl.lit(None, dtype).alias(name))
        elif frame.schema[name] not in (dtype, pl.Null()) and not isinstance(
            frame.schema[name], pl.Categorical | pl.Enum
        ):
            raise ColumnTypeError(
                name, frame.schema[name], f"provider {provider!r}", f"cast it: pl.col({name!r}).cast(pl.{dtype})."
            )
        else:
            changes.append(pl.col(name).cast(dtype))
    categories = [pl.col(name).cast(pl.String) for name in _category_keys(frame, definition)]
    return frame.with_columns(*changes, *categories).with_columns(pl.col("is_retraction").fill_null(value=False))


def _category_keys(frame: pl.DataFrame, definition: ProviderDefinition) -> list[str]:
    """Key columns whose type would list its values in the schema, where an erasure does not reach them."""
    keys = [*definition.entities, *(definition.key or ())]
    return [name for name in keys if isinstance(frame.schema[name], pl.Categorical | pl.Enum)]


def _instants(dtype: pl.DataType, name: str, provider: str) -> pl.Expr:
    """Microseconds in UTC; nanoseconds round up, for a row must not seem to be there before it was (R15).

    Raises:
        ColumnTypeError: If the column holds no instants.
        NaiveTimeError: If they have no zone.
    """
    if dtype == pl.Null():
        return pl.col(name).cast(INSTANT)
    if not isinstance(dtype, pl.Datetime):
        hint = f'parse it, e.g. pl.col("{name}").str.to_datetime(time_zone="UTC").'
        if isinstance(dtype, pl.Date):
            hint = f'a date is not an instant; say which one, e.g. pl.col("{name}").cast(pl.Datetime("us")).dt.replace_time_zone("Europe/Berlin").'
        raise ColumnTypeError(name, dtype, f"provider {provider!r}", hint)
    if dtype.time_zone is None:
        raise NaiveTimeError(name, f"provider {provider!r}")
    if dtype.time_unit != "ns":
        return pl.col(name).dt.convert_time_zone("UTC").cast(INSTANT)
    nanoseconds = pl.col(name).to_physical().cast(pl.Int64)
    return (-((-nanoseconds) // 1_000)).cast(INSTANT).alias(name)


def _with_arrivals(
    rows: pl.DataFrame, definition: ProviderDefinition, arrivals: Arrivals, delay: DelayRule | None
) -> pl.DataFrame:
    if arrivals == "stamp":
        return rows.with_columns(arrival_time=pl.lit(None, INSTANT), arrival_kind=pl.lit("measured"))
    provider = definition.provider
    if arrivals == "backfill":
        if delay is None:
            raise UnknownArrivalError(
                provider, rows.height, f"{rows.height} rows are declared history, and nothing says how late they were"
            )
        unknown = pl.Series([True]).new_from_index(0, rows.height)
    else:
        kind = pl.col("arrival_kind")
        strange = rows.filter(kind.is_not_null() & ~kind.is_in([*_KINDS, "unknown"]))
        if strange.height:
            raise BatchError(
                f"provider {provider!r}: arrival_kind {strange['arrival_kind'][0]!r} is unknown",
                "use measured, declared or modelled; leave it null where the arrival is not known.",
            )
        no_arrival = pl.col("arrival_time").is_null() | (kind == "unknown").fill_null(value=False)
        unknown = rows.select(no_arrival.alias("unknown")).to_series()
        rows = rows.with_columns(kind.fill_null("measured"))
    if not unknown.any():
        return rows
    if delay is None:
        missing = int(unknown.sum())
        raise UnknownArrivalError(provider, missing, f"{missing} of {rows.height} rows have no arrival_time")
    issued = definition.kind == "forecast" and rows["issue_time"].null_count() < rows.height
    modelled = delay.arrival_times(rows if issued else rows.drop("issue_time"))
    if len(modelled) != rows.height:
        raise BatchError(
            f"provider {provider!r}: the delay rule gave {len(modelled)} arrivals for {rows.height} rows",
            "arrival_times(frame) must return one instant per row.",
        )
    told = (
        rows.select(modelled.alias("arrival_time"))
        .select(_instants(modelled.dtype, "arrival_time", provider))
        .to_series()
    )
    if definition.key is not None:
        # An event that was moved back does not make its revision arrive before the one it replaced.
        keys = [*definition.entities, *definition.key, *(["issue_time"] if definition.kind == "forecast" else [])]
        told = rows.select(*keys, told).select(pl.col("arrival_time").cum_max().over(keys)).to_series()
    return rows.with_columns(
        arrival_time=pl.when(unknown).then(told).otherwise(pl.col("arrival_time")),
        arrival_kind=pl.when(unknown)
        .then(pl.lit(getattr(delay, "arrival_kind", "declared")))
        .otherwise(pl.col("arrival_kind")),
    )


def _static_reason(rows: pl.DataFrame, definition: ProviderDefinition) -> pl.Series:
    """Why a row cannot be kept whatever its stamp; null if it can."""
    checks = [(pl.col(name).is_null(), f"{name} is null") for name in definition.entities]
    checks += [(pl.col(name).is_null(), f"{name} is null") for name in definition.key or ()]
    no_event = pl.col("event_time").is_null()
    if definition.key is not None:
        no_event &= ~pl.col("is_retraction")
    checks.append((no_event, "event_time is null"))
    if definition.kind == "forecast" and OWN_ISSUE not in rows.columns:
        checks.append((pl.col("issue_time").is_null() & ~pl.col("is_retraction"), "issue_time is null"))
    measured = pl.col("arrival_kind") == "measured"
    early = measured & (pl.col("received_time") > pl.col("arrival_time"))
    checks.append((early.fill_null(value=False), "arrival_time is before received_time"))
    return rows.select(
        pl.coalesce([pl.when(broken).then(pl.lit(text)) for broken, text in checks]).alias("reason")
    ).to_series()


def payloads(original: pl.DataFrame, numbers: pl.Series) -> pl.Series:
    """Rows as they were handed over, each as one line of JSON; instants and durations as text, bytes as hexadecimal digits.

    JSON has no NaN: a column in which a number is not finite is written as text.
    """
    picked = original[numbers.to_list()] if numbers.len() else original.clear()
    endless = [series.name for series in picked if _has_endless(series)]
    nested = [name for name in endless if picked.schema[name].is_nested()]
    nested += [name for name, dtype in picked.schema.items() if dtype.is_nested() and _needs_care(dtype)]
    plain = picked.drop(nested).with_columns(
        cs.binary().bin.encode("hex"),
        cs.duration().dt.to_string("iso"),
        cs.time().dt.to_string(),
        (cs.temporal() - cs.duration() - cs.time()).cast(pl.String),
        cs.categorical().cast(pl.String),
        cs.by_name([name for name in endless if name not in nested]).cast(pl.String),
    )
    if plain.width:
        texts = plain.select(pl.struct(pl.all()).struct.json_encode().alias("payload")).to_series()
    else:
        texts = pl.Series("payload", ["{}"] * picked.height, dtype=pl.String)
    if not nested:
        return texts
    lines = [
        json.dumps(
            {name: own[name] if name in own else _as_json(row[name]) for name in picked.columns}, ensure_ascii=False
        )
        for own, row in zip(
            map(json.loads, texts), picked.select(list(dict.fromkeys(nested))).iter_rows(named=True), strict=True
        )
    ]
    return pl.Series("payload", lines, dtype=pl.String)


def _has_endless(values: pl.Series) -> bool:
    """Whether a number in a column, however deep, is not finite."""
    if values.dtype.is_float():
        return not values.is_finite().all()
    if isinstance(values.dtype, pl.List):
        return _has_endless(values.explode())
    if isinstance(values.dtype, pl.Array):
        return _has_endless(values.arr.to_list())
    if isinstance(values.dtype, pl.Struct):
        return any(_has_endless(values.struct.field(field.name)) for field in values.dtype.fields)
    return False


def _needs_care(dtype: Any) -> bool:
    """Whether Polars cannot write a type as JSON, or not exactly."""
    if isinstance(dtype, pl.List | pl.Array):
        return _needs_care(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_needs_care(field.dtype) for field in dtype.fields)
    return dtype in (pl.Binary(), pl.Time())


def _as_json(value: Any) -> Any:
    """A value inside of a list or struct as JSON knows it, in the form that `payloads` gives to others of its type."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, timedelta):
        return pl.Series([value]).dt.to_string("iso")[0]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def value_names(frame: pl.DataFrame, definition: ProviderDefinition) -> list[str]:
    """The columns of a frame that are neither entities nor the log's own, in their order."""
    return [name for name in frame.columns if name not in SYSTEM_NAMES and name not in definition.entities]
