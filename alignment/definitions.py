"""Declarations as plain data: what a manifest records, and from what a data set is rebuilt."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from alignment.delays import DelayRule, FixedDelay, PublishSchedule, ShiftedDelay
from alignment.durations import Duration, parse_duration
from alignment.empirical_delay import EmpiricalDelay
from alignment.errors import DatasetError
from alignment.features import Age, Feature, Forecast, Lag, Latest, SequenceOf, Window
from alignment.labels import Label
from alignment.observations import FrameLike, Observations
from alignment.outages import Outage
from alignment.services import Constant, FeatureService, Variant, constant
from alignment.views import FeatureView

_FEATURES: dict[str, type[Feature]] = {
    "latest": Latest,
    "lag": Lag,
    "window": Window,
    "forecast": Forecast,
    "sequence": SequenceOf,
    "age": Age,
}
_KINDS = {cls: kind for kind, cls in _FEATURES.items()}
_COLUMNS = ("event_time", "arrival_time", "issue_time", "is_retraction", "log_sequence")


def describe_feature(feature: Feature) -> dict[str, Any]:
    """A feature as plain data; durations are texts."""
    found: dict[str, Any] = {"feature": _KINDS[type(feature)]}
    for item in dataclasses.fields(feature):
        value = getattr(feature, item.name)
        if value is not None:
            found[item.name] = value.text if isinstance(value, Duration) else value
    return found


def read_feature(described: Mapping[str, Any]) -> Feature:
    """The feature that `describe_feature` described.

    Raises:
        DatasetError: If its kind is unknown.
    """
    kind = described["feature"]
    if kind not in _FEATURES:
        raise DatasetError(
            f"the manifest has a feature of kind {kind!r}, which this version does not know", "use a newer asknown."
        )
    cls = _FEATURES[kind]
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        value = described.get(item.name)
        if isinstance(value, str) and "Duration" in str(item.type):
            value = parse_duration(value, item.name, allow_zero=True, allow_negative=True)
        values[item.name] = value
    if cls is Latest:
        values["skip_null"] = bool(values["skip_null"])
    return cls(**values)


def describe_observations(rows: Observations) -> dict[str, Any]:
    """How observations are read, without the rows."""
    found: dict[str, Any] = {
        "entities": rows.entities,
        "kind": rows.kind,
        "clock_tolerance": rows.tolerance.text,
        "on_tie": rows.on_tie,
    }
    found |= {name: getattr(rows, name) for name in _COLUMNS if getattr(rows, name) != name}
    if rows.key:
        found["key"] = rows.key
    if rows.delay is not None:
        found["delay"] = describe_delay(rows.delay)
    if rows.date_zone is not None:
        found |= {"date_zone": rows.date_zone, "date_means": rows.date_means}
    if rows.derive:
        found["derive"] = {name: _serialize(expression) for name, expression in rows.derive.items()}
    return found


def read_observations(described: Mapping[str, Any], frame: FrameLike) -> Observations:
    """Observations read from `frame` the way that `describe_observations` described."""
    options = dict(described)
    if "delay" in options:
        options["delay"] = read_delay(options["delay"])
    if "derive" in options:
        options["derive"] = {
            name: pl.Expr.deserialize(io.StringIO(text), format="json") for name, text in options["derive"].items()
        }
    return Observations(frame, options.pop("entities"), options.pop("kind"), **options)


def describe_view(view: FeatureView) -> dict[str, Any]:
    """A view as plain data, without its rows."""
    found: dict[str, Any] = {
        "name": view.name,
        "observations": describe_observations(view.observations),
        "features": [describe_feature(feature) for feature in view.features],
    }
    for name in ("max_event_age", "max_arrival_age", "max_issue_age"):
        limit: Duration | None = getattr(view, name)
        if limit is not None:
            found[name] = limit.text
    if view.zone is not None:
        found["zone"] = view.zone
    if view.entity_map:
        found["entity_map"] = view.entity_map
    return found


def read_view(described: Mapping[str, Any], frame: FrameLike) -> FeatureView:
    """The view that `describe_view` described, over `frame`."""
    options = {
        name: described[name]
        for name in ("max_event_age", "max_arrival_age", "max_issue_age", "zone", "entity_map")
        if name in described
    }
    return FeatureView(
        described["name"],
        None,
        read_observations(described["observations"], frame),
        [read_feature(feature) for feature in described["features"]],
        **options,
    )


def describe_service(service: FeatureService) -> dict[str, Any]:
    """A service as plain data."""
    found: dict[str, Any] = {"name": service.name, "features": list(service.features)}
    if service.fallbacks:
        found["fallbacks"] = {
            name: [{"constant": _plain(one.value)} if isinstance(one, Constant) else {"feature": one} for one in chain]
            for name, chain in service.fallbacks.items()
        }
    if service.down_after:
        found["down_after"] = _texts(service.down_after)
    if service.variants:
        found["variants"] = [
            {"name": variant.name}
            | {name: list(given) for name in ("needs", "features") if (given := getattr(variant, name)) is not None}
            | {name: _texts(ages) for name in ("max_age", "max_event_age") if (ages := getattr(variant, name))}
            for variant in service.variants
        ]
    if service.skip_null:
        found["skip_null"] = True
    return found


def read_service(described: Mapping[str, Any]) -> FeatureService:
    """The service that `describe_service` described."""
    fallbacks = {
        name: [constant(_unplain(one["constant"])) if "constant" in one else one["feature"] for one in chain]
        for name, chain in described.get("fallbacks", {}).items()
    }
    variants = [
        Variant(
            one["name"],
            needs=one.get("needs"),
            features=one.get("features"),
            max_age=_spans(one.get("max_age")),
            max_event_age=_spans(one.get("max_event_age")),
        )
        for one in described.get("variants", [])
    ]
    return FeatureService(
        described["name"],
        described["features"],
        fallbacks=fallbacks,
        down_after=_spans(described.get("down_after")),
        variants=variants,
        skip_null=described.get("skip_null", False),
    )


def _texts(durations: Mapping[str, Duration]) -> dict[str, str]:
    return {name: duration.text for name, duration in durations.items()}


def _spans(texts: Mapping[str, str] | None) -> str | Mapping[str, str] | None:
    """Durations by provider, or the one for all, which goes by the empty name."""
    return None if texts is None else texts.get("", texts)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return {"instant": value.isoformat()}
    return {"microseconds": value // timedelta(microseconds=1)} if isinstance(value, timedelta) else value


def _unplain(value: Any) -> Any:
    if isinstance(value, list):
        return [_unplain(one) for one in value]
    if isinstance(value, Mapping):
        if "instant" in value:
            return datetime.fromisoformat(value["instant"])
        return timedelta(microseconds=value["microseconds"])
    return value


def describe_label(label: Label) -> dict[str, Any]:
    """A label as plain data, without its rows."""
    found: dict[str, Any] = {
        "column": label.column,
        "horizon": label.horizon.text,
        "tolerance": label.tolerance.text,
        "release": label.release_text,
        "name": label.name,
    }
    if label.zone is not None:
        found["zone"] = label.zone
    return found


def definition_hash(definitions: Any) -> str:
    """SHA-256 of definitions as canonical JSON: the same for the same features, whatever the rows."""
    text = json.dumps(definitions, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _serialize(expression: pl.Expr) -> str:
    return expression.meta.serialize(format="json")


def describe_moves(
    outages: Iterable[Outage], delays: Mapping[str, DelayRule] | None, seed: int | None
) -> dict[str, Any]:
    """What moved arrivals as plain data; empty if nothing did."""
    found: dict[str, Any] = {}
    if told := [outage.to_dict() for outage in outages]:
        found["outages"] = told
    if delays:
        found["delays"] = {provider: describe_delay(rule) for provider, rule in delays.items()}
    return found | ({"seed": seed} if found and seed is not None else {})


def read_moves(described: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `transform_arrivals` that `describe_moves` described."""
    return {
        "outages": [Outage.from_dict(one) for one in described.get("outages", [])],
        "delays": {provider: read_delay(one) for provider, one in described.get("delays", {}).items()},
        "seed": described.get("seed"),
    }


