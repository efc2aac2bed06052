"""Tables, JSON and texts that the command line prints."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta

import pytest

from serving import render


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (-5, "-5"),
        (0.5, "0.5"),
        (123.456789, "123.5"),
        (25299.4, "25,299"),
        (datetime(2026, 6, 1, 12, 30, 5, 999, tzinfo=UTC), "2026-06-01 12:30:05Z"),
        (datetime(2026, 6, 1, 12), "2026-06-01 12:00:00"),  # noqa: DTZ001 - naive is the point: no Z
        (timedelta(minutes=27, seconds=30), "27m 30s"),
        (timedelta(days=1, hours=2, minutes=3), "1d 2h"),
        (timedelta(hours=-3), "-3h"),
        (timedelta(0), "0s"),
        (["a", 1], "a, 1"),
        ([], "-"),
        ({"a": 1, "b": None}, "a 1, b -"),
        ("text", "text"),
    ],
)
def test_one_cell_as_text(value: object, text: str) -> None:
    assert render.text_of(value) == text


def test_a_table_sets_numbers_to_the_right_and_nulls_as_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(
        [{"name": "a", "rows": 5}, {"name": "long name", "rows": 12345}, {"name": None, "rows": None}], title="Two"
    )
    assert capsys.readouterr().out.rstrip("\n").split("\n") == [
        "Two",
        "name          rows",
        "a                5",
        "long name   12,345",
        "-                -",
    ]


def test_a_table_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    render.table([])
    assert capsys.readouterr().out == "(nothing)\n"


def test_a_table_in_a_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    render.table([{"text": "word " * 100}])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_square_brackets_are_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    render.table([{"type": "list[i64]"}])
    assert "list[i64]" in capsys.readouterr().out


def test_facts_are_lined_up(capsys: pytest.CaptureFixture[str]) -> None:
    render.facts({"rows": 3, "provider": "mast"})
    assert capsys.readouterr().out == "rows       3\nprovider   mast\n"


def test_json_has_instants_in_utc_and_durations_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    render.as_json(
        {"at": datetime(2026, 6, 1, tzinfo=UTC), "day": date(2026, 6, 1), "for": timedelta(minutes=1), "set": {1}}
    )
    assert json.loads(capsys.readouterr().out) == {
        "at": "2026-06-01T00:00:00Z",
        "day": "2026-06-01",
        "for": 60.0,
        "set": [1],
    }


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        render.as_json(float("nan"))


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with render.progress("work", total=2) as bar:
        bar.advance(bar.task_ids[0])
    assert capsys.readouterr() == ("", "")


def test_colour_is_for_terminals_and_not_for_those_that_decline_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", coloured)
    render.complain(ValueError("wrong\n\nhint: right"), "Error")
    assert "\x1b[1;31m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stderr", plain)
    render.complain(ValueError("wrong\n\nhint: right"), "Error")
    assert "31m" not in plain.getvalue()
    assert "hint: right" in plain.getvalue()


@pytest.mark.parametrize("wanted", [True, False])
def test_no_color_on_a_terminal_writes_no_escape_codes(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not wanted:
        monkeypatch.setenv("NO_COLOR", "1")
    render.table([{"provider": "mast", "rows": 3}], title="logs")
    render.facts({"rows": 3}, title="facts")
    assert ("\x1b" in terminal.getvalue()) == wanted
