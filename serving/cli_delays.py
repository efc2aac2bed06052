"""`asknown delays`: how late a provider's rows are, as a rule for history without stamps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import alignment as al
import ingestion
from alignment.settling import human
from serving import render
from serving.cli_log import Json, Provider, Root, StorageOption, instant, storage_options, words
from serving.errors import OptionError

app = typer.Typer(help="Delay models: fitted to measured arrivals, for history without.", no_args_is_help=True)
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@app.callback()
def _delays() -> None:
    """Delay models: fitted to measured arrivals, for history without."""


@app.command()
def fit(
    root: Root,
    provider: Provider,
    by: Annotated[
        str,
        typer.Option(
            help="What delays depend on: hour, weekday, entity columns, comma separated; none; or auto: the hour if it tells."
        ),
    ] = "auto",
    zone: Annotated[str | None, typer.Option(help="IANA zone of hours and weekdays; UTC by default.")] = None,
    until: Annotated[str | None, typer.Option(help="Do not look at what arrived after this instant.")] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Also hold the rule, and plainer ones, against this last share of the time, e.g. 0.5."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Values to compare features by; the first numbers by default.")
    ] = None,
    lookback: Annotated[
        str | None, typer.Option(help="How old rows may be that are counted, and length of windows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the rule as JSON, for --delay FILE and al.EmpiricalDelay.from_dict.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write the comparison as one HTML file; needs --holdout.")
    ] = None,
    storage_option: StorageOption = None,
    as_json: Json = False,
) -> None:
    """Fit a delay model to a provider's measured arrivals, and say how good it is on a period that it has not seen."""
    if html is not None and holdout is None:
        raise OptionError("--html is of the comparison, and there is none", "add --holdout 0.5")
    log = ingestion.open_log(root, provider, storage_options=storage_options(storage_option))
    last = None if until is None else instant(until, "--until")
    named = None if by == "none" else words(by)
    rule = al.fit_delay(log, by=named, zone=zone, until=last, seed=seed)
    report = None
    if holdout is not None:
        report = al.compare_delays(
            log, holdout, by=named, zone=zone, until=last, seed=seed, column=column, lookback=lookback
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rule.to_dict()) + "\n", encoding="utf-8")
        render.say(f"rule -> {out}")
    if html is not None and report is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(report.to_html(), encoding="utf-8")
        render.say(f"report -> {html}")
    if as_json:
        render.as_json({"rule": rule.to_dict(), "holdout": None if report is None else report.to_dict()})
        return
    render.facts(
        {
            "provider": rule.provider,
            "arrive together": {
                "issue": "all rows of a forecast's issue",
                "event": "all rows of an event",
                "key": "no rows: each comes on its own",
            }[rule.travels],
            "arrivals learned from": f"{len(rule.origins_ms):,}",
            "delays depend on": ", ".join(rule.by) or "neither hour nor column",
            "zone": rule.zone,
            "borrowed at a time": f"{rule.block_days} day{'' if rule.block_days == 1 else 's'} in a row",
            **{f"delay {_name(q)}": human(rule.quantile(q)) for q in _QUANTILES},
        },
        title=f"delays of {rule.provider}",
    )
    if report is not None:
        typer.echo(f"\n{report}")


def _name(q: float) -> str:
    return {0.0: "min", 1.0: "max"}.get(q, f"q{round(100 * q):02d}")
