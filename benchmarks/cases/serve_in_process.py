"""Features within one process: `FeatureServer` against Feast's `get_online_features` over SQLite and Redis."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import online
from benchmarks.bench import OURS, Bench
from benchmarks.cases.serve_http import CLAIM, ROWS
from benchmarks.environments import HERE
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "20 features in process, 10 of them windows over 144 events, against Feast's SDK (given the windows' values)"
P50_SECONDS = {1: 100e-6, 100: 2e-3}
SHARED = "asknown_redis"


def run(bench: Bench) -> Report:
    """Each store is asked in a process of its own, by turns; that the answers agree is what `serve_http` checks."""
    entities = 200 if bench.quick else 1_000
    seconds, rounds = (1.0, 1) if bench.quick else (3.0, bench.rounds or 3)
    comparisons, targets = [], []
    with tempfile.TemporaryDirectory(prefix="asknown-serve-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        online.make(folder, entities)
        clients: dict[str, list[str]] = {OURS: ["asknown", str(folder)]}
        urls: dict[str, str] = {}
        if shutil.which("redis-server"):
            clients[SHARED] = ["asknown", str(folder)]
            urls[SHARED] = f"redis://127.0.0.1:{stack.enter_context(online.redis(folder))}/0"
        for store in ("sqlite", "redis") if urls else ("sqlite",):
            if f"feast_{store}" not in bench.without:
                stack.enter_context(online.feast(folder, store))
                clients[f"feast_{store}"] = ["feast", str(folder / f"feast-{store}")]
        for rows in ROWS:
            asked = online.bodies(folder, entities=entities, rows=rows)
            found = {
                name: Result(name, name, "exact" if words[0] == "asknown" else CLAIM) for name, words in clients.items()
            }
            for _ in range(rounds):
                for name, words in clients.items():
                    told = _ask([*words, str(asked), str(seconds), *([urls[name]] if name in urls else [])])
                    found[name].walls.append(told["p50"])
                    found[name].cpus.append(told["cpu"])
                    found[name].parts.append(told)
            comparisons.append(Comparison(_title(found, rows), found))
            p50 = statistics.median(found[OURS].walls)
            targets.append(
                Target(f"{rows} entities x 20 features: p50 in process", 1e6 * p50, 1e6 * P50_SECONDS[rows], unit="us")
            )
    return Report("serve_in_process", comparisons, targets)


def _ask(words: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.asking_here", *words]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _title(found: dict[str, Result], rows: int) -> str:
    said = [
        f"{name}: p50 {1e6 * result.wall:,.0f} us, p99 {1e6 * statistics.median(p['p99'] for p in result.parts):,.0f} us"
        for name, result in found.items()
        if result.walls
    ]
    return f"serve_in_process, {rows} entities x 20, seconds a question (median); {'; '.join(said)}"
