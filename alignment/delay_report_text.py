"""A report on delay rules as plain text and as HTML; both are made from `DelayReport.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alignment.report_form import H2, LEFT, aligned, heading, moment, number, page, piece, remark, share, table, td, th
from alignment.settling import human

_TITLE = "Delay rules against measured arrivals"
_EXPLAINED = (
    "Rows that were new after the cut were given arrivals by each rule. Precision: of the rows that a rule shows at a prediction "
    "time, how many had arrived. Recall: of those that had, how many it shows. Visible: how many more or fewer it shows. The rest is "
    "what features computed from such arrivals would have been."
)
_SCORES = (
    ("precision", "precision"),
    ("recall", "recall"),
    ("F1", "f1"),
    ("visible", "visible_bias"),
    ("other row", "latest_differs"),
    ("older by", "age_bias_s"),
    ("age error", "age_error_s"),
)


def as_text(report: Mapping[str, Any]) -> str:
    """The report as plain tables."""
    scores = [["rule", *(title for title, _ in _SCORES)]]
    scores += [[row["rule"], *_cells(row)] for row in report["scores"]]
    features = [["rule", "feature", "differs", "bias", "MAE", "true mean"]]
    features += [[row["rule"], row["feature"], *_feature_cells(row)] for row in report["features"]]
    rules = "\n".join(f"{row['rule']}: {row['is']}" for row in report["scores"])
    return "\n\n".join([f"{_TITLE}: {_size(report)}", aligned(scores), aligned(features, left=2), rules])


def as_html(report: Mapping[str, Any]) -> str:
    """The report as a page of its own."""
    return page(_TITLE, _body(report))


def notebook_html(report: Mapping[str, Any]) -> str:
    """The report as a piece of a notebook: styles inline, colours those of the page around it."""
    return piece(_body(report))


def _body(report: Mapping[str, Any]) -> str:
    head = th("rule") + "".join(th(title, right=True) for title, _ in _SCORES)
    scores = [_line([row["rule"]], _cells(row)) for row in report["scores"]]
    columns = (
        th("rule") + th("feature") + "".join(th(title, right=True) for title in ("differs", "bias", "MAE", "true mean"))
    )
    features = [_line([row["rule"], row["feature"]], _feature_cells(row)) for row in report["features"]]
    return "\n".join(
        [
            heading(_TITLE, _size(report), _EXPLAINED),
            f'<h2 style="{H2}">What would have been visible</h2>',
            table("Rows visible under each rule against the rows that were; the row that latest takes", head, scores),
            f'<h2 style="{H2}">What features would have been</h2>',
            table("Values under each rule against the true ones", columns, features),
            *(remark(f"{row['rule']}: {row['is']}") for row in report["scores"]),
        ]
    )


def _line(names: Sequence[str], cells: Sequence[str]) -> str:
    first = f'<th scope="row" style="{LEFT}">{escape(names[0])}</th>'
    return f"<tr>{first}{''.join(td(name, left=True) for name in names[1:])}{''.join(td(cell) for cell in cells)}</tr>"


def _cells(row: Mapping[str, Any]) -> list[str]:
    texts = []
    for _, key in _SCORES:
        value = row[key]
        if key.endswith("_s"):
            texts.append(human(value))
        elif key == "visible_bias":
            texts.append("-" if value is None else f"{100 * value:+.1f} %")
        else:
            texts.append(share(value) if key == "latest_differs" else "-" if value is None else f"{value:.3f}")
    return texts


def _feature_cells(row: Mapping[str, Any]) -> list[str]:
    bias = row["bias"]
    signed = number(bias) if bias is None or bias < 0 else f"+{number(bias)}"
    return [share(row["differs"]), signed, number(row["mae"]), number(row["mean"])]


def _size(report: Mapping[str, Any]) -> str:
    return (
        f"{report['provider']}, {report['rows']:,} keys new after {moment(report['since'])}, {report['times']:,} prediction times up to "
        f"{moment(report['until'])}, {report['lookback']} back"
    )
