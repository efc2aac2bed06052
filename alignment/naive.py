"""Observations as a join on event time sees them: today's table, in which every row was always there."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl

from alignment.layout import Pool, encode_entities, lay_out
from alignment.observations import Observations
from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, ISSUE, ORDER, RETRACTION, checked
from alignment.views import FeatureView


def naive_view(
    view: FeatureView, as_of_us: int, *, position: int | None = None, threads: int | None = None
) -> FeatureView:
    """`view` over the same observations with their arrivals ignored.

    Of each key only the revision that is current at `as_of_us` is left, none of a retracted key; it is visible from its
    `event_time` on, a forecast from its `issue_time` on. All issues of a forecast are kept.

    Args:
        view: The view.
        as_of_us: When the table is read, microseconds; rows that arrived later are not in it.
        position: Greatest `log_sequence` that counts; None for all.
        threads: How many threads; None for one per processor.

    Raises:
        AlignmentError: What the observations break.
    """
    same = copy.copy(view)
    same.observations = _without_arrivals(view.observations, view.columns_read, as_of_us, position, threads)
    return same


def _without_arrivals(
    observations: Observations, columns: list[str], as_of_us: int, position: int | None, threads: int | None
) -> Observations:
    stored = checked(observations, columns, position=position, as_of_us=as_of_us)
    frame = stored.frame.hstack([stored.column(name) for name in columns if name not in stored.frame.columns])
    kept = present_rows(observations, frame, as_of_us, position=position, threads=threads)
    rows = frame[kept["row"]]
    visible = ISSUE if observations.kind == "forecast" else EVENT
    times = {observations.event_time: EVENT, observations.arrival_time: visible}
    if observations.kind == "forecast":
        times[observations.issue_time] = ISSUE
    rows = rows.with_columns(
        pl.col(column).cast(pl.Datetime("us", "UTC")).alias(name) for name, column in times.items()
    )
    rows = rows.drop(EVENT, ARRIVAL, ISSUE, RETRACTION, ORDER, ARRIVAL_KIND, strict=False)
    return observations.but(frame=rows.with_columns(kept["order"].alias(observations.log_sequence)), derive={})


def in_order_of_arrival(
    observations: Observations, frame: pl.DataFrame, as_of_us: int, position: int | None, threads: int | None
) -> pl.DataFrame:
    """The rows that had arrived, by entity and in the order in which they count (R2).

    Returns:
        `order` (0, 1, ...), `entity` and `subject` (numbers; together they say which event or id a row is about), `issue` (number;
        negative for a forecast's retraction that names none, 0 for measurements) and `row` in `frame`.

    Raises:
        AmbiguousRevisionsError: If two different rows have one key and arrival and nothing orders them.
    """
    names = observations.entities
    with Pool(threads) as pool:
        spine = frame.select(names).unique() if names else pl.DataFrame({"": [None]})
        entities, _, given = encode_entities(spine, names, frame, names, observations.place, pool)
        layout = lay_out(observations, frame, given, entities, as_of_us, pool, position)
    return pl.DataFrame(
        {
            "entity": np.repeat(np.arange(entities), np.diff(layout.offsets)),
            "subject": layout.subject,
            "issue": layout.issue_key if layout.forecast else np.zeros(len(layout.rows), np.int32),
            "row": layout.rows,
        }
    ).with_row_index("order")


def present_rows(
    observations: Observations,
    frame: pl.DataFrame,
    as_of_us: int,
    *,
    position: int | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """The rows that are the last of their key and no retraction (R2, R3): `row` number, and `order` of arrival.

    Args:
        observations: What the rows are.
        frame: Checked canonical rows.
        as_of_us: Rows that arrived later are left out.
        position: The log position at which `frame` was read.
        threads: How many threads; None for one per processor.
    """
    of_key = ["entity", "subject", "issue"]
    arrived = in_order_of_arrival(observations, frame, as_of_us, position, threads)
    last = arrived.lazy().filter(pl.col("issue") >= 0).group_by(of_key).agg(pl.all().last())
    # A retraction that names no issue withdraws all those of its event that came before it.
    withdrawn = (
        arrived.lazy().filter(pl.col("issue") < 0).group_by("entity", "subject").agg(until=pl.col("order").max())
    )
    last = last.join(withdrawn, on=["entity", "subject"], how="left").filter(
        pl.col("until").is_null() | (pl.col("order") > pl.col("until"))
    )
    found = last.sort("order").select("row", pl.col("order").cast(pl.Int64)).collect()
    if RETRACTION in frame.columns:
        found = found.filter(~frame[RETRACTION].gather(found["row"]))
    return found
