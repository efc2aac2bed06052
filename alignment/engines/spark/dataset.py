"""Training sets whose rows stay in Spark until they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from alignment.dataset_writing import (
    ATTEMPTS,
    DATA,
    MANIFEST,
    ROW_GROUP,
    Tally,
    manifest_bytes,
    place_of,
    tell_logs,
    told_of,
)
from alignment.engines.spark.frames import chosen, is_spark_frame, plain_schema, session_of
from alignment.engines.spark.packing import Bucket
from alignment.engines.spark.run import planned, run
from alignment.engines.spark.writing import (
    PART_ROWS,
    Facts,
    Writer,
    commit_delta,
    commit_files,
    remove_leftovers,
    write_parts,
)
from alignment.errors import DatasetError
from alignment.hashing import file_digests, hash_of
from alignment.join import position_of
from alignment.labels import Label
from alignment.observations import FrameLike, as_lazy
from alignment.service_join import ask_service
from alignment.views import FeatureView

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from alignment.recipe import Recipe

ROW = "@row"
"""Numbers the rows of a spine that has an order; where the spine has such a column, a longer name does."""
Layout = Literal["parquet", "delta"]


class SparkDataset:
    """A training set whose rows are in Spark.

    Attributes:
        frame: A frame of Spark: the columns of `Dataset.frame`, rows in no order, computed when it is asked for them.
        views: What it is built with.
        label: The label it is built with.
        folder: Where it was written, once it was.
    """

    def __init__(
        self,
        rows: DataFrame,
        tally: Tally,
        exact: Mapping[str, pl.DataType],
        order: Sequence[str],
        count: int,
        *,
        row: str | None,
    ) -> None:
        self._rows, self._tally, self._exact, self._order, self._count = rows, tally, dict(exact), list(order), count
        self._row = row
        self._manifest: dict[str, Any] | None = None
        self.views, self.label = tally.recipe.views, tally.recipe.label
        self.folder: Path | str | None = None

    def __repr__(self) -> str:
        return f"SparkDataset({self._count} rows, as of {self._tally.recipe.as_of.isoformat()})"

    @property
    def frame(self) -> DataFrame:
        """The rows."""
        return chosen(self._rows, self._kept)

    @property
    def feature_columns(self) -> list[str]:
        """The names of the feature columns, in order."""
        return self._tally.recipe.feature_columns

    @property
    def manifest(self) -> dict[str, Any]:
        """See `Dataset.manifest`; its hashes and counts are known when the rows have been written.

        Raises:
            DatasetError: If they have not.
        """
        if self._manifest is None:
            raise DatasetError(
                "the rows of this data set have not been computed", "write it first: dataset.write(path)."
            )
        return self._manifest

    def write(self, path: str | Path, *, layout: Layout = "parquet") -> str | Path:
        """Let executors write the rows in the spine's order (of a frame of Spark: ordered by its columns), and the manifest, which comes last.

        Every executor must be able to write to `path`. The content hash is that of `engine="local"`. Only files of tasks that the driver
        was told of become part of the data set, each once.

        Args:
            path: A new folder, or an address in object storage as text, `"s3://bucket/prefix"`: credentials come from the environment.
            layout: `"parquet"`: part files in `data.parquet/`; or `"delta"`: `path` itself is a Delta table, in the types that Spark has.

        Returns:
            Where the manifest is; an address in object storage is a text.

        Raises:
            AddressError: If the address holds a user or a password.
            DatasetError: If something else is there, or `layout` cannot hold the rows.
        """
        if layout not in ("parquet", "delta"):
            raise DatasetError(f"layout={layout!r} is unknown", 'choose "parquet" or "delta".')
        place, in_delta = place_of(path), layout == "delta"
        kept = {name: self._exact[name] for name in self._kept}
        written = _delta_schema(kept) if in_delta else kept
        if place.names():
            raise DatasetError(f"{told_of(path)} is not empty", "write to a new folder; data sets are not overwritten.")
        folder = place.address if in_delta else place.address_of(ATTEMPTS)
        writer = Writer(
            folder, plain_schema(self._exact, "the result"), written, tuple(self._tally.recipe.answer_columns)
        )
        names: list[str] = []
        try:
            parts = write_parts(
                self._rows,
                self._order,
                writer,
                parts=max(1, -(-self._count // PART_ROWS)),
                numbered=self._row is not None,
            )
            names = commit_delta(place, parts, written) if in_delta else commit_files(place, parts)
        finally:
            remove_leftovers(place, names)
        where = [place.address_of(name) for name in names]
        self._manifest = place.patiently(lambda: self._told(parts, where, kept))
        files = [
            {"name": name, "rows": facts.rows, "sha256": facts.sha256}
            for name, (_, facts) in zip(names, parts, strict=True)
        ]
        told = self._manifest | {"data": "." if in_delta else DATA, "layout": layout, "files": files}
        place.write(MANIFEST, manifest_bytes(told))
        self.folder = told_of(path)
        tell_logs(place.address_of(MANIFEST), self.views, self.label)
        return told_of(path, MANIFEST)

    @property
    def _kept(self) -> list[str]:
        """The columns that are the data set's."""
        recipe = self._tally.recipe
        told = set() if recipe.asked["sources"] else {f"{name}__source" for name in recipe.feature_columns}
        return [name for name in self._exact if name != self._row and name not in told]

    def _told(
        self, parts: Sequence[tuple[int, Facts]], where: list[str], kept: Mapping[str, pl.DataType]
    ) -> dict[str, Any]:
        """The manifest of what was written."""
        digests = file_digests(where, rows=ROW_GROUP, schema=kept)
        tally = replace(self._tally, rows=0, nulls=Counter(), told={}, provisional_rows=0)  # it may be written twice
        answers = {f"{name}__source" for name in tally.recipe.feature_columns}
        added = {*tally.recipe.feature_columns, *answers, "provisional"} | set(self.label.columns if self.label else ())
        tally.spine_columns = [name for name in self._exact if name != self._row and name not in added]
        for _, facts in parts:
            tally.rows += facts.rows
            tally.nulls.update(facts.nulls)
            tally.provisional_rows += facts.provisional
            for name, counts in facts.told.items():
                tally.told.setdefault(name, Counter()).update(counts)
        own = {name: digests[name] for name in tally.spine_columns}
        content = tally.content(spine_hash=hash_of(tally.rows, own), content_hash=hash_of(tally.rows, digests))
        return tally.recipe.manifest(content, engine="spark")


