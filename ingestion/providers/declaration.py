"""What every part of a declaration has in common: no unknown fields, nothing changes afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from ingestion.errors import DefinitionError
from ingestion.instants import duration_us

_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1))


class Declaration(BaseModel):
    """A part of a declaration; a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _text(value: Any) -> Any:
    """A `timedelta` as text; a bare number has no unit.

    Raises:
        ValueError: If it is a number.
    """
    if isinstance(value, timedelta):
        length = value // timedelta(microseconds=1)
        unit, size = next((unit, size) for unit, size in _UNITS if length % size == 0)
        return f"{length // size}{unit}"
    if isinstance(value, int | float):
        raise ValueError(f'{value!r} has no unit; write a number and a unit (us, ms, s, m, h, d, w), e.g. "{value}m".')  # noqa: TRY004 - pydantic reports ValueErrors
    return value


def _duration(text: str) -> str:
    """The text, if it is a duration.

    Raises:
        ValueError: If it is none.
    """
    try:
        duration_us(text, "duration")
    except DefinitionError as error:
        raise ValueError(f"{text!r} is not a duration; {error.hint}") from error
    return text.strip()


def _positive(text: str) -> str:
    """The text, if it is a duration above zero.

    Raises:
        ValueError: If it is none, or zero.
    """
    if duration_us(_duration(text), "duration") == 0:
        raise ValueError(f'{text!r} is no time at all; write how long, e.g. "10m".')
    return text.strip()


Duration = Annotated[str, BeforeValidator(_text), AfterValidator(_duration)]
"""Text such as `"5s"` or `"1h30m"`, or a `timedelta`; a day is 24 h."""

PositiveDuration = Annotated[str, BeforeValidator(_text), AfterValidator(_positive)]
"""A duration above zero."""
