"""What the declarations of all sources share: strict models, durations, where credentials come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from ingestion.errors import DefinitionError, SourceError
from ingestion.instants import duration_us

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", flags=re.ASCII)


def variable_name(name: str) -> str:
    """The name, if it is that of an environment variable; a secret in its place is seldom in capitals.

    Raises:
        ValueError: If it is none; it does not repeat what may be the secret.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError("name an environment variable (capital letters, digits, _), never the value itself")
    return name


Variable = Annotated[str, AfterValidator(variable_name)]
"""The name of an environment variable."""


class SourceSettings(BaseModel):
    """A part of a source's declaration: no unknown fields, and wrong values are not repeated, they may be secret.

    Fields called `..._env` hold names of environment variables, alone, in a list, or as the values of a mapping.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _names_variables(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and (info.field_name or "").endswith("_env"):
            names = value.values() if isinstance(value, Mapping) else [value] if isinstance(value, str) else value
            for name in names:
                variable_name(name)
        return value


def _text(value: Any) -> Any:
    return f"{value // timedelta(microseconds=1)}us" if isinstance(value, timedelta) else value


def _duration(text: str) -> str:
    """The text, if it is a duration.

    Raises:
        ValueError: If it is none.
    """
    try:
        duration_us(text, "duration")
    except DefinitionError as error:
        raise ValueError(f"{text!r} is not a duration; {error.hint}") from None
    return text.strip()


Duration = Annotated[str, BeforeValidator(_text), AfterValidator(_duration)]
"""Text such as `"5s"` or `"1h30m"`, or a `timedelta`; a day is 24 h."""


def _zone(name: str) -> str:
    """The name, if it is that of a zone.

    Raises:
        ValueError: If it is none.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not an IANA time zone, such as 'Europe/Berlin'") from None
    return name


Zone = Annotated[str, AfterValidator(_zone)]
"""The name of an IANA time zone."""


def length_of(text: str) -> timedelta:
    """A duration as a `timedelta`."""
    return timedelta(microseconds=duration_us(text, "duration"))


def seconds_of(text: str) -> float:
    """A duration in seconds."""
    return duration_us(text, "duration") / 1e6


def from_environment(name: str, environment: Mapping[str, str], *, provider: str, place: str) -> str:
    """The value of an environment variable.

    Raises:
        SourceError: If it is not set, or empty.
    """
    value = environment.get(name, "")
    if not value:
        raise SourceError(
            provider,
            place,
            f"environment variable {name} is not set",
            f"set it before the job starts: export {name}=...",
        )
    return value
