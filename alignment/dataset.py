"""Training sets: features and labels of a spine, and a manifest from which they can be built again (R16)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.dataset_writing import (
    DATA,
    MANIFEST,
    ROW_GROUP,
    Tally,
    check_place,
    drafted,
    keep,
    keep_copy,
    place_of,
    told_of,
    write_manifest,
    write_rows,
)
from alignment.definitions import (
    read_moves,
    read_observations,
    read_service,
    read_view,
)
from alignment.delays import DelayRule
from alignment.errors import DatasetError
from alignment.join import Positions, check_engine, check_limit, known_until, point_in_time_join, position_of
from alignment.labels import Label, evaluate_label, label_source
from alignment.labels import label as make_label
from alignment.observations import FrameLike, Observations, as_lazy
from alignment.outages import Outage
from alignment.recipe import FORMAT, Recipe, make_recipe
from alignment.service_join import VariantRows, ask_service
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME, check_spine
from alignment.views import FeatureView

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from alignment.larger import Part
    from alignment.location import Location


class Dataset:
    """A training set.

    Args:
        frame: Its rows; None if they are in `folder` alone.
        manifest: See below.
        views: See below.
        label: See below.
        folder: Where it was written as it was made, if it was.

    Attributes:
        manifest: Where it came from and what is in it, as plain data: `as_of`, log positions, service, definitions and their hash,
            spine hash, package versions, rows and nulls per feature (of fallbacks also how many rows each answered), arrival
            kinds, content hash.
        views: What it was built with.
        label: The label it was built with.
        folder: Where `data.parquet` and `manifest.json` are, if it was written as it was made: a path, or an address as text.
    """

    def __init__(
        self,
        frame: pl.DataFrame | None,
        manifest: dict[str, Any],
        views: tuple[FeatureView, ...] = (),
        label: Label | None = None,
        *,
        folder: Path | str | None = None,
    ) -> None:
        if frame is None and folder is None:
            raise DatasetError("a data set has neither rows nor a folder that has them", "pass frame or folder.")
        self._frame = frame
        self.manifest = manifest
        self.views = views
        self.label = label
        self.folder = folder

    def __repr__(self) -> str:
        where = f" in {self.folder}" if self._frame is None else ""
        return f"Dataset({self.manifest['spine']['rows']} rows{where}, as of {self.manifest['as_of']})"

    @property
    def frame(self) -> pl.DataFrame:
        """The spine's columns, a column per feature, `label`, `label_event_time`, `label_arrival_time` if there is a label, and
        `provisional` (whether t lies after `as_of`, or after what a log is known to have seen).

        Of a data set that was written as it was made it is read whole, each time; `scan` reads what is asked for.
        """  # noqa: D205 - the first sentence is that long
        if self._frame is None:
            return self._written.patiently(lambda: pl.read_parquet(self._written.address_of(DATA), glob=False))
        return self._frame

    def scan(self) -> pl.LazyFrame:
        """The same rows, lazily: of a data set in a folder or a bucket only what a query needs is read."""
        if self._frame is None:
            return pl.scan_parquet(self._written.address_of(DATA), glob=False)
        return self._frame.lazy()

    @property
    def _written(self) -> Location:
        return place_of(self.folder or "")

    def write(self, path: str | Path, *, layout: str = "parquet") -> Path | str:
        """Write `data.parquet` and `manifest.json` into the folder `path`; the manifest comes last.

        Logs that were read are told, so that an erasure finds the copy.

        Args:
            path: A new folder, or an address in object storage as text, `"s3://bucket/prefix"`: credentials come from the environment,
                the bytes are the same. For such an address the file is made in the system's folder of temporary files first.
            layout: `"parquet"`; a data set of Spark has another besides.

        Returns:
            Where the manifest is; an address in object storage is a text.

        Raises:
            AddressError: If the address holds a user or a password.
            DatasetError: If there is another data set, or another `layout` is asked for.
        """
        if layout != "parquet":
            raise DatasetError(
                f"layout={layout!r} is none of a data set that is built here: it is one Parquet file",
                'leave it out; of engine="spark" there is layout="delta" too.',
            )
        place = place_of(path)
        check_place(place, self.manifest["content_hash"])
        json.dumps(self.manifest)  # what cannot be written down is said before anything is there
        if self._frame is None:
            sha256 = keep_copy(self._written, place)
        else:
            with drafted(place) as draft:
                self._frame.write_parquet(draft, compression="lz4", row_group_size=ROW_GROUP)
                sha256 = keep(draft, place)
        write_manifest(place, self.manifest, sha256, self.views, self.label)
        return told_of(path, MANIFEST)

    @property
    def feature_columns(self) -> list[str]:
        """The names of the feature columns, in order."""
        return list(self.manifest["features"])


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of building a data set again.

    Attributes:
        dataset: The new build.
        same: Whether its content is that of the manifest, bit for bit.
        problem: What differs, if anything.
    """

    dataset: Dataset
    same: bool
    problem: str = ""


