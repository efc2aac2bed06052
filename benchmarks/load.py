"""A sender in a process of its own: posts rows over kept connections, each waiting for its answer; prints what it did.

`python -m benchmarks.load PORT PROVIDER ROWS CONNECTIONS SECONDS RATE`, RATE in posts per second, 0 for as many as can be. Standard library and msgspec only, so that little of the two
cores goes to the sender.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

import msgspec

_START = 1_767_571_200  # 2026-01-05
STATIONS = 200


def rows(first: int, count: int) -> list[dict[str, object]]:
    """Rows that are no others': station and event_time together say the number."""
    return [
        {
            "station": f"s{number % STATIONS}",
            "event_time": _instant(number // STATIONS),
            "temp": number * 0.25,
            "wind": number * 0.5,
            "n": number,
        }
        for number in range(first, first + count)
    ]


def _instant(tenths: int) -> str:
    whole, part = divmod(tenths, 10)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(_START + whole))}.{part}Z"


async def post(port: int, provider: str, size: int, connections: int, seconds: float, rate: float) -> dict[str, object]:
    numbers = itertools.count(0, size)
    encode = msgspec.json.Encoder().encode
    head = f"POST /observations/{provider} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    waits: list[float] = []
    refused = 0
    started = time.perf_counter()
    end = started + seconds

    async def one() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            first = next(numbers)
            if rate:  # each post has its own moment; one that is late goes at once
                await asyncio.sleep(started + first / size / rate - time.perf_counter())
            body = encode(rows(first, size))
            request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            while True:
                began = time.perf_counter()
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if answer.startswith(b"HTTP/1.1 202"):
                    waits.append(time.perf_counter() - began)
                    break
                refused += 1
                assert answer.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")), answer
                await asyncio.sleep(0.5)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    took = time.perf_counter() - started
    waits.sort()
    return {
        "posts": len(waits),
        "rows": len(waits) * size,
        "seconds": took,
        "refused": refused,
        "p50": waits[len(waits) // 2],
        "p99": waits[int(len(waits) * 0.99)],
    }


if __name__ == "__main__":
    port, provider, size, connections, seconds, rate = sys.argv[1:]
    print(json.dumps(asyncio.run(post(int(port), provider, int(size), int(connections), float(seconds), float(rate)))))
