"""What an address asks: the entity, the instant, the window of the picture. What is wrong with it is said, with the fix."""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

import polars as pl

from alignment.durations import parse_duration
from alignment.errors import DurationError
from serving.http.refusals import RefusalError, shown
from serving.pages.plain import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import alignment as al

_EXAMPLE: Final = "2026-06-01T12:00:00Z"
_MOST_SECONDS: Final = 253_402_300_799  # the year 9999
_LONGEST: Final = timedelta(days=3_660)


class Query:
    """The part of an address after `?`.

    Args:
        text: That part.
    """

    def __init__(self, text: str) -> None:
        self._pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50)

    def text(self, **others: str) -> str:
        """That part again, with `?`, some of its values being others; empty where it asks nothing."""
        return address("", [(name, others.get(name, value)) for name, value in self._pairs])

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return [value for known, value in self._pairs if known == name]

    def one(self, name: str) -> str | None:
        """The last value of that name; None if there is none, or it is empty."""
        return next((value for known, value in reversed(self._pairs) if known == name and value), None)

    def instant(self, name: str) -> datetime | None:
        """An instant, in ISO 8601 with a zone, or in whole seconds since 1970 as a slider gives it.

        Raises:
            RefusalError: If it is none.
        """
        text = self.one(name)
        if text is None:
            return None
        if text.isdecimal() and text.isascii() and int(text) <= _MOST_SECONDS:
            return datetime.fromtimestamp(int(text), UTC)
        try:
            found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
            if found.tzinfo is None:
                raise RefusalError(
                    400, f"{name}={shown(text)} has no zone", f"write {name}={found.isoformat()}Z for UTC."
                )
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise RefusalError(400, f"{name}={shown(text)} is not an instant", f"write {name}={_EXAMPLE}") from None

    def length(self, name: str) -> timedelta | None:
        """A length of time, such as `6h`.

        Raises:
            RefusalError: If it is none, or longer than ten years.
        """
        text = self.one(name)
        if text is None:
            return None
        try:
            found = timedelta(microseconds=parse_duration(text, name).total_us)
        except (DurationError, OverflowError):
            raise RefusalError(400, f"{name}={shown(text)} is not a length of time", f"write {name}=6h") from None
        if found > _LONGEST:
            raise RefusalError(400, f"{name}={shown(text)} is more than ten years", f"write {name}=365d")
        return found


def read_entity(query: Query, view: al.FeatureView) -> dict[str, Any] | None:
    """The entity that an address names, with values of the observations' types; None if it names none.

    With one entity column `entity=mast` will do; with several each is named: `entity=site=north&entity=device=d1`.

    Raises:
        RefusalError: If a column is missing or unknown, or a value is not of its type.
    """
    names = view.spine_entities
    given = [text for text in query.all("entity") if text]
    if not names:
        return {}
    if not given:
        return None
    texts: dict[str, str] = {}
    for text in given:
        column, equals, value = text.partition("=")
        if equals and column in names:
            texts[column] = value
        elif len(names) == 1:
            texts[names[0]] = text
        else:
            raise RefusalError(
                400,
                f"entity={shown(text)} does not say which column it is a value of",
                f"write entity={names[0]}=VALUE",
            )
    missing = [name for name in names if name not in texts]
    if missing:
        raise RefusalError(
            400, f"the entity lacks {missing[0]!r}", "write " + "&".join(f"entity={name}=VALUE" for name in names)
        )
    types = dict(zip(names, view.observations.entities, strict=True))
    return {name: _typed(texts[name], view.observations.schema[types[name]], name) for name in names}


def _typed(text: str, dtype: pl.DataType, name: str) -> Any:
    """A text as a value of a column.

    Raises:
        RefusalError: If it is none.
    """
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return text
    try:
        if dtype == pl.Boolean:
            return {"true": True, "false": False}[text.lower()]
        if dtype == pl.Date:
            return date.fromisoformat(text)
        if dtype == pl.Datetime:
            return datetime.fromisoformat(text)
        return pl.Series([text]).cast(dtype).item()
    except (pl.exceptions.PolarsError, KeyError, ValueError):
        raise RefusalError(
            400, f"{name}={shown(text)} is not a {dtype}, as the observations have it", "name one of the entities."
        ) from None


class UnknownNameError(RefusalError):
    """A name that there is not; the nearest that there is goes with it.

    Args:
        what: What it should be the name of.
        name: The name.
        known: The names that there are.
        where: Where.

    Attributes:
        what: As given.
        close: The nearest name; None if none is near.
    """

    def __init__(self, what: str, name: str, known: Iterable[str], where: str) -> None:
        names = list(known)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {some}." if names else f"{where} has none yet."
        self.what, self.close = what, close[0] if close else None
        super().__init__(404, f"there is no {what} {shown(name)} in {where}", hint)


def entity_words(entity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An entity as an address names it."""
    texts = {name: iso(value) if isinstance(value, datetime) else str(value) for name, value in entity.items()}
    if len(texts) == 1:
        ((name, text),) = texts.items()
        return [("entity", f"{name}={text}" if not text or text.startswith(f"{name}=") else text)]
    return [("entity", f"{name}={text}") for name, text in texts.items()]


def entity_text(entity: Mapping[str, Any]) -> str:
    """An entity for people."""
    return ", ".join(f"{name} {value}" for name, value in entity.items()) or "the one series"


def length_text(length: timedelta) -> str:
    """A length of time as an address names it: by the largest unit that divides it."""
    return parse_duration(length, "length").text


def address(path: str, words: Iterable[tuple[str, str | None]]) -> str:
    """A path with what it asks; parts that are None are left out."""
    given = urlencode([(name, value) for name, value in words if value is not None])
    return f"{path}?{given}" if given else path
