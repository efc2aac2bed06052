"""The live table of `asknown status` on a small terminal."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

from rich.console import Console

from serving.cli_status import drawn


def row(provider: str, state: str, **more: Any) -> dict[str, Any]:
    names = ("last_arrival", "age", "delay", "usual", "last_poll", "failures", "down_for", "missed", "quarantine")
    rest = dict.fromkeys((*names, "alerts", "store_lag", "position"))
    return {"provider": provider, "state": state, **rest, **more}


def text(rows: list[dict[str, Any]], *, width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawn(rows, width=width, height=height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_what_is_wrong_comes_first_and_the_rest_is_counted() -> None:
    rows = [row(f"p{number}", "ok") for number in range(20)] + [row("late", "overdue"), row("bad", "failing")]
    lines = text(rows, width=80, height=6)
    assert lines[0].startswith("22 providers, 1 overdue, ")
    assert "19 more are not shown" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["late", "bad", "p0"]


def test_no_cell_is_cut_and_empty_columns_are_left_out() -> None:
    minutes = timedelta(minutes=12, seconds=30)
    rows = [row("a_provider_with_a_name", "ok", age=minutes, delay=minutes, usual="20s .. 30s", position=123_456)]
    assert text(rows, width=120, height=9)[1].split() == ["provider", "state", "age", "delay", "usual", "position"]
    narrow = text(rows, width=50, height=9)
    assert narrow[1].split() == ["provider", "state", "age", "delay"]
    assert narrow[2].split() == ["a_provider_with_a_name", "ok", "12m", "30s", "12m", "30s"]


def test_there_may_be_nothing_to_show() -> None:
    assert text([], width=80, height=24)[0].startswith("0 providers, 0 overdue, ")
