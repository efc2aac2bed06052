"""Outages of the served world: a provider that answers 503, or loses, withholds or delays what it would have published."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

import polars as pl

import alignment as al
from ingestion.instants import to_us
from ingestion.sources.simulated import SITES

_NEVER_US = 1 << 60
"""Stands for the end of an outage of which nobody knows when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOutage:
    """An outage of a feed, on the wall clock; `end` is null while nobody knows.

    Of all sites and not slow: the provider answers 503. Afterwards it serves what came meanwhile, or, if that is `lost`, what comes
    then. Of some sites: it answers, and what they would have published comes at the end, or never. Slow: what would have been published
    takes so many times as long after its event.

    Args:
        start: Its first instant.
        end: The first instant after it.
        lost: Whether what would have been published in it never is.
        slow: How many times as long everything takes, at least 1.
        sites: Only these; None for all.

    Raises:
        ValueError: If it is both lost and slow, `slow` is less than 1, or there is no such site.
    """

    start: datetime
    end: datetime | None = None
    lost: bool = False
    slow: float | None = None
    sites: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            ValueError: See the class.
        """
        if self.slow is not None and (self.lost or not 1 <= self.slow < 1e6):
            raise ValueError("lost and slow exclude each other" if self.lost else f"slow={self.slow:g} is less than 1")
        if unknown := sorted(set(self.sites or ()) - set(SITES)):
            raise ValueError(f"no site {unknown[0]!r}; there are {', '.join(SITES)}")

    @classmethod
    def of(cls, outage: al.Outage) -> Self:
        """The outage of a provider that an `alignment.Outage` describes.

        Raises:
            ValueError: If its entities are no sites.
        """
        told = outage.to_dict().get("entities")
        sites = None if told is None else tuple(_site(one) for one in told)
        return cls(start=outage.start, end=outage.end, lost=outage.lost, slow=outage.slow, sites=sites)

    def covers(self, now: datetime) -> bool:
        """Whether it goes on."""
        return self.start <= now and (self.end is None or now < self.end)

    @property
    def silences(self) -> bool:
        """Whether the provider answers nothing."""
        return self.slow is None and self.sites is None

    def to_dict(self) -> dict[str, Any]:
        """What is not as by default, as plain values."""
        told: dict[str, Any] = {
            "start": self.start.isoformat(),
            "end": None if self.end is None else self.end.isoformat(),
        }
        if self.lost:
            told["lost"] = True
        if self.slow is not None:
            told["slow"] = self.slow
        if self.sites is not None:
            told["sites"] = list(self.sites)
        return told

    def held_up(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Published rows with other instants of publication; null for what nobody knows when, or never, is."""
        published = pl.col("published_time").dt.epoch("us")
        end = _NEVER_US if self.end is None else to_us(self.end)
        concerned = (published >= to_us(self.start)) & (published < end)
        if self.sites is not None:
            concerned &= pl.col("site").is_in(self.sites)
        if self.lost:
            return rows.filter(~concerned.fill_null(value=False))
        if self.slow is not None:
            event = pl.col("event_time").dt.epoch("us")
            moved = event + ((published - event) * self.slow).round().cast(pl.Int64)
        elif self.sites is not None:
            moved = pl.lit(None if self.end is None else end, pl.Int64)
        else:
            return rows
        new = pl.when(concerned).then(moved).otherwise(published).cast(pl.Datetime("us", "UTC"))
        return rows.with_columns(new.alias("published_time"))


def _site(entity: Any) -> str:
    values = list(entity.values()) if isinstance(entity, Mapping) else entity if isinstance(entity, list) else [entity]
    return str(values[0])


@dataclass
class FeedOutages:
    """The outages of the feeds of a world, past, present and planned. Safe to use from several threads."""

    _by_provider: dict[str, tuple[FeedOutage, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, provider: str, outages: Iterable[FeedOutage]) -> None:
        """More of them."""
        with self._lock:
            both = (*self._by_provider.get(provider, ()), *outages)
            self._by_provider[provider] = tuple(sorted(both, key=lambda outage: outage.start))

    def end(self, provider: str, now: datetime) -> None:
        """End those of a provider that go on."""
        with self._lock:
            self._by_provider[provider] = tuple(
                replace(outage, end=now) if outage.covers(now) else outage
                for outage in self._by_provider.get(provider, ())
            )

    def going_on(self, provider: str, now: datetime) -> list[FeedOutage]:
        """Those of a provider that go on."""
        with self._lock:
            return [outage for outage in self._by_provider.get(provider, ()) if outage.covers(now)]

    def published(self, provider: str, rows: pl.DataFrame) -> pl.DataFrame:
        """What a provider publishes of rows, and when, under its outages; in order of publication.

        Args:
            provider: Whose rows.
            rows: `site`, `event_time`, `published_time` and more, in order of publication; the revisions of an event keep their
                order.
        """
        with self._lock:
            outages = self._by_provider.get(provider, ())
        for outage in outages:
            rows = outage.held_up(rows)
        if not any(outage.slow is not None or outage.sites is not None for outage in outages):
            return rows
        order = pl.col("published_time").cum_max().over("site", "event_time")
        return rows.drop_nulls("published_time").with_columns(order).sort("published_time", maintain_order=True)
