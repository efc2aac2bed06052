"""Feature stores in a temporary folder, with our online store or one of Feast's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.infra.offline_stores.file_source import ParquetFormat
from feast.types import Float64

OURS = "serving.feast_online_store.AvailabilityOnlineStore"
OURS_OFFLINE = "serving.feast_offline_store.AvailabilityOfflineStore"


def store(
    folder: Path, *, online: Mapping[str, Any] | None = None, offline: Mapping[str, Any] | None = None
) -> FeatureStore:
    """A feature store whose registry is in a folder."""
    config = RepoConfig(
        project="trial",
        provider="local",
        registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 0},
        online_store=dict(online or {"type": OURS, "path": str(folder / "online")}),
        offline_store=dict(offline or {"type": "duckdb"}),
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def weather(
    folder: Path, rows: Sequence[tuple[str, datetime, datetime, float | None]], *, ttl: timedelta | None = None
) -> FeatureView:
    """A plain Feast view over a Parquet file: station, event, created, temp."""
    path = folder / "weather.parquet"
    write(path, rows)
    source = FileSource(
        name="weather_file",
        path=str(path),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        file_format=ParquetFormat(),
    )
    station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)
    return FeatureView(
        name="weather",
        entities=[station],
        schema=[Field(name="temp", dtype=Float64)],
        source=PushSource(name="weather_push", batch_source=source),
        ttl=ttl,
    )


def station() -> Entity:
    """The entity of `weather`."""
    return Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)


def write(path: Path, rows: Sequence[tuple[str, datetime, datetime, float | None]]) -> None:
    """Write the file of `weather` anew."""
    schema = {"station": pl.String, "event_timestamp": INSTANT, "created": INSTANT, "temp": pl.Float64}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)


INSTANT = pl.Datetime("us", "UTC")


def pushed(*rows: tuple[str, datetime, datetime | None, float | None]) -> pd.DataFrame:
    """Rows to push."""
    found = pd.DataFrame(rows, columns=["station", "event_timestamp", "created", "temp"])
    return found.assign(created=pd.to_datetime(found["created"], utc=True))


def online(feast: FeatureStore, *stations: str, features: Sequence[str] = ("weather:temp",)) -> dict[str, list[Any]]:
    """What is served now."""
    return feast.get_online_features(list(features), [{"station": name} for name in stations]).to_dict()


def ago(hours: float) -> datetime:
    """An instant in the past, in whole milliseconds."""
    now = datetime.now(UTC).replace(microsecond=0)
    return now - timedelta(hours=hours)
