"""The feature server: one definition of the features, evaluated at now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import polars as pl

import alignment as al
from alignment.definitions import definition_hash, describe_view
from alignment.durations import instant_from_us, instant_us, parse_duration
from alignment.features import Feature
from alignment.online import CompiledView, Evaluation, Found, RowStore
from ingestion import ObservationLog
from ingestion.instants import Clock, system_clock
from serving.online.answers import Answer, AnsweredColumn
from serving.online.backend import Backend, Ints, Reading
from serving.online.entities import EntityColumns
from serving.online.errors import AsOfError, NotReadyError, UnknownFeatureError, UnservableViewError, not_a_feature
from serving.online.follow import LogFollower, fresh, of_entities, over, read_rows
from serving.online.local import LocalBackend
from serving.online.settings import OnlineSettings

_GROWTH = 1.5
_TRIM_ABOVE = 50_000
_LATE_HINT = "ask again; if it stays so, look whether the logs can be read."


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a server may answer.

    Attributes:
        ready: Whether it may.
        behind: Seconds since the instant through which the log is known to be complete; None before the first look.
        positions: Position per provider.
        complete_through: That instant.
        reason: Why it may not; empty if it may.
        hint: What to do about it.
    """

    ready: bool
    behind: float | None
    positions: Mapping[str, int]
    complete_through: datetime | None
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Features that are asked for together, prepared.

    Attributes:
        names: In the order of the answer.
        views: By view name: what is asked of it.
        places: Per feature: view name, name within the view, provider, type.
        definition: Hash of the views' definitions.
        entities: The entity columns that are needed.
    """

    names: tuple[str, ...]
    views: dict[str, CompiledView]
    places: list[tuple[str, str, str, Any]]
    definition: str
    entities: EntityColumns


class FeatureServer:
    """Answers what the features of some views are now, or were at an instant in the past.

    Args:
        views: The views, each over a log.
        settings: How the logs are followed.
        clock: Something that tells now.
        backend: Where rows are kept; None is the memory of this process.

    Attributes:
        on_answer: Each is called with every answer before it is returned; it must neither wait nor fail.
        from_log: How many entities were answered from the log because their rows had been trimmed.

    Raises:
        UnservableViewError: If a view is not over a log, or two logs have one provider name.
    """

    def __init__(
        self,
        views: Sequence[al.FeatureView],
        *,
        settings: OnlineSettings | None = None,
        clock: Clock = system_clock,
        backend: Backend | None = None,
    ) -> None:
        self.views = {view.name: view for view in views}
        self.features: dict[str, tuple[al.FeatureView, Feature]] = {
            view.column_name(feature): (view, feature) for view in views for feature in view.features
        }
        self.settings = settings or OnlineSettings()
        self.clock = clock
        self.on_answer: list[Callable[[Answer], None]] = []
        self.definitions = {name: definition_hash(describe_view(view)) for name, view in self.views.items()}
        self.from_log = 0
        self.backend: Backend = backend or LocalBackend()
        self._followers = _followers(views, self.definitions)
        self._asked: dict[tuple[str, ...] | None, _Asked] = {}
        self._max_behind = parse_duration(self.settings.max_behind, "max_behind").total_us
        self._allowance = parse_duration(self.settings.clock_allowance, "clock_allowance", allow_zero=True).total_us
        self._positions: dict[str, int] = {}
        self._complete_through: int | None = None
        self._trim_at = _TRIM_ABOVE
        self._trimmed_at = -(1 << 62)  # nothing yet
        self._fault = ""
        self._following = threading.Lock()
        self._past = threading.Lock()
        self._past_views: dict[str, CompiledView] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -------------------------------------------------------------------------------------------------------- following

    def start(self) -> Self:
        """Read the logs, then follow them in a thread of its own."""
        self.catch_up()
        self._warm()
        self._thread = threading.Thread(target=self._follow, name="asknown-follow", daemon=True)
        self._thread.start()
        return self

    def _warm(self) -> None:
        """Have the kernel compiled before the first request."""
        asked = self._prepare(None)
        for compiled in asked.views.values():
            whole = CompiledView(compiled.view)
            store = RowStore(whole, read_rows(self._past_view(whole.view.name), position=-1))
            Evaluation(whole, store, [0], 0, {}).run()

    def catch_up(self) -> None:
        """Look at every log once, in this thread, and take in what is new."""
        with self._following:
            looked = instant_us(self.clock(), "clock")
            try:
                self._look(looked)
            except Exception:
                for follower in self._followers.values():
                    follower.open()  # what was half taken in is read anew
                raise

    def _look(self, looked: int) -> None:
        heads = {}
        for provider, follower in self._followers.items():
            head = heads[provider] = follower.head()
            restamps = None
            if follower.loaded and head > follower.position:
                restamps = follower.restamps(head, trimmed_at=self._trimmed_at)
            if not follower.loaded:
                self._reopened(follower)
                for view in follower.views:
                    floor = None if view.compiled.unbounded else view.compiled.floor(looked - self._max_behind)
                    rows = read_rows(view.compiled, position=head, event_from=floor)
                    self.backend.load(view.compiled, view.definition, rows, head)
            elif restamps is not None:
                for view in follower.views:
                    rows = read_rows(view.compiled, position=head, after=follower.position)
                    self.backend.take_in(view.compiled, rows, restamps, previous=follower.position, position=head)
            if head != follower.position:
                follower.advance(head, restamped=restamps is not None and len(restamps.orders) > 0)
        self.backend.confirm(heads, looked - self._allowance)
        self._positions = heads
        self._complete_through = looked - self._allowance
        self._fault = ""
        if self.backend.size > self._trim_at:
            self._trimmed_at = looked - self._allowance - self._max_behind
            self.backend.trim(oldest=self._trimmed_at, keep_events=self.settings.keep_events)
            self._trim_at = max(_TRIM_ABOVE, int(self.backend.size * _GROWTH))

    def _reopened(self, follower: LogFollower) -> None:
        """Take over the columns of a log that was opened anew: they may have other types or names."""
        with self._past:
            for view in follower.views:
                name = view.compiled.view.name
                self._past_views.pop(name, None)
                log: Any = self.views[name].observations.source
                if isinstance(log, ObservationLog) and follower.changes > 1:
                    self.views[name] = over(self.views[name], fresh(log))
                    for feature in self.views[name].features:
                        self.features[self.views[name].column_name(feature)] = self.views[name], feature
            self._asked = {}

    def _follow(self) -> None:
        every = parse_duration(self.settings.poll_every, "poll_every").total_us / 1e6
        while not self._stop.wait(every):
            try:
                self.catch_up()
            except Exception as error:  # noqa: BLE001 - told by readiness; the next look may succeed
                self._fault = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.backend.close()

    def readiness(self) -> Readiness:
        """Whether the server may answer, and how far behind it is."""
        now = instant_us(self.clock(), "clock")
        through = self._complete_through
        if through is None:
            return Readiness(
                ready=False,
                behind=None,
                positions={},
                complete_through=None,
                reason=self._fault or "has not read the logs yet",
                hint=_LATE_HINT,
            )
        behind = max(0.0, (now - through) / 1e6)
        fault = self.backend.fault
        if fault:
            return Readiness(
                ready=False,
                behind=behind,
                positions=dict(self._positions),
                complete_through=instant_from_us(through),
                reason=fault,
                hint=self.backend.fault_hint,
            )
        ready = now - through <= self._max_behind
        late = f"{behind:.1f} s behind the log, may be {self.settings.max_behind}"
        return Readiness(
            ready=ready,
            behind=behind,
            positions=dict(self._positions),
            complete_through=instant_from_us(through),
            reason="" if ready else f"{late}; {self._fault}" if self._fault else late,
            hint="" if ready else _LATE_HINT,
        )

    def changes(self, provider: str) -> int:
        """How often the past of what was read of a provider has changed: what was worked out of it is to be worked out anew."""
        return self._followers[provider].changes

    def heartbeats(self, provider: str, *, position: int | None = None) -> Ints:
        """When a provider showed that it lives, microseconds, ascending (R20).

        Args:
            provider: Its name.
            position: Only those of rows and polls up to here; None for all that the server has read.
        """
        return self._followers[provider].heartbeats(position)

    # ---------------------------------------------------------------------------------------------------------- reading

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
            EntityError: If an entity column is missing, the lengths differ, or a value has another type than the view's.
            AsOfError: If `as_of` has no zone or is later than what is known.
            NotReadyError: If the server is further behind than `max_behind`.
            AggregateOverflowError: If an integer sum does not fit in 64 bits.
        """
        asked = self._prepare(features)
        keys, entities = asked.entities.keys(entities)
        now = instant_us(self.clock(), "clock")
        if self._complete_through is None:
            raise NotReadyError(None, self.settings.max_behind)
        if as_of is not None:
            answer = self._answer_past(asked, entities, keys, as_of, now)
        else:
            answer = self._answer_now(asked, entities, keys, now)
        for told in self.on_answer:
            told(answer)
        return answer

    def _answer_now(
        self, asked: _Asked, entities: Mapping[str, Sequence[Any]], keys: dict[str, list[Hashable]], now: int
    ) -> Answer:
        found: dict[str, dict[str, Found]] = {}
        deep: dict[str, set[int]] = {}
        with self.backend.reading(keys) as reading:
            t = self._instant(reading, now)
            for name, compiled in asked.views.items():
                rows = reading.rows[name]
                since = self._followers[compiled.provider].since
                evaluation = Evaluation(compiled, rows.store, rows.numbers, t, since)
                found[name] = evaluation.run()
                if evaluation.too_deep:
                    deep[name] = evaluation.too_deep
            positions = dict(reading.positions)
        for name, places in deep.items():
            self._go_deeper(asked.views[name], keys[name], sorted(places), t, positions, found[name])
        return self._answer(asked, entities, found, t, positions, past=False)

    def _instant(self, reading: Reading, now: int) -> int:
        if now - reading.complete_through > self._max_behind:
            raise NotReadyError((now - reading.complete_through) / 1e6, self.settings.max_behind)
        return min(now, reading.complete_through)

    def _answer_past(
        self,
        asked: _Asked,
        entities: Mapping[str, Sequence[Any]],
        keys: dict[str, list[Hashable]],
        as_of: datetime,
        now: int,
    ) -> Answer:
        if as_of.tzinfo is None:
            raise AsOfError(f"as_of={as_of} has no zone", "write 2026-01-01T00:00:00Z.")
        t = instant_us(as_of, "as_of")
        with self.backend.reading({}) as reading:
            known, positions = self._instant(reading, now), dict(reading.positions)
        if t > known:
            raise AsOfError(
                f"as_of={as_of.isoformat()} is later than what is known: {instant_from_us(known).isoformat()}",
                "leave it out to ask for now.",
            )
        found = {name: self._from_log(compiled, keys[name], t, positions) for name, compiled in asked.views.items()}
        return self._answer(asked, entities, found, t, positions, past=True)

    def _from_log(
        self, compiled: CompiledView, keys: Sequence[Hashable], t: int, positions: Mapping[str, int]
    ) -> dict[str, Found]:
        """Features evaluated over rows read from the log for this one question."""
        return self._over(compiled, self._past_rows(compiled, keys, positions), keys, t)

    def _past_rows(
        self, compiled: CompiledView, keys: Sequence[Hashable], positions: Mapping[str, int]
    ) -> pl.DataFrame:
        """The rows of some entities up to the server's position, from the log."""
        wanted = [key for key in dict.fromkeys(keys) if key is not None]
        with self._past:
            over_log = self._past_view(compiled.view.name)
            return read_rows(over_log, position=positions[compiled.provider], keys=wanted)

    def _over(self, compiled: CompiledView, rows: pl.DataFrame, keys: Sequence[Hashable], t: int) -> dict[str, Found]:
        """Features evaluated over rows that were read for one question."""
        with self._past:
            store = RowStore(self._past_view(compiled.view.name), rows)
        since = self._followers[compiled.provider].since
        return Evaluation(compiled, store, [store.number_of(key) for key in keys], t, since).run()

    def _past_view(self, name: str) -> CompiledView:
        """The view over a handle of its log that only questions to the log use."""
        if name not in self._past_views:
            view = self.views[name]
            log: Any = view.observations.source
            self._past_views[name] = CompiledView(over(view, fresh(log)))
        return self._past_views[name]

    def _go_deeper(
        self,
        compiled: CompiledView,
        keys: Sequence[Hashable],
        places: Sequence[int],
        t: int,
        positions: Mapping[str, int],
        found: dict[str, Found],
    ) -> None:
        """Answer entities again from the log, whose trimmed rows may matter."""
        self.from_log += len(places)
        asked = [keys[place] for place in places]
        rows = self._past_rows(compiled, asked, positions)
        deeper = self._over(compiled, rows, asked, t)
        for name, whole in found.items():
            merged: list[list[Any]] = [list(part) for part in whole]
            deep: Sequence[list[Any]] = deeper[name]
            for at, place in enumerate(places):
                for part, row in zip(merged, deep, strict=True):
                    part[place] = row[at]
            found[name] = Found(*merged)
        observations = compiled.view.observations
        for key in dict.fromkeys(asked):
            own = rows.filter(of_entities(observations, [key])) if observations.entities else rows
            self.backend.restore(compiled.view.name, key, own, positions[compiled.provider])

    def _answer(
        self,
        asked: _Asked,
        entities: Mapping[str, Sequence[Any]],
        found: dict[str, dict[str, Found]],
        t: int,
        positions: dict[str, int],
        *,
        past: bool,
    ) -> Answer:
        columns = [
            AnsweredColumn(name, provider, dtype, *found[view][feature])
            for name, (view, feature, provider, dtype) in zip(asked.names, asked.places, strict=True)
        ]
        read = {compiled.provider: positions[compiled.provider] for compiled in asked.views.values()}
        instant = instant_from_us(t)
        return Answer(instant, read, entities, columns, asked.definition, past, asked.entities.dtypes)

    def _prepare(self, features: Sequence[str] | None) -> _Asked:
        key = None if features is None else tuple(features)
        asked = self._asked.get(key)
        if asked is None:
            if len(self._asked) > 1_000:
                self._asked.clear()  # whoever asks for ever new combinations does not get our memory
            asked = self._asked[key] = self._planned(tuple(self.names(features)))
        return asked

    def _planned(self, names: tuple[str, ...]) -> _Asked:
        wanted: dict[str, list[Feature]] = {}
        for name in names:
            view, feature = self.features[name]
            wanted.setdefault(view.name, []).append(feature)
        views = {name: CompiledView(self.views[name], found) for name, found in wanted.items()}
        places = []
        for name in names:
            view, feature = self.features[name]
            compiled = views[view.name]
            places.append((view.name, feature.name, compiled.provider, compiled.dtypes[feature.name]))
        definition = definition_hash([self.definitions[name] for name in views])
        return _Asked(names, views, places, definition, EntityColumns([self.views[name] for name in views]))

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
                known: dict[str, list[str]] = {view: [] for view in self.views}
                for view, feature in self.features.values():
                    known[view.name].append(feature.name)
                raise UnknownFeatureError(*not_a_feature(asked, known))
        return list(dict.fromkeys(found))


def _followers(views: Sequence[al.FeatureView], definitions: dict[str, str]) -> dict[str, LogFollower]:
    by_provider: dict[str, list[al.FeatureView]] = {}
    logs: dict[str, Any] = {}
    for view in views:
        log = view.observations.source
        if log is None:
            raise UnservableViewError(
                f"view {view.name!r} is not over a log", "a server follows logs: observations=ingestion.open_log(...)."
            )
        if not isinstance(log, ObservationLog):
            raise UnservableViewError(
                f"view {view.name!r} is over a {type(log).__name__}, and a server follows what really arrives",
                "serve the view as it was before transform_arrivals; al.replay answers what would have been.",
            )
        known = logs.setdefault(log.provider, log)
        if known.address != log.address:
            raise UnservableViewError(
                f"two logs are called {log.provider!r}: {known.address} and {log.address}",
                "name the providers apart: positions in answers are by provider.",
            )
        by_provider.setdefault(log.provider, []).append(view)
    return {name: LogFollower(logs[name], found, definitions) for name, found in by_provider.items()}
