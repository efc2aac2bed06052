"""When labels settle: how long a value is still revised after its event, and what training earlier costs (R12).

Values at an age are labels with that release, as the kernel answers them: `al.label(column, ..., release=age)`. When a value
has settled can only be said of events that were watched long enough, so young events are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from alignment.durations import UNITS_US, Duration, DurationLike, instant_from_us, instant_us, parse_duration
from alignment.errors import DefinitionError, DurationError, LabelError
from alignment.labels import label, label_source
from alignment.maturity_events import (
    LEFT_OUT,
    answering,
    events_of,
    over_by,
    point_of,
    revisions_of,
    series_of,
    watched_long_enough,
)
from alignment.maturity_text import as_html, as_text, notebook_html
from alignment.observations import Observations, ObservationSource
from alignment.report_form import plain
from alignment.rows import summarize
from alignment.settling import QUANTILE_NAMES, Quantiles, quantiles, readable
from alignment.snapshot import as_observations
from alignment.views import FeatureView

_AGES = 8
_FEW = 30
_CURVE: dict[str, Any] = {
    "release": pl.String,
    "age": pl.Duration("us"),
    "events": pl.Int64,
    "present": pl.Float64,
    "within": pl.Float64,
    "settled": pl.Float64,
    "bias": pl.Float64,
    "mae": pl.Float64,
    "relative_bias": pl.Float64,
    "relative_mae": pl.Float64,
}


@dataclass(frozen=True, slots=True, eq=False)
class LabelMaturity:
    """How long until labels settle.

    Attributes:
        column: The label's column.
        within: How near to its final value a value counts as settled, as it was said.
        share: The share of events that `release` waits for.
        as_of: When the final values were read.
        events: Events that count.
        watched: Every event that counts had at least this age at `as_of`; None if the log is too short to tell when values settle:
            then all ages are lower bounds, and `release` is None.
        left_out: Events that do not count, by the first reason that strikes: `retracted`, `no_value` (null in the end),
            `not_measured` (its first arrival is declared or modelled), `before_log` (it happened before the first arrival, so
            earlier revisions may be unknown), `too_young`.
        arrived: Age of the event when its first value arrived, in seconds.
        settled: Age of the event from which on its value is, and stays, within the tolerance of its final one, in seconds.
        curve: One row per release, `first` and then the ages: `events`, of which shares are `present` (the label is there and not
            null), `within` the tolerance of the final value, `settled` (within from then on); of those that are present and
            numbers, `bias` and `mae` are the mean of `value - final` and of its absolute, `relative_bias` and `relative_mae`
            the same as shares of the mean of `|final|`.
        series: One row per entity: `events`, medians `arrived` and `settled` (Duration), `settled_share` (by when the share
            has settled), `first_within` (share whose first value is near the final one), `settled_by_release`, and a
            `release` of its own. The slowest first; empty if there are no entity columns.
        release: What to pass to `al.label(release=...)`: the duration after which the share has settled, rounded up; `"first"`
            if no value is ever revised beyond the tolerance.
        embargo: How far before T the newest row lies that has a settled label: horizon (if it was given) and release.
        notes: What else to know.
    """

    column: str
    within: str
    share: float
    as_of: datetime
    events: int
    watched: timedelta | None
    left_out: Mapping[str, int]
    arrived: Quantiles
    settled: Quantiles
    curve: pl.DataFrame
    series: pl.DataFrame
    release: str | None
    embargo: str | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON: instants as text, lengths of time in seconds, what is not finite is None."""
        return {
            "column": self.column,
            "within": self.within,
            "share": self.share,
            "as_of": self.as_of.isoformat(),
            "events": self.events,
            "watched": None if self.watched is None else self.watched.total_seconds(),
            "left_out": dict(self.left_out),
            "arrived": _quantiles(self.arrived),
            "settled": _quantiles(self.settled),
            "release": self.release,
            "embargo": self.embargo,
            "curve": _rows(self.curve),
            "series": _rows(self.series),
            "notes": list(self.notes),
        }

    def to_html(self) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers."""
        return as_html(self.to_dict())

    def plot(self) -> Any:
        """The curve as a matplotlib figure; see `alignment.maturity_plot.plot_maturity`."""
        from alignment.maturity_plot import plot_maturity

        return plot_maturity(self)

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def __repr__(self) -> str:
        return f"LabelMaturity({self.column!r}, {self.events} events, release={self.release!r})"


def label_maturity(
    observations: Observations | FeatureView | ObservationSource,
    column: str,
    *,
    within: str | float = "1%",
    share: float = 0.95,
    as_of: datetime | None = None,
    horizon: DurationLike | None = None,
    watched: DurationLike | None = None,
    ages: Sequence[DurationLike] | None = None,
    position: int | None = None,
    threads: int | None = None,
) -> LabelMaturity:
    """How long after its event a value is still revised, and the label release that follows from it.

    The final value is the one current at `as_of`. Of a young event that is not final, so an event counts only if it had been
    watched for `watched`: by default twice as long as it takes the share of these very events to settle, so that a revision
    as late as any that was common would have been seen. Where no such age exists the log is too short, and the report says so.
    With a declared id, revisions are those of the id and ages count from the event time that it has in the end (R4).

    Args:
        observations: `Observations`, a view, or a log; of measurements.
        column: What is to be a label.
        within: How near to its final value a value is settled: a share of the final value such as `"1%"`, or a distance in the
            column's unit. What is no number must be equal; a null is not near a value.
        share: The share of events that the recommended release waits for.
        as_of: Nothing that arrived later counts; None is the greatest arrival.
        horizon: The label's horizon, which the embargo then includes.
        watched: Leave out events that are younger at `as_of`.
        ages: Ages of the curve; None chooses nine or fewer, without those between two at which nothing differs.
        position: Greatest `log_sequence` that counts; None for all.
        threads: How many threads; None for one per processor.

    Returns:
        The report.

    Raises:
        LabelError: If the observations are forecasts or empty.
        DefinitionError: If `within`, `share`, `ages` or `position` mean nothing.
        DurationError: If a duration is none, or an age is beyond `watched`.
        MissingColumnError: If the observations have no such column.
        AlignmentError: What the observations break; see `Observations`.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> monday = datetime(2026, 1, 5, tzinfo=UTC)
        >>> rows = [  # cases of a day: reported the next day at 10 too few, and complete two days later
        ...     (monday + timedelta(days=day), monday + timedelta(days=day + late), 100 - missing)
        ...     for day in range(30)
        ...     for late, missing in ((1, 10), (3, 0))
        ... ]
        >>> frame = pl.DataFrame(rows, schema=["event_time", "arrival_time", "cases"], orient="row")
        >>> report = label_maturity(Observations(frame, []), "cases")
        >>> report.release, report.watched.days, report.curve.select("release", "within", "bias").row(0)
        ('3d', 6, ('first', 0.0, -10.0))
    """
    rows = as_observations(observations)
    label_source(label(column, "1us", observations=rows), [])
    tolerance = _tolerance(within)
    if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share <= 1:
        raise DefinitionError(f"share={share!r} is no share of events", "e.g. share=0.95.")
    if ages is not None and (isinstance(ages, str) or not isinstance(ages, Sequence)):
        raise DefinitionError(f"ages={ages!r} is not a list of ages", 'e.g. ages=["1h", "1d"].')
    _check_position(rows, position)
    ahead = None if horizon is None else parse_duration(horizon, "horizon", allow_zero=True)
    as_of_us = _as_of(rows, as_of, position)
    revisions = revisions_of(rows, column, as_of_us, position, threads)
    events = events_of(revisions, as_of_us, tolerance)
    watched_us = watched_long_enough(events, share) if watched is None else parse_duration(watched, "watched").total_us
    events = events.with_columns(
        pl.when(pl.col("left_out").is_null() & (pl.col("age") < (watched_us or 0)))
        .then(pl.lit("too_young"))
        .otherwise("left_out")
        .alias("left_out")
    )
    counting = events.filter(pl.col("left_out").is_null())
    release_us = None if watched_us is None else over_by(counting["settled"], share)
    release = _release(counting, release_us)
    at = answering(revisions, column, counting, as_of_us, threads)
    if ages is None:
        grid = _ages(counting, watched_us, release)
    else:
        grid = [parse_duration(age, "ages", allow_zero=True) for age in ages]
        if late := [age.text for age in grid if watched_us is not None and age.total_us > watched_us]:
            raise DurationError(
                f"ages={late[0]!r} is beyond {readable(watched_us or 0)}, for which every event that counts was watched",
                f'leave it out, or watch longer: watched="{late[-1]}".',
            )
    final = at("final")
    curve = [point_of("first", None, at("first"), final, counting, tolerance)]
    points = [point_of(age.text, age.total_us, at(age.text), final, counting, tolerance) for age in grid]
    curve += points if ages is not None else _differing(points, release)
    struck = dict(events["left_out"].drop_nulls().value_counts().iter_rows())
    return LabelMaturity(
        column=column,
        within=_text(within),
        share=share,
        as_of=instant_from_us(as_of_us),
        events=counting.height,
        watched=None if watched_us is None or not counting.height else timedelta(microseconds=watched_us),
        left_out={name: struck.get(name, 0) for name in LEFT_OUT},
        arrived=quantiles(counting["arrived"].cast(pl.Duration("us"))),
        settled=quantiles(counting["settled"].cast(pl.Duration("us"))),
        curve=pl.DataFrame(curve, schema=_CURVE),
        series=series_of(revisions, counting, rows.entities, share, _wait(release)),
        release=release,
        embargo=_embargo(counting, release, ahead, share),
        notes=_notes(counting, watched_us, share),
    )


def _check_position(rows: Observations, position: int | None) -> None:
    if position is None:
        return
    if type(position) is not int:
        raise DefinitionError(f"position={position!r} is not a log position", "it is an integer, e.g. position=1_000.")
    if not rows.has_log_sequence:
        raise DefinitionError(
            f"position={position}: {rows.place} have no {rows.log_sequence!r}, and so no position",
            "leave it out, or number the rows.",
        )


def _text(within: str | float) -> str:
    return within.strip() if isinstance(within, str) else f"{within:g}"


def _tolerance(within: str | float) -> dict[str, float]:
    """The tolerance as `near` takes it.

    Raises:
        DefinitionError: If it is none.
    """
    text = _text(within) if isinstance(within, str | int | float) else ""
    try:
        size = float(text.removesuffix("%"))
    except ValueError:
        size = -1.0
    if not 0 <= size < float("inf"):
        raise DefinitionError(
            f"within={within!r} is no tolerance",
            'write a share of the final value, within="1%", or a distance, within=0.5.',
        )
    return {"share": size / 100} if text.endswith("%") else {"absolute": size}


def _as_of(rows: Observations, given: datetime | None, position: int | None) -> int:
    if given is not None:
        return instant_us(given, "as_of")
    latest = summarize(rows, position=position).greatest_arrival
    if latest is None:
        raise LabelError(f"{rows.place} have no row", "labels are measured on what has arrived.")
    return latest


# --- what follows from it ---------------------------------------------------------------------------------------------


def _release(counting: pl.DataFrame, settled_us: int | None) -> str | None:
    if settled_us is None:
        return None
    return readable(settled_us) if counting["late"].any() else "first"


def _wait(release: str | None) -> int | None:
    """How long a release waits; 0 for the first one, None where there is none."""
    return (
        None
        if release is None
        else 0
        if release == "first"
        else parse_duration(release, "release", allow_zero=True).total_us
    )


def _embargo(counting: pl.DataFrame, release: str | None, ahead: Duration | None, share: float) -> str | None:
    """How long before T an event lies whose label is as good as it gets."""
    if release is None:
        return None
    text = readable(over_by(counting["arrived"], share) or 0) if release == "first" else release
    wait = parse_duration(text, "release", allow_zero=True)
    return text if ahead is None or not ahead.total_us else _in_parts(wait.total_us + ahead.total_us)


def _in_parts(length_us: int) -> str:
    """A length of time exactly, in at most a few units.

    Example:
        >>> _in_parts((23 * 60 + 20) * 60_000_000)
        '23h20m'
    """
    parts = ""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, length_us = divmod(length_us, UNITS_US[unit])
        parts += f"{count}{unit}" if count else ""
    return parts or "0s"


def _ages(counting: pl.DataFrame, watched_us: int | None, release: str | None) -> list[Duration]:
    """Some ages from the first arrivals to the last revision, closer together where they are short."""
    if not counting.height:
        return []
    low = max(1_000, over_by(counting["arrived"], 0.05) or 0)
    longest = over_by(counting["settled"], 1.0) or 0
    high = max(low, min(longest, watched_us) if watched_us is not None else longest)
    texts = {readable(int(age)) for age in np.geomspace(low, high, _AGES)}
    texts |= {release} if release not in (None, "first") else set()
    found = sorted(
        (parse_duration(text, "ages", allow_zero=True) for text in texts if text), key=lambda age: age.total_us
    )
    return [age for age in found if watched_us is None or age.total_us <= watched_us]


def _differing(points: list[dict[str, Any]], release: str | None) -> list[dict[str, Any]]:
    """The points without those that say what their neighbours say, on either side; the release stays."""
    told = [{name: value for name, value in point.items() if name not in ("release", "age")} for point in points]
    last = len(points) - 1
    return [
        point
        for n, point in enumerate(points)
        if point["release"] == release or n in (0, last) or not told[n - 1] == told[n] == told[n + 1]
    ]


def _notes(counting: pl.DataFrame, watched_us: int | None, share: float) -> tuple[str, ...]:
    notes = []
    if not counting.height:
        notes.append("no event counts, so there is no recommendation")
    elif watched_us is None:
        notes.append(
            "the log is too short to tell when values settle: no event was watched twice as long as that takes so far, "
            "so there is no recommendation"
        )
    elif counting.height < _FEW:
        notes.append(f"only {counting.height} events count: {share:.0%} of them is little to go by")
    return tuple(notes)


# --- plain data -------------------------------------------------------------------------------------------------------


def _quantiles(found: Quantiles) -> dict[str, Any]:
    return {"count": found.count} | {name: getattr(found, name) for name in QUANTILE_NAMES}


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [plain({name: _value(value) for name, value in row.items()}) for row in frame.to_dicts()]


def _value(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
