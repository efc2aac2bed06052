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
from deltalake.exceptions import DeltaError

from ingestion.compaction import delete_unreferenced
from ingestion.dataset_files import matches
from ingestion.datasets import Holding, erase_from_dataset, registered_datasets
from ingestion.errors import CommitError, ErasureError
from ingestion.evolution import ATTEMPTS
from ingestion.instants import from_us
from ingestion.naming import Names
from ingestion.reading import DROPPED, ERASED, OBSERVATION, POLL, QUARANTINED, records
from ingestion.removal import Removal, remove_rows
from ingestion.table import LogTable, LostRaceError

_TEXTS = ("notes", "error", "version", "parts", "cursor", "why")


@runtime_checkable
class ErasablePlace(Protocol):
    """Another place that may hold an entity, such as a ledger with samples of what was fetched."""

    @property
    def name(self) -> str:
        """What the place is called in the report."""
        ...

    def erase_entity(self, provider: str, entity: Mapping[str, Any]) -> int:
        """Remove the entity; returns how many rows or entries held it.

        Raises:
            ErasureError: If that cannot be done now; the report says so and is not complete.
        """
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
    # Other places first: what one of them passes on to the log meanwhile is erased there.
    holdings = [held for place in places if (held := _erase_from(place, table.provider, entity)) is not None]
    with table.maintenance_lock():
        removal, found = _erase_rows(table, entity, digest)
        holdings = [*found, *holdings]
        files, _size = delete_unreferenced(table)
        pending = _unreferenced(table)
    naming = _batches_naming(table, entity)
    if naming:
        note = f"{naming} batch ids contain the value; choose ids that name nobody"
        holdings.append(Holding(place="batch ids", address=table.location.address, rows=0, note=note))
    now = from_us(table.now_us())
    for manifest in registered_datasets(root, storage_options=table.location.storage_options):
        held = _erase_from_dataset(manifest, entity, digest, now)
        holdings += [held] if held is not None else []
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


def _erase_from(place: ErasablePlace, provider: str, entity: Mapping[str, Any]) -> Holding | None:
    try:
        rows = place.erase_entity(provider, entity)
    except ErasureError as error:
        return Holding(place=place.name, address="", rows=0, note=" ".join(filter(None, (error.problem, error.hint))))
    return Holding(place=place.name, address="", rows=rows) if rows else None


