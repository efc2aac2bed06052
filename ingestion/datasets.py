"""Data sets that were written from a log's rows, so that an erasure finds them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from alignment.dataset_writing import manifest_bytes
from ingestion.dataset_files import DatasetFiles, Facts
from ingestion.storage import Location

FOLDER = "_datasets"
UNFINISHED = "unfinished"


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
        manifest_path: The data set's manifest, a JSON file beside its Parquet files, in a folder or an object store.
        storage_options: Of the log's root.
    """
    path = Location.of(manifest_path).address
    name = hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
    base = Location.of(root, storage_options)
    base.write(f"{FOLDER}/{name}.json", json.dumps({"manifest": path}).encode())


def registered_datasets(root: str | os.PathLike[str], *, storage_options: dict[str, str] | None = None) -> list[str]:
    """The manifests that were registered at a root, as paths and addresses in alphabetical order."""
    base = Location.of(root, storage_options)
    entries = [name for name in base.names(FOLDER) if name.endswith(".json")]
    return sorted(json.loads(base.read(f"{FOLDER}/{name}"))["manifest"] for name in entries)


def held_in_dataset(manifest_path: str | os.PathLike[str], entity: Mapping[str, Any]) -> Holding | None:
    """What a data set holds of an entity now; `None` if nothing, or if there is no such data set any more.

    Args:
        manifest_path: The manifest: a path, or an address in an object store.
        entity: Column names and values; a file without these columns cannot hold it.
    """
    place, name = _parted(manifest_path)
    if not place.exists(name):
        return None
    text = place.read(name).decode()
    rows = sum(DatasetFiles(place, json.loads(text)).held(entity).values())
    return _holding(place, name, rows, text, entity)


def erase_from_dataset(
    manifest_path: str | os.PathLike[str], entity: Mapping[str, Any], *, entity_hash: str, now: datetime
) -> Holding | None:
    """Rewrite a data set's files without an entity's rows, and note that in the manifest.

    The manifest says first that it is being done, so that what a crash left undone is finished next time.

    Args:
        manifest_path: The manifest: a path, or an address in an object store.
        entity: Column names and values; a file without these columns cannot hold it.
        entity_hash: The salted digest that the note names it by.
        now: When.

    Returns:
        What was there; `None` if it held nothing.

    Raises:
        DeltaError: If a store failed.
        OSError: Likewise.
        PolarsError: If a file cannot be read.
        ValueError: If the manifest is none.
    """
    place, name = _parted(manifest_path)
    if not place.exists(name):
        return None
    text = place.read(name).decode()
    manifest = json.loads(text)
    files = DatasetFiles(place, manifest)
    held = files.held(entity)
    notes = manifest.get("erasures", [])
    crashed = any(note.get(UNFINISHED) for note in notes)
    if held or crashed:
        new = {old: files.new_name(old) for old in held}
        for entry in manifest.get("files", []):
            if entry.get("name") in new:
                entry["replaced_by"] = new[entry["name"]]
        if held:
            note = {"erased_time": now.isoformat(), "rows": sum(held.values()), "entity_hash": entity_hash}
            manifest["erasures"] = [*notes, {**note, UNFINISHED: True}]
            place.write(name, manifest_bytes(manifest))
        facts = {target: files.rewrite(old, target, entity) for old, target in new.items()}
        files.commit(new, facts)
        files.remove_leftovers()
        _finish(manifest, files, facts, anew=crashed)
        place.write(name, manifest_bytes(manifest))
    return _holding(place, name, sum(held.values()), text, entity)


def _finish(manifest: dict[str, Any], files: DatasetFiles, facts: Mapping[str, Facts], *, anew: bool) -> None:
    """Let a manifest say what is true of its files now.

    Args:
        manifest: To be changed.
        files: What there is.
        facts: Of the files that were written.
        anew: Whether others may have been written before, by an erasure that was not finished.
    """
    there = set(files.names())
    entries = []
    for entry in manifest.get("files", []):
        target = entry.pop("replaced_by", entry.get("name"))
        found = target if target in there else entry.get("name")
        if found not in there:
            if found is None:
                entries.append(entry)
            continue  # all its rows were the entity's
        known = facts.get(found) or (files.facts(found) if anew else None)
        entries.append(entry if known is None else {**entry, "name": found, "rows": known.rows, "sha256": known.sha256})
    if "files" in manifest:
        manifest["files"] = entries
    data = str(manifest.get("data", ""))
    if "data_sha256" in manifest and data in there:
        known = facts.get(data) or (files.facts(data) if anew else None)
        manifest["data_sha256"] = manifest["data_sha256"] if known is None else known.sha256
    for note in manifest.get("erasures", []):
        note.pop(UNFINISHED, None)


def _parted(manifest_path: str | os.PathLike[str]) -> tuple[Location, str]:
    """Where a manifest is, and its name."""
    folder, _, name = Location.of(manifest_path).address.rpartition("/")
    return Location(folder), name


def _holding(place: Location, name: str, rows: int, text: str, entity: Mapping[str, Any]) -> Holding | None:
    named = any(json.dumps(value) in text for value in entity.values() if isinstance(value, str))
    note = "the manifest's own text names the entity; write it anew" if named else ""
    return Holding(place="data set", address=place.address_of(name), rows=rows, note=note) if rows or named else None
