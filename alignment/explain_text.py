"""An explanation as plain text and as HTML; both are made from `Explanation.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Any

from alignment.explain_words import counts_text, declared_text, instant_text, span_text, starts_after
from alignment.moves_text import all_moves_text
from alignment.report_form import BLUE, H2, LEFT, ORANGE, RIGHT, aligned, heading, page, piece, remark, table, td, th

NOTEBOOK_FEATURES = 12
"""Features that a notebook shows; the page and the text show all."""
NOTEBOOK_ROWS = 12
"""Used rows of a feature that a notebook shows."""

_TITLES = {
    "row": "row",
    "event_time": "event",
    "issue_time": "issued",
    "published_time": "published",
    "received_time": "received",
    "given_arrival_time": "arrived before it was moved",
    "arrival_time": "arrived",
    "arrival_kind": "arrival is",
    "revision": "revision",
    "age": "age",
    "value": "value",
}
_NUMBERS = ("row", "revision", "age", "value")
_TIMES = ("event_time", "issue_time", "published_time", "received_time", "given_arrival_time", "arrival_time")


def as_text(found: Mapping[str, Any]) -> str:
    """The explanation as plain tables."""
    features = ["\n".join(_feature_text(one)) for one in found["features"]]
    head = [f"Explanation: {_asked(found)}", *_told(found)]
    return "\n\n".join(["\n".join(head), *features])


def _told(found: Mapping[str, Any]) -> list[str]:
    """What moved the arrivals, and what else to know."""
    return [*([f"under: {all_moves_text(found['under'])}"] if found["under"] else []), *found["notes"]]


def _feature_text(one: Mapping[str, Any]) -> list[str]:
    lines = [f"{one['feature']} = {_value(one)} ({one['status']})", f"  {_looks_at(one)}"]
    shown = one["used"]
    lines.append(f"  used: {_count(one['used_count'])}{_only(shown, one['used_count'])}")
    lines += _rows_text(one, shown)
    lines.append(f"  not used: {counts_text(one['unused_counts'])}")
    for row in one["unused"]:
        lines.append(f"    {_name(row)}: {row['text']}")
    lines.append(f"  {_naive(one)}")
    return lines


def _rows_text(one: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    columns = _columns(one, rows)
    lines = [[_TITLES[name] for name in columns], *([_cell(row, name) for name in columns] for row in rows)]
    return [f"    {line}" for line in aligned(lines).splitlines()]


# --- HTML -------------------------------------------------------------------------------------------------------------


def as_html(found: Mapping[str, Any]) -> str:
    """The explanation as a page of its own."""
    return page("Explanation", _body(found, features=None, rows=None))


def notebook_html(found: Mapping[str, Any]) -> str:
    """The explanation as a piece of a notebook: styles inline, colours those of the page around it."""
    return piece(_body(found, features=NOTEBOOK_FEATURES, rows=NOTEBOOK_ROWS))


def _body(found: Mapping[str, Any], *, features: int | None, rows: int | None) -> str:
    shown = found["features"] if features is None else found["features"][:features]
    parts = [heading("Explanation", _asked(found), _EXPLAINED)]
    parts += [f'<p style="max-width:46rem;margin:0 0 .75em">{escape(line)}</p>' for line in _told(found)]
    parts += [_feature_html(one, rows) for one in shown]
    if left := len(found["features"]) - len(shown):
        parts.append(remark(f"And {left} more feature{'' if left == 1 else 's'}: see explanation.to_dict()."))
    return "\n".join(parts)


_EXPLAINED = (
    "What each value was made of: the observations that had arrived by t and that the feature looks at, and why the others "
    "were not used. Naive is what a join on event time, which ignores when rows arrived, would have given."
)


def _feature_html(one: Mapping[str, Any], most: int | None) -> str:
    used = one["used"] if most is None else one["used"][-most:]
    value = f'<span style="border-bottom:.15em solid {BLUE}">{escape(_value(one))}</span>'
    status = f'<span style="font-weight:400;opacity:.8">({escape(one["status"])})</span>'
    parts = [
        f'<h2 style="{H2}">{escape(one["feature"])} = {value} {status}</h2>',
        f'<p style="max-width:46rem;margin:0 0 .75em;opacity:.8">{escape(_looks_at(one))}</p>',
    ]
    size = f"Used: {_count(one['used_count'])}{_only(used, one['used_count'])}"
    parts.append(_used_html(one, size, used) if used else f'<p style="margin:.5em 0">{escape(size)}</p>')
    counts = f"Not used: {counts_text(one['unused_counts'])}"
    parts.append(_unused_html(one, counts) if one["unused"] else f'<p style="margin:.5em 0">{escape(counts)}</p>')
    edge = f"border-left:.25em solid {ORANGE if one['naive']['differs'] else 'rgba(128,128,128,.35)'};padding-left:.6em"
    parts.append(f'<p style="max-width:46rem;margin:.75em 0 0;{edge}">{escape(_naive(one))}</p>')
    return "\n".join(parts)


def _used_html(one: Mapping[str, Any], caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    columns = _columns(one, rows)
    head = "".join(th(_TITLES[name], right=name in _NUMBERS) for name in columns)
    return table(caption, head, [f"<tr>{_cells(row, columns)}</tr>" for row in rows])


def _unused_html(one: Mapping[str, Any], caption: str) -> str:
    moved = any(row["given_arrival_time"] is not None for row in one["unused"])
    given = ["given_arrival_time"] if moved else []
    columns = ["row", "event_time", *given, "arrival_time", *(["value"] if _reads(one) else [])]
    head = "".join(th(_TITLES[name], right=name in _NUMBERS) for name in columns) + th("why not")
    body = [
        f'<tr>{_cells(row, columns)}<td style="{LEFT};white-space:normal;min-width:18rem">{escape(row["text"])}</td></tr>'
        for row in one["unused"]
    ]
    return f'<div style="margin-top:.75em">{table(caption, head, body)}</div>'


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    first, *others = columns
    head = f'<th scope="row" style="{RIGHT};font-weight:400">{escape(_cell(row, first))}</th>'
    return head + "".join(td(_cell(row, name), left=name not in _NUMBERS) for name in others)


# --- words ------------------------------------------------------------------------------------------------------------


def value_text(value: Any) -> str:
    """A value as one writes it; null is `null`.

    Example:
        >>> value_text(0.1), value_text(None), value_text([1, None]), value_text("wet")
        ('0.1', 'null', '[1, null]', "'wet'")
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(value_text(item) for item in value)}]"
    return repr(value)


