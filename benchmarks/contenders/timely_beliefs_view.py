"""timely-beliefs `fixed_viewpoint`: the most recent belief about each event at one instant.

One frame holds one sensor, so the question is asked about one entity's beliefs. It has no retractions, and a belief without a value is dropped: the data
here have neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.question import Question

NAME = "timely-beliefs"
ENVIRONMENT = "peers"
CLAIM = "exact but for retractions and nulls, which it cannot hold"
KINDS = ("snapshot",)


def load(question: Question) -> Any:
    """A sorted frame of beliefs by one source about one sensor."""
    import pandas as pd
    import timely_beliefs as tb

    (column,) = question.columns
    rows = pd.read_parquet(question.observations)
    (entity,) = rows["entity"].unique()
    beliefs = tb.BeliefsDataFrame(
        rows.rename(columns={"event_time": "event_start", "arrival_time": "belief_time", column: "event_value"})[
            ["event_start", "belief_time", "event_value"]
        ],
        sensor=tb.Sensor("meter", event_resolution=pd.Timedelta(0)),
        source=tb.BeliefSource("provider"),
    )
    return question, entity, beliefs.sort_index(), pd.Timestamp(question.as_of)


def run(loaded: Any) -> Any:
    """The frame as believed at that instant."""
    question, entity, beliefs, as_of = loaded
    return question, entity, beliefs.fixed_viewpoint(as_of)


def write(answer: Any, path: Path) -> None:
    """The answer as Parquet."""
    question, entity, beliefs = answer
    frame = beliefs.reset_index()[["event_start", "event_value"]]
    frame = frame.rename(columns={"event_start": "event_time", "event_value": question.columns[0]})
    frame.insert(0, "entity", entity)
    frame.to_parquet(path)
