"""Parity: what servers answer while providers send, correct, withdraw, load history and fall silent is what training says."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import parity
import pytest
from services import Server, redis_server

FULL_COUNT = 1_000_000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")


def show(outcome: parity.Outcome) -> None:
    report = outcome.report
    print(
        f"{report.vectors:,} vectors, {report.values:,} values at {report.positions:,} positions in"
        f" {report.evaluations} joins; {report.differences} differences; {report.head_differences:,} at the head,"
        f" {report.unexplained} without a row behind them, {report.late.height:,} late rows;"
        f" {outcome.kills} kills; {dict(outcome.statuses)}; log rows {outcome.rows}; seconds {outcome.seconds}"
    )
    print(report.late.group_by("provider", "why").len().sort("provider", "why"))


def test_some_thousand_vectors_are_what_training_says(tmp_path: Path) -> None:
    outcome = parity.run(tmp_path / "logs", vectors=4_000, replicas=1, lived=5.0, kills=1)
    show(outcome)
    parity.check(outcome, 4_000)


def check_soak(outcome: parity.Outcome, vectors: int) -> None:
    show(outcome)
    parity.check(outcome, vectors)
    assert set(outcome.statuses) == {"present", "null", "expired", "retracted", "missing"}
    assert outcome.report.head_differences > 0
    assert "backfill" in set(outcome.report.late["why"])
    assert outcome.replicas == {"replica-0", "replica-1"}


def scaled(count: int) -> int:
    return max(20_000, round(count * float(os.environ.get("ASKNOWN_SOAK", "1"))))


@pytest.mark.soak
def test_a_million_vectors_are_what_training_says(tmp_path: Path) -> None:
    vectors = scaled(FULL_COUNT)
    check_soak(parity.run(tmp_path / "logs", vectors=vectors, replicas=2, kills=2), vectors)


class Address:
    """One address of the loopback behind which servers change, as behind a service that fails over."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port: int) -> None:
        """Another server is behind the address; whoever is connected loses the connection."""
        self._target = port
        self._drop()

    def close(self) -> None:
        self._listening.close()
        self._drop()

    def _drop(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        target = ("127.0.0.1", self._target)
        with contextlib.suppress(OSError), client, socket.create_connection(target) as server:
            self._open |= {client, server}
            other = {client: server, server: client}
            while True:
                for one in select.select(list(other), [], [])[0]:
                    content = one.recv(1 << 18)
                    if not content:
                        return
                    other[one].sendall(content)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Address, Callable[[], None]]]:
    """A Redis behind an address, and what goes wrong with it: by turns a flush and a fail-over that loses the last writes."""
    import redis as client_library

    folders = [tmp_path / f"redis-{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    servers: list[Server] = [redis_server(folder) for folder in folders]
    now = itertools.cycle(["flush", "fail-over"])
    address = Address(servers[0].start().port)

    def disturb() -> None:
        leads, follows = servers
        with client_library.Redis(port=leads.port) as leading:
            if next(now) == "flush":
                leading.flushall()
                return
        follows.start()
        with client_library.Redis(port=follows.port) as following:
            following.replicaof("127.0.0.1", str(leads.port))
            end = time.monotonic() + 30
            while following.info("replication")["master_link_status"] != "up" and time.monotonic() < end:
                time.sleep(0.02)
            following.replicaof("NO", "ONE")
        time.sleep(1.0)  # what is written now is lost
        address.lead_to(follows.port)
        leads.kill()
        servers.reverse()

    try:
        yield address, disturb
    finally:
        address.close()
        for server in servers:
            server.kill()


@pytest.mark.soak
def test_a_million_vectors_over_redis_are_what_training_says(
    tmp_path: Path, pair: tuple[Address, Callable[[], None]]
) -> None:
    address, disturb = pair
    vectors = scaled(FULL_COUNT)
    url = f"redis://127.0.0.1:{address.port}/0"
    outcome = parity.run(tmp_path / "logs", vectors=vectors, replicas=2, redis=url, kills=4, disturb=disturb)
    check_soak(outcome, vectors)
