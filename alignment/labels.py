"""Labels: what a model is trained to say, and from when on it may be used (R12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from alignment import codes
from alignment.bounds import Bound, shifted
from alignment.durations import Duration, DurationLike, parse_duration
from alignment.errors import LabelError, MissingColumnError
from alignment.layout import Codes, Ints, Pool, encode_entities, lay_out, lay_out_questions, numbers
from alignment.observations import Observations, ObservationSource
from alignment.plan import Question, Sweep
from alignment.rows import ARRIVAL, EVENT, ORDER, RETRACTION, checked
from alignment.spine import Spine
from alignment.sweeps import row_index, run_sweep
from alignment.views import FeatureView

RELEASES = ("final", "first", "as_known")


@dataclass(frozen=True, slots=True)
class Label:
    """See `label`."""

    column: str
    horizon: Duration
    tolerance: Duration
    release: str | Duration
    name: str
    zone: str | None
    observations: Observations | FeatureView | None = field(repr=False)

    @property
    def release_text(self) -> str:
        """The release as it was written."""
        return self.release if isinstance(self.release, str) else self.release.text

    @property
    def columns(self) -> list[str]:
        """The columns that it adds: value, event time, arrival time."""
        return [self.name, f"{self.name}_event_time", f"{self.name}_arrival_time"]


def label(
    column: str,
    horizon: DurationLike,
    *,
    observations: Observations | FeatureView | ObservationSource | None = None,
    tolerance: DurationLike = "0s",
    release: DurationLike = "final",
    name: str = "label",
    zone: str | None = None,
) -> Label:
    """The value of the greatest event in `[t + horizon - tolerance, t + horizon]`, as it was released (R12).

    Releases: `"final"` is the revision current at `as_of`; `"first"` the first revision with values, whatever came later; a
    duration d the revision current at `event_time + d`; `"as_known"` is final here, and a split trained at T takes the
    revision current at T. A row may train a model at T only if its `label_arrival_time <= T`.

    Args:
        column: Observed column, of measurements.
        horizon: How long after t the event lies.
        observations: Where the column is; may be left out if exactly one view has it.
        tolerance: How much earlier the event may lie; less than `horizon`.
        release: Which revision is the truth.
        name: First column's name; the others are `<name>_event_time` and `<name>_arrival_time`.
        zone: IANA zone in which a horizon in `d` and `w` means calendar days; default that of the view.

    Returns:
        The declaration, for `build_dataset`.

    Raises:
        DurationError: If a duration is none.
        LabelError: If `tolerance` is not less than `horizon`, or the release is unknown.

    Example:
        >>> label("load_kw", horizon="20m").columns
        ['label', 'label_event_time', 'label_arrival_time']
    """
    ahead = parse_duration(horizon, "horizon")
    slack = parse_duration(tolerance, "tolerance", allow_zero=True)
    if slack.total_us >= ahead.total_us:
        raise LabelError(
            f"tolerance={slack.text!r} of label({column!r}) reaches back to t or before: the horizon is {ahead.text!r}",
            "a label lies after t; make the tolerance shorter.",
        )
    if isinstance(release, str) and release in RELEASES:
        chosen: str | Duration = release
    elif isinstance(release, str) and release.replace("_", "").isalpha():
        raise LabelError(
            f"release={release!r} of label({column!r}) is unknown",
            'choose "final", "first", "as_known", or a duration such as "2d".',
        )
    else:
        chosen = parse_duration(release, "release", allow_zero=True)
    if isinstance(observations, ObservationSource):
        observations = Observations(observations)
    return Label(column, ahead, slack, chosen, name, zone, observations)


def label_source(label: Label, views: Sequence[FeatureView]) -> tuple[Observations, list[str], str | None]:
    """Where a label is observed: the observations, their entities as the spine calls them, and the zone.

    Raises:
        LabelError: If it is not said and not exactly one view has the column, or if it is a forecast.
        MissingColumnError: If the observations have no such column.
    """
    source: Observations | FeatureView | None = label.observations
    if source is None:
        having = [view for view in views if label.column in view.observations.schema]
        if len(having) != 1:
            names = ", ".join(repr(view.name) for view in having) or "no view"
            raise LabelError(
                f"label {label.column!r} is observed in {names}, not in exactly one view",
                f'say where: al.label("{label.column}", ..., observations=...).',
            )
        source = having[0]
    rows = source.observations if isinstance(source, FeatureView) else source
    if label.column not in rows.schema:
        raise MissingColumnError(label.column, "the label's observations", rows.values)
    if rows.kind != "measurement":
        raise LabelError(
            f"label {label.column!r} is a forecast, not a measurement",
            "a label is what came true: name the observations of it.",
        )
    if isinstance(source, FeatureView):
        return rows, source.spine_entities, label.zone or source.zone
    return rows, rows.entities, label.zone


def evaluate_label(
    label: Label,
    spine: Spine,
    views: Sequence[FeatureView],
    *,
    as_of_us: int,
    position: int | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """The label of every spine row, as it was known at `as_of_us`.

    Args:
        label: What to look up.
        spine: Checked spine, with the label's entity columns.
        views: Where to look for the column if the label does not say.
        as_of_us: Nothing that arrived later counts, microseconds.
        position: Greatest `log_sequence` that counts; None for all.
        threads: How many threads; None for one per processor.

    Returns:
        Value, event time and arrival time (Datetime("us", "UTC")) per spine row; all null where there is no such event.

    Raises:
        LabelError: See `label_source`.
        AlignmentError: What the observations break.
    """
    rows, keys, zone = label_source(label, views)
    stored = checked(rows, [label.column], position=position, as_of_us=as_of_us)
    frame = stored.frame
    with Pool(threads) as pool:
        entities, asking, given = encode_entities(spine.frame, keys, frame, rows.entities, rows.place, pool)
        asked = lay_out_questions(asking, entities, spine.t, pool)
        low: Bound = shifted(spine.t, zone, (1, label.horizon), (-1, label.tolerance))
        high: Bound = shifted(spine.t, zone, (1, label.horizon))
        due = _due(label, frame, zone)
        if due is not None and not rows.key:  # of each event the revision current when it is due, if that has come
            given = np.where((due < numbers(frame[ARRIVAL])) | (due > as_of_us), np.int32(-1), given)
        layout = lay_out(rows, frame, given, entities, as_of_us, pool, position)
        if due is not None and rows.key:
            first, last = (end if isinstance(end, np.ndarray) else spine.t + end for end in (low, high))
            counting = np.where(numbers(frame[ARRIVAL]) > as_of_us, np.int32(-1), given)
            picked = _released(frame.select(rows.key), frame, counting, asking, first, last, due, as_of_us)
        else:
            sweep = Sweep(None, first_only=label.release == "first", questions=[Question(codes.PICK, low, high)])
            answers = run_sweep(sweep, layout, asked, stored, len(spine.t), as_of_us, pool, always=True)
            picked = row_index(answers.picks[0])
    found = frame.select(pl.col(EVENT, ARRIVAL).gather(picked))
    arrival = found[ARRIVAL] if due is None else pl.Series(due).gather(picked)
    value, event_time, arrival_time = label.columns
    return pl.DataFrame(
        {
            value: stored.column(label.column).gather(picked),
            event_time: found[EVENT].cast(pl.Datetime("us", "UTC")),
            arrival_time: arrival.cast(pl.Datetime("us", "UTC")),
        }
    )


def _due(label: Label, frame: pl.DataFrame, zone: str | None) -> Ints | None:
    """When each row's event is released, if the release is so long after it (R15: calendar days in a zone)."""
    if not isinstance(label.release, Duration):
        return None
    events = numbers(frame[EVENT])
    due = shifted(events, zone, (1, label.release))
    return due if isinstance(due, np.ndarray) else events + due


