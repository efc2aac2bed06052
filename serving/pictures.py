"""The picture "what was known when": event time across, arrival time up.

Every observation is a dot at the instant it is about and the instant it arrived. A prediction time cuts the picture: what
lies below its line had arrived, what lies above had not, however early it happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path

    from matplotlib.figure import Figure

    Panel = Any  # matplotlib's Axes; its types know no dates on the axes

# Okabe and Ito's palette: told apart by everyone, and by their brightness in grey. Shapes differ as well.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
DARK_GREEN: Final = "#00664b"
GREY: Final = "#6b6b6b"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What to draw.

    Args:
        observations: Rows of one entity: `event_time`, `arrival_time` (Datetime with zone) and the value column.
        value: Name of the value column.
        unit: Its unit, for the labels.
        prediction_time: The instant that cuts the picture.
        horizon: How far after it the label lies.
        before: How far back the picture reaches.
        after: How much of the time after the prediction it shows.
        title: One line above the picture.
    """

    observations: pl.DataFrame
    value: str
    unit: str
    prediction_time: datetime
    horizon: timedelta
    before: timedelta = timedelta(hours=4, minutes=30)
    after: timedelta = timedelta(hours=1, minutes=20)
    title: str = "What was known when"


def what_was_known_when(picture: Picture) -> Figure:
    """A figure of one entity's observations around a prediction time; see the module's first lines.

    Args:
        picture: What to draw.

    Returns:
        A matplotlib figure with two panels that share the event axis: the day itself, and above it the later corrections.
    """
    from matplotlib import dates as mdates
    from matplotlib.figure import Figure

    begin, end = picture.prediction_time - picture.before, picture.prediction_time + picture.after
    rows = picture.observations.filter(pl.col("event_time").is_between(begin, end)).sort("arrival_time", "event_time")
    first = rows.unique("event_time", keep="first", maintain_order=True)
    later = rows.join(first, on=["event_time", "arrival_time"], how="anti")

    figure = Figure(figsize=(9.6, 6.4), dpi=160, layout="constrained", facecolor="white")
    panels: Any = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 5.2]})
    top, main = panels
    zone = begin.tzinfo
    clock = mdates.DateFormatter("%H:%M", tz=zone)
    main.xaxis.set_major_formatter(clock)
    main.yaxis.set_major_formatter(clock)
    for axis in (main.xaxis, main.yaxis):
        axis.set_major_locator(mdates.HourLocator(tz=zone))
    main.set_xlim(begin, end)
    main.set_ylim(begin, end)

    _cut(main, picture, begin, end)
    main.plot(
        first["event_time"], first["arrival_time"], "o", color=BLUE, markersize=4.5, label="first arrival", zorder=3
    )
    _catch_up(main, first)
    _corrections(top, later, zone)
    _picks(main, top, picture, rows)

    day = f"{picture.prediction_time:%Y-%m-%d}"
    main.set_xlabel(f"event_time: when it happened ({day}, {picture.prediction_time.tzname()})")
    main.set_ylabel(f"arrival_time: when serving had it ({picture.prediction_time.tzname()})")
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    for panel in (top, main):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _cut(main: Panel, picture: Picture, begin: datetime, end: datetime) -> None:
    """The prediction time as a line across and up, and what each side of it means."""
    t = picture.prediction_time
    main.fill_between(
        [begin, t, end],
        [begin, t, t],
        [t, t, t],
        color=GREEN,
        alpha=0.10,
        linewidth=0,
    )
    main.plot([begin, end], [begin, end], color=GREY, linewidth=1)
    main.axhline(t, color=GREEN, linewidth=1.4)
    main.axvline(t, color=ORANGE, linewidth=1.2, linestyle=(0, (5, 3)))
    main.axvline(t + picture.horizon, color=GREY, linewidth=1, linestyle=":")

    def note(event: datetime, arrival: datetime, words: str, colour: str, **where: str) -> None:
        main.text(event, arrival, words, color=colour, fontsize=9.5, **where)

    pad = (end - begin) / 100
    note(begin + pad, t + pad, "not yet arrived", ORANGE, va="bottom")
    note(begin + pad, t - pad, "had arrived: serving can use it", DARK_GREEN, va="top")
    note(end, t - pad, f"prediction_time\n{t:%H:%M}", DARK_GREEN, va="top", ha="right")
    note(t - pad, begin + pad, "had happened", ORANGE, va="bottom", ha="right")
    note(t + picture.horizon + pad, begin + pad, f"label\n{t + picture.horizon:%H:%M}", GREY, va="bottom")
    middle = begin + 0.3 * (end - begin)
    note(middle + 2 * pad, middle - pad, "arrival = event: nothing lies below", GREY, va="top")


