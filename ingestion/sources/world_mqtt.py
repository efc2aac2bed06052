"""The sky camera of a served world, publishing its photographs to an MQTT server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self

import polars as pl

from ingestion.errors import MissingLibraryError
from ingestion.sources.world_feeds import TOPIC, WorldServer, image

if TYPE_CHECKING:
    from faststream.mqtt import MQTTBroker

_TICK: Final = 0.1
_AGAIN: Final = 1.0
_TIMEOUT: Final = 5.0


class CameraPublisher:
    """Publishes what the sky camera sees, from `with` on until it ends: one message per photograph, at least once each.

    During an outage of the camera, and while the server cannot be reached, nothing is lost: it is published afterwards.

    Args:
        server: The world that is served.
        address: `HOST:PORT` of the MQTT server.

    Attributes:
        published: How many messages the server has confirmed.
        connected: Whether the last attempt to publish reached the server.
    """

    def __init__(self, server: WorldServer, address: str) -> None:
        host, _, port = address.partition(":")
        self._world = server
        self._host, self._port = host, int(port or 1883)
        self._after: datetime = server.started
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sky_camera", daemon=True)
        self.published = 0
        self.connected = False

    def __enter__(self) -> Self:
        try:
            import faststream.mqtt  # noqa: F401 - say at once what is missing
        except ImportError as error:  # pragma: no cover - it is in the extra
            raise MissingLibraryError("faststream", "brokers", "publishing to MQTT") from error
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._session_after_session())

    async def _session_after_session(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Exception):  # whatever it was: the next session tries again
                await self._session()
            self.connected = False
            await self._sleep(_AGAIN)

    async def _session(self) -> None:
        import zmqtt
        from faststream.mqtt import MQTTBroker

        broker = MQTTBroker(
            host=self._host,
            port=self._port,
            client_id="asknown-world-sky-camera",
            reconnect=zmqtt.ReconnectConfig(enabled=False),
            mqtt_connect_timeout=_TIMEOUT,
            apply_types=False,
            logger=None,
        )
        try:
            await broker.connect()
            self.connected = True
            while not self._stop.is_set():
                if not self._world.is_down("sky_camera"):
                    await self._publish(broker)
                await self._sleep(_TICK)
        finally:
            await broker.stop()

    async def _publish(self, broker: MQTTBroker) -> None:
        """Publish what is new, oldest first; what is confirmed is not published again."""
        import zmqtt

        rows = self._world.world.published("sky_camera", self._world.now())
        for row in rows.filter(pl.col("published_time") > self._after).iter_rows(named=True):
            message = json.dumps(image(row)).encode()
            sent = broker.publish(message, f"{TOPIC}/{row['site']}", qos=zmqtt.QoS.AT_LEAST_ONCE)
            await asyncio.wait_for(sent, _TIMEOUT)
            self.published += 1
        if rows.height:
            self._after = max(self._after, rows["published_time"][-1])

    async def _sleep(self, seconds: float) -> None:
        await asyncio.to_thread(self._stop.wait, seconds)
