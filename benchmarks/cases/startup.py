"""Imports and the first join of a process, on a fresh install and later."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from benchmarks.bench import Bench
from benchmarks.environments import HERE
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "startup: import, first join, first join of a later process"

IMPORT = "import time; s = time.perf_counter(); import alignment; print(time.perf_counter() - s)"
FIRST_JOIN = """
import time
s = time.perf_counter()
import polars as pl
import alignment as al
from datetime import UTC, datetime, timedelta
t = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=10 * n) for n in range(6)]
observations = pl.DataFrame({
    "meter": [1] * 6, "event_time": t, "arrival_time": [v + timedelta(minutes=25) for v in t], "kw": [1.0, 2, 3, 4, 5, 6],
})
view = al.FeatureView(
    name="m", entities=["meter"], observations=observations,
    features=[al.latest("kw"), al.lag("kw", "20m"), al.window("kw", ["mean", "max"], "30m"), al.event_age()],
)
answer = al.point_in_time_join(pl.DataFrame({"meter": [1], "prediction_time": t[5:]}), [view])
assert answer["m__kw"].to_list() == [3.0], answer
print(time.perf_counter() - s)
"""


def run(bench: Bench) -> Report:
    """Each figure is of a process of its own; a fresh install is an empty compilation cache."""
    if "asknown_join" in bench.without:
        return Report("startup", [], [])
    rounds = bench.rounds or 5
    imported = _measured("import alignment", [_seconds(IMPORT, {}) for _ in range(rounds)])
    with tempfile.TemporaryDirectory() as cache:
        places = {"NUMBA_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
        first = _measured("first join on a fresh install", [_seconds(FIRST_JOIN, places)])
        later = _measured("first join of a later process", [_seconds(FIRST_JOIN, places) for _ in range(rounds)])
    targets = [
        Target(title, comparison.results["asknown_join"].wall, bound, unit="s")
        for (title, comparison), bound in zip((imported, first, later), (0.6, 20.0, 2.5), strict=True)
    ]
    return Report("startup", [comparison for _, comparison in (imported, first, later)], targets)


def _seconds(code: str, extra: Mapping[str, str]) -> tuple[float, float] | str:
    """Wall seconds as the process tells them, and its processor seconds; or what went wrong."""
    before = _children_cpu()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **extra},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["ended without a message"])[-1]
    return float(done.stdout.split()[-1]), _children_cpu() - before


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _measured(title: str, seconds: list[tuple[float, float] | str]) -> tuple[str, Comparison]:
    times = [value for value in seconds if not isinstance(value, str)]
    problems = [value for value in seconds if isinstance(value, str)]
    result = Result("asknown_join", "asknown", "exact", problem=problems[0] if problems else "")
    result.walls, result.cpus = [wall for wall, _ in times], [cpu for _, cpu in times]
    return title, Comparison(f"{title} (median of {len(times)})", {"asknown_join": result})
