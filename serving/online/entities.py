"""The entities of a request as the keys of stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

import alignment as al
from serving.online.errors import EntityError

Check = Callable[[Any], Any]


class EntityColumns:
    """The entity columns that some views need.

    Args:
        views: The views.
    """

    def __init__(self, views: Sequence[al.FeatureView]) -> None:
        self.dtypes: dict[str, pl.DataType] = {}
        self._views: list[tuple[str, list[str]]] = []
        for view in views:
            names = view.spine_entities
            for name, observed in zip(names, view.observations.entities, strict=True):
                self.dtypes[name] = view.observations.schema[observed]
            self._views.append((view.name, names))
        self._plain = {
            name: str if kind == pl.String else int
            for name, kind in self.dtypes.items()
            if kind == pl.String or kind.is_integer()
        }
        self._bounds = {name: _bounds(kind) for name, kind in self.dtypes.items() if kind.is_integer()}

    def keys(self, entities: Mapping[str, Sequence[Any]]) -> tuple[dict[str, list[Hashable]], dict[str, Sequence[Any]]]:
        """Per view the keys of its rows' entities, None where one is null; and the entity columns in the views' types.

        Args:
            entities: Entity columns, name to values.

        Raises:
            EntityError: If one is missing, the lengths differ, or a value has another type than the view's.
        """
        lengths = {len(values) for values in entities.values()}
        if len(lengths) > 1:
            said = ", ".join(f"{name!r} has {len(values)}" for name, values in entities.items())
            raise EntityError(f"entities are of unequal length: {said}", "give every entity column as many values.")
        rows = lengths.pop() if lengths else 1
        columns: dict[str, list[Any]] = {}
        found: dict[str, list[Hashable]] = {}
        for view, names in self._views:
            for name in names:
                if name not in columns:
                    columns[name] = self._column(name, entities, view)
            if len(names) == 1:
                found[view] = columns[names[0]]
            elif names:
                whole = zip(*(columns[name] for name in names), strict=True)
                found[view] = [None if None in key else key for key in whole]
            else:
                found[view] = [()] * rows
        return found, {**entities, **columns}

    def _column(self, name: str, entities: Mapping[str, Sequence[Any]], view: str) -> list[Any]:
        if name not in entities:
            raise EntityError(
                f"view {view!r} needs the entity {name!r}, and the request names {', '.join(map(repr, entities)) or 'none'}",
                f'e.g. {{"{name}": ["..."]}}.',
            )
        kind = self.dtypes[name]
        values = entities[name]
        plain = self._plain.get(name)
        if plain is not None and all(type(value) is plain or value is None for value in values):
            if plain is str:
                return list(values)
            least, greatest = self._bounds[name]
            if all(value is None or least <= value <= greatest for value in values):
                return list(values)
        return [None if value is None else _key(value, kind, name) for value in values]


def _key(value: Any, kind: pl.DataType, name: str) -> Any:
    """The value as a log's column holds it.

    Raises:
        EntityError: If it has another type.
    """
    converted = _convert(value, kind)
    if converted is None:
        raise EntityError(
            f"entity {name!r} is {kind}, and {json.dumps(value, default=str)[:80]} is {type(value).__name__}",
            f"send values of {kind}, or null for no entity.",
        )
    return converted


def _convert(value: Any, kind: pl.DataType) -> Any:
    """The value in a column's type, or None where it does not fit without loss."""
    if isinstance(kind, pl.Enum):
        return value if isinstance(value, str) and value in kind.categories else None
    if isinstance(kind, pl.Categorical) or kind == pl.String:
        return value if isinstance(value, str) else None
    if kind == pl.Boolean:
        return value if isinstance(value, bool) else None
    if kind.is_integer():
        least, greatest = _bounds(kind)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole and least <= value <= greatest else None
    if kind.is_float():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return pl.Series([float(value)]).cast(kind).item() if number else None
    try:
        if isinstance(kind, pl.Datetime):
            moment = datetime.fromisoformat(value) if isinstance(value, str) else value
            if not isinstance(moment, datetime) or (moment.tzinfo is None) != (kind.time_zone is None):
                return None
            return moment if kind.time_zone is None else moment.astimezone(ZoneInfo(kind.time_zone))
        if kind == pl.Date:
            day = date.fromisoformat(value) if isinstance(value, str) else value
            return day if isinstance(day, date) and not isinstance(day, datetime) else None
        return pl.Series([value], dtype=kind).to_list()[0]
    except (ValueError, TypeError, pl.exceptions.PolarsError):
        return None


def _bounds(kind: pl.DataType) -> tuple[int, int]:
    """The least and the greatest value of a type of whole numbers."""
    name = str(kind).lower()
    if name.endswith("128"):
        return (0, (1 << 128) - 1) if name.startswith("u") else (-(1 << 127), (1 << 127) - 1)
    bounds = np.iinfo(name)
    return int(bounds.min), int(bounds.max)
