"""A small solar fleet that does not exist: five feeds with real delays, outages, corrections and retractions.

The world of the worked example. Clouds drift over a few sites, a sky camera and three sensors report about every ten
minutes, and what they report arrives 20 to 40 minutes late. A provider that was down catches up in one batch. Readings of
a badly calibrated day are corrected the next morning, some are withdrawn. The meter's `power_kw` is the target: it follows
the clouds of the moment, so a model that was trained on fresher values than it will ever get learns the wrong weights.

Everything follows from the seed. Draws are keyed by (seed, provider, site, day), so a longer world begins with the same
days as a shorter one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Instant = np.datetime64[datetime]

STEP: Final = timedelta(minutes=10)
STEPS_PER_DAY: Final = 144
SITES: Final = ("dune", "harbour", "ridge")
CAPACITY_KW: Final = 1000.0
_LATITUDE: Final = {"dune": 52.0, "harbour": 53.5, "ridge": 51.0}
_CLOUD_MEMORY: Final = np.exp(-10.0 / 55.0)  # clouds forget themselves with a time constant of 55 minutes
_PIXELS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Feed:
    """How one provider of the simulated world behaves.

    Args:
        provider: Name of the provider, and of its log.
        values: Its value columns.
        delay_minutes: Least and greatest usual delay, in minutes.
        outages_per_month: How many outages to expect in 30 days; each lasts 1 to 7 hours.
        miscalibrated: Share of days whose readings are off by up to 35 % until they are corrected the next morning.
        withdrawn: Share of readings that are withdrawn the next morning.
    """

    provider: str
    values: tuple[str, ...]
    delay_minutes: tuple[float, float]
    outages_per_month: float
    miscalibrated: float = 0.0
    withdrawn: float = 0.0


FEEDS: Final = (
    Feed(
        provider="sky_camera",
        values=("cloud_cover", "sky_vector"),
        delay_minutes=(24.0, 40.0),
        outages_per_month=6.0,
    ),
    Feed(
        provider="pyranometer",
        values=("irradiance",),
        delay_minutes=(20.0, 34.0),
        outages_per_month=6.0,
        miscalibrated=0.35,
        withdrawn=0.004,
    ),
    Feed(
        provider="weather_mast",
        values=("air_temp", "wind_speed"),
        delay_minutes=(22.0, 38.0),
        outages_per_month=4.0,
        miscalibrated=0.1,
    ),
    Feed(
        provider="inverter",
        values=("dc_power_kw",),
        delay_minutes=(20.0, 30.0),
        outages_per_month=6.0,
        miscalibrated=0.25,
        withdrawn=0.002,
    ),
    Feed(provider="meter", values=("power_kw",), delay_minutes=(20.0, 30.0), outages_per_month=1.0),
)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one provider delivered at one instant.

    Attributes:
        provider: Name of the provider.
        arrival_time: The instant at which all rows became visible (UTC).
        observations: The rows: `site`, `event_time`, `arrival_time`, the provider's values, `is_retraction`.
    """

    provider: str
    arrival_time: datetime
    observations: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class SimulatedWorld:
    """A seeded world of some days and sites.

    Args:
        seed: Everything that is drawn follows from it.
        start: First midnight (UTC) of the world.
        days: How many days of events.
        sites: Some of `SITES`.

    Raises:
        ValueError: If `start` is not a midnight in UTC, `days` is less than 1 or a site is unknown.

    Example:
        >>> world = SimulatedWorld(seed=5, days=2, sites=("dune",))
        >>> frame = world.observations("pyranometer")
        >>> frame.columns
        ['site', 'event_time', 'arrival_time', 'irradiance', 'is_retraction']
        >>> bool((frame["arrival_time"] > frame["event_time"]).all())
        True
    """

    seed: int = 5
    start: datetime = datetime(2025, 4, 1, tzinfo=UTC)
    days: int = 42
    sites: tuple[str, ...] = SITES

    def __post_init__(self) -> None:
        """Refuse a world that could not be keyed by days.

        Raises:
            ValueError: If an argument is out of its range.
        """
        if self.start.utcoffset() != timedelta(0) or self.start.time() != datetime.min.time():
            raise ValueError(f"start must be a midnight in UTC, not {self.start.isoformat()}")
        if self.days < 1:
            raise ValueError(f"days must be at least 1, not {self.days}")
        if unknown := sorted(set(self.sites) - set(SITES)):
            raise ValueError(f"unknown sites {unknown}; there are {list(SITES)}")

    @property
    def end(self) -> datetime:
        """The first instant after the last event's day; later arrivals exist."""
        return self.start + timedelta(days=self.days)

    def observations(self, provider: str) -> pl.DataFrame:
        """Everything that one provider delivers, in order of arrival.

        Args:
            provider: Name of a feed in `FEEDS`.

        Returns:
            One row per revision: `site` (String), `event_time`, `arrival_time` (Datetime us UTC), the provider's values
            (Float64; `sky_vector` is an Array of 4 Float32), `is_retraction` (Boolean; the values of such a row are null).

        Raises:
            KeyError: If there is no such provider.
        """
        feed = {feed.provider: feed for feed in FEEDS}[provider]
        parts = [self._first_arrivals(feed, site) for site in self.sites]
        revisions = [self._next_morning(feed, site, part) for site, part in zip(self.sites, parts, strict=True)]
        raw = [self._miscalibrate(feed, site, part) for site, part in zip(self.sites, parts, strict=True)]
        return pl.concat([*raw, *revisions]).sort("arrival_time", "event_time", "site", maintain_order=True)

    def batches(self) -> Iterator[Batch]:
        """Every delivery of every provider, in order of arrival, as a job that listens to all of them would get them."""
        frames = {feed.provider: self.observations(feed.provider) for feed in FEEDS}
        arrivals = pl.concat(
            frame.select("arrival_time", pl.lit(provider).alias("provider")).unique()
            for provider, frame in frames.items()
        ).sort("arrival_time", "provider")
        groups = {
            provider: frame.partition_by("arrival_time", as_dict=True, maintain_order=True)
            for provider, frame in frames.items()
        }
        for arrival_time, provider in arrivals.iter_rows():
            yield Batch(provider=provider, arrival_time=arrival_time, observations=groups[provider][(arrival_time,)])

    def clear_sky(self, frame: pl.DataFrame, instant: str) -> pl.Series:
        """How much of a site's capacity a cloudless sky would give, 0 to 1: known in advance, from the sun's place alone.

        Args:
            frame: Rows with `site` and an instant.
            instant: Name of the instant's column (Datetime UTC).

        Returns:
            `clear_sky` (Float64), one value per row.
        """
        micros = frame[instant].dt.epoch("us").to_numpy().astype(np.float64)
        days = micros / 86_400e6
        latitude = frame["site"].replace_strict(_LATITUDE, return_dtype=pl.Float64).to_numpy()
        return pl.Series("clear_sky", _clear_sky(days, latitude))

    # ---- drawing ------------------------------------------------------------------------------------------------------

    def _rng(self, *key: str | int) -> np.random.Generator:
        """A generator of its own for (seed, *key), whatever else was drawn."""
        words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
        return np.random.default_rng([self.seed, *words])

    def _ordinal(self, day: int) -> int:
        return (self.start + timedelta(days=day)).toordinal()

    def _day_draws(self, name: str, site: str, width: int = STEPS_PER_DAY) -> Floats:
        """Standard normal draws, `width` a day, keyed by day."""
        return np.concatenate(
            [self._rng(name, site, self._ordinal(day)).standard_normal(width) for day in range(self.days)]
        )

    # ---- the weather --------------------------------------------------------------------------------------------------

    def _clouds(self, site: str) -> Floats:
        """Cloud cover, 0 to 1, every ten minutes: each day has a mood, around which clouds come and go."""
        mood = np.repeat(1.1 * self._day_draws("mood", "all sites", width=1), STEPS_PER_DAY)
        shared, own = self._day_draws("clouds", "all sites"), self._day_draws("clouds", site)
        shocks = 0.5 * shared + np.sqrt(0.75) * own
        scale = 2.3 * np.sqrt(1.0 - _CLOUD_MEMORY**2)
        state = np.empty_like(mood)
        level = 0.0
        for i, shock in enumerate(shocks):
            level = _CLOUD_MEMORY * level + scale * shock
            state[i] = level
        return 1.0 / (1.0 + np.exp(-(mood + state)))

    def _truth(self, site: str) -> dict[str, Floats]:
        """What really happened at a site, every ten minutes."""
        steps = np.arange(self.days * STEPS_PER_DAY, dtype=np.float64)
        days = self.start.timestamp() / 86_400.0 + steps / STEPS_PER_DAY
        clear = _clear_sky(days, np.full(steps.size, _LATITUDE[site]))
        cover = self._clouds(site)
        through = 1.0 - 0.85 * cover
        day_temp = np.repeat(3.0 * self._day_draws("warmth", "all sites", width=1), STEPS_PER_DAY)
        air_temp = 11.0 + day_temp + 9.0 * _later(clear, 9) * (0.6 + 0.4 * through)
        wind = np.abs(4.0 + 1.5 * _later(cover, 6) + 0.6 * self._day_draws("wind", site))
        dc_power = CAPACITY_KW * clear * through * (1.0 - 0.004 * (air_temp - 15.0))
        power = np.maximum(0.0, 0.96 * dc_power + 4.0 * self._day_draws("load", site) * (clear > 0))
        return {
            "cloud_cover": cover,
            "irradiance": 1000.0 * clear * through,
            "air_temp": air_temp,
            "wind_speed": wind,
            "dc_power_kw": dc_power,
            "power_kw": power,
        }

    # ---- what is delivered, and when ----------------------------------------------------------------------------------

    def _first_arrivals(self, feed: Feed, site: str) -> pl.DataFrame:
        """The true readings with the instants at which they first arrive."""
        truth = self._truth(site)
        count = self.days * STEPS_PER_DAY
        start = np.datetime64(self.start.replace(tzinfo=None), "us")
        events = start + np.arange(count) * np.timedelta64(10, "m")
        low, high = feed.delay_minutes
        draws = [self._rng(feed.provider, "delay", site, self._ordinal(day)) for day in range(self.days)]
        delay = np.concatenate([rng.triangular(low, low + 0.3 * (high - low), high, STEPS_PER_DAY) for rng in draws])
        arrivals = events + (delay * 60e6).astype("timedelta64[us]")
        for begin, end in self._outages(feed):
            arrivals[(arrivals >= begin) & (arrivals < end)] = end
        # Deliveries of one provider do not overtake each other.
        arrivals = np.maximum.accumulate(arrivals)
        columns: dict[str, pl.Series] = {}
        for name in feed.values:
            if name == "sky_vector":
                columns["cloud_cover"], columns[name] = self._photographs(site, truth["cloud_cover"])
            elif name != "cloud_cover":
                columns[name] = pl.Series(truth[name])
        return pl.DataFrame(
            {"site": pl.repeat(site, count, eager=True), "event_time": events, "arrival_time": arrivals, **columns}
        ).with_columns(
            pl.col("event_time", "arrival_time").dt.replace_time_zone("UTC"), pl.lit(value=False).alias("is_retraction")
        )

    def _outages(self, feed: Feed) -> list[tuple[Instant, Instant]]:
        """When the provider delivered nothing; all sites fail together, as one endpoint would."""
        outages: list[tuple[Instant, Instant]] = []
        for day in range(self.days):
            rng = self._rng(feed.provider, "outage", self._ordinal(day))
            happens, hour, hours = rng.random(), rng.uniform(0.0, 24.0), rng.uniform(1.0, 7.0)
            if happens < feed.outages_per_month / 30.0:
                begin = np.datetime64(self.start.replace(tzinfo=None), "us") + np.timedelta64(
                    int((day * 24 + hour) * 3600e6), "us"
                )
                outages.append((begin, begin + np.timedelta64(int(hours * 3600e6), "us")))
        return outages

    def _photographs(self, site: str, cover: Floats) -> tuple[pl.Series, pl.Series]:
        """Cloud cover and a vector, both read from small grey pictures of the sky.

        A pixel is cloud (bright) or sky (dark) by chance, with the true cover as the chance. The cover that the camera
        reports is the share of bright pixels; the vector is the mean brightness of the four quarters.
        """
        chance = np.concatenate(
            [
                self._rng("sky_camera", "pixels", site, self._ordinal(day)).random((STEPS_PER_DAY, _PIXELS, _PIXELS))
                for day in range(self.days)
            ]
        )
        pictures = np.where(chance < cover[:, None, None], 0.9, 0.2)
        share = (pictures > 0.5).mean(axis=(1, 2))
        half = _PIXELS // 2
        quarters = pictures.reshape(-1, 2, half, 2, half).mean(axis=(2, 4)).reshape(-1, 4).astype(np.float32)
        return pl.Series(share), pl.Series(quarters, dtype=pl.Array(pl.Float32, 4))

    def _bad_days(self, feed: Feed, site: str) -> dict[int, float]:
        """The factor by which the readings of a day are off until they are corrected, for the days that are."""
        factors = {}
        for day in range(self.days):
            rng = self._rng(feed.provider, "calibration", site, self._ordinal(day))
            happens, factor = rng.random(), 1.0 + rng.choice([-1.0, 1.0]) * rng.uniform(0.12, 0.35)
            if happens < feed.miscalibrated:
                factors[day] = float(factor)
        return factors

    def _miscalibrate(self, feed: Feed, site: str, truth: pl.DataFrame) -> pl.DataFrame:
        """The readings as they were first sent."""
        factors = np.ones(self.days)
        for day, factor in self._bad_days(feed, site).items():
            factors[day] = factor
        per_reading = pl.Series(np.repeat(factors, STEPS_PER_DAY))
        return truth.with_columns(pl.col(name) * per_reading for name in feed.values if feed.miscalibrated)

    def _next_morning(self, feed: Feed, site: str, truth: pl.DataFrame) -> pl.DataFrame:
        """Corrections and withdrawals: one delivery shortly after 06:00 UTC on the day after."""
        parts = [truth.clear()]
        bad_days = self._bad_days(feed, site)
        for day in range(self.days):
            rng = self._rng(feed.provider, "review", site, self._ordinal(day))
            at = self.start + timedelta(days=day + 1, hours=6, seconds=int(rng.integers(0, 1800)))
            withdrawn = pl.Series(rng.random(STEPS_PER_DAY) < feed.withdrawn)
            # A reading that itself arrives later than the review is left as it is.
            rows = truth.slice(day * STEPS_PER_DAY, STEPS_PER_DAY).with_columns(withdrawn.alias("is_retraction"))
            rows = rows.filter(pl.col("arrival_time") < at)
            if day not in bad_days:
                rows = rows.filter("is_retraction")
            parts.append(
                rows.with_columns(
                    pl.lit(at).dt.cast_time_unit("us").alias("arrival_time"),
                    *(pl.when(~pl.col("is_retraction")).then(pl.col(name)).alias(name) for name in feed.values),
                )
            )
        return pl.concat(parts)


def _later(values: Floats, steps: int) -> Floats:
    """The values moved later by some steps, the first one held before them."""
    return np.concatenate([np.full(steps, values[0]), values[:-steps]])


def _clear_sky(days: Floats, latitude: Floats) -> Floats:
    """The sun's height over the horizon as a share of a panel's capacity, for days since 1970 (UTC) and degrees north."""
    declination = np.radians(23.44) * np.sin(2.0 * np.pi * (days - 80.0) / 365.25)
    hour_angle = 2.0 * np.pi * (days % 1.0 - 0.5)
    place = np.radians(latitude)
    height = np.sin(place) * np.sin(declination) + np.cos(place) * np.cos(declination) * np.cos(hour_angle)
    return np.asarray(np.maximum(0.0, height) ** 1.15, dtype=np.float64)
