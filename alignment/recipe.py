"""What a training set is made of and from: all of its manifest but what only its rows can tell (R16)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alignment.definitions import (
    definition_hash,
    describe_label,
    describe_moves,
    describe_observations,
    describe_service,
    describe_view,
)
from alignment.delays import DelayRule
from alignment.durations import instant_from_us, instant_us
from alignment.errors import DatasetError, DuplicateColumnError
from alignment.join import Positions, check_views
from alignment.labels import Label, label_source
from alignment.observations import Observations
from alignment.outages import Outage, as_outages
from alignment.rows import Summary, summarize
from alignment.service_binding import bind
from alignment.service_join import VariantRows
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME
from alignment.views import FeatureView

FORMAT = 1
_PACKAGES = ("asknown", "polars", "numpy", "numba", "pyarrow", "duckdb", "deltalake")
LABEL = "@label"
"""Input that a label reads, where no view does."""


@dataclass(frozen=True, slots=True)
class Content:
    """What only the rows of a data set tell.

    Attributes:
        rows: How many.
        spine_columns: The columns that came with the spine.
        spine_hash: `frame_hash` of these.
        nulls: Per feature and for the label how many values are null.
        told: Per feature with fallbacks how many rows each answered.
        provisional_rows: How many rows may still change.
        content_hash: `frame_hash` of all.
    """

    rows: int
    spine_columns: list[str]
    spine_hash: str
    nulls: Mapping[str, int]
    told: Mapping[str, Mapping[str, int]]
    provisional_rows: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A data set before its rows are made, with everything that holds for all of them.

    Attributes:
        views: What to compute.
        label: What the model is to say.
        as_of_us: Nothing that arrived later counts (R12).
        prediction_time: The spine's column of prediction times.
        rows_of: The observations by the manifest's input names.
        at: Log position of each; None where there is no log.
        summaries: What each holds there.
        service: What decides which features there are, if anything does.
        asked: The arguments `variant`, `rows` and `sources`.
        moves: What moved arrivals, as `describe_moves` says it.
    """

    views: tuple[FeatureView, ...]
    label: Label | None
    as_of_us: int
    prediction_time: str
    rows_of: Mapping[str, Observations]
    at: Mapping[str, int | None]
    summaries: Mapping[str, Summary]
    service: FeatureService | None
    asked: Mapping[str, Any]
    moves: Mapping[str, Any]

    @property
    def as_of(self) -> datetime:
        """The same as an instant."""
        return instant_from_us(self.as_of_us)

    @property
    def head(self) -> dict[str, int]:
        """Positions by view, as a join takes them."""
        return {view.name: p for view in self.views if (p := self.at[view.name]) is not None}

    @property
    def home(self) -> str | None:
        """The view that the label is observed in; None if it has observations of its own."""
        return None if self.label is None else _home(self.label, self.views)

    @property
    def label_position(self) -> int | None:
        """The position at which the label is read."""
        return self.at[self.home or LABEL]

    @property
    def feature_columns(self) -> list[str]:
        """The columns of features, in order."""
        if self.service is None:
            return [name for view in self.views for name in view.column_names]
        bound, variant = bind(self.service, self.views), self.asked["variant"]
        return list(bound.sources if variant is None else bound.variant(variant).features)

    @property
    def answer_columns(self) -> list[str]:
        """The columns of features, and the label's first."""
        return [*self.feature_columns, *([] if self.label is None else [self.label.name])]

    def check_spine(self, columns: Sequence[str]) -> None:
        """Refuse a spine with columns that the label adds.

        Raises:
            DuplicateColumnError: If a label column has the name of another.
        """
        for name in [] if self.label is None else self.label.columns:
            if name in columns or name in self.feature_columns:
                raise DuplicateColumnError(
                    f"the result has two columns {name!r}", "name the label, e.g. al.label(..., name='target')."
                )

    def manifest(self, content: Content, *, engine: str) -> dict[str, Any]:
        """The manifest of a data set with that content."""
        definitions: dict[str, Any] = {"views": [describe_view(view) for view in self.views]}
        if self.service is not None:
            definitions["service"] = describe_service(self.service)
        if self.label is not None:
            home = self.home
            origin = {"view": home} if home else {"observations": describe_observations(self.rows_of[LABEL])}
            definitions["label"] = describe_label(self.label) | origin
        label = self.label
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "as_of": self.as_of.isoformat(),
            "prediction_time": self.prediction_time,
            "engine": engine,
            "spine": {"rows": content.rows, "columns": content.spine_columns, "hash": content.spine_hash},
            "inputs": {
                name: {"source": _describe_source(rows), "position": self.at[name]} | self.summaries[name].to_dict()
                for name, rows in self.rows_of.items()
            },
            "definitions": definitions,
            "definition_hash": definition_hash(definitions),
            "features": {
                name: {"rows": content.rows, "nulls": content.nulls[name]}
                | ({"sources": dict(content.told[name])} if name in content.told else {})
                for name in self.feature_columns
            },
            "label": None if label is None else {"columns": label.columns, "nulls": content.nulls[label.name]},
            "provisional_rows": content.provisional_rows,
            "content_hash": content.content_hash,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        }
        if self.moves:
            manifest["arrivals"] = dict(self.moves)
        if self.service is not None:
            manifest["service"] = {"name": self.service.name, **self.asked}
        return manifest


