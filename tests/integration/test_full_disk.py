"""A disk that runs full: polls fail and are told, nothing is half stored, and everything comes once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import ingestion
from ingestion.jobs import poll_once, polling
from ingestion.providers import Provider, PythonSource
from ingestion.sources.base import Fetched, Payload, Progress

EVENT = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Growing:
    """A source whose every answer has all rows so far, and a little more."""

    kind = "python"

    def __init__(self) -> None:
        self.count = 0

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:  # noqa: ARG002 - it answers the same to everyone
        self.count += 200
        return Fetched(payloads=(Payload(content=b"%d" % self.count, label="here", received_time=now),))

    def parse(self, payload: Payload) -> pl.DataFrame:
        count = int(payload.content)
        return pl.DataFrame(
            {
                "meter": ["a"] * count,
                "event_time": [EVENT + timedelta(seconds=n) for n in range(count)],
                "note": [os.urandom(16).hex() if n >= count - 200 else f"{n:032d}" for n in range(count)],
            }
        )

    def close(self) -> None:
        return


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"only root can make a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast


def test_a_full_disk_fails_polls_and_loses_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_STORE_WAITS", (0.0, 0.0))
    provider = Provider(
        name="meters", entities=("meter",), source=PythonSource(fetch="tests:f", parse="tests:p"), drop_unchanged=True
    )
    log, source = provider.open(small_disk / "logs"), Growing()
    assert poll_once(provider, log, source).outcome == "rows"
    position = log.position()
    ballast = fill(small_disk)
    for _ in range(3):
        report = poll_once(provider, log, source)
        assert report.outcome == "failed"
        assert "meters" in str(report.error) or "No space" in str(report.error)
    again = ingestion.open_log(small_disk / "logs", "meters")
    assert again.position() == position
    assert again.scan().collect().height == 200
    ballast.unlink()
    assert poll_once(provider, log, source).outcome == "rows"
    rows = log.scan().collect()
    assert rows["event_time"].n_unique() == source.count
    assert log.position() + 1 == rows.height + log.polls().height + log.restamps().height
