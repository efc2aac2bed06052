"""How far back features look: what an embargo between training and test rows has to cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.bounds import age_floor, feature_range, grid_points, shifted
from alignment.features import Feature, Lag, Latest, SequenceOf, Window
from alignment.layout import Ints
from alignment.views import FeatureView


def lookback_floor(views: Sequence[FeatureView], at: int) -> int:
    """The earliest event that a bounded feature may use at `at`, both in microseconds; `at` where none is bounded.

    A window reaches back `offset + length`, a lag `by + tolerance`, a sequence its grid or `max_span`, a latest its
    `max_event_age`, a forecast no further than its tolerance exceeds its lead. What has no such bound counts with what is
    bounded of it: a lag without tolerance with `by`, the rest not at all.

    Args:
        views: Whose features.
        at: The instant they are asked at.

    Returns:
        The greatest instant at which a row could be asked whose features do not share what a row at `at` is bound to use.

    Example:
        >>> from datetime import UTC, datetime
        >>> import polars as pl
        >>> from alignment.durations import instant_us
        >>> from alignment.features import lag, window
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> frame = pl.DataFrame({"event_time": [noon], "arrival_time": [noon], "temp": [3.5]})
        >>> view = FeatureView(
        ...     "weather", [], frame, [window("temp", "mean", "1h"), lag("temp", "24h", tolerance="30m")]
        ... )
        >>> (instant_us(noon, "noon") - lookback_floor([view], instant_us(noon, "noon"))) / 3_600_000_000
        24.5
    """
    t = np.array([at], np.int64)
    return min([at, *(_floor(feature, view, t) for view in views for feature in view.features)])


def _floor(feature: Feature, view: FeatureView, t: Ints) -> int:
    at = int(t[0])
    if isinstance(feature, Latest):
        limit = view.limits(feature)[0]
        return at if limit is None else int(age_floor(limit, t, view.zone)[0])
    if isinstance(feature, SequenceOf) and feature.step is not None:
        return int(grid_points(feature, t, view.zone)[-1, 0])
    if isinstance(feature, Lag) and feature.tolerance is None:
        low: Any = shifted(t, view.zone, (-1, feature.by))
    else:
        low = feature_range(feature, t, view.zone)[0]
    if low is None:
        return at
    first = int(low[0]) if isinstance(low, np.ndarray) else at + low
    open_end = isinstance(
        feature, Window | SequenceOf
    )  # (t - length, t]: its first microsecond belongs to the row before
    return first - 1 if open_end else first
