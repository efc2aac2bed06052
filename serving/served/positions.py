"""Fewer positions to evaluate at, with the same answers.

A vector was served at (t, p), and a log has as many positions as commits. But what a row appended after p can change at t is
nothing, unless it had arrived by t. So a vector is answered at p as at any later position before the first such row: mostly
at the log's head, and else just before a backfill or an overrun. A restamp changes what its batch's rows count from (R14),
so it stands here as a row with the earliest arrival of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from ingestion.reading import OBSERVATION, records

if TYPE_CHECKING:
    from ingestion import ObservationLog

Ints = npt.NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Changes:
    """What came into a log, and from which instant on it can change an answer.

    Attributes:
        sequences: Of rows and restamps, ascending.
        arrivals: The earliest instant from which each can matter, microseconds.
        head: The position of the last one that is looked at.

    Example:
        >>> changes = Changes(np.array([0, 1, 2, 3]), np.array([10, 20, 5, 30]), 3)
        >>> changes.same_answers(np.array([0, 0, 1, 2]), np.array([4, 12, 30, 12])).tolist()
        [3, 1, 1, 3]
    """

    sequences: Ints
    arrivals: Ints
    head: int
    _levels: list[Ints] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        level = self.arrivals
        while True:
            if len(level) % 2:
                level = np.append(level, _NEVER)
            self._levels.append(level)
            if len(level) <= 2:
                break
            level = np.minimum(level[::2], level[1::2])

    def same_answers(self, positions: Ints, t: Ints) -> Ints:
        """For each (t, p) the greatest position at which the answers at t are those at p."""
        start = np.searchsorted(self.sequences, positions, side="right").astype(np.int64)
        earliest = np.append(np.minimum.accumulate(self.arrivals[::-1])[::-1], _NEVER)
        late = np.flatnonzero(earliest[start] <= t)
        result = np.full(len(positions), self.head, np.int64)
        result[late] = self.sequences[self._first_by(start[late], t[late])] - 1
        return result

    def _first_by(self, start: Ints, t: Ints) -> Ints:
        """The first place from `start` on with an arrival of at most t; there is one."""
        place = start.copy()
        depth = np.full(len(place), -1)  # the level at which there is such an arrival below `place`
        top = len(self._levels) - 1
        for k, level in enumerate(self._levels):
            for _ in range(2 if k == top else 1):  # up: a right child is looked at, then what lies right of its parent
                asked = (depth < 0) & (place < len(level)) & ((place % 2 == 1) | (k == top))
                asked[asked] = level[place[asked]] <= t[asked]
                depth[asked] = k
                place[(depth < 0) & ((place % 2 == 1) | (k == top))] += 1
            if k < top:
                place[depth < 0] //= 2
        for k in range(len(self._levels) - 1, 0, -1):  # down: to the left child, if it has such an arrival
            inner = depth == k
            place[inner] *= 2
            right = self._levels[k - 1][place[inner]] > t[inner]
            place[inner] += right
            depth[inner] = k - 1
        return place


def changes_of(log: ObservationLog, head: int, late: pl.DataFrame) -> Changes:
    """What came into a log up to a position; `late` is what `restamped` says."""
    rows = log.scan(position=head, columns=["batch_id"]).select("log_sequence", "arrival_time", "batch_id").collect()
    rows = rows.join(late.unique("batch_id"), on="batch_id", how="left").select(
        "log_sequence", pl.coalesce("own_arrival", "arrival_time").alias("arrival_time")
    )
    moved = late.select("log_sequence", pl.col("own_arrival").alias("arrival_time"))
    every = pl.concat([rows, moved]).sort("log_sequence")
    return Changes(every["log_sequence"].to_numpy(), every["arrival_time"].dt.epoch("us").to_numpy(), head)


def restamped(log: ObservationLog, head: int) -> pl.DataFrame:
    """The restamps of observations: `batch_id`, `log_sequence`, `restamp_time`, `own_arrival` (what it was before)."""
    late = log.restamps().filter(pl.col("log_sequence") <= head)
    own = (
        records(log.table, OBSERVATION)
        .filter(pl.col("batch_id").is_in(late["batch_id"].to_list()))
        .group_by("batch_id")
        .agg(pl.col("arrival_time").min().alias("own_arrival"))
    )
    return late.join(own.collect(), on="batch_id").rename({"arrival_time": "restamp_time"})