def build(
    tally: Tally, spine: FrameLike, moved: Sequence[FeatureView], *, spark: SparkSession | None = None
) -> SparkDataset:
    """The data set of a recipe, its rows computed by Spark when they are asked for.

    Args:
        tally: What is to be built.
        spine: A frame of Spark, or anything that `build_dataset` takes.
        moved: The recipe's views, their arrivals moved where that is asked for.
        spark: The session; None for the active one.

    Raises:
        AlignmentError: See `build_dataset`.
    """
    recipe, session = tally.recipe, session_of(spark)
    row: str | None = None
    if is_spark_frame(spine):
        order = list(spine.columns)
    else:
        spine, row = as_lazy(spine, "the spine").collect(), ROW
        while row in spine.columns:
            row += "_"
        spine, order = spine.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(row)), [row]
    plan = planned(
        spine,
        moved,
        as_of_us=recipe.as_of_us,
        position_of=lambda view: position_of(view, recipe.head),
        prediction_time=recipe.prediction_time,
        question=ask_service(
            recipe.service,
            list(moved),
            variant=recipe.asked["variant"],
            rows=recipe.asked["rows"],
            position_of=lambda view: position_of(view, recipe.head),
            as_of_us=recipe.as_of_us,
        ),
        sources=recipe.service is not None,
        label=_of_its_own(recipe),
        label_position=None if recipe.label is None else recipe.label_position,
        provisional=True,
        until_us=tally.until_us,
    )
    recipe.check_spine([name for name in plan.spine.schema if name != row])
    last = plan.works[-1]
    exact = last.form.made(last.answered(Bucket())).schema
    return SparkDataset(run(session, plan), tally, exact, order, plan.spine.rows, row=row)


def _of_its_own(recipe: Recipe) -> Label | None:
    """The label with the observations it is read from: those of a view before any arrival was moved."""
    if recipe.label is None or recipe.home is None:
        return recipe.label
    return replace(recipe.label, observations=next(view for view in recipe.views if view.name == recipe.home))


def _delta_schema(kept: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """The columns in types that Delta has.

    Raises:
        DatasetError: If there is none for a column.
    """
    for name, kind in kept.items():
        if isinstance(kind, pl.Duration) or kind == pl.Null:
            raise DatasetError(
                f"{name!r} is {kind}, and Delta has no such type", 'pass layout="parquet", or leave the column out.'
            )
    return plain_schema(kept, "the data set")
