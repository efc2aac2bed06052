"""What delays and outages cost, as pictures; needs the extra `plot`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from alignment.whatif_delay import DelayCost
    from alignment.whatif_outage import OutageCost

# Okabe and Ito's palette: told apart by everyone, and by their brightness in grey. Markers and lines differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--")
_GREY = "#6b6b6b"
_NAMES = {"mae": "mean absolute error", "rmse": "root mean squared error"}
_PER_ROW = 3


def plot_delay(report: DelayCost, score: str) -> Figure:
    """See `DelayCost.plot`."""
    from matplotlib.figure import Figure

    providers = report.frame["provider"].unique(maintain_order=True).to_list()
    width = min(_PER_ROW, len(providers))
    height = -(-len(providers) // width)
    figure = Figure(figsize=(max(5.6, 1.2 + 3.4 * width), 1.5 + 2.7 * height), layout="constrained", facecolor="white")
    panels = figure.subplots(height, width, sharex=True, sharey=True, squeeze=False)
    flat = list(panels.flat)
    places = _places(report.frame)
    for panel, provider in zip(flat, providers, strict=False):
        _provider(panel, report.frame.filter(pl.col("provider") == provider), score, places)
        panel.set_title(provider, loc="left", fontsize=11)
    for panel in flat[len(providers) :]:
        panel.set_visible(False)
    for place in range(len(providers)):
        if place + width >= len(providers):
            flat[place].tick_params(labelbottom=True)
            flat[place].set_xlabel("arrivals moved by")
    for row in panels:
        row[0].set_ylabel(f"{score.upper()} of {report.label}" + (f", {report.unit}" if report.unit else ""))
    handles, labels = flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=max(3, 2 * width), fontsize=8.5, frameon=False)
    _title(
        figure,
        f"What a delay costs: {_NAMES[score]} of {report.label}",
        f"{report.test_rows:,} rows on {report.test_days} days ({report.zone}); bands: {100 * report.confidence:g} % of the "
        "difference to no shift",
    )
    return figure


def _places(frame: pl.DataFrame) -> dict[str, float]:
    """Where each shift is on the axis, in minutes; `off` stands apart at the right."""
    shifts = frame.select("shift", "moved").unique(maintain_order=True)
    minutes = {shift: moved.total_seconds() / 60 for shift, moved in shifts.drop_nulls().sort("moved").iter_rows()}
    last = max(minutes.values(), default=0.0)
    gap = 0.22 * (last - min(minutes.values(), default=0.0)) or 1.0
    return minutes | ({"off": last + gap} if shifts["moved"].null_count() else {})


def _provider(panel: Axes, rows: pl.DataFrame, score: str, places: dict[str, float]) -> None:
    """One provider's panel: a line per model, its band, and what lies at no shift."""
    base = rows[score][0] - rows[f"{score}_change"][0]
    panel.axhline(base, color=_GREY, linewidth=1, linestyle=":", label="no shift")
    if "off" in places:
        timed = [place for name, place in places.items() if name != "off"]
        panel.axvline((max(timed, default=-1.0) + places["off"]) / 2, color=_GREY, linewidth=0.6, alpha=0.5)
    for number, (name,) in enumerate(rows.select("model").unique(maintain_order=True).iter_rows()):
        own = rows.filter(pl.col("model") == name)
        for part in (own.filter(pl.col("moved").is_not_null()), own.filter(pl.col("moved").is_null())):
            if not part.height:
                continue
            at = [places[shift] for shift in part["shift"]]
            colour, marker = _COLOURS[number], _MARKERS[number]
            drawn: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "linestyle": _LINES[number % 2],
                "markersize": 4.5,
            }
            low, high = ((base + part[f"{score}_change_{end}"]).to_list() for end in ("low", "high"))
            alone = part["moved"].null_count() > 0
            panel.plot(at, part[score].to_list(), label=None if alone else name, zorder=3, **drawn)
            if None in low:
                continue
            if alone:
                panel.vlines(at, low, high, color=colour, alpha=0.45, linewidth=5)
            else:
                panel.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    panel.set_xticks(list(places.values()), list(places), rotation=60, fontsize=8)
    panel.grid(visible=True, axis="y", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def plot_outage(report: OutageCost, score: str) -> Figure:
    """See `OutageCost.plot`."""
    from matplotlib.figure import Figure

    patterns = report.winners.select("pattern", "rows", "days", "served").rows()
    variants = list(report.models)
    figure = Figure(figsize=(9.0, 1.9 + 0.34 * len(patterns) * max(2, len(variants))), layout="constrained")
    figure.set_facecolor("white")
    panel = figure.subplots()
    step = 0.7 / max(1, len(variants))
    for number, variant in enumerate(variants):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        for place, (pattern, _, _, served) in enumerate(patterns):
            row = report.frame.row(
                by_predicate=(pl.col("pattern") == pattern) & (pl.col("variant") == variant), named=True
            )
            y = place + (number - (len(variants) - 1) / 2) * step
            if row[f"{score}_low"] is not None:
                panel.hlines(y, row[f"{score}_low"], row[f"{score}_high"], color=colour, linewidth=2, alpha=0.6)
            panel.plot(
                [row[score]], [y], marker=marker, color=colour, linestyle="", label=None if place else variant, zorder=3
            )
            if variant == served:
                panel.plot([row[score]], [y], "o", color="black", markersize=12, markerfacecolor="none", zorder=4)
    panel.plot([], [], "o", color="black", markersize=12, markerfacecolor="none", label="chosen by the service")
    names = [
        f"{pattern}\n{rows:,} rows, {days} d" + ("" if served else "\nthe service chose none")
        for pattern, rows, days, served in patterns
    ]
    panel.set_yticks(range(len(patterns)), names, fontsize=9)
    panel.set_ylim(len(patterns) - 0.5, -0.5)
    panel.set_xlabel(f"{_NAMES[score]} of {report.label}" + (f", {report.unit}" if report.unit else ""))
    panel.grid(visible=True, axis="x", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=len(variants) + 1, fontsize=8.5, frameon=False)
    _title(
        figure,
        f"What an outage costs: service {report.service!r}",
        f"{report.test_rows:,} rows on {report.test_days} days ({report.zone}); lines: {100 * report.confidence:g} % of what "
        "days drawn anew give",
    )
    return figure


def _title(figure: Figure, title: str, below: str) -> None:
    """Two texts above the panels, in as many lines as the figure's width asks for; the lower one begins where the upper one ends."""
    wide = figure.get_figwidth()
    upper, lower = textwrap.wrap(title, int(9.2 * wide)), textwrap.wrap(below, int(13 * wide))  # bold, and smaller
    figure.suptitle("\n".join(upper + [""] * len(lower)), x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    begin = 1 - (5 + 17 * len(upper)) / 72 / figure.get_figheight()
    figure.text(0.01, begin, "\n".join(lower), ha="left", va="top", fontsize=9, color=_GREY)
