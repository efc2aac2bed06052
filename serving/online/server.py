"""The feature server: one definition of the features, evaluated at now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import alignment as al
from alignment.definitions import definition_hash, describe_view
from alignment.durations import instant_from_us, instant_us, parse_duration
from alignment.features import Feature
from ingestion.instants import Clock, system_clock
from serving.online.answers import Answer, AnsweredColumn
from serving.online.errors import AsOfError, EntityError, NotReadyError, UnknownFeatureError
from serving.online.settings import OnlineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a server may answer.

    Attributes:
        ready: Whether it may.
        behind: Seconds since the instant through which the log is known to be complete; None before the first look.
        positions: Position per provider.
        complete_through: That instant.
        reason: Why it may not; empty if it may.
    """

    ready: bool
    behind: float | None
    positions: Mapping[str, int]
    complete_through: datetime | None
    reason: str = ""


class FeatureServer:
    """Answers what the features of some views are now, or were at an instant in the past.

    Args:
        views: The views, each over a log.
        settings: How the logs are followed.
        clock: Something that tells now.

    Attributes:
        on_answer: Each is called with every answer before it is returned; it must neither wait nor fail.
    """

    def __init__(
        self,
        views: Sequence[al.FeatureView],
        *,
        settings: OnlineSettings | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.views = {view.name: view for view in views}
        self.features: dict[str, tuple[al.FeatureView, Feature]] = {
            view.column_name(feature): (view, feature) for view in views for feature in view.features
        }
        self.settings = settings or OnlineSettings()
        self.clock = clock
        self.on_answer: list[Callable[[Answer], None]] = []
        self.definitions = {name: definition_hash(describe_view(view)) for name, view in self.views.items()}
        self._positions: dict[str, int] = {}
        self._complete_through: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # the four verbs that everything else uses: start, catch_up, read, close

    def start(self) -> Self:
        """Read the logs, then follow them in a thread of its own."""
        self.catch_up()
        self._thread = threading.Thread(target=self._follow, name="asknown-follow", daemon=True)
        self._thread.start()
        return self

    def catch_up(self) -> None:
        """Look at every log once, in this thread, and take in what is new."""
        looked = instant_us(self.clock(), "clock")
        for view in self.views.values():
            source = view.observations.source
            if source is not None:
                self._positions[source.provider] = source.position()
        self._complete_through = looked - parse_duration(self.settings.clock_allowance, "clock_allowance").total_us

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def readiness(self) -> Readiness:
        """Whether the server may answer, and how far behind it is."""
        now = instant_us(self.clock(), "clock")
        through = self._complete_through
        if through is None:
            return Readiness(ready=False, behind=None, positions={}, complete_through=None, reason="has not read the logs")
        behind = max(0.0, (now - through) / 1e6)
        ready = behind * 1e6 <= parse_duration(self.settings.max_behind, "max_behind").total_us
        return Readiness(
            ready=ready,
            behind=behind,
            positions=dict(self._positions),
            complete_through=instant_from_us(through),
            reason="" if ready else f"{behind:.1f} s behind the log, may be {self.settings.max_behind}",
        )

    def read(
        self,
        features: Sequence[str] | None,
        entities: Mapping[str, Sequence[Any]],
        *,
        as_of: datetime | None = None,
    ) -> Answer:
        """The features of some entities.

        Args:
            features: `<view>__<feature>` or Feast's `<view>:<feature>`; `<view>` alone is all of it; None is everything.
            entities: Entity columns, name to values, all of one length.
            as_of: An instant in the past; None is now.

        Raises:
            UnknownFeatureError: If there is no such feature.
            EntityError: If an entity column is missing or the lengths differ.
            AsOfError: If `as_of` has no zone or is later than what is known.
            NotReadyError: If the server is further behind than `max_behind`.
        """
        names = self.names(features)
        ready = self.readiness()
        if not ready.ready or self._complete_through is None:
            raise NotReadyError(ready.behind, self.settings.max_behind)
        t = min(instant_us(self.clock(), "clock"), self._complete_through)
        if as_of is not None:
            if as_of.tzinfo is None:
                raise AsOfError(f"as_of={as_of} has no zone", "write 2026-01-01T00:00:00Z.")
            if instant_us(as_of, "as_of") > t:
                raise AsOfError(f"as_of={as_of.isoformat()} is later than what is known", "leave it out to ask for now.")
            t = instant_us(as_of, "as_of")
        height = {len(values) for values in entities.values()}
        if len(height) > 1:
            raise EntityError("entities are of unequal length", "give every entity column as many values.")
        views = list(dict.fromkeys(self.features[name][0].name for name in names))
        import polars as pl

        spine = pl.DataFrame({name: list(values) for name, values in entities.items()}).with_columns(
            pl.lit(instant_from_us(t)).dt.cast_time_unit("us").alias("prediction_time")
        )
        chosen = [self.views[name] for name in views]
        for view in chosen:
            for name in view.spine_entities:
                if name not in entities:
                    raise EntityError(f"view {view.name!r} needs the entity {name!r}", f'e.g. {{"{name}": ["..."]}}.')
        at = {view.name: self._positions[view.observations.source.provider] for view in chosen}  # type: ignore[union-attr]
        frame = al.point_in_time_join(spine, chosen, positions=at, status=True)
        none: list[int | None] = [None] * frame.height
        columns = [
            AnsweredColumn(
                name,
                self.features[name][0].observations.source.provider,  # type: ignore[union-attr]
                frame.schema[name],
                frame[name].to_list(),
                frame[f"{name}__status"].cast(pl.String).to_list(),
                none,
                none,
            )
            for name in names
        ]
        positions = {column.provider: self._positions[column.provider] for column in columns}
        definition = definition_hash([self.definitions[name] for name in views])
        answer = Answer(instant_from_us(t), positions, dict(entities), columns, definition, past=as_of is not None)
        for told in self.on_answer:
            told(answer)
        return answer

    def names(self, features: Sequence[str] | None) -> list[str]:
        """The full names that are meant.

        Raises:
            UnknownFeatureError: If there is no such feature.
        """
        if features is None:
            return list(self.features)
        found: list[str] = []
        for asked in features:
            name = asked.replace(":", "__", 1)
            if name in self.features:
                found.append(name)
            elif asked in self.views:
                found.extend(self.views[asked].column_names)
            else:
                raise UnknownFeatureError(
                    f"there is no feature {asked!r}", f"there are {', '.join(sorted(self.features)[:8])}, ..."
                )
        return list(dict.fromkeys(found))

    def _follow(self) -> None:
        every = parse_duration(self.settings.poll_every, "poll_every").total_us / 1e6
        while not self._stop.wait(every):
            self.catch_up()
