"""The rows of one view in Redis: one writer's steps, whoever else writes, and one reader's.

Any replica may write. Rows go to their entities first, then the head moves to their position: a reader takes the head and the
entities it asks about in one command, and leaves out rows beyond the head. What makes that safe is in `redis_scripts`.

A state can be missing (a flush, a first start), be of an epoch that this writer does not know, or lack what it had (a fail-over
to a replica that was behind). Then it is built anew from the log, under a lock, as a new epoch, and not read before it is whole.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from alignment.layout import Ints
from alignment.rows import ORDER
from serving.online import redis_scripts as scripts
from serving.online.errors import StateUnavailableError
from serving.online.redis_connection import Connection
from serving.online.redis_keys import ViewKeys
from serving.online.redis_records import SEQUENCE, Encoded, RecordLayout

HEAD = struct.Struct("<qqqqq")
ENTITY = struct.Struct("<qqq")
PIECE_BYTES = 1 << 20
"""Records of an entity that one command brings at most: Redis does nothing else meanwhile."""
_COMMANDS = 512
_TRIES = 5
_MARK = struct.Struct("<q")
NO_MARKS: Mapping[bytes, int] = {}

Piece = tuple[bytes, bytes, bytes]
"""Of one entity: its text, records, heap."""
WHOLE = -(1 << 63)
"""As a mark: nothing of the entity's past may be dropped again."""
Outcome = Literal["done", "missing", "foreign", "lost"]


@dataclass(frozen=True, slots=True)
class Head:
    """How far a state is.

    Attributes:
        epoch: Which building of it.
        position: All rows with a `log_sequence` up to it are there.
        complete_through: The instant through which they are all that had arrived, microseconds.
        past: The last record of the log that took rows away (an erasure) when the epoch was built; -1 for none.
        base: The position at which the epoch was built: it can be read there and later.
    """

    epoch: int
    position: int
    complete_through: int
    past: int
    base: int


