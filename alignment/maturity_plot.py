"""Label maturity as a picture; needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from alignment.maturity_text import within_text
from alignment.settling import human

if TYPE_CHECKING:
    from alignment.maturity import LabelMaturity

_BLUE, _SKY, _ORANGE, _GREEN, _GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#666666"  # told apart by everyone


def plot_maturity(report: LabelMaturity) -> Any:
    """The maturity curve: which shares of labels are there and settled at an age, and how wrong those are that are there.

    Args:
        report: What `alignment.label_maturity` found.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure

    points = report.curve.filter(pl.col("age").is_not_null()).sort("age")
    seconds = (points["age"].dt.total_microseconds() / 1e6).to_list()
    figure = Figure(figsize=(10, 4.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    shares: Any = left
    for name, colour, style, width, over, meaning in (  # where they agree, the wide pale one is seen below the others
        ("present", _GREY, ":", 1.6, 2.3, "label is there"),
        ("within", _ORANGE, "--", 1.6, 2.2, within_text(report.within)),
        ("settled", _SKY, "-", 5.0, 2.1, "the same, for good"),
    ):
        drawn: dict[str, Any] = {"color": colour, "linewidth": width, "marker": "o", "markersize": 1.5 + width}
        shares.plot(seconds, points[name].to_list(), style, label=meaning, zorder=over, **drawn)
    shares.set_ylim(-0.02, 1.02)
    shares.set_ylabel(f"share of {report.events:,} events")
    shares.set_title("How ripe labels are")
    errors: Any = right
    errors.plot(seconds, points["mae"].to_list(), "-", color=_BLUE, marker="o", markersize=3, label="MAE")
    errors.plot(seconds, points["bias"].to_list(), "--", color=_ORANGE, marker="s", markersize=3, label="bias")
    errors.axhline(0, color=_GREY, linewidth=0.8)
    errors.set_ylabel(f"value - final, in the unit of {report.column}")
    errors.set_title("What training earlier costs")
    chosen = points.filter(pl.col("release") == report.release)["age"]
    for axes in (shares, errors):
        if len(seconds):
            axes.set_xscale("log" if seconds[0] > 0 else "symlog", **({} if seconds[0] > 0 else {"linthresh": 60}))
            axes.set_xticks(_apart(seconds))
            axes.set_xticks([], minor=True)
        axes.xaxis.set_major_formatter(lambda length, _position: human(length))
        axes.tick_params(axis="x", labelrotation=45, labelsize=8)
        axes.set_xlabel("age of the label: time since its event")
        axes.grid(visible=True, alpha=0.3)
        if len(chosen):
            axes.axvline(chosen[0].total_seconds(), color=_GREEN, linewidth=1.5, label=f"release={report.release!r}")
        axes.legend(fontsize=8)
    figure.suptitle(f"Label maturity of {report.column}, as of {report.as_of:%Y-%m-%d %H:%M}Z")
    return figure


def _apart(seconds: list[float]) -> list[float]:
    """The ages that can be written below an axis side by side, on a scale of ratios."""
    kept: list[float] = []
    least = (max(seconds) / max(seconds[0], 1.0)) ** (1 / 12)
    for length in seconds:
        if not kept or length >= least * max(kept[-1], 1.0):
            kept.append(length)
    return kept
