"""What becomes of quarantined rows: looked at, released into the log, or dropped; never deleted.

A quarantined row is a record of the provider's own log. A decision on it is another record, committed together with the
rows that it releases, so that releasing twice, or a crash in between, never doubles a row. Released rows are stamped when
they are released: nobody could see them before. They keep the `received_time` that they were set aside with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ingestion.append import Attempt, append_batch
from ingestion.batch import ROW, prepare_batch, value_names
from ingestion.errors import CommitError, QuarantineError, SupersededError
from ingestion.evolution import ATTEMPTS
from ingestion.instants import Clock, duration_us, from_us
from ingestion.payloads import SEQUENCE, rows_of
from ingestion.reading import DROPPED, QUARANTINED, RELEASED, records
from ingestion.records import record_row
from ingestion.removal import decode_ranges, encode_ranges, sequence_ranges
from ingestion.revisions import known_rows
from ingestion.schema import INSTANT
from ingestion.table import LogTable, LostRaceError

if TYPE_CHECKING:
    from ingestion.log import ObservationLog

Check = Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.Series | None]]
"""Rows against a contract: the rows in its types, and per row why it breaks it, or null; `None` if none does."""
Parse = Callable[[bytes], pl.DataFrame]
"""The rows in a payload that could not be parsed, or was refused whole, when it came."""

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReport:
    """What a release did, or would do.

    Attributes:
        provider: Whose log.
        chosen: How many quarantined rows were asked for.
        released: How many of them left the quarantine.
        rows: Observations that were appended.
        unchanged: Rows that were not stored because they repeat their key's current revision.
        held: How many rows stay in the quarantine, for each reason.
        examples: The first rows that stay: `log_sequence` and reason.
        dry_run: Whether nothing was done.
        batch_id: The batch that the rows are; `None` if there are none.
        position: The log's position afterwards.
        arrival_time: The stamp of the released rows.
    """

    provider: str
    chosen: int
    released: int
    rows: int
    unchanged: int = 0
    held: dict[str, int]
    examples: tuple[tuple[int, str], ...] = ()
    dry_run: bool = False
    batch_id: str | None = None
    position: int
    arrival_time: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; instants as text."""
        plain = asdict(self)
        plain["arrival_time"] = self.arrival_time.isoformat() if self.arrival_time else None
        plain["examples"] = [{"log_sequence": sequence, "reason": reason} for sequence, reason in self.examples]
        return plain

    def __str__(self) -> str:
        done = "would be released" if self.dry_run else "released"
        arrival = f", arrival {self.arrival_time:%Y-%m-%d %H:%M:%S.%f} UTC" if self.arrival_time else ""
        lines = [f"{self.provider}: {self.released:,} of {self.chosen:,} rows {done}{arrival}"]
        if self.unchanged:
            lines.append(f"  {self.unchanged:,} unchanged, not stored")
        worst = sorted(self.held.items(), key=lambda item: -item[1])
        lines += [f"  {count:,} stay: {reason}" for reason, count in worst[:_SHOWN]]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReport:
    """What a drop did, or would do.

    Attributes:
        provider: Whose log.
        dropped: How many quarantined rows are done with.
        reasons: How many of them each reason had set aside.
        why: Why they were dropped.
        dry_run: Whether nothing was done.
        position: The log's position afterwards.
    """

    provider: str
    dropped: int
    reasons: dict[str, int]
    why: str
    dry_run: bool = False
    position: int

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        done = "would be dropped" if self.dry_run else "dropped"
        worst = sorted(self.reasons.items(), key=lambda item: -item[1])
        lines = [f"{self.provider}: {self.dropped:,} rows {done}: {self.why}"]
        return "\n".join([*lines, *(f"  {count:,} were set aside: {reason}" for reason, count in worst[:_SHOWN])])


# ------------------------------------------------------------------------------------------------------------- looking


