"""Observations: what a provider sent, and which column is what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import polars as pl

from alignment.delays import DelayRule
from alignment.durations import DurationLike, parse_duration
from alignment.errors import (
    AddressError,
    ColumnTypeError,
    DuplicateColumnError,
    MissingColumnError,
    MissingFileError,
    NaiveTimeError,
    StoreError,
    UnknownArrivalError,
    ViewError,
    have,
)
from alignment.location import holds_secret
from alignment.wallclock import check_zone

Kind = Literal["measurement", "forecast"]

TIME_COLUMNS = ("event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence")
GIVEN = "given_arrival_time"
"""Of rows that were moved (R23): when they arrived before."""
NOT_VALUES = {GIVEN, "received_time", "published_time", "arrival_kind", "batch_id"}
"""Columns of a log that say how a row came, not what it says."""


@runtime_checkable
class ObservationSource(Protocol):
    """What a log offers to this package."""

    provider: str
    entities: list[str]
    kind: Kind
    key: list[str] | None
    clock_tolerance: str

    def position(self) -> int:
        """The greatest `log_sequence`; -1 if there is none."""

    def observed_through(self) -> datetime | None:
        """Up to when everything that the provider sent is known to be here."""

    def column_since(self) -> dict[str, int]:
        """Per column, the first `log_sequence` that could carry it."""

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        event_until: datetime | None = None,
        columns: Sequence[str] | None = None,
        after: int | None = None,
    ) -> pl.LazyFrame:
        """Observation rows with `after < log_sequence <= position`, arrivals as they count there."""


FrameLike = Any
"""Polars eager or lazy, Arrow, pandas, a Parquet path, or a log."""


class Observations:
    """One provider's rows, and which column is what.

    Args:
        frame: Polars eager or lazy, Arrow, pandas, a Parquet path, or a log. One row per revision.
        entities: Entity key columns, of any type; `[]` for one series for all.
        kind: `"measurement"` (an event is in the past when it arrives) or `"forecast"`.
        event_time: Column of the instant that the value is about; Datetime with zone, or Date (see `date_zone`).
        arrival_time: Column of the first instant from which serving could return the row.
        issue_time: Column of the instant at which a forecast was produced; where absent each arrival is its own issue.
        is_retraction: Boolean column; where absent nothing is retracted.
        log_sequence: Integer column that orders rows of one arrival; where absent equal rows collapse.
        key: Columns of an id that the provider declares; then `event_time` is a value and may move (R4).
        on_tie: `"error"`, or `"last"` to let the last of two different rows of one key and arrival win.
        clock_tolerance: A measurement's event may be later than its arrival by this much; the arrival is raised (R5).
        delay: Rule that gives rows without arrival one (R13).
        date_zone: Zone in which dates without time are read.
        date_means: Whether a Date as event means the `"end"` or the `"start"` of the local day.

    Raises:
        MissingColumnError: If a named column is not there.
        NaiveTimeError: If a time column has no zone.
        ColumnTypeError: If a column has a type that cannot be used.
        ViewError: If the arguments do not fit each other.
        DurationError: If `clock_tolerance` is not a duration.

    Example:
        >>> from datetime import UTC, datetime
        >>> frame = pl.DataFrame(
        ...     {
        ...         "station": ["a"],
        ...         "event_time": [datetime(2026, 1, 1, tzinfo=UTC)],
        ...         "arrival_time": [datetime(2026, 1, 1, 0, 30, tzinfo=UTC)],
        ...         "temp": [3.5],
        ...     }
        ... )
        >>> Observations(frame=frame, entities=["station"]).values
        ['temp']
    """

    def __init__(
        self,
        frame: FrameLike,
        entities: Sequence[str] | None = None,
        kind: Kind | None = None,
        *,
        event_time: str = "event_time",
        arrival_time: str = "arrival_time",
        issue_time: str = "issue_time",
        is_retraction: str = "is_retraction",
        log_sequence: str = "log_sequence",
        key: Sequence[str] | None = None,
        on_tie: Literal["error", "last"] = "error",
        clock_tolerance: DurationLike | None = None,
        delay: DelayRule | None = None,
        date_zone: str | None = None,
        date_means: Literal["start", "end"] | None = None,
        derive: Mapping[str, pl.Expr] | None = None,
        place: str = "the observations",
    ) -> None:
        # A frame of Spark Connect says of any name that it is one of its columns.
        source = frame if isinstance(frame, ObservationSource) and not _in_spark(frame) else None
        if source is not None:
            entities = source.entities if entities is None else entities
            kind = source.kind if kind is None else kind
            key = source.key if key is None else key
            clock_tolerance = source.clock_tolerance if clock_tolerance is None else clock_tolerance
        elif not _in_spark(frame) and hasattr(frame, "read_next_batch"):  # a stream of Arrow can be read once
            frame = as_lazy(frame, place).collect()
        self.frame = frame
        self.source: ObservationSource | None = source
        self.place = place
        self.moved_by: tuple[Mapping[str, Any], ...] = ()  # what moved arrivals, as describe_moves says it (R23)
        self.entities = _names(entities, "entities", place)
        self.key = _names(key, "key", place) if key else []
        self.kind: Kind = kind or "measurement"
        self.event_time = event_time
        self.arrival_time = arrival_time
        self.issue_time = issue_time
        self.is_retraction = is_retraction
        self.log_sequence = log_sequence
        self.on_tie = on_tie
        self.tolerance = parse_duration(
            "5s" if clock_tolerance is None else clock_tolerance, "clock_tolerance", allow_zero=True
        )
        self.delay = delay
        self.date_zone = check_zone(date_zone, "date_zone")
        self.date_means = date_means
        self.derive = dict(derive or {})
        # Of a renamed column both names can be asked for: a declaration may be older than the new one.
        self.former_names: dict[str, str] = getattr(source, "former_names", dict)()
        rows = self._renamed(source.scan()) if source is not None else as_lazy(frame, place)
        schema = dict(rows.collect_schema())
        _check_derive(self.derive, schema, place)
        self.schema: dict[str, pl.DataType] = (
            dict(rows.with_columns(**self.derive).collect_schema()) if derive else schema
        )
        self._check()

    def but(self, **changes: Any) -> Observations:
        """The same observations with other arguments; those given as None stay as they are."""
        same = {
            name: getattr(self, name)
            for name in (
                *(
                    "frame",
                    "entities",
                    "kind",
                    "event_time",
                    "arrival_time",
                    "issue_time",
                    "is_retraction",
                    "log_sequence",
                ),
                *("key", "on_tie", "delay", "date_zone", "date_means", "derive", "place"),
            )
        }
        same["clock_tolerance"] = self.tolerance
        found = Observations(**same | {name: value for name, value in changes.items() if value is not None})
        found.moved_by = self.moved_by
        return found

    @property
    def values(self) -> list[str]:
        """The observed columns, in the frame's order; derived ones last."""
        other = self._structure | NOT_VALUES | set(self.former_names)
        return [name for name in self.schema if name not in other]

    @property
    def has_log_sequence(self) -> bool:
        """Whether the rows have a total order."""
        return self.log_sequence in self.schema

    @property
    def has_issue_time(self) -> bool:
        """Whether forecasts say when they were issued."""
        return self.kind == "forecast" and self.issue_time in self.schema

    @property
    def _structure(self) -> set[str]:
        times = {self.event_time, self.arrival_time, self.is_retraction, self.log_sequence}
        if self.kind == "forecast":
            times.add(self.issue_time)
        return times | {*self.entities, *self.key}

    def lazy(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,
        after: int | None = None,
    ) -> pl.LazyFrame:
        """The rows as they are, lazily, between two log positions; a log need not read what arrived after `as_of`, nor earlier events."""
        source = self.source
        if source is not None:
            rows = self._renamed(source.scan(position=position, as_of=as_of, event_from=event_from, after=after))
        else:
            rows = as_lazy(self.frame, self.place)
            if position is not None and self.has_log_sequence:
                rows = rows.filter(pl.col(self.log_sequence) <= position)
            if after is not None and self.has_log_sequence:
                rows = rows.filter(pl.col(self.log_sequence) > after)
        return rows.with_columns(**self.derive) if self.derive else rows

    def _renamed(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.with_columns(pl.col(now).alias(former) for former, now in self.former_names.items())

    def _check(self) -> None:
        schema = self.schema
        if self.kind not in ("measurement", "forecast"):
            raise ViewError(f"{self.place}: kind={self.kind!r} is unknown", 'choose "measurement" or "forecast".')
        if self.on_tie not in ("error", "last"):
            raise ViewError(f"{self.place}: on_tie={self.on_tie!r} is unknown", 'choose "error" or "last".')
        if self.delay is not None and not isinstance(self.delay, DelayRule):
            raise ViewError(
                f"{self.place}: delay={self.delay!r} is not a delay rule", 'e.g. delay=al.FixedDelay("45m").'
            )
        reserved = next((name for name in schema if name.startswith("@")), None)
        if reserved is not None:
            raise ViewError(
                f"{self.place}: the column name {reserved!r} begins with '@', as names kept for the engines do",
                f'rename it, e.g. frame.rename({{"{reserved}": "{reserved.lstrip("@")}"}}).',
            )
        for name in [*self.entities, *self.key]:
            if name not in schema:
                raise MissingColumnError(name, self.place, schema)
        if self.event_time not in schema:
            raise MissingColumnError(self.event_time, self.place, schema, argument="event_time")
        if self.arrival_time not in schema and self.delay is None:
            if self.arrival_time == "arrival_time" and "arrival_time" not in schema:
                close = MissingColumnError("arrival_time", self.place, schema, argument="arrival_time").hint
                raise UnknownArrivalError(
                    f"{self.place} {have(self.place)} no column 'arrival_time': when a row arrived is unknown",
                    f'{close}\nOr declare when it arrived: delay=al.FixedDelay("45m").',
                )
            raise MissingColumnError(self.arrival_time, self.place, schema, argument="arrival_time")
        self._check_types(schema)

    def _check_types(self, schema: Mapping[str, pl.DataType]) -> None:
        for argument in ("event_time", "arrival_time", "issue_time"):
            name = getattr(self, argument)
            if name in schema and (argument != "issue_time" or self.kind == "forecast"):
                self._check_time(name, schema[name], is_event=argument == "event_time")
        if self.is_retraction in schema and schema[self.is_retraction] != pl.Boolean:
            raise ColumnTypeError(
                f"{self.place}: {self.is_retraction!r} is {schema[self.is_retraction]}, not Boolean",
                f'e.g. pl.col("{self.is_retraction}").cast(pl.Boolean).',
            )
        if self.log_sequence in schema and not schema[self.log_sequence].is_integer():
            raise ColumnTypeError(
                f"{self.place}: {self.log_sequence!r} is {schema[self.log_sequence]}, not an integer",
                "a log sequence counts rows: 0, 1, 2, ...",
            )

    def _check_time(self, name: str, kind: pl.DataType, *, is_event: bool) -> None:
        if isinstance(kind, pl.Datetime):
            if kind.time_zone is None:
                raise NaiveTimeError(name, self.place)
        elif kind == pl.Date:
            if self.date_zone is None:
                raise ColumnTypeError(
                    f"{self.place}: {name!r} holds dates without a time",
                    'say in which zone they are read, e.g. date_zone="Europe/Berlin".',
                )
            if is_event and self.date_means not in ("start", "end"):
                raise ColumnTypeError(
                    f"{self.place}: {name!r} holds dates, and it is not said which end of the day an event is",
                    'pass date_means="end" (the value is about the day that ended) or date_means="start".',
                )
        else:
            raise ColumnTypeError(
                f"{self.place}: {name!r} is {kind}, not an instant",
                f'e.g. pl.col("{name}").str.to_datetime(time_zone="UTC").'
                if kind == pl.String
                else 'a time column is Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
            )


def is_delta_folder(path: str | Path) -> bool:
    """Whether a path or address is that of a Delta table: not all Parquet files in its folder need be part of it."""
    text = str(path)
    if "://" not in text:
        return (Path(path) / "_delta_log").is_dir()
    if text.endswith(".parquet") or set(text) & set("*?["):
        return False
    from deltalake import DeltaTable

    return bool(DeltaTable.is_deltatable(text))


def as_lazy(frame: FrameLike, place: str) -> pl.LazyFrame:
    """`frame` as a lazy frame, without copying where it can be avoided; of a frame of Spark the columns alone, its rows stay there.

    Raises:
        ColumnTypeError: If it is not a frame.
        DuplicateColumnError: If two of its columns have one name.
        AddressError: If it is an address that holds a user or a password.
        MissingFileError: If it is a path, and nothing is there.
        StoreError: If it is an address, and its store refuses or fails.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if isinstance(frame, str | Path):
        if holds_secret(str(frame)):
            raise AddressError
        return _scan(frame, place)
    if _in_spark(frame):
        from alignment.engines.spark.frames import refusing

        return refusing(frame, place)
    pandas = type(frame).__module__.partition(".")[0] == "pandas"
    if pandas or hasattr(frame, "__arrow_c_stream__"):
        columns = frame.columns if pandas else getattr(frame, "column_names", getattr(frame, "columns", ()))
        names = [str(name) for name in columns]  # of an Arrow table `columns` holds values
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DuplicateColumnError(
                f"{place}: {twice!r} is the name of {names.count(twice)} columns", "rename all but one of them."
            )
        made = pl.from_pandas(frame) if not hasattr(frame, "__arrow_c_stream__") else pl.DataFrame(frame)
        return made.lazy()
    raise ColumnTypeError(
        f"{place}: a {type(frame).__name__} is not a frame",
        "pass a Polars, Arrow, pandas or Spark frame, a Parquet path or Delta folder, or a log.",
    )


def _scan(path: str | Path, place: str) -> pl.LazyFrame:
    try:
        rows = pl.scan_delta(str(path)) if is_delta_folder(path) else pl.scan_parquet(path)
        rows.collect_schema()  # what is read for it Polars keeps; a file that is missing would be missed far from here
    except (OSError, pl.exceptions.ComputeError) as error:
        fault = StoreError.of(error, str(path)) if "://" in str(path) else None
        if fault is not None:
            raise fault from error
        if isinstance(error, FileNotFoundError) or "expanded paths were empty" in str(error):
            raise MissingFileError(str(path), place) from error
        raise
    return rows


def _in_spark(frame: FrameLike) -> bool:
    return type(frame).__module__.startswith("pyspark.sql.")


def _names(names: Sequence[str] | None, what: str, place: str) -> list[str]:
    if names is None:
        raise ViewError(f"{place}: {what} are not named", f'e.g. {what}=["station"], or [] for one series for all.')
    if isinstance(names, str):
        raise ViewError(f"{place}: {what}={names!r} is a text, not a list", f"write {what}=[{names!r}].")
    return list(names)


def _is_row_wise(expression: pl.Expr) -> bool:
    meta = expression.meta
    try:
        if meta.is_literal():
            return True
        # Polars judges the outermost operation alone: `x / x.sum()` is row separable to it.
        return (
            meta.is_row_separable() and meta.is_length_preserving() and all(_is_row_wise(part) for part in meta.pop())
        )
    except pl.exceptions.PolarsError:  # a Python function inside: nothing says that it is
        return False


def _gives_one_row(expression: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether one row gives one value: a series inside would give each row the value of its place."""
    roots = {name: schema[name] for name in expression.meta.root_names()}
    row = pl.DataFrame({name: [None] for name in roots}, schema=roots) if roots else pl.DataFrame({"": [None]})
    try:
        return row.select(expression).height == 1
    except pl.exceptions.PolarsError:  # it fails on null, which says nothing of other rows
        return True


def _check_derive(derive: Mapping[str, pl.Expr], schema: Mapping[str, pl.DataType], place: str) -> None:
    for name, expression in derive.items():
        if not isinstance(expression, pl.Expr):
            raise ViewError(
                f"{place}: derive[{name!r}] is not a Polars expression", f'e.g. derive={{"{name}": pl.col("u") * 2}}.'
            )
        for root in expression.meta.root_names():
            if root not in schema:
                raise MissingColumnError(root, f"{place}, read by derive[{name!r}],", schema)
        if not _is_row_wise(expression) or not _gives_one_row(expression, schema):
            raise ViewError(
                f"{place}: derive[{name!r}] looks at more than one row: {expression}",
                "a derived column is computed from one row alone; use window, lag or sequence for several.",
            )
        if name in schema:
            raise ViewError(f"{place}: derive[{name!r}] would replace an observed column", "give it another name.")
