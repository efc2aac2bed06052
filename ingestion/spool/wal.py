"""The write-ahead spool: what was received is on the disk before anybody is told that it was.

Records go into segment files, one of which is open. A thread writes: all that waits at that moment goes in with one write
and one sync (group commit), then everybody is told. A sealed segment is read, stored in the logs, and retired.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ingestion.errors import KeyReusedError, SpoolError, SpoolFullError, SpoolLockedError, SpoolWriteError
from ingestion.instants import Clock, system_clock, to_us
from ingestion.spool.disk import Disk
from ingestion.spool.frames import HEAD, MARK_BYTES, Record, encode, grouped, mark_of, members, scan
from ingestion.spool.keys import Answer, Entry, KeyJournal, KeyLimits, scope_of

_SUFFIX = ".wal"
_GROUP_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """How much may wait for the logs.

    Attributes:
        bytes: Of all segments together.
        records: Of all segments together.
        segment_bytes: An open segment that is larger is sealed.
        keys: How many idempotency keys are remembered.
    """

    bytes: int = 1 << 30
    records: int = 2_000_000
    segment_bytes: int = 64 << 20
    keys: KeyLimits = field(default_factory=KeyLimits)


class Receipt(NamedTuple):
    """A record is durable.

    Attributes:
        segment: The segment that has it.
        rows: How many rows it has.
        received_us: When it was in hand.
        repeated: It was there before, under the same key; this is the answer that was given then.
    """

    segment: str
    rows: int
    received_us: int
    repeated: bool = False


class Damage(NamedTuple):
    """Bytes of a segment that are no record any more.

    Attributes:
        segment: The segment.
        start: Where they were.
        size: How many.
        kept: The file that has them now.
    """

    segment: str
    start: int
    size: int
    kept: str


class Usage(NamedTuple):
    """What waits for the logs.

    Attributes:
        bytes: In segments and in memory.
        records: In segments and in memory.
        segments: Segments, the open one included.
        oldest_us: When the oldest of them was received.
    """

    bytes: int
    records: int
    segments: int
    oldest_us: int | None


@dataclass(slots=True)
class _Segment:
    name: str
    mark: bytes
    size: int
    records: int = 0
    oldest_us: int | None = None
    entries: list[Entry] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, records: Sequence[Record], size: int) -> list[Entry]:
        """Count records that are in the file; returns their keys."""
        self.size += size
        known = len(self.entries)
        for record in records:
            self._count(record)
        return self.entries[known:]

    def _count(self, record: Record) -> None:
        header = record.header
        self.records += 1
        self.oldest_us = min(self.oldest_us or header.received_us, header.received_us)
        if header.place is not None:
            self.places[header.provider] = max(self.places.get(header.provider, (0, 0)), header.place)
        if header.key is not None:
            answer = Answer(header.digest, header.rows, self.name, header.received_us)
            self.entries.append(Entry(scope_of(header.source, header.provider), header.key, answer))


@dataclass(slots=True)
class _Waiting:
    """A record on its way to the disk, or (without one) the wish to seal."""

    future: Future[Receipt]
    records: Sequence[Record] = ()
    frame: bytes = b""

    def receipt(self, segment: str) -> Receipt:
        """What is answered once it is durable."""
        rows = sum(record.header.rows for record in self.records)
        return Receipt(segment, rows, self.records[0].header.received_us)


class Spool:
    """A folder of segments. One process has it at a time; its threads may share it.

    Args:
        folder: Where the segments are; made if it is not there.
        limits: How much may wait.
        clock: Something that tells now.
        disk: Tests put one in that fails.

    Attributes:
        damaged: What was found that is no record any more, and where it is kept.

    Raises:
        SpoolLockedError: If another process, or another spool of this one, has the folder.
        OSError: If the folder cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        limits: SpoolLimits | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.limits = limits or SpoolLimits()
        self.damaged: list[Damage] = []
        self._clock = clock or system_clock
        self._disk = disk or Disk()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_file = self._take_folder()
        self._lock = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._in_flight: dict[tuple[str, str], tuple[str, Future[Receipt]]] = {}
        self._bytes = self._records = 0
        self._sealed: dict[str, _Segment] = {}
        self._active: _Segment | None = None
        self._file = -1
        self._last_name_us = 0
        self._mark = secrets.token_hex(8)
        self._segments_made = 0
        self._closing = False
        try:
            self._keys = KeyJournal(self.folder, self._disk, self.limits.keys, self._clock())
            self._recover()
        except BaseException:
            os.close(self._lock_file)
            raise
        self._writer = threading.Thread(target=self._write_forever, name="asknown-spool", daemon=True)
        self._writer.start()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Spool({str(self.folder)!r})"

    # ------------------------------------------------------------------------------------------------------- receiving

    def put(self, record: Record, *, fresh: bool = False) -> Future[Receipt]:
        """Hand a record over; the future is done when it is durable, or fails with `SpoolWriteError`.

        Args:
            record: With a key in its header it is stored once: the same key and content again gives the first receipt.
            fresh: The record is known to be new, though its key may have been used before.

        Raises:
            SpoolFullError: If as much waits as may wait.
            KeyReusedError: If the key came before with other content.
            SpoolError: If the spool is closed.
        """
        header = record.header
        if header.key is None:
            return self._hand_over([record], encode(record))
        scope, frame = scope_of(header.source, header.provider), encode(record)
        with self._lock:
            known = None if fresh else self._known(scope, header.key, record)
            if known is not None:
                return known
            future = self._hand_over([record], frame)
            self._in_flight[scope, header.key] = header.digest, future
        return future

    def put_all(self, records: Sequence[Record]) -> Future[Receipt]:
        """Hand over records of one provider that are kept or lost together, in their order; their keys are not looked at.

        Raises:
            SpoolFullError: If as much waits as may wait.
            SpoolError: If the spool is closed.
        """
        return self._hand_over(records, encode(grouped(records)))

    def _hand_over(self, records: Sequence[Record], frame: bytes) -> Future[Receipt]:
        size = len(frame) + MARK_BYTES
        item = _Waiting(_running(), records, frame)
        with self._lock:
            if self._closing:
                raise SpoolError(f"the spool {str(self.folder)!r} is closed")
            if self._bytes + size > self.limits.bytes or self._records + len(records) > self.limits.records:
                raise SpoolFullError(str(self.folder), f"{self._records:,} records of {self._bytes:,} bytes")
            self._bytes += size
            self._records += len(records)
            self._waiting.append(item)
            self._lock.notify_all()
        return item.future

    def seal(self) -> None:
        """Close the open segment, with all that was handed over before.

        Raises:
            SpoolError: If the spool is closed.
        """
        item = _Waiting(Future())
        with self._lock:
            if self._closing:
                raise SpoolError(f"the spool {str(self.folder)!r} is closed")
            if self._active is None and not self._waiting:
                return
            self._waiting.append(item)
            self._lock.notify_all()
        item.future.result()

    def _known(self, scope: str, key: str, record: Record) -> Future[Receipt] | None:
        """The receipt of a record with the same key.

        Raises:
            KeyReusedError: If that had other content.
        """
        running = self._in_flight.get((scope, key))
        answer = self._keys.get(scope, key)
        digest = running[0] if running is not None else answer.digest if answer is not None else None
        if digest is None:
            return None
        if digest != record.header.digest:
            raise KeyReusedError(record.header.provider, key)
        if running is not None:
            return running[1]
        done: Future[Receipt] = Future()
        if answer is not None:
            done.set_result(Receipt(answer.segment, answer.rows, answer.received_us, repeated=True))
        return done

    # --------------------------------------------------------------------------------------------------------- reading

    def sealed(self) -> list[str]:
        """The segments that can be read, oldest first."""
        with self._lock:
            return list(self._sealed)

    def read(self, segment: str) -> list[Record]:
        """The records of a sealed segment, in the order in which they came.

        Raises:
            OSError: If it cannot be read.
            KeyError: If there is no such sealed segment.
        """
        with self._lock:
            size = self._sealed[segment].size
        content = self._path(segment).read_bytes()[:size]
        found = scan(content, mark_of(segment))
        for start, end in [*found.gaps, *([found.tail] if found.tail else [])]:
            self._keep_aside(segment, content, start, end)
        return [inner for record in found.records for inner in members(record)]

    def retire(self, segment: str) -> None:
        """Delete a segment whose records are all in the logs; its keys are kept.

        Raises:
            OSError: If that cannot be done; it may be tried again.
            KeyError: If there is no such sealed segment.
        """
        with self._lock:
            retired = self._sealed[segment]
            self._keys.keep(retired.entries, self._clock())
        self._disk.remove(self._path(segment))
        with self._lock:
            del self._sealed[segment]
            self._bytes -= retired.size - len(HEAD)
            self._records -= retired.records

    def rewrite(self, segment: str, records: Sequence[Record]) -> None:
        """Put other records in the place of a sealed segment's.

        Args:
            segment: The segment.
            records: What it shall have.

        Raises:
            OSError: If that cannot be done; the segment is as before then.
            KeyError: If there is no such sealed segment.
        """
        mark = mark_of(segment)
        content = HEAD + b"".join(part for record in records for part in (mark, encode(record)))
        self._disk.replace(self._path(segment), content)
        rewritten = _Segment(segment, mark, len(content))
        rewritten.take(records, 0)
        with self._lock:
            self._bytes += rewritten.size - self._sealed[segment].size
            self._records += rewritten.records - self._sealed[segment].records
            self._sealed[segment] = rewritten

    def forget_keys(self, doomed: Callable[[str, str], bool]) -> int:
        """Forget idempotency keys, in the journal too.

        Args:
            doomed: Says of a scope and a key whether it goes.

        Returns:
            How many were forgotten.

        Raises:
            OSError: If the journal cannot be written.
        """
        with self._lock:
            return self._keys.remove(doomed)

    def last_place(self, provider: str) -> tuple[int, int] | None:
        """The (epoch, offset) of the last record of a broker's stream that waits here."""
        with self._lock:
            segments = [*self._sealed.values(), *([self._active] if self._active is not None else [])]
            return max((s.places[provider] for s in segments if provider in s.places), default=None)

    def knows(self, source: str, provider: str, key: str) -> bool:
        """Whether a record with this key is durable, here or in a log."""
        with self._lock:
            return self._keys.get(scope_of(source, provider), key) is not None

    def usage(self) -> Usage:
        """What waits for the logs."""
        with self._lock:
            segments = [*self._sealed.values(), *([self._active] if self._active is not None else [])]
            oldest = min((s.oldest_us for s in segments if s.oldest_us is not None), default=None)
            return Usage(self._bytes, self._records, len(segments), oldest)

    def close(self) -> None:
        """Write what was handed over, and give the folder back."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._lock.notify_all()
        self._writer.join()
        os.close(self._lock_file)

    # --------------------------------------------------------------------------------------------------------- writing

    def _write_forever(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closing:
                    self._lock.wait()
                group, self._waiting = self._waiting, []
                closing = self._closing
            self._write_all(group)
            if closing and not group:
                break
        if self._file >= 0:
            os.close(self._file)

    def _write_all(self, items: list[_Waiting]) -> None:
        group: list[_Waiting] = []
        size = 0
        for item in items:
            if not item.records:
                self._write_group(group)
                self._seal_active()
                item.future.set_result(Receipt("", 0, 0))
                group, size = [], 0
                continue
            group.append(item)
            size += len(item.frame)
            if size >= _GROUP_BYTES:
                self._write_group(group)
                group, size = [], 0
        self._write_group(group)

    def _write_group(self, group: list[_Waiting]) -> None:
        if not group:
            return
        try:
            active = self._active or self._open_segment()
            self._disk.write(self._file, b"".join(part for item in group for part in (active.mark, item.frame)))
            self._disk.sync(self._file)
        except OSError as error:
            self._give_up(group, error)
            return
        with self._lock:
            for item in group:
                for entry in active.take(item.records, MARK_BYTES + len(item.frame)):
                    self._keys.remember(entry)
                self._leave_flight(item)
        for item in group:
            item.future.set_result(item.receipt(active.name))
        if active.size >= self.limits.segment_bytes:
            self._seal_active()

    def _give_up(self, group: list[_Waiting], error: OSError) -> None:
        """Nothing of the group is in the spool: cut what was written of it, and go on in another segment.

        After a sync that failed nobody knows what the file's cache is worth, so no more is written to that file.
        """
        active = self._active
        if active is not None:
            with contextlib.suppress(OSError):
                self._disk.cut(self._path(active.name), active.size)
            self._seal_active()
        with self._lock:
            for item in group:
                self._bytes -= len(item.frame) + MARK_BYTES
                self._records -= len(item.records)
                self._leave_flight(item)
        for item in group:
            item.future.set_exception(SpoolWriteError(str(self.folder), error))

    def _leave_flight(self, item: _Waiting) -> None:
        header = item.records[0].header
        if header.key is None:
            return
        flight = scope_of(header.source, header.provider), header.key
        running = self._in_flight.get(flight)
        if running is not None and running[1] is item.future:
            del self._in_flight[flight]

    def _open_segment(self) -> _Segment:
        """A new segment. Its name was never used before, in no folder: batches are named after it.

        The name ends with this spool's own mark and a number that only grows: a log that has a segment's rows remembers
        the last number of each mark, however the clock was set meanwhile.
        """
        self._last_name_us = max(to_us(self._clock()), self._last_name_us + 1)
        self._segments_made += 1
        name = f"{self._last_name_us:016d}-{self._mark}-{self._segments_made}"
        self._file = self._disk.create(self._path(name), HEAD)
        segment = _Segment(name, mark_of(name), len(HEAD))
        with self._lock:
            self._active = segment
        return segment

    def _seal_active(self) -> None:
        if self._active is None:
            return
        os.close(self._file)
        self._file = -1
        with self._lock:
            if self._active.records:
                self._sealed[self._active.name] = self._active
            else:
                with contextlib.suppress(OSError):
                    self._disk.remove(self._path(self._active.name))
            self._active = None

    # ------------------------------------------------------------------------------------------------------- recovery

    def _take_folder(self) -> int:
        """Lock the folder, as long as this process lives.

        Raises:
            SpoolLockedError: If it is locked.
        """
        file = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 32, 0).decode(errors="replace").strip()
            os.close(file)
            raise SpoolLockedError(str(self.folder), owner) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return file

    def _recover(self) -> None:
        """Seal every segment that is there, torn tails cut."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            name = path.name.removesuffix(_SUFFIX)
            content = path.read_bytes()
            found = scan(content, mark_of(name))
            for start, end in found.gaps:
                self._keep_aside(name, content, start, end)
            if found.tail is not None:
                if found.tail_is_whole:
                    self._keep_aside(name, content, *found.tail)
                self._disk.cut(path, found.end)
            if not found.records:
                self._disk.remove(path)
                continue
            segment = _Segment(name, mark_of(name), found.end)
            for record in found.records:
                for entry in segment.take(members(record), 0):
                    self._keys.remember(entry)
            self._sealed[name] = segment
            self._bytes += segment.size - len(HEAD)
            self._records += segment.records
            stamp, _, _ = name.partition("-")
            self._last_name_us = max(self._last_name_us, int(stamp) if stamp.isdigit() else 0)

    def _keep_aside(self, segment: str, content: bytes, start: int, end: int) -> None:
        target = self.folder / "damaged" / f"{segment}-{start}.bin"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            self._disk.replace(target, content[start:end])
        damage = Damage(segment, start, end - start, str(target))
        if damage not in self.damaged:
            self.damaged.append(damage)

    def _path(self, segment: str) -> Path:
        return self.folder / f"{segment}{_SUFFIX}"


def _running() -> Future[Receipt]:
    """A future that cannot be cancelled: several senders may wait for it."""
    future: Future[Receipt] = Future()
    future.set_running_or_notify_cancel()
    return future
