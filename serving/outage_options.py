"""Outages as options of commands: how `--outage` is written, and files of outages."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

import alignment as al
from alignment.durations import parse_duration
from alignment.heartbeats import provider_of
from serving.cli_log import instant
from serving.errors import OptionError

FORM: Final = "PROVIDER,FROM,TO[,lost|,slow=3][,entity=dune]"
HELP: Final = f"{FORM}: FROM is an instant, TO another one or a duration. Or @FILE: JSON of such outages. Repeatable."
_SHOWN: Final = 8
EXAMPLE: Final = "--outage meter,2026-06-01T08:00Z,4h"


def parse_outages(given: Iterable[str] | None, views: Sequence[al.FeatureView] = ()) -> list[al.Outage]:
    """The outages that the `--outage` options of a command mean, in their order.

    Args:
        given: Each as `parse_outage` reads it, or `@FILE`: a file with the JSON of one outage or a list of them, e.g. what
            `asknown outages ROOT PROVIDER --json` printed.
        views: Where given, entities that are named by texts get the types of these views' entity columns.

    Raises:
        OptionError: If one cannot be read, or names an entity that the views cannot have, or have no rows of.

    Example:
        >>> found = parse_outages(["meter,2026-06-01T08:00Z,4h", "mast,2026-06-01T08:00Z,90m,lost"])
        >>> [(outage.provider, outage.end.isoformat()) for outage in found]
        [('meter', '2026-06-01T12:00:00+00:00'), ('mast', '2026-06-01T09:30:00+00:00')]
    """
    found = [outage for text in given or () for outage in (_read(text) if text[:1] == "@" else [parse_outage(text)])]
    by_provider = {provider_of(view): view.observations for view in views}
    fitted = [_fitted(outage, by_provider.get(outage.provider)) for outage in found]
    for outage in fitted:
        _check_entities(outage, [view.observations for view in views if provider_of(view) == outage.provider])
    return fitted


def parse_outage(text: str, *, now: datetime | None = None) -> al.Outage:
    """The outage that one text means.

    Args:
        text: `PROVIDER,FROM,TO`, `FROM` an instant with a zone and `TO` another one or a duration such as `4h`; then, after
            further commas, `lost` or `slow=3`, and `entity=dune` for each entity that alone is concerned (of several entity
            columns `entity=site=dune/panel=7`). Or a JSON object as `al.Outage.to_dict` makes them.
        now: Where given, `FROM` may be a duration too: so long after it.

    Raises:
        OptionError: If it is none.

    Example:
        >>> parse_outage("meter,2026-06-01T08:00Z,2026-06-01T12:00Z,lost,entity=dune")
        Outage('meter', 2026-06-01T08:00:00+00:00, 2026-06-01T12:00:00+00:00, lost, entities=['dune'])
    """
    if text.lstrip().startswith("{"):
        return _from_json(text, _json(text, text))
    provider, *rest = (part.strip() for part in text.split(","))
    if not provider or len(rest) < 2:
        raise OptionError(f"--outage {text!r} is not an outage", f"write --outage {FORM}, e.g. {EXAMPLE}")
    start = _instant(rest[0], text, "FROM", now)
    end = _instant(rest[1], text, "TO", start)
    fields: dict[str, Any] = {}
    for part in rest[2:]:
        name, _, value = part.partition("=")
        if part == "lost":
            fields["lost"] = True
        elif name == "slow" and value:
            fields["slow"] = _factor(value, text)
        elif name == "entity" and value:
            fields.setdefault("entities", []).append(_entity(value))
        else:
            raise OptionError(f"--outage {text!r}: {part!r} means nothing", "it is lost, slow=3 or entity=dune")
    try:
        return al.Outage(provider, start, end, **fields)
    except al.AlignmentError as error:
        raise OptionError(f"--outage {text!r}: {error.problem}", error.hint) from error


def _instant(word: str, text: str, what: str, after: datetime | None) -> datetime:
    """An instant, or one so long after another.

    Raises:
        OptionError: If it is neither.
    """
    if after is None or "-" in word or ":" in word:
        try:
            return instant(word, f"--outage {text!r}: {what}")
        except OptionError as error:
            raise OptionError(error.problem, f"write --outage {_in_utc(text)}") from error
    try:
        return after + timedelta(microseconds=parse_duration(word, what, allow_zero=what == "FROM").total_us)
    except al.DurationError as error:
        hint = f"an instant such as 2026-06-01T12:00Z, or a duration such as 4h, e.g. {EXAMPLE}"
        raise OptionError(f"--outage {text!r}: {error.problem}", hint) from error


def _in_utc(text: str) -> str:
    """The outage as it would be written were its instants without a zone in UTC; an example where one is no instant."""
    provider, *rest = text.split(",")
    found = [provider.strip()]
    for place, word in enumerate(part.strip() for part in rest):
        try:
            moment = datetime.fromisoformat(word) if place < 2 else None
        except ValueError:
            if place == 0 or ":" in word:
                return f"{FORM}, e.g. {EXAMPLE}"
            moment = None
        found.append(word if moment is None or moment.tzinfo is not None else f"{moment.isoformat()}Z")
    return ",".join(found)


def _factor(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise OptionError(
            f"--outage {text!r}: {value!r} is not a number", "slow=3 makes delays three times as long"
        ) from error


def _entity(value: str) -> Any:
    """A text as it is; `site=dune/panel=7` as a mapping."""
    if "=" not in value:
        return value
    return {name: word for name, _, word in (part.partition("=") for part in value.split("/"))}


def _read(text: str) -> list[al.Outage]:
    path = Path(text[1:])
    try:
        told = _json(path.read_text(encoding="utf-8"), text)
    except OSError as error:
        raise OptionError(f"--outage {text!r} cannot be read: {error.strerror}", f"or write {EXAMPLE}") from error
    return [_from_json(text, fields) for fields in (told if isinstance(told, list) else [told])]


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise OptionError(f"--outage {place!r} is not JSON: {error}", f"or write --outage {FORM}") from error


def _from_json(place: str, told: Any) -> al.Outage:
    """See `al.Outage.from_dict`; what else is in the object is left alone.

    Raises:
        OptionError: If it is no such object.
    """
    try:
        for name in ("start", "end"):
            instant(told[name], f"--outage {place!r}: {name!r}")
        return al.Outage.from_dict(told)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else "a field is of the wrong type"
        example = '{"provider": "meter", "start": "2026-06-01T08:00Z", "end": "2026-06-01T12:00Z", "lost": true}'
        raise OptionError(f"--outage {place!r} is not an outage: {what}", f"e.g. {example}") from error
    except al.AlignmentError as error:
        raise OptionError(f"--outage {place!r}: {error.problem}", error.hint) from error


def _fitted(outage: al.Outage, rows: al.Observations | None) -> al.Outage:
    """The outage with entities of the types that the observations have; texts are all that a command line knows."""
    if rows is None or outage.entities is None:
        return outage
    schema = {name: rows.schema[name] for name in rows.entities}
    fitted = [_typed(one, schema, outage) for one in outage.named]
    return al.Outage(outage.provider, outage.start, outage.end, lost=outage.lost, slow=outage.slow, entities=fitted)


def _check_entities(outage: al.Outage, sent: Sequence[al.Observations]) -> None:
    """Refuse an entity of which the provider sent nothing: the outage would concern nobody, and nobody would notice.

    Raises:
        OptionError: If there is one.
        AlignmentError: If its columns are not those of the observations.
    """
    if outage.entities is None:
        return
    there = [
        (rows, rows.lazy().select(rows.entities).unique().drop_nulls().collect()) for rows in sent if rows.entities
    ]
    if not any(known.height for _, known in there):
        return
    for one in outage.entities:
        alone = al.Outage(outage.provider, outage.start, outage.end, entities=[one])
        if any(alone.concerns(known, rows.entities, rows.place).any() for rows, known in there):
            continue
        names = sorted({"/".join(map(str, row)) for _, known in there for row in known.iter_rows()})
        asked = alone.to_dict()["entities"][0]
        own = asked.values() if isinstance(asked, Mapping) else asked if isinstance(asked, list) else [asked]
        said = "/".join(map(str, own))
        close = difflib.get_close_matches(said, names, n=1, cutoff=0.6)
        listed = f"there are {', '.join(map(repr, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''}"
        raise OptionError(
            f"--outage: the outage of {outage.provider!r} names the entity {said!r}, of which there are no rows",
            f"did you mean {close[0]!r}? {listed[0].upper()}{listed[1:]}" if close else listed,
        )


def _typed(entity: Any, schema: Mapping[str, pl.DataType], outage: al.Outage) -> Any:
    if isinstance(entity, Mapping):
        return {name: _value(value, name, schema.get(name), outage) for name, value in entity.items()}
    if isinstance(entity, tuple):
        return tuple(_value(value, name, schema[name], outage) for name, value in zip(schema, entity, strict=False))
    return _value(entity, next(iter(schema), ""), next(iter(schema.values()), None), outage)


def _value(value: Any, name: str, kind: pl.DataType | None, outage: al.Outage) -> Any:
    if not isinstance(value, str) or kind is None or kind in (pl.String, pl.Categorical, pl.Enum):
        return value
    try:
        if kind == pl.Boolean:
            return {"true": True, "false": False}[value.lower()]
        return date.fromisoformat(value) if kind == pl.Date else pl.Series([value]).cast(kind)[0]
    except (pl.exceptions.PolarsError, KeyError, ValueError) as error:
        raise OptionError(
            f"--outage of {outage.provider!r}: the entity {value!r} cannot be a value of {name!r}, which is {kind}",
            "name one that is in the observations",
        ) from error
