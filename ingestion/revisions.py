"""What the log already knows about a batch's keys, asked inside the commit loop.

Three rules need it: history never displaces a measured revision (R13), a provider may drop what repeats its key's
current revision, and an id that moves to another entity leaves a retraction behind (R4).
"""

from __future__ import annotations

import polars as pl

from ingestion.errors import BackfillRefusedError
from ingestion.reading import Question, stored_rows
from ingestion.schema import INSTANT
from ingestion.table import Head, LogTable

_NEW, _ORDER, _SAME = "__new", "__order", "__same"


def known_rows(table: LogTable, rows: pl.DataFrame, key: list[str]) -> pl.LazyFrame:
    """The log's observation rows whose key is also in `rows`, as stored.

    Where the event is part of the key, files outside the batch's events are not opened.
    """
    by_event = table.definition.key is None
    low, high = rows.select(pl.col("event_time").min(), pl.col("event_time").max().alias("high")).row(0)
    bounded = by_event and low is not None
    epoch = pl.DataFrame({"low": [low], "high": [high]}, schema={"low": INSTANT, "high": INSTANT})
    low_us, high_us = epoch.select(pl.all().to_physical()).row(0)
    question = Question(
        position=table.head().next_sequence - 1,
        event_from_us=low_us if bounded else None,
        event_until_us=high_us if bounded else None,
    )
    keys = table.logical_to_stored(rows).select(key).unique()
    return stored_rows(table, question).join(keys.lazy(), on=key, how="semi", nulls_equal=True)


def skip_known_history(table: LogTable, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`rows` without declared or modelled ones whose key has a measured revision, and how many those were."""
    history = rows.filter(pl.col("arrival_kind") != "measured")
    if history.is_empty():
        return rows, 0
    key = table.definition.revision_columns
    measured = known_rows(table, history, key).filter(pl.col("arrival_kind") == "measured").select(key).unique()
    own = table.logical_to_stored(rows).filter(pl.col("arrival_kind") == "measured").select(key)
    taken = pl.concat([measured.collect(), own]).unique()
    stored = table.logical_to_stored(rows).select(*key, "arrival_kind", __n=pl.int_range(pl.len()))
    clash = stored.filter(pl.col("arrival_kind") != "measured").join(taken, on=key, how="semi", nulls_equal=True)
    if clash.is_empty():
        return rows, 0
    keep = ~pl.int_range(pl.len()).is_in(clash["__n"].implode())
    return rows.filter(keep), clash.height


def refuse_between(table: LogTable, rows: pl.DataFrame, head: Head) -> None:
    """Refuse arrivals not after the provider's last one, for keys that have a measured revision.

    A dropped row may have confirmed a value at any instant up to the last arrival; a revision before that would seem to
    have been current ever since.

    Raises:
        BackfillRefusedError: If there are such rows.
    """
    early = rows.filter(pl.col("arrival_time").to_physical() <= head.last_stamp_us)
    if early.is_empty():
        return
    key = table.definition.key_columns
    measured = known_rows(table, early, key).filter(pl.col("arrival_kind") == "measured").select(key).unique().collect()
    clash = table.logical_to_stored(early).join(measured, on=key, how="semi", nulls_equal=True)
    if clash.height:
        first = clash.select(*key, pl.col("arrival_time").cast(pl.String)).row(0, named=True)
        shown = ", ".join(f"{name}={value}" for name, value in first.items())
        raise BackfillRefusedError(table.provider, clash.height, shown)


def drop_unchanged(table: LogTable, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`rows` without those that repeat their key's current revision bit for bit, and how many those were.

    A row is compared with the revision before it, be that in the log or earlier in the same batch.
    """
    if rows.is_empty():
        return rows, 0
    key = table.definition.key_columns
    compared = [column.name for column in table.columns if column.name not in key]
    compared += [name for name in ("event_time", "is_retraction") if name not in key]
    current = (
        known_rows(table, rows, key)
        .sort("arrival_time", "log_sequence")
        .group_by(key, maintain_order=True)
        .last()
        .select(*key, *compared, pl.lit(-1, pl.Int64).alias(_ORDER))
        .collect()
    )
    new = table.logical_to_stored(rows).with_columns(pl.col("is_retraction").fill_null(value=False))
    order = new.select(pl.struct("arrival_time", pl.int_range(pl.len()).alias("n")).rank("ordinal").cast(pl.Int64) - 1)
    new = new.select(*key, *compared, order.to_series().alias(_ORDER)).with_row_index(_NEW)
    both = pl.concat([current.with_columns(pl.lit(None, pl.UInt32).alias(_NEW)).select(new.columns), new])
    both = both.sort(*key, _ORDER)
    same = [_bits(both.schema[name], name).eq_missing(_bits(both.schema[name], name).shift(1)) for name in compared]
    same_key = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key]
    first = pl.int_range(pl.len()) == 0
    repeats = both.with_columns((pl.all_horizontal(*same, *same_key) & ~first).alias(_SAME)).filter(
        pl.col(_SAME), pl.col(_NEW).is_not_null()
    )[_NEW]
    if repeats.is_empty():
        return rows, 0
    return rows.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(repeats.implode())), len(repeats)


