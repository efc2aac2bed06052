"""A leak report as plain text and as HTML; both are made from `LeakReport.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    number,
    page,
    piece,
    remark,
    share,
    table,
    td,
    th,
)

NOTEBOOK_ROWS = 30
"""Features that a notebook shows; the page and the text show all."""

_EXPLAINED = (
    "Every feature was computed twice: from what had arrived by the prediction time (available), and from the table as it "
    "stood at {as_of}, in which each value is there from its event on, in its last revision (naive). Where the two differ, a "
    "model trained the naive way learns from values that it will not have when it is asked."
)

_COLUMNS = (
    ("differ", "share_differing", "Share of rows where naive and available differ at all"),
    ("naive only", "rows_naive_only", "Share of rows where naive has a value and available has none"),
    ("available only", "rows_available_only", "Share of rows where available has a value and naive has none"),
    ("mean", "mean_difference", "Mean of |naive - available| where both have a value and differ"),
    ("median", "median_difference", "Median of the same"),
    ("max", "max_difference", "Maximum of the same"),
    ("mean / sd", "mean_difference_sd", "The mean, in standard deviations of the available values"),
)
_SCORES = (("R²", "r2"), ("MAE", "mae"), ("RMSE", "rmse"))  # R² to three decimals, errors to three digits


def worst_first(features: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Features by the share of rows that differ, the greatest first; equal ones stay in order."""
    return sorted(features, key=lambda row: -(row["share_differing"] or 0.0))


def as_text(report: Mapping[str, Any]) -> str:
    """The report as plain tables, a line at most about 120 characters wide."""
    features = [["feature", *(title for title, _, _ in _COLUMNS)]]
    features += [[row["feature"], *_cells(row)] for row in worst_first(report["features"])]
    parts = [f"Leak report: {_size(report)}", aligned(features)]
    if report["skill"]:
        scores = [["trained on", "scored", *(title for title, _ in _SCORES)]]
        scores += [
            [row["trained_on"], row["scored"], *(_score(key, row[key]) for _, key in _SCORES)]
            for row in report["skill"]
        ]
        parts += [aligned(scores, left=2), _verdict(report)]
    parts += _remarks(report)
    return "\n\n".join(parts)


def as_html(report: Mapping[str, Any]) -> str:
    """The report as a page of its own."""
    return page("Leak report", _body(report, rows=None))


def notebook_html(report: Mapping[str, Any]) -> str:
    """The report as a piece of a notebook: styles inline, colours those of the page around it."""
    return piece(_body(report, rows=NOTEBOOK_ROWS))


def _body(report: Mapping[str, Any], *, rows: int | None) -> str:
    features = worst_first(report["features"])
    shown = features if rows is None else features[:rows]
    left = len(features) - len(shown)
    parts = [
        heading("Leak report", _size(report), _EXPLAINED.format(as_of=moment(report["as_of"]))),
    ]
    if report["skill"]:
        parts.append(_skill_html(report))
    parts.append(_features_html(shown))
    if left:
        parts.append(f'<p style="margin:.5em 0">and {left} more: see <code>report.frame</code></p>')
    parts += [remark(text) for text in _remarks(report)]
    return "\n".join(parts)


def _skill_html(report: Mapping[str, Any]) -> str:
    head = "".join(th(title, right=True) for title, _ in _SCORES)
    rows = []
    for row in report["skill"]:
        colour = ORANGE if row["trained_on"] == "naive" else BLUE
        cells = "".join(td(_score(key, row[key])) for _, key in _SCORES)
        rows.append(
            f'<tr><th scope="row" style="{LEFT}">{escape(row["trained_on"])}</th>{td(_SCORED[row["scored"]], left=True)}'
            f'<td style="{LEFT};width:14rem">{bar(max(0.0, row["r2"] or 0.0), colour, width=14)}</td>{cells}</tr>'
        )
    return (
        f'<h2 style="{H2}">What the score is worth</h2>\n<p style="max-width:46rem;margin:0 0 .75em">{_emphasised(_verdict(report))}</p>\n'
        + table(
            "Scores of a ridge regression by training set; bars show R²",
            f"{th('trained on')}{th('scored')}{th('', hidden=True)}{head}",
            rows,
        )
    )


def _features_html(features: Sequence[Mapping[str, Any]]) -> str:
    titles = "".join(th(title, right=True, title=meaning) for title, _, meaning in _COLUMNS)
    rows = []
    for row in features:
        cells = "".join(td(text) for text in _cells(row))
        rows.append(
            f'<tr><th scope="row" style="{LEFT}">{escape(row["feature"])}</th>'
            f'<td style="{LEFT};width:8rem">{bar(row["share_differing"] or 0.0, ORANGE, width=8)}</td>{cells}</tr>'
        )
    return f'<h2 style="{H2}">Where naive and available differ</h2>\n' + table(
        "Share of rows that differ, and |naive - available| where both have a value: mean, median, maximum, mean in standard deviations",
        f"{th('feature')}{th('', hidden=True)}{titles}",
        rows,
    )


_SCORED = {"offline": "offline, as its own join sees the rows", "live": "live, on what was available"}


def _cells(row: Mapping[str, Any]) -> list[str]:
    """The texts of one feature, in the order of `_COLUMNS`."""
    texts = []
    for _, key, _ in _COLUMNS:
        value = row[key]
        if key == "share_differing":
            texts.append(share(value))
        elif key.startswith("rows"):
            texts.append(share(value / row["rows"] if row["rows"] else None))
        else:
            texts.append(number(value, None if key == "mean_difference_sd" else row["unit"]))
    return texts


def _score(key: str, value: float | None) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if value is not None and key == "r2" else number(value)  # no -0.000


def _size(report: Mapping[str, Any]) -> str:
    count = len(report["features"])
    return f"{report['rows']:,} rows, {count:,} feature{'' if count == 1 else 's'}, as of {moment(report['as_of'])}"


def _emphasised(verdict: str) -> str:
    """A verdict as HTML, its number in bold."""
    first, dot, rest = escape(verdict).partition(". ")
    return f"<strong>{first}{dot}</strong>{rest}" if dot else first


def _verdict(report: Mapping[str, Any]) -> str:
    """The two models in two sentences."""
    scores = {(row["trained_on"], row["scored"]): row for row in report["skill"]}
    offline, live, honest = scores["naive", "offline"], scores["naive", "live"], scores["available", "live"]
    fake = report["fake_skill"]
    if fake["r2"] is None:
        return (
            f"Trained on naive rows the model errs by {number(offline['mae'])} offline and {number(live['mae'])} live; "
            f"trained on available rows by {number(honest['mae'])} live."
        )
    return (
        f"Fake skill: R² {_score('r2', fake['r2'])}. Trained on naive rows the model scores {_score('r2', offline['r2'])} offline and "
        f"{_score('r2', live['r2'])} live; trained on available rows it scores {_score('r2', honest['r2'])} in both."
    )


def _remarks(report: Mapping[str, Any]) -> list[str]:
    remarks = []
    if report["trained_at"]:
        remarks.append(
            f"The model is a ridge regression for the label {report['label']!r}, trained at T = {moment(report['trained_at'])} and "
            "tested on the rows from T on; R² of 0 is always saying the mean of the tested labels."
        )
    remarks += [f"{note[0].upper()}{note[1:]}." for note in report["notes"]]
    if report["left_out"]:
        remarks.append(
            "Not used by the model: " + "; ".join(f"{name} ({why})" for name, why in report["left_out"].items()) + "."
        )
    return remarks
