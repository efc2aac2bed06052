"""Polars `join_asof` on event time: what most training sets are made with. It leaks by design."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.question import Question

NAME = "polars join_asof"
ENVIRONMENT = "project"
CLAIM = "leaks: arrivals, revisions and retractions are ignored"
KINDS = ("latest", "training_set")


def load(question: Question) -> tuple[Question, pl.LazyFrame, pl.LazyFrame]:
    """Observations without the columns that an event-time join never looks at, and the spine."""
    observations = pl.scan_parquet(question.observations).select(*question.entities, "event_time", *question.columns)
    spine = pl.scan_parquet(question.spine)
    if question.kind == "training_set" or question.from_disk:
        return question, observations, spine
    return question, observations.collect().lazy(), spine.collect().lazy()


def run(loaded: tuple[Question, pl.LazyFrame, pl.LazyFrame]) -> Any:
    """Both sides sorted, joined, and back in the spine's order."""
    question, observations, spine = loaded
    joined = (
        spine.sort("prediction_time")
        .join_asof(
            observations.sort("event_time"),
            left_on="prediction_time",
            right_on="event_time",
            by=list(question.entities),
            check_sortedness=False,
        )
        .sort("row")
    )
    if question.kind == "training_set":
        target = f"{question.output}/polars.parquet"
        joined.drop("event_time", strict=False).collect().write_parquet(target, compression_level=1)
        return target
    return joined.select("row", *question.columns).collect()


def write(answer: Any, path: Path) -> None:
    """The answer as Parquet."""
    frame = pl.read_parquet(answer) if isinstance(answer, str) else answer
    frame.write_parquet(path)
