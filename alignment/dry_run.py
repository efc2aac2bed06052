"""What a build would read and take, before anything is read: `plan_dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from alignment.advice import Advice, Together, advise
from alignment.dry_run_text import as_html, as_text, notebook_html
from alignment.durations import instant_us, nearest_instant
from alignment.engines.local import earliest_needed
from alignment.estimates import Need, need_of
from alignment.extents import Extent, SpineExtent, measure_rows, measure_spine, width_of
from alignment.join import Positions, check_engine, check_limit, check_positions, check_views, position_of
from alignment.labels import Label, label_source
from alignment.memory import BESIDES, COPIES, question_cost
from alignment.observations import FrameLike, Observations
from alignment.parts import Pass
from alignment.service_join import ask_service
from alignment.services import FeatureService
from alignment.spine import PREDICTION_TIME
from alignment.unit_costs import MEMORY_WITHIN, WITHIN, UnitCosts
from alignment.views import FeatureView


@dataclass(frozen=True, slots=True)
class Read:
    """One read of observations.

    Attributes:
        name: The view's name, or `label`.
        extent: Files, rows and bytes, read and skipped.
        columns: Columns that are read, keys and times included.
        stored_columns: How many there are.
        event_from_us: Earlier events are not needed, microseconds; None if any may be.
        need: What it takes.
    """

    name: str
    extent: Extent
    columns: list[str]
    stored_columns: int
    event_from_us: int | None
    need: Need

    def to_dict(self) -> dict[str, Any]:
        """The read as plain data; instants as text, sizes in bytes, times in seconds."""
        extent = self.extent
        return {
            "name": self.name,
            "source": extent.source,
            "provider": extent.provider or None,
            "address": extent.address or None,
            "position": extent.position,
            "rows": extent.rows,
            "rows_least": extent.rows_least,
            "rows_most": extent.rows_most,
            "stored_rows": extent.stored_rows,
            "files_read": extent.files_read,
            "files_skipped": extent.files_skipped,
            "bytes_read": extent.bytes_read,
            "bytes_skipped": extent.bytes_skipped,
            "columns": self.columns,
            "stored_columns": self.stored_columns,
            "event_from": _text(self.event_from_us),
            "first_event": _text(extent.first_event_us),
            "last_event": _text(extent.last_event_us),
            "latest_arrival": _text(extent.latest_arrival_us),
            "memory_bytes": self.need.bytes,
            "seconds": self.need.seconds,
        }


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build would read and take.

    Attributes:
        spine: How much is asked.
        reads: What each view and the label would read.
        passes: The same as engines read it that divide entities into buckets.
        as_of_us: Nothing that arrived later counts, microseconds; None if nothing says when the last row arrived.
        peak_bytes: Greatest resident memory with everything at once, about: off by no more than `MEMORY_WITHIN`.
        seconds: Processor seconds that it would take so, by step: on the machine of `costs`, off by no more than `WITHIN`.
        advice: Which engine to use, with which arguments, and why.
        unknown: Reads whose rows cannot be counted without running a query; they are in no figure.
        notes: What else to know.
        costs: What the steps are taken to cost.
    """

    spine: SpineExtent
    reads: tuple[Read, ...]
    passes: tuple[Together, ...]
    as_of_us: int | None
    peak_bytes: int
    seconds: dict[str, float]
    advice: Advice
    unknown: list[str]
    notes: list[str]
    costs: UnitCosts = field(repr=False)

    @property
    def total_seconds(self) -> float:
        """Processor seconds of all steps."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data; instants as text, sizes in bytes, times in seconds."""
        spine = self.spine
        return {
            "spine": {
                "source": spine.source,
                "rows": spine.rows,
                "entities": spine.entities,
                "first": _text(spine.first_us),
                "last": _text(spine.last_us),
                "bytes": spine.bytes,
            },
            "as_of": _text(self.as_of_us),
            "reads": [read.to_dict() for read in self.reads],
            "memory": {
                "bytes": self.peak_bytes,
                "least": int(self.peak_bytes / MEMORY_WITHIN),
                "most": int(self.peak_bytes * MEMORY_WITHIN),
            },
            "seconds": {
                "total": self.total_seconds,
                "least": self.total_seconds / WITHIN,
                "most": self.total_seconds * WITHIN,
                "steps": self.seconds,
            },
            "advice": self.advice.to_dict(),
            "unknown": self.unknown,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        return as_text(self.to_dict())

    def to_html(self) -> str:
        """The plan as a page of its own."""
        return as_html(self.to_dict())

    def _repr_html_(self) -> str:
        return notebook_html(self.to_dict())


def plan_dataset(
    spine: FrameLike,
    views: Sequence[FeatureView] | FeatureView,
    *,
    label: Label | None = None,
    as_of: datetime | None = None,
    prediction_time: str = PREDICTION_TIME,
    positions: Positions | None = None,
    service: FeatureService | None = None,
    variant: str | None = None,
    memory: int | None = None,
    memory_limit: str | int | None = None,
    costs: UnitCosts | None = None,
    engine: str | None = None,
) -> BuildPlan:
    """What `build_dataset` with these arguments would read, how much memory and time it would take, and which engine to use.

    Nothing is read but metadata: what a log's table says of its files, footers of Parquet files, sizes of frames; and of a spine
    on disk its entity columns, to count them.

    Args:
        spine: See `build_dataset`.
        views: See `build_dataset`.
        label: See `build_dataset`.
        as_of: See `build_dataset`.
        prediction_time: See `build_dataset`.
        positions: See `build_dataset`.
        service: See `build_dataset`.
        variant: See `build_dataset`.
        memory: How much memory there is, bytes; None if that is not known.
        memory_limit: How much may be used, e.g. `"4GiB"`, instead of a limit that the advice would name.
        costs: What the steps cost; None for the machine that was measured.
        engine: The one that is asked for; None lets the advice choose. Figures are those of the local engine in any case.

    Returns:
        The plan. Rows of a log are exact unless a bound cuts a file; time and memory are about.

    Raises:
        AlignmentError: What `build_dataset` raises for arguments that cannot mean anything.

    Example:
        >>> from datetime import UTC, datetime
        >>> import polars as pl
        >>> from alignment.features import latest
        >>> from alignment.spine import make_spine
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> frame = pl.DataFrame({"site": ["a"], "event_time": [noon], "arrival_time": [noon], "load_kw": [3.5]})
        >>> view = FeatureView("meter", ["site"], frame, [latest("load_kw")])
        >>> plan = plan_dataset(make_spine({"site": ["a"]}, noon, noon.replace(hour=18), "1h"), [view])
        >>> plan.spine.rows, plan.reads[0].extent.rows, plan.advice.arguments
        (6, 1, {'engine': 'local'})
    """
    from alignment.larger import Larger

    views = [views] if isinstance(views, FeatureView) else list(views)
    check_views(views)
    check_engine(engine or "local")
    check_limit(memory_limit, engine or "local")
    check_positions(views, positions)
    costs = costs or UnitCosts()
    at = {view.name: position_of(view, positions) for view in views}
    as_of_us = None if as_of is None else instant_us(as_of, "as_of")
    question = ask_service(
        service, views, variant=variant, rows="chosen", position_of=lambda view: at[view.name], as_of_us=as_of_us
    )
    read = views if question is None else question.views
    names = [name for view in read for name in view.spine_entities]
    wanted: list[tuple[str, Observations, list[str], FeatureView | None]] = [
        (view.name, view.observations, view.columns_read, view) for view in read
    ]
    if label is not None:
        rows, keys, _ = label_source(label, views)
        names += keys
        wanted.append(("label", rows, [label.column], None))
        home = next((view.name for view in views if view.observations is rows), None)
        at["label"] = at[home] if home is not None else None
    asked = measure_spine(spine, list(dict.fromkeys(names)), prediction_time)
    whole = {name: measure_rows(rows, position=at[name]) for name, rows, _, _ in wanted}
    known = [extent.latest_arrival_us for extent in whole.values()]
    if as_of_us is None:
        as_of_us = max((one for one in known if one is not None), default=None) if None not in known else None
    reads = tuple(
        _read(name, rows, columns, view, at[name], whole[name], asked, as_of_us, costs, told=service is not None)
        for name, rows, columns, view in wanted
    )
    seconds = _seconds(reads, whole, asked, costs)
    peak = _peak(reads, asked, costs)
    unknown = [read.name for read in reads if read.extent.rows is None]
    task = Larger(
        views,
        as_of_us,
        status=False,
        prediction_time=prediction_time,
        positions=positions,
        question=question,
        label=label,
        label_position=at.get("label"),
    ).task()
    passes = tuple(_together(one, asked, task.answer_width()) for one in task.passes)
    advice = advise(
        reads,
        passes,
        peak,
        sum(seconds.values()),
        memory=memory,
        memory_limit=memory_limit,
        costs=costs,
        certain=not unknown,
        engine=engine,
    )
    notes = _notes(reads, asked, unknown)
    return BuildPlan(asked, reads, passes, as_of_us, peak, seconds, advice, unknown, notes, costs)


def _read(
    name: str,
    rows: Observations,
    columns: list[str],
    view: FeatureView | None,
    position: int | None,
    whole: Extent,
    asked: SpineExtent,
    as_of_us: int | None,
    costs: UnitCosts,
    *,
    told: bool,
) -> Read:
    """What one view or the label reads; of a log it leaves out what its bounds rule out."""
    until, floor = as_of_us, None
    if view is not None and asked.first_us is not None and asked.last_us is not None:
        until = asked.last_us if as_of_us is None else min(asked.last_us, as_of_us)
        floor = earliest_needed(view, np.array([asked.first_us, asked.last_us], np.int64), status=told)
    extent = whole
    if rows.source is not None and (until is not None or floor is not None):
        extent = measure_rows(rows, position=position, until_us=until, event_from_us=floor)
    times = [rows.event_time, rows.arrival_time, rows.is_retraction, rows.log_sequence]
    times += [rows.issue_time] if rows.kind == "forecast" else []
    kept = [name for name in dict.fromkeys([*rows.entities, *rows.key, *times, *columns]) if name in rows.schema]
    return Read(name, extent, kept, len(rows.schema), floor, need_of(rows, columns, extent, asked, view, costs))


def _seconds(reads: Sequence[Read], whole: dict[str, Extent], asked: SpineExtent, costs: UnitCosts) -> dict[str, float]:
    """Seconds of each step, over all reads."""
    found = {"start": costs.start}
    for read in reads:
        for step, seconds in read.need.seconds.items():
            found[step] = found.get(step, 0.0) + seconds
    found["summarize"] = sum(extent.stored_rows or 0 for extent in whole.values()) / 1e6 * costs.summarize_rows
    made = asked.width * (asked.rows or 0) + sum(read.need.answer_bytes for read in reads)
    found["finish"] = made / 8e6 * costs.finish_values
    return found


def _peak(reads: Sequence[Read], asked: SpineExtent, costs: UnitCosts) -> int:
    """The process, the frames that it holds, the spine, all answers, and the largest read."""
    resident = {id(read.extent): read.extent.bytes_read or 0 for read in reads if read.extent.in_memory}
    spine = int((asked.rows or 0) * (asked.width + 8))
    answers = sum(read.need.answer_bytes for read in reads)
    largest = max((read.need.bytes for read in reads), default=0)
    return costs.base_bytes + sum(resident.values()) + spine + answers + largest


def _together(one: Pass, asked: SpineExtent, answer_width: float) -> Together:
    """What a pass reads, as engines reckon it that divide it."""
    questions = asked.rows or 0
    rows, size = questions, questions * (asked.width + answer_width)
    cost = questions * question_cost(answer_width)
    for given in one.inputs:
        assert given.observations is not None  # noqa: S101 - of a detached pass alone
        count = measure_rows(given.observations, position=given.position).rows_most or 0
        width = sum(width_of(dtype) for dtype in given.schema.values())
        rows, size, cost = rows + count, size + count * width, cost + count * (COPIES * width + BESIDES)
    return Together(rows, int(size), cost, bool(one.keys))


def _notes(reads: Sequence[Read], asked: SpineExtent, unknown: Sequence[str]) -> list[str]:
    found = []
    if unknown:
        found.append(
            f"{', '.join(unknown)}: a lazy frame, whose rows cannot be counted without running it, is in no figure; "
            "pass the path of its Parquet file, or collect it"
        )
    if asked.entities is None:
        found.append("the spine's entities were not counted; windows are taken to hold nothing in the estimate of time")
    if any(read.extent.source == "log" for read in reads):
        found.append("the times of all rows of a log are read besides, for the manifest")
    return found


def _text(microseconds: int | None) -> str | None:
    return None if microseconds is None else nearest_instant(microseconds).isoformat()
