"""Following a log: what is new since the last look, in the form that a backend takes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

import alignment as al
from alignment.online import CompiledView
from alignment.rows import ARRIVAL_KIND, ORDER, canonical, check_rows, in_one_piece
from ingestion import ObservationLog, open_log
from ingestion.ledger import heartbeats
from ingestion.reading import ERASED, RESTAMP, RETIRED, records
from serving.online.backend import Ints, Restamps

NO_RESTAMPS = Restamps(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class FollowedView:
    """A view over the follower's own handle of its log.

    Attributes:
        compiled: The view with all its features.
        definition: Its hash.
    """

    compiled: CompiledView
    definition: str

    def rows(self, *, position: int, after: int | None = None, event_from: int | None = None) -> pl.DataFrame:
        """Canonical checked rows, ascending by log sequence."""
        return read_rows(self.compiled, position=position, after=after, event_from=event_from)


def read_rows(
    compiled: CompiledView,
    *,
    position: int,
    after: int | None = None,
    event_from: int | None = None,
    keys: Sequence[Hashable] | None = None,
) -> pl.DataFrame:
    """The rows of a view's log that a store is made of: canonical, checked, ascending by log sequence.

    Args:
        compiled: The view.
        position: Up to where.
        after: From where on; None for all.
        event_from: Rows with an earlier event may be left out, microseconds.
        keys: Only these entities; None for all.
    """
    observations = compiled.view.observations
    found = canonical(observations, compiled.columns, position=position, after=after, event_from_us=event_from)
    if keys is not None and observations.entities:
        found = found.filter(of_entities(observations, keys))
    return check_rows(observations, in_one_piece(found.drop(ARRIVAL_KIND, strict=False).collect()))[0].sort(ORDER)


def of_entities(observations: al.Observations, keys: Sequence[Hashable]) -> pl.Expr:
    """Whether a row is of one of some entities, of which the observations have columns."""
    if not keys:
        return pl.lit(value=False)
    rows: list[Any] = [key if len(observations.entities) > 1 else (key,) for key in keys]
    return pl.any_horizontal(
        pl.all_horizontal(
            pl.col(name) == pl.lit(value, observations.schema[name])
            for name, value in zip(observations.entities, row, strict=True)
        )
        for row in rows
    )


class LogFollower:
    """Looks at one provider's log, with a handle of its own.

    Args:
        log: The log; only its address is used.
        views: The views over it, with all their features.
        definitions: Hash per view name.
    """

    def __init__(self, log: ObservationLog, views: Sequence[al.FeatureView], definitions: dict[str, str]) -> None:
        self.provider = log.provider
        self._given = log
        self._views = list(views)
        self._definitions = definitions
        self.position = -2
        self.changes = 0
        """How often the past of what was read has changed: restamps, removals, columns."""
        self.since: dict[str, int] = {}
        self._beats = np.empty(0, np.int64), np.empty(0, np.int64)
        self.open()

    def open(self) -> None:
        """Open the log anew, as after a change of its columns; everything is to be loaded again."""
        self.log = fresh(self._given)
        self.views = [
            FollowedView(CompiledView(over(view, self.log)), self._definitions[view.name]) for view in self._views
        ]
        self.columns = self.log.columns
        self.position = -2
        self.changes += 1

    @property
    def loaded(self) -> bool:
        """Whether there is something to add to."""
        return self.position > -2

    def head(self) -> int:
        """The log's position now; if the log's past or its columns changed, everything is to be loaded again."""
        head = self.log.position()
        if self.loaded and (self.log.columns != self.columns or (head > self.position and self._past_changed())):
            self.open()
        return head

    def _past_changed(self) -> bool:
        table = self.log.table
        return any(
            records(table, kind, self.position + 1)
            .filter(pl.col("log_sequence") > self.position)
            .head(1)
            .collect()
            .height
            for kind in (ERASED, RETIRED)
        )

    def restamps(self, position: int, *, trimmed_at: int) -> Restamps | None:
        """Rows up to the last position that get a later arrival by records since; None to load everything anew.

        Args:
            position: Up to where.
            trimmed_at: Rows that were visible by then may have let others be dropped, which count again without them.
        """
        late = (
            records(self.log.table, RESTAMP, self.position + 1)
            .filter(pl.col("log_sequence") > self.position, pl.col("log_sequence") <= position)
            .group_by("batch_id")
            .agg(pl.col("arrival_time").dt.epoch("us").max())
            .collect()
        )
        if not late.height:
            return NO_RESTAMPS
        rows = (
            self.log.scan(position=self.position, columns=["batch_id"])
            .select("batch_id", "log_sequence", before=pl.col("arrival_time").dt.epoch("us"))
            .join(late.lazy(), on="batch_id")
            .collect()
        )
        if (rows["before"] <= trimmed_at).any():
            self.open()
            return None
        return Restamps(rows["log_sequence"].to_numpy(), rows["arrival_time"].to_numpy())

    def heartbeats(self, position: int | None) -> Ints:
        """When the provider showed that it lives, microseconds, ascending; of those up to a position (R20)."""
        arrivals, orders = self._beats
        return np.sort(arrivals if position is None else arrivals[orders <= position])

    def advance(self, position: int, *, restamped: bool) -> None:
        """Remember that everything up to `position` was handed over."""
        self.changes += restamped
        after = None if restamped or not self.loaded else self.position
        found = heartbeats(self.log, position=position, after=after)
        beats = found["arrival_time"].dt.epoch("us").to_numpy(), found["log_sequence"].to_numpy()
        if after is not None:
            beats = np.concatenate([self._beats[0], beats[0]]), np.concatenate([self._beats[1], beats[1]])
        self._beats = beats
        self.since = self.log.column_since()
        self.position = position


def fresh(log: ObservationLog) -> ObservationLog:
    """Another handle of the same log, as it is now."""
    options = log.table.location.storage_options
    return open_log(log.root, log.provider, storage_options=options, clock=log.table.clock)


def over(view: al.FeatureView, log: ObservationLog) -> al.FeatureView:
    """The same view over another handle of its log."""
    same = object.__new__(type(view))
    same.__dict__ = dict(view.__dict__)
    same.observations = view.observations.but(frame=log)
    return same
