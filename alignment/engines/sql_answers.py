"""Columns made of what DuckDB found: values gathered, age limits applied after the pick, and why a value is null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import polars as pl

from alignment.bounds import age_floor
from alignment.engines.local import Answered
from alignment.engines.sql_questions import Found
from alignment.engines.sql_rows import Values
from alignment.engines.sql_rules import ALWAYS
from alignment.features import Age, Feature, Forecast, Latest, SequenceOf, Window
from alignment.spine import Spine
from alignment.status import STATUS
from alignment.views import FeatureView


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes columns of what was found.

    Attributes:
        view: What was asked.
        spine: By whom and when.
        values: Where values are gathered from.
        status: Whether to say why values are null.
    """

    view: FeatureView
    spine: Spine
    values: Values
    status: bool

    def read(self, feature: Feature, found: Found) -> Answered:
        """The column of one feature."""
        if isinstance(feature, Window):
            values = self._window(feature, found)
            return self._answered(values, self._window_status(found.frame, values.is_null()))
        if isinstance(feature, SequenceOf):
            return self._answered(self._sequence(feature, found), _status(found.frame, pl.lit(value=False)))
        frame = found.frame
        if isinstance(feature, Age):
            age = (pl.Series(self.spine.t) - frame[feature.of.removesuffix("_time")]).cast(pl.Duration("us"))
            return self._answered(age, _status(frame, pl.lit(value=False)))
        expired = self._expired(feature, frame)
        values = self._take(feature, frame["row"].set(expired, None))
        status = _status(frame, values.is_null(), expired=expired, older=self._before_column(feature, frame))
        return self._answered(values, status)

    def _answered(self, values: pl.Series, status: pl.Series) -> Answered:
        return Answered(values, status if self.status else None)

    def _take(self, feature: Feature, rows: pl.Series) -> pl.Series:
        return self.values.take(cast("str", feature.column), rows)

    def _expired(self, feature: Feature, frame: pl.DataFrame) -> pl.Series:
        """Where the picked row is older than a limit allows; exactly the limit is kept (R7)."""
        expired = pl.Series([False]).new_from_index(0, frame.height)
        if isinstance(feature, Latest | Forecast):
            for limit, column in zip(self.view.limits(feature), ("event", "arrival", "issue"), strict=True):
                if limit is not None:
                    floor = pl.Series(age_floor(limit, self.spine.t, self.view.zone))
                    expired |= (frame[column] < floor).fill_null(value=False)
        return expired

    def _before_column(self, feature: Feature, frame: pl.DataFrame) -> pl.Series:
        """Where the picked row is older than the column it is asked for (R20)."""
        source = self.view.observations.source
        since = None if source is None or feature.column is None else source.column_since().get(feature.column)
        return (frame["sequence"] < (ALWAYS if since is None else since)).fill_null(value=False)

    def _sequence(self, feature: SequenceOf, found: Found) -> pl.Series:
        flat = self._take(feature, cast("pl.Series", found.chosen))
        question = pl.int_range(pl.len()) // feature.length
        lists = flat.to_frame("slot").group_by(question.alias("question"), maintain_order=True).agg("slot")
        return lists["slot"].list.to_array(feature.length)

    def _window(self, feature: Window, found: Found) -> pl.Series:
        value = found.frame["value"]
        if feature.aggregate == "count":
            return value.fill_null(0).cast(pl.Int64)
        if feature.aggregate in ("first", "last"):
            nan = (value < 0).fill_null(value=False)
            rows = value.set(nan, None)
            values = self._take(feature, rows)
            return values.set(nan, float("nan")) if nan.any() else values
        kind = self.view.observations.schema[cast("str", feature.column)]
        if feature.aggregate in ("min", "max"):
            return value.cast(kind)
        return value.cast(pl.Int64 if feature.aggregate == "sum" and not kind.is_float() else pl.Float64)

    def _window_status(self, frame: pl.DataFrame, is_null: pl.Series) -> pl.Series:
        """`present` needs a value in the window, and that something came of it."""
        return _status(frame, is_null | (frame["count"].fill_null(0) == 0))


def _status(
    frame: pl.DataFrame,
    is_null: pl.Series | pl.Expr,
    *,
    expired: pl.Series | None = None,
    older: pl.Series | None = None,
) -> pl.Series:
    """Why a value is null (R20): an event was there or not, was too old, or had no value."""
    words = (
        pl.when(pl.col("some_current") & (pl.lit(value=False) if expired is None else expired))
        .then(pl.lit("expired"))
        .when(pl.lit(value=False) if older is None else older)
        .then(pl.lit("missing"))
        .when(pl.col("some_current") & is_null)
        .then(pl.lit("null"))
        .when("some_current")
        .then(pl.lit("present"))
        .when("some_withdrawn")
        .then(pl.lit("retracted"))
        .otherwise(pl.lit("missing"))
    )
    return frame.select(words.cast(STATUS)).to_series()
