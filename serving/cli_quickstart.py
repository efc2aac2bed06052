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
    """Show on a simulated solar fleet what a join on event time promises and what it delivers.

    A sky camera, three sensors and a meter report every 10 minutes, 20 to 40
    minutes late, with outages and corrections. A model predicts the power 20
    minutes ahead. It is trained twice, on rows made by a join on event time and
    on rows made by asknown, and scored both times on what serving would have had.
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
    scores = example.score(world, sets)
    render.say(f"2. logs -> two training sets of {scores.training_rows} rows, one per way to join")
    drawn = draw(logs["pyranometer"], picture or into / "what_was_known_when.png")
    render.say(f"3. a model on each, scored on {scores.test_rows} later rows as they would have run live")
    render.say(f"4. what was known when -> {drawn}   ({time.monotonic() - begin:.0f} s)\n")
    if as_json:
        render.as_json(_as_dict(scores, drawn))
        return
    render.table(_rows(scores), title="Mean absolute error of the predicted power, kW (less is better)")
    promised, delivered = scores.promised["event time"], scores.live["event time"]
    render.say(
        f"\nTrained on rows joined by event time, the model promises {promised:.0f} kW and delivers {delivered:.0f} kW: it leans on "
        f"values that\narrive 20 to 40 minutes later. Trained on rows made by asknown, it delivers what it promised."
    )


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


def _rows(scores: example.Scores) -> list[dict[str, Any]]:
    names = {"event time": "a join on event time", "asknown": "asknown"}
    rows: list[dict[str, Any]] = [
        {
            "training rows made by": names[name],
            "promised in the notebook": round(scores.promised[name]),
            "delivered live": round(scores.live[name]),
        }
        for name in scores.promised
    ]
    newest = {
        "training rows made by": "no model: the newest known value",
        "promised in the notebook": None,
        "delivered live": round(scores.persistence_live),
    }
    return [*rows, newest]


def _as_dict(scores: example.Scores, picture: Path) -> dict[str, Any]:
    return {
        "unit": "kW",
        "promised": dict(scores.promised),
        "live": dict(scores.live),
        "persistence_live": scores.persistence_live,
        "training_rows": scores.training_rows,
        "test_rows": scores.test_rows,
        "picture": str(picture),
    }
