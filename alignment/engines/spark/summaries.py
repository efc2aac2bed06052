"""What observations in a frame of Spark are, from their times alone; counted by executors."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import polars as pl

from alignment.engines.spark.beats import told_by
from alignment.observations import Observations
from alignment.rows import Summary, summarize


def summarize_spark(rows: Observations, *, position: int | None = None) -> Summary:
    """`summarize`, of observations in a frame of Spark.

    Raises:
        UnknownArrivalError: If an arrival is null and there is no delay rule (R13).
    """
    found = told_by(rows, _summarized, position=position)
    told: list[dict[str, Any]] = [json.loads(one) for table in found for one in table["told"]]
    kinds: Counter[str] = Counter()
    for one in told:
        kinds.update(one["arrival_kinds"])
    latest = [one["greatest_arrival"] for one in told if one["greatest_arrival"] is not None]
    counts = {name: sum(one[name] for one in told) for name in ("rows", "arrivals_raised")}
    return Summary(counts["rows"], max(latest, default=None), dict(sorted(kinds.items())), counts["arrivals_raised"])


def _summarized(rows: Observations) -> pl.DataFrame:
    return pl.DataFrame({"told": [json.dumps(asdict(summarize(rows)))]})
