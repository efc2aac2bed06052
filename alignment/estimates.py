"""What a build takes, worked out from how much there is: seconds and bytes of each read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from alignment.extents import Extent, SpineExtent, width_of
from alignment.features import Feature, Window
from alignment.observations import Observations
from alignment.plan import plan_sweeps
from alignment.unit_costs import UnitCosts
from alignment.views import FeatureView

_AT_ONCE = 1 << 30
_ROW, _WITH_ID, _FORECAST = 37, 41, 45  # of `alignment.layout`, per row
_QUESTION = 24
MOST_ROWS = (1 << 31) - 1
"""Rows are numbered with 32 bits: one read of the local engine holds no more."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one read takes, with all that is made of it.

    Attributes:
        read_width: Bytes of a row as it is read.
        arrange_width: Bytes of a row besides, while it is in the kernel's order.
        bytes: Greatest memory of this read, without the spine and the answers.
        answer_bytes: What its columns of the result take.
        seconds: By step: `read`, `arrange`, `kernel`, `gather`.
    """

    read_width: float
    arrange_width: float
    bytes: int
    answer_bytes: int
    seconds: dict[str, float]


def row_width(observations: Observations, columns: Sequence[str]) -> float:
    """Bytes of a row as engines read it: keys, times, sequence, and values."""
    keys = dict.fromkeys([*observations.entities, *observations.key])
    times = 8.0 * (2 + (observations.kind == "forecast") + observations.has_log_sequence)
    gone = 0.125 if observations.is_retraction in observations.schema else 0.0
    values = [name for name in columns if name not in keys]
    return times + gone + sum(width_of(observations.schema[name]) for name in [*keys, *values])


def arranged_width(observations: Observations) -> int:
    """Bytes of a row in the kernel's order, with the number of its entity; see `alignment.layout`."""
    width = _FORECAST if observations.kind == "forecast" else _ROW
    return 4 + (max(width, _WITH_ID) if observations.key else width)


def need_of(
    observations: Observations,
    columns: Sequence[str],
    extent: Extent,
    spine: SpineExtent,
    view: FeatureView | None,
    costs: UnitCosts,
) -> Need:
    """What reading some observations and answering from them takes.

    Args:
        observations: The rows.
        columns: Observed columns that are read.
        extent: How much of them.
        spine: How much is asked.
        view: What is computed; None for a label, which picks one row.
        costs: What the steps cost.
    """
    rows, asked = extent.rows or 0, spine.rows or 0
    width, arranged = row_width(observations, columns), arranged_width(observations)
    together = extent.in_memory or (extent.stored_rows or rows) * len(columns) * 8 <= _AT_ONCE
    held = 0.0 if extent.in_memory else width
    if not together:
        held = row_width(observations, []) + max(width_of(observations.schema[name]) for name in columns)
    answers = _Answers.of(view, extent, spine)
    peak = rows * (held * costs.read_copies + arranged) + asked * (_QUESTION + answers.picked * 4)
    millions, questions = rows / 1e6, asked / 1e6
    read = millions * (costs.check_frame_rows if extent.in_memory else costs.read_rows)
    read += 0.0 if extent.in_memory else millions * len(columns) * costs.read_values
    seconds = {
        "read": read,
        "arrange": (millions + questions) * costs.arrange_rows,
        "kernel": millions * answers.sweeps * costs.sweep_rows
        + questions * answers.picked * costs.sweep_questions
        + questions * (answers.events * costs.window_events + answers.aggregated * costs.window_aggregates),
        "gather": questions * answers.values * costs.gather_answers,
    }
    return Need(width, arranged, int(peak), int(asked * answers.width), seconds)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Per question: how many passes, picked rows, window events, aggregated events, values; bytes of the answer."""

    sweeps: int
    picked: int
    events: float
    aggregated: float
    values: int
    width: float

    @classmethod
    def of(cls, view: FeatureView | None, extent: Extent, spine: SpineExtent) -> _Answers:
        if view is None:
            return cls(1, 1, 0.0, 0.0, 3, 24.0)
        ends = [end for end in (spine.first_us, spine.last_us) if end is not None] or [0]
        sweeps = plan_sweeps(view.features, np.array(ends, np.int64), view.zone)
        picked = sum(sum(sweep.number()[:2]) for sweep, _ in sweeps)
        rate = _rate(extent, spine)
        windows = {(f.column, f.length.total_us, f.offset.total_us): f.length.total_us for f in _windows(view.features)}
        aggregated = sum(f.length.total_us for f in _windows(view.features))
        width = sum(width_of(view.column_type(feature)) for feature in view.features)
        each = max(1.0, (extent.rows or 0) / max(1, spine.entities or 1))
        events = sum(min(each, rate * length) for length in windows.values())
        share = aggregated / max(1, sum(windows.values()))
        values = sum(max(1, ceil(width_of(view.column_type(feature)) / 8)) for feature in view.features)
        return cls(len(sweeps), picked, events, events * share, values, width)


def _windows(features: Sequence[Feature]) -> list[Window]:
    return [feature for feature in features if isinstance(feature, Window)]


def _rate(extent: Extent, spine: SpineExtent) -> float:
    """Rows of one entity per microsecond, if those that are asked about have them all, evenly."""
    if not extent.rows or extent.first_event_us is None or extent.last_event_us is None or not spine.entities:
        return 0.0
    return extent.rows / spine.entities / max(1, extent.last_event_us - extent.first_event_us)
