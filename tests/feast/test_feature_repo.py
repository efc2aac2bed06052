"""feature_repo under Feast's own command line, servers and SDK, on a copy of it with a world of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from feast import FeatureStore
from services import free_port

import alignment as al
from alignment.definitions import read_view

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
VIEWS = ["inverter", "meter", "pyranometer", "sky_camera", "weather_mast"]


def run(repo: Path, *command: str) -> str:
    """What a command of Feast or asknown prints; it must succeed."""
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=repo, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with two days of logs, applied."""
    folder = tmp_path_factory.mktemp("power") / "feature_repo"
    shutil.copytree(ROOT / "feature_repo", folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    run(folder, "asknown", "world", "write", "data/logs", "--days", "2")
    run(folder, "feast", "apply")
    return folder


@pytest.fixture(scope="module")
def feast(repo: Path) -> FeatureStore:
    return FeatureStore(str(repo))


@contextlib.contextmanager
def serving(repo: Path, *command: str) -> Iterator[str]:
    """The address of a server of Feast's."""
    port = free_port()
    with (repo / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [BIN / "feast", *command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=repo,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=said,
            stderr=said,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, (repo / "said.txt").read_text()
            assert time.monotonic() < end, "it does not listen"
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            with contextlib.suppress(urllib.error.HTTPError, urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_apply_puts_everything_into_the_registry_and_a_second_plan_changes_nothing(
    repo: Path, feast: FeatureStore
) -> None:
    assert sorted(view.name for view in feast.list_feature_views()) == VIEWS
    assert [entity.name for entity in feast.list_entities()] == ["site"]
    assert sorted(source.name for source in feast.list_data_sources()) == VIEWS
    assert [service.name for service in feast.list_feature_services()] == ["power"]
    assert "No changes to registry" in run(repo, "feast", "plan")


def test_materializing_from_the_command_line_finds_nothing_to_do(repo: Path) -> None:
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    run(repo, "feast", "materialize-incremental", now)
    run(repo, "feast", "materialize", "2020-01-01T00:00:00", now)
    assert not (repo / "data" / "online").exists()


def test_the_sdk_serves_what_alignment_evaluates(feast: FeatureStore) -> None:
    sites = ["dune", "harbour", "ridge", "nowhere"]
    service = feast.get_feature_service("power")
    before = datetime.now(UTC)
    served = feast.get_online_features(service, [{"site": site} for site in sites]).to_dict()
    spine = pl.DataFrame({"site": sites, "prediction_time": [before] * 4})
    views = [
        read_view(json.loads(view.tags["asknown.definition"]), view.batch_source.open(feast.repo_path))
        for view in feast.list_feature_views()
    ]
    known = al.point_in_time_join(spine, views)
    compared = [name for name in known.columns if known.schema[name] == pl.Float64]
    assert len(compared) == 15
    # The ages are those of another instant; so is a window that has just moved on: the bounds are full ten minutes.
    different = [name for name in compared if known[name].to_list() != served[name.split("__", 1)[1]]]
    assert different == [] or datetime.now(UTC).minute % 10 == 0
    assert [len(values) for values in served["sky_vector"][:3]] == [4, 4, 4]
    assert all(0 < age < 7200 for age in served["image_age"][:3])


def test_training_rows_come_out_of_feasts_call_as_alignment_makes_them(feast: FeatureStore) -> None:
    times = [datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours) for hours in (3, 9, 20)]
    asked = pd.DataFrame({"site": ["dune", "ridge", "harbour"], "event_timestamp": times})
    found = feast.get_historical_features(asked, feast.get_feature_service("power")).to_df()
    view = feast.get_feature_view("pyranometer")
    ours = read_view(json.loads(view.tags["asknown.definition"]), view.batch_source.open(feast.repo_path))
    spine = pl.DataFrame({"site": asked["site"].to_list(), "prediction_time": times})
    known = al.point_in_time_join(spine, ours)
    for feature in ("irradiance", "irradiance_mean_1h", "irradiance_slope_1h", "irradiance_lag_24h"):
        values = [None if pd.isna(value) else value for value in found[feature]]
        assert values == known[f"pyranometer__{feature}"].to_list()


def test_feast_serve_answers_over_http(repo: Path) -> None:
    with serving(repo, "serve", "--no-access-log") as address:
        answer = post(
            f"{address}/get-online-features", {"feature_service": "power", "entities": {"site": ["dune", "nowhere"]}}
        )
    names = answer["metadata"]["feature_names"]
    assert len(names) == 20
    power = answer["results"][names.index("power_kw_mean_1h")]
    assert power["statuses"] == ["PRESENT", "NOT_FOUND"]
    assert power["values"][0] >= 0


def test_feasts_ui_shows_each_features_window_provider_and_arrivals(repo: Path) -> None:
    with serving(repo, "ui") as address, urllib.request.urlopen(f"{address}/", timeout=30) as page:
        assert page.status == 200
    told = json.loads(run(repo, "feast", "registry-dump"))
    views = {view["spec"]["name"]: view["spec"] for view in told["featureViews"]}
    assert views["meter"]["tags"]["asknown.provider"] == "meter"
    assert views["meter"]["tags"]["asknown.arrivals"] == "stamped when a batch is committed, 500ms ahead of the clock"
    features = {feature["name"]: feature["tags"] for feature in views["meter"]["features"]}
    assert features["power_kw_mean_1h"]["window"] == "mean of power_kw over the last 1h"
    assert features["power_kw_lag_24h"]["lag"] == "power_kw as of 24h before"
