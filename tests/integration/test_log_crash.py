"""Two writers, killed at random points: nothing lost, nothing twice, no unreadable table, stamps in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from ingestion import ObservationLog, create_log, open_log

FULL_COUNT = 200
ROWS = 3

WRITER = """
import sys
from datetime import UTC, datetime, timedelta
import polars as pl
from ingestion import open_log

root, name, start, acknowledged = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
log = open_log(root, "meters")
with open(acknowledged, "a") as notes:
    print("ready", flush=True)
    for number in range(start, start + 10_000):
        frame = pl.DataFrame({
            "meter": [name] * 3,
            "event_time": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number, seconds=i) for i in range(3)],
            "number": [number] * 3,
            "part": [0, 1, 2],
        })
        report = log.append(frame, batch_id=f"{name}-{number}")
        notes.write(f"{number} {report.position}\\n")
        notes.flush()
"""


def start_writer(root: Path, name: str, first: int) -> subprocess.Popen[str]:
    script = root.parent / "writer.py"
    script.write_text(WRITER)
    notes = root.parent / f"{name}.acknowledged"
    writer = subprocess.Popen(
        [sys.executable, str(script), str(root), name, str(first), str(notes)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def kill(writer: subprocess.Popen[str]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert writer.stdout is not None
    writer.stdout.close()


def acknowledged(root: Path, name: str) -> list[int]:
    notes = root.parent / f"{name}.acknowledged"
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [int(line.split()[0]) for line in lines if len(line.split()) == 2]


def check_log(log: ObservationLog, root: Path, names: list[str]) -> pl.DataFrame:
    """Everything that may be asked of a log whose writers died."""
    rows = log.scan().collect()
    for name in names:
        numbers = rows.filter(pl.col("meter") == name).group_by("number").agg(pl.len(), pl.col("part").n_unique())
        assert (numbers["len"] == ROWS).all(), "a batch is there in part, or twice"
        assert (numbers["part"] == ROWS).all(), "a row is there twice"
        present = set(numbers["number"])
        assert present >= set(acknowledged(root, name)), "an acknowledged batch is lost"
        assert present == set(range(len(present))), "a batch before the last one is lost"
    everything = rows.sort("log_sequence")
    assert everything["log_sequence"].is_unique().all()
    stored = pl.scan_parquet([log.table.address_of(path) for path in log.table.files()["path"]]).collect()
    stored = stored.filter(pl.col("record_kind") == "observation").sort("log_sequence")
    stamps = stored.group_by("batch_id", maintain_order=True).agg(
        pl.col("arrival_time").n_unique().alias("stamps"), pl.col("arrival_time").first()
    )
    assert (stamps["stamps"] == 1).all(), "a batch has two stamps"
    assert (stamps["arrival_time"].diff().drop_nulls().dt.total_microseconds() > 0).all(), "stamps go back"
    assert log.position() + 1 == rows.height + log.restamps().height, "a sequence number is unused or used twice"
    return rows


def run(root: Path, kills: int, seed: int) -> dict[str, int]:
    log = create_log(
        root, "meters", entities=["meter"], schema={"meter": pl.String, "number": pl.Int64, "part": pl.Int64}
    )
    chance = random.Random(seed)
    names = ["left", "right"]
    lost_acknowledgements = 0
    writers = {name: start_writer(root, name, 0) for name in names}
    try:
        for _kill in range(kills):
            time.sleep(chance.uniform(0.0, 0.25))
            victim = chance.choice(names)
            kill(writers[victim])
            # The restarted job repeats the first batch that nobody confirmed; if it was in, it stays there once.
            confirmed = acknowledged(root, victim)
            rows = check_log_of_one(open_log(root, "meters"), victim)
            following = max(confirmed, default=-1) + 1
            lost_acknowledgements += int(rows > following)
            writers[victim] = start_writer(root, victim, following)
    finally:
        for writer in writers.values():
            kill(writer)
    rows = check_log(log, root, names)
    orphans = len(list((root / "meters").glob("*.parquet"))) - log.table.files().height
    return {
        "rows": rows.height,
        "kills": kills,
        "unacknowledged but committed": lost_acknowledgements,
        "files without commit": orphans,
    }


def check_log_of_one(log: ObservationLog, name: str) -> int:
    """How many batches of a writer are there, each once and whole."""
    rows = log.scan().filter(pl.col("meter") == name).collect()
    assert rows.height % ROWS == 0
    assert rows.select("number", "part").is_unique().all()
    return rows.height // ROWS


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_nothing_is_lost_or_doubled_when_writers_are_killed(tmp_path: Path) -> None:
    run(tmp_path / "logs", 4, seed=1)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_nothing_is_lost_or_doubled_at_two_hundred_points(tmp_path: Path) -> None:
    kills = max(1, round(FULL_COUNT * float(os.environ.get("ASKNOWN_SOAK", "1"))))
    figures = run(tmp_path / "logs", kills, seed=2)
    print(figures)
    assert figures["rows"] > 0
