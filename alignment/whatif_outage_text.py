"""What an outage costs, as plain text and as HTML; both are made from `OutageCost.to_dict()`."""

from __future__ import annotations

from html import escape

from alignment.report_form import H2, aligned, heading, moment, page, piece, remark, share
from alignment.whatif_text import (
    NOTEBOOK_ROWS,
    Figures,
    Row,
    change,
    left_out_rows,
    percent,
    plain_table,
    remarks,
    size,
)

MOST_OUTAGES = 6
"""Injected outages that are listed; `to_dict()` has all."""
_EXPLAINED = (
    "A pattern is which providers were down, by their heartbeats. Each variant of the service has a model of its own, and answered all "
    "rows of each pattern; the router asks the variant that the service would have chosen. Intervals are what days drawn anew give."
)


def as_text(report: Row) -> str:
    """The report as plain tables."""
    parts = [
        f"What an outage costs: service {report['service']!r}, {size(report)}",
        f"{_unit(report)}:",
        aligned(_score_cells(report)),
        aligned(_winner_cells(report)),
    ]
    if report["overall"]:
        parts.append(aligned(_overall_cells(report)))
    return "\n\n".join([*parts, _verdict(report), *remarks(report, *_of_outages(report))])


def as_html(report: Row) -> str:
    """The report as a page of its own."""
    return page("What an outage costs", _body(report, rows=None))


def notebook_html(report: Row) -> str:
    """The report as a piece of a notebook."""
    return piece(_body(report, rows=NOTEBOOK_ROWS))


def _score_cells(report: Row) -> list[list[str]]:
    """A line per pattern: how often it was, and the error of each variant."""
    figures = _figures(report)
    scores = {(row["pattern"], row["variant"]): row["mae"] for row in report["patterns"]}
    cells = [["providers", "rows", "share", "days", *report["models"]]]
    for row in report["winners"]:
        line = [row["pattern"], f"{row['rows']:,}", share(row["share"]), f"{row['days']:,}"]
        cells.append(line + [figures.plain(scores[row["pattern"], name]) for name in report["models"]])
    return cells


def _winner_cells(report: Row) -> list[list[str]]:
    """A line per pattern: who wins, and what the service did."""
    figures = _figures(report)
    inside = percent(report)
    head = ["providers", "winner", "ahead by", f"ahead, {inside}", "service chose", "router"]
    head += ["over winner", f"over winner, {inside}"]
    cells = [head + (["outage costs", f"costs, {inside}"] if report["outages"] else [])]
    for row in report["winners"]:
        line = [
            row["pattern"],
            row["winner"] if row["clear"] or row["runner_up"] is None else f"{row['winner']}?",
            figures.plain(row["mae_margin"]),
            figures.interval(row["mae_margin_low"], row["mae_margin_high"]),
            row["served"] or "none",
            figures.plain(row["router_mae"]),
            *(change(figures, row, "router_mae_over_winner") if row["router_mae_over_winner"] else ["-", "-"]),
        ]
        cells.append(line + (change(figures, row, "router_mae_cost") if report["outages"] else []))
    return cells


def _overall_cells(report: Row) -> list[list[str]]:
    inside, figures = percent(report), _figures(report)
    cells = [["over all rows", "rows", "MAE", f"MAE, {inside}", "over the router", f"over, {inside}"]]
    for row in report["overall"]:
        line = [row["who"], f"{row['rows']:,}", figures.plain(row["mae"])]
        line.append(figures.interval(row["mae_low"], row["mae_high"]))
        cells.append(line + (["-", "-"] if row["who"] == "router" else change(figures, row, "mae_over_router")))
    return cells


def _figures(report: Row) -> Figures:
    return Figures.of(row["mae"] for row in report["patterns"])


def _verdict(report: Row) -> str:
    """Whether the service chooses who wins."""
    wrong = [row for row in report["winners"] if row["misrouted"]]
    if wrong:
        figures = _figures(report)
        said = "; ".join(
            f"{row['pattern']}, {row['winner']} errs by {figures.plain(row['router_mae_over_winner'])} less than what it chooses, "
            f"{row['served']}"
            for row in wrong
        )
        return f"The service does not choose the better variant everywhere: {said}."
    if any(row["clear"] for row in report["winners"]):
        return "Where one variant is clearly better, the service chooses it."
    return "Nowhere is one variant clearly better."


def _of_outages(report: Row) -> list[str]:
    each = {(model, report["train_rows"][name]) for name, model in report["models"].items()}
    if len(each) == 1:
        ((model, rows),) = each
        said = [f"Each variant has a model of its own: {model}, trained on {rows:,} rows"]
    else:
        told = (f"{name} {model}, {report['train_rows'][name]:,} rows" for name, model in report["models"].items())
        said = [f"Each variant has a model of its own: {'; '.join(told)}"]
    if any(not row["clear"] and row["runner_up"] is not None for row in report["winners"]):
        said.append(
            "A winner with a question mark is not clearly ahead: its interval reaches 0, or the days are too few"
        )
    if report["outages"]:
        listed = "; ".join(_outage(one) for one in report["outages"][:MOST_OUTAGES])
        more = len(report["outages"]) - MOST_OUTAGES
        said.append(f"Injected: {listed}" + (f"; and {more:,} more" if more > 0 else ""))
        said.append("Outage costs: the router's error less what it was on the same rows without what was injected")
    return said


def _outage(one: Row) -> str:
    how = "lost" if one.get("lost") else f"{one['slow']:g} times as slow" if one.get("slow") else "late"
    some = f" for {len(one['entities'])} entities" if one.get("entities") is not None else ""
    return f"{one['provider']} {how}{some} from {moment(one['start'])} to {moment(one['end'])}"


def _body(report: Row, *, rows: int | None) -> str:
    (scored, *scores), (won, *winners) = _score_cells(report), _winner_cells(report)
    parts = [
        heading("What an outage costs", f"Service {report['service']}, {size(report)}", _EXPLAINED),
        f'<p style="max-width:46rem;margin:0 0 .75em"><strong>{escape(_verdict(report))}</strong></p>',
        f'<h2 style="{H2}">By which providers were up</h2>',
        plain_table(f"{_unit(report)}, of each variant", scored, scores[:rows]),
        *left_out_rows(len(scores) - len(scores[:rows])),
        f'<h2 style="{H2}">Who wins, and what the service chose</h2>',
        plain_table(f"{_unit(report)}, of the best variant and of the router", won, winners[:rows]),
    ]
    if report["overall"]:
        (head, *cells) = _overall_cells(report)
        caption = "Mean absolute error over all rows at which the service chose a variant"
        parts += [f'<h2 style="{H2}">Over all rows</h2>', plain_table(caption, head, cells)]
    return "\n".join([*parts, *(remark(text) for text in remarks(report, *_of_outages(report)))])


def _unit(report: Row) -> str:
    return "Mean absolute error" + (f", {report['unit']}" if report["unit"] else "")
