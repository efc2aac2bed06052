"""The picture "what was known when" shows the right two rows and is the same twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ingestion.sources.simulated import SimulatedWorld
from serving.cli_quickstart import worth_seeing
from serving.pictures import Picture, what_was_known_when, write

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def picture() -> Picture:
    events = [NOON + timedelta(minutes=10 * i) for i in range(-24, 7)]
    first = pl.DataFrame({"event_time": events, "value": [float(i) for i in range(len(events))]})
    first = first.with_columns(arrival_time=pl.col("event_time") + timedelta(minutes=25))
    corrected = first.with_columns(
        (pl.col("value") + 100.0), arrival_time=pl.lit(NOON + timedelta(hours=18)).dt.cast_time_unit("us")
    )
    rows = pl.concat([first, corrected.select(first.columns)])
    return Picture(observations=rows, value="value", unit="kW", prediction_time=NOON, horizon=timedelta(minutes=20))


def texts(figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_it_rings_the_correction_that_a_naive_join_takes_and_the_reading_that_serving_had() -> None:
    words = texts(what_was_known_when(picture()))
    # Event 24 is noon itself, in its correction; event 21 (11:30) arrived at 11:55, event 22 (11:40) at 12:05.
    assert "a join on event time takes\nevent 12:00: 124 kW" in words
    assert "serving had\nevent 11:30: 21 kW" in words
    assert "label\n12:20" in words
    assert "caught" not in words


def test_axes_name_what_they_show_with_the_zone() -> None:
    top, main = what_was_known_when(picture()).axes
    assert main.get_xlabel() == "event_time: when it happened (2025-06-01, UTC)"
    assert main.get_ylabel() == "arrival_time: when serving had it (UTC)"
    assert len(top.lines) >= 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    first, second = (write(what_was_known_when(picture()), tmp_path / name / f"p.{suffix}") for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_the_default_world_has_a_day_worth_seeing() -> None:
    rows = SimulatedWorld(days=20).observations("pyranometer").filter(~pl.col("is_retraction"))
    site, noon = worth_seeing(rows)
    day = rows.filter(pl.col("site") == site, pl.col("event_time").dt.date() == noon.date())
    assert (day["arrival_time"].dt.date() > noon.date()).any()
    morning = day.filter(pl.col("arrival_time") < noon)
    assert morning.group_by("arrival_time").len()["len"].max() >= 5
