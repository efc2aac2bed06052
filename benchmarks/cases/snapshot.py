"""One row per event as known at one instant."""

from __future__ import annotations

from benchmarks.bench import Bench, ask_snapshot
from benchmarks.report import Report, Target

TITLE = "snapshot of 1M revisions"
AS_OF = "2025-12-31T12:00:00+00:00"


def run(bench: Bench) -> Report:
    """Against timely-beliefs on one entity's beliefs, against DuckDB on a thousand entities'."""
    size = bench.size("M", "S")
    _, beliefs = bench.data(size, entities=1, retractions=0.0, nulls=0.0)
    question = ask_snapshot(beliefs, as_of=AS_OF, columns=("temp",))
    contenders = ["timely_beliefs_view", "asknown_join", "duckdb_sql"]
    one = bench.compare(f"snapshot {size}, one entity", question, beliefs, contenders)
    _, data = bench.data(size)
    question = ask_snapshot(data, as_of=AS_OF)
    many = bench.compare(f"snapshot {size}, 1,000 entities", question, data, ["duckdb_sql", "asknown_join"])
    faster = 1 / one.ratio("asknown_join", "timely_beliefs_view")
    target = Target(f"snapshot {size}: faster than timely-beliefs", faster, 50.0, at_most=False)
    return Report("snapshot", [one, many], [target])
