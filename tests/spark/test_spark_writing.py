"""Data sets built on Spark: what is written, what is counted, and what a lost task leaves behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import alignment as al
from alignment.engines.spark.writing import Writer, commit_files, remove_leftovers
from alignment.hashing import frame_hash
from alignment.location import Location

START = datetime(2026, 1, 5, tzinfo=UTC)
PATH = "data.parquet"


def readings(rows: int = 2_000) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    event = START + pl.Series(draw.integers(0, 4_000, rows)) * timedelta(minutes=1)
    return pl.DataFrame(
        {
            "site": [f"s{n}" for n in draw.integers(0, 9, rows)],
            "event_time": event,
            "arrival_time": event + pl.Series(draw.integers(0, 90, rows)) * timedelta(minutes=1),
            "log_sequence": np.arange(rows),
            "load": draw.standard_normal(rows),
            "code": pl.Series(draw.integers(0, 5, rows), dtype=pl.UInt8),
        }
    ).with_columns(pl.col("event_time", "arrival_time").dt.convert_time_zone("UTC"))


def view_over(frame: object) -> al.FeatureView:
    features = [al.latest("load"), al.window("load", ["mean", "std"], "3h"), al.sequence("code", 3), al.event_age()]
    return al.FeatureView("meter", ["site"], frame, features)


def spine() -> pl.DataFrame:
    asked = al.make_spine({"site": [f"s{n}" for n in range(9)]}, START, START + timedelta(days=2), "97m")
    return asked.sample(fraction=1.0, shuffle=True, seed=5)


def test_a_data_set_written_by_spark_is_that_of_the_local_engine(spark, tmp_path):
    frame, label = readings(), al.label("load", "1h", tolerance="30m")
    expected = al.build_dataset(spine(), [view_over(frame)], label=label)
    made = al.build_dataset(spine(), [view_over(frame)], label=label, engine="spark", spark=spark)
    assert sorted(made.frame.columns) == sorted(expected.frame.columns)
    made.write(tmp_path / "set")
    found = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert found["content_hash"] == expected.manifest["content_hash"]
    assert made.manifest == expected.manifest | {"engine": "spark"}
    stored = pl.read_parquet(tmp_path / "set" / PATH)
    assert frame_hash(stored) == expected.manifest["content_hash"]
    again = al.rebuild(found, stored.select(found["spine"]["columns"]), {"meter": frame})
    assert again.same, again.problem


def test_a_spine_in_spark_is_written_in_the_order_of_its_columns_to_a_delta_table(spark, tmp_path):
    frame, asked = readings().drop("code"), spine().sort("site", "prediction_time")
    view = al.FeatureView("meter", ["site"], frame, [al.latest("load"), al.sequence("load", 2)])
    expected = al.build_dataset(asked, [view])
    there = [spark.createDataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest())) for rows in (asked, frame)]
    remote = al.FeatureView("meter", ["site"], there[1], [al.latest("load"), al.sequence("load", 2)])
    made = al.build_dataset(there[0], [remote], engine="spark", spark=spark)
    with pytest.raises(al.DatasetError, match="write it first"):
        _ = made.manifest
    made.write(tmp_path / "table", layout="delta")
    assert made.manifest["content_hash"] == expected.manifest["content_hash"]
    assert (
        made.manifest["inputs"]["meter"]["greatest_arrival"] == expected.manifest["inputs"]["meter"]["greatest_arrival"]
    )
    stored = pl.read_delta(str(tmp_path / "table")).sort("site", "prediction_time")
    assert stored["meter__load"].equals(expected.frame["meter__load"], null_equal=True)


def test_columns_of_any_name_are_written_and_the_spines_own_row_column_with_them(spark, tmp_path):
    frame = readings(200).rename({"load": "load.max"})
    view = al.FeatureView("meter", ["site"], frame, [al.latest("load.max")])
    asked = spine().with_columns(
        pl.lit(7).alias("@row"), pl.lit(1).alias("a.b"), pl.lit(2).alias("A.B"), pl.lit("x").alias("q`q")
    )
    expected = al.build_dataset(asked, [view])
    made = al.build_dataset(asked, [view], engine="spark", spark=spark)
    assert made.frame.columns == expected.frame.columns
    made.write(tmp_path / "set")
    assert made.manifest == expected.manifest | {"engine": "spark"}
    assert frame_hash(pl.read_parquet(tmp_path / "set" / PATH)) == frame_hash(expected.frame)


def test_what_the_driver_was_not_told_of_is_no_part_of_a_data_set(tmp_path):
    frame = pl.DataFrame({"x": [1.5, None], "provisional": [False, True]})
    writer = Writer(str(tmp_path / ".attempts"), frame.schema, frame.schema, ("x",))
    first, second = writer.written(frame), writer.written(frame)  # the same task, run twice
    assert first.name != second.name
    assert (first.rows, first.nulls, first.provisional) == (2, {"x": 1}, 1)
    place = Location.of(tmp_path)
    assert commit_files(place, [(0, second)]) == ["data.parquet/part-00000.parquet"]
    remove_leftovers(place, ["data.parquet/part-00000.parquet"])
    assert place.files_below() == ["data.parquet/part-00000.parquet"]
    assert not (tmp_path / ".attempts").exists()


def test_a_folder_that_is_not_empty_is_refused(spark, tmp_path):
    made = al.build_dataset(spine(), [view_over(readings())], engine="spark", spark=spark)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(al.DatasetError, match="not empty"):
        made.write(tmp_path)
