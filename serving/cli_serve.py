"""`asknown serve`: the features of a views file over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli_dataset import Views
from serving.cli_log import StorageOption, storage_options
from serving.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from serving.http import HttpSettings

MOST_PORT = 65_535


def serve(
    views: Views,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port; 0 takes a free one.", min=0, max=MOST_PORT)] = 8320,
    workers: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=256)] = 1,
    providers: Annotated[
        Path | None, typer.Option(help="File that declares providers whose rows may be pushed; none by default.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Where the logs are that pushed rows go to; by default as that file says.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Local folder for pushed rows that are not in a log yet; by default beside the logs."),
    ] = None,
    served_log: Annotated[
        str | None, typer.Option(help="Folder of logs to write the answers to, for `asknown audit`; none by default.")
    ] = None,
    sample: Annotated[
        float | None, typer.Option(help="The share of the answers that is written; all by default.", min=0, max=1)
    ] = None,
    redis: Annotated[
        bool, typer.Option("--redis", help="Share the state in Redis, whose address is in ASKNOWN_REDIS_URL.")
    ] = False,
    max_behind: Annotated[str | None, typer.Option(help="How far behind the logs it may answer.")] = None,
    poll_every: Annotated[str | None, typer.Option(help="How often it looks for new commits.")] = None,
    max_body: Annotated[int | None, typer.Option(help="The greatest body of a question, bytes.", min=1)] = None,
    max_entities: Annotated[int | None, typer.Option(help="Rows of a question at most.", min=1)] = None,
    max_requests: Annotated[int | None, typer.Option(help="Requests at a time at most, per process.", min=1)] = None,
    drain: Annotated[
        float, typer.Option(help="Seconds for which it still answers after SIGTERM, while /readyz says 503.", min=0)
    ] = 1.0,
    stop_within: Annotated[float, typer.Option(help="Seconds that requests in flight have after that.", min=0)] = 10.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell more on standard error.")] = False,
    storage_option: StorageOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines as JSON, also on a terminal.")] = False,
) -> None:
    """Serve the features of a views file over HTTP until stopped: Feast's contract and ours, for this machine alone by default.

    Tokens come from ASKNOWN_READ_TOKEN, ASKNOWN_PUSH_TOKEN and ASKNOWN_ADMIN_TOKEN; what has none is open to this machine
    only. The first SIGTERM or SIGINT finishes what is under way, the second stops at once.
    """
    try:
        from serving import http
    except ImportError as error:
        raise MissingExtraError(error.name or "uvicorn", "serve", "serving over HTTP") from error
    if sample is not None and served_log is None:
        raise OptionError("--sample is about the served log", "say --served-log FOLDER too.")
    settings = http.HttpSettings(
        views=views,
        host=host,
        port=port,
        workers=workers,
        providers=providers,
        root=root,
        state=state,
        served_log=served_log,
        sample=1.0 if sample is None else sample,
        redis=redis,
        drain_seconds=drain,
        stop_within=stop_within,
        storage_options=storage_options(storage_option),
        as_json=True if as_json else None,
        verbose=verbose,
    )
    http.serve(_adjusted(settings, max_behind, poll_every, max_body, max_entities, max_requests))


def _adjusted(
    settings: HttpSettings,
    max_behind: str | None,
    poll_every: str | None,
    max_body: int | None,
    max_entities: int | None,
    max_requests: int | None,
) -> HttpSettings:
    """The settings with what was said on the command line.

    Raises:
        OptionError: If options do not fit each other.
    """
    if settings.providers is None and (settings.root is not None or settings.state is not None):
        raise OptionError("--root and --state are about pushed rows", "say --providers FILE too.")
    limits = {"body_bytes": max_body, "entities": max_entities, "together": max_requests}
    return replace(
        settings,
        online=replace(
            settings.online,
            max_behind=max_behind or settings.online.max_behind,
            poll_every=poll_every or settings.online.poll_every,
        ),
        limits=replace(settings.limits, **{name: value for name, value in limits.items() if value is not None}),
    )
