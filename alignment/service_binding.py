"""Services whose names have been looked up in views: what may answer each feature, and whether its type fits (R20)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import polars as pl

from alignment.durations import Duration
from alignment.errors import ServiceError
from alignment.features import Feature
from alignment.heartbeats import provider_of
from alignment.services import Constant, FeatureService, Variant, no_twice
from alignment.views import FeatureView

CONSTANT = "constant"
"""What `<feature>__source` says where the constant answered."""

_LOSSLESS: dict[type[pl.DataType], tuple[type[pl.DataType], ...]] = {
    pl.Float32: (pl.Int8, pl.Int16, pl.UInt8, pl.UInt16),
    pl.Float64: (pl.Float32, pl.Int8, pl.Int16, pl.UInt8, pl.UInt16, pl.Int32, pl.UInt32),
}
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
_COUNTS = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)


@dataclass(frozen=True, slots=True)
class Source:
    """One of those that may answer a feature.

    Attributes:
        name: The feature's full name, or `constant`.
        view: Its view; None of a constant.
        feature: Its declaration in that view.
        provider: Whose observations it is of; empty of a constant.
        dtype: The feature's type.
        value: The constant, as a series of one in the type of the feature that it stands in for.
    """

    name: str
    dtype: pl.DataType
    view: FeatureView | None = None
    feature: Feature | None = None
    provider: str = ""
    value: pl.Series | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What a variant asks of a provider, besides being up.

    Attributes:
        max_age: Greatest age of its last heartbeat; None for any.
        max_event_age: Greatest age of its newest event; None for any.
    """

    max_age: Duration | None = None
    max_event_age: Duration | None = None


@dataclass(frozen=True, slots=True)
class BoundVariant:
    """A variant whose names have been looked up.

    Attributes:
        name: Its name.
        features: Full names of the features that it gives.
        needs: By provider, what it asks of it.
    """

    name: str
    features: tuple[str, ...]
    needs: Mapping[str, Need]


