"""History from files into a log: under a delay rule, piece by piece, once, whatever happens on the way.

Nobody recorded when these rows arrived, so a rule must say how late they were (R13); they are marked `declared` or
`modelled`, and a key that has a measured revision keeps it. The pieces of a file are a stream of batches named by the file's
digest: those up to the last one that is in are passed over, under any name of the file, so a killed run just goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from alignment import DelayRule, FixedDelay
from ingestion.batch import prepare_batch, read_frame
from ingestion.checks import check_rows
from ingestion.errors import BatchError, UnknownArrivalError
from ingestion.evolution import compare_columns, fit_rows
from ingestion.jobs.chunks import CHUNK_ROWS, Chunk, chunks_of, digest_of
from ingestion.revisions import skip_known_history
from ingestion.sources.layout import BROKEN, Layout
from ingestion.table import stream_marker

if TYPE_CHECKING:
    from ingestion.instants import Clock
    from ingestion.log import ObservationLog
    from ingestion.providers import Provider

OnProgress = Callable[[Path, float], None]
"""Told the file, and how much of it is done, 0 to 1."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfilledFile:
    """What became of one file.

    Attributes:
        file: Its path.
        digest: What its batches are named by.
        records: How many rows it has.
        rows: Observations that were stored, or would be.
        loaded: Rows of pieces that were in the log already.
        skipped_measured: Rows whose key has a measured revision.
        unchanged: Rows that repeat their key's current revision, where the provider drops such rows.
        quarantined: Rows set aside.
        reasons: How many rows each reason set aside.
        notes: What the contract let pass.
    """

    file: str
    digest: str
    records: int = 0
    rows: int = 0
    loaded: int = 0
    skipped_measured: int = 0
    unchanged: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = {
            "in the log already": self.loaded,
            "of measured keys, skipped": self.skipped_measured,
            "unchanged, not stored": self.unchanged,
        }
        said = [f"{count:,} {what}" for what, count in counts.items() if count]
        worst = sorted(self.reasons.items(), key=lambda item: -item[1])
        said += [f"{count:,} quarantined: {reason}" for reason, count in worst[:_SHOWN]]
        return "\n".join([f"{self.file}: {self.rows:,} of {self.records:,} rows", *(f"  {line}" for line in said)])


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillReport:
    """What a backfill did, or would do.

    Attributes:
        provider: Whose log.
        files: What became of each file.
        arrival_kind: How the arrivals of these rows are known: `declared` or `modelled`.
        delay: The rule that gave them.
        position: The log's position afterwards.
        seconds: How long it took.
        dry_run: Whether nothing was stored.
    """

    provider: str
    files: tuple[BackfilledFile, ...]
    arrival_kind: str
    delay: str
    position: int
    seconds: float
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """Observations that were stored, or would be."""
        return sum(file.rows for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "files": [asdict(file) for file in self.files], "rows": self.rows}

    def __str__(self) -> str:
        done = "would be stored" if self.dry_run else "stored"
        total = sum(file.records for file in self.files)
        head = (
            f"{self.provider}: {self.rows:,} of {total:,} rows {done} from {len(self.files)} files as"
            f" {self.arrival_kind} ({self.delay}), position {self.position}, {self.seconds:.1f} s"
        )
        return "\n".join([head, *(f"  {line}" for file in self.files for line in str(file).splitlines())])


