"""A backfill that is killed again and again loads every row of its files once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from ingestion import ObservationLog, create_log, open_log
from ingestion.jobs import backfill

FULL_COUNT = 100
ROWS, CHUNK = 4_000, 100

LOADER = """
import sys
from ingestion import open_log
from ingestion.jobs import backfill

root, *files = sys.argv[1:]
log = open_log(root, "meters")
print("ready", flush=True)
report = backfill(log, files, delay="45m", chunk_rows=100)
print(report.rows, flush=True)
"""


def files(folder: Path) -> list[Path]:
    """The same history as Parquet and, of other meters, as CSV."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "meter": ["m1"] * ROWS,
            "event_time": _events(start),
            "number": range(ROWS),
        }
    )
    parquet, csv = folder / "history.parquet", folder / "history.csv"
    frame.write_parquet(parquet, row_group_size=77)
    frame.with_columns(pl.lit("m2").alias("meter"), pl.col("event_time").dt.to_string("%Y-%m-%dT%H:%M:%SZ")).write_csv(
        csv
    )
    return [parquet, csv]


def _events(start: datetime) -> pl.Series:
    minutes = pl.Series(range(ROWS)) * 60_000_000
    return pl.select(pl.lit(start) + minutes.cast(pl.Duration("us"))).to_series()


def start_loader(root: Path, history: list[Path]) -> subprocess.Popen[str]:
    script = root.parent / "loader.py"
    script.write_text(LOADER)
    loader = subprocess.Popen(
        [sys.executable, str(script), str(root), *map(str, history)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert loader.stdout is not None
    assert loader.stdout.readline() == "ready\n"
    return loader


def check(log: ObservationLog, *, complete: bool) -> None:
    rows = log.scan(columns=["number", "batch_id"]).collect()
    assert rows.select("meter", "number").is_unique().all(), "a row is there twice"
    for meter in ("m1", "m2"):
        numbers = rows.filter(pl.col("meter") == meter)["number"].sort()
        assert numbers.to_list() == list(range(len(numbers))), "a piece before the last one is lost"
        assert len(numbers) % CHUNK == 0, "a piece is there in part"
    if complete:
        assert rows.height == 2 * ROWS
    assert set(rows["arrival_kind"]) <= {"declared"}


def run(folder: Path, kills: int, seed: int) -> int:
    """Kill loaders until that many have died; how many of them had stored something."""
    chance = random.Random(seed)
    useful = done = 0
    round_ = 0
    while done < kills:
        round_ += 1
        root = folder / f"logs-{round_}"
        history = files(folder)
        create_log(root, "meters", entities=["meter"], schema={"meter": pl.String, "number": pl.Int64})
        while done < kills:
            before = open_log(root, "meters").position()
            loader = start_loader(root, history)
            time.sleep(chance.uniform(0.0, 1.2))
            alive = loader.poll() is None
            loader.send_signal(signal.SIGKILL)
            loader.wait()
            assert loader.stdout is not None
            loader.stdout.close()
            done += 1
            log = open_log(root, "meters")
            check(log, complete=False)
            useful += int(log.position() > before)
            if not alive:
                break
        log = open_log(root, "meters")
        backfill(log, history, delay="45m", chunk_rows=CHUNK)
        check(log, complete=True)
        assert backfill(log, history, delay="45m", chunk_rows=CHUNK).rows == 0
    return useful


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_killed_backfill_goes_on_and_stores_every_row_once(tmp_path: Path) -> None:
    assert run(tmp_path, 3, seed=4) > 0


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_backfill_killed_a_hundred_times_stores_every_row_once(tmp_path: Path) -> None:
    kills = max(1, round(FULL_COUNT * float(os.environ.get("ASKNOWN_SOAK", "1"))))
    print({"kills": kills, "of them after a commit": run(tmp_path, kills, seed=5)})
