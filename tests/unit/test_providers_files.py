"""Declarations in files: YAML and Python, presets, and one clear error for each slip."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from feeds import NesoFeed, UsgsFeed

from ingestion.checks import check_rows
from ingestion.errors import ProviderError
from ingestion.providers import PRESETS, Declared, PushSource, Schedule, load_providers, preset
from ingestion.sources.base import Progress
from ingestion.sources.http_pull import HttpSource
from serving.cli_ingest import job_settings

YAML = """
root: logs
settings:
  webhook_env: HOOK
providers:
  weather:
    entities: [station]
    contract:
      columns:
        temp: {dtype: Float64, unit: degC, min: -60, max: 60}
        wind: Float64
    source:
      kind: http
      url: http://localhost/rows.json
    schedule: {every: 10m}
    history: {at: 16:00, zone: Europe/Berlin, days: 1}
  no:
    entities: []
    source: {kind: push}
"""


def load(tmp_path: Path, text: str, name: str = "providers.yaml") -> Declared:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return load_providers(tmp_path / name)


def error_of(tmp_path: Path, text: str, name: str = "providers.yaml") -> str:
    with pytest.raises(ProviderError) as caught:
        load(tmp_path, text, name)
    return str(caught.value).replace(str(tmp_path), "FOLDER")


def test_a_file_declares_providers_by_name(tmp_path: Path) -> None:
    declared = load(tmp_path, YAML)
    assert declared.root == str(tmp_path / "logs")
    assert declared.settings == {"webhook_env": "HOOK"}
    assert list(declared.providers) == ["weather", "no"]
    weather = declared.providers["weather"]
    assert weather.name == "weather"
    assert weather.entities == ("station",)
    assert isinstance(weather.source, HttpSource)
    assert weather.contract.columns["wind"].dtype == "Float64"


def test_yaml_is_read_as_it_looks(tmp_path: Path) -> None:
    # YAML 1.1 would read 16:00 as 960, `no` as false and 1e3 as text.
    declared = load(tmp_path, YAML.replace("max: 60", "max: 1e3"))
    weather = declared.providers["weather"]
    assert weather.history.at == "16:00"  # type: ignore[union-attr]
    assert weather.contract.columns["temp"].max == 1000.0
    assert isinstance(declared.providers["no"].source, PushSource)


def test_json_is_yaml(tmp_path: Path) -> None:
    text = json.dumps({"providers": {"mast": {"entities": ["station"]}}})
    assert load(tmp_path, text, "providers.json").providers["mast"].entities == ("station",)


def test_an_address_stays_an_address(tmp_path: Path) -> None:
    assert load(tmp_path, YAML.replace("root: logs", "root: s3://bucket/logs")).root == "s3://bucket/logs"
    assert load(tmp_path, YAML.replace("root: logs", "root: /var/lib/asknown")).root == "/var/lib/asknown"
    assert load(tmp_path, YAML.replace("root: logs", "")).root is None


def test_a_python_file_has_a_list(tmp_path: Path) -> None:
    text = (
        "from ingestion.providers import Provider, preset\n"
        "root = 'logs'\n"
        "providers = [Provider(name='mast', entities=('station',)), preset('usgs', name='quakes')]\n"
    )
    declared = load(tmp_path, text, "declared.py")
    assert list(declared.providers) == ["mast", "quakes"]
    assert declared.root == str(tmp_path / "logs")


def test_providers_are_chosen_by_name(tmp_path: Path) -> None:
    declared = load(tmp_path, YAML)
    assert [provider.name for provider in declared.select()] == ["weather", "no"]
    assert [provider.name for provider in declared.select(["no"])] == ["no"]
    with pytest.raises(ProviderError) as caught:
        declared.select(["wether"])
    assert str(caught.value) == "provider 'wether': it is not declared\n\nhint: did you mean 'weather'?"


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "dtype: Float64",
            "dtyp: Float64",
            "provider 'weather': contract.columns.temp.dtyp: there is no field 'dtyp'\n\nhint: did you mean 'dtype'?",
        ),
        (
            "url: http",
            "urll: http",
            "provider 'weather': source.urll: there is no field 'urll'\n\nhint: did you mean 'url'?",
        ),
        (
            "max: 60",
            "max: hot",
            "provider 'weather': contract.columns.temp.max: 'hot' is not a number\n\nhint: write one, without quotes.",
        ),
        (
            "every: 10m",
            "every: ten minutes",
            "provider 'weather': schedule.every: 'ten minutes' is not a duration\n\nhint: write a number and a unit ...",
        ),
        ("root:", "rot:", "there is no field 'rot'\n\nhint: did you mean 'root'?"),
        ("{kind: push}", "{kind: psh}", "provider 'no': source: kind 'psh' is unknown\n\nhint: did you mean 'push'?"),
        (
            "{kind: push}",
            "{token_env: X}",
            "provider 'no': source: it does not say its kind\n\nhint: write kind: and one of ...",
        ),
        ("  no:\n", "  weather:\n", "17: 'weather' comes twice\n\nhint: write one `name: value` a line."),
        ("    entities: []\n", "    name: yes\n", "provider 'no': it names itself 'yes'\n\nhint: ..."),
        (
            "    entities: []\n",
            "    preset: ugs\n",
            "provider 'no': preset: 'ugs' is unknown\n\nhint: did you mean 'usgs'?",
        ),
        ("{kind: push}", "{kind: push", "20: ..."),
        (
            "    entities: []\n",
            "",
            "provider 'no': entities: the field 'entities' is missing\n\nhint: say what it is: entities: ...",
        ),
    ],
)
def test_a_slip_is_told_with_file_provider_field_value_and_fix(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in YAML
    start, _, _ = f"FOLDER/providers.yaml: {told}".replace(": 17:", ":17:").replace(": 20:", ":20:").partition("...")
    assert error_of(tmp_path, YAML.replace(old, new, 1)).startswith(start)


def test_a_slip_in_python_is_told_the_same_way(tmp_path: Path) -> None:
    text = "from ingestion.providers import Provider\nproviders = [Provider(name='mast', entitis=['a'])]\n"
    assert error_of(tmp_path, text, "declared.py") == (
        "FOLDER/declared.py: provider 'mast': entitis: there is no field 'entitis'\n\nhint: did you mean 'entities'?"
    )
    part = "from ingestion.providers import Schedule\nproviders = []\nSchedule(every='10m', cronn='x')\n"
    assert error_of(tmp_path, part, "declared.py") == (
        "FOLDER/declared.py: Schedule: cronn: there is no field 'cronn'\n\nhint: did you mean 'cron'?"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("providers = 1 / 0\n", "FOLDER/declared.py:1: ZeroDivisionError: division by zero"),
        ("x = 1\nproviders = [\n", "FOLDER/declared.py:2: SyntaxError: '[' was never closed"),
        ("x = 1\n", "FOLDER/declared.py: it has no list 'providers'"),
        ("providers = ['mast']\n", "FOLDER/declared.py: providers[0]: it is str, not a Provider"),
        (
            "from ingestion.providers import Provider\nproviders = [Provider(name='a', entities=())] * 2\n",
            "FOLDER/declared.py: provider 'a': it is declared twice",
        ),
    ],
)
def test_a_python_file_that_fails_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert error_of(tmp_path, text, "declared.py").startswith(told)


def test_a_file_that_is_not_there_or_of_another_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="there is no such file"):
        load_providers(tmp_path / "providers.yaml")
    assert error_of(tmp_path, "", "providers.toml").startswith(
        "FOLDER/providers.toml: '.toml' is no known kind of file"
    )
    assert error_of(tmp_path, "- a\n").startswith("FOLDER/providers.yaml: it is no mapping")


# -------------------------------------------------------------------------------------------------------------- presets


def test_a_preset_is_taken_and_overridden_field_by_field(tmp_path: Path) -> None:
    text = "providers: {quakes: {preset: usgs, schedule: {every: 1m}, source: {timeout: 5s}, retention: 90d}}"
    quakes = load(tmp_path, text).providers["quakes"]
    assert quakes.name == "quakes"
    assert quakes.key == ("quake_id",)
    assert quakes.retention == "90d"
    assert quakes.schedule == Schedule(every="1m")
    assert isinstance(quakes.source, HttpSource)
    assert quakes.source.timeout == "5s"
    assert quakes.source.url.startswith("https://earthquake.usgs.gov/")


def test_a_source_of_another_kind_replaces_the_preset_s(tmp_path: Path) -> None:
    text = "providers: {quakes: {preset: neso_wind, source: {kind: push}, schedule: null}}"
    assert load(tmp_path, text).providers["quakes"].source == PushSource()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_provider(name: str) -> None:
    provider = preset(name)
    assert provider.name == name
    assert provider.polled
    assert provider.timetable() is not None
    assert provider.definition().drop_unchanged


def taken(name: str, feed: Any, now: datetime) -> tuple[pl.DataFrame, datetime | None]:
    """What a poll of a preset brings, in the types of its contract."""
    provider = preset(name, source={"url": feed.url})
    source = provider.open_source({})
    fetched = source.fetch(Progress(), now=now)
    (payload,) = fetched.payloads
    checked = check_rows(source.parse(payload), provider.contract, provider.definition())
    source.close()
    assert (checked.reasons, checked.refused, checked.flags) == (None, None, ())
    return checked.frame, fetched.state_time


def test_usgs_reads_the_feed_of_the_usgs(shared: Path) -> None:
    observations = pl.read_parquet(shared / "data" / "quakes_usgs" / "observations.parquet")
    for number in (0, 250, -1):
        with UsgsFeed(observations) as feed:
            feed.arrived = feed.arrivals[number]
            frame, state_time = taken("usgs", feed, feed.arrived)
            assert state_time == feed.arrived
            expected = feed.state().select(frame.columns).sort("quake_id")
            # The feed writes milliseconds, as the observations have them.
            assert frame.sort("quake_id").equals(expected)


def test_neso_wind_reads_the_newest_run(shared: Path) -> None:
    observations = pl.read_parquet(shared / "data" / "energy_neso_wind" / "observations.parquet")
    with NesoFeed(observations) as feed:
        feed.arrived = feed.arrivals[0] + timedelta(hours=1)
        frame, _ = taken("neso_wind", feed, datetime(2026, 4, 11, tzinfo=UTC))
        # The first line of the first capture of 2026-04-10.
        assert frame.sort("event_time").row(0, named=True) == {
            "event_time": datetime(2026, 4, 10, 22, 30, tzinfo=UTC),
            "issue_time": datetime(2026, 4, 10, 21, 40, 39, tzinfo=UTC),
            "wind_forecast_mw": 19538.0,
            "capacity_mw": 25261.0,
            "zone": "GB",
        }
        assert frame.sort("event_time").equals(feed.state().select(frame.columns).sort("event_time"))
        assert len(feed.requests) == 1


@pytest.mark.parametrize(
    "source",
    [
        "{kind: push, token_env: SECRET}",
        "{kind: http, url: 'http://localhost/', auth: {bearer_env: SECRET}}",
        "{kind: http, url: 'http://localhost/', auth: {basic_env: [USER, SECRET]}}",
        "{kind: http, url: 'http://localhost/', auth: {header_env: {X-Api-Key: SECRET}}}",
        "{kind: http, url: 'http://localhost/', auth: {query_env: {key: SECRET}}}",
        "{kind: sql, url_env: SECRET, table: t}",
        "{kind: nats, stream: s, token_env: SECRET}",
        "{kind: mqtt, topic: t, user_env: USER, password_env: SECRET}",
        "{kind: broker, broker: 'm:B', channels: [c], options_env: {servers: SECRET}}",
    ],
)
@pytest.mark.parametrize("secret", ["s3cretTOKENvalue123", "K" * 65, "'postgresql://u:p@h/d'"])
def test_a_secret_where_a_variable_is_named_is_refused_and_not_repeated(
    tmp_path: Path, source: str, secret: str
) -> None:
    told = error_of(tmp_path, YAML.replace("{kind: push}", source.replace("SECRET", secret)))
    assert "name an environment variable (capital letters, digits, _), never the value itself" in told
    assert secret.strip("'") not in told


def test_the_webhook_is_named_by_a_variable_too(tmp_path: Path) -> None:
    declared = load(tmp_path, YAML.replace("HOOK", "https://hooks.example/s3cret"))
    with pytest.raises(ProviderError, match="never the value itself") as caught:
        job_settings(declared, None)
    assert "s3cret" not in str(caught.value)
