"""`asknown ingest`, `providers`, `polls`, `outages`: run the jobs that fill the logs, and read what they kept of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import alignment as al
import ingestion
from serving import render
from serving.cli_log import Json, Provider, Root, StorageOption, storage_options
from serving.errors import OptionError

if TYPE_CHECKING:
    from types import FrameType

    from ingestion.jobs import Job, JobSettings, OnceReport
    from ingestion.providers import Declared
    from ingestion.providers import Provider as DeclaredProvider

app = typer.Typer(help="Jobs that fill the logs: poll, receive, consume.", no_args_is_help=True)
providers_app = typer.Typer(help="Declarations of providers.", no_args_is_help=True)

NO = 1
MOST_PORT: Final = 65_535
FILES: Final = ("asknown.yaml", "asknown.yml", "providers.yaml", "providers.yml", "providers.py")
ROOT: Final = "logs"
_SETTINGS: Final[dict[str, tuple[Any, str]]] = {
    "host": (str, "text"),
    "webhook_env": (str, "text"),
    "state": (str | Path, "a folder"),
    "stop_within": (int | float, "a number"),
}

Names = Annotated[list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="Some providers; all by default.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--providers", help=f"File that declares them; by default {', '.join(FILES[:1])} or providers.py here."
    ),
]
LogRoot = Annotated[
    str | None, typer.Option("--root", help=f"Where the logs are; by default as the file says, else {ROOT!r}.")
]
State = Annotated[
    Path | None, typer.Option("--state", help="Local folder for what must outlive the job; by default beside the logs.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Tell more on standard error.")]


# --------------------------------------------------------------------------------------------------------- declarations


def find_providers(file: Path | None, names: list[str] | None) -> tuple[list[DeclaredProvider], Declared]:
    """The providers that are meant, and the file that declares them.

    Args:
        file: The file that was named; `None` looks for one of `FILES` here.
        names: Some of its providers, or presets; `None` or empty means all that the file declares.

    Returns:
        The providers, and what the file declares besides.

    Raises:
        OptionError: If there is no file and a name is not that of a preset.
    """
    from ingestion.providers import PRESETS, Declared, load_providers, preset

    found = file or next((Path(name) for name in FILES if Path(name).is_file()), None)
    wanted = list(dict.fromkeys(names or ()))
    declared = load_providers(found) if found is not None else Declared(None, {})
    if found is None and (not wanted or not set(wanted) <= set(PRESETS)):
        known = ", ".join(sorted(PRESETS)) or "none"
        raise OptionError(
            f"there is no file that declares providers: none of {', '.join(FILES)} is in {Path.cwd()}",
            f"name one: --providers FILE; without a file the presets can be taken: {known}.",
        )
    here = {name: preset(name) for name in wanted if name not in declared.providers and name in PRESETS}
    complete = replace(declared, providers={**declared.providers, **here})
    chosen = complete.select(wanted)
    if not chosen:
        raise OptionError(f"{found} declares no providers", "add one below `providers:`.")
    return chosen, declared


def job_settings(declared: Declared, root: str | None, **given: Any) -> JobSettings:
    """How a job runs: as the command line says, else as the file says.

    Args:
        declared: The file.
        root: Where the logs are, from the command line.
        given: Further fields of `JobSettings` from the command line; `None` was not said.

    Returns:
        The settings.

    Raises:
        OptionError: If the file's `settings` have a field that there is not, or a value of another type.
        ProviderError: If what should name an environment variable is none's name.
    """
    from ingestion.jobs import JobSettings

    names = {field.name for field in fields(JobSettings)} - {"root", "storage_options"}
    if unknown := sorted(set(declared.settings) - names):
        raise OptionError(f"settings: there is no field {unknown[0]!r}", f"the fields are {', '.join(sorted(names))}.")
    for name, value in declared.settings.items():
        wanted, what = _SETTINGS.get(name, (int, "a number"))
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise OptionError(f"settings: {name} is {value!r}, which is not {what}", f"write {name}: and {what}.")
    said = {**declared.settings, **{name: value for name, value in given.items() if value is not None}}
    if (port := said.get("port")) is not None and not 0 <= port <= MOST_PORT:
        raise OptionError(f"port {port} is none", f"ports go from 0, which takes a free one, to {MOST_PORT}.")
    if isinstance(said.get("state"), str):
        said["state"] = Path(said["state"]).expanduser()
    return JobSettings(root=root or declared.root or ROOT, **said)


def set_up_logging(providers: list[DeclaredProvider], *, as_json: bool | None, verbose: bool, quiet: bool) -> None:
    """Lines on standard error without the credentials that the providers name.

    Args:
        providers: Whose credentials.
        as_json: Whether lines are JSON; `None` decides by the terminal.
        verbose: Also what is of interest to a developer only.
        quiet: Warnings only.
    """
    import logging

    from ingestion.jobs import Redactor, configure_logging, named_secrets

    configure_logging(as_json=as_json, verbose=verbose, redact=Redactor(named_secrets(providers)))
    if quiet and not verbose:
        logging.getLogger().setLevel(logging.WARNING)


# --------------------------------------------------------------------------------------------------------------- ingest


@app.command("once")
def once(
    names: Names = None,
    file: File = None,
    root: LogRoot = None,
    state: State = None,
    workers: Annotated[int | None, typer.Option(help="Providers at once.", min=1)] = None,
    verbose: Verbose = False,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Poll each provider until it has nothing more; exits with 1 if one failed."""
    from ingestion import jobs

    chosen, declared = find_providers(file, names)
    settings = job_settings(
        declared, root, state=state, workers=workers, storage_options=storage_options(storage_option)
    )
    set_up_logging(chosen, as_json=None, verbose=verbose, quiet=True)
    stop = threading.Event()
    _stop_on_signals(stop)
    reports = jobs.once(chosen, settings, stop=stop)
    if as_json:
        render.as_json([report.to_dict() for report in reports])
    else:
        render.table([_row(report) for report in reports])
        failed = sum(not report.ok for report in reports)
        rows = sum(report.rows for report in reports)
        render.say(f"{len(reports)} providers, {failed} failed; {rows:,} rows -> {settings.root}")
    if not all(report.ok for report in reports):
        raise typer.Exit(NO)


