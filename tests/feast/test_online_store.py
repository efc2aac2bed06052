"""The online store plugin under Feast's own SDK: plain views and views of ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import services
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast import types as feast_types
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast_repos import OURS, OURS_OFFLINE, ago, online, pushed, station, store, weather

import alignment as al
import ingestion
from serving.errors import OptionError
from serving.feast_objects import feast_objects
from serving.feast_support.sources import LogSource

INSTANT = pl.Datetime("us", "UTC")
redis = services.redis


@pytest.fixture
def plain(tmp_path: Path) -> FeatureStore:
    """A store with the plain view `weather`, applied, nothing materialised."""
    found = store(tmp_path)
    found.apply([station(), weather(tmp_path, [("a", ago(3), ago(2.5), 1.0), ("a", ago(2), ago(1.5), 2.0)])])
    return found


def statuses(feast: FeatureStore, *stations: str) -> list[str]:
    response = feast.get_online_features(["weather:temp"], [{"station": name} for name in stations])
    names = list(response.proto.metadata.feature_names.val)
    return [FieldStatus.Name(status) for status in response.proto.results[names.index("temp")].statuses]


def stored(folder: Path) -> pl.DataFrame:
    return ingestion.open_log(folder / "online" / "trial", "weather").scan().collect()


# plain views


def test_what_was_materialized_is_served_and_the_rest_is_not_found(plain: FeatureStore) -> None:
    plain.materialize(ago(10), datetime.now(UTC))
    assert online(plain, "a", "nowhere", "a") == {"station": ["a", "nowhere", "a"], "temp": [2.0, None, 2.0]}
    assert statuses(plain, "a", "nowhere") == ["PRESENT", "NOT_FOUND"]


def test_before_anything_was_written_nothing_is_found(plain: FeatureStore) -> None:
    assert online(plain, "a") == {"station": ["a"], "temp": [None]}


def test_what_was_pushed_is_read_at_once(plain: FeatureStore) -> None:
    for number in range(3):
        plain.push("weather_push", pushed(("a", ago(1 - number / 10), ago(0.5), float(number))))
        assert online(plain, "a")["temp"] == [float(number)]


def test_an_older_event_that_arrives_late_does_not_displace_a_newer_one(plain: FeatureStore) -> None:
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    plain.push("weather_push", pushed(("a", ago(4), ago(0.1), 9.0)))
    assert online(plain, "a")["temp"] == [5.0]


def test_a_correction_lands_and_the_superseded_revision_does_not_come_back(plain: FeatureStore) -> None:
    event = ago(1)
    plain.push("weather_push", pushed(("a", event, ago(0.9), 5.0)))
    plain.push("weather_push", pushed(("a", event, ago(0.5), 6.0)))
    assert online(plain, "a")["temp"] == [6.0]
    plain.push("weather_push", pushed(("a", event, ago(0.9), 5.0)))
    assert online(plain, "a")["temp"] == [6.0]


def test_a_row_that_is_created_in_the_future_is_not_served_before(plain: FeatureStore) -> None:
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    plain.push("weather_push", pushed(("a", ago(0.5), ago(-1), 6.0)))
    assert online(plain, "a")["temp"] == [5.0]


def test_an_event_in_the_future_is_not_served_before(plain: FeatureStore) -> None:
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0), ("a", ago(-1), ago(0.5), 6.0)))
    assert online(plain, "a")["temp"] == [5.0]


def test_rows_written_after_one_that_lies_in_the_future_are_served_at_once(plain: FeatureStore) -> None:
    plain.push("weather_push", pushed(("a", ago(0.5), ago(-1), 6.0)))
    plain.write_to_online_store("weather", pushed(("a", ago(1), None, 5.0)))
    assert online(plain, "a")["temp"] == [5.0]


def test_null_is_a_value_and_displaces_an_older_one(plain: FeatureStore) -> None:
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    plain.push("weather_push", pushed(("a", ago(0.5), ago(0.4), None), ("b", ago(0.5), ago(0.4), 7.0)))
    assert online(plain, "a", "b")["temp"] == [None, 7.0]
    assert statuses(plain, "a") == ["NULL_VALUE"]


def test_materializing_again_stores_nothing_again(plain: FeatureStore, tmp_path: Path) -> None:
    for _ in range(3):
        plain.materialize(ago(10), datetime.now(UTC))
    once = stored(tmp_path)
    assert once["log_sequence"].n_unique() == once.height == once.unique(["station", "event_time"]).height


def test_rows_without_created_timestamp_are_stored_again_only_if_they_changed(
    plain: FeatureStore, tmp_path: Path
) -> None:
    event = ago(1)
    for value in (5.0, 5.0, 6.0, 5.0):
        plain.write_to_online_store("weather", pushed(("a", event, None, value)))
        assert online(plain, "a")["temp"] == [value]
    assert stored(tmp_path)["temp"].to_list() == [5.0, 6.0, 5.0]


def test_of_rows_with_one_event_and_created_time_the_last_counts_however_often_they_come(plain: FeatureStore) -> None:
    event = ago(1)
    for created in (ago(0.9), None):
        for _ in range(3):
            plain.push("weather_push", pushed(("a", event, created, 1.0), ("a", event, created, 2.0)))
            assert online(plain, "a")["temp"] == [2.0]


def test_the_ttl_applies_online(tmp_path: Path) -> None:
    feast = store(tmp_path)
    feast.apply([station(), weather(tmp_path, [], ttl=timedelta(hours=2))])
    feast.push("weather_push", pushed(("old", ago(3), ago(2.9), 5.0), ("fresh", ago(1), ago(0.9), 6.0)))
    assert online(feast, "old", "fresh")["temp"] == [None, 6.0]
    assert statuses(feast, "old", "fresh") == ["OUTSIDE_MAX_AGE", "PRESENT"]


def test_another_store_on_the_same_folder_sees_what_was_written(plain: FeatureStore, tmp_path: Path) -> None:
    reader = store(tmp_path)
    assert online(reader, "a")["temp"] == [None]
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    assert online(reader, "a")["temp"] == [5.0]


def test_a_new_feature_is_null_until_it_is_written(tmp_path: Path) -> None:
    feast = store(tmp_path)
    view = weather(tmp_path, [])
    feast.apply([station(), view])
    feast.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    view.features = [*view.features, Field(name="wind", dtype=feast_types.Float64)]
    feast.apply([station(), view])
    assert online(feast, "a", features=["weather:temp", "weather:wind"]) == {
        "station": ["a"],
        "temp": [5.0],
        "wind": [None],
    }
    feast.push("weather_push", pushed(("a", ago(0.5), ago(0.4), 6.0)).assign(wind=3.0))
    assert online(feast, "a", features=["weather:wind", "weather:temp"]) == {
        "station": ["a"],
        "wind": [3.0],
        "temp": [6.0],
    }


def test_a_view_that_is_gone_loses_its_log_and_so_do_all_on_teardown(plain: FeatureStore, tmp_path: Path) -> None:
    plain.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    folder = tmp_path / "online" / "trial" / "weather"
    assert folder.is_dir()
    plain.teardown()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (feast_types.Int32, [1, -5]),
        (feast_types.Int64, [2**62, 0]),
        (feast_types.Float32, [0.5, float("inf")]),
        (feast_types.String, ["", "kühl"]),
        (feast_types.Bytes, [b"", b"\x00\xff"]),
        (feast_types.Bool, [True, False]),
        (feast_types.UnixTimestamp, [datetime(2025, 1, 1, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=UTC)]),
        (feast_types.Array(feast_types.Float32), [[0.5, 1.5], []]),
        (feast_types.Array(feast_types.String), [["a"], ["b", ""]]),
        (feast_types.Array(feast_types.Int64), [[1], [2, 3]]),
        (feast_types.Map, [{"a": 1}, {"b": "two"}]),
        (feast_types.Uuid, ["0f14d0ab-9605-4a62-a9e4-5ed26688389b", "0f14d0ab-9605-4a62-a9e4-5ed26688389c"]),
    ],
    ids=str,
)
def test_values_of_every_type_come_back_as_feasts_own_store_returns_them(
    tmp_path: Path, dtype: Any, values: list[Any]
) -> None:
    frame = pushed(("a", ago(1), ago(0.9), 0.0), ("b", ago(1), ago(0.9), 0.0), ("c", ago(1), ago(0.9), None))
    frame["temp"] = pd_objects([*values, None])
    answers = []
    for name, config in {"ours": None, "sqlite": {"type": "sqlite", "path": str(tmp_path / "sqlite.db")}}.items():
        folder = tmp_path / name
        folder.mkdir()
        feast = store(folder, online=config)
        file = FileSource(name="file", path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
        view = FeatureView(name="weather", entities=[station()], schema=[Field(name="temp", dtype=dtype)], source=file)
        view.entity_columns = [Field(name="station", dtype=feast_types.String)]
        feast.registry.apply_entity(station(), "trial")
        feast.registry.apply_feature_view(view, "trial")
        feast._get_provider().update_infra("trial", [], [view], [], [], partial=False)
        feast.write_to_online_store("weather", frame.drop(columns="created"))
        answers.append(online(feast, "a", "b", "c"))
    assert answers[0] == answers[1]


def pd_objects(values: list[Any]) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=object)


# views of ours


@pytest.fixture
def declared(tmp_path: Path) -> tuple[FeatureStore, ingestion.ObservationLog]:
    """Two views over one log: station a had 1.0 three hours ago, 2.0 two hours ago, 4.0 one hour ago."""
    log = ingestion.create_log(tmp_path / "logs", "masts", entities=["station"])
    rows = [
        ("a", ago(3), ago(2.9), 1.0),
        ("a", ago(2), ago(1.9), 2.0),
        ("a", ago(1), ago(0.9), 4.0),
        ("old", ago(9), ago(8.9), 7.0),
    ]
    log.append(
        pl.DataFrame(
            rows,
            schema={"station": pl.String, "event_time": INSTANT, "arrival_time": INSTANT, "temp": pl.Float64},
            orient="row",
        )
    )
    views = [
        al.FeatureView(
            "wind",
            ["station"],
            log,
            [
                al.latest("temp"),
                al.lag("temp", "90m"),
                al.window("temp", ["mean", "count"], "150m"),
                al.sequence("temp", 4),
                al.event_age(),
            ],
            max_event_age="2h",
        ),
        al.FeatureView("other", ["station"], log, [al.window("temp", "max", "1d")]),
    ]
    feast = store(tmp_path)
    feast.apply(feast_objects(views))
    return feast, log


def test_windows_lags_and_sequences_come_out_of_feasts_own_call(declared: tuple[FeatureStore, Any]) -> None:
    feast, _ = declared
    names = ["wind:temp", "wind:temp_lag_90m", "wind:temp_mean_150m", "wind:temp_count_150m", "other:temp_max_1d"]
    found = online(feast, "a", "nowhere", features=names)
    assert found == {
        "station": ["a", "nowhere"],
        "temp": [4.0, None],
        "temp_lag_90m": [2.0, None],
        "temp_mean_150m": [3.0, None],
        "temp_count_150m": [2, 0],
        "temp_max_1d": [4.0, None],
    }


def test_a_sequence_is_padded_with_nan(declared: tuple[FeatureStore, Any]) -> None:
    (values,) = online(declared[0], "a", features=["wind:temp_sequence_4"])["temp_sequence_4"]
    assert str(values[0]) == "nan"
    assert values[1:] == [1.0, 2.0, 4.0]


def test_ages_are_seconds_and_limits_apply_online(declared: tuple[FeatureStore, Any]) -> None:
    found = online(declared[0], "a", "old", features=["wind:temp", "wind:event_age"])
    assert found["temp"] == [4.0, None]
    assert [round(age / 3600, 2) for age in found["event_age"]] == [1.0, 9.0]


def test_a_row_that_is_appended_to_the_log_is_served_once_it_has_arrived(declared: tuple[FeatureStore, Any]) -> None:
    feast, log = declared
    assert online(feast, "a", features=["wind:temp"])["temp"] == [4.0]
    row = {"station": ["a"], "event_time": [ago(0.1)], "arrival_time": [ago(0.05)], "temp": [8.0]}
    log.append(pl.DataFrame(row, schema_overrides={"event_time": INSTANT, "arrival_time": INSTANT}))
    assert online(feast, "a", features=["wind:temp", "other:temp_max_1d"]) == {
        "station": ["a"],
        "temp": [8.0],
        "temp_max_1d": [8.0],
    }


def test_features_of_one_request_hold_at_one_instant(declared: tuple[FeatureStore, Any]) -> None:
    feast, log = declared
    twin = al.FeatureView("twin", ["station"], log, [al.event_age()])
    feast.apply(feast_objects(twin))
    response = feast.get_online_features(
        ["wind:event_age", "twin:event_age"], [{"station": "a"}], full_feature_names=True
    )
    found = response.to_dict()
    assert found["wind__event_age"] == found["twin__event_age"]


def test_materializing_has_nothing_to_do_for_views_over_logs(
    tmp_path: Path, declared: tuple[FeatureStore, Any]
) -> None:
    feast = store(tmp_path, offline={"type": OURS_OFFLINE})
    feast.materialize(ago(10), datetime.now(UTC))
    feast.materialize_incremental(datetime.now(UTC))
    assert online(feast, "a", features=["wind:temp"])["temp"] == [4.0]
    assert not (tmp_path / "online").exists()


def test_a_plain_view_over_a_log_serves_its_columns_without_being_materialized(
    tmp_path: Path, declared: tuple[FeatureStore, Any]
) -> None:
    feast, _ = declared
    source = LogSource(root=str(tmp_path / "logs"), provider="masts", name="renamed", field_mapping={"temp": "celsius"})
    schema = [Field(name="celsius", dtype=feast_types.Float64)]
    feast.apply(
        [
            station(),
            FeatureView(name="masts", entities=[station()], schema=schema, source=source, ttl=timedelta(hours=2)),
        ]
    )
    assert online(feast, "a", "old", features=["masts:celsius", "wind:temp"]) == {
        "station": ["a", "old"],
        "celsius": [4.0, None],
        "temp": [4.0, None],
    }


def test_rows_that_are_not_in_the_log_cannot_be_written_beside_it(declared: tuple[FeatureStore, Any]) -> None:
    feast, log = declared
    view = feast.get_feature_view("wind")
    write = feast._get_provider().online_write_batch
    there = [(EntityKey(), {}, *row) for row in log.scan().select("event_time", "arrival_time").collect().rows()]
    write(feast.config, view, there, None)
    with pytest.raises(OptionError, match="is read from the log of provider 'masts', which has not 1 of 5 rows"):
        write(feast.config, view, [*there, (EntityKey(), {}, ago(0.5), ago(0.4))], None)


def test_neither_teardown_nor_removal_touches_a_providers_log(declared: tuple[FeatureStore, Any]) -> None:
    feast, log = declared
    feast.teardown()
    assert log.position() == 3


def test_one_series_for_all_is_served_beside_every_entity(declared: tuple[FeatureStore, Any], tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path / "logs", "price", entities=[])
    row = {"event_time": [ago(1)], "arrival_time": [ago(0.9)], "eur": [80.5]}
    log.append(pl.DataFrame(row, schema_overrides={"event_time": INSTANT, "arrival_time": INSTANT}))
    feast, _ = declared
    feast.apply(feast_objects(al.FeatureView("price", [], log, [al.latest("eur")])))
    assert online(feast, "a", "old", features=["price:eur"])["eur"] == [80.5, 80.5]
    both = online(feast, "a", "old", features=["other:temp_max_1d", "price:eur"])
    assert both == {"station": ["a", "old"], "temp_max_1d": [4.0, 7.0], "eur": [80.5, 80.5]}


def test_an_entity_under_another_name_is_asked_for_by_that_name(declared: tuple[FeatureStore, Any]) -> None:
    feast, _ = declared
    view = feast.get_feature_view("other").with_join_key_map({"station": "origin"}).with_name("origin_other")
    from feast import FeatureService

    feast.apply([FeatureService(name="trip", features=[feast.get_feature_view("other").with_name("own_other"), view])])
    service = feast.get_feature_service("trip")
    found = feast.get_online_features(service, [{"station": "a", "origin": "old"}], full_feature_names=True).to_dict()
    assert found["own_other__temp_max_1d"] == [4.0]
    assert found["origin_other__temp_max_1d"] == [7.0]


def test_the_state_can_be_in_redis_and_answers_are_the_same(
    tmp_path: Path, declared: tuple[FeatureStore, Any], redis: services.Server
) -> None:
    _, log = declared
    shared = {"type": OURS, "path": str(tmp_path / "online"), "redis_url": f"redis://127.0.0.1:{redis.port}/0"}
    stores = [store(tmp_path, online=shared), store(tmp_path, online=shared)]
    stores[0].apply([station(), weather(tmp_path, [])])
    stores[0].push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    names = ["wind:temp", "wind:temp_lag_90m", "wind:temp_mean_150m", "weather:temp"]
    for feast in stores:
        found = feast.get_online_features(names, [{"station": "a"}], full_feature_names=True).to_dict()
        assert found == {
            "station": ["a"],
            "wind__temp": [4.0],
            "wind__temp_lag_90m": [2.0],
            "wind__temp_mean_150m": [3.0],
            "weather__temp": [5.0],
        }
    row = {"station": ["a"], "event_time": [ago(0.1)], "arrival_time": [ago(0.05)], "temp": [8.0]}
    log.append(pl.DataFrame(row, schema_overrides={"event_time": INSTANT, "arrival_time": INSTANT}))
    stores[1].push("weather_push", pushed(("a", ago(0.5), ago(0.4), 6.0)))
    for feast in stores:
        assert online(feast, "a", features=["wind:temp"])["temp"] == [8.0]
        assert online(feast, "a", features=["weather:temp"])["temp"] == [6.0]


# what the registry says


def test_the_registry_tells_each_features_window_lag_and_limits(declared: tuple[FeatureStore, Any]) -> None:
    view = declared[0].get_feature_view("wind")
    tags = {field.name: dict(field.tags) for field in view.features}
    assert tags["temp_mean_150m"] == {
        "feature": "window",
        "window": "mean of temp over the last 150m",
        "column": "temp",
    }
    assert tags["temp_lag_90m"]["lag"] == "temp as of 90m before"
    assert tags["temp"]["age limits"] == "event 2h"
    assert {name: view.tags[name] for name in ("asknown.provider", "asknown.arrivals", "asknown.max_event_age")} == {
        "asknown.provider": "masts",
        "asknown.arrivals": "stamped when a batch is committed, 500ms ahead of the clock",
        "asknown.max_event_age": "2h",
    }
    assert view.ttl == timedelta(hours=2)


def test_a_source_tells_people_which_log_it_is(declared: tuple[FeatureStore, Any]) -> None:
    source = declared[0].get_data_source("masts")
    told = f"observation log of provider masts in {source.root}, by event_time and arrival_time"  # type: ignore[attr-defined]
    assert source.description == told


def test_the_address_of_redis_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKNOWN_REDIS_URL", "redis://cache:6379/3")
    (tmp_path / "feature_store.yaml").write_text(
        "project: power\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f"online_store:\n  type: {OURS}\n  redis_url: ${{ASKNOWN_REDIS_URL}}\n"
    )
    assert FeatureStore(str(tmp_path)).config.online_store.redis_url == "redis://cache:6379/3"


def test_types_are_those_that_the_features_evaluate_to(declared: tuple[FeatureStore, Any]) -> None:
    view = declared[0].get_feature_view("wind")
    assert {field.name: str(field.dtype) for field in view.features} == {
        "temp": "Float64",
        "temp_lag_90m": "Float64",
        "temp_mean_150m": "Float64",
        "temp_count_150m": "Int64",
        "temp_sequence_4": "Array(Float64)",
        "event_age": "Float64",
    }
    assert [(field.name, str(field.dtype)) for field in view.entity_columns] == [("station", "String")]


def test_a_view_that_is_not_over_a_log_has_no_place_in_the_registry() -> None:
    rows = pl.LazyFrame(
        schema={"station": pl.String, "event_time": INSTANT, "arrival_time": INSTANT, "temp": pl.Float64}
    )
    view = al.FeatureView("weather", ["station"], rows, [al.latest("temp")])
    with pytest.raises(
        OptionError, match="view 'weather' is not over a log, and Feast needs to know where its rows are"
    ):
        feast_objects(view)


def test_entities_must_be_those_of_the_view() -> None:
    from serving.feast_objects import feast_view

    rows = pl.LazyFrame(
        schema={"station": pl.String, "event_time": INSTANT, "arrival_time": INSTANT, "temp": pl.Float64}
    )
    view = al.FeatureView("weather", ["station"], rows, [al.latest("temp")])
    source = LogSource(root="logs", provider="masts")
    with pytest.raises(OptionError, match=r"has the entities \['station'\], and Feast's are \['site'\]"):
        feast_view(view, source=source, entities=[Entity(name="site", value_type=ValueType.STRING)])
