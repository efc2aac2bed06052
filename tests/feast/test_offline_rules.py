"""The rules of time through Feast's SDK, over a Parquet file; expected values typed by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64
from feast_repos import OURS_OFFLINE, station, store, weather, write
from makers import at

from alignment.errors import AmbiguousRevisionsError
from serving.errors import OptionError

# station, event, created, temp
ROWS = [
    ("a", at("10:00"), at("10:30"), 1.0),
    ("a", at("11:00"), at("11:30"), 2.0),
    ("a", at("11:00"), at("13:00"), 2.5),  # a correction
    ("a", at("09:00"), at("14:00"), 0.5),  # an older event that arrives late
    ("b", at("10:00"), at("10:00"), 7.0),
]


def feast_store(folder: Path, rows: Any = ROWS, *, ttl: timedelta | None = None, **offline: Any) -> FeatureStore:
    found = store(
        folder, online={"type": "sqlite", "path": str(folder / "online.db")}, offline={"type": OURS_OFFLINE, **offline}
    )
    found.apply([station(), weather(folder, rows, ttl=ttl)])
    return found


def entity_frame(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"station": [name for name, _ in rows], "event_timestamp": [at(text) for _, text in rows]})


def temps(feast: FeatureStore, *rows: tuple[str, str], **more: Any) -> list[float | None]:
    answer = feast.get_historical_features(entity_frame(*rows), ["weather:temp"], **more).to_arrow()
    return answer["temp"].to_pylist()


ASKED = [("a", text) for text in ("10:29", "10:30", "11:29", "11:30", "12:59", "13:00", "15:00")]


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_a_row_counts_from_its_arrival_on_and_a_correction_from_its_own(tmp_path: Path, engine: str) -> None:
    assert temps(feast_store(tmp_path, engine=engine), *ASKED) == [None, 1.0, 1.0, 2.0, 2.0, 2.5, 2.5]


@pytest.mark.parametrize("engine", ["local", "duckdb"])
def test_with_arrival_off_events_alone_decide_and_what_was_created_last_wins(tmp_path: Path, engine: str) -> None:
    found = temps(feast_store(tmp_path, arrival=False, engine=engine), ("a", "08:59"), ("a", "09:00"), *ASKED)
    assert found == [None, 0.5, 1.0, 1.0, 2.5, 2.5, 2.5, 2.5, 2.5]


def test_feasts_flag_switches_arrival_on_for_one_question(tmp_path: Path) -> None:
    feast = feast_store(tmp_path, arrival=False)
    assert temps(feast, *ASKED, filter_by_created_timestamp=True) == [None, 1.0, 1.0, 2.0, 2.0, 2.5, 2.5]


def test_with_arrival_on_feasts_flag_changes_nothing(tmp_path: Path) -> None:
    feast = feast_store(tmp_path)
    assert temps(feast, *ASKED, filter_by_created_timestamp=True) == temps(feast, *ASKED)


def test_exactly_the_ttl_is_kept_and_older_is_null(tmp_path: Path) -> None:
    feast = feast_store(tmp_path, ttl=timedelta(hours=1))
    assert temps(feast, ("a", "11:00"), ("a", "11:01"), ("a", "12:00"), ("a", "12:01")) == [1.0, None, 2.0, None]


def test_an_expired_event_does_not_bring_up_an_older_one(tmp_path: Path) -> None:
    rows = [("a", at("10:00"), at("12:30"), 1.0), ("a", at("11:00"), at("11:30"), 2.0)]
    assert temps(feast_store(tmp_path, rows, ttl=timedelta(hours=2)), ("a", "13:00"), ("a", "13:01")) == [2.0, None]


def test_a_ttl_of_nothing_is_no_limit(tmp_path: Path) -> None:
    assert temps(feast_store(tmp_path, ttl=timedelta(0)), ("b", "31 10:00")) == [7.0]


def test_a_null_replaces_the_value_before(tmp_path: Path) -> None:
    rows = [("a", at("10:00"), at("10:00"), 1.0), ("a", at("11:00"), at("11:00"), None)]
    assert temps(feast_store(tmp_path, rows), ("a", "10:59"), ("a", "11:00")) == [1.0, None]


def test_a_row_created_before_its_event_counts_from_its_event(tmp_path: Path) -> None:
    rows = [("a", at("12:00"), at("06:00"), 1.0), ("a", at("12:00"), at("07:00"), 2.0)]
    assert temps(feast_store(tmp_path, rows), ("a", "11:59"), ("a", "12:00")) == [None, 2.0]


def test_null_keys_and_null_events_answer_nobody(tmp_path: Path) -> None:
    rows = [(None, at("10:00"), at("10:00"), 1.0), ("a", None, at("10:00"), 2.0), ("a", at("09:00"), at("09:00"), 3.0)]
    assert temps(feast_store(tmp_path, rows), ("a", "12:00")) == [3.0]


def test_of_two_rows_of_one_event_and_arrival_the_last_in_the_file_wins(tmp_path: Path) -> None:
    rows = [("a", at("10:00"), at("10:00"), 1.0), ("a", at("10:00"), at("10:00"), 2.0)]
    assert temps(feast_store(tmp_path, rows), ("a", "12:00")) == [2.0]
    with pytest.raises(AmbiguousRevisionsError):
        temps(feast_store(tmp_path, rows, on_tie="error"), ("a", "12:00"))


def test_a_null_arrival_is_an_error_that_names_the_view_unless_a_delay_is_declared(tmp_path: Path) -> None:
    rows = [("a", at("10:00"), None, 1.0)]
    feast = feast_store(tmp_path, rows)
    with pytest.raises(
        OptionError, match="'weather': when some rows arrived is unknown, since their created timestamp"
    ):
        temps(feast, ("a", "12:00"))
    view = feast.get_feature_view("weather")
    view.tags = {"asknown.delay": "1h"}
    feast.apply([view])
    assert temps(feast, ("a", "10:59"), ("a", "11:00")) == [None, 1.0]


def undated(folder: Path, *, tags: dict[str, str] | None = None, **offline: Any) -> FeatureStore:
    """A view whose source does not say when its rows arrived."""
    write(folder / "weather.parquet", [("a", at("10:00"), at("10:00"), 1.0)])
    source = FileSource(name="plain", path=str(folder / "weather.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="weather", entities=[station()], schema=[Field(name="temp", dtype=Float64)], source=source, tags=tags or {}
    )
    found = store(
        folder, online={"type": "sqlite", "path": str(folder / "online.db")}, offline={"type": OURS_OFFLINE, **offline}
    )
    found.apply([station(), view])
    return found


def test_a_source_without_created_timestamp_is_refused_with_the_three_ways_out(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        temps(undated(tmp_path, unknown_arrival="error"), ("a", "12:00"))
    assert str(caught.value) == (
        "feature view 'weather': when the rows of source 'plain' arrived is unknown, since it has no created_timestamp_column\n\n"
        'hint: name the column: created_timestamp_column="..."; or say how late rows are: tags={"asknown.delay": "45m"}; or take '
        "events for known at once, as Feast does: `arrival: false` under offline_store in feature_store.yaml."
    )


def test_unless_that_is_asked_its_rows_count_from_their_event_with_a_warning(tmp_path: Path) -> None:
    feast = undated(tmp_path)
    with pytest.warns(UserWarning, match=r"feature view 'weather'.*no created_timestamp_column(.|\n)*from their event"):
        assert temps(feast, ("a", "09:59"), ("a", "10:00")) == [None, 1.0]


@pytest.mark.parametrize("latest", [False, True])
def test_materializing_such_rows_gives_the_same_warning(tmp_path: Path, latest: bool) -> None:
    feast = undated(tmp_path)
    feast.config.materialization_config.pull_latest_features = latest
    with pytest.warns(UserWarning, match=r"source 'plain'.*no created_timestamp_column(.|\n)*from their event"):
        feast.materialize(at("09:00"), at("12:00"))
    found = feast.get_online_features(["weather:temp"], [{"station": "a"}]).to_dict()
    assert found["temp"] == [1.0]


def test_materializing_such_rows_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="source 'plain' arrived is unknown"):
        undated(tmp_path, unknown_arrival="error").materialize(at("09:00"), at("12:00"))


def test_a_delay_rule_in_a_tag_says_when_rows_arrived(tmp_path: Path) -> None:
    feast = undated(tmp_path, unknown_arrival="error", tags={"asknown.delay": "45m"})
    assert temps(feast, ("a", "10:44"), ("a", "10:45")) == [None, 1.0]


def test_with_arrival_off_a_source_need_not_say_when_its_rows_arrived(tmp_path: Path) -> None:
    feast = undated(tmp_path, arrival=False)
    assert temps(feast, ("a", "09:59"), ("a", "10:00")) == [None, 1.0]
    assert temps(feast, ("a", "10:00"), filter_by_created_timestamp=True) == [1.0]


def test_an_unknown_engine_is_refused_when_the_configuration_is_read(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no engine is called 'spark'; choose from local, duckdb"):
        feast_store(tmp_path, engine="spark")


def test_nanoseconds_are_rounded_so_that_nothing_is_seen_early(tmp_path: Path) -> None:
    """The row arrives 1 ns after 10:00; the second question comes 1 ns before 10:00:00.000001."""
    feast = feast_store(tmp_path)
    ten = pd.Timestamp(at("10:00")).as_unit("ns")
    step = pd.Timedelta(1, "ns")
    frame = pd.DataFrame({"station": ["a"], "event_timestamp": [ten], "created": [ten + step], "temp": [1.0]})
    frame.to_parquet(tmp_path / "weather.parquet")
    assert pl.read_parquet_schema(tmp_path / "weather.parquet")["created"] == pl.Datetime("ns", "UTC")
    asked = pd.DataFrame({"station": ["a"] * 3, "event_timestamp": [ten, ten + 999 * step, ten + 1000 * step]})
    answer = feast.get_historical_features(asked, ["weather:temp"]).to_arrow()
    assert answer["temp"].to_pylist() == [None, None, 1.0]


@pytest.mark.parametrize("arrival", [True, False])
def test_composite_keys_do_not_run_into_each_other(tmp_path: Path, arrival: bool) -> None:
    """`1` + `11` and `11` + `1` are two entities."""
    instant = pl.Datetime("us", "UTC")
    ten = at("10:00")
    frame = pl.DataFrame(
        {"site": ["1", "11"], "meter": ["11", "1"], "event": [ten] * 2, "created": [ten] * 2, "load": [1.0, 2.0]},
        schema_overrides={"event": instant, "created": instant},
    )
    frame.write_parquet(tmp_path / "load.parquet")
    keys = [Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("site", "meter")]
    source = FileSource(
        name="file", path=str(tmp_path / "load.parquet"), timestamp_field="event", created_timestamp_column="created"
    )
    view = FeatureView(name="load", entities=keys, schema=[Field(name="load", dtype=Float64)], source=source)
    feast = store(
        tmp_path,
        online={"type": "sqlite", "path": str(tmp_path / "o.db")},
        offline={"type": OURS_OFFLINE, "arrival": arrival},
    )
    feast.apply([*keys, view])
    asked = pd.DataFrame({"meter": ["1", "11", "1"], "site": ["11", "1", "1"], "event_timestamp": [at("11:00")] * 3})
    assert feast.get_historical_features(asked, ["load:load"]).to_arrow()["load"].to_pylist() == [2.0, 1.0, None]
