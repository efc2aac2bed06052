"""What a join on event time pretends: the same features with arrivals ignored, beside what had arrived.

A model trained on such a table is scored on it too, and looks better than it will ever be live. The report says where the
two tables differ, by how much, and what a simple model's score is worth of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from alignment.baseline import Numbers, fit_ridge, score
from alignment.dataset import Dataset, build_dataset
from alignment.durations import DurationLike, instant_us
from alignment.errors import DefinitionError, LabelError, MissingColumnError
from alignment.exams import exam_of
from alignment.join import Positions, check_engine, point_in_time_join
from alignment.labels import Label
from alignment.leakage_text import as_html, as_text, notebook_html
from alignment.naive import naive_view
from alignment.observations import FrameLike
from alignment.recipe import make_recipe
from alignment.report_form import plain
from alignment.spine import PREDICTION_TIME
from alignment.splits import LOOKBACK
from alignment.views import FeatureView

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FRAME = {
    "feature": pl.String,
    "rows": pl.Int64,
    "rows_differing": pl.Int64,
    "share_differing": pl.Float64,
    "rows_naive_only": pl.Int64,
    "rows_available_only": pl.Int64,
    "mean_difference": pl.Float64,
    "median_difference": pl.Float64,
    "max_difference": pl.Float64,
    "mean_difference_sd": pl.Float64,
    "unit": pl.String,
}
_SKILL = {
    "trained_on": pl.String,
    "scored": pl.String,
    "r2": pl.Float64,
    "mae": pl.Float64,
    "rmse": pl.Float64,
    "train_rows": pl.Int64,
    "test_rows": pl.Int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class LeakReport:
    """Naive against available, per feature and as a score.

    Naive is the same feature computed from the table as it stands at `as_of`, each row visible from its event on (a
    forecast from its issue on). Available is what had arrived by the prediction time.

    Attributes:
        frame: One row per feature, in declared order. `rows` compared; `rows_differing` and `share_differing`, where values
            differ at all (null is a value of its own, NaN equals NaN, arrays differ where one slot does);
            `rows_naive_only`, where naive has a value and available has none, and `rows_available_only`; of the rows (of
            arrays: the slots) where both are numbers and differ the mean, median and maximum of `|naive - available|`, in
            `unit` ("s" for durations and instants); `mean_difference_sd`, that mean in standard deviations of the
            available values.
        skill: One row per training set (`naive`, `available`) and way to score: `offline` on test rows made the same way as
            the training rows, `live` on what was available. Columns `r2`, `mae`, `rmse`, `train_rows`, `test_rows`. Empty
            without a label, or where `notes` say why.
        as_of: When the naive table was read.
        rows: Rows of the spine.
        label: The label's column, if there is one.
        trained_at: T of the split, if there is a score.
        left_out: Features that the baseline does not use, and why.
        notes: What else to know.
    """

    frame: pl.DataFrame
    skill: pl.DataFrame
    as_of: datetime
    rows: int
    label: str | None = None
    trained_at: datetime | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def fake_skill(self) -> dict[str, float] | None:
        """How much of the naive model's offline score is gone when it is live: `r2` lost, `mae` and `rmse` gained.

        None without a score.
        """
        if not self.skill.height:
            return None
        offline, live = (self._scores("naive", scored) for scored in ("offline", "live"))
        return {
            "r2": offline["r2"] - live["r2"],
            "mae": live["mae"] - offline["mae"],
            "rmse": live["rmse"] - offline["rmse"],
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; what is not finite is None."""
        return {
            "as_of": self.as_of.isoformat(),
            "rows": self.rows,
            "features": [plain(row) for row in self.frame.to_dicts()],
            "label": self.label,
            "trained_at": None if self.trained_at is None else self.trained_at.isoformat(),
            "skill": [plain(row) for row in self.skill.to_dicts()],
            "fake_skill": None if self.fake_skill is None else plain(self.fake_skill),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }

    def to_html(self) -> str:
        """A page of its own: no scripts, nothing loaded from elsewhere, light or dark as the reader prefers."""
        return as_html(self.to_dict())

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def __repr__(self) -> str:
        return f"LeakReport({self.frame.height} features, {self.rows} rows, as_of={self.as_of.isoformat()})"

    def _scores(self, trained_on: str, scored: str) -> dict[str, float]:
        return self.skill.row(
            by_predicate=(pl.col("trained_on") == trained_on) & (pl.col("scored") == scored), named=True
        )


