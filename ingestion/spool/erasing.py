"""Taking one entity out of a spool: what waits there would come into the log after the erasure."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ingestion.errors import ErasureError, SpoolLockedError
from ingestion.instants import Clock, system_clock
from ingestion.naming import ARROW_FILE, ARROW_STREAM, GZIP, Names, read_table, text_of
from ingestion.spool.frames import Record, mark_of, members, scan
from ingestion.spool.keys import JOURNAL
from ingestion.spool.wal import Spool


class SpoolPlace:
    """A spool's folder, for `ObservationLog.erase`.

    Segments are written anew without the entity's rows, damaged pieces that name it are deleted, keys that name it are
    forgotten. A record whose rows are all gone stays without content, so that what it confirmed to a sender or a broker
    stays confirmed, and it is not sent again.

    Args:
        folder: The spool's folder; it need not be there.
        clock: Something that tells now.
    """

    name = "spool"

    def __init__(self, folder: str | os.PathLike[str], *, clock: Clock = system_clock) -> None:
        self._folder = Path(folder)
        self._clock = clock

    def count(self, provider: str, entity: Mapping[str, Any]) -> int:
        """How many rows, damaged pieces and keys are the entity's, without changing anything."""
        names = Names(entity)
        found = sum(names.content(path.read_bytes()) for path in self._damaged())
        for path in self._folder.glob("*.wal"):
            scanned = scan(path.read_bytes(), mark_of(path.stem))
            for record in (inner for outer in scanned.records for inner in members(outer)):
                found += _without(record, provider, names)[1]
        journal = self._folder / JOURNAL
        lines = journal.read_bytes().splitlines() if journal.exists() else []
        return found + sum(_is_key_of(provider, names, *_key_in(line)) for line in lines)

    def erase_entity(self, provider: str, entity: Mapping[str, Any]) -> int:
        """Remove the entity from the folder; returns how many rows, damaged pieces and keys were its.

        Raises:
            ErasureError: If a running job has the folder, and something of the entity waits there.
            OSError: If a file cannot be read or written.
        """
        if not self._folder.is_dir():
            return 0
        try:
            spool = Spool(self._folder, clock=self._clock)
        except SpoolLockedError as error:
            if not self.count(provider, entity):
                return 0
            raise ErasureError(
                f"{error.problem}, and something of the entity is in it",
                "Let the job store what waits, or stop it; then erase again.",
            ) from error
        names = Names(entity)
        with spool:
            rows = 0
            for segment in spool.sealed():
                held = [_without(record, provider, names) for record in spool.read(segment)]
                if any(count for _, count in held):
                    rows += sum(count for _, count in held)
                    spool.rewrite(segment, [record for record, _ in held])
            for path in self._damaged():
                if names.content(path.read_bytes()):
                    path.unlink()
                    rows += 1
            for draft in self._folder.glob("*.new"):  # of a write that a crash cut off
                draft.unlink()
            return rows + spool.forget_keys(lambda scope, key: _is_key_of(provider, names, scope, key))

    def _damaged(self) -> list[Path]:
        return sorted((self._folder / "damaged").glob("*"))


def _is_key_of(provider: str, names: Names, scope: str, key: str) -> bool:
    return scope.endswith(f"/{provider}") and names.text(key)


def _key_in(line: bytes) -> tuple[str, str]:
    try:
        scope, key, *_ = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError):
        return "", ""
    return str(scope), str(key)


def _without(record: Record, provider: str, names: Names) -> tuple[Record, int]:
    """A record without an entity's rows, and how many those were; at least one if only its header names the entity."""
    header = record.header
    if header.provider != provider:
        return record, 0
    named = names.text(header.label) or names.text(header.problem)
    content, rows = (b"", 0) if named else _left(record, names)
    if content == record.payload and not named and not names.text(header.key or ""):
        return record, 0
    key = None if names.text(header.key or "") else header.key
    changes: dict[str, Any] = {"key": key, "rows": rows, "label": names.redacted(header.label)}
    if not content:
        changes |= {"form": "ndjson", "media_type": "", "problem": "", "rows": 0}
    return Record(msgspec.structs.replace(header, **changes), content), max(1, header.rows - changes["rows"])


def _left(record: Record, names: Names) -> tuple[bytes, int]:
    """A record's content without the entity's rows, and how many rows that has."""
    content, rows = record.payload, record.header.rows
    if record.header.form == "ndjson":
        lines = content.split(b"\n") if content else []
        kept = [line for line in lines if not names.row(_decoded(line))]
        return (content, rows) if len(kept) == len(lines) else (b"\n".join(kept), len(kept))
    if record.header.form == "raw":
        return (b"", 0) if names.content(content) else (content, rows)
    return _document(content, rows, names)


def _document(content: bytes, rows: int, names: Names) -> tuple[bytes, int]:
    """A table without the entity's rows, JSON without its objects; whole, or nothing, if it cannot be taken apart."""
    if content.startswith(GZIP):
        plain, left = _document(text_of(content).encode(), rows, names)
        return (content, rows) if left == rows else (gzip.compress(plain) if plain else b"", left)
    table = read_table(content)
    if table is not None:
        stays = pl.Series([not names.row(row) for row in table.iter_rows(named=True)], dtype=pl.Boolean)
        return (content, rows) if stays.all() else (_table_like(content, table.filter(stays)), int(stays.sum()))
    if not names.content(content):
        return content, rows
    try:
        pruned, gone = _pruned(json.loads(content), names)
    except (ValueError, RecursionError):
        return b"", 0
    if gone == 0 or names.json(pruned):
        return b"", 0
    return json.dumps(pruned, ensure_ascii=False).encode(), max(0, rows - gone)


def _table_like(content: bytes, table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    if content.startswith(ARROW_STREAM):
        table.write_ipc_stream(buffer)
    elif content.startswith(ARROW_FILE):
        table.write_ipc(buffer)
    else:
        table.write_parquet(buffer)
    return buffer.getvalue()


def _pruned(value: Any, names: Names) -> tuple[Any, int]:
    """JSON whose lists lack the objects that are the entity's rows, and how many those were."""
    if isinstance(value, dict):
        parts = {name: _pruned(inner, names) for name, inner in value.items()}
        return {name: inner for name, (inner, _) in parts.items()}, sum(gone for _, gone in parts.values())
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, dict) and names.row(item))]
        return kept, len(value) - len(kept)
    return value, 0


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line.decode("utf-8", "replace")
