"""`asknown explain` from a views file: text, JSON, HTML, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers import table

import ingestion
from serving.cli import run

VIEWS = """
import alignment as al
import ingestion

views = [
    al.FeatureView("weather", observations=ingestion.open_log("logs", "mast"), features=[al.latest("temp"), al.event_age()])
]
"""
AT = ["--at", "2026-01-05T11:00:00Z"]
ENTITY = ["--entity", "station=hill", "--entity", "height=10"]


@pytest.fixture(autouse=True)
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with two batches, at positions 0 and 1, and a views file over it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    log = ingestion.create_log("logs", "mast", entities=["station", "height"])
    rows = table(
        "station height event_time arrival_time temp",
        ("hill", 10, "10:00", "10:10", 1.5),
        ("hill", 10, "10:30", "10:40", 2.5),
    )
    log.append(rows[:1])
    log.append(rows[1:])
    Path("views.py").write_text(VIEWS)


def explained(*words: str) -> int:
    return run(["explain", "views.py", *words])


def test_the_text_goes_to_standard_output(capsys):
    assert explained(*ENTITY, *AT, "--feature", "weather__temp") == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "Explanation: station='hill', height=10 at 2026-01-05 11:00:00Z, provisional\n\nweather__temp = 2.5 (present)\n"
    )
    assert "weather__event_age" not in out
    assert err == ""


def test_json_is_the_plain_data_at_a_position(capsys):
    assert explained(*ENTITY, *AT, "--position", "0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    temp, age = found["features"]
    assert (temp["value"], temp["position"], temp["unused_counts"]) == (1.5, 0, {"beyond_position": 1})
    assert (age["feature"], age["value"]) == ("weather__event_age", 3600.0)
    assert explained(*ENTITY, *AT, "--position", "weather=0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_as_of_is_passed_on(capsys):
    assert explained(*ENTITY, *AT, "--as-of", "2026-01-05T10:20:00Z", "--json") == 0
    assert json.loads(capsys.readouterr().out)["features"][0]["unused_counts"] == {"after_as_of": 1}


def test_arrivals_can_be_moved(capsys):
    outage = ["--outage", "mast,2026-01-05T10:20Z,2026-01-05T12:00Z"]
    assert explained(*ENTITY, *AT, *outage, "--feature", "temp", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["features"]
    assert (found["value"], found["unused"][0]["arrival_time"]) == (1.5, "2026-01-05T12:00:00+00:00")
    assert explained(*ENTITY, *AT, "--delay", "mast=20m", "--feature", "temp", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["features"]
    assert found["used"][0]["arrival_time"] == "2026-01-05T10:50:00+00:00"


def test_an_entity_that_is_not_there_is_told_with_those_that_are(capsys):
    assert explained("--entity", "station=hull", "--entity", "height=10", *AT, "--feature", "temp") == 0
    assert "no rows of station='hull', height=10; there are (station='hill', height=10)\n" in capsys.readouterr().out


def test_the_page_is_written_where_it_is_asked_for(capsys):
    assert explained(*ENTITY, *AT, "--html", "pages/why.html") == 0
    assert capsys.readouterr().err == "explanation -> pages/why.html\n"
    assert Path("pages/why.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([*AT, "--entity", "station"], "OptionError: --entity 'station' names no entity column"),
        ([*AT, "--entity", "place=hill"], "the columns are station, height"),
        ([*AT, "--entity", "station=hill"], "the entity column 'height' has no value"),
        ([*AT, "--entity", "station=hill", "--entity", "height=tall"], "'tall' is no Int64"),
        ([*ENTITY, "--at", "2026-01-05T11:00:00"], "has no zone"),
        ([*ENTITY, *AT, "--position", "last"], "--position 'last' is no position"),
        ([*ENTITY, *AT, "--position", "1", "--position", "weather=1"], "--position '1' is no position"),
        ([*ENTITY, *AT, "--position", "9"], "PositionError"),
        ([*ENTITY, *AT, "--position", "nope=1"], "--position 'nope=1' names no view\n\nhint: the views are 'weather'"),
        ([*ENTITY, *AT, "--feature", "humidity"], "there is no feature 'humidity'"),
        ([*ENTITY, *AT, "--rows", "0"], "--rows"),
        (ENTITY, "--at"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_two(words, complaint, capsys):
    assert explained(*words) == 2
    assert complaint in capsys.readouterr().err
