"""`asknown backfill`: historic files into a log, under a delay rule."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

import ingestion
from serving import render
from serving.cli_log import Json, StorageOption, storage_options
from serving.delay_options import HELP_FOR_HISTORY, parse_delay
from serving.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ingestion.providers import Provider


def backfill(
    provider: Annotated[str, typer.Argument(help="The provider, also the name of its log.")],
    files: Annotated[
        list[Path],
        typer.Argument(help="Parquet, CSV or NDJSON files, perhaps gzipped, in the order of their revisions."),
    ],
    delay: Annotated[
        str | None,
        typer.Option(help=f"How late the rows were; the declared one by default. {HELP_FOR_HISTORY}"),
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Folder or object-store address of the logs. The declared one.")
    ] = None,
    providers: Annotated[
        Path | None, typer.Option(help="Declaration of providers: its layout and contract are applied.")
    ] = None,
    evolve: Annotated[bool, typer.Option("--evolve", help="Allow new columns and wider types.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be stored, and stop.")] = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Load historic files into a provider's log; what is in already is passed over.

    Rows are marked with how their arrival is known. A key that has a measured
    revision keeps it. Run it again after a crash: it goes on where it stopped.
    """
    from ingestion.jobs import backfill as load

    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file")
    declared = _declared(providers, provider)
    rule = parse_delay(delay, provider)
    options = storage_options(storage_option)
    place = root or _declared_root(providers)
    if place is None:
        raise OptionError("it is not said where the logs are", "write --root LOGS, or name it in the declaration")
    with ExitStack() as stack:
        log = _open(place, provider, declared, options, dry_run=dry_run, stack=stack)
        on_progress = stack.enter_context(_progress(files))
        report = load(
            log, files, delay=rule, provider=declared, evolve=evolve, dry_run=dry_run, on_progress=on_progress
        )
    if as_json:
        render.as_json(report.to_dict())
        return
    typer.echo(str(report))


def _declared(file: Path | None, provider: str) -> Provider | None:
    if file is None:
        return None
    from ingestion.providers import load_providers

    return load_providers(file).select([provider])[0]


def _declared_root(file: Path | None) -> str | None:
    if file is None:
        return None
    from ingestion.providers import load_providers

    return load_providers(file).root


def _open(
    root: str,
    provider: str,
    declared: Provider | None,
    options: dict[str, str] | None,
    *,
    dry_run: bool,
    stack: ExitStack,
) -> ingestion.ObservationLog:
    """The provider's log; a declared one is made, for a dry run elsewhere."""
    if declared is None:
        return ingestion.open_log(root, provider, storage_options=options)
    if dry_run and provider in ingestion.list_logs(root, storage_options=options):
        return ingestion.open_log(root, provider, storage_options=options)
    if dry_run:
        return declared.open(stack.enter_context(tempfile.TemporaryDirectory()))
    return declared.open(root, storage_options=options)


@contextmanager
def _progress(files: list[Path]) -> Iterator[Callable[[Path, float], None]]:
    """How far the files are, and how long it will take yet; on a terminal only."""
    sizes = {path: path.stat().st_size or 1 for path in files}
    done: dict[Path, float] = {}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("backfill", total=sum(sizes.values()))

        def tell(path: Path, fraction: float) -> None:
            done[path] = fraction * sizes[path]
            bar.update(task, completed=sum(done.values()), description=path.name)

        yield tell
