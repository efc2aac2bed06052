"""Why a feature has the value it has: which observations counted, which not, and why."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from alignment.definitions import describe_feature
from alignment.durations import Duration, instant_us, nearest_instant
from alignment.errors import FeatureError
from alignment.explain_reasons import Judge
from alignment.explain_report import ROW_COLUMNS, Explanation, FeatureExplanation, NaiveAnswer
from alignment.explain_rows import (
    EntityRows,
    entity_of,
    quarantined_rows,
    rows_of_entity,
    spine_of,
    unknown_entity,
    up_to,
)
from alignment.features import Feature, Forecast, Latest
from alignment.join import Positions, check_positions, check_views, point_in_time_join, position_of
from alignment.naive import naive_view, present_rows
from alignment.rows import ARRIVAL, checked
from alignment.spine import PREDICTION_TIME
from alignment.views import FeatureView

_AGES = {"event_age": "event_time", "arrival_age": "arrival_time", "issue_age": "issue_time"}
_LIMITS = ("max_event_age", "max_arrival_age", "max_issue_age")


def explain(
    view: FeatureView | Sequence[FeatureView],
    entity: Any,
    t: datetime,
    *,
    features: Sequence[str] | str | None = None,
    as_of: datetime | None = None,
    position: Positions | None = None,
) -> Explanation:
    """Which observations made the features of one entity at t, which did not, and why.

    Values and statuses are those of `point_in_time_join` at t. What was current and what was picked is asked of the same
    kernel; nothing is evaluated a second way.

    Args:
        view: A view, or several.
        entity: Whose features: a value, a tuple of values in the order of the entity columns, or a mapping of column to
            value; None for one series.
        t: The prediction time, with zone.
        features: Output columns, such as `weather__temp`, or feature names of the view; None for all.
        as_of: Pretend that nothing arrived later; an instant with zone.
        position: Log position to answer at, one for all views or by view name; None for everything.

    Returns:
        The explanation: text by `str()`, plain data by `to_dict()`, HTML by `to_html()`.

    Raises:
        ViewError: If there is no view, or a position fits none.
        FeatureError: If `features` names one that there is not, or none.
        DefinitionError: If `entity` has not as many values as columns, or an instant is none.
        NaiveTimeError: If `t`, `as_of` or an instant in `entity` has no zone.
        MissingColumnError: If `entity` lacks a column.
        KeyTypeError: If a value of `entity` cannot be one of its column's.
        AlignmentError: What the observations break; see `point_in_time_join`.

    Example:
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
        >>> found = explain(view, "a", at(11, 30))["weather__temp"]
        >>> found.value, found.status, found.unused_counts, found.naive.value
        (3.5, 'present', {'not_arrived': 1}, 4.0)
    """
    views = [view] if isinstance(view, FeatureView) else list(view)
    check_views(views)
    check_positions(views, position)
    instant_us(t, "t")
    moment = t.astimezone(UTC)
    limit = None
    if as_of is not None:
        instant_us(as_of, "as_of")
        limit = as_of.astimezone(UTC)
    asked = _asked_features(views, features)
    key = entity_of(list(asked), entity)
    found: list[FeatureExplanation] = []
    provisional = False
    notes: list[str] = []
    for one, wanted in asked.items():
        explained, unsettled = _explain_view(one, wanted, key, moment, limit, position_of(one, position))
        found += explained
        provisional = provisional or unsettled
        if not explained[0].rows.height and not explained[0].quarantined:
            notes += unknown_entity(one, key)
    moves = [move for one in asked for move in one.observations.moved_by]
    under = tuple(move for place, move in enumerate(moves) if move not in moves[:place])
    return Explanation(key, moment, limit, provisional, tuple(found), under, tuple(dict.fromkeys(notes)))


def _asked_features(
    views: Sequence[FeatureView], names: Sequence[str] | str | None
) -> dict[FeatureView, list[Feature]]:
    """The features that are asked about, by view, in declared order.

    Raises:
        FeatureError: If a name is no feature's, or there is none.
    """
    if names is None:
        return {view: list(view.features) for view in views}
    columns = [column for view in views for column in view.column_names]
    asked: Any = (names,) if isinstance(names, str) else names
    if not isinstance(asked, Iterable) or not (asked := list(asked)):
        raise FeatureError(
            f"features={names!r} names no feature", f"leave it out for all, or choose from {', '.join(columns)}."
        )
    known = {name for view in views for feature in view.features for name in (feature.name, view.column_name(feature))}
    for name in asked:
        if not isinstance(name, str) or name not in known:
            raise FeatureError(f"there is no feature {name!r}", f"choose from {', '.join(columns)}.")
    chosen = {
        view: [one for one in view.features if one.name in asked or view.column_name(one) in asked] for view in views
    }
    return {view: wanted for view, wanted in chosen.items() if wanted}


def _explain_view(
    view: FeatureView,
    features: list[Feature],
    entity: Mapping[str, Any],
    t: datetime,
    as_of: datetime | None,
    position: int | None,
) -> tuple[list[FeatureExplanation], bool]:
    """The explanations of a view's features, and whether they are provisional."""
    spine = spine_of(view, entity)
    held = rows_of_entity(view, features, spine, position)
    asked = spine.with_columns(pl.lit(t).dt.cast_time_unit("us").alias(PREDICTION_TIME))
    answers = point_in_time_join(asked, held.view, as_of=as_of, status=True, positions=held.position, threads=1)
    statuses = [answers[f"{view.column_name(feature)}__status"][0] for feature in features]
    as_of_us = None if as_of is None else instant_us(as_of, "as_of")
    judge = Judge(held.view, held.rows, instant_us(t, "t"), as_of_us, held.position)
    revision, revisions = judge.revisions()
    shown = held.shown.with_columns(revision.alias("revision"), revisions.alias("revisions"))
    shown = shown.select(*ROW_COLUMNS, *(_age(t, column).alias(name) for name, column in _AGES.items()))
    rows = _with_values(held, features, shown)
    naive = _naive_answers(held, features, asked, t, as_of, rows)
    until = t if as_of is None else min(t, as_of)
    names = ["provider", *ROW_COLUMNS, *_AGES, "value"]
    aside = quarantined_rows(view, spine, held.provider, held.position, until, names)
    found = [
        FeatureExplanation(
            feature=view.column_name(feature),
            view=view.name,
            provider=held.provider,
            kind=view.kind,
            declared=_declared(view, feature),
            value=answers[view.column_name(feature)][0],
            status=status,
            dtype=answers.schema[view.column_name(feature)],
            t=t,
            as_of=as_of,
            position=held.position,
            event_from=None if judged.event_from is None else nearest_instant(judged.event_from),
            event_until=nearest_instant(judged.event_until),
            rows=rows[feature.name],
            codes=judged.codes,
            by=judged.by,
            quarantined=aside,
            naive=other,
        )
        for feature, status, judged, other in zip(
            features, statuses, judge.judge(features, statuses), naive, strict=True
        )
    ]
    return found, bool(answers["provisional"][0])


