"""The worked example: a simulated solar fleet, two ways to make a training set, one score for both.

A world is simulated and written to a log. From the log come two training sets with the same features: one as a join on
event time makes it (every row of the past is there at once, in its final revision), one with what had arrived. A model
trained on each is scored on the same later rows, as they would have run live. The model is a ridge regression; it knows
where the sun will stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

import alignment as al
from ingestion import create_log
from ingestion.sources.simulated import FEEDS, SimulatedWorld
from serving.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from ingestion import ObservationLog

HORIZON: Final = timedelta(minutes=20)
TRAINING_DAYS: Final = 30
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


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Mean absolute errors in kW on the test days.

    Attributes:
        promised: Per training set, the error on test rows made the same way as its training rows.
        live: Per training set, the error on test rows as serving would have had them.
        persistence_live: The error of the newest known power, without a model.
        training_rows: Rows that each model was trained on.
        test_rows: Rows that were scored.
    """

    promised: Mapping[str, float]
    live: Mapping[str, float]
    persistence_live: float
    training_rows: int
    test_rows: int


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
    """A log's rows as a join on event time sees them: every revision is there from the event on, the last one counts."""
    return log.scan().with_columns(arrival_time="event_time").collect()


def spine(world: SimulatedWorld) -> pl.DataFrame:
    """Every ten minutes of daylight at every site, with `clear_sky` at the label's instant, which is known in advance."""
    rows = al.make_spine({"site": list(world.sites)}, world.start + timedelta(days=2), world.end, "10m")
    rows = rows.filter(pl.col("prediction_time").dt.hour().is_between(*_DAYLIGHT_HOURS))
    ahead = rows.with_columns(pl.col("prediction_time") + HORIZON)
    return rows.with_columns(world.clear_sky(ahead, "prediction_time"))


def training_sets(world: SimulatedWorld, logs: Mapping[str, ObservationLog]) -> dict[str, al.Dataset]:
    """The same rows, features and labels twice: `event time` ignores arrivals, `asknown` does not.

    Args:
        world: The world that filled the logs.
        logs: Provider to its log.

    Returns:
        Name to data set.
    """
    rows = spine(world)
    label = al.label("power_kw", horizon=HORIZON, observations=al.Observations(logs["meter"]))
    naive = {provider: as_if_always_known(log) for provider, log in logs.items()}
    return {
        "event time": al.build_dataset(rows, views(naive), label=label),
        "asknown": al.build_dataset(rows, views(logs), label=label),
    }


def score(world: SimulatedWorld, sets: Mapping[str, al.Dataset]) -> Scores:
    """Train on the first days, score on the rest.

    A row trains only if its label had arrived when the training days ended (R12), and if its features look at nothing that
    those of the tested rows look at; `alignment.split_at` cuts.

    Args:
        world: The world.
        sets: What `training_sets` returned.

    Returns:
        The scores.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "skill", "the worked example's model") from error

    live = sets["asknown"]
    split = al.split_at(live, world.start + timedelta(days=TRAINING_DAYS))
    served = split.test_frame(live)
    truth = served["label"].to_numpy()
    promised, delivered = {}, {}
    for name, dataset in sets.items():
        # Both sets have the same rows in the same order, so one split cuts both.
        train, test = split.train_frame(dataset), split.test_frame(dataset)
        model = make_pipeline(StandardScaler(), Ridge()).fit(_matrix(train), train["label"].to_numpy())
        promised[name] = _error(model.predict(_matrix(test)), truth)
        delivered[name] = _error(model.predict(_matrix(served)), truth)
    return Scores(
        promised=promised,
        live=delivered,
        persistence_live=_error(served["meter__power_kw"].fill_null(0.0).to_numpy(), truth),
        training_rows=len(split.train),
        test_rows=len(split.test),
    )


def _error(predicted: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> float:
    return float(np.abs(predicted - truth).mean())


def _matrix(frame: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Features as numbers: ages in minutes, null as 0."""
    features = frame.drop("site", "prediction_time", "provisional", *LABEL_COLUMNS)
    ages = [name for name, dtype in features.schema.items() if dtype == pl.Duration]
    return (
        features.with_columns(pl.col(name).dt.total_minutes() for name in ages)
        .cast(pl.Float64)
        .fill_nan(None)
        .fill_null(0.0)
        .to_numpy()
    )