def _released(
    keys: pl.DataFrame,
    frame: pl.DataFrame,
    given: Codes,
    asking: Codes,
    low: Ints,
    high: Ints,
    due: Ints,
    as_of_us: int,
) -> pl.Series:
    """Where ids are declared and events may move: the row that was current when its own event was due, per spine row.

    A row is a release of its event iff it had arrived by then and the next revision of its id had not. The sweep cannot tell:
    it knows one current row per id, and a move after one event's release would take that event away.
    """
    order = [ARRIVAL, ORDER] if ORDER in frame.columns else [ARRIVAL]
    gone = pl.col(RETRACTION) if RETRACTION in frame.columns else pl.lit(False)
    rows = (
        frame.select(EVENT, *order, gone.alias(RETRACTION))
        .with_row_index("@row")
        .with_columns(pl.Series("@entity", given), pl.Series("@due", due))
    )
    rows = rows.hstack(keys.rename(lambda name: f"@id {name}")).sort(order, maintain_order=True)
    ids = [f"@id {name}" for name in keys.columns]
    rows = rows.with_columns(pl.col(ARRIVAL).shift(-1).over(["@entity", *ids]).alias("@next"))
    released = rows.filter(
        ~pl.col(RETRACTION)
        & (pl.col("@entity") >= 0)
        & (pl.col(ARRIVAL) <= pl.col("@due"))
        & (pl.col("@due") <= as_of_us)
        & (pl.col("@next").is_null() | (pl.col("@next") > pl.col("@due")))
    )
    asked = pl.DataFrame({"@entity": asking, "@low": low, "@high": high}).with_row_index("@place").sort("@high")
    found = asked.join_asof(
        released.sort(EVENT, *order, *ids).select("@entity", EVENT, "@row"),
        left_on="@high",
        right_on=EVENT,
        by="@entity",
        check_sortedness=False,
        coalesce=False,
    )
    within = pl.when(pl.col(EVENT) >= pl.col("@low")).then(pl.col("@row"))
    return found.sort("@place").select(within).to_series()