@dataclass(frozen=True, slots=True)
class BoundService:
    """A service whose names have been looked up in its views, and whose types fit.

    Attributes:
        service: What was declared.
        sources: Per feature those that may answer it, itself first.
        dtypes: Per feature its type.
        variants: In order of preference; of a service that declares none, one that bears its name.
        views_of: Per provider its views.
        down_after: Per provider that can be down, after how many microseconds of silence it is.
    """

    service: FeatureService
    sources: Mapping[str, tuple[Source, ...]]
    dtypes: Mapping[str, pl.DataType]
    variants: tuple[BoundVariant, ...]
    views_of: Mapping[str, tuple[FeatureView, ...]]
    down_after: Mapping[str, int]

    def variant(self, name: str) -> BoundVariant:
        """The variant of that name.

        Raises:
            ServiceError: If there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(repr(variant.name) for variant in self.variants)
        raise ServiceError(f"{self.service.place} has no variant {name!r}", f"it has {names}.")

    def read(self, features: Iterable[str]) -> list[str]:
        """Full names of all features that answering `features` takes, each once."""
        return list(dict.fromkeys(s.name for name in features for s in self.sources[name] if s.view is not None))

    def judged(self, features: Iterable[str]) -> list[str]:
        """The providers of which it must be known whether they are down, to answer `features`."""
        chains = [self.sources[name] for name in features]
        found = dict.fromkeys(s.provider for chain in chains if len(chain) > 1 for s in chain)
        return [provider for provider in found if provider in self.down_after]


def bind(service: FeatureService, views: Sequence[FeatureView]) -> BoundService:
    """A service with its names looked up in views, and its types checked.

    Args:
        service: The declaration.
        views: The views that its features may be of.

    Raises:
        ServiceError: If there is no such feature or provider, a fallback's type does not fit, or a variant makes those after it
            unreachable.
    """
    known = {
        view.column_name(f): Source(view.column_name(f), view.column_type(f), view, f, provider_of(view))
        for view in views
        for f in view.features
    }
    whole = {view.name: view.column_names for view in views}
    views_of: dict[str, tuple[FeatureView, ...]] = {}
    for view in views:
        views_of[provider_of(view)] = (*views_of.get(provider_of(view), ()), view)
    features = _expand(service.features, known, whole, service.place)
    for name in service.fallbacks:
        if name not in features:
            _unknown(f"{service.place}: fallbacks names {name!r}, which is not among its features", name, features)
    dtypes = {name: known[name].dtype for name in features}
    sources = {
        name: (
            known[name],
            *(_stand_in(one, name, dtypes[name], known, service) for one in service.fallbacks.get(name, ())),
        )
        for name in features
    }
    for provider in service.down_after:
        if provider and provider not in views_of:
            _unknown(
                f"{service.place}: down_after names {provider!r}, which is no provider of the views", provider, views_of
            )
    for_all = service.down_after.get("")
    limits = {p: d.total_us for p in views_of if (d := service.down_after.get(p, for_all)) is not None}
    declared = service.variants or (Variant(service.name),)
    variants = tuple(_bind_variant(one, features, sources, whole, views_of, service.place) for one in declared)
    for variant, _ in pairwise(variants):
        if not any(provider in limits or need != Need() for provider, need in variant.needs.items()):
            raise ServiceError(
                f"{service.place}: variant {variant.name!r} can never be passed over: nothing says when a provider that it "
                f"needs ({', '.join(variant.needs) or 'none'}) is down",
                f'e.g. down_after={{"{next(iter(variant.needs), "satellite")}": "1h"}}.',
            )
    return BoundService(service, sources, dtypes, variants, views_of, limits)


def _expand(
    names: Iterable[str], known: Mapping[str, Source], whole: Mapping[str, list[str]], place: str
) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        if name in known:
            found.append(name)
        elif name in whole:
            found.extend(whole[name])
        else:
            _unknown(f"{place}: no view has a feature {name!r}", name, known)
    no_twice(found, f"{place}: features")
    return tuple(found)


def _bind_variant(
    variant: Variant,
    features: tuple[str, ...],
    sources: Mapping[str, tuple[Source, ...]],
    whole: Mapping[str, list[str]],
    providers: Iterable[str],
    place: str,
) -> BoundVariant:
    place = f"{place}: variant {variant.name!r}"
    own = (
        features
        if variant.features is None
        else _expand(variant.features, {name: sources[name][0] for name in features}, whole, place)
    )
    for name in own:
        if name not in features:
            _unknown(f"{place} has the feature {name!r}, which the service has not", name, features)
    needs = (
        variant.needs if variant.needs is not None else list(dict.fromkeys(sources[name][0].provider for name in own))
    )
    for provider in needs:
        if provider not in providers:
            _unknown(f"{place} needs {provider!r}, which is no provider of the views", provider, providers)
    for limit in ("max_age", "max_event_age"):
        for provider in getattr(variant, limit):
            if provider and provider not in needs:
                _unknown(f"{place}: {limit} names {provider!r}, which it does not need", provider, needs)
    ages, event_ages = variant.max_age, variant.max_event_age
    return BoundVariant(
        variant.name, own, {p: Need(ages.get(p, ages.get("")), event_ages.get(p, event_ages.get(""))) for p in needs}
    )


def _stand_in(
    given: str | Constant, feature: str, dtype: pl.DataType, known: Mapping[str, Source], service: FeatureService
) -> Source:
    place = f"{service.place}: the fallback of {feature!r}"
    if isinstance(given, Constant):
        return Source(CONSTANT, dtype, value=_typed(given.value, dtype, place))
    if given not in known:
        _unknown(f"{place} is {given!r}, which is no feature of the views", given, known)
    other = known[given].dtype
    if not _fits(other, dtype):
        column = getattr(known[given].feature, "column", None) or "column"
        raise ServiceError(
            f"{place} is {given!r}, which is {other}, and the feature is {dtype}",
            f'derive a column of that type, e.g. derive={{"{column}_same": pl.col("{column}").cast(pl.{dtype})}}.',
        )
    return known[given]


def _typed(value: Any, dtype: pl.DataType, place: str) -> pl.Series:
    """A constant in the type of a feature.

    Raises:
        ServiceError: If it cannot be that without changing.
    """
    same_sort = isinstance(value, bool) == (dtype == pl.Boolean)
    try:
        series = pl.Series(CONSTANT, [value], dtype=dtype, strict=True)
        back = series.to_list()[0]
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
        same_sort, back = False, None
    if dtype == pl.Float32 and isinstance(value, float):
        back = value  # rounded to what the column can hold
    is_nan = isinstance(value, float) and math.isnan(value) and dtype.is_float()
    if not same_sort or not (is_nan or back == value):
        raise ServiceError(
            f"{place} is the constant {value!r}, and the feature is {dtype}", "use a value of that type."
        )
    return series


def _fits(given: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether every value of one type is a value of the other."""
    if given == wanted:
        return True
    if type(given) in _LOSSLESS.get(type(wanted), ()):
        return True
    for row in (_INTEGERS, _COUNTS):
        if given in row and wanted in row:
            return row.index(type(given)) < row.index(type(wanted))
    return given in _COUNTS and wanted in _INTEGERS and _COUNTS.index(type(given)) < _INTEGERS.index(type(wanted))


def _unknown(problem: str, name: str, there: Iterable[str]) -> NoReturn:
    names = list(there)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    raise ServiceError(problem, f"did you mean {close[0]!r}?" if close else f"there are {listed or 'none'}.")
