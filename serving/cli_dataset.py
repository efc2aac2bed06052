"""`asknown dataset`: build training sets from declared views, and build them again from their manifest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

import alignment as al
from alignment.dataset import check_empty
from alignment.dataset_writing import MANIFEST
from alignment.join import check_limit
from serving import delay_options, outage_options, render
from serving.cli_log import Json, instant
from serving.declarations import read_declarations
from serving.errors import OptionError
from serving.files import read_parquet
from serving.machine import available_memory
from serving.rebuilding import files_of, manifest_of, read_manifest, rebuild_dataset
from serving.spark_session import spark_session

if TYPE_CHECKING:
    from datetime import datetime

    from ingestion.checks import ContractReport
    from serving.declarations import Declarations

ENGINES = ("local", "duckdb", "spark")
app = typer.Typer(help="Training sets: build, and build again from the manifest.", no_args_is_help=True)
NO = 1

Views = Annotated[Path, typer.Argument(help="Python file that declares `views`, and perhaps `label` and `spine`.")]
Spine = Annotated[
    Path | None, typer.Option("--spine", help="Parquet file with the spine, instead of the declared one.")
]
AsOf = Annotated[str | None, typer.Option("--as-of", help="Pretend that nothing arrived later: 2026-06-01T12:00:00Z.")]


def spine_of(declared: Declarations, file: Path | None, *, read: bool = True) -> Any:
    """The spine that was asked for.

    Args:
        declared: What the views file declares.
        file: A Parquet file, which goes before the declared spine.
        read: Whether to read the file now.

    Returns:
        The spine, or its file.

    Raises:
        OptionError: If there is none.
    """
    if file is not None:
        found = read_parquet(file, columns=None if read else [])  # says what is wrong with the file
        return found if read else file
    if declared.spine is None:
        raise OptionError(
            f"{declared.path} declares no spine and --spine is not given",
            'declare one: spine = al.make_spine({"station": ["mast"]}, start, end, "1h")',
        )
    return declared.spine


@app.command()
def build(
    views: Views,
    out: Annotated[
        str | None, typer.Argument(help="New folder, or s3://bucket/prefix, for data.parquet and manifest.json.")
    ] = None,
    spine: Spine = None,
    as_of: AsOf = None,
    engine: Annotated[str, typer.Option(help=", ".join(ENGINES) + ".")] = "local",
    service: Annotated[str | None, typer.Option(help="Give the features of this service, after its fallbacks.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Of the service: the rows at which this variant would have been chosen.")
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all-rows", help="Of the variant: all rows of the spine.")] = False,
    sources: Annotated[bool, typer.Option("--sources", help="Add columns that say which fallback answered.")] = False,
    outage: Annotated[list[str] | None, typer.Option(help=outage_options.HELP)] = None,
    delay: Annotated[list[str] | None, typer.Option(help=delay_options.HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of fitted delay rules; by default their own.")] = None,
    providers: Annotated[
        Path | None, typer.Option(help="File that declares providers: hold the features against their contracts.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="How much memory the process may take, e.g. 4GiB; the rest waits on disk.")
    ] = None,
    spill: Annotated[Path | None, typer.Option(help="With --memory-limit: folder for what does not fit.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and how much it takes, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a training set and write it with its manifest; exits with 1 if it breaks a contract."""
    if out is None and not dry_run:
        raise typer.BadParameter("missing: name a new folder, e.g. sets/one.", param_hint="OUT")
    declared = read_declarations(views)
    moment = None if as_of is None else instant(as_of, "--as-of")
    if spill is not None and memory_limit is None:
        raise OptionError("--spill is given, and no limit that something would not fit in", "add --memory-limit 4GiB")
    if memory_limit is not None and engine != "local":
        raise OptionError(
            f"--memory-limit is kept by the local engine, and --engine {engine} is asked for", "leave one of them out"
        )
    if providers is not None and (memory_limit is not None or engine == "spark"):
        other = "--engine spark" if engine == "spark" else "--memory-limit"
        raise OptionError(
            f"--providers checks the whole set in memory, and {other} says that it need not fit",
            "leave one of them out",
        )
    check_limit(memory_limit, engine, spill)
    if dry_run:
        plan(
            *(declared, spine, moment),
            service=service,
            variant=variant,
            engine=engine,
            memory_limit=memory_limit,
            moved=bool(outage or delay),
            as_json=as_json,
        )
        return
    assert out is not None  # noqa: S101 - else refused above
    if engine == "spark":
        check_empty(out)
    with spark_session(engine) as spark:
        dataset = al.build_dataset(
            spine_of(declared, spine, read=memory_limit is None and engine != "spark"),
            declared.views,
            label=declared.label,
            as_of=moment,
            engine=engine,
            service=None if service is None else declared.service(service),
            variant=variant,
            rows="all" if all_rows else "chosen",
            sources=sources,
            outages=outage_options.parse_outages(outage, declared.views),
            delays=delay_options.parse_delays(delay),
            seed=seed,
            into=out if memory_limit is not None else None,
            memory_limit=memory_limit,
            spill=spill,
            spark=spark,
        )
        manifest = f"{dataset.folder}/{MANIFEST}" if dataset.folder is not None else str(dataset.write(out))
    reports = {} if providers is None else held_against(providers, declared, dataset.frame)
    if as_json:
        render.as_json(read_manifest(manifest))
    else:
        _show(manifest)
    render.say(f"{dataset.manifest['spine']['rows']} rows as of {dataset.manifest['as_of']} -> {manifest}")
    for name, report in reports.items():
        render.say(f"{name}: {report}")
    if not all(report.ok for report in reports.values()):
        raise typer.Exit(NO)


