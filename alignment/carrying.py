"""What a stretch of time leaves to the later ones: of an entity's rows those that a later question may need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from alignment.durations import HOUR_US
from alignment.features import Latest
from alignment.heartbeats import Bools
from alignment.layout import Pool, encode_entities
from alignment.online.compiled import CompiledView
from alignment.online.trimming import ENTITY, KEY, needed_rows
from alignment.parts import over
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION, checked
from alignment.views import FeatureView

_ALL = (1 << 32) - 1


def carried(
    views: Sequence[FeatureView],
    rows: pl.DataFrame,
    *,
    after_us: int,
    as_of_us: int | None,
    removals: int | Removals | None = None,
    alone: bool = False,
) -> pl.Series:
    """Which rows a question after an instant may need, of those that had arrived by then.

    Superseded revisions go, and events below what every feature can use. Where a feature has no floor the newest events stay:
    as many as it takes, and one more for every retraction that took one away or may yet.

    Args:
        views: Views of a pass that read these rows.
        rows: Of their input: everything that had arrived by `after_us`, or what was kept of it at an earlier instant and all that
            arrived since; or only some of these rows, see `alone`.
        after_us: No question is asked at this instant or before, microseconds.
        as_of_us: Nothing that arrived later counts, and so none of it supersedes anything; None for no limit.
        removals: At most so many rows with a later arrival are retractions, or, of measurements, which events all their retractions are
            of; None if that is not known.
        alone: Other rows had arrived too, of which the same is asked elsewhere: an id's newest row stays then, however old its event,
            for an older one may be among them.

    Returns:
        Boolean, row for row.
    """
    keep = np.zeros(rows.height, np.bool_)
    for view in views:
        part = over(view, rows)
        if not rows.height:
            break
        keep |= _needed(part, after_us, as_of_us, removals, alone=alone)
    return pl.Series(keep)


@dataclass(frozen=True)
class Removals:
    """How many retractions there are of events of each hour, whenever they arrive; of all entities that are cut together.

    Attributes:
        hours: Hours since 1970 in which there is an event that a retraction takes away, ascending.
        counts: How many retractions that are.
    """

    hours: tuple[int, ...]
    counts: tuple[int, ...]

    def newest(self, rows: pl.DataFrame, until_us: int, wanted: int) -> int:
        """How many of the newest events it takes so that some remain, whichever the retractions take away.

        Args:
            rows: `@entity`, `@event` (microseconds): rows that are no retractions; of several entities each may lose them all.
            until_us: No event is later.
            wanted: How many are to remain of each entity.

        Returns:
            Enough for every entity; one more than there are if they are too few.

        Example:
            >>> hour = 3_600_000_000
            >>> rows = pl.DataFrame({ENTITY: 0, EVENT: [2 * hour, hour + 2, hour + 1, hour, 0]})
            >>> Removals((1,), (2,)).newest(rows, 2 * hour, 2)
            4
        """
        events = rows.select(ENTITY, EVENT).unique().sort(ENTITY, EVENT, descending=[False, True])
        since = np.append(np.cumsum(self.counts[::-1], dtype=np.int64)[::-1], 0)  # of each hour and all later ones
        gone = since[np.searchsorted(self.hours, events[EVENT].to_numpy() // HOUR_US)]
        gone -= since[np.searchsorted(self.hours, until_us // HOUR_US, side="right")]
        rank = pl.int_range(1, pl.len() + 1).over(ENTITY)
        ranked = events.select(ENTITY, rank.alias("rank"), pl.Series("gone", gone))
        enough = pl.col("rank").filter(pl.col("rank") - pl.col("gone") >= wanted).min()
        found = ranked.group_by(ENTITY).agg(pl.coalesce(enough, pl.len() + 1).alias("enough"))
        return int(found["enough"].max() or 1)  # type: ignore[arg-type]


def _needed(
    view: FeatureView, after_us: int, as_of_us: int | None, removals: int | Removals | None, *, alone: bool
) -> Bools:
    observations, compiled = view.observations, CompiledView(view)
    frame = checked(observations, []).frame
    with Pool(1) as pool:
        names = observations.entities
        codes = encode_entities(frame, names, frame.head(0), names, observations.place, pool)[1]
    order = pl.col(ORDER) if ORDER in frame.columns else pl.int_range(pl.len(), dtype=pl.Int64)
    gone = pl.col(RETRACTION) if RETRACTION in frame.columns else pl.lit(value=False)
    described = frame.select(
        pl.Series(ENTITY, codes.astype(np.int64)),
        EVENT,
        ARRIVAL,
        order.alias(ORDER),
        gone.alias(RETRACTION),
        *([ISSUE] if ISSUE in frame.columns else []),
        *([pl.struct(observations.key).rank("dense").alias(KEY)] if observations.key else []),
    )
    counting = np.arange(frame.height)
    if as_of_us is not None:
        counting = np.flatnonzero(frame[ARRIVAL].to_numpy() <= as_of_us)
        described = described[counting]
    hides = bool(observations.key) or any(isinstance(one, Latest) and one.skip_null for one in compiled.features)
    start, wanted = compiled.reach(after_us)
    # Where features without a floor begin to look, and what they may find there.
    past = (pl.col(EVENT) <= start) & (pl.col(ARRIVAL) <= after_us) & ~pl.col(RETRACTION)
    if removals is None or hides:
        keep = _ALL
    elif isinstance(removals, Removals):
        keep = removals.newest(described.filter(past), start, wanted)
    else:
        taken = int(described[RETRACTION].sum())  # what was taken away is among the newest all the same
        keep = min(_ALL, removals + taken + wanted)
    near = np.ones(described.height, np.bool_) if observations.key else _near(compiled, described, past, after_us, keep)
    rows = described.filter(near)
    whole = rows[ENTITY].unique().to_list() if alone and observations.key else ()
    stays = needed_rows(compiled, rows, oldest=after_us, keep_events=keep, whole=whole)[0]
    found = np.zeros(frame.height, np.bool_)
    found[counting[near]] = stays.to_numpy()
    return found


def _near(compiled: CompiledView, rows: pl.DataFrame, past: pl.Expr, after_us: int, keep: int) -> Bools:
    """Which rows `needed_rows` has to look at: it is many times slower than this, and most rows of a long series are too old."""
    floor = compiled.floor(after_us)
    event = rows[EVENT].to_numpy()
    if not compiled.unbounded:
        return np.ones(len(event), np.bool_) if floor is None else event >= floor
    if keep >= _ALL or not rows.height:
        return np.ones(len(event), np.bool_)
    newest = (
        rows.lazy()
        .filter(past)
        .group_by(ENTITY)
        .agg(pl.col(EVENT).top_k(4 * keep + 64))  # some of them more than once: revisions
        .select(ENTITY, nth=pl.col(EVENT).list.unique().list.sort(descending=True).list.get(keep - 1, null_on_oob=True))
        .filter(pl.col("nth").is_not_null())  # of fewer events none is known to be too old
        .select(ENTITY, bound=pl.min_horizontal("nth", pl.lit(floor, pl.Int64)))
        .collect()
    )
    bound = np.full(int(rows[ENTITY].max()) + 1, np.iinfo(np.int64).min)  # type: ignore[arg-type]
    bound[newest[ENTITY].to_numpy()] = newest["bound"].to_numpy()
    return np.asarray(event >= bound[rows[ENTITY].to_numpy()], np.bool_)
