"""Small files into large ones while the job runs, one log at a time; files that nobody needs any more go after a grace period.

A scan that was begun before a compaction still reads the old files. They are kept for as long as such a scan may last.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ingestion.append import ROWS_PER_FILE

if TYPE_CHECKING:
    from ingestion.compaction import CompactionReport
    from ingestion.log import ObservationLog

COMPACT_AFTER: Final = 100
"""Commits after which a log is compacted."""
AT_LEAST: Final = 8
"""Commits that are worth a compaction when a log has not had one for `EVERY_SECONDS`."""
EVERY_SECONDS: Final = 3_600.0
GRACE_HOURS: Final = 1
ORPHAN_HOURS: Final = 24


@dataclass(slots=True)
class _Account:
    commits: int = 0
    since: float = 0.0


@dataclass(slots=True)
class Upkeep:
    """Which logs are due for a compaction; counts commits and reads no log.

    Args:
        compact_after: Commits after which a log is due; 0 never.
    """

    compact_after: int = COMPACT_AFTER
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def opened(self, provider: str, *, small_files: int, elapsed: float) -> None:
        """A log was opened for the first time and has some files that wait for a compaction."""
        with self._mutex:
            self._accounts.setdefault(provider, _Account(commits=small_files, since=elapsed))

    def committed(self, provider: str, *, elapsed: float, commits: int = 1) -> None:
        """There was a commit."""
        with self._mutex:
            self._accounts.setdefault(provider, _Account(since=elapsed)).commits += commits

    def take(self, elapsed: float) -> str | None:
        """The log with the most commits, if one is due; its count begins anew.

        Args:
            elapsed: Seconds, by the monotonic clock.
        """
        if self.compact_after == 0:
            return None
        with self._mutex:
            due = [
                (account.commits, provider)
                for provider, account in self._accounts.items()
                if account.commits >= self.compact_after
                or (account.commits >= AT_LEAST and elapsed - account.since >= EVERY_SECONDS)
            ]
            if not due:
                return None
            provider = max(due)[1]
            self._accounts[provider] = _Account(since=elapsed)
            return provider


def files_to_merge(log: ObservationLog, *, rows_per_file: int = ROWS_PER_FILE) -> int:
    """How many data files a log has that a compaction may merge."""
    log.table.refresh()
    return int((log.table.files()["num_records"] * 2 <= rows_per_file).sum())


def tidy(log: ObservationLog, *, grace_hours: int = GRACE_HOURS, orphans: bool = False) -> tuple[CompactionReport, int]:
    """Compact a log, retire what is older than its retention, then delete the files that no scan can need any more.

    Args:
        log: The log, opened for this alone.
        grace_hours: How long a file is kept after the commit that took it out of the log.
        orphans: Also delete files that no commit ever named, and that are a day old: of a writer that died.

    Returns:
        What the compaction did, and how many files were deleted.

    Raises:
        CommitError: If other commits kept coming first.
    """
    report = log.compact()
    log.retire()
    replaced = _listed(log, hours=grace_hours, orphans=False)
    lost = _listed(log, hours=ORPHAN_HOURS, orphans=True) - _listed(log, hours=0, orphans=False) if orphans else set()
    for path in replaced | lost:
        log.table.location.remove(path)
    return report, len(replaced | lost)


def _listed(log: ObservationLog, *, hours: int, orphans: bool) -> set[str]:
    """What a vacuum would delete; a vacuum of Delta's own would commit two versions each time."""
    return set(
        log.table.delta.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False, full=orphans)
    )
