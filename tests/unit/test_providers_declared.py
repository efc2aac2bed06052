"""Providers as they are declared: what a declaration means, and what its log becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import alignment as al
from ingestion import open_log
from ingestion.errors import PayloadError, ProviderError, SourceError
from ingestion.providers import (
    Alerts,
    ColumnRule,
    Contract,
    Provider,
    Publication,
    PythonSource,
    Schedule,
    dtype_text,
    parse_dtype,
)
from ingestion.sources.base import Fetched, Payload, Progress, Source

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CRON_HINT = 'write minute, hour, day of month, month, day of week, e.g. "*/10 * * * *".'
FEED = PythonSource(fetch="feed:fetch", parse="feed:parse")


def mast(**fields: Any) -> Provider:
    contract = Contract(columns={"temp": ColumnRule(dtype="Float64", unit="degC", min=-60, max=60)})
    return Provider(**{"name": "mast", "entities": ("station",), "contract": contract, **fields})


def error_of(**fields: Any) -> str:
    with pytest.raises(ProviderError) as caught:
        mast(**fields)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ meaning


def test_a_name_and_entities_are_enough() -> None:
    provider = Provider(name="mast", entities=("station",))
    assert (provider.kind, provider.state, provider.source, provider.schedule) == ("measurement", "rows", None, None)
    assert provider.polled is False
    assert provider.timetable() is None
    assert provider.delay_rule() is None
    assert provider.silent_after is None


def test_the_definition_is_what_the_log_keeps() -> None:
    provider = mast(key=("id",), retention="365d", clock_tolerance="1m", publish_margin="1s", drop_unchanged=True)
    assert provider.definition().to_dict() == {
        "provider": "mast",
        "entities": ["station"],
        "kind": "measurement",
        "key": ["id"],
        "clock_tolerance": "1m",
        "publish_margin": "1s",
        "on_bad_row": "quarantine",
        "drop_unchanged": True,
        "retention": "365d",
    }


@pytest.mark.parametrize(
    ("fields", "drops"),
    [
        ({}, False),
        ({"source": {"kind": "http", "url": "http://localhost/rows.json"}}, True),
        ({"source": {"kind": "http", "url": "http://localhost/rows.json"}, "drop_unchanged": False}, False),
        ({"source": {"kind": "http", "url": "http://localhost/rows.json"}, "kind": "forecast"}, True),
        ({"source": {"kind": "push"}}, False),
        ({"source": FEED}, False),
        ({"source": FEED, "state": "whole"}, True),
    ],
)
def test_what_repeats_itself_is_stored_once(fields: dict[str, Any], drops: bool) -> None:
    assert mast(**fields).definition().drop_unchanged is drops


def test_history_is_late_by_a_fixed_time_or_until_a_time_of_day() -> None:
    assert mast(history="45m").delay_rule() == al.FixedDelay("45m")
    assert mast(history=Publication(at="06:00", zone="Europe/Berlin", days=1)).delay_rule() == al.PublishSchedule(
        at="06:00", zone="Europe/Berlin", days=1
    )


def test_silence_is_measured_by_what_was_declared_or_by_three_polls() -> None:
    polled = {"source": FEED, "schedule": Schedule(every="10m")}
    assert mast(**polled).silent_after == timedelta(minutes=30)
    assert mast(**polled, cadence="1h").silent_after == timedelta(hours=3)
    workdays = {**polled, "schedule": {"cron": "0 6 * * 1-5", "zone": "UTC"}}
    assert mast(**workdays).silent_after == timedelta(days=9)  # three times the gap from Friday to Monday
    assert mast(**polled, cadence="1h", down_after="20m").silent_after == timedelta(minutes=20)


def test_a_declaration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        mast().name = "other"


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_field_that_does_not_exist_is_named_with_the_nearest_that_does() -> None:
    assert error_of(retentoin="7d") == (
        "provider 'mast': retentoin: there is no field 'retentoin'\n\nhint: did you mean 'retention'?"
    )


def test_of_several_slips_the_misspelt_field_is_told() -> None:
    with pytest.raises(ProviderError) as caught:
        Provider(name="mast", entity=["station"])  # type: ignore[call-arg]
    assert str(caught.value) == (
        "provider 'mast': entity: there is no field 'entity'\n\nhint: did you mean 'entities'?"
    )


def test_a_number_is_no_duration() -> None:
    assert error_of(source=FEED, schedule={"every": 10}) == (
        "provider 'mast': schedule.every: 10 has no unit\n\n"
        'hint: write a number and a unit (us, ms, s, m, h, d, w), e.g. "10m".'
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"entities": "station"}, "entities: 'station' is not a list\n\nhint: write [station]."),
        ({"kind": "forcast"}, "kind: 'forcast' is not allowed\n\nhint: did you mean 'forecast'?"),
        ({"window": "7d"}, 'window is for whole states\n\nhint: say state="whole", or leave it out.'),
        (
            {"schedule": {"every": "10m"}},
            "schedule is for polling, and a provider without a source is not polled\n\nhint: leave it out.",
        ),
        (
            {"schedule": {"every": "10m"}, "source": {"kind": "push"}},
            "schedule is for polling, and a source of kind 'push' is not polled\n\nhint: leave it out.",
        ),
        ({"source": {"kind": "htp"}}, "source: kind 'htp' is unknown\n\nhint: did you mean 'http'?"),
        (
            {"source": FEED, "schedule": {}},
            'schedule: give either every="10m" or cron="*/10 * * * *", not both and not neither.',
        ),
        (
            {"source": FEED, "schedule": {"cron": "0 25 * * *"}},
            f"schedule.cron: cron='0 25 * * *': bad hour\n\nhint: {CRON_HINT}",
        ),
        (
            {"source": FEED, "schedule": {"cron": "0 0 30 2 *"}},
            f"schedule.cron: cron='0 0 30 2 *': bad day-of-month\n\nhint: {CRON_HINT}",
        ),
        (
            {"source": FEED, "schedule": {"cron": "0 6 * * *", "zone": "Berlin"}},
            "schedule.zone: 'Berlin' is no IANA zone\n\nhint: write one such as \"Europe/Berlin\".",
        ),
        (
            {"source": FEED, "schedule": {"every": "1h", "zone": "Europe/Berlin"}},
            'schedule: a zone is for cron: `every` counts in UTC\n\nhint: for a time of day write cron="0 6 * * *".',
        ),
        (
            {"contract": {"columns": {"temp": "Float"}}},
            "contract.columns.temp.dtype: 'Float' is no type of a column\n\nhint: did you mean 'Float64'?",
        ),
        (
            {"contract": {"columns": {"temp": {"dtype": "String", "max": 60}}}},
            "contract.columns.temp: min and max are for numbers, and the column is String\n\nhint: leave them out.",
        ),
        (
            {"contract": {"columns": {"state": {"dtype": "String", "categories": [1]}}}},
            "contract.columns.state: category 1 is no String\n\nhint: write it as one, in quotes if it is text.",
        ),
        (
            {"contract": {"columns": {"log_sequence": "Int64"}}},
            "contract: column 'log_sequence' is the log's own and needs no rule\n\nhint: leave it out or rename it.",
        ),
        (
            {"contract": {"updates": "columns"}, "source": FEED, "state": "whole"},
            'a whole state has whole rows\n\nhint: leave out updates="columns".',
        ),
    ],
)
def test_what_means_nothing_is_refused_with_what_to_write_instead(fields: dict[str, Any], told: str) -> None:
    assert error_of(**fields) == f"provider 'mast': {told}"


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "mqtt", "topic": "t", "port": "hunter2"},
        {"kind": "http", "url": "http://localhost/", "headers": "hunter2"},
        {"kind": "python", "fetch": "a:b", "parse": "a:b", "environment": "hunter2"},
    ],
)
def test_a_value_in_a_source_is_not_repeated_for_it_may_be_a_credential(source: dict[str, Any]) -> None:
    assert "hunter2" not in error_of(source=source)


def test_limits_of_alerts_are_shares() -> None:
    assert Alerts(quarantine_rate=None).delay_quantile == 0.99
    assert "alerts.quarantine_rate" in error_of(alerts={"quarantine_rate": 5})


# ---------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("Float64", pl.Float64()),
        ("String", pl.String()),
        ("Datetime(us, UTC)", pl.Datetime("us", "UTC")),
        ("Datetime(ms)", pl.Datetime("ms")),
        ("Duration(us)", pl.Duration("us")),
        ("Decimal(10, 2)", pl.Decimal(10, 2)),
        ("List(Float32)", pl.List(pl.Float32())),
        ("Array(Float32, 4)", pl.Array(pl.Float32(), 4)),
        ("List(List(Int8))", pl.List(pl.List(pl.Int8()))),
    ],
)
def test_a_type_is_written_as_it_is_read(text: str, dtype: pl.DataType) -> None:
    assert parse_dtype(text) == dtype
    assert dtype_text(dtype) == text
    assert ColumnRule(dtype=dtype).dtype == text  # type: ignore[arg-type]


def test_a_rule_may_be_its_type_alone() -> None:
    contract = Contract(columns={"temp": "Float64", "wind": pl.Float32})  # type: ignore[dict-item]
    assert contract.dtypes == {"temp": pl.Float64(), "wind": pl.Float32()}


# ------------------------------------------------------------------------------------------------------------------ log


def test_the_log_is_made_on_first_use_with_the_types_of_the_contract(tmp_path: Path) -> None:
    log = mast().open(tmp_path, clock=lambda: NOON)
    assert log.columns == {"station": pl.String(), "temp": pl.Float64()}
    log.append(pl.DataFrame({"station": ["a"], "event_time": [NOON], "temp": [1.5]}))
    assert mast().open(tmp_path).position() == 0


def test_without_a_contract_the_first_batch_decides(tmp_path: Path) -> None:
    log = Provider(name="mast", entities=("station",)).open(tmp_path, clock=lambda: NOON)
    log.append(pl.DataFrame({"station": [7], "event_time": [NOON], "temp": [1]}))
    assert log.columns == {"station": pl.Int64(), "temp": pl.Int64()}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"entities": ("site",)}, "entities: declared as ['site'], but its log at {root!r} was made with ['station']"),
        ({"kind": "forecast"}, "kind: declared as 'forecast', but its log at {root!r} was made with 'measurement'"),
        ({"key": ("id",)}, "key: declared as ['id'], but its log at {root!r} was made with None"),
    ],
)
def test_a_log_of_other_rows_is_refused(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    mast().open(tmp_path)
    with pytest.raises(ProviderError) as caught:
        mast(**fields).open(tmp_path)
    assert str(caught.value) == (
        f"provider 'mast': {told.format(root=str(tmp_path / 'mast'))}\n\n"
        "hint: these cannot change in a log; declare it as it was, or give the provider another name."
    )


def test_settings_that_changed_are_the_log_s_from_then_on(tmp_path: Path) -> None:
    mast().open(tmp_path)
    mast(retention="30d", clock_tolerance="1m").open(tmp_path)
    stored = open_log(tmp_path, "mast").definition
    assert (stored.retention, stored.clock_tolerance) == ("30d", "1m")
    version = mast(retention="30d", clock_tolerance="1m").open(tmp_path).table.version
    assert open_log(tmp_path, "mast").table.version == version  # nothing is written where nothing changed


def test_columns_that_were_declared_since_are_added_and_wider_types_widen(tmp_path: Path) -> None:
    narrow = Contract(columns={"level": ColumnRule(dtype="Int8")})
    log = mast(contract=narrow).open(tmp_path, clock=lambda: NOON)
    log.append(pl.DataFrame({"station": ["a"], "event_time": [NOON], "level": pl.Series([7], dtype=pl.Int8)}))
    wide = Contract(columns={"level": ColumnRule(dtype="Int32"), "wind": ColumnRule(dtype="Float64")})
    assert mast(contract=wide).open(tmp_path).columns == {
        "station": pl.String(),
        "level": pl.Int32(),
        "wind": pl.Float64(),
    }


def test_a_column_of_another_type_than_the_log_s_is_refused(tmp_path: Path) -> None:
    mast().open(tmp_path)
    with pytest.raises(ProviderError) as caught:
        mast(contract=Contract(columns={"temp": ColumnRule(dtype="String")})).open(tmp_path)
    assert str(caught.value) == (
        "provider 'mast': contract.columns.temp: declared as String, but its log has Float64\n\n"
        "hint: declare the log's type, or send the values under a new name."
    )


# ------------------------------------------------------------------------------------------------- sources of your own

MODULE = """
from ingestion.sources.base import Fetched, Payload
import polars as pl

