"""What tests of brokers share: a job's half of it (consumer, spool, flusher, log), and senders that count."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingestion.providers import Provider
from ingestion.sources.consuming import Consuming
from ingestion.spool import Flusher, LogSink, Spool

START = datetime(2026, 1, 5, tzinfo=UTC)


def feed(name: str, **source: Any) -> Provider:
    return Provider(
        name=name,
        entities=("station",),
        contract={"columns": {"station": "String", "n": "Int64"}},
        source=source,
        drop_unchanged=False,
    )


def row(number: int, station: str = "mast") -> dict[str, Any]:
    """A row that is no other's: its event says its number."""
    return {"station": station, "event_time": (START + timedelta(seconds=number)).isoformat(), "n": number}


def message(*numbers: int) -> bytes:
    rows = [row(number) for number in numbers]
    return json.dumps(rows[0] if len(rows) == 1 else rows).encode()


class Said:
    """What a consumer told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = info

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


class Job:
    """A consumer, its spool and its log."""

    def __init__(self, provider: Provider, folder: Path, *, spool: str = "spool") -> None:
        self.provider = provider
        self.folder = folder
        self.said = Said()
        self.spool = Spool(folder / spool)
        self.log = provider.open(folder / "logs")
        self.flusher = Flusher(self.spool, lambda _name: LogSink(provider, provider.open(folder / "logs")))
        self.consuming = Consuming(provider, self.spool, self.log.progress(), environment={}, say=self.said)

    def flush(self) -> None:
        for part in self.flusher.flush():
            assert part.error is None, part.error

    def stored(self) -> list[int]:
        """The numbers of all rows in the log, in its order."""
        self.flush()
        return list(self.log.scan().collect().sort("log_sequence")["n"])

    @contextlib.asynccontextmanager
    async def consume(self) -> AsyncIterator[Consuming]:
        task = asyncio.create_task(self.consuming.run())
        try:
            yield self.consuming
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.spool.close()


async def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is so.

    Raises:
        AssertionError: If it does not get so.
    """
    end = asyncio.get_running_loop().time() + seconds
    while not what():
        assert asyncio.get_running_loop().time() < end, "it did not come to that"
        await asyncio.sleep(0.02)
