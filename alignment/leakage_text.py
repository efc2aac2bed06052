"""A leak report as plain text and as HTML; both are made from `LeakReport.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NOTEBOOK_ROWS = 30
"""Features that a notebook shows; the page and the text show all."""

_ORANGE, _BLUE = "#d55e00", "#3d8fd1"
"""Naive and available: told apart by everyone, and on white as on black."""
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


def share(value: float | None) -> str:
    """A share as a percentage; what is not nothing does not look like nothing, nor what is not all like all.

    Example:
        >>> share(0.5), share(0.0), share(0.0001), share(0.9999), share(None)
        ('50.0 %', '0.0 %', '< 0.1 %', '> 99.9 %', '-')
    """
    if value is None:
        return "-"
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def number(value: float | None, unit: str | None = None) -> str:
    """A number with three significant digits, no exponent where it can be read without.

    Example:
        >>> number(0.12), number(123.4), number(1234567.8), number(90.0, "s"), number(None)
        ('0.120', '123', '1,234,568', '90 s', '-')
    """
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e9:
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:#.3g}".removesuffix(".")
    return f"{text} {unit}" if unit else text


def worst_first(features: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Features by the share of rows that differ, the greatest first; equal ones stay in order."""
    return sorted(features, key=lambda row: -(row["share_differing"] or 0.0))


def as_text(report: Mapping[str, Any]) -> str:
    """The report as plain tables, a line at most about 120 characters wide."""
    table = [["feature", *(title for title, _, _ in _COLUMNS)]]
    table += [[row["feature"], *_cells(row)] for row in worst_first(report["features"])]
    parts = [f"Leak report: {_size(report)}", _aligned(table)]
    if report["skill"]:
        scores = [["trained on", "scored", *(title for title, _ in _SCORES)]]
        scores += [
            [row["trained_on"], row["scored"], *(_score(key, row[key]) for _, key in _SCORES)]
            for row in report["skill"]
        ]
        parts += [_aligned(scores, left=2), _verdict(report)]
    parts += _remarks(report)
    return "\n\n".join(parts)


