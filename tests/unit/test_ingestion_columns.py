"""How a log's columns change, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import ingestion
from ingestion import ObservationLog, create_log, open_log

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> ObservationLog:
    log = create_log(tmp_path, "weather", entities=["station"], clock=lambda: NOON)
    log.append(frame(temp=1))
    return log


def frame(**values: object) -> pl.DataFrame:
    columns = {name: value if isinstance(value, pl.Series) else [value] for name, value in values.items()}
    return pl.DataFrame({"station": ["a"], "event_time": [NOON - timedelta(hours=1)], **columns})


def values(log: ObservationLog, column: str, position: int | None = None) -> list[object]:
    return log.scan(columns=[column], position=position).sort("log_sequence").collect()[column].to_list()


def test_a_new_column_is_refused_unless_asked_for(log: ObservationLog) -> None:
    with pytest.raises(ingestion.SchemaChangeError) as caught:
        log.append(frame(temp=2, wind=0.5))
    assert str(caught.value) == (
        "provider 'weather': the log has no column 'wind' (Float64)\n\n"
        'hint: append(frame, evolve=True) adds it; rows from before will be "missing".'
    )
    assert log.position() == 0


def test_an_added_column_remembers_since_when(log: ObservationLog) -> None:
    log.append(frame(temp=2, wind=0.5), evolve=True)
    assert values(log, "wind") == [None, 0.5]
    assert log.column_since() == {"wind": 1}
    log.add_column("rain", pl.Float32)
    assert log.column_since() == {"wind": 1, "rain": 2}
    assert log.columns["rain"] == pl.Float32


def test_an_absent_column_is_not_null(log: ObservationLog) -> None:
    log.add_column("wind", pl.Float64)
    with pytest.raises(ingestion.SchemaChangeError) as caught:
        log.append(frame(temp=2))
    assert str(caught.value) == (
        "provider 'weather': the batch lacks the column 'wind', and absent is not null\n\n"
        'hint: if it is null, say so: frame.with_columns(pl.lit(None).alias("wind")).'
    )
    log.append(frame(temp=2, wind=None))
    assert values(log, "wind") == [None, None]


def test_a_renamed_column_keeps_its_values_and_answers_to_both_names(log: ObservationLog) -> None:
    log.rename_column("temp", "temperature")
    assert values(log, "temperature") == values(log, "temp") == [1]
    assert log.column_since() == {}
    with pytest.raises(ingestion.SchemaChangeError) as caught:
        log.append(frame(temp=2))
    assert "lacks the column 'temperature'" in str(caught.value)
    assert 'log.rename_column("temperature", "temp")' in str(caught.value)
    with pytest.raises(ingestion.SchemaChangeError, match="was the name of another column"):
        log.add_column("temp", pl.Int64)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (pl.Int32, pl.Int64, pl.Int64),
        (pl.Int8, pl.UInt8, pl.Int16),
        (pl.Float32, pl.Float64, pl.Float64),
        (pl.Int64, pl.Float64, pl.Float64),
    ],
)
def test_a_type_widens_when_asked(tmp_path: Path, old: type, new: type, expected: type) -> None:
    log = create_log(tmp_path, "w", entities=["station"], clock=lambda: NOON)
    log.append(frame(v=pl.Series([3], dtype=old)))
    wide = frame(v=pl.Series([200.3 if new is pl.Float64 else 200 if new is pl.UInt8 else 2**40]).cast(new))
    with pytest.raises(ingestion.SchemaChangeError, match=f"would need the type {expected}"):
        log.append(wide)
    log.append(wide, evolve=True)
    assert log.columns["v"] == expected
    assert values(log, "v") == [3, wide["v"][0]]
    assert values(log, "v", position=0) == [3]
    assert open_log(tmp_path, "w").columns["v"] == expected


def test_a_narrower_batch_fits_as_it_is(log: ObservationLog) -> None:
    log.append(frame(temp=pl.Series([7], dtype=pl.Int8)))
    assert values(log, "temp") == [1, 7]
    assert log.columns["temp"] == pl.Int64


@pytest.mark.parametrize("other", ["warm", True, NOON, [1]])
def test_another_kind_of_type_is_an_error_even_with_evolve(log: ObservationLog, other: object) -> None:
    with pytest.raises(ingestion.SchemaChangeError, match="is Int64 in the log and"):
        log.append(frame(temp=pl.Series([other])), evolve=True)


def test_whole_numbers_that_a_float_cannot_tell_apart_do_not_widen(tmp_path: Path) -> None:
    log = create_log(tmp_path, "w", entities=["station"], clock=lambda: NOON)
    log.append(frame(v=2**53 + 1))
    with pytest.raises(ingestion.SchemaChangeError, match="cannot tell from its neighbours"):
        log.append(frame(v=0.5), evolve=True)
    assert values(log, "v") == [2**53 + 1]


def test_the_key_is_not_renamed(log: ObservationLog) -> None:
    with pytest.raises(ingestion.SchemaChangeError, match="'station' is part of the key"):
        log.rename_column("station", "site")
    with pytest.raises(ingestion.UnknownColumnError) as caught:
        log.rename_column("tmep", "x")
    assert str(caught.value) == "the log of 'weather' has no column 'tmep'\n\nhint: did you mean 'temp'?"
    with pytest.raises(ingestion.ReservedColumnError):
        log.rename_column("temp", "arrival_time")


def test_names_that_a_table_or_a_view_cannot_hold_are_refused_wherever_they_come_from(
    tmp_path: Path, log: ObservationLog
) -> None:
    for name in ("@load", "Temp", "LOG_SEQUENCE"):
        with pytest.raises(ingestion.SchemaChangeError):
            log.add_column(name, pl.Float64)
        with pytest.raises(ingestion.DefinitionError):
            create_log(tmp_path, "other", entities=["station"], schema={"temp": pl.Float64, name: pl.Float64})
    with pytest.raises(ingestion.SchemaChangeError):
        log.rename_column("temp", "Station")
    with pytest.raises(ingestion.DefinitionError):
        create_log(tmp_path, "other", entities=["site", "Site"])
    log.rename_column("temp", "TEMP")  # it is no other column than itself
    assert "TEMP" in [column.name for column in log.table.columns]


def test_logs_are_found_by_name(tmp_path: Path, log: ObservationLog) -> None:
    assert ingestion.list_logs(tmp_path) == ["weather"]
    with pytest.raises(ingestion.LogNotFoundError) as caught:
        open_log(tmp_path, "wether")
    assert str(caught.value) == f"{str(tmp_path)!r} has no log of provider 'wether'\n\nhint: did you mean 'weather'?"
    with pytest.raises(ingestion.LogExistsError):
        create_log(tmp_path, "weather", entities=["station"])
    assert create_log(tmp_path, "weather", entities=["station"], exist_ok=True).position() == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"provider": "../x"}, "provider='../x' is not a name"),
        ({"entities": ["a", "a"]}, "entities=['a', 'a'] repeats a name"),
        ({"entities": ["event_time"]}, "uses one of the log's own"),
        ({"key": ["station"]}, "key=['station'] must name columns besides the entities"),
        ({"kind": "guess"}, "kind='guess' is unknown"),
        ({"clock_tolerance": "soon"}, "clock_tolerance='soon' is not a duration"),
        ({"retention": "0s"}, "retention='0s' would keep nothing"),
        ({"on_bad_row": "ignore"}, "on_bad_row='ignore' is unknown"),
    ],
)
def test_definitions_that_mean_nothing_are_refused(tmp_path: Path, arguments: dict[str, object], text: str) -> None:
    whole = {"provider": "weather", "entities": ["station"], **arguments}
    with pytest.raises(ingestion.DefinitionError) as caught:
        create_log(tmp_path, **whole)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert "\n\nhint: " in str(caught.value)


def test_questions_that_have_no_answer(log: ObservationLog) -> None:
    with pytest.raises(ingestion.PositionError) as caught:
        log.scan(position=5)
    assert str(caught.value) == (
        "the log of 'weather' ends at position 0; position 5 does not exist yet\n\n"
        "hint: pass position=None for all there is, or copy the newer log here."
    )
    with pytest.raises(ingestion.UnknownColumnError, match="did you mean 'temp'"):
        log.scan(columns=["tempp"])
    with pytest.raises(ingestion.NaiveTimeError):
        log.scan(as_of=datetime(2026, 1, 1))  # noqa: DTZ001
