"""The spool against a model: whatever crashes, fails or is sent again, each row is in the log once, in its order."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from ingestion.errors import SpoolWriteError, SupersededError
from ingestion.sources.base import Progress
from ingestion.spool import Flusher, Header, Record, Spool
from ingestion.spool.disk import Disk
from ingestion.spool.flush import cursor_of
from ingestion.spool.frames import encode, mark_of

PROVIDERS = ("a", "b")
STREAM = "stream"


class FakeLog:
    """What the logs are to the flusher: batches once each, a cursor with them, and a store that fails."""

    def __init__(self) -> None:
        self.batches: dict[str, list[str]] = {}
        self.streams: dict[tuple[str, str], int] = {}
        self.rows: dict[str, list[str]] = defaultdict(list)
        self.cursors: dict[str, Progress] = defaultdict(Progress)
        self.fail: str = ""
        self.rival: int = 0

    def sink(self, provider: str) -> FakeSink:
        return FakeSink(self, provider)


class FakeSink:
    def __init__(self, log: FakeLog, provider: str) -> None:
        self.log, self.provider = log, provider

    def progress(self) -> Progress:
        return self.log.cursors[self.provider]

    def store(self, records: Sequence[Record], *, batch_id: str, stream: tuple[str, int], after: int | None) -> Any:
        log, here = self.log, self.log.cursors[self.provider]
        if log.fail == "before":
            raise OSError("no space left")
        if log.rival and after is not None:  # another job on the same stream was quicker
            log.rival = 0
            self._rival_stores(records[0])
            raise SupersededError(self.provider, after, here.after + 1)
        mark, number = stream
        last = log.streams.get((self.provider, mark), 0)
        assert number >= last or batch_id in log.batches, "a segment comes after a later one"
        log.streams[self.provider, mark] = max(last, number)
        if number > last:
            log.batches[batch_id] = [r.payload.decode() for r in records]
            log.rows[self.provider] += log.batches[batch_id]
            cursor = cursor_of(records)
            if cursor is not None:
                log.cursors[self.provider] = Progress(cursor=cursor, after=here.after + 1)
        if log.fail == "after":
            raise OSError("the answer of the store was lost")
        return len(records)

    def _rival_stores(self, record: Record) -> None:
        here = self.log.cursors[self.provider]
        self.log.rows[self.provider].append(record.payload.decode())
        self.log.cursors[self.provider] = Progress(cursor=cursor_of([record]), after=here.after + 1)


class FaultyDisk(Disk):
    def __init__(self) -> None:
        self.room: int | None = None

    def write(self, file: int, content: bytes) -> None:
        if self.room is not None:
            room, self.room = self.room, None
            super().write(file, content[:room])
            raise OSError("no space left")
        super().write(file, content)


class SpoolModel(RuleBasedStateMachine):
    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.log = FakeLog()
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.maybe: set[str] = set()  # handed over, never answered
        self.number = 0
        self.offset = 0
        self.open()

    def open(self) -> None:
        self.disk = FaultyDisk()
        self.spool = Spool(self.folder, disk=self.disk, clock=lambda: datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
        self.flusher = Flusher(self.spool, self.log.sink, wait_least=0.0, workers=1)

    def teardown(self) -> None:
        self.log.fail, self.disk.room = "", None
        self.flusher.flush()
        self.check()
        assert self.spool.sealed() == []
        self.spool.close()
        shutil.rmtree(self.folder)

    def record(self, provider: str, key: str | None = None, offset: int | None = None) -> Record:
        self.number += 1
        header = Header(
            provider=provider, source="push", received_us=self.number, rows=1, key=key, digest=key or "", offset=offset
        )
        return Record(header, f"{provider}{self.number}".encode())

    # ------------------------------------------------------------------------------------------------------ what comes

    @rule(provider=st.sampled_from(PROVIDERS))
    def put(self, provider: str) -> None:
        record = self.record(provider)
        try:
            self.spool.put(record).result()
        except SpoolWriteError:
            return  # refused: must not come up
        self.sent[provider].append(record.payload.decode())

    @rule(target=keys, provider=st.sampled_from(PROVIDERS))
    def put_with_a_key(self, provider: str) -> Record:
        record = self.record(provider, key=f"key{self.number}")
        try:
            self.spool.put(record).result()
        except SpoolWriteError:
            return record  # and it may be sent again under the same key
        self.sent[provider].append(record.payload.decode())
        return record

    @rule(record=keys)
    def send_again(self, record: Record) -> None:
        known = record.payload.decode() in self.sent[record.header.provider]
        try:
            receipt = self.spool.put(record).result()
        except SpoolWriteError:
            assert not known
            return
        if not known:
            self.sent[record.header.provider].append(record.payload.decode())
        assert receipt.repeated == known

    @rule(count=st.integers(1, 3))
    def consume(self, count: int) -> None:
        records = [self.record(STREAM, offset=self.offset + n + 1) for n in range(count)]
        try:
            self.spool.put_all(records).result()
        except SpoolWriteError:
            return  # the broker sends the same offsets again
        self.offset += count
        self.sent[STREAM] += [r.payload.decode() for r in records]

    @rule(back=st.integers(0, 3))
    def redeliver(self, back: int) -> None:
        """The broker sends what was acknowledged already."""
        first = max(0, len(self.sent[STREAM]) - back)
        again = [
            Record(Header(provider=STREAM, source="nats", received_us=1, rows=1, offset=n + 1), text.encode())
            for n, text in enumerate(self.sent[STREAM])
            if n >= first
        ]
        if again:
            try:
                self.spool.put_all(again).result()
            except SpoolWriteError:
                return

    # ------------------------------------------------------------------------------------------------ what goes wrong

    @rule(room=st.integers(0, 60))
    def the_disk_is_full_once(self, room: int) -> None:
        self.disk.room = room

    @rule(fail=st.sampled_from(["", "before", "after"]))
    def the_store(self, fail: str) -> None:
        self.log.fail = fail

    @rule()
    def another_job_is_quicker(self) -> None:
        self.log.rival = 1

    @rule(torn=st.integers(0, 200), provider=st.sampled_from(PROVIDERS))
    def crash(self, torn: int, provider: str) -> None:
        """The process is gone; the last write got as far as it got, and nobody was answered."""
        active = self.spool._active
        self.spool.close()
        if active is not None:
            record = self.record(provider)
            frame = mark_of(active.name) + encode(record)
            with (self.folder / f"{active.name}.wal").open("ab") as file:
                file.write(frame[:torn])
            if torn >= len(frame):
                self.maybe.add(record.payload.decode())
        self.open()

    # ------------------------------------------------------------------------------------------------- what is stored

    @rule()
    def seal(self) -> None:
        self.spool.seal()

    @rule()
    def flush(self) -> None:
        self.flusher.flush()

    @precondition(lambda self: not self.log.fail)
    @rule()
    def flush_all(self) -> None:
        self.log.rival, self.disk.room = 0, None
        self.flusher.flush()
        assert self.spool.sealed() == []
        for provider, sent in self.sent.items():
            assert [row for row in self.log.rows[provider] if row not in self.maybe] == sent

    @rule()
    def crash_before_the_segment_is_deleted(self) -> None:
        """Everything is in the log, and the segments are there still."""
        self.spool.seal()
        kept = {path: path.read_bytes() for path in self.folder.glob("*.wal")}
        self.flusher.flush()
        self.spool.close()
        for path, content in kept.items():
            path.write_bytes(content)
        self.open()

    @invariant()
    def check(self) -> None:
        for provider, rows in self.log.rows.items():
            assert len(rows) == len(set(rows)), "a row is there twice"
            known = [row for row in rows if row not in self.maybe]
            assert known == self.sent[provider][: len(known)], "rows are lost or out of order"


TestSpool = SpoolModel.TestCase
