"""Data sets of part files and Delta tables, in folders and buckets: written by executors, read again, and erased from."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from faulty_proxy import FaultyProxy

import alignment as al
from alignment.engines.spark import dataset as spark_dataset
from alignment.engines.spark import writing
from alignment.location import Location
from ingestion import create_log
from ingestion.dataset_files import DatasetFiles
from serving.cli import run

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PEOPLE = ["ann", "bob", "carol"]
LAYOUTS = ("parquet", "delta")


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of four rows, so that a few rows are several files."""
    for module in (spark_dataset, writing):
        monkeypatch.setattr(module, "PART_ROWS", 4)


@pytest.fixture
def bucket(spark, object_store, monkeypatch):
    """A bucket that this process and the executors reach by way of a faulty network."""
    with FaultyProxy(object_store.port) as proxy:
        for name, value in object_store.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
            monkeypatch.setitem(spark.sparkContext.environment, name, value)
        yield f"s3://{object_store.bucket()}/sets", proxy


def visits(root):
    log = create_log(root, "visits", entities=["person"])
    event = [NOON + n * MINUTE for n in range(6)]
    frame = pl.DataFrame({"person": PEOPLE * 2, "event_time": event, "steps": range(6)})
    log.append(frame.with_columns(arrival_time=pl.col("event_time") + MINUTE))
    return log


def build(log, **arguments):
    view = al.FeatureView("steps", observations=log, features=[al.latest("steps"), al.sequence("steps", 2)])
    asked = al.make_spine({"person": PEOPLE}, NOON, NOON + timedelta(minutes=40), "10m").sort("prediction_time")
    return al.build_dataset(asked, [view], label=al.label("steps", "10m", tolerance="9m"), **arguments)


def manifest_in(place):
    return json.loads(Location.of(place).read("manifest.json"))


