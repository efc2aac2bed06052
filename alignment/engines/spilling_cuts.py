"""A bucket that alone is too large: cut by time, each part with the rows that earlier ones left to it.

Questions of a stretch of time need what arrived in it, and of what arrived before only what `carried` keeps. A label looks
ahead: its rows are those of the events that the stretch's labels can have, whenever they arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from alignment.bounds import shifted
from alignment.carrying import carried
from alignment.durations import nearest_instant
from alignment.engines.spilling_read import read_as, times_of
from alignment.engines.spilling_store import Spill, Store
from alignment.errors import MemoryLimitError
from alignment.memory import size_text
from alignment.rows import ARRIVAL, EVENT, RETRACTION
from alignment.spine import check_spine

if TYPE_CHECKING:
    from alignment.engines.spilling import Grouped

Ints = npt.NDArray[np.int64]
_SHARE = 0.35
"""Of what fits at once, how much the rows and questions of one part may take; the rest is for what is carried."""
_SAMPLE = 50_000


class Cut:
    """A bucket in parts of time.

    Args:
        work: The pass.
        bucket: Which bucket.
        spine: Questions by bucket.
        rows: Per input its rows by bucket.
        folder: For what does not fit.
    """

    def __init__(self, work: Grouped, bucket: int, spine: Store, rows: Sequence[Store], folder: Spill) -> None:
        self._work, self._bucket, self._spine, self._rows, self._spill = work, bucket, spine, rows, folder
        self._cuts = self._choose()
        self._gone = np.zeros((len(rows), len(self._cuts) + 1), np.int64)  # retractions by input and part

    def answered(self) -> Iterator[pl.DataFrame]:
        """The answers, part by part.

        Raises:
            MemoryLimitError: If a part is still too large.
        """
        asked, spans = self._spread_questions()
        parts = [self._spread_rows(place) for place in range(len(self._rows))]
        labels = self._spread_label(spans)
        kept = [pl.DataFrame(schema=self._work.one.inputs[place].schema) for place in range(len(parts))]
        last = max(spans, default=-1)
        try:
            for part in range(last + 1):
                self._check(part, asked, parts, kept, labels)
                frames = [pl.concat([old, new.read([part])]) for old, new in zip(kept, parts, strict=True)]
                if part in spans:
                    told = None if labels is None else labels.read([part])
                    yield self._work.answer(asked.read([part]), frames, told)
                if part < last:
                    kept = [self._carried(place, frame, part) for place, frame in enumerate(frames)]
        finally:
            for store in (asked, *parts, *([] if labels is None else [labels])):
                store.remove()

    def _choose(self) -> Ints:
        """The last instants of all parts but the last one."""
        work, instants, weights = self._work, [], []
        for place, store in enumerate(self._rows):
            step = max(1, store.rows[self._bucket] // _SAMPLE)
            for piece in store.pieces([self._bucket]):
                found = self._arrivals(place, piece)[::step]
                instants.append(found)
                weights.append(
                    np.full(len(found), work.cost(store, self._bucket) / max(1, store.rows[self._bucket]) * step)
                )
        step = max(1, self._spine.rows[self._bucket] // _SAMPLE)
        for piece in self._spine.pieces([self._bucket]):
            found = self._times(piece)[::step]
            instants.append(found)
            each = work.question_costs(self._spine, self._bucket) / max(1, self._spine.rows[self._bucket])
            weights.append(np.full(len(found), each * step))
        at, weight = np.concatenate(instants), np.concatenate(weights)
        order = np.argsort(at, kind="stable")
        at, held = at[order], np.cumsum(weight[order])
        share = work.portions.group * _SHARE
        marks = np.searchsorted(held, np.arange(share, held[-1], share))
        return np.unique(at[marks]).astype(np.int64)

    def _spread_questions(self) -> tuple[Store, dict[int, tuple[int, int]]]:
        """Questions by part, and the first and last prediction time of each part that has any."""
        store: Store | None = None
        spans: dict[int, tuple[int, int]] = {}
        for piece in self._spine.pieces([self._bucket]):
            store = store or self._spill.store(piece.schema)
            t = self._times(piece)
            for part, chosen in self._by_part(t):
                store.add(part, piece.filter(pl.Series(chosen)))
                low, high = int(t[chosen].min()), int(t[chosen].max())
                before = spans.get(part, (low, high))
                spans[part] = min(low, before[0]), max(high, before[1])
        assert store is not None  # noqa: S101 - buckets without questions are not answered
        return store, spans

    def _spread_rows(self, place: int) -> Store:
        store = self._spill.store(self._work.one.inputs[place].schema)
        for piece in self._rows[place].pieces([self._bucket]):
            frames = self._canonical(place, piece)
            for part, chosen in self._by_part(self._arrivals(place, piece)):
                store.add(part, piece.filter(pl.Series(chosen)))
                for frame in frames:  # views may read retractions from different columns
                    if RETRACTION in frame.columns:
                        self._gone[place, part] += int(frame[RETRACTION].filter(pl.Series(chosen)).sum())
        return store

    def _spread_label(self, spans: dict[int, tuple[int, int]]) -> Store | None:
        """Rows of the events that labels of each part can have; None if there is no label."""
        one = self._work.one
        if one.label is None:
            return None
        place = one.label_reads
        by_id = bool(read_as(one, place, None)[-1].key)  # events may move
        store = self._spill.store(one.inputs[place].schema)
        for piece in self._rows[place].pieces([self._bucket]):
            events = self._canonical(place, piece)[-1][EVENT].fill_null(0).to_numpy()
            for part, span in spans.items():
                low, high = self._ahead(span)
                chosen = np.full(len(events), fill_value=True) if by_id else (events >= low) & (events <= high)
                if chosen.any():
                    store.add(part, piece.filter(pl.Series(chosen)))
        return store

    def _ahead(self, span: tuple[int, int]) -> tuple[int, int]:
        """The earliest and latest event of labels of questions between two instants."""
        label = self._work.one.label
        assert label is not None  # noqa: S101
        t = np.array(span, np.int64)
        low = shifted(t, label.zone, (1, label.horizon), (-1, label.tolerance))
        high = shifted(t, label.zone, (1, label.horizon))
        return (
            int(low.min() if isinstance(low, np.ndarray) else t[0] + low),
            int(high.max() if isinstance(high, np.ndarray) else t[1] + high),
        )

    def _carried(self, place: int, frame: pl.DataFrame, part: int) -> pl.DataFrame:
        one = self._work.one
        views = [view for view, read in zip(one.views, one.reads, strict=True) if read == place]
        later = int(self._gone[place, part + 1 :].sum())
        return frame.filter(
            carried(views, frame, after_us=int(self._cuts[part]), as_of_us=self._work.task.as_of_us, removals=later)
        )

    def _check(
        self, part: int, asked: Store, parts: Sequence[Store], kept: Sequence[pl.DataFrame], labels: Store | None
    ) -> None:
        """Refuse a part that is too large to be answered.

        Raises:
            MemoryLimitError: If it is.
        """
        work = self._work
        stores = [*parts, *([] if labels is None else [labels])]
        cost = work.question_costs(asked, part) + sum(work.cost(store, part) for store in stores)
        cost += sum(work.carried_cost(frame) for frame in kept)
        if cost <= 1.5 * work.portions.group:
            return
        keys = ", ".join(map(repr, work.one.keys)) or "all rows"
        after = f"after {nearest_instant(int(self._cuts[part - 1])).isoformat()} " if part else ""
        rows = sum(store.rows[part] for store in parts) + sum(frame.height for frame in kept)
        raise MemoryLimitError(
            f"{rows:,} rows of one group of {keys} are needed at once {after}and take about {size_text(cost)}; "
            f"{size_text(work.portions.group)} are there for them",
            "allow more memory; or let features look back less far: give latest features a max_event_age.",
        )

    def _by_part(self, instants: Ints) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        part = np.searchsorted(self._cuts, instants, side="left")
        for number in np.unique(part):
            yield int(number), part == number

    def _times(self, piece: pl.DataFrame) -> Ints:
        return check_spine(piece, (), self._work.task.prediction_time).t

    def _canonical(self, place: int, piece: pl.DataFrame) -> list[pl.DataFrame]:
        return times_of(self._work.one, place, piece)

    def _arrivals(self, place: int, piece: pl.DataFrame) -> Ints:
        """When rows arrived; of rows that are read in several ways the first of these instants."""
        found = [frame[ARRIVAL].to_numpy() for frame in self._canonical(place, piece)]
        return np.asarray(np.minimum.reduce(found), np.int64)
