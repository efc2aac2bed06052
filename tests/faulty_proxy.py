"""A proxy on the loopback that does to an HTTP client what networks and busy stores do.

A fault comes before the server has seen the request (nothing happened) or after it has carried it out (the answer is lost).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from http.client import HTTPConnection
from typing import Any

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULTS = ("busy", "refused", "slow", "lost", "failed after", "cut short")
"""Of these, `busy` and `refused` come before the server has seen the request; `lost`, `failed after`, `cut short` after it."""


class FaultyProxy:
    """Forwards to a port of the loopback, with faults; in a process of its own, for clients may hold the interpreter's lock.

    Args:
        target: The server's port.
        rate: The share of requests that get a fault.
        seed: Of the draws.
        unsafe: Whether the store is to look like one that does not know conditional puts.
    """

    def __init__(self, target: int, *, rate: float = 0.0, seed: int = 0, unsafe: bool = False) -> None:
        command = [sys.executable, __file__, str(target), str(rate), str(seed), *(["unsafe"] if unsafe else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def plan(self, pattern: str, fault: str, *, times: int = 1) -> None:
        """Give the next requests of which `METHOD /path` matches a fault."""
        assert fault in FAULTS
        self._ask("/--plan", [pattern, fault, times])

    def seen(self) -> dict[str, Any]:
        """What came since the last question: `requests`; `faults` by kind and those `planned` that have not come."""
        return self._ask("/--seen", None)

    def _ask(self, path: str, what: Any) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, body=json.dumps(what))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class _Forwarder:
    def __init__(self, target: int, rate: float, seed: int, *, unsafe: bool) -> None:
        self.target, self.rate, self.random, self.unsafe = target, rate, random.Random(seed), unsafe
        self.requests: list[str] = []
        self.faults: Counter[str] = Counter()
        self.planned: list[tuple[str, str, int]] = []

    async def serve(self) -> None:
        server = await asyncio.start_server(self.client, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    def told(self, request: str, body: bytes) -> bytes:
        if request.endswith("/--plan"):
            self.planned.append(tuple(json.loads(body)))
            return b"null"
        seen = {"requests": self.requests, "faults": self.faults, "planned": sum(times for *_, times in self.planned)}
        answer = json.dumps(seen).encode()
        self.requests, self.faults = [], Counter()
        return answer

    def fault(self, request: str) -> str | None:
        for place, (pattern, fault, times) in enumerate(self.planned):
            if re.search(pattern, request):
                self.planned[place : place + 1] = [(pattern, fault, times - 1)] if times > 1 else []
                return fault
        return self.random.choice(FAULTS) if self.random.random() < self.rate else None

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                request = head.split(b"\r\n", 1)[0].decode().rsplit(" ", 1)[0]
                if "/--" in request:
                    writer.write(_answer(200, self.told(request, body)))
                    continue
                self.requests.append(request)
                fault = self.fault(request)
                if fault is not None:
                    self.faults[fault] += 1
                if fault == "refused":
                    return
                if fault == "busy":
                    writer.write(_answer(503, BUSY))
                    continue
                if fault == "slow":
                    await asyncio.sleep(self.random.uniform(0, 0.3))
                if server is None:
                    server = await asyncio.open_connection("127.0.0.1", self.target)
                server[1].write((_without_condition(head, body) if self.unsafe else head) + body)
                answer = await _whole_answer(server[0], head.startswith(b"HEAD "))
                if fault == "lost":
                    return
                if fault == "cut short":
                    writer.write(answer[: max(len(answer) // 2, 1)])
                    await writer.drain()
                    return
                writer.write(
                    _answer(500, b"<Error><Code>InternalError</Code></Error>") if fault == "failed after" else answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            for stream in (writer, *(server[1:] if server else ())):
                stream.close()


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _without_condition(head: bytes, body: bytes) -> bytes:
    """A put without its `If-None-Match`, signed anew."""
    if not re.search(rb"(?i)\r\nif-none-match:", head):
        return head
    from object_store import sign

    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    host = re.search(rb"(?i)\r\nhost: *([^\r]+)", head)
    assert host is not None
    signed = sign(method, path, body, {"host": host[1].decode()})
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in signed.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


async def _whole_answer(reader: asyncio.StreamReader, without_body: bool) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head + await _whole_answer(reader, without_body)
    if without_body or head.split(b" ", 2)[1] in (b"204", b"304"):
        return head
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        whole = head
        while True:
            size = await reader.readuntil(b"\r\n")
            rest = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            whole += size + rest
            if rest == b"\r\n":
                return whole
    return head + await reader.readexactly(_length(head))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _Forwarder(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), unsafe="unsafe" in sys.argv).serve()
        )
