"""How much there is: what a spine and observations hold, from metadata alone.

A log's metadata is what its Delta table says of each file, a Parquet file's its footer, a frame's its size. No row of observations is
read. Of a spine on disk the entity columns are read, to count entities, unless it is too long for that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from alignment.durations import instant_us, nearest_instant
from alignment.observations import FrameLike, Observations, as_lazy
from alignment.spine import PREDICTION_TIME, check_spine

COUNTED_ROWS = 50_000_000
"""Entities of a longer spine on disk are not counted."""
_UNITS = {"milliseconds": 1_000, "microseconds": 1, "nanoseconds": 0}
_WHOLE = re.compile(
    r'(Parquet SCAN|PROJECT|ESTIMATED|WITH_COLUMNS|\[|DF \[|SELECT \[(col\("[^"]*"\)(\.alias\("[^"]*"\))?(, )?)*\]$)'
)
"""Lines of a query that keeps every row and so can be counted without being run."""
_FIXED: dict[type[pl.DataType], float] = {
    pl.Boolean: 0.125,
    pl.Int8: 1,
    pl.UInt8: 1,
    pl.Int16: 2,
    pl.UInt16: 2,
    pl.Int32: 4,
    pl.UInt32: 4,
    pl.Float32: 4,
    pl.Date: 4,
    pl.Categorical: 4,
    pl.Enum: 4,
    pl.Decimal: 16,
    pl.Int128: 16,
    pl.String: 16,
    pl.Binary: 16,
    pl.Null: 0,
}


@dataclass(frozen=True, slots=True)
class SpineExtent:
    """How large a spine is.

    Attributes:
        source: `frame` or `parquet`.
        rows: How many questions; None of a lazy frame that would have to be run.
        entities: How many different ones are asked about; None if they were not counted.
        first_us: The first prediction time, microseconds; None if nothing says it.
        last_us: The last.
        width: Bytes of a row in memory.
        bytes: In memory, or on disk.
    """

    source: str
    rows: int | None
    entities: int | None
    first_us: int | None
    last_us: int | None
    width: float
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Extent:
    """What one read of observations looks at.

    Attributes:
        source: `log`, `parquet`, `frame`, or `lazy frame`.
        address: Where it is; empty of a frame.
        provider: Whose log; empty of other sources.
        position: Log position at which it is read.
        stored_rows: All rows there are.
        rows_least: Rows inside every bound for certain.
        rows_most: Rows of the files that are opened.
        rows: What is expected between these: a file that a bound cuts is taken to hold its rows evenly.
        files_read: Files that are opened; None of frames.
        files_skipped: How many are not, by the bound that rules them out.
        bytes_read: Size of the files that are opened, or of the frame.
        bytes_skipped: Size of the others.
        first_event_us: Earliest event of the files that are read.
        last_event_us: Latest event of them.
        latest_arrival_us: Greatest arrival of all rows.
    """

    source: str
    address: str = ""
    provider: str = ""
    position: int | None = None
    stored_rows: int | None = None
    rows_least: int | None = None
    rows_most: int | None = None
    rows: int | None = None
    files_read: int | None = None
    files_skipped: dict[str, int] = field(default_factory=dict)
    bytes_read: int | None = None
    bytes_skipped: int = 0
    first_event_us: int | None = None
    last_event_us: int | None = None
    latest_arrival_us: int | None = None

    @property
    def in_memory(self) -> bool:
        """Whether the rows are there already."""
        return self.source == "frame"


def width_of(dtype: pl.DataType) -> float:
    """Bytes of a value in memory; of texts the part that every value has, of lists eight elements.

    Example:
        >>> width_of(pl.Float64()), width_of(pl.Array(pl.Float32, 4)), width_of(pl.String())
        (8.0, 16.0, 16.0)
    """
    if isinstance(dtype, pl.Array):
        return width_of(dtype.inner) * dtype.size  # type: ignore[arg-type]
    if isinstance(dtype, pl.List):
        return 8.0 + 8 * width_of(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return float(sum(width_of(part.dtype) for part in dtype.fields))  # type: ignore[arg-type,misc]
    return float(_FIXED.get(dtype.base_type(), 8))


def measure_spine(spine: FrameLike, entities: Sequence[str], prediction_time: str = PREDICTION_TIME) -> SpineExtent:
    """How large a spine is.

    Args:
        spine: See `point_in_time_join`.
        entities: Its entity columns, as far as they are read.
        prediction_time: Its column of prediction times.

    Raises:
        FrameError: If it has not the form asked for.
    """
    lazy = as_lazy(spine, "the spine")
    schema = lazy.collect_schema()
    check_spine(pl.DataFrame(schema=schema), entities, prediction_time)
    width = sum(width_of(dtype) for dtype in schema.values())
    if isinstance(spine, pl.LazyFrame):
        rows = _countable(spine)
        return SpineExtent("lazy frame", rows, None, None, None, width, None)
    files = parquet_files(spine)
    if files is None:
        asked = check_spine(spine, entities, prediction_time)
        first, last = (int(asked.t.min()), int(asked.t.max())) if len(asked.t) else (None, None)
        count = asked.frame.select(entities).n_unique() if entities else 1
        return SpineExtent("frame", asked.frame.height, count, first, last, width, int(asked.frame.estimated_size()))
    footers = Footers.of(files)
    rows = footers.rows if files else lazy.select(pl.len()).collect().item()
    counted: int | None = None if entities else 1
    if entities and rows <= COUNTED_ROWS:
        counted = lazy.select(entities).unique().select(pl.len()).collect(engine="streaming").item()
    first, last = footers.range(prediction_time)
    return SpineExtent("parquet", rows, counted, first, last, width, footers.bytes if files else None)


def measure_rows(
    observations: Observations,
    *,
    position: int | None = None,
    until_us: int | None = None,
    event_from_us: int | None = None,
) -> Extent:
    """What a read of `observations` looks at.

    Args:
        observations: The rows.
        position: Greatest `log_sequence` that counts; None for all.
        until_us: Rows that arrived later are not needed, microseconds.
        event_from_us: Nor are earlier events.
    """
    source = observations.source
    if source is not None:
        files_for = getattr(source, "files_for", None)
        address = str(getattr(source, "address", ""))
        at = source.position() if position is None else position
        told = Extent("log", address, source.provider, at)
        return told if files_for is None else _log_extent(told, files_for, until_us, event_from_us)
    if isinstance(observations.frame, pl.LazyFrame):
        rows = _countable(observations.frame)
        return Extent("lazy frame", stored_rows=rows, rows_least=rows, rows_most=rows, rows=rows)
    files = parquet_files(observations.frame)
    if files is None:
        frame = as_lazy(observations.frame, observations.place).collect()
        event, arrival = (_ends(frame, name) for name in (observations.event_time, observations.arrival_time))
        size = int(frame.estimated_size())
        n = frame.height
        return Extent("frame", "", "", None, n, n, n, n, None, {}, size, 0, *event, arrival[1])
    footers = Footers.of(files)
    n = footers.rows if files else as_lazy(observations.frame, observations.place).select(pl.len()).collect().item()
    event, arrival = footers.range(observations.event_time), footers.range(observations.arrival_time)
    size_on_disk = footers.bytes if files else None
    return Extent(
        *("parquet", str(observations.frame), "", None, n, n, n, n, len(files) or None, {}, size_on_disk, 0),
        *(*event, arrival[1]),
    )


def parquet_files(frame: FrameLike) -> list[Path] | None:
    """The files that a path means: one, those of a folder, those of a pattern; none of an address, None if it is no path."""
    if not isinstance(frame, str | Path):
        return None
    if "://" in str(frame):
        return []
    path = Path(frame)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.exists():
        return [path]
    return sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))


@dataclass(frozen=True, slots=True)
class Footers:
    """What Parquet footers say.

    Attributes:
        rows: How many.
        bytes: Size of the files.
        ends: Per time column its smallest and greatest instant, microseconds.
    """

    rows: int
    bytes: int
    ends: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, files: Iterable[Path]) -> Footers:
        """The footers of `files`, added up."""
        from pyarrow import parquet

        rows = size = 0
        ends: dict[str, list[int]] = {}
        without: set[str] = set()
        for file in files:
            footer = parquet.read_metadata(file)
            rows, size = rows + footer.num_rows, size + file.stat().st_size
            for number in range(footer.num_columns):
                scale = _scale(footer.schema.column(number))
                name = footer.schema.column(number).path
                for group in range(footer.num_row_groups if scale is not None else 0):
                    told = footer.row_group(group).column(number).statistics
                    if told is None or not told.has_min_max:
                        without.add(name)
                        continue
                    low, high = (_scaled(told.min_raw, scale), _scaled(told.max_raw, scale))
                    ends.setdefault(name, []).extend((low, high))
        return cls(rows, size, {name: (min(e), max(e)) for name, e in ends.items() if name not in without})

    def range(self, name: str) -> tuple[int | None, int | None]:
        """The ends of a time column; None if the footers do not say."""
        return self.ends.get(name, (None, None))


def _scale(column: Any) -> int | None:
    """What a stored number of a time column is multiplied with to be microseconds, 0 for nanoseconds; None of others."""
    told = json.loads(column.logical_type.to_json())
    return _UNITS.get(told.get("timeUnit", "")) if told.get("Type") == "Timestamp" else None


def _scaled(value: int, scale: int | None) -> int:
    return value * scale if scale else value // 1_000


def _countable(lazy: pl.LazyFrame) -> int | None:
    """How many rows a query gives if that can be told without running it."""
    lines = [line.strip() for line in lazy.explain(optimized=False).splitlines()]
    if not all(not line or _WHOLE.match(line) for line in lines):
        return None
    return int(lazy.select(pl.len()).collect().item())


def _ends(frame: pl.DataFrame, name: str) -> tuple[int | None, int | None]:
    if name not in frame.columns or not isinstance(frame.schema[name], pl.Datetime):
        return None, None
    low, high = frame.select(pl.col(name).min().alias("low"), pl.col(name).max().alias("high")).row(0)
    return tuple(None if end is None else instant_us(end, name) for end in (low, high))  # type: ignore[return-value]


# --- logs -------------------------------------------------------------------------------------------------------------


def _log_extent(told: Extent, files_for: Any, until_us: int | None, event_from_us: int | None) -> Extent:
    """What the log's statistics say of its files."""
    all_files = files_for(position=told.position).read
    latest = _last(all_files, "max.arrival_time")
    bounds: dict[str, Any] = {"position": told.position}
    if until_us is not None and latest is not None and until_us < latest:
        bounds["as_of"] = nearest_instant(until_us)
    if event_from_us is not None:
        bounds["event_from"] = nearest_instant(event_from_us)
    report = files_for(**bounds)
    read, skipped = report.read, report.skipped
    shares = _shares(read, told.position, until_us if "as_of" in bounds else None, event_from_us)
    rows = int((shares * read["num_records"]).round().sum() or 0)
    least = int(read.filter(shares == 1.0)["num_records"].sum())
    reasons = dict(skipped.group_by("reason").len().sort("reason").iter_rows())
    return Extent(
        *(told.source, told.address, told.provider, told.position, int(all_files["num_records"].sum())),
        *(least, report.rows_read, rows, read.height, reasons),
        *(int(read["size_bytes"].sum()), int(skipped["size_bytes"].sum())),
        *(_first(read, "min.event_time"), _last(read, "max.event_time"), latest),
    )


