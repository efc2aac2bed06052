"""`asknown delays fit`, and where its file is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
from ingestion import create_log, open_log
from serving.cli import run
from serving.delay_options import parse_delay, parse_delays

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def logs(tmp_path) -> Path:
    """A log of eight days of hourly events, each twenty minutes late."""
    events = pl.Series("event_time", [MONDAY + timedelta(hours=n) for n in range(192)], dtype=pl.Datetime("us", "UTC"))
    rows = pl.DataFrame(events).with_columns(arrival_time=pl.col("event_time") + timedelta(minutes=20), load_kw=1.0)
    create_log(tmp_path / "logs", "meter", entities=[]).append(rows)
    return tmp_path / "logs"


def test_a_rule_is_fitted_shown_and_written(logs, tmp_path, capsys):
    out = tmp_path / "rules" / "meter.json"
    assert run(["delays", "fit", str(logs), "meter", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    told = [line.split("  ", 1) for line in shown.out.splitlines() if "  " in line]
    facts = {name.strip(): text.strip() for name, text in told}
    assert facts["delay q50"] == "20m"
    assert facts["arrive together"] == "all rows of an event"
    assert facts["delays depend on"] == "neither hour nor column"
    assert facts["borrowed at a time"] == "1 day in a row"
    assert f"rule -> {out}" in shown.err
    assert al.EmpiricalDelay.from_dict(json.loads(out.read_text())) == al.fit_delay(open_log(logs, "meter"))


def test_a_period_that_was_held_out_tells_how_good_it_is(logs, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert run(["delays", "fit", str(logs), "meter", "--by", "hour", "--holdout", "0.5", "--html", str(page)]) == 0
    assert "empirical      1.000   1.000  1.000   +0.0 %" in capsys.readouterr().out
    assert "What would have been visible" in page.read_text()


def test_json_has_the_rule_and_the_comparison(logs, capsys):
    assert run(["delays", "fit", str(logs), "meter", "--by", "none", "--holdout", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rule"]["by"] == []
    assert [row["rule"] for row in told["holdout"]["scores"]] == ["fixed", "daily", "empirical"]


def test_a_fitted_rule_stamps_history(logs, tmp_path, capsys):
    rule, history = tmp_path / "rule.json", tmp_path / "history.parquet"
    assert run(["delays", "fit", str(logs), "meter", "--out", str(rule)]) == 0
    pl.DataFrame({"event_time": [MONDAY - timedelta(days=9)], "load_kw": [2.0]}).write_parquet(history)
    assert run(["log", "append", str(logs), "meter", str(history), "--backfill", "--delay", str(rule)]) == 0
    loaded = open_log(logs, "meter").scan().filter(pl.col("arrival_kind") == "modelled").collect()
    assert (loaded["arrival_time"] - loaded["event_time"]).to_list() == [timedelta(minutes=20)]
    more = tmp_path / "more.parquet"
    pl.DataFrame({"event_time": [MONDAY - timedelta(days=8)], "load_kw": [2.0]}).write_parquet(more)
    assert run(["backfill", "meter", str(more), "--root", str(logs), "--delay", str(rule)]) == 0
    assert open_log(logs, "meter").scan().filter(pl.col("arrival_kind") == "modelled").collect().height == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--html", "x.html"], "--html is of the comparison"),
        (["--holdout", "1.5"], "holdout=1.5 is no share of the time"),
        (["--by", "station"], "provider 'meter' has no column 'station'"),
        (["--until", "2026-01-05T00:20:00Z"], "too little was measured"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logs, arguments, told, capsys):
    assert run(["delays", "fit", str(logs), "meter", *arguments]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_file_without_a_rule_is_refused(logs, tmp_path, capsys):
    wrong, history = tmp_path / "rule.json", tmp_path / "history.parquet"
    wrong.write_text("[]")
    pl.DataFrame({"event_time": [MONDAY], "load_kw": [2.0]}).write_parquet(history)
    for name in (wrong, tmp_path / "no.json"):
        assert run(["log", "append", str(logs), "meter", str(history), "--backfill", "--delay", str(name)]) == 2
    assert "the file holds no delay rule" in capsys.readouterr().err


def test_a_rule_fitted_to_another_provider_is_taken_with_a_note(logs, tmp_path, capsys):
    rule, history = tmp_path / "rule.json", tmp_path / "history.parquet"
    assert run(["delays", "fit", str(logs), "meter", "--out", str(rule)]) == 0
    capsys.readouterr()
    fitted = al.fit_delay(open_log(logs, "meter"))
    assert parse_delays([f"meter={rule}", "mast=45m"])["meter"] == parse_delay(str(rule), "meter") == fitted
    assert parse_delay(str(rule)) == fitted
    assert capsys.readouterr().err == ""
    assert parse_delays([f"mast={rule}"])["mast"] == parse_delay(str(rule), "sky") == fitted
    notes = " ".join(capsys.readouterr().err.split())
    assert "was fitted to 'meter', and is applied to 'mast'" in notes
    assert "was fitted to 'meter', and is applied to 'sky'" in notes
    create_log(logs, "mast", entities=[])
    pl.DataFrame({"event_time": [MONDAY - timedelta(days=9)], "load_kw": [2.0]}).write_parquet(history)
    assert run(["log", "append", str(logs), "mast", str(history), "--backfill", "--delay", str(rule)]) == 0
    assert "is applied to 'mast'" in " ".join(capsys.readouterr().err.split())
    anybody = al.fit_delay(open_log(logs, "meter"), provider="observations")
    rule.write_text(json.dumps(anybody.to_dict()))
    assert parse_delays([f"mast={rule}"])["mast"] == anybody
    assert capsys.readouterr().err == ""
