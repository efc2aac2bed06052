"""What was known at one instant: one row per event."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from alignment import codes
from alignment.durations import instant_us
from alignment.errors import ViewError
from alignment.layout import Pool, encode_entities, lay_out, lay_out_questions
from alignment.observations import FrameLike, Observations, ObservationSource
from alignment.plan import Question, Sweep
from alignment.rows import ARRIVAL, EVENT, ISSUE, checked
from alignment.sweeps import run_sweep
from alignment.views import FeatureView


def snapshot(
    observations: Observations | FeatureView | ObservationSource,
    as_of: datetime,
    *,
    position: int | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """Every event as it was known at `as_of`: its current revision, of forecasts that of the newest present issue (R1-R4).

    Args:
        observations: `Observations`, a view, or a log.
        as_of: The instant; rows with `arrival_time <= as_of` count.
        position: Greatest `log_sequence` that counts; None for all.
        threads: How many threads; None for one per processor.

    Returns:
        Entity (and id) columns, `event_time`, for forecasts `issue_time`, `arrival_time`, then the values; one row per
        event that is not retracted, ordered by entity, event and id.

    Raises:
        NaiveTimeError: If `as_of` has no zone.
        AlignmentError: What the observations break; see `Observations`.

    Example:
        >>> from datetime import UTC, datetime
        >>> def at(hour, minute=0):
        ...     return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)
        >>> frame = pl.DataFrame(
        ...     {
        ...         "station": ["a", "a"],
        ...         "event_time": [at(10), at(10)],
        ...         "arrival_time": [at(10, 40), at(12)],
        ...         "temp": [3.5, 4.0],
        ...     }
        ... )
        >>> rows = Observations(frame, ["station"])
        >>> [snapshot(rows, at(hour))["temp"].to_list() for hour in (10, 11, 12)]
        [[], [3.5], [4.0]]
    """
    rows = as_observations(observations)
    as_of_us = instant_us(as_of, "as_of")
    names = [*rows.entities, *(name for name in rows.key if name not in rows.entities)]
    stored = checked(rows, rows.values, position=position, as_of_us=as_of_us)
    frame = stored.frame
    with Pool(threads) as pool:
        spine = frame.select(rows.entities).unique() if rows.entities else pl.DataFrame({"": [None]})
        t = np.full(spine.height, as_of_us, np.int64)
        entities, asking, given = encode_entities(spine, rows.entities, frame, rows.entities, rows.place, pool)
        asked = lay_out_questions(asking, entities, t, pool)
        layout = lay_out(rows, frame, given, entities, as_of_us, pool, position)
        sweep = Sweep(None, questions=[Question(codes.EVERYTHING, None, 0)])
        answers = run_sweep(sweep, layout, asked, stored, len(layout.rows), None, pool)
    picked = answers.picks[0]
    picked = picked[picked >= 0]
    values = [stored.column(name).gather(picked) for name in rows.values if name not in frame.columns]
    found = frame[picked].hstack(values).sort([*rows.entities, EVENT, *rows.key], maintain_order=True)
    times = {EVENT: rows.event_time, ISSUE: rows.issue_time, ARRIVAL: rows.arrival_time}
    if rows.kind != "forecast":
        del times[ISSUE]
    known: pl.DataFrame = found.select(
        *names,
        *(pl.col(column).cast(pl.Datetime("us", "UTC")).alias(name) for column, name in times.items()),
        *rows.values,
    )
    return known


def as_observations(given: Observations | FeatureView | FrameLike) -> Observations:
    """`given` as observations.

    Raises:
        ViewError: If it is a bare frame, which does not say what its entities are.
    """
    if isinstance(given, FeatureView):
        return given.observations
    if isinstance(given, Observations):
        return given
    if isinstance(given, ObservationSource):
        return Observations(given)
    raise ViewError(
        f"a {type(given).__name__} does not say which columns are entities",
        'wrap it, e.g. al.Observations(frame, entities=["station"]).',
    )
