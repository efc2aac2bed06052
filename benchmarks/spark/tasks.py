"""How long the tasks of a job took, as Spark's own status pages tell it."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen


@dataclass(frozen=True)
class Stage:
    """The tasks of a stage.

    Attributes:
        number: Spark's number of the stage.
        seconds: Run time of each task that was not in vain.
    """

    number: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the run times, seconds."""
        return statistics.median(self.seconds)

    @property
    def longest(self) -> float:
        """The longest run time, seconds."""
        return max(self.seconds)


def stages(session: Any, *, after: int = -1) -> list[Stage]:
    """The finished stages of a session, in order, those that were skipped left out.

    Args:
        session: A session with its pages on.
        after: Leave out stages up to this number.
    """
    context = session.sparkContext
    base = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/stages"
    time.sleep(1.0)  # the pages follow a moment behind
    found = []
    for told in _get(f"{base}?status=complete"):
        if told["stageId"] <= after:
            continue
        tasks = _get(f"{base}/{told['stageId']}/{told['attemptId']}/taskList?length=100000")
        seconds = [one["taskMetrics"]["executorRunTime"] / 1000 for one in tasks if one["status"] == "SUCCESS"]
        found.append(Stage(told["stageId"], tuple(seconds)))
    return sorted(found, key=lambda stage: stage.number)


def wait_until_idle(session: Any, *, seconds: float = 600) -> None:
    """Wait for tasks of a cancelled job: one that is sorting does not look up, and would slow down what comes next.

    Raises:
        TimeoutError: If some still run after so long.
    """
    context = session.sparkContext
    base = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/executors"
    until = time.monotonic() + seconds
    while sum(one["activeTasks"] for one in _get(base)):
        if time.monotonic() > until:
            raise TimeoutError(f"tasks of a cancelled job still run after {seconds:.0f} s")
        time.sleep(1.0)


def _get(address: str) -> Any:
    with urlopen(address, timeout=30) as answer:
        return json.load(answer)
