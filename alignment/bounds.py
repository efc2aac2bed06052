"""Where a feature looks, per spine row: instants measured from t (R1, R8-R11, R15).

Engines never see durations. They get, for each feature, an inclusive lower and upper end of the event times it may use: a
number of microseconds to add to t, or, where a view names a zone and the duration is in days, one instant per spine row.
"""

from __future__ import annotations

import numpy as np

from alignment.durations import DAY_US, ZERO, Duration
from alignment.features import Feature, Forecast, Lag, Latest, SequenceOf, Window
from alignment.wallclock import Instants, local_midnight, shift_days, to_instants, to_local

Bound = int | Instants
"""Microseconds to add to t, or absolute instants, one per spine row."""


def shifted(t: Instants, zone: str | None, *steps: tuple[int, Duration]) -> Bound:
    """Prediction times moved by durations, each with a sign: calendar days first, elapsed time after.

    Args:
        t: Prediction times, UTC microseconds.
        zone: Zone of calendar days, or None.
        steps: (sign, duration) pairs.

    Example:
        >>> from alignment.durations import parse_duration
        >>> shifted(np.array([0]), None, (-1, parse_duration("1d", "by")))
        -86400000000
    """
    days = sum(sign * step.days for sign, step in steps)
    elapsed = sum(sign * step.elapsed_us for sign, step in steps)
    if zone is None or not days:
        return days * DAY_US + elapsed
    return shift_days(t, days, zone) + elapsed


def feature_range(feature: Feature, t: Instants, zone: str | None) -> tuple[Bound | None, Bound]:
    """The event times that `feature` may use, both ends included; None is no lower end.

    A `sequence` with a step is not covered: see `grid_points`.
    """
    if isinstance(feature, Lag):
        upper = shifted(t, zone, (-1, feature.by))
        if feature.tolerance is None:
            return None, upper
        return shifted(t, zone, (-1, feature.by), (-1, feature.tolerance)), upper
    if isinstance(feature, Window):
        lower = shifted(t, zone, (-1, feature.offset), (-1, feature.length))
        return lower + 1, shifted(t, zone, (-1, feature.offset))
    if isinstance(feature, Forecast):
        return shifted(t, zone, (1, feature.lead), (-1, feature.tolerance)), shifted(t, zone, (1, feature.lead))
    if isinstance(feature, SequenceOf) and feature.max_span is not None:
        return shifted(t, zone, (-1, feature.max_span)) + 1, 0
    return None, 0


def earliest_event(feature: Feature, t: Instants, zone: str | None, max_event_age: Duration | None) -> int | None:
    """The earliest event that can matter to `feature` at any of the instants t; None if all can.

    Args:
        feature: What is asked.
        t: Prediction times, at least one.
        zone: The view's zone.
        max_event_age: The age limit in force, if events beyond it need not be told from events that never were.
    """
    if isinstance(feature, Latest):
        return None if max_event_age is None or feature.skip_null else int(age_floor(max_event_age, t, zone).min())
    if isinstance(feature, SequenceOf) and feature.step is not None:
        return int(grid_points(feature, t, zone)[-1].min()) + 1
    low = feature_range(feature, t, zone)[0]
    if low is None:
        return None
    return int(low.min()) if isinstance(low, np.ndarray) else int(t.min()) + low


def age_floor(limit: Duration, t: Instants, zone: str | None) -> Instants:
    """The earliest instant that an age limit still keeps, per spine row (R7)."""
    bound = shifted(t, zone, (-1, limit))
    return bound if isinstance(bound, np.ndarray) else t + bound


def grid_points(feature: SequenceOf, t: Instants, zone: str | None) -> Instants:
    """The ends of a sequence's slots, newest first, and one more: shape (length + 1, rows) (R11).

    Without a zone grid points are multiples of the step from 1970-01-01 UTC. With one they restart at each local
    midnight: steps below a day are elapsed time from it, steps in days are local midnights that many days apart, counted
    from 1970-01-01 local. A slot reaches back to the grid point before it.
    """
    step = feature.step or ZERO
    points = np.empty((feature.length + 1, len(t)), dtype=np.int64)
    for slot in range(feature.length + 1):
        before = t if slot == 0 else points[slot - 1] - 1
        points[slot] = _grid_point(before, step, zone)
    return points


def _grid_point(t: Instants, step: Duration, zone: str | None) -> Instants:
    """The last grid point at or before each t."""
    if zone is None:
        return t - t % step.total_us
    midnight = local_midnight(t, zone)
    if not step.days:
        return midnight + (t - midnight) // step.elapsed_us * step.elapsed_us
    day = to_local(t, zone) // DAY_US
    day -= day % step.days
    return to_instants(day * DAY_US, zone)
