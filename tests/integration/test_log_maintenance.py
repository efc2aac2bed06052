"""Compaction, retirement, erasure, older versions, other engines: on real tables in temporary folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

import ingestion
from ingestion import ObservationLog, create_log, is_hash_of, open_log, register_dataset

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def fill(root: Path, *, batches: int = 6, retention: str | None = None, key: list[str] | None = None) -> ObservationLog:
    """One batch an hour, each with three people's values of the hour before, and a correction of the first hour."""
    log = create_log(
        root, "visits", entities=["person"], publish_margin="1s", retention=retention, key=key, clock=lambda: START
    )
    for n in range(batches):
        people = ["person-seventeen", "bob", "carol"]
        frame = pl.DataFrame(
            {
                "person": [*people, "bob"],
                "event_time": [START + (n - 1) * HOUR] * 3 + [START - HOUR],
                "steps": [n, n + 1, n + 2, 100 + n],
            }
        )
        frame = frame if key is None else frame.with_columns(id=pl.Series([3 * n, 3 * n + 1, 3 * n + 2, 1]))
        log.append(frame, batch_id=f"batch-{n}", clock=lambda n=n: START + n * HOUR)  # type: ignore[misc]
    return log


def answers(log: ObservationLog) -> list[pl.DataFrame]:
    """What the log says at every position."""
    return [log.scan(position=p).collect().sort("log_sequence") for p in range(-1, log.position() + 1)]


