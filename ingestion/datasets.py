"""Data sets that were written from a log's rows, so that an erasure finds them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ingestion.evolution import fitted
from ingestion.storage import Location

FOLDER = "_datasets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Something that held an erased entity.

    Attributes:
        place: What it is: `"log"`, `"quarantine"`, `"data set"`, or the name of another place.
        address: Where it is.
        rows: How many rows it held.
        note: What else to know; empty if it is clean now.
    """

    place: str
    address: str
    rows: int
    note: str = ""


def register_dataset(
    root: str | os.PathLike[str],
    manifest_path: str | os.PathLike[str],
    *,
    storage_options: dict[str, str] | None = None,
) -> None:
    """Remember a data set at a log's root, so that `erase` also rewrites its files.

    Each data set has an entry of its own, so writers do not get in each other's way; registering twice is once.

    Args:
        root: The folder or address of the logs.
        manifest_path: The data set's manifest, a JSON file beside its Parquet files.
        storage_options: Of the log's root.
    """
    path = str(Path(manifest_path).absolute())
    name = hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
    base = Location.of(root, storage_options)
    base.write(f"{FOLDER}/{name}.json", json.dumps({"manifest": path}).encode())


def registered_datasets(root: str | os.PathLike[str], *, storage_options: dict[str, str] | None = None) -> list[Path]:
    """The manifests that were registered at a root, in alphabetical order."""
    base = Location.of(root, storage_options)
    entries = [name for name in base.names(FOLDER) if name.endswith(".json")]
    return sorted(Path(json.loads(base.read(f"{FOLDER}/{name}"))["manifest"]) for name in entries)


def erase_from_dataset(
    manifest_path: Path, entity: Mapping[str, Any], *, entity_hash: str, now: datetime
) -> Holding | None:
    """Rewrite a data set's files without an entity's rows, and note that in the manifest.

    Args:
        manifest_path: The manifest; the Parquet files are those beside it.
        entity: Column names and values; a file without these columns cannot hold it.
        entity_hash: The salted digest that the note names it by.
        now: When.

    Returns:
        What was there; `None` if it held nothing.
    """
    if not manifest_path.exists():
        return None
    text = manifest_path.read_text(encoding="utf-8")
    manifest = json.loads(text)
    renames = _entity_maps(manifest)
    rows = 0
    for path in sorted(manifest_path.parent.glob("*.parquet")):
        rows += _erase_from_file(path, entity, renames)
    named = any(json.dumps(value) in text for value in entity.values() if isinstance(value, str))
    note = "the manifest's own text names the entity; write it anew" if named else ""
    if rows:
        data = manifest_path.parent / str(manifest.get("data", ""))
        if "data_sha256" in manifest and data.is_file():
            manifest["data_sha256"] = hashlib.sha256(data.read_bytes()).hexdigest()
        manifest.setdefault("erasures", []).append(
            {"erased_time": now.isoformat(), "rows": rows, "entity_hash": entity_hash}
        )
        _replace(manifest_path, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
    return Holding(place="data set", address=str(manifest_path), rows=rows, note=note) if rows or named else None


def _entity_maps(manifest: Any) -> list[tuple[str, str]]:
    """Every (name in the data set, name in the log) that a manifest's definitions rename by."""
    if isinstance(manifest, list):
        return [pair for inner in manifest for pair in _entity_maps(inner)]
    if not isinstance(manifest, dict):
        return []
    own = manifest.get("entity_map")
    pairs = list(own.items()) if isinstance(own, dict) else []
    return pairs + [pair for inner in manifest.values() for pair in _entity_maps(inner)]


def _erase_from_file(path: Path, entity: Mapping[str, Any], renames: list[tuple[str, str]]) -> int:
    frame = pl.read_parquet(path)
    names = [
        [name for name in {column, *(ours for ours, theirs in renames if theirs == column)} if name in frame.columns]
        for column in entity
    ]
    if not all(names):
        return 0
    held = [
        matches(dict(zip(chosen, entity.values(), strict=True)), frame.schema) for chosen in itertools.product(*names)
    ]
    kept = frame.filter(~pl.any_horizontal(held))
    if kept.height == frame.height:
        return 0
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    kept.write_parquet(draft)
    draft.replace(path)
    return frame.height - kept.height


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


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
