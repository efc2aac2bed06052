"""What a delay costs: a model's score, had a provider been earlier, later or not there at all."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from alignment.arrivals import transform_arrivals
from alignment.dataset import Dataset, build_dataset
from alignment.delays import ShiftedDelay
from alignment.durations import Duration, DurationLike, parse_duration
from alignment.errors import DefinitionError, MissingColumnError
from alignment.exams import Exam, exam_of
from alignment.heartbeats import provider_of
from alignment.join import Positions, point_in_time_join
from alignment.labels import Label
from alignment.models import Model, name_of, train
from alignment.observations import FrameLike
from alignment.outages import Outage
from alignment.report_form import plain
from alignment.resampling import CONFIDENCE, DRAWS, Drawing, DrawnDays, Errors
from alignment.spine import PREDICTION_TIME, check_spine
from alignment.splits import LOOKBACK
from alignment.views import FeatureView
from alignment.whatif_delay_text import as_html, as_text, notebook_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OFF = "off"
SHIFTS = ("-15m", "0m", "15m", "30m", "1h", "2h", OFF)
DEPLOYED, RETRAINED = "deployed", "retrained"
_SCORES = [f"{score}{end}" for score in ("mae", "rmse") for end in ("", "_low", "_high")]
_CHANGES = [f"{score}_change{end}" for score in ("mae", "rmse") for end in ("", "_low", "_high")]
_FRAME: dict[str, Any] = {
    "provider": pl.String,
    "shift": pl.String,
    "moved": pl.Duration("us"),
    "model": pl.String,
    "rows": pl.Int64,
    "share_changed": pl.Float64,
} | dict.fromkeys([*_SCORES, *_CHANGES], pl.Float64)
_ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True, eq=False)
class DelayCost:
    """What each provider's delay costs.

    Attributes:
        frame: One row per provider, shift and model, in that order, shifts ascending and `off` last. `moved` is the shift as a
            duration, null of `off`. `model` is `deployed`, trained on arrivals as they were, or `retrained` under the shift.
            `rows` tested, and `share_changed` of them at which a feature of the provider has another value. `mae` and `rmse` on
            the test rows; `mae_change` and `rmse_change`, how much greater that is than on the same rows without a shift; of
            each `_low` and `_high`, between which lies 95 % of what days drawn anew give (null of less than two days).
        label: The label's column.
        unit: Its unit, if it was given.
        model: What the model is, in words.
        trained_at: T of the split.
        as_of: When the labels were read.
        train_rows: Rows that trained.
        test_rows: Rows that were tested.
        test_days: Days that they lie on, in `zone`.
        zone: Whose days were drawn.
        confidence: Share of the draws inside an interval.
        left_out: Features that the model does not use, and why.
        notes: What else to know.
    """

    frame: pl.DataFrame
    label: str
    unit: str | None
    model: str
    trained_at: datetime
    as_of: datetime
    train_rows: int
    test_rows: int
    test_days: int
    zone: str
    confidence: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; `moved` in seconds, what is not finite is None."""
        moved = pl.col("moved").dt.total_microseconds() / 1e6
        return {
            "label": self.label,
            "unit": self.unit,
            "model": self.model,
            "trained_at": self.trained_at.isoformat(),
            "as_of": self.as_of.isoformat(),
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "test_days": self.test_days,
            "zone": self.zone,
            "confidence": self.confidence,
            "costs": [plain(row) for row in self.frame.with_columns(moved).to_dicts()],
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }

    def plot(self, *, score: str = "mae") -> Figure:
        """The score against the shift, a panel per provider, with the band of the difference to no shift.

        Args:
            score: `"mae"` or `"rmse"`.

        Returns:
            A matplotlib figure; needs the extra `plot`.
        """
        from alignment.whatif_plot import plot_delay

        return plot_delay(self, score)

    def to_html(self) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers."""
        return as_html(self.to_dict())

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def __repr__(self) -> str:
        providers = ", ".join(self.frame["provider"].unique(maintain_order=True))
        return f"DelayCost({self.frame.height} scores, {self.test_rows} rows tested, providers: {providers})"


def delay_cost(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    *,
    label: Label,
    model: Model = None,
    providers: Sequence[str] | None = None,
    shifts: Sequence[DurationLike] = SHIFTS,
    retrain: bool = True,
    test_from: datetime | None = None,
    embargo: DurationLike | None = LOOKBACK,
    known_columns: Sequence[str] = (),
    as_of: datetime | None = None,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    threads: int | None = None,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    zone: str | None = None,
    unit: str | None = None,
    after_each: Callable[[str, str], object] | None = None,
) -> DelayCost:
    """What a model's score would be, had each provider been earlier or later by so much, or off.

    One provider is moved at a time; the labels and the rows stay the same. Two questions are answered: what the deployed
    model, which was trained on arrivals as they were, makes of the moved ones; and what a model makes of them that was
    trained on rows with the same shift. A model that is not told leans on features that have changed their meaning.

    A provider that is off is not there at all: its features are null, and what they are without rows.

    Differences are on the same rows, and their intervals come from drawing whole days (UTC, or those of `zone`) with
    replacement: rows of a day depend on each other. They say how sure a difference is on other days like the tested ones;
    that other training rows would give another model is not in them.

    Args:
        spine: See `point_in_time_join`.
        views: Whose features.
        label: What the model is to say.
        model: None for a ridge regression; an unfitted estimator with `fit(X, y)` and `predict(X)`, or what makes one. `X` is a
            matrix of numbers, missing as NaN: first `known_columns`, then the features, durations in seconds, texts as a
            column for each of the ten most frequent, without columns that have no value in any training row.
        providers: Whose delays are moved; None for all of the views.
        shifts: Durations, negative for earlier, and `"off"`. An arrival never moves before its event. No shift, which the others
            are compared with, is always in the report.
        retrain: Whether to train a model under each shift too.
        test_from: T; None leaves the last three tenths of the labelled rows for the test.
        embargo: See `time_splits`.
        known_columns: Columns of the spine that the model may use beside the features, for instance a calendar.
        as_of: When labels are read; None is the greatest arrival in the inputs.
        prediction_time: The spine's column of prediction times.
        positions: Log positions to answer at; None is each log's head now.
        threads: How many threads; None for one per processor.
        draws: How often days are drawn.
        confidence: Share of the draws inside an interval.
        seed: The same seed draws the same days.
        zone: IANA zone of the days; None for UTC.
        unit: The label's unit, for text and axes.
        after_each: Called with provider and shift after each.

    Returns:
        The report.

    Raises:
        AlignmentError: See `build_dataset`.
        MissingColumnError: If the spine lacks one of `known_columns`.
        DefinitionError: If there is no such provider, a shift is there twice, `test_from` leaves nothing to train or test on, or
            the model does not take the rows.
        LabelError: If the label is no number.
        DurationError: If a shift is none.

    Example:
        >>> from alignment.features import latest
        >>> from alignment.labels import label
        >>> start = datetime(2026, 1, 1, tzinfo=UTC)
        >>> hours = pl.datetime_range(start, start + timedelta(days=8), "1h", eager=True)
        >>> ramp = pl.DataFrame({"site": "a", "event_time": hours, "load": range(len(hours))}).with_columns(
        ...     pl.col("load").cast(pl.Float64), arrival_time=pl.col("event_time")
        ... )
        >>> view = FeatureView("meter", ["site"], ramp, [latest("load")])
        >>> spine = pl.DataFrame({"site": "a", "prediction_time": hours})
        >>> class Newest:  # says what was last seen
        ...     def fit(self, X, y): ...
        ...
        ...     def predict(self, X):
        ...         return X[:, 0]
        >>> costs = delay_cost(
        ...     spine, view, label=label("load", "1h"), shifts=["0m", "1h", "2h"], model=Newest, retrain=False
        ... )
        >>> costs.frame.select("shift", "mae", "mae_change").rows()  # each hour later is one unit of the ramp
        [('0m', 1.0, 0.0), ('1h', 2.0, 1.0), ('2h', 3.0, 2.0)]
    """
    views = [views] if isinstance(views, FeatureView) else list(views)
    moves = _parsed(shifts)
    dataset = build_dataset(
        spine,
        views,
        label=label,
        as_of=as_of,
        prediction_time=prediction_time,
        positions=positions,
        threads=threads,
    )
    check_known(known_columns, dataset)
    asked = _chosen(providers, views)
    exam = exam_of(dataset, label.name, test_from=test_from, embargo=embargo)
    columns = [*known_columns, *dataset.feature_columns]
    deployed = train(model, dataset.frame[exam.train], columns, exam.target)
    tested = dataset.frame[exam.test]
    drawing = Drawing(seed=seed, draws=draws, confidence=confidence, zone=zone)
    days = drawing.of(check_spine(tested, [], prediction_time).t)
    before = Errors.of(deployed.predict(tested), exam.truth)
    found = []
    for provider in asked:
        for text, move in moves:
            moved = dataset.frame if _is_nothing(move) else _moved(dataset, provider, move, prediction_time, threads)
            scores = {DEPLOYED: Errors.of(deployed.predict(moved[exam.test]), exam.truth)}
            if retrain:
                again = deployed if _is_nothing(move) else train(model, moved[exam.train], columns, exam.target)
                scores[RETRAINED] = Errors.of(again.predict(moved[exam.test]), exam.truth)
            facts = {
                "provider": provider,
                "shift": text,
                "moved": None if move is None else timedelta(microseconds=move.total_us),
                "rows": len(exam.test),
                "share_changed": _share_changed(tested, moved[exam.test], dataset.feature_columns),
            }
            found += [
                facts | {"model": name} | errors.facts(days) | errors.less(before, days, "change")
                for name, errors in scores.items()
            ]
            if after_each is not None:
                after_each(provider, text)
    return DelayCost(
        frame=pl.DataFrame(found, schema=_FRAME),
        label=label.column,
        unit=unit,
        model=name_of(model),
        trained_at=exam.at,
        as_of=datetime.fromisoformat(dataset.manifest["as_of"]),
        train_rows=len(exam.train),
        test_rows=len(exam.test),
        test_days=days.days,
        zone=zone or "UTC",
        confidence=confidence,
        left_out=deployed.left_out,
        notes=notes_of(exam, days),
    )


def check_known(columns: Sequence[str], dataset: Dataset) -> None:
    """Refuse columns that the spine has not.

    Raises:
        MissingColumnError: If there is one.
    """
    there = dataset.manifest["spine"]["columns"]
    for name in columns:
        if name not in there:
            raise MissingColumnError(name, "the spine", there)


def notes_of(exam: Exam, days: DrawnDays) -> tuple[str, ...]:
    """What to know of rows and days."""
    if days.days < 2:
        return (exam.note, "the tested rows lie on one day, so there are no intervals")
    if days.days < 10:
        return (exam.note, f"{days.days} days are few to draw from: intervals are rough, and rather too narrow")
    return (exam.note,)


def _parsed(shifts: Sequence[DurationLike]) -> list[tuple[str, Duration | None]]:
    """Shifts with their texts, ascending, no shift among them, `off` last.

    Raises:
        DefinitionError: If there is none, or one is there twice.
        DurationError: If one is no duration.
    """
    if isinstance(shifts, str) or not shifts:
        raise DefinitionError(f"shifts={shifts!r} is not a list of shifts", 'e.g. shifts=["0m", "30m", "off"].')
    moves = [
        None if shift == OFF else parse_duration(shift, "shift", allow_zero=True, allow_negative=True)
        for shift in shifts
    ]
    timed = [move for move in moves if move is not None]
    lengths = [move.total_us for move in timed]
    if len(set(lengths)) < len(lengths) or moves.count(None) > 1:
        raise DefinitionError(f"shifts={list(shifts)!r} name one shift twice", "name each once.")
    if 0 not in lengths:
        timed.append(parse_duration("0m", "shift", allow_zero=True))
    timed.sort(key=lambda move: move.total_us)
    return [(move.text, move) for move in timed] + [(OFF, None)] * moves.count(None)


def _chosen(providers: Sequence[str] | None, views: Sequence[FeatureView]) -> list[str]:
    """Providers of the views, each once.

    Raises:
        DefinitionError: If one is none of theirs.
    """
    known = list(dict.fromkeys(provider_of(view) for view in views))
    for name in providers or ():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise DefinitionError(
                f"{name!r} is no provider of the views",
                f"did you mean {close[0]!r}?" if close else f"they are {', '.join(map(repr, known))}.",
            )
    return known if providers is None else list(dict.fromkeys(providers))


def _is_nothing(move: Duration | None) -> bool:
    return move is not None and move.total_us == 0


def _moved(
    dataset: Dataset, provider: str, move: Duration | None, prediction_time: str, threads: int | None
) -> pl.DataFrame:
    """The data set with the features of one provider as they would have been; the others, and the labels, are as they were."""
    views = [view for view in dataset.views if provider_of(view) == provider]
    if move is None:
        moved = transform_arrivals(views, outages=[Outage(provider, *_ALWAYS, lost=True)])
    else:
        moved = transform_arrivals(views, delays={provider: ShiftedDelay(move.text)})
    inputs = dataset.manifest["inputs"]
    answers = point_in_time_join(
        dataset.frame.select(dataset.manifest["spine"]["columns"]),
        moved,
        as_of=datetime.fromisoformat(dataset.manifest["as_of"]),
        prediction_time=prediction_time,
        positions={view.name: p for view in views if (p := inputs[view.name]["position"]) is not None},
        threads=threads,
    )
    return dataset.frame.with_columns(answers[name] for view in views for name in view.column_names)


def _share_changed(before: pl.DataFrame, after: pl.DataFrame, columns: Sequence[str]) -> float:
    """Share of rows at which a feature has another value."""
    differing = np.zeros(before.height, np.bool_)
    for name in columns:
        differing |= before[name].ne_missing(after[name]).to_numpy()
    return float(differing.mean())
