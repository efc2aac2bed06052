"""Our views as objects of Feast: declared once, visible in Feast's registry and UI.

A feature becomes a field whose type is what it evaluates to. What Feast has no word for travels in tags: the definition of
the view as JSON, from which both plugins evaluate it, and the same in words for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from feast import Entity, FeatureView, Field

import alignment as al
from alignment.definitions import describe_view
from alignment.features import Age, Feature, Forecast, Lag, Latest, SequenceOf, Window
from ingestion import ObservationLog
from serving.errors import OptionError
from serving.feast_support.declared import DEFINITION
from serving.feast_support.sources import LogSource
from serving.feast_support.types import feast_type

if TYPE_CHECKING:
    from feast.types import FeastType

    from alignment.durations import Duration
    from ingestion.providers import Provider

_AGES: Final = {"event_time": "event", "arrival_time": "arrival", "issue_time": "issue"}


def feast_objects(
    views: al.FeatureView | Iterable[al.FeatureView],
    *,
    root: str | None = None,
    providers: Mapping[str, Provider] | None = None,
    owner: str = "",
) -> list[Entity | LogSource | FeatureView]:
    """Everything that Feast needs to know of some views: what `FeatureStore.apply` takes.

    Args:
        views: Views over logs. Views of one entity or provider share its Feast entity or source.
        root: Where the logs are, as Feast's registry is to say it; seen from the feature repository if relative. Default: where
            they were opened.
        providers: Name to declaration (`ingestion.providers.load_providers`), for how and when rows arrive, in words.
        owner: Who answers for them.

    Returns:
        Entities, sources, feature views.

    Raises:
        OptionError: If a view is not over a log, or a feature has a type that Feast lacks.
    """
    entities: dict[str, Entity] = {}
    sources: dict[str, LogSource] = {}
    found: list[FeatureView] = []
    for view in [views] if isinstance(views, al.FeatureView) else views:
        log = _log(view)
        if log.provider not in sources:
            sources[log.provider] = _source(log, root or log.root, (providers or {}).get(log.provider), owner)
        for name, dtype in _entity_types(view).items():
            entities.setdefault(name, Entity(name=name, value_type=dtype.to_value_type(), owner=owner))
        mine = [entities[name] for name in view.spine_entities]
        provider = (providers or {}).get(log.provider)
        found.append(
            feast_view(view, source=sources[log.provider], entities=mine, provider=provider, owner=owner),
        )
    return [*entities.values(), *sources.values(), *found]


def feast_view(
    view: al.FeatureView,
    *,
    source: LogSource,
    entities: Sequence[Entity],
    provider: Provider | None = None,
    description: str = "",
    owner: str = "",
    tags: Mapping[str, str] | None = None,
) -> FeatureView:
    """One of our views as a Feast view, of the same name.

    Feast's `ttl` is the view's `max_event_age`, for people: ages are judged by the definition, offline and online alike.

    Args:
        view: The view. What it observes is needed for its columns only; rows are read from `source`.
        source: Its provider's log.
        entities: Feast's entities, by the names that the view's entities have in the spine.
        provider: The provider's declaration, for how and when its rows arrive, in words.
        description: For people; default the provider's.
        owner: Who answers for it.
        tags: More tags.

    Raises:
        OptionError: If an entity is missing, or a feature has a type that Feast lacks.

    Example:
        >>> import polars as pl, alignment as al
        >>> from feast import Entity, ValueType
        >>> at = pl.Datetime("us", "UTC")
        >>> rows = pl.LazyFrame(schema={"site": pl.String, "event_time": at, "arrival_time": at, "temp": pl.Float64})
        >>> weather = al.FeatureView("weather", ["site"], rows, [al.window("temp", "mean", "1h")], max_event_age="2h")
        >>> found = feast_view(
        ...     weather,
        ...     source=LogSource(root="logs", provider="station"),
        ...     entities=[Entity(name="site", value_type=ValueType.STRING)],
        ... )
        >>> [(field.name, str(field.dtype), field.tags["window"]) for field in found.features]
        [('temp_mean_1h', 'Float64', 'mean of temp over the last 1h')]
        >>> found.ttl
        datetime.timedelta(seconds=7200)
    """
    names = [entity.join_key for entity in entities]
    if sorted(names) != sorted(view.spine_entities):
        raise OptionError(
            f"view {view.name!r} has the entities {view.spine_entities}, and Feast's are {names}",
            "pass a Feast entity with that join key for each.",
        )
    types = _feature_types(view)
    schema = [Field(name=name, dtype=dtype) for name, dtype in _entity_types(view).items()]
    schema += [
        Field(name=feature.name, dtype=types[feature.name], tags=_field_tags(view, feature))
        for feature in view.features
    ]
    age = view.max_event_age
    return FeatureView(
        name=view.name,
        entities=list(entities),
        source=source,
        schema=schema,
        ttl=timedelta(microseconds=age.total_us) if age is not None else timedelta(0),
        online=True,
        description=description or (provider.description if provider and provider.description else ""),
        owner=owner,
        tags={**_view_tags(view, source, provider), **(tags or {})},
    )


def _source(log: ObservationLog, root: str, provider: Provider | None, owner: str) -> LogSource:
    """A provider's log, described for those who see it in Feast's UI, where it is a custom source like any other."""
    told = f"observation log of provider {log.provider} in {root}, by event_time and arrival_time"
    if provider is not None and provider.description:
        told = f"{provider.description}; {told}"
    return LogSource(root=root, provider=log.provider, description=told, owner=owner)


def _log(view: al.FeatureView) -> ObservationLog:
    source: object = view.observations.source
    if not isinstance(source, ObservationLog):
        raise OptionError(
            f"view {view.name!r} is not over a log, and Feast needs to know where its rows are",
            "open one: observations=ingestion.open_log(root, provider); or use feast_view(view, source=LogSource(...)).",
        )
    return source


# what the registry says of types


def _entity_types(view: al.FeatureView) -> dict[str, FeastType]:
    schema = view.observations.schema
    return {
        spine: feast_type(schema[observed])
        for spine, observed in zip(view.spine_entities, view.observations.entities, strict=True)
    }


def _feature_types(view: al.FeatureView) -> dict[str, FeastType]:
    """What each feature evaluates to, found by evaluating them on no rows."""
    seen = view.observations
    rows = pl.LazyFrame(schema={name: dtype for name, dtype in seen.schema.items() if name not in seen.derive})
    empty = al.FeatureView(
        view.name, None, seen.but(frame=rows), view.features, zone=view.zone, entity_map=view.entity_map
    )
    keys = {
        spine: view.observations.schema[observed]
        for spine, observed in zip(view.spine_entities, view.observations.entities, strict=True)
    }
    spine = pl.DataFrame(schema={**keys, "prediction_time": pl.Datetime("us", "UTC")})
    schema = al.point_in_time_join(spine, [empty]).schema
    return {
        feature.name: feast_type(schema[view.column_name(feature)], padded=isinstance(feature, SequenceOf))
        for feature in view.features
    }


# the same in words


def _view_tags(view: al.FeatureView, source: LogSource, provider: Provider | None) -> dict[str, str]:
    told = {
        DEFINITION: json.dumps(describe_view(view), sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        "asknown.provider": source.provider,
        "asknown.kind": view.kind,
        "asknown.arrivals": _arrivals(view, provider),
    }
    for name in ("max_event_age", "max_arrival_age", "max_issue_age"):
        limit: Duration | None = getattr(view, name)
        if limit is not None:
            told[f"asknown.{name}"] = limit.text
    if view.zone is not None:
        told["asknown.zone"] = view.zone
    rule = _delay(view) or (_history(provider) if provider is not None else None)
    if rule is not None:
        told["asknown.delay_rule"] = rule
    if provider is not None:
        for name in ("cadence", "expected_delay", "down_after"):
            value = getattr(provider, name)
            if value is not None:
                told[f"asknown.{name}"] = str(value)
    return told


def _arrivals(view: al.FeatureView, provider: Provider | None) -> str:
    """How arrivals are known."""
    if view.observations.delay is not None:
        return "as stamped; where unknown, by the delay rule"
    margin = provider.publish_margin if provider is not None else None
    log: object = view.observations.source
    if margin is None and isinstance(log, ObservationLog):
        margin = log.definition.publish_margin
    return "stamped when a batch is committed" + (f", {margin} ahead of the clock" if margin is not None else "")


def _delay(view: al.FeatureView) -> str | None:
    rule = view.observations.delay
    if rule is None:
        return None
    if isinstance(rule, al.FixedDelay):
        return f"{rule.duration.text} after the event"
    if isinstance(rule, al.PublishSchedule):
        return f"published at {rule.at} {rule.zone}, {rule.days} days after"
    return repr(rule) if isinstance(rule, al.EmpiricalDelay) else type(rule).__name__


def _history(provider: Provider) -> str | None:
    if provider.history is None:
        return None
    if isinstance(provider.history, str):
        return f"history: {provider.history} after the event"
    return f"history: published at {provider.history.at} {provider.history.zone}, {provider.history.days} days after"


def _field_tags(view: al.FeatureView, feature: Feature) -> dict[str, str]:
    told = _feature_tags(feature)
    if feature.column is not None:
        told["column"] = feature.column
        if feature.column in view.observations.derive:
            told["derived"] = "row by row; see the view's definition"
    if isinstance(feature, Latest | Forecast):
        limits = zip(_AGES.values(), view.limits(feature), strict=True)
        shown = ", ".join(f"{of} {limit.text}" for of, limit in limits if limit is not None)
        if shown:
            told["age limits"] = shown
    return told


def _feature_tags(feature: Feature) -> dict[str, Any]:
    """What is particular to each kind of feature.

    Raises:
        OptionError: If the kind is unknown.
    """
    match feature:
        case Latest():
            return {"feature": "latest", "nulls": "skipped" if feature.skip_null else "are values"}
        case Lag():
            within = f", within {feature.tolerance.text}" if feature.tolerance is not None else ""
            return {"feature": "lag", "lag": f"{feature.column} as of {feature.by.text} before{within}"}
        case Window():
            end = f" that end {feature.offset.text} before" if feature.offset.total_us else ""
            return {
                "feature": "window",
                "window": f"{feature.aggregate} of {feature.column} over the last {feature.length.text}{end}",
            }
        case Forecast():
            notice = f", known {feature.min_notice.text} before" if feature.min_notice is not None else ""
            return {"feature": "forecast", "lead": f"{feature.column} for {feature.lead.text} ahead{notice}"}
        case SequenceOf():
            step = f", one per {feature.step.text}" if feature.step is not None else ""
            span = f", within {feature.max_span.text}" if feature.max_span is not None else ""
            return {"feature": "sequence", "sequence": f"the last {feature.length} of {feature.column}{step}{span}"}
        case Age():
            return {"feature": "age", "age": f"seconds since the newest row's {_AGES[feature.of]}"}
    raise OptionError(f"{feature!r} is no feature that can be told to Feast", "use those of alignment.")
