"""What delays and outages cost, as plain text and as HTML; both are made from `to_dict()` of the reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from alignment.report_form import (
    BLUE,
    H2,
    LEFT,
    ORANGE,
    aligned,
    bar,
    heading,
    moment,
    page,
    piece,
    remark,
    share,
    table,
    td,
    th,
)

NOTEBOOK_ROWS = 60
"""Shifts (of all providers) or patterns that a notebook shows; the page and the text show all."""
_CLASSES = ("deployed", "retrained")
_DELAY = (
    "Every provider was moved by itself, earlier or later by so much, or was not there at all; rows and labels stayed the same. The "
    "deployed model was trained on arrivals as they were, the retrained one under the shift. A change is against no shift, on the "
    "same rows; its interval is what days drawn anew give."
)
_OUTAGE = (
    "A pattern is which providers were down, by their heartbeats. Each variant of the service has a model of its own, and answered all "
    "rows of each pattern; the router asks the variant that the service would have chosen. Intervals are what days drawn anew give."
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Errors and changes of a report, all with as many digits after the point.

    Attributes:
        digits: How many; made by `of` so that the greatest error has four digits or more.

    Example:
        >>> figures = Figures.of([95.2, 105.76])
        >>> figures.plain(95.2), figures.signed(10.5), figures.interval(-0.04, 3.0), figures.plain(None)
        ('95.2', '+10.5', '0.0 to 3.0', '-')
    """

    digits: int

    @classmethod
    def of(cls, errors: Iterable[float | None]) -> Figures:
        """As many digits as tell errors apart in their thousandth part."""
        most = max((abs(error) for error in errors if error), default=1.0)
        return cls(max(0, 3 - math.floor(math.log10(most))))

    def plain(self, value: float | None) -> str:
        """A figure; a dash where there is none."""
        return "-" if value is None else f"{round(value, self.digits) + 0.0:,.{self.digits}f}"  # no -0.0

    def signed(self, value: float | None) -> str:
        """A change, with its sign."""
        return f"+{self.plain(value)}" if value is not None and round(value, self.digits) > 0 else self.plain(value)

    def interval(self, low: float | None, high: float | None) -> str:
        """What lies between two figures; a dash where there are none."""
        return "-" if low is None or high is None else f"{self.plain(low)} to {self.plain(high)}"


# --- delay ------------------------------------------------------------------------------------------------------------


def delay_text(report: Row) -> str:
    """The report as a plain table."""
    head, rows = _delay_cells(report)
    return "\n\n".join(
        [
            f"What a delay costs: {_size(report)}",
            aligned([head, *rows], left=2),
            _delay_verdict(report),
            *_remarks(report, _of_model(report["model"])),
        ]
    )


def delay_html(report: Row) -> str:
    """The report as a page of its own."""
    return page("What a delay costs", _delay_body(report, rows=None))


def delay_notebook(report: Row) -> str:
    """The report as a piece of a notebook."""
    return piece(_delay_body(report, rows=NOTEBOOK_ROWS))


def _models(report: Row) -> list[str]:
    there = {row["model"] for row in report["costs"]}
    return [name for name in _CLASSES if name in there]