def leak_report(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    *,
    label: Label | None = None,
    as_of: datetime | None = None,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    engine: str = "local",
    threads: int | None = None,
    test_from: datetime | None = None,
    embargo: DurationLike | None = LOOKBACK,
    known_columns: Sequence[str] = (),
    spark: SparkSession | None = None,
) -> LeakReport:
    """Where a join on event time differs from what had arrived, and what its score is worth.

    With a label a ridge regression is trained on each of the two tables, on the same rows before T with the same labels (see
    `split_at`), and scored on the rows from T on: offline, as its own join makes them, and live, on what was available.
    The naive model's offline score less its live score is fake skill. The available model has none: both are one table.

    Args:
        spine: See `point_in_time_join`.
        views: Whose features.
        label: What the model is to say; without one there is no score.
        as_of: When the naive table is read; None is the greatest arrival in the inputs. Nothing that arrived later counts.
        prediction_time: The spine's column of prediction times.
        positions: Log positions to answer at; None is each log's head now.
        engine: `"local"`; or `"duckdb"`, whose sums may differ in the last bit and then count as differing (R17); or `"spark"`, which
            compares on executors, without a label.
        threads: See `point_in_time_join`.
        test_from: T; None leaves the last three tenths of the labelled rows for the test.
        embargo: See `time_splits`.
        known_columns: Columns of the spine that the model may use beside the features, for instance a calendar; they are the
            same in both tables.
        spark: The session of engine `"spark"`; None for the active one.

    Returns:
        The report.

    Raises:
        AlignmentError: See `build_dataset`.
        MissingColumnError: If the spine lacks one of `known_columns`.
        DefinitionError: If `test_from` leaves nothing to train or test on.

    Example:
        >>> from datetime import UTC, datetime
        >>> from alignment.features import latest
        >>> def at(hour, minute=0):
        ...     return datetime(2026, 1, 1, hour, minute, tzinfo=UTC)
        >>> frame = pl.DataFrame(
        ...     {
        ...         "station": ["a", "a"],
        ...         "event_time": [at(10), at(11)],
        ...         "arrival_time": [at(10, 40), at(11, 40)],
        ...         "temp": [3.5, 4.0],
        ...     }
        ... )
        >>> view = FeatureView("weather", ["station"], frame, [latest("temp")])
        >>> spine = pl.DataFrame({"station": "a", "prediction_time": [at(10), at(11), at(12)]})
        >>> leak_report(spine, view).frame.select(
        ...     "feature", "rows_differing", "rows_naive_only", "max_difference"
        ... ).rows()
        [('weather__temp', 2, 1, 0.5)]
    """
    views = [views] if isinstance(views, FeatureView) else list(views)
    check_engine(engine, threads)
    if engine == "spark":
        return _on_spark(spine, views, label, as_of, prediction_time, positions, spark)
    dataset = build_dataset(
        spine,
        views,
        label=label,
        as_of=as_of,
        engine=engine,
        prediction_time=prediction_time,
        positions=positions,
        threads=threads,
    )
    moment = datetime.fromisoformat(dataset.manifest["as_of"])
    features = dataset.feature_columns
    for name in known_columns:
        if name not in dataset.frame.columns:
            raise MissingColumnError(name, "the spine", dataset.manifest["spine"]["columns"])
    naive = _naive_features(dataset, moment, engine, prediction_time, threads)
    frame = pl.DataFrame([_compare(naive[name], dataset.frame[name]) for name in features], schema=_FRAME)
    report = LeakReport(
        frame, pl.DataFrame(schema=_SKILL), moment, dataset.frame.height, None if label is None else label.column
    )
    if label is None:
        return report
    return _with_skill(report, dataset, naive, label.name, [*known_columns, *features], test_from, embargo)


def _on_spark(
    spine: FrameLike,
    views: Sequence[FeatureView],
    label: Label | None,
    as_of: datetime | None,
    prediction_time: str,
    positions: Positions | None,
    spark: SparkSession | None,
) -> LeakReport:
    """The report without a score, compared by executors.

    Raises:
        DefinitionError: If there is a label.
    """
    from alignment.engines.spark.leakage import compare

    if label is not None:
        raise DefinitionError(
            'leak_report(engine="spark") gives no score',
            'leave the label out, or score a part of the spine with engine="local".',
        )
    recipe = make_recipe(tuple(views), as_of=as_of, prediction_time=prediction_time, positions=positions)
    rows = compare(
        *(spine, views),
        as_of_us=recipe.as_of_us,
        positions=recipe.head,
        prediction_time=prediction_time,
        spark=spark,
    )
    frame = pl.DataFrame(rows, schema=_FRAME)
    height = int(frame["rows"].max() or 0)  # type: ignore[arg-type]
    return LeakReport(frame, pl.DataFrame(schema=_SKILL), recipe.as_of, height)