def build_dataset(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    *,
    label: Label | None = None,
    as_of: datetime | None = None,
    engine: str = "local",
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    threads: int | None = None,
    service: FeatureService | None = None,
    variant: str | None = None,
    rows: VariantRows = "chosen",
    sources: bool = False,
    outages: Sequence[Outage] | Outage = (),
    delays: Mapping[str, DelayRule] | None = None,
    seed: int | None = None,
    into: str | Path | None = None,
    memory_limit: str | int | None = None,
    spill: str | Path | None = None,
    spark: SparkSession | None = None,
) -> Dataset:
    """A training set: for every spine row the features as serving would have answered, and the label as it came true.

    Args:
        spine: See `point_in_time_join`.
        views: What to compute.
        label: What the model is to say; made by `label`.
        as_of: Pretend that nothing arrived later; None is the greatest arrival in the inputs (R12).
        engine: `"local"`, `"duckdb"` or `"spark"`.
        prediction_time: The spine's column of prediction times.
        positions: Log positions to answer at; None is each log's head now.
        threads: See `point_in_time_join`.
        service: Give the features of this service, after its fallbacks; see `point_in_time_join`.
        variant: Give the features of this variant of the service, by default at the rows at which it would have been chosen.
        rows: `"chosen"`, or `"all"` to keep the rows at which another variant or none would have been chosen.
        sources: Add `<feature>__source`; the manifest counts them in any case.
        outages: Features as they would have been under these; see `transform_arrivals`. Labels stay what they were.
        delays: Features as they would have been with these delays, by provider.
        seed: Seed of the delay rules that draw; None leaves each its own.
        into: New folder or address to write the data set to as it is made, as `Dataset.write` would; then it need not fit in memory.
        memory_limit: How much memory the process may take, e.g. `"4GiB"`; see `point_in_time_join`.
        spill: Folder for what does not fit; None for `into` if that is a folder, or else the system's folder of temporary files.
        spark: The session of engine `"spark"`; None for the active one.

    Returns:
        The data set; its frame has the spine's rows in order. With engine `"spark"` a `SparkDataset`: its frame is one of Spark, its rows
        are computed, and its manifest known, when it is written.

    Raises:
        AlignmentError: See `point_in_time_join` and `label`.
        DuplicateColumnError: If a label column has the name of another.
        DatasetError: If there is no observation and `as_of` is not given.

    Example:
        >>> from datetime import UTC, datetime
        >>> from alignment.features import latest
        >>> from alignment.spine import make_spine
        >>> def at(hour, minute=0):
        ...     return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)
        >>> frame = pl.DataFrame(
        ...     {
        ...         "site": ["a", "a"],
        ...         "event_time": [at(10), at(11)],
        ...         "arrival_time": [at(10, 40), at(11, 40)],
        ...         "load_kw": [3.5, 4.0],
        ...     }
        ... )
        >>> view = FeatureView("meter", ["site"], frame, [latest("load_kw")])
        >>> dataset = build_dataset(
        ...     make_spine({"site": ["a"]}, at(10), at(12), "1h"), [view], label=make_label("load_kw", horizon="1h")
        ... )
        >>> dataset.frame.select("meter__load_kw", "label", "provisional").rows()
        [(None, 4.0, False), (3.5, None, False)]
    """
    views = (views,) if isinstance(views, FeatureView) else tuple(views)
    check_engine(engine, threads)
    check_limit(memory_limit, engine, spill)
    recipe = make_recipe(
        views,
        label=label,
        as_of=as_of,
        prediction_time=prediction_time,
        positions=positions,
        service=service,
        variant=variant,
        rows=rows,
        sources=sources,
        outages=outages,
        delays=delays,
        seed=seed,
    )
    tally = Tally(recipe, known_until(views, recipe.as_of_us))
    place = None if into is None else place_of(into)
    if engine == "spark":
        if into is not None:
            check_empty(into)
        from alignment.engines.spark.dataset import build

        moved = transform_arrivals(views, outages=outages, delays=delays, seed=seed)
        made = build(tally, spine, moved, spark=spark)
        if into is not None:
            made.write(into)
        return cast("Dataset", made)
    if memory_limit is not None:
        spine = as_lazy(spine, "the spine")  # a stream of Arrow can be read once
        room = spill if spill is not None or place is None or place.folder is None else place.folder.parent
        parts = _larger(recipe, spine, memory_limit, threads, room, rows)
        if parts is not None:
            return _in_parts(tally, parts, into, room)
    frame = point_in_time_join(
        spine,
        transform_arrivals(views, outages=outages, delays=delays, seed=seed),
        as_of=recipe.as_of,
        engine=engine,
        prediction_time=prediction_time,
        positions=recipe.head,
        threads=threads,
        service=service,
        variant=variant,
        rows=rows,
        sources=service is not None,
    )
    labels = None
    if label is not None:
        recipe.check_spine([name for name in frame.columns if name not in recipe.feature_columns])
        asked = check_spine(frame, label_source(label, views)[1], prediction_time)
        at = recipe.label_position
        labels = evaluate_label(label, asked, views, as_of_us=recipe.as_of_us, position=at, threads=threads)
    frame = tally.finished(frame, labels)
    manifest = recipe.manifest(tally.content_of(frame), engine=engine)
    dataset = Dataset(frame, manifest, views, label)
    if into is not None:
        dataset.write(into)
        dataset.folder = told_of(into)
    return dataset


