"""Many writers on one bucket, through a network that loses requests and answers: nothing lost, nothing twice, all in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from faulty_proxy import FaultyProxy
from object_store import ObjectStore

from ingestion import create_log, open_log

WRITER = """
import json, sys
from datetime import UTC, datetime, timedelta
import polars as pl
from ingestion import open_log
from ingestion.errors import CommitError

root, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
log = open_log(root, "meters")
told = []
for number in range(batches):
    event = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    frame = pl.DataFrame({"meter": [name, name], "event_time": [event, event + timedelta(seconds=1)], "number": number})
    once = {"batch_id": f"{name}-{number}"} if number % 2 else {"stream": (name, number)}
    unknown = 0
    while True:  # as a caller does who is told that the outcome is unknown: once more, the same batch
        try:
            report = log.append(frame, **once)
            break
        except CommitError:
            unknown += 1
    told.append([number, report.position, report.attempts, report.rows, report.duplicates, unknown])
print(json.dumps(told))
"""


def write_at_once(store: ObjectStore, folder: Path, *, writers: int, batches: int, rate: float, margin: str) -> str:
    """Let processes append at the same time through a faulty network, check everything; returns the figures."""
    script = folder / "writer.py"
    script.write_text(WRITER)
    repository = Path(__file__).parents[2]
    root = f"s3://{store.bucket()}/some logs"
    with pytest.MonkeyPatch.context() as patch, FaultyProxy(store.port, rate=rate, seed=writers) as proxy:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        columns = {"meter": pl.String, "number": pl.Int64}
        create_log(root, "meters", entities=["meter"], schema=columns, publish_margin=margin)
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), root, f"writer-{n}", str(batches)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=repository,
                env={**os.environ, **store.environment(proxy.endpoint), "PYTHONPATH": str(repository)},
            )
            for n in range(writers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = {f"writer-{n}": json.loads(process.communicate()[0] or "[]") for n, process in enumerate(processes)}
        took = time.monotonic() - began
        assert [process.returncode for process in processes] == [0] * writers
        seen = proxy.seen()
        check(root, told, batches)
    attempts = sum(told_[2] - 1 for reports in told.values() for told_ in reports)
    unknown = sum(told_[5] for reports in told.values() for told_ in reports)
    return (
        f"{writers} writers x {batches} commits in {took:.0f} s: {len(seen['requests'])} requests,"
        f" faults {seen['faults']}, {attempts} lost races, {unknown} calls that ended in CommitError"
    )


def check(root: str, told: dict[str, list[list[int]]], batches: int) -> None:
    log = open_log(root, "meters")
    position = log.position()
    table = log.table
    everything = table.read(table.files()["path"].to_list()).sort("log_sequence").collect()
    assert everything["log_sequence"].to_list() == list(range(position + 1)), "a number is missing, or was given twice"
    rows = everything.filter(pl.col("record_kind") == "observation")
    counted = Counter(rows.select("meter", "number").iter_rows())
    assert counted == {(name, number): 2 for name in told for number in range(batches)}, "a batch is missing, or twice"
    # one instant a batch, and each later than that of the batch before it, whoever wrote them
    stamps = rows.group_by("batch_id", maintain_order=True).agg(pl.col("arrival_time").unique())["arrival_time"]
    assert (stamps.list.len() == 1).all()
    assert (stamps.list.first().diff().drop_nulls().dt.total_microseconds() > 0).all()
    sequences = rows.select("meter", "number", "log_sequence").iter_rows()
    last = {(meter, number): sequence for meter, number, sequence in sequences}
    for name, reports in told.items():
        positions = [report[1] for report in reports]
        assert positions == sorted(positions)
        for number, at, _, appended, duplicates, _ in reports:
            assert at >= last[name, number], "a position was told at which the batch is not there"
            assert (appended, duplicates) in {(2, 0), (0, 2)}  # its own, or one that it was not sure of came first


def test_two_writers_and_a_bad_network_keep_every_batch_once(object_store: ObjectStore, tmp_path: Path) -> None:
    print(write_at_once(object_store, tmp_path, writers=2, batches=4, rate=0.05, margin="500ms"))


@pytest.mark.soak
def test_eight_writers_and_a_bad_network_keep_every_batch_once(object_store: ObjectStore, tmp_path: Path) -> None:
    batches = max(round(200 * float(os.environ.get("ASKNOWN_SOAK", "1"))), 1)
    print(write_at_once(object_store, tmp_path, writers=8, batches=batches, rate=0.05, margin="20s"))
