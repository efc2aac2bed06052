"""Observations in several Parquet files, so that every reader can share the work, and a spine; kept between runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.data import END, HOUR, INSTANT, MINUTE, Recipe, data_set

FILE_ROWS = 1_000_000


@dataclass(frozen=True)
class Files:
    """Where the rows are.

    Attributes:
        observations: A folder of Parquet files.
        spine: A Parquet file: `row`, `entity`, `prediction_time`.
    """

    observations: Path
    spine: Path


def even(rows: int, spine: int, entities: int, folder: Path) -> Files:
    """The suite's own data set of that size, in files of a million rows."""
    recipe = Recipe(rows=rows, spine=spine, entities=entities)
    made = data_set(recipe, folder)
    home = made.spine.parent / "files"
    if not home.exists():
        part = _scratch(home)
        frame = pl.read_parquet(made.observations / "*.parquet" if made.observations.is_dir() else made.observations)
        for number, piece in enumerate(frame.iter_slices(FILE_ROWS)):
            piece.write_parquet(part / f"{number:04d}.parquet", compression="zstd")
        part.rename(home)
    return Files(home, made.spine)


def skewed(rows: int, spine: int, entities: int, folder: Path) -> Files:
    """Entity 0 has half of the rows, and is asked about in half of the spine; the others have an event every ten minutes."""
    home = folder / f"skewed-{rows}-{spine}-{entities}"
    if not home.exists():
        part = _scratch(home)
        (part / "observations").mkdir()
        span = rows // 2 // (entities - 1) * 10 * MINUTE
        files = -(-rows // FILE_ROWS)
        for number in range(files):
            draw = np.random.default_rng([7, number])
            piece = _skewed_rows(draw, FILE_ROWS, entities, END - span + span * number // files, span // files)
            sequence = pl.int_range(number * FILE_ROWS, (number + 1) * FILE_ROWS, dtype=pl.Int64).alias("log_sequence")
            piece.with_columns(sequence).write_parquet(
                part / "observations" / f"{number:04d}.parquet", compression="zstd"
            )
        draw = np.random.default_rng(8)
        entity = np.where(draw.random(spine) < 0.5, 0, draw.integers(1, entities, spine))
        t = END - (span * 0.95 * draw.random(spine)).astype(np.int64)
        asked = pl.DataFrame({"entity": entity, "prediction_time": pl.Series(t).cast(INSTANT)})
        asked.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64)).write_parquet(part / "spine.parquet")
        part.rename(home)
    return Files(home / "observations", home / "spine.parquet")


def _skewed_rows(draw: np.random.Generator, rows: int, entities: int, begin: int, span: int) -> pl.DataFrame:
    """Rows of a stretch of time in order of arrival: a tenth are revisions, one in two hundred is a retraction."""
    first = rows - rows // 10 - rows // 200
    entity = np.where(draw.random(first) < 0.5, 0, draw.integers(1, entities, first))
    event = begin + (draw.random(first) * span).astype(np.int64)
    arrival = event + draw.integers(20 * MINUTE, 40 * MINUTE, first)
    again = draw.integers(0, first, rows - first)
    later = arrival[again] + draw.integers(HOUR, 30 * HOUR, rows - first)
    which = np.concatenate([np.arange(first), again])
    withdrawn = np.arange(rows) >= rows - rows // 200
    values = {
        name: pl.select(
            pl.when(pl.Series(~withdrawn)).then(pl.Series(np.round(draw.standard_normal(rows), 2)))
        ).to_series()
        for name in ("temp", "load")
    }
    frame = pl.DataFrame(
        {
            "entity": entity[which],
            "event_time": pl.Series(event[which]).cast(INSTANT),
            "arrival_time": pl.Series(np.concatenate([arrival, later])).cast(INSTANT),
            "is_retraction": withdrawn,
            **values,
        }
    )
    return frame.sort("arrival_time", "event_time", "entity")


def _scratch(home: Path) -> Path:
    part = home.with_name(home.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part
