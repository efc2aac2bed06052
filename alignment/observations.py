"""Observations: what a provider sent, in the one form that engines read.

`Observations` says which column is what. `canonical` turns it into a lazy frame of fixed column names; `checked` collects
that and refuses what the rules of time do not allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import polars as pl

from alignment.delays import DelayRule
from alignment.durations import DAY_US, DurationLike, instant_from_us, parse_duration
from alignment.errors import (
    ColumnTypeError,
    DuplicateColumnError,
    EventAfterArrivalError,
    MissingColumnError,
    NaiveTimeError,
    NullKeyError,
    NullTimeError,
    UnknownArrivalError,
    ViewError,
)
from alignment.wallclock import check_zone, to_instants

Kind = Literal["measurement", "forecast"]

EVENT, ARRIVAL, ISSUE = "@event", "@arrival", "@issue"
"""Canonical columns, Int64 microseconds UTC; `@issue` in forecasts only."""
RETRACTION = "@retraction"
"""Boolean, never null."""
ORDER = "@order"
"""Int64: orders rows of one arrival; `log_sequence` where there is one."""
ARRIVAL_KIND = "@arrival_kind"
TIME_COLUMNS = ("event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence")
NOT_VALUES = {"received_time", "published_time", "arrival_kind", "batch_id"}
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
    ) -> pl.LazyFrame:
        """Observation rows with `log_sequence <= position`, arrivals as they count there."""


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
        >>> frame = pl.DataFrame({
        ...     "station": ["a"], "event_time": [datetime(2026, 1, 1, tzinfo=UTC)],
        ...     "arrival_time": [datetime(2026, 1, 1, 0, 30, tzinfo=UTC)], "temp": [3.5],
        ... })
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
        source = frame if isinstance(frame, ObservationSource) else None
        if source is not None:
            entities = source.entities if entities is None else entities
            kind = source.kind if kind is None else kind
            key = source.key if key is None else key
            clock_tolerance = source.clock_tolerance if clock_tolerance is None else clock_tolerance
        self.frame = frame
        self.source: ObservationSource | None = source
        self.place = place
        self.entities = _names(entities, "entities", place)
        self.key = _names(key, "key", place) if key else []
        self.kind: Kind = kind or "measurement"
        self.event_time = event_time
        self.arrival_time = arrival_time
        self.issue_time = issue_time
        self.is_retraction = is_retraction
        self.log_sequence = log_sequence
        self.on_tie = on_tie
        self.tolerance = parse_duration("5s" if clock_tolerance is None else clock_tolerance, "clock_tolerance", allow_zero=True)
        self.delay = delay
        self.date_zone = check_zone(date_zone, "date_zone")
        self.date_means = date_means
        self.derive = dict(derive or {})
        rows = source.scan() if source is not None else as_lazy(frame, place)
        schema = dict(rows.collect_schema())
        _check_derive(self.derive, schema, place)
        self.schema: dict[str, pl.DataType] = dict(rows.with_columns(**self.derive).collect_schema()) if derive else schema
        self._check()

    def but(self, **changes: Any) -> Observations:
        """The same observations with other arguments; those given as None stay as they are."""
        same = {
            name: getattr(self, name)
            for name in (
                *("frame", "entities", "kind", "event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence"),
                *("key", "on_tie", "delay", "date_zone", "date_means", "derive", "place"),
            )
        }
        same["clock_tolerance"] = self.tolerance
        return Observations(**same | {name: value for name, value in changes.items() if value is not None})

    @property
    def values(self) -> list[str]:
        """The observed columns, in the frame's order; derived ones last."""
        return [name for name in self.schema if name not in self._structure and name not in NOT_VALUES]

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

    def lazy(self, *, position: int | None = None, as_of: datetime | None = None, columns: Sequence[str] | None = None) -> pl.LazyFrame:
        """The rows as they are, lazily, up to a log position."""
        source = self.source
        if source is not None:
            rows = source.scan(position=position, as_of=as_of, columns=columns)
        else:
            rows = as_lazy(self.frame, self.place)
            if position is not None and self.has_log_sequence:
                rows = rows.filter(pl.col(self.log_sequence) <= position)
        return rows.with_columns(**self.derive) if self.derive else rows

    def _check(self) -> None:
        schema = self.schema
        if self.kind not in ("measurement", "forecast"):
            raise ViewError(f"{self.place}: kind={self.kind!r} is unknown", 'choose "measurement" or "forecast".')
        if self.on_tie not in ("error", "last"):
            raise ViewError(f"{self.place}: on_tie={self.on_tie!r} is unknown", 'choose "error" or "last".')
        if self.delay is not None and not isinstance(self.delay, DelayRule):
            raise ViewError(f"{self.place}: delay={self.delay!r} is not a delay rule", 'e.g. delay=al.FixedDelay("45m").')
        for name in [*self.entities, *self.key]:
            if name not in schema:
                raise MissingColumnError(name, self.place, schema)
        if self.event_time not in schema:
            raise MissingColumnError(self.event_time, self.place, schema, argument="event_time")
        if self.arrival_time not in schema and self.delay is None:
            if self.arrival_time == "arrival_time" and "arrival_time" not in schema:
                close = MissingColumnError("arrival_time", self.place, schema, argument="arrival_time").hint
                raise UnknownArrivalError(
                    f"{self.place} has no column 'arrival_time': when a row arrived is unknown",
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
                    f"{self.place}: {name!r} holds dates without a time", 'say in which zone they are read, e.g. date_zone="Europe/Berlin".'
                )
            if is_event and self.date_means not in ("start", "end"):
                raise ColumnTypeError(
                    f"{self.place}: {name!r} holds dates, and it is not said which end of the day an event is",
                    'pass date_means="end" (the value is about the day that ended) or date_means="start".',
                )
        else:
            raise ColumnTypeError(
                f"{self.place}: {name!r} is {kind}, not an instant", f'e.g. pl.col("{name}").str.to_datetime(time_zone="UTC").'
                if kind == pl.String
                else 'a time column is Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
            )


