"""A join one group of entities at a time: what engines share that do not hold all rows at once.

No answer needs rows of another entity. Rows and spine are told apart by a hash of the entity columns that the views have in
common, and each group is answered by the code of the local engine over its own rows alone: the same bytes (R17). A group that is
itself too large is cut by time: the questions of a part need its own arrivals, and of earlier ones what `carried` keeps.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from alignment.durations import instant_from_us
from alignment.labels import Label, evaluate_label, label_source
from alignment.layout import common_type
from alignment.observations import Kind, Observations
from alignment.spine import PREDICTION_TIME, check_spine
from alignment.stable_hash import row_hashes, salt
from alignment.views import FeatureView

if TYPE_CHECKING:
    from alignment.engines.local import Answered, Timings

_SALT = salt("bucket")


def bucket_of(frame: pl.DataFrame, columns: Sequence[str], buckets: int) -> pl.Series:
    """The bucket of each row by the values of its keys, whatever their width or encoding.

    Args:
        frame: Rows.
        columns: Key columns; without any all rows are in bucket 0.
        buckets: How many there are.

    Returns:
        UInt32, from 0 on.

    Example:
        >>> wide, narrow = pl.DataFrame({"site": [7, 8]}), pl.DataFrame({"site": pl.Series([7, 8], dtype=pl.Int8)})
        >>> bucket_of(wide, ["site"], 16).equals(bucket_of(narrow, ["site"], 16))
        True
    """
    if not columns:
        return pl.Series("bucket", np.zeros(frame.height, np.uint32))
    found = row_hashes([frame[name] for name in columns], _SALT) % np.uint64(buckets)
    return pl.Series("bucket", found.astype(np.uint32))


@dataclass
class PartSource:
    """What a log says of itself, over a part of its rows.

    Attributes:
        provider: See `ObservationSource`, as all that follow.
        head: The position at which the rows were read.
        through: Up to when everything is known to be here.
        since: Per column, the first `log_sequence` that could carry it.
        rows: The part: columns of `scan`.
    """

    provider: str
    entities: list[str]
    kind: Kind
    key: list[str] | None
    clock_tolerance: str
    head: int
    through: datetime | None
    since: dict[str, int]
    rows: pl.DataFrame = field(repr=False)

    def position(self) -> int:
        """The greatest `log_sequence` that counts."""
        return self.head

    def observed_through(self) -> datetime | None:
        """Up to when everything that the provider sent is known to be here."""
        return self.through

    def column_since(self) -> dict[str, int]:
        """Per column, the first `log_sequence` that could carry it."""
        return self.since

    def scan(
        self,
        *,
        position: int | None = None,
        as_of: datetime | None = None,
        event_from: datetime | None = None,  # noqa: ARG002 - rows with an earlier event may be left out, and need not
        event_until: datetime | None = None,  # noqa: ARG002
        columns: Sequence[str] | None = None,  # noqa: ARG002 - the part has no more than are read
        after: int | None = None,
    ) -> pl.LazyFrame:
        """The rows with `after < log_sequence <= position` that had arrived by `as_of`."""
        bounds = []
        if position is not None and position < self.head:
            bounds.append(pl.col("log_sequence") <= position)
        if after is not None:
            bounds.append(pl.col("log_sequence") > after)
        if as_of is not None:
            bounds.append(pl.col("arrival_time") <= as_of)
        return self.rows.lazy().filter(bounds) if bounds else self.rows.lazy()


@dataclass(frozen=True)
class Input:
    """Rows that one or more views, or the label, read.

    Attributes:
        observations: The first of them to name the rows; None of a detached input.
        position: Log position at which they are read; None for all.
        keys: The rows' names of the pass's keys, in its order.
        columns: What is read of them, in a fixed order: entities, ids, times, retraction, sequence, values (derived ones too).
    """

    observations: Observations | None
    position: int | None
    keys: tuple[str, ...]
    columns: tuple[str, ...]

    def rows(self, *, as_of_us: int | None = None, event_from_us: int | None = None) -> pl.LazyFrame:
        """The rows, lazily; of a log those that arrived after `as_of_us` or are of earlier events are not read."""
        assert self.observations is not None  # noqa: S101 - a detached input is fed, not read
        lazy = self.observations.lazy(
            position=self.position,
            as_of=None if as_of_us is None else instant_from_us(as_of_us),
            event_from=None if event_from_us is None else instant_from_us(event_from_us),
        )
        return lazy.select(self.columns)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The types of `columns`."""
        assert self.observations is not None  # noqa: S101
        return {name: self.observations.schema[name] for name in self.columns}


