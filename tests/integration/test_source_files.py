"""Files dropped into a folder or a bucket: new, rewritten, half-written, touched, vanishing, unreadable."""

from __future__ import annotations

import gzip
import io
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingestion.errors import PayloadError, SourceError
from ingestion.sources import files as files_module
from ingestion.sources.base import Fetched, Progress
from ingestion.sources.files import Files, FilesSource
from ingestion.sources.redaction import Redactor
from ingestion.storage import Location

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def write(folder: Path, name: str, content: bytes, *, at: datetime = NOW - MINUTE) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def looking(folder: Path, **settings: Any) -> Files:
    return FilesSource(path=str(folder), **settings).open("meter", {}, clock=lambda: NOW)


def in_a_bucket(folder: Path, **settings: Any) -> Files:
    """As for an object store: the same calls, with the store a folder."""
    declared = FilesSource(path="s3://bucket/feed", **settings)
    return Files("meter", declared, Location(folder.as_uri()), redactor=Redactor(), clock=lambda: NOW)


def seen_after(*fetches: Fetched) -> dict[str, str]:
    return {payload.label: str(payload.version) for fetched in fetches for payload in fetched.payloads}


def labels(fetched: Fetched) -> list[str]:
    return [payload.label for payload in fetched.payloads]


def fetch(source: Files, seen: dict[str, str] | None = None, now: datetime = NOW) -> Fetched:
    return source.fetch(Progress(seen=seen or {}), now=now)


def as_bytes(write_to: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write_to(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("open_source", [looking, in_a_bucket])
def test_new_and_rewritten_files_are_read_and_no_others(tmp_path: Path, open_source: Callable[..., Files]) -> None:
    write(tmp_path, "b.csv", b"v\n1\n", at=NOW - 3 * MINUTE)
    write(tmp_path, "a.csv", b"v\n2\n", at=NOW - 2 * MINUTE)
    write(tmp_path, "notes.txt", b"not for us")
    source = open_source(tmp_path, pattern="*.csv")
    first = fetch(source)
    assert labels(first) == ["b.csv", "a.csv"]  # in the order of their last change
    assert source.parse(first.payloads[0]).to_dicts() == [{"v": 1}]
    assert (first.payloads[0].received_time, first.version, first.cursor) == (NOW, "2 files", None)
    assert labels(fetch(source, seen_after(first))) == []
    write(tmp_path, "b.csv", b"v\n3\n", at=NOW - MINUTE)  # as long as before
    write(tmp_path, "c.csv", b"v\n4\n", at=NOW - MINUTE)
    second = fetch(open_source(tmp_path, pattern="*.csv"), seen_after(first))  # another process
    assert labels(second) == ["b.csv", "c.csv"]
    assert labels(fetch(source, seen_after(first, second))) == []


def test_a_file_that_was_only_touched_is_read_once_and_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.csv", b"v\n1\n", at=NOW - 3 * MINUTE)
    source = looking(tmp_path)
    seen = seen_after(fetch(source))
    write(tmp_path, "a.csv", b"v\n1\n", at=NOW - MINUTE)
    read: list[str] = []
    real = files_module._read
    monkeypatch.setattr(files_module, "_read", lambda place, name: read.append(name) or real(place, name))
    for _ in range(3):
        assert labels(fetch(source, seen)) == []
    assert read == ["a.csv"]
    write(tmp_path, "a.csv", b"v\n2\n", at=NOW - 30 * SECOND)
    assert labels(fetch(source, seen)) == ["a.csv"]


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "fresh.csv", b"v\n1\n", at=NOW - 4 * SECOND)
    for name in (".hidden.csv", "a.csv.tmp", "b.csv.part", "_draft.csv", "c.csv~", ".sync/d.csv", "e.csv.filepart"):
        write(tmp_path, name, b"v\n1\n")
    source = looking(tmp_path, pattern="**/*")
    assert labels(fetch(source)) == []
    assert labels(fetch(source, now=NOW + SECOND)) == ["fresh.csv"]  # five seconds old


def test_a_file_from_a_clock_ahead_is_read_after_two_looks(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"v\n1\n", at=NOW + timedelta(hours=1))
    source = looking(tmp_path)
    assert labels(fetch(source)) == []
    assert labels(fetch(source, now=NOW + 4 * SECOND)) == []
    write(tmp_path, "a.csv", b"v\n1\n2\n", at=NOW + timedelta(hours=1))  # it grew: the wait begins anew
    assert labels(fetch(source, now=NOW + 6 * SECOND)) == []
    # Our own clock goes back an hour: the wait is counted from there.
    assert labels(fetch(source, now=NOW - timedelta(hours=1))) == []
    assert labels(fetch(source, now=NOW - timedelta(hours=1) + 5 * SECOND)) == ["a.csv"]


FRAME = pl.DataFrame({"v": [1, 2, 3]})
ENDED = {
    "a.parquet": as_bytes(FRAME.write_parquet),
    "a.arrow": as_bytes(FRAME.write_ipc),
    "a.csv.gz": gzip.compress(b"v\n1\n2\n3\n" * 50),
    "a.json": b'[{"v": 1}, {"v": 2}]',
}


@pytest.mark.parametrize("name", ENDED)
def test_a_file_without_its_end_is_left_alone_for_a_while_and_then_told(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, ENDED[name][:-7])
    source = looking(tmp_path)
    assert labels(fetch(source)) == []
    write(tmp_path, name, ENDED[name])
    assert labels(fetch(source)) == [name]
    write(tmp_path, name, ENDED[name][:-7], at=NOW - 11 * MINUTE)
    fetched = fetch(source)
    assert labels(fetched) == [name]
    with pytest.raises(PayloadError, match=f"provider 'meter': {name}: "):
        source.parse(fetched.payloads[0])


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"v,w\n1\n", at=NOW - 3 * MINUTE)
    write(tmp_path, "b.csv", b"v,w\n1,2\n", at=NOW - 2 * MINUTE)
    source = looking(tmp_path)
    bad, good = fetch(source).payloads
    with pytest.raises(PayloadError, match="a.csv: not CSV: CSV parse error: Expected 2 columns, got 1: 1"):
        source.parse(bad)
    assert source.parse(good).to_dicts() == [{"v": 1, "w": 2}]


