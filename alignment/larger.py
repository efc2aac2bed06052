"""Joins over more rows than fit in memory, as `point_in_time_join` and `build_dataset` ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from alignment.engines.spilling import Task, answer_in_parts, fits, output_bytes
from alignment.errors import MemoryLimitError
from alignment.join import Positions, columns_of, known_until, position_of
from alignment.labels import Label, label_source
from alignment.memory import Portions, room_under, size_text
from alignment.observations import FrameLike
from alignment.parts import answers_in, plan_passes
from alignment.views import FeatureView

if TYPE_CHECKING:
    from alignment.engines.local import Timings
    from alignment.service_join import ServiceQuestion

Part = tuple[pl.DataFrame, pl.DataFrame | None]
"""Some rows of a join in the spine's order, and their labels if there are any."""


@dataclass(frozen=True)
class Larger:
    """A join that need not fit in memory.

    Attributes:
        views: What to compute.
        as_of_us: Nothing that arrived later counts.
        status: See `point_in_time_join`, as the next five.
        prediction_time: The spine's column of prediction times.
        positions: Log positions.
        sources: Add which source of a feature answered.
        threads: How many threads.
        timings: Where to add up how long each part took.
        question: What is asked of a service, if one is.
        label: Answered besides, if given.
        label_position: Position at which the label is read.
        moved: Whether arrivals are to be moved before the join.
        spill: Folder for what does not fit.
    """

    views: Sequence[FeatureView]
    as_of_us: int | None
    status: bool
    prediction_time: str
    positions: Positions | None = None
    sources: bool = False
    threads: int | None = None
    timings: Timings | None = None
    question: ServiceQuestion | None = None
    label: Label | None = None
    label_position: int | None = None
    moved: bool = False
    spill: str | Path | None = None

    @property
    def _read(self) -> Sequence[FeatureView]:
        return self.views if self.question is None else self.question.views

    def task(self) -> Task:
        """What the engine is to answer."""
        at = {view.name: position_of(view, self.positions) for view in self._read}
        label = self.label
        if label is not None and label.observations is None:  # a service need not read the view that has it
            rows = label_source(label, self.views)[0]
            label = replace(label, observations=next(view for view in self.views if view.observations is rows))
        if label is not None:
            at["@label"] = self.label_position
        return Task(
            plan_passes(self._read, label=label, positions=at),
            self.as_of_us,
            self.status or self.question is not None,
            self.prediction_time,
            self.question,
            self.threads,
            self.timings,
        )

    def parts(self, spine: FrameLike, portions: Portions) -> Iterator[Part]:
        """The join's rows, a stretch of the spine at a time.

        Raises:
            AlignmentError: See `answer_in_parts`.
        """
        task, read = self.task(), self._read
        until = known_until(self.views, self.as_of_us) if self.status else None
        for asked, answers in answer_in_parts(spine, task, portions, spill=self.spill):
            found = columns_of(
                asked,
                answers_in(answers, read),
                self.question,
                until_us=until,
                status=self.status,
                sources=self.sources,
            )
            yield found, None if self.label is None else answers.select(self.label.columns)

    def check(self) -> None:
        """Refuse what needs all rows at once.

        Raises:
            MemoryLimitError: If arrivals are moved, or a service goes by the rows of a frame or by newest events.
        """
        if self.moved or any(view.observations.moved_by for view in self.views):
            raise MemoryLimitError(
                "outages and delays move arrivals, for which all of them are needed at once, and they do not fit",
                "allow more memory, or ask without outages and delays.",
            )
        if self.question is None:
            return
        bound = self.question.bound
        chosen = self.question.variant is not None and self.question.rows == "chosen"
        needs = {name: need for variant in bound.variants for name, need in variant.needs.items()} if chosen else {}
        if any(
            need.max_event_age is not None for variant in bound.variants for need in variant.needs.values() if chosen
        ):
            raise MemoryLimitError(
                f"variants of service {bound.service.name!r} are chosen by newest events, for which all are needed at once",
                'leave memory_limit out, or pass rows="all".',
            )
        for provider in dict.fromkeys([*needs, *bound.judged(self.question.features)]):
            if any(getattr(view.observations.source, "heartbeats", None) is None for view in bound.views_of[provider]):
                raise MemoryLimitError(
                    f"service {bound.service.name!r} asks whether {provider!r} was down, which only a log tells without all rows",
                    "read it from a log, or leave memory_limit out.",
                )

    def under(self, limit: str | int, spine: FrameLike) -> Iterator[Part] | None:
        """The same within a limit of memory; None if the join fits in it as it is.

        Raises:
            MemoryLimitError: If too little is left to begin.
        """
        room = room_under(limit, frames=self._holds_frames(spine))
        if fits(spine, self.task(), room // 2 if self.moved else room):
            return None
        self.check()
        return self.parts(spine, Portions.of(room))

    def _holds_frames(self, spine: FrameLike) -> bool:
        """Whether rows were passed that are in memory."""
        given = [spine, *(view.observations.frame for view in self.views if view.observations.source is None)]
        lazy = [one for one in given if isinstance(one, pl.LazyFrame)]
        return len(lazy) + sum(isinstance(one, str | Path) for one in given) < len(given) or any(
            "DF [" in one.explain(optimized=False) for one in lazy
        )

    def whole(self, limit: str | int, spine: FrameLike) -> pl.DataFrame | None:
        """The rows of `under` in one frame.

        Raises:
            MemoryLimitError: If the frame would leave too little.
        """
        found = self.under(limit, spine)
        if found is None:
            return None
        size, room = output_bytes(spine, self.task()), room_under(limit)
        if size > room / 2:
            raise MemoryLimitError(
                f"the result takes {size_text(size)}, and memory_limit={limit!r} leaves {size_text(room)} for it and all else",
                "let it be written as it is made: al.build_dataset(..., memory_limit=..., into=folder).",
            )
        return pl.concat([frame for frame, _ in self.parts(spine, Portions.of(int(room - size)))], rechunk=False)
