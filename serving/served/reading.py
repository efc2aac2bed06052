"""Reading what was served: for people, for lineage, and as a training set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

import alignment as al
from ingestion import open_log
from serving.errors import OptionError
from serving.served.tables import PAST, PREDICTION_TIME, SERVED_DAY, SERVED_TIME, STATUS, ServedTable, list_tables


def read_served(
    root: str,
    definition: str | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    storage_options: dict[str, str] | None = None,
) -> pl.DataFrame:
    """The vectors that were served.

    Args:
        root: The logs.
        definition: Name of one table below `_served`; None reads them all.
        since: Leave out what was served before.
        until: Leave out what was served at this instant or later.
        storage_options: Of the root.

    Returns:
        Entity columns, `prediction_time`, features each with its `__status` (null where it was not asked for),
        `served_positions` (a struct, by provider), `served_definition`, `served_past` (whether an instant in the past was asked
        for), `served_time`, `served_by`; in the order of `served_time`. Columns that a table lacks are null.

    Raises:
        OptionError: If there is no such table.
    """
    frames = []
    for table in _named(root, definition, storage_options):
        rows = table.scan().drop(SERVED_DAY)
        if since is not None:
            rows = rows.filter(pl.col(SERVED_TIME) >= since)
        if until is not None:
            rows = rows.filter(pl.col(SERVED_TIME) < until)
        frames.append(rows.collect())
    return (
        pl.concat(frames, how="diagonal_relaxed").sort(SERVED_TIME, maintain_order=True) if frames else pl.DataFrame()
    )


def last_served(root: str, *, storage_options: dict[str, str] | None = None) -> dict[str, datetime]:
    """When each feature was last served, by its column's name; features that never were are not in it."""
    found: dict[str, datetime] = {}
    for table in list_tables(root, storage_options=storage_options):
        latest = table.scan().select(
            pl.col(SERVED_TIME).filter(pl.col(name + STATUS).is_not_null()).max().alias(name) for name in table.features
        )
        for name, instant in latest.collect().row(0, named=True).items():
            if instant is not None:
                found[name] = max(instant, found.get(name, instant))
    return found


def training_frame(
    root: str,
    label: al.Label,
    *,
    as_of: datetime | None = None,
    definition: str | None = None,
    views: Sequence[al.FeatureView] | None = None,
    storage_options: dict[str, str] | None = None,
) -> pl.DataFrame:
    """What was served, with what came true: a training set by "log and wait".

    Answers about an instant in the past, and vectors that were served in part, are left out.

    Args:
        root: The logs.
        label: What `al.label` returned.
        as_of: Nothing of the label that arrived later counts; None is the greatest arrival.
        definition: Name of the table below `_served`, if there are several.
        views: Where the label's column is looked for if the label does not say; None takes those that were served.
        storage_options: Of the root.

    Returns:
        Entity columns, `prediction_time`, the features as they were served, and the label's three columns.

    Raises:
        OptionError: If there is no such table, or more than one.
    """
    tables = _named(root, definition, storage_options)
    if len(tables) != 1:
        names = "; ".join(f"{table.name} ({', '.join(v.name for v in table.views)})" for table in tables) or "nothing"
        raise OptionError(
            f"{root!r} holds vectors of {len(tables)} definitions: {names}",
            "choose one: definition='...'" if tables else "serve first: asknown serve ... --served-log",
        )
    (table,) = tables
    served = (
        table.scan()
        .filter(~pl.col(PAST), *(pl.col(name + STATUS).is_not_null() for name in table.features))
        .select(*table.entities, PREDICTION_TIME, *table.features)
        .collect()
    )
    if views is None:
        roots = {view.provider: view.address.removesuffix(f"/{view.provider}") for view in table.views}
        logs = {name: open_log(there, name, storage_options=storage_options) for name, there in roots.items()}
        views = [view.over(logs[view.provider]) for view in table.views]
    came_true = al.build_dataset(served.select(*table.entities, PREDICTION_TIME), views, label=label, as_of=as_of)
    return served.hstack(came_true.frame.select(label.columns))


def _named(root: str, definition: str | None, storage_options: dict[str, str] | None) -> list[ServedTable]:
    tables = list_tables(root, storage_options=storage_options)
    if definition is None:
        return tables
    found = [table for table in tables if table.name == definition]
    if not found:
        raise OptionError(
            f"no vectors of {definition!r} are kept at {root!r}",
            f"there are {', '.join(table.name for table in tables) or 'none'}",
        )
    return found
