"""`asknown ingest run` beside providers on this machine: what the cases about jobs share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import HERE

READINGS_EVERY = 60
_CLOCK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def _serve() -> None:
    """Providers at `/PROVIDER`: three sites, the last twelve readings of each, a new one every minute."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ", 2)[1].decode().strip("/")
                now = int(time.time() // READINGS_EVERY)
                rows = [
                    {"site": f"{name}-{site}", "at": tick * READINGS_EVERY, "wind": (tick * 7 + site) % 30 / 2}
                    for tick in range(now - 11, now + 1)
                    for site in range(3)
                ]
                body = json.dumps({"data": rows}).encode()
                told = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(told + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def providers() -> Iterator[int]:
    """The providers' port; they are served by a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.jobs"], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@dataclass
class RunningJob:
    """A job, seen from outside.

    Attributes:
        process: The process.
        url: Its endpoint.
    """

    process: subprocess.Popen[str]
    url: str

    def numbers(self) -> dict[str, float]:
        """Its metrics, by name and labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if name}

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.numbers().items() if key.partition("{")[0] == name)

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK

    def resident(self) -> int:
        """Bytes in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE


@contextlib.contextmanager
def job(folder: Path) -> Iterator[RunningJob]:
    """A job on `folder/asknown.yaml`, told to stop on leaving."""
    errors = folder / "errors.jsonl"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", "from serving.cli import main; main()", "ingest", "run", "--port", "0", "--json"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            stderr=stream,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r'"listening": "([^"]+)"', errors.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the job did not start: {errors.read_text()[-2000:]}")
            time.sleep(0.1)
        yield RunningJob(process, found[1])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def quantile(before: dict[str, float], after: dict[str, float], name: str, q: float) -> float:
    """The upper bound of the bucket of a histogram that has its quantile, of what came between two looks."""
    pattern = re.compile(rf'{name}_bucket\{{(?:.*,)?le="([^"]+)"')
    counts: dict[float, float] = {}
    for key, value in after.items():
        if found := pattern.match(key):
            counts[float(found[1])] = counts.get(float(found[1]), 0.0) + value - before.get(key, 0.0)
    wanted = q * counts.get(float("inf"), 0.0)
    return min((bound for bound, count in counts.items() if wanted and count >= wanted), default=float("nan"))


if __name__ == "__main__":
    asyncio.run(_serve())