def _by_shift(report: Row) -> list[dict[str, Row]]:
    """Per provider and shift the rows of its models."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in report["costs"]:
        found.setdefault((row["provider"], row["shift"]), {})[row["model"]] = row
    return list(found.values())


def _delay_cells(report: Row) -> tuple[list[str], list[list[str]]]:
    models, percent, figures = _models(report), _percent(report), _delay_figures(report)
    head = ["provider", "shift", "rows changed"]
    for name in models:
        head += [f"MAE {name}", "change", percent]
    rows = []
    for shift in _by_shift(report):
        first = shift[models[0]]
        cells = [first["provider"], first["shift"], share(first["share_changed"])]
        for row in (shift[name] for name in models):
            cells.append(figures.plain(row["mae"]))
            cells += ["-", "-"] if row["moved"] == 0 else _change(figures, row, "mae_change")
        rows.append(cells)
    return head, rows


def _delay_figures(report: Row) -> Figures:
    return Figures.of(row["mae"] for row in report["costs"])


def _change(figures: Figures, row: Row, name: str) -> list[str]:
    return [figures.signed(row[name]), figures.interval(row[f"{name}_low"], row[f"{name}_high"])]


def _delay_verdict(report: Row) -> str:
    """What costs most, as far as days drawn anew do not explain it."""
    sure = [row for row in report["costs"] if row["model"] == "deployed" and (row["mae_change_low"] or 0.0) > 0]
    if not sure:
        return "No shift makes the deployed model worse beyond what days drawn anew give."
    row = max(sure, key=lambda row: row["mae_change"])
    what = f"{row['provider']} off" if row["shift"] == "off" else f"{row['provider']} {row['shift']} later"
    unit = f" {report['unit']}" if report["unit"] else ""
    figures = _delay_figures(report)
    said = (
        f"Dearest is {what}: the deployed model's MAE is {figures.plain(row['mae_change'])}{unit} greater "
        f"({_percent(report)}: {figures.interval(row['mae_change_low'], row['mae_change_high'])})"
    )
    again = [
        one
        for one in report["costs"]
        if (one["provider"], one["shift"], one["model"]) == (row["provider"], row["shift"], "retrained")
    ]
    return (
        said
        + "".join(f"; that of a retrained one changes by {figures.signed(one['mae_change'])}" for one in again)
        + "."
    )


def _delay_body(report: Row, *, rows: int | None) -> str:
    head, cells = _delay_cells(report)
    shown, costs = cells[:rows], [shift[_models(report)[0]] for shift in _by_shift(report)]
    most = max((row["mae_change"] or 0.0 for row in costs), default=0.0) or 1.0
    titles = th(head[0]) + th(head[1]) + th("", hidden=True) + "".join(th(text, right=True) for text in head[2:])
    lines = []
    for row, (provider, shift, *others) in zip(costs, shown, strict=False):
        change = row["mae_change"] or 0.0
        painted = bar(abs(change) / most, ORANGE if change > 0 else BLUE, width=8)
        lines.append(
            f'<tr><th scope="row" style="{LEFT}">{escape(provider)}</th>{td(shift, left=True)}'
            f'<td style="{LEFT};width:8rem">{painted}</td>{"".join(td(text) for text in others)}</tr>'
        )
    caption = "Mean absolute error under each shift; bars show by how much that of the deployed model is greater (orange) or less (blue)"
    parts = [
        heading("What a delay costs", _size(report), _DELAY),
        f'<p style="max-width:46rem;margin:0 0 .75em"><strong>{escape(_delay_verdict(report))}</strong></p>',
        table(caption, titles, lines),
        *_left(len(cells) - len(shown)),
        *(remark(text) for text in _remarks(report, _of_model(report["model"]))),
    ]
    return "\n".join(parts)


# --- outage -----------------------------------------------------------------------------------------------------------


def outage_text(report: Row) -> str:
    """The report as plain tables."""
    parts = [
        f"What an outage costs: service {report['service']!r}, {_size(report)}",
        _unit(report),
        aligned(_pattern_cells(report)),
    ]
    if report["overall"]:
        parts.append(aligned(_overall_cells(report)))
    return "\n\n".join([*parts, _outage_verdict(report), *_remarks(report, *_of_outages(report))])


def outage_html(report: Row) -> str:
    """The report as a page of its own."""
    return page("What an outage costs", _outage_body(report, rows=None))


def outage_notebook(report: Row) -> str:
    """The report as a piece of a notebook."""
    return piece(_outage_body(report, rows=NOTEBOOK_ROWS))


def _pattern_cells(report: Row) -> list[list[str]]:
    """A line per pattern: the error of each variant, who wins, and what the service did."""
    variants, figures = list(report["models"]), _outage_figures(report)
    scores = {(row["pattern"], row["variant"]): row["mae"] for row in report["patterns"]}
    head = [
        "providers",
        "rows",
        "share",
        "days",
        *variants,
        "winner",
        "ahead by",
        _percent(report),
        "service",
        "router",
    ]
    cells = [head + (["outage costs", _percent(report)] if report["outages"] else [])]
    for row in report["winners"]:
        line = [row["pattern"], f"{row['rows']:,}", share(row["share"]), f"{row['days']:,}"]
        line += [figures.plain(scores[row["pattern"], name]) for name in variants]
        line += [
            row["winner"] if row["clear"] or row["runner_up"] is None else f"{row['winner']}?",
            figures.plain(row["mae_margin"]),
            figures.interval(row["mae_margin_low"], row["mae_margin_high"]),
            row["served"] or "none",
            figures.plain(row["router_mae"]),
        ]
        cells.append(line + (_change(figures, row, "router_mae_cost") if report["outages"] else []))
    return cells


def _overall_cells(report: Row) -> list[list[str]]:
    percent, figures = _percent(report), _outage_figures(report)
    cells = [["over all rows", "rows", "MAE", percent, "over the router", percent]]
    for row in report["overall"]:
        line = [row["who"], f"{row['rows']:,}", figures.plain(row["mae"])]
        line.append(figures.interval(row["mae_low"], row["mae_high"]))
        cells.append(line + (["-", "-"] if row["who"] == "router" else _change(figures, row, "mae_over_router")))
    return cells


def _outage_figures(report: Row) -> Figures:
    return Figures.of(row["mae"] for row in report["patterns"])


def _outage_verdict(report: Row) -> str:
    """Whether the service chooses who wins."""
    wrong = [row for row in report["winners"] if row["clear"] and row["served"] not in (None, row["winner"])]
    if wrong:
        said = "; ".join(f"{row['pattern']}: {row['winner']} is better than {row['served']}" for row in wrong)
        return f"The service does not choose the better variant everywhere: {said}."
    if any(row["clear"] for row in report["winners"]):
        return "Where one variant is clearly better, the service chooses it."
    return "Nowhere is one variant clearly better."


def _of_outages(report: Row) -> list[str]:
    each = {(model, report["train_rows"][name]) for name, model in report["models"].items()}
    if len(each) == 1:
        ((model, rows),) = each
        remarks = [f"Each variant has a model of its own: {model}, trained on {rows:,} rows"]
    else:
        told = (f"{name} {model}, {report['train_rows'][name]:,} rows" for name, model in report["models"].items())
        remarks = [f"Each variant has a model of its own: {'; '.join(told)}"]
    if any(not row["clear"] and row["runner_up"] is not None for row in report["winners"]):
        remarks.append(
            "A winner with a question mark is not clearly ahead: its interval reaches 0, or the days are too few"
        )
    if report["outages"]:
        remarks.append(f"Injected: {'; '.join(_outage(one) for one in report['outages'])}")
        remarks.append("Outage costs: the router's error less what it was on the same rows without what was injected")
    return remarks


def _outage(one: Row) -> str:
    how = "lost" if one.get("lost") else f"{one['slow']:g} times as slow" if one.get("slow") else "late"
    some = f" for {len(one['entities'])} entities" if one.get("entities") is not None else ""
    return f"{one['provider']} {how}{some} from {moment(one['start'])} to {moment(one['end'])}"


def _outage_body(report: Row, *, rows: int | None) -> str:
    (head, *cells), shown = _pattern_cells(report), report["winners"][:rows]
    parts = [
        heading("What an outage costs", f"Service {report['service']}, {_size(report)}", _OUTAGE),
        f'<p style="max-width:46rem;margin:0 0 .75em"><strong>{escape(_outage_verdict(report))}</strong></p>',
        f'<h2 style="{H2}">By which providers were up</h2>',
        _plain_table(f"{_unit(report)[:-1]}, by availability pattern", head, cells[: len(shown)]),
        *_left(len(cells) - len(shown)),
    ]
    if report["overall"]:
        (head, *cells) = _overall_cells(report)
        caption = "Mean absolute error over all rows at which the service chose a variant"
        parts += [f'<h2 style="{H2}">Over all rows</h2>', _plain_table(caption, head, cells)]
    return "\n".join([*parts, *(remark(text) for text in _remarks(report, *_of_outages(report)))])


# --- both -------------------------------------------------------------------------------------------------------------


def _plain_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = th(head[0]) + "".join(th(text, right=True) for text in head[1:])
    lines = [
        f'<tr><th scope="row" style="{LEFT}">{escape(first)}</th>{"".join(td(text) for text in others)}</tr>'
        for first, *others in rows
    ]
    return table(caption, titles, lines)


def _left(count: int) -> list[str]:
    return [f'<p style="margin:.5em 0">and {count} more: see <code>report.frame</code></p>'] if count else []


def _unit(report: Row) -> str:
    return "Mean absolute error" + (f", {report['unit']}:" if report["unit"] else ":")


def _percent(report: Row) -> str:
    return f"{100 * report['confidence']:g} %"


def _size(report: Row) -> str:
    unit = f" ({report['unit']})" if report["unit"] else ""
    days = f"{report['test_days']:,} day{'' if report['test_days'] == 1 else 's'}"
    return f"{report['label']}{unit}, {report['test_rows']:,} rows tested on {days} ({report['zone']})"


def _of_model(model: str) -> str:
    return f"The model is {model}"


def _remarks(report: Row, *first: str) -> list[str]:
    remarks = [*first, f"Trained at T = {moment(report['trained_at'])}, tested on the rows from T on"]
    remarks += [f"{note[0].upper()}{note[1:]}" for note in report["notes"]]
    if report.get("left_out"):
        said = "; ".join(f"{name} ({why})" for name, why in report["left_out"].items())
        remarks.append(f"Not used by the model: {said}")
    return [f"{text}." for text in remarks]