def quarantined(table: LogTable, *, decided: bool = False) -> pl.DataFrame:
    """The quarantined rows of a log as it was read.

    Args:
        table: The log.
        decided: Also those that were released or dropped.

    Returns:
        Entities, `received_time`, `batch_id`, `log_sequence`, `reason`, `row` (in its batch, from 0), `payload` (what came),
        `form` (what the payload is: a `row` as JSON, or the `text` or base64 `bytes` of a whole that gave no rows), `state`
        (`open`, `released`, `dropped`), `decided_by` (the `log_sequence` of the record that says so), `why` (of dropped
        rows). In order of `log_sequence`.
    """
    frame = records(table, QUARANTINED).sort("log_sequence").collect()
    detail = pl.col("record_detail")
    rows = frame.select(
        *(name for name in table.definition.entities if name in frame.columns),
        "received_time",
        "batch_id",
        "log_sequence",
        detail.str.json_path_match("$.reason").alias("reason"),
        detail.str.json_path_match("$.row").cast(pl.Int64).alias("row"),
        detail.str.json_path_match("$.payload").alias("payload"),
        _form(detail).alias("form"),
    )
    known = rows.join(_decisions(table), on="log_sequence", how="left", maintain_order="left").with_columns(
        pl.col("state").fill_null("open")
    )
    return known if decided else known.filter(pl.col("state") == "open")


def _form(detail: pl.Expr) -> pl.Expr:
    """What a payload is; a quote inside of JSON's text is never bare, so the key can be looked for as text."""
    encoded = detail.str.contains('"payload": {"encoding": "base64", "content": "', literal=True)
    written = detail.str.contains('"payload": "', literal=True)
    return pl.when(written).then(pl.lit("text")).when(encoded).then(pl.lit("bytes")).otherwise(pl.lit("row"))


def _decisions(table: LogTable) -> pl.DataFrame:
    """`log_sequence` of each quarantined row on which there is a decision, with `state`, `decided_by` and `why`."""
    schema = {
        "log_sequence": pl.Int64(),
        "state": pl.String(),
        "decided_by": pl.Int64(),
        "why": pl.String(),
    }
    parts = [pl.DataFrame(schema=schema)]
    for kind in (RELEASED, DROPPED):
        for sequence, text in records(table, kind).select("log_sequence", "record_detail").collect().iter_rows():
            detail = json.loads(text)
            spans = decode_ranges(detail["log_sequences"])
            rows = spans.select(pl.int_ranges("first", pl.col("last") + 1).explode().alias("log_sequence"))
            parts.append(
                rows.with_columns(
                    pl.lit(kind).alias("state"),
                    pl.lit(sequence, pl.Int64).alias("decided_by"),
                    pl.lit(detail.get("why"), pl.String).alias("why"),
                )
            )
    return pl.concat(parts).sort("decided_by").unique("log_sequence", keep="first")


def quarantine_reasons(log: ObservationLog) -> pl.DataFrame:
    """The reasons for which rows are in the quarantine, the most frequent first.

    Args:
        log: Whose log.

    Returns:
        `reason`, `rows`, `first_received`, `last_received`, `first_sequence`, `example` (the payload of the first row).

    Example:
        >>> import tempfile
        >>> from datetime import UTC, datetime
        >>> from ingestion import create_log
        >>> log = create_log(tempfile.mkdtemp(), "weather", entities=["station"])
        >>> rows = {"station": ["mast", None], "event_time": [datetime(2026, 1, 5, tzinfo=UTC)] * 2, "temp": [3.5, 4.0]}
        >>> _ = log.append(pl.DataFrame(rows))
        >>> quarantine_reasons(log).select("reason", "rows").rows()
        [('station is null', 1)]
    """
    return (
        log.quarantine()
        .group_by("reason", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.col("received_time").min().alias("first_received"),
            pl.col("received_time").max().alias("last_received"),
            pl.col("log_sequence").min().alias("first_sequence"),
            pl.col("payload").first().alias("example"),
        )
        .sort("rows", descending=True, maintain_order=True)
    )


