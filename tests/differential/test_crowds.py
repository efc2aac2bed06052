"""Hundreds of rows per entity in any order: what a dozen drawn rows cannot reach (merging, searching, cutting work up)."""

from __future__ import annotations

import random
from datetime import timedelta

import polars as pl
import pytest
from compare import check
from oracle_frames import Source, view_of
from strategies import (
    BERLIN,
    CALENDARS,
    KEYS,
    forecast_features,
    frame_of,
    key_columns,
    measurement_features,
    row,
    without_ties,
)

import alignment as al

ROWS, QUESTIONS = 400, 24


def crowd(seed: int, kind: str, calendar: str, *, by_id: bool) -> tuple[Source, pl.DataFrame]:
    """A view with all features over many seeded rows of two entities, one of them with most, and a spine."""
    dice = random.Random(seed)
    start = CALENDARS[calendar][0]
    instants = sorted(start + timedelta(minutes=10 * dice.randrange(600)) for _ in range(200))
    cells = [
        (
            int(dice.random() < 0.1),
            dice.randrange(len(instants)),
            dice.randrange(6),
            dice.randrange(16),
            dice.choice([0] * 9 + [1, 2]),
            dice.randrange(4) if kind == "forecast" else dice.randrange(150),
        )
        for _ in range(ROWS)
    ]
    rows = without_ties([row(kind, instants, by_id=by_id, cells=one) for one in cells], by_id=by_id)
    keys = KEYS["text and number"]
    frame = frame_of(rows, keys, kind=kind, by_id=by_id)
    zoned = calendar != "plain"
    features = measurement_features(zoned) if kind == "measurement" else forecast_features(zoned)
    source = Source(
        "crowd",
        frame,
        tuple(name for name, _, _ in keys),
        tuple(features),
        kind=kind,
        key=("ident",) if by_id else None,
        zone=BERLIN if zoned else None,
    )
    asked = [
        (int(dice.random() < 0.1), dice.choice(instants) + timedelta(minutes=dice.randrange(90)))
        for _ in range(QUESTIONS)
    ]
    columns = key_columns(keys, [entity for entity, _ in asked])
    columns["prediction_time"] = pl.Series([t for _, t in asked], dtype=frame.schema["event_time"])
    return source, pl.DataFrame(columns)


CROWDS = [
    (1, "measurement", "plain", False),
    (2, "measurement", "autumn", False),
    (3, "measurement", "spring", True),
    (4, "forecast", "plain", False),
    (5, "forecast", "autumn", False),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("seed", "kind", "calendar", "by_id"), CROWDS)
def test_many_rows_are_answered_as_the_oracle_does(seed, kind, calendar, by_id, threads):
    source, spine = crowd(seed, kind, calendar, by_id=by_id)
    assert source.frame.height > 300
    check(al.point_in_time_join(spine, [view_of(source)], status=True, threads=threads), spine, [source])
