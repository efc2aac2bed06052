"""`asknown whatif delay` and `whatif outage`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.cli import run

VIEWS = """
from datetime import UTC, datetime, timedelta

import polars as pl

import alignment as al

start = datetime(2026, 1, 1, tzinfo=UTC)
hours = pl.datetime_range(start, start + timedelta(days=10), "1h", eager=True, closed="left")
ramp = pl.DataFrame({"site": "a", "event_time": hours, "load": range(240)}).with_columns(pl.col("load").cast(pl.Float64))
meter = ramp.with_columns(arrival_time=pl.col("event_time") + timedelta(hours=1))
plan = ramp.with_columns(pl.col("load") + 5, arrival_time="event_time")
views = [
    al.FeatureView("meter", ["site"], meter, [al.latest("load")]),
    al.FeatureView("plan", ["site"], plan, [al.latest("load")]),
]
label = al.label("load", "1h", observations=al.Observations(meter, ["site"]))
spine = pl.DataFrame({"site": "a", "prediction_time": hours[8:]})
services = [
    al.FeatureService(
        "power",
        ["meter", "plan"],
        down_after="3h",
        variants=[al.Variant("full", features=["meter"]), al.Variant("spare", features=["plan"])],
    )
]
"""
MODEL = """
class Newest:
    def fit(self, rows, target):
        pass

    def predict(self, rows):
        return rows[:, 0]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a views file and a module of models, which the commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("views.py").write_text(VIEWS)
    Path("my_models_of_whatif.py").write_text(MODEL)
    return tmp_path


NEWEST = ["--model", "my_models_of_whatif:Newest"]


def test_delay_prints_a_table_and_writes_a_picture_and_a_page(folder, capsys):
    pytest.importorskip("matplotlib")
    command = ["whatif", "delay", "views.py", *NEWEST, "--provider", "meter", "--shift", "2h", "--shift", "0m"]
    assert run([*command, "--unit", "kW", "--picture", "delay.svg", "--html", "delay.html"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == "What a delay costs: load (kW), 69 rows tested on 3 days (UTC)"
    # The meter lies 2 below the label, 4 below with 2 hours more; the model learns nothing from it.
    assert lines[3].split() == ["meter", "0m", "0.0", "%", "2.000", "-", "-", "2.000", "-", "-"]
    change = ["+2.000", "2.000", "to", "2.000"]
    assert lines[4].split() == ["meter", "2h", "100.0", "%", "4.000", *change, "4.000", *change]
    assert told.err == "picture -> delay.svg\nreport -> delay.html\n"
    assert Path("delay.svg").read_text().startswith("<?xml")
    assert Path("delay.html").read_text().startswith("<!doctype html>")


def test_delay_as_json_by_default_for_all_providers_and_shifts(folder, capsys):
    assert run(["whatif", "delay", "views.py", "--no-retrain", "--seed", "3", "--zone", "Europe/Berlin", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["provider"], row["shift"]) for row in report["costs"]] == [
        (provider, shift) for provider in ("meter", "plan") for shift in ("-15m", "0m", "15m", "30m", "1h", "2h", "off")
    ]
    assert {row["model"] for row in report["costs"]} == {"deployed"}
    assert (report["zone"], report["model"]) == ("Europe/Berlin", "a ridge regression")


def test_outage_scores_variants_by_pattern(folder, capsys):
    # The meter's rows of 2026-01-09 00:00 to 12:00 come at 12:00: it is down from 02:00 (three hours after 23:00) to 11:00.
    outage = ["--outage", "meter,2026-01-09T00:00Z,12h"]
    assert run(["whatif", "outage", "views.py", *NEWEST, *outage, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["pattern"], row["rows"], row["served"]) for row in report["winners"]] == [
        ("all up", 59, "full"),
        ("without meter", 10, "spare"),
    ]
    assert report["outages"][0]["end"] == "2026-01-09T12:00:00+00:00"
    assert run(["whatif", "outage", "views.py", *NEWEST, "--service", "power", "--train-rows", "all"]) == 0
    assert capsys.readouterr().out.startswith("What an outage costs: service 'power', load, 69 rows tested on 3 days")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["delay", "views.py", "--provider", "mast"], "'mast' is no provider of the views"),
        (["delay", "views.py", "--shift", "soon"], "shift='soon' is not a duration"),
        (["delay", "views.py", "--model", "ridge"], "--model 'ridge' is not module:factory"),
        (["delay", "views.py", "--model", "nowhere_at_all:Ridge"], "--model 'nowhere_at_all:Ridge' cannot be imported"),
        (["delay", "views.py", "--model", "math:Ridge"], "--model 'math:Ridge' cannot be imported"),
        (["delay", "views.py", "--picture", "delay.bmp"], "--picture delay.bmp does not end in .png, .svg, .pdf"),
        (["outage", "views.py", "--service", "heat"], "it declares no service 'heat'"),
        (["outage", "views.py", "--outage", "meter"], "--outage 'meter' is not an outage"),
        (["outage", "views.py", "--train-rows", "few"], "train_rows='few' is unknown"),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_is_2(folder, capsys, command, message):
    assert run(["whatif", *command]) == 2
    assert message in capsys.readouterr().err


def test_a_views_file_without_label_or_services(folder, capsys):
    Path("bare.py").write_text(VIEWS.replace("label =", "truth =").replace("services =", "others ="))
    assert run(["whatif", "delay", "bare.py"]) == 2
    assert capsys.readouterr().err == (
        "OptionError: bare.py declares no label, and a score needs one\n\n"
        'hint: declare one: label = al.label("power_kw", horizon="20m")\n'
    )
    assert run(["whatif", "outage", "bare.py"]) == 2
    assert "bare.py declares 0 services, and --service is not given" in capsys.readouterr().err
