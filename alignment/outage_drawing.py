"""Outages that never happened, drawn: to train a model on what the absence of a provider looks like (R23)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from alignment.durations import DAY_US, UNITS_US, DurationLike, instant_from_us, instant_us, parse_duration
from alignment.errors import DefinitionError
from alignment.outages import Outage
from alignment.stable_hash import check_seed

DAYS_PER_MONTH: Final = 30
_SECOND_US: Final = UNITS_US["s"]
_LAST_US: Final = instant_us(datetime.max.replace(tzinfo=UTC), "the last instant")


def draw_outages(
    providers: str | Sequence[str],
    start: datetime,
    end: datetime,
    *,
    per_month: float | Mapping[str, float],
    seed: int,
    lasting: tuple[DurationLike, DurationLike] | DurationLike = ("1h", "7h"),
    lost: float = 0.2,
    slow: float = 0.1,
    slower: float = 3.0,
    partial: float = 0.0,
    entities: Sequence[Any] | None = None,
) -> list[Outage]:
    """Random outages of some providers, independent of each other: some lose rows, some slow them down, most only hold them up.

    Unless told otherwise a fifth of them lose rows and a tenth make rows three times as late, also where only `lost` is given: say
    `slow=0` for none. After the others all is caught up. Outages of one provider may overlap, since each is drawn by itself.

    Each day (UTC) of a provider has a Poisson number of outages, `per_month / 30` on average; each begins at any second of the
    day and lasts a whole number of seconds, uniform between the bounds of `lasting`. What is drawn is keyed by (seed, provider,
    day, number, draw): it depends neither on the other providers nor on the order of the entities nor on the span that is asked
    for, so that a longer span begins with the same outages.

    Args:
        providers: Names of providers, as `Outage` takes them; or one.
        start: Outages begin here or later.
        end: Outages begin before it; they may end after it.
        per_month: How many to expect in 30 days: of each provider, or by provider.
        seed: Another seed, other outages; not negative.
        lasting: Least and greatest length, or one that all have.
        lost: Share of outages after which nothing is caught up; by default a fifth.
        slow: Share of outages in which rows only take longer; by default a tenth. `lost` and `slow` together are 1 or less.
        slower: How many times as long; by default three.
        partial: Share of outages that concern only some of `entities`: at least one and not all.
        entities: The entities, as `Outage` takes them; two or more where `partial` is not 0.

    Returns:
        Outages in order of start, then of provider. Those of one provider may overlap.

    Raises:
        DefinitionError: If an argument is out of its range.
        DurationError: If a bound of `lasting` is not a duration.
        NaiveTimeError: If `start` or `end` has no zone.

    Example:
        >>> from datetime import UTC, datetime
        >>> may, june, july = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7))
        >>> drawn = draw_outages(["mast", "meter"], may, june, per_month=4, seed=3)
        >>> all(may <= outage.start < june for outage in drawn)
        True
        >>> draw_outages(["meter", "mast"], may, july, per_month=4, seed=3)[: len(drawn)] == drawn
        True
    """
    names = _names(providers)
    first, last = instant_us(start, "start"), instant_us(end, "end")
    if last < first:
        raise DefinitionError(f"end={end.isoformat()} is before start={start.isoformat()}", "swap them.")
    lengths = _lengths(lasting)
    if -(-last // DAY_US) * DAY_US + lengths[1] * _SECOND_US > _LAST_US:
        raise DefinitionError(
            f"lasting={lasting!r}: outages that begin before {end.isoformat()} could end after the year 9999",
            'make them shorter, e.g. lasting=("1h", "7h").',
        )
    shape = _Shape(seed, lengths, lost, slow, slower, partial, _distinct(entities))
    rates = {name: _rate(per_month, name) for name in names}
    found = [
        outage
        for name in names
        for day in range(first // DAY_US, -(-last // DAY_US))
        for outage in shape.outages_of(name, day, rates[name])
        if first <= outage.span_us[0] < last
    ]
    return sorted(found, key=lambda outage: (outage.start, outage.provider, outage.end))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What outages are like; days are counted from 1970-01-01."""

    seed: int
    lengths: tuple[int, int]
    lost: float
    slow: float
    slower: float
    partial: float
    entities: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            DefinitionError: If an argument is out of its range.
        """
        check_seed(self.seed)
        for name in ("lost", "slow", "partial"):
            _check_share(name, getattr(self, name))
        _check_share("lost + slow", self.lost + self.slow)
        if not isinstance(self.slower, float | int) or not 1 <= self.slower < 1e6:
            raise DefinitionError(f"slower={self.slower!r} is not a factor of 1 or more", "e.g. slower=3.")
        if self.partial and len(self.entities) < 2:
            raise DefinitionError(
                f"partial={self.partial!r} needs two entities or more, and there are {len(self.entities)}",
                "name them, e.g. entities=['dune', 'ridge'].",
            )

    def outages_of(self, provider: str, day: int, rate: float) -> list[Outage]:
        """Those that begin on a day."""
        count = int(self._rng(provider, day, "count").poisson(rate / DAYS_PER_MONTH))
        return [self._outage(provider, day, number) for number in range(count)]

    def _outage(self, provider: str, day: int, number: int) -> Outage:
        rng = self._rng(provider, day, number)
        start = day * DAY_US + int(rng.integers(DAY_US // _SECOND_US)) * _SECOND_US
        length = int(rng.integers(self.lengths[0], self.lengths[1], endpoint=True)) * _SECOND_US
        kind, part = rng.random(), rng.random()
        lost, slow = kind < self.lost, self.lost <= kind < self.lost + self.slow
        return Outage(
            provider,
            instant_from_us(start),
            instant_from_us(start + length),
            lost=lost,
            slow=self.slower if slow else None,
            entities=self._some(provider, day, number) if part < self.partial else None,
        )

    def _some(self, provider: str, day: int, number: int) -> list[Any]:
        """At least one of the entities and not all: those that draw less than a drawn share."""
        share = self._rng(provider, day, number, "share").random()
        drawn = [self._rng(provider, day, number, repr(one)).random() for one in self.entities]
        order = np.argsort(drawn, kind="stable")
        many = min(max(1, int(np.sum(np.asarray(drawn) < share))), len(order) - 1)
        hit = set(order[:many].tolist())
        return [one for place, one in enumerate(self.entities) if place in hit]

    def _rng(self, *key: str | int) -> np.random.Generator:
        """A generator of its own for (seed, *key), whatever else was drawn."""
        digest = hashlib.sha256(repr(key).encode()).digest()
        return np.random.default_rng([self.seed, int.from_bytes(digest[:16], "little")])


def _names(providers: str | Sequence[str]) -> list[str]:
    """Each provider once.

    Raises:
        DefinitionError: If something is no name.
    """
    given = (
        [providers] if isinstance(providers, str) else list(providers) if isinstance(providers, Iterable) else [None]
    )
    if not all(isinstance(name, str) and name for name in given):
        raise DefinitionError(
            f"providers={providers!r} is neither a provider's name nor a list of names",
            'e.g. providers=["mast", "meter"].',
        )
    return [name for name in dict.fromkeys(given) if name]


def _check_share(name: str, share: float) -> None:
    if not isinstance(share, float | int) or not 0 <= share <= 1:
        raise DefinitionError(f"{name} is {share!r}, not a share of the outages", "it is between 0 and 1.")


def _lengths(lasting: tuple[DurationLike, DurationLike] | DurationLike) -> tuple[int, int]:
    """In whole seconds, from one to another.

    Raises:
        DefinitionError: If there are no two bounds, or none is between them.
    """
    bounds = tuple(lasting) if isinstance(lasting, tuple | list) else (lasting, lasting)
    if len(bounds) != 2:
        raise DefinitionError(f"lasting={lasting!r} is not a least and a greatest length", 'e.g. ("1h", "7h").')
    least, most = (parse_duration(bound, "lasting").total_us for bound in bounds)
    shortest, longest = -(-least // _SECOND_US), most // _SECOND_US
    if shortest > longest:
        raise DefinitionError(
            f"lasting={bounds!r}: no whole second is between them", 'the shorter one first, e.g. ("1h", "7h").'
        )
    return shortest, longest


def _rate(per_month: float | Mapping[str, float], name: str) -> float:
    rate = per_month.get(name) if isinstance(per_month, Mapping) else per_month
    if rate is None:
        raise DefinitionError(f"per_month says nothing of {name!r}", f"e.g. per_month={{{name!r}: 4}}, or 4 for all.")
    if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 <= rate < 1e6:
        raise DefinitionError(f"per_month={rate!r} is not a number of outages", "e.g. per_month=4.")
    return rate


def _distinct(entities: Sequence[Any] | None) -> tuple[Any, ...]:
    """The entities as an outage holds them, each once; the columns of one in alphabetic order.

    Raises:
        DefinitionError: If they are no list.
    """
    if entities is not None and (isinstance(entities, str | bytes) or not isinstance(entities, Iterable)):
        raise DefinitionError(
            f"entities={entities!r} is one value, not a list of them", f"write entities=[{entities!r}]."
        )
    alike = [dict(sorted(one.items())) if isinstance(one, Mapping) else one for one in entities or ()]
    span = (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC))
    return tuple(dict.fromkeys(Outage("-", *span, entities=alike).entities or ()))
