"""`asknown dataset build --providers`: a training set is held against the contracts of its providers."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.cli import run

VIEWS = """
from datetime import UTC, datetime, timedelta
import alignment as al
import ingestion
import polars as pl

noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
log = ingestion.create_log("logs", "mast", entities=["station"], exist_ok=True)
log.append(pl.DataFrame({
    "station": ["a", "a"], "event_time": [noon, noon + timedelta(minutes=10)],
    "arrival_time": [noon + timedelta(minutes=20), noon + timedelta(minutes=30)], "temp": [21.0, 412.0],
}), batch_id="once")
views = [al.FeatureView("weather", observations=log, features=[al.latest("temp"), al.window("temp", "max", "1h")])]
spine = al.make_spine({"station": ["a"]}, noon + timedelta(minutes=20), noon + timedelta(minutes=40), "10m")
"""
PROVIDERS = "providers:\n  mast:\n    entities: [station]\n    contract: {columns: {temp: {dtype: Float64, max: 60, unit: degC}}}\n"


def test_what_breaks_a_contract_is_told_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("views.py").write_text(VIEWS)
    Path("asknown.yaml").write_text(PROVIDERS)
    assert run(["dataset", "build", "views.py", "set", "--providers", "asknown.yaml"]) == 1
    told = capsys.readouterr().err
    assert "weather: 2 rows, 2 columns checked: 2 rules broken" in told
    assert "weather__temp_max_1h is above max 60 degC: 1 rows; first: row 1, 412.0" in told
    assert Path("set/manifest.json").is_file()
    Path("asknown.yaml").write_text(PROVIDERS.replace("60", "500"))
    assert run(["dataset", "build", "views.py", "again", "--providers", "asknown.yaml"]) == 0
    assert "they keep the contract" in capsys.readouterr().err
