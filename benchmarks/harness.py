"""Contenders side by side: answers compared first, then runs that take turns."""

from __future__ import annotations

import contextlib
import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.answers import Verdict, judge
from benchmarks.environments import HERE, EnvironmentMissingError, python_of
from benchmarks.question import Question


@dataclass
class Result:
    """What one contender did in one comparison; times in seconds, memory in bytes."""

    contender: str
    name: str
    claim: str
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    loaded_bytes: int = 0
    peak_bytes: int = 0
    verdict: Verdict | None = None
    problem: str = ""

    @property
    def wall(self) -> float:
        """Median wall seconds; NaN without a run."""
        return statistics.median(self.walls) if self.walls else float("nan")

    @property
    def cpu(self) -> float:
        """Median user and system seconds."""
        return statistics.median(self.cpus) if self.cpus else float("nan")

    @property
    def kernels(self) -> list[float]:
        """Seconds of the kernel alone, where a contender tells them."""
        return [part["kernel"] for part in self.parts if "kernel" in part]

    @property
    def kernel(self) -> float:
        """Median seconds of the kernel alone."""
        return statistics.median(self.kernels) if self.kernels else float("nan")


@dataclass
class Comparison:
    """One question and what each contender made of it."""

    title: str
    results: dict[str, Result]

    def ratio(self, ours: str, theirs: str, *, kernel: bool = False) -> float:
        """Median over rounds of `ours / theirs` (`kernel`: our kernel alone); the medians' if one ran fewer rounds."""
        one, other = self.results.get(ours), self.results.get(theirs)
        if one is None or other is None:
            return float("nan")
        mine, yours = one.kernels if kernel else one.walls, other.walls
        if not mine or not yours:
            return float("nan")
        if len(mine) == len(yours):
            return statistics.median(a / b for a, b in zip(mine, yours, strict=True))
        return statistics.median(mine) / statistics.median(yours)


class WorkerError(Exception):
    """A worker could not answer; the message is what it said."""


class Worker:
    """One contender in a process of its own, so that memory is its own and libraries do not meet."""

    def __init__(self, contender: str, *, limit: float) -> None:
        module = import_module(f"benchmarks.contenders.{contender}")
        self.limit = limit
        self.process = subprocess.Popen(
            [python_of(module.ENVIRONMENT), "-m", "benchmarks.worker", contender],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send one order and wait for its reply.

        Raises:
            WorkerError: If the worker reports an error, ends, or is not done within the limit (it is then ended).
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"ended with code {self.process.wait()}") from None
        ready, _, _ = select.select([self.process.stdout], [], [], self.limit)
        if not ready:
            self.process.kill()
            raise WorkerError(f"stopped after {self.limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"ended with code {self.process.wait()} (out of memory?)")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Entry:
    """One line of a comparison: who is asked what, and what is right (None: not judged)."""

    label: str
    contender: str
    question: Question
    reference: Path | None = None


def compare(
    title: str, entries: Sequence[Entry], *, rounds: int = 5, limit: float = 240.0, budget: float = 30.0
) -> Comparison:
    """Let every entry answer once, judge the answers, then time them in turns.

    Args:
        title: What the tables print above the results.
        entries: Who is asked what; labels are unique.
        rounds: Timed rounds after the warm-up, which is not counted.
        limit: Seconds after which a single load or run is given up.
        budget: A slow contender takes part in as many rounds as fit these seconds, in one at least.

    Returns:
        A comparison with a result per entry, in the order given.
    """
    comparison = Comparison(title, {})
    workers: dict[str, Worker] = {}
    turns: dict[str, int] = {}
    try:
        for entry in entries:
            module = import_module(f"benchmarks.contenders.{entry.contender}")
            name = module.NAME if entry.label == entry.contender else f"{module.NAME}, {entry.label}"
            result = comparison.results[entry.label] = Result(entry.contender, name, module.CLAIM)
            _say(f"{title}: {name}")
            try:
                worker = workers[entry.label] = Worker(entry.contender, limit=limit)
                turns[entry.label] = _warm_up(worker, result, entry, rounds, budget)
            except (WorkerError, EnvironmentMissingError) as error:
                result.problem = str(error).splitlines()[0]
        for turn in range(rounds):
            for label, worker in workers.items():
                if turn < turns.get(label, 0):
                    _take_turn(worker, comparison.results[label])
    finally:
        for worker in workers.values():
            worker.close()
    return comparison


def _warm_up(worker: Worker, result: Result, entry: Entry, rounds: int, budget: float) -> int:
    """Load, run once and judge the answer; returns how many rounds the contender takes part in."""
    question, reference = entry.question, entry.reference
    result.loaded_bytes = worker.ask({"do": "load", "question": question.to_dict()})["peak_bytes"]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.parquet"
        started = time.perf_counter()
        first = worker.ask({"do": "run", "write": str(answer) if reference else None})
        taken = time.perf_counter() - started
        result.peak_bytes = first["peak_bytes"]
        if reference is not None:
            result.verdict = judge(answer, reference, question)
    return max(1, min(rounds, int(budget / max(taken, 1e-9))))


def _take_turn(worker: Worker, result: Result) -> None:
    if result.problem:
        return
    try:
        reply = worker.ask({"do": "run"})
    except WorkerError as error:
        result.problem = str(error)
        return
    result.walls.append(reply["wall"])
    result.cpus.append(reply["cpu"])
    result.peak_bytes = max(result.peak_bytes, reply["peak_bytes"])
    if reply.get("parts"):
        result.parts.append(reply["parts"])


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)
