"""What hostile clients do to a server over HTTP: it refuses them, tells nothing of itself, and lives."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from http_serving import ADMIN, PUSH, QUESTION, READ, TOKENS, Serving, make, serving

from serving.http import HttpLimits
from serving.http.protocol import protocol_class

SOAK = float(os.environ.get("ASKNOWN_SOAK", "1"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("served")
    make(folder)
    with serving(folder, "--providers", "providers.yaml", "--max-body", "100000", environment=TOKENS) as running:
        running.until_ready()
        yield running
        assert running.process.poll() is None
        printed = running.errors.read_text()
        assert "Traceback" not in printed
        assert not any(token in printed for token in TOKENS.values())


def talk(port: int, content: bytes, *, end: bool = False) -> bytes:
    """What a server says to bytes."""
    with socket.create_connection(("127.0.0.1", port), 15) as sock:
        said = b""
        try:
            sock.sendall(content)
            if end:
                sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65_536):
                said += piece
                if b"\r\n\r\n" in said and not end:
                    break
        except (ConnectionError, TimeoutError):
            pass
        return said


def lives(server: Serving) -> bool:
    return server.post("/get-online-features", QUESTION, READ)[1]["results"][1]["values"] == [22.0]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"POST /resolve HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /resolve HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /resolve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /admin/../healthz HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET //healthz HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://other.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"CONNECT other.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 200),
    ],
)
def test_what_is_not_a_request_gets_a_4xx(server: Serving, content: bytes, status: int) -> None:
    said = talk(server.port, content)
    assert said.startswith(b"HTTP/1.1 %d " % status), said[:200]
    assert b"uvicorn" not in said.lower()
    assert lives(server)


def test_bytes_without_sense_do_no_harm(server: Serving) -> None:
    draw = random.Random(7)
    whole = (
        b"POST /get-online-features HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + READ.encode() + b"\r\n"
        b"Content-Length: 64\r\n\r\n" + json.dumps(QUESTION).encode()
    )
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        said = talk(server.port, bytes(broken[: draw.randint(1, len(broken))]), end=True)
        assert not said.startswith(b"HTTP/1.1 5"), said
    assert lives(server)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: Serving) -> None:
    head = f"POST /get-online-features HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\n"
    said = talk(server.port, f"{head}Content-Length: 100000000000\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in said
    pieces = b"".join(b"%x\r\n" % 50_000 + b" " * 50_000 + b"\r\n" for _ in range(4))
    said = talk(server.port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces)
    assert said.startswith(b"HTTP/1.1 413")
    assert lives(server)


def test_slow_heads_are_cut_off_while_others_are_answered() -> None:
    import asyncio

    import uvicorn

    async def app(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run() -> list[bytes]:
        limits = HttpLimits(head_seconds=0.5, connections=20)
        config = uvicorn.Config(
            app, http=protocol_class(limits), lifespan="off", loop="none", ws="none", log_config=None
        )
        web = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        serving = asyncio.create_task(web.serve(sockets=[listening]))
        while not web.started:
            await asyncio.sleep(0.01)

        async def slow() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = asyncio.create_task(reader.read())
            for piece in (b"GET / HTT", b"P/1.1\r\n", b"X: 1\r\n", b"Y: 2\r\n", b"Z: 3\r\n"):
                if answer.done():
                    break
                writer.write(piece)
                await asyncio.sleep(0.2)
            said = await answer
            writer.close()
            return said

        async def silent() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = await reader.read()
            writer.close()
            return said

        async def quick() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = b""
            for _ in range(6):  # a kept connection may be idle between its requests
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                said = await reader.readuntil(b"ok")
                await asyncio.sleep(0.15)
            writer.close()
            return said

        slow_ones = [asyncio.create_task(slow()) for _ in range(5)] + [asyncio.create_task(silent()) for _ in range(5)]
        quick_one = await quick()
        ended = await asyncio.wait_for(asyncio.gather(*slow_ones), 10)
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        refused = await silent()
        for _, writer in crowd:
            writer.close()
        web.should_exit = True
        await serving
        return [quick_one, *ended, refused]

    quick, *slow, refused = asyncio.run(run())
    assert quick.startswith(b"HTTP/1.1 200")
    assert all(said.startswith(b"HTTP/1.1 408") for said in slow), slow
    assert refused.startswith(b"HTTP/1.1 503")


def test_many_slow_clients_do_not_keep_others_waiting(server: Serving) -> None:
    head = (
        f"POST /get-online-features HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\nContent-Length: 64\r\n\r\n{{"
    )
    idle = []
    for number in range(200):
        sock = socket.create_connection(("127.0.0.1", server.port), 10)
        sock.sendall(head.encode() if number % 2 else b"GET / HT")
        idle.append(sock)
    began = time.monotonic()
    for _ in range(20):
        assert lives(server)
    assert time.monotonic() - began < 20
    for sock in idle:
        sock.close()
    assert lives(server)


def test_clients_that_leave_do_no_harm(server: Serving) -> None:
    def leave() -> None:
        for _ in range(30):
            body = json.dumps({**QUESTION, "features": ["weather"], "entities": {"station": ["a"] * 2_000}}).encode()
            head = f"POST /get-online-features HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                sock.sendall(head.encode() + body)

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lives(server)


NEEDS = {"/observations/{provider}": PUSH, "/admin/definitions": ADMIN, "/admin/reload": ADMIN, "/admin/switch": ADMIN}
WEIGHTS = {"/get-online-features": 4.0, "/resolve": 4.0, "/admin/reload": 0.05}


def fuzz(server: Serving, count: int, seed: int) -> dict[str, int]:
    """Requests made from the server's own description, right and wrong ones; how many had which status."""
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    share = count / (2 * sum(WEIGHTS.get(operation.path, 1.0) for operation in operations))
    seen: dict[str, int] = {}
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            ask_around(operation, mode, max(1, round(share * WEIGHTS.get(operation.path, 1.0))), seed, seen)
    return seen


def ask_around(operation: Any, mode: Any, count: int, seed: int, seen: dict[str, int]) -> None:
    """So many requests of one operation, each answered as it should be."""
    import hypothesis

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def once(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {NEEDS.get(operation.path, READ)}"})
        key = str(answer.status_code)
        seen[key] = seen.get(key, 0) + 1
        assert 200 <= answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        assert not any(token in answer.text for token in TOKENS.values())
        if answer.status_code >= 400 and case.method != "HEAD":
            assert set(answer.json()) <= {"error", "hint"}, answer.text

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong in what takes nothing
        once()


def test_requests_made_from_the_description_get_2xx_or_4xx(server: Serving) -> None:
    seen = fuzz(server, 200, seed=1)
    assert set(map(int, seen)) <= {200, 202, *range(400, 500)}, seen
    assert sum(seen.values()) >= 150, seen
    assert lives(server)


@pytest.mark.soak
def test_two_thousand_requests_made_from_the_description_get_2xx_or_4xx(server: Serving) -> None:
    seen = fuzz(server, round(2_600 * SOAK), seed=2)
    print(seen)
    assert set(map(int, seen)) <= {200, 202, *range(400, 500)}, seen
    assert sum(seen.values()) >= 2_000 * SOAK, seen
    assert lives(server)
