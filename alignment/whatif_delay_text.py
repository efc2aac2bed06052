"""What a delay costs, as plain text and as HTML; both are made from `DelayCost.to_dict()`."""

from __future__ import annotations

from html import escape

from alignment.report_form import BLUE, LEFT, ORANGE, aligned, bar, heading, page, piece, remark, share, table, td, th
from alignment.whatif_text import NOTEBOOK_ROWS, Figures, Row, change, left_out_rows, percent, remarks, size

_CLASSES = ("deployed", "retrained")
_EXPLAINED = (
    "Every provider was moved by itself, earlier or later by so much, or was not there at all; rows and labels stayed the same. The "
    "deployed model was trained on arrivals as they were, the retrained one under the shift. A change is against no shift, on the "
    "same rows; its interval is what days drawn anew give."
)


def as_text(report: Row) -> str:
    """The report as a plain table."""
    head, rows = _cells(report)
    return "\n\n".join(
        [
            f"What a delay costs: {size(report)}",
            aligned([head, *rows], left=2),
            _verdict(report),
            *remarks(report, f"The model is {report['model']}"),
        ]
    )


def as_html(report: Row) -> str:
    """The report as a page of its own."""
    return page("What a delay costs", _body(report, rows=None))


def notebook_html(report: Row) -> str:
    """The report as a piece of a notebook."""
    return piece(_body(report, rows=NOTEBOOK_ROWS))


def _models(report: Row) -> list[str]:
    there = {row["model"] for row in report["costs"]}
    return [name for name in _CLASSES if name in there]


def _by_shift(report: Row) -> list[dict[str, Row]]:
    """Per provider and shift the rows of its models."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in report["costs"]:
        found.setdefault((row["provider"], row["shift"]), {})[row["model"]] = row
    return list(found.values())


def _cells(report: Row) -> tuple[list[str], list[list[str]]]:
    models, figures = _models(report), _figures(report)
    head = ["provider", "shift", "rows changed"]
    for name in models:
        head += [f"MAE {name}", "change", percent(report)]
    rows = []
    for shift in _by_shift(report):
        first = shift[models[0]]
        cells = [first["provider"], first["shift"], share(first["share_changed"])]
        for row in (shift[name] for name in models):
            cells.append(figures.plain(row["mae"]))
            cells += ["-", "-"] if row["moved"] == 0 else change(figures, row, "mae_change")
        rows.append(cells)
    return head, rows


def _figures(report: Row) -> Figures:
    return Figures.of(row["mae"] for row in report["costs"])


def _verdict(report: Row) -> str:
    """What costs most, as far as days drawn anew do not explain it."""
    sure = [row for row in report["costs"] if row["model"] == "deployed" and (row["mae_change_low"] or 0.0) > 0]
    if not sure:
        return "No shift makes the deployed model worse beyond what days drawn anew give."
    row = max(sure, key=lambda row: row["mae_change"])
    how = "off" if row["shift"] == "off" else f"{row['shift'].lstrip('-')} {'earlier' if row['moved'] < 0 else 'later'}"
    unit = f" {report['unit']}" if report["unit"] else ""
    figures = _figures(report)
    said = (
        f"Dearest is {row['provider']} {how}: the deployed model's MAE is {figures.plain(row['mae_change'])}{unit} greater "
        f"({percent(report)}: {figures.interval(row['mae_change_low'], row['mae_change_high'])})"
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


def _body(report: Row, *, rows: int | None) -> str:
    head, cells = _cells(report)
    shown, costs = cells[:rows], [shift[_models(report)[0]] for shift in _by_shift(report)]
    most = max((row["mae_change"] or 0.0 for row in costs), default=0.0) or 1.0
    titles = th(head[0]) + th(head[1]) + th("", hidden=True) + "".join(th(text, right=True) for text in head[2:])
    lines = []
    for row, (provider, shift, *others) in zip(costs, shown, strict=False):
        change = row["mae_change"] or 0.0
        painted = bar(abs(change) / most, ORANGE if change > 0 else BLUE, width=5)
        lines.append(
            f'<tr><th scope="row" style="{LEFT}">{escape(provider)}</th>{td(shift, left=True)}'
            f'<td style="{LEFT};width:5rem">{painted}</td>{"".join(td(text) for text in others)}</tr>'
        )
    caption = "Mean absolute error under each shift; bars show by how much that of the deployed model is greater (orange) or less (blue)"
    parts = [
        heading("What a delay costs", size(report), _EXPLAINED),
        f'<p style="max-width:46rem;margin:0 0 .75em"><strong>{escape(_verdict(report))}</strong></p>',
        table(caption, titles, lines),
        *left_out_rows(len(cells) - len(shown)),
        *(remark(text) for text in remarks(report, f"The model is {report['model']}")),
    ]
    return "\n".join(parts)