def make_recipe(
    views: tuple[FeatureView, ...],
    *,
    label: Label | None = None,
    as_of: datetime | None = None,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    service: FeatureService | None = None,
    variant: str | None = None,
    rows: VariantRows = "chosen",
    sources: bool = False,
    outages: Sequence[Outage] | Outage = (),
    delays: Mapping[str, DelayRule] | None = None,
    seed: int | None = None,
) -> Recipe:
    """The recipe for the arguments of `build_dataset`: positions and `as_of` are fixed here.

    Raises:
        AlignmentError: See `check_views`, `label_source` and `summarize`.
        DatasetError: If there is no observation and `as_of` is not given.
    """
    check_views(views)
    rows_of = {view.name: view.observations for view in views}
    if label is not None and _home(label, views) is None:
        rows_of[LABEL] = label_source(label, views)[0]
    at = {name: _position(rows, name, positions) for name, rows in rows_of.items()}
    summaries = {name: summarize(rows, position=at[name]) for name, rows in rows_of.items()}
    as_of_us = _as_of(as_of, [summary.greatest_arrival for summary in summaries.values()])
    asked = {"variant": variant, "rows": rows, "sources": sources}
    moves = describe_moves(as_outages(outages), delays, seed)
    return Recipe(views, label, as_of_us, prediction_time, rows_of, at, summaries, service, asked, moves)


def _home(label: Label, views: Sequence[FeatureView]) -> str | None:
    """The view that a label is observed in; None if it has observations of its own."""
    rows = label_source(label, views)[0]
    return next((view.name for view in views if view.observations is rows), None)


def _position(rows: Observations, name: str, positions: Positions | None) -> int | None:
    if isinstance(positions, int):
        return positions
    if positions is not None and name in positions:
        return positions[name]
    return rows.source.position() if rows.source is not None else None


def _as_of(given: datetime | None, arrivals: Sequence[int | None]) -> int:
    if given is not None:
        return instant_us(given, "as_of")
    known = [arrival for arrival in arrivals if arrival is not None]
    if not known:
        raise DatasetError("there is no observation, so no greatest arrival to build as of", "pass as_of=.")
    return max(known)


def _describe_source(rows: Observations) -> dict[str, Any]:
    if rows.source is not None:
        return {"log": rows.source.provider, "address": str(getattr(rows.source, "address", ""))}
    if isinstance(rows.frame, str | Path):
        return {
            "path": str(rows.frame),
            "sha256": file_sha256(Path(rows.frame)) if Path(rows.frame).is_file() else None,
        }
    return {"frame": type(rows.frame).__name__}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of this package's time to import

    try:
        return version(name)
    except PackageNotFoundError:
        return None
