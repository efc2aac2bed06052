"""What a service gives in a join: fallbacks applied, and the rows at which a variant would have served (R20)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.choosing import Codes, choose_source, choose_variant, problem_of
from alignment.errors import ServiceError
from alignment.heartbeats import Bools, Newest, heartbeats_of, is_down, last_heartbeats, newest_of
from alignment.service_binding import BoundService, BoundVariant, Need, Source, bind
from alignment.services import FeatureService
from alignment.spine import Spine
from alignment.status import STATUS
from alignment.views import FeatureView
from alignment.wallclock import Instants

if TYPE_CHECKING:
    from alignment.engines.local import Answered

VariantRows = Literal["chosen", "all"]


@dataclass(frozen=True, slots=True)
class Told:
    """A feature of a service: what it is, why, and who said so.

    Attributes:
        values: After fallbacks, in the feature's own type.
        status: That of the source that answered; `present` of a constant.
        source: Name of that source, per row; None for a feature without fallbacks.
    """

    values: pl.Series
    status: pl.Series | None
    source: pl.Series | None = None


@dataclass(slots=True)
class ServiceQuestion:
    """A service as a join is asked for it.

    Attributes:
        bound: The service.
        variant: Whose features and rows are wanted; None for all features of all rows.
        rows: Of a variant: the rows at which it would have been chosen, or all.
        position_of: Log position at which a view is answered.
        as_of_us: Nothing that arrived later counts.
    """

    bound: BoundService
    variant: BoundVariant | None
    rows: VariantRows
    position_of: Callable[[FeatureView], int | None]
    as_of_us: int | None
    _beats: dict[str, Instants] = field(default_factory=dict)
    _newest: dict[str, Newest] = field(default_factory=dict)

    @property
    def features(self) -> Sequence[str]:
        """Full names of the columns, in order."""
        return list(self.bound.sources) if self.variant is None else self.variant.features

    @property
    def views(self) -> list[FeatureView]:
        """The views that must be evaluated, each with no more features than are read."""
        names = set(self.bound.read(self.features))
        found = []
        for view in (view for views in self.bound.views_of.values() for view in views):
            wanted = tuple(feature for feature in view.features if view.column_name(feature) in names)
            if wanted:
                narrow = copy.copy(view)
                narrow.features = wanted
                found.append(narrow)
        return found

    def kept(self, spine: Spine) -> Spine:
        """The rows that are wanted, in order."""
        keep = self.wanted(spine.t)
        return spine if keep is None else Spine(spine.frame.filter(pl.Series(keep)), spine.t[keep])

    def wanted(self, t: Instants) -> Bools | None:
        """Per instant whether rows at it are wanted; None if all are."""
        if self.variant is None or self.rows == "all":
            return None
        names = [variant.name for variant in self.bound.variants]
        return np.asarray(self.chosen(t) == names.index(self.variant.name), np.bool_)

    def chosen(self, t: Instants) -> npt.NDArray[np.int8]:
        """Per instant the place of the variant that would have been chosen; -1 for none."""
        problems = [
            {p: self._problem(p, need, t) for p, need in variant.needs.items()} for variant in self.bound.variants
        ]
        return choose_variant(problems, len(t))

    def down(self, providers: Iterable[str], t: Instants) -> dict[str, Bools]:
        """Of providers that can be down, per instant whether they are."""
        return {p: is_down(self._last(p, t), t, self.bound.down_after[p]) for p in providers}

    def told(self, answered: Mapping[str, Answered], t: Instants) -> dict[str, Told]:
        """The service's columns, from those of all features that were read.

        Args:
            answered: Values and status by full name.
            t: The rows' prediction times.
        """
        down = self.down(self.bound.judged(self.features), t)
        found = {}
        for name in self.features:
            chain = self.bound.sources[name]
            if len(chain) == 1:
                found[name] = Told(answered[name].values, answered[name].status)
            else:
                found[name] = _fall_back(self.bound, name, chain, answered, down, len(t))
        return found

    def _problem(self, provider: str, need: Need, t: Instants) -> Codes:
        newest = None
        if need.max_event_age is not None:
            newest = self._newest_of(provider).at(t, self.as_of_us)
        return problem_of(
            self._last(provider, t),
            t,
            self.bound.down_after.get(provider),
            need.max_age,
            newest=newest,
            max_event_age=need.max_event_age,
        )

    def without_rows(self, views: Mapping[str, FeatureView]) -> ServiceQuestion:
        """The same question for another process: what it asks of providers has been read, and rows it has none.

        Args:
            views: Those of `views` without rows, by name.
        """
        for variant in self.bound.variants if self.variant is not None else ():
            for provider, need in variant.needs.items():
                self._heartbeats(provider)
                if need.max_event_age is not None:
                    self._newest_of(provider)
        for provider in self.bound.judged(self.features):
            self._heartbeats(provider)
        sources = {
            name: tuple(one if one.view is None else replace(one, view=views.get(one.view.name)) for one in chain)
            for name, chain in self.bound.sources.items()
            if name in self.features
        }
        bound = replace(self.bound, sources=sources, views_of={})
        return replace(self, bound=bound, position_of=_nowhere)

    def _newest_of(self, provider: str) -> Newest:
        if provider not in self._newest:
            self._newest[provider] = newest_of(self.bound.views_of[provider], position=self._position(provider))
        return self._newest[provider]

    def _heartbeats(self, provider: str) -> Instants:
        if provider not in self._beats:
            position = self._position(provider)
            self._beats[provider] = heartbeats_of(self.bound.views_of[provider], position=position)
        return self._beats[provider]

    def _last(self, provider: str, t: Instants) -> Instants:
        return last_heartbeats(self._heartbeats(provider), t, self.as_of_us)

    def _position(self, provider: str) -> int | None:
        positions = [self.position_of(view) for view in self.bound.views_of[provider]]
        return max((position for position in positions if position is not None), default=None)


def _nowhere(_: FeatureView) -> None:
    """Of a question without rows: no position."""


def ask_service(
    service: FeatureService | None,
    views: Sequence[FeatureView],
    *,
    variant: str | None,
    rows: VariantRows,
    position_of: Callable[[FeatureView], int | None],
    as_of_us: int | None,
) -> ServiceQuestion | None:
    """What is asked of a service; None if none is.

    Raises:
        ServiceError: If the arguments do not fit each other, or the service the views.
    """
    if rows not in ("chosen", "all"):
        raise ServiceError(f"rows={rows!r} is unknown", 'choose "chosen" or "all".')
    if service is None:
        if variant is not None:
            raise ServiceError(f"variant={variant!r} is given, and no service", "pass service=.")
        return None
    if not isinstance(service, FeatureService):
        raise ServiceError(f"{service!r} is not a service", 'e.g. al.FeatureService("power", ["weather__temp"]).')
    bound = bind(service, views)
    wanted = None if variant is None else bound.variant(variant)
    return ServiceQuestion(bound, wanted, rows, position_of, as_of_us)


def _fall_back(
    bound: BoundService,
    name: str,
    chain: Sequence[Source],
    answered: Mapping[str, Answered],
    down: Mapping[str, Bools],
    height: int,
) -> Told:
    up = np.zeros(height, np.bool_)
    columns = [None if source.view is None else answered[source.name] for source in chain]
    chosen = choose_source(
        [
            None if column is None else (_codes(column.status), down.get(source.provider, up))
            for source, column in zip(chain, columns, strict=True)
        ],
        skip_null=bound.service.skip_null,
    )
    names = [source.name for source in chain]
    dtype = bound.dtypes[name]
    values = [source.value if c is None else c.values for source, c in zip(chain, columns, strict=True)]
    return Told(
        pick([(series if series is not None else _PRESENT).cast(dtype) for series in values], chosen),
        pick([_PRESENT if c is None or c.status is None else c.status for c in columns], chosen),
        pl.Series(names, dtype=pl.Enum(names)).gather(pl.Series(chosen)),
    )


_PRESENT = pl.Series(["present"], dtype=STATUS)


def _codes(status: pl.Series | None) -> Codes:
    return np.asarray(status.to_physical().to_numpy() if status is not None else np.empty(0), np.uint8)


def pick(columns: Sequence[pl.Series], chosen: npt.NDArray[np.int8]) -> pl.Series:
    """Row for row the value of the chosen column, bit for bit; a column of one value gives it to every row."""
    if not chosen.any():
        return columns[0]
    rows = np.arange(len(chosen))
    starts = np.cumsum([0, *(len(column) for column in columns[:-1])])
    single = np.array([len(column) == 1 for column in columns])
    index = starts[chosen] + np.where(single[chosen], 0, rows)
    return pl.concat(list(columns)).gather(pl.Series(index))
