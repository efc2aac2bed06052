"""One contender in a process of its own: takes orders as JSON lines, answers with measurements.

Runs in any environment, so it imports the standard library and the one contender alone.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from benchmarks.question import Question


def main(name: str) -> None:
    """Serve one contender until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for a reply
    contender = import_module(f"benchmarks.contenders.{name}")
    loaded: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "load":
                loaded = None
                gc.collect()
                loaded = contender.load(Question.from_dict(order["question"]))
                _reply(replies, {"peak_bytes": _peak()})
            else:
                _reply(replies, _timed(contender, loaded, order.get("write")))
        except Exception as error:  # noqa: BLE001 - reported to the parent, which prints it beside the others' times
            traceback.print_exc()
            _reply(replies, {"error": f"{type(error).__name__}: {error}"[:500]})


def _timed(contender: Any, loaded: Any, write: str | None) -> dict[str, Any]:
    """One run: wall seconds, processor seconds (children included) and the peak so far."""
    gc.collect()
    before, started = _cpu(), time.perf_counter()
    answer = contender.run(loaded)
    wall, cpu = time.perf_counter() - started, _cpu() - before
    measured: dict[str, Any] = {"wall": wall, "cpu": cpu, "peak_bytes": _peak()}
    if hasattr(contender, "parts"):
        measured["parts"] = contender.parts(answer)
    if write:
        contender.write(answer, Path(write))
    return measured


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak() -> int:
    """Greatest resident memory of this process so far, in bytes.

    On Linux from `VmHWM`: `ru_maxrss` there starts at what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reply(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
