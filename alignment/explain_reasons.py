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
_CURRENT = 255
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
    """What counted, and what was current: `current` by event, the reasons of all other rows."""

    layout: Layout
    current: Places
    codes: Reasons
    by: Places


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

    def judge(self, features: Sequence[Feature], statuses: Sequence[str]) -> list[Judged]:
        """What each feature used.

        Args:
            features: Features of the view.
            statuses: What the join says of each; of what is `expired` the row that was picked is too old (R7).
        """
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

    def _judge(self, feature: Feature, picked: Places | None, pool: Pool, *, expired: bool) -> Judged:
        notice = feature.min_notice if isinstance(feature, Forecast) else None
        state = self._state(notice, pool)
        low, high = self._bounds(feature)
        events = self.rows.frame[EVENT].gather(state.current).to_numpy()
        inside = events <= high if low is None else (events >= low) & (events <= high)
        null = np.zeros(len(state.current), np.bool_)
        if isinstance(feature, Window) or (isinstance(feature, Latest) and feature.skip_null):
            null = self.rows.column(feature.column or "").gather(state.current).is_null().to_numpy()
        used = inside & ~null if picked is None else np.isin(state.current, picked)
        found, by = state.codes.copy(), state.by.copy()
        places = np.flatnonzero(used)
        # The used row that lies next after a row by event; one past the end where there is none.
        after = np.searchsorted(places, np.arange(len(state.current)), side="right")
        skipped = null & ((after == len(places)) if picked is not None else inside)
        reasons = np.full(len(state.current), CODE_OF["older_event"], np.uint8)
        reasons[skipped] = CODE_OF["null_skipped"]
        reasons[~inside] = CODE_OF["outside_window"]
        reasons[used] = CODE_OF["expired"] if expired else USED
        found[state.current] = reasons
        older = np.flatnonzero(reasons == CODE_OF["older_event"])
        by[state.current[older]] = state.current[places[after[older]]]
        return Judged(found, by, low, high)

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
        found = np.full(frame.height, _CURRENT, np.uint8)
        arrival = frame[ARRIVAL].to_numpy()
        counting = np.zeros(frame.height, np.int32)
        if notice is not None:
            counting = given_notice(frame, counting, notice, self.view.zone)
            found[counting < 0] = CODE_OF["short_notice"]
        if self.position is not None and ORDER in frame.columns:
            beyond = frame[ORDER].to_numpy() > self.position
            counting = np.where(beyond, np.int32(-1), counting)
            found[beyond] = CODE_OF["beyond_position"]
        found[arrival > self.limit] = CODE_OF["after_as_of"]
        found[arrival > self.t] = CODE_OF["not_arrived"]
        layout = lay_out(self.observations, frame, counting, 1, self.limit, pool)
        current = self._current(layout, pool)
        by = np.full(frame.height, -1, np.int64)
        _say_what_replaced(found, by, layout, current, self._retractions())
        return _State(layout, current, found, by)

    def _current(self, layout: Layout, pool: Pool) -> Places:
        """The rows that are current, by event."""
        asked = lay_out_questions(np.zeros(1, np.int32), 1, self.at, pool)
        sweep = Sweep(None, questions=[Question(codes.EVERYTHING, None, 0)])
        picks = run_sweep(sweep, layout, asked, self.rows, len(layout.rows), self.as_of, pool).picks[0]
        return np.asarray(picks[picks >= 0], np.int64)

    def _retractions(self) -> npt.NDArray[np.bool_]:
        frame = self.rows.frame
        return frame[RETRACTION].to_numpy() if RETRACTION in frame.columns else np.zeros(frame.height, np.bool_)

    def revisions(self) -> tuple[pl.Series, pl.Series]:
        """Per row its number among the revisions of its key, 1 for the first to arrive, and how many there are."""
        with Pool(1) as pool:
            codes_of = np.zeros(self.rows.frame.height, np.int32)
            layout = lay_out(self.observations, self.rows.frame, codes_of, 1, _EVER, pool)
        numbered = _by_key(layout).with_columns(
            revision=pl.int_range(1, pl.len() + 1).over("subject", "issue"),
            revisions=pl.len().over("subject", "issue"),
        )
        found = numbered.sort("row")
        names_key = pl.col("issue") >= 0
        chosen = found.select(pl.when(names_key).then(name).cast(pl.Int64) for name in ("revision", "revisions"))
        return chosen["revision"], chosen["revisions"]


def _by_key(layout: Layout) -> pl.DataFrame:
    """Rows that count, in order of arrival, with what they are revisions of; `issue` -1 names all issues of an event."""
    return pl.DataFrame(
        {
            "row": layout.rows.astype(np.int64),
            "subject": layout.subject,
            "issue": layout.issue_key if layout.forecast else np.zeros(len(layout.rows), np.int32),
        }
    ).with_row_index("order")


def _say_what_replaced(
    found: Reasons, by: Places, layout: Layout, current: Places, retractions: npt.NDArray[np.bool_]
) -> None:
    """Give the rows that count and are not current their reasons, and the rows that took their part (R2, R3)."""
    keys = _by_key(layout).with_columns(
        gone=pl.Series(retractions[layout.rows]), last=pl.col("row").last().over("subject", "issue")
    )
    # A retraction that names no issue withdraws all those of its event that came before it.
    withdraws = pl.col("issue") < 0
    keys = keys.with_columns(
        withdrawn=pl.col("order").filter(withdraws).max().over("subject"),
        withdrew=pl.col("row").filter(withdraws).last().over("subject"),
    ).filter(~pl.col("row").is_in(current))
    shown = pl.DataFrame({"row": current}).join(_by_key(layout).select("row", "subject"), on="row", how="left")
    keys = keys.join(shown.select("subject", pl.col("row").alias("newer")).unique("subject"), on="subject", how="left")
    is_last = pl.col("row") == pl.col("last")
    last_gone = pl.Series("last_gone", retractions[keys["last"].to_numpy()])
    stale = pl.col("withdrawn").is_not_null() & (pl.col("order") < pl.col("withdrawn"))
    told = keys.with_columns(last_gone).select(
        "row",
        reason=pl.when(withdraws | (pl.col("gone") & is_last))
        .then(CODE_OF["retraction"])
        .when(~is_last & pl.col("last_gone"))
        .then(CODE_OF["retracted"])
        .when(~is_last)
        .then(CODE_OF["superseded"])
        .when(stale)
        .then(CODE_OF["retracted"])
        .otherwise(CODE_OF["older_issue"]),
        by=pl.when(withdraws | (pl.col("gone") & is_last))
        .then(-1)
        .when(~is_last)
        .then("last")
        .when(stale)
        .then("withdrew")
        .otherwise("newer"),
    )
    rows = told["row"].to_numpy()
    found[rows] = told["reason"].to_numpy()
    by[rows] = told["by"].to_numpy()