def chosen_rows(table: LogTable, sequences: Sequence[int] | None = None, *, reason: str | None = None) -> pl.DataFrame:
    """The open rows that are asked for, as `quarantined` returns them.

    Args:
        table: The log.
        sequences: Their `log_sequence`; `None` for all.
        reason: Only rows whose reason contains this text.

    Returns:
        The rows in order of `log_sequence`.

    Raises:
        QuarantineError: If a sequence number is not that of a quarantined row, or there is a decision on it already.
    """
    rows = quarantined(table, decided=sequences is not None)
    if sequences is not None:
        rows = rows.filter(pl.col("log_sequence").is_in(list(sequences)))
        missing = sorted(set(sequences) - set(rows["log_sequence"]))
        if missing:
            raise QuarantineError(
                table.provider,
                missing[0],
                f"{missing[0]} is not the log_sequence of a quarantined row",
                f"asknown quarantine show LOGS {table.provider}",
            )
        done = rows.filter(pl.col("state") != "open")
        if done.height:
            sequence, state, by = done.select("log_sequence", "state", "decided_by").row(0)
            raise QuarantineError(
                table.provider,
                sequence,
                f"row {sequence} was {state} already (record {by})",
                "name open rows only; asknown quarantine show lists them.",
            )
    if reason is not None:
        rows = rows.filter(pl.col("reason").str.contains(reason, literal=True))
    return rows


# ------------------------------------------------------------------------------------------------------------ releasing


