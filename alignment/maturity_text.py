"""Label maturity as plain text and as HTML; both are made from `LabelMaturity.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alignment.report_form import (
    BLUE,
    H2,
    LEFT,
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
from alignment.settling import human

SHOWN = 12
"""Entities that the text and a notebook show; the page and `to_dict` have all."""

_TITLE = "Label maturity"
_EXPLAINED = (
    "Labels are late and revised as well. Of every event the value at each age was compared with the value it has in the end. "
    "Events that happened too late to be known settled are left out."
)
_WHY = {
    "retracted": "retracted in the end",
    "no_value": "null in the end",
    "not_measured": "of declared or modelled arrival",
    "before_log": "from before the first arrival",
    "too_young": "too young to be known settled",
}
_CURVE = (
    ("present", "present", "Share of events whose label is there and not null"),
    ("within", "within", "Share whose value is within the tolerance of the final one"),
    ("for good", "settled", "Share whose value is within the tolerance from then on"),
    ("bias", "bias", "Mean of value - final, of the labels that are there"),
    ("MAE", "mae", "Mean of |value - final|"),
    ("bias %", "relative_bias", "The bias as a share of the mean of |final|"),
    ("MAE %", "relative_mae", "The same of the MAE"),
)
_NOT_ENTITIES = ("events", "arrived", "settled", "settled_share", "first_within", "settled_by_release", "release")
"""Columns of `series` that are no entities."""


def as_text(report: Mapping[str, Any]) -> str:
    """The report as plain tables."""
    parts = [f"{_TITLE} of {report['column']!r}: {_size(report)}", *_sentences(report)]
    if report["curve"]:
        head = ["release", "events", *(title for title, _, _ in _CURVE)]
        parts.append(
            aligned([head, *([_mark(report, row), f"{row['events']:,}", *_point(row)] for row in report["curve"])])
        )
    if report["series"]:
        names = _entities(report)
        head = [*names, "events", *(title for title, _ in _series_head(report))]
        shown = report["series"][:SHOWN]
        lines = [[*(str(row[name]) for name in names), f"{row['events']:,}", *_of_series(row)] for row in shown]
        parts.append(aligned([head, *lines], left=len(names)) + _rest(report, len(shown)))
    parts += _remarks(report)
    return "\n\n".join(parts)


def as_html(report: Mapping[str, Any]) -> str:
    """The report as a page of its own."""
    return page(f"{_TITLE} of {report['column']}", _body(report, rows=None))


def notebook_html(report: Mapping[str, Any]) -> str:
    """The report as a piece of a notebook."""
    return piece(_body(report, rows=SHOWN))


def _body(report: Mapping[str, Any], *, rows: int | None) -> str:
    parts = [heading(f"{_TITLE} of {report['column']}", _size(report), _EXPLAINED)]
    parts += [f'<p style="max-width:46rem;margin:0 0 .75em">{escape(text)}</p>' for text in _sentences(report)]
    if report["curve"]:
        head = th("release") + th("", hidden=True) + th("events", right=True)
        head += "".join(th(title, right=True, title=meaning) for title, _, meaning in _CURVE)
        lines = []
        for row in report["curve"]:
            cells = "".join(td(text) for text in (f"{row['events']:,}", *_point(row)))
            drawn = f'<td style="{LEFT};width:8rem">{bar(row["settled"] or 0.0, BLUE, width=8)}</td>'
            lines.append(f'<tr><th scope="row" style="{LEFT}">{escape(_mark(report, row))}</th>{drawn}{cells}</tr>')
        caption = "Labels by release; bars show the share that has settled"
        parts.append(f'<h2 style="{H2}">What a label is worth at an age</h2>\n' + table(caption, head, lines))
    if report["series"]:
        names, shown = _entities(report), report["series"][:rows]
        head = "".join(th(name) for name in names) + th("events", right=True)
        head += "".join(th(title, right=True, title=meaning) for title, meaning in _series_head(report))
        lines = [
            "<tr>"
            + "".join(td(str(row[name]), left=True) for name in names)
            + "".join(td(text) for text in (f"{row['events']:,}", *_of_series(row)))
            + "</tr>"
            for row in shown
        ]
        parts.append(
            f'<h2 style="{H2}">By series, the slowest first</h2>\n'
            + table("How soon labels settle, by series", head, lines)
        )
        parts += [remark(text.strip()) for text in [_rest(report, len(shown))] if text]
    parts += [remark(text) for text in _remarks(report)]
    return "\n".join(parts)


def _size(report: Mapping[str, Any]) -> str:
    return f"{report['events']:,} event{'' if report['events'] == 1 else 's'}, as of {moment(report['as_of'])}"


def within_text(within: str) -> str:
    """A tolerance in words.

    Example:
        >>> within_text("1%"), within_text("0.5")
        ('within 1 % of the final value', 'within 0.5 of the final value')
    """
    return f"within {within.removesuffix('%').strip()}{' %' if within.endswith('%') else ''} of the final value"


def _sentences(report: Mapping[str, Any]) -> list[str]:
    """What was found, and what to do."""
    found, within = report["settled"], within_text(report["within"])
    if not report["events"]:
        return []
    half, most, last = (human(found[name]) for name in ("q50", "q95", "max"))
    if report["release"] == "first":
        late = f"Half of the labels arrive by {human(report['arrived']['q50'])} after the event, 95 % by {human(report['arrived']['q95'])}."
        lines = [f"No value was revised: the first one is {within}, always. {late}"]
    else:
        lines = [
            f"Half of the labels are {within}, for good, by {half} after the event, 95 % by {most}, the last one by {last}."
        ]
    if report["release"] is not None:
        lines.append(
            f"Recommended: al.label({report['column']!r}, ..., release={report['release']!r}), and an embargo of {report['embargo']} "
            "or more where labels are released as_known."
        )
    if (earlier := _earlier(report)) is not None:
        lines.append(earlier)
    return lines


def _earlier(report: Mapping[str, Any]) -> str | None:
    """What training on the first release would cost that has most of the labels."""
    if report["release"] in (None, "first"):
        return None
    early = next((row for row in report["curve"] if (row["present"] or 0.0) > 0.5 and row["mae"] is not None), None)
    if early is None or early["release"] == report["release"]:
        return None
    relative = "" if early["relative_bias"] is None else f" ({_signed_share(early['relative_bias'])} of the mean)"
    null = f"; {share(1 - early['present'])} are not there" if early["present"] < 1 else ""
    return (
        f"Trained on labels released {early['release']!r} instead, they are off by {_signed(early['bias'])} on average{relative}, "
        f"MAE {number(early['mae'])}{null}."
    )


def _remarks(report: Mapping[str, Any]) -> list[str]:
    struck = ", ".join(f"{count:,} {_WHY[name]}" for name, count in report["left_out"].items() if count)
    remarks = []
    if report["watched"] is not None:
        remarks.append(f"Every event was watched for at least {human(report['watched'])}.")
    if struck:
        remarks.append(f"Left out: {struck}.")
    return [" ".join(remarks)] * bool(remarks) + [f"{note[0].upper()}{note[1:]}." for note in report["notes"]]


def _rest(report: Mapping[str, Any], shown: int) -> str:
    left = len(report["series"]) - shown
    return f"\nand {left} more: see report.series" if left else ""


def _mark(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"{row['release']} *" if row["release"] == report["release"] else str(row["release"])


def _series_head(report: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Titles of the columns of a series and what they mean, in the order of `_of_series`."""
    most = f"{100 * report['share']:g} %"
    return (
        ("half arrived by", "Median age when the first value arrived"),
        ("half settled by", "Median age from which on the value is within the tolerance"),
        (f"{most} settled by", f"Age by which {most} of the events have settled"),
        ("first ok", "Share whose first value is near the final one"),
        ("ok at release", "Share that has settled by the recommended release"),
        ("own release", "What this series alone would call for"),
    )


def _entities(report: Mapping[str, Any]) -> list[str]:
    return [name for name in report["series"][0] if name not in _NOT_ENTITIES]


def _point(row: Mapping[str, Any]) -> Sequence[str]:
    """The texts of one row of the curve, in the order of `_CURVE`."""
    shares = [share(row[key]) for key in ("present", "within", "settled")]
    return [
        *shares,
        _signed(row["bias"]),
        number(row["mae"]),
        _signed_share(row["relative_bias"]),
        share(row["relative_mae"]),
    ]


def _of_series(row: Mapping[str, Any]) -> Sequence[str]:
    lengths = [human(row[key]) for key in ("arrived", "settled", "settled_share")]
    return [*lengths, share(row["first_within"]), share(row["settled_by_release"]), row["release"] or "-"]


def _signed(value: float | None) -> str:
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def _signed_share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %" if value else "0.0 %"