def check_empty(path: str | Path) -> None:
    """Refuse a place that holds anything, as data sets of Spark must: before a session is asked for, which takes its time.

    Raises:
        AddressError: If the address holds a user or a password.
        DatasetError: If something is there.
    """
    if place_of(path).names():
        raise DatasetError(f"{told_of(path)} is not empty", "write to a new folder; data sets are not overwritten.")


def _larger(
    recipe: Recipe,
    spine: FrameLike,
    memory_limit: str | int,
    threads: int | None,
    spill: str | Path | None,
    rows: VariantRows,
) -> Iterator[Part] | None:
    """The rows of a data set in parts; None if it fits in memory.

    Raises:
        MemoryLimitError: If the limit cannot be kept.
        DuplicateColumnError: If a label column has the name of another.
    """
    from alignment.larger import Larger

    recipe.check_spine(as_lazy(spine, "the spine").collect_schema().names())
    question = ask_service(
        recipe.service,
        recipe.views,
        variant=recipe.asked["variant"],
        rows=rows,
        position_of=lambda view: position_of(view, recipe.head),
        as_of_us=recipe.as_of_us,
    )
    return Larger(
        recipe.views,
        recipe.as_of_us,
        status=False,
        prediction_time=recipe.prediction_time,
        positions=recipe.head,
        sources=recipe.service is not None,
        threads=threads,
        question=question,
        label=recipe.label,
        label_position=None if recipe.label is None else recipe.label_position,
        moved=bool(recipe.moves),
        spill=spill,
    ).under(memory_limit, spine)


