"""Answers for an entity frame, one Feast view after the other, by the one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

import polars as pl

import alignment as al
from serving.errors import OptionError
from serving.feast_support.translated import DELAY

if TYPE_CHECKING:
    from ingestion import ObservationLog
    from serving.feast_support.entity_frames import Asked
    from serving.feast_support.translated import Translated

_T: Final = "__asknown_t"


def evaluate(views: Iterable[Translated], asked: Asked, *, engine: str) -> list[list[pl.Series]]:
    """The features of each view, in the order of the entity frame.

    Views over one log are answered at one position, that at which the first was.

    Args:
        views: What to compute.
        asked: For whom, and when.
        engine: Which engine computes.

    Raises:
        OptionError: If it is unknown when a row arrived.
        AlignmentError: If rows or keys cannot be used otherwise.
        FeastEntityDFMissingColumnsError: If the entity frame lacks a join key.
    """
    positions: dict[str, int] = {}
    found = []
    for item in views:
        log = cast("ObservationLog | None", item.view.observations.source)
        position = None if log is None else positions.setdefault(log.address, log.position())
        with arrivals_known(item.view.name):
            answers = al.point_in_time_join(
                _spine(item, asked), item.view, engine=engine, prediction_time=_T, positions=position
            )
        found.append([answers[item.view.column_name(feature)] for feature in item.view.features])
    return found


@contextmanager
def arrivals_known(whose: str) -> Iterator[None]:
    """Say in Feast's words that rows do not say when they arrived.

    Args:
        whose: The view or source that they are of.

    Raises:
        OptionError: If an arrival is null, and there is no delay rule (R13).
    """
    try:
        yield
    except al.UnknownArrivalError as error:
        raise OptionError(
            f"{whose!r}: when some rows arrived is unknown, since their created timestamp is null",
            f'say how late they were: tags={{"{DELAY}": "45m"}}; or drop them.',
        ) from error


def _spine(item: Translated, asked: Asked) -> pl.DataFrame:
    schema = item.view.observations.schema
    observed = dict(zip(item.view.spine_entities, item.view.observations.entities, strict=True))
    keys = [_key(asked.column(alias), schema[observed[own]]).alias(own) for own, alias in item.keys.items()]
    return pl.DataFrame([asked.t.alias(_T), *keys])


def _key(values: pl.Series, kind: pl.DataType) -> pl.Series:
    """Whole floats are integers where the source has integers: pandas has no other way to hold a missing one."""
    if values.dtype.is_float() and kind.is_integer() and values.is_finite().all() and (values == values.floor()).all():
        return values.cast(pl.Int64)
    return values
