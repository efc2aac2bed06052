"""From where a JetStream stream is consumed, by what the server says of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ingestion.instants import to_us
from ingestion.providers import Provider
from ingestion.sources.brokers import NatsSource
from ingestion.sources.nats_jetstream import NatsConsumer

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
EPOCH = to_us(NOON)


class Said:
    def info(self, *_: object, **__: object) -> None:
        return

    def warning(self, *_: object, **__: object) -> None:
        return


def place(start: tuple[int, int], *, created: datetime, last: int, clock: datetime) -> tuple[int, int]:
    """The place of a consumer once it has seen its stream."""
    source = NatsSource(servers=("nats://127.0.0.1",), stream="METERS", subject="meters.>")
    intake: Any = SimpleNamespace(provider=Provider(name="meters", entities=("meter",)), say=Said())
    spool: Any = SimpleNamespace(last_place=lambda _: None)
    consumer = NatsConsumer(source, intake, spool, start, {}, lambda: clock)

    async def stream_info(_: str) -> Any:
        return SimpleNamespace(created=created, state=SimpleNamespace(first_seq=1, last_seq=last))

    asyncio.run(consumer._stream(SimpleNamespace(stream_info=stream_info)))  # type: ignore[arg-type]
    return consumer._place


@pytest.mark.parametrize(
    ("clock", "epoch"), [(NOON + timedelta(hours=1), EPOCH + 3_600_000_000), (NOON - timedelta(hours=1), EPOCH + 1)]
)
def test_a_stream_that_ends_early_gets_a_greater_epoch_whatever_the_clock_says(clock: datetime, epoch: int) -> None:
    created = NOON - timedelta(days=1)
    assert place((EPOCH, 100), created=created, last=40, clock=clock) == (epoch, 40)


def test_a_stream_that_was_made_anew_is_taken_from_its_beginning() -> None:
    made = NOON + timedelta(seconds=1)
    assert place((EPOCH, 100), created=made, last=40, clock=NOON) == (EPOCH + 1_000_000, 0)


def test_a_stream_that_goes_on_is_taken_on_from_its_place() -> None:
    assert place((EPOCH, 100), created=NOON - timedelta(days=1), last=140, clock=NOON) == (EPOCH, 100)
