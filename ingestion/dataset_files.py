"""The files of a data set that was written, in any layout, and how an entity leaves them.

A data set is one Parquet file beside its manifest, a folder of part files, or a Delta table. Rows leave by a file written anew: in place
of the old one, or, in a Delta table, committed in place of it, and then the old one is deleted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from alignment.dataset_writing import ATTEMPTS, DATA, ROW_GROUP, drafted, keep
from alignment.location import Location
from ingestion.evolution import fitted


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest says of a file: its rows, and the SHA-256 of its bytes."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """The files of a data set.

    Attributes:
        place: Where its manifest is.
        manifest: What that says.
    """

    place: Location
    manifest: Mapping[str, Any]

    @property
    def in_delta(self) -> bool:
        """Whether it is a Delta table."""
        return self.manifest.get("layout") == "delta"

    def names(self) -> list[str]:
        """The files that have its rows."""
        if self.in_delta:
            return sorted(uri.rpartition("/")[2] for uri in self._table().file_uris())
        beside = [name for name in self.place.names() if name.endswith(".parquet")]
        if self.manifest.get("layout") == "parquet":
            data = str(self.manifest.get("data", DATA))
            return [name for name in self.place.files_below(data) if name.endswith(".parquet")]
        return beside

    def in_order(self) -> list[str]:
        """The same as the manifest has them: in the order of the rows."""
        entries = self.manifest.get("files")
        return [str(self.manifest.get("data", DATA))] if entries is None else [str(entry["name"]) for entry in entries]

    def scan(self) -> pl.LazyFrame:
        """The rows, in order."""
        return pl.scan_parquet([self.place.address_of(name) for name in self.in_order()], glob=False)

    def held(self, entity: Mapping[str, Any]) -> dict[str, int]:
        """How many rows of an entity there are, by file; files without any are left out."""
        counts = {}
        for name in self.names():
            rows = self._scan(name)
            test = self._test(entity, rows.collect_schema())
            if test is not None:
                counts[name] = int(self._ask(rows.filter(test).select(pl.len())).item())
        return {name: count for name, count in counts.items() if count}

    def new_name(self, name: str) -> str:
        """What a file is called once it is written anew: a Delta table never has two files of one name."""
        return f"{uuid.uuid4().hex}.parquet" if self.in_delta else name

    def rewrite(self, name: str, target: str, entity: Mapping[str, Any]) -> Facts:
        """Write a file anew without an entity's rows."""
        rows = self._scan(name)
        test = self._test(entity, rows.collect_schema())
        kept = rows if test is None else rows.filter(~test)
        with drafted(self.place, name=target) as draft:
            self.place.patiently(lambda: kept.sink_parquet(draft, compression="lz4", row_group_size=ROW_GROUP))
            height = int(pl.scan_parquet(draft, glob=False).select(pl.len()).collect().item())
            return Facts(height, keep(draft, self.place, name=target))

    def facts(self, name: str) -> Facts:
        """What is true of a file now."""
        with drafted(self.place, name=f"{name}.copy") as copy:
            self.place.fetch(name, copy)
            height = int(pl.scan_parquet(copy, glob=False).select(pl.len()).collect().item())
            with copy.open("rb") as stream:
                return Facts(height, hashlib.file_digest(stream, "sha256").hexdigest())

    def commit(self, new: Mapping[str, str], facts: Mapping[str, Facts]) -> None:
        """Let the table consist of files that were written anew; of another layout there is nothing to be done.

        Args:
            new: Old name to new name.
            facts: By new name.

        Raises:
            DeltaError: If the store failed, or another writer came first.
            OSError: Likewise.
        """
        if not self.in_delta or not new:
            return
        table = self._table()
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(old, data_change=True, deletion_timestamp=0, size=0, partition_values={}) for old in new
        ]
        actions += [
            AddAction(
                name,
                self._size(name),
                {},
                0,
                data_change=True,
                stats=json.dumps(
                    {"numRecords": facts[name].rows}
                ),  # no least and greatest values: they would tell keys
            )
            for name in new.values()
            if facts[name].rows
        ]
        try:
            table.create_write_transaction(actions, mode="append", schema=table.schema(), partition_by=[])
        except (DeltaError, OSError):  # an answer can be lost after the commit was made
            if set(self.names()) & set(new):
                raise

    def remove_leftovers(self) -> None:
        """Delete what is none of the data set's: files of before in a Delta table, and those of tasks that were run twice."""
        named = set(self.names())
        gone = self.place.files_below(ATTEMPTS)
        if self.in_delta:
            gone += [name for name in self.place.names() if name.endswith(".parquet") and name not in named]
        for name in gone:
            self.place.remove(name)

    def _table(self) -> DeltaTable:
        return self.place.patiently(lambda: DeltaTable(self.place.address))

    def _scan(self, name: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.place.address_of(name), glob=False)

    def _ask(self, rows: pl.LazyFrame) -> pl.DataFrame:
        return self.place.patiently(rows.collect)

    def _size(self, name: str) -> int:
        return int(self.place.patiently(lambda: self.place.filesystem().get_file_info(name)).size)

    def _test(self, entity: Mapping[str, Any], schema: Mapping[str, Any]) -> pl.Expr | None:
        """Which rows are the entity's, under any name that the manifest's views have for its columns; None if none can be."""
        renames = entity_maps(self.manifest)
        names = [
            [
                name
                for name in sorted({column, *(ours for ours, theirs in renames if theirs == column)})
                if name in schema
            ]
            for column in entity
        ]
        if not all(names):
            return None
        chosen = (dict(zip(choice, entity.values(), strict=True)) for choice in itertools.product(*names))
        return pl.any_horizontal([matches(each, schema) for each in chosen])


def entity_maps(manifest: Any) -> list[tuple[str, str]]:
    """Every (name in the data set, name in the log) that a manifest's definitions rename by."""
    if isinstance(manifest, list):
        return [pair for inner in manifest for pair in entity_maps(inner)]
    if not isinstance(manifest, dict):
        return []
    own = manifest.get("entity_map")
    pairs = list(own.items()) if isinstance(own, dict) else []
    return pairs + [pair for inner in manifest.values() for pair in entity_maps(inner)]


def matches(entity: Mapping[str, Any], schema: Mapping[str, Any]) -> pl.Expr:
    """Whether a row is of the entity; a value that the column cannot hold matches nothing."""
    tests = []
    for name, value in entity.items():
        typed = _typed(value, schema[name]) if not isinstance(schema[name], pl.Enum) else None
        if isinstance(schema[name], pl.Enum | pl.Categorical):
            tests.append(pl.col(name).cast(pl.String).eq_missing(pl.lit(str(value))))
        elif typed is None:
            tests.append(pl.lit(value=False))
        else:
            tests.append(pl.col(name).eq_missing(pl.lit(typed[0], schema[name])))
    return pl.all_horizontal(tests)


def _typed(value: Any, dtype: Any) -> pl.Series | None:
    """A value as a column has it; text, as a command line gives it, is read as the column's number or date."""
    given = pl.Series([value])
    typed = fitted(given, dtype)
    if typed is None and isinstance(value, str):
        read = given.cast(dtype, strict=False) if dtype.is_numeric() or dtype == pl.Date() else None
        return read if read is not None and read.null_count() == 0 else None
    return typed
