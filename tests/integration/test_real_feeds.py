"""Real data, re-published in its own order of arrival and polled: the log knows at every step what the provider showed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from feeds import Feed, NesoFeed, UsgsFeed

import alignment as al
from ingestion import ObservationLog
from ingestion.jobs import poll_once
from ingestion.providers import Provider
from ingestion.providers.presets import preset_fields
from ingestion.sources.http_pull import HttpSource

STEPS = 30
QUAKE = ["net", "quake_id", "event_time", "mag", "lon", "lat", "depth_km", "place", "source_updated"]


class Instant:
    """A clock that shows the arrival that is being replayed."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def provider_of(name: str, feed: Feed) -> Provider:
    """The preset as users have it; only the address is another, and the stamps have no margin."""
    fields = preset_fields(name)
    fields["source"] |= {"url": feed.base + urlsplit(fields["source"]["url"]).path, "rate": None}
    return Provider(**{"name": name, **fields, "publish_margin": "0s"})


@contextmanager
def polled(provider: Provider, root: Path, clock: Instant) -> Iterator[tuple[ObservationLog, Any]]:
    assert isinstance(provider.source, HttpSource)
    source = provider.source.open(provider.name, {}, clock=clock)
    try:
        yield provider.open(root, clock=clock), source
    finally:
        source.close()


def steps_of(feed: UsgsFeed | NesoFeed, at_most: int | None) -> list[datetime]:
    """Neighbouring arrivals from the middle, where retractions and re-insertions are; all of them in a soak."""
    if at_most is None:
        return feed.arrivals
    middle = len(feed.arrivals) // 2
    return feed.arrivals[middle : middle + at_most]


def replay_quakes(shared: Path, root: Path, at_most: int | None) -> dict[str, int]:
    frame = pl.read_parquet(shared / "data" / "quakes_usgs" / "observations.parquet")
    totals = {"new": 0, "revised": 0, "retracted": 0, "moved": 0}
    with UsgsFeed(frame) as feed:
        steps = steps_of(feed, at_most)
        clock = Instant(steps[0])
        provider = provider_of("usgs", feed)
        with polled(provider, root, clock) as (log, source):
            started = steps[0] - timedelta(days=7)
            for arrival in steps:
                clock.now = feed.arrived = arrival
                report = poll_once(provider, log, source, clock=clock)
                assert report.outcome in {"rows", "empty"}, report
                assert report.report is not None
                for name in totals:
                    totals[name] += getattr(report.report, name) or 0
                known = al.snapshot(al.Observations(log), arrival).select(QUAKE).sort("net", "quake_id")
                # quakes that had left the window before the first step were never shown
                wanted = feed.known().filter(pl.col("event_time") > started).select(QUAKE).sort("net", "quake_id")
                assert known.equals(wanted), f"at {arrival}"
    return totals


def replay_wind(shared: Path, root: Path, at_most: int | None) -> int:
    frame = pl.read_parquet(shared / "data" / "energy_neso_wind" / "observations.parquet")
    columns = ["event_time", "issue_time", "wind_forecast_mw", "capacity_mw"]
    unchanged = 0
    with NesoFeed(frame) as feed:
        steps = steps_of(feed, at_most)
        clock = Instant(steps[0])
        provider = provider_of("neso_wind", feed)
        shown = []
        with polled(provider, root, clock) as (log, source):
            for arrival in steps:
                clock.now = feed.arrived = arrival
                report = poll_once(provider, log, source, clock=clock)
                assert report.outcome in {"rows", "empty"}, report
                assert report.report is not None
                unchanged += report.report.unchanged
                shown.append(feed.state().select(columns))
                known = al.snapshot(al.Observations(log), arrival).select(columns).sort("event_time")
                newest = pl.concat(shown).sort("issue_time").group_by("event_time").last().sort("event_time")
                assert known.equals(newest.select(columns)), f"at {arrival}"
            stored = log.scan().select(columns).collect()
            assert stored.sort(columns).equals(pl.concat(shown).unique().sort(columns))
    return unchanged


def test_the_log_of_the_quake_feed_is_the_feed_at_every_step(shared: Path, tmp_path: Path) -> None:
    totals = replay_quakes(shared, tmp_path, STEPS)
    assert totals["retracted"] > 5, totals
    assert totals["revised"] > 5, totals


def test_the_log_of_the_wind_forecast_is_the_portal_at_every_step(shared: Path, tmp_path: Path) -> None:
    replay_wind(shared, tmp_path, STEPS)


@pytest.mark.soak
def test_all_of_the_real_data_replayed_as_feeds(shared: Path, tmp_path: Path) -> None:
    scale = float(os.environ.get("ASKNOWN_SOAK", "1"))
    at_most = None if scale >= 1 else max(2, int(500 * scale))
    totals = replay_quakes(shared, tmp_path / "quakes", at_most)
    assert totals["retracted"] > 10, totals
    unchanged = replay_wind(shared, tmp_path / "wind", at_most)
    if at_most is None:
        assert unchanged > 0  # one issue was captured twice, with the same values
