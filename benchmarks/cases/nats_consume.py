"""A NATS JetStream stream with one row a message, consumed by a job from the first message to the last row in the log."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import nats

from benchmarks.bench import OURS, Bench
from benchmarks.receiving import consume_report, messages
from benchmarks.report import Report
from tests.services import nats_server, running

TITLE = "NATS JetStream, one row a message: messages per second into the log"


def run(bench: Bench) -> Report:
    if OURS in bench.without:
        return Report("nats_consume", [], [])
    count = 20_000 if bench.quick else 200_000
    with tempfile.TemporaryDirectory() as scratch, running(nats_server(Path(scratch))) as server:
        asyncio.run(_fill(server.port, count))
        source = f'{{kind: nats, servers: ["nats://127.0.0.1:{server.port}"], stream: ROWS, subject: "rows.>"}}'
        return consume_report("nats_consume", source, count)


async def _fill(port: int, count: int) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream(publish_async_max_pending=1_000)
    await stream.add_stream(name="ROWS", subjects=["rows.>"], storage="file")
    for content in messages(count):
        await stream.publish_async("rows.a", content)
    await stream.publish_async_completed()
    await client.close()
