"""Where served vectors are kept: a Delta table per combination of views, and beside it what the views were.

Layout below the root of the logs:

    _served/<table>.json     the views: name, hash, declaration, provider, address of the log
    _served/<table>/         the Delta table, one row per served vector, in parts of one day each

The table's name is a digest of the views' hashes and of the columns' types, so that a changed definition or a widened column
begins a table of its own, and a row can always be read as what it was served as.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import TableNotFoundError

import alignment as al
from alignment.definitions import definition_hash, describe_view, read_view
from alignment.online import CompiledView
from ingestion.schema import INSTANT, Column, columns_of, delta_fields, from_stored, to_stored
from ingestion.storage import Location

FOLDER = "_served"
LOCK = "served.lock"
PREDICTION_TIME, SERVED_TIME, SERVED_DAY = "prediction_time", "served_time", "served_day"
SERVED_BY, POSITIONS, DEFINITION, PAST = "served_by", "served_positions", "served_definition", "served_past"
STATUS = "__status"


@dataclass(frozen=True, slots=True)
class ServedView:
    """A view as it was served.

    Attributes:
        name: Its name.
        hash: Hash of its declaration.
        declaration: What `describe_view` said of it.
        provider: Whose rows it reads.
        address: Where the provider's log was.
        features: Its columns and their types.
    """

    name: str
    hash: str
    declaration: Mapping[str, Any]
    provider: str
    address: str
    features: Mapping[str, pl.DataType]

    @property
    def entities(self) -> dict[str, str]:
        """The entity columns: what the log calls them, to what requests call them."""
        asked = {observed: spine for spine, observed in self.declaration.get("entity_map", {}).items()}
        return {name: asked.get(name, name) for name in self.declaration["observations"]["entities"]}

    def over(self, log: Any) -> al.FeatureView:
        """The view itself, made again over a log.

        Raises:
            DatasetError: If it has a delay rule that cannot be made from its name.
        """
        return read_view(self.declaration, log)


def served_view(view: al.FeatureView) -> tuple[ServedView, dict[str, pl.DataType]]:
    """What is kept of a view, and the types of its entity columns as requests call them."""
    schema, dtypes = view.observations.schema, CompiledView(view).dtypes
    entities = {
        asked: schema[name] for name, asked in zip(view.observations.entities, view.spine_entities, strict=True)
    }
    declaration = describe_view(view)
    source = view.observations.source
    return (
        ServedView(
            view.name,
            definition_hash(declaration),
            declaration,
            source.provider if source is not None else "",
            str(getattr(source, "address", "")),
            {view.column_name(feature): dtypes[feature.name] for feature in view.features},
        ),
        entities,
    )


@dataclass(frozen=True, slots=True)
class ServedTable:
    """One table of served vectors.

    Attributes:
        root: Where the logs are.
        views: What was served, in alphabetical order.
        entities: The entity columns and their types.
    """

    root: Location
    views: tuple[ServedView, ...]
    entities: Mapping[str, pl.DataType]
    columns: list[Column] = field(init=False, repr=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        columns = [Column(name, dtype) for name, dtype in self.entities.items()]
        columns += [Column(PREDICTION_TIME, INSTANT)]
        for view in self.views:
            for name, dtype in view.features.items():
                columns += [Column(name, dtype), Column(name + STATUS, pl.String())]
        positions = pl.Struct(dict.fromkeys(sorted({view.provider for view in self.views}), pl.Int64()))
        columns += [Column(POSITIONS, positions), Column(DEFINITION, pl.String()), Column(PAST, pl.Boolean())]
        columns += [Column(SERVED_TIME, INSTANT), Column(SERVED_BY, pl.String()), Column(SERVED_DAY, pl.Date())]
        object.__setattr__(self, "columns", columns)
        content = [[(view.name, view.hash, view.address) for view in self.views], [str(c) for c in columns]]
        object.__setattr__(self, "name", hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16])

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns and their types, as they are read."""
        return {column.name: column.dtype for column in self.columns}

    @property
    def features(self) -> list[str]:
        """The feature columns."""
        return [name for view in self.views for name in view.features]

    @property
    def location(self) -> Location:
        """Where the Delta table is."""
        return self.root.child(FOLDER, self.name)

    def open(self) -> DeltaTable:
        """The Delta table; made if it is not there."""
        place = self.location
        try:
            return DeltaTable(place.address, storage_options=place.storage_options)
        except TableNotFoundError:
            pass
        views = [
            {
                "name": view.name,
                "hash": view.hash,
                "provider": view.provider,
                "address": view.address,
                "declaration": view.declaration,
                "features": list(view.features),
            }
            for view in self.views
        ]
        self.root.write(f"{FOLDER}/{self.name}.json", json.dumps({"views": views}, ensure_ascii=False).encode())
        if place.folder is not None:
            place.folder.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            place.address,
            Schema(delta_fields(self.columns)),
            mode="ignore",
            partition_by=[SERVED_DAY],
            storage_options=place.storage_options,
            configuration={
                "delta.dataSkippingStatsColumns": f"{PREDICTION_TIME},{SERVED_TIME}",  # never keys: they name people
                "delta.checkpointInterval": "50",
                "delta.logRetentionDuration": "interval 1 days",
                "delta.deletedFileRetentionDuration": "interval 1 hours",
            },
        )
        return DeltaTable(place.address, storage_options=place.storage_options)

    def append(self, delta: DeltaTable, frame: pl.DataFrame) -> None:
        """Commit rows; other processes may do so at the same time."""
        stored = frame.select(to_stored(column) for column in self.columns)
        with self.root.lock(LOCK):
            write_deltalake(delta, stored.to_arrow(compat_level=pl.CompatLevel.oldest()), mode="append")

    def scan(self) -> pl.LazyFrame:
        """The rows, with the types that they were served as."""
        place = self.location
        delta = DeltaTable(place.address, storage_options=place.storage_options)
        rows = pl.scan_delta(delta, storage_options=place.storage_options)
        return rows.select(from_stored(column).alias(column.name) for column in self.columns)

    def tidy(self, delta: DeltaTable, today: date, *, retain: timedelta | None = None) -> None:
        """Merge small files, and take out days that are older than `retain`."""
        with self.root.lock(LOCK):
            delta.update_incremental()
            if retain is not None:
                delta.delete(f"{SERVED_DAY} < '{today - retain}'")
            delta.optimize.compact()
            delta.vacuum(retention_hours=1, dry_run=False, enforce_retention_duration=False)


def list_tables(root: Any, *, storage_options: dict[str, str] | None = None) -> list[ServedTable]:
    """The tables at a root, in alphabetical order."""
    base = Location.of(root, storage_options)
    found = []
    for file in base.names(FOLDER):
        if not file.endswith(".json"):
            continue
        place = base.child(FOLDER, file.removesuffix(".json"))
        try:
            schema = DeltaTable(place.address, storage_options=storage_options).schema()
        except TableNotFoundError:
            continue  # its writer died before the table was made
        found.append(_table(base, json.loads(base.read(f"{FOLDER}/{file}")), columns_of(schema)))
    return found


def _table(base: Location, described: Mapping[str, Any], columns: Sequence[Column]) -> ServedTable:
    types = {column.name: column.dtype for column in columns}
    views = tuple(
        ServedView(
            view["name"],
            view["hash"],
            view["declaration"],
            view["provider"],
            view["address"],
            {name: types[name] for name in view["features"]},
        )
        for view in described["views"]
    )
    first = list(types).index(PREDICTION_TIME)
    return ServedTable(base, views, dict(list(types.items())[:first]))
