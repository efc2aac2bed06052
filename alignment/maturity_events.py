"""What ripens and how: revisions by event, when each settled, what its label was at an age."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from alignment.labels import evaluate_label, label
from alignment.naive import in_order_of_arrival
from alignment.observations import Observations
from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, RETRACTION, checked
from alignment.settling import FIRST, KEY, LAST, ROW, final_rows, near, readable, settled_rows, side_by_side
from alignment.spine import Spine

LEFT_OUT = ("retracted", "no_value", "not_measured", "before_log", "too_young")
"""Why an event does not count, in the order in which the reasons strike."""


def revisions_of(
    rows: Observations, column: str, as_of_us: int, position: int | None, threads: int | None
) -> pl.DataFrame:
    """Rows that had arrived, those of an event (or id) side by side in their order, as `side_by_side` marks them.

    Columns: the entities, `event_us`, `arrival_us`, `gone`, `measured`, `value`.
    """
    kind = ["arrival_kind"] if "arrival_kind" in rows.schema and column != "arrival_kind" else []
    stored = checked(rows, [column, *kind], position=position, as_of_us=as_of_us)
    frame = stored.frame
    order = in_order_of_arrival(rows, frame, as_of_us, position, threads)
    picked = order["row"]
    how = stored.column(kind[0]) if kind else frame[ARRIVAL_KIND] if ARRIVAL_KIND in frame.columns else None
    found = order.select("order", *(frame[name].gather(picked) for name in rows.entities)).with_columns(
        order["entity"].alias("__entity"),
        order["subject"].alias("__subject"),
        frame[EVENT].gather(picked).alias("event_us"),
        frame[ARRIVAL].gather(picked).alias("arrival_us"),
        (frame[RETRACTION].gather(picked) if RETRACTION in frame.columns else pl.lit(value=False)).alias("gone"),
        (pl.lit(value=True) if how is None else (how == "measured").fill_null(value=False).gather(picked)).alias(
            "measured"
        ),
        stored.column(column).gather(picked).alias("value"),
    )
    found = side_by_side(found, ["__entity", "__subject"], ["order"])
    if rows.key:  # an id's event may move, and a retraction of it may name none
        found = found.with_columns(pl.col("event_us").drop_nulls().last().over(KEY)).filter(
            pl.col("event_us").is_not_null()
        )
        found = side_by_side(found.drop(FIRST, LAST, KEY, ROW), ["__entity", "__subject"], ["order"])
        found = found.with_columns(pl.max_horizontal("arrival_us", "event_us").alias("arrival_us"))
    return found


def events_of(revisions: pl.DataFrame, as_of_us: int, tolerance: Mapping[str, float]) -> pl.DataFrame:
    """One row per event in the order of its number: `age` at `as_of`, `arrived`, `settled` (ages), `late`, `left_out` or null."""
    last = final_rows(revisions)
    value, gone = revisions["value"], revisions["gone"]
    final, final_gone = value.gather(last), gone.gather(last)
    usable = ~final_gone & final.is_not_null()
    far = (~near(value, final, **tolerance) | gone) & usable
    found = settled_rows(revisions, far)
    first = revisions.filter(FIRST)
    told = revisions.filter(~gone & value.is_not_null()).group_by(KEY).agg(pl.col("arrival_us").min())
    arrived = first.select(KEY).join(told, on=KEY, how="left", maintain_order="left")["arrival_us"]
    begin = revisions["arrival_us"].filter(revisions["measured"]).min()
    event = first["event_us"]
    return found.select(
        KEY,
        event,
        (as_of_us - event).alias("age"),
        (arrived - event).alias("arrived"),
        (revisions["arrival_us"].gather(found["settled"]) - event).alias("settled"),
        "late",
        pl.when(final_gone.filter(revisions[FIRST]))
        .then(pl.lit("retracted"))
        .when(~usable.filter(revisions[FIRST]))
        .then(pl.lit("no_value"))
        .when(~first["measured"])
        .then(pl.lit("not_measured"))
        .when(event < (as_of_us if begin is None else begin))
        .then(pl.lit("before_log"))
        .alias("left_out"),
    )


def watched_long_enough(events: pl.DataFrame, share: float) -> int | None:
    """The least age such that the events of that age or more were watched twice as long as the share of them takes to settle.

    None if there is none: what is known of the oldest events may not be final.
    """
    known = events.filter(pl.col("left_out").is_null())
    age = 0
    while True:
        old = known.filter(pl.col("age") >= age)
        if not old.height:
            return None
        longer = 2 * (over_by(old["settled"], share) or 0)
        if longer <= age:
            return age
        age = longer


def over_by(ages: pl.Series, share: float) -> int | None:
    """The least of the ages by which at least the share of them is over; None of none."""
    found = ages.quantile(share, "equiprobable")
    return None if found is None else int(found)


def answering(
    revisions: pl.DataFrame, column: str, counting: pl.DataFrame, as_of_us: int, threads: int | None
) -> Callable[[str], pl.Series]:
    """What the labels of the events are, by release; every event is an entity of its own."""
    instant = pl.Datetime("us", "UTC")
    frame = revisions.select(
        pl.col(KEY).alias("event"),
        pl.col("event_us").cast(instant).alias("event_time"),
        pl.col("arrival_us").cast(instant).alias("arrival_time"),
        pl.col("gone").alias("is_retraction"),
        pl.col("order").cast(pl.Int64).alias("log_sequence"),
        pl.col("value").alias(column if column not in _TAKEN else "value"),
    )
    name = frame.columns[-1]
    mine = Observations(frame.filter(pl.col("event").is_in(counting[KEY].implode())), ["event"])
    spine = Spine(
        counting.select(pl.col(KEY).alias("event")), np.ascontiguousarray(counting["event_us"].to_numpy() - 1)
    )

    def values(release: str) -> pl.Series:
        asked = label(name, "1us", observations=mine, release=release)
        return evaluate_label(asked, spine, [], as_of_us=as_of_us, threads=threads)["label"]

    return values


_TAKEN = {"event", "event_time", "arrival_time", "is_retraction", "log_sequence", "issue_time"}


def point_of(
    release: str,
    age_us: int | None,
    value: pl.Series,
    final: pl.Series,
    counting: pl.DataFrame,
    tolerance: Mapping[str, float],
) -> dict[str, Any]:
    """One row of the curve; an event that was not watched for so long is not in it."""
    settled = ~counting["late"] if age_us is None else counting["settled"] <= age_us
    if age_us is not None:
        watched = counting["age"] >= age_us
        value, final, settled = value.filter(watched), final.filter(watched), settled.filter(watched)
    present = value.is_not_null()
    point = {
        "release": release,
        "age": None if age_us is None else timedelta(microseconds=age_us),
        "events": len(value),
        "present": present.mean(),
        "within": (near(value, final, **tolerance) & present).mean(),
        "settled": settled.mean(),
    }
    if not value.dtype.is_numeric():
        return point
    pairs = pl.DataFrame({"value": value.cast(pl.Float64), "final": final.cast(pl.Float64)}).filter(
        pl.col("value").is_finite() & pl.col("final").is_finite()
    )
    error, scale = pairs["value"] - pairs["final"], pairs["final"].abs().mean()
    bias, mae = error.mean(), error.abs().mean()
    point |= {"bias": bias, "mae": mae}
    if isinstance(bias, float) and isinstance(mae, float) and isinstance(scale, float) and scale > 0:
        point |= {"relative_bias": bias / scale, "relative_mae": mae / scale}
    return point


def series_of(
    revisions: pl.DataFrame, counting: pl.DataFrame, entities: Sequence[str], share: float, release_us: int | None
) -> pl.DataFrame:
    """How each entity's labels settle, the slowest first."""
    whose = revisions.filter(FIRST).select(KEY, *entities)
    if not entities or not counting.height:
        return pl.DataFrame()
    length = pl.Duration("us")
    by = [f"__of {name}" for name in entities]
    grouped = (
        counting.join(whose.rename(dict(zip(entities, by, strict=True))), on=KEY)
        .group_by(by, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("events"),
            pl.col("arrived").median().cast(length),
            pl.col("settled").median().cast(length),
            pl.col("settled").quantile(share, "equiprobable").cast(length).alias("settled_share"),
            (~pl.col("late")).mean().alias("first_within"),
            (pl.col("settled") <= (release_us or 0)).mean().alias("settled_by_release"),
            pl.col("late").any().alias("revised"),
        )
        .sort("settled_share", *by, descending=[True, *(False for _ in by)])
    )
    own = [
        ("first" if not revised else readable(int(slow / timedelta(microseconds=1))))
        for slow, revised in grouped.select("settled_share", "revised").iter_rows()
    ]
    found = grouped.with_columns(pl.Series("release", own, pl.String))
    if release_us is None:  # nothing is known settled
        nothing = (pl.lit(None, pl.Float64).alias("settled_by_release"), pl.lit(None, pl.String).alias("release"))
        found = found.with_columns(nothing)
    elif not grouped["revised"].any():  # the release is the first one, which always is
        found = found.with_columns(pl.lit(1.0).alias("settled_by_release"))
    found = found.drop("revised")
    own_names = [name if name not in found.columns else f"{name} (entity)" for name in entities]
    return found.rename(dict(zip(by, own_names, strict=True)))
