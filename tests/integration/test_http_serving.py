"""`asknown serve` as a process: it starts, answers, follows, takes rows, changes its definitions, and stops in good order."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis as client_library
from http_serving import ADMIN, PUSH, QUESTION, READ, TOKENS, VIEWS, Serving, make, serving
from services import Server

import alignment as al
import ingestion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def tried(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`asknown serve features.py` that is expected to end by itself."""
    program = "from serving.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "features.py", "--port", "0", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def half_a_request(port: int) -> socket.socket:
    """A question whose last byte is still to come."""
    body = json.dumps(QUESTION).encode()
    sock = socket.create_connection(("127.0.0.1", port), 10)
    head = f"POST /get-online-features HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body[:-1])
    return sock


def test_it_answers_follows_the_log_and_equals_the_join(folder: Path) -> None:
    with serving(folder) as server:
        server.until_ready()
        started = server.lines()[0]
        assert started["workers"] == 1
        assert started["tokens"] == []
        assert any("open to this machine" in line["event"] for line in server.lines())
        assert server.post("/get-online-features", QUESTION)[1]["results"][1]["values"] == [22.0]

        log = ingestion.open_log(str(folder / "logs"), "weather")
        event = datetime.now(UTC).replace(microsecond=0)
        log.append(pl.DataFrame({"station": ["a"], "event_time": [event], "temp": [30.5], "name": ["x"], "big": [7]}))
        end = time.monotonic() + 15
        got: dict[str, Any] = {}
        while time.monotonic() < end and got.get("results", [{}, {}])[1].get("values") != [30.5]:
            got = server.post("/get-online-features", {"features": ["weather"], "entities": {"station": ["a"]}})[1]
            time.sleep(0.05)
        assert got["metadata"]["positions"] == {"weather": 7}
        t = datetime.fromisoformat(got["metadata"]["t"])

        spine = pl.DataFrame({"station": ["a"], "prediction_time": [t]})
        from serving.declarations import read_declarations

        joined = al.point_in_time_join(spine, read_declarations(folder / "features.py").views, positions={"weather": 7})
        values = [result["values"][0] for result in got["results"][1:-1]]
        assert values == [joined[name].to_list()[0] for name in joined.columns[2:-1]]
        assert got["results"][-1]["values"][0] == joined["weather__event_age"][0].total_seconds()


def test_it_is_not_ready_until_the_definitions_are_loaded(folder: Path) -> None:
    slow = "FeatureServer.start = lambda self, start=FeatureServer.start: (time.sleep(3), start(self))[1]"
    (folder / "features.py").write_text(f"import time\nfrom serving.online import FeatureServer\n{slow}\n{VIEWS}")
    with serving(folder) as server:
        assert server.get("/healthz")[0] == 200
        status, told = server.get("/readyz")
        assert status == 503
        assert "being loaded" in told["error"]
        assert server.post("/get-online-features", QUESTION)[0] == 503
        server.until_ready()
        assert server.post("/get-online-features", QUESTION)[0] == 200


def test_a_term_signal_finishes_what_is_in_flight_and_exits_with_0(folder: Path) -> None:
    with serving(folder, "--drain", "0.7") as server:
        server.until_ready()
        waiting = half_a_request(server.port)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.get("/readyz")[0] == 503  # balancers look elsewhere
        assert server.post("/get-online-features", QUESTION)[0] == 200  # those that have not yet are answered
        time.sleep(0.8)
        assert server.get("/healthz")[0] == -1  # nothing new is taken
        assert server.process.poll() is None
        waiting.sendall(b"}")
        answered = b""
        while piece := waiting.recv(65_536):
            answered += piece
        waiting.close()
        assert answered.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answered
        assert answered.endswith(b"]}\n")
        assert server.process.wait(15) == 0
        assert "Traceback" not in server.errors.read_text()


def test_a_client_that_never_finishes_does_not_keep_it_from_stopping(folder: Path) -> None:
    with serving(folder, "--drain", "0", "--stop-within", "1") as server:
        server.until_ready()
        waiting = half_a_request(server.port)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        waiting.close()


