"""A column that was renamed: declarations and manifests that still use its former name."""

from __future__ import annotations

import json

import polars as pl
from makers import at

import alignment as al
import ingestion


def test_a_data_set_is_rebuilt_after_its_column_was_renamed(tmp_path):
    frame = pl.DataFrame(
        {
            "station": ["a", "a"],
            "event_time": [at("10:00"), at("10:10")],
            "arrival_time": [at("10:20"), at("10:30")],
            "temp": [1.0, 2.0],
        }
    )
    log = ingestion.create_log(tmp_path, "mast", entities=["station"])
    log.append(frame)
    view = al.FeatureView("v", observations=log, features=[al.latest("temp"), al.window("temp", "sum", "1h")])
    spine = al.make_spine({"station": ["a"]}, at("10:20"), at("10:50"), "10m")
    built = al.build_dataset(spine, [view])
    assert built.frame["v__temp_sum_1h"].to_list() == [1.0, 3.0, 3.0]

    log.rename_column("temp", "temperature")

    renamed = ingestion.open_log(tmp_path, "mast")
    again = al.rebuild(json.loads(json.dumps(built.manifest)), spine, {"v": renamed})
    assert (again.same, again.problem) == (True, "")
    both = al.FeatureView("v", observations=renamed, features=[al.latest("temp"), al.latest("temperature")])
    assert al.point_in_time_join(spine, both).select("v__temp", "v__temperature").rows() == [
        (1.0, 1.0),
        (2.0, 2.0),
        (2.0, 2.0),
    ]
    assert both.observations.values == ["temperature"]
    assert al.snapshot(both, at("11:00")).columns == ["station", "event_time", "arrival_time", "temperature"]


def test_rows_are_still_there_after_an_erasure_and_a_rename(tmp_path):
    log = ingestion.create_log(tmp_path, "mast", entities=["station"])
    for station in ("a", "b"):
        log.append(pl.DataFrame({"station": [station], "event_time": [at("10:00")], "temp": [1.0]}))
    log.erase({"station": "b"})
    log.rename_column("temp", "temperature")  # one file for all rows and records, that of the erasure among them
    assert log.scan().collect().select("station", "temperature").rows() == [("a", 1.0)]
    assert [removal.rows for removal in log.removals()] == [1]
    log.compact()
    assert log.scan().collect().height == 1