def _naive_features(
    dataset: Dataset, moment: datetime, engine: str, prediction_time: str, threads: int | None
) -> pl.DataFrame:
    as_of_us = instant_us(moment, "as_of")
    inputs = dataset.manifest["inputs"]
    naive = [
        naive_view(view, as_of_us, position=inputs[view.name]["position"], threads=threads) for view in dataset.views
    ]
    spine = dataset.frame.select(dataset.manifest["spine"]["columns"])
    return point_in_time_join(spine, naive, engine=engine, prediction_time=prediction_time, threads=threads)


# --- per feature ------------------------------------------------------------------------------------------------------


def _compare(naive: pl.Series, available: pl.Series) -> dict[str, Any]:
    """One row of `LeakReport.frame`."""
    differing = naive.ne_missing(available)  # null equals null, NaN equals NaN, nothing is rounded
    has_naive, has_available = has_value(naive), has_value(available)
    facts: dict[str, Any] = {
        "feature": available.name,
        "rows": len(available),
        "rows_differing": int(differing.sum()),
        "share_differing": float(differing.mean() or 0.0) if len(differing) else None,  # type: ignore[arg-type]
        "rows_naive_only": int((has_naive & ~has_available).sum()),
        "rows_available_only": int((has_available & ~has_naive).sum()),
        "mean_difference": None,
        "median_difference": None,
        "max_difference": None,
        "mean_difference_sd": None,
        "unit": None,
    }
    if (unit := unit_of(available.dtype)) is None:
        return facts
    facts["unit"] = unit or None
    distance, other = distances_of(naive, available)
    if len(distance):
        spread = float(np.std(other, ddof=1)) if len(other) > 1 else 0.0
        mean = float(distance.mean())
        facts |= {
            "mean_difference": mean,
            "median_difference": float(np.median(distance)),
            "max_difference": float(distance.max()),
            "mean_difference_sd": mean / spread if spread > 0 else None,
        }
    return facts


def distances_of(naive: pl.Series, available: pl.Series) -> tuple[Numbers, Numbers]:
    """How far apart two features are where both are finite and differ, and the finite numbers of the second."""
    one, other = plain_numbers(naive), plain_numbers(available)
    finite = np.isfinite(other)
    both = finite & np.isfinite(one)
    with np.errstate(over="ignore"):  # further apart than a float can say
        distance = np.abs(one[both] - other[both])
    return distance[np.isfinite(distance) & (distance > 0)], other[finite]


def has_value(series: pl.Series) -> pl.Series:
    """Where there is a value; of a sequence: where a slot has one."""
    if isinstance(series.dtype, pl.Array):
        return (
            pl.select((pl.lit(series).arr.eval(pl.element().is_not_null(), as_list=False)).arr.any())
            .to_series()
            .fill_null(value=False)
        )
    return series.is_not_null()


def unit_of(kind: pl.DataType) -> str | None:
    """The unit in which values are subtracted, empty for that of the values; None if they are no numbers."""
    if isinstance(kind, pl.Array):
        return unit_of(kind.inner) if isinstance(kind.inner, pl.DataType) else None
    if isinstance(kind, pl.Duration | pl.Datetime):
        return "s"
    return "" if kind.is_numeric() else None


def plain_numbers(series: pl.Series) -> Numbers:
    """Numbers, durations and instants (in seconds), the slots of arrays one after the other; null as NaN."""
    kind = series.dtype
    if isinstance(kind, pl.Array):
        slots = [plain_numbers(series.arr.get(slot)) for slot in range(kind.size)]
        return np.concatenate(slots) if slots else np.empty(0)
    if isinstance(kind, pl.Duration | pl.Datetime):
        series = series.dt.cast_time_unit("us").to_physical() / 1e6
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


# --- the score --------------------------------------------------------------------------------------------------------


def _with_skill(
    report: LeakReport,
    dataset: Dataset,
    naive: pl.DataFrame,
    label: str,
    columns: list[str],
    test_from: datetime | None,
    embargo: DurationLike | None,
) -> LeakReport:
    try:
        exam = exam_of(dataset, label, test_from=test_from, embargo=embargo)
    except DefinitionError as error:
        if test_from is not None and not isinstance(error, LabelError):
            raise
        return replace(report, notes=(f"no score: {error.problem}",))
    skill: list[dict[str, Any]] = []
    left_out: Mapping[str, str] = {}
    for trained_on, table in (("naive", naive), ("available", dataset.frame)):
        model = fit_ridge(table[exam.train], columns, exam.target)
        left_out = model.left_out
        for scored, seen in (("offline", table), ("live", dataset.frame)):
            reached = asdict(score(exam.truth, model.predict(seen[exam.test])))
            sizes = {"train_rows": len(exam.train), "test_rows": len(exam.test)}
            skill.append({"trained_on": trained_on, "scored": scored} | reached | sizes)
    return replace(
        report, skill=pl.DataFrame(skill, schema=_SKILL), trained_at=exam.at, left_out=left_out, notes=(exam.note,)
    )
