"""Five aggregates over windows of 144 and of 1,000 events."""

from __future__ import annotations

from benchmarks.bench import Bench, ask_windows
from benchmarks.report import Report, Target

TITLE = "windows: 5 aggregates over 144 and 1,000 events"
DAY = 144 * 10  # minutes; an event every ten
WEEK = 1_000 * 10


def run(bench: Bench) -> Report:
    """Against the same rules in DuckDB, and alone at the large size."""
    size = "M"
    _, data = bench.data(size)
    contenders = ["duckdb_sql", "asknown_join"]
    comparisons, targets = [], []
    for events, minutes in ((144, DAY),) if bench.quick else ((144, DAY), (1_000, WEEK)):
        title = f"windows of {events:,} events, {size}"
        comparison = bench.compare(title, ask_windows(data, minutes=minutes), data, contenders)
        comparisons.append(comparison)
        if events == 144:
            kernel = 1 / comparison.ratio("asknown_join", "duckdb_sql", kernel=True)
            whole = 1 / comparison.ratio("asknown_join", "duckdb_sql")
            targets.append(Target(f"{title}: kernel faster than DuckDB", kernel, 60.0, at_most=False))
            targets.append(Target(f"{title}: end to end faster than DuckDB", whole, 20.0, at_most=False))
    if bench.quick:
        return Report("windows", comparisons, targets)
    _, data = bench.data("L")
    for events, minutes in ((144, DAY), (1_000, WEEK)):
        title = f"windows of {events:,} events, L"
        comparison = bench.compare(title, ask_windows(data, minutes=minutes), data, ["asknown_join"])
        comparisons.append(comparison)
        if events == 144 and "asknown_join" in comparison.results:
            ours = comparison.results["asknown_join"]
            targets.append(Target(f"{title}: kernel", ours.kernel, 0.6, unit="s"))
            targets.append(Target(f"{title}: end to end", ours.wall, 3.0, unit="s"))
    return Report("windows", comparisons, targets)