def _value(one: Mapping[str, Any], value: Any = ...) -> str:
    """A feature's value, or another of its kind, as text; ages as people say them."""
    value = one["value"] if value is ... else value
    if one["type"].startswith("Duration") and value is not None:
        return span_text(timedelta(seconds=value))
    return value_text(value)


def _asked(found: Mapping[str, Any]) -> str:
    entity = ", ".join(f"{name}={value_text(value)}" for name, value in found["entity"].items()) or "the one series"
    parts = [f"{entity} at {_moment(found['t'])}"]
    if found["as_of"] is not None:
        parts.append(f"as of {_moment(found['as_of'])}")
    if found["provisional"]:
        parts.append("provisional")
    return ", ".join(parts)


def _looks_at(one: Mapping[str, Any]) -> str:
    since = ""
    if one["event_from"] is not None:
        after = starts_after(datetime.fromisoformat(one["event_from"]), one["declared"])
        since = f" from {_moment(one['event_from'])}" if after is None else f" after {instant_text(after)}"
    at = "" if one["position"] is None else f", at position {one['position']}"
    return (
        f"{declared_text(one['declared'])} of {one['provider']}: events{since} until {_moment(one['event_until'])}{at}"
    )


def _naive(one: Mapping[str, Any]) -> str:
    naive = one["naive"]
    if not naive["differs"]:
        return "naive: a join on event time would have given the same"
    said = f"naive: a join on event time would have given {_value(one, naive['value'])} ({naive['status']})"
    if not naive["rows"]:
        return f"{said}, from no row"
    last = naive["rows"][-1]
    given = "" if last["given_arrival_time"] is None else f" (given {_moment(last['given_arrival_time'])})"
    which = f"{_name(last)}, which arrived at {_moment(last['arrival_time'])}{given}"
    return f"{said}, from " + (which if naive["row_count"] == 1 else f"{naive['row_count']:,} rows, the last {which}")


def _count(rows: int) -> str:
    return "nothing" if not rows else "1 row" if rows == 1 else f"{rows:,} rows"


def _only(shown: Sequence[Any], count: int) -> str:
    return f", the last {len(shown)} of them" if len(shown) < count else ""


def _name(row: Mapping[str, Any]) -> str:
    event = "" if row["event_time"] is None else f" of {_moment(row['event_time'])}"
    return f"row {row['row']}{event}"


def _reads(one: Mapping[str, Any]) -> bool:
    """Whether a feature reads a column; ages read none."""
    return "column" in one["declared"]


def _columns(one: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of which these rows have something."""
    always = {"row", "event_time", "arrival_time", "revision", "age"} | ({"value"} if _reads(one) else set())
    return [name for name in _TITLES if name in always or any(row[name] is not None for row in rows if name in row)]


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name == "age":
        return "-" if row["event_age"] is None else span_text(timedelta(seconds=row["event_age"]))
    if name == "value":
        return value_text(row["value"])
    if name == "revision":
        return "-" if row["revision"] is None else f"{row['revision']} of {row['revisions']}"
    if row[name] is None:
        return "-"
    return _moment(row[name]) if name in _TIMES else str(row[name])


def _moment(text: str) -> str:
    return instant_text(datetime.fromisoformat(text))
