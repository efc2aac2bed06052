"""The visible-latest rule in plain Polars: prefix maxima by arrival, one as-of join, a range join for the rest.

Taken in order of arrival, a row can be an entity's newest event only if no row before it had a later event. Those
rows, the newest revision last, form steps that one as-of join on arrival looks up. Where the step it finds is a
retraction the newest event is gone and an older one shows again: those few spine rows are asked again, from scratch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.question import Question

NAME = "polars exact"
ENVIRONMENT = "project"
CLAIM = "exact"
KINDS = ("latest",)

Loaded = tuple[Question, pl.DataFrame, pl.DataFrame]


def load(question: Question) -> Loaded:
    """Observations and spine in memory."""
    return question, pl.read_parquet(question.observations), pl.read_parquet(question.spine)


def run(loaded: Loaded) -> pl.DataFrame:
    """Spine rows with the newest visible event's values."""
    question, observations, spine = loaded
    keys = list(question.entities)
    ordered = observations.sort("arrival_time", "log_sequence")
    steps = ordered.filter(pl.col("event_time") >= pl.col("event_time").cum_max().over(keys))
    found = spine.sort("prediction_time").join_asof(
        steps.select(*keys, "arrival_time", "is_retraction", *question.columns),
        left_on="prediction_time",
        right_on="arrival_time",
        by=keys,
        check_sortedness=False,
    )
    withdrawn = pl.col("is_retraction").fill_null(value=False)
    again = _from_scratch(found.filter(withdrawn).select("row", *keys, "prediction_time"), observations, question)
    return pl.concat([found.filter(~withdrawn).select("row", *question.columns), again]).sort("row")


def _from_scratch(spine: pl.DataFrame, observations: pl.DataFrame, question: Question) -> pl.DataFrame:
    """The same for a few spine rows, from every row of their entities."""
    keys = list(question.entities)
    current = (
        spine.join(
            observations.filter(pl.struct(keys).is_in(spine.select(pl.struct(keys)).to_series().implode())), on=keys
        )
        .filter(pl.col("arrival_time") <= pl.col("prediction_time"))
        .sort("row", "event_time", "arrival_time", "log_sequence")
        .unique(["row", "event_time"], keep="last", maintain_order=True)
        .filter(~pl.col("is_retraction"))
        .unique("row", keep="last", maintain_order=True)
    )
    return spine.select("row").join(current.select("row", *question.columns), on="row", how="left")


def write(answer: Any, path: Path) -> None:
    """The answer as Parquet."""
    answer.write_parquet(path)