@dataclass(frozen=True, slots=True)
class Checked:
    """Canonical rows, in memory, that obey the rules.

    Attributes:
        frame: Entity columns, the canonical columns, the asked for values; row order as given.
        raised: Arrivals that were raised to their event (R5).
    """

    frame: pl.DataFrame
    raised: int


def canonical(
    observations: Observations,
    columns: Sequence[str],
    *,
    position: int | None = None,
    as_of_us: int | None = None,
) -> pl.LazyFrame:
    """The rows under canonical names: entity and key columns, `@event`, `@arrival`, ... and `columns`.

    `@arrival` may be null where no delay rule is given, and events may lie after arrivals: see `checked`.

    Args:
        observations: The rows.
        columns: Observed columns to keep.
        position: Greatest `log_sequence` that counts; None for all.
        as_of_us: Rows that arrived later are dropped where the source can do so cheaply.

    Returns:
        A lazy frame; `@order` is there only if the rows have a `log_sequence`, `@issue` only for forecasts.
    """
    schema = observations.schema
    as_of = None if as_of_us is None else instant_from_us(as_of_us)
    rows = observations.lazy(position=position, as_of=as_of)
    kept = list(dict.fromkeys([*observations.entities, *observations.key, *columns]))
    fields = [pl.col(name) for name in kept]
    fields.append(_time(observations, observations.event_time, is_event=True).alias(EVENT))
    if observations.arrival_time in schema:
        fields.append(_time(observations, observations.arrival_time).alias(ARRIVAL))
    else:
        fields.append(pl.lit(None, pl.Int64).alias(ARRIVAL))
    if observations.has_issue_time:
        fields.append(_time(observations, observations.issue_time).alias(ISSUE))
    if observations.is_retraction in schema:
        fields.append(pl.col(observations.is_retraction).fill_null(value=False).alias(RETRACTION))
    if observations.has_log_sequence:
        fields.append(pl.col(observations.log_sequence).cast(pl.Int64).alias(ORDER))
    if "arrival_kind" in schema:
        fields.append(pl.col("arrival_kind").alias(ARRIVAL_KIND))
    return rows.select(fields)


def checked(
    observations: Observations,
    columns: Sequence[str],
    *,
    position: int | None = None,
    as_of_us: int | None = None,
) -> Checked:
    """Canonical rows, collected, with arrivals complete and every rule of a frame enforced.

    Raises:
        NullKeyError: If an entity or id is null (R21).
        NullTimeError: If an event (or a forecast's issue) is null on a row with values.
        UnknownArrivalError: If an arrival is null and there is no delay rule (R13).
        EventAfterArrivalError: If a measurement's event is later than its arrival by more than the tolerance (R5).
    """
    return check_rows(observations, canonical(observations, columns, position=position, as_of_us=as_of_us).collect())


@dataclass(frozen=True, slots=True)
class Summary:
    """What a provider's rows are, at a position.

    Attributes:
        rows: How many.
        greatest_arrival: The latest instant at which one arrived, microseconds; None without rows.
        arrival_kinds: Rows by how their arrival is known.
        arrivals_raised: Rows whose arrival was raised to their event (R5).
    """

    rows: int
    greatest_arrival: int | None
    arrival_kinds: dict[str, int]
    arrivals_raised: int

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        greatest = None if self.greatest_arrival is None else instant_from_us(self.greatest_arrival).isoformat()
        return {
            "rows": self.rows,
            "greatest_arrival": greatest,
            "arrival_kinds": self.arrival_kinds,
            "arrivals_raised": self.arrivals_raised,
        }


