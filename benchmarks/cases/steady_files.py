"""Thirty minutes of one batch per second, compaction as in the job: do the number of files and the time of a scan stay flat?

The minutes are simulated: 1,800 batches of 500 rows follow each other as quickly as they can be stored, and the job's own rule
says after which of them the log is compacted. Each batch is a commit of its own, with its entry in the ledger.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta

import polars as pl

import ingestion
from benchmarks.answers import Verdict
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target
from ingestion.jobs.upkeep import Upkeep, tidy
from ingestion.ledger import Poll

TITLE = "steady files: file count and scan time over 30 minutes of a batch per second"
ROWS = 500
_LOOK = 25


def run(bench: Bench) -> Report:
    """A scan is of the last simulated minute, by a reader that opens the log anew."""
    if OURS in bench.without:
        return Report("steady_files", [], [])
    batches = 300 if bench.quick else 1_800
    start = datetime(2026, 1, 1, tzinfo=UTC)
    plants = pl.DataFrame({"plant": [f"plant {n % 50}" for n in range(ROWS)], "kw": [float(n) for n in range(ROWS)]})
    append, scan = Result("append", "append of 500 rows", "exact"), Result(OURS, "open, scan the last minute", "exact")
    compact = Result("compact", "compaction", "exact")
    files: list[int] = []
    with tempfile.TemporaryDirectory() as root:
        log = ingestion.create_log(root, "meter", entities=["plant"])
        upkeep = Upkeep()
        for second in range(batches):
            now = ingestion.system_clock()
            rows = plants.with_columns(event_time=pl.lit(start + timedelta(seconds=second)))
            poll = Poll(source="push", started=now, ended=now, outcome="rows")
            _timed(append, lambda rows=rows, poll=poll: log.append(rows, arrivals="stamp", poll=poll))
            upkeep.committed("meter", elapsed=float(second))
            if upkeep.take(float(second)) is not None:
                _timed(compact, lambda: tidy(ingestion.open_log(root, "meter")))
            if second % _LOOK == _LOOK - 1:
                since = start + timedelta(seconds=second - 60)
                _timed(scan, lambda since=since: ingestion.open_log(root, "meter").scan(event_from=since).collect())
                files.append(ingestion.open_log(root, "meter").info().files)
        stored = ingestion.open_log(root, "meter").scan().select(pl.len()).collect().item()
        append.verdict = Verdict(batches * ROWS, abs(batches * ROWS - stored), "")
    third = max(1, len(files) // 3)
    targets = [
        Target("files, most in the last third of the first", max(files[-third:]) / max(files[:third]), 1.25),
        Target("opening and scanning the last minute, the same", _ratio(scan.walls, third), 1.5),
        Target("append, the same", _ratio(append.walls, len(append.walls) // 3), 1.5),
        Target("the longest compaction", max(compact.walls, default=float("nan")), 3.0, unit="s"),
    ]
    title = f"{batches:,} batches, one per simulated second; {min(files)} to {max(files)} files"
    return Report("steady_files", [Comparison(title, {OURS: scan, "append": append, "compact": compact})], targets)


def _timed(result: Result, work) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    result.walls.append(time.perf_counter() - wall)
    result.cpus.append(time.process_time() - cpu)


def _ratio(walls: list[float], third: int) -> float:
    """The median of the last third over that of the first."""
    return statistics.median(walls[-third:]) / statistics.median(walls[:third])
