"""A source of your own: two Python functions, one that fetches and one that parses."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, cast

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingestion.errors import PayloadError, SourceError
from ingestion.sources.base import Fetched, Payload, Progress

Fetch = Callable[..., Fetched]
Parse = Callable[[Payload], pl.DataFrame]


class PythonSource(BaseModel):
    """Two functions of a module that can be imported.

    Attributes:
        kind: `python`.
        fetch: `module:function`, called as `fetch(progress, now=..., environment=..., **options)`; it returns a `Fetched`.
        parse: `module:function`, called as `parse(payload)`; it returns the rows and does nothing else.
        options: What else `fetch` is called with.
        environment: The environment variables that `fetch` may see.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["python"] = "python"
    fetch: str
    parse: str
    options: dict[str, Any] = Field(default_factory=dict)
    environment: tuple[str, ...] = ()

    @field_validator("fetch", "parse")
    @classmethod
    def _is_a_place(cls, place: str) -> str:
        """The place, if it can be one.

        Raises:
            ValueError: If it is not `module:function`.
        """
        module, colon, function = place.partition(":")
        if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f'{place!r} is no place of a function; write "module:function".')
        return place

    def open(self, provider_name: str, environment: Mapping[str, str]) -> OpenPythonSource:
        """The source, its functions imported.

        Raises:
            SourceError: If a function cannot be imported, or an environment variable is not set.
        """
        missing = [name for name in self.environment if name not in environment]
        if missing:
            raise SourceError(
                provider_name,
                self.fetch,
                f"environment variable {missing[0]} is not set",
                f"set it before the job starts: export {missing[0]}=...",
            )
        return OpenPythonSource(
            provider_name,
            self,
            cast("Fetch", _import(self.fetch, provider_name)),
            cast("Parse", _import(self.parse, provider_name)),
            {name: environment[name] for name in self.environment},
        )


class OpenPythonSource:
    """A `PythonSource` at work. Whatever its functions raise is told as a failure of the source."""

    kind = "python"

    def __init__(
        self, provider: str, declared: PythonSource, fetch: Fetch, parse: Parse, environment: Mapping[str, str]
    ) -> None:
        self._provider = provider
        self._declared = declared
        self._fetch = fetch
        self._parse = parse
        self._environment = environment

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        """What the function fetches.

        Raises:
            SourceError: If it raises, or returns something else.
        """
        place = self._declared.fetch
        try:
            fetched = self._fetch(progress, now=now, environment=self._environment, **self._declared.options)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(self._provider, place, self._redacted(f"{type(error).__name__}: {error}")) from error
        if not isinstance(fetched, Fetched):
            raise SourceError(self._provider, place, f"it returned {type(fetched).__name__}", "return a Fetched(...).")
        return fetched

    def parse(self, payload: Payload) -> pl.DataFrame:
        """The rows that the function finds.

        Raises:
            PayloadError: If it raises, or returns something else.
        """
        place = self._declared.parse
        try:
            rows = self._parse(payload)
        except PayloadError:
            raise
        except Exception as error:
            raise PayloadError(self._provider, place, self._redacted(f"{type(error).__name__}: {error}")) from error
        if not isinstance(rows, pl.DataFrame):
            raise PayloadError(self._provider, place, f"it returned {type(rows).__name__}", "return a polars frame.")
        return rows

    def close(self) -> None:
        """Nothing to give back."""

    def _redacted(self, text: str) -> str:
        for secret in filter(None, self._environment.values()):
            text = text.replace(secret, "***")
        return text


def _import(place: str, provider: str) -> object:
    """The function at `module:function`.

    Raises:
        SourceError: If it is not there.
    """
    module, _, function = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SourceError(provider, place, str(error), "is its folder on PYTHONPATH?") from error
    if not callable(found):
        raise SourceError(provider, place, f"it is {type(found).__name__}, not a function")
    return cast("object", found)
