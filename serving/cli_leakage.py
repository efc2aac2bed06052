"""`asknown leak-report`: what a join on event time would have promised, per feature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import alignment as al
from serving import render
from serving.cli_dataset import AsOf, Spine, Views, spine_of
from serving.cli_log import Json, instant, words
from serving.declarations import read_declarations


def leak_report(
    views: Views,
    spine: Spine = None,
    as_of: AsOf = None,
    known: Annotated[
        str, typer.Option(help="Columns of the spine that the model may use too, comma separated: a calendar, say.")
    ] = "",
    test_from: Annotated[str | None, typer.Option(help="Train before this instant, score from it on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as one HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare each feature with what a join on event time would have made of it."""
    declared = read_declarations(views)
    moment = None if as_of is None else instant(as_of, "--as-of")
    report = al.leak_report(
        spine_of(declared, spine),
        declared.views,
        label=declared.label,
        as_of=moment,
        known_columns=words(known),
        test_from=None if test_from is None else instant(test_from, "--test-from"),
    )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(report.to_html(), encoding="utf-8")
        render.say(f"report -> {html}")
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))
