"""`asknown log compact`, `retire` and `erase`: what changes a log's files. `--dry-run` says first what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import ingestion
from ingestion.datasets import held_in_dataset
from serving import render
from serving.cli_log import Json, Provider, Root, StorageOption, storage_options
from serving.errors import OptionError
from serving.served import ServedPlace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ingestion import ObservationLog

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
NO = 1


def compact(
    root: Root,
    provider: Provider,
    vacuum: Annotated[bool, typer.Option("--vacuum", help="Then delete the files that are no longer needed.")] = False,
    dry_run: DryRun = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Merge small files into large ones; no answer changes at any position."""
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    if dry_run:
        files = log.files_for()
        _tell({"provider": provider, "files": files.read.height, "rows": files.rows_read}, as_json=as_json)
        return
    _report(log.compact(vacuum=vacuum), as_json=as_json)


def erase(
    root: Root,
    provider: Provider,
    entity: Annotated[list[str], typer.Argument(help="COLUMN=VALUE for the entity's columns.")],
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FOLDER", help="Where a job keeps its spool, if not LOGS/_job.")
    ] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Remove an entity from the log, its old versions, the quarantine, the spool, what was served, and data sets made of it.

    Cannot be undone. Exits with 1 if something is left to do; run it again then.
    """
    options = storage_options(storage_option)
    log = ingestion.open_log(root, provider, storage_options=options)
    who = read_entity(entity)
    found = holdings(log, who, ingestion.registered_datasets(root, storage_options=options), state)
    served = ServedPlace(root, storage_options=options)
    if rows := served.count(provider, who):
        found.append({"place": served.name, "address": root, "rows": rows})
    if dry_run:
        if as_json:
            render.as_json(found)
        else:
            render.table(found)
        return
    if not yes:
        rows = sum(row["rows"] for row in found)
        question = f"Erase {', '.join(entity)}: {rows} rows in {len(found)} places of provider {provider!r}?"
        if not typer.confirm(question, err=True):
            render.say("nothing was erased")
            raise typer.Exit(NO)
    report = log.erase(who, state=state, places=[served])
    _report(report, as_json=as_json)
    if not report.complete:
        raise typer.Exit(NO)


def read_entity(given: Iterable[str]) -> dict[str, str]:
    """`COLUMN=VALUE` texts as a mapping.

    Args:
        given: What the command line had.

    Returns:
        Column to value, as text; the log converts it to the column's type.

    Raises:
        OptionError: If one has no `=`.
    """
    pairs = [text.partition("=") for text in given]
    if broken := [column for column, equals, _ in pairs if not equals]:
        raise OptionError(f"{broken[0]!r} does not say which column it is a value of", f"write COLUMN={broken[0]}")
    return {column: value for column, _, value in pairs}


def holdings(
    log: ObservationLog, entity: Mapping[str, str], manifests: Iterable[str], state: Path | None = None
) -> list[dict[str, Any]]:
    """What holds an entity now, without changing anything.

    Args:
        log: The log.
        entity: Column to value.
        manifests: Of the data sets that are registered, paths and addresses.
        state: Where a job keeps its spool, if not beside the logs.

    Returns:
        `place`, `address`, `rows`; places that hold nothing are left out.
    """
    found: list[dict[str, Any]] = [
        {"place": held.place, "address": held.address, "rows": held.rows} for held in log.holding(entity, state=state)
    ]
    found += [
        {"place": held.place, "address": held.address, "rows": held.rows}
        for manifest in manifests
        if (held := held_in_dataset(manifest, entity)) is not None
    ]
    return [row for row in found if row["rows"]]


def _report(report: Any, *, as_json: bool) -> None:
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))


def _tell(pairs: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(dict(pairs))
    else:
        render.facts(pairs)
