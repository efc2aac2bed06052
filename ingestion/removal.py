"""Rows that were taken out of a log, and the record that says which and why.

Retirement and erasure are the only ways a row leaves. Either leaves one record in the log itself, with its own
`log_sequence`, committed together with the removal: how many rows, which sequence numbers, the reason, when. So a data
set that is rebuilt later can say exactly which of its rows are gone.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from deltalake.transaction import AddAction

from ingestion.errors import CommitError
from ingestion.evolution import ATTEMPTS
from ingestion.instants import duration_us, from_us, to_us
from ingestion.reading import ERASED, OBSERVATION, RETIRED, records
from ingestion.records import record_row
from ingestion.schema import INSTANT
from ingestion.table import LogTable, LostRaceError

_RANGES_AS_TEXT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Rows that left a log.

    Attributes:
        kind: `"retired"` or `"erased"`.
        rows: How many observations.
        entities: How many entities they were of.
        reason: Why.
        removed_time: When.
        log_sequences: Their sequence numbers as a frame of ranges, `first` and `last` both in, ascending.
        log_sequence: The record's own.
        entity_hash: Of an erasure, the salted digest of the entity; `None` for a retirement.
    """

    kind: str
    rows: int
    entities: int
    reason: str
    removed_time: datetime
    log_sequences: pl.DataFrame
    log_sequence: int
    entity_hash: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The removal as plain values; at most 256 ranges."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "entities": self.entities,
            "reason": self.reason,
            "removed_time": self.removed_time.isoformat(),
            "log_sequence": self.log_sequence,
            "ranges": self.log_sequences.height,
            "log_sequences": [list(row) for row in self.log_sequences.head(_RANGES_AS_TEXT).iter_rows()],
            "entity_hash": self.entity_hash,
        }

    def __str__(self) -> str:
        noun = "entity" if self.entities == 1 else "entities"
        ranges = [
            str(first) if first == last else f"{first}..{last}" for first, last in self.log_sequences.head(5).rows()
        ]
        if more := self.log_sequences.height - len(ranges):
            ranges.append(f"and {more:,} more ranges")
        return (
            f"{self.kind} {self.removed_time:%Y-%m-%d %H:%M:%S} UTC: {self.rows:,} rows of {self.entities:,} {noun}"
            f" ({self.reason}), log_sequence {', '.join(ranges) or 'none'}; record {self.log_sequence}"
        )


def sequence_ranges(sequences: pl.Series) -> pl.DataFrame:
    """Sequence numbers as ranges `first`, `last`, both in, ascending.

    Example:
        >>> sequence_ranges(pl.Series([7, 1, 2, 3])).rows()
        [(1, 3), (7, 7)]
    """
    ordered = sequences.cast(pl.Int64).unique().sort().alias("n")
    group = (ordered.diff() != 1).fill_null(value=True).cum_sum().alias("g")
    return (
        pl.DataFrame([ordered, group])
        .group_by("g", maintain_order=True)
        .agg(first=pl.col("n").first(), last=pl.col("n").last())
        .select("first", "last")
    )


def encode_ranges(ranges: pl.DataFrame) -> Any:
    """A few ranges as lists; many as compressed differences."""
    if ranges.height <= _RANGES_AS_TEXT:
        return [list(row) for row in ranges.iter_rows()]
    flat = ranges.to_numpy().astype(np.int64).ravel()
    packed = zlib.compress(np.diff(flat, prepend=0).astype("<i8").tobytes(), 6)
    return base64.b64encode(packed).decode()


def decode_ranges(stored: Any) -> pl.DataFrame:
    """What `encode_ranges` was given."""
    schema = {"first": pl.Int64, "last": pl.Int64}
    if not isinstance(stored, str):
        return pl.DataFrame(stored, schema=schema, orient="row")
    flat = np.frombuffer(zlib.decompress(base64.b64decode(stored)), "<i8").cumsum().reshape(-1, 2)
    return pl.DataFrame(flat, schema=schema, orient="row")


def removals(table: LogTable) -> list[Removal]:
    """Every removal there was, in order."""
    found = []
    for kind in (RETIRED, ERASED):
        rows = records(table, kind).select("log_sequence", "record_detail").collect()
        for sequence, text in rows.iter_rows():
            detail = json.loads(text)
            found.append(
                Removal(
                    kind=kind,
                    rows=detail["rows"],
                    entities=detail["entities"],
                    reason=detail["reason"],
                    removed_time=datetime.fromisoformat(detail["removed_time"]),
                    log_sequences=decode_ranges(detail["log_sequences"]),
                    log_sequence=sequence,
                    entity_hash=detail.get("entity_hash"),
                )
            )
    return sorted(found, key=lambda removal: removal.log_sequence)


