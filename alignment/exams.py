"""What a model is examined on: rows that train it before T, rows that test it from T on, labels that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from alignment.baseline import Numbers, numbers
from alignment.dataset import Dataset
from alignment.durations import DurationLike
from alignment.errors import DefinitionError, LabelError
from alignment.splits import LOOKBACK, split_at

TEST_SHARE = 0.3
"""Of the labelled rows, how many are tested if no T is given: the last ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """Rows of a data set that train, rows that test, and what they are to say.

    Attributes:
        at: T: the instant at which the model is trained.
        train: Row numbers of the data set, ascending; all have a finite label.
        test: Row numbers too.
        target: Labels of the training rows, as known at T; shape (training rows,).
        truth: Labels of the test rows; shape (test rows,).
        purged: Rows before T that do not train, by rule; see `Split`.
    """

    at: datetime
    train: pl.Series
    test: pl.Series
    target: Numbers
    truth: Numbers
    purged: Mapping[str, int]

    @property
    def note(self) -> str:
        """How many rows train and test, in a sentence."""
        struck = ", ".join(f"{count:,} by {name}" for name, count in self.purged.items() if count)
        sizes = f"{len(self.train):,} rows train and {len(self.test):,} are tested"
        return sizes + (f"; not trained on: {struck}" if struck else "")


def exam_of(
    dataset: Dataset, label: str, *, test_from: datetime | None = None, embargo: DurationLike | None = LOOKBACK
) -> Exam:
    """The rows that train and test a model; see `split_at`.

    Args:
        dataset: What `build_dataset` returned.
        label: The label's column.
        test_from: T; None leaves the last three tenths of the labelled rows for the test.
        embargo: See `time_splits`.

    Returns:
        The exam.

    Raises:
        LabelError: If the label is no number, or nowhere a finite one.
        DefinitionError: If nothing is left to train or test on.
        NaiveTimeError: If `test_from` has no zone.
    """
    kind = dataset.frame.schema[label]
    if not (kind.is_numeric() or kind == pl.Boolean):
        raise LabelError(f"the label is {kind}, not a number", "label what a number can say.")
    split = split_at(dataset, test_from or _default_start(dataset, label), embargo=embargo)
    target = numbers(split.train_frame(dataset)[label])
    truth = numbers(dataset.frame[label][split.test])
    trains, tests = np.isfinite(target), np.isfinite(truth)
    if not (trains.any() and tests.any()):
        raise LabelError("the labels are not finite")
    return Exam(
        split.at,
        split.train.filter(pl.Series(trains)),
        split.test.filter(pl.Series(tests)),
        target[trains],
        truth[tests],
        split.purged,
    )


def _default_start(dataset: Dataset, label: str) -> datetime:
    """The prediction time from which the last rows with a label are tested.

    Raises:
        DefinitionError: If there is no label.
    """
    labelled = dataset.frame.filter(pl.col(label).is_not_null())
    moments = labelled[str(dataset.manifest["prediction_time"])].sort()
    if not len(moments):
        raise DefinitionError("no row has a label")
    return moments[min(len(moments) - 1, round(len(moments) * (1 - TEST_SHARE)))]  # type: ignore[no-any-return]
