"""What Mosquitto kept for a job that was away, one row a message, from the first message to the last row in the log."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import zmqtt

from benchmarks.bench import OURS, Bench
from benchmarks.receiving import consume_report, messages
from benchmarks.report import Report
from tests.services import mosquitto_server, running

TITLE = "MQTT, one row a message, QoS 1: messages per second into the log"
SESSION = "asknown-bench"


def run(bench: Bench) -> Report:
    if OURS in bench.without:
        return Report("mqtt_consume", [], [])
    count = 10_000 if bench.quick else 100_000
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(mosquitto_server(Path(scratch), "autosave_interval 0")) as server,
    ):
        asyncio.run(_fill(server.port, count))
        return consume_report(
            "mqtt_consume", f'{{kind: mqtt, port: {server.port}, topic: "rows/#", client_id: {SESSION}}}', count
        )


async def _fill(port: int, count: int) -> None:
    """Begin the session that the job will resume, and let the server keep messages for it."""
    session = zmqtt.create_client(
        "127.0.0.1", port, client_id=SESSION, clean_session=False, version="5.0", session_expiry_interval=3_600
    )
    async with session as client:
        subscription = client.subscribe("rows/#", qos=zmqtt.QoS.AT_LEAST_ONCE, auto_ack=False)
        await subscription.start()
        await subscription.detach()
    async with zmqtt.create_client("127.0.0.1", port, client_id="sender", version="5.0") as client:
        waiting: set[asyncio.Task[None]] = set()
        for content in messages(count):
            waiting.add(asyncio.create_task(client.publish("rows/a", content, qos=zmqtt.QoS.AT_LEAST_ONCE)))
            if len(waiting) >= 200:
                _done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(waiting)
