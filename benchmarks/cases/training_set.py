"""From an observation log on disk to a Parquet training set on disk."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl

from benchmarks.bench import Bench, ask_latest
from benchmarks.data import DataSet
from benchmarks.report import Report, Target

BATCH = 1_000_000
TITLE = "training set: log on disk -> Parquet on disk, 20 features"


def run(bench: Bench) -> Report:
    """Twenty features by asknown against five plain columns by Polars scan, join_asof, write."""
    size = bench.size("L", "M")
    _, data = bench.data(size)
    with tempfile.TemporaryDirectory() as folder:
        question = ask_latest(data, kind="training_set", output=folder, from_disk=True)
        if "asknown_join" not in bench.without:
            question = replace(question, log=str(_log(data)))
        comparison = bench.compare(f"training set {size}", question, data, ["polars_asof", "asknown_join"])
    ratio = comparison.ratio("asknown_join", "polars_asof")
    target = Target(f"training set {size}: 20 features, of Polars' 5 columns", ratio, 1.5)
    return Report("training_set", [comparison], [target])


def _log(data: DataSet) -> Path:
    """The folder that holds the same observations as the log `observations`, made once and kept beside the data."""
    import ingestion

    home = data.spine.parent / "log"
    if not home.exists():
        scratch = home.with_name("log.part")
        shutil.rmtree(scratch, ignore_errors=True)
        log = ingestion.create_log(scratch, "observations", entities=list(data.entities))
        rows = pl.read_parquet(data.observations).drop("log_sequence")
        for number, start in enumerate(range(0, rows.height, BATCH)):
            log.append(rows[start : start + BATCH], batch_id=f"batch-{number}")
        scratch.rename(home)
    return home
