"""`asknown label-maturity` from an empty folder: the table, JSON, page and picture, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ingestion import create_log
from serving.cli import run

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log of cases: nine tenths after a day, all of them after three."""
    root = tmp_path_factory.mktemp("logs")
    rows = [
        ("north", MONDAY + timedelta(days=day), MONDAY + timedelta(days=day + late), cases)
        for day in range(40)
        for late, cases in ((1, 90), (3, 100))
    ]
    frame = pl.DataFrame(rows, schema=["region", "event_time", "arrival_time", "cases"], orient="row")
    create_log(root, "health", entities=["region"]).append(frame.sort("arrival_time"))
    return str(root)


def test_the_table_recommends_a_release(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["label-maturity", logs, "health", "cases", "--horizon", "7d"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Label maturity of 'cases': 36 events, as of 2026-02-16 00:00:00Z\n")
    assert "release='3d'), and an embargo of 10d or more" in printed


def test_json_page_and_picture(logs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = tmp_path / "out" / "m.html", tmp_path / "out" / "m.png"
    command = ["label-maturity", logs, "health", "cases", "--within", "20%", "--json"]
    assert run([*command, "--html", str(page), "--picture", str(picture)]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["release"], report["within"]) == ("first", "20%")  # 90 is within a fifth of 100
    assert captured.err == f"report -> {page}\npicture -> {picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Label maturity of cases" in page.read_text()


def test_the_past_and_the_watch_can_be_chosen(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "label-maturity",
        logs,
        "health",
        "cases",
        "--as-of",
        "2026-01-25T00:00:00Z",
        "--watched",
        "10d",
        "--json",
    ]
    assert run([*command, "--share", "0.5"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["as_of"], report["watched"], report["events"]) == ("2026-01-25T00:00:00+00:00", 864_000.0, 10)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["casez"], "MissingColumnError"),
        (["cases", "--within", "near"], "DefinitionError: within='near' is no tolerance"),
        (["cases", "--watched", "soon"], "DurationError: watched='soon' is not a duration"),
        (["cases", "--picture", "m.txt"], "OptionError: --picture m.txt does not end in .png"),
    ],
)
def test_what_means_nothing_exits_with_2(
    logs: str, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["label-maturity", logs, "health", *arguments]) == 2
    assert capsys.readouterr().err.startswith(complaint)
