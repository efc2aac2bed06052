"""Feature services online: fallbacks while a provider is down, and the variant that can be served now (R20).

Everything is decided in `alignment.choosing`, as it is for training sets; here are only the server's heartbeats at (t, p).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

import alignment as al
from alignment.choosing import CODE_OF, FITS, IS_DOWN, IS_OLD, Codes, choose_source, choose_variant, problem_of
from alignment.definitions import definition_hash, describe_service
from alignment.durations import instant_from_us, instant_us
from alignment.heartbeats import NEVER, Bools, Newest, is_down, last_heartbeats, newest_of
from alignment.service_binding import BoundService, BoundVariant, Source, bind
from serving.online.answers import Answer, AnsweredColumn
from serving.online.backend import Ints
from serving.online.errors import AsOfError, NotReadyError
from serving.online.server import FeatureServer


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """A provider at (t, p).

    Attributes:
        provider: Its name.
        last_heartbeat: The last one that counts; None if there is none.
        down: Whether it is down.
        down_after: The silence after which it is, as declared; None if it never is.
    """

    provider: str
    last_heartbeat: datetime | None
    down: bool
    down_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantState:
    """A variant at (t, p).

    Attributes:
        variant: Its name.
        fits: Whether every provider that it needs is up and fresh enough.
        reason: Why it was not chosen; empty if it was.
    """

    variant: str
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which variant of a service can be served.

    Attributes:
        service: The service.
        variant: The first variant that fits; None if none does.
        features: Full names of its features.
        t: The instant at which this holds.
        positions: Position in the log of each provider.
        variants: All variants, in order of preference.
        providers: What the variants need.
    """

    service: str
    variant: str | None
    features: tuple[str, ...]
    t: datetime
    positions: Mapping[str, int]
    variants: tuple[VariantState, ...]
    providers: tuple[ProviderState, ...]

    def to_dict(self) -> dict[str, Any]:
        """The resolution as plain values; instants stay instants."""
        return asdict(self) | {"positions": dict(self.positions)}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What answering some features of a service takes.

    Attributes:
        features: Their full names.
        reads: Full names of all features to read.
        judged: Providers of which it must be known whether they are down.
        alike: Features with fallbacks by the providers of their sources, so that those alike are decided together.
    """

    features: list[str]
    reads: list[str]
    judged: list[str]
    alike: dict[tuple[str, ...], list[str]]

    @classmethod
    def of(cls, bound: BoundService, features: Sequence[str]) -> _Plan:
        """The plan for some features."""
        alike: dict[tuple[str, ...], list[str]] = {}
        for name in features:
            if len(bound.sources[name]) > 1:
                alike.setdefault(tuple(source.provider for source in bound.sources[name]), []).append(name)
        return cls(list(features), bound.read(features), bound.judged(features), alike)


@dataclass(slots=True)
class _Known:
    """What a server need not look up again for a service."""

    bound: BoundService
    views: list[al.FeatureView]
    plans: dict[str | None, _Plan] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def plan(self, variant: str | None) -> _Plan:
        """The plan for a variant, or for all features."""
        if variant not in self.plans:
            names = list(self.bound.sources) if variant is None else self.bound.variant(variant).features
            self.plans[variant] = _Plan.of(self.bound, names)
        return self.plans[variant]


_services: WeakKeyDictionary[FeatureServer, WeakKeyDictionary[al.FeatureService, _Known]] = WeakKeyDictionary()
_events: WeakKeyDictionary[FeatureServer, dict[str, tuple[int, int, Newest]]] = WeakKeyDictionary()
_reading = threading.Lock()
_beats: WeakKeyDictionary[FeatureServer, dict[str, tuple[int, Ints]]] = WeakKeyDictionary()


def read_service(
    server: FeatureServer,
    service: al.FeatureService,
    entities: Mapping[str, Sequence[Any]],
    as_of: datetime | None = None,
    *,
    variant: str | None = None,
    sources: bool = False,
) -> Answer:
    """The features of a service for some entities, after its fallbacks.

    Args:
        server: Has the views.
        service: What is asked for.
        entities: Entity columns, name to values, all of one length.
        as_of: An instant in the past; None is now.
        variant: Give the features of this variant alone.
        sources: Add a column `<feature>__source` after each feature that has fallbacks: which of them answered.

    Returns:
        What `point_in_time_join(..., service=service)` gives at (t, p), bit for bit.

    Raises:
        ServiceError: If the service does not fit the server's views, or has no such variant.
        OnlineError: What `FeatureServer.read` refuses.
    """
    known = _known(server, service)
    bound, plan = known.bound, known.plan(variant)
    answer = server.read(plan.reads, entities, as_of=as_of)
    given = {column.name: column for column in answer.columns}
    chosen = _choose(plan, bound, given, _down(server, bound, plan.judged, answer))
    columns: list[AnsweredColumn] = []
    for name in plan.features:
        if name not in chosen:
            columns.append(given[name])
            continue
        columns.append(_told(bound, name, given, chosen[name]))
        if sources:
            columns.append(_source(bound, name, given[name], chosen[name]))
    if answer.definition not in known.hashes:
        known.hashes[answer.definition] = definition_hash([answer.definition, describe_service(service)])
    return replace(answer, columns=columns, definition=known.hashes[answer.definition])


def resolve(server: FeatureServer, service: al.FeatureService, as_of: datetime | None = None) -> Resolution:
    """The best variant of a service that can be served, and why it is not another.

    Args:
        server: Has the views.
        service: What is asked for.
        as_of: An instant in the past; None is now.

    Raises:
        ServiceError: If the service does not fit the server's views.
        AsOfError: If `as_of` has no zone or is later than what is known.
        NotReadyError: If the server is further behind than `max_behind`.
    """
    bound = _known(server, service).bound
    at, positions = _moment(server, as_of)
    t = np.array([at])
    needed = list(dict.fromkeys(provider for variant in bound.variants for provider in variant.needs))
    last = {provider: _last(server, provider, positions[provider], t) for provider in needed}
    problems = [
        {
            p: problem_of(
                last[p],
                t,
                bound.down_after.get(p),
                need.max_age,
                newest=None if need.max_event_age is None else _newest(server, bound, p, positions[p]).at(t),
                max_event_age=need.max_event_age,
            )
            for p, need in variant.needs.items()
        }
        for variant in bound.variants
    ]
    chosen = int(choose_variant(problems, 1)[0])
    states = {
        provider: ProviderState(
            provider=provider,
            last_heartbeat=None if last[provider][0] == NEVER else instant_from_us(int(last[provider][0])),
            down=provider in bound.down_after and bool(is_down(last[provider], t, bound.down_after[provider])[0]),
            down_after=_down_after(service, provider),
        )
        for provider in needed
    }
    variants = []
    for place, (variant, found) in enumerate(zip(bound.variants, problems, strict=True)):
        wrong = [_why(variant, states[p], int(code[0]), at) for p, code in found.items() if code[0] != FITS]
        better = [] if wrong or place == chosen else [f"{bound.variants[chosen].name!r} comes first"]
        variants.append(VariantState(variant=variant.name, fits=not wrong, reason="; ".join(wrong or better)))
    return Resolution(
        service=service.name,
        variant=None if chosen < 0 else bound.variants[chosen].name,
        features=() if chosen < 0 else bound.variants[chosen].features,
        t=instant_from_us(at),
        positions={provider: positions[provider] for provider in needed},
        variants=tuple(variants),
        providers=tuple(states.values()),
    )


def _known(server: FeatureServer, service: al.FeatureService) -> _Known:
    """The service bound to the views that the server has now."""
    views = list(server.views.values())
    of_server = _services.setdefault(server, WeakKeyDictionary())
    known = of_server.get(service)
    if (
        known is None
        or len(known.views) != len(views)
        or any(a is not b for a, b in zip(known.views, views, strict=True))
    ):
        known = of_server[service] = _Known(bind(service, views), views)
    return known


def _last(server: FeatureServer, provider: str, position: int, t: Ints) -> Ints:
    """The last heartbeat that counts at (t, position); the heartbeats at a position are sorted once."""
    held = _beats.setdefault(server, {})
    found = held.get(provider)
    if found is None or found[0] != position:
        if position > server.readiness().positions.get(provider, -1):
            server.catch_up()  # a shared state that another replica has brought further than this one has read
        found = held[provider] = position, server.heartbeats(provider, position=position)
    return last_heartbeats(found[1], t)


def _newest(server: FeatureServer, bound: BoundService, provider: str, position: int) -> Newest:
    """How far the provider's events had got, from its log; rows that came since are added to what is known."""
    with _reading:  # a log is not to be shared between threads
        held = _events.setdefault(server, {})
        known, changes = held.get(provider), server.changes(provider)
        if known is None or known[0] > position or known[1] != changes:
            known = position, changes, newest_of(bound.views_of[provider], position=position)
        elif known[0] < position:
            since = newest_of(bound.views_of[provider], position=position, after=known[0])
            known = position, changes, known[2].and_then(since)
        held[provider] = known
    return known[2]


