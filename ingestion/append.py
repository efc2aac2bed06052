"""The commit loop: stamp, sequence, write, commit as the very next version, confirm.

Everything that depends on what is in the log already (the stamp, the sequence numbers, what is unchanged, what is
known) is decided on the version that the commit is made on. A lost race decides again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import polars as pl
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from ingestion.batch import OWN_ISSUE, ROW, Batch, value_names
from ingestion.errors import BatchError, CommitError, EventAfterArrivalError, StoreError, SupersededError
from ingestion.evolution import ATTEMPTS, add_columns, compare_columns, fit_rows, refuse_change, widen_columns
from ingestion.instants import duration_us, from_us, system_clock
from ingestion.ledger import HEARTBEATS, MOVES_ON, STAMPED, Poll
from ingestion.reading import OBSERVATION, POLL, QUARANTINED, RESTAMP
from ingestion.records import full_width, not_yet_set_aside, quarantine_rows, record_row, set_aside
from ingestion.report import AppendReport
from ingestion.revisions import (
    ABSENT,
    Known,
    WholeState,
    count_fates,
    drop_unchanged,
    fill_absent,
    refuse_between,
    retract_missing,
    retract_moved,
    skip_known_history,
)
from ingestion.schema import INSTANT, SYSTEM_COLUMNS
from ingestion.table import Head, LogTable, LostRaceError, batch_marker, stream_marker

ROWS_PER_FILE = 1_000_000
_NOW_LIMIT_HINT = "give the clock that they were stamped by (clock=...), or load them as a forecast or with delay=."


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is committed together with a batch.

    Attributes:
        poll: The attempt that brought it, for the ledger.
        after: The record of the poll that this one began after; `None` does not look.
        whole_state: Set if the batch is all there is.
        aside: Payloads of which nothing could be read, with the reason.
        records: Further records: kind and JSON.
        head: The next `log_sequence` that the batch was made for; `None` takes any.
        stream: The batch's place in a sequence of batches: the sequence's name and a number that only grows. A log that has
            got as far has the batch, and remembers one number per sequence instead of every batch id.
        remember: Whether the batch id is one that somebody may give again; each one costs the log a marker for ever.
    """

    poll: Poll | None = None
    after: int | None = None
    whole_state: WholeState | None = None
    aside: tuple[tuple[str, object], ...] = ()
    records: tuple[tuple[str, str], ...] = ()
    head: int | None = None
    stream: tuple[str, int] | None = None
    remember: bool = True


@dataclass(slots=True)
class Stamped:
    """A batch as it would be committed on one version of the log."""

    rows: pl.DataFrame
    bad: pl.DataFrame
    stamp_us: int | None
    by_clock: bool = False
    unchanged: int = 0
    known_bad: int = 0
    skipped_measured: int = 0
    moved: int = 0
    clock_raised: int = 0
    new: int | None = None
    revised: int | None = None
    retracted: int | None = None
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """What became of the rows, for the ledger."""
        return {
            "new": self.new or 0,
            "revised": self.revised or 0,
            "retracted": self.retracted or 0,
            "unchanged": self.unchanged + self.known_bad,
            "quarantined": self.bad.height,
        }


