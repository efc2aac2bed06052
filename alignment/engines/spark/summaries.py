"""What observations in a frame of Spark are, from their times alone; counted by executors."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from alignment.engines.spark.balancing import collected
from alignment.engines.spark.failures import spark_errors
from alignment.engines.spark.reading import packed_input
from alignment.observations import Observations
from alignment.parts import Input, over_rows
from alignment.rows import Summary, summarize


@dataclass(frozen=True)
class _Summarized:
    """Frames are only summed up.

    Attributes:
        observations: What the rows are.
        number: Of the input.
    """

    observations: Observations
    number: int = 0

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """The summary of some rows."""
        found = summarize(over_rows(self.observations, frame))
        yield 0, pl.DataFrame({"told": [json.dumps(asdict(found))]})


def summarize_spark(rows: Observations, *, position: int | None = None) -> Summary:
    """`summarize`, of observations in a frame of Spark.

    Raises:
        UnknownArrivalError: If an arrival is null and there is no delay rule (R13).
    """
    times = [rows.event_time, rows.arrival_time, rows.is_retraction, rows.log_sequence, "arrival_kind"]
    if rows.has_issue_time:
        times.append(rows.issue_time)
    columns = tuple(name for name in dict.fromkeys([*rows.entities, *rows.key, *times]) if name in rows.schema)
    bare = copy.copy(rows)
    bare.frame, bare.derive = None, {}
    bare.schema = {name: rows.schema[name] for name in columns}
    read = Input(rows, position, (), columns)
    with spark_errors():
        blobs = packed_input(rows.frame.sparkSession, read, _Summarized(bare), as_of_us=None, event_from_us=None)
        told: list[dict[str, Any]] = [json.loads(one) for table in collected(blobs) for one in table["told"]]
    kinds: Counter[str] = Counter()
    for one in told:
        kinds.update(one["arrival_kinds"])
    latest = [one["greatest_arrival"] for one in told if one["greatest_arrival"] is not None]
    counts = {name: sum(one[name] for one in told) for name in ("rows", "arrivals_raised")}
    return Summary(counts["rows"], max(latest, default=None), dict(sorted(kinds.items())), counts["arrivals_raised"])
