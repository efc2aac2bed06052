"""A provider's profile as a picture; needs the extra `plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.settling import QUANTILES, Quantiles, human
from ingestion.profiling import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = ("min", "q05", "q25", "q50", "q75", "q95", "q99", "max")
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # told apart by everyone
_MOST_COLUMNS = 12
_TICKS = (0, 60, 600, 3_600, 21_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)


def plot_profile(profile: Profile, path: str | Path | None = None) -> Any:
    """The profile as a figure: delays, how soon values settle, and what is missing or revised.

    Args:
        profile: What `ingestion.profile` found.
        path: Where to save the picture, by its ending PNG, SVG or PDF; `None` saves nothing.

    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _distribution(left, {"first arrival": profile.first_delay, "all arrivals": profile.all_delay})
    left.set_title("Delay: arrival_time - event_time")
    shown = profile.columns[:_MOST_COLUMNS]
    _distribution(middle, {column.column: column.settled for column in shown})
    middle.set_title(f"Within {profile.within_percent:g} % of the final value")
    _shares(right, profile)
    figure.suptitle(
        f"{profile.provider}: {profile.rows:,} rows, {profile.keys:,} keys, {profile.retractions:,} retractions"
    )
    if path is not None:
        figure.savefig(Path(path), dpi=150)
    return figure


def _distribution(axes: Axes, lines: dict[str, Quantiles]) -> None:
    from matplotlib.ticker import NullLocator

    styles = ["-", "--", ":", "-."]
    colours = [_BLUE, _ORANGE, _GREEN, _GREY]
    for number, (name, found) in enumerate(lines.items()):
        points = [
            (getattr(found, level), share)
            for level, share in zip(_LEVELS, QUANTILES, strict=True)
            if getattr(found, level) is not None
        ]
        if points:
            axes.plot(
                [seconds for seconds, _ in points],
                [share for _, share in points],
                linestyle=styles[(number // len(colours)) % len(styles)],
                color=colours[number % len(colours)],
                marker="o",
                markersize=3,
                label=name,
            )
    axes.set_xscale("symlog", linthresh=60)
    low, high = axes.get_xlim()
    axes.set_xticks([sign * tick for sign in (-1, 1) for tick in _TICKS if low <= sign * tick <= high])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda seconds, _position: human(seconds))
    axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    axes.set_xlabel("after the event")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, alpha=0.3)
    if lines:
        axes.legend(fontsize=8, loc="lower right")


def _shares(axes: Axes, profile: Profile) -> None:
    shown = profile.columns[:_MOST_COLUMNS]
    places = range(len(shown))
    axes.barh([y + 0.2 for y in places], [100 * column.null_share for column in shown], 0.4, color=_BLUE, label="null")
    axes.barh(
        [y - 0.2 for y in places], [100 * column.revision_rate for column in shown], 0.4, color=_ORANGE, label="revised"
    )
    axes.set_yticks(list(places), [column.column for column in shown])
    axes.set_xlabel("share of rows (null), of keys (revised), %")
    axes.set_title("Nulls and revisions")
    if shown:
        axes.legend(fontsize=8)
