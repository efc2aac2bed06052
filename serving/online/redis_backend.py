"""A backend whose rows are in Redis, shared by any number of replicas: see `serving.online.backend`.

Each replica follows the logs and writes what is new; whoever is first does the work, and the others find it done. A question
reads heads and entities in one command. Nothing in this process is needed to answer, so that a replica that starts finds
the state there, and one that stops leaves it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from alignment.durations import parse_duration
from alignment.online import CompiledView
from serving.online.backend import Reading, Restamps, ViewRows
from serving.online.errors import StateUnavailableError
from serving.online.redis_block import Block
from serving.online.redis_connection import Connection, RedisSettings
from serving.online.redis_keys import ViewKeys, key_texts
from serving.online.redis_log import LogRows, past_of
from serving.online.redis_records import RecordLayout
from serving.online.redis_state import ENTITY, HEAD, WHOLE, Head, Piece, ViewState, Whole
from serving.online.redis_trimming import Trimming
from serving.online.settings import OnlineSettings

_BUILD_WAIT = 1.0


@dataclass(slots=True)
class _View:
    """What this replica knows of a view.

    Attributes:
        compiled: The view over the follower's handle of its log.
        state: Its rows in Redis.
        log: Its rows in the log.
        position: Up to where they are in Redis, as far as this replica knows; -2 before it has seen it.
        past: The last record of the log that took rows away.
        pending: What was handed over since the last look: from, to, rows.
        seen: The newest head that a reader here has seen.
    """

    compiled: CompiledView
    state: ViewState
    log: LogRows
    trimming: Trimming
    position: int = -2
    past: int = -1
    pending: list[tuple[int, int, pl.DataFrame]] = field(default_factory=list)
    seen: Head | None = None


class RedisBackend:
    """A `Backend` whose rows are in Redis.

    Args:
        redis: Where: settings, or an address; None takes the address from the environment.
        settings: Those of the server: how far behind it may be, and how many events are kept.

    Raises:
        MissingExtraError: If the client library is not installed.
        OptionError: If the environment does not say where Redis is.
    """

    def __init__(self, redis: RedisSettings | str | None = None, settings: OnlineSettings | None = None) -> None:
        url = redis if isinstance(redis, str) else None
        self.redis = redis if isinstance(redis, RedisSettings) else RedisSettings()
        self.settings = settings or OnlineSettings()
        self.connection = Connection(self.redis, url=url)
        self.fault = ""
        """Why nothing can be written now; empty if it can."""
        self.fault_hint = ""
        self._max_behind = parse_duration(self.settings.max_behind, "max_behind").total_us
        self._views: dict[str, _View] = {}
        self._checked = False
        self._history: deque[tuple[int, dict[str, int]]] = deque(maxlen=4096)

    # ------------------------------------------------------------------------------------------------------ the follower

    def load(self, compiled: CompiledView, definition: str, rows: pl.DataFrame, position: int) -> None:
        """See `Backend.load`: rows that are in Redis already are left there."""
        observations = compiled.view.observations
        names = [*observations.key, *(name for name in compiled.columns if name not in observations.key)]
        layout = RecordLayout({name: rows.schema[name] for name in names}, forecast=observations.kind == "forecast")
        entities = [f"{name}:{rows.schema[name]!r}" for name in observations.entities]
        identity = log_identity(observations.source)
        keys = ViewKeys(self.redis.namespace, compiled.view.name, definition, layout.fingerprint, identity, *entities)
        known = self._views.get(compiled.view.name)
        compiled.notices  # noqa: B018 - worked out here once, not by every reader
        view = _View(
            compiled,
            ViewState(self.connection, keys, layout),
            LogRows(compiled),
            Trimming(compiled, self.settings.keep_events),
            past=past_of(observations.source, position),
        )
        if known is not None and known.state.keys.head == keys.head and known.past == view.past:
            view.state.epoch, view.position, view.seen = known.state.epoch, known.position, known.seen
        view.pending = [(-1, position, rows)]
        self._views[compiled.view.name] = view

    def take_in(
        self,
        compiled: CompiledView,
        rows: pl.DataFrame,
        restamps: Restamps,  # noqa: ARG002 - told by the log, with their entities
        *,
        previous: int,
        position: int,
    ) -> None:
        """See `Backend.take_in`."""
        self._views[compiled.view.name].pending.append((previous, position, rows))

    def confirm(self, positions: Mapping[str, int], complete_through: int) -> None:
        """See `Backend.confirm`; if Redis cannot be reached, `fault` says so, and the next call catches up."""
        try:
            if not self._checked:
                self.connection.check()
                self._checked = True
            for view in self._views.values():
                self._bring(view, positions[view.compiled.provider], complete_through)
            self.fault = self.fault_hint = ""
        except StateUnavailableError as error:
            self.fault, self.fault_hint = error.problem, error.hint
            return
        finally:
            for view in self._views.values():
                view.pending = []
        if not self._history or self._history[-1][1] != positions:
            self._history.append((complete_through, dict(positions)))
        self._trim_grown(complete_through - self._max_behind)

    def _bring(self, view: _View, position: int, complete_through: int) -> None:
        """Bring one view to a position of its log, whatever others did to it meanwhile.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or others keep building the state.
        """
        state = view.state
        for _ in range(10):
            if state.epoch < 0:
                self._find(view, position, complete_through)
            records = self._new_records(view, position) if position > view.position else []
            outcome = state.apply(records, previous=view.position, position=position, complete_through=complete_through)
            if outcome == "done":
                view.position = position
                return
            # Gone, of another epoch, or without rows that were there: found or built anew.
            distrusted = state.epoch if outcome == "lost" else None
            state.epoch = -1
            self._find(view, position, complete_through, distrusted=distrusted)
        raise StateUnavailableError(f"the state of view {view.compiled.view.name!r} is built anew at every look")

    def _find(self, view: _View, position: int, complete_through: int, *, distrusted: int | None = None) -> None:
        """Rely on the state that is there, or build one."""
        state = view.state
        head = state.head()
        if head is not None and head.past < view.past:
            distrusted = max(head.epoch, distrusted or head.epoch)  # rows are in it that the log does not have any more
        if head is None or (distrusted is not None and head.epoch <= distrusted):
            head = state.build(
                lambda: self._whole(view, position, complete_through), distrusted=distrusted, wait=_BUILD_WAIT
            )
            view.trimming.built(state)
        state.adopt(head)
        view.position = head.position

    def _whole(self, view: _View, position: int, complete_through: int) -> Whole:
        oldest = complete_through - self._max_behind
        given = [rows for previous, upto, rows in view.pending if previous == -1 and upto == position]
        rows = given[0] if given else view.log.all(position, oldest)
        entity, names = view.log.entities(rows)
        stays, marks = view.trimming.of_frame(entity, rows, oldest)
        records = view.state.grouped(entity[stays.to_numpy()], names, rows.filter(stays))
        found = {names[number]: mark for number, mark in marks.items()}
        return Whole(records, found, Head(-1, position, complete_through, view.past, position))

    def _new_records(self, view: _View, position: int) -> list[Piece]:
        """Everything after what is known to be in Redis, as it came: rows, and restamps that came later."""
        given = [rows for previous, upto, rows in view.pending if previous == view.position and upto == position]
        rows, restamps = view.log.between(view.position, position, given[0] if given else None)
        if not rows.height and restamps is None:
            return []
        return view.state.grouped(*view.log.entities(rows), rows, restamps)

    # --------------------------------------------------------------------------------------------------------- readers

    @contextlib.contextmanager
    def reading(self, questions: Mapping[str, Sequence[Hashable]]) -> Iterator[Reading]:
        """See `Backend.reading`: one command for everything.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or has no state that may be answered from.
        """
        asked = {name: self._views[name] for name in questions or self._views if name in self._views}
        if not asked or len(asked) < len(questions):
            raise StateUnavailableError(self.fault or "the logs have not been read yet")
        commands: list[bytes] = [view.state.keys.head for view in asked.values()]
        places: dict[str, tuple[list[int], list[bytes]]] = {}
        for name, keys in questions.items():
            numbers, texts = numbered(keys, asked[name].log.dtypes)
            places[name] = numbers, texts
            names = asked[name].state.keys
            for text in texts:
                commands.append(names.records(text))
                if asked[name].state.layout.has_heap:
                    commands.append(names.heap(text))
        seen = [view.seen for view in asked.values()]  # before the command is sent: others read meanwhile
        with self.connection.reached() as client:
            raw = client.mget(commands)
        heads = {
            name: self._head(name, view, told, before)
            for (name, view), told, before in zip(asked.items(), raw, seen, strict=False)
        }
        positions = {
            view.compiled.provider: min(
                heads[other].position
                for other, item in asked.items()
                if item.compiled.provider == view.compiled.provider
            )
            for view in asked.values()
        }
        at = len(asked)
        rows: dict[str, ViewRows] = {}
        for name, (numbers, texts) in places.items():
            view, head = asked[name], heads[name]
            position = positions[view.compiled.provider]
            if position < head.base:
                raise StateUnavailableError(f"view {name!r} was built at a later position than others of its provider")
            step = 2 if view.state.layout.has_heap else 1
            mine = raw[at : at + step * len(texts)]
            at += len(mine)
            rows[name] = ViewRows(block(view.compiled, view.state.layout, head, mine, step, position), numbers)
        yield Reading(rows, positions, min(head.complete_through for head in heads.values()))

    def _head(self, name: str, view: _View, raw: bytes | None, seen: Head | None) -> Head:
        """The head of a view, if it may be answered from.

        Raises:
            StateUnavailableError: If it may not.
        """
        if raw is None:
            raise StateUnavailableError(
                f"{self.connection.place} has no state of view {name!r} now: {self.fault or 'it is being built'}"
            )
        head = Head(*HEAD.unpack(raw))
        if seen is not None and (head.epoch, head.position) < (seen.epoch, seen.position):
            raise StateUnavailableError(
                f"{self.connection.place} lacks rows of view {name!r} that it had: it is being built anew"
            )
        if head != seen:
            view.seen = head
        return head

    def restore(self, view: str, key: Hashable, rows: pl.DataFrame, position: int) -> None:
        """See `Backend.restore`; others may have done it already, and who cannot reach Redis leaves it."""
        found = self._views[view]
        texts = key_texts([key], found.log.dtypes)
        with contextlib.suppress(StateUnavailableError):
            if all(
                (head := item.state.head()) is not None and head.position >= position
                for item in self._views.values()
                if item.compiled.provider == found.compiled.provider
            ):
                found.trimming.restore(found.state, texts[0] or b"", rows, position)

    # -------------------------------------------------------------------------------------------------------- trimming

    @property
    def size(self) -> int:
        """Nothing is held in this process."""
        return 0

    def trim(self, *, oldest: int, keep_events: int) -> None:  # noqa: ARG002 - part of the protocol
        """See `Backend.trim`: every entity that got rows from this replica."""
        self._trim_grown(oldest, everything=True)

    def _trim_grown(self, oldest: int, *, everything: bool = False) -> None:
        settled = self._settled(oldest)
        with contextlib.suppress(StateUnavailableError):
            for view in self._views.values():
                position = settled.get(view.compiled.provider)
                if position is not None:
                    view.trimming.trim(view.state, oldest=oldest, position=position, everything=everything)

    def _settled(self, oldest: int) -> dict[str, int]:
        """Positions that everybody who may answer has reached: those known at the earliest instant that is still asked about."""
        found: dict[str, int] = {}
        while len(self._history) > 1 and self._history[1][0] <= oldest:
            self._history.popleft()
        if self._history and self._history[0][0] <= oldest:
            found = self._history[0][1]
        return found

    def close(self) -> None:
        """See `Backend.close`; the state stays where it is."""
        self.connection.close()


def block(
    compiled: CompiledView, layout: RecordLayout, head: Head, raw: Sequence[bytes | None], step: int, position: int
) -> Block:
    """What was read of some entities, as a store.

    Args:
        compiled: The view.
        layout: What records look like.
        head: The view's head, read by the same command.
        raw: Of each entity its records, and its heap if the layout has one.
        step: 2 if it has one, else 1.
        position: Rows beyond it are left out.
    """
    pieces: list[tuple[Any, Any]] = []
    marks: dict[int, int] = {}
    for i in range(0, len(raw), step):
        records = raw[i]
        if records is None:
            pieces.append((b"", b""))
            continue
        epoch, _, mark = ENTITY.unpack_from(records)
        if epoch != head.epoch:
            pieces.append((b"", b""))  # left over from an epoch in which the entity had rows
            continue
        pieces.append((memoryview(records)[ENTITY.size :], (raw[i + 1] or b"") if step > 1 else b""))
        if mark not in (0, WHOLE):
            marks[len(pieces)] = mark
    return Block(compiled, layout.decode(pieces, position), marks=marks)


def numbered(keys: Sequence[Hashable], dtypes: Sequence[pl.DataType]) -> tuple[list[int], list[bytes]]:
    """Each entity's number in a block, from 1, or 0 for nobody; and what the numbered ones are called, each once."""
    texts: dict[bytes, int] = {}
    found = key_texts(keys, dtypes)
    numbers = [0 if text is None else texts.setdefault(text, len(texts) + 1) for text in found]
    return numbers, list(texts)


def log_identity(source: Any) -> str:
    """What tells one log from another that took its place: its table's id, or its address."""
    table = getattr(source, "table", None)
    return str(table.delta.metadata().id) if table is not None else str(getattr(source, "address", source))
