"""The worked example makes its point, for the default seed and for others, and is the same twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingestion.sources.simulated import FEEDS, SimulatedWorld
from serving import quickstart
from serving.cli import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory):
    """World, logs, data sets and scores of the default world."""
    world = SimulatedWorld()
    logs = quickstart.fill_logs(world, tmp_path_factory.mktemp("logs"))
    sets = quickstart.training_sets(world, logs)
    return world, logs, sets, quickstart.score(world, sets)


def test_the_naive_model_delivers_much_less_than_it_promises(example) -> None:
    scores = example[3]
    assert scores.live["event time"] > 1.3 * scores.promised["event time"]


def test_the_asknown_model_delivers_what_it_promises_and_more_than_the_naive_one(example) -> None:
    scores = example[3]
    assert scores.live["asknown"] == scores.promised["asknown"]
    assert scores.live["asknown"] < 0.95 * scores.live["event time"]
    assert scores.live["asknown"] < 0.95 * scores.persistence_live


@pytest.mark.parametrize("seed", [1, 2])
def test_the_point_does_not_hang_on_the_seed(seed: int, tmp_path: Path) -> None:
    world = SimulatedWorld(seed=seed)
    scores = quickstart.score(world, quickstart.training_sets(world, quickstart.fill_logs(world, tmp_path)))
    assert scores.promised["event time"] < scores.promised["asknown"] < scores.live["event time"]


def test_logs_hold_the_world_once_however_often_they_are_filled(example, tmp_path: Path) -> None:
    world = SimulatedWorld(days=3)
    quickstart.fill_logs(world, tmp_path)
    logs = quickstart.fill_logs(world, tmp_path)
    for feed in FEEDS:
        rows = logs[feed.provider].scan().collect()
        assert rows.height == world.observations(feed.provider).height
        assert rows["arrival_kind"].unique().to_list() == ["measured"]


def test_both_training_sets_have_the_same_rows_and_labels(example) -> None:
    sets = example[2]
    same = ["site", "prediction_time", "clear_sky", *quickstart.LABEL_COLUMNS]
    assert sets["event time"].frame.select(same).equals(sets["asknown"].frame.select(same))


def test_the_naive_rows_know_values_of_the_prediction_time_itself(example) -> None:
    sets = example[2]
    age = "pyranometer__event_age"
    fresh = (sets["event time"].frame[age].dt.total_minutes() == 0).mean()
    assert fresh > 0.95
    assert sets["asknown"].frame[age].dt.total_minutes().min() >= 20


def test_the_command_prints_the_table_draws_the_picture_and_is_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quickstart", "--into", str(tmp_path)]
    assert run(command) == 0
    # The README shows what `make quickstart` prints.
    assert f"```text\n{capsys.readouterr().out}```" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "what_was_known_when.png").read_bytes().startswith(b"\x89PNG")
    assert run([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
