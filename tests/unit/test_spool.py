"""The write-ahead segments: durable means synced, a crash costs nothing that was answered, a full disk fails and no more."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.errors import KeyReusedError, SpoolError, SpoolFullError, SpoolLockedError, SpoolWriteError
from ingestion.spool import Header, KeyLimits, Receipt, Record, Spool, SpoolLimits
from ingestion.spool.disk import Disk
from ingestion.spool.frames import HEAD


def record(number: int, provider: str = "mast", **more: object) -> Record:
    header = Header(provider=provider, source="push", received_us=1_000_000 + number, rows=1, **more)
    return Record(header, f'{{"n":{number}}}'.encode())


def keyed(number: int, key: str, digest: str = "d") -> Record:
    return record(number, key=key, digest=digest)


def numbers(spool: Spool) -> list[int]:
    return [int(r.payload[5:-1]) for segment in spool.sealed() for r in spool.read(segment)]


class FaultyDisk(Disk):
    """Fails when told: after so many bytes of a write, or at a sync."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.sync_fails = False
        self.syncs = 0

    def write(self, file: int, content: bytes) -> None:
        if self.room is not None and len(content) > self.room:
            super().write(file, content[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(file, content)

    def sync(self, file: int) -> None:
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(file)


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for n in range(5):
            assert spool.put(record(n)).result().rows == 1
        assert spool.sealed() == []  # the open segment is not to be read
        spool.seal()
        assert numbers(spool) == [0, 1, 2, 3, 4]
        assert spool.usage().records == 5
        spool.retire(spool.sealed()[0])
        assert spool.usage() == (0, 0, 0, None)
    assert not list(tmp_path.glob("*.wal"))


def test_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.put(record(1)).result()
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [1]
        spool.put(record(2)).result()
        spool.seal()
        assert numbers(spool) == [1, 2]


def test_records_that_wait_share_a_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    gate = threading.Event()
    first = threading.Event()
    sync = disk.sync

    def held(file: int) -> None:
        first.set()
        gate.wait(5)
        sync(file)

    with Spool(tmp_path, disk=disk) as spool:
        spool.put(record(0)).result()
        disk.syncs = 0
        disk.sync = held  # type: ignore[method-assign]
        futures = [spool.put(record(1))]
        first.wait(5)
        futures += [spool.put(record(n)) for n in range(2, 102)]
        assert not any(f.done() for f in futures)  # nothing is durable yet, so nobody is told
        gate.set()
        wait(futures)
        assert disk.syncs == 2


def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        segment = spool.put(record(1)).result().segment
        spool.put(record(2)).result()
    path = tmp_path / f"{segment}.wal"
    whole = path.read_bytes()
    for cut in range(len(HEAD), len(whole)):
        path.write_bytes(whole[:cut])
        with Spool(tmp_path) as spool:
            assert numbers(spool) in ([], [1]), cut
            assert spool.damaged == []
        path.write_bytes(whole)
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [1, 2]


def test_bytes_gone_bad_in_the_middle_are_kept_aside_and_said(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for n in range(3):
            segment = spool.put(record(n)).result().segment
    path = tmp_path / f"{segment}.wal"
    content = bytearray(path.read_bytes())
    size = (len(content) - len(HEAD)) // 3
    place = len(HEAD) + size + size // 2
    content[place] ^= 0xFF
    path.write_bytes(content)
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [0, 2]
        assert [(d.segment, d.start, d.size) for d in spool.damaged] == [(segment, len(HEAD) + size, size)]
        assert Path(spool.damaged[0].kept).read_bytes() == bytes(content[len(HEAD) + size : len(HEAD) + 2 * size])


def test_a_last_record_gone_bad_is_kept_aside_too(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for n in range(2):
            segment = spool.put(record(n)).result().segment
    path = tmp_path / f"{segment}.wal"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF  # it was written to its end, so it may have been answered
    path.write_bytes(content)
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [0]
        assert len(spool.damaged) == 1


def test_a_payload_cannot_pass_for_a_record(tmp_path: Path) -> None:
    with Spool(tmp_path / "other") as other:
        name = other.put(record(666)).result().segment
    forged = (tmp_path / "other" / f"{name}.wal").read_bytes()
    with Spool(tmp_path / "spool") as spool:
        header = Header(provider="mast", source="push", received_us=1, rows=1, form="raw")
        segment = spool.put(Record(header, forged)).result().segment
    path = tmp_path / "spool" / f"{segment}.wal"
    content = bytearray(path.read_bytes())
    content[len(HEAD) + 8] ^= 0xFF  # the outer frame is bad now, so recovery looks for frames inside it
    path.write_bytes(content)
    with Spool(tmp_path / "spool") as spool:
        assert numbers(spool) == []


@pytest.mark.parametrize("room", [0, 1, 20, 60])
def test_a_full_disk_fails_the_record_and_nothing_else(tmp_path: Path, room: int) -> None:
    disk = FaultyDisk()
    with Spool(tmp_path, disk=disk) as spool:
        spool.put(record(1)).result()
        before = spool.usage()
        disk.room = room
        with pytest.raises(SpoolWriteError, match="No space left"):
            spool.put(record(2)).result()
        assert spool.usage().bytes == before.bytes
        disk.room = None
        spool.put(record(3)).result()
        spool.seal()
        assert numbers(spool) == [1, 3]
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [1, 3]


def test_after_a_sync_that_failed_the_file_is_left_alone(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with Spool(tmp_path, disk=disk) as spool:
        one = spool.put(record(1)).result().segment
        disk.sync_fails = True
        with pytest.raises(SpoolWriteError, match="Input/output error"):
            spool.put(record(2)).result()
        with pytest.raises(SpoolWriteError):
            spool.put(record(3)).result()
        disk.sync_fails = False
        assert spool.put(record(4)).result().segment != one
        spool.seal()
        assert numbers(spool) == [1, 4]


def test_records_of_a_group_are_kept_or_lost_together(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        receipt = spool.put_all([record(n) for n in range(4)]).result()
        assert receipt.rows == 4
        assert spool.usage().records == 4
    path = tmp_path / f"{receipt.segment}.wal"
    whole = path.read_bytes()
    with Spool(tmp_path) as spool:
        assert numbers(spool) == [0, 1, 2, 3]
    path.write_bytes(whole[:-1])
    with Spool(tmp_path) as spool:
        assert numbers(spool) == []


def test_a_full_spool_refuses(tmp_path: Path) -> None:
    with Spool(tmp_path, limits=SpoolLimits(records=2)) as spool:
        spool.put(record(1))
        spool.put(record(2)).result()
        with pytest.raises(SpoolFullError, match="2 records"):
            spool.put(record(3))
        spool.seal()
        spool.retire(spool.sealed()[0])
        spool.put(record(3)).result()
    with Spool(tmp_path / "bytes", limits=SpoolLimits(bytes=100)) as spool, pytest.raises(SpoolFullError):
        spool.put(Record(record(1).header, b"x" * 200))


def test_a_segment_that_grew_is_sealed(tmp_path: Path) -> None:
    with Spool(tmp_path, limits=SpoolLimits(segment_bytes=200)) as spool:
        for n in range(6):
            spool.put(record(n)).result()
        spool.seal()
        assert len(spool.sealed()) > 1
        assert numbers(spool) == list(range(6))


def test_names_of_segments_are_never_used_again(tmp_path: Path) -> None:
    back = iter([datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=n) for n in range(50)])
    names = []
    with Spool(tmp_path, clock=lambda: next(back)) as spool:
        for n in range(4):
            names.append(spool.put(record(n)).result().segment)
            spool.seal()
        assert spool.sealed() == names == sorted(names)  # though the clock goes back
        assert numbers(spool) == [0, 1, 2, 3]
        for name in names:
            spool.retire(name)
    with Spool(tmp_path, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)) as spool:
        assert spool.put(record(9)).result().segment not in names


def test_one_spool_has_a_folder_at_a_time(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(SpoolLockedError, match=f"in use by process {os.getpid()}") as caught:
        Spool(tmp_path)
    assert "a folder of its own" in str(caught.value)
    with Spool(tmp_path):
        script = f"from ingestion.spool import Spool; Spool({str(tmp_path)!r})"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "SpoolLockedError" in done.stderr
    Spool(tmp_path).close()


def test_a_closed_spool_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    future = spool.put(record(1))
    spool.close()
    spool.close()
    assert future.result().rows == 1  # what was handed over is written
    with pytest.raises(SpoolError, match="is closed"):
        spool.put(record(2))


# ---------------------------------------------------------------------------------------------------------------- keys


def test_the_same_key_gets_the_same_receipt(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        first = spool.put(keyed(1, "k")).result()
        again = spool.put(keyed(1, "k")).result()
        assert again == Receipt(first.segment, first.rows, first.received_us, repeated=True)
        spool.seal()
        assert numbers(spool) == [1]


def test_a_key_in_flight_is_known(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        futures = [spool.put(keyed(1, "k")) for _ in range(20)]
        assert len({f.result().segment for f in futures}) == 1
        spool.seal()
        assert numbers(spool) == [1]


def test_other_content_under_a_known_key_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.put(keyed(1, "k", "one")).result()
        with pytest.raises(KeyReusedError, match="'k' came before with other content"):
            spool.put(keyed(1, "k", "two"))
        spool.put(record(1, provider="other", key="k", digest="two")).result()  # keys are a provider's own


def test_a_record_known_to_be_new_takes_its_key_over(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.put(keyed(1, "k", "one")).result()
        spool.put(keyed(2, "k", "one"), fresh=True).result()
        spool.seal()
        assert numbers(spool) == [1, 2]


@pytest.mark.parametrize("retired", [False, True])
def test_keys_outlive_the_process_and_the_segment(tmp_path: Path, retired: bool) -> None:
    with Spool(tmp_path) as spool:
        first = spool.put(keyed(1, "k")).result()
        spool.seal()
        if retired:
            spool.retire(first.segment)
    with Spool(tmp_path, clock=lambda: datetime(1970, 1, 1, 1, tzinfo=UTC)) as spool:
        again = spool.put(keyed(1, "k")).result()
        assert again.repeated
        assert again.segment == first.segment


def test_a_key_whose_record_failed_may_be_used_again(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with Spool(tmp_path, disk=disk) as spool:
        disk.room = 10
        with pytest.raises(SpoolWriteError):
            spool.put(keyed(1, "k")).result()
        disk.room = None
        assert not spool.put(keyed(1, "k")).result().repeated
        spool.seal()
        assert numbers(spool) == [1]


def test_keys_are_bounded_by_age_and_number(tmp_path: Path) -> None:
    now = datetime(1970, 1, 1, tzinfo=UTC)
    limits = SpoolLimits(keys=KeyLimits(age=timedelta(seconds=10), number=3))
    with Spool(tmp_path, limits=limits, clock=lambda: now) as spool:
        for n in range(5):
            spool.put(keyed(n, f"k{n}")).result()
        assert not spool.put(keyed(9, "k0")).result().repeated  # forgotten: three newer ones
        assert spool.put(keyed(4, "k4")).result().repeated
        spool.seal()
        now += timedelta(minutes=1)
        spool.retire(spool.sealed()[0])
        assert not spool.put(keyed(4, "k4")).result().repeated


def test_a_torn_journal_of_keys_is_cut(tmp_path: Path) -> None:
    def retire_one(spool: Spool, number: int) -> None:
        spool.put(keyed(number, f"k{number}")).result()
        spool.seal()
        spool.retire(spool.sealed()[0])

    early = datetime(1970, 1, 1, 1, tzinfo=UTC)
    with Spool(tmp_path, clock=lambda: early) as spool:
        retire_one(spool, 1)
        retire_one(spool, 2)
    journal = tmp_path / "keys.journal"
    journal.write_bytes(journal.read_bytes()[:-7])
    with Spool(tmp_path, clock=lambda: early) as spool:
        assert spool.put(keyed(1, "k1")).result().repeated
        assert not spool.put(keyed(2, "k2")).result().repeated
        spool.seal()
        spool.retire(spool.sealed()[0])
    with Spool(tmp_path, clock=lambda: early) as spool:
        assert spool.put(keyed(1, "k1")).result().repeated
        assert spool.put(keyed(2, "k2")).result().repeated
