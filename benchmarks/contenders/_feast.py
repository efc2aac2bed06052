"""What the Feast contenders share: a repository in a temporary folder, views over the Parquet file.

Feast reads its source for every question, so reading is part of its time. It has no retractions: theirs are rows with
null values, the nearest that its words can say.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.question import Question


def load(question: Question, store_type: str, *, ttl_hours: int = 0, flag: bool = True) -> Any:
    """A feature store with the views applied, the entity frame in memory, and what to ask for.

    Args:
        question: What is asked.
        store_type: Which offline store.
        ttl_hours: Events older than this are null; default the question's.
        flag: Whether the store has to be told to count by arrival.
    """
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.repo_config import RegistryConfig, RepoConfig
    from feast.types import Float64, Int64, String

    home = Path(tempfile.mkdtemp(prefix="feast-"))
    store = FeatureStore(
        config=RepoConfig(
            project="yardstick",
            provider="local",
            registry=RegistryConfig(path=str(home / "registry.db")),
            offline_store={"type": store_type},
            online_store={"type": "sqlite", "path": str(home / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    spine = pd.read_parquet(question.spine).rename(columns={"prediction_time": "event_timestamp"})
    text = {name: not pd.api.types.is_integer_dtype(spine[name]) for name in question.entities}
    keys = [
        Entity(name=name, join_keys=[name], value_type=ValueType.STRING if text[name] else ValueType.INT64)
        for name in question.entities
    ]
    views = [
        FeatureView(
            name=f"observations_{number}",
            entities=keys,
            ttl=timedelta(hours=ttl_hours or question.ttl_hours),
            schema=[
                *(Field(name=name, dtype=String if text[name] else Int64) for name in question.entities),
                *(Field(name=column, dtype=Float64) for column in question.columns),
            ],
            source=FileSource(
                name=f"parquet_{number}",
                path=str(Path(question.observations).resolve()),
                timestamp_field="event_time",
                created_timestamp_column="arrival_time",
            ),
            online=False,
        )
        for number in range(question.views)
    ]
    store.apply([*keys, *views])
    asked: dict[str, Any] = {
        "entity_df": spine,
        "features": [f"{view.name}:{column}" for view in views for column in question.columns],
        "full_feature_names": True,
    }
    return question, store, asked | ({"filter_by_created_timestamp": True} if flag else {})


def run(loaded: Any) -> Any:
    """The retrieved frame with the answer's columns."""
    question, store, asked = loaded
    return question, store.get_historical_features(**asked).to_df()


def write(answer: Any, path: Path) -> None:
    """The answer of the first view as Parquet; those of the others must be the same.

    Raises:
        ValueError: If they are not.
    """
    question, frame = answer
    first = frame[["row", *(f"observations_0__{column}" for column in question.columns)]]
    for number in range(1, question.views):
        other = frame[["row", *(f"observations_{number}__{column}" for column in question.columns)]]
        if not other.set_axis(first.columns, axis="columns").equals(first):
            raise ValueError(f"view {number} has other answers than the first view")
    first.set_axis(["row", *question.columns], axis="columns").to_parquet(path)
