"""What a server counts, in the text form that Prometheus reads; the numbers of all workers together.

Each worker has a row of numbers in a file that all of them map, and writes to its own alone; whichever is asked adds them up. Labels
are routes, views and features that were declared when the server started, never what a request names; all others share
`(other)`.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from serving.online import Answer, Readiness

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "(other)"
ROUTES: Final = ("get-online-features", "resolve", "observations", "admin", OTHER)
CLASSES: Final = (2, 3, 4, 5)
BUCKETS: Final = (
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
STATUSES: Final = ("present", "null", "expired", "retracted", "missing")
_PLACE_OF: Final = {status: place for place, status in enumerate(STATUSES)}
_MOST_FEATURES: Final = 5_000


class Board:
    """A row of numbers for each worker.

    Args:
        path: The file that they share; None keeps one row in memory.
        worker: Whose row is written to.
        workers: How many there are.
        width: Numbers in a row.

    Attributes:
        mine: The row that is written to.
    """

    def __init__(self, path: Path | None, *, worker: int, workers: int, width: int) -> None:
        size = workers * width * 8
        if path is None:
            whole: bytearray | mmap.mmap = bytearray(size)
        else:
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.truncate(size)
                whole = mmap.mmap(file.fileno(), size)
        numbers = memoryview(whole).cast("d")
        self._rows = [numbers[start : start + width] for start in range(0, workers * width, width)]
        self.mine = self._rows[worker]

    def total(self, place: int) -> float:
        """The sum over workers."""
        return sum(row[place] for row in self._rows)


class Metrics:
    """The numbers of a server.

    Args:
        features: Columns that get labels of their own.
        path: The file that the workers share.
        worker: Which of them this is.
        workers: How many there are.
    """

    def __init__(self, features: Iterable[str], *, path: Path | None = None, worker: int = 0, workers: int = 1) -> None:
        self._features = [*list(features)[:_MOST_FEATURES], OTHER]
        self._workers = workers
        places = _Places()
        self._requests = {(route, kind): places.take() for route in ROUTES for kind in CLASSES}
        self._seconds = {route: places.take(len(BUCKETS) + 2) for route in ROUTES}  # buckets, +Inf, sum
        self._counts = {name: places.take(len(STATUSES)) for name in self._features}
        self._rows, self._pushed = places.take(), places.take()
        self._board = Board(path, worker=worker, workers=workers, width=places.taken)
        self._mine = self._board.mine

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: One of `ROUTES`.
            status: Of the answer.
            seconds: How long it took.
        """
        mine = self._mine
        mine[self._requests[route, min(max(status // 100, 2), 5)]] += 1
        first = self._seconds[route]
        mine[first + bisect_left(BUCKETS, seconds)] += 1
        mine[first + len(BUCKETS) + 1] += seconds

    def served(self, answer: Answer, height: int) -> None:
        """Count the values of an answer by their status.

        Args:
            answer: The answer.
            height: Its rows.
        """
        mine = self._mine
        mine[self._rows] += height
        counts, other = self._counts, self._counts[OTHER]
        if height == 1:
            for column in answer.columns:
                mine[counts.get(column.name, other) + _PLACE_OF[column.status[0]]] += 1
            return
        for column in answer.columns:
            first = counts.get(column.name, other)
            status = column.status
            present = status.count("present")
            mine[first] += present
            if present != height:
                for place, name in enumerate(STATUSES[1:], first + 1):
                    if found := status.count(name):
                        mine[place] += found

    def pushed(self, rows: int) -> None:
        """Count rows that were taken."""
        self._mine[self._pushed] += rows

    def text(
        self, *, readiness: Readiness, newest: Mapping[str, float], ready_workers: int, extra: Iterable[str] = ()
    ) -> bytes:
        """All numbers.

        Args:
            readiness: How far behind this worker is.
            newest: Seconds since the newest arrival, by view.
            ready_workers: How many workers may answer.
            extra: Further lines.
        """
        total = self._board.total
        lines: list[str] = []
        add = lines.append
        for name, kind, told, samples in self._families(total, readiness, newest, ready_workers):
            add(f"# HELP asknown_{name} {told}")
            add(f"# TYPE asknown_{name} {kind}")
            lines.extend(f"asknown_{sample}" for sample in samples)
        lines.extend(extra)
        return ("\n".join(lines) + "\n").encode()

    def _families(
        self, total: Callable[[int], float], readiness: Readiness, newest: Mapping[str, float], ready_workers: int
    ) -> Iterator[tuple[str, str, str, Iterable[str]]]:
        yield (
            "http_requests_total",
            "counter",
            "Requests by the class of the answer's status.",
            [
                f'http_requests_total{{route="{route}",status="{kind}xx"}} {total(place):g}'
                for (route, kind), place in self._requests.items()
                if total(place)
            ],
        )
        yield "http_seconds", "histogram", "How long answers took.", self._histograms(total)
        yield (
            "served_rows_total",
            "counter",
            "Rows that were asked for.",
            [f"served_rows_total {total(self._rows):.0f}"],
        )
        yield (
            "served_values_total",
            "counter",
            "Values by what they were: present, null, expired, retracted, missing.",
            [
                f'served_values_total{{feature="{_escaped(name)}",status="{status}"}} {total(first + place):.0f}'
                for name, first in self._counts.items()
                for place, status in enumerate(STATUSES)
                if total(first + place) or (name != OTHER and place == 0)
            ],
        )
        yield (
            "newest_arrival_age_seconds",
            "gauge",
            "Seconds since the newest row of a view arrived.",
            [f'newest_arrival_age_seconds{{view="{_escaped(name)}"}} {age:.3f}' for name, age in newest.items()],
        )
        behind = readiness.behind
        yield (
            "behind_seconds",
            "gauge",
            "How far this worker is behind the logs.",
            [f"behind_seconds {behind:.6f}"] if behind is not None else [],
        )
        yield (
            "position",
            "gauge",
            "Position of this worker in a provider's log.",
            [f'position{{provider="{_escaped(name)}"}} {place}' for name, place in readiness.positions.items()],
        )
        yield "ready", "gauge", "Whether this worker may answer.", [f"ready {int(readiness.ready)}"]
        yield "workers", "gauge", "Workers of this server.", [f"workers {self._workers}"]
        yield "workers_ready", "gauge", "Workers that may answer.", [f"workers_ready {ready_workers}"]
        yield "pushed_rows_total", "counter", "Rows that were taken.", [f"pushed_rows_total {total(self._pushed):.0f}"]

    def _histograms(self, total: Callable[[int], float]) -> list[str]:
        lines = []
        for route, first in self._seconds.items():
            counts = [total(first + place) for place in range(len(BUCKETS) + 1)]
            if not sum(counts):
                continue
            below = 0.0
            for bound, count in zip([f"{bound:g}" for bound in BUCKETS] + ["+Inf"], counts, strict=True):
                below += count
                lines.append(f'http_seconds_bucket{{route="{route}",le="{bound}"}} {below:.0f}')
            lines.append(f'http_seconds_sum{{route="{route}"}} {total(first + len(BUCKETS) + 1):.6f}')
            lines.append(f'http_seconds_count{{route="{route}"}} {below:.0f}')
        return lines


class _Places:
    """Hands out places in a row."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self, count: int = 1) -> int:
        first = self.taken
        self.taken += count
        return first


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