def _row(report: OnceReport) -> dict[str, Any]:
    counts = ("polls", "rows", "revised", "retracted", "unchanged", "quarantined")
    return {
        "provider": report.provider,
        "outcome": report.outcome,
        **{name: getattr(report, name) for name in counts},
        "seconds": report.seconds,
        "remarks": "; ".join([*((report.error or "").splitlines()[:1]), *report.flags]) or None,
    }


def _stop_on_signals(stop: threading.Event) -> None:
    """The first signal ends the work after the polls in flight, the second ends it at once."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


@app.command("run")
def run(
    names: Names = None,
    file: File = None,
    root: LogRoot = None,
    host: Annotated[str | None, typer.Option(help="Address of the endpoint; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 0 takes a free one. 8321 by default.", min=0)] = None,
    no_endpoint: Annotated[bool, typer.Option("--no-endpoint", help="No health, metrics and pushed rows.")] = False,
    state: State = None,
    workers: Annotated[int | None, typer.Option(help="Polls at once; 32 by default.", min=1)] = None,
    webhook_env: Annotated[
        str | None, typer.Option(help="Environment variable with the address that alerts are sent to.")
    ] = None,
    verbose: Verbose = False,
    storage_option: StorageOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines as JSON, also on a terminal.")] = False,
) -> None:
    """Run all providers until stopped: poll by their schedules, receive what is pushed, compact, watch.

    Health is at /healthz and /readyz, numbers for Prometheus at /metrics; rows are pushed to /observations/PROVIDER. The first
    SIGTERM or SIGINT finishes what is under way, the second stops at once.
    """
    from ingestion import jobs

    chosen, declared = find_providers(file, names)
    settings = job_settings(
        declared,
        root,
        host=host,
        port=port,
        state=state,
        workers=workers,
        webhook_env=webhook_env,
        storage_options=storage_options(storage_option),
    )
    if no_endpoint:
        settings = replace(settings, port=None)
    set_up_logging(chosen, as_json=True if as_json else None, verbose=verbose, quiet=False)
    job: Job = jobs.run(chosen, settings)
    if job.abandoned:  # their threads hang, and the interpreter would wait for them
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


# ------------------------------------------------------------------------------------------------------------ providers


@providers_app.command("check")
def check(
    file: Annotated[
        Path | None, typer.Argument(help="File that declares providers; looked for here by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read declarations and show what they say; exits with 2 at the first that means nothing."""
    chosen, declared = find_providers(file, None)
    job_settings(declared, None)
    if as_json:
        render.as_json([provider.model_dump(mode="json") for provider in chosen])
        return
    render.table([_declared_row(provider) for provider in chosen])
    render.say(f"{len(chosen)} providers; logs in {declared.root or ROOT}")


