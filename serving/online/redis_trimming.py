"""Entities in Redis without the rows that nobody can need any more: the same rule as in memory, entity by entity.

Only rows up to a settled position are looked at: one that everybody who may answer has reached. What was appended meanwhile, by
anybody, makes the change of that entity void, and it is tried again when the entity has grown.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from alignment.layout import NO_EVENT as WITHOUT_EVENT
from alignment.layout import Ints
from alignment.online import CompiledView, needed_rows
from alignment.online.trimming import ENTITY as NUMBER
from alignment.online.trimming import KEY
from alignment.rows import ARRIVAL, EVENT, ISSUE, ORDER, RETRACTION
from serving.online.redis_block import identities
from serving.online.redis_records import NO_EVENT, NO_ISSUE, RESTAMP, RETRACTED, SEQUENCE, Decoded, Encoded
from serving.online.redis_state import ENTITY, WHOLE, ViewState

_SMALLEST = 8_192
"""Entities of fewer bytes are left alone."""
_AT_ONCE = 256


class Trimming:
    """Trims the entities of one view as they grow.

    Args:
        compiled: The view with all its features.
        keep_events: Of features without a floor: how many events of an entity are kept at least.
    """

    def __init__(self, compiled: CompiledView, keep_events: int) -> None:
        self.compiled = compiled
        self.keep_events = keep_events
        self._after: dict[bytes, int] = {}

    def of_frame(self, entity: Ints, rows: pl.DataFrame, oldest: int) -> tuple[pl.Series, dict[int, int]]:
        """Which of a log's rows are needed, and by entity number the event below which rows are left out.

        Args:
            entity: The number of each row's entity.
            rows: Canonical rows, all settled.
            oldest: The earliest instant that can be asked at, microseconds.
        """
        if not rows.height:
            return pl.Series([], dtype=pl.Boolean), {}
        gone = rows[RETRACTION] if RETRACTION in rows.columns else pl.repeat(value=False, n=rows.height, eager=True)
        described = pl.DataFrame(
            {
                NUMBER: entity,
                EVENT: rows[EVENT].fill_null(WITHOUT_EVENT),
                ARRIVAL: rows[ARRIVAL],
                ORDER: rows[ORDER],
                RETRACTION: gone,
            }
        )
        if ISSUE in rows.columns:
            described = described.with_columns(rows[ISSUE])
        key = self.compiled.view.observations.key
        if key:
            ranked = rows.select(pl.struct(key).rank("dense").cast(pl.Int64).alias(KEY))
            described = described.with_columns(ranked[KEY])
        return needed_rows(self.compiled, described, oldest=oldest, keep_events=self.keep_events)

    def built(self, state: ViewState) -> None:
        """Take what was just built for trimmed."""
        self._after.update(state.sizes)
        state.sizes.clear()

    def trim(self, state: ViewState, *, oldest: int, position: int, everything: bool = False) -> int:
        """Trim the entities that have grown.

        Args:
            state: The view's rows in Redis.
            oldest: The earliest instant that can be asked at, microseconds.
            position: The settled position.
            everything: Also those that have not grown much.

        Returns:
            How many entities were made smaller.
        """
        grown = [
            name
            for name, size in state.sizes.items()
            if everything or size > max(_SMALLEST, 2 * self._after.get(name, 0))
        ]
        done = 0
        for first in range(0, len(grown), _AT_ONCE):
            done += self._trim_some(state, grown[first : first + _AT_ONCE], oldest, position)
        return done

    def _trim_some(self, state: ViewState, names: list[bytes], oldest: int, position: int) -> int:
        heads, pieces, whole = [], [], []
        raw = state.entities(names)
        read: list[bytes] = []
        for name, (records, heap) in zip(names, raw, strict=True):
            state.sizes.pop(name, None)
            if records is None:
                continue
            epoch, _, mark = ENTITY.unpack_from(records)
            if epoch != state.epoch:
                continue
            read.append(name)
            heads.append((records[: ENTITY.size], len(records), len(heap)))
            pieces.append((records[ENTITY.size :], heap))
            if mark == WHOLE:
                whole.append(len(pieces) - 1)
        if not pieces:
            return 0
        kept, offsets, marks = self._kept(state, pieces, oldest, position, whole)
        done = 0
        for i, (name, (head, long, longer), (rows, rest)) in enumerate(
            zip(read, heads, kept.pieces(offsets.tolist()), strict=True)
        ):
            size = len(rows) + len(rest) + ENTITY.size
            self._after[name] = size
            if size < long + longer:
                epoch, upto, mark = ENTITY.unpack(head)
                now = ENTITY.pack(epoch, upto, mark if mark == WHOLE else max(marks.get(i, mark), mark))
                done += state.put(name, head, (long, longer), now, rows, rest)
        return done

    def _kept(
        self, state: ViewState, pieces: list[tuple[bytes, bytes]], oldest: int, position: int, whole: list[int]
    ) -> tuple[Encoded, Ints, dict[int, int]]:
        """The records that stay, where each entity's begin among them, and new marks."""
        layout = state.layout
        records = np.frombuffer(b"".join([piece[0] for piece in pieces]), layout.dtype).copy()
        heap = b"".join([piece[1] for piece in pieces])
        counts = np.array([len(piece[0]) // layout.width for piece in pieces])
        entity = np.repeat(np.arange(len(pieces)), counts)
        settled = records[SEQUENCE] <= position
        rows = np.flatnonzero(settled & ((records["flags"] & RESTAMP) == 0))
        known = layout.decode(pieces, position)  # these rows, restamped
        records["arrival"][rows] = known.arrival
        stays, marks = needed_rows(
            self.compiled,
            self._described(known, entity[rows]),
            oldest=oldest,
            keep_events=self.keep_events,
            whole=whole,
        )
        keep = ~settled
        keep[rows] = stays.to_numpy()
        at = np.flatnonzero(keep)
        offsets = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(np.bincount(entity[at], minlength=len(pieces)), out=offsets[1:])
        return Encoded(records, heap).take(at), offsets, marks

    def _described(self, known: Decoded, entity: Ints) -> pl.DataFrame:
        observations = self.compiled.view.observations
        flags = known.flags
        found = {
            NUMBER: entity.astype(np.int64),
            EVENT: np.where((flags & NO_EVENT) != 0, WITHOUT_EVENT, known.event),
            ARRIVAL: known.arrival,
            ORDER: known.sequence,
            RETRACTION: (flags & RETRACTED) != 0,
        }
        frame = pl.DataFrame(found)
        if observations.kind == "forecast":
            named = pl.Series((flags & NO_ISSUE) == 0)
            frame = frame.with_columns(pl.Series(ISSUE, known.issue)).with_columns(
                pl.when(named).then(ISSUE).alias(ISSUE)
            )
        return frame.with_columns(pl.Series(KEY, identities(known, observations.key))) if observations.key else frame

    def restore(self, state: ViewState, name: bytes, rows: pl.DataFrame, position: int) -> bool:
        """Put all rows of an entity in the place of those that are there, and never drop its past again.

        Args:
            state: The view's rows in Redis.
            name: What the entity is called.
            rows: Its canonical rows up to `position`.
            position: A position that all views of the provider have reached.

        Returns:
            Whether it was done; not if somebody appended meanwhile.
        """
        records, heap = state.entities([name])[0]
        if records is None:
            return False
        epoch, upto, _ = ENTITY.unpack_from(records)
        if epoch != state.epoch:
            return False
        mine = np.frombuffer(records, state.layout.dtype, offset=ENTITY.size)
        later = Encoded(mine, heap).take(np.flatnonzero(mine[SEQUENCE] > position))
        earlier = state.layout.encode(rows)
        now = ENTITY.pack(epoch, upto, WHOLE)
        size = (len(records), len(heap))
        both = earlier.records.tobytes() + later.records.tobytes(), earlier.heap + later.heap
        return bool(state.put(name, records[: ENTITY.size], size, now, *both))