def plan(
    declared: Declarations,
    spine: Path | None,
    as_of: datetime | None,
    *,
    service: str | None,
    variant: str | None,
    engine: str,
    memory_limit: str | None,
    moved: bool,
    as_json: bool,
) -> None:
    """Print what a build would read and take, and which engine to use.

    Args:
        declared: What the views file declares.
        spine: A Parquet file, which goes before the declared spine.
        as_of: Nothing that arrived later counts.
        service: Name of a service.
        variant: Name of one of its variants.
        engine: What is asked for; the local one leaves it to the advice.
        memory_limit: How much memory may be taken; None for what there is.
        moved: Whether arrivals are to be moved.
        as_json: For programs.

    Raises:
        OptionError: If there is no spine.
    """
    told = al.plan_dataset(
        spine_of(declared, spine, read=False),
        declared.views,
        label=declared.label,
        as_of=as_of,
        service=None if service is None else declared.service(service),
        variant=variant,
        memory=available_memory(),
        memory_limit=memory_limit,
        engine=None if engine == "local" else engine,
    )
    if moved:
        render.say("what it takes to move arrivals (--outage, --delay) is in no figure")
    if as_json:
        render.as_json(told)
    else:
        typer.echo(str(told))
        typer.echo(f"on the command line: {told.advice.options}")


def held_against(file: Path, declared: Declarations, frame: pl.DataFrame) -> dict[str, ContractReport]:
    """The features of a frame against the contracts of the providers that they come from.

    Args:
        file: Declares providers.
        declared: Declares views.
        frame: The training set.

    Returns:
        A report per view whose log is that of a declared provider.
    """
    from ingestion.checks import check_frame
    from ingestion.providers import load_providers

    known = load_providers(file).providers
    reports = {}
    for view in declared.views:
        provider = known.get(source.provider) if (source := view.observations.source) is not None else None
        if provider is not None:
            own = frame.select(pl.col(f"^{re.escape(view.name)}__.*$"))
            reports[view.name] = check_frame(own, provider.contract)
    return reports


def _show(manifest: str) -> None:
    rows = files_of(manifest, read_manifest(manifest)).scan()
    nulls = rows.null_count().collect(engine="streaming").row(0, named=True)
    schema = rows.collect_schema()
    render.table([{"column": name, "type": _type(schema[name]), "nulls": nulls[name]} for name in schema])


def _type(dtype: pl.DataType) -> str:
    """A type as one says it: `Datetime(us, UTC)`."""
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit}, {dtype.time_zone})"
    if isinstance(dtype, pl.Duration):
        return f"Duration({dtype.time_unit})"
    return str(dtype)


@app.command()
def rebuild(
    manifest: Annotated[str, typer.Argument(help="The manifest.json of a data set, or its folder; may be s3://...")],
    out: Annotated[str | None, typer.Option(help="Write what was built to this new folder or address.")] = None,
    logs: Annotated[str | None, typer.Option(help="Where the logs are now, if they were moved.")] = None,
    spine: Annotated[
        Path | None, typer.Option(help="Parquet file with the spine, if the data set's own file is gone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a data set again, at the positions of its manifest; exits with 1 if it is not the same."""
    outcome = rebuild_dataset(manifest_of(manifest), logs=logs, spine=spine)
    if out is not None:
        outcome.dataset.write(out)
    if as_json:
        render.as_json(outcome.to_dict())
    else:
        typer.echo(str(outcome))
    if not outcome.same:
        raise typer.Exit(NO)
