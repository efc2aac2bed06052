"""What all reports look like: numbers as text, plain tables, and HTML without scripts in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

ORANGE, BLUE = "#d55e00", "#3d8fd1"
"""What is feared and what is had: told apart by everyone, and on white as on black."""


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


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for JSON; what is not finite is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def moment(text: str) -> str:
    """An ISO instant in UTC, to the second.

    Example:
        >>> moment("2026-01-05T10:00:00+00:00")
        '2026-01-05 10:00:00Z'
    """
    return text[:19].replace("T", " ") + "Z"


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A plain table, the first row its head; the first `left` columns begin at the left, the others end at the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# --- HTML -------------------------------------------------------------------------------------------------------------

CELL = "padding:.3em .7em;border-bottom:1px solid rgba(128,128,128,.35);white-space:nowrap;background:none"
LEFT = f"{CELL};text-align:left;font-weight:400"
RIGHT = f"{CELL};text-align:right;font-variant-numeric:tabular-nums"
H2 = "font-size:1.15em;line-height:1.3;margin:1.5em 0 .4em"


def page(title: str, body: str) -> str:
    """A page of its own: nothing is loaded from elsewhere."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n"
        ":root { color-scheme: light dark; }\n"
        "body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.25rem; }\n"
        "@media print { body { margin: 0; max-width: none; } }\n"
        f"</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def piece(body: str) -> str:
    """A piece of a notebook: styles inline, colours those of the page around it."""
    return f'<div style="max-width:68rem;line-height:1.5">{body}</div>'


def heading(title: str, size: str, explained: str) -> str:
    """How a report begins: what it is, how large, and how it came about."""
    return (
        f'<h1 style="font-size:1.6em;line-height:1.2;margin:0">{escape(title)}</h1>\n'
        f'<p style="margin:.25em 0 1em;opacity:.8">{escape(size)}</p>\n'
        f'<p style="max-width:46rem;margin:0 0 1.5em">{escape(explained)}</p>'
    )


def remark(text: str) -> str:
    """What else to know, at the end of a report."""
    return f'<p style="max-width:46rem;margin:.75em 0 0;opacity:.8">{escape(text)}</p>'


def table(caption: str, head: str, rows: Sequence[str]) -> str:
    """A table that scrolls sideways in itself, with the keyboard too."""
    return (
        f'<div role="region" aria-label="{escape(caption)}" tabindex="0" style="overflow-x:auto">'
        f'<table style="border-collapse:collapse;font-size:.9em;margin:0">'
        f'<caption style="text-align:left;opacity:.8;padding:0 .7em .4em;caption-side:top;color:inherit">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def th(text: str, *, right: bool = False, hidden: bool = False, title: str = "") -> str:
    """The head of a column; a hidden one has none."""
    style = f"{CELL};text-align:{'right' if right else 'left'};font-weight:600"
    if hidden:
        return f'<td style="{style}"></td>'
    return f'<th scope="col" style="{style}"{f" title={chr(34)}{escape(title)}{chr(34)}" if title else ""}>{escape(text)}</th>'


def td(text: str, *, left: bool = False) -> str:
    """A cell, set to the right unless told."""
    return f'<td style="{LEFT if left else RIGHT}">{escape(text)}</td>'


def bar(part: float, colour: str, *, width: int) -> str:
    """A bar for a part of one; the number beside it says the same."""
    return (
        f'<span aria-hidden="true" style="display:block;width:{width}rem;height:.7em;background:rgba(128,128,128,.2)">'
        f'<span style="display:block;width:{100 * min(1.0, part):.1f}%;height:100%;background:{colour}"></span></span>'
    )
