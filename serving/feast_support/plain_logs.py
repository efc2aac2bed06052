"""Feast views that are not ours, kept as logs: what `materialize`, `push` and `write_to_online_store` write.

Feast hands over an event, values and perhaps a created timestamp, which is taken for the arrival. Where there is none the
row arrived when it was written. So a late event, a correction and a repeated write mean here what they mean in any log.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import polars as pl
from feast.feature_view import DUMMY_ENTITY_ID
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

import alignment as al
from alignment.features import Feature
from ingestion import LogNotFoundError, ObservationLog, create_log, open_log
from serving.errors import OptionError
from serving.feast_support.types import column, decoded, polars_type

if TYPE_CHECKING:
    from feast import FeatureView

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_INSTANT: Final = pl.Datetime("us", "UTC")
_ANY_LATER: Final = "36500d"
"""An event may lie in the future here, as it may in Feast; the row then counts from its event on."""
_MARGIN: Final = "60ms"
"""How far ahead a write is stamped; it returns when that instant has come, so that a read after it sees it."""
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")
_CODED: Final = "v."
_THERE: Final = "__there"
_COMPACT_EVERY: Final = 100


class PlainLogs:
    """The logs of one project's plain views.

    Args:
        root: The folder of the online store.
        project: Feast's project.
    """

    def __init__(self, root: Path, project: str) -> None:
        self.folder = root / _coded(project)
        self._logs: dict[str, ObservationLog] = {}
        self._lock = threading.RLock()
        self._writes = 0

    def find(self, view: str) -> ObservationLog | None:
        """The log of a view, opened anew; None if nothing was ever written or applied."""
        try:
            return open_log(self.folder, _coded(view))
        except LogNotFoundError:
            return None

    def prepare(self, view: FeatureView) -> None:
        """Make the log of a view, or give it the columns that it lacks.

        A log of other entities than the view has now is begun anew, for its rows could not be asked for.

        Raises:
            SchemaChangeError: If a feature has another type than it had.
        """
        keys = join_keys(view)
        with self._lock:
            log = self.find(view.name)
            if log is not None and log.entities != keys:
                self.drop(view.name)
                log = None
            self._logs[view.name] = log or self._create(view, keys)
            there = self._logs[view.name].columns
            for field in view.features:
                if field.name not in there and field.name not in keys:
                    self._logs[view.name].add_column(field.name, polars_type(field.dtype))

    def drop(self, view: str) -> None:
        """Delete the log of a view, if there is one."""
        with self._lock:
            self._logs.pop(view, None)
            shutil.rmtree(self.folder / _coded(view), ignore_errors=True)

    def write(self, view: FeatureView, rows: Sequence[Row]) -> int:
        """Append what the log does not have yet.

        Args:
            view: The Feast view.
            rows: As Feast hands them to an online store.

        Returns:
            How many rows were new.

        Raises:
            BatchError: If a value does not fit its column.
        """
        if not rows:
            return 0
        keys = sorted(name for name in rows[0][0].join_keys if name != DUMMY_ENTITY_ID)
        with self._lock:
            log = self._logs.get(view.name) or self.find(view.name) or self._create(view, keys)
            self._logs[view.name] = log
            new = _not_known(log, _once(_ordered(_frame(view, rows, log.entities)), log.entities))
            if new.is_empty():
                return 0
            stamped = new["arrival_time"].null_count() == new.height and _is_free(log)
            if stamped:
                new = new.drop("arrival_time")
            else:
                new = new.with_columns(pl.col("arrival_time").fill_null(pl.lit(datetime.now(UTC)).cast(_INSTANT)))
            done = log.append(new, evolve=True, arrivals="stamp" if stamped else "given")
            if stamped:
                _wait_for(done.restamped or done.arrival_time)
            self._writes += 1
            if self._writes % _COMPACT_EVERY == 0:
                log.compact()
            return new.height

    def _create(self, view: FeatureView, keys: Sequence[str]) -> ObservationLog:
        types = {field.name: polars_type(field.dtype) for field in view.entity_columns if field.name in keys}
        known = len(types) == len(keys)
        schema = {**{field.name: polars_type(field.dtype) for field in view.features}, **types}
        return create_log(
            self.folder,
            _coded(view.name),
            entities=keys,
            schema=schema if known and view.features else None,
            clock_tolerance=_ANY_LATER,
            publish_margin=_MARGIN,
            exist_ok=True,
        )


def join_keys(view: FeatureView) -> list[str]:
    """The columns that name a view's entity, without the one that Feast invents for views without."""
    return sorted(field.name for field in view.entity_columns if field.name != DUMMY_ENTITY_ID)


def latest_view(view: FeatureView, log: ObservationLog) -> al.FeatureView:
    """A plain Feast view as one of ours: the newest event's values, as long as Feast's ttl."""
    there = log.columns
    features: list[Feature] = [
        al.latest(field.name) for field in view.features if field.name in there and field.name not in log.entities
    ]
    return al.FeatureView(view.name, None, log, features, max_event_age=view.ttl or None)


