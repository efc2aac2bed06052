"""Rows of the log that are no observations: restamps, quarantined rows, polls, removals, decisions."""

from __future__ import annotations

import json

import polars as pl

from ingestion.batch import ROW, Batch, payloads
from ingestion.instants import from_us
from ingestion.revisions import known_rows
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


def not_yet_set_aside(table: LogTable, bad: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of `bad` that do not wait in the quarantine for the same reason: a provider repeats what is wrong, too.

    A row whose key has had a revision since it was set aside is set aside again.

    Args:
        table: The log.
        bad: Rows with a `record_detail`; those that have a key carry the row's number in the batch.
        rows: The rows of the batch by that number, with their keys.
    """
    if bad.is_empty():
        return bad
    from ingestion.quarantine import quarantined

    same = ["reason", "payload"]
    waiting = quarantined(table).group_by(same).agg(pl.col("log_sequence").max().alias("__since"))
    if waiting.is_empty():
        return bad
    asked = bad.select(
        pl.col("record_detail").str.json_path_match(f"$.{name}").alias(name) for name in ("reason", "payload", "row")
    ).with_columns(pl.col("row").cast(rows.schema[ROW]).alias(ROW))
    found = asked.join(waiting, on=same, how="left", nulls_equal=True, maintain_order="left")
    key = table.definition.key_columns
    if not set(key) <= set(rows.columns):  # nothing was ever stored
        return bad.filter(found["__since"].is_null())
    wanted = dict.fromkeys([ROW, *key, "event_time"])
    keys = found.join(rows.select(*wanted), on=ROW, how="left", maintain_order="left")
    later = (
        known_rows(table, keys.filter(pl.col("__since").is_not_null()), key)
        .group_by(key)
        .agg(pl.col("log_sequence").max().alias("__last"))
        .collect()
    )
    repeats = table.logical_to_stored(keys).join(later, on=key, how="left", nulls_equal=True, maintain_order="left")
    told = repeats.select(
        (pl.col("__since").is_not_null() & (pl.col("__last").fill_null(-1) < pl.col("__since"))).alias("told")
    ).to_series()
    return bad.filter(~told)