def fetch(progress, *, now, environment, rows=1):
    if rows == 0:
        raise RuntimeError(f"token {environment['TOKEN']} is not known")
    return Fetched(payloads=(Payload(content=b"1.5", label="feed", received_time=now),), cursor={"rows": rows})

def parse(payload):
    return pl.DataFrame({"temp": [float(payload.content)]})

def nothing(progress, **more):
    return None

limit = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"feed_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_two_functions_make_a_source(module: str) -> None:
    provider = mast(source=PythonSource(fetch=f"{module}:fetch", parse=f"{module}:parse", environment=("TOKEN",)))
    source = provider.open_source({"TOKEN": "s3cret"})
    assert isinstance(source, Source)
    fetched = source.fetch(Progress(), now=NOON)
    assert fetched.cursor == {"rows": 1}
    assert source.parse(fetched.payloads[0])["temp"].to_list() == [1.5]
    source.close()


def test_what_a_source_of_your_own_raises_is_told_without_its_secrets(module: str) -> None:
    declared = PythonSource(
        fetch=f"{module}:fetch", parse=f"{module}:parse", environment=("TOKEN",), options={"rows": 0}
    )
    with pytest.raises(SourceError) as caught:
        declared.open("mast", {"TOKEN": "s3cret"}).fetch(Progress(), now=NOON)
    assert str(caught.value) == f"provider 'mast': {module}:fetch: RuntimeError: token *** is not known"
    with pytest.raises(PayloadError, match="could not convert string to float"):
        declared.open("mast", {"TOKEN": "x"}).parse(Payload(content=b"?", label="feed", received_time=NOON))


