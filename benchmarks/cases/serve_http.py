"""Features over HTTP: `asknown serve` against `feast serve` over SQLite and Redis, the client on the same cores."""

from __future__ import annotations

import math
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import online
from benchmarks.answers import Verdict
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.report import Report, Target

TITLE = "20 features over HTTP, 10 of them windows over 144 events, against feast serve (given the windows' values)"
ROWS = (1, 100)
CONNECTIONS = (1, 8, 32)
FASTER = {1: 5.0, 100: 10.0}
P99_SECONDS = 0.010
CLAIM = "no windows: given their values as columns, as of loading"


def run(bench: Bench) -> Report:
    """Every server is asked in turn, for as long, with the same questions; answers are compared before."""
    entities = 200 if bench.quick else 1_000
    seconds, rounds = (1.5, 1) if bench.quick else (4.0, bench.rounds or 3)
    comparisons, targets = [], []
    with tempfile.TemporaryDirectory(prefix="asknown-serve-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        online.make(folder, entities)
        servers = {OURS: stack.enter_context(online.asknown(folder))}
        stores = [store for store in ("sqlite", "redis") if store == "sqlite" or shutil.which("redis-server")]
        for store in stores:
            if f"feast_{store}" not in bench.without:
                servers[f"feast_{store}"] = stack.enter_context(online.feast(folder, store))
        for rows in ROWS:
            asked = online.bodies(folder, entities=entities, rows=rows)
            verdicts = {name: _judge(server, servers[OURS], asked) for name, server in servers.items()}
            for connections in CONNECTIONS:
                found = _compare(servers, verdicts, asked, connections=connections, seconds=seconds, rounds=rounds)
                comparisons.append(Comparison(_title(found, rows, connections), found))
                targets += _targets(found, rows, connections)
    return Report("serve_http", comparisons, targets)


def _compare(
    servers: dict[str, online.Server],
    verdicts: dict[str, Verdict],
    asked: Path,
    *,
    connections: int,
    seconds: float,
    rounds: int,
) -> dict[str, Result]:
    found = {
        name: Result(name, server.name, "exact" if name == OURS else CLAIM, verdict=verdicts[name])
        for name, server in servers.items()
    }
    for server in servers.values():
        server.load(asked, connections=connections, seconds=0.5)
    for _ in range(rounds):
        for name, server in servers.items():
            before = server.cpu()
            told = server.load(asked, connections=connections, seconds=seconds)
            if told["failed"]:
                found[name].problem = told["failed"]
                continue
            found[name].walls.append(told["seconds"] / told["requests"])
            found[name].cpus.append((server.cpu() - before) / told["requests"])
            found[name].parts.append(told)
    if sys.stderr.isatty():
        print(_title(found, 0, connections), file=sys.stderr)
    return found


def _title(found: dict[str, Result], rows: int, connections: int) -> str:
    said = [
        f"{result.name}: {1 / result.wall:,.0f}/s, p50 {1e3 * _middle(result, 'p50'):.2f} ms, p99 {1e3 * _middle(result, 'p99'):.2f} ms"
        for result in found.values()
        if result.walls
    ]
    return f"serve_http, {rows} entities x 20, {connections} connections, seconds a request; {'; '.join(said)}"


def _targets(found: dict[str, Result], rows: int, connections: int) -> list[Target]:
    text = f"{rows} entities x 20 features, {connections} connections"
    targets = []
    for name, result in found.items():
        if name != OURS:
            ratio = 1 / Comparison("", found).ratio(OURS, name)
            targets.append(Target(f"{text}: requests/s of {result.name}", ratio, FASTER[rows], at_most=False))
    if connections == 8:
        p99 = _middle(found[OURS], "p99")
        targets.append(Target(f"{text}: p99 of asknown serve", 1e3 * p99, 1e3 * P99_SECONDS, unit="ms"))
    return targets


def _middle(result: Result, name: str) -> float:
    return statistics.median(part[name] for part in result.parts) if result.parts else float("nan")


def _judge(server: online.Server, ours: online.Server, asked: Path) -> Verdict:
    """Whether a server answers what ours does: the same values, aggregates within 1e-9."""
    wrong = rows = 0
    for body in asked.read_bytes().splitlines()[:20]:
        theirs, mine = (_columns(each.ask(body)) for each in (server, ours))
        for name, values in mine.items():
            for one, other in zip(values, theirs.get(name, [None] * len(values)), strict=True):
                rows += 1
                wrong += not (one == other or (isinstance(other, float) and math.isclose(one, other, rel_tol=1e-9)))
    return Verdict(rows, wrong, "values differ" if wrong else "")


def _columns(answer: dict[str, Any]) -> dict[str, list[Any]]:
    names = answer["metadata"]["feature_names"]
    return dict(zip(names, (result["values"] for result in answer["results"]), strict=True))
