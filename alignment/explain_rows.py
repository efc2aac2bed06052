"""Every row of one entity, held in memory, and a view over these alone."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.durations import instant_us
from alignment.errors import DefinitionError, KeyTypeError, MissingColumnError
from alignment.features import Feature
from alignment.heartbeats import provider_of
from alignment.layout import common_type
from alignment.observations import GIVEN, Kind, Observations, ObservationSource
from alignment.rows import ARRIVAL, ARRIVAL_KIND, EVENT, ISSUE, ORDER, RETRACTION, Rows, canonical, check_rows
from alignment.views import FeatureView

_TOLD = ("published_time", "received_time")
_PLACE = "@place"
_SHOWN = 8
_US = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class EntityRows:
    """One entity's rows of one view.

    Attributes:
        view: The view over these rows alone.
        rows: The rows as engines read them, those that do not count yet included.
        shown: The same rows with the columns of `explain_report.ROW_COLUMNS`, but for revisions.
        position: The log position that is asked at; None if all rows count.
        provider: Who sent them.
    """

    view: FeatureView
    rows: Rows
    shown: pl.DataFrame
    position: int | None
    provider: str


class HeldSource:
    """What a log had of one entity when it was asked.

    Args:
        frame: Its rows.
        head: The log position that was asked at.
        log: The log itself.
    """

    def __init__(self, frame: pl.DataFrame, head: int, log: ObservationSource) -> None:
        self._frame, self._head, self._log = frame, head, log
        self.provider: str = log.provider
        self.entities: list[str] = log.entities
        self.kind: Kind = log.kind
        self.key: list[str] | None = log.key
        self.clock_tolerance: str = log.clock_tolerance

    def position(self) -> int:
        """The log position that was asked at."""
        return self._head

    def observed_through(self) -> datetime | None:
        """As the log says."""
        return self._log.observed_through()

    def column_since(self) -> dict[str, int]:
        """As the log says."""
        return self._log.column_since()

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,  # noqa: ARG002 - may be left to the caller, as may all below but the positions
        event_from: datetime | None = None,  # noqa: ARG002
        event_until: datetime | None = None,  # noqa: ARG002
        columns: Sequence[str] | None = None,  # noqa: ARG002
        after: int | None = None,
    ) -> pl.LazyFrame:
        """The held rows between two positions; the other bounds may be left to the caller, and are."""
        rows = self._frame.lazy()
        if position is not None:
            rows = rows.filter(pl.col("log_sequence") <= position)
        return rows if after is None else rows.filter(pl.col("log_sequence") > after)


def spine_of(view: FeatureView, entity: Mapping[str, Any]) -> pl.DataFrame:
    """One row with the view's entity columns, in the observations' own types.

    Args:
        view: The view.
        entity: Column to value, by the spine's names or the observations'.

    Raises:
        MissingColumnError: If `entity` lacks a column.
        NaiveTimeError: If a value is an instant without zone, and the column's have one (R15).
        KeyTypeError: If a value cannot be one of the column's, or a join could not compare them.
    """
    found = {}
    for asked, observed in zip(view.spine_entities, view.observations.entities, strict=True):
        if asked not in entity and observed not in entity:
            raise MissingColumnError(asked, "the entity", list(entity))
        value = entity[asked] if asked in entity else entity[observed]
        kind = view.observations.schema[observed]
        if isinstance(kind, pl.Datetime) and kind.time_zone and isinstance(value, datetime):
            instant_us(value, asked)
        try:
            given = pl.Series([value]).dtype  # no cast: the text of a number is no number, and True is not 1
            if given.base_type() != kind.base_type() or isinstance(kind, pl.Datetime):
                common_type(given, kind, asked, observed, view.place)
            found[asked] = pl.Series([value], dtype=kind)
        except (KeyTypeError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            raise KeyTypeError(
                f"{view.place}: entity {observed!r} is {kind}, and {value!r} is none",
                f'pass a value of that type, e.g. {{"{asked}": ...}}.',
            ) from error
    return pl.DataFrame(found) if found else pl.DataFrame({"": [None]})


def entity_of(views: Sequence[FeatureView], entity: Any) -> dict[str, Any]:
    """The entity as column to value, by the spine's names.

    Args:
        views: Views that are asked.
        entity: A mapping; a value or tuple for the columns that the first view with entities has; None, `()` or `{}` for one
            series.

    Raises:
        DefinitionError: If there are not as many values as columns.
    """
    if isinstance(entity, Mapping):
        return dict(entity)
    names = list(dict.fromkeys(name for view in views for name in view.spine_entities))
    values = [] if entity is None and not names else list(entity) if isinstance(entity, tuple | list) else [entity]
    if not names and values:
        raise DefinitionError(
            f"entity={entity!r} names one, and the views have no entity columns: they are one series",
            "pass entity=None.",
        )
    if len(values) != len(names):
        written = ", ".join(f'"{name}": ...' for name in names)
        raise DefinitionError(
            f"entity={entity!r} has {len(values)} value{'' if len(values) == 1 else 's'}, and the entity columns are {names}",
            f"name them: entity={{{written}}}.",
        )
    return dict(zip(names, values, strict=True))


def unknown_entity(view: FeatureView, entity: Mapping[str, Any]) -> list[str]:
    """What to say of an entity of which there are no rows: of which there are, the closest first.

    Args:
        view: The view.
        entity: Column to value, by the spine's names or the observations'.

    Returns:
        One sentence; none for one series, or where its own name is one that has rows.
    """
    rows = view.observations
    if not rows.entities:
        return []
    there = rows.lazy().select(rows.entities).unique().drop_nulls().sort(rows.entities).collect()
    told = [_named(rows.entities, row) for row in there.iter_rows()]
    names = zip(view.spine_entities, rows.entities, strict=True)
    values = [entity.get(asked, entity.get(observed)) for asked, observed in names]
    own = _named(rows.entities, values)
    if own in told:
        return []
    said = f"no rows of {', '.join(f'{n}={v!r}' for n, v in zip(view.spine_entities, values, strict=True))}"
    if not told:
        return [f"{said}: {provider_of(view)} has none at all"]
    close = difflib.get_close_matches(own, told, n=_SHOWN, cutoff=0.6) if len(told) > _SHOWN else []
    shown = list(dict.fromkeys([*close, *told]))[:_SHOWN]
    return [f"{said}; there are {', '.join(shown)}{f' and {len(told) - _SHOWN:,} more' if len(told) > _SHOWN else ''}"]


def _named(names: Sequence[str], values: Sequence[Any]) -> str:
    if len(names) == 1:
        return repr(values[0])
    return f"({', '.join(f'{name}={value!r}' for name, value in zip(names, values, strict=True))})"


def rows_of_entity(
    view: FeatureView, features: Sequence[Feature], spine: pl.DataFrame, position: int | None
) -> EntityRows:
    """Read what there is of one entity, whether it counts or not.

    Args:
        view: The view.
        features: Those of its features that are asked about.
        spine: From `spine_of`.
        position: The log position that is asked at; None for all there is now.

    Raises:
        AlignmentError: What the rows break; see `checked`.
    """
    observations = view.observations
    columns = list(dict.fromkeys(feature.column for feature in features if feature.column is not None))
    here = [
        pl.col(name).eq(pl.lit(spine[asked][0], observations.schema[name]))
        if spine[asked][0] is not None
        else pl.lit(value=False)
        for asked, name in zip(view.spine_entities, observations.entities, strict=True)
    ]
    source = observations.source
    if source is None:
        held_frame = observations.lazy().with_row_index(_PLACE).filter(pl.lit(value=True), *here).collect()
        frame, places = held_frame.drop(_PLACE), held_frame[_PLACE].cast(pl.Int64)
        held = observations.but(frame=frame, derive={})
    else:
        position = source.position() if position is None else position
        frame = _of_log(observations, source, columns, here, position)
        places = frame[observations.log_sequence]
        held = observations.but(frame=HeldSource(frame, position, source), derive={})
    same = copy.copy(view)
    same.observations, same.features = held, tuple(features)
    stored, raised = check_rows(held, canonical(held, columns).collect().rechunk())
    rows = Rows(held, stored, raised)
    return EntityRows(same, rows, _shown(held, frame, stored, places), position, provider_of(view))


def _of_log(
    observations: Observations, source: ObservationSource, columns: Sequence[str], here: list[pl.Expr], position: int
) -> pl.DataFrame:
    """Rows up to the position with their arrivals there, then those beyond it."""
    wanted = [name for name in observations.values if name not in observations.derive]
    kept = [*observations.entities, *observations.key, *columns, *_TOLD, GIVEN, "arrival_kind"]
    kept += [observations.event_time, observations.arrival_time, observations.issue_time]
    kept += [observations.is_retraction, observations.log_sequence]
    parts = []
    told = [*wanted, *_TOLD]
    for rows in (source.scan(columns=told, position=position), source.scan(columns=told, after=position)):
        named = rows.with_columns(pl.col(now).alias(former) for former, now in observations.former_names.items())
        named = named.with_columns(**observations.derive) if observations.derive else named
        there = named.collect_schema()
        names = [name for name in dict.fromkeys(kept) if name in there]
        parts.append(named.filter(pl.lit(value=True), *here).select(names))
    return pl.concat(pl.collect_all(parts), how="diagonal_relaxed")


def _shown(held: Observations, frame: pl.DataFrame, stored: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """The rows as an explanation shows them."""

    def instant(column: str) -> pl.Expr:
        given = stored[column] if column in stored.columns else None
        return pl.lit(None, _US) if given is None else pl.lit(given.cast(_US))

    def told(name: str) -> pl.Expr:
        kind = frame.schema.get(name)
        if not isinstance(kind, pl.Datetime):
            return pl.lit(None, _US)
        return pl.lit(frame[name].dt.cast_time_unit("us").dt.convert_time_zone("UTC"))

    numbered = held.log_sequence in frame.columns
    return pl.DataFrame({"row": places}).with_columns(
        log_sequence=pl.lit(frame[held.log_sequence].cast(pl.Int64)) if numbered else pl.lit(None, pl.Int64),
        event_time=instant(EVENT),
        issue_time=instant(ISSUE),
        published_time=told("published_time"),
        received_time=told("received_time"),
        arrival_time=instant(ARRIVAL),
        given_arrival_time=pl.when(told(GIVEN) != instant(ARRIVAL)).then(told(GIVEN)),
        arrival_kind=pl.lit(stored[ARRIVAL_KIND]) if ARRIVAL_KIND in stored.columns else pl.lit(None, pl.String),
        is_retraction=pl.lit(stored[RETRACTION]) if RETRACTION in stored.columns else pl.lit(value=False),
    )


def quarantined_rows(
    view: FeatureView, spine: pl.DataFrame, provider: str, position: int | None, until: datetime, names: Sequence[str]
) -> list[dict[str, Any]]:
    """What a log set aside of this entity and nobody has decided on, newest first; empty for anything but a log.

    Args:
        view: The view, over the log itself.
        spine: From `spine_of`.
        provider: Who sent the rows.
        position: Rows beyond it are left out.
        until: Rows that were received later are left out (R1).
        names: Keys that a row has.
    """
    source: Any = view.observations.source
    ask = getattr(source, "quarantine", None) or getattr(getattr(source, "inner", None), "quarantine", None)
    if ask is None:
        return []
    rows = ask().filter(pl.col("received_time") <= pl.lit(until))
    for asked, name in zip(view.spine_entities, view.observations.entities, strict=True):
        if name not in rows.columns:
            return []
        rows = rows.filter(pl.col(name).cast(pl.String) == str(spine[asked].cast(pl.String)[0]))
    if position is not None:
        rows = rows.filter(pl.col("log_sequence") <= position)
    found = []
    for row in rows.sort("log_sequence", descending=True).iter_rows(named=True):
        payload = _payload(row)
        told = dict.fromkeys(names) | {"provider": provider, "row": row["log_sequence"]}
        told |= {"log_sequence": row["log_sequence"], "received_time": row["received_time"].isoformat()}
        told |= {name: _instant(payload.get(name)) for name in ("event_time", "issue_time")}
        told |= {"reason": "quarantined", "by": None}
        found.append(told | {"text": f"set aside when it was received: {row['reason']}"})
    return found


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["form"] != "row" or row["payload"] is None:
        return {}
    found = json.loads(row["payload"])
    return found if isinstance(found, dict) else {}


def _instant(text: Any) -> str | None:
    """An instant of a payload in UTC; None if it is none that has a zone."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return None if found.tzinfo is None else found.astimezone(UTC).isoformat()


def up_to(held: EntityRows) -> npt.NDArray[np.int64]:
    """The places of the rows up to the log position that is asked at."""
    frame = held.rows.frame
    if held.position is None or not held.rows.observations.has_log_sequence:
        return np.arange(frame.height)
    return np.flatnonzero(frame[ORDER].to_numpy() <= held.position)
