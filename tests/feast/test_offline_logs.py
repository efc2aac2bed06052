"""Our own declarations through Feast: windows, lags, sequences, forecasts and retractions come out as without Feast."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from feast import FeatureStore, FeatureView, Field
from feast.types import Float64
from feast_repos import OURS_OFFLINE, station, store
from makers import at, table, temps

import alignment as al
import ingestion
from serving.feast_objects import feast_objects
from serving.feast_offline_store import AvailabilityOfflineStore
from serving.feast_support.sources import LogSource

OBSERVED = temps(
    ("a", "10:00", "10:10", 1.0),
    ("a", "10:20", "10:30", 3.0),
    ("a", "10:20", "11:00", 4.0),
    ("b", "10:00", "10:10", 5.0),
)
ASKED = pd.DataFrame(
    {"station": ["a", "b", "a", "a"], "event_timestamp": [at("10:30"), at("10:30"), at("11:00"), at("11:20")]}
)


@pytest.fixture
def log(tmp_path: Path) -> ingestion.ObservationLog:
    found = ingestion.create_log(tmp_path / "logs", "station", entities=["station"])
    found.append(OBSERVED, arrivals="given")
    gone = table("station event_time arrival_time temp is_retraction", ("b", "10:00", "10:50", None, True))
    found.append(gone.with_columns(pl.col("temp").cast(pl.Float64)), arrivals="given")
    return found


def feast_store(folder: Path, **offline: object) -> FeatureStore:
    return store(
        folder, online={"type": "sqlite", "path": str(folder / "o.db")}, offline={"type": OURS_OFFLINE, **offline}
    )


FEATURES = [
    al.latest("temp"),
    al.lag("temp", "20m"),
    al.window("temp", ["mean", "count"], "30m"),
    al.sequence("temp", 2),
    al.event_age(),
]


@pytest.mark.parametrize("offline", [{}, {"arrival": False}], ids=["arrival on", "arrival off"])
def test_a_declared_view_is_evaluated_by_its_definition(
    tmp_path: Path, log: ingestion.ObservationLog, offline: dict[str, object]
) -> None:
    feast = feast_store(tmp_path, **offline)
    feast.apply(feast_objects(al.FeatureView("weather", None, log, FEATURES)))
    names = ["temp", "temp_lag_20m", "temp_mean_30m", "temp_count_30m", "temp_sequence_2", "event_age"]
    job = feast.get_historical_features(ASKED, [f"weather:{name}" for name in names], full_feature_names=True)
    answer = job.to_arrow().select([f"weather__{name}" for name in names]).to_pydict()
    assert answer == {
        "weather__temp": [3.0, 5.0, 4.0, 4.0],
        "weather__temp_lag_20m": [1.0, 5.0, 4.0, 4.0],
        "weather__temp_mean_30m": [3.0, None, None, None],  # of a at 10:30 the window (10:00, 10:30] has 10:20 alone
        "weather__temp_count_30m": [1, 0, 0, 0],
        "weather__temp_sequence_2": [[1.0, 3.0], [None, 5.0], [1.0, 4.0], [1.0, 4.0]],
        "weather__event_age": [600.0, 1800.0, 2400.0, 3600.0],  # seconds, as Feast's registry says
    }


def test_a_plain_view_over_a_log_knows_retractions(tmp_path: Path, log: ingestion.ObservationLog) -> None:
    source = LogSource(root=str(tmp_path / "logs"), provider="station")
    view = FeatureView(
        name="weather",
        entities=[station()],
        schema=[Field(name="temp", dtype=Float64)],
        source=source,
        ttl=timedelta(hours=1),
    )
    feast = feast_store(tmp_path)
    feast.apply([station(), view])
    asked = pd.DataFrame(
        {"station": ["b"] * 2 + ["a"] * 2, "event_timestamp": [at("10:49"), at("10:50"), at("11:20"), at("11:21")]}
    )
    assert feast.get_historical_features(asked, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [
        5.0,
        None,
        4.0,
        None,
    ]


def test_a_log_is_pulled_by_arrival_without_what_was_retracted(tmp_path: Path, log: ingestion.ObservationLog) -> None:
    source = LogSource(root=str(tmp_path / "logs"), provider="station")
    feast = feast_store(tmp_path)
    asked = (feast.config, source, ["station"], ["temp"], "event_time", "arrival_time", at("10:40"), at("12:00"))
    latest = AvailabilityOfflineStore.pull_latest_from_table_or_query(*asked).to_arrow()
    assert latest.select(["station", "temp", "arrival_time"]).to_pylist() == [
        {"station": "a", "temp": 4.0, "arrival_time": at("11:00")}
    ]
    assert AvailabilityOfflineStore.pull_all_from_table_or_query(*asked).to_arrow()["temp"].to_pylist() == [4.0]


def test_rows_written_through_feast_are_stamped_by_the_log(tmp_path: Path, log: ingestion.ObservationLog) -> None:
    source = LogSource(root=str(tmp_path / "logs"), provider="station")
    view = FeatureView(name="weather", entities=[station()], schema=[Field(name="temp", dtype=Float64)], source=source)
    feast = feast_store(tmp_path)
    feast.apply([station(), view])
    before = datetime.now(UTC)
    rows = pd.DataFrame({"station": ["a"], "event_time": [pd.Timestamp(at("11:10")).tz_localize(None)], "temp": [6.0]})
    feast.write_to_offline_store("weather", rows)
    written = log.scan().filter(pl.col("temp") == 6.0).collect()
    assert written["event_time"].to_list() == [at("11:10")]
    assert written["arrival_time"][0] >= before


def test_a_forecast_is_answered_for_its_lead(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path / "logs", "model", entities=["station"], kind="forecast")
    rows = table(
        "station event_time issue_time arrival_time wind",
        ("a", "12:00", "06:00", "06:30", 1.0),
        ("a", "12:00", "08:00", "08:30", 2.0),
    )
    log.append(rows, arrivals="given")
    feast = feast_store(tmp_path)
    feast.apply(
        feast_objects(al.FeatureView("model", None, log, [al.forecast("wind", "4h"), al.forecast("wind", "3h")]))
    )
    asked = pd.DataFrame({"station": ["a"] * 2, "event_timestamp": [at("08:00"), at("09:00")]})
    answer = feast.get_historical_features(asked, ["model:wind_forecast_4h", "model:wind_forecast_3h"]).to_arrow()
    assert answer["wind_forecast_4h"].to_pylist() == [1.0, None]
    assert answer["wind_forecast_3h"].to_pylist() == [None, 2.0]


def test_views_over_one_log_are_answered_at_one_position(
    tmp_path: Path, log: ingestion.ObservationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that lands between two views of one question is seen by neither."""
    feast = feast_store(tmp_path)
    feast.apply(
        feast_objects([al.FeatureView(name, None, log, [al.latest("temp", name=name)]) for name in ("one", "two")])
    )
    job = feast.get_historical_features(ASKED.tail(1), ["one:one", "two:two"])
    honest = al.point_in_time_join

    def with_a_late_row(*args: object, **more: object) -> pl.DataFrame:
        found = honest(*args, **more)  # type: ignore[arg-type]
        log.append(temps(("a", "11:15", "11:16", 9.0)), arrivals="given", batch_id="late")
        return found

    monkeypatch.setattr(al, "point_in_time_join", with_a_late_row)
    assert job.to_arrow().select(["one", "two"]).to_pylist() == [{"one": 4.0, "two": 4.0}]
    monkeypatch.undo()
    assert job.to_arrow().select(["one", "two"]).to_pylist() == [{"one": 9.0, "two": 9.0}]
