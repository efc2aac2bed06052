"""Which task gets which rows, so that all have about as much to do.

Rows are counted by a hash of their keys. Small entities share shelves, which are dealt out, the largest first, to the part that
has least; an entity with more rows than a part should have is cut by time into stretches, each a part of its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.carrying import Removals
from alignment.durations import HOUR_US
from alignment.layout import Ints
from alignment.stable_hash import row_hashes, salt

Hashes = npt.NDArray[np.uint64]
SHELVES = 1 << 14
QUESTION_ROWS = 4
"""A spine row counts as much as so many observations."""
_SALT = salt("part")
_HEAVY_SHARE = 1 << 12  # of a piece of input; the most stretches that are told from their samples alone
_SAMPLES = 64


def key_hashes(frame: pl.DataFrame, keys: Sequence[str]) -> Hashes:
    """One hash per row by the values of its keys, whatever their width or encoding; 0 without keys."""
    if not keys:
        return np.zeros(frame.height, np.uint64)
    return row_hashes([frame[name] for name in keys], _SALT)


@dataclass(frozen=True)
class Cut:
    """An entity that is cut by time.

    Attributes:
        first: The part of its first stretch; the others follow.
        ends: The last instant of each stretch but the last, ascending, microseconds: stretch j is `(ends[j - 1], ends[j]]`.
        removals: Of which events it has retractions, or how many.
    """

    first: int
    ends: tuple[int, ...]
    removals: Removals | int

    @property
    def stretches(self) -> int:
        """How many parts it takes."""
        return len(self.ends) + 1

    def stretch_of(self, instants: Ints) -> Ints:
        """The stretch of each instant."""
        return np.searchsorted(np.array(self.ends, np.int64), instants, side="left").astype(np.int64)


@dataclass(frozen=True)
class Parts:
    """What goes where.

    Attributes:
        count: How many parts there are.
        shelves: The part of each shelf; shape (SHELVES,), or one element if there is nothing to deal out.
        cuts: Entities that are cut by time, by the hash of their keys.
    """

    count: int
    shelves: npt.NDArray[np.uint32] = field(repr=False)
    cuts: Mapping[int, Cut] = field(default_factory=dict)

    def of(self, hashes: Hashes) -> Ints:
        """The part of each row by its hash; of an entity that is cut the part of its first stretch."""
        found = self.shelves[(hashes % np.uint64(len(self.shelves))).astype(np.int64)].astype(np.int64)
        for key, cut in self.cuts.items():
            found[hashes == np.uint64(key)] = cut.first
        return found

    def cut_at(self, part: int) -> tuple[Cut, int] | None:
        """The entity of whose history a part is a stretch, and which; None of a part of whole entities."""
        for cut in self.cuts.values():
            if cut.first <= part < cut.first + cut.stretches:
                return cut, part - cut.first
        return None


def tally(
    frame: pl.DataFrame,
    keys: Sequence[str],
    instants: Ints,
    removes: npt.NDArray[np.bool_] | None = None,
    events: Ints | None = None,
) -> pl.DataFrame:
    """Rows per shelf, and of the entities with many rows how many and when.

    Args:
        frame: Some rows.
        keys: Their key columns.
        instants: When each arrived, about; microseconds.
        removes: Where a row is a retraction; None if none is.
        events: When the event of each was, exactly; None if that is not known of all.

    Returns:
        `shelf`, `key` (null in the lines of whole shelves), `rows`, `removals`, `hours` (those of the events of all retractions; null if
        that is not known), `samples` (instants that divide the rows evenly).
    """
    hashes = key_hashes(frame, keys)
    removed = np.zeros(frame.height, np.bool_) if removes is None else removes
    hours = pl.lit(None, pl.Int64) if events is None else pl.Series(events // HOUR_US)
    rows = pl.DataFrame({"key": hashes, "at": instants, "removals": removed}).with_columns(hour=hours)
    per_key = (
        rows.lazy().group_by("key").agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("removals").sum().cast(pl.Int64))
    )
    shelf = (pl.col("key") % SHELVES).cast(pl.UInt32).alias("shelf")
    per_key = per_key.with_columns(shelf).collect().lazy()
    shelves = per_key.group_by("shelf").agg(pl.col("rows", "removals").sum())
    heavy = per_key.filter(pl.col("rows") * _HEAVY_SHARE >= frame.height)
    places = pl.col("at").sort().gather(((pl.int_range(_SAMPLES) + 0.5) * pl.len() / _SAMPLES).cast(pl.Int64))
    gone = pl.col("hour").filter("removals").alias("hours")
    many = rows.lazy().join(heavy.select("key"), on="key", how="semi").group_by("key")
    samples = many.agg(gone, places.alias("samples"))
    return pl.concat(
        [
            shelves.select("shelf", pl.lit(None, pl.UInt64).alias("key"), "rows", "removals", *_NOTHING),
            heavy.join(samples, on="key").select("shelf", "key", "rows", "removals", "hours", "samples"),
        ]
    ).collect()


_NOTHING = [pl.lit(None, pl.List(pl.Int64)).alias(name) for name in ("hours", "samples")]


def plan_parts(tallies: Sequence[tuple[pl.DataFrame, int]], count: int, *, may_cut: bool) -> Parts:
    """Parts of about equally many rows.

    Args:
        tallies: What `tally` gave for pieces of the spine and of the inputs, and as how many rows each of theirs counts.
        count: About how many parts there are to be.
        may_cut: Whether an entity may be cut by time.

    Returns:
        At most a few more parts than `count`; one if there is nothing to deal out.
    """
    if not tallies:
        return Parts(1, np.zeros(1, np.uint32))
    told = pl.concat([one.with_columns(weight=pl.lit(weight, pl.Int64)) for one, weight in tallies]).with_columns(
        cost=pl.col("rows") * pl.col("weight")
    )
    shelves = np.zeros(SHELVES, np.int64)
    of_shelf = told.filter(pl.col("key").is_null()).group_by("shelf").agg(pl.col("cost").sum())
    shelves[of_shelf["shelf"].to_numpy()] = of_shelf["cost"].to_numpy()
    share = max(1.0, int(shelves.sum()) / max(1, count))
    heavy = told.filter(pl.col("key").is_not_null()).group_by("shelf", "key").agg(pl.col("cost").sum())
    hot = heavy.filter(pl.col("cost") > share).sort("cost", "key", descending=True) if may_cut else heavy.clear()
    cuts: dict[int, Cut] = {}
    taken = 0
    for shelf, key, cost in hot.iter_rows():
        own = told.filter(pl.col("key") == key)
        ends = _ends(own, -int(-cost // share))
        if ends:
            cuts[key] = Cut(taken, ends, removals_of(own))
            taken += len(ends) + 1
            shelves[shelf] -= cost
    rest = max(1, round(int(shelves.sum()) / share))
    return Parts(taken + rest, (_dealt(shelves, rest) + taken).astype(np.uint32), cuts)


def removals_of(own: pl.DataFrame) -> Removals | int:
    """Of which events an entity has retractions; how many, if that is not known of all."""
    hours = own["hours"].explode(empty_as_null=False).drop_nulls()
    count = int(own["removals"].sum())
    if len(hours) < count:
        return count
    found = hours.value_counts().sort("hours")
    return Removals(tuple(found["hours"]), tuple(found["count"]))


def _ends(samples: pl.DataFrame, stretches: int) -> tuple[int, ...]:
    """Instants that divide an entity's rows into so many stretches, as far as its samples tell."""
    each = (
        samples.select(pl.col("samples"), (pl.col("cost") / _SAMPLES).alias("weight"))
        .explode("samples")
        .sort("samples")
    )
    reached = each["weight"].cum_sum().to_numpy()
    marks = np.arange(1, stretches) * (reached[-1] / stretches)
    found = each["samples"].to_numpy()[np.searchsorted(reached, marks, side="left")]
    return tuple(int(end) for end in np.unique(found))


def _dealt(shelves: Ints, parts: int) -> Ints:
    """The part of each shelf: the largest first, each to the part that has least."""
    found = np.arange(len(shelves)) % parts
    heap = [(0, part) for part in range(parts)]
    for shelf in np.argsort(-shelves, kind="stable"):
        if not shelves[shelf]:
            break
        load, part = heapq.heappop(heap)
        found[shelf] = part
        heapq.heappush(heap, (load + int(shelves[shelf]), part))
    return found