def summarize(observations: Observations, *, position: int | None = None) -> Summary:
    """What the rows are, from their times alone.

    Raises:
        UnknownArrivalError: If an arrival is null and there is no delay rule (R13).
    """
    rows = canonical(observations, [], position=position).drop(observations.entities, observations.key, ORDER, strict=False)
    measured = observations.kind == "measurement"
    known = [pl.col(ARRIVAL_KIND)] if "arrival_kind" in observations.schema else []
    if observations.delay is not None:
        rows = _complete_arrivals(observations, rows.collect()).lazy()
        known = [pl.col(ARRIVAL_KIND)] if ARRIVAL_KIND in rows.collect_schema() else []
    early = (pl.col(EVENT) > pl.col(ARRIVAL)) if measured else pl.lit(value=False)
    counted = (
        rows.group_by(known or [pl.lit("measured").alias(ARRIVAL_KIND)])
        .agg(pl.len(), pl.col(ARRIVAL).max(), early.sum().alias("raised"), pl.col(EVENT).filter(early).max().alias("raised_to"))
        .sort(ARRIVAL_KIND)
        .collect(engine="streaming")
    )
    latest = [instant for name in (ARRIVAL, "raised_to") for instant in counted[name].drop_nulls()]
    kinds = {kind or "unknown": n for kind, n in counted.select(ARRIVAL_KIND, "len").iter_rows()}
    return Summary(int(counted["len"].sum()), max(latest, default=None), kinds, int(counted["raised"].sum()))


def check_rows(observations: Observations, frame: pl.DataFrame) -> Checked:
    """`frame` as canonical rows that obey the rules; see `checked`."""
    place = observations.place
    for name in [*observations.entities, *observations.key]:
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0)
            raise NullKeyError(
                f"{place}: {name!r} is null in {frame[name].null_count()} rows, first in row {row}",
                f'drop them, e.g. frame.drop_nulls("{name}"), or name another key.',
            )
    retraction = frame[RETRACTION] if RETRACTION in frame.columns else None
    if ORDER in frame.columns and frame[ORDER].null_count():
        row = int(frame[ORDER].is_null().arg_max() or 0)
        raise ColumnTypeError(
            f"{place}: {observations.log_sequence!r} is null, first in row {row}", "number every row, or drop the column."
        )
    _check_null_times(observations, frame, retraction)
    frame = _complete_arrivals(observations, frame)
    if observations.kind == "forecast":
        if ISSUE not in frame.columns:
            issue = pl.col(ARRIVAL) if retraction is None else pl.when(~pl.col(RETRACTION)).then(ARRIVAL)
            frame = frame.with_columns(issue.alias(ISSUE))
        return Checked(frame, 0)
    return _raise_arrivals(observations, frame, retraction)


def _check_null_times(observations: Observations, frame: pl.DataFrame, retraction: pl.Series | None) -> None:
    place = observations.place
    for column, name in ((EVENT, observations.event_time), (ISSUE, observations.issue_time)):
        if column not in frame.columns or not frame[column].null_count():
            continue
        null = frame[column].is_null()
        if retraction is not None and (column == ISSUE or observations.key):
            null = null & ~retraction
        if null.any():
            row = int(null.arg_max() or 0)
            raise NullTimeError(
                f"{place}: {name!r} is null in {null.sum()} rows with values, first in row {row}",
                f'drop them, e.g. frame.filter(pl.col("{name}").is_not_null()).',
            )


def _complete_arrivals(observations: Observations, frame: pl.DataFrame) -> pl.DataFrame:
    missing = frame[ARRIVAL].null_count()
    if not missing:
        return frame
    place = observations.place
    if observations.delay is None:
        row = int(frame[ARRIVAL].is_null().arg_max() or 0)
        raise UnknownArrivalError(
            f"{place}: {observations.arrival_time!r} is null in {missing} rows, first in row {row}: when they arrived is unknown",
            'declare it, e.g. delay=al.FixedDelay("45m"), or drop the rows.',
        )
    times = [pl.col(EVENT).cast(pl.Datetime("us", "UTC")).alias("event_time")]
    if ISSUE in frame.columns:
        times.append(pl.col(ISSUE).cast(pl.Datetime("us", "UTC")).alias("issue_time"))
    unknown = pl.col(ARRIVAL).is_null()
    given = observations.delay.arrival_times(frame.select(times)).to_physical()
    kinds = pl.col(ARRIVAL_KIND) if ARRIVAL_KIND in frame.columns else pl.lit("measured")
    return frame.with_columns(
        pl.coalesce(ARRIVAL, given).alias(ARRIVAL),
        pl.when(unknown).then(pl.lit(observations.delay.arrival_kind)).otherwise(kinds).alias(ARRIVAL_KIND),
    )


