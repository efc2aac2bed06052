"""What the Feast contenders share: a repository in a temporary folder, one view over the Parquet file, the flag on.

Feast reads its source for every question, so reading is part of its time. It has no retractions: theirs are rows with
null values, the nearest that its words can say.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.question import Question


def load(question: Question, store_type: str, *, ttl: timedelta | None = None) -> Any:
    """A feature store with the view applied, the entity frame in memory, and what to ask for."""
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
    view = FeatureView(
        name="observations",
        entities=keys,
        ttl=ttl or timedelta(0),
        schema=[
            *(Field(name=name, dtype=String if text[name] else Int64) for name in question.entities),
            *(Field(name=column, dtype=Float64) for column in question.columns),
        ],
        source=FileSource(
            name="parquet",
            path=str(Path(question.observations).resolve()),
            timestamp_field="event_time",
            created_timestamp_column="arrival_time",
        ),
        online=False,
    )
    store.apply([*keys, view])
    return question, store, spine, [f"observations:{column}" for column in question.columns]


def run(loaded: Any) -> Any:
    """The retrieved frame with the answer's columns."""
    question, store, spine, features = loaded
    job = store.get_historical_features(entity_df=spine, features=features, filter_by_created_timestamp=True)
    return job.to_df()[["row", *question.columns]]


def write(answer: Any, path: Path) -> None:
    """The answer as Parquet."""
    answer.to_parquet(path)
