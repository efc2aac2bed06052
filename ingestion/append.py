"""The commit loop: stamp, sequence, write, commit as the very next version, confirm.

Everything that depends on what is in the log already (the stamp, the sequence numbers, what is unchanged, what is
known) is decided on the version that the commit is made on. A lost race decides again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from ingestion.batch import OWN_ISSUE, ROW, Batch, payloads, value_names
from ingestion.errors import BatchError, CommitError, EventAfterArrivalError
from ingestion.evolution import ATTEMPTS, add_columns, compare_columns, fit_rows, refuse_change, widen_columns
from ingestion.instants import duration_us, from_us, system_clock
from ingestion.reading import OBSERVATION, QUARANTINED, RESTAMP
from ingestion.report import AppendReport
from ingestion.revisions import drop_unchanged, refuse_between, retract_moved, skip_known_history
from ingestion.schema import INSTANT
from ingestion.table import Head, LogTable, LostRaceError

ROWS_PER_FILE = 1_000_000
_NOW_LIMIT_HINT = "give the clock that they were stamped by (clock=...), or load them as a forecast or with delay=."


@dataclass(slots=True)
class Stamped:
    """A batch as it would be committed on one version of the log."""

    rows: pl.DataFrame
    bad: pl.DataFrame
    stamp_us: int | None
    unchanged: int = 0
    skipped_measured: int = 0
    moved: int = 0
    clock_raised: int = 0


def append_batch(table: LogTable, batch: Batch, batch_id: str, *, evolve: bool = False) -> AppendReport:
    """Append a batch once, whatever fails and whoever else appends.

    Args:
        table: The log.
        batch: What `prepare_batch` made of the rows.
        batch_id: A batch id that is in the log already appends nothing.
        evolve: Add columns and widen types as the batch needs them.

    Returns:
        What was done.

    Raises:
        CommitError: If other commits kept coming first, or the store failed; nothing of the batch is visible then.
        SchemaChangeError: If the columns differ and `evolve` is false.
        EventAfterArrivalError: If rows break R5 and the provider raises on bad rows.
        BackfillRefusedError: If the provider drops unchanged rows and these came between.
        BatchError: If given arrivals lie in the future.
    """
    for attempt in range(1, ATTEMPTS + 1):
        _make_room(table, batch, evolve=evolve)
        written: list[AddAction] = []
        with table.commit_lock():
            table.refresh()
            if table.batch_end(batch_id) is not None:
                return _already(table, batch, batch_id)
            if compare_columns(batch.rows, _own_names(table, batch), table):
                continue
            head = table.head()
            stamped = _stamp(table, batch, head)
            late = _unconfirmed(table, head)
            try:
                end = _write(table, stamped, head, batch_id, written, late)
                table.commit(
                    written,
                    next_sequence=end,
                    stamp_us=stamped.stamp_us,
                    by_clock=batch.arrivals == "stamp" and table.clock is system_clock,
                    batch_id=batch_id,
                )
            except (LostRaceError, DeltaError, OSError) as error:
                outcome = _after_failure(table, batch_id, written, error)
                if outcome == "again" and attempt < ATTEMPTS:
                    continue
                if outcome == "theirs":
                    return _already(table, batch, batch_id)
                if outcome != "ours":
                    raise CommitError(table.provider, attempt, error) from error
        restamped = _confirm(table, batch_id, stamped.stamp_us) if batch.arrivals == "stamp" else None
        return _report(table, stamped, batch_id, attempt, restamped)
    raise CommitError(table.provider, ATTEMPTS, "the columns kept changing")


def _after_failure(
    table: LogTable, batch_id: str, written: list[AddAction], error: Exception
) -> Literal["ours", "theirs", "again", "unknown"]:
    """What became of a commit that failed or whose answer was lost.

    Files are deleted only where it is certain that no commit will ever name them; a store that failed may still make it.
    """
    table.refresh()
    alive = set(table.files()["path"])
    if any(action.path in alive for action in written):
        return "ours"
    there = table.batch_end(batch_id) is not None
    if not (there or isinstance(error, LostRaceError)):
        return "unknown"
    for action in written:
        table.location.remove(action.path)
    return "theirs" if there else "again"


def _own_names(table: LogTable, batch: Batch) -> list[str]:
    given = [name for name in value_names(batch.rows, table.definition) if name not in (ROW, OWN_ISSUE)]
    return [*table.definition.entities, *given]


def _make_room(table: LogTable, batch: Batch, *, evolve: bool) -> None:
    """Give the log the columns that the batch has."""
    table.refresh()
    change = compare_columns(batch.rows, _own_names(table, batch), table)
    if not change:
        return
    if table.columns and not evolve:
        refuse_change(change, table)
    if change.widened:
        widen_columns(table, change.widened)
    if change.added:
        add_columns(table, change.added)


def _stamp(table: LogTable, batch: Batch, head: Head) -> Stamped:
    """Arrivals, and what follows from them.

    Raises:
        BatchError: If given arrivals lie in the future.
    """
    definition = table.definition
    now = table.now_us()
    rows = fit_rows(batch.rows, table)
    raised_limit = duration_us(definition.clock_tolerance, "clock_tolerance")
    if batch.arrivals == "stamp":
        received = rows["received_time"].dt.epoch("us").max()
        margin = duration_us(definition.publish_margin, "publish_margin")
        instant = max(now + margin, head.last_stamp_us + 1, received if isinstance(received, int) else now)
        rows = rows.with_columns(_at(instant).alias("arrival_time"), pl.col("received_time").fill_null(_at(now)))
    else:
        instant = None
        future = rows.filter(
            (pl.col("arrival_kind") == "measured") & (pl.col("arrival_time") > _at(now + raised_limit))
        )
        if future.height:
            raise BatchError(
                f"provider {definition.provider!r}: {future.height} rows have a measured arrival in the future;"
                f" first: {future['arrival_time'][0]}, and it is {from_us(now)}",
                _NOW_LIMIT_HINT,
            )
    rows, bad, raised = _judge_clock(rows, table, raised_limit)
    bad = pl.concat([batch.bad.select(ROW, "reason"), bad.select(ROW, "reason")]).sort(ROW)
    bad = _quarantine_rows(bad, batch, table, now)
    if OWN_ISSUE in rows.columns:
        own = pl.when(~pl.col("is_retraction")).then(pl.col("arrival_time"))
        rows = rows.with_columns(issue_time=own)
    result = Stamped(rows, bad, instant, clock_raised=raised)
    if definition.drop_unchanged:
        refuse_between(table, result.rows, head)
    result.rows, result.skipped_measured = skip_known_history(table, result.rows)
    if definition.drop_unchanged:
        result.rows, result.unchanged = drop_unchanged(table, result.rows)
    result.rows = _laid_out(result.rows, table)
    result.rows, result.moved = retract_moved(table, result.rows)
    result.stamp_us = _greatest_stamp(result, table)
    return result


def _greatest_stamp(stamped: Stamped, table: LogTable) -> int | None:
    """What the next stamp must be greater than.

    Given measured arrivals count. A row that was raised to its event counts only where ids are declared: there a later
    revision may have an earlier event, and must still arrive after this one.
    """
    measured = stamped.rows.filter(pl.col("arrival_kind") == "measured")["arrival_time"].dt.epoch("us").max()
    if stamped.stamp_us is None:
        return measured if isinstance(measured, int) else None
    if table.definition.key is not None and isinstance(measured, int):
        return max(stamped.stamp_us, measured)
    return stamped.stamp_us


def _judge_clock(rows: pl.DataFrame, table: LogTable, limit_us: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """R5: an event a little after its arrival raises the arrival; one far after it is set aside.

    Raises:
        EventAfterArrivalError: If rows break R5 and the provider raises on bad rows.
    """
    definition = table.definition
    none = rows.clear().with_columns(reason=pl.lit(None, pl.String))
    if definition.kind == "forecast":
        return rows, none, 0
    ahead = (pl.col("event_time") - pl.col("arrival_time")).dt.total_microseconds()
    most = rows.select(ahead.max()).item()
    if most is None or most <= 0:
        return rows, none, 0
    bad = rows.filter(ahead > limit_us)
    if bad.height and definition.on_bad_row == "raise":
        first = bad.select(*definition.entities, pl.col("event_time", "arrival_time").cast(pl.String)).row(
            0, named=True
        )
        shown = ", ".join(f"{name}={value}" for name, value in first.items())
        raise EventAfterArrivalError(definition.provider, bad.height, shown, definition.clock_tolerance)
    bad = bad.with_columns(reason=pl.lit(f"event_time is more than {definition.clock_tolerance} after arrival_time"))
    kept = rows.filter((ahead <= limit_us).fill_null(value=True))
    raised = int(kept.select((ahead > 0).sum()).item() or 0)
    kept = kept.with_columns(arrival_time=pl.max_horizontal("arrival_time", "event_time"))
    return kept, bad, raised


def _quarantine_rows(bad: pl.DataFrame, batch: Batch, table: LogTable, now: int) -> pl.DataFrame:
    """Bad rows as records: the key where it is known, the reason and the row as it came."""
    if bad.is_empty():
        return bad
    everything = pl.concat([batch.rows, batch.bad.drop("reason")], how="diagonal").join(bad, on=ROW).sort(ROW)
    keys = [
        everything[name].cast(column.dtype, strict=False)
        for column in table.columns
        if (name := column.name) in table.definition.entities
    ]
    texts = payloads(batch.original, everything[ROW])
    details = [
        json.dumps({"reason": reason, "row": row, "payload": json.loads(text)}, ensure_ascii=False)
        for reason, row, text in zip(everything["reason"], everything[ROW], texts, strict=True)
    ]
    return (
        pl.DataFrame(keys).with_columns(
            pl.Series("record_detail", details, pl.String),
            everything["reason"],
            _at(now).alias("received_time"),
        )
        if keys
        else pl.DataFrame({"record_detail": details, "reason": everything["reason"]}).with_columns(
            _at(now).alias("received_time")
        )
    )


def _laid_out(rows: pl.DataFrame, table: LogTable) -> pl.DataFrame:
    """Large batches in the order of their instants, so that each file covers a short span of them.

    The sort is stable, so revisions of one key keep their order; where events may move, arrivals alone order rows.
    """
    if rows.height <= ROWS_PER_FILE:
        return rows
    by = ["arrival_time"] if table.definition.key is not None else ["arrival_time", "event_time"]
    return rows.sort(by, maintain_order=True)


def _write(
    table: LogTable,
    stamped: Stamped,
    head: Head,
    batch_id: str,
    written: list[AddAction],
    late: tuple[str, int] | None,
) -> int:
    """Write the batch's files; returns the next free sequence number."""
    sequence = head.next_sequence
    if late is not None:
        written.append(table.write_file(record_row(table, RESTAMP, sequence, late[0], arrival_us=late[1])))
        sequence += 1
    rows = table.logical_to_stored(stamped.rows).with_columns(
        (pl.int_range(pl.len(), dtype=pl.Int64) + sequence).alias("log_sequence"),
        pl.lit(batch_id).alias("batch_id"),
        pl.lit(OBSERVATION).alias("record_kind"),
        pl.lit(None, pl.String).alias("record_detail"),
    )
    for start in range(0, rows.height, ROWS_PER_FILE):
        written.append(table.write_file(rows[start : start + ROWS_PER_FILE]))  # noqa: PERF401 - a failure must leave the list of what is written
    sequence += rows.height
    if stamped.bad.height:
        bad = table.logical_to_stored(stamped.bad.drop("reason")).with_columns(
            (pl.int_range(pl.len(), dtype=pl.Int64) + sequence).alias("log_sequence"),
            pl.lit(batch_id).alias("batch_id"),
            pl.lit(QUARANTINED).alias("record_kind"),
        )
        written.append(table.write_file(full_width(table, bad)))
        sequence += bad.height
    return sequence


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


