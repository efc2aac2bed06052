"""The simulated world is what the worked example says it is: seeded, late, sometimes down, corrected, and dependent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ingestion.sources.simulated import FEEDS, SITES, SimulatedWorld

WORLD = SimulatedWorld(days=20)
FRAMES = {feed.provider: WORLD.observations(feed.provider) for feed in FEEDS}
PROVIDERS = [feed.provider for feed in FEEDS]


def first_arrivals(provider: str) -> pl.DataFrame:
    return FRAMES[provider].sort("arrival_time").unique(["site", "event_time"], keep="first", maintain_order=True)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_same_seed_gives_the_same_rows_and_another_seed_other_rows(provider: str) -> None:
    assert_frame_equal(SimulatedWorld(days=20).observations(provider), FRAMES[provider])
    assert not SimulatedWorld(days=20, seed=8).observations(provider).equals(FRAMES[provider])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_shorter_world_is_the_beginning_of_a_longer_one(provider: str) -> None:
    short = SimulatedWorld(days=9)
    # An outage of the tenth day may still hold back a delivery of the ninth: compare what had arrived before it.
    until = short.end - timedelta(hours=1)
    assert_frame_equal(
        short.observations(provider).filter(pl.col("arrival_time") < until),
        FRAMES[provider].filter(pl.col("arrival_time") < until),
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_site_has_one_event_every_ten_minutes(provider: str) -> None:
    first = first_arrivals(provider)
    assert first.height == len(SITES) * 20 * 144
    gaps = first.sort("site", "event_time").select(pl.col("event_time").diff().over("site").drop_nulls().unique())
    assert gaps.to_series().to_list() == [timedelta(minutes=10)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_most_arrivals_are_twenty_to_forty_minutes_late_and_none_is_earlier(provider: str) -> None:
    first = first_arrivals(provider)
    delay = first["arrival_time"] - first["event_time"]
    assert delay.min() >= timedelta(minutes=20)
    assert (delay <= timedelta(minutes=40)).mean() > 0.85


def test_a_provider_that_was_down_catches_up_in_one_delivery() -> None:
    first = first_arrivals("pyranometer")
    batches = first.group_by("arrival_time").len().filter(pl.col("len") > 20)
    assert batches.height >= 2
    # Nothing arrives between the last delivery before the outage and the catch-up.
    arrivals = first["arrival_time"].unique().sort()
    gaps = pl.DataFrame({"arrival_time": arrivals, "gap": arrivals.diff()})
    caught_up = gaps.join(batches, on="arrival_time")
    assert caught_up["gap"].min() >= timedelta(hours=1)


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.provider)
def test_revisions_arrive_the_next_morning_and_only_where_the_feed_has_them(feed) -> None:
    rows = FRAMES[feed.provider]
    later = rows.join(first_arrivals(feed.provider), on=["site", "event_time", "arrival_time"], how="anti")
    assert (later.height > 0) == (feed.miscalibrated > 0 or feed.withdrawn > 0)
    days = (later["arrival_time"].dt.date() - later["event_time"].dt.date()).dt.total_days()
    assert set(days) <= {1}
    assert set(later["arrival_time"].dt.hour()) <= {6}
    assert (rows["is_retraction"].sum() > 0) == (feed.withdrawn > 0)


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: feed.provider)
def test_values_are_null_in_retractions_and_nowhere_else(feed) -> None:
    rows = FRAMES[feed.provider]
    for name in feed.values:
        assert rows.filter(pl.col(name).is_null() != pl.col("is_retraction")).height == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_key_has_two_revisions_at_one_arrival(provider: str) -> None:
    assert FRAMES[provider].select("site", "event_time", "arrival_time").is_duplicated().sum() == 0


def test_batches_are_the_observations_in_order_of_arrival() -> None:
    world = SimulatedWorld(days=2, sites=("dune",))
    batches = list(world.batches())
    arrivals = [batch.arrival_time for batch in batches]
    assert arrivals == sorted(arrivals)
    for feed in FEEDS:
        parts = [batch.observations for batch in batches if batch.provider == feed.provider]
        assert all(part["arrival_time"].n_unique() == 1 for part in parts)
        assert_frame_equal(pl.concat(parts), world.observations(feed.provider))


def test_the_camera_reads_cover_and_vector_from_the_same_picture() -> None:
    rows = FRAMES["sky_camera"]
    assert rows.schema["sky_vector"] == pl.Array(pl.Float32, 4)
    # Cloud pixels are 0.9 bright and sky pixels 0.2, so the mean brightness is 0.2 + 0.7 cover.
    brightness = rows["sky_vector"].arr.to_list().list.mean()
    assert ((brightness - (0.2 + 0.7 * rows["cloud_cover"])).abs() < 1e-6).all()


def test_the_target_follows_the_newest_sensor_values() -> None:
    noon = pl.col("event_time").dt.hour().is_between(9, 15)
    power = FRAMES["meter"].filter(noon).select("site", "event_time", "power_kw")
    sun = FRAMES["pyranometer"].sort("arrival_time").unique(["site", "event_time"], keep="last")
    correlation = {}
    for minutes in (20, 60):
        earlier = sun.select("site", pl.col("event_time") + timedelta(minutes=minutes), "irradiance").drop_nulls()
        both = power.join(earlier, on=["site", "event_time"])
        correlation[minutes] = both.select(pl.corr("power_kw", "irradiance")).item()
    # What is 20 minutes old tells much, what is an hour old clearly less: the room that a leak has.
    assert correlation[20] > 0.7
    assert correlation[20] > correlation[60] + 0.1


def test_clear_sky_is_nothing_at_night_and_most_at_noon() -> None:
    instants = [datetime(2026, 6, 21, hour, tzinfo=UTC) for hour in (0, 6, 12, 18)]
    frame = pl.DataFrame({"site": ["dune"] * 4, "at": instants})
    night, morning, noon, evening = WORLD.clear_sky(frame, "at")
    assert night == 0.0
    assert 0.0 < morning < noon < 1.0
    assert 0.0 < evening < noon


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"start": datetime(2026, 4, 1, 6, tzinfo=UTC)},
            "start must be a midnight in UTC, not 2026-04-01T06:00:00+00:00",
        ),
        ({"start": datetime(2026, 4, 1)}, "start must be a midnight in UTC, not 2026-04-01T00:00:00"),  # noqa: DTZ001 - naive is the point
        ({"days": 0}, "days must be at least 1, not 0"),
        ({"sites": ("dune", "moon")}, "unknown sites ['moon']; there are ['dune', 'harbour', 'ridge']"),
    ],
)
def test_an_impossible_world_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SimulatedWorld(**arguments)
