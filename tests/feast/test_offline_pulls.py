"""Windows of materialization go by arrival, and what is written lands where it belongs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import FeatureService, FeatureStore
from feast.data_format import DeltaFormat
from feast.data_source import PushMode
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast_repos import OURS_OFFLINE, ago, pushed, station, store, weather, write
from makers import at

from serving.feast_offline_store import AvailabilityOfflineStore

ROWS = [
    ("a", at("10:00"), at("10:30"), 1.0),
    ("a", at("12:00"), at("12:05"), 2.0),
    ("a", at("11:00"), at("13:00"), 9.0),  # an older event that arrives late
    ("b", at("10:00"), at("10:10"), 7.0),
    ("b", at("10:00"), at("13:30"), 7.5),  # a correction
]


def feast_store(folder: Path, rows: Any = ROWS, **offline: Any) -> FeatureStore:
    """With Feast's own online store, which keeps what it is told last."""
    found = store(
        folder, online={"type": "sqlite", "path": str(folder / "o.db")}, offline={"type": OURS_OFFLINE, **offline}
    )
    found.apply([station(), weather(folder, rows)])
    return found


def pulled(feast: FeatureStore, how: str, start: str, end: str, **more: Any) -> list[tuple[Any, ...]]:
    source = feast.get_feature_view("weather").batch_source
    method = getattr(AvailabilityOfflineStore, f"pull_{how}_from_table_or_query")
    asked = {"created_timestamp_column": "created"} | more
    job = method(
        feast.config, source, ["station"], ["temp"], "event_timestamp", start_date=at(start), end_date=at(end), **asked
    )
    return sorted((row["station"], row["temp"]) for row in job.to_arrow().to_pylist())


def test_a_window_holds_the_rows_that_arrived_in_it_whatever_their_event(tmp_path: Path) -> None:
    feast = feast_store(tmp_path)
    assert pulled(feast, "all", "10:00", "10:20") == [("b", 7.0)]
    assert pulled(feast, "all", "10:20", "12:30") == [("a", 1.0), ("a", 2.0)]


def test_with_a_late_row_the_window_holds_what_is_current_of_its_entity_too(tmp_path: Path) -> None:
    assert pulled(feast_store(tmp_path), "all", "12:30", "13:00") == [("a", 2.0), ("a", 9.0)]


def test_the_latest_of_a_window_is_what_is_current_at_its_end_of_each_entity_it_touches(tmp_path: Path) -> None:
    feast = feast_store(tmp_path)
    assert pulled(feast, "latest", "10:20", "12:00") == [("a", 1.0)]
    assert pulled(feast, "latest", "12:30", "13:00") == [("a", 2.0)]
    assert pulled(feast, "latest", "13:00", "14:00") == [("a", 2.0), ("b", 7.5)]


def test_with_arrival_off_a_window_is_one_of_events(tmp_path: Path) -> None:
    feast = feast_store(tmp_path, arrival=False)
    assert pulled(feast, "all", "10:30", "11:30") == [("a", 9.0)]
    assert pulled(feast, "latest", "10:00", "11:30") == [("a", 9.0), ("b", 7.5)]


def test_without_a_created_column_a_window_is_one_of_events(tmp_path: Path) -> None:
    feast = feast_store(tmp_path)
    assert pulled(feast, "all", "10:30", "11:30", created_timestamp_column=None) == [("a", 9.0)]


def served(feast: FeatureStore) -> list[Any]:
    return feast.get_online_features(["weather:temp"], [{"station": "a"}, {"station": "b"}]).to_dict()["temp"]


def test_windows_that_follow_each_other_leave_the_right_rows_in_feasts_own_online_store(tmp_path: Path) -> None:
    """Feast's windows of events miss both the late row and the correction, or serve the older event."""
    feast = feast_store(tmp_path)
    for start, end, expected in (
        ("09:00", "11:00", [1.0, 7.0]),
        ("11:00", "12:30", [2.0, 7.0]),
        ("12:30", "13:10", [2.0, 7.0]),  # the late, older event does not displace the newer one
        ("13:10", "14:00", [2.0, 7.5]),  # the correction lands, though its event is long past
    ):
        feast.materialize(at(start), at(end))
        assert served(feast) == expected


