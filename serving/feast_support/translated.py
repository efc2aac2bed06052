"""A Feast view as one of ours, so that one kernel answers for both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl
from feast.feature_view import DUMMY_ENTITY_ID

import alignment as al
from serving.errors import OptionError
from serving.feast_support.declared import declared_view, is_declared
from serving.feast_support.reading import Table, instant, open_table

if TYPE_CHECKING:
    from feast import FeatureView

DELAY: Final = "asknown.delay"
"""The tag of a Feast view or source whose rows do not say when they arrived: how long after the event they did."""
EVENT, ARRIVAL, ORDER = "__asknown_event", "__asknown_arrival", "__asknown_order"
_ANY_TIME: Final = "36500d"
"""A row that was created before its event counts from its event, however long that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what rows count.

    Attributes:
        arrival: By their arrival; else by their event alone, as Feast has it.
        unknown: What becomes of a source that does not say when its rows arrived: they count from their event, `silent` or with
            a warning (`warn`), or it is an `error`.
        on_tie: What becomes of different rows of one entity, event and arrival.
        engine: Which engine evaluates.
    """

    arrival: bool
    unknown: Literal["silent", "warn", "error"]
    on_tie: Literal["last", "error"]
    engine: str


@dataclass(frozen=True, slots=True)
class Range:
    """Which rows can matter: those whose event and arrival lie in it.

    Attributes:
        last: The latest instant that is asked at.
        first: The earliest instant that is asked at, or the earliest event that can be used; None for any.
    """

    last: datetime
    first: datetime | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """One of our views, and how its answers are called.

    Attributes:
        view: The view; its features have Feast's names.
        keys: Entity column as the view calls it to column of the entity frame.
    """

    view: al.FeatureView
    keys: Mapping[str, str]


def feature_view(
    view: FeatureView, features: Sequence[str], *, rules: Rules, asked: Range, repo_path: Path | None
) -> Translated:
    """What answers for some features of a Feast view.

    Args:
        view: The Feast view, with its projection.
        features: Feast's names of the features.
        rules: By what rows count. What was declared with `alignment` counts by arrival in any case.
        asked: What is asked.
        repo_path: The feature repository's folder.

    Raises:
        OptionError: If the source cannot be read, lacks a column, or does not say when its rows arrived.
        AlignmentError: If the rows cannot be used.
    """
    keys = join_keys(view)
    if is_declared(view):
        return Translated(_only(declared_view(view, repo_path), features), keys)
    if view.batch_source is None:
        raise OptionError(f"feature view {view.name!r} has no batch source", "give it one: rows are read from there.")
    table = open_table(view.batch_source, repo_path)
    columns = {name: table.column(name) for name in features}
    entities = {table.column(name): alias for name, alias in keys.items()}
    found = observations(
        table,
        list(entities),
        list(columns.values()),
        rules=rules,
        asked=Range(asked.last, _earlier(asked.first, view.ttl)),
        delay=view.tags.get(DELAY),
        whose=f"feature view {view.name!r}",
    )
    latest = [al.latest(column, name=name) for name, column in columns.items()]
    return Translated(al.FeatureView(view.name, None, found, latest, max_event_age=view.ttl or None), entities)


def join_keys(view: FeatureView) -> dict[str, str]:
    """Entity column of a Feast view to the column of the entity frame that it is compared with."""
    renamed = view.projection.join_key_map
    names = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    return {name: renamed.get(name, name) for name in names}


def observations(
    table: Table,
    entities: Sequence[str],
    columns: Sequence[str],
    *,
    rules: Rules,
    asked: Range | None = None,
    delay: str | None = None,
    whose: str | None = None,
) -> al.Observations:
    """The rows of a batch source as observations.

    Args:
        table: The source.
        entities: Its entity columns.
        columns: Its value columns that will be asked for.
        rules: By what rows count.
        asked: Rows outside need not be there; None for all.
        delay: How long after its event a row arrived that does not say so; default the source's tag.
        whose: What to call the rows in messages.

    Raises:
        OptionError: If the source does not say when its rows arrived, and the rules need it.
    """
    place = f"{whose}, {table.place}" if whose else table.place
    if table.log is not None and rules.arrival:
        return al.Observations(table.log, place=place)
    created = table.created
    rule = delay or table.source.tags.get(DELAY)
    by_arrival = rules.arrival and (created is not None or rule is not None)
    if rule is None:
        tell_unknown_arrival(table, rules, whose)
    event = instant(table.event, table.schema[table.event])
    arrival = instant(created, table.schema[created]) if created is not None else None
    fields = [*map(pl.col, dict.fromkeys([*entities, *columns])), event.alias(EVENT)]
    if not by_arrival:
        fields.append(event.alias(ARRIVAL))
    if arrival is not None:
        fields.append(arrival.alias(ARRIVAL) if by_arrival else _number(arrival).alias(ORDER))
    rows = table.rows if table.log is None else table.rows.filter(~pl.col("is_retraction").fill_null(value=False))
    kept = [pl.col(name).is_not_null() for name in [table.event, *entities]]
    return al.Observations(
        rows.filter(*kept, *_within(table, asked, created if by_arrival else None)).select(fields),
        list(entities),
        event_time=EVENT,
        arrival_time=ARRIVAL,
        log_sequence=ORDER,
        clock_tolerance=_ANY_TIME,
        on_tie=rules.on_tie,
        delay=al.FixedDelay(rule) if rule is not None and by_arrival else None,
        place=place,
    )


def tell_unknown_arrival(table: Table, rules: Rules, whose: str | None = None) -> None:
    """Warn of a source that does not say when its rows arrived, or refuse it, as the rules say.

    Args:
        table: The source.
        rules: By what rows count.
        whose: What to call the rows in messages.

    Raises:
        OptionError: If such a source is to be refused.
    """
    if table.log is not None or table.created is not None or not rules.arrival or rules.unknown == "silent":
        return
    refused = _unknown_arrival(table, whose)
    if rules.unknown == "error":
        raise refused
    warnings.warn(f"{refused}\n\nUntil then they count from their event.", UserWarning, stacklevel=3)


def _only(view: al.FeatureView, features: Sequence[str]) -> al.FeatureView:
    """`view` with some of its features, in the order asked for.

    Raises:
        OptionError: If it has not one of them.
    """
    known = {feature.name: feature for feature in view.features}
    unknown = next((name for name in features if name not in known), None)
    if unknown is not None:
        raise OptionError(
            f"feature view {view.name!r} has no feature {unknown!r}; its definition has {list(known)}",
            "apply the definition again: feast apply.",
        )
    kept = {feature_name: known[feature_name] for feature_name in features}
    return al.FeatureView(
        view.name,
        None,
        view.observations,
        kept.values(),
        max_event_age=_text(view.max_event_age),
        max_arrival_age=_text(view.max_arrival_age),
        max_issue_age=_text(view.max_issue_age),
        zone=view.zone,
        entity_map=view.entity_map,
    )


def _text(limit: Any) -> str | None:
    return None if limit is None else limit.text


def _earlier(first: datetime | None, ttl: timedelta | None) -> datetime | None:
    """The earliest event that can be used; None if any can."""
    if first is None or not ttl:
        return None
    try:
        return first - ttl
    except OverflowError:
        return None


def _number(arrival: pl.Expr) -> pl.Expr:
    """What orders revisions; a row that does not say when it was created comes first."""
    return arrival.to_physical().fill_null(-(1 << 62))


def _within(table: Table, asked: Range | None, created: str | None) -> list[pl.Expr]:
    """Filters that a file can use to leave parts unread."""
    if asked is None:
        return []
    found = [_compared(table, table.event, asked.last, "le")]
    if asked.first is not None:
        found.append(_compared(table, table.event, asked.first, "ge"))
    if created is not None:  # of unknown arrival: it has to be seen that they are there
        found.append(_compared(table, created, asked.last, "le") | pl.col(created).is_null())
    return found


def _compared(table: Table, name: str, bound: datetime, how: Literal["le", "ge"]) -> pl.Expr:
    """A time column compared in its own type, so that nothing is converted row by row."""
    kind = table.schema[name]
    if not isinstance(kind, pl.Datetime):
        left, right = instant(name, kind), pl.lit(bound, pl.Datetime("us", "UTC"))
    else:
        margin = timedelta(microseconds=1) if how == "ge" else timedelta(0)  # nanoseconds are rounded up later
        whole = pl.lit(bound.replace(tzinfo=None) - margin, pl.Datetime("us")).cast(pl.Datetime(kind.time_unit))
        if kind.time_zone is not None:
            whole = whole.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.time_zone)
        left, right = pl.col(name), whole
    return left <= right if how == "le" else left >= right


def _unknown_arrival(table: Table, whose: str | None) -> OptionError:
    problem = f"{whose or table.place}: when the rows of {table.place} arrived is unknown, since it has no created_timestamp_column"
    return OptionError(
        problem,
        f'name the column: created_timestamp_column="..."; or say how late rows are: tags={{"{DELAY}": "45m"}}; or take '
        "events for known at once, as Feast does: `arrival: false` under offline_store in feature_store.yaml.",
    )
