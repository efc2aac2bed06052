"""MQTT topics into the spool: a session that the server keeps, messages acknowledged when they are durable.

FastStream makes the connection. Its subscriber, though, sends UNSUBSCRIBE whenever it stops (`MQTTBaseSubscriber.stop`), and
then the server keeps nothing for us while we are away; and it hides the packet identifier and the flag of redelivery, by
which a message that was stored but not acknowledged is known. So messages are taken from zmqtt, the client below it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import zmqtt
from faststream.mqtt import MQTTBroker
from faststream.security import BaseSecurity, SASLPlaintext

from ingestion.sources.brokers import MqttSource
from ingestion.sources.intake import Intake, digest_of
from ingestion.sources.settings import from_environment, seconds_of
from ingestion.spool.frames import Record
from ingestion.spool.wal import Spool

_ANY_NUMBER = 0
_MORE_THAN_IN_FLIGHT = 70_000
"""More messages than can wait for acknowledgement: with fewer places zmqtt stops reading when a resumed session brings more of
them before the subscription is confirmed, and then never reads that it is."""
_KEEPALIVE = 30


class Delivery(NamedTuple):
    """How a message was delivered.

    Attributes:
        packet_id: The identifier that the server gave the delivery.
        again: Whether the server says that it had sent it before.
    """

    packet_id: int
    again: bool


class MqttConsumer:
    """Consumes one subscription.

    Args:
        source: Which.
        intake: Where messages go.
        spool: Where they are kept, for the keys of those that are known.
        environment: Where credentials are.
    """

    def __init__(self, source: MqttSource, intake: Intake, spool: Spool, environment: Mapping[str, str]) -> None:
        self._source = source
        self._intake = intake
        self._provider = intake.provider.name
        self._say = intake.say
        self._spool = spool
        self._environment = environment
        self._before = False

    async def session(self) -> None:
        """Connect, and consume until the connection is lost.

        Raises:
            MQTTError: If the server cannot be reached, or refuses, or the connection is lost.
            OSError: Likewise.
        """
        source = self._source
        broker = self._broker()
        try:
            client = await broker.connect()
            self._tell(client.connection_info)
            subscription = client.subscribe(
                source.topic,
                qos=zmqtt.QoS(source.qos),
                auto_ack=False,
                receive_buffer_size=_MORE_THAN_IN_FLIGHT,
                retain_handling=zmqtt.RetainHandling.SEND_IF_NOT_EXISTS
                if source.version == "5.0"
                else zmqtt.RetainHandling.SEND_ON_SUBSCRIBE,
            )
            await subscription.start()
            self._intake.connected = True
            try:
                await self._consume(client, subscription)
            finally:
                self._intake.connected = False
                await subscription.detach()  # the server goes on keeping messages for us
        finally:
            await broker.stop()

    def _tell(self, info: zmqtt.ConnectionInfo) -> None:
        self._say.info("connected", provider=self._provider, topic=self._source.topic, resumed=info.session_present)
        if self._before and not info.session_present:
            self._say.warning("the server has lost the session; what it kept for us is lost", provider=self._provider)
        self._before = True

    async def _consume(self, client: zmqtt.MQTTClient, subscription: zmqtt.Subscription) -> None:
        arrived: asyncio.Queue[zmqtt.Message] = asyncio.Queue(self._source.batch)

        async def pump() -> None:
            async for message in subscription:
                await arrived.put(message)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump())
            tasks.create_task(self._watch(client, arrived))
            while True:
                messages = [await arrived.get()]
                while not arrived.empty() and len(messages) < self._source.batch:
                    messages.append(arrived.get_nowait())
                await self._take(messages)

    async def _take(self, messages: list[zmqtt.Message]) -> None:
        """Keep what is new, then acknowledge all, in order."""
        records: dict[str, Record] = {}
        for number, message in enumerate(messages):
            delivery = delivery_of(message)
            key = None
            if delivery is not None:
                key = f"{delivery.packet_id}:{digest_of(message.topic.encode(), message.payload)}"
                if delivery.again and (key in records or self._spool.knows("mqtt", self._provider, key)):
                    continue
            media_type = (message.properties.content_type or "") if message.properties is not None else ""
            record = self._intake.record(message.payload, label=message.topic, media_type=media_type, key=key)
            records[key if key is not None and key not in records else f"#{number}"] = record
        await self._intake.keep(list(records.values()))
        for message in messages:
            await message.ack()

    async def _watch(self, client: zmqtt.MQTTClient, arrived: asyncio.Queue[zmqtt.Message]) -> None:
        every = seconds_of(self._source.idle_every)
        while True:
            await asyncio.sleep(min(every, 5.0))
            await client.ping()
            if arrived.empty():
                await self._intake.idle(every)

    def _broker(self) -> MQTTBroker:
        """A connection that resumes the session.

        No limit of unacknowledged messages is asked for: Mosquitto 2.0 exceeds it when it resumes a session, and zmqtt then
        closes the connection, again and again.
        """
        source = self._source
        newer = source.version == "5.0"
        return MQTTBroker(
            host=source.host,
            port=source.port,
            client_id=source.client_id or f"asknown-{self._provider}",
            clean_session=False,
            keepalive=_KEEPALIVE,
            version=source.version,
            reconnect=zmqtt.ReconnectConfig(enabled=False),
            session_expiry_interval=int(seconds_of(source.session_expiry)) if newer else 0,
            session_replay_buffer_size=_ANY_NUMBER,
            security=self._security(),
            apply_types=False,
            logger=None,
        )

    def _security(self) -> BaseSecurity | None:
        source = self._source
        if source.user_env is not None and source.password_env is not None:
            user, password = (
                from_environment(name, self._environment, provider=self._provider, place="mqtt")
                for name in (source.user_env, source.password_env)
            )
            return SASLPlaintext(username=user, password=password, use_ssl=source.tls)
        return BaseSecurity(use_ssl=True) if source.tls else None


def delivery_of(message: zmqtt.Message) -> Delivery | None:
    """How a message was delivered; `None` if zmqtt does not tell.

    zmqtt 0.2 keeps the packet in the function that acknowledges it. A test looks whether it still does; without it messages
    are stored at least once instead of once.
    """
    acknowledge = message._ack_callback  # noqa: SLF001 - the only place where the packet is
    names = getattr(getattr(acknowledge, "__code__", None), "co_freevars", ())
    cells = getattr(acknowledge, "__closure__", None) or ()
    for name, cell in zip(names, cells, strict=False):
        with contextlib.suppress(ValueError):
            packet = cell.cell_contents
            if name == "packet" and isinstance(getattr(packet, "packet_id", None), int):
                return Delivery(packet.packet_id, bool(packet.dup))
    return None
