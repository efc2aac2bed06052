"""`asknown label-maturity`: how long until labels settle, and which release follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import alignment as al
import ingestion
from serving import render
from serving.cli_log import Json, Provider, Root, StorageOption, instant, storage_options
from serving.errors import MissingExtraError
from serving.files import check_picture


def label_maturity(
    root: Root,
    provider: Provider,
    column: Annotated[str, typer.Argument(help="The column that is to be a label.")],
    within: Annotated[
        str, typer.Option(help="Settled is a value this near to its final one: 1%, or 0.5 in the column's unit.")
    ] = "1%",
    share: Annotated[float, typer.Option(help="Share of events that the recommended release waits for.")] = 0.95,
    as_of: Annotated[
        str | None, typer.Option(help="Pretend nothing arrived later; ISO 8601 with zone. The last arrival by default.")
    ] = None,
    horizon: Annotated[str | None, typer.Option(help="The label's horizon, which the embargo then includes.")] = None,
    watched: Annotated[
        str | None, typer.Option(help="Leave out events younger than this; by default twice as long as settling takes.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as one HTML file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw it, to this .png, .svg or .pdf.")] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show how long a column's values are revised after their event, and what training on them earlier costs."""
    check_picture(picture)
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    report = al.label_maturity(
        al.Observations(log),
        column,
        within=within,
        share=share,
        as_of=None if as_of is None else instant(as_of, "--as-of"),
        horizon=horizon,
        watched=watched,
    )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(report.to_html(), encoding="utf-8")
        render.say(f"report -> {html}")
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        try:
            report.plot().savefig(picture, dpi=150)
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot", "--picture") from error
        render.say(f"picture -> {picture}")
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))