def release_quarantined(
    log: ObservationLog,
    sequences: Sequence[int] | None = None,
    *,
    reason: str | None = None,
    changes: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
    check: Check | None = None,
    parse: Parse | None = None,
    over_newer: bool = False,
    evolve: bool = False,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> ReleaseReport:
    """Append quarantined rows as a new batch, stamped now, and mark them as released in the same commit.

    Rows that still break a rule stay where they are. So do rows whose key has had another revision that was received
    later or together with them: released now, they would displace what is newer. Where the provider's repeated values are
    dropped, any other value of their key may be newer.

    Args:
        log: Whose log.
        sequences: The rows, by `log_sequence`; `None` for all that are open.
        reason: Only rows whose reason contains this text.
        changes: Columns to set, with the value for all of these rows; text is read as the column's type.
        rename: Names in the payload, and what the columns are called in the log.
        check: Rows against the provider's contract, as it is now.
        parse: Reads payloads that could not be parsed; without it they stay.
        over_newer: Release rows also where a newer revision of their key is there.
        evolve: Add columns that the log lacks, widen types that are too narrow.
        dry_run: Say what would be done.
        clock: Something that tells now, instead of the log's own clock.

    Returns:
        What was done.

    Raises:
        QuarantineError: If a row is not there, or there is a decision on it already.
        BatchError: If `changes` or `rename` name what cannot be.
        CommitError: If the commit could not be made; nothing is changed then.
    """
    table = log.table
    before = table.clock
    table.clock = clock or before
    try:
        for _attempt in range(ATTEMPTS):
            table.refresh()
            picked = chosen_rows(table, sequences, reason=reason)
            plan = _planned(
                table,
                picked,
                changes or {},
                rename or {},
                check=check,
                parse=parse,
                over_newer=over_newer,
                evolve=evolve,
            )
            if dry_run or plan.leaving.is_empty():
                return _report(table, picked, plan, dry_run=dry_run)
            try:
                return _committed(table, picked, plan, changes or {}, rename or {}, evolve=evolve)
            except SupersededError:
                continue  # something was committed since we looked: look again
    finally:
        table.clock = before
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


@dataclass(slots=True)
class _Plan:
    """Rows that can be released, and why the others cannot.

    Attributes:
        frame: The rows, with the `log_sequence` of the quarantined row that each comes from in `__sequence`.
        reasons: Per row of `frame`, why it goes back as a quarantined row of its own; of payloads parsed now.
        held: Sequence number to reason.
        emptied: Sequence numbers of payloads that hold no rows.
        head: Where the log stood when this was planned.
    """

    frame: pl.DataFrame
    reasons: pl.Series
    held: dict[int, str]
    emptied: list[int]
    head: int

    @property
    def leaving(self) -> pl.Series:
        """The quarantined rows that are done with."""
        sequences = self.frame[SEQUENCE] if SEQUENCE in self.frame.columns else pl.Series([], dtype=pl.Int64)
        return pl.concat([sequences.cast(pl.Int64), pl.Series(self.emptied, dtype=pl.Int64)]).unique().sort()


def _planned(
    table: LogTable,
    picked: pl.DataFrame,
    changes: Mapping[str, Any],
    rename: Mapping[str, str],
    *,
    check: Check | None,
    parse: Parse | None,
    over_newer: bool,
    evolve: bool,
) -> _Plan:
    """What a release would do on the version of the log that was read."""
    parts, held, raw, emptied = rows_of(table, picked, changes=changes, rename=rename, parse=parse)
    judged = [
        _judged(table, part, picked, check=check, over_newer=over_newer, evolve=evolve or check is not None)
        for part in parts
    ]
    if judged:
        frame = pl.concat([part for part, _ in judged], how="diagonal_relaxed")
        reasons = pl.concat([found for _, found in judged])
        order = pl.select(__n=pl.int_range(frame.height)).sort(by=frame[SEQUENCE], maintain_order=True).to_series()
        frame, reasons = frame[order], reasons[order]
    else:
        frame, reasons = pl.DataFrame(schema={SEQUENCE: pl.Int64}), pl.Series("reason", [], dtype=pl.String)
    # A payload that is parsed now is one record, and its rows are many: if any of them is good, the others go back alone.
    good = frame.filter(reasons.is_null())[SEQUENCE]
    alone = frame[SEQUENCE].is_in(raw) & frame[SEQUENCE].is_in(good.implode())
    stays = reasons.is_not_null() & ~alone
    for sequence, why in zip(frame.filter(stays)[SEQUENCE], reasons.filter(stays), strict=True):
        held.setdefault(sequence, why)
    return _Plan(frame.filter(~stays), reasons.filter(~stays), held, emptied, table.head().next_sequence)


def _judged(
    table: LogTable, frame: pl.DataFrame, picked: pl.DataFrame, *, check: Check | None, over_newer: bool, evolve: bool
) -> tuple[pl.DataFrame, pl.Series]:
    """Rows that have the same columns, in the log's types, and per row why it cannot be released, or null."""
    reasons = pl.Series("reason", [None] * frame.height, dtype=pl.String)
    if check is not None:
        checked, found = check(frame.drop(SEQUENCE))
        frame = checked.with_columns(frame[SEQUENCE])
        reasons = found.cast(pl.String).alias("reason") if found is not None else reasons
    needed = ["event_time", *table.definition.entities, *(table.definition.key or ())]
    types = {"event_time": INSTANT, **{column.name: column.dtype for column in table.columns}}
    frame = frame.with_columns(
        pl.lit(None, types.get(name)).alias(name) for name in needed if name not in frame.columns
    )
    reasons = _first(reasons, _broken(table, frame))
    reasons = _first(reasons, _lacking(table, frame))
    reasons = _first(reasons, _unknown_columns(table, frame, evolve=evolve))
    return frame, reasons if over_newer else _first(reasons, _older(table, frame, picked))


def _lacking(table: LogTable, frame: pl.DataFrame) -> pl.Series:
    """Rows without a column that the log has; only a retraction needs no values."""
    lacks = [column.name for column in table.columns if column.name not in frame.columns]
    needs = ~pl.col("is_retraction").fill_null(value=False) if "is_retraction" in frame.columns else pl.lit(value=True)
    text = f"the row has no column {lacks[0]!r}, and absent is not null" if lacks else None
    reason = pl.when(needs).then(pl.lit(text, pl.String)).alias("reason")
    return frame.select(SEQUENCE, reason)["reason"]


def _first(reasons: pl.Series, more: pl.Series) -> pl.Series:
    return reasons.zip_with(reasons.is_not_null(), more).alias("reason")


def _unknown_columns(table: LogTable, frame: pl.DataFrame, *, evolve: bool) -> pl.Series:
    """Rows with a value in a column that the log does not have."""
    known = {column.name for column in table.columns}
    strange = [name for name in value_names(frame, table.definition) if name not in known and name != SEQUENCE]
    strange = [name for name in strange if not name.startswith("__")]
    if evolve or not strange or not known:
        return pl.Series("reason", [None] * frame.height, dtype=pl.String)
    texts = [pl.when(pl.col(name).is_not_null()).then(pl.lit(f"the log has no column {name!r}")) for name in strange]
    return frame.select(pl.coalesce(texts).alias("reason")).to_series()


def _broken(table: LogTable, frame: pl.DataFrame) -> pl.Series:
    """Rows that would be set aside again: no key, or an event that is still to come."""
    definition = replace(table.definition, on_bad_row="quarantine")
    batch = prepare_batch(frame.drop(SEQUENCE), definition, arrivals="stamp")
    found = dict(batch.bad.select(ROW, "reason").iter_rows())
    if definition.kind == "measurement":
        limit = table.now_us() + duration_us(definition.clock_tolerance, "clock_tolerance")
        limit += duration_us(definition.publish_margin, "publish_margin")
        ahead = batch.rows.filter(pl.col("event_time") > pl.lit(from_us(limit)))[ROW]
        text = f"event_time is more than {definition.clock_tolerance} after arrival_time"
        found.update(dict.fromkeys(ahead, text))
    return pl.Series("reason", [found.get(number) for number in range(frame.height)], dtype=pl.String)


def _older(table: LogTable, frame: pl.DataFrame, picked: pl.DataFrame) -> pl.Series:
    """Rows whose key has a revision in the log that was received later, or with them in another row, or may have been.

    Where repeated values are dropped, a value that is in the log may have come again since; nothing tells whether it has.
    """
    nothing = pl.Series("reason", [None] * frame.height, dtype=pl.String)
    key = table.definition.revision_columns
    columns = {column.name for column in table.columns} | {"event_time", "issue_time"}
    if not set(key) <= columns or not set(key) <= set(frame.columns):
        return nothing
    values = [column.name for column in table.columns if column.name not in key and column.name in frame.columns]
    retracts = pl.lit(value=False) if "is_retraction" not in frame.columns else pl.col("is_retraction")
    received = picked.select(pl.col("log_sequence").alias(SEQUENCE), pl.col("received_time").alias("__received"))
    asked = frame.select(*key, *values, SEQUENCE, retracts.fill_null(value=False).alias("__retracts"))
    asked = asked.join(received, on=SEQUENCE, how="left", maintain_order="left")
    known = (
        known_rows(table, frame, key)
        .sort("arrival_time", "log_sequence")
        .group_by(key, maintain_order=True)
        .agg(
            pl.coalesce("received_time", "arrival_time").max().alias("__newest"),
            pl.col("is_retraction").last().fill_null(value=False).not_().alias("__lives"),
            *(pl.col(name).last().alias(f"__was_{name}") for name in values),
        )
        .collect()
    )
    both = table.logical_to_stored(asked).join(known, on=key, how="left", nulls_equal=True, maintain_order="left")
    newer = pl.col("__newest") >= pl.col("__received")
    alike = [name for name in values if both.schema[name] == both.schema[f"__was_{name}"]]
    differs = [pl.col(name).ne_missing(pl.col(f"__was_{name}")) for name in alike]
    differs += [pl.lit(value=True)] if len(alike) < len(values) else []
    again = pl.col("__lives") & pl.any_horizontal("__retracts", *differs)
    if not table.definition.drop_unchanged:
        again = pl.lit(value=False)
    return both.select(
        pl.when(newer)
        .then(pl.lit("the log has a revision of the same key that was received later"))
        .when(again)
        .then(
            pl.lit("the log has another value of the same key, which may have come again and been dropped as unchanged")
        )
        .alias("reason")
    ).to_series()


def _committed(
    table: LogTable,
    picked: pl.DataFrame,
    plan: _Plan,
    changes: Mapping[str, Any],
    rename: Mapping[str, str],
    *,
    evolve: bool,
) -> ReleaseReport:
    """Commit the plan, unless something else was committed since.

    Raises:
        SupersededError: If something was; then nothing is stored.
    """
    leaving = plan.leaving
    detail = json.dumps(
        {
            "log_sequences": encode_ranges(sequence_ranges(leaving)),
            "rows": leaving.len(),
            "set": sorted(changes),  # names alone: a value may name a person
            "renamed": dict(rename),
            "decided_time": from_us(table.now_us()).isoformat(),
        }
    )
    if plan.frame.is_empty():
        _record(table, RELEASED, detail, plan.head)
        return _report(table, picked, plan)
    received = picked.select(pl.col("log_sequence").alias(SEQUENCE), pl.col("received_time").alias("__received"))
    frame = plan.frame.join(received, on=SEQUENCE, how="left", maintain_order="left")
    own = pl.col("received_time") if "received_time" in frame.columns else pl.lit(None, INSTANT)
    frame = frame.with_columns(pl.coalesce(own, "__received").alias("received_time")).drop(SEQUENCE, "__received")
    batch = prepare_batch(
        frame,
        replace(table.definition, on_bad_row="quarantine"),
        arrivals="stamp",
        reasons=plan.reasons if plan.reasons.null_count() < plan.reasons.len() else None,
    )
    batch_id = f"release-{leaving[0]}-{leaving.len()}-{plan.head}"
    stored = append_batch(
        table, batch, batch_id, evolve=evolve, attempt=Attempt(records=((RELEASED, detail),), head=plan.head)
    )
    report = _report(table, picked, plan)
    return replace(
        report,
        rows=stored.rows,
        unchanged=stored.unchanged,
        batch_id=batch_id,
        position=stored.position,
        arrival_time=stored.restamped or stored.arrival_time,
        held={**report.held, **{why: report.held.get(why, 0) + count for why, count in stored.reasons.items()}},
    )


def _report(table: LogTable, picked: pl.DataFrame, plan: _Plan, *, dry_run: bool = False) -> ReleaseReport:
    held: dict[str, int] = {}
    for why in plan.held.values():
        held[why] = held.get(why, 0) + 1
    return ReleaseReport(
        provider=table.provider,
        chosen=picked.height,
        released=plan.leaving.len(),
        rows=int(plan.reasons.null_count()),
        held=held,
        examples=tuple(sorted(plan.held.items())[:_SHOWN]),
        dry_run=dry_run,
        position=table.head().next_sequence - 1,
    )


# ------------------------------------------------------------------------------------------------------------- dropping


def drop_quarantined(
    log: ObservationLog,
    sequences: Sequence[int] | None = None,
    *,
    why: str,
    reason: str | None = None,
    dry_run: bool = False,
) -> DropReport:
    """Mark quarantined rows as done with; they stay in the log's files until they are erased.

    Args:
        log: Whose log.
        sequences: The rows, by `log_sequence`; `None` for all that are open.
        why: Why they are of no use; kept in the log, so it should name nobody.
        reason: Only rows whose reason contains this text.
        dry_run: Say what would be done.

    Returns:
        What was done.

    Raises:
        QuarantineError: If a row is not there, there is a decision on it already, or `why` is empty.
        CommitError: If the commit could not be made; nothing is changed then.
    """
    table = log.table
    if not why.strip():
        raise QuarantineError(table.provider, None, "why are the rows dropped?", 'say it: why="test messages".')
    for _attempt in range(ATTEMPTS):
        table.refresh()
        picked = chosen_rows(table, sequences, reason=reason)
        counts = dict(picked["reason"].value_counts().iter_rows())
        head = table.head().next_sequence
        if picked.height and not dry_run:
            detail = json.dumps(
                {
                    "log_sequences": encode_ranges(sequence_ranges(picked["log_sequence"])),
                    "rows": picked.height,
                    "why": why,
                    "decided_time": from_us(table.now_us()).isoformat(),
                }
            )
            try:
                _record(table, DROPPED, detail, head)
            except SupersededError:
                continue
        return DropReport(
            provider=table.provider,
            dropped=picked.height,
            reasons=counts,
            why=why,
            dry_run=dry_run,
            position=table.head().next_sequence - 1,
        )
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


def _record(table: LogTable, kind: str, detail: str, head: int) -> None:
    """Commit one record.

    Raises:
        SupersededError: If something else was committed since the log stood at `head`.
    """
    with table.commit_lock():
        table.refresh()
        found = table.head().next_sequence
        if found != head:
            raise SupersededError(table.provider, head, found)
        action = table.write_file(record_row(table, kind, head, f"{kind}-{head}", detail=detail))
        try:
            table.commit([action], next_sequence=head + 1)
        except LostRaceError as error:
            table.discard([action])
            raise SupersededError(table.provider, head, table.head().next_sequence) from error
