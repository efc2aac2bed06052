"""Outages: spans for which a provider's rows arrive late, or never (R23)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Self

import polars as pl

from alignment.durations import instant_from_us, instant_us
from alignment.errors import DefinitionError
from alignment.layout import common_type


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Outage:
    """A span in which what a provider sends is held up.

    Of the rows that would have arrived in `[start, end)` all arrive at `end`, together: the provider catches up. Or they never
    do (`lost`), or they only take longer (`slow`). No row arrives earlier than it would have, and the revisions of a key keep
    their order (R23).

    Args:
        provider: Whose rows: the log's provider; of a plain frame the name of its view.
        start: First instant of the outage, with zone.
        end: Its end, which no longer belongs to it.
        lost: Whether the rows never arrive.
        slow: Times how much the delay (arrival less event, of forecasts less issue) of the rows grows; at least 1.
        entities: Only the rows of these: values of the one entity column, tuples of several, or mappings of column to value;
            None for all.

    Raises:
        DefinitionError: If it ends before it starts, is both lost and slow, or `slow` is less than 1.
        NaiveTimeError: If an instant has no zone.

    Example:
        >>> from datetime import UTC, datetime
        >>> Outage("sky_camera", datetime(2026, 3, 1, 8, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC), lost=True)
        Outage('sky_camera', 2026-03-01T08:00:00+00:00, 2026-03-01T12:00:00+00:00, lost)
    """

    provider: str
    start: datetime
    end: datetime
    lost: bool
    slow: float | None
    entities: tuple[Any, ...] | None

    def __init__(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        *,
        lost: bool = False,
        slow: float | None = None,
        entities: Sequence[Any] | None = None,
    ) -> None:
        if not isinstance(provider, str) or not provider:
            raise DefinitionError(f"provider={provider!r} is no provider's name", 'e.g. al.Outage("sky_camera", ...).')
        if instant_us(end, "end") <= instant_us(start, "start"):
            raise DefinitionError(
                f"the outage of {provider!r} ends at {end.isoformat()}, not after its start {start.isoformat()}",
                "swap them.",
            )
        if slow is not None and (
            lost or isinstance(slow, bool) or not isinstance(slow, int | float) or not 1 <= slow < 1e6
        ):
            raise DefinitionError(
                f"the outage of {provider!r} has slow={slow!r}" + (" and lost=True" if lost else ""),
                "pass lost=True, or slow= a factor of 1 or more, e.g. slow=3.",
            )
        if entities is not None and (isinstance(entities, str | bytes | Mapping) or not isinstance(entities, Iterable)):
            raise DefinitionError(
                f"entities={entities!r} is one value, not a list of them", f"write entities=[{entities!r}]."
            )
        for name, value in (
            *(("provider", provider), ("start", start), ("end", end), ("lost", bool(lost))),
            *(("slow", None if slow is None else float(slow)),),
            *(("entities", None if entities is None else tuple(_hashable(one) for one in entities)),),
        ):
            object.__setattr__(self, name, value)

    @property
    def span_us(self) -> tuple[int, int]:
        """Start and end, microseconds."""
        return instant_us(self.start, "start"), instant_us(self.end, "end")

    @property
    def named(self) -> list[Any]:
        """The entities as they were named: values, tuples, mappings of column to value."""
        return [dict(one) if isinstance(one, _Row) else one for one in self.entities or ()]

    def concerns(self, rows: pl.DataFrame, entities: Sequence[str], place: str) -> pl.Series:
        """Per row whether it is of an entity that the outage holds up.

        Args:
            rows: Observations.
            entities: Their entity columns.
            place: What to call them in messages.

        Raises:
            DefinitionError: If `entities` of the outage do not fit the columns.
            KeyTypeError: If they are of another type.
        """
        if self.entities is None:
            return pl.repeat(value=True, n=rows.height, dtype=pl.Boolean, eager=True)
        given = [self._key(one, entities, place) for one in self.entities]
        if not given:
            return pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
        if any(len({type(one[name]) for one in given}) > 1 for name in entities):
            raise DefinitionError(
                f"the outage of {self.provider!r} names entities of several types: {self.named!r}",
                "name values of the types that the entity columns have.",
            )
        keys = pl.DataFrame(given, infer_schema_length=None)
        kinds = {name: common_type(keys.schema[name], rows.schema[name], name, name, place) for name in entities}
        found = (
            rows.select(pl.col(name).cast(kind) for name, kind in kinds.items())
            .lazy()
            .join(
                keys.select(pl.col(name).cast(kind) for name, kind in kinds.items())
                .unique()
                .with_columns(there=pl.lit(value=True))
                .lazy(),
                on=list(entities),
                how="left",
                maintain_order="left",
            )
            .select(pl.col("there").fill_null(value=False))
            .collect()
        )
        return found.to_series()

    def _key(self, given: Any, entities: Sequence[str], place: str) -> dict[str, Any]:
        if isinstance(given, _Row):
            row = dict(given)
        else:
            values = given if isinstance(given, tuple) else (given,)
            row = dict(zip(entities, values, strict=False)) if len(values) == len(entities) else {}
        if set(row) != set(entities) or not entities:
            shown = row if isinstance(given, _Row) else given
            raise DefinitionError(
                f"{place} have the entity columns {list(entities)}, and the outage of {self.provider!r} names {shown!r}",
                "name a value per entity column, or leave entities= out.",
            )
        return row

    def to_dict(self) -> dict[str, Any]:
        """The outage as plain data: `provider`, `start`, `end`, and what is not the default of `lost`, `slow`, `entities`."""
        found: dict[str, Any] = {
            "provider": self.provider,
            "start": instant_from_us(self.span_us[0]).isoformat(),
            "end": instant_from_us(self.span_us[1]).isoformat(),
        }
        if self.lost:
            found["lost"] = True
        if self.slow is not None:
            found["slow"] = self.slow
        if self.entities is not None:
            found["entities"] = [_plain(one) for one in self.entities]
        return found

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Self:
        """The outage that `to_dict` described.

        Raises:
            DefinitionError: If it lacks a field.
        """
        for name in ("provider", "start", "end"):
            if name not in described:
                raise DefinitionError(f"an outage has no {name!r}: {dict(described)!r}", "see Outage.to_dict.")
        entities = described.get("entities")
        return cls(
            described["provider"],
            datetime.fromisoformat(described["start"]),
            datetime.fromisoformat(described["end"]),
            lost=described.get("lost", False),
            slow=described.get("slow"),
            entities=None if entities is None else [_unplain(one) for one in entities],
        )

    def __repr__(self) -> str:
        said = [repr(self.provider), self.start.isoformat(), self.end.isoformat()]
        said += ["lost"] if self.lost else []
        said += [f"slow={self.slow:g}"] if self.slow is not None else []
        said += [f"entities={list(self.entities)!r}"] if self.entities is not None else []
        return f"Outage({', '.join(said)})"


class _Row(tuple[tuple[str, Any], ...]):
    """A mapping of entity columns to values that can be hashed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(dict(self))


