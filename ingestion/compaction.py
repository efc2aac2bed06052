"""Many small files into few large ones; no answer changes at any position.

Rows keep every column, `log_sequence` and stamps included, and stay in the order of their sequence numbers. So a file
covers one span of positions, and mostly of arrivals and events, and can be skipped by any of them. Records that are no
observations go to a file of their own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import polars as pl
import pyarrow.fs as pafs
from deltalake.transaction import AddAction

from ingestion.append import ROWS_PER_FILE
from ingestion.errors import CommitError
from ingestion.evolution import ATTEMPTS
from ingestion.instants import duration_us, system_clock, to_us
from ingestion.table import LogTable, LostRaceError

GRACE = "1h"
"""How old a file without a commit must be, where no lock tells that nobody is about to commit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport:
    """What a compaction did.

    Attributes:
        provider: Whose log.
        files_before: Data files of the table before.
        files_after: Data files of the table after.
        rows_rewritten: Rows in the files that were merged.
        files_deleted: Files that were deleted because no version needs them.
        bytes_deleted: Their size.
        attempts: How many commits were tried.
    """

    provider: str
    files_before: int
    files_after: int
    rows_rewritten: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    attempts: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.provider}: {self.files_before} files -> {self.files_after}, {self.rows_rewritten:,} rows rewritten"
        )
        if self.files_deleted:
            text += f"; {self.files_deleted} old files deleted ({self.bytes_deleted / 1e6:,.1f} MB)"
        return text


def compact(table: LogTable, *, rows_per_file: int = ROWS_PER_FILE, vacuum: bool = False) -> CompactionReport:
    """Merge neighbouring small files.

    Appends may go on meanwhile: only the files that were merged must still be there when the merge is committed.

    Args:
        table: The log.
        rows_per_file: How many rows a merged file may have; files with at least half as many are left alone.
        vacuum: Delete afterwards the files that the current version does not need.

    Returns:
        What was done.

    Raises:
        CommitError: If other commits kept coming first.
    """
    with table.maintenance_lock():
        table.refresh()
        before = table.files().height
        merged = _merge(table, rows_per_file)
        deleted, size = delete_unreferenced(table) if vacuum else (0, 0)
        return CompactionReport(
            provider=table.provider,
            files_before=before,
            files_after=table.files().height,
            rows_rewritten=merged[0],
            attempts=merged[1],
            files_deleted=deleted,
            bytes_deleted=size,
        )


def _merge(table: LogTable, rows_per_file: int) -> tuple[int, int]:
    groups = _groups(table.files(), rows_per_file)
    if not groups:
        return 0, 0
    added: list[AddAction] = []
    rows_rewritten = 0
    for group in groups:
        rows = table.read(group).sort("log_sequence").collect()
        rows_rewritten += rows.height
        added += [table.write_file(part) for part in rows.partition_by("record_kind", maintain_order=True)]
    old = [path for group in groups for path in group]
    for attempt in range(1, ATTEMPTS + 1):
        if set(old) - set(table.files()["path"]):
            break  # a rewrite took files away; what was merged is stale
        try:
            with table.commit_lock():
                table.refresh()
                table.commit(added, old)
        except LostRaceError:
            table.wait(attempt)
            continue
        return rows_rewritten, attempt
    table.discard(added)
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


def _groups(files: pl.DataFrame, rows_per_file: int) -> list[list[str]]:
    """Runs of small neighbours of one kind, each at most `rows_per_file` rows together; mixed files are taken apart."""
    alike = (pl.col("min.record_kind") == pl.col("max.record_kind")).fill_null(value=False)
    ordered = files.sort("min.log_sequence", "path")
    groups: list[list[str]] = []
    for one_kind in ordered.filter(alike).partition_by("min.record_kind", maintain_order=True):
        current: list[str] = []
        size = 0
        for path, rows in one_kind.select("path", "num_records").iter_rows():
            if rows * 2 > rows_per_file or size + rows > rows_per_file:
                groups.append(current)
                current, size = [], 0
            if rows * 2 <= rows_per_file:
                current.append(path)
                size += rows
        groups.append(current)
    mixed = ordered.filter(~alike)["path"].to_list()
    return [group for group in groups if len(group) > 1] + ([mixed] if mixed else [])


def delete_unreferenced(table: LogTable, *, grace: str = GRACE) -> tuple[int, int]:
    """Delete the files that the current version does not need; older Delta versions stop being readable.

    A writer that is about to commit has files that no version knows. Where the system has locks, the commit lock tells
    that there is none; elsewhere files younger than `grace` are left.

    Returns:
        How many files, and their bytes.
    """
    with table.commit_lock() as alone:
        table.refresh()
        needed = set(table.files()["path"])
        limit = to_us(system_clock() - timedelta(microseconds=duration_us(grace, "grace")))
        count = size = 0
        filesystem = table.location.filesystem()
        for info in filesystem.get_file_info(pafs.FileSelector("", recursive=False)):
            old = alone or (info.mtime_ns is not None and info.mtime_ns // 1_000 < limit)
            if info.base_name.endswith(".parquet") and info.base_name not in needed and old:
                table.location.remove(info.base_name)
                count, size = count + 1, size + info.size
        return count, size
