"""Feast's own client for a remote server, pointed at `asknown serve`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from feast import FeatureService, FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast_repos import station, store, weather
from http_serving import Serving, make, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("served")
    make(folder)
    with serving(folder) as running:
        running.until_ready()
        yield running


@pytest.fixture
def client(server: Serving, tmp_path: Path) -> FeatureStore:
    """A feature store that has the view in its registry and asks the server for values."""
    found = store(tmp_path, online={"type": "remote", "path": server.url})
    view = weather(tmp_path, [])
    found.apply([station(), view, FeatureService(name="basic", features=[view])])
    return found


def test_the_sdk_reads_values_and_statuses_from_the_server(client: FeatureStore) -> None:
    got = client.get_online_features(
        features=["weather:temp"], entity_rows=[{"station": "a"}, {"station": "b"}, {"station": "nobody"}]
    )
    assert got.to_dict() == {"station": ["a", "b", "nobody"], "temp": [22.0, None, None]}
    statuses = [list(result.statuses) for result in got.proto.results]
    assert statuses[-1] == [1, 4, 3]  # PRESENT, OUTSIDE_MAX_AGE, NOT_FOUND


def test_full_names_and_services_work_through_the_sdk(client: FeatureStore) -> None:
    rows = [{"station": "a"}]
    full = client.get_online_features(features=["weather:temp"], entity_rows=rows, full_feature_names=True).to_dict()
    assert full == {"station": ["a"], "weather__temp": [22.0]}
    service = client.get_online_features(features=client.get_feature_service("basic"), entity_rows=rows).to_dict()
    assert service == {"station": ["a"], "temp": [22.0], "big": [2**53 + 1]}  # as the server declares it


def test_the_low_level_read_of_feasts_store_works(client: FeatureStore) -> None:
    online = client._get_provider().online_store
    keys = [EntityKey(join_keys=["station"], entity_values=[Value(string_val=name)]) for name in ("a", "nobody")]
    read = online.online_read(client.config, client.get_feature_view("weather"), keys, ["temp"])
    assert [values["temp"].double_val if values["temp"].HasField("double_val") else None for _, values in read] == [
        22.0,
        None,
    ]