def append_batch(
    table: LogTable, batch: Batch, batch_id: str, *, evolve: bool = False, attempt: Attempt | None = None
) -> AppendReport:
    """Append a batch once, whatever fails and whoever else appends.

    Args:
        table: The log.
        batch: What `prepare_batch` made of the rows.
        batch_id: A batch id that is in the log already appends nothing.
        evolve: Add columns and widen types as the batch needs them.
        attempt: What else is committed with it.

    Returns:
        What was done.

    Raises:
        CommitError: If other commits kept coming first, or the store failed; nothing of the batch is visible then.
        SchemaChangeError: If the columns differ and `evolve` is false.
        EventAfterArrivalError: If rows break R5 and the provider raises on bad rows.
        BackfillRefusedError: If the provider drops unchanged rows and these came between.
        BatchError: If given arrivals lie in the future.
        SupersededError: If another poll was recorded after `attempt.after`.
        StoreError: If the store refuses: it has no such bucket, or the keys are wrong or may not.
    """
    together = attempt or Attempt()
    if together.whole_state is not None and table.definition.kind == "forecast":
        raise BatchError(
            f"provider {table.provider!r}: a forecast has no whole state, each issue stands beside those before it",
            "append its rows as they are; an issue that is withdrawn is a retraction.",
        )
    for tries in range(1, ATTEMPTS + 1):
        _make_room(table, batch, evolve=evolve)
        written: list[AddAction] = []
        with table.commit_lock():
            table.refresh()
            if _is_in(table, batch_id, together):
                return _already(table, batch, batch_id)
            if _changes_columns(table, batch):
                continue
            _check_turn(table, together)
            head = table.head()
            stamped = _stamp(table, batch, head, together)
            late = _unconfirmed(table, head)
            try:
                end, poll_record = _write(table, stamped, head, batch_id, written, late, together)
                table.commit(
                    written,
                    next_sequence=end,
                    stamp_us=stamped.stamp_us,
                    by_clock=stamped.by_clock and table.clock is system_clock,
                    marker=_marker(batch_id, together, end),
                    poll_record=poll_record,
                )
            except (LostRaceError, DeltaError, OSError) as error:
                outcome = _after_failure(table, written, error, there=lambda: _is_in(table, batch_id, together))
                if outcome == "again" and tries < ATTEMPTS:
                    table.wait(tries)
                    continue
                if outcome == "theirs":
                    return _already(table, batch, batch_id)
                if outcome != "ours":
                    refused = error if isinstance(error, StoreError) and error.lasting else None
                    if refused is not None and not written:  # so nothing was sent that could become a commit
                        raise refused from refused.__cause__
                    raise CommitError(table.provider, tries, error) from error
        confirmed = table.now_us()
        restamped = _confirm(table, batch_id, stamped.stamp_us, confirmed) if stamped.by_clock else None
        return _report(table, stamped, batch_id, tries, restamped, confirmed, together.poll)
    raise CommitError(table.provider, ATTEMPTS, "the columns kept changing")


def _marker(batch_id: str, attempt: Attempt, end: int) -> tuple[str, int] | None:
    """What tells later that the batch is in: its place in a stream, or its id.

    A poll that goes on after another needs nothing: once it is in, that other one is no longer the last.
    """
    if attempt.stream is not None:
        return stream_marker(attempt.stream[0]), attempt.stream[1]
    return (batch_marker(batch_id), end) if attempt.remember and attempt.after is None else None


def _is_in(table: LogTable, batch_id: str, attempt: Attempt) -> bool:
    if attempt.stream is not None:
        last = table.marked(stream_marker(attempt.stream[0]))
        return last is not None and last >= attempt.stream[1]
    return table.marked(batch_marker(batch_id)) is not None


def _after_failure(
    table: LogTable, written: list[AddAction], error: Exception, *, there: Callable[[], bool]
) -> Literal["ours", "theirs", "again", "unknown"]:
    """What became of a commit that failed or whose answer was lost.

    Files are deleted only where it is certain that no commit will ever name them; a store that failed may still make it.
    """
    try:
        table.refresh()
        alive = set(table.files()["path"])
    except (DeltaError, OSError):
        return "unknown"
    if any(action.path in alive for action in written):
        return "ours"
    theirs = there()
    if not (theirs or isinstance(error, LostRaceError)):
        return "unknown"
    table.discard(written)
    return "theirs" if theirs else "again"


def _own_names(table: LogTable, batch: Batch) -> list[str]:
    given = [name for name in value_names(batch.rows, table.definition) if name not in (ROW, OWN_ISSUE, ABSENT)]
    return [*table.definition.entities, *given]


def _check_turn(table: LogTable, attempt: Attempt) -> None:
    """Refuse what was fetched before another job's poll: it may repeat rows, or be older than what is stored.

    Raises:
        SupersededError: If another poll was recorded since, or the log is not at the head that the batch was made for.
    """
    if attempt.after is not None and table.last_poll_record() != attempt.after:
        raise SupersededError(table.provider, attempt.after, table.last_poll_record())
    if attempt.head is not None and table.head().next_sequence != attempt.head:
        raise SupersededError(table.provider, attempt.head, table.head().next_sequence)


