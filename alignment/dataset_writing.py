"""A data set's rows on their way into a folder or a bucket, counted as they pass.

A bucket takes whole files alone, so a file for one is made on this machine first. Its bytes are those in a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from alignment.errors import DatasetError
from alignment.hashing import file_digests, frame_hash, hash_of
from alignment.labels import Label, label_source
from alignment.location import Location
from alignment.recipe import Content, Recipe, file_sha256
from alignment.spine import check_spine
from alignment.views import FeatureView
from alignment.wallclock import Instants

DATA, MANIFEST = "data.parquet", "manifest.json"
ATTEMPTS = ".attempts"
"""Where tasks of a cluster write part files that are to get other names."""
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


def place_of(path: str | os.PathLike[str]) -> Location:
    """Where a data set is to be: a folder, or an address in an object store.

    Raises:
        AddressError: If the address holds a user or a password.
        DatasetError: If it is an address that was made a `Path`.
    """
    if isinstance(path, Path) and re.match("[a-z][a-z0-9+]+:/", path.as_posix()):
        raise DatasetError(
            f"{path} is a Path, which takes a slash from an address", 'pass it as text: "s3://bucket/prefix".'
        )
    return Location.of(path)


def told_of(path: str | os.PathLike[str], *names: str) -> Path | str:
    """What a user is told of a place: a path as it was given, or the address in an object store."""
    place = place_of(path)
    return Path(path, *names) if place.folder is not None else place.address_of(*names)


def check_place(place: Location, content_hash: str | None) -> None:
    """Refuse a place that holds another data set.

    Args:
        place: Where a data set is to be written.
        content_hash: What it holds; None if that is not known yet.

    Raises:
        DatasetError: If there is another one.
    """
    if place.exists(MANIFEST) and json.loads(place.read(MANIFEST)).get("content_hash") != content_hash:
        raise DatasetError(
            f"{place.address} holds another data set", "write to a new folder; data sets are not overwritten."
        )


@contextlib.contextmanager
def drafted(place: Location, spill: str | Path | None = None, *, name: str = DATA) -> Iterator[Path]:
    """A file on this machine to make a data set's rows in, for `keep`; nothing of it stays.

    Args:
        place: Where the data set is to be.
        spill: Where the file is made if that is no folder; None for the system's folder of temporary files.
        name: What it is to be called.
    """
    if place.folder is None:
        with tempfile.TemporaryDirectory(prefix="asknown-", dir=spill) as folder:
            yield Path(folder) / DATA
        return
    file = place.folder / f"{name}.partial"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def keep(draft: Path, place: Location, *, name: str = DATA) -> str:
    """Let a draft become a file of the data set; returns its SHA-256."""
    sha256 = file_sha256(draft)
    if place.folder is None:
        place.send(name, draft)
    else:
        draft.replace(place.folder / name)
    return sha256


def keep_copy(source: Location, place: Location) -> str:
    """Let the file of a data set that was written become that of another, if it is not the same; returns its SHA-256."""
    if source.folder is not None:
        if source != place:
            place.send(DATA, source.folder / DATA)
        return file_sha256(source.folder / DATA)
    with drafted(place) as draft:
        source.fetch(DATA, draft)
        return file_sha256(draft) if source == place else keep(draft, place)


def write_manifest(
    place: Location, manifest: dict[str, Any], sha256: str, views: Sequence[FeatureView], label: Label | None
) -> None:
    """Write `manifest.json` beside `data.parquet`, and tell the logs that were read, so that an erasure finds the copy."""
    written = manifest | {"data": DATA, "data_sha256": sha256}
    place.write(MANIFEST, manifest_bytes(written))
    tell_logs(place.address_of(MANIFEST), views, label)


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is written."""
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()


def tell_logs(target: str, views: Sequence[FeatureView], label: Label | None) -> None:
    """Tell the logs that were read, also for the label alone, where a data set's manifest is, so that an erasure finds the copy."""
    rows = [view.observations for view in views] + ([] if label is None else [label_source(label, views)[0]])
    for source in {id(each.source): each.source for each in rows if each.source is not None}.values():
        register = getattr(source, "register_dataset", None)
        if register is not None:
            register(target)
