"""A job that receives pushes and consumes brokers, killed at random points, brokers restarted: each row once, in order.

Senders count what they sent; a push that got no answer is sent again under its key, as a real sender would.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import threading
import time
from pathlib import Path

import nats as nats_client
import polars as pl
import pytest
import zmqtt
from brokers import message, row
from jobs_process import Running, running
from services import Server, free_port

import ingestion

FULL_COUNT = 100
PROVIDERS = ("pushed", "single", "streamed", "topics")


def declare(folder: Path, nats: Server, mosquitto: Server) -> None:
    sources = {
        "pushed": "{kind: push}",
        "single": "{kind: push}",
        "streamed": f'{{kind: nats, servers: ["nats://127.0.0.1:{nats.port}"], stream: ROWS, subject: "rows.>"}}',
        "topics": f'{{kind: mqtt, port: {mosquitto.port}, topic: "rows/#"}}',
    }
    blocks = [
        f"  {name}: {{entities: [station], contract: {{columns: {{station: String, n: Int64}}}},"
        f" source: {source}, drop_unchanged: false}}"
        for name, source in sources.items()
    ]
    (folder / "asknown.yaml").write_text("root: logs\nproviders:\n" + "\n".join(blocks) + "\n")


class Sender(threading.Thread):
    """Sends until told to stop; `sent` is how many rows are known to be with the job or the broker."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.enough = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.send()
        except BaseException as error:
            self.failure = error
            raise

    def send(self) -> None:
        raise NotImplementedError

    def end(self) -> int:
        self.enough.set()
        self.join(60)
        assert not self.is_alive()
        assert self.failure is None, self.failure
        return self.sent


class Pusher(Sender):
    """Posts `size` rows at a time; without an answer the same again, under the same key."""

    def __init__(self, port: int, provider: str, size: int) -> None:
        super().__init__()
        self.port, self.provider, self.size = port, provider, size

    def send(self) -> None:
        while not self.enough.is_set():
            rows = [row(self.sent + n) for n in range(self.size)]
            body, key = json.dumps(rows), f"{self.provider}-{self.sent}"
            while not self.posted(body, key):
                time.sleep(0.05)
            self.sent += self.size
            time.sleep(0.005)

    def posted(self, body: str, key: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            connection.request("POST", f"/observations/{self.provider}", body, headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        assert answer.status in (202, 429, 503), told
        return answer.status == 202 and told["accepted"] == self.size


class NatsSender(Sender):
    """Publishes to a stream; the message id makes the server drop what is sent again for want of an answer."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def send(self) -> None:
        asyncio.run(self.publish())

    async def publish(self) -> None:
        client = await nats_client.connect(f"nats://127.0.0.1:{self.port}", max_reconnect_attempts=-1)
        stream = client.jetstream()
        await stream.add_stream(name="ROWS", subjects=["rows.>"], storage="file")
        unsure = False  # without an answer the message may be there all the same: it is sent again before the end
        while unsure or not self.enough.is_set():
            try:
                headers = {"Nats-Msg-Id": str(self.sent)}
                await stream.publish("rows.mast", message(self.sent), headers=headers, timeout=2)
            except (nats_client.errors.Error, TimeoutError):
                unsure = True
                await asyncio.sleep(0.05)
                continue
            unsure = False
            self.sent += 1
            await asyncio.sleep(0.003)
        await client.close()


class MqttSender(Sender):
    """Publishes with QoS 2, so that nothing is sent twice; only the job is killed under it."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def send(self) -> None:
        asyncio.run(self.publish())

    async def publish(self) -> None:
        async with zmqtt.create_client("127.0.0.1", self.port, client_id="sender", version="5.0") as client:
            while not self.enough.is_set():
                await client.publish("rows/mast", message(self.sent), qos=zmqtt.QoS.EXACTLY_ONCE)
                self.sent += 1
                await asyncio.sleep(0.003)


def stored(folder: Path, provider: str) -> pl.DataFrame:
    try:
        log = ingestion.open_log(folder / "logs", provider)
    except ingestion.LogNotFoundError:
        return pl.DataFrame(schema={"n": pl.Int64})
    return log.scan().collect().sort("log_sequence")


def check(folder: Path, provider: str, sent: int) -> None:
    frame = stored(folder, provider)
    assert frame["n"].to_list() == list(range(sent)), f"{provider}: rows are lost, doubled or out of order"
    assert frame["arrival_time"].is_sorted()
    log = ingestion.open_log(folder / "logs", provider)
    assert log.quarantine().is_empty()


def play(folder: Path, nats: Server, mosquitto: Server, kills: int, *, seed: int) -> None:
    draw = random.Random(seed)
    declare(folder, nats, mosquitto)
    port = free_port()

    def start() -> contextlib.AbstractContextManager[Running]:
        return running(folder, "--port", str(port))

    with start() as job:  # the session at the MQTT server begins before anything is sent
        job.until(lambda: 'broker_connected{provider="topics"} 1.0' in job.get("/metrics")[1])
    senders = {
        "pushed": Pusher(port, "pushed", 50),
        "single": Pusher(port, "single", 1),
        "streamed": NatsSender(nats.port),
        "topics": MqttSender(mosquitto.port),
    }
    for each in senders.values():
        each.start()
    for kill in range(kills):
        with start() as job:
            time.sleep(draw.uniform(0.0, 2.5))
            if kill % 3 == 1:
                nats.restart(killed=draw.random() < 0.5)
            job.process.kill()
    with start() as job:
        sent = {name: sender.end() for name, sender in senders.items()}
        assert all(count > 0 for count in sent.values()), sent
        job.until(lambda: all(stored(folder, name).height >= count for name, count in sent.items()), seconds=90)
        job.process.terminate()
        assert job.process.wait(60) == 0
    for name, count in sent.items():
        check(folder, name, count)


def test_a_job_that_receives_is_killed(tmp_path: Path, nats: Server, mosquitto: Server) -> None:
    play(tmp_path, nats, mosquitto, kills=3, seed=1)


@pytest.mark.soak
def test_a_job_that_receives_is_killed_often(tmp_path: Path, nats: Server, mosquitto: Server) -> None:
    kills = max(3, round(FULL_COUNT * float(os.environ.get("ASKNOWN_SOAK", "1"))))
    play(tmp_path, nats, mosquitto, kills=kills, seed=7)