def _naive_answers(
    held: EntityRows,
    features: list[Feature],
    asked: pl.DataFrame,
    t: datetime,
    as_of: datetime | None,
    shown: Mapping[str, pl.DataFrame],
) -> list[NaiveAnswer]:
    """What the same features are over a table in which every row was always there."""
    places = up_to(held)
    stored = held.rows.frame[places]
    latest: Any = stored[ARRIVAL].max()
    told_us: int | None = latest if as_of is None else instant_us(as_of, "as_of")
    read_us = instant_us(t, "t") if told_us is None else told_us
    lenient = copy.copy(held.view)  # the join has refused ties that count
    lenient.observations = held.view.observations.but(on_tie="last")
    view = naive_view(lenient, read_us, position=held.position, threads=1)
    kept = present_rows(lenient.observations, stored, read_us, position=held.position, threads=1)["row"].to_numpy()
    answers = point_in_time_join(asked, view, status=True, threads=1)
    statuses = [answers[f"{view.column_name(feature)}__status"][0] for feature in features]
    rows = checked(view.observations, view.columns_read)
    used = Judge(view, rows, instant_us(t, "t"), None, None).used(features, statuses)
    return [
        NaiveAnswer(
            answers[view.column_name(feature)][0],
            status,
            shown[feature.name][places[kept[one]]],
            None if told_us is None else nearest_instant(told_us),
        )
        for feature, status, one in zip(features, statuses, used, strict=True)
    ]


def _with_values(held: EntityRows, features: list[Feature], shown: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows with the values that each feature reads; ages read none."""
    columns = {feature.column for feature in features}
    made = {
        column: shown.with_columns(
            pl.lit(None).alias("value") if column is None else held.rows.column(column).alias("value")
        )
        for column in columns
    }
    return {feature.name: made[feature.column] for feature in features}


def _age(t: datetime, column: str) -> pl.Expr:
    return (pl.lit(t) - pl.col(column)).cast(pl.Duration("us"))


def _declared(view: FeatureView, feature: Feature) -> dict[str, Any]:
    """The declaration, with the age limits that are in force."""
    declared = describe_feature(feature)
    if isinstance(feature, Latest | Forecast):
        limits: tuple[Duration | None, ...] = view.limits(feature)
        declared |= {name: limit.text for name, limit in zip(_LIMITS, limits, strict=True) if limit is not None}
    return declared