def backfill(
    log: ObservationLog,
    files: Sequence[str | os.PathLike[str]],
    *,
    delay: DelayRule | str | None = None,
    provider: Provider | None = None,
    layout: Layout | None = None,
    evolve: bool = False,
    dry_run: bool = False,
    clock: Clock | None = None,
    on_progress: OnProgress | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> BackfillReport:
    """Load historic files into a log.

    Args:
        log: The provider's log.
        files: Parquet, CSV, NDJSON (perhaps gzipped), JSON or Arrow, in the order in which their rows were revised.
        delay: How late the rows were: a rule, or a duration such as `"45m"`; `None` takes the declaration's `history`.
        provider: Its declaration: the layout of its source and its contract are applied.
        layout: What the columns are called in the files, instead of the declaration's; without either they have our names.
        evolve: Add columns that the log lacks, widen types that are too narrow.
        dry_run: Say what would be stored; nothing is.
        clock: Something that tells now, instead of the log's own clock.
        on_progress: Told how far each file is.
        chunk_rows: Rows of a batch. A second run must use the same number, or it stores the rows again.

    Returns:
        What became of the files.

    Raises:
        UnknownArrivalError: If nobody says how late the rows were.
        PayloadError: If a file is of no use; what came before it is stored.
        BatchError: If rows cannot be appended, or the contract refuses them; what came before them is stored.
        CommitError: If a commit could not be made; run it again.
        OSError: If a file cannot be read.

    Example:
        >>> import tempfile
        >>> from datetime import UTC, datetime
        >>> from ingestion import create_log
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = {"meter": ["m1"], "event_time": [datetime(2026, 1, 5, tzinfo=UTC)], "load_kw": [310.0]}
        >>> pl.DataFrame(rows).write_parquet(folder / "2026.parquet")
        >>> log = create_log(folder, "meters", entities=["meter"])
        >>> backfill(log, [folder / "2026.parquet"], delay="45m").rows
        1
        >>> log.scan().collect().select("arrival_time", "arrival_kind").row(0)
        (datetime.datetime(2026, 1, 5, 0, 45, tzinfo=zoneinfo.ZoneInfo(key='UTC')), 'declared')
        >>> backfill(log, [folder / "2026.parquet"], delay="45m").rows
        0
    """
    rule = _rule(log, delay, provider)
    if provider is not None:
        layout = provider.marking(layout or getattr(provider.source, "layout", None))
    begin = time.monotonic()
    loader = _Loader(log, rule, provider, evolve=evolve, dry_run=dry_run, clock=clock)
    done = []
    for name in files:
        path = Path(name)
        report = BackfilledFile(file=str(path), digest=digest_of(path))
        for chunk in chunks_of(path, layout, provider=log.provider, chunk_rows=chunk_rows):
            report = loader.load(chunk, report)
            if on_progress is not None:
                on_progress(path, chunk.fraction)
        done.append(report)
    return BackfillReport(
        provider=log.provider,
        files=tuple(done),
        arrival_kind=getattr(rule, "arrival_kind", "declared"),
        delay=repr(rule),
        position=log.position(),
        seconds=time.monotonic() - begin,
        dry_run=dry_run,
    )


def _rule(log: ObservationLog, delay: DelayRule | str | None, provider: Provider | None) -> DelayRule:
    """How late the rows were.

    Raises:
        UnknownArrivalError: If nobody says.
    """
    if isinstance(delay, str):
        return FixedDelay(delay)
    rule = delay if delay is not None or provider is None else provider.delay_rule()
    if rule is None:
        raise UnknownArrivalError(log.provider, 0, "the files are history, and nothing says how late their rows were")
    return rule


@dataclass(slots=True)
class _Loader:
    """Pieces on their way into a log."""

    log: ObservationLog
    rule: DelayRule
    provider: Provider | None
    evolve: bool
    dry_run: bool
    clock: Clock | None

    def load(self, chunk: Chunk, so_far: BackfilledFile) -> BackfilledFile:
        """Store a piece, unless it is in; what has become of the file then."""
        so_far = replace(so_far, records=so_far.records + chunk.records)
        stream = (f"backfill-{so_far.digest}", chunk.number)
        self.log.table.refresh()
        last = self.log.table.marked(stream_marker(stream[0]))
        if last is not None and last >= chunk.number:
            return replace(so_far, loaded=so_far.loaded + chunk.records)
        came = read_frame(chunk.rows())
        frame, reasons, notes = self._checked(came, so_far.file)
        if frame.is_empty():
            return so_far
        if self.dry_run:
            return _sum(so_far, *self._would(frame, reasons, came), notes)
        report = self.log.append(
            frame,
            batch_id=f"{stream[0]}-{stream[1]}",
            stream=stream,
            arrivals="backfill",
            delay=self.rule,
            reasons=reasons,
            original=came,
            evolve=self.evolve or self._adds,
            clock=self.clock,
        )
        if report.duplicates:  # another run was quicker
            return replace(so_far, loaded=so_far.loaded + chunk.records)
        counts = {
            "rows": report.rows,
            "skipped_measured": report.skipped_measured,
            "unchanged": report.unchanged,
            "quarantined": report.quarantined,
        }
        return _sum(so_far, counts, report.reasons, notes)

    @property
    def _adds(self) -> bool:
        return self.provider is not None and self.provider.contract.on_new_column == "add"

    def _checked(self, came: pl.DataFrame, file: str) -> tuple[pl.DataFrame, pl.Series | None, tuple[str, ...]]:
        """Rows against the contract.

        Raises:
            BatchError: If it refuses them.
        """
        if self.provider is None:
            if BROKEN not in came.columns:
                return came, None, ()
            return came.drop(BROKEN), "cannot be read: " + came[BROKEN], ()
        checked = check_rows(came, self.provider.contract, self.log.definition)
        if checked.refused is not None:
            raise BatchError(
                f"provider {self.log.provider!r}: {file}: the contract refuses the rows: {checked.refused}",
                "change the files, or the contract's policy; what came before is stored, so run it again then.",
            )
        return checked.frame, checked.reasons, checked.notes

    def _would(
        self, frame: pl.DataFrame, reasons: pl.Series | None, came: pl.DataFrame
    ) -> tuple[dict[str, int], dict[str, int]]:
        """What an append would do, as far as it is known before."""
        table = self.log.table
        batch = prepare_batch(
            frame, self.log.definition, arrivals="backfill", delay=self.rule, reasons=reasons, original=came
        )
        skipped = 0
        rows = batch.rows
        if table.columns:
            names = [name for name in frame.columns if table.column(name) is not None]
            compare_columns(rows, names, table)
            rows, skipped = skip_known_history(table, fit_rows(rows, table))
        told = dict(batch.bad["reason"].value_counts().iter_rows()) if batch.bad.height else {}
        return {"rows": rows.height, "skipped_measured": skipped, "quarantined": batch.bad.height}, told


def _sum(
    so_far: BackfilledFile, counts: dict[str, int], reasons: dict[str, int], notes: tuple[str, ...]
) -> BackfilledFile:
    together = dict(so_far.reasons)
    for reason, count in reasons.items():
        together[reason] = together.get(reason, 0) + count
    added: dict[str, Any] = {name: getattr(so_far, name) + count for name, count in counts.items()}
    return replace(so_far, **added, reasons=together, notes=tuple(dict.fromkeys((*so_far.notes, *notes))))
