"""Feast's remote client cannot pass its cut-off flag on; the store behind the offline server counts by arrival all the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureStore
from feast_repos import OURS_OFFLINE, station, store, weather
from makers import at

ROWS = [("a", at("10:00"), at("10:30"), 1.0), ("a", at("11:00"), at("11:30"), 2.0)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FeatureStore]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while Feast imports what its server needs
        from feast.offline_server import OfflineServer
    served = store(tmp_path, online={"type": "sqlite", "path": str(tmp_path / "o.db")}, offline={"type": OURS_OFFLINE})
    served.apply([station(), weather(tmp_path, ROWS)])
    server = OfflineServer(served, "grpc://127.0.0.1:0")
    offline = {"type": "remote", "host": "127.0.0.1", "port": server.port}
    yield store(tmp_path, online={"type": "sqlite", "path": str(tmp_path / "o.db")}, offline=offline)
    server.shutdown()


def test_a_remote_client_gets_what_had_arrived(client: FeatureStore) -> None:
    times = [at("10:29"), at("10:30"), at("11:30")]
    asked = pd.DataFrame({"station": ["a"] * 3, "event_timestamp": times})
    answer = client.get_historical_features(asked, ["weather:temp"]).to_df()
    assert answer["temp"].fillna(-1).tolist() == [-1, 1.0, 2.0]
