"""`asknown explain`: which observations made a value, which did not, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

import alignment as al
from serving import delay_options, outage_options, render
from serving.cli_dataset import AsOf, Views
from serving.cli_log import Json, instant
from serving.declarations import read_declarations
from serving.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXT_ROWS = 12


def explain(
    views: Views,
    at: Annotated[str, typer.Option(help="The prediction time: 2026-06-01T12:00:00Z.")],
    entity: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE; once for each entity column, not at all for one series.")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="Only this feature, such as weather__temp; may be repeated.")
    ] = None,
    as_of: AsOf = None,
    position: Annotated[
        list[str] | None,
        typer.Option(help="Log position to answer at: a number for all views, or VIEW=NUMBER; may be repeated."),
    ] = None,
    outage: Annotated[list[str] | None, typer.Option(help=outage_options.HELP)] = None,
    delay: Annotated[list[str] | None, typer.Option(help=delay_options.HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of fitted delay rules; by default their own.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most unused rows shown for each reason.")] = 3,
    html: Annotated[Path | None, typer.Option(help="Also write it as one HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Say which observations made the features of an entity at an instant, which did not, and why.

    Outages and delays can be invented, as for `asknown replay`.
    """
    declared = read_declarations(views)
    moved = al.transform_arrivals(
        declared.views,
        outages=outage_options.parse_outages(outage, declared.views),
        delays=delay_options.parse_delays(delay),
        seed=seed,
    )
    explanation = al.explain(
        moved,
        entity_of(declared.views, entity or []),
        instant(at, "--at"),
        features=feature or None,
        as_of=None if as_of is None else instant(as_of, "--as-of"),
        position=positions_of(position or [], declared.views),
    )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(explanation.to_html(unused=rows), encoding="utf-8")
        render.say(f"explanation -> {html}")
    if as_json:
        render.as_json(explanation.to_dict(unused=rows))
    else:
        typer.echo(explanation.to_text(used=_TEXT_ROWS, unused=rows))


def entity_of(views: Sequence[al.FeatureView], given: Sequence[str]) -> dict[str, Any]:
    """The entity that was asked for, its values in the types of the observations.

    Args:
        views: Views that name the columns.
        given: `COLUMN=VALUE` texts.

    Returns:
        Column to value.

    Raises:
        OptionError: If one has no `=`, names no entity column, or holds no value of the column's type.
    """
    kinds: dict[str, pl.DataType] = {}
    for view in views:
        for asked, observed in zip(view.spine_entities, view.observations.entities, strict=True):
            kinds.setdefault(asked, view.observations.schema[observed])
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in kinds:
            columns = ", ".join(kinds) or "none: the views are one series, leave --entity out"
            raise OptionError(
                f"--entity {text!r} names no entity column", f"write COLUMN=VALUE; the columns are {columns}"
            )
        found[name] = _value(text, value, kinds[name])
    if missing := [name for name in kinds if name not in found]:
        raise OptionError(f"the entity column {missing[0]!r} has no value", f"add --entity {missing[0]}=VALUE")
    return found


def _value(text: str, value: str, kind: pl.DataType) -> Any:
    if kind == pl.Boolean and value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return pl.Series([value]).cast(kind)[0]
    except pl.exceptions.PolarsError as error:
        raise OptionError(
            f"--entity {text!r}: {value!r} is no {kind}", "write the value as the observations have it"
        ) from error


def positions_of(given: Sequence[str], views: Sequence[al.FeatureView] = ()) -> int | Mapping[str, int] | None:
    """The log positions that were asked for.

    Args:
        given: Numbers, or `VIEW=NUMBER` texts.
        views: Where given, the names must be theirs.

    Returns:
        One for all views, one by view name, or None.

    Raises:
        OptionError: If one is no number or names no view, or a number for all comes with others.
    """
    found: dict[str, int] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or (not name and len(given) > 1):
            raise OptionError(
                f"--position {text!r} is no position", "write --position 41, or --position weather=41 for each view"
            )
        if name and views and name not in [view.name for view in views]:
            known = ", ".join(repr(view.name) for view in views)
            raise OptionError(f"--position {text!r} names no view", f"the views are {known}")
        found[name] = int(number)
    return found.get("", found or None)
