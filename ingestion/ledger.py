"""The ledger: every attempt to get something from a provider, kept in the provider's own log.

A poll is one record of the log, committed together with the rows that it brought, so that neither can be there without the
other. Rows and polls have stamps and sequence numbers alike: at any (t, p) the ledger tells what a job could have told then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

import alignment as al
from ingestion.instants import duration_us, from_us, to_us
from ingestion.reading import POLL, RELEASED, Question, question_position, records, restamps, stored_rows
from ingestion.schema import INSTANT

if TYPE_CHECKING:
    from ingestion.log import ObservationLog
    from ingestion.table import LogTable

Outcome = Literal["rows", "empty", "failed", "refused", "idle"]
HEARTBEATS: tuple[Outcome, ...] = ("rows", "empty")
"""The outcomes that prove that the provider lives (R20)."""
STAMPED: tuple[Outcome, ...] = ("rows", "empty", "idle")
"""The outcomes after which everything that the provider had sent is in the log."""
MOVES_ON: tuple[Outcome, ...] = ("rows", "empty", "refused")
"""The outcomes whose cursor is where the next poll goes on."""

COUNTS = ("new", "revised", "retracted", "unchanged", "quarantined")
_POLLS: dict[str, pl.DataType] = {
    "log_sequence": pl.Int64(),
    "recorded_time": INSTANT,
    "started": INSTANT,
    "ended": INSTANT,
    "outcome": pl.String(),
    "source": pl.String(),
    **dict.fromkeys(COUNTS, pl.Int64()),
    "bytes": pl.Int64(),
    "version": pl.String(),
    "error": pl.String(),
    "notes": pl.List(pl.String()),
    "cursor": pl.String(),
    "batch_id": pl.String(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file, page or message range of a poll.

    Attributes:
        label: Where it came from, without credentials.
        version: The source's own version of it.
        bytes: Its size.
    """

    label: str
    version: str | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One attempt, as the ledger keeps it.

    Attributes:
        source: The kind of source: `http`, `files`, `sql`, `push`, `nats`, ...
        started: When it began.
        ended: When everything was in hand, or the attempt had failed.
        outcome: `rows` or `empty` prove that the provider lives (R20); `failed` and `refused` do not; `idle` says that a
            stream was connected and brought nothing, which tells nothing of the provider.
        bytes: How much came.
        version: The source's version: an ETag, a digest, a range of offsets.
        cursor: Where the next poll goes on.
        parts: What it consisted of, where that matters to the next poll: files.
        error: Why it failed; without credentials.
        notes: What was flagged: new columns, new categories, shifts.
    """

    source: str
    started: datetime
    ended: datetime
    outcome: Outcome
    bytes: int = 0
    version: str | None = None
    cursor: dict[str, Any] | None = None
    parts: tuple[Part, ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()

    def to_detail(self, counts: Mapping[str, int]) -> str:
        """The poll as one line of JSON, with what became of its rows."""
        plain = {name: value for name, value in asdict(self).items() if value not in (None, (), 0)}
        plain["started"], plain["ended"] = self.started.isoformat(), self.ended.isoformat()
        return json.dumps({**plain, **{name: count for name, count in counts.items() if count}}, ensure_ascii=False)


def polls(table: LogTable, since: int = 0) -> pl.DataFrame:
    """The polls of a log in their order.

    Args:
        table: The log as it was read.
        since: Polls with a lower `log_sequence` are left out.

    Returns:
        `log_sequence`, `recorded_time` (the stamp; of failed and refused polls, when they ended), `started`, `ended`,
        `outcome`, `source`, rows `new`, `revised`, `retracted`, `unchanged`, `quarantined`, `bytes`, `version`, `error`,
        `notes`, `cursor` (JSON), `batch_id`.
    """
    raw = (
        records(table, POLL, since)
        .filter(pl.col("log_sequence") >= since)
        .sort("log_sequence")
        .select("log_sequence", "arrival_time", "batch_id", "record_detail")
        .collect()
    )
    details = [json.loads(text) for text in raw["record_detail"]]
    rows = [
        {
            **{name: detail.get(name) for name in ("outcome", "source", "version", "error")},
            **{name: detail.get(name, 0) for name in (*COUNTS, "bytes")},
            "notes": detail.get("notes", []),
            "cursor": json.dumps(detail["cursor"]) if detail.get("cursor") is not None else None,
            "started": datetime.fromisoformat(detail["started"]),
            "ended": datetime.fromisoformat(detail["ended"]),
            "log_sequence": sequence,
            "recorded_time": stamp or datetime.fromisoformat(detail["ended"]),
            "batch_id": batch,
        }
        for detail, (sequence, stamp, batch) in zip(
            details, raw.select("log_sequence", "arrival_time", "batch_id").iter_rows(), strict=True
        )
    ]
    return pl.DataFrame(rows, schema=_POLLS)


def last_poll(table: LogTable, sequence: int) -> dict[str, Any]:
    """What the poll record with that `log_sequence` says."""
    found = records(table, POLL, sequence).filter(pl.col("log_sequence") == sequence).select("record_detail").collect()
    return dict(json.loads(found.item())) if found.height else {}


def parts_since(table: LogTable, since: int) -> dict[str, str]:
    """The newest version of every part of the successful polls from `since` on, by label."""
    found = (
        records(table, POLL, since)
        .filter(pl.col("log_sequence") >= since, pl.col("record_detail").str.contains('"parts"', literal=True))
        .sort("log_sequence")
        .select("record_detail")
        .collect()["record_detail"]
    )
    seen: dict[str, str] = {}
    for text in found:
        detail = json.loads(text)
        if detail["outcome"] != "failed":
            seen.update({part["label"]: part["version"] for part in detail["parts"]})
    return seen


def heartbeats(
    log: ObservationLog, *, position: int | None = None, as_of: datetime | None = None, after: int | None = None
) -> pl.DataFrame:
    """When the provider showed that it lives: batches and successful empty polls, as stamped and sequenced (R20).

    Rows that were released from the quarantine came earlier; their batch shows nothing.

    Args:
        log: Whose log.
        position: Heartbeats with a greater `log_sequence` are left out.
        as_of: Heartbeats that were stamped later are left out.
        after: So are those of rows and polls with this `log_sequence` or a lower one.

    Returns:
        `arrival_time`, `log_sequence` (of the last row at that instant), `rows` (observations that came with it), in order.

    Raises:
        PositionError: If the log has not got as far as `position`.
        NaiveTimeError: If `as_of` has no zone.
    """
    table = log.table
    table.refresh()
    at = question_position(table, position)
    until = to_us(as_of, "as_of") if as_of is not None else None
    since = 0 if after is None else after + 1
    released = records(table, RELEASED).select("batch_id").collect().to_series()
    rows = (
        stored_rows(table, Question(position=at, after=after, as_of_us=until))
        .filter(pl.col("arrival_kind") == "measured", ~pl.col("batch_id").is_in(released.implode()))
        .select("arrival_time", "log_sequence", rows=pl.lit(1, pl.Int64))
    )
    late = restamps(table, at)
    stamp = pl.col("arrival_time")
    if late.height:
        later = pl.col("batch_id").replace_strict(
            late["batch_id"], late["restamp_time"], default=None, return_dtype=INSTANT
        )
        stamp = pl.max_horizontal("arrival_time", later)
    alive = pl.col("record_detail").str.json_path_match("$.outcome").is_in(HEARTBEATS)
    empty = (
        records(table, POLL, since)
        .filter(pl.col("log_sequence") >= since, pl.col("log_sequence") <= at, alive)
        .select(stamp.alias("arrival_time"), "log_sequence", rows=pl.lit(0, pl.Int64))
    )
    if until is not None:
        empty = empty.filter(pl.col("arrival_time") <= from_us(until))
    return (
        pl.concat([rows, empty])
        .group_by("arrival_time")
        .agg(pl.col("log_sequence").max(), pl.col("rows").sum())
        .sort("arrival_time")
        .collect()
    )


def is_down(log: ObservationLog, t: datetime, down_after: str, *, position: int | None = None) -> bool:
    """Whether none of the provider's heartbeats at (t, position) lies in `(t - down_after, t]` (R20).

    Raises:
        PositionError: If the log has not got as far as `position`.
        NaiveTimeError: If `t` has no zone.
        DefinitionError: If `down_after` is not a duration.
    """
    beats = heartbeats(log, position=position, as_of=t)["arrival_time"]
    last = beats.dt.epoch("us").max()
    return not isinstance(last, int) or last <= to_us(t, "t") - duration_us(down_after, "down_after")


def outages(log: ObservationLog, down_after: str, *, now: datetime | None = None) -> pl.DataFrame:
    """The times for which the provider was down, between its first heartbeat and its last, or now.

    An outage begins `down_after` after the last heartbeat before it (then `is_down` turns true) and ends with the next one.

    Args:
        log: Whose log.
        down_after: For how long a provider may be silent.
        now: Where given, an outage that goes on is reported with a null `end`.

    Returns:
        `last_heartbeat`, `start`, `end`, `catch_up_rows` (observations that came with the heartbeat that ended it).

    Raises:
        NaiveTimeError: If `now` has no zone.
        DefinitionError: If `down_after` is not a duration.
    """
    limit = pl.duration(microseconds=duration_us(down_after, "down_after"))
    beats = heartbeats(log, as_of=now)
    if now is not None and beats.height:
        open_end = pl.DataFrame({"arrival_time": [None], "log_sequence": [None], "rows": [0]}, schema=beats.schema)
        beats = pl.concat([beats, open_end])
    going_on = pl.col("end").is_null() & (pl.col("start") <= pl.lit(now, INSTANT))
    return (
        beats.select(
            pl.col("arrival_time").shift(1).alias("last_heartbeat"),
            pl.col("arrival_time").alias("end"),
            pl.col("rows").alias("catch_up_rows"),
        )
        .slice(1)
        .with_columns(start=pl.col("last_heartbeat") + limit)
        .filter((pl.col("end") > pl.col("start")) | going_on)
        .select("last_heartbeat", "start", "end", "catch_up_rows")
    )


def outages_of(log: ObservationLog, down_after: str, *, now: datetime | None = None) -> list[al.Outage]:
    """What `outages` finds, as outages that can be injected into replays, training sets and other logs.

    They begin right after the last heartbeat, not `down_after` later: from then on nothing had come. Whether the rows came
    afterwards or were lost is told as `alignment.find_outages` tells it, and `per_entity=True` there finds partial ones.

    Args:
        log: Whose log.
        down_after: For how long a provider may be silent.
        now: Where given, an outage that goes on is there too, and ends now.

    Raises:
        NaiveTimeError: If `now` has no zone.
        DurationError: If `down_after` is not a duration.
    """
    return al.find_outages(log, down_after, until=now)
