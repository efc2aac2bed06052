"""`asknown replay`: what serving would have returned, tick by tick, to a file or as a summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer

import alignment as al
from alignment.definitions import describe_moves
from serving import delay_options, outage_options, render
from serving.cli_dataset import AsOf, Views
from serving.cli_log import Json, instant
from serving.declarations import read_declarations
from serving.errors import OptionError
from serving.files import ParquetFile, read_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.declarations import Declarations


def replay(
    views: Views,
    start: Annotated[str, typer.Option(help="First instant that may be a tick: 2026-06-01T00:00:00Z.")],
    end: Annotated[str, typer.Option(help="The instant before which the schedule stops.")],
    every: Annotated[str | None, typer.Option(help="Time between ticks: 10m, 1h, 1d.")] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="Or a time of day on the wall clock of --zone: 06:00; may be repeated.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="IANA zone of the schedule; --every in days is calendar days.")
    ] = None,
    entities: Annotated[
        Path | None,
        typer.Option(help="Parquet file with the entities; by default those of the declared spine or of the rows."),
    ] = None,
    outage: Annotated[list[str] | None, typer.Option(help=outage_options.HELP)] = None,
    delay: Annotated[list[str] | None, typer.Option(help=delay_options.HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of fitted delay rules; by default their own.")] = None,
    as_of: AsOf = None,
    service: Annotated[str | None, typer.Option(help="Give the features of this service, after its fallbacks.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Of the service: the ticks at which this variant was chosen.")
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all-rows", help="Of the variant: all ticks.")] = False,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the rows; written as they come.")] = None,
    as_json: Json = False,
) -> None:
    """Replay a schedule over history: what serving would have returned at every tick.

    Prints how much was there, how old it was and which views were there
    together; --out keeps the rows. Outages and delays can be invented.
    """
    declared = read_declarations(views)
    _check_schedule(every, at, zone)
    if out is not None and out.suffix != ".parquet":
        raise OptionError(f"--out {out} does not end in .parquet", f"write --out {out.with_suffix('.parquet')}")
    moments = instant(start, "--start"), instant(end, "--end")
    schedule: Any = every if at is None else at
    asked = _entities(declared, entities)
    outages = outage_options.parse_outages(outage, declared.views)
    delays = delay_options.parse_delays(delay)
    batches = al.replay_batches(
        *(declared.views, asked, *moments, schedule),
        zone=zone,
        as_of=None if as_of is None else instant(as_of, "--as-of"),
        outages=outages,
        delays=delays,
        seed=seed,
        service=None if service is None else declared.service(service),
        variant=variant,
        rows="all" if all_rows else "chosen",
    )
    ticks = len(al.make_spine([], *moments, schedule, zone))
    with render.progress("rows", total=ticks * max(1, asked.height)) as bar, ParquetFile(out) as file:

        def seen() -> Iterator[pl.DataFrame]:
            for batch in batches:
                file.write(batch)
                bar.advance(bar.task_ids[0], batch.height)
                yield batch

        said = {"start": moments[0].isoformat(), "end": moments[1].isoformat(), "every": schedule, "zone": zone}
        said |= {"as_of": as_of, "service": service, "variant": variant}
        said |= {"rows": None if variant is None else "all" if all_rows else "chosen"}
        said |= describe_moves(outages, delays, seed)
        summary = al.summarize_replay(seen(), asked=said)
    if as_json:
        render.as_json(summary.to_dict() | ({"out": str(out)} if out else {}))
    else:
        typer.echo(str(summary))
    if out is not None:
        render.say(f"{summary.rows:,} rows -> {out}")


def _check_schedule(every: str | None, at: list[str] | None, zone: str | None) -> None:
    """Refuse a schedule that is none, or two.

    Raises:
        OptionError: If not one of --every and --at is given, or --at without --zone.
    """
    example = "--every 10m, or --at 06:00 --zone Europe/Berlin"
    if every is None and at is None:
        raise OptionError("one of --every and --at is needed", example)
    if every is not None and at is not None:
        raise OptionError("--every and --at are both given, and only one can be", f"leave one out: {example}")
    if at is not None and zone is None:
        given = " ".join(f"--at {text}" for text in at)
        raise OptionError(
            f"{given}: a time of day, and no --zone says on which clock", "add --zone Europe/Berlin, or --zone UTC"
        )


def _entities(declared: Declarations, file: Path | None) -> pl.DataFrame:
    """Whom to ask for: the rows of a file, of the spine, or all that the views have observations of.

    Raises:
        OptionError: If a file lacks a column.
    """
    names = list(dict.fromkeys(name for view in declared.views for name in view.spine_entities))
    if file is not None:
        if not file.exists():
            raise OptionError(
                f"--entities {file}: there is no such file",
                f"name a Parquet file with the entity columns: {', '.join(names) or 'none, so leave it out'}",
            )
        return read_parquet(file, names).unique(maintain_order=True)
    if declared.spine is not None:
        return pl.DataFrame(declared.spine).select(names).unique(maintain_order=True)
    found = pl.DataFrame()
    for view in declared.views:
        rows = view.observations
        known = (
            rows.lazy()
            .select(rows.entities)
            .unique()
            .collect()
            .rename(dict(zip(rows.entities, view.spine_entities, strict=True)))
        )
        both = [name for name in known.columns if name in found.columns]
        if not found.width:
            found = known
        elif known.width:
            found = found.join(known, on=both, how="full", coalesce=True) if both else found.join(known, how="cross")
    return found.select(names).drop_nulls().sort(names) if names else found
