"""A build plan as plain text and as HTML; both are made from `BuildPlan.to_dict()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.advice import hours
from alignment.memory import size_text
from alignment.report_form import aligned, heading, moment, page, piece, remark, table, td, th

Told = Mapping[str, Any]
_HEAD = ["read", "from", "rows", "files", "skipped", "on disk", "columns"]


def as_text(plan: Told) -> str:
    """The plan as plain tables."""
    rows = [_cells(read) for read in plan["reads"]]
    parts = [
        _spine(plan["spine"]) + (f"\nas of {moment(plan['as_of'])}" if plan["as_of"] else ""),
        aligned([_HEAD, *rows], left=2),
        "\n".join(f"{name:<8}{text}" for name, text in _figures(plan).items()),
        "\n".join(f"note: {note}" for note in plan["notes"]),
        f"advice: {plan['advice']['code']}\n{plan['advice']['reason']}",
    ]
    return "\n\n".join(part for part in parts if part)


def as_html(plan: Told) -> str:
    """The plan as a page of its own."""
    return page("What a build would take", _body(plan))


def notebook_html(plan: Told) -> str:
    """The plan as a piece of a notebook."""
    return piece(_body(plan))


def _body(plan: Told) -> str:
    head = "".join(th(name, right=place > 1) for place, name in enumerate(_HEAD))
    lines = [
        "<tr>" + "".join(td(cell, left=place < 2) for place, cell in enumerate(_cells(read))) + "</tr>"
        for read in plan["reads"]
    ]
    told = f"Use {plan['advice']['code']}: {plan['advice']['reason']}"
    parts = [heading("What a build would take", _spine(plan["spine"]), told), table("What it would read", head, lines)]
    parts += [remark(f"{name}: {text}") for name, text in _figures(plan).items()]
    return "\n".join([*parts, *(remark(note) for note in plan["notes"])])


def _spine(spine: Told) -> str:
    rows = "unknown rows" if spine["rows"] is None else count_of(spine["rows"], "row", "rows")
    entities = "" if spine["entities"] is None else f" of {count_of(spine['entities'], 'entity', 'entities')}"
    when = f", {moment(spine['first'])} .. {moment(spine['last'])}" if spine["first"] else ""
    size = "" if spine["bytes"] is None else f", {size_text(spine['bytes'])}"
    where = (
        "in memory"
        if spine["source"] == "frame"
        else f"in a {spine['source']}"
        if spine["bytes"] is None
        else "on disk"
    )
    return f"spine: {rows}{entities}{when}{size} {where}"


def count_of(count: int, one: str, many: str) -> str:
    """A number of things: 1 entity, 1,000 entities."""
    return f"{count:,} {one if count == 1 else many}"


def _cells(read: Told) -> list[str]:
    source = f"log {read['provider']}" if read["provider"] else read["source"]
    if read["source"] == "parquet":
        source = f"parquet {read['address']}"
    files = "-" if read["files_read"] is None else f"{read['files_read']:,}"
    skipped = ", ".join(f"{count:,} by {reason}" for reason, count in read["files_skipped"].items()) or "-"
    size = "-" if read["bytes_read"] is None else size_text(read["bytes_read"])
    if read["source"] == "frame":
        size = "in memory"
    return [
        *(read["name"], source, _rows(read), files, skipped, size),
        f"{len(read['columns'])} of {read['stored_columns']}",
    ]


def _rows(read: Told) -> str:
    if read["rows"] is None:
        return "unknown"
    if read["rows_least"] == read["rows_most"]:
        return f"{read['rows']:,}"
    return f"about {read['rows']:,} ({read['rows_least']:,} to {read['rows_most']:,})"


def _figures(plan: Told) -> dict[str, str]:
    memory, seconds, advice = plan["memory"], plan["seconds"], plan["advice"]
    low, high = size_text(memory["least"]), size_text(memory["most"])
    found = {"memory": f"about {size_text(memory['bytes'])} ({low} to {high}) with everything at once"}
    low, high = hours(seconds["least"]), hours(seconds["most"])
    found["time"] = f"about {hours(seconds['total'])} ({low} to {high}) of processor time, all cores together"
    if advice["spill_seconds"]:
        found["time"] += f"; about {hours(advice['spill_seconds'])} more under the limit"
    if advice["buckets"] is not None:
        buckets = advice["buckets"]
        what = "shuffled" if advice["arguments"]["engine"] == "spark" else "kept on disk meanwhile"
        kept = f", {size_text(advice['spilled_bytes'])} {what}" if buckets > 1 else ""
        found["buckets"] = f"{buckets:,}{kept}"
    return found
