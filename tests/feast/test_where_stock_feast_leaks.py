"""Where Feast's own stores leak, drop or forget, and the same through the plugins. docs/concepts/feast-compared.md is this table."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureService, FeatureStore
from feast_repos import OURS, OURS_OFFLINE, ago, online, pushed, station, store, weather, write
from services import Server, redis  # noqa: F401 - a fixture

Row = tuple[str, datetime, datetime, float | None]
Make = Callable[..., FeatureStore]
STOCK = ("sqlite", "redis")


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Make:
    """What makes a store with the plain view `weather`: `made("sqlite", rows)`, `made("ours", rows)`, ..."""

    def make(name: str, rows: list[Row], *, offline: str = "duckdb", ttl: timedelta | None = None) -> FeatureStore:
        folder = tmp_path / f"{name}_{offline}"
        folder.mkdir()
        stores: dict[str, dict[str, Any]] = {
            "ours": {"type": OURS, "path": str(folder / "online")},
            "sqlite": {"type": "sqlite", "path": str(folder / "online.db")},
        }
        if name == "redis":
            server: Server = request.getfixturevalue("redis")
            stores["redis"] = {"type": "redis", "connection_string": f"127.0.0.1:{server.port}"}
        found = store(folder, online=stores[name], offline={"type": OURS_OFFLINE if name == "ours" else offline})
        found.apply([station(), weather(folder, rows, ttl=ttl)])
        return found

    return make


def asked(*rows: tuple[str, datetime]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["station", "event_timestamp"])


def trained(feast: FeatureStore, *rows: tuple[str, datetime], **options: Any) -> list[float | None]:
    """The features of training rows, in the order of the question."""
    frame = feast.get_historical_features(asked(*rows), ["weather:temp"], **options).to_df()
    by_row = {(row.station, pd.Timestamp(row.event_timestamp)): row.temp for row in frame.itertuples()}
    found = [by_row[name, pd.Timestamp(t)] for name, t in rows]
    return [None if pd.isna(value) else value for value in found]


# training sets

CORRECTED = [("a", ago(6), ago(5.5), 1.0), ("a", ago(6), ago(2), 1.5)]
LATE = [("a", ago(6), ago(5.9), 1.0), ("a", ago(5), ago(2), 2.0)]


@pytest.mark.parametrize("offline", ["duckdb", "dask"])
def test_stock_training_rows_hold_corrections_that_came_later(made: Make, offline: str) -> None:
    assert trained(made("sqlite", CORRECTED, offline=offline), ("a", ago(4))) == [1.5]
    assert trained(made("ours", CORRECTED), ("a", ago(4)), ("a", ago(1))) == [1.0, 1.5]


@pytest.mark.parametrize("offline", ["duckdb", "dask"])
def test_stock_training_rows_hold_values_that_had_not_arrived(made: Make, offline: str) -> None:
    assert trained(made("sqlite", LATE, offline=offline), ("a", ago(4))) == [2.0]
    assert trained(made("ours", LATE), ("a", ago(4)), ("a", ago(1))) == [1.0, 2.0]


def test_the_flag_closes_both_over_duckdb_call_by_call(made: Make) -> None:
    for rows in (CORRECTED, LATE):
        feast = made("sqlite", rows)
        assert trained(feast, ("a", ago(4)), filter_by_created_timestamp=True) == [1.0]
        # The next call without it leaks again: neither a view nor a service can ask for it.
        assert trained(feast, ("a", ago(4))) != [1.0]
        feast.teardown()
        _remove(feast)


def test_a_feature_service_leaks_by_default_and_not_through_the_plugin(made: Make) -> None:
    for name, expected in {"sqlite": 1.5, "ours": 1.0}.items():
        feast = made(name, CORRECTED)
        feast.apply([FeatureService(name="model", features=[feast.get_feature_view("weather")])])
        frame = feast.get_historical_features(asked(("a", ago(4))), feast.get_feature_service("model")).to_df()
        assert frame["temp"].to_list() == [expected]


def test_the_flag_over_dask_picks_wrong_revisions_of_much_revised_rows(made: Make) -> None:
    names = [f"s{number}" for number in range(40)]
    rows = [
        (name, ago(30), ago(29 - revision), float(revision)) for revision in range(20) for name in names
    ]  # revision n came 29 - n hours ago
    random.Random(1).shuffle(rows)
    question = [(name, ago(14.5)) for name in names]  # revisions 0 to 14 had arrived
    wrong = [
        value
        for value in trained(made("sqlite", rows, offline="dask"), *question, filter_by_created_timestamp=True)
        if value != 14.0
    ]
    assert len(wrong) > 0
    assert trained(made("ours", rows), *question) == [14.0] * 40


# what is served


@pytest.mark.parametrize(("name", "served"), [("sqlite", 9.0), ("redis", 5.0), ("ours", 5.0)])
def test_an_older_event_that_arrives_late(made: Make, name: str, served: float) -> None:
    feast = made(name, [])
    feast.push("weather_push", pushed(("a", ago(1), ago(0.9), 5.0)))
    feast.push("weather_push", pushed(("a", ago(4), ago(0.1), 9.0)))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 6.0), ("redis", 5.0), ("ours", 6.0)])
def test_a_correction_of_the_newest_event(made: Make, name: str, served: float) -> None:
    feast = made(name, [])
    event = ago(1)
    feast.push("weather_push", pushed(("a", event, ago(0.9), 5.0)))
    feast.push("weather_push", pushed(("a", event, ago(0.2), 6.0)))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 5.0), ("redis", 6.0), ("ours", 6.0)])
def test_a_superseded_revision_that_is_sent_again(made: Make, name: str, served: float) -> None:
    feast = made(name, [])
    event = ago(1)
    feast.push("weather_push", pushed(("a", event, ago(0.2), 6.0)))
    feast.push("weather_push", pushed(("a", event, ago(0.9), 5.0)))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 1.0), ("redis", 1.0), ("ours", 2.0)])
def test_a_row_that_arrives_after_its_window_was_materialized(
    made: Make, tmp_path: Path, name: str, served: float
) -> None:
    before = ("a", ago(8), ago(7.9), 1.0)
    feast = made(name, [before])
    feast.materialize(ago(10), ago(3))
    write(tmp_path / f"{name}_duckdb" / "weather.parquet", [before, ("a", ago(5), ago(1), 2.0)])
    feast.materialize_incremental(datetime.now(UTC))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 1.0), ("redis", 1.0), ("ours", 1.5)])
def test_a_correction_that_arrives_after_its_window_was_materialized(
    made: Make, tmp_path: Path, name: str, served: float
) -> None:
    before = ("a", ago(8), ago(7.9), 1.0)
    feast = made(name, [before])
    feast.materialize(ago(10), ago(3))
    write(tmp_path / f"{name}_duckdb" / "weather.parquet", [before, ("a", before[1], ago(1), 1.5)])
    feast.materialize_incremental(datetime.now(UTC))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 2.0), ("redis", 2.0), ("ours", 1.0)])
def test_a_window_that_is_materialized_again_holds_what_arrived_after_its_end(
    made: Make, name: str, served: float
) -> None:
    feast = made(name, LATE)
    feast.materialize(ago(10), ago(4))
    assert online(feast, "a")["temp"] == [served]


@pytest.mark.parametrize(("name", "served"), [("sqlite", 5.0), ("redis", 5.0), ("ours", None)])
def test_a_value_that_is_older_than_its_ttl(made: Make, name: str, served: float | None) -> None:
    feast = made(name, [], ttl=timedelta(hours=2))
    feast.push("weather_push", pushed(("a", ago(3), ago(2.9), 5.0)))
    assert online(feast, "a")["temp"] == [served]


def test_a_feed_with_late_and_corrected_rows_tick_by_tick(made: Make) -> None:
    """Four hours of a feed, pushed as it arrives: served against newest event, newest revision."""
    rng = random.Random(7)
    names = [f"s{number}" for number in range(6)]
    start, tick = ago(6), timedelta(minutes=10)
    arriving: dict[int, list[Row]] = {}
    for number in range(24):
        for name in names:
            late = rng.choice([0, 0, 0, 0, 1, 3])
            at = number + late
            arriving.setdefault(at, []).append((name, start + number * tick, start + (at + 0.5) * tick, float(number)))
            if rng.random() < 0.3:
                again = at + rng.choice([1, 2])
                corrected = (name, start + number * tick, start + (again + 0.5) * tick, number + 0.5)
                arriving.setdefault(again, []).append(corrected)
    stores = {name: made(name, []) for name in (*STOCK, "ours")}
    wrong = dict.fromkeys(stores, 0)
    known: dict[str, tuple[datetime, datetime, float | None]] = {}
    for number in range(24):
        for name, *rest in arriving.get(number, []):
            event, created, value = rest
            known[name] = max(
                known.get(name, (event, created, value)), (event, created, value), key=lambda row: row[:2]
            )
        expected = [known[name][2] if name in known else None for name in names]
        for kind, feast in stores.items():
            feast.push("weather_push", pushed(*arriving[number]))
            served = online(feast, *names)["temp"]
            wrong[kind] += sum(one != other for one, other in zip(served, expected, strict=True))
    assert wrong["ours"] == 0
    assert min(wrong[kind] for kind in STOCK) > 0, wrong


def _remove(feast: FeatureStore) -> None:
    """Make room for another store of the same name."""
    import shutil

    shutil.rmtree(Path(feast.config.registry.path).parent)
