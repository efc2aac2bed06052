"""Which rows a feature used and why the others not, asked of the kernel that evaluates features.

What is current and what was picked are the kernel's answers. What a window holds are the current rows between its bounds.
Only the reasons are worked out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment import codes
from alignment.bounds import feature_range, grid_points
from alignment.durations import Duration
from alignment.explain_report import CODE_OF, USED
from alignment.features import Feature, Forecast, Latest, SequenceOf, Window
from alignment.layout import Layout, Pool, given_notice, lay_out, lay_out_questions
from alignment.plan import Question, Sweep, plan_sweeps
from alignment.rows import ARRIVAL, EVENT, ORDER, RETRACTION, Rows
from alignment.sweeps import run_sweep
from alignment.views import FeatureView

Reasons = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_EVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Judged:
    """A feature's rows: `codes` as in `FeatureExplanation`, `by` likewise, and what it looks at in microseconds."""

    codes: Reasons
    by: Places
    event_from: int | None
    event_until: int


@dataclass(frozen=True, slots=True)
class _State:
    """What counted, and what of it was current.

    Attributes:
        layout: The rows that counted.
        current: Those that are current, by event.
        uncounted: Reasons of the rows that did not count, 0 for the others.
    """

    layout: Layout
    current: Places
    uncounted: Reasons


class Judge:
    """Judges the rows of one entity at one instant.

    Args:
        view: The view over the entity's rows.
        rows: The rows.
        t: The prediction time, microseconds.
        as_of: Nothing that arrived later counts.
        position: Nothing with a greater `log_sequence` counts.
    """

    def __init__(self, view: FeatureView, rows: Rows, t: int, as_of: int | None, position: int | None) -> None:
        self.view, self.rows, self.t, self.as_of, self.position = view, rows, t, as_of, position
        self.at = np.array([t], np.int64)
        self.limit = t if as_of is None else min(t, as_of)
        self.observations = view.observations.but(on_tie="last")  # the join has refused ties that count
        self._states: dict[Duration | None, _State] = {}
        self._reasons: dict[Duration | None, tuple[Reasons, Places]] = {}

    def used(self, features: Sequence[Feature], statuses: Sequence[str]) -> list[Places]:
        """The rows that each feature used, by event.

        Args:
            features: Features of the view.
            statuses: What the join says of each; of what is `expired` the row that was picked is too old (R7).
        """
        with Pool(1) as pool:
            picks = self._picks(features, pool)
            found = []
            for feature, status in zip(features, statuses, strict=True):
                current = self._state(_notice(feature), pool).current
                used = self._within(feature, current, picks.get(feature.name))[1]
                found.append(current[used] if status != "expired" else current[:0])
            return found

    def judge(self, features: Sequence[Feature], statuses: Sequence[str]) -> list[Judged]:
        """What each feature used, and why it did not use the other rows; see `used`."""
        with Pool(1) as pool:
            picks = self._picks(features, pool)
            return [
                self._judge(feature, picks.get(feature.name), pool, expired=status == "expired")
                for feature, status in zip(features, statuses, strict=True)
            ]

    def _picks(self, features: Sequence[Feature], pool: Pool) -> dict[str, Places]:
        """The rows that the kernel picks for all features but windows."""
        asked = lay_out_questions(np.zeros(1, np.int32), 1, self.at, pool)
        found: dict[str, Places] = {}
        picking = [feature for feature in features if not isinstance(feature, Window)]
        for sweep, answered in plan_sweeps(picking, self.at, self.view.zone):
            layout = self._state(sweep.notice, pool).layout
            answers = run_sweep(sweep, layout, asked, self.rows, 1, self.as_of, pool)
            for one in answered:
                length = one.feature.length if isinstance(one.feature, SequenceOf) else 1
                picked = answers.picks[one.question.target : one.question.target + length, 0]
                found[one.feature.name] = picked[picked >= 0].astype(np.int64)
        return found

    def _within(self, feature: Feature, current: Places, picked: Places | None) -> tuple[Flags, Flags, Flags]:
        """Of the current rows: which lie where the feature looks, which it used, and which it passed over as null."""
        low, high = self._bounds(feature)
        events = self.rows.frame[EVENT].gather(current).to_numpy()
        inside = events <= high if low is None else (events >= low) & (events <= high)
        null = np.zeros(len(current), np.bool_)
        if isinstance(feature, Window) or (isinstance(feature, Latest) and feature.skip_null):
            null = self.rows.column(feature.column or "").gather(current).is_null().to_numpy()
        if picked is None:
            return inside, inside & ~null, inside & null
        used = np.isin(current, picked)
        newest = int(np.flatnonzero(used)[-1]) if used.any() else -1
        return inside, used, inside & null & (np.arange(len(current)) > newest)

    def _judge(self, feature: Feature, picked: Places | None, pool: Pool, *, expired: bool) -> Judged:
        current = self._state(_notice(feature), pool).current
        inside, used, skipped = self._within(feature, current, picked)
        reasons = np.full(len(current), CODE_OF["older_event"], np.uint8)
        reasons[skipped] = CODE_OF["null_skipped"]
        reasons[~inside] = CODE_OF["outside_window"]
        reasons[used] = CODE_OF["expired"] if expired else USED
        others, replaced_by = self._others(_notice(feature), pool)
        found, by = others.copy(), replaced_by.copy()
        found[current] = reasons
        older, taken = np.flatnonzero(reasons == CODE_OF["older_event"]), np.flatnonzero(used)
        by[current[older]] = current[taken[np.searchsorted(taken, older)]]  # the used row that is next by event
        return Judged(found, by, *self._bounds(feature))

    def _bounds(self, feature: Feature) -> tuple[int | None, int]:
        """The event times that the feature may use, both ends included."""
        if isinstance(feature, SequenceOf) and feature.step is not None:
            points = grid_points(feature, self.at, self.view.zone)[:, 0]
            return int(points[-1]) + 1, int(points[0])
        low, high = (
            None if bound is None else int(bound[0]) if isinstance(bound, np.ndarray) else self.t + bound
            for bound in feature_range(feature, self.at, self.view.zone)
        )
        return low, self.t if high is None else high

    def _state(self, notice: Duration | None, pool: Pool) -> _State:
        if notice not in self._states:
            self._states[notice] = self._look(notice, pool)
        return self._states[notice]

    def _look(self, notice: Duration | None, pool: Pool) -> _State:
        frame = self.rows.frame
        uncounted = np.zeros(frame.height, np.uint8)
        arrival = frame[ARRIVAL].to_numpy()
        counting = np.zeros(frame.height, np.int32)
        if notice is not None:
            counting = given_notice(frame, counting, notice, self.view.zone)
            uncounted[counting < 0] = CODE_OF["short_notice"]
        if self.position is not None and ORDER in frame.columns:
            beyond = frame[ORDER].to_numpy() > self.position
            counting = np.where(beyond, np.int32(-1), counting)
            uncounted[beyond] = CODE_OF["beyond_position"]
        uncounted[arrival > self.limit] = CODE_OF["after_as_of"]
        uncounted[arrival > self.t] = CODE_OF["not_arrived"]
        layout = lay_out(self.observations, frame, counting, 1, self.limit, pool)
        return _State(layout, self._current(layout, pool), uncounted)

    def _current(self, layout: Layout, pool: Pool) -> Places:
        """The rows that are current, by event."""
        asked = lay_out_questions(np.zeros(1, np.int32), 1, self.at, pool)
        sweep = Sweep(None, questions=[Question(codes.EVERYTHING, None, 0)])
        picks = run_sweep(sweep, layout, asked, self.rows, len(layout.rows), self.as_of, pool).picks[0]
        return np.asarray(picks[picks >= 0], np.int64)

    def _others(self, notice: Duration | None, pool: Pool) -> tuple[Reasons, Places]:
        """The reasons of all rows that are not current, and the rows that took their part."""
        if notice not in self._reasons:
            state = self._state(notice, pool)
            reasons, by = state.uncounted.copy(), np.full(len(state.uncounted), -1, np.int64)
            frame = self.rows.frame
            gone = frame[RETRACTION].to_numpy() if RETRACTION in frame.columns else np.zeros(frame.height, np.bool_)
            _say_what_replaced(reasons, by, state, gone)
            self._reasons[notice] = reasons, by
        return self._reasons[notice]

    def revisions(self) -> tuple[pl.Series, pl.Series]:
        """Per row its number among the revisions of its key, 1 for the first to arrive, and how many there are.

        A retraction that names no issue of a forecast is of no one key, and has none.
        """
        height = self.rows.frame.height
        with Pool(1) as pool:
            layout = lay_out(self.observations, self.rows.frame, np.zeros(height, np.int32), 1, _EVER, pool)
        key = _keys(layout)
        order = np.argsort(key, kind="stable")
        counts = np.bincount(key[key >= 0])
        starts = np.cumsum(counts) - counts
        number, total = np.zeros(height, np.int64), np.zeros(height, np.int64)
        named = order[key[order] >= 0]
        number[layout.rows[named]] = np.arange(1, len(named) + 1) - starts[key[named]]
        total[layout.rows[named]] = counts[key[named]]
        unnamed = pl.Series(total == 0)
        return pl.Series(number).set(unnamed, None), pl.Series(total).set(unnamed, None)


