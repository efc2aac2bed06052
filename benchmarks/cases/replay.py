"""A year of ticks replayed, against one query per tick."""

from __future__ import annotations

import resource
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

import alignment as al
from alignment.engines.local import Timings
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "replay: a year of 10-minute ticks x 100 entities x 4 views, against one query per tick"
START = datetime(2025, 1, 1, tzinfo=UTC)
PER_TICK = "asknown, one join per tick"
VIEWS = 4


def feed(rng: np.random.Generator, entities: int, ticks: int) -> pl.DataFrame:
    """A reading every 10 minutes and entity, 20 to 40 minutes late, in order of arrival; a tenth is corrected hours later."""
    events = np.tile(np.arange(ticks, dtype=np.int64) * 600_000_000, entities) + int(START.timestamp() * 1e6)
    delay = (rng.uniform(20, 40, len(events)) * 60e6).astype(np.int64)
    entity = np.repeat(np.arange(entities), ticks)
    value = rng.standard_normal(len(events))
    again = rng.random(len(events)) < 0.1
    whole = {
        "site": np.concatenate([entity, entity[again]]),
        "event_time": np.concatenate([events, events[again]]),
        "arrival_time": np.concatenate([events + delay, events[again] + delay[again] + 6 * 3_600_000_000]),
        "x": np.concatenate([value, value[again] + 0.1]),
    }
    return (
        pl.DataFrame(whole)
        .with_columns(pl.col("event_time", "arrival_time").cast(pl.Datetime("us", "UTC")))
        .sort("arrival_time")
    )


def views(entities: int, ticks: int) -> list[al.FeatureView]:
    """Four providers, each with its newest value, that of a day ago, the mean of the last hour and ages."""
    rng = np.random.default_rng(5)
    features = [al.latest("x"), al.lag("x", "24h"), al.window("x", "mean", "1h"), al.event_age(), al.arrival_age()]
    return [al.FeatureView(f"feed_{place}", ["site"], feed(rng, entities, ticks), features) for place in range(VIEWS)]


def run(bench: Bench) -> Report:
    """Time the whole replay; of the queries per tick some, since all would take a day; their rows are compared first."""
    entities, days = (20, 30) if bench.quick else (100, 365)
    ticks = days * 144
    asked, sites = views(entities, ticks), {"site": list(range(entities))}
    end = START + timedelta(days=days)
    al.replay(asked, {"site": [0]}, START, START + timedelta(hours=1), "10m")  # compiled before it is timed
    some = [START + timedelta(minutes=10 * int(tick)) for tick in np.linspace(0, ticks - 1, 7)]
    ours, each = Result(OURS, OURS, "exact"), Result(PER_TICK, PER_TICK, "exact")
    rates: list[float] = []
    for _ in range(bench.rounds or 3):
        found = _replayed(ours, asked, sites, end, some)
        rates.append(entities * ticks / ours.parts[-1]["kernel"])
        each.walls.append(_per_tick(asked, sites, some, found) / len(some) * ticks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ours.peak_bytes = peak
    comparison = Comparison(
        f"replay {entities} entities x {ticks:,} ticks x {VIEWS} views = {entities * ticks:,} rows; median "
        f"{statistics.median(rates) / 1e6:.2f}M rows a second of kernel time; per tick extrapolated from {len(some)} queries",
        {OURS: ours, PER_TICK: each},
    )
    targets = [
        Target("replay: M rows a second of kernel time", statistics.median(rates) / 1e6, 2.0, at_most=False, unit=""),
        Target("replay: faster than one query per tick", 1 / comparison.ratio(OURS, PER_TICK), 100.0, at_most=False),
    ]
    return Report("replay", [comparison], targets)


def _replayed(
    ours: Result, asked: list[al.FeatureView], sites: dict[str, Any], end: datetime, some: list[datetime]
) -> pl.DataFrame:
    """Replay everything, and keep the rows of some ticks."""
    timings = Timings()
    wall, cpu = time.perf_counter(), time.process_time()
    batches = al.replay_batches(asked, sites, START, end, "10m", timings=timings)
    kept = [batch.filter(pl.col("prediction_time").is_in(some)) for batch in batches]
    ours.walls.append(time.perf_counter() - wall)
    ours.cpus.append(time.process_time() - cpu)
    parts = ("read", "arrange", "kernel", "gather")
    ours.parts.append({part: getattr(timings, part) for part in parts})
    return pl.concat(kept)


def _per_tick(asked: list[al.FeatureView], sites: dict[str, Any], some: list[datetime], found: pl.DataFrame) -> float:
    """Ask for some ticks one by one; seconds.

    Raises:
        AssertionError: If a query answers otherwise than the replay.
    """
    spent = 0.0
    for tick in some:
        spine = pl.DataFrame(sites).with_columns(prediction_time=pl.lit(tick, pl.Datetime("us", "UTC")))
        begin = time.perf_counter()
        joined = al.point_in_time_join(spine, asked, status=True)
        spent += time.perf_counter() - begin
        same = found.filter(prediction_time=tick).select(joined.columns)
        if not same.equals(joined):
            raise AssertionError(f"replay and join differ at {tick.isoformat()}")
    return spent
