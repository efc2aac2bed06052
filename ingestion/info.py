"""What a log holds, from its metadata alone: no data file is opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from ingestion.instants import from_us
from ingestion.reading import DROPPED, ERASED, OBSERVATION, POLL, QUARANTINED, RELEASED, RESTAMP, RETIRED
from ingestion.table import NO_STAMP, LogTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInfo:
    """What a log holds.

    Attributes:
        provider: Whose log.
        address: Where it is.
        definition: What the provider is.
        columns: Entity and value columns with their types.
        column_since: Columns that came later, with the first `log_sequence` that could carry them.
        position: The greatest `log_sequence`; -1 if empty.
        rows: Observations. Where another writer merged kinds of records into one file, all of that file's rows.
        records: Rows that are no observations, by kind.
        files: Data files.
        bytes: Their size.
        first_event: The earliest event.
        last_event: The latest event.
        first_arrival: The earliest arrival.
        observed_through: The greatest arrival.
        delta_version: The table's version, which is no position.
    """

    provider: str
    address: str
    definition: dict[str, Any]
    columns: dict[str, str]
    column_since: dict[str, int]
    position: int
    rows: int
    records: dict[str, int]
    files: int
    bytes: int
    first_event: datetime | None
    last_event: datetime | None
    first_arrival: datetime | None
    observed_through: datetime | None
    delta_version: int

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; instants as text."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()}

    def __str__(self) -> str:
        def shown(instant: datetime | None) -> str:
            return f"{instant:%Y-%m-%d %H:%M:%S}" if instant else "-"

        size = f"{self.bytes / 1e6:,.1f} MB" if self.bytes >= 1e5 else f"{self.bytes / 1e3:,.1f} kB"
        lines = [
            f"{self.provider} ({self.definition['kind']}, by {', '.join(self.definition['entities']) or 'one series'})",
            f"  rows      {self.rows:,} in {self.files} files, {size}; position {self.position}",
            f"  events    {shown(self.first_event)} .. {shown(self.last_event)} UTC",
            f"  arrivals  {shown(self.first_arrival)} .. {shown(self.observed_through)} UTC",
            "  columns   " + ", ".join(f"{name}: {dtype}" for name, dtype in self.columns.items()),
        ]
        lines += [f"  since     {name}: log_sequence {since}" for name, since in self.column_since.items()]
        lines += [f"  records   {kind}: {count:,}" for kind, count in self.records.items() if count]
        return "\n".join(lines)


def log_info(table: LogTable) -> LogInfo:
    """What the version of `table` that was read holds."""
    files = table.files()
    observed = files.filter((pl.col("min.record_kind") == OBSERVATION).fill_null(value=True))
    records = {
        kind: int(files.filter(pl.col("min.record_kind") == kind)["num_records"].sum())
        for kind in (QUARANTINED, RESTAMP, RETIRED, ERASED, POLL, RELEASED, DROPPED)
    }
    bounds = observed.select(
        pl.col("min.event_time").min(), pl.col("max.event_time").max(), pl.col("min.arrival_time").min()
    ).row(0)
    stamp = table.head().last_stamp_us
    greatest = files["max.arrival_time"].dt.epoch("us").max()
    known = [us for us in (stamp, greatest) if isinstance(us, int) and us != NO_STAMP]
    return LogInfo(
        provider=table.provider,
        address=table.location.address,
        definition=table.definition.to_dict(),
        columns={column.name: str(column.dtype) for column in table.columns},
        column_since={column.name: column.since for column in table.columns if column.since > 0},
        position=table.head().next_sequence - 1,
        rows=int(observed["num_records"].sum()),
        records=records,
        files=files.height,
        bytes=int(files["size_bytes"].sum()),
        first_event=bounds[0],
        last_event=bounds[1],
        first_arrival=bounds[2],
        observed_through=from_us(max(known)) if known else None,
        delta_version=table.version,
    )
