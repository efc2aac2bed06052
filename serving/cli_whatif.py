"""`asknown whatif`: what a model's score would be, had a provider been earlier, later or down."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import alignment as al
from serving import outage_options, pictures, render
from serving.cli_dataset import AsOf, Spine, Views, spine_of
from serving.cli_log import Json, instant, words
from serving.declarations import read_declarations
from serving.errors import MissingExtraError, OptionError
from serving.files import check_picture

if TYPE_CHECKING:
    from serving.declarations import Declarations

app = typer.Typer(help="What delays and outages cost a model.", no_args_is_help=True)

Known = Annotated[
    str, typer.Option(help="Columns of the spine that the model may use too, comma separated: a calendar, say.")
]
TestFrom = Annotated[str | None, typer.Option(help="Train before this instant, score from it on.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="module:factory of a scikit-learn-like model, e.g. sklearn.linear_model:Ridge; a ridge regression by default.",
    ),
]
Unit = Annotated[str | None, typer.Option(help="Unit of the label, for text and picture.")]
Zone = Annotated[
    str | None, typer.Option(help="IANA zone of the days that are drawn for the intervals; UTC by default.")
]
Seed = Annotated[int, typer.Option(help="Another seed draws other days.")]
Picture = Annotated[Path | None, typer.Option(help="Also draw it (.png, .svg, .pdf).")]
Html = Annotated[Path | None, typer.Option(help="Also write it as one HTML file.")]


@app.command()
def delay(
    views: Views,
    provider: Annotated[
        list[str] | None, typer.Option(help="Whose delay to shift; repeatable; all of the views by default.")
    ] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="By how much: 30m, -15m, off; repeatable; -15m to 2h and off by default.")
    ] = None,
    model: ModelOption = None,
    retrain: Annotated[bool, typer.Option(help="Also score a model that was trained under each shift.")] = True,
    spine: Spine = None,
    as_of: AsOf = None,
    known: Known = "",
    test_from: TestFrom = None,
    unit: Unit = None,
    zone: Zone = None,
    seed: Seed = 0,
    picture: Picture = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Score a model with each provider's delay shifted, one provider at a time."""
    check_picture(picture)
    declared = read_declarations(views)
    shifts = shift or list(al.SHIFTS)
    with render.progress("shifts") as bar:
        report = al.delay_cost(
            spine_of(declared, spine),
            declared.views,
            label=label_of(declared),
            model=model_of(model, views),
            providers=provider,
            shifts=shifts,
            retrain=retrain,
            test_from=None if test_from is None else instant(test_from, "--test-from"),
            known_columns=words(known),
            as_of=None if as_of is None else instant(as_of, "--as-of"),
            seed=seed,
            zone=zone,
            unit=unit,
            after_each=lambda *_: bar.advance(bar.task_ids[0]),
        )
    _show(report, picture, html, as_json=as_json)


@app.command()
def outage(
    views: Views,
    service: Annotated[
        str | None, typer.Option(help="Whose variants to compare; needed if the file declares several.")
    ] = None,
    outage: Annotated[list[str] | None, typer.Option(help=outage_options.HELP)] = None,
    model: ModelOption = None,
    train_rows: Annotated[
        str, typer.Option(help="Train a variant on all rows, or on those at which it would have been chosen.")
    ] = "all",
    spine: Spine = None,
    as_of: AsOf = None,
    known: Known = "",
    test_from: TestFrom = None,
    unit: Unit = None,
    zone: Zone = None,
    seed: Seed = 0,
    picture: Picture = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Score each variant of a service by which providers were up, and say which wins where."""
    check_picture(picture)
    declared = read_declarations(views)
    chosen = _service(declared, service)
    with render.progress("variants", total=len(chosen.variants) or 1) as bar:
        report = al.outage_cost(
            spine_of(declared, spine),
            declared.views,
            chosen,
            label=label_of(declared),
            outages=outage_options.parse_outages(outage, declared.views),
            model=model_of(model, views),
            train_rows=train_rows,  # type: ignore[arg-type]  # refused there if it is none
            test_from=None if test_from is None else instant(test_from, "--test-from"),
            known_columns=words(known),
            as_of=None if as_of is None else instant(as_of, "--as-of"),
            seed=seed,
            zone=zone,
            unit=unit,
            after_each=lambda _: bar.advance(bar.task_ids[0]),
        )
    _show(report, picture, html, as_json=as_json)


def label_of(declared: Declarations) -> al.Label:
    """The label that a views file declares.

    Raises:
        OptionError: If it declares none.
    """
    if not isinstance(declared.label, al.Label):
        raise OptionError(
            f"{declared.path} declares no label, and a score needs one",
            'declare one: label = al.label("power_kw", horizon="20m")',
        )
    return declared.label


def model_of(text: str | None, views: Path) -> Any:
    """The factory that `--model module:factory` names, looked for beside the views file too.

    Raises:
        OptionError: If there is none.
    """
    if text is None:
        return None
    module, _, name = text.partition(":")
    if not module or not name:
        raise OptionError(f"--model {text!r} is not module:factory", "e.g. --model sklearn.linear_model:Ridge")
    folder = str(views.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"--model {text!r} cannot be imported: {error}", "e.g. --model sklearn.linear_model:Ridge"
        ) from error
    finally:
        sys.path.remove(folder)


def _service(declared: Declarations, name: str | None) -> al.FeatureService:
    if name is not None:
        return declared.service(name)
    if len(declared.services) != 1:
        names = ", ".join(repr(one.name) for one in declared.services)
        raise OptionError(
            f"{declared.path} declares {len(declared.services)} services, and --service is not given",
            f"choose one of {names}" if names else 'add services = [al.FeatureService("power", [...], variants=[...])]',
        )
    return declared.services[0]


def _show(report: al.DelayCost | al.OutageCost, picture: Path | None, html: Path | None, *, as_json: bool) -> None:
    if picture is not None:
        try:
            render.say(f"picture -> {pictures.write(report.plot(), picture)}")
        except ImportError as error:
            raise MissingExtraError("matplotlib", "plot", "the picture") from error
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(report.to_html(), encoding="utf-8")
        render.say(f"report -> {html}")
    if as_json:
        render.as_json(report.to_dict())
    else:
        typer.echo(str(report))
