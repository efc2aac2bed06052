"""How the columns of a log change: added, renamed, widened; everything else is refused.

An added column is one metadata commit; rows before it are `missing`, not null, because the column remembers the
`log_sequence` since which it could carry a value. A new name or a wider type rewrites the files in one commit, so that
every engine that reads the table sees one name and one type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError

from ingestion.definition import SYSTEM_NAMES, refused_name
from ingestion.errors import CommitError, ReservedColumnError, SchemaChangeError, UnknownColumnError
from ingestion.schema import Column, delta_fields, renamed, stored_type, system_fields, to_stored
from ingestion.table import LogTable, LostRaceError

ATTEMPTS = 50
_EXACT_IN_FLOAT64 = 1 << 53


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch would change about a log's columns.

    Attributes:
        added: Columns that the log does not have.
        widened: Columns whose type is too narrow, with the wider one.
    """

    added: tuple[Column, ...] = ()
    widened: tuple[Column, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.widened)


def compare_columns(rows: pl.DataFrame, names: Sequence[str], table: LogTable) -> Change:
    """What `rows` would change about the columns of `table`.

    Args:
        rows: A batch.
        names: Its entity and value columns.
        table: The log.

    Raises:
        SchemaChangeError: If a column is gone, or its type cannot hold both what was and what comes.
        ColumnTypeError: If a new column has a type that no log can keep.
    """
    known = {column.name: column for column in table.columns}
    only_retractions = bool(rows["is_retraction"].all())
    for name in known:
        if name not in names and not (only_retractions and name not in table.definition.entities):
            raise SchemaChangeError(
                name,
                table.provider,
                f"the batch lacks the column {name!r}, and absent is not null",
                f'if it is null, say so: frame.with_columns(pl.lit(None).alias("{name}")).'
                + _renaming_hint(name, names, known),
            )
    added, widened = [], []
    for name in names:
        dtype = rows.schema[name]
        column = known.get(name)
        if column is None:
            stored_type(dtype, name, f"provider {table.provider!r}")
            added.append(Column(name, dtype))
        elif fitted(rows[name], column.dtype) is None:
            widened.append(replace(column, dtype=_wider(column, dtype, table)))
    return Change(tuple(added), tuple(widened))


def _renaming_hint(name: str, names: Sequence[str], known: dict[str, Column]) -> str:
    new = [other for other in names if other not in known]
    return f' If it has a new name: log.rename_column("{name}", "{new[0]}").' if len(new) == 1 else ""


def refuse_change(change: Change, table: LogTable) -> None:
    """Say that a batch has other columns than the log.

    Raises:
        SchemaChangeError: Always.
    """
    if change.added:
        column = change.added[0]
        raise SchemaChangeError(
            column.name,
            table.provider,
            f"the log has no column {column.name!r} ({column.dtype})",
            'append(frame, evolve=True) adds it; rows from before will be "missing".',
        )
    column = change.widened[0]
    raise SchemaChangeError(
        column.name,
        table.provider,
        f"column {column.name!r} would need the type {column.dtype}",
        "append(frame, evolve=True) widens it; every file is rewritten once.",
    )


def fit_rows(rows: pl.DataFrame, table: LogTable) -> pl.DataFrame:
    """`rows` with every column of the log in its type; what only retractions may lack is null.

    Raises:
        SchemaChangeError: If a column does not fit; `compare_columns` has looked.
    """
    ready: list[pl.Series] = []
    for column in table.columns:
        if column.name in rows.columns:
            series = fitted(rows[column.name], column.dtype)
            if series is None:  # pragma: no cover - compare_columns has looked
                raise SchemaChangeError(column.name, table.provider, f"{column.name!r} does not fit", "")
        else:
            series = pl.Series(column.name, [None], column.dtype).new_from_index(0, rows.height)
        ready.append(series)
    return rows.with_columns(ready)


