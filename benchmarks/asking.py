"""A client in a process of its own: asks over kept connections, each waiting for its answer; prints what it saw.

`python -m benchmarks.asking PORT CONNECTIONS SECONDS BODIES`, BODIES being a file with one JSON body a line. Standard library only.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path


class Connection(asyncio.Protocol):
    """Sends the next request when an answer is whole."""

    def __init__(self, requests: list[bytes], offset: int, waits: list[float], end: float) -> None:
        self.requests = itertools.cycle(requests[offset:] + requests[:offset])
        self.waits, self.end = waits, end
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.needed = 0
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.needed:
            head, separator, _ = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.failed = self.buffer[:300].decode(errors="replace")
                self.finish()
                return
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            self.needed = len(head) + 4 + length
        if len(self.buffer) >= self.needed:
            now = time.perf_counter()
            self.waits.append(now - self.began)
            self.buffer, self.needed = b"", 0
            if now < self.end:
                self.ask()
            else:
                self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.failed = f"the server closed the connection: {exc}"
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


async def ask(port: int, connections: int, seconds: float, bodies: list[bytes]) -> dict[str, object]:
    head = "POST /get-online-features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    waits: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    opened = [
        (
            await loop.create_connection(
                lambda offset=number: Connection(requests, offset % len(requests), waits, started + seconds),  # type: ignore[misc]
                "127.0.0.1",
                port,
            )
        )[1]
        for number in range(connections)
    ]
    await asyncio.gather(*(connection.done for connection in opened))
    took = time.perf_counter() - started
    waits.sort()
    failed = next((connection.failed for connection in opened if connection.failed), "")
    if not waits:
        return {"failed": failed or "no answer"}
    return {
        "failed": failed,
        "requests": len(waits),
        "seconds": took,
        "p50": waits[len(waits) // 2],
        "p99": waits[int(len(waits) * 0.99)],
    }


if __name__ == "__main__":
    port, connections, seconds, path = sys.argv[1:]
    bodies = Path(path).read_bytes().splitlines()
    print(json.dumps(asyncio.run(ask(int(port), int(connections), float(seconds), bodies))))
