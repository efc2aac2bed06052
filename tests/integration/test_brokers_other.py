"""Brokers by configuration: FastStream's class and options, a message acknowledged when it is durable."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import nats as nats_client
import pytest
from brokers import Job, feed, message, until
from services import Server

from ingestion.errors import ProviderError
from ingestion.providers import Provider
from ingestion.sources.any_broker import _key


def provider(server: Server, **more: object) -> Provider:
    source = {
        "kind": "broker",
        "broker": "faststream.nats:NatsBroker",
        "options_env": {"servers": "NATS"},
        "channels": ("weather.>",),
        "subscriber": {"stream": "WEATHER", "durable": "asknown", "pull_sub": True},
    }
    return feed("weather", **{**source, **more})


def job(server: Server, folder: Path, **more: object) -> Job:
    made = Job(provider(server, **more), folder)
    made.consuming._consumer._environment = {"NATS": f"nats://127.0.0.1:{server.port}"}  # type: ignore[attr-defined]
    return made


def test_a_broker_by_configuration(nats: Server, tmp_path: Path) -> None:
    async def play() -> None:
        client = await nats_client.connect(f"nats://127.0.0.1:{nats.port}")
        jetstream = client.jetstream()
        await jetstream.add_stream(name="WEATHER", subjects=["weather.>"])
        for n in range(3):
            await jetstream.publish("weather.mast", message(n))
        await jetstream.publish("weather.mast", b"nonsense")
        one = job(nats, tmp_path)
        async with one.consume() as consuming:
            await until(lambda: consuming.intake.messages == 4)
            assert sorted(one.stored()) == [0, 1, 2]
            assert one.log.quarantine().height == 1
            await until_acknowledged(jetstream)
        await jetstream.publish("weather.mast", message(3))
        two = job(nats, tmp_path)
        async with two.consume() as consuming:
            await until(lambda: consuming.intake.messages == 1)
            assert sorted(two.stored()) == [0, 1, 2, 3]
        await client.close()

    asyncio.run(play())


async def until_acknowledged(jetstream: object) -> None:
    for _ in range(100):
        info = await jetstream.consumer_info("WEATHER", "asknown")  # type: ignore[attr-defined]
        if not info.num_ack_pending:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not acknowledged")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            {"broker": "faststream.nats:NoBroker"},
            "cannot be made: module 'faststream.nats' has no attribute 'NoBroker'",
        ),
        ({"broker": "faststream.rabbit:RabbitBroker"}, "faststream.rabbit"),
        ({"options": {"nonsense": 1}}, "unexpected keyword argument 'nonsense'"),
        ({"subscriber": {"nonsense": 1}}, "its subscriber takes no such option"),
    ],
)
def test_what_cannot_be_made_is_said(nats: Server, tmp_path: Path, source: dict[str, object], said: str) -> None:
    async def play() -> None:
        one = job(nats, tmp_path, **source)
        async with one.consume():
            await until(lambda: "not consuming" in one.said.names())
            assert said in one.said.events[0][1]["problem"]

    asyncio.run(play())


def test_a_message_of_kafka_is_known_by_its_place() -> None:
    assert _key(SimpleNamespace(topic="t", partition=3, offset=17)) == "t/3/17"
    confluent = SimpleNamespace(topic=lambda: "t", partition=lambda: 3, offset=lambda: 17)
    assert _key(confluent) == "t/3/17"
    assert _key(SimpleNamespace(delivery_tag=1)) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "nats", "stream": "S", "servers": ["nats://me:secret@host"]}, "an address must not hold credentials"),
        ({"kind": "mqtt", "topic": "t", "host": "me:secret@host"}, "an address must not hold credentials"),
        ({"kind": "nats"}, "stream"),
        ({"kind": "mqtt", "topic": "t", "qos": 0}, "qos"),
        ({"kind": "broker", "broker": "kafka", "channels": ["t"]}, "broker"),
    ],
)
def test_declarations_that_mean_nothing(source: dict[str, object], said: str) -> None:
    with pytest.raises(ProviderError, match=said) as caught:
        Provider(name="p", entities=(), source=source)
    assert "secret" not in str(caught.value)
