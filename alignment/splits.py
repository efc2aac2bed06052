"""Splits ordered in time: a model trained at T knows nothing that was not known at T.

Rows at or after T are tested on. A row trains only if its label lies before T, had arrived by T (R12), and its features look
at nothing that the features of the tested rows look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.dataset import Dataset
from alignment.durations import DurationLike, instant_from_us, instant_us, parse_duration
from alignment.errors import ColumnTypeError, DefinitionError, MissingColumnError, NaiveTimeError, NullTimeError
from alignment.labels import evaluate_label
from alignment.layout import Ints
from alignment.lookback import lookback_floor
from alignment.observations import FrameLike, as_lazy
from alignment.spine import PREDICTION_TIME, Spine
from alignment.views import FeatureView

LOOKBACK = "lookback"
PURGES = ("no_label", "label_overlap", "label_arrival_time", "embargo")
_PLACE = "the data set"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One training and one test set.

    Attributes:
        at: T: the instant at which the model is trained.
        until: End of the test period `[at, until)`.
        train_until: The greatest prediction time that may train: T less the embargo, or the last instant before T.
        train: Row numbers of the training set, ascending; UInt32.
        test: Row numbers of the test set, ascending; rows without a label are left out.
        purged: Rows before T that do not train, each counted under the first rule that strikes it: `no_label`,
            `label_overlap` (the label's event is not before T), `label_arrival_time` (the label arrived after T), `embargo`.
        untestable: Rows of the test period that have no label.
    """

    at: datetime
    until: datetime
    train_until: datetime
    train: pl.Series
    test: pl.Series
    purged: Mapping[str, int]
    untestable: int
    _labels: pl.DataFrame | None = field(default=None, repr=False)

    def train_frame(self, dataset: Dataset | FrameLike) -> pl.DataFrame:
        """The training rows of the data set that was split; labels released `as_known` are those current at T (R12)."""
        rows = _frame(dataset)[self.train]
        return rows if self._labels is None else rows.with_columns(self._labels.get_columns())

    def test_frame(self, dataset: Dataset | FrameLike) -> pl.DataFrame:
        """The test rows of the data set that was split."""
        return _frame(dataset)[self.test]

    def __repr__(self) -> str:
        struck = ", ".join(f"{name} {count}" for name, count in self.purged.items() if count) or "none"
        return f"Split(at={self.at:%Y-%m-%d %H:%M:%S}Z, train={len(self.train)} rows, test={len(self.test)} rows, purged: {struck})"


