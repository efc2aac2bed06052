"""The worked example makes its point, for the default seed and for others, and is the same twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingestion.sources.simulated import FEEDS, SimulatedWorld
from serving import quickstart, quickstart_scores
from serving.cli import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory):
    """World, logs, data sets and scores of the default world."""
    world = SimulatedWorld()
    logs = quickstart.fill_logs(world, tmp_path_factory.mktemp("logs"))
    sets = quickstart.training_sets(world, logs)
    more = quickstart.under_outages(world, logs)
    return world, logs, sets, quickstart_scores.score(world, sets, logs=logs, more=more), more


@pytest.mark.parametrize("name", ["naive", "event time"])
def test_a_model_trained_without_arrivals_delivers_much_less_than_it_promises(example, name: str) -> None:
    score = example[3].methods[name]
    assert score.live > 1.3 * score.offline
    assert score.gap_low > 20  # kW, with 95 % confidence


@pytest.mark.parametrize("name", ["asknown", "asknown + outages", "router"])
def test_a_model_trained_by_asknown_delivers_what_it_promises(example, name: str) -> None:
    score = example[3].methods[name]
    # What was live is replayed, tick by tick; the rows of the data set are the same bit for bit.
    assert score.live == score.offline
    assert score.gap_low <= 0 <= score.gap_high


def test_the_asknown_model_delivers_more_than_the_naive_one(example) -> None:
    scores = example[3]
    assert scores.live["asknown"] < 0.95 * scores.live["naive"]
    assert scores.live["asknown"] < 0.95 * scores.persistence_live
    # A ridge regression minimises squared errors; by these it is better than one trained by a join on event time, too.
    assert scores.methods["asknown"].live_rmse < scores.methods["event time"].live_rmse


def test_training_under_outages_helps_when_a_provider_is_down(example) -> None:
    scores = example[3]
    augmented = scores.methods["asknown + outages"]
    assert scores.drawn_outage_rows > 1_000
    assert augmented.in_drawn_outages < scores.methods["asknown"].in_drawn_outages
    assert augmented.in_drawn_outages_less_asknown_high < 0  # with 95 % confidence
    assert scores.methods["naive"].in_drawn_outages > 1.3 * scores.methods["asknown"].in_drawn_outages


def test_the_replay_of_the_test_days_is_the_data_set_bit_for_bit(example) -> None:
    world, logs, sets, scores, _ = example
    asknown = sets["asknown"]
    both = asknown.frame.join(
        quickstart_scores.replayed(world, logs), on=["site", "prediction_time"], suffix=" replayed"
    )
    assert both.height == scores.test_rows
    for name in asknown.feature_columns:
        assert both[name].equals(both[f"{name} replayed"].alias(name)), name


def test_the_router_asks_the_variant_that_can_be_served(example) -> None:
    scores = example[3]
    assert sum(scores.variants.values()) == scores.test_rows
    assert scores.variants["full"] == scores.test_rows - scores.outage_rows
    assert set(scores.variants) >= {"full", "no_sky_camera", "no_pyranometer"}


def test_drawn_outages_leave_labels_and_rows_as_they_are(example) -> None:
    asknown, more = example[2]["asknown"], example[4]
    same = ["site", "prediction_time", "clear_sky", *quickstart.LABEL_COLUMNS]
    for dataset in more:
        assert dataset.frame.select(same).equals(asknown.frame.select(same))
        older = dataset.frame["pyranometer__event_age"] >= asknown.frame["pyranometer__event_age"]
        assert older.all()
        assert dataset.manifest["content_hash"] != asknown.manifest["content_hash"]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_point_does_not_hang_on_the_seed(seed: int, tmp_path: Path) -> None:
    world = SimulatedWorld(seed=seed)
    sets = quickstart.training_sets(world, quickstart.fill_logs(world, tmp_path))
    scores = quickstart_scores.score(world, sets)
    assert scores.promised["naive"] < scores.promised["asknown"] < scores.live["naive"]
    assert scores.methods["naive"].gap_low > 20
    assert scores.methods["event time"].gap_low > 20


def test_logs_hold_the_world_once_however_often_they_are_filled(example, tmp_path: Path) -> None:
    world = SimulatedWorld(days=3)
    quickstart.fill_logs(world, tmp_path)
    logs = quickstart.fill_logs(world, tmp_path)
    for feed in FEEDS:
        rows = logs[feed.provider].scan().collect()
        assert rows.height == world.observations(feed.provider).height
        assert rows["arrival_kind"].unique().to_list() == ["measured"]


@pytest.mark.parametrize("name", ["naive", "event time"])
def test_all_training_sets_have_the_same_rows_and_labels(example, name: str) -> None:
    sets = example[2]
    same = ["site", "prediction_time", "clear_sky", *quickstart.LABEL_COLUMNS]
    assert sets[name].frame.select(same).equals(sets["asknown"].frame.select(same))


@pytest.mark.parametrize("name", ["naive", "event time"])
def test_rows_made_without_arrivals_know_values_of_the_prediction_time_itself(example, name: str) -> None:
    sets = example[2]
    age = "pyranometer__event_age"
    fresh = (sets[name].frame[age].dt.total_minutes() == 0).mean()
    assert fresh > 0.95
    assert sets["asknown"].frame[age].dt.total_minutes().min() >= 20


def test_a_join_on_event_time_lacks_the_corrections_that_today_s_table_has(example) -> None:
    sets = example[2]
    naive, first = (sets[name].frame["pyranometer__irradiance"] for name in ("naive", "event time"))
    assert 0.1 < (naive != first).mean() < 0.5  # about a third of the days are corrected
    cover = "sky_camera__cloud_cover"
    assert sets["naive"].frame[cover].equals(sets["event time"].frame[cover])  # the camera is never corrected


def test_the_command_prints_the_table_draws_the_picture_and_is_the_same_twice(
    example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quickstart", "--into", str(tmp_path)]
    assert run(command) == 0
    # The README shows what `make quickstart` prints.
    assert f"```text\n{capsys.readouterr().out}```" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "what_was_known_when.png").read_bytes().startswith(b"\x89PNG")
    assert run([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("picture") == str(tmp_path / "what_was_known_when.png")
    assert printed == json.loads(json.dumps(example[3].to_dict()))
    assert {"unit", "promised", "live", "persistence_live", "training_rows", "test_rows"} <= set(printed)