def _changes_columns(table: LogTable, batch: Batch) -> bool:
    return batch.rows.height > 0 and bool(compare_columns(batch.rows, _own_names(table, batch), table))


def _make_room(table: LogTable, batch: Batch, *, evolve: bool) -> None:
    """Give the log the columns that the batch has."""
    table.refresh()
    if batch.original.width == 0:
        return
    change = compare_columns(batch.rows, _own_names(table, batch), table)
    if not change:
        return
    if table.columns and not evolve:
        refuse_change(change, table)
    if change.widened:
        widen_columns(table, change.widened)
    if change.added:
        add_columns(table, change.added)


def _stamp(table: LogTable, batch: Batch, head: Head, attempt: Attempt) -> Stamped:
    """Arrivals, and what follows from them.

    Raises:
        BatchError: If given arrivals lie in the future.
    """
    definition = table.definition
    now = table.now_us()
    rows = fit_rows(batch.rows, table)
    raised_limit = duration_us(definition.clock_tolerance, "clock_tolerance")
    instant = _instant(table, batch, head, attempt, now)
    early, skipped = rows.clear().with_columns(reason=pl.lit(None, pl.String)), 0
    if batch.arrivals == "stamp":
        rows = rows.with_columns(_at(instant).alias("arrival_time"), pl.col("received_time").fill_null(_at(now)))
    else:
        _refuse_future(rows, now + raised_limit, table)
        rows, skipped = skip_known_history(table, rows)
        rows, early = _not_yet(rows, now)
    rows, bad, raised = _judge_clock(rows, table, raised_limit)
    bad = pl.concat([part.select(ROW, "reason") for part in (batch.bad, early, bad)]).sort(ROW)
    bad = quarantine_rows(bad, batch, table, now)
    if attempt.aside:
        bad = pl.concat([bad, set_aside(list(attempt.aside), now)], how="diagonal")
    all_bad = bad.height
    if definition.drop_unchanged:
        bad = not_yet_set_aside(table, bad, _set_apart(table, batch, rows))
    if OWN_ISSUE in rows.columns:
        own = pl.when(~pl.col("is_retraction")).then(pl.col("arrival_time"))
        rows = rows.with_columns(issue_time=own)
    result = Stamped(
        rows,
        bad,
        instant,
        by_clock=batch.arrivals == "stamp" and instant is not None,
        clock_raised=raised,
        known_bad=all_bad - bad.height,
        skipped_measured=skipped,
    )
    if attempt.whole_state is not None:
        present = [rows, _set_apart(table, batch, rows)]
        result.rows = _with_missing(result, table, attempt.whole_state, present)
    _settle(result, table, head, attempt)
    if attempt.poll is not None and _concluded(attempt.poll, result).outcome not in STAMPED:
        result.stamp_us, result.by_clock = None, False  # nothing that came could be kept: that tells nothing
    result.stamp_us = _greatest_stamp(result, table)
    return result


def _instant(table: LogTable, batch: Batch, head: Head, attempt: Attempt, now: int) -> int | None:
    """The stamp of the batch and of the poll that brought it; `None` where nothing is to be stamped."""
    polled = attempt.poll is not None and attempt.poll.outcome in STAMPED
    if not (batch.arrivals == "stamp" and (batch.original.width or attempt.records)) and not polled:
        return None
    received = batch.rows["received_time"].dt.epoch("us").max()
    margin = duration_us(table.definition.publish_margin, "publish_margin")
    # A clock that was set back after rows were received is behind what it has shown: readers may have seen that too.
    shown = max(now, received) if isinstance(received, int) else now
    return max(shown + margin, head.last_stamp_us + 1)


def _refuse_future(rows: pl.DataFrame, limit_us: int, table: LogTable) -> None:
    """Refuse arrivals that are said to be measured and lie in the future.

    Raises:
        BatchError: If there are any.
    """
    future = rows.filter((pl.col("arrival_kind") == "measured") & (pl.col("arrival_time") > _at(limit_us)))
    if future.height:
        raise BatchError(
            f"provider {table.provider!r}: {future.height} rows have a measured arrival in the future;"
            f" first: {future['arrival_time'][0]}, and it is {from_us(table.now_us())}",
            _NOW_LIMIT_HINT,
        )