def _erase_from_dataset(manifest: str, entity: Mapping[str, Any], digest: str, now: datetime) -> Holding | None:
    """One data set out of reach keeps the entity in no other."""
    try:
        return erase_from_dataset(manifest, entity, entity_hash=digest, now=now)
    except (DeltaError, OSError, ValueError, pl.exceptions.PolarsError) as error:
        note = (
            f"it was not erased there: {str(error).partition(chr(10))[0]}; erase again once it can be read and written"
        )
        return Holding(place="data set", address=manifest, rows=0, note=note)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a log holds of an entity.

    Attributes:
        doomed: The rows that leave.
        reworded: `log_sequence` and `record_detail` of the records that stay, without the entity's values.
        holdings: The same in numbers.
    """

    doomed: pl.LazyFrame
    reworded: pl.DataFrame
    holdings: list[Holding]


def holdings_in_log(table: LogTable, entity: Mapping[str, Any]) -> list[Holding]:
    """What a log holds of an entity: rows, quarantined rows, and records of polls that name it.

    Raises:
        ErasureError: If a name is not an entity column, or a value is null.
    """
    table.refresh()
    _check_entity(table, entity)
    return _find(table, entity).holdings


def _find(table: LogTable, entity: Mapping[str, Any]) -> _Found:
    names = Names(entity)
    known = {column.name: column for column in table.columns}
    everything = table.read(table.files()["path"].to_list())
    own = pl.lit(value=False)
    if set(entity) <= set(known):
        own = matches(entity, {name: known[name].stored for name in entity})
    own_rows = everything.filter(own).select("log_sequence", "record_kind").collect()
    observed = own_rows["record_kind"] == OBSERVATION
    keyless, reasons = _keyless_naming(table, names, [name for name in entity if name in known], entity)
    texts, cursor = _texts_naming(table, names)
    # a quarantined row whose key could not be read is the entity's if what came names it
    doomed = everything.filter(own | pl.col("log_sequence").is_in(keyless))
    counts = {"log": int(observed.sum()), "quarantine": own_rows.height - int(observed.sum()) + len(keyless)}
    counts |= {"records": len(texts) + len(reasons)}
    address = table.location.address
    holdings = [Holding(place=place, address=address, rows=rows) for place, rows in counts.items() if rows]
    if any(label for _, label in texts.values()):
        note = "files whose names contained the value are read again if they are still there; delete them"
        holdings.append(Holding(place="file names", address=address, rows=0, note=note))
    if cursor:
        note = "the last poll's cursor contains the value, and the next poll goes on from there; erase again after it"
        holdings.append(Holding(place="cursor", address=address, rows=0, note=note))
    reworded = {**reasons, **{sequence: text for sequence, (text, _) in texts.items()}}
    schema = {"log_sequence": pl.Int64, "record_detail": pl.String}
    return _Found(doomed, pl.DataFrame(list(reworded.items()), schema=schema, orient="row"), holdings)


def _keyless_naming(
    table: LogTable, names: Names, columns: Sequence[str], entity: Mapping[str, Any]
) -> tuple[list[int], dict[int, str]]:
    """Quarantined records without a whole key: those that name the entity in what came, and the others without it.

    A record whose key is known is that entity's, whatever its other columns say, like any row of the log.

    Returns:
        The sequence numbers of the first; of those with only a reason that names it, the detail without it.
    """
    keyless = records(table, QUARANTINED)
    if len(columns) == len(entity):
        keyless = keyless.filter(pl.any_horizontal(pl.col(name).is_null() for name in columns))
    gone: list[int] = []
    reworded: dict[int, str] = {}
    for sequence, text in keyless.select("log_sequence", "record_detail").collect().iter_rows():
        detail = json.loads(text)
        if not names.json([detail["payload"], detail["reason"]]):
            continue
        if names.partly_in(detail["payload"]):
            gone.append(sequence)
        else:
            detail["reason"] = names.redacted(detail["reason"])
            reworded[sequence] = json.dumps(detail, ensure_ascii=False)
    return gone, reworded


def _texts_naming(table: LogTable, names: Names) -> tuple[dict[int, tuple[str, bool]], bool]:
    """Records of polls and decisions whose texts name the entity, without it.

    Returns:
        By sequence number the detail as it shall be, and whether a part's label is among the texts; whether the last
        poll's cursor names the entity: it stays, for without it the next poll would not go on where it should.
    """
    found: dict[int, tuple[str, bool]] = {}
    last = table.last_poll_record()
    cursor = False
    for kind in (POLL, DROPPED):
        for sequence, text in records(table, kind).select("log_sequence", "record_detail").collect().iter_rows():
            detail = json.loads(text)
            own = {name: detail[name] for name in _TEXTS if name in detail}
            if sequence == last:
                cursor = names.json(own.pop("cursor", None))
            if names.json(own):
                clean = {**detail, **_redacted(own, names)}
                found[sequence] = json.dumps(clean, ensure_ascii=False), names.json(own.get("parts"))
    return found, cursor


def _redacted(value: Any, names: Names) -> Any:
    if isinstance(value, dict):
        return {name: _redacted(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner, names) for inner in value]
    return names.redacted(value) if isinstance(value, str) else value


def _erase_rows(table: LogTable, entity: Mapping[str, Any], digest: str) -> tuple[Removal | None, list[Holding]]:
    for _attempt in range(ATTEMPTS):
        table.refresh()
        found = _find(table, entity)
        try:
            removal = remove_rows(table, found.doomed, "erasure", ERASED, digest, reworded=found.reworded)
        except LostRaceError:
            continue
        return removal, found.holdings
    raise CommitError(table.provider, ATTEMPTS, "other commits kept coming first")


def _unreferenced(table: LogTable) -> list[str]:
    needed = set(table.files()["path"])
    return [name for name in table.location.names() if name.endswith(".parquet") and name not in needed]


def _batches_naming(table: LogTable, entity: Mapping[str, Any]) -> int:
    names = Names(entity)
    ids = table.read(table.files()["path"].to_list()).select(pl.col("batch_id").unique()).collect()
    return sum(names.text(batch_id) for batch_id in ids["batch_id"])


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