class TimeSplits(Sequence[Split]):
    """What `time_splits` returns: a sequence of `Split`, earliest first."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._splits = tuple(splits)

    def __len__(self) -> int:
        return len(self._splits)

    @overload
    def __getitem__(self, index: int) -> Split: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Split]: ...
    def __getitem__(self, index: int | slice) -> Split | Sequence[Split]:
        return self._splits[index]

    def __repr__(self) -> str:
        return "TimeSplits([\n" + "".join(f"    {split},\n" for split in self._splits) + "])"

    def as_cv(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """(training rows, test rows) for each split, as scikit-learn's `cv=list(splits.as_cv())` takes them.

        Raises:
            DefinitionError: If labels are released `as_known`: they differ from split to split, and row numbers do not say so.
        """
        if any(split._labels is not None for split in self._splits):  # noqa: SLF001 - the same module
            raise DefinitionError(
                "labels released as_known differ from split to split: row numbers into one y would train on later revisions",
                "loop over the splits and take split.train_frame(dataset).",
            )
        return (
            (split.train.to_numpy().astype(np.int64), split.test.to_numpy().astype(np.int64)) for split in self._splits
        )


def time_splits(
    dataset: Dataset | FrameLike,
    n_splits: int = 5,
    *,
    test_size: DurationLike | None = None,
    train_size: DurationLike | None = None,
    embargo: DurationLike | None = LOOKBACK,
    views: Sequence[FeatureView] | FeatureView | None = None,
    prediction_time: str | None = None,
    label: str | None = None,
) -> TimeSplits:
    """Training and test sets for several T, the test periods side by side and ending with the last row.

    Test rows have t in `[T, T + test_size)`. A row trains iff t < T, its label's event is before T, its `label_arrival_time`
    is at most T (R12), and t is at most T less the embargo. By look-back the embargo reaches from T to the earliest event
    that a feature of a row at T may use: a window reaches back `offset + length`, a lag `by + tolerance`, a sequence its grid
    or `max_span`, a latest its `max_event_age`. Of features without such a bound only what is bounded counts: a lag without
    tolerance reaches back `by`, a latest without age limit nothing.

    Args:
        dataset: What `build_dataset` returned; or a frame with the prediction time, `label`, `label_event_time` and
            `label_arrival_time` (Datetime with zone).
        n_splits: How many.
        test_size: Length of a test period; None cuts the time that rows cover into `n_splits + 1` equal parts, of which
            the first is only trained on.
        train_size: Length of the training period `[T - train_size, T)`; None takes everything before T.
        embargo: `"lookback"`, a duration, or None for none.
        views: Whose look-back counts; default the data set's.
        prediction_time: The column of prediction times; default the data set's, else `prediction_time`.
        label: The label's name; default the data set's, else `label`.

    Returns:
        A sequence of `Split`, earliest first.

    Raises:
        DefinitionError: If there are too few rows for so many splits, nothing is left to train on, or it is unknown whose
            look-back counts.
        MissingColumnError: If a column is not there.
        FrameError: If an instant's column is none, or a prediction time is null.
        DurationError: If a duration is none.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> midnight = datetime(2026, 1, 1, tzinfo=UTC)
        >>> rows = pl.DataFrame(
        ...     {"prediction_time": [midnight + timedelta(hours=h) for h in range(6)], "label": range(6)}
        ... )
        >>> rows = rows.with_columns(
        ...     label_event_time=pl.col("prediction_time") + timedelta(hours=1),
        ...     label_arrival_time=pl.col("prediction_time") + timedelta(minutes=90),
        ... )
        >>> for split in time_splits(rows, 2, test_size="1h", embargo=None):
        ...     print(split.at.hour, split.train.to_list(), split.test.to_list(), split.purged)
        4 [0, 1, 2] [4] {'no_label': 0, 'label_overlap': 1, 'label_arrival_time': 0, 'embargo': 0}
        5 [0, 1, 2, 3] [5] {'no_label': 0, 'label_overlap': 1, 'label_arrival_time': 0, 'embargo': 0}
    """
    if type(n_splits) is not int or n_splits < 1:
        raise DefinitionError(f"n_splits={n_splits!r} is not a positive integer", "e.g. n_splits=5.")
    cutter = _Cutter.of(dataset, train_size, embargo, views, prediction_time, label)
    starts = _equal_parts(cutter.t, n_splits) if test_size is None else _periods(cutter.t, n_splits, test_size)
    return TimeSplits([cutter.cut(a, b) for a, b in pairwise(starts)])


def split_at(
    dataset: Dataset | FrameLike,
    at: datetime,
    *,
    test_size: DurationLike | None = None,
    train_size: DurationLike | None = None,
    embargo: DurationLike | None = LOOKBACK,
    views: Sequence[FeatureView] | FeatureView | None = None,
    prediction_time: str | None = None,
    label: str | None = None,
) -> Split:
    """The training and test set of a model that is trained at `at`.

    Args:
        dataset: See `time_splits`.
        at: T, with zone.
        test_size: Length of the test period; None tests on everything from T on.
        train_size: See `time_splits`.
        embargo: See `time_splits`.
        views: See `time_splits`.
        prediction_time: See `time_splits`.
        label: See `time_splits`.

    Returns:
        The split.

    Raises:
        DefinitionError: If nothing is left to train or test on, or it is unknown whose look-back counts.
        NaiveTimeError: If `at` has no zone.
        FrameError: See `time_splits`.
        DurationError: If a duration is none.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> midnight = datetime(2026, 1, 1, tzinfo=UTC)
        >>> rows = pl.DataFrame(
        ...     {"prediction_time": [midnight + timedelta(hours=h) for h in range(6)], "label": range(6)}
        ... )
        >>> late = pl.col("prediction_time") + timedelta(hours=1)
        >>> rows = rows.with_columns(label_event_time=late, label_arrival_time=late)
        >>> split_at(rows, midnight + timedelta(hours=4), embargo="2h")
        Split(at=2026-01-01 04:00:00Z, train=3 rows, test=2 rows, purged: label_overlap 1)
    """
    start = instant_us(at, "at")
    cutter = _Cutter.of(dataset, train_size, embargo, views, prediction_time, label)
    end = int(cutter.t.max()) + 1 if test_size is None else start + parse_duration(test_size, "test_size").total_us
    return cutter.cut(start, end)


@dataclass(frozen=True, slots=True)
class _Cutter:
    """A data set, and what to cut away before a T."""

    dataset: Dataset | FrameLike
    t: Ints
    known: npt.NDArray[np.bool_]
    event: Ints
    arrival: Ints
    train_us: int | None
    embargo: str | int | None
    views: tuple[FeatureView, ...]

    @classmethod
    def of(
        cls,
        dataset: Dataset | FrameLike,
        train_size: DurationLike | None,
        embargo: DurationLike | None,
        views: Sequence[FeatureView] | FeatureView | None,
        prediction_time: str | None,
        label: str | None,
    ) -> _Cutter:
        """Read the columns that decide.

        Raises:
            DefinitionError: If it is unknown whose look-back counts.
        """
        frame = _frame(dataset)
        if isinstance(dataset, Dataset):
            prediction_time = prediction_time or str(dataset.manifest["prediction_time"])
            views = dataset.views if views is None else views
            label = label or (dataset.label.name if dataset.label is not None else None)
        views = (views,) if isinstance(views, FeatureView) else tuple(views or ())
        wait: str | int | None = None
        if embargo == LOOKBACK:
            if not views:
                raise DefinitionError(
                    "embargo='lookback', and it is not said which features look back",
                    'pass views=[...], a duration such as embargo="24h", or embargo=None.',
                )
            wait = LOOKBACK
        elif embargo is not None:
            wait = parse_duration(embargo, "embargo", allow_zero=True).total_us
        span = None if train_size is None else parse_duration(train_size, "train_size").total_us
        t, known, event, arrival = _read(frame, prediction_time or PREDICTION_TIME, label or "label")
        return cls(dataset, t, known, event, arrival, span, wait, views)

    def cut(self, start: int, end: int) -> Split:
        """The split with T = `start` and the test period `[start, end)`."""
        before = self.t < start
        if self.train_us is not None:
            before &= self.t >= start - self.train_us
        known, event, arrival, labels = self._labels_at(start, before)
        last = min(start - 1, self._floor(start))
        rules = (~known, event >= start, arrival > start, self.t > last)
        trains, purged = before, {}
        for name, struck in zip(PURGES, rules, strict=True):
            purged[name] = int((trains & struck).sum())
            trains = trains & ~struck
        period = (self.t >= start) & (self.t < end)
        test = period & self.known
        split = Split(
            at=instant_from_us(start),
            until=instant_from_us(end),
            train_until=instant_from_us(last),
            train=_rows(trains),
            test=_rows(test),
            purged=purged,
            untestable=int((period & ~self.known).sum()),
            _labels=None if labels is None else labels.filter(pl.Series(trains)),
        )
        _check(split, int(before.sum()))
        return split

    def _floor(self, start: int) -> int:
        if self.embargo == LOOKBACK:
            return lookback_floor(self.views, start)
        return start - (self.embargo if isinstance(self.embargo, int) else 0)

    def _labels_at(
        self, start: int, before: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.bool_], Ints, Ints, pl.DataFrame | None]:
        """Whether there is a label, its event and arrival, as trained at `start`; and the labels if they depend on it."""
        label = self.dataset.label if isinstance(self.dataset, Dataset) else None
        if label is None or label.release != "as_known":
            return self.known, self.event, self.arrival, None
        rows = pl.Series(before)
        # Labels depend on T: those of the rows before it are looked up again, as they were known at T.
        spine = Spine(self.dataset.frame.filter(rows), self.t[before])
        as_of = min(start, instant_us(datetime.fromisoformat(self.dataset.manifest["as_of"]), "as_of"))
        found = evaluate_label(label, spine, self.dataset.views, as_of_us=as_of, position=_label_position(self.dataset))
        place = np.cumsum(before) - 1
        labels = (
            found[pl.Series(np.where(before, place, 0))] if found.height else self.dataset.frame.select(label.columns)
        )
        value, event, arrival = label.columns
        known = labels[value].is_not_null().to_numpy() & before
        return known, _micros(labels, event)[0], _micros(labels, arrival)[0], labels


def _label_position(dataset: Dataset) -> int | None:
    """The log position at which the data set read its label."""
    described = dataset.manifest["definitions"]["label"]
    return dataset.manifest["inputs"][described.get("view", "@label")]["position"]  # type: ignore[no-any-return]


def _check(split: Split, earlier: int) -> None:
    if not len(split.train):
        struck = ", ".join(f"{count} by {name}" for name, count in split.purged.items() if count).replace(
            " by", " struck by", 1
        )
        raise DefinitionError(
            f"the split at {split.at.isoformat()} has nothing to train on: "
            + (f"of {earlier} rows before it {struck}" if earlier else "no row is before it"),
            "split later" + (', or shorten the embargo, e.g. embargo="1h".' if split.purged["embargo"] else "."),
        )
    if not len(split.test):
        raise DefinitionError(
            f"the split at {split.at.isoformat()} has nothing to test on: no row with a label is in "
            f"[{split.at.isoformat()}, {split.until.isoformat()})",
            "split earlier, or test on a longer period.",
        )


def _equal_parts(t: Ints, n_splits: int) -> list[int]:
    """Where test periods start, and where the last one ends: each at the first row of its part.

    Raises:
        DefinitionError: If there are too few prediction times.
    """
    first, end = int(t.min()), int(t.max()) + 1
    marks = [first + (end - first) * part // (n_splits + 1) for part in range(1, n_splits + 1)]
    instants = np.unique(t)
    starts = [int(instants[np.searchsorted(instants, mark)]) for mark in marks]
    if len(set(starts)) < n_splits or starts[0] == first:
        raise DefinitionError(
            f"{len(instants)} distinct prediction times do not make {n_splits} test periods and something to train on",
            "ask for fewer splits.",
        )
    return [*starts, end]


def _periods(t: Ints, n_splits: int, test_size: DurationLike) -> list[int]:
    """Where test periods of one length start, the last one at the first row that lets it end after the last row.

    Raises:
        DefinitionError: If they do not fit.
    """
    length = parse_duration(test_size, "test_size").total_us
    last_start = int(t[t > t.max() - length].min())
    starts = [last_start - (n_splits - part) * length for part in range(1, n_splits + 1)]
    if starts[0] <= t.min():
        raise DefinitionError(
            f"{n_splits} test periods of {parse_duration(test_size, 'test_size').text} leave nothing to train on: rows reach from "
            f"{instant_from_us(int(t.min())).isoformat()} to {instant_from_us(int(t.max())).isoformat()}",
            "ask for fewer splits, or a shorter test_size.",
        )
    return [*starts, last_start + length]


def _frame(dataset: Dataset | FrameLike) -> pl.DataFrame:
    return dataset.frame if isinstance(dataset, Dataset) else as_lazy(dataset, _PLACE).collect()


def _read(frame: pl.DataFrame, prediction_time: str, label: str) -> tuple[Ints, npt.NDArray[np.bool_], Ints, Ints]:
    for name in (prediction_time, label, f"{label}_event_time", f"{label}_arrival_time"):
        if name not in frame.columns:
            argument = {prediction_time: "prediction_time", label: "label"}.get(name)
            raise MissingColumnError(name, _PLACE, frame.columns, argument=argument)
    if not frame.height:
        raise DefinitionError(f"{_PLACE} has no rows", "build it over a spine that has some.")
    t, none = _micros(frame, prediction_time, up=False)
    if none.any():
        raise NullTimeError(
            f"{_PLACE}: {prediction_time!r} is null in {none.sum()} rows, first in row {none.argmax()}",
            f'drop them, e.g. frame.drop_nulls("{prediction_time}").',
        )
    event, no_event = _micros(frame, f"{label}_event_time")
    arrival, no_arrival = _micros(frame, f"{label}_arrival_time")
    return t, frame[label].is_not_null().to_numpy() & ~no_event & ~no_arrival, event, arrival


def _micros(frame: pl.DataFrame, name: str, *, up: bool = True) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """A column's instants in microseconds UTC, nanoseconds rounded `up` or down (R15), and where they are null.

    Raises:
        ColumnTypeError: If it holds no instants.
        NaiveTimeError: If they have no zone.
    """
    series = frame[name]
    if not isinstance(series.dtype, pl.Datetime):
        raise ColumnTypeError(
            f"{_PLACE}: {name!r} is {series.dtype}, not an instant",
            'it must be Datetime with a zone, e.g. pl.Datetime("us", "UTC").',
        )
    if series.dtype.time_zone is None:
        raise NaiveTimeError(name, _PLACE)
    given = np.ascontiguousarray(series.to_physical().fill_null(0).to_numpy(), np.int64)
    unit = series.dtype.time_unit
    instants = given if unit == "us" else given * 1000 if unit == "ms" else -(-given // 1000) if up else given // 1000
    return instants, series.is_null().to_numpy()


def _rows(mask: npt.NDArray[np.bool_]) -> pl.Series:
    return pl.Series("row", np.flatnonzero(mask), dtype=pl.UInt32)
