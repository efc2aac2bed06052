"""Which source of a feature answers, and which variant of a service: decided here and nowhere else (R20).

Training sets ask with arrays over the rows of a spine, a server with arrays over the entities of one request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from alignment.durations import Duration
from alignment.heartbeats import Bools, is_down, is_stale
from alignment.status import STATUS
from alignment.wallclock import Instants

Codes = npt.NDArray[np.uint8]
CODE_OF: Final = {name: code for code, name in enumerate(STATUS.categories)}
"""The code of each status."""
PRESENT: Final = CODE_OF["present"]
NULL: Final = CODE_OF["null"]

FITS, IS_DOWN, IS_STALE, IS_OLD = range(4)
"""What is wrong with a provider that a variant needs."""


def choose_source(sources: Sequence[tuple[Codes, Bools] | None], *, skip_null: bool = False) -> npt.NDArray[np.int8]:
    """Per row the first source whose provider is up and which has an answer; the first of all if there is none.

    A null is an answer, because a provider said so; what is expired, retracted or missing is none.

    Args:
        sources: In order of preference, per row the status as a code and whether the provider is down; None is a constant,
            which always answers.
        skip_null: Pass over nulls too.

    Returns:
        The place of the source in `sources`. Shape: (rows,).

    Example:
        >>> status = np.array([CODE_OF["present"], CODE_OF["expired"], CODE_OF["present"]], np.uint8)
        >>> choose_source([(status, np.array([False, False, True])), None]).tolist()
        [0, 1, 1]
    """
    rows = next((len(source[0]) for source in sources if source is not None), 1)
    return _first([_answers(source, rows, skip_null=skip_null) for source in sources], rows, none=0)


def _answers(source: tuple[Codes, Bools] | None, rows: int, *, skip_null: bool) -> Bools:
    if source is None:
        return np.ones(rows, np.bool_)
    status, down = source
    answered = status == PRESENT if skip_null else (status == PRESENT) | (status == NULL)
    return np.asarray(answered & ~down, np.bool_)


def problem_of(
    last: Instants,
    t: Instants,
    down_after_us: int | None,
    max_age: Duration | None = None,
    *,
    newest: Instants | None = None,
    max_event_age: Duration | None = None,
) -> Codes:
    """What is wrong with a needed provider: `FITS`, `IS_DOWN`, `IS_STALE` or `IS_OLD` per instant.

    Args:
        last: Last heartbeat at each instant.
        t: The instants, microseconds.
        down_after_us: Silence after which it is down; None if it never is.
        max_age: Greatest age of the last heartbeat that the variant accepts; None accepts any.
        newest: Newest event that is known at each instant.
        max_event_age: Greatest age of that event that the variant accepts; None accepts any.
    """
    found = np.full(len(t), FITS, np.uint8)
    if newest is not None and max_event_age is not None:
        found[is_stale(newest, t, max_event_age.total_us)] = IS_OLD
    if max_age is not None:
        found[is_stale(last, t, max_age.total_us)] = IS_STALE
    if down_after_us is not None:
        found[is_down(last, t, down_after_us)] = IS_DOWN
    return found


def choose_variant(problems: Sequence[Mapping[str, Codes]], rows: int) -> npt.NDArray[np.int8]:
    """Per row the first variant that has nothing wrong with any provider it needs; -1 if there is none.

    Args:
        problems: In order of preference, for each variant what is wrong with each provider it needs.
        rows: How many rows there are.

    Example:
        >>> down = np.array([FITS, IS_DOWN], np.uint8)
        >>> choose_variant([{"satellite": down}, {}], 2).tolist()
        [0, 1]
    """
    fits = []
    for needed in problems:
        good = np.ones(rows, np.bool_)
        for problem in needed.values():
            good &= problem == FITS
        fits.append(good)
    return _first(fits, rows, none=-1)


def _first(fits: Sequence[Bools], rows: int, *, none: int) -> npt.NDArray[np.int8]:
    chosen = np.full(rows, none, np.int8)
    for place in range(len(fits) - 1, -1, -1):
        chosen[fits[place]] = place
    return chosen
