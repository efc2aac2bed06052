"""Which rows of a store no answer can need any more."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from alignment.layout import given_notice
from alignment.online.compiled import CompiledView
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION

ENTITY, KEY = "@entity", "@key"


def needed_rows(
    compiled: CompiledView, rows: pl.DataFrame, *, oldest: int, keep_events: int, whole: Collection[int] = ()
) -> tuple[pl.Series, dict[int, int]]:
    """The rows that a question at `oldest` or later may need, and what is known to be incomplete without the others.

    A row goes only if the row that supersedes it was visible by `oldest` (and given the notice that features ask for), or if its event lies below the floor of every feature.
    Features without a floor keep each entity's newest events from where they begin to look, and a mark: below it rows may be missing.

    Args:
        compiled: The features.
        rows: `@entity` (number), `@event`, `@arrival`, `@order`, `@retraction`; of forecasts `@issue` (null where a retraction names
            none), of views with an id `@key` (its number).
        oldest: The earliest instant that can be asked at, microseconds.
        keep_events: How many events of an entity are kept at least where a feature has no floor.
        whole: Entities of which nothing goes but superseded rows.

    Returns:
        Which rows stay, and the mark of each entity that lost any by its event.
    """
    by_id = KEY in rows.columns
    key = [ENTITY, KEY] if by_id else [ENTITY, EVENT]
    if ISSUE in rows.columns:
        key.append(ISSUE)
    rows = rows.with_row_index("@row").sort(ARRIVAL, ORDER, maintain_order=True)
    seen = pl.col(ARRIVAL) <= oldest
    given = _given(compiled, rows)
    rows = rows.with_columns(given)
    stays = ~seen
    for counts in [seen, *(seen & pl.col(flags.name) for flags in given)]:
        # A retraction says `retracted` only of something that there was: the row that it took back stays with it.
        last = pl.col("@row").filter(counts).last().over(key)
        before = pl.col("@row").filter(counts & ~pl.col(RETRACTION)).last().over(key)
        stays = stays | pl.col("@row").eq_missing(last) | pl.col("@row").eq_missing(before)
    if ISSUE in rows.columns:
        stays = stays | pl.col(ISSUE).is_null()
    rows = rows.with_columns(stays=stays)
    floor = compiled.floor(oldest)
    lowest = rows.select(ENTITY).unique().with_columns(bound=pl.lit(floor, pl.Int64))
    if compiled.unbounded:
        start, events = compiled.reach(oldest)
        keep_events = max(keep_events, events)
        past = rows.filter(pl.col(EVENT) <= start, seen, "stays", ~pl.col(RETRACTION))
        newest = past.group_by(ENTITY).agg(
            nth=pl.col(EVENT).unique().top_k(keep_events).min(), events=pl.col(EVENT).n_unique()
        )
        bound = pl.when(pl.col("events") >= keep_events).then(pl.min_horizontal("nth", "bound"))
        lowest = lowest.join(newest, on=ENTITY, how="left").select(ENTITY, bound=bound)
    if whole:
        kept = pl.col(ENTITY).is_in(list(whole))
        lowest = lowest.with_columns(bound=pl.when(~kept).then("bound"))
    rows = rows.join(lowest, on=ENTITY, how="left")
    # The event of an id may move, by a revision or by a newer issue: all that stays of it goes together.
    greatest = pl.col(EVENT).filter("stays").max().over(ENTITY, KEY) if by_id else pl.col(EVENT)
    below = (greatest < pl.col("bound")).fill_null(value=False)
    rows = rows.with_columns(gone=pl.col("stays") & below)
    marks = rows.filter("gone").group_by(ENTITY).agg(pl.col("bound").first())
    stays_so = rows.sort("@row").select(pl.col("stays") & ~pl.col("gone")).to_series()
    return stays_so, dict(marks.iter_rows()) if compiled.unbounded else {}


def _given(compiled: CompiledView, rows: pl.DataFrame) -> list[pl.Series]:
    """Per notice that features ask for (R10), which rows were given it: a later revision supersedes only where it was too."""
    everyone = np.zeros(rows.height, np.int32)
    return [
        pl.Series(f"@given {notice.text}", given_notice(rows, everyone, notice, compiled.view.zone) >= 0)
        for notice in compiled.notices
        if notice is not None
    ]