@dataclass(frozen=True)
class Pass:
    """Views that are answered together because their spine rows can be grouped by the same keys.

    Attributes:
        keys: Spine columns by which rows are grouped; none if all rows are one group.
        views: What to compute; without rows, each over the input of its place in `reads`.
        reads: Per view the number of its input.
        inputs: The rows.
        label: What is answered besides, if anything; its observations without rows.
        label_reads: Number of the label's input.
    """

    keys: tuple[str, ...]
    views: tuple[FeatureView, ...]
    reads: tuple[int, ...]
    inputs: tuple[Input, ...]
    label: Label | None = None
    label_reads: int = -1

    def detached(self) -> Pass:
        """The same without any rows: what executors are sent."""
        return replace(self, inputs=tuple(replace(one, observations=None) for one in self.inputs))

    @property
    def spine_columns(self) -> list[str]:
        """The spine's entity columns that are asked for, each once."""
        names = [name for view in self.views for name in view.spine_entities]
        if self.label is not None:
            names += label_source(self.label, ())[1]
        return list(dict.fromkeys(names))

    def check_keys(self, spine: Mapping[str, pl.DataType]) -> None:
        """Refuse a spine whose keys cannot be compared with those of the rows.

        Raises:
            KeyTypeError: If key types neither match nor widen.
        """
        asked = [(view.spine_entities, view.observations) for view in self.views]
        if self.label is not None:
            rows, names, _ = label_source(self.label, ())
            asked.append((names, rows))
        for names, rows in asked:
            for ours, theirs in zip(names, rows.entities, strict=True):
                common_type(spine[ours], rows.schema[theirs], ours, theirs, rows.place)

    def answer(
        self,
        spine: pl.DataFrame,
        frames: Sequence[pl.DataFrame],
        *,
        as_of_us: int | None,
        status: bool,
        prediction_time: str = PREDICTION_TIME,
        label_rows: pl.DataFrame | None = None,
        threads: int | None = 1,
        timings: Timings | None = None,
    ) -> pl.DataFrame:
        """What the local engine answers to some rows of the spine, from rows of their entities.

        Args:
            spine: `spine_columns` and the prediction time; more does no harm.
            frames: Per input its columns, of at least the entities that are asked about.
            as_of_us: Nothing that arrived later counts, microseconds; a label needs it.
            status: Add `<feature>__status` after each feature.
            prediction_time: The spine's column of prediction times.
            label_rows: What the label reads, where that is not what its input holds.
            threads: How many threads; None for one per processor.
            timings: Where to add up how long each part took.

        Returns:
            Row for row: features by full name, in the views' order, then the label's columns.

        Raises:
            AlignmentError: See `point_in_time_join` and `evaluate_label`.
        """
        from alignment.engines import local

        asked = check_spine(spine, self.spine_columns, prediction_time)
        columns: list[pl.Series] = []
        for view, place in zip(self.views, self.reads, strict=True):
            part = over(view, frames[place])
            position = self.inputs[place].position
            answers = local.evaluate(
                part, asked, as_of_us=as_of_us, position=position, status=status, threads=threads, timings=timings
            )
            for name, answer in zip(view.column_names, answers, strict=True):
                columns.append(answer.values.alias(name))
                if answer.status is not None:
                    columns.append(answer.status.alias(f"{name}__status"))
        if self.label is not None and as_of_us is not None:
            rows = frames[self.label_reads] if label_rows is None else label_rows
            told = replace(self.label, observations=_over(self.label.observations, rows))
            position = self.inputs[self.label_reads].position
            found = evaluate_label(told, asked, (), as_of_us=as_of_us, position=position, threads=threads)
            columns += found.get_columns()
        return pl.DataFrame(columns)


def answers_in(frame: pl.DataFrame, views: Sequence[FeatureView]) -> dict[str, Answered]:
    """What `Pass.answer` gave, as `join.columns_of` takes it."""
    from alignment.engines.local import Answered

    names = [name for view in views for name in view.column_names if name in frame.columns]
    return {
        name: Answered(frame[name], frame[f"{name}__status"] if f"{name}__status" in frame.columns else None)
        for name in names
    }


def plan_passes(
    views: Sequence[FeatureView], *, label: Label | None = None, positions: Mapping[str, int | None] | None = None
) -> list[Pass]:
    """Views in as few passes as their keys allow: those whose spine entities have a column in common go together.

    Args:
        views: What to compute, at least one.
        label: Answered in the first pass that has its keys, else in one of its own.
        positions: Log position per view's name; the label's is `@label`. None or missing is the log's head now.
    """
    wanted: list[tuple[FeatureView | None, tuple[str, ...]]] = [(view, tuple(view.spine_entities)) for view in views]
    if label is not None:
        wanted.append((None, tuple(label_source(label, views)[1])))
    groups: list[tuple[list[FeatureView | None], list[str]]] = []
    for item, names in wanted:
        for members, keys in groups:
            common = [name for name in keys if name in names]
            if common or (not keys and not names):
                members.append(item)
                keys[:] = common
                break
        else:
            groups.append(([item], list(names)))
    return [_pass(members, tuple(keys), views, label, positions or {}) for members, keys in groups]


