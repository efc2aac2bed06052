"""`asknown status`: how every provider is doing, from its log alone; live on a terminal."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import ingestion
from serving import render
from serving.cli_ingest import ROOT, File, LogRoot, Names, find_providers, job_settings
from serving.cli_log import Json, StorageOption, storage_options
from serving.errors import NoLogsError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ingestion.jobs import JobSettings, Status
    from ingestion.providers import Provider

NO = 1
READERS: Final = 4
_GAP: Final = 2
_URGENT: Final = ("overdue", "failing", "ok", "waiting", "no log")
_ALWAYS: Final = frozenset({"provider", "state"})
_PRIORITY: Final = (
    "provider",
    "state",
    "age",
    "delay",
    "usual",
    "last_poll",
    "alerts",
    "down_for",
    "quarantine",
    "missed",
    "failures",
    "store_lag",
    "last_arrival",
    "position",
)
_STYLES: Final = {"ok": "green", "overdue": "bold red", "failing": "yellow", "waiting": "dim", "no log": "dim"}


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
    providers, settings = _whose(names, file, root, options)
    where = settings.root
    with ThreadPoolExecutor(READERS) as pool:

        def look() -> list[Status]:
            from ingestion.jobs import status_of

            now = ingestion.system_clock()
            return list(pool.map(lambda each: status_of(each, where, now=now, storage_options=options), providers))

        if watch and not as_json:
            _watch(lambda: _rows(look(), settings), every)
        found = look()
    if as_json:
        alerts = _alerts(settings)
        render.as_json([{**each.to_dict(), "alerts": alerts.get(each.provider, [])} for each in found])
    elif not watch:
        render.table(_rows(found, settings))
        for each in found:
            if each.overdue is not None:
                render.say(f"{each.provider}: {each.overdue}")
    if any(each.overdue is not None for each in found):
        raise typer.Exit(NO)


def _whose(
    names: list[str] | None, file: Any, root: str | None, options: dict[str, str] | None
) -> tuple[Sequence[Provider], JobSettings]:
    """The providers to look at, and where their logs and open incidents are."""
    from ingestion.jobs import JobSettings
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
        ], JobSettings(root=where)
    return providers, job_settings(declared, root)


def _alerts(settings: JobSettings) -> dict[str, list[str]]:
    """The kinds of incidents that are open, by provider."""
    from ingestion.jobs import open_incidents

    found: dict[str, list[str]] = {}
    for incident in open_incidents(settings.state_folder):
        found.setdefault(incident.provider, []).append(incident.kind)
    return found


def _rows(found: Sequence[Status], settings: JobSettings) -> list[dict[str, Any]]:
    alerts = _alerts(settings)
    return [_row(each, alerts.get(each.provider, ())) for each in found]


def _row(status: Status, alerts: Sequence[str] = ()) -> dict[str, Any]:
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
        "alerts": ", ".join(alerts) or None,
        "store_lag": f"{recent.store_lag.q50:.2f}s" if recent.store_lag is not None else None,
        "position": recent.position if status.exists else None,
    }


def _length(seconds: float | None) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds is not None else None


def _text(seconds: float) -> str:
    return render.duration_text(timedelta(seconds=seconds))


def _watch(look: Callable[[], list[dict[str, Any]]], every: float) -> None:
    """Draw the table again and again until the user has seen enough."""
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                live.update(drawn(look(), width=console.width, height=console.height), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            return


def drawn(rows: Sequence[dict[str, Any]], *, width: int, height: int) -> Group:
    """The table as it fits: what is wrong comes first, and columns that matter less are left out.

    Args:
        rows: A row per provider.
        width: Columns of the terminal.
        height: Its lines.

    Returns:
        A line about all of them, and the table.
    """
    ordered = sorted(rows, key=lambda row: (_URGENT.index(row["state"]), row["provider"]))
    shown_rows = ordered[: max(1, height - 3)]
    cells = [{name: render.text_of(value) for name, value in row.items()} for row in shown_rows]
    overdue = sum(row["state"] == "overdue" for row in rows)
    title = f"{len(rows)} providers, {overdue} overdue, {render.text_of(ingestion.system_clock())}"
    if len(shown_rows) < len(rows):
        title += f", {len(rows) - len(shown_rows)} more are not shown"
    shown = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    names = _fitting(cells, width)
    for name in names:
        shown.add_column(name, no_wrap=True)
    for row in cells:
        style = _STYLES[row["state"]]
        shown.add_row(*(Text(row[name], style=style if name == "state" else "") for name in names))
    return Group(Text(title), shown)


def _fitting(cells: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that have something to say and fit, in their usual order."""
    chosen: set[str] = set()
    for name in _PRIORITY:
        widest = max((len(row[name]) for row in cells), default=0)
        needed = max(widest, len(name)) + _GAP
        if (name in _ALWAYS or any(row[name] != "-" for row in cells)) and needed <= width:
            chosen.add(name)
            width -= needed
    return [name for name in (cells[0] if cells else ()) if name in chosen]
