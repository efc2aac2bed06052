"""Hypothesis strategies for observations, features and spines.

Instants come from a dozen values, so that ties and exact boundaries are the rule and not luck; three calendars are used:
an ordinary Monday and the two nights in which clocks change in Berlin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st
from oracle_frames import Source

import alignment as al

INSTANT = pl.Datetime("us", "UTC")
BERLIN = "Europe/Berlin"
MICROSECOND = timedelta(microseconds=1)


def ticks(start: datetime, *minutes: float) -> list[datetime]:
    """Instants so many minutes after a start."""
    return [start + timedelta(minutes=offset) for offset in minutes]


PLAIN = ticks(datetime(2026, 1, 5, 10, tzinfo=UTC), 0, 10, 20, 30, 40, 50, 60, 70, 90, 120, 180, 24 * 60)
# Clocks go from 02:00 to 03:00 at 01:00 UTC on 29 March, and from 03:00 back to 02:00 at 01:00 UTC on 25 October.
SPRING = ticks(
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    *(h * 60 for h in (-48, -25.5, -24.5, -24, -23, -2, -1, -0.5, 0, 0.5, 1, 23, 23.5, 24, 25, 47.5)),
)
AUTUMN = ticks(
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    *(h * 60 for h in (-48, -25.5, -24.5, -24, -23.5, -2, -1, -0.5, 0, 0.5, 1, 23, 24, 24.5, 25, 48)),
)
CALENDARS = {"plain": PLAIN, "spring": SPRING, "autumn": AUTUMN}

DELAYS = [
    timedelta(0),
    MICROSECOND,
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(days=1),
]
AHEAD = [timedelta(0), timedelta(minutes=10), timedelta(minutes=30), timedelta(hours=1), timedelta(hours=24)]

# Values of a row are one number; each column reads it with its own table, so that few draws give many sorts of value.
FLOATS = [0.1, 0.2, 0.3, -1.5, 7.25, None, 1e16, 1.0, 0.0, -0.0, 3.3, 1e-3, math.nan, -2.7, math.inf, 12.0, -math.inf]
INTEGERS = [1, 2, None, -3, 2**40, 5, 8, -(2**40), 0, 13, 7]
BOOLEANS = [True, False, None, True]
TEXTS = ["ok", "", None, "wet", "é"]
SMALL = [1, -2, None, 100, 7]
SINGLES = [0.5, 0.1, None, 2.25, -1.0, 1e10, 3.0]
VALUE_COLUMNS = {
    "x": (FLOATS, pl.Float64),
    "n": (INTEGERS, pl.Int64),
    "flag": (BOOLEANS, pl.Boolean),
    "text": (TEXTS, pl.String),
    "small": (SMALL, pl.Int16),
    "single": (SINGLES, pl.Float32),
    "moment": ([datetime(2026, 1, 1, tzinfo=UTC), None, datetime(2027, 1, 1, tzinfo=UTC)], INSTANT),
    "pair": ([[1.0, 2.0], None, [0.5, -0.5], [3.0, 3.0]], pl.Array(pl.Float32, 2)),
}

# Entity keys: names, types and a few values each; the last value never occurs in observations.
KEYS: dict[str, list[tuple[str, Any, list[Any]]]] = {
    "text": [("station", pl.String, ["a", "b", "zz"])],
    "text and number": [("station", pl.String, ["a", "b", "zz"]), ("sensor", pl.Int32, [1, 2, 9])],
    "flag and day": [
        ("indoor", pl.Boolean, [True, False, True]),
        ("since", pl.Date, [date(2020, 1, 1), date(2021, 1, 1), date(2030, 1, 1)]),
    ],
    "number": [("meter", pl.Int64, [-1, 2**40, 7])],
    "one series": [],
}


@dataclass(frozen=True)
class Question:
    """A whole join: views, spine, and what is pretended."""

    sources: list[Source]
    spine: pl.DataFrame
    as_of: datetime | None


# --- features -------------------------------------------------------------------------------------------------------


def measurement_features(zoned: bool) -> list[Any]:
    """What a measurement view may declare; names are unique."""
    day = "1d" if zoned else "90m"
    declared = [
        al.latest("x"),
        al.latest("n"),
        al.latest("text"),
        al.latest("moment"),
        al.latest("pair"),
        al.latest("single"),
        al.latest("x", skip_null=True, name="x_kept"),
        al.latest("x", max_event_age="20m", name="x_fresh"),
        al.latest("n", max_arrival_age="10m", max_event_age="1h", name="n_fresh"),
        al.latest("flag", max_event_age=day, skip_null=True, name="flag_fresh"),
        al.lag("x", "10m"),
        al.lag("n", "30m", "0s"),
        al.lag("text", "20m", "10m"),
        al.lag("flag", ["1h", "24h"], "1h"),
        al.lag("x", day, "0s", name="x_day_before"),
        al.window("x", ["count", "sum", "mean"], "30m"),
        al.window("x", ["min", "max", "first", "last"], "1h", "10m"),
        al.window("x", ["std", "var", "median", "q90", "slope"], "24h"),
        al.window("n", ["sum", "mean", "min", "max", "q25"], "1h"),
        al.window("n", ["count", "slope", "std"], "2h", "30m"),
        al.window("flag", ["sum", "mean", "min", "max", "last"], "40m"),
        al.window("text", ["count", "first", "last"], "1h"),
        al.window("small", ["sum", "min", "median"], "1h"),
        al.window("single", ["sum", "mean", "max", "var", "q33.3"], "2h"),
        al.window("x", ["sum", "count"], day, name=None) if zoned else al.window("x", ["sum", "count"], "1us"),
        al.sequence("x", 3),
        al.sequence("text", 2, max_span="30m"),
        al.sequence("n", 4, step="10m"),
        al.sequence("pair", 2),
        al.event_age(),
        al.arrival_age(),
    ]
    if zoned:
        declared += [
            al.window("n", ["count", "sum"], "1w"),
            al.window("x", ["count", "max"], "1d", "1d"),
            al.window("x", ["count", "min"], "2h", "1d"),
            al.lag("n", ["1d", "2d"], "1d"),
            al.lag("x", "1w"),
            al.sequence("x", 3, step="1d"),
            al.sequence("n", 5, step="6h"),
            al.sequence("flag", 3, max_span="2d"),
        ]
    return declared


def forecast_features(zoned: bool) -> list[Any]:
    """What a forecast view may declare; names are unique."""
    declared = [
        al.forecast("x", ["0s", "10m", "30m", "1h"]),
        al.forecast("n", "1h", "30m"),
        al.forecast("text", "1h", "1h"),
        al.forecast("x", "10m", "10m", "10m", name="x_noticed"),
        al.forecast("n", "30m", "20m", "1h", name="n_noticed"),
        al.forecast("flag", "10m", "0s", "24h", name="flag_noticed"),
        al.forecast("x", "30m", "1h", max_issue_age="30m", name="x_fresh_run"),
        al.forecast("pair", "10m", "30m"),
        al.latest("x"),
        al.latest("n", max_issue_age="1h", name="n_fresh_run"),
        al.latest("text", skip_null=True),
        al.lag("x", "10m"),
        al.lag("n", "30m", "0s"),
        al.window("x", ["count", "sum", "mean", "max"], "1h"),
        al.window("x", ["count", "sum", "min", "last"], "1h", "-1h"),
        al.window("n", ["count", "sum", "median"], "30m", "-10m"),
        al.window("x", ["std", "slope", "q75"], "24h", "-24h"),
        al.sequence("x", 3),
        al.sequence("n", 3, step="10m"),
        al.event_age(),
        al.arrival_age(),
        al.issue_age(),
    ]
    if zoned:
        declared += [
            al.forecast("x", ["1d", "2d"]),
            al.forecast("n", "1d", "1d"),
            al.forecast("flag", "1h", "1h", "1d", name="flag_day_ahead"),
            al.window("x", ["count", "sum"], "1d", "-1d"),
            al.window("x", ["count", "first"], "1h", "-1d"),
            al.lag("n", "1d", "2h"),
            al.sequence("x", 3, step="1d"),
        ]
    return declared


@st.composite
def features(draw: st.DrawFn, *, kind: str, zoned: bool) -> tuple[Any, ...]:
    """A few of the features above, in any order."""
    declared = measurement_features(zoned) if kind == "measurement" else forecast_features(zoned)
    chosen = draw(st.lists(st.integers(0, len(declared) - 1), min_size=1, max_size=7, unique=True))
    return tuple(declared[place] for place in chosen)


# --- observations ---------------------------------------------------------------------------------------------------


def value_frame(numbers: list[int], gone: list[bool]) -> dict[str, pl.Series]:
    """The value columns of rows that drew these numbers; retractions carry nothing."""
    return {
        name: pl.Series(
            name,
            [None if g else pool[number % len(pool)] for number, g in zip(numbers, gone, strict=True)],
            dtype=dtype,
        )
        for name, (pool, dtype) in VALUE_COLUMNS.items()
    }


def key_columns(keys: list[tuple[str, Any, list[Any]]], entities: list[int]) -> dict[str, pl.Series]:
    """Entity columns; entity number 0 or 1, 2 is one that has no rows, -1 a null key."""
    return {
        name: pl.Series(name, [None if e < 0 else values[e] for e in entities], dtype=dtype)
        for name, dtype, values in keys
    }


@st.composite
def sources(
    draw: st.DrawFn,
    *,
    name: str = "weather",
    kind: str | None = None,
    calendar: str | None = None,
    keys: str | None = None,
    max_rows: int = 18,
    by_id: bool | None = None,
) -> Source:
    """One view over drawn rows: revisions, ties, retractions, re-insertions, moved events, late and withdrawn runs."""
    kind = kind or draw(st.sampled_from(["measurement", "forecast"]))
    calendar = calendar or draw(st.sampled_from(["plain", "plain", "spring", "autumn"]))
    keys = keys or draw(st.sampled_from(sorted(KEYS)))
    instants = CALENDARS[calendar]
    zoned = calendar != "plain" and draw(st.booleans())
    sequenced = draw(st.booleans())
    tie = "error" if sequenced or draw(st.integers(0, 3)) else "last"
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 1),  # entity
                st.integers(0, len(instants) - 1),  # event
                st.integers(0, 5),  # delay, or lead
                st.integers(0, 15),  # value
                st.sampled_from([0, 0, 0, 0, 1, 2]),  # 0 a value, 1 a retraction, 2 a retraction that names less
                st.integers(0, 3),  # id, or how late a run arrives
            ),
            max_size=max_rows,
        )
    )
    if by_id is None:
        by_id = kind == "measurement" and draw(st.integers(0, 2)) == 0
    if not KEYS[keys]:
        drawn = [(0, *cells[1:]) for cells in drawn]  # one series for all
    rows = [row(kind, instants, by_id=by_id, cells=cells) for cells in drawn]
    if not sequenced and tie == "error":
        rows = without_ties(rows, by_id=by_id)
    order = draw(st.permutations(range(len(rows))))
    frame = frame_of(rows, KEYS[keys], kind=kind, by_id=by_id)
    if sequenced:
        frame = frame.with_columns(
            log_sequence=pl.Series([2 * place + 3 for place in range(len(rows))], dtype=pl.Int64)
        )
    frame = frame[order] if tie == "error" else frame
    if kind == "forecast" and draw(st.integers(0, 3)) == 0 and (sequenced or tie == "last"):
        frame = frame.drop("issue_time")
    limits = draw(st.sampled_from([{}, {}, {"max_event_age": "30m"}, {"max_arrival_age": "1h", "max_event_age": "2h"}]))
    if kind == "forecast":
        limits = draw(st.sampled_from([{}, {}, {"max_issue_age": "1h"}, {"max_event_age": "30m"}]))
    return Source(
        name=name,
        frame=frame,
        entities=tuple(column for column, _, _ in KEYS[keys]),
        features=draw(features(kind=kind, zoned=zoned)),
        kind=kind,
        key=("ident",) if by_id else None,
        zone=BERLIN if zoned else None,
        on_tie=tie,
        **limits,
    )


def row(kind: str, instants: list[datetime], *, by_id: bool, cells: tuple[int, ...]) -> dict[str, Any]:
    """One drawn row."""
    entity, event, wait, value, sort, extra = cells
    found: dict[str, Any] = {
        "entity": entity,
        "event_time": instants[event],
        "gone": sort > 0,
        "value": value,
        "ident": f"q{extra}",
    }
    if kind == "measurement":
        early = extra == 3 and wait == 0 and not by_id
        found["arrival_time"] = instants[event] - timedelta(seconds=3) if early else instants[event] + DELAYS[wait]
        found["event_time"] = None if by_id and sort == 2 else found["event_time"]  # a retraction needs the key only
        return found
    issue = instants[event] - AHEAD[wait % len(AHEAD)]
    found["issue_time"] = None if sort == 2 else issue
    found["arrival_time"] = (
        issue + [timedelta(0), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=23)][extra]
    )
    return found


def without_ties(rows: list[dict[str, Any]], *, by_id: bool) -> list[dict[str, Any]]:
    """Rows such that no two say different things of one key at one arrival."""
    kept: dict[Any, dict[str, Any]] = {}
    for found in rows:
        about = found["ident"] if by_id else found["event_time"]
        kept[found["entity"], about, found["arrival_time"]] = found
    return list(kept.values())


def frame_of(
    rows: list[dict[str, Any]], keys: list[tuple[str, Any, list[Any]]], *, kind: str, by_id: bool
) -> pl.DataFrame:
    """Drawn rows as a frame."""
    gone = [found["gone"] for found in rows]
    columns: dict[str, pl.Series] = key_columns(keys, [found["entity"] for found in rows])
    if by_id:
        columns["ident"] = pl.Series("ident", [found["ident"] for found in rows], dtype=pl.String)
    for name in ("event_time", "arrival_time", *(["issue_time"] if kind == "forecast" else [])):
        columns[name] = pl.Series(name, [found[name] for found in rows], dtype=INSTANT)
    columns["is_retraction"] = pl.Series("is_retraction", [True if g else None for g in gone], dtype=pl.Boolean)
    return pl.DataFrame(columns | value_frame([found["value"] for found in rows], gone))


# --- spines and questions -------------------------------------------------------------------------------------------


@st.composite
def spines(
    draw: st.DrawFn, *, instants: list[datetime], keys: list[tuple[str, Any, list[Any]]], max_rows: int = 12
) -> pl.DataFrame:
    """Prediction times on, just before and just after the instants; duplicates, unknown and null entities."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 0, 1, 1, 2, -1]),
                st.integers(0, len(instants) - 1),
                st.sampled_from(
                    [timedelta(0), timedelta(0), -MICROSECOND, MICROSECOND, timedelta(minutes=10), timedelta(days=1)]
                ),
            ),
            min_size=1,
            max_size=max_rows,
        )
    )
    columns = key_columns(keys, [entity for entity, _, _ in drawn])
    columns["prediction_time"] = pl.Series(
        "prediction_time", [instants[i] + shift for _, i, shift in drawn], dtype=INSTANT
    )
    columns["carried"] = pl.Series("carried", range(len(drawn)), dtype=pl.Int64)
    return pl.DataFrame(columns)


@st.composite
def questions(
    draw: st.DrawFn, *, views: int = 1, kind: str | None = None, calendar: str | None = None, max_rows: int = 18
) -> Question:
    """A join of one or several views over one spine."""
    calendar = calendar or draw(st.sampled_from(["plain", "plain", "spring", "autumn"]))
    keys = draw(st.sampled_from(sorted(KEYS)))
    names = ["weather", "power", "tides"][:views]
    drawn = [draw(sources(name=name, kind=kind, calendar=calendar, keys=keys, max_rows=max_rows)) for name in names]
    instants = CALENDARS[calendar]
    spine = draw(spines(instants=instants, keys=KEYS[keys]))
    if keys == "text" and draw(st.integers(0, 3)) == 0:  # R21: the spine calls it differently
        spine = spine.rename({"station": "site"})
        drawn = [replace(source, entity_map={"site": "station"}) for source in drawn]
    as_of = draw(st.sampled_from([None, None, instants[3], instants[6], instants[-1] + timedelta(days=30)]))
    return Question(drawn, spine, as_of)
