"""What the log already knows about a batch's keys, asked inside the commit loop.

History never displaces a measured revision (R13). A provider may drop what repeats its key's current revision, may send
only the columns that changed (R22), may send its whole state, of which what is missing is gone, and an id that moves to
another entity leaves a retraction behind (R4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ingestion.errors import BackfillRefusedError
from ingestion.reading import Question, stored_rows
from ingestion.schema import INSTANT
from ingestion.table import Head, LogTable

ABSENT = "__absent"
"""The column that names, for each row, the value columns that were not sent in it."""
_NEW, _ORDER, _SAME, _FROM = "__new", "__order", "__same", "__from"


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeState:
    """A batch that is all there is: keys that live in the log and are not in it are gone.

    Attributes:
        since_us: Only events after this instant are in the provider's state; `None` if all are.
    """

    since_us: int | None = None


class Known:
    """The log's revisions of the keys of a batch, read at most once per version."""

    def __init__(self, table: LogTable, rows: pl.DataFrame) -> None:
        self.table = table
        self._rows = rows

    @cached_property
    def revisions(self) -> pl.DataFrame:
        """All revisions, in the order of (arrival, sequence); of forecasts those of the batch's issues, and withdrawals."""
        definition = self.table.definition
        key = list(definition.key) if definition.key is not None else definition.key_columns
        found = known_rows(self.table, self._rows, key)
        if definition.kind == "forecast":
            issues = self._rows["issue_time"].unique()
            found = found.filter(pl.col("issue_time").is_null() | pl.col("issue_time").is_in(issues.implode()))
        return found.sort("arrival_time", "log_sequence").collect()

    def last(self, key: list[str]) -> pl.DataFrame:
        """The last revision of each key."""
        return self.revisions.group_by(key, maintain_order=True).last()


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
    key = table.definition.revision_columns
    measured = known_rows(table, early, key).filter(pl.col("arrival_kind") == "measured").select(key).unique().collect()
    clash = table.logical_to_stored(early).join(measured, on=key, how="semi", nulls_equal=True)
    if clash.height:
        first = clash.select(*key, pl.col("arrival_time").cast(pl.String)).row(0, named=True)
        shown = ", ".join(f"{name}={value}" for name, value in first.items())
        raise BackfillRefusedError(table.provider, clash.height, shown)


def retract_missing(table: LogTable, rows: pl.DataFrame, present: pl.DataFrame, state: WholeState) -> pl.DataFrame:
    """The keys that live in the log and are not in a provider's whole state, as retractions.

    Args:
        table: The log.
        rows: The rows of the whole state that are kept, for their columns.
        present: The keys of all its rows, also of those that were set aside.
        state: What belongs to it.

    Returns:
        One retraction per missing key, with its event and the columns of `rows`; values and the row's number are null.
    """
    key = table.definition.key_columns
    question = Question(position=table.head().next_sequence - 1, event_from_us=state.since_us)
    wanted = list(dict.fromkeys([*key, "event_time"]))
    alive = (
        stored_rows(table, question)
        .sort("arrival_time", "log_sequence")
        .group_by(key, maintain_order=True)
        .last()
        .filter(~pl.col("is_retraction").fill_null(value=False))
    )
    if state.since_us is not None:
        alive = alive.filter(pl.col("event_time") > pl.lit(state.since_us, pl.Int64).cast(INSTANT))
    there = table.logical_to_stored(present).select(key).lazy()
    gone = alive.select(wanted).join(there, on=key, how="anti", nulls_equal=True).collect()
    by_name = {column.name: column for column in table.columns}
    return gone.select(
        pl.lit(value=True).alias(name)
        if name == "is_retraction"
        else pl.col(name).cast(dtype if name not in by_name else by_name[name].dtype)
        if name in wanted
        else pl.lit(None, dtype).alias(name)
        for name, dtype in rows.schema.items()
    )


def fill_absent(table: LogTable, rows: pl.DataFrame, known: Known) -> pl.DataFrame:
    """`rows` whole: columns that were not sent have the value of their key's revision before (R22).

    That is the row of the key (of a forecast: of the issue) that arrived before it, in the log or in the same batch; without
    any, or after a retraction, null.

    Args:
        table: The log.
        rows: Stamped rows with the column `__absent`, in the order in which they are to be sequenced.
        known: The log's revisions of their keys.

    Returns:
        The rows without `__absent`.
    """
    event, key = table.definition.key_columns, table.definition.revision_columns
    names = [column.name for column in table.value_columns if column.name not in key]
    kept = [*key, "arrival_time", "is_retraction", *names]
    new = table.logical_to_stored(rows).select(*kept, ABSENT, pl.int_range(pl.len()).alias(_NEW))
    none = pl.lit(None, pl.List(pl.String)).alias(ABSENT)
    before = known.revisions.select(*kept, none, pl.lit(-1, pl.Int64).alias(_NEW))
    both = pl.concat([before, new]).sort("arrival_time", maintain_order=True).with_row_index(_FROM)
    group = key
    if table.definition.kind == "forecast":  # what withdraws all issues of an event ends them
        both = both.with_columns(pl.col("issue_time").is_null().cum_sum().over(event).alias(_ORDER))
        group = [*key, _ORDER]
    gone = pl.col("is_retraction").fill_null(value=False)
    filled = both.select(
        _NEW,
        *(
            pl.col(name).gather(
                pl.when(gone | ~pl.col(ABSENT).list.contains(name).fill_null(value=False))
                .then(pl.col(_FROM))
                .forward_fill()
                .over(group)
                .fill_null(pl.col(_FROM))
            )
            for name in names
        ),
    )
    whole = filled.filter(pl.col(_NEW) >= 0).sort(_NEW).drop(_NEW)
    by_name = {column.name: column for column in table.columns}
    return rows.drop(ABSENT).with_columns(series.cast(by_name[series.name].dtype) for series in whole)