def _moment(server: FeatureServer, as_of: datetime | None) -> tuple[int, Mapping[str, int]]:
    """The instant that is asked about, and the positions there.

    Raises:
        AsOfError: If `as_of` has no zone or is later than what is known.
        NotReadyError: If the server is further behind than `max_behind`.
    """
    ready = server.readiness()
    if not ready.ready or ready.complete_through is None:
        raise NotReadyError(ready.behind, server.settings.max_behind)
    t = min(instant_us(server.clock(), "clock"), instant_us(ready.complete_through, "complete_through"))
    if as_of is None:
        return t, ready.positions
    if as_of.tzinfo is None:
        raise AsOfError(f"as_of={as_of} has no zone", "write 2026-01-01T00:00:00Z.")
    if instant_us(as_of, "as_of") > t:
        raise AsOfError(
            f"as_of={as_of.isoformat()} is later than what is known: {instant_from_us(t).isoformat()}",
            "leave it out to ask for now.",
        )
    return instant_us(as_of, "as_of"), ready.positions


def _down(server: FeatureServer, bound: BoundService, judged: Sequence[str], answer: Answer) -> dict[str, bool]:
    """Which providers are down at the (t, p) of an answer."""
    if not judged:
        return {}
    t = np.array([instant_us(answer.t, "t")])
    last = {provider: _last(server, provider, answer.positions[provider], t) for provider in judged}
    return {provider: bool(is_down(last[provider], t, bound.down_after[provider])[0]) for provider in judged}