def _set_apart(table: LogTable, batch: Batch, kept: pl.DataFrame) -> pl.DataFrame:
    """The rows of a batch that are not kept; their keys are known all the same."""
    dtypes = {column.name: column.dtype for column in table.columns}
    bad = pl.concat([batch.rows.join(kept, on=ROW, how="anti"), batch.bad.drop("reason")], how="diagonal_relaxed")
    return bad.with_columns(pl.col(name).cast(dtypes[name], strict=False) for name in bad.columns if name in dtypes)


def _not_yet(rows: pl.DataFrame, now_us: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """History whose declared arrival is still to come: it is here now, and may be measured meanwhile (R13)."""
    to_come = (pl.col("arrival_kind") != "measured") & (pl.col("arrival_time") > _at(now_us))
    text = pl.lit("its ") + pl.col("arrival_kind") + " arrival is still to come; it cannot be called history"
    return rows.filter(~to_come), rows.filter(to_come).with_columns(reason=text)


def _with_missing(result: Stamped, table: LogTable, state: WholeState, present: list[pl.DataFrame]) -> pl.DataFrame:
    """The rows of a whole state after the retractions of what is missing there."""
    key = table.definition.key_columns
    if any(part.select(pl.any_horizontal(pl.col(key).is_null()).any()).item() for part in present):
        result.notes.append("whole state not compared: a row that was set aside has no key, and may be any of them")
        return result.rows
    gone = retract_missing(table, result.rows, pl.concat([part.select(key) for part in present]), state)
    gone = gone.with_columns(
        _at(result.stamp_us).alias("arrival_time"),
        pl.lit(result.rows["received_time"].max(), INSTANT).alias("received_time"),
        pl.lit("measured").alias("arrival_kind"),
    )
    return pl.concat([gone, result.rows])


def _settle(result: Stamped, table: LogTable, head: Head, attempt: Attempt) -> None:
    """What the log already knows decides which rows are stored, which are added, and what they are."""
    definition = table.definition
    if definition.drop_unchanged:
        refuse_between(table, result.rows, head)
    known = Known(table, result.rows)
    result.rows = _laid_out(result.rows, table)
    result.rows, result.moved = retract_moved(table, result.rows, known)
    if ABSENT in result.rows.columns:
        result.rows = fill_absent(table, result.rows, known)
    if definition.drop_unchanged:
        result.rows, result.unchanged = drop_unchanged(table, result.rows, known)
    if attempt.poll is not None:
        result.new, result.revised, result.retracted = count_fates(table, result.rows, known)


def _greatest_stamp(stamped: Stamped, table: LogTable) -> int | None:
    """What the next stamp must be greater than.

    Given measured arrivals count. A row that was raised to its event counts only where ids are declared: there a later
    revision may have an earlier event, and must still arrive after this one.
    """
    measured = stamped.rows.filter(pl.col("arrival_kind") == "measured")["arrival_time"].dt.epoch("us").max()
    greatest = measured if isinstance(measured, int) else None
    if stamped.stamp_us is None:
        return greatest
    if not stamped.by_clock or table.definition.key is not None:
        return max(stamped.stamp_us, greatest or stamped.stamp_us)
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
    attempt: Attempt,
) -> tuple[int, int | None]:
    """Write the batch's files; returns the next free sequence number and that of the poll's record, if it moves on."""
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
    for kind, detail in attempt.records:
        row = record_row(table, kind, sequence, batch_id, arrival_us=stamped.stamp_us, detail=detail)
        written.append(table.write_file(row))
        sequence += 1
    if attempt.poll is None:
        return sequence, None
    poll = _concluded(attempt.poll, stamped)
    stamp = stamped.stamp_us if poll.outcome in STAMPED else None
    detail = poll.to_detail(stamped.counts())
    written.append(table.write_file(record_row(table, POLL, sequence, batch_id, arrival_us=stamp, detail=detail)))
    return sequence + 1, sequence if poll.outcome in MOVES_ON else None


