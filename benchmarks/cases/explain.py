"""Explaining one entity of a log: 50,000 rows of its own among those of nine others, one feature and sixteen."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

import alignment as al
import ingestion
from benchmarks.answers import Verdict
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "explain: one entity with 50,000 rows in a log of ten such"

START = datetime(2026, 1, 1, tzinfo=UTC)
STATIONS, BATCHES, LATE = 10, 4, timedelta(minutes=7)
FEATURES = [
    al.latest("temp"),
    al.window("temp", ["mean", "max", "std"], ["1h", "24h", "7d"]),
    al.lag("temp", ["1h", "24h"]),
    al.sequence("temp", 12),
    al.sequence("temp", 24, step="1h"),
    al.event_age(),
    al.arrival_age(),
]


def run(bench: Bench) -> Report:
    """What is explained is compared with the join before anything is timed; each time is of another entity."""
    if OURS in bench.without:
        return Report("explain", [], [])
    rows = 5_000 if bench.quick else 50_000
    t = START + timedelta(minutes=rows * 9 // 10)
    with tempfile.TemporaryDirectory() as folder:
        view = al.FeatureView("weather", observations=_log(Path(folder), rows), features=FEATURES)
        verdict = _judge(view, t, al.explain(view, "s0", t), rows)
        comparisons = [
            _measured(title, view, t, names, rounds=bench.rounds or 5, verdict=verdict)
            for title, names in (("one feature", ["weather__temp"]), ("16 features", None))
        ]
    targets = [
        Target(f"{comparison.title}, with to_dict()", comparison.results[OURS].wall, 1.0, unit="s")
        for comparison in comparisons
    ]
    return Report("explain", comparisons, targets)


def _log(folder: Path, rows: int) -> ingestion.ObservationLog:
    """An event a minute of every station, in a few batches."""
    log = ingestion.create_log(folder, "weather", entities=["station"])
    rng = np.random.default_rng(7)
    for part in range(BATCHES):
        minutes = np.arange(rows * part // BATCHES, rows * (part + 1) // BATCHES)
        events = pl.select(START + pl.duration(minutes=pl.lit(pl.Series(minutes)))).to_series().dt.cast_time_unit("us")
        times = pl.DataFrame({"event_time": events, "arrival_time": events + LATE})
        stations = pl.DataFrame({"station": [f"s{number}" for number in range(STATIONS)]})
        batch = stations.join(times, how="cross")
        log.append(batch.with_columns(temp=pl.Series(rng.normal(size=batch.height))))
    return log


def _judge(view: al.FeatureView, t: datetime, found: al.Explanation, rows: int) -> Verdict:
    """Whether every feature has the join's value and tells of every row."""
    joined = al.point_in_time_join(pl.DataFrame({"station": ["s0"], "prediction_time": [t]}), view)
    wrong = [
        one.feature
        for one in found.features
        if pl.Series([one.value]).to_list() != pl.Series([joined[one.feature][0]]).to_list()
        or one.used.height + sum(one.unused_counts.values()) != rows
    ]
    return Verdict(len(found.features), len(wrong), wrong[0] if wrong else "")


def _measured(
    title: str, view: al.FeatureView, t: datetime, names: list[str] | None, *, rounds: int, verdict: Verdict
) -> Comparison:
    result = Result(OURS, "asknown", "exact", verdict=verdict)
    for number in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        al.explain(view, f"s{1 + number % (STATIONS - 1)}", t, features=names).to_dict()
        result.walls.append(time.perf_counter() - wall)
        result.cpus.append(time.process_time() - cpu)
    return Comparison(f"{title} (median of {rounds})", {OURS: result})
