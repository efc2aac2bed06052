"""Observations on their way into DuckDB: what the rules look at goes in, values stay outside until rows are chosen.

Rows in memory are registered as they are. Lazy frames, Parquet files and logs are read batch by batch: the narrow columns go
into a table that DuckDB may spill to disk, the values into Parquet files of a temporary folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from alignment.bounds import shifted
from alignment.durations import Duration, nearest_instant
from alignment.errors import AggregateOverflowError, AlignmentError, AmbiguousRevisionsError
from alignment.features import Forecast, Latest, Window
from alignment.layout import common_type, rows_differ
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION, canonical, check_rows, checked
from alignment.spine import Spine
from alignment.views import FeatureView

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TEXTS = (pl.Categorical, pl.Enum, pl.Int128, pl.UInt128)
_WIDE = (pl.UInt64, pl.Int128, pl.UInt128)
_WITHOUT_ARITHMETIC = ("count", "first", "last")
_BATCH_ROWS = 250_000
_ROW = "@row"


@dataclass(slots=True)
class Narrow:
    """Which narrow columns DuckDB gets, and under what names.

    Attributes:
        view: Whose observations.
        key_types: The types in which entity keys compare.
        keys: `k0`, ... per entity column.
        ids: `id0`, ... per column of a declared id.
        values: `x0`, ... per observed column whose values or nulls decide something.
        deadlines: `deadline0`, ... per min_notice: the latest arrival that counts (R10).
    """

    view: FeatureView
    key_types: list[pl.DataType]
    keys: list[str] = field(init=False)
    ids: list[str] = field(init=False)
    values: dict[str, str] = field(init=False)
    deadlines: dict[Duration, str] = field(init=False)

    def __post_init__(self) -> None:
        features = self.view.features
        read = [f.column for f in features if isinstance(f, Window) or (isinstance(f, Latest) and f.skip_null)]
        notices = [f.min_notice for f in features if isinstance(f, Forecast) and f.min_notice is not None]
        self.keys = [f"k{i}" for i in range(len(self.key_types))]
        self.ids = [f"id{i}" for i in range(len(self.view.observations.key))]
        self.values = {name: f"x{i}" for i, name in enumerate(dict.fromkeys(name for name in read if name is not None))}
        self.deadlines = {notice: f"deadline{i}" for i, notice in enumerate(dict.fromkeys(notices))}

    def is_counted_only(self, column: str) -> bool:
        """Whether all that matters of a column is where it is null."""
        asked = [f.aggregate for f in self.view.features if isinstance(f, Window) and f.column == column]
        return (
            all(kind in _WITHOUT_ARITHMETIC for kind in asked) and not self.view.observations.schema[column].is_float()
        )

    def is_float(self, feature: Window) -> bool:
        """Whether a window may meet NaN."""
        return self.view.observations.schema[cast("str", feature.column)].is_float()

    def rows(self, frame: pl.DataFrame, first_row: int) -> pl.DataFrame:
        """Checked canonical rows, cut down to what DuckDB gets."""
        observed = self.view.observations
        columns = [pl.int_range(first_row, first_row + frame.height, dtype=pl.Int64).alias("row")]
        for name, kind, key in zip(observed.entities, self.key_types, self.keys, strict=True):
            columns.append(comparable(pl.col(name).cast(kind), kind).alias(key))
        for name, key in zip(observed.key, self.ids, strict=True):
            columns.append(comparable(pl.col(name), observed.schema[name]).alias(key))
        columns.append(pl.col(EVENT).alias("event"))
        columns.append(pl.col(ARRIVAL).alias("arrival"))
        # Without a log sequence the arrival as it was given decides where R5 raised two to the same instant.
        columns.append(pl.col(ORDER if ORDER in frame.columns else ARRIVAL).alias("sequence"))
        if observed.kind == "forecast":
            columns.append(pl.col(ISSUE).alias("issue"))
        given = pl.col(RETRACTION) if RETRACTION in frame.columns else pl.lit(value=False)
        columns.append(given.alias("is_retraction"))
        columns.extend(self._value(name).alias(short) for name, short in self.values.items())
        narrow = frame.select(columns)
        return narrow.with_columns(
            self._deadline(narrow["event"], notice).alias(name) for notice, name in self.deadlines.items()
        )

    def _value(self, name: str) -> pl.Expr:
        if self.is_counted_only(name):
            return pl.when(pl.col(name).is_not_null()).then(pl.lit(1, pl.Int8))
        return pl.col(name).cast(pl.Float64 if self.view.observations.schema[name].is_float() else pl.Int64)

    def _deadline(self, events: pl.Series, notice: Duration) -> pl.Series:
        instants = events.fill_null(0).to_numpy()
        bound = shifted(instants, self.view.zone, (-1, notice))
        return pl.Series(bound if isinstance(bound, np.ndarray) else instants + bound)


def comparable(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """A key in a form that DuckDB compares as Polars does."""
    if isinstance(kind, _TEXTS):
        return column.cast(pl.String)
    return column.to_physical() if kind.is_temporal() else column


def narrow_of(view: FeatureView, spine: Spine) -> Narrow:
    """What DuckDB needs to know of the rows of `view`.

    Raises:
        KeyTypeError: If key types of spine and observations neither match nor widen.
    """
    observed = view.observations
    pairs = zip(view.spine_entities, observed.entities, strict=True)
    return Narrow(view, [common_type(spine.frame.schema[s], observed.schema[r], s, r, view.place) for s, r in pairs])


class Values:
    """Observed values, to be gathered by row number.

    Args:
        frame: All rows in memory, or None.
        folder: Where the rows are otherwise, as Parquet files with a column `@row`.
    """

    def __init__(self, frame: pl.DataFrame | None, folder: Path) -> None:
        self._frame = frame
        self._folder = folder
        self._rows: pl.Series | None = None

    def fetch(self, chosen: Sequence[pl.Series]) -> None:
        """Bring the rows that were chosen into memory; to be called once, with all of them."""
        if self._frame is not None or not chosen:
            return
        wanted = pl.concat(chosen).drop_nulls().unique().to_frame(_ROW).lazy()
        stored = pl.scan_parquet(self._folder / "*.parquet")
        self._frame = stored.join(wanted, on=_ROW, how="semi").collect(engine="streaming").sort(_ROW)
        self._rows = self._frame[_ROW]

    def take(self, column: str, rows: pl.Series) -> pl.Series:
        """The values of `column` in these rows; null where a row is null."""
        if self._rows is not None:
            place = pl.Series(self._rows.search_sorted(rows.fill_null(0)), dtype=pl.Int64)
            rows = place.set(rows.is_null(), None)
        return cast("pl.DataFrame", self._frame)[column].gather(rows.cast(pl.UInt32))


def read_rows(
    connection: DuckDBPyConnection, narrow: Narrow, folder: Path, *, position: int | None, limit: int
) -> Values:
    """Make the table `observed`, and keep the values.

    Raises:
        AggregateOverflowError: If integers to be aggregated do not fit in 64 bits.
        AlignmentError: What `checked` raises.
    """
    observed = narrow.view.observations
    columns = narrow.view.columns_read
    if observed.source is None and not isinstance(observed.frame, pl.LazyFrame | str | Path):
        frame = checked(observed, columns, position=position, as_of_us=limit).frame
        connection.register("observed", _cut_down(narrow, frame, 0).to_arrow())
        return Values(frame, folder)
    first_row = 0
    for number, frame in enumerate(_batches(narrow, position, limit)):
        connection.register("batch", _cut_down(narrow, frame, first_row).to_arrow())
        connection.execute("INSERT INTO observed FROM batch" if number else "CREATE TEMP TABLE observed AS FROM batch")
        connection.unregister("batch")
        row = pl.int_range(first_row, first_row + frame.height, dtype=pl.Int64)
        frame.select(row.alias(_ROW), *columns).write_parquet(folder / f"{number:06}.parquet")
        first_row += frame.height
    return Values(None, folder)


def _batches(narrow: Narrow, position: int | None, limit: int) -> Iterator[pl.DataFrame]:
    """Checked canonical rows, a batch at a time and in order; at least one, be it empty.

    Raises:
        AlignmentError: What `checked` raises.
    """
    observed = narrow.view.observations
    rows = canonical(observed, narrow.view.columns_read, position=position, as_of_us=limit)
    try:
        yield check_rows(observed, rows.head(0).collect())[0]
        for batch in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
            yield check_rows(observed, batch)[0]
    except AlignmentError:
        # A batch knows neither its place nor the others: say it once more of the whole, keys and times alone.
        checked(observed, [], position=position, as_of_us=limit)
        raise


def _cut_down(narrow: Narrow, frame: pl.DataFrame, first_row: int) -> pl.DataFrame:
    try:
        return narrow.rows(frame, first_row)
    except pl.exceptions.PolarsError:
        for column in narrow.values:
            kind = frame.schema[column]
            if not narrow.is_counted_only(column) and kind in _WIDE and _exceeds(frame[column]):
                raise AggregateOverflowError(
                    f"{narrow.view.place}: {column!r} is {kind} and holds values that do not fit in 64 signed bits",
                    f'aggregate it as float64, e.g. derive={{"{column}_real": pl.col("{column}").cast(pl.Float64)}}.',
                ) from None
        raise


def _exceeds(values: pl.Series) -> bool:
    return values.cast(pl.Int64, strict=False).null_count() > values.null_count()


def refuse_different(narrow: Narrow, ties: pl.DataFrame, *, position: int | None) -> None:
    """Let rows of one key and arrival pass if they are equal in all columns (R17).

    Args:
        narrow: Whose rows.
        ties: Columns `row` and `row_before`, and `differs` where they are known to differ.
        position: The log position at which they were read.

    Raises:
        AmbiguousRevisionsError: If two of them differ.
    """
    if ties.is_empty():
        return
    observed = narrow.view.observations
    wanted = pl.concat([ties["row"], ties["row_before"]]).unique().to_frame(_ROW).lazy()
    whole = observed.lazy(position=position)
    rows = (
        whole.with_row_index(_ROW)
        .with_columns(pl.col(_ROW).cast(pl.Int64))
        .join(wanted, on=_ROW, how="semi")
        .collect()
        .sort(_ROW)
    )
    first, second = (rows[rows[_ROW].search_sorted(ties[side])] for side in ("row_before", "row"))
    differ = ties["differs"] | rows_differ(first.drop(_ROW), second.drop(_ROW))
    if not differ.any():
        return
    at = int(differ.arg_max() or 0)
    a, b = ties["row_before"][at], ties["row"][at]
    about = {name: first[name][at] for name in [*observed.entities, *observed.key]}
    key = "".join(f"{name}={value!r}, " for name, value in about.items())
    event, arrival = (
        None if us is None else nearest_instant(us).isoformat() for us in (ties["event"][at], ties["arrival"][at])
    )
    raise AmbiguousRevisionsError(
        f"{observed.place}: {int(differ.sum())} pairs of different rows have the same key and arrival, first rows {a} and {b}"
        f" ({key}event {event or 'null'}, arrival {arrival})",
        'which came last is unknown: give the rows a log_sequence, or pass on_tie="last" to take the last in the frame.',
    )