def _pass(
    members: Sequence[FeatureView | None],
    keys: tuple[str, ...],
    views: Sequence[FeatureView],
    label: Label | None,
    positions: Mapping[str, int | None],
) -> Pass:
    inputs: list[Input] = []
    places: dict[tuple[object, ...], int] = {}

    def place(rows: Observations, spine_names: Sequence[str], columns: Sequence[str], position: int | None) -> int:
        names = dict(zip(spine_names, rows.entities, strict=True))
        theirs = tuple(names[key] for key in keys)
        if position is None and rows.source is not None:
            position = rows.source.position()
        same = (id(rows) if rows.derive else id(rows.frame), theirs, position)
        number = places.setdefault(same, len(inputs))
        read = _columns(rows, columns)
        if number == len(inputs):
            inputs.append(Input(rows, position, theirs, read))
        else:
            before = inputs[number]
            inputs[number] = replace(before, columns=tuple(dict.fromkeys([*before.columns, *read])))
        return number

    found = [view for view in members if view is not None]
    reads = tuple(
        place(view.observations, view.spine_entities, view.columns_read, positions.get(view.name)) for view in found
    )
    label_reads = -1
    if None in members and label is not None:
        rows, names, zone = label_source(label, views)
        home = _home(label, views)
        at = positions.get("@label") if home is None else positions.get(home.name)
        label_reads = place(rows, names, [label.column], at)
        label = replace(label, zone=zone, observations=home or label.observations)
    else:
        label = None
    empty = [pl.DataFrame(schema=one.schema) for one in inputs]
    bare = tuple(_without_rows(view, empty[n], inputs[n].position) for view, n in zip(found, reads, strict=True))
    if label is not None:
        at = inputs[label_reads].position
        label = replace(label, observations=_without_rows(label.observations, empty[label_reads], at))
    return Pass(keys, bare, reads, tuple(inputs), label, label_reads)


def _home(label: Label, views: Sequence[FeatureView]) -> FeatureView | None:
    rows = label_source(label, views)[0]
    return next((view for view in views if view.observations is rows), None)


def time_columns(rows: Observations) -> tuple[str, ...]:
    """The columns that say of a row whose it is, when it was and what it replaces: all but values, in a fixed order."""
    times = [rows.event_time, rows.arrival_time, rows.is_retraction, rows.log_sequence, "arrival_kind"]
    if rows.has_issue_time:
        times.append(rows.issue_time)
    return tuple(name for name in dict.fromkeys([*rows.entities, *rows.key, *times]) if name in rows.schema)


def _columns(rows: Observations, values: Sequence[str]) -> tuple[str, ...]:
    unordered = (
        not rows.has_log_sequence and rows.on_tie == "error"
    )  # then any column may tell two rows of one arrival apart
    return tuple(dict.fromkeys([*time_columns(rows), *values, *(rows.schema if unordered else ())]))


def _without_rows(told: Observations | FeatureView | None, empty: pl.DataFrame, position: int | None) -> FeatureView:
    """A view or observations as they are over no rows, with what a log says of itself."""
    rows = told.observations if isinstance(told, FeatureView) else told
    assert rows is not None  # noqa: S101 - plan_passes names the label's
    frame: pl.DataFrame | PartSource = empty
    if rows.source is not None:
        own = rows.source
        since = own.column_since()
        frame = PartSource(
            *(own.provider, rows.entities, rows.kind, rows.key or None, rows.tolerance.text),
            *(own.position() if position is None else position, own.observed_through(), since, empty),
        )
    bare = copy.copy(rows)
    bare.derive, bare.former_names, bare.frame = {}, {}, frame
    bare.source = frame if isinstance(frame, PartSource) else None
    bare.schema = dict(empty.schema)
    if isinstance(told, FeatureView):
        same = copy.copy(told)
        same.observations = bare
        return same
    return bare  # type: ignore[return-value]  # the label's own observations


def over(view: FeatureView, rows: pl.DataFrame) -> FeatureView:
    """A view of a pass over rows of its input."""
    same = copy.copy(view)
    same.observations = over_rows(view.observations, rows)
    return same


def _over(told: Observations | FeatureView | None, rows: pl.DataFrame) -> Observations | FeatureView:
    if isinstance(told, FeatureView):
        return over(told, rows)
    assert told is not None  # noqa: S101
    return over_rows(told, rows)


def over_rows(bare: Observations, rows: pl.DataFrame) -> Observations:
    """Observations of a pass over rows of their input."""
    same = copy.copy(bare)
    same.frame = replace(bare.source, rows=rows) if isinstance(bare.source, PartSource) else rows
    same.source = same.frame if isinstance(same.frame, PartSource) else None
    return same
