"""A folder of logs and a views file, small enough to know by heart, for tests of the pages.

Monday, 2026-01-05, UTC. Station a measures at full hours from 6:00 to 11:00 and each row arrives 30 minutes later, but that of 9:00,
which comes at 11:10 together with that of 10:00. The row of 7:00 is corrected at 10:00, that of 8:00 is withdrawn at 10:30. Station
HOSTILE has one row, whose note is hostile too. Provider wind forecasts site s at 0:00 and 6:00 for 9:00 and 12:00.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

import ingestion
from serving.pages import Pages, Site

HOSTILE = "<script>alert('entity')</script>"
NOTE = "<img src=x onerror=alert('value')>"
VIEWS = """
from pathlib import Path

import alignment as al
import ingestion

root = Path(__file__).parent / "logs"
views = [
    al.FeatureView(
        "weather",
        observations=ingestion.open_log(root, "weather"),
        features=[
            al.latest("temp", max_event_age="2h"),
            al.latest("note"),
            al.window("temp", ["mean", "count"], "3h"),
            al.lag("temp", "2h"),
            al.sequence("temp", 3),
        ],
    ),
    al.FeatureView("wind", observations=ingestion.open_log(root, "wind"), features=[al.forecast("speed", "3h")]),
]
"""


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 1, 5, hour, minute, second, tzinfo=UTC)


NOW = at(12)
ROWS = [  # event, arrival, temp, withdrawn
    (at(6), at(6, 30), 6.0, False),
    (at(7), at(7, 30), 7.0, False),
    (at(8), at(8, 30), 8.0, False),
    (at(7), at(10), 7.5, False),
    (at(8), at(10, 30), None, True),
    (at(9), at(11, 10), 9.0, False),
    (at(10), at(11, 10), 10.0, False),
    (at(11), at(11, 30), 11.0, False),
]
FORECASTS = [  # issue, event, arrival, speed
    (at(0), at(9), at(1), 3.0),
    (at(0), at(12), at(1), 4.0),
    (at(6), at(9), at(7), 3.5),
    (at(6), at(12), at(7), 4.5),
]


def make(folder: Path) -> Path:
    """Write the logs and the views file; returns the folder."""
    weather = ingestion.create_log(folder / "logs", "weather", entities=["station"])
    for event, arrival, temp, withdrawn in ROWS:
        weather.append(_row("a", event, arrival, temp, withdrawn=withdrawn))
    weather.append(_row(HOSTILE, at(11, 20), at(11, 40), 1.0, note=NOTE))
    weather.append(_row(None, at(11, 30), at(11, 50), 1.0))
    wind = ingestion.create_log(folder / "logs", "wind", entities=["site"], kind="forecast")
    for issue, event, arrival, speed in FORECASTS:
        wind.append(
            pl.DataFrame(
                {
                    "site": ["s"],
                    "issue_time": [issue],
                    "event_time": [event],
                    "arrival_time": [arrival],
                    "speed": [speed],
                }
            )
        )
    (folder / "views.py").write_text(VIEWS)
    return folder


def _row(
    station: str | None,
    event: datetime,
    arrival: datetime,
    temp: float | None,
    *,
    withdrawn: bool = False,
    note: str | None = None,
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "station": pl.Series([station], dtype=pl.String),
            "event_time": [event],
            "arrival_time": [arrival],
            "is_retraction": [withdrawn],
            "temp": pl.Series([temp], dtype=pl.Float64),
            "note": pl.Series([note], dtype=pl.String),
        }
    )


def pages(target: Path, *, base: str = "", now: datetime = NOW) -> Pages:
    """The pages of a site, at noon."""
    return Pages(Site(target), base=base, clock=lambda: now)
