"""The features one can declare, and what each is called.

A declaration holds no data and decides nothing: engines read it. Every constructor returns one `Feature`, or a
tuple of them where an argument was a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from alignment.durations import Duration, DurationLike, parse_duration
from alignment.errors import FeatureError

AGGREGATES = ("count", "sum", "mean", "std", "var", "min", "max", "first", "last", "median", "slope")
_QUANTILE = re.compile(r"q(\d{1,2}(?:\.\d+)?|100)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One output column of a view.

    Attributes:
        name: The column's name without the view's, e.g. `temp_lag_24h`.
        column: The observed column it reads; None for ages.
    """

    name: str
    column: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest(Feature):
    """See `latest`."""

    skip_null: bool = False
    max_event_age: Duration | None = None
    max_arrival_age: Duration | None = None
    max_issue_age: Duration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag(Feature):
    """See `lag`."""

    by: Duration
    tolerance: Duration | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Feature):
    """See `window`."""

    aggregate: str
    length: Duration
    offset: Duration

    @property
    def quantile(self) -> float | None:
        """The share below the quantile that is asked for, or None."""
        return quantile_of(self.aggregate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast(Feature):
    """See `forecast`."""

    lead: Duration
    tolerance: Duration
    min_notice: Duration | None
    max_issue_age: Duration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceOf(Feature):
    """See `sequence`."""

    length: int
    step: Duration | None
    max_span: Duration | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Age(Feature):
    """See `event_age`, `arrival_age`, `issue_age`."""

    of: Literal["event_time", "arrival_time", "issue_time"]


Features = Feature | tuple[Feature, ...]


def quantile_of(aggregate: str) -> float | None:
    """The share that an aggregate such as `"q90"` or `"median"` names, else None."""
    if aggregate == "median":
        return 0.5
    match = _QUANTILE.fullmatch(aggregate)
    return float(match.group(1)) / 100.0 if match else None


def latest(
    column: str,
    *,
    skip_null: bool = False,
    max_event_age: DurationLike | None = None,
    max_arrival_age: DurationLike | None = None,
    max_issue_age: DurationLike | None = None,
    name: str | None = None,
) -> Feature:
    """The value of the current event with the greatest `event_time <= t` (R6).

    The age limits judge that one row after it was picked: exactly the limit is kept, older is null (R7). A limit that
    is None here is taken from the view.

    Args:
        column: Observed column of any type.
        skip_null: Pick the newest event whose value is not null instead.
        max_event_age: Oldest `t - event_time` that is still a value.
        max_arrival_age: Oldest `t - arrival_time` that is still a value.
        max_issue_age: Oldest `t - issue_time`; forecast views only.
        name: Column name after the view's; default `column`.

    Returns:
        The declaration. In the output: one column of the observed type.

    Raises:
        DurationError: If a limit is not a duration.

    Example:
        >>> latest("temp", max_event_age="2h").name
        'temp'
    """
    return Latest(
        name=_name(name, _column(column)),
        column=column,
        skip_null=skip_null,
        max_event_age=_optional(max_event_age, "max_event_age"),
        max_arrival_age=_optional(max_arrival_age, "max_arrival_age"),
        max_issue_age=_optional(max_issue_age, "max_issue_age"),
    )


def lag(
    column: str,
    by: DurationLike | Sequence[DurationLike],
    tolerance: DurationLike | None = None,
    *,
    name: str | None = None,
) -> Features:
    """The value that was current `by` ago, as it is known at t (R9).

    The event is the greatest in `[t - by - tolerance, t - by]`; `tolerance=None` has no lower end, `"0s"` asks for
    exactly `t - by`. The revision is the one current at t.

    Args:
        column: Observed column of any type.
        by: How far back, or a list for one feature each.
        tolerance: How much further back an event may lie.
        name: Column name after the view's; default `<column>_lag_<by>`.

    Returns:
        The declaration, or a tuple of them where `by` is a list.

    Raises:
        DurationError: If `by` or `tolerance` is not a duration, or `by` is nothing.
        FeatureError: If one name is given to several features.

    Example:
        >>> [feature.name for feature in lag("temp", ["1h", "24h"])]
        ['temp_lag_1h', 'temp_lag_24h']
    """
    allowed = None if tolerance is None else parse_duration(tolerance, "tolerance", allow_zero=True)

    def one(value: DurationLike) -> Feature:
        back = parse_duration(value, "by")
        return Lag(name=_name(name, f"{_column(column)}_lag_{back.text}"), column=column, by=back, tolerance=allowed)

    return _spread(one, by, name, "by")


def window(
    column: str,
    aggregate: str | Sequence[str],
    length: DurationLike | Sequence[DurationLike],
    offset: DurationLike = "0s",
    *,
    name: str | None = None,
) -> Features:
    """Aggregates over current events with `event_time` in `(t - offset - length, t - offset]` (R8).

    Nulls are skipped. Of nothing, `count` is 0 and the rest null; std and var use ddof 1 and are null below two values;
    quantiles interpolate linearly; slope is least squares per hour; a NaN makes all but `count` NaN; integers sum in
    int64. Rounding depends only on the window's own values in order.

    Args:
        column: Observed column; numbers and booleans, and any type for count, first and last.
        aggregate: One of count, sum, mean, std, var, min, max, first, last, median, slope, a quantile such as
            `"q90"`, or a list of them.
        length: How long the window is, or a list.
        offset: How long before t it ends. Negative (after t) in forecast views only.
        name: Column name after the view's; default `<column>_<aggregate>_<length>`.

    Returns:
        The declaration, or a tuple: for each length, for each aggregate.

    Raises:
        DurationError: If a duration is none, or `length` not above nothing.
        FeatureError: If an aggregate is unknown, or one name is given to several features.

    Example:
        >>> [feature.name for feature in window("temp", ["mean", "max"], "1h")]
        ['temp_mean_1h', 'temp_max_1h']
    """
    shift = parse_duration(offset, "offset", allow_zero=True, allow_negative=True)
    lengths = list(length) if isinstance(length, Sequence) and not isinstance(length, str) else [length]
    aggregates = list(aggregate) if isinstance(aggregate, Sequence) and not isinstance(aggregate, str) else [aggregate]
    found: list[Feature] = []
    for span in (parse_duration(value, "length") for value in lengths):
        for kind in aggregates:
            _check_aggregate(kind)
            default = f"{_column(column)}_{kind}_{span.text}" + (f"_offset_{shift.text}" if shift.total_us else "")
            found.append(Window(name=_name(name, default), column=column, aggregate=kind, length=span, offset=shift))
    listed = not isinstance(length, DurationLike) or not isinstance(aggregate, str)
    return _one_or_many(found, name, listed=listed, what="aggregate and length")


def forecast(
    column: str,
    lead: DurationLike | Sequence[DurationLike],
    tolerance: DurationLike = "0s",
    min_notice: DurationLike | None = None,
    *,
    max_issue_age: DurationLike | None = None,
    name: str | None = None,
) -> Features:
    """What the newest run that had arrived says of the instant `t + lead` (R10).

    First the event: the greatest in `[t + lead - tolerance, t + lead]` that any present issue has; then the newest issue
    that has it, so a newer run that lacks the step falls back to the older run. With `min_notice` a row counts only if
    it had arrived that long before its event.

    Args:
        column: Observed column of any type, in a view of `kind="forecast"`.
        lead: How far ahead, or a list for one feature each. `"0s"` is the forecast for t itself.
        tolerance: How much earlier than `t + lead` the event may lie.
        min_notice: Least `event_time - arrival_time` of the rows that count.
        max_issue_age: Oldest `t - issue_time` that is still a value; default the view's.
        name: Column name after the view's; default `<column>_forecast_<lead>`.

    Returns:
        The declaration, or a tuple of them where `lead` is a list.

    Raises:
        DurationError: If an argument is not a duration.
        FeatureError: If `min_notice` cannot matter (it is at most `lead - tolerance`), or one name is given to several
            features.

    Example:
        >>> forecast("wind", "6h").name
        'wind_forecast_6h'
    """
    slack = parse_duration(tolerance, "tolerance", allow_zero=True)
    notice = None if min_notice is None else parse_duration(min_notice, "min_notice")

    def one(value: DurationLike) -> Feature:
        ahead = parse_duration(value, "lead", allow_zero=True)
        if notice is not None and notice.total_us <= ahead.total_us - slack.total_us:
            raise FeatureError(
                f"min_notice={notice.text!r} of forecast({column!r}, {ahead.text!r}) cannot matter: every row it could use "
                f"had arrived at least {ahead.text} less the tolerance before its event",
                f"leave min_notice out, or ask for more than {ahead.text}.",
            )
        return Forecast(
            name=_name(name, f"{_column(column)}_forecast_{ahead.text}"),
            column=column,
            lead=ahead,
            tolerance=slack,
            min_notice=notice,
            max_issue_age=_optional(max_issue_age, "max_issue_age"),
        )

    return _spread(one, lead, name, "lead")


def sequence(
    column: str,
    length: int,
    step: DurationLike | None = None,
    max_span: DurationLike | None = None,
    *,
    name: str | None = None,
) -> Feature:
    """The last `length` current events, oldest first, padded with null on the left (R11).

    With `step`, grid points are multiples of it from 1970-01-01 UTC (from local midnight if the view names a zone), the
    last at or before t; slot g holds the last current event in `(g - step, g]`, or null.

    Args:
        column: Observed column of any type.
        length: How many slots.
        step: Grid spacing; None takes events as they come.
        max_span: Only events in `(t - max_span, t]`; not with `step`.
        name: Column name after the view's; default `<column>_sequence_<length>`.

    Returns:
        The declaration. In the output: one fixed-size array column, shape (length,) per row.

    Raises:
        DurationError: If `step` or `max_span` is not a duration.
        FeatureError: If `length` is not a positive integer, or `max_span` comes with `step`.

    Example:
        >>> sequence("temp", 12, step="10m").name
        'temp_sequence_12_step_10m'
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise FeatureError(f"length={length!r} of sequence({column!r}) is not a positive integer", "e.g. length=12.")
    spacing = _optional(step, "step")
    span = _optional(max_span, "max_span")
    if spacing is not None and span is not None:
        raise FeatureError(
            f"sequence({column!r}) has both step and max_span", "a grid spans length times step: leave max_span out."
        )
    default = f"{_column(column)}_sequence_{length}" + (f"_step_{spacing.text}" if spacing else "")
    return SequenceOf(name=_name(name, default), column=column, length=length, step=spacing, max_span=span)


def event_age(*, name: str = "event_age") -> Feature:
    """`t - event_time` of the row that `latest` over all columns picks, also when it is expired (R7).

    Returns:
        The declaration. In the output: a Duration("us") column; null where there is no such row.

    Example:
        >>> event_age().name
        'event_age'
    """
    return Age(name=name, column=None, of="event_time")


def arrival_age(*, name: str = "arrival_age") -> Feature:
    """`t - arrival_time` of the row that `latest` over all columns picks, also when it is expired (R7).

    Returns:
        The declaration. In the output: a Duration("us") column; null where there is no such row.

    Example:
        >>> arrival_age().name
        'arrival_age'
    """
    return Age(name=name, column=None, of="arrival_time")


def issue_age(*, name: str = "issue_age") -> Feature:
    """`t - issue_time` of the row that `latest` over all columns picks; forecast views only (R7).

    Returns:
        The declaration. In the output: a Duration("us") column; null where there is no such row.

    Example:
        >>> issue_age().name
        'issue_age'
    """
    return Age(name=name, column=None, of="issue_time")


def _check_aggregate(kind: str) -> None:
    if kind in AGGREGATES or quantile_of(kind) is not None:
        return
    raise FeatureError(
        f"no aggregate is called {kind!r}",
        f'choose from {", ".join(AGGREGATES)}, or a quantile such as "q90".',
    )


def _column(column: str) -> str:
    if not isinstance(column, str) or not column:
        raise FeatureError(f"column={column!r} is not a column's name", 'e.g. latest("temp").')
    return column


def _name(name: str | None, default: str) -> str:
    return default if name is None else name


def _optional(value: DurationLike | None, what: str) -> Duration | None:
    return None if value is None else parse_duration(value, what)


def _spread(
    one: Callable[[DurationLike], Feature], value: DurationLike | Sequence[DurationLike], name: str | None, what: str
) -> Features:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return one(value)
    return _one_or_many([one(item) for item in value], name, listed=True, what=what)


def _one_or_many(found: list[Feature], name: str | None, *, listed: bool, what: str) -> Features:
    if not found:
        raise FeatureError(f"{what} is an empty list", "name at least one.")
    if name is not None and len(found) > 1:
        raise FeatureError(
            f"name={name!r} is given to {len(found)} features",
            f"declare them one by one, or leave name out: {what} is in it.",
        )
    return tuple(found) if listed else found[0]
