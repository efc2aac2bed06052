"""Building a data set again from its manifest: finds its inputs, and says which rows are gone if it differs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import alignment as al
import ingestion
from alignment.dataset_writing import MANIFEST
from alignment.location import Location
from ingestion.dataset_files import DatasetFiles
from serving.errors import OptionError
from serving.files import read_parquet

if TYPE_CHECKING:
    from ingestion import Removal


@dataclass(frozen=True, kw_only=True)
class RebuildReport:
    """What became of building a data set again.

    Attributes:
        manifest: The manifest it was built from.
        dataset: The new build.
        same: Whether its content is the manifest's, bit for bit.
        problem: What differs; empty if nothing does.
        removals: Per provider, the rows that have left its log since, if the data set could see them.
        erasures: Erasures from the data set's own files that its manifest records.
    """

    manifest: str
    dataset: al.Dataset
    same: bool
    problem: str
    removals: dict[str, list[Removal]] = field(default_factory=dict)
    erasures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "manifest": self.manifest,
            "same": self.same,
            "rows": self.dataset.frame.height,
            "content_hash": self.dataset.manifest["content_hash"],
            "problem": self.problem,
            "removals": {name: [removal.to_dict() for removal in gone] for name, gone in self.removals.items()},
            "erasures": self.erasures,
        }

    def __str__(self) -> str:
        rows = f"{self.dataset.frame.height:,} rows, as of {self.dataset.manifest['as_of']}"
        if self.same:
            return f"same: {rows}, content {self.dataset.manifest['content_hash'][:16]}"
        lines = [f"not the same: {self.problem}", f"  rebuilt   {rows}"]
        lines += [
            f"  data set  erased {erasure['erased_time']}: {erasure['rows']:,} rows, digest {erasure['entity_hash']}"
            for erasure in self.erasures
        ]
        lines += [f"  {name}  {removal}" for name, gone in self.removals.items() for removal in gone]
        return "\n".join(lines)


def manifest_of(given: str | Path) -> str:
    """The manifest that a user means who names it or its folder: a path, or an address in an object store.

    Raises:
        AddressError: If the address holds a user or a password.
    """
    place = Location.of(given)
    named = place.folder.is_dir() if place.folder is not None else not place.address.endswith(".json")
    if named:
        return f"{str(given).rstrip('/')}/{MANIFEST}"
    return str(given)


def is_there(path: str) -> bool:
    """Whether there is a file at a path or an address."""
    folder, _, name = Location.of(path).address.rpartition("/")
    return Location(folder).exists(name)


def files_of(path: str, manifest: dict[str, Any]) -> DatasetFiles:
    """The files of a data set whose manifest is there."""
    return DatasetFiles(Location(Location.of(path).address.rpartition("/")[0]), manifest)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a data set.

    Args:
        path: The file, or its address.

    Returns:
        What it holds.

    Raises:
        OptionError: If it is not a manifest.
    """
    try:
        folder, _, name = Location.of(path).address.rpartition("/")
        manifest = json.loads(Location(folder).read(name))
    except ValueError as error:  # not JSON, or no text at all
        raise OptionError(
            f"{path} is not a manifest: {error}", "name the manifest.json that `dataset build` wrote"
        ) from error
    if not isinstance(manifest, dict) or "definitions" not in manifest:
        raise OptionError(f"{path} is not a manifest", "name the manifest.json that `dataset build` wrote")
    return manifest


def rebuild_dataset(path: str, *, logs: str | None = None, spine: Path | None = None) -> RebuildReport:
    """Build a data set again at the (t, p) of its manifest.

    Args:
        path: The manifest or its address; the data set's own files beside it give the spine.
        logs: Where the logs are now; None where the manifest says.
        spine: Parquet file with the spine, where the data set's own file is gone.

    Returns:
        What became of it.

    Raises:
        OptionError: If an input cannot be found from the manifest.
    """
    manifest = read_manifest(path)
    frames: dict[str, Any] = {}
    opened: dict[str, ingestion.ObservationLog] = {}
    for name, entry in manifest["inputs"].items():
        source = entry["source"]
        key = json.dumps(source, sort_keys=True)
        if "log" in source:
            if key not in opened:
                opened[key] = _open(source, logs, name)
            frames[name] = opened[key]
        else:
            frames[name] = _file(source, name, path)
    rebuilt = al.rebuild(manifest, _spine(manifest, path, spine), frames)
    removals = {} if rebuilt.same else _removals(manifest, frames)
    return RebuildReport(
        manifest=path,
        dataset=rebuilt.dataset,
        same=rebuilt.same,
        problem=rebuilt.problem,
        removals=removals,
        erasures=manifest.get("erasures", []),
    )


def _open(source: dict[str, Any], logs: str | None, name: str) -> ingestion.ObservationLog:
    provider = source["log"]
    address = str(source.get("address") or "")
    root = logs if logs is not None else address.removesuffix("/").removesuffix(f"/{provider}")
    if not root:
        raise OptionError(f"the manifest does not say where the log of {name!r} is", "say it: --logs FOLDER")
    return ingestion.open_log(root, provider)


def _file(source: dict[str, Any], name: str, manifest: str) -> Path:
    if "path" not in source:
        raise OptionError(
            f"{manifest}: {name!r} was read from a {source.get('frame', 'frame')} in memory, which is not kept",
            "build data sets from logs or Parquet files to rebuild them later; al.rebuild takes frames",
        )
    path = Path(source["path"])
    if not path.is_file():
        raise OptionError(f"{manifest}: {name!r} was read from {path}, which is not there", "put the file back")
    with path.open("rb") as file:
        if source.get("sha256") not in (None, hashlib.file_digest(file, "sha256").hexdigest()):
            raise OptionError(
                f"{manifest}: {name!r} was read from {path}, which has changed since", "put the old file back"
            )
    return path


def _spine(manifest: dict[str, Any], path: str, spine: Path | None) -> pl.DataFrame:
    columns = manifest["spine"]["columns"]
    if spine is not None:
        if not spine.is_file():
            raise OptionError(f"the spine's file {spine} is not there", "name it: --spine FILE")
        return read_parquet(spine, columns=columns)
    files = files_of(path, manifest)
    missing = [name for name in files.in_order() if not files.place.exists(name)]
    if missing:
        raise OptionError(
            f"the spine's file {files.place.address_of(missing[0])} is not there", "name it: --spine FILE"
        )
    names = files.in_order()
    if files.place.folder is not None and len(names) == 1:
        return read_parquet(files.place.folder / names[0], columns=columns)
    return files.place.patiently(files.scan().select(columns).collect)


def _removals(manifest: dict[str, Any], frames: dict[str, Any]) -> dict[str, list[Removal]]:
    """Removals of rows that the data set could see: their first sequence number is at most its position."""
    found: dict[str, list[Removal]] = {}
    for name, entry in manifest["inputs"].items():
        log = frames[name]
        if isinstance(log, ingestion.ObservationLog) and log.provider not in found:
            gone = [
                removal
                for removal in log.removals()
                if removal.log_sequences.height and removal.log_sequences["first"].min() <= entry["position"]
            ]
            if gone:
                found[log.provider] = gone
    return found
