"""Taking one entity out of what was served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from ingestion import ErasureError
from ingestion.dataset_files import matches
from ingestion.schema import to_stored
from serving.served.tables import LOCK, SERVED_DAY, ServedTable, list_tables


class ServedPlace:
    """Everything that was served below a root, for `ObservationLog.erase`.

    Days that hold the entity are written anew without it, and the files from before are deleted. A server that runs may still
    have answers about the entity in its queue, which it commits within a second: erase again after that.

    Args:
        root: The folder or address of the logs.
        storage_options: As for the logs.
    """

    name = "served vectors"

    def __init__(self, root: str | os.PathLike[str], *, storage_options: dict[str, str] | None = None) -> None:
        self._root = root
        self._options = storage_options

    def count(self, provider: str, entity: Mapping[str, Any]) -> int:
        """How many served vectors are the entity's, without changing anything."""
        return sum(
            int(table.scan().filter(held).select(pl.len()).collect().item())
            for table, held in self._holding(provider, entity)
        )

    def erase_entity(self, provider: str, entity: Mapping[str, Any]) -> int:
        """Remove the entity; returns how many vectors were its.

        Raises:
            ErasureError: If the store refuses.
        """
        rows = 0
        for table, held in self._holding(provider, entity):
            try:
                rows += _erase(table, held)
            except (DeltaError, OSError) as error:
                raise ErasureError(f"served vectors in {table.location.address}: {error}", "Erase again.") from error
        return rows

    def _holding(self, provider: str, entity: Mapping[str, Any]) -> list[tuple[ServedTable, pl.Expr]]:
        """The tables that can hold the entity, and which of their rows are its."""
        found = []
        for table in list_tables(self._root, storage_options=self._options):
            views = [view for view in table.views if view.provider == provider and set(entity) <= set(view.entities)]
            held = [
                matches({view.entities[name]: value for name, value in entity.items()}, table.schema) for view in views
            ]
            if held:
                found.append((table, pl.any_horizontal(held)))
        return found


def _erase(table: ServedTable, held: pl.Expr) -> int:
    place = table.location
    with table.root.lock(LOCK):
        counts = table.scan().filter(held).group_by(SERVED_DAY).len().collect()
        if not counts.height:
            return 0
        delta = DeltaTable(place.address, storage_options=place.storage_options)
        for day in counts[SERVED_DAY].to_list():
            kept = table.scan().filter(pl.col(SERVED_DAY) == day, ~held)
            stored = kept.select(to_stored(column) for column in table.columns).collect()
            write_deltalake(
                delta,
                stored.to_arrow(compat_level=pl.CompatLevel.oldest()),
                mode="overwrite",
                predicate=f"{SERVED_DAY} = '{day}'",
            )
        # The lock is held, so that no other process is about to commit a file that nothing names yet.
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=place.folder is not None)
        return int(counts["len"].sum())