def test_two_workers_share_a_port_their_numbers_and_their_definitions(folder: Path) -> None:
    with serving(folder, "--workers", "2", "--drain", "0.2", environment=TOKENS) as server:
        server.until_ready()
        end = time.monotonic() + 60
        while sum(line["event"] == "ready" for line in server.lines()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        pids = {member["process"] for member in server.get("/admin/definitions", ADMIN)[1]["workers"]}
        assert len(pids) == 2
        assert server.process.pid not in pids
        for _ in range(40):
            assert server.post("/get-online-features", QUESTION, READ)[0] == 200
        counted = 'asknown_http_requests_total{route="get-online-features",status="2xx"} 40'
        text, end = server.get("/metrics", READ)[1], time.monotonic() + 10
        while counted not in text and time.monotonic() < end:  # a worker counts a request once its answer is on its way
            time.sleep(0.05)
            text = server.get("/metrics", READ)[1]
        assert counted in text
        assert "asknown_workers_ready 2" in text

        # a changed definition is served beside the old one until somebody switches
        old = server.get("/features", READ)[1]["definition"]
        (folder / "features.py").write_text(VIEWS.replace('"1h"', '"25m"'))
        status, told = server.post("/admin/reload", token=ADMIN)
        assert (status, told["serves"]) == (200, old)
        new = told["definition"]
        assert new != old
        held = server.get("/admin/definitions", ADMIN)[1]
        assert all(set(member["held"]) == {old, new} for member in held["workers"])
        counts = {"features": ["weather:temp_count_1h"], "entities": {"station": ["a"]}}
        changed = {**counts, "features": ["weather:temp_count_25m"], "definition": new[:12]}
        for _ in range(6):
            assert server.post("/get-online-features", counts, READ)[1]["results"][1]["values"] == [3]
            assert server.post("/get-online-features", changed, READ)[1]["results"][1]["values"] == [2]
        assert server.post("/admin/switch", {"definition": new}, ADMIN)[1] == {"serves": new, "served": old}
        for _ in range(6):
            assert server.post("/get-online-features", counts, READ)[0] == 404
            assert server.post("/get-online-features", {**counts, "definition": old}, READ)[0] == 200
            assert server.get("/features", READ)[1]["definition"] == new

        # a file that is wrong changes nothing
        (folder / "features.py").write_text("views = 1")
        status, told = server.post("/admin/reload", token=ADMIN)
        assert status == 409
        assert "no list of views" in told["error"]
        assert server.get("/features", READ)[1]["definition"] == new

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        printed = server.errors.read_text()
        assert "Traceback" not in printed
        assert not any(token in printed for token in TOKENS.values())


def test_a_worker_that_dies_is_started_again(folder: Path) -> None:
    import os

    with serving(folder, "--workers", "2") as server:
        server.until_ready()
        end = time.monotonic() + 60
        while sum(line["event"] == "ready" for line in server.lines()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        victim = server.get("/admin/definitions")[1]["workers"][0]["process"]
        os.kill(victim, signal.SIGKILL)
        while not any("a worker ended" in line["event"] for line in server.lines()):
            time.sleep(0.02)
        assert "asknown_workers_ready 1" in server.get("/metrics")[1]  # another takes seconds to load
        assert victim not in {each["process"] for each in server.get("/admin/definitions")[1]["workers"]}
        while sum(line["event"] == "ready" for line in server.lines()) < 3 and time.monotonic() < end:
            assert server.post("/get-online-features", QUESTION)[0] in (200, -1)
            time.sleep(0.1)
        assert any(
            line["event"] == "a worker ended, another is started" and line["code"] == -9 for line in server.lines()
        )
        assert victim not in {each["process"] for each in server.get("/admin/definitions")[1]["workers"]}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_workers_stop_when_the_supervisor_is_killed(folder: Path) -> None:
    with serving(folder, "--workers", "2", "--drain", "0") as server:
        server.until_ready()
        server.process.kill()
        end = time.monotonic() + 30
        while server.get("/healthz")[0] != -1:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_pushed_rows_are_answered_when_durable_and_served_soon(folder: Path) -> None:
    with serving(folder, "--providers", "providers.yaml", environment=TOKENS) as server:
        server.until_ready()
        row = {"station": "a", "event_time": datetime.now(UTC).isoformat(), "temp": 44.5, "name": "p", "big": 1}
        assert server.post("/observations/weather", [row])[0] == 401
        assert server.post("/observations/weather", [row], READ)[0] == 403
        assert server.post("/observations/other", [row], PUSH)[0] == 404
        assert server.post("/observations/..%2f..%2fetc", [row], PUSH)[0] == 404
        status, told = server.post("/observations/weather", [row], PUSH)
        assert (status, told["accepted"]) == (202, 1)
        end = time.monotonic() + 20
        while server.post("/get-online-features", QUESTION, READ)[1]["results"][1]["values"] != [44.5]:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert 'asknown_http_requests_total{route="observations",status="2xx"} 1' in server.get("/metrics", READ)[1]


def test_what_was_served_can_be_audited(folder: Path) -> None:
    with serving(folder, "--served-log", "logs") as server:
        server.until_ready()
        for _ in range(5):
            server.post(
                "/get-online-features", {"features": ["weather"], "entities": {"station": ["a", "b", "nobody"]}}
            )
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    from serving.served import last_served

    assert last_served(str(folder / "logs"))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_the_views_is_said_before_anything_else(folder: Path, workers: int) -> None:
    (folder / "features.py").write_text("views = 1")
    done = tried(folder, "--workers", str(workers))
    assert done.returncode == 2
    assert done.stderr.startswith("DeclarationError: features.py: it has no list of views called 'views'")
    (folder / "features.py").write_text(VIEWS)
    done = tried(folder, "--workers", str(workers), "--max-behind", "soon")
    assert done.returncode == 2
    assert "listening" not in done.stderr


def test_ready_is_told_when_questions_are_answered_and_so_is_every_change(folder: Path, redis: Server) -> None:
    client = client_library.Redis(port=redis.port)
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    environment = {"ASKNOWN_REDIS_URL": f"redis://:a-secret@127.0.0.1:{redis.port}/0"}
    client.config_set("requirepass", "a-secret")
    client.close()
    client = client_library.Redis(port=redis.port, password="a-secret")

    def until(server: Serving, event: str) -> dict[str, Any]:
        end = time.monotonic() + 60
        while not (found := [line for line in server.lines() if line["event"] == event]):
            assert time.monotonic() < end, server.errors.read_text()
            time.sleep(0.05)
        assert len(found) == 1
        return found[0]

    with serving(folder, "--redis", environment=environment) as server:
        line = until(server, "not ready yet")
        assert f"Redis at 127.0.0.1:{redis.port} drops keys" in line["reason"]
        assert line["hint"] == "CONFIG SET maxmemory-policy noeviction"
        status, told = server.get("/readyz")
        assert (status, told["hint"]) == (503, "CONFIG SET maxmemory-policy noeviction")
        assert not any(line["event"] == "ready" for line in server.lines())
        client.config_set("maxmemory-policy", "noeviction")
        until(server, "ready")
        client.config_set("requirepass", "another-one")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert f"Redis at 127.0.0.1:{redis.port}" in until(server, "not ready any more")["reason"]
        assert server.get("/readyz")[1]["hint"]
        client.config_set("requirepass", "a-secret")
        until(server, "ready again")
        assert server.get("/readyz")[0] == 200
        assert "secret" not in server.errors.read_text()
    client.close()


def test_a_host_that_there_is_not_is_an_error(folder: Path) -> None:
    done = tried(folder, "--host", "no-such-host.invalid")
    assert done.returncode == 3
    assert done.stderr.startswith("ListeningError: cannot listen on no-such-host.invalid:0: there is no such host")


def test_a_port_in_use_is_an_error_before_anything_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        from serving.cli import run

        code: list[int] = []
        words = ["serve", str(folder / "features.py"), "--port", str(taken.getsockname()[1])]
        thread = threading.Thread(target=lambda: code.append(run(words)))
        thread.start()
        thread.join(30)
        assert code == [3]
        printed = capsys.readouterr().err
        assert f"cannot listen on 127.0.0.1:{taken.getsockname()[1]}: the port is taken" in printed
        assert printed.endswith("hint: --port 0 takes a free one\n")


@pytest.mark.parametrize("words", [["--root", "logs"], ["--max-behind", "soon"], ["--sample", "0.5"]])
def test_options_that_mean_nothing_are_refused(folder: Path, words: list[str]) -> None:
    done = tried(folder, *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
