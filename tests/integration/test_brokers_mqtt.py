"""MQTT, the real Mosquitto: a session that is kept, messages stored once each, whatever is killed or restarted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zmqtt
from brokers import Job, feed, message, until
from services import Server, mosquitto_server, running

from ingestion.providers import Provider
from ingestion.sources.mqtt import delivery_of

VERSIONS = pytest.mark.parametrize("version", ["5.0", "3.1.1"])


def provider(server: Server, **more: Any) -> Provider:
    return feed("weather", kind="mqtt", port=server.port, topic="weather/#", **more)


@contextlib.asynccontextmanager
async def sender(server: Server) -> AsyncIterator[Any]:
    async with zmqtt.create_client("127.0.0.1", server.port, client_id="sender", version="5.0") as client:
        yield client


async def send(client: Any, *numbers: int, **how: Any) -> None:
    for number in numbers:
        await client.publish("weather/mast", message(number), qos=zmqtt.QoS.AT_LEAST_ONCE, **how)


@VERSIONS
def test_messages_come_into_the_log_in_order(mosquitto: Server, tmp_path: Path, version: str) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, version=version), tmp_path)
        async with job.consume() as consuming, sender(mosquitto) as client:
            await until(lambda: consuming.intake.connected)
            await send(client, *range(50))
            await client.publish("weather/mast", message(50, 51, 52), qos=zmqtt.QoS.EXACTLY_ONCE)
            await until(lambda: consuming.intake.rows == 53)
            assert job.stored() == list(range(53))
            assert set(job.log.polls()["source"]) == {"mqtt"}

    asyncio.run(play())


@VERSIONS
def test_the_server_keeps_messages_while_the_job_is_away(mosquitto: Server, tmp_path: Path, version: str) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, version=version), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: consuming.intake.connected)
        async with sender(mosquitto) as client:
            await send(client, *range(30))
        again = Job(provider(mosquitto, version=version), tmp_path)
        async with again.consume() as consuming:
            await until(lambda: consuming.intake.rows == 30)
            assert again.stored() == list(range(30))
            assert again.said.events[0][1]["resumed"]

    asyncio.run(play())


@VERSIONS
def test_a_message_that_was_stored_and_not_acknowledged_comes_again_and_is_known(
    mosquitto: Server, tmp_path: Path, version: str
) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, version=version), tmp_path)
        async with sender(mosquitto) as client:
            async with job.consume() as consuming:
                await until(lambda: consuming.intake.connected)
                await send(client, 0)
                await until(lambda: consuming.intake.rows == 1)
                acknowledge = zmqtt.Message.ack
                with pytest.MonkeyPatch.context() as patch:  # the process ends between storing and acknowledging
                    patch.setattr(zmqtt.Message, "ack", _nothing)
                    await send(client, 1, 2)
                    await until(lambda: consuming.intake.rows == 3)
                assert zmqtt.Message.ack is acknowledge
            again = Job(provider(mosquitto, version=version), tmp_path)
            async with again.consume() as consuming:
                await until(lambda: consuming.intake.connected)
                await send(client, 3)
                await until(lambda: consuming.intake.rows >= 1)
                await asyncio.sleep(0.3)
                assert again.stored() == [0, 1, 2, 3]
                again.flush()
            third = Job(provider(mosquitto, version=version), tmp_path)
            async with third.consume() as consuming:  # and now they are acknowledged
                await send(client, 4)
                await until(lambda: consuming.intake.rows == 1)
                assert third.stored() == [0, 1, 2, 3, 4]

    asyncio.run(play())


async def _nothing(_message: Any) -> None:
    """Acknowledge nothing."""


@VERSIONS
def test_the_same_content_twice_is_two_messages(mosquitto: Server, tmp_path: Path, version: str) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, version=version), tmp_path)
        async with job.consume() as consuming, sender(mosquitto) as client:
            await until(lambda: consuming.intake.connected)
            for _ in range(3):
                await send(client, 7)
            await until(lambda: consuming.intake.rows == 3)
            assert job.stored() == [7, 7, 7]

    asyncio.run(play())


@VERSIONS
def test_the_server_restarts(mosquitto: Server, tmp_path: Path, version: str) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, version=version), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: consuming.intake.connected)
            async with sender(mosquitto) as client:
                await send(client, *range(10))
            await until(lambda: consuming.intake.rows == 10)
            await asyncio.to_thread(mosquitto.restart)
            async with sender(mosquitto) as client:
                await send(client, *range(10, 20))  # before or after we are back: the session was kept on disk
                await until(lambda: consuming.intake.rows >= 20)
            await asyncio.sleep(0.3)
            assert job.stored() == list(range(20))
            assert "not consuming" in job.said.names()

    asyncio.run(play())


def test_thousands_of_messages_may_come_before_the_subscription_is_confirmed(tmp_path: Path) -> None:
    async def play(server: Server) -> None:
        job = Job(provider(server, batch=100), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: consuming.intake.connected)
        async with sender(server) as client:
            for start in range(0, 3000, 100):
                await asyncio.gather(*(send(client, number) for number in range(start, start + 100)))
        again = Job(provider(server, batch=100), tmp_path)
        async with again.consume() as consuming:
            await until(lambda: consuming.intake.rows == 3000)
            assert again.stored() == list(range(3000))

    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with running(mosquitto_server(folder, "max_inflight_messages 0")) as server:  # all at once, without waiting for us
        asyncio.run(play(server))


def test_a_server_that_lost_the_session_is_said(tmp_path: Path) -> None:
    async def play(server: Server) -> None:
        job = Job(provider(server), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: consuming.intake.connected)
            await asyncio.to_thread(server.stop)
            for path in server.folder.glob("*.db*"):
                path.unlink()
            await asyncio.to_thread(server.start)
            await until(lambda: any("has lost the session" in name for name in job.said.names()))
            async with sender(server) as client:
                await until(lambda: consuming.intake.connected)
                await send(client, 0)
                await until(lambda: consuming.intake.rows == 1)

    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with running(mosquitto_server(folder)) as server:
        asyncio.run(play(server))


def test_the_server_comes_up_after_the_job(mosquitto: Server, tmp_path: Path) -> None:
    async def play() -> None:
        mosquitto.stop()
        job = Job(provider(mosquitto), tmp_path)
        async with job.consume() as consuming:
            await until(lambda: "not consuming" in job.said.names())
            await asyncio.to_thread(mosquitto.start)
            await until(lambda: consuming.intake.connected)

    asyncio.run(play())


def test_messages_that_cannot_be_read_are_set_aside_and_do_not_block(mosquitto: Server, tmp_path: Path) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto), tmp_path)
        async with job.consume() as consuming, sender(mosquitto) as client:
            await until(lambda: consuming.intake.connected)
            await send(client, 0)
            for payload in (b"\xff\xfe nonsense", b"", b"[1]"):
                await client.publish("weather/mast", payload, qos=zmqtt.QoS.AT_LEAST_ONCE)
            await send(client, 1)
            await until(lambda: consuming.intake.messages == 5)
            assert job.stored() == [0, 1]
            assert job.log.quarantine().height == 3

    asyncio.run(play())


def test_retained_messages_are_taken_once(mosquitto: Server, tmp_path: Path) -> None:
    async def play() -> None:
        async with sender(mosquitto) as client:
            await send(client, 0, retain=True)
            for _ in range(2):
                job = Job(provider(mosquitto), tmp_path)
                async with job.consume() as consuming:
                    await until(lambda consuming=consuming: consuming.intake.connected)
                    await asyncio.sleep(0.5)
                    assert job.stored() == [0]

    asyncio.run(play())


def test_a_connection_that_brings_nothing_is_said_to_live(mosquitto: Server, tmp_path: Path) -> None:
    async def play() -> None:
        job = Job(provider(mosquitto, idle_every="1s"), tmp_path)
        async with job.consume():
            await until(lambda: bool(job.flush() or job.log.polls().height))  # a record counts before it can be flushed
            assert job.log.polls()["outcome"][0] == "idle"

    asyncio.run(play())


def test_the_client_below_still_tells_how_a_message_was_delivered(mosquitto: Server) -> None:
    async def play() -> None:
        async with (
            sender(mosquitto) as client,
            client.subscribe("t", qos=zmqtt.QoS.AT_LEAST_ONCE, auto_ack=False) as got,
        ):
            await client.publish("t", b"1", qos=zmqtt.QoS.AT_LEAST_ONCE)
            found = delivery_of(await got.get_message())
            assert found is not None
            assert found.packet_id > 0
            assert not found.again

    asyncio.run(play())


def test_credentials_come_from_the_environment_and_are_not_told(tmp_path: Path) -> None:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    (folder / "passwords").write_text("")
    server = mosquitto_server(folder, "password_file passwords")
    server._command = _closed(server._command)
    with running(server):

        async def play() -> None:
            job = Job(provider(server, user_env="U", password_env="P"), tmp_path)
            job.consuming._consumer._environment = {"U": "me", "P": "s3cret"}  # type: ignore[attr-defined]
            async with job.consume():
                await until(lambda: "not consuming" in job.said.names())
                assert "s3cret" not in str(job.said.events)

        asyncio.run(play())


def _closed(command: Any) -> Any:
    def written(port: int) -> list[str]:
        line: list[str] = command(port)
        path = Path(line[-1])
        path.write_text(path.read_text().replace("allow_anonymous true", "allow_anonymous false"))
        return line

    return written
