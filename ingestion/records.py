"""Rows of the log that are no observations: restamps, quarantined rows, polls, removals, decisions."""

from __future__ import annotations

import json

import polars as pl

from ingestion.batch import ROW, Batch, payloads
from ingestion.instants import from_us
from ingestion.reading import QUARANTINED, records
from ingestion.schema import INSTANT
from ingestion.table import LogTable


def full_width(table: LogTable, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with every stored column; what it lacks is null."""
    missing = [
        pl.lit(None, dtype).alias(name) for name, dtype in table.stored_schema().items() if name not in frame.columns
    ]
    return frame.with_columns(missing)


def record_row(
    table: LogTable,
    kind: str,
    sequence: int,
    batch_id: str,
    *,
    arrival_us: int | None = None,
    detail: str | None = None,
) -> pl.DataFrame:
    """One record that is no observation, as stored."""
    row = pl.DataFrame({"log_sequence": [sequence], "batch_id": [batch_id]}).with_columns(
        pl.lit(kind).alias("record_kind"),
        pl.lit(arrival_us, pl.Int64).cast(INSTANT).alias("arrival_time"),
        pl.lit(detail, pl.String).alias("record_detail"),
    )
    return full_width(table, row)


def quarantine_rows(bad: pl.DataFrame, batch: Batch, table: LogTable, now_us: int) -> pl.DataFrame:
    """Bad rows as records: the key where it is known, the reason and the row as it came.

    Args:
        bad: `__row` and `reason`.
        batch: The batch that they are rows of.
        table: The log.
        now_us: When they were set aside.
    """
    if bad.is_empty():
        return pl.DataFrame(schema={"record_detail": pl.String(), "reason": pl.String(), "received_time": INSTANT})
    everything = pl.concat([batch.rows, batch.bad.drop("reason")], how="diagonal").join(bad, on=ROW).sort(ROW)
    keys = [
        everything[name].cast(column.dtype, strict=False)
        for column in table.columns
        if (name := column.name) in table.definition.entities and name in everything.columns
    ]
    texts = payloads(batch.original, everything[ROW])
    details = [
        quarantine_detail(reason, row, json.loads(text))
        for reason, row, text in zip(everything["reason"], everything[ROW], texts, strict=True)
    ]
    received = everything["received_time"].fill_null(from_us(now_us)).cast(INSTANT)
    return pl.DataFrame([*keys, pl.Series("record_detail", details, pl.String), everything["reason"], received])


def quarantine_detail(reason: str, row: int | None, payload: object) -> str:
    """A quarantined row as one line of JSON."""
    return json.dumps({"reason": reason, "row": row, "payload": payload}, ensure_ascii=False)


def set_aside(reasons: list[tuple[str, object]], now_us: int) -> pl.DataFrame:
    """Payloads of which nothing could be read, or that were refused whole, as quarantined records without a key.

    Args:
        reasons: Why, and what came: text, or anything that JSON knows.
        now_us: When they were set aside.
    """
    details = [quarantine_detail(reason, None, payload) for reason, payload in reasons]
    return pl.DataFrame({"record_detail": details, "reason": [reason for reason, _ in reasons]}).with_columns(
        pl.lit(now_us, pl.Int64).cast(INSTANT).alias("received_time")
    )


def not_yet_set_aside(table: LogTable, bad: pl.DataFrame) -> pl.DataFrame:
    """The rows of `bad` that are not in the quarantine for the same reason: a provider repeats what is wrong, too.

    Args:
        table: The log.
        bad: Rows with a `record_detail`.
    """
    if bad.is_empty():
        return bad
    known = records(table, QUARANTINED).select(_REASON, _PAYLOAD).unique()
    asked = bad.lazy().with_row_index(ROW).with_columns(_REASON, _PAYLOAD)
    new = asked.join(known, on=["__reason", "__payload"], how="anti", nulls_equal=True)
    return bad[new.sort(ROW).select(ROW).collect()[ROW].to_list()]


_REASON = pl.col("record_detail").str.json_path_match("$.reason").alias("__reason")
_PAYLOAD = pl.col("record_detail").str.json_path_match("$.payload").alias("__payload")
