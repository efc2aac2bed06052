"""Rows in the order that the kernel walks, entity by entity, changed one entity at a time.

Each entity's rows lie in a region of their own. New rows never touch it: the entity gets another region with the old rows and the
new ones, and then all entities that a commit touched are switched to their new regions at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.layout import Ints

_SMALLEST = 8
_PER_ROW = ("rows", "arrival", "event", "subject", "slot", "issue_key", "key_start")
_PER_ENTITY = ("offsets", "subjects", "slots")
_WIDE = ("arrival", "event")


@dataclass(frozen=True, slots=True)
class Placement:
    """New regions that are ready and not yet in use.

    Attributes:
        entities: Which entities get one.
        starts: Where each begins.
        lengths: How many rows are in it.
        sizes: How many rows fit.
        subjects: Number of subjects.
        slots: Number of slots.
    """

    entities: Ints
    starts: Ints
    lengths: Ints
    sizes: Ints
    subjects: Ints
    slots: Ints


class Regions:
    """The regions of all entities of a view, for one notice (R10).

    Entities are numbers from 0; one that was never placed has no rows.

    Args:
        forecast: Whether issues are part of the key.
        with_id: Whether the key is a declared id.
    """

    def __init__(self, *, forecast: bool, with_id: bool) -> None:
        self.forecast = forecast
        self.with_id = with_id
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self._room: dict[str, npt.NDArray[Any]] = {}
        self._sizes = np.zeros(0, np.int64)
        for name in _PER_ROW:
            self._room[name] = np.empty(0, np.int64 if name in _WIDE else np.int32)
        for name in _PER_ENTITY:
            self._room[name] = np.zeros(1, np.int64)
        self._publish()

    def _publish(self) -> None:
        room = self._room
        if not self.with_id:
            room["slot"] = room["subject"]
        self.arguments = (
            *(room["offsets"], room["rows"], room["arrival"], room["event"], room["subject"], room["slot"]),
            *(room["issue_key"], room["key_start"], room["subjects"], room["slots"]),
        )
        """As `kernels.sweep` takes them; entity e is number 2 e there, for its region's end is not the next one's begin."""

    def make_room(self, entities: int) -> None:
        """Have room for entities up to this number."""
        have = len(self._sizes)
        if entities <= have:
            return
        many = max(entities, 2 * have, 16)
        for name in _PER_ENTITY:
            grown = np.zeros(2 * many + 1, np.int64)
            grown[: len(self._room[name])] = self._room[name]
            self._room[name] = grown
        sizes = np.zeros(many, np.int64)
        sizes[:have] = self._sizes
        self._sizes = sizes
        self._publish()

    def rows_of(self, entity: int) -> npt.NDArray[np.int32]:
        """The row numbers of an entity, in arrival order."""
        start, end = self._room["offsets"][2 * entity], self._room["offsets"][2 * entity + 1]
        return self._room["rows"][start:end]

    def place(
        self,
        entities: Ints,
        new_offsets: Ints,
        new_rows: npt.NDArray[np.int32],
        source: tuple[Any, ...],
        *,
        anew: bool = False,
    ) -> Placement:
        """Make new regions for entities that get rows.

        Args:
            entities: The entities, each once.
            new_offsets: Where the rows of each begin among `new_rows`, one more than entities.
            new_rows: Row numbers.
            source: By row number: event, arrival, order, identity, issue, withdraws.
            anew: Whether the entities have no other rows from then on; else `new_rows` are added.
        """
        from alignment import kernels

        offsets = self._room["offsets"]
        old_starts = offsets[2 * entities]
        old_lengths = offsets[2 * entities + 1] - old_starts
        if anew:
            old_lengths = np.zeros_like(old_lengths)
        lengths = old_lengths + np.diff(new_offsets)
        sizes = np.maximum(_SMALLEST, 1 << np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64))
        starts = self._allocate(sizes)
        subjects, slots = np.zeros(len(entities), np.int64), np.zeros(len(entities), np.int64)
        room = self._room
        kernels.arrange_each(  # type: ignore[call-arg]
            *(old_starts, old_lengths, starts, new_offsets, new_rows, *source, self.forecast),
            *(room["rows"], room["event"], room["arrival"], room["subject"], room["slot"], room["issue_key"]),
            *(room["key_start"], subjects, slots),
        )
        return Placement(entities, starts, lengths, sizes, subjects, slots)

    def switch(self, placement: Placement) -> None:
        """Use new regions from now on; the old ones are free. Nobody may be reading."""
        at = 2 * placement.entities
        old_starts, old_sizes = self._room["offsets"][at], self._sizes[placement.entities]
        for start, size in zip(old_starts.tolist(), old_sizes.tolist(), strict=True):
            if size:
                self._free.setdefault(size, []).append(start)
        self._room["offsets"][at] = placement.starts
        self._room["offsets"][at + 1] = placement.starts + placement.lengths
        self._room["subjects"][at] = placement.subjects
        self._room["slots"][at] = placement.slots
        self._sizes[placement.entities] = placement.sizes

    def _allocate(self, sizes: Ints) -> Ints:
        starts = np.empty(len(sizes), np.int64)
        fresh = np.ones(len(sizes), bool)
        if self._free:
            for i, size in enumerate(sizes.tolist()):
                free = self._free.get(size)
                if free:
                    starts[i] = free.pop()
                    fresh[i] = False
        ends = self._end + np.cumsum(sizes[fresh])
        starts[fresh] = ends - sizes[fresh]
        if len(ends):
            self._end = int(ends[-1])
        have = len(self._room["rows"])
        if self._end > have:
            many = max(self._end, have + have // 2)
            unused = () if self.forecast else ("issue_key", "key_start")
            for name in _PER_ROW:
                if name in unused or (name == "slot" and not self.with_id):
                    continue
                grown = np.empty(many, self._room[name].dtype)
                grown[:have] = self._room[name]
                self._room[name] = grown
            self._publish()
        return starts
