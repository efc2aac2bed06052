"""Whether an object store refuses the second of two commits: without that, commits are lost, and nothing else tells."""

from __future__ import annotations

import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.schema import PrimitiveType

from ingestion.errors import UnsafeStoreError
from ingestion.storage import Location

WRITERS, ROUNDS = 3, 3
FOLDER = "_asknown"
_SCHEMA = Schema([Field("number", PrimitiveType("long"))])


def refuse_unsafe_store(base: Location) -> None:
    """Let some writers race for versions of a table of their own; each version may have one winner.

    A store that ignores `If-None-Match: *` takes both of two puts that come at once. The table is deleted afterwards.

    Args:
        base: The address of the logs; on a folder of this machine there is nothing to find out.

    Raises:
        UnsafeStoreError: If two writers made the same version.
        StoreError: If the store cannot be written at all.
    """
    if base.folder is not None:
        return
    place = base.child(FOLDER, f"check-{uuid.uuid4().hex}")
    try:
        with base.plainly():
            DeltaTable.create(place.address, _SCHEMA, mode="error", storage_options=base.storage_options)
        with ThreadPoolExecutor(WRITERS) as pool:
            for number in range(1, ROUNDS + 1):
                tables = [DeltaTable(place.address, storage_options=base.storage_options) for _ in range(WRITERS)]
                start = threading.Barrier(WRITERS)
                won = sum(pool.map(lambda table: _wins(table, number, start), tables))  # noqa: B023 - done before the next
                if won > 1:
                    raise UnsafeStoreError(base.address)
    finally:
        with contextlib.suppress(DeltaError, OSError):
            _delete(place)


def _wins(table: DeltaTable, number: int, start: threading.Barrier) -> bool:
    properties = CommitProperties(max_commit_retries=0, app_transactions=[Transaction("check", number)])
    start.wait()
    try:
        table.create_write_transaction([], mode="append", schema=_SCHEMA, partition_by=[], commit_properties=properties)
    except (DeltaError, OSError):
        return False
    return True


def _delete(place: Location) -> None:
    found = place.patiently(lambda: place.filesystem().get_file_info(pafs.FileSelector("", recursive=True)))
    for info in found:
        if info.type == pafs.FileType.File:
            place.remove(info.path)