def _bits(dtype: pl.DataType, name: str) -> pl.Expr:
    """A column whose equality is that of its bits: 0.0 is not -0.0, and a NaN is itself."""
    column = pl.col(name)
    if dtype == pl.Float64():
        return column.reinterpret(dtype=pl.UInt64)
    if dtype == pl.Float32():
        return column.reinterpret(dtype=pl.UInt32)
    if isinstance(dtype, pl.List | pl.Struct):
        return pl.struct(column).struct.json_encode()
    return column


def retract_moved(table: LogTable, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`rows`, and before each row whose id was under another entity a retraction of it there (R4).

    Args:
        table: The log.
        rows: Stamped rows in the order in which they are to be sequenced.

    Returns:
        The rows with the retractions, and how many those are.
    """
    definition = table.definition
    if definition.key is None or not definition.entities or rows.is_empty():
        return rows, 0
    ids, entities = list(definition.key), list(definition.entities)
    stored = table.logical_to_stored(rows).with_row_index(_NEW).with_columns(pl.col(_NEW).cast(pl.Int64))
    wanted = [*ids, *entities, "event_time", "is_retraction", "arrival_time"]
    known = (
        known_rows(table, rows, ids)
        .sort("arrival_time", "log_sequence")
        .group_by([*ids, *entities], maintain_order=True)
        .last()
        .filter(~pl.col("is_retraction").fill_null(value=False))
        .select(*wanted, pl.lit(-1, pl.Int64).alias(_NEW))
        .collect()
    )
    both = pl.concat([known, stored.select(*wanted, _NEW)]).sort("arrival_time", _NEW, maintain_order=True)
    before = [
        pl.col(name).shift(1).over(ids).alias(f"__was_{name}") for name in (*entities, "event_time", "is_retraction")
    ]
    moved = both.with_columns(before).filter(
        pl.col(_NEW) >= 0,
        ~pl.col("is_retraction"),
        pl.col("__was_is_retraction").eq_missing(pl.lit(value=False)),
        pl.any_horizontal(pl.col(name) != pl.col(f"__was_{name}") for name in entities),
    )
    if moved.is_empty():
        return rows, 0
    positions = moved[_NEW]
    changes = [pl.Series(name, moved[f"__was_{name}"]) for name in entities]
    by_name = {column.name: column for column in table.columns}
    gone = rows[positions.to_list()].with_columns(
        *(change.cast(by_name[change.name].dtype) for change in changes),
        moved["__was_event_time"].alias("event_time"),
        pl.lit(value=True).alias("is_retraction"),
        *(pl.lit(None, column.dtype).alias(column.name) for column in table.value_columns if column.name not in ids),
    )
    together = pl.concat(
        [
            gone.with_columns(positions.alias(_ORDER), pl.lit(0).alias(_SAME)),
            rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_ORDER), pl.lit(1).alias(_SAME)),
        ]
    )
    return together.sort(_ORDER, _SAME).drop(_ORDER, _SAME), moved.height