@dataclass(frozen=True, slots=True)
class Restamps:
    """Rows that arrived later than they said (R14).

    Attributes:
        entities: Their entities, as `key_texts` names them.
        targets: Their `log_sequence`.
        arrivals: When they arrived.
        sequences: The `log_sequence` of the restamp.
    """

    entities: Sequence[bytes]
    targets: Ints
    arrivals: Ints
    sequences: Ints


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows of a view, for a new epoch.

    Attributes:
        records: See `ViewState.grouped`.
        marks: By entity, the event below which rows are left out.
        head: What they bring it to; the epoch is not looked at.
    """

    records: Iterable[Piece]
    marks: Mapping[bytes, int]
    head: Head


class ViewState:
    """One view's rows.

    Args:
        connection: To Redis.
        keys: What they are called there.
        layout: What they look like.
    """

    def __init__(self, connection: Connection, keys: ViewKeys, layout: RecordLayout) -> None:
        self.connection = connection
        self.keys = keys
        self.layout = layout
        self.epoch = -1
        """The epoch that this writer relies on; -1 before it has seen one."""
        self._server = b""
        self.sizes: dict[bytes, int] = {}
        """Bytes of the entities that were appended to since they were last trimmed."""
        with connection.reached() as client:
            self._where = client.register_script(scripts.WHERE)
            self._append = client.register_script(scripts.APPEND)
            self._advance = client.register_script(scripts.ADVANCE)
            self._claim = client.register_script(scripts.CLAIM)
            self._establish = client.register_script(scripts.ESTABLISH)
            self._hold = client.register_script(scripts.HOLD)
            self._replace = client.register_script(scripts.REPLACE)
            self._sweep = client.register_script(scripts.SWEEP)

    # ------------------------------------------------------------------------------------------------------ the writer

    def head(self) -> Head | None:
        """The head as it is now; None if there is none.

        Raises:
            StateUnavailableError: If Redis cannot be reached.
        """
        return self._look()[0]

    def adopt(self, head: Head) -> None:
        """Rely on a state that another replica built."""
        self.epoch = head.epoch

    def apply(self, records: Iterable[Piece], *, previous: int, position: int, complete_through: int) -> Outcome:
        """Append rows and move the head on; what is there already is left as it is.

        Args:
            records: What `grouped` gives: all rows with `previous < log_sequence <= position`, restamps among them.
            previous: The position up to which this writer knows that rows are there.
            position: The position that they bring the state to.
            complete_through: The instant through which it is complete then.

        Returns:
            `done`; or why the state must be built anew: it is `missing`, `foreign` (of an epoch that this writer did not adopt),
            or it has `lost` rows that were there.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or fails over again and again.
        """
        records = list(records)
        for attempt in range(_TRIES):
            if records or attempt:
                head, self._server = self._look()
                if head is None:
                    return "missing"
                if head.epoch != self.epoch:
                    return "foreign"
                if head.position < previous:
                    return "lost"
                behind = head.position < position
                if behind and not self._append_all(records, [self.epoch, previous, 0], self.keys.head):
                    continue
            with self.connection.reached():
                arguments = [self.epoch, previous, position, complete_through, self._server]
                said = self._advance([self.keys.head], arguments)
            if said != b"moved":
                return said.decode()  # type: ignore[no-any-return]
        raise StateUnavailableError(f"{self.connection.place} is another server at every look")

    def build(
        self,
        rows: Callable[[], Whole],
        *,
        distrusted: int | None = None,
        wait: float = 60.0,
    ) -> Head:
        """The state, built from the log if no other replica does.

        Args:
            rows: Called under the lock.
            distrusted: An epoch that must not be used any more; None takes whatever is there.
            wait: Seconds to wait for another replica that is building.

        Returns:
            The head of the new epoch, or of the one that is there.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or another replica does not finish.
        """
        token, until = uuid.uuid4().hex, time.monotonic() + wait
        hold = int(self.connection.settings.lock_for * 1000)
        while True:
            with self.connection.reached():
                floor = -1 if distrusted is None else distrusted
                said, epoch, server = self._claim([self.keys.head, self.keys.lock], [token, hold, floor])
            if said == b"there":
                head = self.head()
                if head is not None:
                    self.adopt(head)
                    return head
            elif said == b"claimed":
                try:
                    made = self._build(rows, token, hold, epoch, server)
                finally:
                    self._let_go(token)
                if made is not None:
                    return made
            if time.monotonic() > until:
                raise StateUnavailableError("another replica is building the state, and has not finished")
            time.sleep(0.05)

    def _build(
        self,
        rows: Callable[[], Whole],
        token: str,
        hold: int,
        epoch: int,
        server: bytes,
    ) -> Head | None:
        with self._held(token, hold):
            whole = rows()
            self.sizes.clear()
            if not self._append_all(list(whole.records), [epoch, token, 1], self.keys.lock, whole.marks):
                return None
        with self.connection.reached():
            head = whole.head
            arguments = [token, epoch, head.position, head.complete_through, server, head.past]
            done = self._establish([self.keys.head, self.keys.lock], arguments)
        if not done:
            return None
        self.epoch = epoch
        self._sweep_older()
        return replace(whole.head, epoch=epoch, base=whole.head.position)

    def _sweep_older(self) -> None:
        """Drop what older epochs left of entities that have no rows any more."""
        cursor = 0
        while True:
            with self.connection.reached() as client:
                cursor, found = client.scan(cursor, match=self.keys.every_entity, count=1000)
                pipeline = client.pipeline(transaction=False)
                for key in found:
                    entity = self.keys.entity_of(key)
                    self._sweep([key, self.keys.heap(entity)], [self.epoch], client=pipeline)
                pipeline.execute()
            if not cursor:
                return

    @contextlib.contextmanager
    def _held(self, token: str, hold: int) -> Iterator[None]:
        """Renew the lock until it is done, however long that takes."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(hold / 3000):
                with contextlib.suppress(StateUnavailableError), self.connection.reached():
                    self._hold([self.keys.lock], [token, hold])

        keeper = threading.Thread(target=renew, name="asknown-redis-lock", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _let_go(self, token: str) -> None:
        try:
            with self.connection.reached():
                self._hold([self.keys.lock], [token, 0])
        except StateUnavailableError:
            return  # it ends by itself

    def _append_all(
        self, records: list[Piece], guard: list[Any], guarded: bytes, marks: Mapping[bytes, int] = NO_MARKS
    ) -> bool:
        """Append to every entity; False if what guards the state is not as it must be."""
        width = self.layout.width
        for first in range(0, len(records), _COMMANDS):
            some = records[first : first + _COMMANDS]
            with self.connection.reached() as client:
                pipeline = client.pipeline(transaction=False)
                for entity, rows, heap in some:
                    keys = [self.keys.records(entity), self.keys.heap(entity), guarded]
                    mark = _MARK.pack(marks.get(entity, 0))
                    self._append(keys, [*guard, width, rows, heap, mark], client=pipeline)
                answers = pipeline.execute()
            for (entity, _, _), (appended, size) in zip(some, answers, strict=True):
                if appended < 0:
                    return False
                if appended:
                    self.sizes[entity] = size
        return True

    def _look(self) -> tuple[Head | None, bytes]:
        with self.connection.reached():
            raw, server = self._where([self.keys.head], [])
        return (Head(*HEAD.unpack(raw)) if raw else None), server

    # ------------------------------------------------------------------------------------------------ single entities

    def entities(self, names: Sequence[bytes]) -> list[tuple[bytes | None, bytes]]:
        """The bytes of records and heap of some entities, as they are now."""
        keys = [key for name in names for key in (self.keys.records(name), self.keys.heap(name))]
        with self.connection.reached() as client:
            raw = client.mget(keys)
        return [(records, heap or b"") for records, heap in zip(raw[::2], raw[1::2], strict=True)]

    def put(self, name: bytes, head: bytes, sizes: tuple[int, int], now: bytes, records: bytes, heap: bytes) -> bool:
        """Put other records in the place of those that were read, unless something was appended meanwhile.

        Args:
            name: What the entity is called.
            head: Its first bytes as they were read.
            sizes: How long both parts were.
            now: Its first bytes from now on.
            records: Its records from now on.
            heap: Their heap.
        """
        with self.connection.reached():
            done = self._replace([self.keys.records(name), self.keys.heap(name)], [head, *sizes, now, records, heap])
        return bool(done)

    # ---------------------------------------------------------------------------------------------------- its material

    def grouped(
        self, entity: Ints, names: Sequence[bytes], frame: pl.DataFrame, restamps: Restamps | None = None
    ) -> list[Piece]:
        """Rows as `apply` and `build` take them: entity, records, heap, of at most `PIECE_BYTES` each.

        Args:
            entity: The number of each row's entity.
            names: What each number is called.
            frame: Canonical rows.
            restamps: Rows that a restamp makes arrive later.
        """
        found: list[Piece] = []
        if frame.height:
            at = np.lexsort((frame[ORDER].to_numpy(), entity))
            encoded = self.layout.encode(frame[at])
            ends = np.searchsorted(entity[at], np.arange(len(names) + 1))
            cuts, owners = self._cuts(names, ends.tolist(), encoded)
            for owner, (rows, heap) in zip(owners, encoded.pieces(cuts), strict=True):
                found.append((owner, rows, heap))
        return found if restamps is None else self._with_restamps(found, restamps)

    def _cuts(self, names: Sequence[bytes], ends: list[int], encoded: Encoded) -> tuple[list[int], list[bytes]]:
        """Where pieces begin: with each entity, and within one where it gets too big."""
        sizes = np.full(len(encoded.records), self.layout.width, np.int64)
        if self.layout.has_heap:
            sizes += encoded.records["heap"]
        total = np.concatenate([[0], np.cumsum(sizes)])
        cuts, owners = [0], []
        for name, first, last in zip(names, ends, ends[1:], strict=False):
            if first == last:
                continue
            begin = first
            while total[last] - total[begin] > PIECE_BYTES:
                end = max(begin + 1, int(np.searchsorted(total, total[begin] + PIECE_BYTES, "right")) - 1)
                if end >= last:
                    break
                cuts.append(end)
                owners.append(name)
                begin = end
            cuts.append(last)
            owners.append(name)
        return cuts, owners

    def _with_restamps(self, found: list[Piece], restamps: Restamps) -> list[Piece]:
        """Put restamps among the rows of their entities, by sequence."""
        late: dict[bytes, list[int]] = {}
        for i, name in enumerate(restamps.entities):
            late.setdefault(name, []).append(i)
        rows: dict[bytes, tuple[bytes, bytes]] = {}
        for name, records, heap in found:
            before = rows.get(name, (b"", b""))
            rows[name] = before[0] + records, before[1] + heap
        result = [item for item in found if item[0] not in late]
        for name, at in late.items():
            records, heap = rows.get(name, (b"", b""))
            own = Encoded(np.frombuffer(records, self.layout.dtype), heap)
            added = self.layout.restamps(restamps.targets[at], restamps.arrivals[at], restamps.sequences[at])
            both = Encoded(np.concatenate([own.records, added.records]), heap)
            order = np.argsort(both.records[SEQUENCE], kind="stable")
            merged = both.take(order)
            result.append((name, merged.records.tobytes(), merged.heap))
        return result
