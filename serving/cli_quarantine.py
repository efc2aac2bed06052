"""`asknown quarantine`: rows that broke a rule are looked at, released into the log, or dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

import ingestion
from serving import render
from serving.cli_log import Json, Provider, Root, StorageOption, storage_options
from serving.errors import NoLogsError, OptionError

app = typer.Typer(help="Rows that broke a rule: look, release, drop.", no_args_is_help=True)
NO = 1
_LONG = 100

Sequences = Annotated[
    list[int] | None, typer.Argument(help="The rows, by log_sequence as `show` prints it; or --reason, or --all.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Only rows whose reason contains this text.")]
Everything = Annotated[bool, typer.Option("--all", help="All open rows.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]


@app.command("list")
def list_reasons(
    root: Root,
    provider: Annotated[str | None, typer.Argument(help="One provider; all by default.")] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """List why rows are in quarantine: how many, first and last received, an example."""
    options = storage_options(storage_option)
    names = [provider] if provider else ingestion.list_logs(root, storage_options=options)
    if not names:
        raise NoLogsError(root)
    rows = []
    for name in names:
        log = ingestion.open_log(root, name, storage_options=options)
        rows += [{"provider": name, **row} for row in ingestion.quarantine_reasons(log).to_dicts()]
    if as_json:
        render.as_json([{**row, "example": _plain(row["example"])} for row in rows])
        return
    render.table([{**row, "example": _short(row["example"])} for row in rows])


@app.command()
def show(
    root: Root,
    provider: Provider,
    sequences: Sequences = None,
    reason: Reason = None,
    everything: Annotated[bool, typer.Option("--all", help="Also rows that were released or dropped.")] = False,
    limit: Annotated[int, typer.Option(help="Rows to print.", min=1)] = 20,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show quarantined rows with their payload as it came."""
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    frame = log.quarantine(all=everything or bool(sequences))
    if sequences:
        frame = frame.filter(pl.col("log_sequence").is_in(sequences))
    if reason is not None:
        frame = frame.filter(pl.col("reason").str.contains(reason, literal=True))
    names = ["log_sequence", "received_time", "state", "reason", *log.entities, "payload"]
    if everything or sequences:
        names += ["decided_by", "why"]
    rows = frame.select([name for name in names if name in frame.columns]).head(limit).to_dicts()
    if as_json:
        render.as_json([{**row, "payload": _plain(row["payload"])} for row in rows])
        return
    render.table([{name: value for name, value in row.items() if name not in log.entities} for row in rows])
    render.say(f"{len(rows)} of {frame.height} rows")


@app.command()
def release(
    root: Root,
    provider: Provider,
    sequences: Sequences = None,
    reason: Reason = None,
    everything: Everything = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="COLUMN=VALUE for all these rows; empty is null. Repeatable.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", help="NAME=COLUMN: a name in the payload is that column. Repeatable."),
    ] = None,
    providers: Annotated[
        Path | None, typer.Option(help="Declaration of providers, whose contract the rows must keep as it is now.")
    ] = None,
    over_newer: Annotated[
        bool, typer.Option("--over-newer", help="Also rows whose key has a newer revision, which they displace.")
    ] = False,
    evolve: Annotated[bool, typer.Option("--evolve", help="Allow new columns and wider types.")] = False,
    dry_run: DryRun = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Append quarantined rows to the log, stamped now; exits with 1 if some have to stay."""
    chosen = _chosen(sequences, reason, everything=everything)
    options = storage_options(storage_option)
    check = parse = None
    if providers is None:
        log = ingestion.open_log(root, provider, storage_options=options)
    else:
        from ingestion.jobs import contract_check, payload_parser
        from ingestion.providers import load_providers

        declared = load_providers(providers).select([provider])[0]
        log = declared.open(root, storage_options=options)
        check, parse = contract_check(declared), payload_parser(declared)
    report = ingestion.release_quarantined(
        log,
        chosen,
        reason=reason,
        changes=_pairs(changes, "--set"),
        rename=_pairs(rename, "--rename"),
        check=check,
        parse=parse,
        over_newer=over_newer,
        evolve=evolve,
        dry_run=dry_run,
    )
    _report(report, as_json=as_json)
    if report.held:
        raise typer.Exit(NO)


@app.command()
def drop(
    root: Root,
    provider: Provider,
    sequences: Sequences = None,
    why: Annotated[str, typer.Option(help="Why the rows are of no use; stays in the log, so name nobody.")] = ...,  # type: ignore[assignment]
    reason: Reason = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Mark quarantined rows as done with. Nothing is deleted; `asknown log erase` does that."""
    chosen = _chosen(sequences, reason, everything=everything)
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    _report(ingestion.drop_quarantined(log, chosen, why=why, reason=reason, dry_run=dry_run), as_json=as_json)


def _chosen(sequences: list[int] | None, reason: str | None, *, everything: bool) -> list[int] | None:
    """The rows that are named; None for all that fit the reason."""
    if not sequences and reason is None and not everything:
        raise OptionError("which rows?", "name them by log_sequence, or write --reason TEXT or --all")
    if sequences and everything:
        raise OptionError("rows are named, and --all is given", "leave one of them out")
    return sequences or None


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping."""
    pairs = [text.partition("=") for text in given or []]
    if broken := [name for name, equals, _ in pairs if not equals or not name]:
        raise OptionError(f"{option} {broken[0]!r} has no value", f"write {option} {broken[0] or 'NAME'}=VALUE")
    return {name: value for name, _, value in pairs}


def _report(report: Any, *, as_json: bool) -> None:
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))


def _plain(payload: str | None) -> Any:
    """A payload as JSON has it; text of which nothing could be read stays text."""
    try:
        return json.loads(payload or "null")
    except ValueError:
        return payload


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONG else text[: _LONG - 1] + "…"
