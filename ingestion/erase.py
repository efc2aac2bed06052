"""Taking one entity out of everything: log, quarantine, older versions, data sets, other places."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import polars as pl

from ingestion.compaction import delete_unreferenced
from ingestion.datasets import Holding, erase_from_dataset, matches, registered_datasets
from ingestion.errors import CommitError, ErasureError
from ingestion.evolution import ATTEMPTS
from ingestion.instants import from_us
from ingestion.reading import ERASED, OBSERVATION
from ingestion.removal import Removal, remove_rows
from ingestion.table import LogTable, LostRaceError


@runtime_checkable
class ErasablePlace(Protocol):
    """Another place that may hold an entity, such as a ledger with samples of what was fetched."""

    @property
    def name(self) -> str:
        """What the place is called in the report."""
        ...

    def erase_entity(self, provider: str, entity: Mapping[str, Any]) -> int:
        """Remove the entity; returns how many rows or entries held it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReport:
    """What held an entity, and what is left.

    Attributes:
        provider: Whose log.
        entity_hash: The salted digest under which the log remembers the erasure; `is_hash_of` compares.
        erased_time: When.
        holdings: Every place that held the entity.
        removal: The record in the log; `None` if the log held nothing.
        files_deleted: Data files that were deleted, those of older versions included.
        pending: Files that could not be deleted yet, because a writer elsewhere may be about to commit them.
    """

    provider: str
    entity_hash: str
    erased_time: datetime
    holdings: tuple[Holding, ...]
    removal: Removal | None
    files_deleted: int
    pending: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows were removed, over all places."""
        return sum(holding.rows for holding in self.holdings)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.pending and not any(holding.note for holding in self.holdings)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "provider": self.provider,
            "entity_hash": self.entity_hash,
            "erased_time": self.erased_time.isoformat(),
            "rows": self.rows,
            "holdings": [asdict(holding) for holding in self.holdings],
            "removal": self.removal.to_dict() if self.removal else None,
            "files_deleted": self.files_deleted,
            "pending": list(self.pending),
            "complete": self.complete,
        }

    def __str__(self) -> str:
        lines = [f"{self.provider}: {self.rows:,} rows erased, {self.files_deleted} old files deleted"]
        lines += [
            f"  {holding.place} {holding.address}: {holding.rows:,} rows"
            + (f" ({holding.note})" if holding.note else "")
            for holding in self.holdings
        ]
        if self.removal:
            lines.append(f"  record {self.removal.log_sequence}, digest {self.entity_hash}")
        if self.pending:
            lines.append(f"  {len(self.pending)} files wait for writers elsewhere; run the erasure again in an hour")
        return "\n".join(lines)


def erase(
    table: LogTable, root: str, entity: Mapping[str, Any], *, places: Sequence[ErasablePlace] = ()
) -> ErasureReport:
    """Remove an entity from every file and every older version of a log, and from what was made of it.

    Positions stay, and no other entity's answer changes. A record of the erasure stays: a salted digest of the entity
    and the sequence numbers of its rows. It can be run again at any time and finishes what a crash left undone.

    Args:
        table: The log.
        root: The address of the logs, where data sets are registered.
        entity: Entity columns and their values; fewer than all columns take every entity with these values.
        places: Other places that may hold it.

    Returns:
        What held it.

    Raises:
        ErasureError: If a name is not an entity column, or a value is null.
        CommitError: If other commits kept coming first.
    """
    table.refresh()
    _check_entity(table, entity)
    digest = entity_digest(entity, secrets.token_hex(8))
    holdings: list[Holding] = []
    with table.maintenance_lock():
        removal, counts = _erase_rows(table, entity, digest)
        holdings += [Holding(place=place, address=table.location.address, rows=rows) for place, rows in counts if rows]
        files, _size = delete_unreferenced(table)
        pending = _unreferenced(table)
    naming = _batches_naming(table, entity)
    if naming:
        note = f"{naming} batch ids contain the value; choose ids that name nobody"
        holdings.append(Holding(place="batch ids", address=table.location.address, rows=0, note=note))
    now = from_us(table.now_us())
    for manifest in registered_datasets(root, storage_options=table.location.storage_options):
        held = erase_from_dataset(manifest, entity, entity_hash=digest, now=now)
        holdings += [held] if held is not None else []
    for place in places:
        rows = place.erase_entity(table.provider, entity)
        holdings += [Holding(place=place.name, address="", rows=rows)] if rows else []
    return ErasureReport(
        provider=table.provider,
        entity_hash=digest,
        erased_time=now,
        holdings=tuple(holdings),
        removal=removal,
        files_deleted=files,
        pending=tuple(pending),
    )


def _check_entity(table: LogTable, entity: Mapping[str, Any]) -> None:
    names = table.definition.entities
    strange = [name for name in entity if name not in names]
    if strange or not entity:
        shown = strange[0] if strange else "(nothing)"
        raise ErasureError(
            f"provider {table.provider!r} has no entity column {shown!r}",
            f"name the entity by {', '.join(map(repr, names)) or 'nothing: the log is one series'}.",
        )
    empty = [name for name, value in entity.items() if value is None]
    if empty:
        raise ErasureError(f"the value of {empty[0]!r} is null", "rows without a key are in the quarantine.")


def _erase_rows(
    table: LogTable, entity: Mapping[str, Any], digest: str
) -> tuple[Removal | None, list[tuple[str, int]]]:
    for _attempt in range(ATTEMPTS):
        table.refresh()
        known = {column.name: column for column in table.columns}
        if not set(entity) <= set(known):
            return None, []
        stored = {name: known[name].stored for name in entity}
        doomed = table.read(table.files()["path"].to_list()).filter(matches(entity, stored))
        observed = pl.col("record_kind") == OBSERVATION
        log_rows, quarantined = doomed.select(observed.sum().alias("a"), (~observed).sum().alias("b")).collect().row(0)
        try:
            removal = remove_rows(table, doomed, "erasure", ERASED, digest)
        except LostRaceError:
            continue
        return removal, [("log", log_rows), ("quarantine", quarantined)]
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


def _unreferenced(table: LogTable) -> list[str]:
    needed = set(table.files()["path"])
    return [name for name in table.location.names() if name.endswith(".parquet") and name not in needed]


def _batches_naming(table: LogTable, entity: Mapping[str, Any]) -> int:
    texts = [value for value in entity.values() if isinstance(value, str) and value]
    if not texts:
        return 0
    ids = table.read(table.files()["path"].to_list()).select(pl.col("batch_id").unique()).collect()
    return int(ids.select(pl.col("batch_id").str.contains_any(texts).sum()).item() or 0)


def entity_digest(entity: Mapping[str, Any], salt: str) -> str:
    """A salted digest of an entity: it does not say who, but whoever knows the entity can compare."""
    plain = json.dumps({name: str(value) for name, value in sorted(entity.items())})
    return f"{salt}:{hashlib.blake2b((salt + plain).encode(), digest_size=16).hexdigest()}"


def is_hash_of(entity_hash: str, entity: Mapping[str, Any]) -> bool:
    """Whether an erasure's digest is that of `entity`.

    Example:
        >>> is_hash_of(entity_digest({"person": "p-17"}, "5a17"), {"person": "p-17"})
        True
    """
    return secrets.compare_digest(entity_hash, entity_digest(entity, entity_hash.split(":", 1)[0]))