def drop_unchanged(table: LogTable, rows: pl.DataFrame, known: Known) -> tuple[pl.DataFrame, int]:
    """`rows` without those that repeat their key's current revision bit for bit, and how many those were.

    A row is compared with the revision before it, be that in the log or earlier in the same batch. In forecasts the issue
    is part of the key; a row of an event whose issues were ever withdrawn together is always kept.
    """
    if rows.is_empty():
        return rows, 0
    key = table.definition.revision_columns
    compared = [column.name for column in table.columns if column.name not in key]
    compared += [name for name in ("event_time", "is_retraction") if name not in key]
    measured = known.revisions.filter(pl.col("arrival_kind") == "measured")  # history confirms nothing (R13)
    current = (
        measured.group_by(key, maintain_order=True).last().select(*key, *compared, pl.lit(-1, pl.Int64).alias(_ORDER))
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
    )
    if table.definition.kind == "forecast" and repeats.height:
        event = table.definition.key_columns
        withdrawn = both.filter(pl.col("issue_time").is_null()).select(event).unique()
        repeats = repeats.join(withdrawn, on=event, how="anti", nulls_equal=True)
    if repeats.is_empty():
        return rows, 0
    return rows.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(repeats[_NEW].implode())), repeats.height


def count_fates(table: LogTable, rows: pl.DataFrame, known: Known) -> tuple[int, int, int]:
    """How many rows bring a key that had no event, change one that had, and withdraw one."""
    withdrawn = int(rows["is_retraction"].sum())
    if withdrawn == rows.height:
        return 0, 0, withdrawn
    key = table.definition.revision_columns
    lives = ~pl.col("is_retraction").fill_null(value=False)
    new = table.logical_to_stored(rows).select(*key, lives.alias(_SAME), pl.lit(value=True).alias(_NEW))
    before = known.last(key).select(*key, lives.alias(_SAME), pl.lit(value=False).alias(_NEW))
    both = pl.concat([before, new])
    had = pl.col(_SAME).shift(1).over(key).fill_null(value=False)
    revised = int(both.select((pl.col(_NEW) & pl.col(_SAME) & had).sum()).item())
    return rows.height - withdrawn - revised, revised, withdrawn


def _bits(dtype: pl.DataType, name: str) -> pl.Expr:
    """A column whose equality is that of its bits: 0.0 is not -0.0, and a NaN is itself."""
    return _as_bits(dtype, pl.col(name)).alias(name)


def _as_bits(dtype: Any, values: pl.Expr) -> pl.Expr:
    if dtype == pl.Float64():
        return values.reinterpret(dtype=pl.UInt64)
    if dtype == pl.Float32():
        return values.reinterpret(dtype=pl.UInt32)
    if isinstance(dtype, pl.List):
        return values.list.eval(_as_bits(dtype.inner, pl.element()))
    if isinstance(dtype, pl.Struct):
        fields = [_as_bits(field.dtype, values.struct.field(field.name)).alias(field.name) for field in dtype.fields]
        return pl.struct(*fields, values.is_null().alias("__null"))
    return values


def retract_moved(table: LogTable, rows: pl.DataFrame, known: Known) -> tuple[pl.DataFrame, int]:
    """`rows`, and before each row whose id was under another entity a retraction of it there (R4).

    Args:
        table: The log.
        rows: Stamped rows in the order in which they are to be sequenced.
        known: The log's revisions of their ids.

    Returns:
        The rows with the retractions, and how many those are.
    """
    definition = table.definition
    if definition.key is None or not definition.entities or rows.is_empty():
        return rows, 0
    ids, entities = list(definition.key), list(definition.entities)
    wanted = [*ids, *entities, "event_time", "is_retraction", "arrival_time"]
    stored = table.logical_to_stored(rows).select(*wanted, pl.int_range(pl.len()).alias(_NEW))
    before = known.revisions.select(*wanted, pl.lit(-1, pl.Int64).alias(_NEW))
    both = pl.concat([before, stored]).sort("arrival_time", maintain_order=True)
    value = ~pl.col("is_retraction").fill_null(value=False)
    last = [pl.when(value).then(pl.col(name)).forward_fill().over(ids).alias(f"__at_{name}") for name in entities]
    both = both.with_columns(
        pl.struct(entities).alias("__entity"),
        *last,
        pl.when(value).then(pl.col("event_time")).forward_fill().over(ids).alias("__at_event_time"),
        value.cum_sum().over(ids).alias(_ORDER),
    ).with_columns(pl.struct(pl.col(f"__at_{name}").alias(name) for name in entities).alias("__at"))
    ended = (~value & (pl.col("__entity") == pl.col("__at"))).cum_max().over([*ids, _ORDER])
    lived = (pl.col(_ORDER) > 0) & ~ended
    both = both.with_columns(lived.alias(_SAME)).with_columns(
        pl.col(_SAME).shift(1).over(ids).fill_null(value=False),
        pl.col("__at").shift(1).over(ids).alias("__was"),
        *(pl.col(f"__at_{name}").shift(1).over(ids).alias(f"__was_{name}") for name in (*entities, "event_time")),
    )
    moved = both.filter(pl.col(_NEW) >= 0, value, pl.col(_SAME), pl.col("__was") != pl.col("__entity")).sort(_NEW)
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
