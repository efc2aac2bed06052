"""Writers that race without any lock, as in an object store: the commit alone keeps the order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl

from ingestion import create_log, open_log

WRITERS, BATCHES = 3, 12

SCRIPT = """
import contextlib, sys
from datetime import UTC, datetime, timedelta
import polars as pl
from ingestion import open_log

root, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = open_log(root, "meters")
log.table.commit_lock = contextlib.nullcontext
print("ready", flush=True)
sys.stdin.readline()
lost = 0
for number in range(batches):
    frame = pl.DataFrame({
        "meter": [name, name],
        "event_time": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number, seconds=i) for i in range(2)],
        "number": [number, number],
    })
    lost += log.append(frame, batch_id=f"{name}-{number}").attempts - 1
    lost += log.append(frame, batch_id=f"shared-{number}").attempts - 1
print(lost)
"""


def test_writers_without_a_lock_lose_races_but_no_rows(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    create_log(
        root, "meters", entities=["meter"], schema={"meter": pl.String, "number": pl.Int64}, publish_margin="10s"
    )
    script = tmp_path / "writer.py"
    script.write_text(SCRIPT)
    repository = Path(__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, str(script), str(root), f"writer-{n}", str(BATCHES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=repository,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
        for n in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lost = sum(int(writer.communicate(timeout=120)[0]) for writer in writers)
    assert all(writer.returncode == 0 for writer in writers)

    log = open_log(root, "meters")
    rows = log.scan(columns=["number", "batch_id"]).sort("log_sequence").collect()
    # each writer's own batches once, and each shared batch once, whoever came first
    assert rows.height == 2 * (WRITERS * BATCHES + BATCHES)
    assert rows["batch_id"].value_counts()["count"].unique().to_list() == [2]
    assert rows["log_sequence"].to_list() == list(range(rows.height))
    stamps = rows.group_by("batch_id", maintain_order=True).agg(pl.col("arrival_time").unique())
    assert (stamps["arrival_time"].list.len() == 1).all()
    assert (stamps["arrival_time"].list.first().diff().drop_nulls().dt.total_microseconds() > 0).all()
    assert lost > 0, "no race was lost, so this test did not test anything"
    assert len(list((root / "meters").glob("*.parquet"))) == log.table.files().height, "a lost race left its file"
