"""Models that can be trained here: the built-in ridge regression, or anything with scikit-learn's `fit` and `predict`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.baseline import Encoding, Numbers, encoding_of, fit_ridge
from alignment.errors import DefinitionError


@runtime_checkable
class Estimator(Protocol):
    """A model as scikit-learn has them."""

    def fit(self, X: Any, y: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """Learn from rows `X` (numbers, missing as NaN) to say `y`."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        """What is said for rows `X`; shape (rows,)."""


Model = Estimator | Callable[[], Estimator] | None
"""An unfitted estimator, what makes one, or None for the ridge regression."""


class Trained(Protocol):
    """A model that was trained, and is asked with the frame that holds its columns."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Feature columns that are not used, and why."""

    def predict(self, frame: pl.DataFrame) -> Numbers:
        """What the model says for each row; shape (rows,)."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An estimator and what it is given.

    Attributes:
        estimator: The model.
        encoding: How its columns become numbers.
        taught: Encoded columns that had a value in some training row; many models fail on others.
    """

    estimator: Estimator
    encoding: Encoding
    taught: npt.NDArray[np.bool_]

    @property
    def left_out(self) -> Mapping[str, str]:
        """Feature columns that are not used, and why."""
        return self.encoding.left_out

    def predict(self, frame: pl.DataFrame) -> Numbers:
        """What the model says for each row.

        Raises:
            DefinitionError: If it fails, or says no number for a row.
        """
        said = _ask(self.estimator, self.estimator.predict, _some(self.encoding.matrix(frame)[:, self.taught]))
        answers = np.asarray(said, dtype=np.float64).reshape(-1)
        if len(answers) != frame.height or not np.isfinite(answers).all():
            what = (
                f"{len(answers)} numbers"
                if len(answers) != frame.height
                else f"{(~np.isfinite(answers)).sum()} that are not finite"
            )
            raise DefinitionError(
                f"{_name(self.estimator)} was asked for {frame.height} rows and said {what}",
                "predict(X) must return a finite number per row.",
            )
        return answers


def train(model: Model, frame: pl.DataFrame, columns: Sequence[str], target: Numbers) -> Trained:
    """A model, trained anew.

    Args:
        model: None for the ridge regression; an unfitted estimator, of which a copy is trained; or what makes one: a class, a
            function. Its `X` is a matrix of numbers (see `encoding_of`: durations in seconds, a column for each frequent text),
            missing as NaN, in the order of `columns`, without those that have no value in any training row.
        frame: Training rows.
        columns: Feature columns.
        target: Finite; shape (rows,).

    Returns:
        The trained model.

    Raises:
        DefinitionError: If it is no model, or does not take the rows.

    Example:
        >>> rows = pl.DataFrame({"x": [0.0, 1.0, 2.0]})
        >>> class Mean:
        ...     def fit(self, X, y):
        ...         self.mean = y.mean()
        ...
        ...     def predict(self, X):
        ...         return np.full(len(X), self.mean)
        >>> train(Mean, rows, ["x"], np.array([1.0, 2.0, 6.0])).predict(rows).tolist()
        [3.0, 3.0, 3.0]
    """
    if model is None:
        return fit_ridge(frame, columns, target)
    estimator = _fresh(model)
    encoding = encoding_of(frame, columns)
    rows = encoding.matrix(frame)
    taught = np.asarray(~np.isnan(rows).all(axis=0), np.bool_)
    _ask(estimator, estimator.fit, _some(rows[:, taught]), target)
    return Fitted(estimator, encoding, taught)


def _some(rows: Numbers) -> Numbers:
    """Rows of at least one column: of nothing a model learns to say the same everywhere."""
    return rows if rows.shape[1] else np.zeros((len(rows), 1))


def name_of(model: Model) -> str:
    """What to call a model in a sentence."""
    return "a ridge regression" if model is None else _name(model)


def _fresh(model: Any) -> Estimator:
    """An unfitted copy; scikit-learn copies its own, so that what was learned stays behind.

    Raises:
        DefinitionError: If there is none to be had.
    """
    if not isinstance(model, type) and isinstance(model, Estimator):
        if hasattr(model, "get_params"):
            try:
                from sklearn.base import clone
            except ImportError:
                return copy.deepcopy(model)
            return clone(model)  # type: ignore[no-any-return]
        return copy.deepcopy(model)
    made = model() if callable(model) else model
    if not isinstance(made, Estimator):
        raise DefinitionError(
            f"model={model!r} is no model: {_name(made)} has no fit(X, y) and predict(X)",
            "pass an unfitted estimator such as sklearn.linear_model.Ridge(), or a function that makes one.",
        )
    return made


def _ask(estimator: Estimator, method: Callable[..., Any], *given: Any) -> Any:
    try:
        return method(*given)
    except ValueError as error:
        missing = np.isnan(given[0]).any()
        raise DefinitionError(
            f"{_name(estimator)} does not take the rows: {str(error).strip().partition(chr(10))[0]}",
            "features can be missing, and are NaN then: put an imputer in front, e.g. "
            "make_pipeline(SimpleImputer(), model)."
            if missing
            else "X has a row per question and a column per encoded feature.",
        ) from error


def _name(model: Any) -> str:
    return getattr(model, "__name__", None) or type(model).__name__
