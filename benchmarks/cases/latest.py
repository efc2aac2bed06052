"""The newest visible event of every spine row, five columns."""

from __future__ import annotations

from benchmarks.bench import Bench, ask_latest
from benchmarks.report import Report, Target

TITLE = "latest visible: 5 columns, 1,000 entities"
BOUNDS = {"arrival": 0.9, "shuffled": 2.5}


def run(bench: Bench) -> Report:
    """Against Polars' event-time as-of join at the large size, against Feast at a size that Feast finishes."""
    comparisons, targets = [], []
    size = bench.size("L", "M")
    for keys in ("int", "string") if bench.quick else ("int", "string", "composite"):
        for order, bound in BOUNDS.items():
            if keys == "composite" and order == "shuffled":
                continue
            _, data = bench.data(size, keys=keys, order=order)
            contenders = ["polars_asof", "asknown_join"]
            if keys == "int":
                contenders.append("polars_available")
            title = f"latest {size}, {keys} keys, {order}"
            comparison = bench.compare(title, ask_latest(data), data, contenders)
            comparisons.append(comparison)
            ratio = comparison.ratio("asknown_join", "polars_asof")
            if keys != "composite":
                targets.append(Target(f"{title}: of polars join_asof", ratio, bound))
    size = bench.size("M", "S")
    _, data = bench.data(size)
    contenders = ["duckdb_sql", "feast_duckdb", "feast_duckdb_ttl", "polars_asof", "polars_available", "asknown_join"]
    feast = bench.compare(f"latest {size}, against Feast", ask_latest(data), data, contenders)
    _, small = bench.data("S")
    dask = bench.compare(
        "latest S, against Feast's default store", ask_latest(small), small, ["feast_dask", "asknown_join"]
    )
    for comparison, contender, name in (
        (feast, "feast_duckdb", "Feast duckdb"),
        (feast, "feast_duckdb_ttl", "Feast duckdb with a ttl"),
        (dask, "feast_dask", "Feast dask"),
    ):
        faster = 1 / comparison.ratio("asknown_join", contender)
        targets.append(Target(f"{comparison.title}: faster than {name}", faster, 20.0, at_most=False))
    return Report("latest", [*comparisons, feast, dask], targets)