def _unconfirmed(table: LogTable, head: Head) -> tuple[str, int] | None:
    """A restamp for the last stamped batch, if its writer died before it could see that the commit was late.

    The store's own clock tells when the commit was made; it is compared with stamps of the system's clock only.
    """
    if head.stamped_at < 0 or table.clock is not system_clock:
        return None
    committed = table.committed_us(head.stamped_at)
    if committed is None or committed <= head.last_stamp_us:
        return None
    entry = table.location.read(f"_delta_log/{head.stamped_at:020d}.json").decode()
    paths = [line["add"]["path"] for text in entry.splitlines() if "add" in (line := json.loads(text))]
    alive = set(table.files()["path"])
    rows = table.read([path for path in paths if path in alive])
    stamped = rows.filter((pl.col("arrival_kind") == "measured") | (pl.col("record_kind") == RESTAMP))
    batch = stamped.sort("record_kind").select("batch_id").head(1).collect()
    return (batch.item(), max(committed, head.last_stamp_us + 1)) if batch.height else None


def _confirm(table: LogTable, batch_id: str, stamp_us: int | None) -> int | None:
    """Restamp until a confirmation comes before its stamp; returns the last one, if any.

    Raises:
        CommitError: If no restamp was confirmed in time.
    """
    margin = duration_us(table.definition.publish_margin, "publish_margin")
    if stamp_us is None:
        return None
    restamped: int | None = None
    for _attempt in range(ATTEMPTS):
        confirmed = table.now_us()
        if confirmed <= (restamped or stamp_us):
            return restamped
        margin = max(2 * margin, 2 * (confirmed - (restamped or stamp_us)))
        with table.commit_lock():
            table.refresh()
            head = table.head()
            instant = max(table.now_us() + margin, head.last_stamp_us + 1)
            row = record_row(table, RESTAMP, head.next_sequence, batch_id, arrival_us=instant)
            action = table.write_file(row)
            try:
                table.commit(
                    [action],
                    next_sequence=head.next_sequence + 1,
                    stamp_us=instant,
                    by_clock=table.clock is system_clock,
                )
            except LostRaceError:
                table.location.remove(action.path)
                continue
        restamped = instant
    raise CommitError(table.provider, ATTEMPTS, "restamp records kept being late; widen publish_margin")


def _already(table: LogTable, batch: Batch, batch_id: str) -> AppendReport:
    return AppendReport(
        provider=table.provider,
        batch_id=batch_id,
        duplicates=batch.rows.height + batch.bad.height,
        reasons={},
        position=table.head().next_sequence - 1,
    )


def _report(table: LogTable, stamped: Stamped, batch_id: str, attempts: int, restamped: int | None) -> AppendReport:
    counts = stamped.bad["reason"].value_counts().iter_rows() if stamped.bad.height else ()
    greatest = stamped.rows["arrival_time"].max()
    return AppendReport(
        provider=table.provider,
        batch_id=batch_id,
        rows=stamped.rows.height,
        quarantined=stamped.bad.height,
        reasons=dict(counts),
        unchanged=stamped.unchanged,
        skipped_measured=stamped.skipped_measured,
        moved=stamped.moved,
        clock_raised=stamped.clock_raised,
        position=table.head().next_sequence - 1,
        arrival_time=greatest if isinstance(greatest, datetime) else None,
        restamped=from_us(restamped) if restamped is not None else None,
        attempts=attempts,
    )


def _at(us: int) -> pl.Expr:
    return pl.lit(us, dtype=pl.Int64).cast(INSTANT)
