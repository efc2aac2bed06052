"""`python -m benchmarks.log_costs`: what an observation log costs: bytes and seconds of rows, of commits, and of many files.

Rows are those of `benchmarks.data`: an integer key, five values. For the third table the log's metadata is made to name files that are not
there: opening a log, choosing files and writing checkpoints never look at them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from deltalake.transaction import AddAction

import ingestion
from benchmarks.data import Recipe, data_set
from benchmarks.unit_costs import HOME, processor, status

COMMITS, BATCH = 200, 500
FILES = (1_000, 10_000, 100_000)


def rows(count: int) -> dict[str, float]:
    """Appending `count` rows as one batch, arrivals given."""
    frame = pl.read_parquet(data_set(Recipe(rows=count, spine=count // 10), HOME).observations).drop("log_sequence")
    with tempfile.TemporaryDirectory() as folder:
        log = ingestion.create_log(folder, "rows", entities=["entity"])
        clock, used = time.perf_counter(), processor()
        log.append(frame, arrivals="given")
        seconds, cpu = time.perf_counter() - clock, processor() - used
        return {
            "rows": count,
            "rows a second": count / seconds,
            "processor seconds per million": cpu / count * 1e6,
            "bytes a row": log.info().bytes / count,
        }


def commits() -> dict[str, float]:
    """Small batches, one commit each, fsync included."""
    frame = pl.read_parquet(data_set(Recipe(rows=1_000_000, spine=100_000), HOME).observations).drop("log_sequence")
    with tempfile.TemporaryDirectory() as folder:
        log = ingestion.create_log(folder, "rows", entities=["entity"])
        seconds = []
        for number in range(COMMITS):
            batch = frame[number * BATCH : (number + 1) * BATCH]
            clock = time.perf_counter()
            log.append(batch, arrivals="given")
            seconds.append(time.perf_counter() - clock)
        entries = [file.stat().st_size for file in (Path(folder) / "rows" / "_delta_log").glob("*.json")]
        info = log.info()
        return {
            "commits": COMMITS,
            "median ms": statistics.median(seconds) * 1e3,
            "99 % ms": statistics.quantiles(seconds, n=100)[98] * 1e3,
            "entry bytes": statistics.median(entries),
            "bytes a row": info.bytes / info.rows,
        }


def many_files(count: int) -> dict[str, float]:
    """A log whose metadata names `count` files of a million rows: how long and large what reads or writes that is."""
    with tempfile.TemporaryDirectory() as folder:
        log = ingestion.create_log(folder, "rows", entities=["entity"])
        log.append(
            pl.read_parquet(data_set(Recipe(rows=100_000, spine=10_000), HOME).observations).drop("log_sequence"),
            arrivals="given",
        )
        table = log.table
        stats = {"event_time": "2026-01-01T00:00:00.000000Z", "arrival_time": "2026-01-01T00:30:00.000000Z"}
        actions = []
        for number in range(count):
            low, high = number * 1_000_000, (number + 1) * 1_000_000 - 1
            least, most = (
                stats | {"log_sequence": low, "record_kind": "observation"},
                stats
                | {
                    "log_sequence": high,
                    "record_kind": "observation",
                },
            )
            told = {
                "numRecords": 1_000_000,
                "minValues": least,
                "maxValues": most,
                "nullCount": dict.fromkeys(least, 0),
            }
            name = f"{low:016d}-{number:032x}.parquet"
            actions.append(AddAction(name, 33_500_000, {}, 1_767_225_600_000, True, json.dumps(told)))
        table.commit(actions, next_sequence=count * 1_000_000)
        clock = time.perf_counter()
        table.delta.create_checkpoint()
        checkpoint = time.perf_counter() - clock
        size = sum(file.stat().st_size for file in (Path(folder) / "rows" / "_delta_log").glob("*.parquet"))
        order = json.dumps({"folder": folder})
        command = [sys.executable, "-m", "benchmarks.log_costs", "--look", order]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        looked = json.loads(done.stdout.splitlines()[-1])
        return {"files": count, "checkpoint s": checkpoint, "checkpoint bytes a file": size / count} | looked


def look(folder: str) -> dict[str, float]:
    """Opening a log and choosing its files, in this process."""
    base = status("VmRSS")
    clock = time.perf_counter()
    log = ingestion.open_log(folder, "rows")
    opened = time.perf_counter() - clock
    clock = time.perf_counter()
    log.files_for(event_from=None)
    chosen = time.perf_counter() - clock
    files = log.info().files
    return {"open s": opened, "choose s": chosen, "memory bytes a file": (status("VmHWM") - base) / files}


def main() -> None:
    """Measure, print, and perhaps write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000_000, help="rows of the one large batch")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--look", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.look:
        print(json.dumps(look(**json.loads(arguments.look))))
        return
    load = os.getloadavg()[0]
    found: dict[str, list[Any]] = {
        "a large batch": [rows(arguments.rows)],
        "small batches": [commits()],
        "many files": [many_files(count) for count in FILES],
    }
    for title, lines in found.items():
        print(title)
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, float_precision=4, tbl_cols=-1):
            print(pl.DataFrame(lines))
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after; {os.cpu_count()} processors")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": load, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