def test_materialize_incremental_misses_nothing(tmp_path: Path) -> None:
    feast = feast_store(tmp_path, [("a", ago(3), ago(2.9), 1.0)])
    feast.materialize_incremental(ago(2))
    assert served(feast) == [1.0, None]
    write(
        tmp_path / "weather.parquet",
        [("a", ago(3), ago(2.9), 1.0), ("a", ago(3), ago(1), 1.5), ("b", ago(9), ago(1), 4.0)],
    )
    feast.materialize_incremental(datetime.now(UTC))
    assert served(feast) == [1.5, 4.0]


def test_what_is_pushed_offline_is_appended_and_answered(tmp_path: Path) -> None:
    feast = feast_store(tmp_path, [("a", ago(3), ago(2.9), 1.0)])
    feast.push("weather_push", pushed(("a", ago(1), ago(0.5), 2.0)), to=PushMode.OFFLINE)
    asked = pd.DataFrame({"station": ["a"] * 2, "event_timestamp": [ago(0.6), ago(0.4)]})
    assert feast.get_historical_features(asked, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [1.0, 2.0]
    assert pl.read_parquet(tmp_path / "weather.parquet").height == 2
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_rows_with_other_columns_are_refused_in_feasts_words(tmp_path: Path) -> None:
    feast = feast_store(tmp_path)
    table = pa.table({"station": ["a"]})
    with pytest.raises(ValueError, match="with the incorrect columns"):
        AvailabilityOfflineStore.offline_write_batch(feast.config, feast.get_feature_view("weather"), table, None)


def test_rows_are_appended_to_a_folder_and_to_a_delta_table(tmp_path: Path) -> None:
    rows = pl.DataFrame({"station": ["a"], "event_timestamp": [at("10:00")], "created": [at("10:30")], "temp": [1.0]})
    feast = feast_store(tmp_path)
    view = feast.get_feature_view("weather")
    (tmp_path / "folder").mkdir()
    rows.write_parquet(tmp_path / "folder" / "first.parquet")
    rows.write_delta(str(tmp_path / "delta"))
    for name, form in (("folder", None), ("delta", DeltaFormat())):
        view.batch_source = FileSource(
            name=name,
            path=str(tmp_path / name),
            file_format=form,
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        )
        told: list[int] = []
        AvailabilityOfflineStore.offline_write_batch(
            feast.config, view, rows.with_columns(temp=2.0).to_arrow(), told.append
        )
        source = view.batch_source
        job = AvailabilityOfflineStore.pull_all_from_table_or_query(
            feast.config, source, ["station"], [], "event_timestamp"
        )
        assert sorted(job.to_arrow()["temp"].to_pylist()) == [1.0, 2.0]
        assert told == [1]


@pytest.mark.parametrize("as_files", [True, False])
def test_served_features_are_logged_to_files_and_read_back(tmp_path: Path, as_files: bool) -> None:
    feast = feast_store(tmp_path)
    service = FeatureService(
        name="forecasting",
        features=[feast.get_feature_view("weather")],
        logging_config=LoggingConfig(destination=FileLoggingDestination(path=str(tmp_path / "served"))),
    )
    feast.apply([service])
    now = datetime.now(UTC)
    table = pa.table(
        {
            "station": ["a"],
            "weather__temp": [2.0],
            "weather__temp__timestamp": pa.array([now], pa.timestamp("us", "UTC")),
            "weather__temp__status": pa.array([1], pa.int32()),
            "__log_timestamp": pa.array([now], pa.timestamp("us", "UTC")),
            "__log_date": [now.date()],
            "__request_id": ["one"],
        }
    )
    for _ in range(2):
        logs: Any = table
        if as_files:
            logs = tmp_path / "parts"
            logs.mkdir(exist_ok=True)
            pl.DataFrame(table).write_parquet(logs / "part.parquet")
        feast.write_logged_features(logs, feast.get_feature_service("forecasting"))
    found = feast._get_provider().retrieve_feature_service_logs(
        feature_service=service,
        start_date=now - timedelta(hours=1),
        end_date=now + timedelta(hours=1),
        config=feast.config,
        registry=feast.registry,
    )
    assert found.to_arrow()["weather__temp"].to_pylist() == [2.0, 2.0]
