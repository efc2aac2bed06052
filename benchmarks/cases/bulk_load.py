"""Loading history: 10M rows into a log against `write_deltalake` of the same rows, in turns in one process."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import DeltaTable, write_deltalake

import ingestion
from benchmarks.answers import Verdict
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "bulk load: rows into a log, of write_deltalake"
COLUMNS = ["station", "event_time", "arrival_time", "temp", "wind"]


def rows(count: int) -> pl.DataFrame:
    """1,000 stations, four events a second, known 25 minutes later, two values."""
    rng = np.random.default_rng(11)
    start = 1_700_000_000_000_000
    events = pl.Series("event_time", start + np.arange(count, dtype=np.int64) * 250_000).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "station": pl.Series(rng.integers(0, 1000, count)).cast(pl.String),
            "event_time": events,
            "arrival_time": events + timedelta(minutes=25),
            "temp": rng.normal(size=count),
            "wind": rng.normal(size=count),
        }
    )


def run(bench: Bench) -> Report:
    """What is read back is compared before anything is timed."""
    if OURS in bench.without:
        return Report("bulk_load", [], [])
    count = 1_000_000 if bench.quick else 10_000_000
    frame = rows(count)
    contenders: dict[str, tuple[str, Callable[[Path], object]]] = {
        OURS: ("log.append, arrivals given", lambda folder: _log(folder).append(frame)),
        "stamped": ("log.append, stamped", lambda folder: _log(folder).append(frame.drop("arrival_time"))),
        "delta": ("write_deltalake", lambda folder: write_deltalake(str(folder), frame.to_arrow())),
    }
    results = {name: Result(name, text, "exact") for name, (text, _) in contenders.items()}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (_, load) in contenders.items():
            load(Path(scratch) / name)
        _judge(Path(scratch), frame, results)
        for turn in range(bench.rounds or 5):
            for name, (_, load) in contenders.items():
                folder = Path(scratch) / f"{name}-{turn}"
                wall, cpu = time.perf_counter(), time.process_time()
                load(folder)
                results[name].walls.append(time.perf_counter() - wall)
                results[name].cpus.append(time.process_time() - cpu)
                shutil.rmtree(folder)
    comparison = Comparison(f"bulk load, {count:,} rows", results)
    targets = [
        Target("10M rows into a log, arrivals given, of write_deltalake", comparison.ratio(OURS, "delta"), 2.0),
        Target("the same, stamped", comparison.ratio("stamped", "delta"), 2.0),
    ]
    return Report("bulk_load", [comparison], targets)


def _log(folder: Path) -> ingestion.ObservationLog:
    return ingestion.create_log(folder, "bulk", entities=["station"])


def _judge(scratch: Path, frame: pl.DataFrame, results: dict[str, Result]) -> None:
    """All rows, each once, with their values."""
    order = ["event_time", "station"]
    wanted = frame.sort(order)
    for name, result in results.items():
        if name == "delta":
            table = DeltaTable(str(scratch / name))
            got = pl.scan_parquet(table.file_uris()).select(COLUMNS).collect()
        else:
            got = ingestion.open_log(scratch / name, "bulk").scan().select(COLUMNS).collect()
        columns = [column for column in COLUMNS if name != "stamped" or column != "arrival_time"]
        right = got.sort(order).select(columns).equals(wanted.select(columns))
        result.verdict = Verdict(frame.height, 0 if right else frame.height, "" if right else "other rows")
        shutil.rmtree(scratch / name)
