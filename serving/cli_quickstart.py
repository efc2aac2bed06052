"""`asknown quickstart`: the worked example, from a simulated world to a table and a picture."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

from ingestion.sources.simulated import FEEDS, SimulatedWorld
from serving import pictures, render
from serving import quickstart as example
from serving import quickstart_scores as scoring
from serving.errors import MissingExtraError
from serving.files import check_picture

if TYPE_CHECKING:
    from ingestion import ObservationLog


def quickstart(
    into: Annotated[Path, typer.Option(help="Folder for the logs and the picture.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 5,
    days: Annotated[int, typer.Option(help="Days of the world; the first 30 train the models.", min=35, max=400)] = 42,
    picture: Annotated[
        Path | None, typer.Option(help="Where the picture goes (.png, .svg, .pdf); in the folder by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show on a simulated solar fleet what training sets promise and what they deliver.

    A sky camera, three sensors and a meter report every 10 minutes, 20 to 40
    minutes late, with outages and corrections. A model predicts the power 20
    minutes ahead. It is trained on rows made in several ways: from today's table,
    by a join on event time, by asknown, and by asknown under drawn outages; and
    once per variant of a service that does without the providers that are down.
    All are scored on what a replay says serving would have had.
    """
    check_picture(picture)
    begin = time.monotonic()
    world = SimulatedWorld(seed=seed, days=days)
    with render.progress("log", total=None) as bar:
        logs = example.fill_logs(
            world, into / "logs" / f"seed-{seed}", after_each=lambda _: bar.advance(bar.task_ids[0])
        )
    render.say(f"1. {len(FEEDS)} providers, {days} days -> observation logs in {into / 'logs'}")
    sets = example.training_sets(world, logs)
    more = example.under_outages(world, logs)
    scores = scoring.score(world, sets, logs=logs, more=more)
    render.say(
        f"2. logs -> training sets of {scores.training_rows} rows, made in {len(sets)} ways, and under drawn outages"
    )
    drawn = draw(logs["pyranometer"], picture or into / "what_was_known_when.png")
    render.say(f"3. models on each, scored on {scores.test_rows} later rows as they would have run live")
    render.say(f"4. what was known when -> {drawn}   ({time.monotonic() - begin:.0f} s)\n")
    if as_json:
        render.as_json(scores.to_dict() | {"picture": str(drawn)})
        return
    render.table(_rows(scores), title="Mean absolute error of the predicted power, kW (less is better)")
    for line in _said(scores):
        render.say(line)


def draw(log: ObservationLog, path: Path) -> Path:
    """Draw what was known of one site's irradiance at one noon.

    Args:
        log: The pyranometer's log.
        path: Where to.

    Returns:
        The path.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    rows = log.scan().filter(pl.col("irradiance").is_not_null()).collect()
    site, noon = worth_seeing(rows)
    picture = pictures.Picture(
        observations=rows.filter(pl.col("site") == site),
        value="irradiance",
        unit="W/m²",
        prediction_time=noon,
        horizon=example.HORIZON,
        title=f"What was known when: the pyranometer at the site '{site}'",
    )
    try:
        return pictures.write(pictures.what_was_known_when(picture), path)
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "the picture") from error


def worth_seeing(rows: pl.DataFrame) -> tuple[str, datetime]:
    """The site and noon around which most happened: a catch-up after an outage, and corrections the next morning.

    Args:
        rows: `site`, `event_time`, `arrival_time`.

    Returns:
        The site, and noon (UTC) of the day; the earliest of equals.
    """
    day = pl.col("event_time").dt.date()
    hour = pl.col("event_time").dt.hour()
    morning = rows.filter(hour.is_between(8, 12))
    corrected = morning.group_by("site", day.alias("day")).agg(
        (pl.col("arrival_time").dt.date() > day).any().alias("corrected")
    )
    caught_up = (
        morning.filter(pl.col("arrival_time").dt.hour().is_between(8, 10), pl.col("arrival_time").dt.date() == day)
        .group_by("site", day.alias("day"), "arrival_time")
        .len("batch")
        .group_by("site", "day")
        .agg(pl.col("batch").max())
    )
    best = (
        corrected.join(caught_up, on=["site", "day"], how="left")
        .sort("corrected", pl.col("batch").fill_null(0), "day", "site", descending=[True, True, False, False])
        .row(0, named=True)
    )
    return best["site"], datetime.combine(best["day"], datetime.min.time(), tzinfo=UTC).replace(hour=12)


_NAMES = {
    "naive": "today's table (naive)",
    "event time": "a join on event time",
    "asknown": "asknown",
    "asknown + outages": "asknown, also under outages",
    "router": "asknown, a model per variant",
}


def _rows(scores: scoring.Scores) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "training rows made by": _NAMES[name],
            "promised": round(score.offline),
            "delivered live": round(score.live),
            "gap": _span(score.gap, score.gap_low, score.gap_high),
            "in drawn outages": None if score.in_drawn_outages is None else round(score.in_drawn_outages),
        }
        for name, score in scores.methods.items()
    ]
    newest = {
        "training rows made by": "no model: the newest known value",
        "promised": None,
        "delivered live": round(scores.persistence_live),
        "gap": None,
        "in drawn outages": None,
    }
    return [*rows, newest]


def _said(scores: scoring.Scores) -> list[str]:
    """The table in words."""
    naive, asknown, augmented = (scores.methods[name] for name in ("naive", "asknown", "asknown + outages"))
    gain = augmented.in_drawn_outages_less_asknown
    bounds = augmented.in_drawn_outages_less_asknown_low, augmented.in_drawn_outages_less_asknown_high
    return [
        "",
        f"Trained on today's table, the model promises {naive.offline:.0f} kW and delivers {naive.live:.0f} kW: it leans on values that arrive",
        f"20 to 40 minutes later, and on their corrections. Trained on rows made by asknown, it delivers the {asknown.live:.0f} kW that it promised.",
        f"The gap is delivered less promised on {scores.test_days} days; in brackets 95 %, days drawn again and again. In drawn outages: an outage a day",
        f"of each provider that never happened, at the {scores.drawn_outage_rows:,} of {scores.test_rows:,} rows at which one is down. Training under others like them",
        "" if gain is None else f"changes the error there by {gain:+.1f} kW {_bounds(*bounds)}.",
    ]


def _span(value: float, low: float | None, high: float | None) -> str:
    return f"{_signed(value)} {_bounds(low, high)}".rstrip()


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{round(value):+d}" if round(value) else "0"