def _notice(feature: Feature) -> Duration | None:
    return feature.min_notice if isinstance(feature, Forecast) else None


def _keys(layout: Layout) -> npt.NDArray[np.int32]:
    """What each row is a revision of, in order of arrival; -1 for a retraction of all issues of an event."""
    return layout.issue_key if layout.forecast else layout.subject


def _say_what_replaced(reasons: Reasons, by: Places, state: _State, retractions: Flags) -> None:
    """Give the rows that count and are not current their reasons, and the rows that took their part (R2, R3)."""
    layout, rows = state.layout, state.layout.rows.astype(np.int64)
    order = np.arange(len(rows))
    key, subject, gone = _keys(layout), layout.subject, retractions[rows]
    last = _last_of(key, order)[key]  # where rows name no key there are fewer keys than rows: -1 is no key's place
    # A retraction that names no issue withdraws all those of its event that came before it.
    withdrawn = _last_of(subject[key < 0], order[key < 0], len(rows))[subject]
    is_current = np.isin(rows, state.current)
    shown = _last_of(subject[is_current], order[is_current], len(rows))[subject]
    is_last = last == order
    told = [
        (key < 0, "retraction", None),
        (gone & gone[last], "retraction", None),
        (~is_last & gone[last], "retracted", last),
        (~is_last, "superseded", last),
        (withdrawn > order, "retracted", withdrawn),
        (order >= 0, "older_issue", shown),
    ]
    left = ~is_current
    for holds, reason, other in told:
        chosen = np.flatnonzero(left & holds)
        reasons[rows[chosen]] = CODE_OF[reason]
        if other is not None:
            by[rows[chosen]] = rows[other[chosen]]
        left[chosen] = False


def _last_of(group: npt.NDArray[np.int32], order: Places, size: int | None = None) -> Places:
    """By group the last place that belongs to it, -1 for none."""
    found = np.full(size or len(group) or 1, -1, np.int64)
    found[group] = order  # of several the last stays
    return found