def as_outages(outages: Iterable[Outage] | Outage) -> tuple[Outage, ...]:
    """Outages as they are passed to functions: one, or several.

    Raises:
        DefinitionError: If something is no outage.
    """
    if isinstance(outages, Outage):
        return (outages,)
    found: tuple[Any, ...] = tuple(outages) if isinstance(outages, Iterable) else (outages,)
    for one in found:
        if not isinstance(one, Outage):
            raise DefinitionError(f"{one!r} is not an outage", 'e.g. al.Outage("sky_camera", start, end).')
    return found


_TEXTS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: ("$instant", datetime.isoformat, datetime.fromisoformat),
    date: ("$date", date.isoformat, date.fromisoformat),
    time: ("$time", time.isoformat, time.fromisoformat),
    timedelta: ("$microseconds", lambda value: value // timedelta(microseconds=1), lambda n: timedelta(microseconds=n)),
    Decimal: ("$decimal", str, Decimal),
    bytes: ("$hex", bytes.hex, bytes.fromhex),
}
"""How values that JSON has not are written: the name that marks them, and there and back."""


def _plain(entity: Any) -> Any:
    """An entity as JSON has it.

    Raises:
        DefinitionError: If a value is of a type that cannot be written down.
    """
    if isinstance(entity, _Row):
        return {name: _plain(value) for name, value in entity}
    if isinstance(entity, tuple):
        return [_plain(value) for value in entity]
    if entity is None or isinstance(entity, str | int | float):
        return entity
    for kind, (mark, write, _) in _TEXTS.items():
        if type(entity) is kind:
            return {mark: write(entity)}
    raise DefinitionError(
        f"the entity {entity!r} is a {type(entity).__name__}, which cannot be written down", "name it by a plain value."
    )


def _unplain(entity: Any) -> Any:
    if isinstance(entity, list):
        return tuple(_unplain(value) for value in entity)
    if isinstance(entity, Mapping):
        for mark, _, read in _TEXTS.values():
            if set(entity) == {mark}:
                return read(entity[mark])
        return {name: _unplain(value) for name, value in entity.items()}
    return entity


def _hashable(entity: Any) -> Any:
    if isinstance(entity, Mapping):
        return _Row(entity.items())
    return tuple(entity) if isinstance(entity, list) else entity
