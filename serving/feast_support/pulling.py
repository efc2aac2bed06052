"""Rows as Feast pulls them: to materialize them, to show them, to read a saved data set or a log of served features.

A window of a source that says when its rows arrived is one of arrivals: a row belongs to the window in which it first
counted, so windows that follow each other miss nothing, however late it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL

import alignment as al
from serving.feast_support.evaluating import arrivals_known
from serving.feast_support.reading import INSTANT, Table, arrow_table, instant, open_table
from serving.feast_support.translated import DELAY, Range, Rules, observations, tell_unknown_arrival

if TYPE_CHECKING:
    from feast.data_source import DataSource

_T: Final = "__asknown_t"
_COUNTS: Final = "__asknown_counts"
_LOG_DATE: Final = "__log_date"
"""What the folders of a log of served features may be named after; then it is no column."""


def pull_all(
    source: DataSource,
    join_keys: Sequence[str],
    features: Sequence[str],
    *,
    event: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
    rules: Rules,
    repo_path: Path | None,
) -> pa.Table:
    """The rows of a window, both ends included, by (event, arrival).

    Where the window is one of arrivals and begins somewhere, the row that is current at its end is there for each entity with
    a row in the window, even if it came before: whoever keeps the newest row of each entity keeps the right one.

    Args:
        source: What to read.
        join_keys: Columns of the entity, by the source's names; so are all others.
        features: Columns of values; none means all there are.
        event: Column of events.
        created: Column of arrivals; without one the window is of events.
        start: First instant of the window; None for no bound.
        end: Last instant.
        rules: By what rows count.
        repo_path: The feature repository's folder.

    Returns:
        Entity columns, values, event, and arrival if it is asked for.

    Raises:
        OptionError: If the source does not say when its rows arrived, and the rules refuse that.
    """
    table = open_table(source, repo_path)
    if source.timestamp_field and DELAY not in source.tags:  # a saved data set or a log of features declares no times
        tell_unknown_arrival(table, rules)
    if _is_evaluated(table, features):
        return _nothing(table, join_keys, features, event, created)
    names = _columns(table, join_keys, features, event, created)
    found = _live(table).filter(_inside(table, event, created, start, end, rules)).select(names)
    if created is None or not rules.arrival or start is None or end is None:
        return _for_feast(found.collect(), join_keys)
    # Of rows with one entity, event and arrival the last of the file counts, as in a training set.
    window = found.collect().unique([*join_keys, event, created], keep="last", maintain_order=True)
    current = _current(table, window.select(join_keys).unique(), names, join_keys, _utc(end), rules)
    beyond = current.join(window, on=[*join_keys, event, created], how="anti", nulls_equal=True)
    rows = pl.concat([window, beyond.select(names)], how="vertical").sort(event, created, maintain_order=True)
    return _for_feast(rows, join_keys)


def pull_latest(
    source: DataSource,
    join_keys: Sequence[str],
    features: Sequence[str],
    *,
    event: str,
    created: str | None,
    start: datetime,
    end: datetime,
    rules: Rules,
    repo_path: Path | None,
) -> pa.Table:
    """For each entity with a row in the window, the row that is current at its end; see `pull_all`."""
    table = open_table(source, repo_path)
    if _is_evaluated(table, features):
        return _nothing(table, join_keys, features, event, created)
    names = _columns(table, join_keys, features, event, created)
    touched = _live(table).filter(_inside(table, event, created, start, end, rules)).select(join_keys)
    entities = touched.unique().collect() if join_keys else pl.DataFrame()
    return _for_feast(_current(table, entities, names, join_keys, _utc(end), rules), join_keys)


def entities_between(
    table: Table, entities: Sequence[str], first: datetime, last: datetime, rules: Rules
) -> pl.DataFrame:
    """The entities with an event in `[first, last]` that counts at `last`."""
    event, created = table.event, table.created
    inside = _inside(table, event, None, first, last, rules) & _inside(table, event, created, None, last, rules)
    return _live(table).filter(inside).select(entities).unique().drop_nulls().collect()


def _is_evaluated(table: Table, features: Sequence[str]) -> bool:
    """Whether features are evaluated over a log when they are asked for: then there is nothing to materialize."""
    return table.log is not None and any(table.renamed.get(name, name) not in table.schema for name in features)


def _nothing(
    table: Table, join_keys: Sequence[str], features: Sequence[str], event: str, created: str | None
) -> pa.Table:
    """No rows, with the columns that Feast expects."""
    there = [table.column(name) for name in dict.fromkeys([*join_keys, event, *([created] if created else [])])]
    schema = {**{name: table.schema[name] for name in there}, **dict.fromkeys(features, pl.Null())}
    return _for_feast(pl.DataFrame(schema=schema), join_keys)


def _columns(
    table: Table, join_keys: Sequence[str], features: Sequence[str], event: str, created: str | None
) -> list[str]:
    asked = [*join_keys, *(features or table.schema), event, *([created] if created else [])]
    return [table.column(name) for name in dict.fromkeys(asked) if name in table.schema or name != _LOG_DATE]


def _live(table: Table) -> pl.LazyFrame:
    """Rows that say something: retractions do not."""
    return table.rows if table.log is None else table.rows.filter(~pl.col("is_retraction").fill_null(value=False))


def _inside(
    table: Table, event: str, created: str | None, start: datetime | None, end: datetime | None, rules: Rules
) -> pl.Expr:
    """Whether the instant from which a row counts lies in the window."""
    counts = instant(event, table.schema[event])
    if rules.arrival and created is not None:
        counts = pl.max_horizontal(counts, instant(created, table.schema[created]))
    inside = counts.is_not_null()
    if start is not None:
        inside &= counts >= pl.lit(_utc(start), INSTANT)
    if end is not None:
        inside &= counts <= pl.lit(_utc(end), INSTANT)
    return inside


def _current(
    table: Table, entities: pl.DataFrame, names: Sequence[str], join_keys: Sequence[str], end: datetime, rules: Rules
) -> pl.DataFrame:
    """The row of each entity that is current at `end`, as the kernel picks it."""
    values = [name for name in names if name not in join_keys]
    rows = observations(table, join_keys, values, rules=rules, asked=Range(end))
    view = al.FeatureView("pulled", None, rows, [al.latest(name) for name in values])
    spine = entities.drop_nulls() if join_keys else pl.DataFrame({_T: [end]})
    spine = spine.with_columns(pl.lit(end, INSTANT).alias(_T))
    with arrivals_known(table.source.name):
        answers = al.point_in_time_join(spine, view, engine=rules.engine, prediction_time=_T, status=True)
    known = answers.filter(pl.col(f"pulled__{table.event}__status").is_in(["present", "null"]))
    return known.select(pl.col(name) if name in join_keys else pl.col(f"pulled__{name}").alias(name) for name in names)


def _for_feast(rows: pl.DataFrame, join_keys: Sequence[str]) -> pa.Table:
    table = arrow_table(rows.get_columns())
    if not join_keys:  # what Feast keeps the one series of a view without entities under
        table = table.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * len(table), pa.string()))
    return table


def _utc(moment: datetime) -> datetime:
    """Naive times are UTC at this border."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