def test_a_file_that_cannot_be_read_fails_once_nothing_else_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.csv", b"v\n1\n", at=NOW - 3 * MINUTE)
    write(tmp_path, "b.csv", b"v\n2\n", at=NOW - 2 * MINUTE)
    real = files_module._read

    def read(place: Location, name: str) -> bytes:  # the tests may run as root, who may read everything
        if name == "a.csv":
            raise PermissionError(13, "Permission denied")
        return real(place, name)

    monkeypatch.setattr(files_module, "_read", read)
    source = looking(tmp_path)
    fetched = fetch(source)
    assert labels(fetched) == ["b.csv"]
    with pytest.raises(SourceError) as caught:
        fetch(source, seen_after(fetched))
    assert str(caught.value) == (
        f"provider 'meter': {tmp_path}: a.csv cannot be read: Permission denied\n\nhint: may this job read it?"
    )
    monkeypatch.setattr(files_module, "_read", real)
    assert labels(fetch(source, seen_after(fetched))) == ["a.csv"]


def test_a_file_that_vanishes_or_changes_while_it_is_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.csv", b"v\n1\n", at=NOW - 4 * MINUTE)
    write(tmp_path, "b.csv", b"v\n1\n", at=NOW - 3 * MINUTE)
    write(tmp_path, "c.csv", b"v\n1\n", at=NOW - 2 * MINUTE)
    real = files_module._read

    def read(place: Location, name: str) -> bytes:
        if name == "a.csv":
            (tmp_path / name).unlink()
        content = real(place, name)
        if name == "b.csv":
            write(tmp_path, name, b"v\n1\n2\n", at=NOW - MINUTE)
        return content

    monkeypatch.setattr(files_module, "_read", read)
    source = looking(tmp_path)
    assert labels(fetch(source)) == ["c.csv"]


def test_many_files_are_read_in_portions(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"{number}.csv", b"v\n1\n" + b"2\n" * number, at=NOW - (10 - number) * MINUTE)
    for settings in ({"max_files": 2}, {"max_bytes": 10}):
        source = looking(tmp_path, **settings)
        seen: dict[str, str] = {}
        portions: list[list[str]] = []
        more = True
        while more:
            fetched = fetch(source, seen)
            seen |= seen_after(fetched)
            portions.append(labels(fetched))
            more = fetched.more
        assert [name for portion in portions for name in portion] == [f"{number}.csv" for number in range(5)]
        assert len(portions) > 2