def bytes_on_disk(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_compaction_and_vacuum_change_no_answer_at_any_position(tmp_path: Path) -> None:
    log = fill(tmp_path)
    for hour in (9, 12):  # late commits, so that there are restamp records to merge too
        later = START + (hour + 1) * HOUR
        log.append(
            pl.DataFrame({"person": ["bob"], "event_time": [START], "steps": [0]}),
            clock=iter([START + hour * HOUR, later, later, later]).__next__,
        )
    assert log.restamps().height == 2
    before = answers(log)
    report = log.compact(vacuum=True)
    # six batches and two late ones into one file, two restamps into another
    assert (report.files_before, report.files_after) == (10, 2)
    assert report.files_deleted == 10
    for expected, found in zip(before, answers(open_log(tmp_path, "visits")), strict=True):
        assert found.equals(expected)
    assert log.compact().rows_rewritten == 0
    log.append(pl.DataFrame({"person": ["bob"], "event_time": [START], "steps": [1]}), clock=lambda: START + 20 * HOUR)
    assert log.position() == before[-1].height + 2


def test_appends_go_on_while_files_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fill(tmp_path)
    other = open_log(tmp_path, "visits", clock=lambda: START + 7 * HOUR)
    write = log.table.write_file

    def write_while_another_appends(frame: pl.DataFrame) -> Any:
        other.append(pl.DataFrame({"person": ["bob"], "event_time": [START], "steps": [7]}))
        return write(frame)

    monkeypatch.setattr(log.table, "write_file", write_while_another_appends)
    report = log.compact()
    assert report.attempts in {1, 2}
    rows = log.scan().collect()
    assert rows.height == 25
    assert sorted(rows["log_sequence"]) == list(range(25))


def test_a_question_opens_only_the_files_that_can_matter(tmp_path: Path) -> None:
    log = fill(tmp_path)
    # batch n is stamped at START + n h + 1 s, has events of START + (n - 1) h and of START - 1 h, and sequences 4n..4n+3
    assert log.files_for().read.height == 6
    assert log.files_for(position=7).skipped["reason"].to_list() == ["position"] * 4
    assert log.files_for(as_of=START + 2 * HOUR).skipped["reason"].to_list() == ["as_of"] * 4
    recent = log.files_for(event_from=START + 3 * HOUR)
    assert recent.skipped["reason"].to_list() == ["event_from"] * 4
    assert (recent.rows_read, recent.rows_skipped) == (8, 16)
    assert str(recent) == "visits: reads 2 files (8 rows), skips 4 (16 rows): 4 by event_from"
    assert log.files_for(event_until=START - 2 * HOUR).read.height == 0
    assert log.scan(event_until=START - 2 * HOUR).collect().height == 0
    assert recent.to_dict()["files_skipped"] == 4


def test_events_of_ids_may_move_so_their_bounds_skip_nothing(tmp_path: Path) -> None:
    log = fill(tmp_path, key=["id"])
    assert log.files_for(event_from=START + 3 * HOUR).read.height == 6


def test_retirement_takes_whole_keys_and_says_which_rows(tmp_path: Path) -> None:
    log = fill(tmp_path, retention="3h")
    before = log.scan().collect().sort("log_sequence")
    # at START + 5 h the events before START + 2 h go: those of batches 0, 1, 2, and every correction of the first hour
    removal = log.retire(now=START + 5 * HOUR)
    assert removal is not None
    gone = before.filter(pl.col("event_time") < START + 2 * HOUR)
    assert (removal.kind, removal.rows, removal.entities, removal.reason) == ("retired", gone.height, 3, "retention 3h")
    named = [n for first, last in removal.log_sequences.iter_rows() for n in range(first, last + 1)]
    assert named == gone["log_sequence"].to_list()
    assert log.scan().collect().sort("log_sequence").equals(before.filter(pl.col("event_time") >= START + 2 * HOUR))
    assert log.position() == 24
    assert log.removals()[0].log_sequence == 24
    assert log.retire(now=START + 5 * HOUR) is None
    assert json.loads(json.dumps(removal.to_dict()))["rows"] == gone.height


def test_retirement_of_ids_follows_their_last_event(tmp_path: Path) -> None:
    log = create_log(tmp_path, "orders", entities=["site"], key=["id"], retention="1h", clock=lambda: START)
    frame = pl.DataFrame({"site": ["a", "a"], "id": [1, 2], "event_time": [START - 5 * HOUR] * 2, "size": [1, 2]})
    log.append(frame)
    log.append(frame.head(1).with_columns(event_time=pl.lit(START)))
    removal = log.retire()
    assert removal is not None
    # order 1 was moved to an hour that is kept, so its old revision stays as well
    assert log.scan().collect().sort("log_sequence")["log_sequence"].to_list() == [0, 2]


def test_erasure_leaves_no_byte_of_the_entity_and_no_other_answer_changes(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    log = fill(root)
    log.append(  # quarantined: far in the future
        pl.DataFrame({"person": ["person-seventeen"], "event_time": [START + 99 * HOUR], "steps": [1]}),
        clock=lambda: START + 6 * HOUR,
    )
    log.compact()  # older versions stay on disk, with the entity in them
    data = tmp_path / "training"
    data.mkdir()
    log.scan().rename({"person": "visitor"}).collect().write_parquet(data / "part-0.parquet")
    definitions = {"views": [{"name": "visits", "entity_map": {"visitor": "person"}}]}
    manifest = {"rows": 24, "data": "part-0.parquet", "data_sha256": "old", "definitions": definitions}
    (data / "manifest.json").write_text(json.dumps(manifest))
    register_dataset(root, data / "manifest.json")
    register_dataset(root, data / "manifest.json")

    class Ledger:
        name = "ledger samples"

        def erase_entity(self, provider: str, entity: Mapping[str, Any]) -> int:
            assert (provider, entity) == ("visits", {"person": "person-seventeen"})
            return 3

    assert len(bytes_on_disk(tmp_path, "person-seventeen")) >= 8
    others = [frame.filter(pl.col("person") != "person-seventeen") for frame in answers(log)]
    report = log.erase({"person": "person-seventeen"}, places=[Ledger()])
    assert {holding.place: holding.rows for holding in report.holdings} == {
        "log": 6,
        "quarantine": 1,
        "data set": 6,
        "ledger samples": 3,
    }
    assert report.complete
    assert is_hash_of(report.entity_hash, {"person": "person-seventeen"})
    assert not is_hash_of(report.entity_hash, {"person": "bob"})
    assert bytes_on_disk(tmp_path, "person-seventeen") == []

    reopened = open_log(root, "visits")
    assert all(left.equals(right) for left, right in zip(others, answers(reopened), strict=False))
    (removal,) = reopened.removals()
    assert removal.kind == "erased"
    assert removal.log_sequences.rows() == [(n, n) for n in range(0, 24, 4)]
    noted = json.loads((data / "manifest.json").read_text())
    assert noted["erasures"][0]["rows"] == 6
    assert noted["data_sha256"] == hashlib.sha256((data / "part-0.parquet").read_bytes()).hexdigest()
    assert pl.read_parquet(data / "part-0.parquet")["visitor"].unique().sort().to_list() == ["bob", "carol"]
    # again: nothing is left, and the answer says so
    assert log.erase({"person": "person-seventeen"}).rows == 0
    # what is older than the erasure cannot be read any more
    with pytest.raises(Exception, match=r".*"):
        DeltaTable(str(root / "visits"), version=3).to_pyarrow_table()


def test_an_erasure_finds_the_entity_in_orphans_of_dead_writers(tmp_path: Path) -> None:
    log = fill(tmp_path)
    log.table.write_file(
        pl.scan_parquet(log.table.address_of(log.table.files()["path"][0])).collect()
    )  # written, never committed
    log.erase({"person": "person-seventeen"})
    assert bytes_on_disk(tmp_path, "person-seventeen") == []


def test_an_erasure_points_at_batch_ids_that_name_the_entity(tmp_path: Path) -> None:
    log = fill(tmp_path)
    log.append(
        pl.DataFrame({"person": ["bob"], "event_time": [START], "steps": [0]}),
        batch_id="upload of person-seventeen",
        clock=lambda: START + 7 * HOUR,
    )
    report = log.erase({"person": "person-seventeen"})
    assert not report.complete
    assert "1 batch ids contain the value" in str(report)


def test_only_entity_columns_are_erased_by(tmp_path: Path) -> None:
    log = fill(tmp_path, batches=1)
    with pytest.raises(ingestion.ErasureError) as caught:
        log.erase({"steps": 1})
    assert str(caught.value) == ("provider 'visits' has no entity column 'steps'\n\nhint: name the entity by 'person'.")


def test_columns_change_without_changing_other_answers(tmp_path: Path) -> None:
    log = fill(tmp_path)
    before = answers(log)
    log.rename_column("steps", "count")
    for narrower in (pl.Int8, pl.UInt32):
        with pytest.raises(ingestion.SchemaChangeError) as caught:
            log.widen_column("count", narrower)
        assert str(caught.value) == (
            f"provider 'visits': column 'count' is Int64, and {narrower()} is narrower\n\nhint: keep the new values under another name."
        )
    log.widen_column("count", pl.Float64)
    with pytest.raises(ingestion.SchemaChangeError):
        log.widen_column("count", pl.Int64)
    for expected, found in zip(before, answers(log), strict=True):
        assert found.rename({"count": "steps"}).cast({"steps": pl.Int64}).equals(expected)
    log.compact(vacuum=True)
    assert answers(log)[-1].height == 24


def test_other_engines_read_the_table_after_many_commits(tmp_path: Path) -> None:
    log = create_log(tmp_path, "meters", entities=["meter"], clock=lambda: START)
    for n in range(60):  # past a checkpoint
        log.append(pl.DataFrame({"meter": ["a"], "event_time": [START - n * HOUR], "kwh": [float(n)]}))
    table = open_log(tmp_path, "meters")
    assert table.position() == 59
    assert table.files_for(event_from=START - 5 * HOUR).read.height == 6
    assert DeltaTable(str(tmp_path / "meters")).to_pyarrow_table().num_rows == 60
    assert table.append(pl.DataFrame({"meter": ["a"], "event_time": [START], "kwh": [0.5]})).position == 60


def test_info_and_profile_are_plain_data(tmp_path: Path) -> None:
    log = fill(tmp_path)
    info = log.info()
    assert (info.rows, info.files, info.position) == (24, 6, 23)
    json.dumps(info.to_dict())
    assert "visits (measurement, by person)" in str(info)
    found = ingestion.profile(log)
    # 18 keys; bob's first hour came six times more, the first of them beside its own row
    assert (found.rows, found.keys) == (24, 18)
    assert found.revision_rate == pytest.approx(6 / 18)
    assert found.first_delay.q50 == 3601.0
    steps = found.columns[0]
    assert (steps.revised_keys, steps.nulls) == (1, 0)
    # bob's first hour is 1, 100, 101, ... 105: 104 is within 1 % of 105, and came 4 h after the first
    assert steps.settled_after_first.max == 4 * 3600.0
    assert steps.first_within == pytest.approx(17 / 18)
    json.dumps(found.to_dict())
    assert "first arrival" in str(found)


def test_a_profile_shows_gaps_bulk_loads_and_clock_faults(tmp_path: Path) -> None:
    log = create_log(tmp_path, "meters", entities=["meter"])
    hours = [START + n * HOUR for n in range(1500)]
    bulk = pl.DataFrame({"meter": "a", "event_time": hours, "kwh": [None, *range(1499)]}).with_columns(
        arrival_time=pl.lit(START + 1500 * HOUR)
    )
    single = pl.DataFrame(
        {
            "meter": ["a"] * 30,
            "event_time": [START + n * HOUR for n in range(1500, 1530)],
            "kwh": [1] * 30,
            "arrival_time": [START + (n + (100 if n == 1529 else 0)) * HOUR for n in range(1500, 1530)],
            "published_time": [START + 1501 * HOUR] * 30,
            "is_retraction": [False] * 29 + [True],
        }
    )
    log.append(bulk, clock=lambda: START + 9999 * HOUR)
    log.append(single, clock=lambda: START + 9999 * HOUR)
    found = ingestion.profile(log)
    assert found.retractions == 1
    assert [load["rows"] for load in found.bulk_loads] == [1501]
    assert [gap["seconds"] for gap in found.gaps] == [101 * 3600.0]
    assert found.columns[0].nulls == 1
    assert found.clock_faults["published_time is after arrival_time"] == 1
    assert found.clock_faults["event_time is not before arrival_time (the arrival was raised)"] == 29
    figure = found.plot(tmp_path / "profile.png")
    assert len(figure.axes) == 3
    assert (tmp_path / "profile.png").stat().st_size > 10_000