def _choose(
    plan: _Plan, bound: BoundService, given: Mapping[str, AnsweredColumn], down: Mapping[str, bool]
) -> dict[str, list[int]]:
    """Per feature with fallbacks, for each row the place of the source that answers."""
    found: dict[str, list[int]] = {}
    for providers, names in plan.alike.items():
        asked: list[tuple[Codes, Bools] | None] = []
        for place, provider in enumerate(providers):
            if not provider:
                asked.append(None)
                continue
            columns = [given[bound.sources[name][place].name] for name in names]
            codes = np.array([CODE_OF[status] for column in columns for status in column.status], np.uint8)
            asked.append((codes, np.full(len(codes), down.get(provider, False))))
        chosen = choose_source(asked, skip_null=bound.service.skip_null).tolist()
        height = len(chosen) // len(names)
        found |= {name: chosen[i * height : (i + 1) * height] for i, name in enumerate(names)}
    return found


def _told(bound: BoundService, name: str, given: Mapping[str, AnsweredColumn], chosen: Sequence[int]) -> AnsweredColumn:
    """A feature as its sources answer it."""
    own, dtype = given[name], bound.dtypes[name]
    if not any(chosen):
        return own
    parts = [_parts(source, given.get(source.name), dtype, len(chosen)) for source in bound.sources[name]]
    return AnsweredColumn(
        name,
        own.provider,
        dtype,
        values=[parts[place][0][row] for row, place in enumerate(chosen)],
        status=[parts[place][1][row] for row, place in enumerate(chosen)],
        events=[parts[place][2][row] for row, place in enumerate(chosen)],
        arrivals=[parts[place][3][row] for row, place in enumerate(chosen)],
    )


def _source(bound: BoundService, name: str, own: AnsweredColumn, chosen: Sequence[int]) -> AnsweredColumn:
    """Which source each value is of."""
    names = [source.name for source in bound.sources[name]]
    none: list[int | None] = [None] * len(chosen)
    told = [names[place] for place in chosen]
    return AnsweredColumn(f"{name}__source", own.provider, pl.Enum(names), told, ["present"] * len(told), none, none)


def _parts(
    source: Source, column: AnsweredColumn | None, dtype: pl.DataType, height: int
) -> tuple[Sequence[Any], Sequence[str], Sequence[int | None], Sequence[int | None]]:
    """Values in the feature's type, statuses, events and arrivals of one source."""
    if column is None:
        constant = source.value.to_list() if source.value is not None else [None]
        return constant * height, ["present"] * height, [None] * height, [None] * height
    values = column.values
    if column.dtype != dtype:
        values = pl.Series(values, dtype=column.dtype).cast(dtype).to_list()
    return values, column.status, column.events, column.arrivals


def _down_after(service: al.FeatureService, provider: str) -> str | None:
    written = service.down_after.get(provider, service.down_after.get(""))
    return None if written is None else written.text


def _why(variant: BoundVariant, state: ProviderState, problem: int, at: int) -> str:
    """What is wrong with a provider, in words."""
    name = state.provider
    if problem == IS_OLD:
        limit = variant.needs[name].max_event_age
        return f"{name!r} is not fresh enough: no event of the last {limit.text if limit else ''}"
    if state.last_heartbeat is None:
        return f"{name!r} has never been heard of"
    silent = instant_from_us(at) - state.last_heartbeat
    silent = timedelta(seconds=round(silent.total_seconds()))
    if problem == IS_DOWN:
        return f"{name!r} is down: silent for {silent}, may be for {state.down_after}"
    age = variant.needs[name].max_age
    return f"{name!r} is not fresh enough: silent for {silent}, may be for {age.text if age else ''}"
