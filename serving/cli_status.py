"""`asknown status`: how every provider is doing, from its log alone; live on a terminal."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import ingestion
from serving import render
from serving.cli_ingest import ROOT, File, LogRoot, Names, find_providers
from serving.cli_log import Json, StorageOption, storage_options
from serving.errors import NoLogsError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingestion.jobs import Status
    from ingestion.providers import Provider

NO = 1
READERS: Final = 4
_STYLES: Final = {"ok": "green", "overdue": "bold red", "failing": "yellow", "no log": "dim"}


def status(
    names: Names = None,
    file: File = None,
    root: LogRoot = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep on, until interrupted; for a terminal.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks of --watch.", min=0.2)] = 2.0,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show how providers are doing; exits with 1 if one is overdue.

    Reads the logs alone: no job needs to run. Without a file that declares providers all logs of --root are shown, and nobody
    knows what would be overdue.
    """
    options = storage_options(storage_option)
    providers, where = _whose(names, file, root, options)
    with ThreadPoolExecutor(READERS) as pool:

        def look() -> list[Status]:
            from ingestion.jobs import status_of

            now = ingestion.system_clock()
            return list(pool.map(lambda each: status_of(each, where, now=now, storage_options=options), providers))

        if watch and not as_json:
            _watch(look, every)
        found = look()
    if as_json:
        render.as_json([each.to_dict() for each in found])
    elif not watch:
        render.table([_row(each) for each in found])
        for each in found:
            if each.overdue is not None:
                render.say(f"{each.provider}: {each.overdue}")
    if any(each.overdue is not None for each in found):
        raise typer.Exit(NO)


def _whose(
    names: list[str] | None, file: Any, root: str | None, options: dict[str, str] | None
) -> tuple[Sequence[Provider], str]:
    """The providers to look at, and where their logs are."""
    from ingestion.providers import Provider

    try:
        providers, declared = find_providers(file, names)
    except OptionError:
        if file is not None:
            raise
        where = root or ROOT
        found = list(names or ingestion.list_logs(where, storage_options=options))
        if not found:
            raise NoLogsError(where) from None
        logs = [ingestion.open_log(where, name, storage_options=options) for name in found]
        return [
            Provider(name=log.provider, entities=tuple(log.entities), key=log.definition.key, kind=log.kind)
            for log in logs
        ], where
    return providers, root or declared.root or ROOT


def _row(status: Status) -> dict[str, Any]:
    recent = status.recent
    usual = recent.delays
    return {
        "provider": status.provider,
        "state": status.state,
        "last_arrival": recent.last_arrival,
        "age": status.arrival_age,
        "delay": _length(recent.delay),
        "usual": f"{_text(usual.q50)} .. {_text(usual.q99)}" if usual is not None else None,
        "last_poll": recent.last_poll.outcome if recent.last_poll is not None else None,
        "failures": recent.failures or None,
        "down_for": status.now - status.down_since if status.down_since is not None else None,
        "missed": status.missed or None,
        "quarantine": recent.quarantined or None,
        "store_lag": f"{recent.store_lag.q50:.2f}s" if recent.store_lag is not None else None,
        "position": recent.position if status.exists else None,
    }


def _length(seconds: float | None) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds is not None else None


def _text(seconds: float) -> str:
    return render.duration_text(timedelta(seconds=seconds))


def _watch(look: Any, every: float) -> None:
    """Draw the table again and again until the user has seen enough."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                live.update(_drawn(look()), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            return


def _drawn(found: Sequence[Status]) -> Table:
    overdue = sum(each.overdue is not None for each in found)
    now = found[0].now if found else ingestion.system_clock()
    shown = Table(
        title=f"{len(found)} providers, {overdue} overdue, {render.text_of(now)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    rows = [_row(each) for each in found]
    for name in rows[0] if rows else ():
        shown.add_column(name, no_wrap=True)
    for row in rows:
        style = _STYLES[row["state"]]
        shown.add_row(
            *(Text(render.text_of(value), style=style if name == "state" else "") for name, value in row.items())
        )
    return shown