def _declared_row(provider: DeclaredProvider) -> dict[str, Any]:
    timetable = provider.timetable()
    schedule = provider.schedule
    return {
        "provider": provider.name,
        "kind": provider.kind,
        "entities": ", ".join(provider.entities) or "(one series)",
        "source": provider.source.kind if provider.source is not None else None,
        "polled": (schedule.every or f"{schedule.cron} {schedule.zone or 'UTC'}") if schedule is not None else None,
        "next_poll": timetable.next_after(ingestion.system_clock()) if timetable is not None else None,
        "columns": len(provider.contract.columns),
        "silent_after": provider.silent_after,
    }


# --------------------------------------------------------------------------------------------------------------- ledger


def polls(
    root: Root,
    provider: Provider,
    limit: Annotated[int, typer.Option(help="How many, the newest; 0 prints all.", min=0)] = 20,
    outcome: Annotated[
        str | None, typer.Option(help="Only these: rows, empty, failed, refused or idle, comma separated.")
    ] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show the ledger of a provider: every attempt to get something, also those that failed."""
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    frame = log.polls()
    if outcome is not None:
        frame = frame.filter(frame["outcome"].is_in([word.strip() for word in outcome.split(",")]))
    shown = frame.tail(limit) if limit else frame
    if as_json:
        render.as_json(shown.to_dicts())
        return
    render.table([_poll_row(poll) for poll in shown.iter_rows(named=True)])
    render.say(f"{shown.height} of {frame.height} polls, the newest last")


def _poll_row(poll: dict[str, Any]) -> dict[str, Any]:
    counts = ("new", "revised", "retracted", "unchanged", "quarantined", "bytes")
    remarks = [*(poll["error"] or "").splitlines()[:1], *(poll["notes"] or [])]
    return {
        "started": poll["started"],
        "seconds": round((poll["ended"] - poll["started"]).total_seconds(), 3),
        "outcome": poll["outcome"],
        "source": poll["source"],
        **{name: poll[name] for name in counts},
        "position": poll["log_sequence"],
        "remarks": "; ".join(remarks) or None,
    }


def outages(
    root: Root,
    provider: Provider,
    down_after: Annotated[
        str | None, typer.Option(help="Silence that makes an outage, e.g. 30m; by default as declared.")
    ] = None,
    for_replay: Annotated[
        bool,
        typer.Option(
            "--for-replay", help="Print JSON for --outage @FILE: from the last sign on, and whether the rows were lost."
        ),
    ] = False,
    per_entity: Annotated[
        bool,
        typer.Option("--per-entity", help="With --for-replay: also entities that were silent while others were not."),
    ] = False,
    file: File = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Show when a provider was down, and how many rows it brought when it came back."""
    if per_entity and not for_replay:
        raise OptionError("--per-entity says nothing without --for-replay", "say --for-replay --per-entity")
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    silence = down_after or _declared_silence(file, provider)
    if for_replay:
        found = al.find_outages(log, silence, per_entity=per_entity, until=ingestion.system_clock())
        render.as_json([outage.to_dict() for outage in found])
        return
    frame = ingestion.outages(log, silence, now=ingestion.system_clock())
    rows = frame.to_dicts()
    if as_json:
        render.as_json(rows)
        return
    now = ingestion.system_clock()
    render.table(
        [
            {
                "last_sign": row["last_heartbeat"],
                "start": row["start"],
                "end": row["end"],
                "lasted": (row["end"] or now) - row["start"],
                "catch_up_rows": row["catch_up_rows"],
            }
            for row in rows
        ]
    )
    going_on = any(row["end"] is None for row in rows)
    render.say(f"{len(rows)} outage{'' if len(rows) == 1 else 's'}{', the last one goes on' if going_on else ''}")


def _declared_silence(file: Path | None, provider: str) -> str:
    """How long a provider may be silent, from its declaration.

    Raises:
        OptionError: If nobody said.
    """
    hint = "say --down-after 30m"
    try:
        chosen, _ = find_providers(file, [provider])
    except OptionError as error:
        raise OptionError(f"it is not said after which silence {provider!r} is down", hint) from error
    silent = chosen[0].silent_after
    if silent is None:
        raise OptionError(f"the declaration of {provider!r} says neither down_after nor how often it sends", hint)
    return f"{round(silent.total_seconds())}s"
