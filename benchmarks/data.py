"""Seeded observations and spines, written as Parquet and kept between runs.

Every entity sends an event about every ten minutes. A row arrives 20 to 40 minutes after its event; one in two
hundred arrives hours or days late. About a tenth of the rows are revisions, one in two hundred is a retraction, half of
those within half an hour, so that some withdraw the newest event. One prediction time in a hundred is the very
microsecond at which a row arrived.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

VALUES = ("temp", "humidity", "pressure", "wind", "load")
FORMAT = 5  # raise it whenever the same recipe gives other rows
MINUTE = 60_000_000
HOUR = 60 * MINUTE
STEP = 10 * MINUTE
END = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
CHUNK = 10_000_000  # rows made at a time
INSTANT = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Recipe:
    """What fixes a data set: the same recipe gives the same rows on every machine.

    Attributes:
        rows: Observation rows, revisions and retractions included.
        spine: Prediction times.
        entities: Number of entities; each has its own series.
        keys: `int` (one Int64), `string` (`meter-00042`) or `composite` (a string and an Int64).
        order: `arrival` (as a log holds them) or `shuffled`.
        heavy: `none`, or entity 0 has half of all rows and of the spine: `dense` in the same span of time, `long` at the
            same rhythm in a history that is as much longer.
        retractions: Share of the rows that are retractions.
        nulls: Share of the values that are null, beside those of retractions.
        seed: Seed of every draw.
    """

    rows: int
    spine: int
    entities: int = 1_000
    keys: Literal["int", "string", "composite"] = "int"
    order: Literal["arrival", "shuffled"] = "arrival"
    heavy: Literal["none", "dense", "long"] = "none"
    retractions: float = 0.005
    nulls: float = 0.01
    seed: int = 20_260_101

    def digest(self) -> str:
        """Twelve hex digits that name the recipe and the format."""
        return sha256(dumps([FORMAT, asdict(self)], sort_keys=True).encode()).hexdigest()[:12]


SIZES = {
    "S": Recipe(rows=100_000, spine=10_000),
    "M": Recipe(rows=1_000_000, spine=100_000),
    "L": Recipe(rows=10_000_000, spine=1_000_000),
    "XL": Recipe(rows=100_000_000, spine=1_000_000),
}


@dataclass(frozen=True)
class DataSet:
    """Where one recipe's rows are.

    Attributes:
        observations: A Parquet file, or a folder of them beyond 10M rows.
        spine: Entity columns, `prediction_time` and `row`, the row's number.
        checked_observations: All rows of the entities that are checked.
        checked_spine: The spine rows for which the exact answer is worked out.
        entities: Names of the entity columns.
    """

    observations: Path
    spine: Path
    checked_observations: Path
    checked_spine: Path
    entities: tuple[str, ...]


def data_set(recipe: Recipe, folder: Path) -> DataSet:
    """Files of `recipe`, made when they are not there.

    Up to a million rows everything is checked; beyond, 5,000 spine rows (fewer for very long histories, since the
    reference looks at every row of an entity before it picks) of 50 entities, the first and the last among them; of a heavy
    entity 20 spine rows.
    """
    home = folder / f"{recipe.rows}-{recipe.keys}-{recipe.order}-{recipe.digest()}"
    big = recipe.rows > CHUNK
    partly = recipe.rows > 1_000_000 or recipe.heavy != "none"
    observations = home / ("observations" if big else "observations.parquet")
    spine = home / "spine.parquet"
    made = DataSet(
        observations,
        spine,
        home / "checked_observations.parquet" if partly else observations,
        home / "checked_spine.parquet" if partly else spine,
        ("site", "device") if recipe.keys == "composite" else ("entity",),
    )
    if not home.exists():
        scratch = home.with_name(home.name + ".part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _write(recipe, scratch, big=big)
        if partly:
            _write_checked(recipe, scratch)
        scratch.rename(home)
    return made


def _write(recipe: Recipe, home: Path, *, big: bool) -> None:
    if big:
        (home / "observations").mkdir()
    for number, chunk in enumerate(_chunks(recipe)):
        target = f"observations/part-{number:04d}.parquet" if big else "observations.parquet"
        chunk.write_parquet(home / target, compression="zstd", compression_level=1, row_group_size=500_000)
    _named(_spine(recipe), recipe).write_parquet(home / "spine.parquet")


def _write_checked(recipe: Recipe, home: Path) -> None:
    """The part of both sides for which the reference answer is worked out."""
    draw = np.random.default_rng([recipe.seed, 2_000_003])
    entities = np.unique(np.concatenate([[0, recipe.entities - 1], draw.integers(0, recipe.entities, 48)]))
    keys = _named(pl.DataFrame({"entity": entities}), recipe)
    names = keys.columns
    files = home / ("observations" if (home / "observations").exists() else "observations.parquet")
    pl.scan_parquet(files).join(keys.lazy(), on=names, how="semi").sink_parquet(home / "checked_observations.parquet")
    rows = pl.read_parquet(home / "spine.parquet").join(keys, on=names, how="semi", maintain_order="left")
    if recipe.heavy == "none":
        wanted = min(5_000, 100_000_000 * recipe.entities // recipe.rows)
        rows = rows.sample(min(wanted, rows.height), seed=recipe.seed)
    else:
        first = pl.all_horizontal(pl.col(name) == keys[name][0] for name in names)
        rows = pl.concat([rows.filter(first)[:20], rows.filter(~first)[:5_000]])
    rows.sort("row").write_parquet(home / "checked_spine.parquet")


def _chunks(recipe: Recipe) -> Iterator[pl.DataFrame]:
    """Observation rows in order of arrival, a part of the history at a time; late rows are carried over."""
    parts = max(1, -(-recipe.rows // CHUNK))
    if parts > 1 and (recipe.heavy != "none" or recipe.order != "arrival"):
        raise ValueError(
            f"more than {CHUNK} rows are made in arrival order, evenly\n\nhint: heavy='none', order='arrival'"
        )
    carried: pl.DataFrame | None = None
    given = 0
    for part in range(parts):
        rows = _revisions(recipe, part, parts)
        if carried is not None:
            rows = pl.concat([carried, rows])
        rows = rows.sort("arrival_time", "event_time", "entity")
        if part + 1 < parts:
            events = _events_of(recipe)[0]
            border = END - events * STEP + events * (part + 1) // parts * STEP
            cut = int((rows["arrival_time"].to_physical() < border).sum())
            rows, carried = rows[:cut], rows[cut:]
        numbered = rows.with_columns(pl.int_range(given, given + rows.height, dtype=pl.Int64).alias("log_sequence"))
        given += rows.height
        if recipe.order == "shuffled":
            numbered = numbered.sample(fraction=1.0, shuffle=True, seed=recipe.seed)
        yield _named(numbered, recipe).rechunk()


def _counts(recipe: Recipe) -> tuple[int, int, int]:
    """How many rows are first arrivals, revisions and retractions."""
    revised, retracted = recipe.rows // 10, round(recipe.rows * recipe.retractions)
    return recipe.rows - revised - retracted, revised, retracted


def _events_of(recipe: Recipe) -> np.ndarray:
    """Events per entity; the sum is the number of first arrivals."""
    first = _counts(recipe)[0]
    events = np.full(recipe.entities, first // recipe.entities, dtype=np.int64)
    if recipe.heavy != "none":
        events[:] = first // 2 // (recipe.entities - 1)
        events[0] = first // 2
    events[: first - int(events.sum())] += 1
    return events


def _steps_of(recipe: Recipe, events: np.ndarray) -> np.ndarray:
    """Microseconds between events, per entity."""
    steps = np.full(recipe.entities, STEP, dtype=np.int64)
    if recipe.heavy == "dense":
        steps[0] = STEP * int(events[1]) // int(events[0])
    return steps


def _revisions(recipe: Recipe, part: int, parts: int) -> pl.DataFrame:
    """First arrivals, revisions and retractions of one part of the history, unordered."""
    draw = np.random.default_rng([recipe.seed, part])
    events = _events_of(recipe)
    steps = _steps_of(recipe, events)
    low, high = events * part // parts, events * (part + 1) // parts
    taken = high - low
    entity = np.repeat(np.arange(recipe.entities), taken)
    number = np.arange(entity.size) - np.repeat(np.cumsum(taken) - taken, taken) + low[entity]
    wobble = draw.integers(0, 121, entity.size) * (steps[entity] // 1_200)
    event = END - (events[entity] - number) * steps[entity] + (entity * 7 % 61) * (steps[entity] // 600) + wobble
    arrival = event + draw.integers(20 * MINUTE, 40 * MINUTE, entity.size)
    late = draw.random(entity.size) < 0.005
    arrival[late] += (2 * HOUR * 36.0 ** draw.random(int(late.sum()))).astype(np.int64)

    _, revised, retracted = (count * (part + 1) // parts - count * part // parts for count in _counts(recipe))
    again = draw.integers(0, entity.size, revised)
    gone = draw.choice(entity.size, retracted, replace=False)
    soon = draw.random(retracted) < 0.5
    wait = np.where(
        soon, draw.integers(MINUTE, 30 * MINUTE, retracted), draw.integers(30 * MINUTE, 24 * HOUR, retracted)
    )
    which = np.concatenate([np.arange(entity.size), again, gone])
    arrived = np.concatenate([arrival, arrival[again] + draw.integers(HOUR, 30 * HOUR, revised), arrival[gone] + wait])
    withdrawn = np.zeros(which.size, dtype=bool)
    withdrawn[which.size - retracted :] = True
    return pl.DataFrame(
        {
            "entity": entity[which],
            "event_time": pl.Series(event[which]).cast(INSTANT),
            "arrival_time": pl.Series(arrived).cast(INSTANT),
            "is_retraction": withdrawn,
            **_values(draw, event[which], withdrawn, recipe.nulls),
        }
    )


def _values(draw: np.random.Generator, event: np.ndarray, withdrawn: np.ndarray, nulls: float) -> dict[str, pl.Series]:
    """Five Float64 columns with a daily swing; a share of the values is null, and all of a retraction's are."""
    swing = np.sin(event * (2 * np.pi / (24 * HOUR)))
    values = {}
    for place, name in enumerate(VALUES):
        column = np.round(20.0 * (place + 1) + 8.0 * swing + draw.standard_normal(event.size), 2)
        absent = withdrawn | (draw.random(event.size) < nulls)
        values[name] = pl.select(pl.when(pl.Series(~absent)).then(pl.Series(column)).alias(name)).to_series()
    return values


