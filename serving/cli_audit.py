"""`asknown audit`: is what was served what training says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving import render
from serving.cli_log import Json, Root, StorageOption, instant, storage_options
from serving.declarations import read_declarations

NO = 1


def audit(
    root: Root,
    views: Annotated[
        Path | None,
        typer.Option(help="Python file that declares the views; without it they are made as they were kept."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Leave out what was served before this instant.")] = None,
    until: Annotated[str | None, typer.Option(help="Leave out what was served at this instant or later.")] = None,
    sample: Annotated[float, typer.Option(help="Share of the served vectors to look at.", min=0.0, max=1.0)] = 1.0,
    engine: Annotated[str, typer.Option(help="local, or duckdb: the rules stated a second time.")] = "local",
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Hold every served vector against training, as it was served and as is known now; exits with 1 if one differs.

    At the (t, position) of the answer they must be equal bit for bit. At the log's head they may differ only by rows that came
    after the answer, and each of these is named.
    """
    from serving.served import audit as hold

    report = hold(
        root,
        views=[] if views is None else read_declarations(views).views,
        since=None if since is None else instant(since, "--since"),
        until=None if until is None else instant(until, "--until"),
        sample=sample,
        engine=engine,
        storage_options=storage_options(storage_option),
    )
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(NO)