def test_a_function_that_returns_something_else_is_a_fault_of_the_source(module: str) -> None:
    source = PythonSource(fetch=f"{module}:nothing", parse=f"{module}:parse").open("mast", {})
    with pytest.raises(SourceError, match=r"it returned NoneType\n\nhint: return a Fetched"):
        source.fetch(Progress(), now=NOON)


@pytest.mark.parametrize(
    ("fetch", "told"),
    [
        ("MODULE:fecth", "has no attribute 'fecth'"),
        ("MODULE:limit", "it is int, not a function"),
        ("no_such_module:fetch", "No module named 'no_such_module'"),
    ],
)
def test_a_function_that_cannot_be_found_is_told(module: str, fetch: str, told: str) -> None:
    declared = PythonSource(fetch=fetch.replace("MODULE", module), parse=f"{module}:parse")
    with pytest.raises(SourceError, match=told):
        declared.open("mast", {})


def test_an_environment_variable_that_is_not_set_is_named(module: str) -> None:
    declared = PythonSource(fetch=f"{module}:fetch", parse=f"{module}:parse", environment=("TOKEN",))
    with pytest.raises(SourceError, match=r"environment variable TOKEN is not set\n\nhint: .*export TOKEN="):
        declared.open("mast", {})


def test_a_place_of_a_function_is_checked_at_once() -> None:
    assert error_of(source={"kind": "python", "fetch": "feed.fetch", "parse": "feed:parse"}) == (
        "provider 'mast': source.fetch: 'feed.fetch' is no place of a function\n\nhint: write \"module:function\"."
    )


def test_what_is_not_polled_has_no_source_to_open() -> None:
    with pytest.raises(ProviderError, match="it has no source that can be polled"):
        mast(source={"kind": "push"}).open_source({})


def test_fetched_has_what_the_functions_are_documented_to_return() -> None:
    assert Fetched().payloads == ()