def as_html(report: Mapping[str, Any]) -> str:
    """The report as a page of its own."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        "<title>Leak report</title>\n<style>\n"
        ":root { color-scheme: light dark; }\n"
        "body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.25rem; }\n"
        "@media print { body { margin: 0; max-width: none; } }\n"
        f"</style>\n</head>\n<body>\n<main>\n{_body(report, rows=None)}\n</main>\n</body>\n</html>\n"
    )


def notebook_html(report: Mapping[str, Any]) -> str:
    """The report as a piece of a notebook: styles inline, colours those of the page around it."""
    return f'<div style="max-width:68rem;line-height:1.5">{_body(report, rows=NOTEBOOK_ROWS)}</div>'


def _body(report: Mapping[str, Any], *, rows: int | None) -> str:
    features = worst_first(report["features"])
    shown = features if rows is None else features[:rows]
    left = len(features) - len(shown)
    parts = [
        '<h1 style="font-size:1.6em;line-height:1.2;margin:0">Leak report</h1>',
        f'<p style="margin:.25em 0 1em;opacity:.8">{escape(_size(report))}</p>',
        f'<p style="max-width:46rem;margin:0 0 1.5em">{escape(_EXPLAINED.format(as_of=_moment(report["as_of"])))}</p>',
    ]
    if report["skill"]:
        parts.append(_skill_html(report))
    parts.append(_features_html(shown))
    if left:
        parts.append(f'<p style="margin:.5em 0">and {left} more: see <code>report.frame</code></p>')
    parts += [
        f'<p style="max-width:46rem;margin:.75em 0 0;opacity:.8">{escape(remark)}</p>' for remark in _remarks(report)
    ]
    return "\n".join(parts)


def _skill_html(report: Mapping[str, Any]) -> str:
    head = "".join(_th(title, right=True) for title, _ in _SCORES)
    rows = []
    for row in report["skill"]:
        colour = _ORANGE if row["trained_on"] == "naive" else _BLUE
        cells = "".join(_td(_score(key, row[key])) for _, key in _SCORES)
        rows.append(
            f'<tr><th scope="row" style="{_LEFT}">{escape(row["trained_on"])}</th>{_td(_SCORED[row["scored"]], left=True)}'
            f'<td style="{_LEFT};width:14rem">{_bar(max(0.0, row["r2"] or 0.0), colour, width=14)}</td>{cells}</tr>'
        )
    return (
        f'<h2 style="{_H2}">What the score is worth</h2>\n<p style="max-width:46rem;margin:0 0 .75em">{_emphasised(_verdict(report))}</p>\n'
        + _table(
            "Scores of a ridge regression by training set; bars show R²",
            f"{_th('trained on')}{_th('scored')}{_th('', hidden=True)}{head}",
            rows,
        )
    )


def _features_html(features: Sequence[Mapping[str, Any]]) -> str:
    titles = "".join(_th(title, right=True, title=meaning) for title, _, meaning in _COLUMNS)
    rows = []
    for row in features:
        cells = "".join(_td(text) for text in _cells(row))
        rows.append(
            f'<tr><th scope="row" style="{_LEFT}">{escape(row["feature"])}</th>'
            f'<td style="{_LEFT};width:8rem">{_bar(row["share_differing"] or 0.0, _ORANGE, width=8)}</td>{cells}</tr>'
        )
    return f'<h2 style="{_H2}">Where naive and available differ</h2>\n' + _table(
        "Share of rows that differ, and |naive - available| where both have a value: mean, median, maximum, mean in standard deviations",
        f"{_th('feature')}{_th('', hidden=True)}{titles}",
        rows,
    )


_CELL = "padding:.3em .7em;border-bottom:1px solid rgba(128,128,128,.35);white-space:nowrap;background:none"
_LEFT = f"{_CELL};text-align:left;font-weight:400"
_RIGHT = f"{_CELL};text-align:right;font-variant-numeric:tabular-nums"
_H2 = "font-size:1.15em;line-height:1.3;margin:1.5em 0 .4em"
_SCORED = {"offline": "offline, as its own join sees the rows", "live": "live, on what was available"}


def _table(caption: str, head: str, rows: Sequence[str]) -> str:
    """A table that scrolls sideways in itself, with the keyboard too."""
    return (
        f'<div role="region" aria-label="{escape(caption)}" tabindex="0" style="overflow-x:auto">'
        f'<table style="border-collapse:collapse;font-size:.9em;margin:0">'
        f'<caption style="text-align:left;opacity:.8;padding:0 .7em .4em;caption-side:top;color:inherit">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _th(text: str, *, right: bool = False, hidden: bool = False, title: str = "") -> str:
    style = f"{_CELL};text-align:{'right' if right else 'left'};font-weight:600"
    if hidden:
        return f'<td style="{style}"></td>'
    return f'<th scope="col" style="{style}"{f" title={chr(34)}{escape(title)}{chr(34)}" if title else ""}>{escape(text)}</th>'


def _td(text: str, *, left: bool = False) -> str:
    return f'<td style="{_LEFT if left else _RIGHT}">{escape(text)}</td>'


def _bar(part: float, colour: str, *, width: int) -> str:
    """A bar for a part of one; the number beside it says the same."""
    return (
        f'<span aria-hidden="true" style="display:block;width:{width}rem;height:.7em;background:rgba(128,128,128,.2)">'
        f'<span style="display:block;width:{100 * min(1.0, part):.1f}%;height:100%;background:{colour}"></span></span>'
    )


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
    return f"{report['rows']:,} rows, {count:,} feature{'' if count == 1 else 's'}, as of {_moment(report['as_of'])}"


def _moment(text: str) -> str:
    return text[:19].replace("T", " ") + "Z"


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
            f"The model is a ridge regression for the label {report['label']!r}, trained at T = {_moment(report['trained_at'])} and "
            "tested on the rows from T on; R² of 0 is always saying the mean of the tested labels."
        )
    remarks += [f"{note[0].upper()}{note[1:]}." for note in report["notes"]]
    if report["left_out"]:
        remarks.append(
            "Not used by the model: " + "; ".join(f"{name} ({why})" for name, why in report["left_out"].items()) + "."
        )
    return remarks


def _aligned(table: Sequence[Sequence[str]], *, left: int = 1) -> str:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