def fitted(series: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    """The same values as `dtype`, or `None` if that would lose or invent anything."""
    if series.dtype == dtype:
        return series
    if series.dtype == pl.Null:
        return series.cast(dtype)
    if not _same_family(series.dtype, dtype):
        return None
    try:
        cast = series.cast(dtype)
        back = cast.cast(series.dtype)
    except pl.exceptions.PolarsError:
        return None
    return cast if back.equals(series, null_equal=True) else None


def _same_family(source: pl.DataType, target: pl.DataType) -> bool:
    if target.is_numeric():
        return source.is_numeric() and (target.is_float() or not source.is_float())
    texts = (pl.String, pl.Categorical, pl.Enum)
    if isinstance(target, texts):
        return isinstance(source, texts)
    if isinstance(target, pl.Datetime):
        return isinstance(source, pl.Datetime) and (source.time_zone is None) == (target.time_zone is None)
    if isinstance(target, pl.List | pl.Array):
        return isinstance(source, pl.List | pl.Array)
    return isinstance(source, type(target))


def _wider(column: Column, dtype: pl.DataType, table: LogTable) -> pl.DataType:
    """The type that holds what the log has and what comes.

    Raises:
        SchemaChangeError: If there is none.
    """
    old = column.dtype
    if column.name not in SYSTEM_NAMES and old.is_integer() and dtype.is_integer():
        for candidate in (pl.Int16(), pl.Int32(), pl.Int64()):
            if _SIGNED_BITS[candidate] >= max(_SIGNED_BITS.get(old, 128), _SIGNED_BITS.get(dtype, 128)):
                return candidate
    numbers = old.is_numeric() and dtype.is_numeric() and not (old.is_decimal() or dtype.is_decimal())
    if numbers and (old.is_float() or dtype.is_float()) and column.name not in table.definition.entities:
        return pl.Float64()
    if isinstance(old, pl.Enum) and isinstance(dtype, pl.Enum | pl.String):
        return pl.String()
    raise SchemaChangeError(
        column.name,
        table.provider,
        f"column {column.name!r} is {old} in the log and {dtype} in the batch",
        f'cast it: frame.cast({{"{column.name}": pl.{old}}}), or keep it under another name.',
    )


_SIGNED_BITS: dict[pl.DataType, int] = {
    pl.Int8(): 8,
    pl.UInt8(): 9,
    pl.Int16(): 16,
    pl.UInt16(): 17,
    pl.Int32(): 32,
    pl.UInt32(): 33,
    pl.Int64(): 64,
    pl.UInt64(): 65,
}
"""How many bits a signed integer needs to hold every value of a type."""


def _refuse_name(names: Sequence[str], table: LogTable) -> None:
    refused = refused_name(names)
    if refused is not None:
        raise SchemaChangeError(refused[0], table.provider, refused[1], "choose another name.")


def add_columns(table: LogTable, columns: Sequence[Column]) -> None:
    """Add columns in one commit; rows before it are `missing`.

    Raises:
        ReservedColumnError: If a name is the log's own.
        SchemaChangeError: If a name is taken, now or formerly.
        CommitError: If other commits kept coming first.
    """
    for attempt in range(ATTEMPTS):
        table.refresh()
        wanted = [column for column in columns if column.name not in {known.name for known in table.columns}]
        if not wanted:
            return
        _refuse_name([*(known.name for known in table.columns), *(column.name for column in wanted)], table)
        for column in wanted:
            if column.name in SYSTEM_NAMES:
                raise ReservedColumnError(column.name, table.provider)
            if table.column(column.name) is not None:
                raise SchemaChangeError(
                    column.name,
                    table.provider,
                    f"{column.name!r} was the name of another column before",
                    "choose a name that was never used; old questions still use that one.",
                )
        since = table.head().next_sequence
        fields = delta_fields([replace(column, since=since) for column in wanted])
        try:
            with table.commit_lock():
                table.make_next(
                    lambda properties, fields=fields: table.delta.alter.add_columns(  # type: ignore[misc]
                        fields, commit_properties=properties
                    )
                )
        except (LostRaceError, CommitFailedError) as error:
            if attempt == ATTEMPTS - 1:
                raise CommitError(table.provider, ATTEMPTS, error) from error
            table.wait(attempt)
            continue
        return


def rename_column(table: LogTable, old: str, new: str) -> None:
    """Give a column another name in one commit; questions by the old name still work.

    Raises:
        UnknownColumnError: If there is no such column.
        ReservedColumnError: If the new name is the log's own.
        SchemaChangeError: If the new name is taken, or the column is part of the key.
        CommitError: If other commits kept coming first.
    """
    if new in SYSTEM_NAMES:
        raise ReservedColumnError(new, table.provider)
    if old in table.definition.entities or old in (table.definition.key or ()):
        raise SchemaChangeError(
            old,
            table.provider,
            f"{old!r} is part of the key",
            "make a new log for a new key; entity_map renames at use.",
        )

    def rename(columns: list[Column]) -> list[tuple[Column, pl.Expr]]:
        names = [column.name for column in columns]
        _refuse_name([*(name for name in names if name != old), new], table)
        if old not in names:
            raise UnknownColumnError(old, table.provider, names)
        if any(new in (column.name, *column.aliases) for column in columns):
            raise SchemaChangeError(new, table.provider, f"the name {new!r} is taken", "choose another name.")
        return [
            (renamed(column, new), pl.col(old).alias(new)) if column.name == old else (column, pl.col(column.name))
            for column in columns
        ]

    _rewrite(table, rename)


def widen_columns(table: LogTable, wider: Sequence[Column]) -> None:
    """Give columns wider types in one commit.

    Raises:
        SchemaChangeError: If a stored value does not fit the new type.
        CommitError: If other commits kept coming first.
    """
    by_name = {column.name: column for column in wider}

    def widen(columns: list[Column]) -> list[tuple[Column, pl.Expr]]:
        plan = []
        for column in columns:
            if column.name not in by_name:
                plan.append((column, pl.col(column.name)))
                continue
            target = replace(column, dtype=by_name[column.name].dtype)
            _check_exact(table, column, target)
            plan.append((target, to_stored(target)))
        return plan

    _rewrite(table, widen)


def _check_exact(table: LogTable, old: Column, new: Column) -> None:
    bits = _SIGNED_BITS.get
    narrower = (
        (old.dtype.is_float() and (new.dtype.is_integer() or (old.dtype, new.dtype) == (pl.Float64(), pl.Float32())))
        or (old.dtype.is_integer() and new.dtype.is_integer() and bits(new.dtype, 128) < bits(old.dtype, 128))
    )  # fmt: skip
    if narrower:
        raise SchemaChangeError(
            old.name,
            table.provider,
            f"column {old.name!r} is {old.dtype}, and {new.dtype} is narrower",
            "keep the new values under another name.",
        )
    if not (old.dtype.is_integer() and new.dtype.is_float()):
        return
    paths = table.files()["path"].to_list()
    worst = table.read(paths, [old.name]).select(pl.col(old.name).cast(pl.Int128).abs().max()).collect().item()
    if worst is not None and worst > _EXACT_IN_FLOAT64:
        raise SchemaChangeError(
            old.name,
            table.provider,
            f"column {old.name!r} holds {worst}, which {new.dtype} cannot tell from its neighbours",
            "keep the new values under another name.",
        )


def _rewrite(table: LogTable, plan: Callable[[list[Column]], list[tuple[Column, pl.Expr]]]) -> None:
    """Write every row again with other columns, in one commit that changes the schema too.

    Raises:
        CommitError: If other commits kept coming first.
    """
    for attempt in range(ATTEMPTS):
        with table.maintenance_lock(), table.commit_lock():
            table.refresh()
            pairs: list[tuple[Column, pl.Expr]] = plan(table.columns)
            fields = system_fields()
            entities = len(table.definition.entities)
            own = delta_fields([column for column, _ in pairs])
            delta_schema = [*own[:entities], *fields, *own[entities:]]
            system = [pl.col(field.name) for field in fields]
            paths = table.files()["path"].to_list()
            rows = table.read(paths).select(*system, *(expression for _, expression in pairs))
            arrow = pa.schema(Schema(delta_schema))

            def write(properties: CommitProperties, rows: pl.LazyFrame = rows, arrow: pa.Schema = arrow) -> None:
                batches = (
                    part.select(arrow.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(arrow)
                    for part in rows.collect_batches(chunk_size=500_000, maintain_order=True)
                )
                reader = pa.RecordBatchReader.from_batches(
                    arrow, (batch for whole in batches for batch in whole.to_batches())
                )
                write_deltalake(
                    table.delta, reader, mode="overwrite", schema_mode="overwrite", commit_properties=properties
                )

            try:
                table.make_next(write)
            except (LostRaceError, CommitFailedError) as error:
                if attempt == ATTEMPTS - 1:
                    raise CommitError(table.provider, ATTEMPTS, error) from error
                table.wait(attempt)
                continue
            return
