"""Rows in the one form that engines read: canonical names, complete arrivals, rules enforced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import polars as pl

from alignment.durations import DAY_US, EARLIEST, LATEST, nearest_instant
from alignment.errors import ColumnTypeError, EventAfterArrivalError, NullKeyError, NullTimeError, UnknownArrivalError
from alignment.observations import Observations
from alignment.wallclock import to_instants

EVENT, ARRIVAL, ISSUE = "@event", "@arrival", "@issue"
"""Canonical columns, Int64 microseconds UTC; `@issue` in forecasts only."""
RETRACTION = "@retraction"
"""Boolean, never null."""
ORDER = "@order"
"""Int64: orders rows of one arrival; `log_sequence` where there is one."""
ARRIVAL_KIND = "@arrival_kind"

_SUMMARIZED = 1 << 20
"""Rows that a delay rule is asked about at once for a summary."""
_AT_ONCE = 1 << 30
"""Values of a file or log are read together up to this many bytes; beyond it column by column, when they are asked for."""


@dataclass(slots=True)
class Rows:
    """Canonical rows that obey the rules.

    Attributes:
        observations: Where they come from.
        frame: Entity and id columns, the canonical columns, and values that are in memory; row order as given.
        raised: How many arrivals were raised to their event (R5).
        position: Log position at which they were read.
        as_of_us: Rows that arrived later may be left out.
        event_from_us: Rows of a log with an earlier event may be left out.
    """

    observations: Observations
    frame: pl.DataFrame
    raised: int
    position: int | None = None
    as_of_us: int | None = None
    event_from_us: int | None = None

    def column(self, name: str) -> pl.Series:
        """One observed column, row for row; read now if it is not in memory."""
        if name in self.frame.columns:
            return self.frame[name]
        lazy = canonical(
            self.observations,
            [name],
            position=self.position,
            as_of_us=self.as_of_us,
            event_from_us=self.event_from_us,
        )
        return lazy.select(name).collect().to_series()

    def forget(self, names: Sequence[str]) -> None:
        """Give back the memory of columns that are no longer needed."""
        self.frame = self.frame.drop(names, strict=False)


def canonical(
    observations: Observations,
    columns: Sequence[str],
    *,
    position: int | None = None,
    as_of_us: int | None = None,
    event_from_us: int | None = None,
    after: int | None = None,
) -> pl.LazyFrame:
    """The rows under canonical names: entity and key columns, `@event`, `@arrival`, ... and `columns`.

    `@arrival` may be null where no delay rule is given, and events may lie after arrivals: see `checked`.

    Args:
        observations: The rows.
        columns: Observed columns to keep.
        position: Greatest `log_sequence` that counts; None for all.
        as_of_us: Rows that arrived later are dropped where the source can do so cheaply.
        event_from_us: So are rows with an earlier event.
        after: Rows of a log with this `log_sequence` or a lower one are dropped.

    Returns:
        A lazy frame; `@order` is there only if the rows have a `log_sequence`, `@issue` only for forecasts.
    """
    schema = observations.schema
    rows = observations.lazy(position=position, as_of=_bound(as_of_us), event_from=_bound(event_from_us), after=after)
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


def _bound(microseconds: int | None) -> datetime | None:
    """A bound as an instant; none if it lies where no instant can be written, for the source need not leave out anything."""
    found = None if microseconds is None else nearest_instant(microseconds)
    return None if found in (EARLIEST, LATEST) else found


def checked(
    observations: Observations,
    columns: Sequence[str],
    *,
    position: int | None = None,
    as_of_us: int | None = None,
    event_from_us: int | None = None,
) -> Rows:
    """Canonical rows, collected, with arrivals complete and every rule of a frame enforced.

    Args:
        observations: The rows.
        columns: Observed columns that will be asked for.
        position: Greatest `log_sequence` that counts; None for all that are there now.
        as_of_us: Rows that arrived later may be left out.
        event_from_us: Rows of a log with an earlier event may be left out.

    Raises:
        NullKeyError: If an entity or id is null (R21).
        NullTimeError: If an event (or a forecast's issue) is null on a row with values.
        UnknownArrivalError: If an arrival is null and there is no delay rule (R13).
        EventAfterArrivalError: If a measurement's event is later than its arrival by more than the tolerance (R5).
    """
    if position is None and observations.source is not None:
        position = observations.source.position()
    stored = observations.source is not None or isinstance(observations.frame, str | Path)
    if stored and columns:
        height = observations.lazy(position=position).select(pl.len()).collect().item()
        columns = columns if height * len(columns) * 8 <= _AT_ONCE else []
    rows = canonical(observations, columns, position=position, as_of_us=as_of_us, event_from_us=event_from_us)
    frame, raised = check_rows(observations, in_one_piece(rows.drop(ARRIVAL_KIND, strict=False).collect()))
    return Rows(observations, frame, raised, position, as_of_us, event_from_us)


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
        greatest = None if self.greatest_arrival is None else nearest_instant(self.greatest_arrival).isoformat()
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
    if type(observations.frame).__module__.startswith("pyspark.sql."):
        from alignment.engines.spark.summaries import summarize_spark

        return summarize_spark(observations, position=position)
    rows = canonical(observations, [], position=position).drop(ORDER, strict=False)
    if observations.delay is None:
        return _summary(observations, rows)
    parts = rows.collect_batches(chunk_size=_SUMMARIZED, maintain_order=True, lazy=True, engine="streaming")
    return _added_up(_summary(observations, _complete_arrivals(observations, part).lazy()) for part in parts)


def _summary(observations: Observations, rows: pl.LazyFrame) -> Summary:
    measured = observations.kind == "measurement"
    known = [pl.col(ARRIVAL_KIND)] if ARRIVAL_KIND in rows.collect_schema() else []
    rows = rows.drop(observations.entities, observations.key, strict=False)
    early = (pl.col(EVENT) > pl.col(ARRIVAL)) if measured else pl.lit(value=False)
    seen = rows.select(
        pl.len().alias("rows"),
        pl.col(ARRIVAL).max().alias("latest"),
        early.sum().alias("raised"),
        pl.col(EVENT).filter(early).max().alias("raised_to"),
        *(kind for name in known for kind in (name.min().alias("first_kind"), name.max().alias("last_kind"))),
        *(name.null_count().alias("no_kind") for name in known),
    ).collect(engine="streaming")
    found = seen.row(0, named=True)
    latest = [instant for name in ("latest", "raised_to") if (instant := found[name]) is not None]
    kinds = {"measured": found["rows"]} if found["rows"] else {}
    if known and found["rows"]:
        kinds = {found["first_kind"]: found["rows"]}
        if found["no_kind"] or found["first_kind"] != found["last_kind"]:
            counted = rows.group_by(ARRIVAL_KIND).agg(pl.len()).sort(ARRIVAL_KIND).collect(engine="streaming")
            kinds = {kind or "unknown": n for kind, n in counted.iter_rows()}
    return Summary(found["rows"], max(latest, default=None), kinds, int(found["raised"] or 0))


def _added_up(parts: Iterable[Summary]) -> Summary:
    """Of parts of the rows, what they are together."""
    rows = raised = 0
    latest: list[int] = []
    kinds: Counter[str] = Counter()
    for part in parts:
        rows, raised = rows + part.rows, raised + part.arrivals_raised
        latest += [] if part.greatest_arrival is None else [part.greatest_arrival]
        kinds.update(part.arrival_kinds)
    ordered = sorted(kinds, key=lambda kind: (kind != "unknown", kind))
    return Summary(rows, max(latest, default=None), {kind: kinds[kind] for kind in ordered}, raised)


def in_one_piece(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with every column in one chunk, which is quicker to pick rows from; one column is copied at a time."""
    columns = frame.get_columns()
    del frame
    whole: list[pl.Series] = []
    while columns:
        whole.append(columns.pop(0).rechunk())
    return pl.DataFrame(whole)


def check_rows(observations: Observations, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`frame` with arrivals complete and raised, and how many were raised; see `checked`.

    Raises:
        NullKeyError: If an entity or id is null (R21).
        ColumnTypeError: If a log sequence is null.
    """
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
            f"{place}: {observations.log_sequence!r} is null, first in row {row}",
            "number every row, or drop the column.",
        )
    _check_null_times(observations, frame, retraction)
    frame = _complete_arrivals(observations, frame)
    if observations.kind == "forecast":
        if ISSUE not in frame.columns:
            issue = pl.col(ARRIVAL) if retraction is None else pl.when(~pl.col(RETRACTION)).then(ARRIVAL)
            frame = frame.with_columns(issue.alias(ISSUE))
        return frame, 0
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
    keys = [name for name in dict.fromkeys([*observations.entities, *observations.key]) if name in frame.columns]
    keys = [name for name in keys if name not in ("event_time", "issue_time")]
    unknown = pl.col(ARRIVAL).is_null()
    given = observations.delay.arrival_times(frame.select(*times, *keys)).to_physical()
    kinds = pl.col(ARRIVAL_KIND) if ARRIVAL_KIND in frame.columns else pl.lit("measured")
    return frame.with_columns(
        pl.coalesce(ARRIVAL, given).alias(ARRIVAL),
        pl.when(unknown).then(pl.lit(observations.delay.arrival_kind)).otherwise(kinds).alias(ARRIVAL_KIND),
    )


def _raise_arrivals(
    observations: Observations, frame: pl.DataFrame, retraction: pl.Series | None
) -> tuple[pl.DataFrame, int]:
    early = frame[EVENT] > frame[ARRIVAL]
    if observations.key and retraction is not None:
        early = (early & ~retraction).fill_null(value=False)
    count = int(early.sum())
    if not count:
        return frame, 0
    beyond = early & (frame[EVENT] - frame[ARRIVAL] > observations.tolerance.total_us)
    if beyond.any():
        row = int(beyond.arg_max() or 0)
        event, arrival = nearest_instant(frame[EVENT][row]), nearest_instant(frame[ARRIVAL][row])
        raise EventAfterArrivalError(
            f"{observations.place}: {beyond.sum()} measurements arrived before they happened, first in row {row}: "
            f"event {event.isoformat()}, arrival {arrival.isoformat()}",
            'say kind="forecast" if they are forecasts, or raise clock_tolerance (now '
            f"{observations.tolerance.text}) if the provider's clock is ahead.",
        )
    if ORDER not in frame.columns:
        frame = frame.with_columns(pl.col(ARRIVAL).alias(ORDER))
    return frame.with_columns(pl.when(early).then(EVENT).otherwise(ARRIVAL).alias(ARRIVAL)), count


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