def test_folders_below_are_looked_into_where_the_pattern_says_so(tmp_path: Path) -> None:
    for name in ("top.csv", "2025/06/a.csv", "2025/b.csv", "2025/06/c.txt"):
        write(tmp_path, name, b"v\n1\n")
    assert labels(fetch(looking(tmp_path, pattern="*.csv"))) == ["top.csv"]
    assert labels(fetch(looking(tmp_path, pattern="2025/*.csv"))) == ["2025/b.csv"]
    assert labels(fetch(looking(tmp_path, pattern="**/*.csv"))) == ["2025/06/a.csv", "2025/b.csv", "top.csv"]
    assert labels(fetch(looking(tmp_path, pattern="2025/0?/?.???"))) == ["2025/06/a.csv", "2025/06/c.txt"]


def test_a_name_can_tell_columns(tmp_path: Path) -> None:
    write(tmp_path, "north_20250601.csv", b"v\n1\n2\n")
    write(tmp_path, "south_soon.csv", b"v\n1\n")
    source = looking(
        tmp_path,
        name_pattern=r"^(?P<plant>[a-z]+)_(?P<issue_time>\w+)\.csv$",
        layout={"times": {"issue_time": {"format": "date", "zone": "UTC", "date_means": "start"}}},
    )
    north, south = fetch(source).payloads
    midnight = datetime(2025, 6, 1, tzinfo=UTC)
    assert source.parse(north).to_dicts() == [
        {"v": 1, "plant": "north", "issue_time": midnight},
        {"v": 2, "plant": "north", "issue_time": midnight},
    ]
    with pytest.raises(PayloadError, match="south_soon.csv: issue_time in the name: 'soon' is not an ISO 8601 instant"):
        source.parse(south)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(looking(tmp_path / "gone"))
    assert str(caught.value) == (
        f"provider 'meter': {tmp_path / 'gone'}: there is no such folder\n\nhint: make it, or mend the path."
    )


def test_credentials_of_a_bucket_are_nowhere_to_be_read() -> None:
    declared = FilesSource(
        path="s3://bucket/feed",
        storage_options={"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "eu"},
        storage_options_env={"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": "SECRET"},
    )
    with pytest.raises(SourceError, match="environment variable ID is not set"):
        declared.open("meter", {})
    source = declared.open("meter", {"ID": "ann", "SECRET": "s3cr3t"})
    assert "s3cr3t" not in f"{declared!r} {source!r} {vars(source)}"


@pytest.mark.parametrize("seed", range(3))
def test_writers_at_work_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """A writer drops files while we look: in place and slowly, by renaming, and anew; what was read last is what is there."""
    rng = random.Random(seed)
    done = threading.Event()

    def work() -> None:
        for step in range(60):
            name = f"{rng.randrange(8)}.ndjson"
            rows = [b'{"step": %d, "row": %d}\n' % (step, row) for row in range(rng.randrange(1, 30))]
            if rng.random() < 0.5:
                draft = tmp_path / f"{name}.tmp"
                draft.write_bytes(b"".join(rows))
                draft.replace(tmp_path / name)
            else:
                with (tmp_path / name).open("wb") as file:
                    for row in rows:
                        file.write(row)
                        file.flush()
        done.set()

    source = FilesSource(path=str(tmp_path), settle="20ms", layout={"format": "ndjson"}).open("meter", {})
    seen: dict[str, str] = {}
    read: dict[str, pl.DataFrame] = {}
    writer = threading.Thread(target=work)
    writer.start()
    quiet = 0
    while quiet < 3:
        finished = done.is_set()
        fetched = source.fetch(Progress(seen=seen), now=datetime.now(UTC))
        for payload in fetched.payloads:
            frame = source.parse(payload)
            assert frame["step"].n_unique() == 1  # never two versions mixed
            read[payload.label] = frame
        seen |= seen_after(fetched)
        quiet = quiet + 1 if finished and not fetched.payloads else 0
        time.sleep(0.03)
    writer.join()
    for path in tmp_path.glob("*.ndjson"):
        assert read[path.name].equals(pl.read_ndjson(path))