def describe_delay(rule: DelayRule) -> dict[str, Any]:
    """A delay rule as plain data."""
    if isinstance(rule, FixedDelay):
        return {"rule": "fixed", "delay": rule.duration.text}
    if isinstance(rule, ShiftedDelay):
        return {"rule": "shifted", "by": rule.duration.text}
    if isinstance(rule, EmpiricalDelay):
        return rule.to_dict()
    if isinstance(rule, PublishSchedule):
        return {
            "rule": "publish_schedule",
            "at": rule.at,
            "zone": rule.zone,
            "days": rule.days,
            "weekdays": list(rule.weekdays),
            "holidays": [day.isoformat() for day in rule.holidays],
        } | ({"day_of": rule.day_of} if rule.day_of != "event" else {})
    return {"rule": type(rule).__qualname__}


def read_delay(described: Mapping[str, Any]) -> DelayRule:
    """The rule that `describe_delay` described.

    Raises:
        DatasetError: If it cannot be made again from what is said.
    """
    if described["rule"] == "fixed":
        return FixedDelay(described["delay"])
    if described["rule"] == "shifted":
        return ShiftedDelay(described["by"])
    if described["rule"] == "empirical":
        return EmpiricalDelay.from_dict(described)
    if described["rule"] == "publish_schedule":
        return PublishSchedule(
            described["at"],
            described["zone"],
            days=described["days"],
            weekdays=tuple(described["weekdays"]),
            holidays=tuple(date.fromisoformat(day) for day in described["holidays"]),
            day_of=described.get("day_of", "event"),
        )
    raise DatasetError(
        f"the manifest has a delay rule {described['rule']!r}, which cannot be made again from its name",
        "build the data set anew with the rule at hand.",
    )
