"""Data sets in a bucket of a real store: the bytes of a folder, whole or not there, found again and erased."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from faulty_proxy import FaultyProxy
from object_store import KEY, SECRET, ObjectStore

import alignment as al
from alignment.location import Location
from ingestion import ObservationLog, create_log, registered_datasets
from serving.cli import run

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FAULTS = ("busy", "refused", "failed after", "lost", "cut short")
VIEWS = """
from datetime import UTC, datetime, timedelta
import alignment as al
import ingestion
noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
views = [al.FeatureView("steps", observations=ingestion.open_log("LOGS", "visits"), features=[al.latest("steps")])]
spine = al.make_spine({"person": ["ann", "bob"]}, noon, noon + timedelta(hours=1), "10m")
"""


@pytest.fixture
def bucket(object_store: ObjectStore, proxy: FaultyProxy) -> str:
    return f"s3://{object_store.bucket()}/some sets"


def visits(root: str | Path) -> ObservationLog:
    log = create_log(root, "visits", entities=["person"])
    people = ["ann", "bob", "ann", "bob"]
    event = [NOON + n * MINUTE for n in range(4)]
    frame = pl.DataFrame({"person": people, "event_time": event, "steps": [1, 2, 3, 4]})
    log.append(frame.with_columns(arrival_time=pl.col("event_time") + MINUTE))
    return log


def spine() -> pl.DataFrame:
    return al.make_spine({"person": ["ann", "bob"]}, NOON, NOON + timedelta(hours=1), "10m")


def build(log: ObservationLog, **arguments: object) -> al.Dataset:
    view = al.FeatureView("steps", observations=log, features=[al.latest("steps"), al.window("steps", "sum", "1h")])
    return al.build_dataset(spine(), [view], label=al.label("steps", "10m", tolerance="9m"), **arguments)


def content(place: str | Path) -> dict[str, bytes]:
    location = Location.of(place)
    return {name: location.read(name) for name in location.files_below()}


def test_a_data_set_in_a_bucket_has_the_bytes_of_one_in_a_folder(bucket: str, tmp_path: Path) -> None:
    log = visits(tmp_path / "logs")
    made = build(log)
    assert made.write(tmp_path / "set") == tmp_path / "set" / "manifest.json"
    assert made.write(f"{bucket}/one/") == f"{bucket}/one/manifest.json"
    here = content(tmp_path / "set")
    assert sorted(here) == ["data.parquet", "manifest.json"]
    assert content(f"{bucket}/one") == here
    build(log, into=f"{bucket}/two")
    limited = build(log, into=f"{bucket}/three", memory_limit="4GiB", spill=tmp_path)
    assert content(f"{bucket}/two") == content(f"{bucket}/three") == here
    assert limited.frame.equals(made.frame)
    assert limited.scan().select("label").collect().equals(made.frame.select("label"))
    limited.write(tmp_path / "back")
    limited.write(f"{bucket}/three")
    limited.write(f"{bucket}/four")
    assert content(tmp_path / "back") == content(f"{bucket}/three") == content(f"{bucket}/four") == here
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "logs", "set"]


def test_rows_that_come_in_parts_go_into_a_bucket_as_into_a_folder(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignment import larger

    monkeypatch.setattr(larger, "fits", lambda *_: False)
    log = visits(tmp_path / "logs")
    made = {place: build(log, into=place, memory_limit="64GiB") for place in (f"{bucket}/one", str(tmp_path / "set"))}
    assert len({one.manifest["content_hash"] for one in made.values()}) == 1
    assert content(f"{bucket}/one") == content(tmp_path / "set")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_data_set_is_whole_whatever_the_network_loses(
    bucket: str, proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    made = build(visits(tmp_path / "logs"))
    made.write(tmp_path / "set")
    for name in ("data.parquet", "manifest.json"):
        proxy.plan(f"PUT .*/{name}", fault, times=2)
    made.write(f"{bucket}/one")
    assert proxy.seen()["planned"] == 0
    assert content(f"{bucket}/one") == content(tmp_path / "set")


def test_a_store_that_stays_away_is_an_error_and_leaves_no_manifest(
    bucket: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignment.location.TRIES", 1)
    made = build(visits(tmp_path / "logs"))
    proxy.plan("PUT .*/data.parquet", "busy", times=1_000)
    with pytest.raises(OSError, match=r"data\.parquet"):
        made.write(f"{bucket}/one")
    assert Location.of(f"{bucket}/one").names() == []


def test_another_data_set_in_a_bucket_is_left_alone(bucket: str, tmp_path: Path) -> None:
    log = visits(tmp_path / "logs")
    build(log).write(f"{bucket}/one")
    before = content(f"{bucket}/one")
    with pytest.raises(al.DatasetError) as caught:
        build(log, as_of=NOON).write(f"{bucket}/one")
    assert str(caught.value) == (
        f"{bucket}/one holds another data set\n\nhint: write to a new folder; data sets are not overwritten."
    )
    assert content(f"{bucket}/one") == before


def test_an_address_with_a_secret_or_without_a_slash_is_refused(tmp_path: Path) -> None:
    made = build(visits(tmp_path / "logs"))
    with pytest.raises(al.AddressError, match="the address holds a user or a password") as caught:
        made.write(f"s3://{KEY}:{SECRET}@bucket/one")
    assert SECRET not in str(caught.value)
    with pytest.raises(al.DatasetError) as other:
        made.write(Path("s3://bucket/one"))
    assert str(other.value) == (
        's3:/bucket/one is a Path, which takes a slash from an address\n\nhint: pass it as text: "s3://bucket/prefix".'
    )


def test_an_erasure_finds_the_copy_in_a_bucket_whatever_the_network_loses(
    bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    log = visits(f"{bucket}/logs")
    made = build(log)
    made.write(f"{bucket}/one")
    made.write(tmp_path / "two")
    manifests = [f"{bucket}/one/manifest.json", str(tmp_path / "two" / "manifest.json")]
    assert registered_datasets(f"{bucket}/logs") == sorted(manifests)
    proxy.plan("PUT .*/one/data.parquet", "failed after")
    proxy.plan("PUT .*/one/manifest.json", "lost")
    proxy.plan("GET .*/one/data.parquet", "cut short")
    report = log.erase({"person": "ann"})
    assert {
        held.address: (held.rows, held.note) for held in report.holdings if held.place == "data set"
    } == dict.fromkeys(manifests, (6, ""))
    assert proxy.seen()["planned"] == 0
    for place in (f"{bucket}/one", tmp_path / "two"):
        found = content(place)
        told = json.loads(found["manifest.json"])
        assert sorted(found) == ["data.parquet", "manifest.json"]
        assert b"ann" not in found["data.parquet"]
        assert told["data_sha256"] == hashlib.sha256(found["data.parquet"]).hexdigest()
        assert [(note["rows"], note["entity_hash"]) for note in told["erasures"]] == [(6, report.entity_hash)]
    assert made.frame.filter(person="bob").equals(pl.read_parquet(f"{bucket}/one/data.parquet", glob=False))
    assert not [held for held in log.erase({"person": "ann"}).holdings if held.place == "data set"]


def test_a_data_set_out_of_reach_is_told_and_erased_next_time(
    bucket: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = visits(tmp_path / "logs")
    build(log).write(f"{bucket}/one")
    monkeypatch.setattr("alignment.location.TRIES", 1)
    proxy.plan("PUT .*/one/data.parquet", "busy", times=11)
    report = log.erase({"person": "ann"})
    (held,) = [held for held in report.holdings if held.place == "data set"]
    assert not report.complete
    assert held.address == f"{bucket}/one/manifest.json"
    assert held.note.endswith("erase again once it can be read and written")
    again = log.erase({"person": "ann"})
    assert again.complete
    found = content(f"{bucket}/one")
    told = json.loads(found["manifest.json"])
    assert b"ann" not in found["data.parquet"]
    assert told["data_sha256"] == hashlib.sha256(found["data.parquet"]).hexdigest()
    assert not [note for note in told["erasures"] if "unfinished" in note]


def test_the_command_line_takes_a_bucket_for_a_folder_of_a_data_set(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    visits(f"{bucket}/logs")
    Path("views.py").write_text(VIEWS.replace("LOGS", f"{bucket}/logs"))

    def asknown(*arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code, capsys.readouterr().err
        told = capsys.readouterr()
        return told.out + told.err

    assert f"12 rows as of 2026-06-01T12:04:00+00:00 -> {bucket}/one/manifest.json" in asknown(
        "dataset", "build", "views.py", f"{bucket}/one"
    )
    asknown("dataset", "build", "views.py", "set")
    assert content(f"{bucket}/one") == content("set")
    built = json.loads(
        asknown("dataset", "build", "views.py", f"{bucket}/more", "--memory-limit", "4GiB", "--json").partition(
            "\n12 rows"
        )[0]
    )
    assert built["data"] == "data.parquet"
    assert "same: 12 rows" in asknown("dataset", "rebuild", f"{bucket}/one", "--out", f"{bucket}/again")
    assert content(f"{bucket}/again")["data.parquet"] == content("set")["data.parquet"]
    assert f"{bucket}/one" in asknown("lineage", "steps", "--root", f"{bucket}/logs")
    asknown("lineage", "steps", "--datasets", f"{bucket}/again")
    assert "--datasets s3://" in asknown("lineage", "steps", "--datasets", f"{bucket}/none", code=2)
    held = json.loads(asknown("log", "erase", f"{bucket}/logs", "visits", "person=ann", "--dry-run", "--json"))
    assert {row["address"]: row["rows"] for row in held if row["place"] == "data set"} == {
        f"{bucket}/{name}/manifest.json": 6 for name in ("again", "more", "one")
    } | {str(tmp_path / "set" / "manifest.json"): 6}
    told = asknown("dataset", "rebuild", f"{bucket}/nothing", code=3)
    assert f"{bucket}/nothing/manifest.json" in told or "nothing/manifest.json" in told
    assert "holds a user or a password" in asknown("dataset", "build", "views.py", f"s3://{KEY}:{SECRET}@b/x", code=2)
