"""`asknown replay` and training sets under outages, from a folder with a log and a views file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
import ingestion
from serving.cli import run

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
VIEWS = """
import alignment as al
import ingestion

weather = al.FeatureView("weather", observations=ingestion.open_log("logs", "mast"), features=[al.latest("temp")])
views = [weather]
services = [
    al.FeatureService(
        "power", ["weather__temp"], down_after={"mast": "15m"},
        variants=[al.Variant("full", needs=["mast"]), al.Variant("blind", needs=[])],
    )
]
"""
SPAN = ["--start", "2025-06-01T12:00Z", "--end", "2025-06-01T13:00Z"]


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Readings of every ten minutes, five minutes late, of two stations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    log = ingestion.create_log("logs", "mast", entities=["station"], clock=lambda: at(600))
    for step in range(-3, 9):
        rows = pl.DataFrame({"station": ["hill", "mast"], "temp": [float(step), 10.0 * step]})
        log.append(rows.with_columns(event_time=pl.lit(at(10 * step)), arrival_time=pl.lit(at(10 * step + 5))))
    Path("views.py").write_text(VIEWS)
    return tmp_path


def test_a_replay_prints_a_summary_and_writes_the_rows_of_the_function(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outage = "mast,2025-06-01T12:10Z,20m,entity=hill"
    words = ["replay", "views.py", *SPAN, "--every", "10m", "--outage", outage, "--delay", "mast=+2m"]
    assert run([*words, "--out", "there/rows.parquet"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(
        "12 rows replayed\n"
        "from 2025-06-01T12:00:00+00:00 to 2025-06-01T13:00:00+00:00, every 10m\n"
        "under: outage of mast from 2025-06-01 12:10:00Z to 2025-06-01 12:30:00Z, only of 'hill'; delay of mast: 2m later\n\n"
    )
    assert "weather__event_age" in told.out
    assert told.err == "12 rows -> there/rows.parquet\n"
    written = pl.read_parquet("there/rows.parquet")
    assert not list(Path("there").glob("*.partial"))
    view = al.FeatureView("weather", observations=ingestion.open_log("logs", "mast"), features=[al.latest("temp")])
    expected = al.replay(
        view,
        {"station": ["hill", "mast"]},
        at(0),
        at(60),
        "10m",
        outages=[al.Outage("mast", at(10), at(30), entities=["hill"])],
        delays={"mast": al.ShiftedDelay("2m")},
    )
    assert written.cast(dict(expected.schema)).equals(expected)
    assert written.filter(station="hill")["weather__temp"].to_list() == [-1.0, 0.0, 0.0, 2.0, 3.0, 4.0]


def test_json_has_coverage_ages_and_patterns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", "views.py", *SPAN, "--at", "12:30", "--at", "12:31", "--zone", "UTC", "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 4
    assert found["asked"] == {
        "start": "2025-06-01T12:00:00+00:00",
        "end": "2025-06-01T13:00:00+00:00",
        "every": ["12:30", "12:31"],
        "zone": "UTC",
        "as_of": None,
        "service": None,
        "variant": None,
        "rows": None,
    }
    assert found["provisional"] == 0
    assert found["patterns"] == [{"available": "weather", "rows": 4, "share": 1.0}]
    assert found["ages_in_seconds"][0]["max"] == 660.0


def test_a_service_says_which_variant_each_tick_would_have_had(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outage = ["--outage", "mast,2025-06-01T12:00Z,31m"]
    words = ["replay", "views.py", *SPAN, "--every", "10m", "--service", "power", *outage, "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["asked"]["service"], found["asked"]["outages"][0]["end"]) == ("power", "2025-06-01T12:31:00+00:00")
    # The last heartbeat is that of 11:55: down at 12:10, 12:20 and 12:30, until all is caught up at 12:31.
    assert found["variants"] == [
        {"variant": "blind", "rows": 6, "share": 0.5},
        {"variant": "full", "rows": 6, "share": 0.5},
    ]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--every", "10m", "--at", "12:00"], "--every and --at are both given, and only one can be"),
        (["--every", "10m", "--entities", "none.parquet"], "--entities none.parquet: there is no such file"),
        (["--every", "10m", "--outage", "weather,2025-06-01T12:00Z,1h"], "hint: did you mean 'mast'?"),
        (
            ["--every", "10m", "--outage", "mast,2025-06-01T12:00Z,1h,entity=hull"],
            "the outage of 'mast' names the entity 'hull', of which there are no rows\n\nhint: did you mean 'hill'? ",
        ),
        ([], "one of --every and --at is needed"),
        (["--every", "10m", "--out", "rows.csv"], "does not end in .parquet"),
        (["--every", "10m", "--delay", "mast"], "says nothing of a provider"),
        (["--every", "10m", "--delay", "mast=soon"], "is not a duration"),
        (["--every", "10m", "--delay", "mast=rule.json"], "cannot be read"),
        (["--every", "10m", "--delay", "mast=1m", "--delay", "mast=2m"], "names 'mast' twice"),
        (["--every", "10m", "--delay", "most=45m"], "'most' is no provider of the views"),
        (["--at", "12:00"], "--at 12:00: a time of day, and no --zone says on which clock"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], problem: str
) -> None:
    assert run(["replay", "views.py", *SPAN, *more]) == 2
    told = capsys.readouterr()
    assert problem in told.err
    assert told.out == ""
    assert not Path("rows.csv").exists()


def test_a_training_set_under_an_outage_is_built_and_rebuilt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    al.make_spine({"station": ["hill"]}, at(0), at(60), "10m").write_parquet("spine.parquet")
    words = ["dataset", "build", "views.py", "set", "--spine", "spine.parquet"]
    assert run([*words, "--outage", "mast,2025-06-01T12:10Z,20m,lost"]) == 0
    assert pl.read_parquet("set/data.parquet")["weather__temp"].to_list() == [-1.0, 0.0, 0.0, 0.0, 3.0, 4.0]
    assert json.loads(Path("set/manifest.json").read_text())["arrivals"]["outages"][0]["lost"] is True
    assert run(["dataset", "rebuild", "set/manifest.json"]) == 0