def _shares(files: pl.DataFrame, position: int | None, until_us: int | None, event_from_us: int | None) -> pl.Series:
    """Per file which part of its rows lies inside the bounds, if they lie evenly in it; 1.0 if all do for certain."""

    def share(name: str, *, below: int | None = None, above: int | None = None) -> pl.Expr:
        low, high = (pl.col(f"{end}.{name}").to_physical().cast(pl.Float64) for end in ("min", "max"))
        part = (below - low) / (high - low) if below is not None else (high - (above or 0)) / (high - low)
        inside = high <= below if below is not None else low >= above
        return pl.when(inside).then(1.0).otherwise(part.clip(0.0, 0.999).fill_nan(0.5)).fill_null(0.5)

    found = [pl.lit(1.0)]
    if position is not None:
        found.append(share("log_sequence", below=position))
    if until_us is not None:
        found.append(share("arrival_time", below=until_us))
    if event_from_us is not None:
        found.append(share("event_time", above=event_from_us))
    return files.select(pl.min_horizontal(found).alias("share")).to_series()


def _first(files: pl.DataFrame, name: str) -> int | None:
    found = files[name].min()
    return None if found is None else instant_us(found, name)  # type: ignore[arg-type]


def _last(files: pl.DataFrame, name: str) -> int | None:
    found = files[name].max()
    return None if found is None else instant_us(found, name)  # type: ignore[arg-type]
