"""`asknown ui`: pages for people, over a folder of logs or the views of a file."""

from __future__ import annotations

from typing import Annotated

import typer

from serving import render
from serving.cli_log import StorageOption, storage_options
from serving.errors import MissingExtraError

MOST_PORT = 65_535


def ui(
    target: Annotated[
        str, typer.Argument(metavar="VIEWS.py|ROOT", help="File that declares `views`, or folder or address of logs.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port; 0 takes a free one.", min=0, max=MOST_PORT)] = 8322,
    storage_option: StorageOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines as JSON, also on a terminal.")] = False,
) -> None:
    """Show in a browser what providers deliver, and what was known when; for this machine alone by default.

    Given a views file, pages show its features and the logs that they read; given a folder of logs, the newest value of every
    column. With ASKNOWN_READ_TOKEN set, requests need that token. Stops at SIGTERM and SIGINT.
    """
    try:
        from serving import pages
    except ImportError as error:
        raise MissingExtraError(error.name or "jinja2", "ui", "the pages") from error
    site = pages.Site(target, storage_options=storage_options(storage_option))
    pages.serve_pages(
        site,
        pages.PagesSettings(host=host, port=port, as_json=True if as_json else None),
        started=lambda address: render.say(f"pages of {target}: {address}"),
    )
