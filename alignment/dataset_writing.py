"""A data set's rows on their way into a folder, counted as they pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from alignment.errors import DatasetError
from alignment.hashing import file_digests, frame_hash, hash_of
from alignment.recipe import Content, Recipe, file_sha256
from alignment.spine import check_spine
from alignment.views import FeatureView
from alignment.wallclock import Instants

DATA, MANIFEST = "data.parquet", "manifest.json"
ROW_GROUP = 1 << 17
"""Rows of a row group, always: so a file's bytes do not tell how its rows were made."""


@dataclass
class Tally:
    """What a data set's rows tell, stretch by stretch.

    Attributes:
        recipe: What they are.
        until_us: Rows at later prediction times are provisional; None if none is.
        rows: How many there were.
        nulls: Per answer how many values are null.
        told: Per feature with fallbacks how many rows each answered.
        provisional_rows: How many rows may still change.
        spine_columns: The columns that came with the spine.
    """

    recipe: Recipe
    until_us: int | None
    rows: int = 0
    nulls: Counter[str] = field(default_factory=Counter)
    told: dict[str, Counter[str]] = field(default_factory=dict)
    provisional_rows: int = 0
    spine_columns: list[str] = field(default_factory=list)

    def finished(self, frame: pl.DataFrame, label: pl.DataFrame | None) -> pl.DataFrame:
        """Rows of a join, with all that a data set adds, counted.

        Args:
            frame: The join's rows, with the sources of features that have fallbacks.
            label: Their labels, if there are any.

        Raises:
            DuplicateColumnError: If a label column has the name of another.
        """
        from alignment.join import provisional

        recipe = self.recipe
        told = [name for name in recipe.feature_columns if f"{name}__source" in frame.columns]
        answers = [*recipe.feature_columns, *(f"{name}__source" for name in told)]
        asked = frame.drop(answers)
        t: Instants = check_spine(asked.select(recipe.prediction_time), [], recipe.prediction_time).t
        recipe.check_spine(asked.columns)
        for name in told:
            counts = frame[f"{name}__source"].value_counts().iter_rows()
            self.told.setdefault(name, Counter()).update(dict(counts))
        if not recipe.asked["sources"]:
            frame = frame.drop(f"{name}__source" for name in told)
        if label is not None:
            frame = frame.hstack(label.get_columns())
        frame = frame.with_columns(provisional(t, self.until_us))
        self.spine_columns = asked.columns
        self.rows += frame.height
        self.nulls.update({name: frame[name].null_count() for name in recipe.answer_columns})
        self.provisional_rows += int(frame["provisional"].sum())
        return frame

    def content(self, *, spine_hash: str, content_hash: str) -> Content:
        """What is known when all rows have passed."""
        return Content(
            rows=self.rows,
            spine_columns=self.spine_columns,
            spine_hash=spine_hash,
            nulls={name: self.nulls[name] for name in self.recipe.answer_columns},
            told={name: dict(counts.most_common()) for name, counts in self.told.items()},
            provisional_rows=self.provisional_rows,
            content_hash=content_hash,
        )

    def content_of(self, frame: pl.DataFrame) -> Content:
        """The same of rows in memory."""
        return self.content(spine_hash=frame_hash(frame.select(self.spine_columns)), content_hash=frame_hash(frame))

    def content_in(self, file: Path) -> Content:
        """The same of rows in a file."""
        digests = file_digests(file, rows=ROW_GROUP)
        own = {name: digests[name] for name in self.spine_columns}
        return self.content(spine_hash=hash_of(self.rows, own), content_hash=hash_of(self.rows, digests))


def write_rows(parts: Iterable[pl.DataFrame], file: Path) -> None:
    """Write rows as they come to a Parquet file.

    Args:
        parts: At least one, all of the same columns.
        file: Where to.
    """
    from polars.io.plugins import register_io_source

    rows = iter(parts)
    first = next(rows)

    def given(_columns: Any, _predicate: Any, _n: Any, _size: Any) -> Iterator[pl.DataFrame]:
        yield first
        yield from rows

    lazy = register_io_source(given, schema=first.schema)
    lazy.sink_parquet(file, compression="lz4", row_group_size=ROW_GROUP, engine="streaming")


def check_folder(folder: Path, content_hash: str | None) -> None:
    """Refuse a folder that holds another data set.

    Args:
        folder: Where a data set is to be written.
        content_hash: What it holds; None if that is not known yet.

    Raises:
        DatasetError: If there is another one.
    """
    target = folder / MANIFEST
    if target.exists() and json.loads(target.read_text())["content_hash"] != content_hash:
        raise DatasetError(f"{folder} holds another data set", "write to a new folder; data sets are not overwritten.")


def write_manifest(folder: Path, manifest: dict[str, Any], views: Sequence[FeatureView]) -> Path:
    """Write `manifest.json` beside `data.parquet`, and tell the logs that were read, so that an erasure finds the copy."""
    target = folder / MANIFEST
    written = manifest | {"data": DATA, "data_sha256": file_sha256(folder / DATA)}
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    partial.replace(target)
    tell_logs(target, views)
    return target


def tell_logs(target: Path | str, views: Sequence[FeatureView]) -> None:
    """Tell the logs that were read where a data set's manifest is, so that an erasure finds the copy."""
    for source in {id(s): s for view in views if (s := view.observations.source) is not None}.values():
        register = getattr(source, "register_dataset", None)
        if register is not None:
            register(target)
