"""Training sets: features and labels of a spine, and a manifest from which they can be built again (R16)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.definitions import (
    read_moves,
    read_observations,
    read_service,
    read_view,
)
from alignment.delays import DelayRule
from alignment.errors import DatasetError
from alignment.hashing import frame_hash
from alignment.join import Positions, known_until, point_in_time_join, provisional
from alignment.labels import Label, evaluate_label, label_source
from alignment.labels import label as make_label
from alignment.observations import FrameLike, Observations
from alignment.outages import Outage
from alignment.recipe import FORMAT, Content, file_sha256, make_recipe
from alignment.service_join import VariantRows
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME, check_spine
from alignment.views import FeatureView

DATA, MANIFEST = "data.parquet", "manifest.json"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A training set.

    Attributes:
        frame: The spine's columns, a column per feature, `label`, `label_event_time`, `label_arrival_time` if there is a
            label, and `provisional` (whether t lies after `as_of`, or after what a log is known to have seen).
        manifest: Where it came from and what is in it, as plain data: `as_of`, log positions, service, definitions and their hash,
            spine hash, package versions, rows and nulls per feature (of fallbacks also how many rows each answered), arrival
            kinds, content hash.
        views: What it was built with.
        label: The label it was built with.
    """

    frame: pl.DataFrame
    manifest: dict[str, Any]
    views: tuple[FeatureView, ...] = field(default=(), repr=False)
    label: Label | None = field(default=None, repr=False)

    def write(self, path: str | Path) -> Path:
        """Write `data.parquet` and `manifest.json` into the folder `path`; the manifest comes last.

        Logs that were read are told, so that an erasure finds the copy.

        Returns:
            Where the manifest is.

        Raises:
            DatasetError: If there is another data set in the folder.
        """
        folder = Path(path)
        target = folder / MANIFEST
        if target.exists() and json.loads(target.read_text())["content_hash"] != self.manifest["content_hash"]:
            raise DatasetError(
                f"{folder} holds another data set", "write to a new folder; data sets are not overwritten."
            )
        json.dumps(self.manifest)  # what cannot be written down is said before anything is there
        folder.mkdir(parents=True, exist_ok=True)
        self.frame.write_parquet(folder / DATA, compression="lz4")
        manifest = self.manifest | {"data": DATA, "data_sha256": file_sha256(folder / DATA)}
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        partial.replace(target)
        for source in {id(s): s for view in self.views if (s := view.observations.source) is not None}.values():
            register = getattr(source, "register_dataset", None)
            if register is not None:
                register(target)
        return target

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
) -> Dataset:
    """A training set: for every spine row the features as serving would have answered, and the label as it came true.

    Args:
        spine: See `point_in_time_join`.
        views: What to compute.
        label: What the model is to say; made by `label`.
        as_of: Pretend that nothing arrived later; None is the greatest arrival in the inputs (R12).
        engine: `"local"` or `"duckdb"`.
        prediction_time: The spine's column of prediction times.
        positions: Log positions to answer at; None is each log's head now.
        threads: How many threads; None for one per processor.
        service: Give the features of this service, after its fallbacks; see `point_in_time_join`.
        variant: Give the features of this variant of the service, by default at the rows at which it would have been chosen.
        rows: `"chosen"`, or `"all"` to keep the rows at which another variant or none would have been chosen.
        sources: Add `<feature>__source`; the manifest counts them in any case.
        outages: Features as they would have been under these; see `transform_arrivals`. Labels stay what they were.
        delays: Features as they would have been with these delays, by provider.
        seed: Seed of the delay rules that draw; None leaves each its own.

    Returns:
        The data set; its frame has the spine's rows in order.

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
    told = {name: frame[f"{name}__source"] for name in recipe.feature_columns if f"{name}__source" in frame.columns}
    answers = [*recipe.feature_columns, *(f"{name}__source" for name in told)]
    asked = check_spine(frame.drop(answers), [], prediction_time)
    recipe.check_spine(asked.frame.columns)
    if not sources:
        frame = frame.drop([f"{name}__source" for name in told])
    if label is not None:
        check_spine(asked.frame, label_source(label, views)[1], prediction_time)
        found = evaluate_label(
            label, asked, views, as_of_us=recipe.as_of_us, position=recipe.label_position, threads=threads
        )
        frame = frame.hstack(found.get_columns())
    frame = frame.with_columns(provisional(asked.t, known_until(views, recipe.as_of_us)))
    content = Content(
        rows=frame.height,
        spine_columns=asked.frame.columns,
        spine_hash=frame_hash(asked.frame),
        nulls={name: frame[name].null_count() for name in recipe.answer_columns},
        told={name: dict(series.value_counts(sort=True).iter_rows()) for name, series in told.items()},
        provisional_rows=int(frame["provisional"].sum()),
        content_hash=frame_hash(frame),
    )
    return Dataset(frame, recipe.manifest(content, engine=engine), views, label)


def rebuild(
    manifest: Mapping[str, Any], spine: FrameLike, frames: Mapping[str, FrameLike], *, threads: int | None = None
) -> Rebuilt:
    """Build a data set again from its manifest, at the positions and the `as_of` it records (R16).

    Args:
        manifest: What `Dataset.manifest` (or the written file) holds.
        spine: The same spine; of a written data set, the first columns of its data.
        frames: Observations by the manifest's input names (`@label` for those of the label).
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
        engine=manifest["engine"],
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