def _in_parts(tally: Tally, parts: Iterator[Part], into: str | Path | None, room: str | Path | None) -> Dataset:
    """A data set of rows that come in parts: written as they come, or, without a place for them, collected."""
    recipe = tally.recipe
    made = (tally.finished(frame, labels) for frame, labels in parts)
    if into is None:
        frame = pl.concat(list(made), rechunk=False)
        manifest = recipe.manifest(tally.content_of(frame), engine="local")
        return Dataset(frame, manifest, recipe.views, recipe.label)
    place = place_of(into)
    with drafted(place, room) as draft:
        write_rows(made, draft)
        manifest = recipe.manifest(tally.content_in(draft), engine="local")
        check_place(place, manifest["content_hash"])
        sha256 = keep(draft, place)
    write_manifest(place, manifest, sha256, recipe.views, recipe.label)
    return Dataset(None, manifest, recipe.views, recipe.label, folder=told_of(into))


def rebuild(
    manifest: Mapping[str, Any],
    spine: FrameLike,
    frames: Mapping[str, FrameLike],
    *,
    engine: str | None = None,
    threads: int | None = None,
) -> Rebuilt:
    """Build a data set again from its manifest, at the positions and the `as_of` it records (R16).

    Args:
        manifest: What `Dataset.manifest` (or the written file) holds.
        spine: The same spine; of a written data set, the first columns of its data.
        frames: Observations by the manifest's input names (`@label` for those of the label).
        engine: None for the manifest's, and `"local"` for what was built on Spark, which gives the same bytes.
        threads: How many threads; None for one per processor.

    Returns:
        The new build, and whether it is the same.

    Raises:
        DatasetError: If the manifest is of another format, or an input is not given.
    """
    if manifest.get("format") != FORMAT:
        raise DatasetError(
            f"the manifest has format {manifest.get('format')!r}, and this version reads {FORMAT}",
            "use the version that wrote it.",
        )
    for name in manifest["inputs"]:
        if name not in frames:
            raise DatasetError(f"the observations of {name!r} are not given", f"pass frames={{{name!r}: ...}}.")
    definitions = manifest["definitions"]
    views = [read_view(described, frames[described["name"]]) for described in definitions["views"]]
    label = None
    if "label" in definitions:
        described = dict(definitions["label"])
        home = described.pop("view", None)
        rows: Observations | FeatureView
        if home is not None:
            rows = next(view for view in views if view.name == home)
        else:
            rows = read_observations(described.pop("observations"), frames["@label"])
        label = make_label(described.pop("column"), described.pop("horizon"), observations=rows, **described)
    asked = dict(manifest.get("service", {}))
    if asked:
        asked["service"] = read_service(definitions["service"])
        del asked["name"]
    positions = {name: entry["position"] for name, entry in manifest["inputs"].items() if entry["position"] is not None}
    again = build_dataset(
        spine,
        views,
        label=label,
        as_of=datetime.fromisoformat(manifest["as_of"]),
        engine=engine or ("local" if manifest["engine"] == "spark" else manifest["engine"]),
        prediction_time=manifest["prediction_time"],
        positions=positions,
        threads=threads,
        **asked,
        **read_moves(manifest.get("arrivals", {})),
    )
    if again.manifest["content_hash"] == manifest["content_hash"]:
        return Rebuilt(again, same=True)
    return Rebuilt(again, same=False, problem=_first_difference(manifest, again.manifest))


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if old["spine"]["hash"] != new["spine"]["hash"]:
        return f"the spine differs: {old['spine']['rows']} rows then, {new['spine']['rows']} now, or other values"
    if old["definition_hash"] != new["definition_hash"]:
        return "the definitions differ"
    for name, entry in old["inputs"].items():
        if entry["rows"] != new["inputs"][name]["rows"]:
            return f"the observations of {name!r} had {entry['rows']} rows at that position, and now have {new['inputs'][name]['rows']}"
    moved = {name: v for name, v in old["versions"].items() if v != new["versions"].get(name)}
    return "the values differ" + (f"; packages differ too: {moved}" if moved else ", with the same rows and packages")
