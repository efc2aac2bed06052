"""What Feast can be asked: entity frames of any order, SQL, ranges of time, services, on-demand views, saved data sets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import DeltaFormat
from feast.errors import (
    EntityTimestampInferenceException,
    FeastEntityDFMissingColumnsError,
    SavedDatasetLocationAlreadyExists,
)
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from feast_repos import OURS_OFFLINE, station, store, weather
from makers import at

from alignment.errors import KeyTypeError
from serving.errors import OptionError

ROWS = [
    ("a", at("10:00"), at("10:30"), 1.0),
    ("a", at("11:00"), at("11:30"), 2.0),
    ("b", at("10:00"), at("12:00"), 7.0),
]


@pytest.fixture
def feast(tmp_path: Path) -> FeatureStore:
    found = new_store(tmp_path)
    found.apply([station(), weather(tmp_path, ROWS)])
    return found


def new_store(folder: Path, **offline: Any) -> FeatureStore:
    return store(
        folder, online={"type": "sqlite", "path": str(folder / "o.db")}, offline={"type": OURS_OFFLINE, **offline}
    )


def frame(*rows: tuple[str | None, str], **more: Any) -> pd.DataFrame:
    times = [at(text) for _, text in rows]
    return pd.DataFrame({"station": [name for name, _ in rows], "event_timestamp": times, **more})


def test_rows_order_duplicates_and_carried_columns_of_the_entity_frame_are_kept(feast: FeatureStore) -> None:
    asked = frame(
        ("b", "12:00"),
        ("a", "10:00"),
        ("a", "11:30"),
        ("b", "12:00"),
        ("nowhere", "12:00"),
        (None, "12:00"),
        note=list("uvwxyz"),
    )
    asked.index = [9, 3, 3, 1, 0, 7]
    answer = feast.get_historical_features(asked, ["weather:temp"]).to_df()
    assert answer["temp"].fillna(-1).tolist() == [7.0, -1, 2.0, 7.0, -1, -1]
    assert answer["note"].tolist() == list("uvwxyz")
    assert answer.columns.tolist() == ["station", "event_timestamp", "note", "temp"]
    assert answer.index.tolist() == [0, 1, 2, 3, 4, 5]  # Feast's own jobs number rows anew
    assert asked.columns.tolist() == ["station", "event_timestamp", "note"]


def test_naive_times_and_texts_are_utc_and_another_zone_is_the_same_instant(feast: FeatureStore) -> None:
    times = [
        pd.Timestamp("2026-01-05 11:30"),
        "2026-01-05T11:29:59",
        pd.Timestamp("2026-01-05 12:30", tz="Europe/Berlin"),
    ]
    for time, expected in zip(times, [2.0, 1.0, 2.0], strict=True):
        asked = pd.DataFrame({"station": ["a"], "event_timestamp": [time]})
        answer = feast.get_historical_features(asked, ["weather:temp"]).to_arrow()
        assert answer["temp"].to_pylist() == [expected]
        assert answer["event_timestamp"].type.tz == "UTC"


def test_the_only_column_of_times_is_taken_for_the_prediction_time(feast: FeatureStore) -> None:
    asked = frame(("a", "11:30")).rename(columns={"event_timestamp": "asked_at"})
    assert feast.get_historical_features(asked, ["weather:temp"]).to_df()["temp"].tolist() == [2.0]
    with pytest.raises(EntityTimestampInferenceException):
        feast.get_historical_features(asked.assign(other=asked["asked_at"]), ["weather:temp"])


def test_polars_and_arrow_frames_are_entity_frames_too(feast: FeatureStore) -> None:
    asked = frame(("a", "11:30"))
    for other in (pl.from_pandas(asked), pa.Table.from_pandas(asked)):
        assert feast.get_historical_features(other, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [2.0]


def test_an_empty_entity_frame_gets_the_columns_and_no_rows(feast: FeatureStore) -> None:
    answer = feast.get_historical_features(frame(("a", "11:30")).head(0), ["weather:temp"]).to_arrow()
    assert answer.column_names == ["station", "event_timestamp", "temp"]
    assert answer.num_rows == 0


def test_what_the_entity_frame_lacks_or_has_twice_is_named(feast: FeatureStore) -> None:
    with pytest.raises(FeastEntityDFMissingColumnsError, match="station"):
        feast.get_historical_features(frame(("a", "11:30")).drop(columns="station"), ["weather:temp"]).to_arrow()
    with pytest.raises(
        OptionError, match=r"has a column 'temp', and so has the result\n\nhint: rename it, or pass full"
    ):
        feast.get_historical_features(frame(("a", "11:30"), temp=[1]), ["weather:temp"])
    with pytest.raises(OptionError, match="'event_timestamp' of the entity frame is null in 1 rows"):
        feast.get_historical_features(frame(("a", "11:30")).assign(event_timestamp=pd.NaT), ["weather:temp"])
    with pytest.raises(KeyTypeError, match="entity 'station' is String"):
        feast.get_historical_features(frame(("a", "11:30")).assign(station=1), ["weather:temp"]).to_arrow()


def test_sql_reads_files_and_registered_sources(feast: FeatureStore, tmp_path: Path) -> None:
    frame(("a", "11:30"), ("b", "12:00")).to_parquet(tmp_path / "asked.parquet")
    query = f"SELECT station, event_timestamp FROM read_parquet('{tmp_path}/asked.parquet') ORDER BY station DESC"
    assert feast.get_historical_features(query, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [7.0, 2.0]
    query = "SELECT station, created AS event_timestamp FROM weather_file WHERE station = 'a' ORDER BY created"
    assert feast.get_historical_features(query, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [1.0, 2.0]
    with pytest.raises(OptionError, match="the SQL of the entity frame failed"):
        feast.get_historical_features("SELECT nothing FROM nowhere", ["weather:temp"])


def test_without_an_entity_frame_every_entity_of_the_range_is_answered_at_its_end(feast: FeatureStore) -> None:
    def asked(start: str, end: str) -> list[tuple[Any, ...]]:
        job = feast.get_historical_features(None, ["weather:temp"], start_date=at(start), end_date=at(end))
        table = job.to_arrow()
        return [tuple(row.values()) for row in table.to_pylist()]

    assert asked("09:00", "11:00") == [(at("11:00"), "a", 1.0)]  # b is not known before 12:00
    assert asked("09:00", "12:00") == [(at("12:00"), "a", 2.0), (at("12:00"), "b", 7.0)]
    assert asked("10:30", "12:00") == [(at("12:00"), "a", 2.0)]  # b has no event after 10:00


def test_two_aliases_of_one_view_and_full_feature_names(tmp_path: Path) -> None:
    feast = new_store(tmp_path)
    view = weather(tmp_path, ROWS)
    here = view.with_name("here").with_join_key_map({"station": "from"})
    there = view.with_name("there").with_join_key_map({"station": "to"})
    service = FeatureService(name="trip", features=[here, there])
    feast.apply([station(), view, service])
    asked = pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"], "event_timestamp": [at("12:00")] * 2})
    answer = feast.get_historical_features(asked, feast.get_feature_service("trip"), full_feature_names=True).to_df()
    assert answer["here__temp"].tolist() == [2.0, 7.0]
    assert answer["there__temp"].tolist() == [7.0, 2.0]


def test_a_field_mapping_renames_columns_and_floats_of_pandas_are_whole_keys(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": [1, 2], "e": [at("10:00")] * 2, "c": [at("10:30")] * 2, "t": [1.0, 2.0]})
    rows.write_parquet(tmp_path / "rows.parquet")
    source = FileSource(
        name="rows",
        path=str(tmp_path / "rows.parquet"),
        timestamp_field="event",
        created_timestamp_column="c",
        field_mapping={"e": "event", "id": "meter", "t": "temp"},
    )
    meter = Entity(name="meter", join_keys=["meter"], value_type=ValueType.INT64)
    view = FeatureView(
        name="v",
        entities=[meter],
        schema=[Field(name="meter", dtype=Int64), Field(name="temp", dtype=Float64)],
        source=source,
    )
    feast = new_store(tmp_path)
    feast.apply([meter, view])
    asked = pd.DataFrame({"meter": [2.0, None, 1.0], "event_timestamp": [at("10:30")] * 3})
    assert feast.get_historical_features(asked, ["v:temp"]).to_arrow()["temp"].to_pylist() == [2.0, None, 1.0]


def test_a_view_without_entities_is_one_series_for_all(tmp_path: Path) -> None:
    feast = new_store(tmp_path)
    pl.DataFrame({"e": [at("10:00"), at("11:00")], "c": [at("10:30"), at("11:30")], "price": [1.0, 2.0]}).write_parquet(
        tmp_path / "p.parquet"
    )
    source = FileSource(name="p", path=str(tmp_path / "p.parquet"), timestamp_field="e", created_timestamp_column="c")
    feast.apply([FeatureView(name="market", entities=[], schema=[Field(name="price", dtype=Float64)], source=source)])
    asked = pd.DataFrame({"event_timestamp": [at("10:30"), at("11:30")]})
    assert feast.get_historical_features(asked, ["market:price"]).to_df()["price"].tolist() == [1.0, 2.0]
    feast.materialize(at("10:00"), at("12:00"))
    assert feast.get_online_features(["market:price"], [{"anyone": 1}]).to_dict()["price"] == [2.0]


def test_a_delta_table_answers_as_a_file_does(tmp_path: Path) -> None:
    feast = new_store(tmp_path)
    pl.DataFrame({"station": ["a"], "e": [at("10:00")], "c": [at("10:30")], "temp": [1.0]}).write_delta(
        str(tmp_path / "rows")
    )
    source = FileSource(
        name="rows",
        path=str(tmp_path / "rows"),
        file_format=DeltaFormat(),
        timestamp_field="e",
        created_timestamp_column="c",
    )
    view = FeatureView(name="weather", entities=[station()], schema=[Field(name="temp", dtype=Float64)], source=source)
    feast.apply([station(), view])
    asked = frame(("a", "10:29"), ("a", "10:30"))
    assert feast.get_historical_features(asked, ["weather:temp"]).to_arrow()["temp"].to_pylist() == [None, 1.0]


def test_texts_lists_and_integers_come_back_as_they_are(tmp_path: Path) -> None:
    rows = {
        "station": ["a"],
        "e": [at("10:00")],
        "c": [at("10:00")],
        "name": ["x"],
        "count": [2**60 + 1],
        "v": [[1.0, 2.0]],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    source = FileSource(
        name="rows", path=str(tmp_path / "rows.parquet"), timestamp_field="e", created_timestamp_column="c"
    )
    fields = [Field(name="name", dtype=String), Field(name="count", dtype=Int64)]
    feast = new_store(tmp_path)
    feast.apply([station(), FeatureView(name="w", entities=[station()], schema=fields, source=source)])
    answer = feast.get_historical_features(frame(("a", "10:00")), ["w:name", "w:count"]).to_arrow()
    assert answer.select(["name", "count"]).to_pylist() == [{"name": "x", "count": 2**60 + 1}]
    assert answer.schema.field("name").type == pa.string()


def test_an_on_demand_view_computes_from_what_had_arrived(tmp_path: Path) -> None:
    view = weather(tmp_path, ROWS)
    request = RequestSource(name="given", schema=[Field(name="plus", dtype=Float64)])

    @on_demand_feature_view(sources=[view, request], schema=[Field(name="raised", dtype=Float64)])
    def raised(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"raised": inputs["temp"] + inputs["plus"]})

    feast = new_store(tmp_path)
    feast.apply([station(), view, raised])
    asked = frame(("a", "11:29"), ("a", "11:30"), plus=[10.0, 10.0])
    assert feast.get_historical_features(asked, ["raised:raised"]).to_df()["raised"].tolist() == [11.0, 12.0]


@pytest.mark.parametrize("kind", ["file", "folder", "delta"])
def test_a_saved_data_set_comes_back_and_is_not_overwritten_unless_asked(
    feast: FeatureStore, tmp_path: Path, kind: str
) -> None:
    path = str(tmp_path / ("saved.parquet" if kind == "file" else "saved"))
    form = {"file_format": DeltaFormat()} if kind == "delta" else {}
    asked = frame(("a", "11:30"), ("b", "12:00"), ("nowhere", "12:00"))
    storage = SavedDatasetFileStorage(path=path, **form)

    def save(rows: pd.DataFrame, **more: Any) -> None:
        feast.create_saved_dataset(feast.get_historical_features(rows, ["weather:temp"]), "kept", storage, **more)

    save(asked)
    assert feast.get_saved_dataset("kept").to_df()["temp"].fillna(-1).tolist() == [2.0, 7.0, -1]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        save(asked)
    save(asked.head(1), allow_overwrite=True)
    assert feast.get_saved_dataset("kept").to_df()["temp"].tolist() == [2.0]


def test_the_job_tells_what_was_asked(feast: FeatureStore) -> None:
    job = feast.get_historical_features(frame(("a", "11:30"), ("b", "12:00")), ["weather:temp"])
    assert job.metadata is not None
    assert (job.metadata.features, job.metadata.keys) == (["weather:temp"], ["station"])
    assert (job.metadata.min_event_timestamp, job.metadata.max_event_timestamp) == (at("11:30"), at("12:00"))
    assert job.metadata.max_event_timestamp - job.metadata.min_event_timestamp == timedelta(minutes=30)