def _spine(recipe: Recipe) -> pl.DataFrame:
    """Spine rows in no order: an entity, a prediction time and the row's number."""
    draw = np.random.default_rng([recipe.seed, 1_000_003])
    events = _events_of(recipe)
    steps = _steps_of(recipe, events)
    entity = draw.integers(0, recipe.entities, recipe.spine)
    if recipe.heavy != "none":
        entity[draw.random(recipe.spine) < 0.5] = 0
    span = (events * steps)[entity]
    asked = END - (span * 0.95 * draw.random(recipe.spine)).astype(np.int64)
    rows = pl.DataFrame({"entity": entity, "prediction_time": pl.Series(asked).cast(INSTANT)})
    if recipe.rows <= CHUNK:
        rows = _some_at_arrivals(rows, recipe, draw)
    return rows.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))


def _some_at_arrivals(rows: pl.DataFrame, recipe: Recipe, draw: np.random.Generator) -> pl.DataFrame:
    """Every hundredth spine row is asked at the very instant at which a row of its entity arrives."""
    exact = _revisions(recipe, 0, 1).select("entity", prediction_time="arrival_time")
    picked = exact[np.sort(draw.integers(0, exact.height, rows.height // 100))]
    return pl.concat([rows[: rows.height - picked.height], picked]).sample(fraction=1.0, shuffle=True, seed=recipe.seed)


def _named(rows: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Rows with the entity numbers spelled as the recipe asks."""
    number = pl.col("entity")
    if recipe.keys == "string":
        return rows.with_columns("meter-" + number.cast(pl.String).str.zfill(5).alias("entity"))
    if recipe.keys == "composite":
        site = ("site-" + (number // 20).cast(pl.String).str.zfill(3)).alias("site")
        return rows.select(site, (number % 20).alias("device"), pl.exclude("entity"))
    return rows
