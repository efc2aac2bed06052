"""NATS JetStream, the real server: each message once and in order, whatever is killed, restarted, deleted or made anew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
from brokers import Job, feed, message, until
from nats.js.api import RetentionPolicy, StorageType
from services import Server

from ingestion.sources.layout import Layout


def provider(server: Server, **more: Any) -> Any:
    return feed("weather", kind="nats", servers=(f"nats://127.0.0.1:{server.port}",), stream="WEATHER", **more)


@contextlib.asynccontextmanager
async def sender(server: Server, **stream: Any) -> AsyncIterator[Any]:
    client = await nats_client.connect(f"nats://127.0.0.1:{server.port}", max_reconnect_attempts=-1)
    jetstream = client.jetstream()
    if stream is not None:
        with contextlib.suppress(nats_client.js.errors.BadRequestError):
            await jetstream.add_stream(name="WEATHER", subjects=["weather.>"], storage=StorageType.FILE, **stream)
    try:
        yield jetstream
    finally:
        await client.close()


async def send(jetstream: Any, *numbers: int) -> None:
    for number in numbers:
        await jetstream.publish("weather.mast", message(number))


def test_messages_come_into_the_log_in_order(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, *range(10))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 10)
                await jetstream.publish("weather.mast", message(10, 11, 12))  # several rows in a message
                await until(lambda: consuming.intake.rows == 13)
                assert job.stored() == list(range(13))
                assert job.log.progress().cursor is not None
                assert job.log.progress().cursor["offset"] == 11  # type: ignore[index]
                polls = job.log.polls()
                assert set(polls["source"]) == {"nats"}
                assert polls["version"][0] == "1-11"
                left = await jetstream.consumers_info("WEATHER")
                assert [info.num_ack_pending for info in left] == [0]

    asyncio.run(play())


def test_a_new_job_goes_on_after_the_log(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, *range(5))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 5)
                assert job.stored() == list(range(5))
            await send(jetstream, *range(5, 8))
            again = Job(provider(nats), tmp_path, spool="elsewhere")  # nothing but the log tells where to go on
            async with again.consume() as consuming:
                await until(lambda: consuming.intake.rows == 3)
                await asyncio.sleep(0.5)
                assert again.stored() == list(range(8))
                assert consuming.intake.messages == 3

    asyncio.run(play())


def test_a_new_job_goes_on_after_its_spool(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, *range(5))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 5)  # durable, and not in the log
            again = Job(provider(nats), tmp_path)
            async with again.consume() as consuming:
                await send(jetstream, 5)
                await until(lambda: consuming.intake.rows == 1)
                assert again.stored() == list(range(6))

    asyncio.run(play())


def test_two_jobs_on_one_stream_store_each_message_once(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            one, two = (Job(provider(nats), tmp_path, spool=name) for name in ("one", "two"))
            async with one.consume(), two.consume():
                for start in range(0, 40, 8):
                    await send(jetstream, *range(start, start + 8))
                    await asyncio.sleep(0.3)
                    (one if start % 16 else two).flush()
                await until(lambda: one.consuming.intake.rows == two.consuming.intake.rows == 40)
                one.flush()
                two.flush()
                assert one.stored() == list(range(40))

    asyncio.run(play())


@pytest.mark.parametrize("killed", [False, True])
def test_the_server_restarts(nats: Server, tmp_path: Path, killed: bool) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await send(jetstream, *range(5))
                await until(lambda: consuming.intake.rows == 5)
                await asyncio.to_thread(nats.restart, killed=killed)
                await until(lambda: jetstream._nc.is_connected)
                await send(jetstream, *range(5, 10))
                await until(lambda: consuming.intake.rows >= 10)
                await asyncio.sleep(0.5)
                assert job.stored() == list(range(10))
                assert "not consuming" in job.said.names()

    asyncio.run(play())


def test_the_server_comes_up_after_the_job(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        nats.stop()
        job = Job(provider(nats), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: "not reached" in job.said.names() or "not consuming" in job.said.names())
            assert not consuming.intake.connected
            await asyncio.to_thread(nats.start)
            async with sender(nats) as jetstream:
                await send(jetstream, 0, 1)
                await until(lambda: consuming.intake.rows == 2)
                assert job.stored() == [0, 1]

    asyncio.run(play())


def test_a_stream_that_is_not_there_is_said(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        job = Job(provider(nats), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: "not consuming" in job.said.names())
            assert "there is no such stream" in job.said.events[0][1]["problem"]
            async with sender(nats) as jetstream:
                await send(jetstream, 0)
                await until(lambda: consuming.intake.rows == 1)

    asyncio.run(play())


def test_a_stream_made_anew_is_said_and_taken_from_its_beginning(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, *range(6))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 6)
                job.flush()
                await jetstream.delete_stream("WEATHER")
                await jetstream.add_stream(name="WEATHER", subjects=["weather.>"])
                await send(jetstream, 6, 7)  # numbers 1 and 2 again
                await until(lambda: consuming.intake.rows == 8)
                assert job.stored() == list(range(8))
                assert "the stream was made anew; all of it is taken" in job.said.names()
            again = Job(provider(nats), tmp_path, spool="elsewhere")
            async with again.consume() as consuming:
                await send(jetstream, 8)
                await until(lambda: consuming.intake.rows == 1)
                assert again.stored() == list(range(9))

    asyncio.run(play())


def test_a_stream_that_lost_its_end_is_said_and_goes_on(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, *range(3))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 3)
                assert job.stored() == [0, 1, 2]
            nats.stop()
            epoch = job.log.progress().cursor["epoch"]  # type: ignore[index]
            ahead = Job(provider(nats), tmp_path, spool="ahead")
            ahead.consuming._consumer._place = (epoch, 50)  # what is known ends later than the stream
            await asyncio.to_thread(nats.start)
            async with ahead.consume() as consuming, sender(nats) as again:
                await until(lambda: consuming.intake.connected)
                await send(again, 3, 4)
                await until(lambda: consuming.intake.rows == 2)
                assert ahead.stored() == list(range(5))
                assert any("ends before what is known" in name for name in ahead.said.names())

    asyncio.run(play())


def test_messages_that_cannot_be_read_are_set_aside_and_do_not_block(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            await send(jetstream, 0)
            await jetstream.publish("weather.mast", b"\xff\xfe nonsense")
            await jetstream.publish("weather.mast", b"[1, 2]")
            await jetstream.publish("weather.mast", b"")
            await send(jetstream, 1)
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.messages == 5)
                assert job.stored() == [0, 1]
                found = job.log.quarantine()
                assert found.height == 3
                assert all(reason.startswith("cannot be parsed") for reason in found["reason"])
                assert "[1, 2]" in found["payload"].to_list()
                assert [info.num_ack_pending for info in await jetstream.consumers_info("WEATHER")] == [0]

    asyncio.run(play())


def test_a_layout_and_a_subject(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            layout = Layout(columns={"station": "id", "event_time": "t", "n": "v.n"})
            job = Job(provider(nats, layout=layout, subject="weather.hut"), tmp_path)
            await send(jetstream, 1)  # another subject
            await jetstream.publish("weather.hut", b'{"id": "hut", "t": "2026-01-05T00:00:00Z", "v": {"n": 7}}')
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 1)
                assert job.stored() == [7]

    asyncio.run(play())


def test_a_work_queue_is_emptied(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats, retention=RetentionPolicy.WORK_QUEUE) as jetstream:
            await send(jetstream, *range(5))
            job = Job(provider(nats), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.rows == 5)
                assert job.stored() == list(range(5))
            await send(jetstream, 5)
            again = Job(provider(nats), tmp_path)  # the consumer of an earlier job does not stand in the way
            async with again.consume() as consuming:
                await until(lambda: consuming.intake.rows == 1)
                assert again.stored() == list(range(6))
            assert (await jetstream.stream_info("WEATHER")).state.messages == 0

    asyncio.run(play())


def test_a_stream_that_brings_nothing_is_said_to_live(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats):
            job = Job(provider(nats, idle_every="1s"), tmp_path)
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.connected)
                await until(lambda: job.spool.usage().records > 0)
                job.flush()
                assert job.log.polls()["outcome"][0] == "idle"
                assert job.log.observed_through() is not None
                assert consuming.intake.messages == 0

    asyncio.run(play())


def test_a_spool_that_is_full_makes_the_broker_wait(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(nats) as jetstream:
            job = Job(provider(nats, batch=10), tmp_path)
            object.__setattr__(job.spool.limits, "records", 20)
            await send(jetstream, *range(50))
            async with job.consume() as consuming:
                await until(lambda: "must wait" in job.said.names())
                assert consuming.intake.messages == 20
                for _ in range(6):
                    job.flush()
                    await asyncio.sleep(0.7)
                assert job.stored() == list(range(50))

    asyncio.run(play())
