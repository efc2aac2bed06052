"""A view's features as known at an instant, beside those at another: what `point_in_time_join` gives, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

import alignment as al
from serving.pages.plain import value_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_AGES = {"event_age": al.event_age, "arrival_age": al.arrival_age, "issue_age": al.issue_age}
_WORDS = {
    "event_age": "since the newest known event",
    "arrival_age": "since it arrived",
    "issue_age": "since its forecast was issued",
}


def vector(view: al.FeatureView, entity: Mapping[str, Any], t: datetime, was: datetime) -> dict[str, Any]:
    """The features of one entity at t, and how they differ from those at another instant.

    Args:
        view: The view.
        entity: Entity column to value, as the spine calls them.
        t: The prediction time.
        was: The instant to compare with.

    Returns:
        `provisional` and `features`: each with `feature`, `name`, `value`, `text`, `status`, `was` (its text there), `was_status`
        and `changed`; then `ages` of the row that `latest` over all columns picks, in the same form,
        called `@event_age` and so on.

    Raises:
        AlignmentError: What the join refuses.
    """
    spine = _spine(view, entity, [was, t])
    before, now = al.point_in_time_join(spine, [view], status=True).iter_rows(named=True)
    features = [_cell(before, now, view.column_name(one), one.name) for one in view.features]
    known = [name for name in _AGES if name != "issue_age" or view.kind == "forecast"]
    watch = al.FeatureView(
        view.name,
        observations=view.observations,
        features=[_AGES[name]() for name in known],
        entity_map=view.entity_map,
    )
    before_ages, now_ages = al.point_in_time_join(spine, [watch], status=True).iter_rows(named=True)
    ages = [
        _cell(before_ages, now_ages, f"{view.name}__{name}", _WORDS[name]) | {"feature": f"@{name}"} for name in known
    ]
    return {"provisional": bool(now["provisional"]), "features": features, "ages": ages}


def _spine(view: al.FeatureView, entity: Mapping[str, Any], instants: list[datetime]) -> pl.DataFrame:
    columns = {
        name: pl.Series(name, [entity[name]] * len(instants), view.observations.schema[observed])
        for name, observed in zip(view.spine_entities, view.observations.entities, strict=True)
    }
    return pl.DataFrame({**columns, al.PREDICTION_TIME: pl.Series(instants, dtype=pl.Datetime("us", "UTC"))})


def _cell(before: Mapping[str, Any], now: Mapping[str, Any], column: str, name: str) -> dict[str, Any]:
    value, old = now[column], before[column]
    status, old_status = now[f"{column}__status"], before[f"{column}__status"]
    return {
        "feature": column,
        "name": name,
        "value": value,
        "text": value_text(value),
        "status": status,
        "was": value_text(old),
        "was_status": old_status,
        "changed": status != old_status or not _same(value, old),
    }


def _same(value: Any, old: Any) -> bool:
    """Whether two values are one, NaN being the same as NaN."""
    if isinstance(value, list) and isinstance(old, list):
        return len(value) == len(old) and all(map(_same, value, old))
    return bool(value == old) or (value is not None and old is not None and value != value and old != old)  # noqa: PLR0124