def removal_detail(
    gone: pl.DataFrame, entities: Iterable[str], reason: str, now_us: int, entity_hash: str | None = None
) -> str:
    """The record of a removal as text; `gone` holds the entities and `log_sequence` of the rows that leave."""
    names = list(entities)
    return json.dumps(
        {
            "rows": gone.height,
            "entities": gone.select(names).n_unique() if names and gone.height else int(gone.height > 0),
            "reason": reason,
            "removed_time": from_us(now_us).isoformat(),
            "log_sequences": encode_ranges(sequence_ranges(gone["log_sequence"])),
            "entity_hash": entity_hash,
        }
    )


def remove_rows(
    table: LogTable,
    doomed: pl.LazyFrame,
    reason: str,
    kind: str,
    entity_hash: str | None = None,
    *,
    reworded: pl.DataFrame | None = None,
) -> Removal | None:
    """Take rows out of every file that holds them, and leave the record, in one commit.

    Args:
        table: The log, refreshed.
        doomed: The rows that leave, with their entities, `log_sequence` and `record_kind`.
        reason: Why, for the record.
        kind: `"retired"` or `"erased"`.
        entity_hash: Of an erasure.
        reworded: Records that stay with another `record_detail`, by `log_sequence`.

    Returns:
        The removal; `None` if there was nothing to remove and nothing to reword.

    Raises:
        LostRaceError: If another commit came first; nothing was changed.
    """
    stored = table.stored_schema()
    entities = [name for name in table.definition.entities if name in stored]
    gone = doomed.select(*entities, "log_sequence", "record_kind").collect()
    if reworded is None:
        reworded = pl.DataFrame(schema={"log_sequence": pl.Int64, "record_detail": pl.String})
    sequences = gone["log_sequence"]
    touching = pl.concat([sequences, reworded["log_sequence"]]).sort()
    if touching.is_empty():
        return None
    low, high = touching[0], touching[-1]
    added: list[AddAction] = []
    replaced: list[str] = []
    touched = table.files().filter(
        (pl.col("max.log_sequence") >= low).fill_null(value=True)
        & (pl.col("min.log_sequence") <= high).fill_null(value=True)
    )
    try:
        for path in touched["path"]:
            rows = table.read([path]).collect()
            kept = rows.join(sequences.to_frame(), on="log_sequence", how="anti", maintain_order="left")
            if kept.height == rows.height and rows.join(reworded, on="log_sequence", how="semi").is_empty():
                continue
            kept = kept.update(reworded, on="log_sequence")
            replaced.append(path)
            if kept.height:
                added.append(table.write_file(kept))
        head = table.head()
        now = table.now_us()
        observed = gone.filter(pl.col("record_kind") == OBSERVATION)
        detail = removal_detail(observed, entities, reason, now, entity_hash)
        added.append(table.write_file(record_row(table, kind, head.next_sequence, f"{kind}-{now}", detail=detail)))
        table.commit(added, replaced, next_sequence=head.next_sequence + 1)
    except LostRaceError:
        table.discard(added)
        raise
    return removals(table)[-1]


def retire(table: LogTable, now: datetime | None = None) -> Removal | None:
    """Take out the keys whose last event is older than the provider's retention.

    All revisions of a key leave together, so what stays has its whole history. Rows with an event at
    `now - retention` stay.

    Args:
        table: The log.
        now: From when to count back; the log's clock if `None`.

    Returns:
        What was retired; `None` if nothing was, or the provider keeps everything.

    Raises:
        CommitError: If other commits kept coming first.
    """
    retention = table.definition.retention
    if retention is None:
        return None
    with table.maintenance_lock():
        for _attempt in range(ATTEMPTS):
            table.refresh()
            now_us = table.now_us() if now is None else to_us(now, "now")
            cutoff = pl.lit(now_us - duration_us(retention, "retention"), pl.Int64).cast(INSTANT)
            try:
                return remove_rows(table, _expired(table, cutoff), f"retention {retention}", RETIRED)
            except LostRaceError:
                continue
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


def _expired(table: LogTable, cutoff: pl.Expr) -> pl.LazyFrame:
    files = table.files()
    if table.definition.key is None:
        files = files.filter((pl.col("min.event_time") < cutoff).fill_null(value=True))
        rows = table.read(files["path"].to_list()).filter(pl.col("record_kind") == OBSERVATION)
        return rows.filter(pl.col("event_time") < cutoff)
    rows = table.read(files["path"].to_list()).filter(pl.col("record_kind") == OBSERVATION)
    last = pl.col("event_time").max().over(table.definition.key_columns)
    return rows.filter(pl.coalesce(last, pl.col("arrival_time").max().over(table.definition.key_columns)) < cutoff)