def _catch_up(main: Panel, first: pl.DataFrame) -> None:
    """A word beside the largest delivery, if it is one of at least four events."""
    batch = first.group_by("arrival_time").agg(pl.len(), pl.col("event_time").min()).sort("len", "arrival_time").tail(1)
    if batch.height and batch["len"].item() >= 4:
        arrival, event = batch["arrival_time"].item(), batch["event_time"].item()
        main.annotate(
            "an outage, then all at once",
            (event, arrival),
            xytext=(4, 8),
            textcoords="offset points",
            fontsize=9.5,
            color=BLUE,
        )


def _corrections(top: Panel, later: pl.DataFrame, zone: tzinfo | None) -> None:
    """The upper panel: revisions that arrived long after."""
    from matplotlib import dates as mdates

    top.plot(later["event_time"], later["arrival_time"], "s", color=ORANGE, markersize=4, zorder=3)
    top.tick_params(axis="x", length=0, labelbottom=False)
    if later.height:
        middle = later["arrival_time"].sort()[later.height // 2]
        top.set_ylim(middle - timedelta(minutes=15), middle + timedelta(minutes=35))
        top.set_yticks([middle])
        top.yaxis.set_major_formatter(mdates.DateFormatter("next day\n%H:%M", tz=zone))
        top.text(0.01, 0.9, "corrections", color=ORANGE, fontsize=9.5, transform=top.transAxes, va="top")


def _picks(main: Panel, top: Panel, picture: Picture, rows: pl.DataFrame) -> None:
    """Rings round what a join on event time takes and round what serving had."""
    t = picture.prediction_time
    past = rows.filter(pl.col("event_time") <= t).sort("event_time", "arrival_time")
    naive, known = past.tail(1), past.filter(pl.col("arrival_time") <= t).tail(1)
    corrected = naive["arrival_time"].item() > picture.prediction_time + picture.after
    for frame, colour, words, offset, panel in (
        (naive, ORANGE, "a join on event time takes", (-240, 11), top if corrected else main),
        (known, GREEN, "serving had", (-215, -14), main),
    ):
        event, arrival, value = frame["event_time"].item(), frame["arrival_time"].item(), frame[picture.value].item()
        panel.plot(
            [event],
            [arrival],
            "o",
            color=colour,
            markersize=12,
            markerfacecolor="none",
            markeredgewidth=2,
            zorder=4,
        )
        panel.annotate(
            f"{words}\nevent {event:%H:%M}: {value:.0f} {picture.unit}",
            (event, arrival),
            xytext=offset,
            textcoords="offset points",
            fontsize=9.5,
            fontweight="bold",
            color=DARK_GREEN if colour == GREEN else colour,
            arrowprops={"arrowstyle": "-", "color": colour, "shrinkB": 7},
        )


def write(figure: Figure, path: Path) -> Path:
    """Write a figure; the suffix decides the format. The same figure gives the same bytes.

    Args:
        figure: What `what_was_known_when` returned.
        path: Where to; `.png`, `.svg` and `.pdf` work. Missing folders are made.

    Returns:
        The path.
    """
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix.lstrip("."), {})
    with mpl.rc_context({"svg.hashsalt": "asknown"}):
        figure.savefig(path, metadata=metadata)
    return path
