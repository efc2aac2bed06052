"""Feast's `get_historical_features` through our offline store and through its DuckDB store, over the same repository."""

from __future__ import annotations

from benchmarks.bench import Bench, ask_latest
from benchmarks.harness import Comparison
from benchmarks.report import Report, Target

TITLE = "Feast's get_historical_features: our offline store, and Feast's over DuckDB"
OURS, THEIRS = "asknown_feast", "feast_duckdb"
FASTER = {24: 5.0, 0: 30.0}
"""Hours of ttl, and how many times faster we hold ourselves to: a ttl bounds Feast's join, and is its best case."""
OF_MEMORY = 0.2


def run(bench: Bench) -> Report:
    """One and three views, without ttl and with one of 24 hours; retractions left out, which Feast has no word for."""
    comparisons, targets = [], []
    size = bench.size("M", "S")
    _, data = bench.data(size, retractions=0.0)
    for views in (1, 3):
        for hours, bound in FASTER.items():
            title = f"Feast {size}, {views} view{'s' if views > 1 else ''}, ttl {f'{hours} h' if hours else 'none'}"
            question = ask_latest(data, ttl_hours=hours, views=views)
            comparison = bench.compare(title, question, data, [THEIRS, OURS], limit=900.0)
            comparisons.append(comparison)
            faster = 1 / comparison.ratio(OURS, THEIRS)
            targets.append(Target(f"{title}: faster than Feast duckdb", faster, bound, at_most=False))
            if not hours:
                targets.append(Target(f"{title}: of Feast duckdb's peak memory", _memory(comparison), OF_MEMORY))
    return Report("feast_offline", comparisons, targets)


def _memory(comparison: Comparison) -> float:
    ours, theirs = (comparison.results[name].peak_bytes if name in comparison.results else 0 for name in (OURS, THEIRS))
    return ours / theirs if ours and theirs else float("nan")