def not_in(log: ObservationLog, rows: Sequence[Row]) -> int:
    """How many rows have an event and arrival that no row of a provider's log has: they were not materialized from it."""
    times = pl.DataFrame(
        [_instants("event_time", (row[2] for row in rows)), _instants("arrival_time", (row[3] for row in rows))]
    )
    low, high = times.select(pl.col("event_time").min(), pl.col("event_time").max().alias("high")).row(0)
    there = log.scan(event_from=low, event_until=high, columns=[]).select(times.columns).unique()
    return times.lazy().join(there, on=times.columns, how="anti").collect().height


def _coded(name: str) -> str:
    """A name as a folder: as it is, or with what may not stand in one spelt out."""
    if name[:1].isalnum() and not _ODD.search(name):
        return name
    return _CODED + _ODD.sub(lambda found: f".{ord(found.group()):x}.", name)


def _frame(view: FeatureView, rows: Sequence[Row], keys: Sequence[str]) -> pl.DataFrame:
    """Rows as Feast hands them over, as a frame.

    Raises:
        OptionError: If a row names another entity than the log's.
    """
    entities: list[Mapping[str, Any]] = [
        dict(zip(key.join_keys, map(decoded, key.entity_values), strict=True)) for key, *_ in rows
    ]
    names = sorted(name for name in entities[0] if name != DUMMY_ENTITY_ID)
    if names != sorted(keys):
        raise OptionError(
            f"view {view.name!r} is kept by {sorted(keys)}, and the rows are by {names}",
            "feast teardown && feast apply",
        )
    types = {field.name: polars_type(field.dtype) for field in view.entity_columns}
    series = [pl.Series(name, [entity[name] for entity in entities], dtype=types.get(name)) for name in keys]
    series += [_instants("event_time", (row[2] for row in rows)), _instants("arrival_time", (row[3] for row in rows))]
    sent = {name for _, values, _, _ in rows for name in values}
    for field in view.features:
        if field.name in sent and field.name not in keys:
            series.append(column((values.get(field.name) for _, values, _, _ in rows), field.dtype).alias(field.name))
    return pl.DataFrame(series)


def _instants(name: str, values: Iterator[datetime | None]) -> pl.Series:
    """Instants in UTC; Feast's naive ones are UTC."""
    aware = [None if pd.isna(at) else _aware(at) for at in values]
    return pl.Series(name, aware, dtype=_INSTANT)


def _aware(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with arrivals never before the event; unknown ones stay unknown."""
    arrival = pl.max_horizontal("arrival_time", "event_time")
    return frame.with_columns(pl.when(pl.col("arrival_time").is_not_null()).then(arrival).alias("arrival_time"))


def _once(frame: pl.DataFrame, entities: Sequence[str]) -> pl.DataFrame:
    """Of rows with one key and arrival the last, as in a file: the others never show."""
    return frame.unique([*entities, "event_time", "arrival_time"], keep="last", maintain_order=True)


def _is_free(log: ObservationLog) -> bool:
    """Whether a stamp would be now: the log's stamps only grow, and a created timestamp may have been in the future."""
    through = log.observed_through()
    return through is None or through < datetime.now(UTC) - timedelta(microseconds=1)


def _wait_for(instant: datetime | None) -> None:
    """Until an instant has come."""
    while instant is not None and (left := (instant - datetime.now(UTC)).total_seconds()) >= 0:
        time.sleep(left + 1e-4)


def _not_known(log: ObservationLog, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows that say something new: another revision than the one at their arrival, or than the current one."""
    columns = log.columns
    if log.position() < 0 or any(name not in columns for name in frame.columns if not name.endswith("_time")):
        return frame
    low, high = frame.select(pl.col("event_time").min(), pl.col("event_time").max().alias("high")).row(0)
    key = [*log.entities, "event_time"]
    mine = frame.with_columns(pl.col(name).cast(columns[name]) for name in frame.columns if name in columns)
    known = (
        log.scan(event_from=low, event_until=high)
        .join(mine.lazy().select(key).unique(), on=key, how="semi", nulls_equal=True)
        .sort("arrival_time", "log_sequence")
        .collect()
    )
    values = [name for name in mine.columns if name not in {*key, "arrival_time"}]
    given, unknown = mine.filter(pl.col("arrival_time").is_not_null()), mine.filter(pl.col("arrival_time").is_null())
    at_arrival = known.group_by([*key, "arrival_time"], maintain_order=True).last()
    current = known.group_by(key, maintain_order=True).last()
    return pl.concat(
        [
            _unless_in(given, at_arrival, [*key, "arrival_time"], values),
            _unless_in(unknown, current, key, values),
        ]
    )


def _unless_in(rows: pl.DataFrame, known: pl.DataFrame, key: list[str], values: list[str]) -> pl.DataFrame:
    """Rows of which `known` has not the same values under the same key."""
    if rows.is_empty() or known.is_empty():
        return rows
    both = rows.join(
        known.select(*key, *values, pl.lit(value=True).alias(_THERE)),
        on=key,
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    same = [pl.col(name).eq_missing(pl.col(f"{name}_right")) for name in values]
    return both.filter(~pl.all_horizontal(pl.col(_THERE).fill_null(value=False), *same)).select(rows.columns)
