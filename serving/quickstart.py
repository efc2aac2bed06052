"""The worked example: a simulated solar fleet, and the same training set made in several ways.

A world is simulated and written to logs. From the logs come training sets with the same rows, features and labels: from
today's table, from a join on event time, from what had arrived, and the last one also under outages that never happened.
`quickstart_scores` trains a model on each.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

import alignment as al
from ingestion import create_log
from ingestion.sources.simulated import FEEDS, SimulatedWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ingestion import ObservationLog

HORIZON: Final = timedelta(minutes=20)
TRAINING_DAYS: Final = 30
DOWN_AFTER: Final = "30m"
LABEL_COLUMNS: Final = ("label", "label_event_time", "label_arrival_time")
_DAYLIGHT_HOURS: Final = (5, 18)
_FEATURES: Final[dict[str, list[Any]]] = {
    "sky_camera": [al.latest("cloud_cover"), al.window("cloud_cover", "mean", ["1h", "3h"]), al.event_age()],
    "pyranometer": [
        al.latest("irradiance"),
        al.window("irradiance", ["mean", "slope"], "1h"),
        al.lag("irradiance", "24h"),
        al.event_age(),
    ],
    "weather_mast": [al.latest("air_temp"), al.latest("wind_speed")],
    "inverter": [al.latest("dc_power_kw"), al.window("dc_power_kw", "mean", ["1h", "3h"])],
    "meter": [al.latest("power_kw"), al.window("power_kw", "mean", "1h"), al.lag("power_kw", "24h")],
}


def fill_logs(
    world: SimulatedWorld, root: Path, *, after_each: Callable[[str], object] = str
) -> dict[str, ObservationLog]:
    """Logs of all providers of a world, filled week by week.

    Args:
        world: The world.
        root: Folder of the logs; a log that is there already is not appended to twice.
        after_each: Called with the provider's name after each delivery.

    Returns:
        Provider to its log.
    """
    logs = {}
    for feed in FEEDS:
        log = create_log(root, feed.provider, entities=["site"], exist_ok=True)
        weeks = world.observations(feed.provider).with_columns(
            ((pl.col("arrival_time") - world.start).dt.total_days() // 7).alias("week")
        )
        for (week,), rows in weeks.partition_by("week", as_dict=True, include_key=False, maintain_order=True).items():
            log.append(rows, batch_id=f"{world.seed}-{week}")
            after_each(feed.provider)
        logs[feed.provider] = log
    return logs


def views(observations: Mapping[str, Any]) -> list[al.FeatureView]:
    """The views of the worked example.

    Args:
        observations: Provider to a log or a frame of its rows.

    Returns:
        One view per provider, named after it.
    """
    return [
        al.FeatureView(provider, ["site"], observations[provider], features) for provider, features in _FEATURES.items()
    ]


def as_if_always_known(log: ObservationLog) -> pl.DataFrame:
    """A log's rows as today's table has them: every revision is there from the event on, the last one counts."""
    return log.scan().with_columns(arrival_time="event_time").collect()


def as_first_published(log: ObservationLog) -> pl.DataFrame:
    """A log's rows as a join on event time over what was sent first: there from the event on, and never corrected."""
    return (
        log.scan()
        .collect()
        .unique([*log.entities, "event_time"], keep="first", maintain_order=True)
        .with_columns(arrival_time="event_time")
    )


def spine(world: SimulatedWorld) -> pl.DataFrame:
    """Every ten minutes of daylight at every site, with `clear_sky` at the label's instant, which is known in advance."""
    rows = al.make_spine({"site": list(world.sites)}, world.start + timedelta(days=2), world.end, "10m")
    rows = rows.filter(pl.col("prediction_time").dt.hour().is_between(*_DAYLIGHT_HOURS))
    ahead = rows.with_columns(pl.col("prediction_time") + HORIZON)
    return rows.with_columns(world.clear_sky(ahead, "prediction_time"))


def service(declared: Sequence[al.FeatureView]) -> al.FeatureService:
    """The model's features, and variants for when a provider is down: without each one, with the meter alone, with none.

    Args:
        declared: What `views` returned.

    Returns:
        A service whose providers are down after half an hour without a delivery.
    """
    columns = {view.name: view.column_names for view in declared}
    kept = {"full": list(columns)}
    kept |= {f"no_{name}": [other for other in columns if other != name] for name in columns if name != "meter"}
    kept |= {"meter_only": ["meter"]}
    variants = [
        al.Variant(variant, needs=needs, features=[name for view in needs for name in columns[view]])
        for variant, needs in kept.items()
    ]
    # Yesterday's power is there whatever is down now.
    variants.append(al.Variant("yesterday", needs=[], features=["meter__power_kw_lag_24h"]))
    everything = [name for names in columns.values() for name in names]
    return al.FeatureService("power", everything, views=declared, variants=variants, down_after=DOWN_AFTER)


def training_sets(world: SimulatedWorld, logs: Mapping[str, ObservationLog]) -> dict[str, al.Dataset]:
    """The same rows, features and labels three times.

    `naive` is made of today's table, which ignores arrivals and has all corrections; `event time` of what was sent first, as if it
    had been there at once; `asknown` of what had arrived.

    Args:
        world: The world that filled the logs.
        logs: Provider to its log.

    Returns:
        Name to data set.
    """
    rows, label = spine(world), _label(logs)
    naive = {provider: as_if_always_known(log) for provider, log in logs.items()}
    first = {provider: as_first_published(log) for provider, log in logs.items()}
    return {
        "naive": al.build_dataset(rows, views(naive), label=label),
        "event time": al.build_dataset(rows, views(first), label=label),
        "asknown": al.build_dataset(rows, views(logs), label=label),
    }


def under_outages(world: SimulatedWorld, logs: Mapping[str, ObservationLog]) -> list[al.Dataset]:
    """The rows of `asknown` again, under outages that never happened: an outage a day of each provider, twice drawn.

    Args:
        world: The world that filled the logs.
        logs: Provider to its log.

    Returns:
        Data sets with the rows and labels of `asknown`, and what its features would have been.
    """
    rows, label = spine(world), _label(logs)
    return [
        al.build_dataset(
            rows,
            views(logs),
            label=label,
            outages=al.draw_outages(list(logs), world.start, world.end, per_month=30, seed=seed),
        )
        for seed in range(2)
    ]


def _label(logs: Mapping[str, ObservationLog]) -> al.Label:
    return al.label("power_kw", horizon=HORIZON, observations=al.Observations(logs["meter"]))