def _concluded(poll: Poll, stamped: Stamped) -> Poll:
    """The poll with the outcome that its rows had, and what was noted of them."""
    poll = replace(poll, notes=(*poll.notes, *stamped.notes))
    if poll.outcome not in HEARTBEATS:
        return poll
    if stamped.rows.height:
        return replace(poll, outcome="rows")
    only_bad = (stamped.bad.height or stamped.known_bad) and not stamped.unchanged
    return replace(poll, outcome="refused" if only_bad else "empty")


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
    stamped = rows.filter(
        (pl.col("arrival_kind") == "measured")
        | (pl.col("record_kind").is_in([RESTAMP, POLL]) & pl.col("arrival_time").is_not_null())
    )
    batch = stamped.sort("record_kind").select("batch_id").head(1).collect()
    return (batch.item(), max(committed, head.last_stamp_us + 1)) if batch.height else None


def _confirm(table: LogTable, batch_id: str, stamp_us: int | None, confirmed: int) -> int | None:
    """Restamp until a confirmation comes before its stamp; returns the last one, if any.

    Raises:
        CommitError: If no restamp was confirmed in time.
    """
    margin = duration_us(table.definition.publish_margin, "publish_margin")
    if stamp_us is None:
        return None
    restamped: int | None = None
    for _attempt in range(ATTEMPTS):
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
                table.discard([action])
                table.wait(_attempt + 1)
                continue
        restamped, confirmed = instant, table.now_us()
    raise CommitError(table.provider, ATTEMPTS, "restamp records kept being late; widen publish_margin")


def _already(table: LogTable, batch: Batch, batch_id: str) -> AppendReport:
    return AppendReport(
        provider=table.provider,
        batch_id=batch_id,
        duplicates=batch.rows.height + batch.bad.height,
        reasons={},
        position=table.head().next_sequence - 1,
    )


def _report(
    table: LogTable,
    stamped: Stamped,
    batch_id: str,
    attempts: int,
    restamped: int | None,
    confirmed: int,
    poll: Poll | None,
) -> AppendReport:
    counts = stamped.bad["reason"].value_counts().iter_rows() if stamped.bad.height else ()
    greatest = stamped.rows["arrival_time"].max()
    return AppendReport(
        provider=table.provider,
        batch_id=batch_id,
        rows=stamped.rows.height,
        quarantined=stamped.bad.height,
        reasons=dict(counts),
        unchanged=stamped.unchanged + stamped.known_bad,
        skipped_measured=stamped.skipped_measured,
        moved=stamped.moved,
        clock_raised=stamped.clock_raised,
        position=table.head().next_sequence - 1,
        arrival_time=greatest if isinstance(greatest, datetime) else None,
        restamped=from_us(restamped) if restamped is not None else None,
        attempts=attempts,
        new=stamped.new,
        revised=stamped.revised,
        retracted=stamped.retracted,
        confirmed_time=from_us(confirmed),
        outcome=_concluded(poll, stamped).outcome if poll is not None else None,
    )


def append_nothing(table: LogTable, batch_id: str, attempt: Attempt) -> AppendReport:
    """Commit a poll, and what could not be read, without a row.

    Args:
        table: The log.
        batch_id: A batch id that is in the log already records nothing.
        attempt: What is to be recorded.

    Returns:
        What was done.

    Raises:
        CommitError: If other commits kept coming first, or the store failed.
        SupersededError: If another poll was recorded after `attempt.after`.
    """
    table.refresh()
    columns = {column.name: column.dtype for column in table.columns}
    none = pl.DataFrame(schema={**columns, **SYSTEM_COLUMNS, ROW: pl.UInt32()})
    bad = none.with_columns(reason=pl.lit(None, pl.String))
    return append_batch(table, Batch(none, bad, pl.DataFrame(), "stamp"), batch_id, attempt=attempt)


def _at(us: int | None) -> pl.Expr:
    return pl.lit(us, dtype=pl.Int64).cast(INSTANT)
