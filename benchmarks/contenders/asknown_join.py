"""asknown itself, through its public names."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.question import Question

NAME = "asknown"
ENVIRONMENT = "project"
CLAIM = "exact"
KINDS = ("latest", "windows", "snapshot", "training_set")


def load(question: Question) -> Any:
    """Frames in memory, or for a question from disk the paths of the log and of the spine."""
    import alignment  # noqa: F401 - importing is measured by the case `startup`, not here

    if question.kind == "training_set":
        return question, None, None
    if question.from_disk:
        return question, Path(question.observations), pl.read_parquet(question.spine)
    spine = pl.read_parquet(question.spine) if question.spine else None
    return question, pl.read_parquet(question.observations), spine


def run(loaded: Any) -> Any:
    """The answer as a frame; of a training set the file that was written."""
    import alignment as al
    from alignment.engines.local import Timings

    question, frame, spine = loaded
    if question.kind == "training_set":
        return question, _training_set(question), None
    path = str(frame / "*.parquet" if frame.is_dir() else frame) if isinstance(frame, Path) else frame
    observations = al.Observations(path, entities=list(question.entities))
    if question.kind == "snapshot":
        rows = al.snapshot(observations, datetime.fromisoformat(question.as_of))
        return question, rows, None
    view = al.FeatureView(name="o", observations=observations, features=_features(question))
    timings = Timings()
    return question, al.point_in_time_join(spine, [view], timings=timings), timings


def _features(question: Question) -> list[Any]:
    import alignment as al

    if question.kind == "windows":
        return [al.window(question.columns[0], list(question.aggregates), f"{question.minutes}m")]
    return [al.latest(column) for column in question.columns]


def twenty_features() -> list[Any]:
    """The features of the case `training_set`: the five plain values and fifteen that an as-of join does not have."""
    import alignment as al

    values = ("temp", "humidity", "pressure", "wind", "load")
    return [
        *(al.latest(column) for column in values),
        *(al.lag(column, "24h") for column in values),
        al.window("temp", ["mean", "std", "min", "max", "sum"], "24h"),
        al.window("wind", ["count", "mean", "max"], "1h"),
        al.event_age(),
        al.arrival_age(),
    ]


def _training_set(question: Question) -> str:
    """A data set with its manifest, hashes and registration: what `asknown dataset build` does."""
    import alignment as al
    import ingestion

    log = ingestion.open_log(question.log, "observations")
    view = al.FeatureView(name="o", observations=log, features=twenty_features())
    made = al.build_dataset(pl.read_parquet(question.spine), [view])
    return str(made.write(Path(question.output) / "asknown").parent / "data.parquet")


def write(answer: Any, path: Path) -> None:
    """The answer under the names of the question."""
    question, frame, _ = answer
    if isinstance(frame, str):
        frame = pl.read_parquet(frame)
    if question.kind == "snapshot":
        frame.select(*question.entities, "event_time", *question.columns).write_parquet(path)
        return
    names = {f"o__{column}": column for column in question.columns}
    if question.kind == "windows":
        length = f"{question.minutes}m"
        names = {f"o__{question.columns[0]}_{name}_{length}": name for name in question.aggregates}
    frame.select("row", *(pl.col(old).alias(new) for old, new in names.items())).write_parquet(path)


def parts(answer: Any) -> dict[str, float]:
    """Seconds of the last run per part of the engine: read, arrange, kernel, gather."""
    _, _, timings = answer
    return {} if timings is None else asdict(timings)