def check(place, layout, expected):
    """The files are those that the manifest names, with these rows in this order, and nothing else is there."""
    location, told = Location.of(place), manifest_in(place)
    files = DatasetFiles(location, told)
    names = [entry["name"] for entry in told["files"]]
    found = [name for name in location.files_below() if not name.startswith("_delta_log/")]
    assert sorted(found) == sorted([*names, "manifest.json"])
    for entry in told["files"]:
        assert entry["sha256"] == hashlib.sha256(location.read(entry["name"])).hexdigest()
        assert entry["rows"] == pl.read_parquet(location.address_of(entry["name"]), glob=False).height
    if not names:
        assert expected.is_empty()
        return
    rows = files.scan().collect()
    assert rows.select(expected.columns).cast(dict(expected.schema)).equals(expected)
    if layout == "delta":
        assert pl.read_delta(location.address).height == expected.height
        assert sorted(files.names()) == sorted(names)
    else:
        assert names == sorted(names)
        assert pl.read_parquet(f"{location.address}/data.parquet/").equals(rows)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_executors_write_into_a_bucket_what_they_write_into_a_folder(spark, bucket, tmp_path, layout):
    place, proxy = bucket
    log = visits(f"{place}/logs")
    expected = build(log)
    made = build(log, engine="spark", spark=spark)
    for fault in ("busy", "refused", "failed after", "lost", "cut short"):
        proxy.plan(r"PUT .*/one/.*\.parquet", fault)
    proxy.plan("PUT .*/one/_delta_log/0+.json" if layout == "delta" else "PUT .*/part-00001.parquet", "lost")
    proxy.plan("PUT .*/one/manifest.json", "lost")
    assert made.write(f"{place}/one", layout=layout) == f"{place}/one/manifest.json"
    assert proxy.seen()["planned"] == 0
    assert made.manifest["content_hash"] == expected.manifest["content_hash"]
    assert len(manifest_in(f"{place}/one")["files"]) == 3
    check(f"{place}/one", layout, expected.frame)
    made.write(tmp_path / "one", layout=layout)
    check(tmp_path / "one", layout, expected.frame)
    if layout == "parquet":
        assert [entry["name"] for entry in manifest_in(tmp_path / "one")["files"]] == [
            f"data.parquet/part-0000{number}.parquet" for number in range(3)
        ]
        assert (tmp_path / "one" / "manifest.json").read_bytes() == Location.of(f"{place}/one").read("manifest.json")
    with pytest.raises(al.DatasetError, match="one is not empty"):
        made.write(f"{place}/one", layout=layout)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_an_entity_leaves_a_data_set_that_executors_wrote(spark, request, tmp_path, layout, where, capsys):
    root, proxy = (str(tmp_path), None) if where == "folder" else request.getfixturevalue("bucket")
    log = visits(f"{root}/logs")
    expected = build(log).frame
    made = build(log, engine="spark", spark=spark)
    made.write(f"{root}/one", layout=layout)
    place = Location.of(f"{root}/one")
    place.write(".attempts/of-a-lost-task.parquet", b"ann")
    if layout == "delta":
        place.write("of-a-lost-task.parquet", b"ann")
    before = manifest_in(place.address)["files"]
    assert run(["log", "erase", f"{root}/logs", "visits", "person=ann", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["rows"] for row in told if row["place"] == "data set"] == [4]
    if proxy is not None:
        proxy.plan(r"PUT .*/one/_delta_log/0+1\.json", "lost")
        proxy.plan(r"PUT .*/one/.*\.parquet", "failed after")
    report = log.erase({"person": "ann"})
    assert [(held.rows, held.note) for held in report.holdings if held.place == "data set"] == [(4, "")]
    check(place.address, layout, expected.filter(pl.col("person") != "ann"))
    assert len(manifest_in(place.address)["files"]) == len(before)
    assert [note["rows"] for note in manifest_in(place.address)["erasures"]] == [4]
    assert not [name for name in place.files_below() if b"ann" in place.read(name)]
    log.erase({"person": "bob"})
    log.erase({"person": "carol"})
    check(place.address, layout, expected.clear())
    assert [note["rows"] for note in manifest_in(place.address)["erasures"]] == [4, 4, 4]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("step", ["rewrite", "commit", "remove_leftovers", "facts"])
def test_an_erasure_that_broke_off_is_finished_the_next_time(spark, tmp_path, monkeypatch, layout, step):
    log = visits(tmp_path / "logs")
    expected = build(log).frame
    build(log, engine="spark", spark=spark).write(tmp_path / "one", layout=layout)
    real = getattr(DatasetFiles, step)

    def broken(self, *given, **_):
        if step == "commit":
            real(self, *given)
        raise OSError("the machine stopped")

    if step == "facts":  # after the files, before the manifest
        monkeypatch.setattr("ingestion.datasets._finish", broken)
    else:
        monkeypatch.setattr(DatasetFiles, step, broken)
    report = log.erase({"person": "ann"})
    monkeypatch.undo()
    assert not report.complete
    assert "the machine stopped; erase again" in str(report)
    assert log.erase({"person": "ann"}).complete
    check(tmp_path / "one", layout, expected.filter(pl.col("person") != "ann"))
    assert not [note for note in manifest_in(tmp_path / "one")["erasures"] if "unfinished" in note]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_line_builds_again_what_executors_wrote(spark, tmp_path, capsys, layout):
    made = build(visits(tmp_path / "logs"), engine="spark", spark=spark)
    made.write(tmp_path / "one", layout=layout)
    assert run(["dataset", "rebuild", str(tmp_path / "one")]) == 0, capsys.readouterr()
    assert "same: 12 rows" in capsys.readouterr().out


def test_a_write_that_fails_leaves_nothing_behind(spark, tmp_path):
    made = build(visits(tmp_path / "logs"), engine="spark", spark=spark)
    for layout, step in (("parquet", "commit_files"), ("delta", "commit_delta")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spark_dataset, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                made.write(tmp_path / "one", layout=layout)
    assert Location.of(tmp_path / "one").files_below() == []


def test_a_delta_table_is_one_for_every_reader_after_an_erasure(spark, tmp_path):
    log = visits(tmp_path / "logs")
    build(log, engine="spark", spark=spark).write(tmp_path / "one", layout="delta")
    log.erase({"person": "ann"})
    table = DeltaTable(str(tmp_path / "one"))
    assert table.version() == 1
    assert sorted(table.to_pyarrow_table()["person"].to_pylist()) == ["bob"] * 4 + ["carol"] * 4
    assert "ann" not in "".join(path.read_text() for path in (tmp_path / "one" / "_delta_log").glob("*.json"))
