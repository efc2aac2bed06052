"""Small frames typed by hand: times are "10:00" (of 2026-01-05, a Monday, UTC), "06 10:00" (another day) or ISO."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

import alignment as al

INSTANT = pl.Datetime("us", "UTC")
TIMES = ("event_time", "arrival_time", "issue_time", "prediction_time")


def at(text: str | datetime | None) -> datetime | None:
    """The instant that a short text means; None stays None."""
    if text is None or isinstance(text, datetime):
        return text
    if "-" in text:
        return datetime.fromisoformat(text if "+" in text or text.endswith("Z") else f"{text}+00:00").astimezone(UTC)
    day, _, clock = text.rpartition(" ")
    hours, minutes, *seconds = clock.split(":")
    midnight = datetime(2026, 1, int(day or 5), tzinfo=UTC)
    return midnight + timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds[0]) if seconds else 0)


def table(columns: str, *rows: tuple[Any, ...], **dtypes: Any) -> pl.DataFrame:
    """A frame from a header of names and rows of cells; time columns hold `at` texts."""
    names = columns.split()
    cells: dict[str, list[Any]] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    series = []
    for name, values in cells.items():
        if name in dtypes:
            series.append(pl.Series(name, values, dtype=dtypes[name]))
        elif name in TIMES:
            series.append(pl.Series(name, [at(value) for value in values], dtype=INSTANT))
        elif name == "is_retraction":
            series.append(pl.Series(name, values, dtype=pl.Boolean))
        elif name == "log_sequence":
            series.append(pl.Series(name, values, dtype=pl.Int64))
        else:
            series.append(pl.Series(name, values, strict=False))
    return pl.DataFrame(series)


def temps(*rows: tuple[Any, ...], **dtypes: Any) -> pl.DataFrame:
    """Observations of one or more stations: (station, event, arrival, temp)."""
    return table("station event_time arrival_time temp", *rows, **({"temp": pl.Float64} | dtypes))


def asked(*instants: str, station: Any = "a") -> pl.DataFrame:
    """A spine of one station at some prediction times."""
    return table("station prediction_time", *((station, instant) for instant in instants), station=pl.String)


def weather(frame: Any, *features: Any, **arguments: Any) -> al.FeatureView:
    """A view named weather with the entity station."""
    arguments = {"entities": ["station"]} | arguments
    return al.FeatureView("weather", observations=frame, features=list(features), **arguments)


def answers(spine: pl.DataFrame, view: Any, column: str, **arguments: Any) -> list[Any]:
    """One feature column of a join, as a list."""
    views = view if isinstance(view, list) else [view]
    return al.point_in_time_join(spine, views, **arguments)[column].to_list()