def _raise_arrivals(observations: Observations, frame: pl.DataFrame, retraction: pl.Series | None) -> Checked:
    early = frame[EVENT] > frame[ARRIVAL]
    if observations.key and retraction is not None:
        early = (early & ~retraction).fill_null(value=False)
    count = int(early.sum())
    if not count:
        return Checked(frame, 0)
    beyond = early & (frame[EVENT] - frame[ARRIVAL] > observations.tolerance.total_us)
    if beyond.any():
        row = int(beyond.arg_max() or 0)
        event, arrival = instant_from_us(frame[EVENT][row]), instant_from_us(frame[ARRIVAL][row])
        raise EventAfterArrivalError(
            f"{observations.place}: {beyond.sum()} measurements arrived before they happened, first in row {row}: "
            f"event {event.isoformat()}, arrival {arrival.isoformat()}",
            'say kind="forecast" if they are forecasts, or raise clock_tolerance (now '
            f'{observations.tolerance.text}) if the provider\'s clock is ahead.',
        )
    if ORDER not in frame.columns:
        frame = frame.with_columns(pl.col(ARRIVAL).alias(ORDER))
    return Checked(frame.with_columns(pl.when(early).then(EVENT).otherwise(ARRIVAL).alias(ARRIVAL)), count)


def _time(observations: Observations, name: str, *, is_event: bool = False) -> pl.Expr:
    kind = observations.schema[name]
    column = pl.col(name)
    if kind == pl.Date:
        zone = cast("str", observations.date_zone)
        next_day = not is_event or observations.date_means == "end"
        days = column.cast(pl.Int32).cast(pl.Int64) + (1 if next_day else 0)
        return days.map_batches(lambda series: _midnights(series, zone), return_dtype=pl.Int64, is_elementwise=True)
    unit = cast("pl.Datetime", kind).time_unit
    if unit == "ns":
        return -((-column.to_physical()) // 1000)
    return column.to_physical() * 1000 if unit == "ms" else column.to_physical()


def _midnights(days: pl.Series, zone: str) -> pl.Series:
    instants = to_instants((days.fill_null(0) * DAY_US).to_numpy(), zone)
    return pl.select(pl.when(days.is_not_null()).then(pl.Series(instants))).to_series()


def as_lazy(frame: FrameLike, place: str) -> pl.LazyFrame:
    """`frame` as a lazy frame, without copying where it can be avoided.

    Raises:
        ColumnTypeError: If it is not a frame.
        DuplicateColumnError: If two of its columns have one name.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if isinstance(frame, str | Path):
        return pl.scan_parquet(frame)
    if type(frame).__module__.partition(".")[0] == "pandas" or hasattr(frame, "__arrow_c_stream__"):
        names = [str(name) for name in getattr(frame, "columns", ())]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DuplicateColumnError(f"{place}: {twice!r} is the name of {names.count(twice)} columns", "rename all but one of them.")
        made = pl.from_pandas(frame) if not hasattr(frame, "__arrow_c_stream__") else pl.DataFrame(frame)
        return made.lazy()
    raise ColumnTypeError(
        f"{place}: a {type(frame).__name__} is not a frame", "pass a Polars, Arrow or pandas frame, a Parquet path, or a log."
    )


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
        return meta.is_row_separable() and meta.is_length_preserving() and all(_is_row_wise(part) for part in meta.pop())
    except pl.exceptions.PolarsError:  # a Python function inside: nothing says that it is
        return False


def _check_derive(derive: Mapping[str, pl.Expr], schema: Mapping[str, pl.DataType], place: str) -> None:
    for name, expression in derive.items():
        if not isinstance(expression, pl.Expr):
            raise ViewError(f"{place}: derive[{name!r}] is not a Polars expression", f'e.g. derive={{"{name}": pl.col("u") * 2}}.')
        for root in expression.meta.root_names():
            if root not in schema:
                raise MissingColumnError(root, f"{place}, read by derive[{name!r}],", schema)
        if not _is_row_wise(expression):
            raise ViewError(
                f"{place}: derive[{name!r}] looks at more than one row: {expression}",
                "a derived column is computed from one row alone; use window, lag or sequence for several.",
            )
        if name in schema:
            raise ViewError(f"{place}: derive[{name!r}] would replace an observed column", "give it another name.")
