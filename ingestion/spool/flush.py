"""From the spool into the logs: one batch per provider and segment, once each, in the order in which rows came.

A batch is named after its segment, so that a segment that is read again after a crash adds nothing. Records of a broker's
stream carry their place in it; those that the log has passed already are left out, and the last place is committed
together with the rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from polars.exceptions import PanicException

from ingestion.errors import SpoolError, SupersededError
from ingestion.sources.base import Progress
from ingestion.spool.frames import Record
from ingestion.spool.wal import Spool

_TRIES = 20


class Sink(Protocol):
    """Where the records of one provider go. Used by one thread at a time."""

    def progress(self) -> Progress:
        """How far a broker's stream is in the log already."""
        ...

    def store(self, records: Sequence[Record], *, batch_id: str, stream: tuple[str, int], after: int | None) -> Any:
        """Put the rows of some records into the log, once for a place in a stream; returns a report.

        Args:
            records: In their order.
            batch_id: Names the batch.
            stream: The spool's mark and the segment's number: a log that has got as far has the batch.
            after: What `progress` said, if another job might store records of the same stream.

        Raises:
            SupersededError: If another job has; nothing is stored then.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """A provider's part of a segment.

    Attributes:
        provider: Whose; empty if the segment itself could not be read or deleted.
        segment: The segment.
        records: How many of its records were handed to the log; those that it had passed already are not counted.
        repeated: How many the log had passed already.
        report: What the sink told; `None` if nothing was left to store, or it failed.
        error: Why it failed; it is tried again.
        attempts: How often in a row it has failed.
    """

    provider: str
    segment: str
    records: int = 0
    repeated: int = 0
    report: Any = None
    error: BaseException | None = None
    attempts: int = 0


@dataclass(slots=True)
class _Trouble:
    attempts: int
    until: float


@dataclass(slots=True)
class _Segment:
    providers: set[str]
    done: set[str] = field(default_factory=set)


class Flusher:
    """Empties a spool.

    Args:
        spool: What is emptied.
        sink_of: Where the records of a provider go, by its name; asked once for each.
        every: Seconds between flushes of the thread that `start` starts.
        workers: How many providers are stored at the same time.
        wait_least: Seconds after the first failure of a provider; doubled with each further one.
        wait_most: The longest wait.
        on_flushed: Told of each provider's part of a segment, also of failures.
    """

    def __init__(
        self,
        spool: Spool,
        sink_of: Callable[[str], Sink],
        *,
        every: float = 1.0,
        workers: int = 2,
        wait_least: float = 0.5,
        wait_most: float = 30.0,
        on_flushed: Callable[[Flushed], None] | None = None,
    ) -> None:
        self._spool = spool
        self._sink_of = sink_of
        self._every = every
        self._workers = workers
        self._waits = (wait_least, wait_most)
        self._on_flushed = on_flushed or (lambda _flushed: None)
        self._sinks: dict[str, Sink] = {}
        self._segments: dict[str, _Segment] = {}
        self._trouble: dict[str, _Trouble] = {}
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def flush(self) -> list[Flushed]:
        """Seal what is open and store all that waits; what fails stays and is tried again by a later call.

        Returns:
            What was done, in order. Providers that wait after a failure are not in it.

        Raises:
            SpoolError: If the spool is closed.
        """
        with self._flushing:
            self._spool.seal()
            told: list[Flushed] = []
            held = {name for name, trouble in self._trouble.items() if trouble.until > time.monotonic()}
            for segment in self._spool.sealed():
                known = self._segments.get(segment)
                left = known.providers - known.done if known is not None else None
                if left and left <= held:
                    continue
                try:
                    done = self._flush_segment(segment, held) if left or left is None else []
                except OSError as error:  # what comes after it must not be stored before it
                    return [*told, self._tell(Flushed(provider="", segment=segment, error=error))]
                held |= {part.provider for part in done if part.error is not None}
                told += done
                known = self._segments[segment]
                if known.done >= known.providers:
                    told += self._retire(segment)
            return told

    def start(self) -> None:
        """Flush in a thread of its own until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="asknown-flush", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Flush what is there once more, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        due = time.monotonic()
        stopping = False
        while not stopping:
            due = max(due + self._every, time.monotonic())
            stopping = self._stop.wait(max(0.0, due - time.monotonic()))
            try:
                self.flush()
            except SpoolError:
                return

    def _flush_segment(self, segment: str, held: set[str]) -> list[Flushed]:
        by_provider: dict[str, list[Record]] = {}
        for record in self._spool.read(segment):
            by_provider.setdefault(record.header.provider, []).append(record)
        known = self._segments.setdefault(segment, _Segment(set(by_provider)))
        due = [name for name in by_provider if name not in known.done and name not in held]
        parts = list(self._each(due, lambda name: self._flush_part(name, segment, by_provider[name])))
        known.done |= {part.provider for part in parts if part.error is None}
        return parts

    def _retire(self, segment: str) -> list[Flushed]:
        try:
            self._spool.retire(segment)
        except OSError as error:  # its rows are in the logs; it is tried again
            return [self._tell(Flushed(provider="", segment=segment, error=error))]
        del self._segments[segment]
        return []

    def _tell(self, part: Flushed) -> Flushed:
        self._on_flushed(part)
        return part

    def _each(self, names: Sequence[str], work: Callable[[str], Flushed]) -> Iterable[Flushed]:
        if len(names) < 2 or self._workers < 2:
            return [work(name) for name in names]
        with ThreadPoolExecutor(min(self._workers, len(names)), "asknown-flush") as pool:
            return list(pool.map(work, names))

    def _flush_part(self, provider: str, segment: str, records: list[Record]) -> Flushed:
        try:
            part = self._store(provider, segment, records)
        except (Exception, PanicException) as error:  # noqa: BLE001 - whatever happens, the segment stays and is tried again
            trouble = self._trouble.setdefault(provider, _Trouble(0, 0.0))
            trouble.attempts += 1
            least, most = self._waits
            trouble.until = time.monotonic() + min(most, least * 2 ** (trouble.attempts - 1))
            self._sinks.pop(provider, None)
            part = Flushed(provider=provider, segment=segment, error=error, attempts=trouble.attempts)
        else:
            self._trouble.pop(provider, None)
        return self._tell(part)

    def _store(self, provider: str, segment: str, records: list[Record]) -> Flushed:
        """One batch, without the records that the log has passed.

        Raises:
            SupersededError: If another job kept storing the same stream.
        """
        if provider not in self._sinks:
            self._sinks[provider] = self._sink_of(provider)
        sink = self._sinks[provider]
        batch_id = batch_name(segment, provider)
        tries = 0
        while True:
            wanted, after = records, None
            if any(record.header.place is not None for record in records):
                progress = sink.progress()
                wanted, after = later_than(records, place_in(progress.cursor)), progress.after
            repeated = len(records) - len(wanted)
            if not wanted:
                return Flushed(provider=provider, segment=segment, repeated=repeated)
            try:
                report = sink.store(wanted, batch_id=batch_id, stream=stream_of(segment), after=after)
            except SupersededError:
                tries += 1
                if tries >= _TRIES:
                    raise
            else:
                done = len(wanted)
                return Flushed(provider=provider, segment=segment, records=done, repeated=repeated, report=report)


def batch_name(segment: str, provider: str) -> str:
    """The batch that a segment's rows of a provider become in its log."""
    return f"spool-{segment}-{provider}"


def stream_of(segment: str) -> tuple[str, int]:
    """The mark of the spool that a segment is of, and the segment's number there."""
    _, mark, number = segment.split("-")
    return f"spool-{mark}", int(number)


def place_in(cursor: dict[str, Any] | None) -> tuple[int, int] | None:
    """The place in a broker's stream that a log's cursor tells; `None` if it tells none."""
    if cursor is None or "offset" not in cursor:
        return None
    return int(cursor.get("epoch", 0)), int(cursor["offset"])


def cursor_of(records: Iterable[Record]) -> dict[str, Any] | None:
    """The cursor after some records; `None` if they have no places."""
    last = max((record.header.place for record in records if record.header.place is not None), default=None)
    return {"epoch": last[0], "offset": last[1]} if last is not None else None


def later_than(records: Iterable[Record], passed: tuple[int, int] | None) -> list[Record]:
    """Records whose place has not been passed, each place once; all that have no place."""
    later = []
    for record in records:
        place = record.header.place
        if place is not None:
            if passed is not None and place <= passed:
                continue
            passed = place
        later.append(record)
    return later
