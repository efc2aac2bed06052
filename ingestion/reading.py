"""Questions to a log: which files can matter, and the rows in them.

A file is left out when its smallest and greatest values prove that none of its rows can matter. Files that lie wholly
inside the question are read without a filter; only those on its edge are filtered row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from ingestion.errors import PositionError, UnknownColumnError
from ingestion.schema import INSTANT, TIME_COLUMNS, Column, from_stored
from ingestion.table import LogTable

OBSERVATION, RESTAMP, QUARANTINED, RETIRED, ERASED = "observation", "restamp", "quarantined", "retired", "erased"
POLL, RELEASED, DROPPED = "poll", "released", "dropped"
STATS_SLACK_US = 1_000  # other writers cut greatest values to whole milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a log; bounds in microseconds, all inclusive (but `after`), `None` for no bound."""

    position: int
    after: int | None = None
    as_of_us: int | None = None
    event_from_us: int | None = None
    event_until_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesReport:
    """Which files a question reads.

    Attributes:
        provider: Whose log.
        read: Files whose rows are looked at, with the reason to filter rows or not.
        skipped: Files that are not opened, with the bound that ruled them out.
        rows_read: Rows in the files that are read.
        rows_skipped: Rows in the files that are not.
    """

    provider: str
    read: pl.DataFrame
    skipped: pl.DataFrame
    rows_read: int
    rows_skipped: int

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "provider": self.provider,
            "files_read": self.read.height,
            "files_skipped": self.skipped.height,
            "rows_read": self.rows_read,
            "rows_skipped": self.rows_skipped,
            "read": self.read.to_dicts(),
            "skipped": self.skipped.to_dicts(),
        }

    def __str__(self) -> str:
        reasons = ", ".join(
            f"{count} by {reason}" for reason, count in self.skipped.group_by("reason").len().sort("reason").iter_rows()
        )
        return (
            f"{self.provider}: reads {self.read.height} files ({self.rows_read:,} rows),"
            f" skips {self.skipped.height} ({self.rows_skipped:,} rows)" + (f": {reasons}" if reasons else "")
        )


def question_position(table: LogTable, position: int | None) -> int:
    """The position that is meant.

    Raises:
        PositionError: If the log has not got that far.
    """
    head = table.head().next_sequence - 1
    if position is not None and position > head:
        raise PositionError(position, head, table.provider)
    return head if position is None else position


def choose_files(table: LogTable, question: Question) -> pl.DataFrame:
    """The observation files with `reason` (null: to be read) and `cut` (rows must be filtered).

    Event bounds rule out nothing where ids are declared: a later revision of a row may have moved its event (R4).
    """
    # A file that was rewritten as a whole holds records too, whose kinds come before or after in the alphabet.
    least, most = pl.col("min.record_kind"), pl.col("max.record_kind")
    files = table.files().filter(least.is_null() | ((least <= OBSERVATION) & (most >= OBSERVATION)))
    position_out = pl.col("min.log_sequence") > question.position
    position_cut = ~(pl.col("max.log_sequence") <= question.position)
    mixed = ~((least == OBSERVATION) & (most == OBSERVATION))
    reasons = [pl.when(position_out).then(pl.lit("position"))]
    cuts = [position_cut, mixed]
    if question.after is not None:
        reasons.append(pl.when(pl.col("max.log_sequence") <= question.after).then(pl.lit("after")))
        cuts.append(~(pl.col("min.log_sequence") > question.after))
    if question.as_of_us is not None:
        as_of = _instant(question.as_of_us)
        reasons.append(pl.when(pl.col("min.arrival_time") > as_of).then(pl.lit("as_of")))
        cuts.append(~(pl.col("max.arrival_time") <= _instant(question.as_of_us - STATS_SLACK_US)))
    if table.definition.key is None:
        if question.event_from_us is not None:
            bound = _instant(question.event_from_us - STATS_SLACK_US)
            reasons.append(pl.when(pl.col("max.event_time") < bound).then(pl.lit("event_from")))
            cuts.append(~(pl.col("min.event_time") >= _instant(question.event_from_us)))
        if question.event_until_us is not None:
            bound = _instant(question.event_until_us)
            reasons.append(pl.when(pl.col("min.event_time") > bound).then(pl.lit("event_until")))
            cuts.append(~(pl.col("max.event_time") <= _instant(question.event_until_us - STATS_SLACK_US)))
    return files.with_columns(
        reason=pl.coalesce(reasons), cut=pl.any_horizontal([cut.fill_null(value=True) for cut in cuts])
    )


def files_report(table: LogTable, question: Question) -> FilesReport:
    """Which files `question` reads, and why the others are not."""
    chosen = choose_files(table, question)
    shown = ["path", "num_records", "size_bytes", "min.event_time", "max.event_time"]
    shown += ["min.arrival_time", "max.arrival_time", "min.log_sequence", "max.log_sequence"]
    read = chosen.filter(pl.col("reason").is_null()).select(*shown, "cut")
    skipped = chosen.filter(pl.col("reason").is_not_null()).select(*shown, "reason")
    return FilesReport(
        provider=table.provider,
        read=read,
        skipped=skipped,
        rows_read=int(read["num_records"].sum()),
        rows_skipped=int(skipped["num_records"].sum()),
    )


