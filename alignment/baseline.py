"""A simple baseline: ridge regression over standardised features, in closed form.

It is there to measure what a leak is worth, not to be good. The same rows give the same model: nothing is drawn, and
columns are taken in the order given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Numbers = npt.NDArray[np.float64]

MOST_CATEGORIES = 10
"""Of a text column, the values that get a column of their own."""
WIDEST_ARRAY = 64
"""Slots of an array column; wider ones are left out."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How feature columns become numbers; made by `encoding_of`.

    Attributes:
        columns: Feature columns that are used.
        left_out: Feature columns that are not, and why.
        categories: Of each text column, the values with a column of their own, the most frequent first.
    """

    columns: tuple[str, ...]
    left_out: Mapping[str, str]
    categories: Mapping[str, tuple[str, ...]]

    def matrix(self, frame: pl.DataFrame) -> Numbers:
        """The columns of `frame` as numbers, missing as NaN; shape (rows, encoded columns)."""
        found: list[Numbers] = []
        for name in self.columns:
            series = frame[name]
            if name in self.categories:
                texts = series.cast(pl.String)
                found += [
                    (texts == value).fill_null(value=False).to_numpy().astype(np.float64)
                    for value in self.categories[name]
                ]
            elif isinstance(series.dtype, pl.Array):
                found += [numbers(series.arr.get(slot)) for slot in range(series.dtype.size)]
            else:
                found.append(numbers(series))
        return np.column_stack(found) if found else np.empty((frame.height, 0))


def encoding_of(frame: pl.DataFrame, columns: Sequence[str]) -> Encoding:
    """How feature columns become numbers, as the training rows have them.

    Numbers, booleans and durations (in seconds) are used as they are, arrays of them slot by slot, texts as one column for
    each of the ten most frequent values; the rest is left out. Null, NaN and infinite are missing.

    Args:
        frame: Training rows.
        columns: Feature columns.

    Returns:
        The encoding.

    Example:
        >>> rows = pl.DataFrame({"age": [None, 1.5], "sky": ["clear", "clear"], "seen": [[1], [2]]})
        >>> encoding = encoding_of(rows, rows.columns)
        >>> encoding.matrix(rows).tolist(), dict(encoding.left_out)
        ([[nan, 1.0], [1.5, 1.0]], {'seen': 'List(Int64) is neither number nor text'})
    """
    left_out = {name: reason for name in columns if (reason := _unusable(frame.schema[name]))}
    used = tuple(name for name in columns if name not in left_out)
    return Encoding(
        used, left_out, {name: _most_frequent(frame[name]) for name in used if _is_text(frame.schema[name])}
    )


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted baseline.

    Attributes:
        encoding: How its columns become numbers.
        centre: Mean of each encoded column over the training rows.
        scale: Its standard deviation, 1 where it is constant.
        indicated: Encoded columns whose being null is a column of its own.
        weights: One per encoded column, then one per indicator.
        intercept: What is said where everything is at its mean.
    """

    encoding: Encoding
    centre: Numbers
    scale: Numbers
    indicated: npt.NDArray[np.bool_]
    weights: Numbers
    intercept: float

    @property
    def left_out(self) -> Mapping[str, str]:
        """Feature columns that are not used, and why."""
        return self.encoding.left_out

    def predict(self, frame: pl.DataFrame) -> Numbers:
        """What the model says for each row of `frame`; shape (rows,)."""
        encoded = self.encoding.matrix(frame)
        return _design(encoded, self.centre, self.scale, self.indicated) @ self.weights + self.intercept


def fit_ridge(frame: pl.DataFrame, columns: Sequence[str], target: Numbers, *, penalty: float = 1.0) -> Ridge:
    """The ridge regression of `target` on feature columns.

    Columns become numbers as `encoding_of` says. What is missing takes the training mean, and a column says where it was. The
    intercept is not penalised.

    Args:
        frame: Training rows.
        columns: Feature columns.
        target: Finite; shape (rows,).
        penalty: Weight of the squared weights, the columns being standardised.

    Returns:
        The fitted model.

    Example:
        >>> rows = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
        >>> model = fit_ridge(rows, ["x"], np.array([1.0, 3.0, 5.0, 7.0]), penalty=0.0)
        >>> model.predict(pl.DataFrame({"x": [10.0]})).round(6).tolist()
        [21.0]
    """
    encoding = encoding_of(frame, columns)
    encoded = encoding.matrix(frame)
    missing = np.isnan(encoded)
    counts = np.maximum(1, (~missing).sum(axis=0))
    centre = np.where(missing, 0.0, encoded).sum(axis=0) / counts
    spread = np.sqrt((np.where(missing, 0.0, encoded - centre) ** 2).sum(axis=0) / counts)
    scale = np.where(spread > 1e-12 * np.abs(centre), spread, 1.0)
    indicated = np.any(missing, axis=0)
    design = _design(encoded, centre, scale, indicated)
    middle, mean = design.mean(axis=0), float(target.mean())
    centred = design - middle
    normal = centred.T @ centred + penalty * np.eye(design.shape[1])
    weights = np.linalg.lstsq(normal, centred.T @ (target - mean), rcond=None)[0]
    return Ridge(encoding, centre, scale, indicated, weights, mean - float(middle @ weights))


@dataclass(frozen=True, slots=True)
class Score:
    """How far predictions are from the truth.

    Attributes:
        r2: 1 less the squared error over that of always saying the mean of the truth; NaN where the truth is constant.
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
    """

    r2: float
    mae: float
    rmse: float


def score(truth: Numbers, said: Numbers) -> Score:
    """The score of predictions.

    Example:
        >>> score(np.array([1.0, 3.0]), np.array([1.0, 2.0]))
        Score(r2=0.5, mae=0.5, rmse=0.7071067811865476)
    """
    error = said - truth
    variation = float(((truth - truth.mean()) ** 2).sum())
    r2 = 1.0 - float((error**2).sum()) / variation if variation > 0 else float("nan")
    return Score(r2, float(np.abs(error).mean()), float(np.sqrt((error**2).mean())))


def _design(encoded: Numbers, centre: Numbers, scale: Numbers, indicated: npt.NDArray[np.bool_]) -> Numbers:
    missing = np.isnan(encoded)
    return np.hstack([np.where(missing, 0.0, (encoded - centre) / scale), missing[:, indicated].astype(np.float64)])


def numbers(series: pl.Series) -> Numbers:
    """Values as numbers, durations in seconds; null and what is not finite as NaN."""
    if isinstance(series.dtype, pl.Duration):
        series = series.dt.cast_time_unit("us").to_physical() / 1e6
    values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _most_frequent(series: pl.Series) -> tuple[str, ...]:
    counts = pl.DataFrame({"value": series.cast(pl.String)}).drop_nulls().group_by("value").len()
    return tuple(counts.sort(["len", "value"], descending=[True, False])["value"].head(MOST_CATEGORIES))


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)


def _unusable(kind: pl.DataType) -> str:
    """Why a column of this type is not used; empty if it is."""
    if isinstance(kind, pl.Array):
        if kind.size > WIDEST_ARRAY:
            return f"an array of {kind.size} slots, more than {WIDEST_ARRAY}"
        return "" if len(kind.shape) == 1 and _is_number(kind.inner) else f"an array of {kind.inner}"
    return "" if _is_number(kind) or _is_text(kind) else f"{kind} is neither number nor text"


def _is_number(kind: object) -> bool:
    return isinstance(kind, pl.DataType) and (kind.is_numeric() or isinstance(kind, pl.Boolean | pl.Duration))
