"""Feature services: what a model is given, and what it is given while a provider is down (R20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from alignment.durations import Duration, DurationLike, parse_duration
from alignment.errors import ServiceError
from alignment.views import FeatureView


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands in for a feature; made by `constant`."""

    value: Any


def constant(value: Any) -> Constant:
    """A value as the last resort of a feature; texts and lists need it, since bare ones name features.

    Args:
        value: A boolean, number, text, instant with zone, `timedelta`, or a list of one of these for a sequence.

    Returns:
        The fallback.

    Raises:
        ServiceError: If it is none of these.

    Example:
        >>> constant("dry")
        Constant(value='dry')
    """
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if not isinstance(one, bool | int | float | str | datetime | timedelta):
            raise ServiceError(
                f"{one!r} cannot stand in for a feature",
                "use a boolean, number, text, instant or timedelta; what has no fallback is null by itself.",
            )
        if isinstance(one, datetime) and one.tzinfo is None:
            raise ServiceError(f"the constant {one} has no time zone", "pass a datetime with a zone.")
    return Constant(list(value) if isinstance(value, tuple) else value)


class Variant:
    """A way to serve: the providers that it needs, and the features that it gives.

    Args:
        name: What a model is registered under.
        needs: Providers that must be up; None are the providers of its features.
        features: Some of the service's features; None are all.
        max_age: Greatest age of a needed provider's last heartbeat: one for all, or by provider.
        max_event_age: Greatest age of its newest event, whichever entity's; of forecasts, of its newest issue.

    Raises:
        ServiceError: If the arguments do not fit each other.
        DurationError: If an age is not a duration.
    """

    def __init__(
        self,
        name: str,
        *,
        needs: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        max_age: DurationLike | Mapping[str, DurationLike] | None = None,
        max_event_age: DurationLike | Mapping[str, DurationLike] | None = None,
    ) -> None:
        self.name = _name(name, "a variant")
        self.needs = None if needs is None else _names(needs, f"variant {name!r}: needs")
        self.features = None if features is None else _feature_names(features, f"variant {name!r}: features")
        self.max_age = _durations(max_age, "max_age")
        self.max_event_age = _durations(max_event_age, "max_event_age")

    def __repr__(self) -> str:
        return f"Variant({self.name!r}, needs={self.needs})"


class FeatureService:
    """The features of a model, what stands in for them while a provider is down, and variants that need fewer providers.

    A provider is down at (t, p) iff none of its heartbeats counts in `(t - down_after, t]`; one that has no `down_after` never
    is. A feature is answered by the first of itself and its fallbacks whose provider is up and whose status is `present` or
    `null`; if there is none, by itself. The column keeps the feature's name and type.

    Args:
        name: What it is asked for by.
        features: `<view>__<feature>` or `<view>:<feature>`, in the order of the columns; `<view>` alone is all of it.
        views: The views that they are of; the service is then checked at once, else where it is first used.
        fallbacks: Feature to what stands in for it, in order: other features, and last a constant.
        down_after: Silence after which a provider is down: one for all, or by provider. Plain frames have no provider: their
            view's name stands for it, and the arrivals of their rows are the heartbeats.
        variants: In order of preference.
        skip_null: Whether a null is passed over too.

    Raises:
        ServiceError: If the arguments do not fit each other, or the views.
        DurationError: If a duration is none.

    Example:
        >>> service = FeatureService(
        ...     "power",
        ...     ["satellite__ghi", "weather__temp"],
        ...     fallbacks={"satellite__ghi": ["weather__ghi", 0.0]},
        ...     down_after={"satellite": "1h"},
        ...     variants=[Variant("full"), Variant("no_satellite", needs=["weather"])],
        ... )
        >>> service
        FeatureService('power', 2 features, variants: full, no_satellite)
    """

    def __init__(
        self,
        name: str,
        features: Sequence[str],
        *,
        views: Sequence[FeatureView] | None = None,
        fallbacks: Mapping[str, Any] | None = None,
        down_after: DurationLike | Mapping[str, DurationLike] | None = None,
        variants: Sequence[Variant] = (),
        skip_null: bool = False,
    ) -> None:
        self.name = _name(name, "a service")
        self.place = f"service {name!r}"
        self.features = _feature_names(features, f"{self.place}: features")
        self.fallbacks = {
            _canonical(feature): _chain(_canonical(feature), given, self.place)
            for feature, given in (fallbacks or {}).items()
        }
        self.down_after = _durations(down_after, "down_after")
        self.variants = tuple(variants)
        self.skip_null = skip_null
        for variant in self.variants:
            if not isinstance(variant, Variant):
                raise ServiceError(f"{self.place}: {variant!r} is not a variant", 'e.g. al.Variant("full").')
        no_twice([variant.name for variant in self.variants], f"{self.place}: variants")
        if views is not None:
            from alignment.service_binding import bind

            bind(self, views)

    def __repr__(self) -> str:
        variants = ", ".join(variant.name for variant in self.variants) or "none"
        return f"FeatureService({self.name!r}, {len(self.features)} features, variants: {variants})"


def _chain(feature: str, given: Any, place: str) -> tuple[str | Constant, ...]:
    """What stands in for a feature, in order.

    Raises:
        ServiceError: If something can never answer.
    """
    place = f"{place}: the fallbacks of {feature!r}"
    items = given if isinstance(given, list | tuple) else [given]
    found = tuple(_canonical(one) if isinstance(one, str) else _constant(one) for one in items)
    if not found:
        raise ServiceError(f"{place} are empty", "name one, or leave the feature out of fallbacks.")
    names = [one for one in found if isinstance(one, str)]
    no_twice([feature, *names], place)
    for one in found[:-1]:
        if isinstance(one, Constant):
            raise ServiceError(f"{place} go on after the constant {one.value!r}, which always answers", "put it last.")
    return found


def _constant(value: Any) -> Constant:
    return value if isinstance(value, Constant) else constant(value)


def _canonical(name: str) -> str:
    return name.replace(":", "__", 1)


def _feature_names(names: Sequence[str], what: str) -> tuple[str, ...]:
    found = tuple(_canonical(name) for name in _names(names, what))
    if not found:
        raise ServiceError(f"{what} are empty", 'e.g. features=["weather__temp"].')
    no_twice(list(found), what)
    return found


def _names(names: Sequence[str], what: str) -> list[str]:
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise ServiceError(f"{what}={names!r} is not a list of names", 'e.g. ["weather__temp"].')
    return list(names)


def _name(name: str, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise ServiceError(f"name={name!r} is not the name of {what}", 'e.g. name="power".')
    return name


def no_twice(names: Sequence[str], what: str) -> None:
    """Refuse a name that is there twice.

    Raises:
        ServiceError: If one is.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ServiceError(f"{what} name {twice!r} more than once", "name each once.")


def _durations(given: DurationLike | Mapping[str, DurationLike] | None, what: str) -> dict[str, Duration]:
    """Durations by provider; under the empty name the one for all."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {name: parse_duration(value, f"{what}[{name!r}]") for name, value in given.items()}
    return {"": parse_duration(given, what)}