def stored_rows(
    table: LogTable, question: Question, chosen: pl.DataFrame | None = None, late: pl.DataFrame | None = None
) -> pl.LazyFrame:
    """Observation rows that count, as stored, with their effective arrival.

    Rows with an arrival later than `as_of` are left out; event bounds are applied only where that is safe.

    Args:
        table: The log's table.
        question: What is asked.
        chosen: Some of the files that `choose_files` says are to be read; `None` reads them all.
        late: The restamps at that position; `None` reads them.
    """
    if chosen is None:
        chosen = choose_files(table, question).filter(pl.col("reason").is_null())
    if late is None:
        late = restamps(table, question.position)
    inside = chosen.filter(~pl.col("cut"))["path"].to_list()
    edge = chosen.filter(pl.col("cut"))["path"].to_list()
    parts = []
    if inside or not edge:
        parts.append(table.read(inside))
    if edge:
        rows = table.read(edge).filter(
            pl.col("record_kind") == OBSERVATION, pl.col("log_sequence") <= question.position
        )
        parts.append(rows.filter(_row_bounds(table, question)))
    rows = pl.concat(parts) if len(parts) > 1 else parts[0]
    if late.height:
        rows = _apply_restamps(rows, late)
        if question.as_of_us is not None:
            rows = rows.filter(pl.col("arrival_time") <= _instant(question.as_of_us))
    return rows


def _row_bounds(table: LogTable, question: Question) -> list[pl.Expr]:
    bounds = [pl.lit(True)]
    if question.after is not None:
        bounds.append(pl.col("log_sequence") > question.after)
    if question.as_of_us is not None:
        bounds.append(pl.col("arrival_time") <= _instant(question.as_of_us))
    if table.definition.key is None:
        if question.event_from_us is not None:
            bounds.append(pl.col("event_time") >= _instant(question.event_from_us))
        if question.event_until_us is not None:
            bounds.append(pl.col("event_time") <= _instant(question.event_until_us))
    return bounds


def restamps(table: LogTable, position: int) -> pl.DataFrame:
    """The greatest `restamp` of each batch at a position: `batch_id`, `restamp_time`."""
    return (
        records(table, RESTAMP)
        .filter(pl.col("log_sequence") <= position)
        .group_by("batch_id")
        .agg(restamp_time=pl.col("arrival_time").max())
        .collect()
    )


def records(table: LogTable, kind: str, since: int = 0) -> pl.LazyFrame:
    """The rows of one kind besides observations, as stored; files wholly before the sequence `since` are not opened."""
    holds = (pl.col("max.record_kind") >= kind) & (pl.col("min.record_kind") <= kind)
    late = (pl.col("max.log_sequence") >= since).fill_null(value=True)
    paths = table.files().filter(pl.col("max.record_kind").is_null() | holds, late)["path"].to_list()
    return table.read(paths).filter(pl.col("record_kind") == kind)


def _apply_restamps(rows: pl.LazyFrame, late: pl.DataFrame) -> pl.LazyFrame:
    """The effective arrival is the greater of the row's own and its batch's restamp (R14)."""
    later = pl.col("batch_id").replace_strict(
        late["batch_id"], late["restamp_time"], default=None, return_dtype=INSTANT
    )
    return rows.with_columns(arrival_time=pl.max_horizontal("arrival_time", later))


def resolve_columns(table: LogTable, names: list[str] | None) -> list[tuple[str, Column | None]]:
    """The value and system columns that are asked for, by the name that was used.

    Raises:
        UnknownColumnError: If one does not exist and never did.
    """
    if names is None:
        return [(column.name, column) for column in table.value_columns]
    wanted: list[tuple[str, Column | None]] = []
    for name in dict.fromkeys(names):
        column = table.column(name)
        if column is None and name not in (*TIME_COLUMNS, "is_retraction", "log_sequence", "arrival_kind", "batch_id"):
            raise UnknownColumnError(name, table.provider, [column.name for column in table.columns])
        wanted.append((name, column))
    return wanted


def observations(table: LogTable, question: Question, names: list[str] | None = None) -> pl.LazyFrame:
    """The rows that `ObservationLog.scan` returns."""
    return stored_rows(table, question).select(_shown(table, names))


def observation_pieces(table: LogTable, question: Question, rows: int) -> list[pl.LazyFrame]:
    """The rows of `observations` in several frames, each of files of its own with at most so many rows, or of one file."""
    chosen = choose_files(table, question).filter(pl.col("reason").is_null())
    late = restamps(table, question.position)
    piece, filled, pieces = 0, 0, []
    for count in chosen["num_records"].fill_null(rows):
        if filled and filled + count > rows:
            piece, filled = piece + 1, 0
        filled += count
        pieces.append(piece)
    shown = _shown(table, None)
    parts = chosen.with_columns(pl.Series("piece", pieces, pl.Int64)).partition_by("piece", maintain_order=True)
    return [stored_rows(table, question, part, late).select(shown) for part in parts]


def _shown(table: LogTable, names: list[str] | None) -> list[pl.Expr]:
    definition = table.definition
    fixed = ["event_time", "arrival_time"]
    if definition.kind == "forecast":
        fixed.append("issue_time")
    tail = ["is_retraction", "log_sequence", "arrival_kind"]
    by_name = {column.name: column for column in table.columns}
    shown = [_entity(name, by_name) for name in definition.entities]
    shown += [pl.col(name) for name in (*fixed, *tail)]
    taken = {*definition.entities, *fixed, *tail}
    wanted = resolve_columns(table, names)
    for name in definition.key or ():
        if name not in taken:
            shown.append(_entity(name, by_name))
            taken.add(name)
    for name, column in wanted:
        if name not in taken:
            shown.append(pl.col(name) if column is None else from_stored(column).alias(name))
            taken.add(name)
    return shown


def _entity(name: str, known: dict[str, Column]) -> pl.Expr:
    """An entity column; text until the first batch of an empty log says what it is."""
    return from_stored(known[name]) if name in known else pl.lit(None, pl.String).alias(name)


def _instant(us: int) -> pl.Expr:
    return pl.lit(us, dtype=pl.Int64).cast(INSTANT)
