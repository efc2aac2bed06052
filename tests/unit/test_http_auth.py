"""Who may ask what over HTTP: tokens, scopes, this machine; and limits on what is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from http_serving import ADMIN, PUSH, QUESTION, READ, TOKENS, ask, bearer, make
from http_serving import application as application_over

from serving.errors import OptionError
from serving.http import Application, HttpLimits, Tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    make(place)
    return place


@pytest.fixture(scope="module")
def app(folder: Path):
    with application_over(folder, environment=TOKENS) as found:
        yield found


@pytest.fixture(scope="module")
def open_app(folder: Path):
    limits = HttpLimits(body_bytes=1_000, entities=3, features=2, values=4, together=2, body_seconds=0.3)
    with application_over(folder, limits=limits) as found:
        yield found


SCOPES = [
    ("POST", "/get-online-features", READ),
    ("POST", "/resolve", READ),
    ("GET", "/features", READ),
    ("GET", "/metrics", READ),
    ("POST", "/observations/weather", PUSH),
    ("GET", "/admin/definitions", ADMIN),
    ("POST", "/admin/reload", ADMIN),
    ("POST", "/admin/switch", ADMIN),
]


@pytest.mark.parametrize(("method", "path", "token"), SCOPES)
def test_a_scope_wants_its_own_token(app: Application, method: str, path: str, token: str) -> None:
    assert ask(app, method, path).status_code == 401
    assert ask(app, method, path).headers["www-authenticate"] == 'Bearer realm="asknown"'
    variable = next(name for name, value in TOKENS.items() if value == token)
    wrong = ask(app, method, path, headers=bearer("some-other-token"))
    assert wrong.status_code == 401
    assert wrong.json()["hint"] == f"send the one in the server's {variable}."
    assert ask(app, method, path, headers={"Authorization": f"Basic {token}"}).status_code == 401
    assert ask(app, method, path, headers={"Authorization": "Bearer"}).status_code == 401
    for other in {READ, PUSH, ADMIN} - {token}:
        got = ask(app, method, path, headers=bearer(other))
        assert got.status_code == 403
        assert got.json()["hint"] == f"send the one in the server's {variable}."
        assert other not in got.text
        assert token not in got.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/health", "/readyz", "/openapi.json"])
def test_health_and_the_description_need_no_token_and_name_no_feature(app: Application, path: str) -> None:
    got = ask(app, "GET", path, client="10.0.0.9")
    assert got.status_code == 200
    assert "temp" not in got.text


def test_another_method_is_refused_with_the_right_one(app: Application) -> None:
    got = ask(app, "GET", "/get-online-features", headers=bearer(READ))
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert got.json()["hint"] == "send a POST; GET /openapi.json describes it."


def test_the_token_of_a_scope_opens_it_from_anywhere(app: Application) -> None:
    got = ask(app, "POST", "/get-online-features", json=QUESTION, headers=bearer(READ), client="10.0.0.9")
    assert got.status_code == 200


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {"Host": "[::1]:8320"}, 200),
        ("127.0.0.1", {"Host": "localhost:8320"}, 200),
        ("127.0.0.1", {"Origin": "http://localhost:3000"}, 200),
        ("10.0.0.9", {}, 403),
        ("127.0.0.1", {"Host": "features.example.org"}, 403),  # a name that somebody let point here
        ("127.0.0.1", {"Origin": "https://evil.example.org"}, 403),  # a page of another site
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}, 403),  # through a proxy on this machine
    ],
)
def test_without_a_token_a_scope_is_open_to_this_machine_alone(
    open_app: Application, client: str, headers: dict[str, str], status: int
) -> None:
    got = ask(open_app, "POST", "/get-online-features", json=QUESTION, headers=headers, client=client)
    assert got.status_code == status, got.text


def test_a_token_that_is_no_secret_is_refused_at_the_start() -> None:
    with pytest.raises(OptionError, match="ASKNOWN_READ_TOKEN is not at least 8 visible") as caught:
        Tokens({"ASKNOWN_READ_TOKEN": "short"})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        ({**QUESTION, "entities": {"station": ["a"] * 4}}, "4 rows are asked for, 3 may be"),
        (
            {**QUESTION, "features": ["weather:temp", "weather:big", "weather:name"]},
            "3 features are asked for, 2 may be",
        ),
        ({**QUESTION, "features": ["weather"]}, "7 features of 1 rows"),
        (
            {"features": ["weather:temp", "weather:big"], "entities": {"station": ["a"] * 3}},
            "2 features of 3 rows are asked for, 4 values may be",
        ),
        ({**QUESTION, "as_of": "x" * 2_000}, "a body may have 1,000 bytes"),
    ],
)
def test_too_much_is_refused_before_it_is_computed(open_app: Application, question: Any, complaint: str) -> None:
    got = ask(open_app, "POST", "/get-online-features", json=question)
    assert got.status_code == 413
    assert complaint in got.json()["error"]


def test_a_body_that_grows_beyond_the_limit_is_cut_off(open_app: Application) -> None:
    async def pieces():
        for _ in range(100):
            yield b" " * 100

    got = ask(open_app, "POST", "/get-online-features", content=pieces())
    assert got.status_code == 413
    assert got.headers["connection"] == "close"


def test_a_body_that_does_not_come_is_not_waited_for(open_app: Application) -> None:
    async def pieces():
        yield b"{"
        await asyncio.sleep(30)

    got = ask(open_app, "POST", "/get-online-features", content=pieces())
    assert got.status_code == 408
    assert got.headers["connection"] == "close"


def test_a_compressed_body_is_refused(open_app: Application) -> None:
    got = ask(open_app, "POST", "/get-online-features", content=b"x", headers={"Content-Encoding": "gzip"})
    assert got.status_code == 415


def test_more_requests_at_a_time_than_may_be_are_sent_away(open_app: Application) -> None:
    async def one() -> dict[str, Any]:
        started = asyncio.Event()
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            started.set()
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        def scope() -> dict[str, Any]:
            return {
                "type": "http",
                "method": "POST",
                "path": "/get-online-features",
                "headers": [],
                "client": ("::1", 1),
            }

        waiting = [asyncio.create_task(open_app(scope(), receive, send)) for _ in range(2)]
        await started.wait()
        before = len(sent)
        await open_app(scope(), receive, send)
        for task in waiting:
            await task
        return sent[before]

    start = asyncio.run(one())
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/admin/%2e%2e/get-online-features",
        "/healthz//",
        "/healthz/",
        "/..%2f..%2fetc/passwd",
        "/%00",
        "/get-online-features%0d%0aX-Evil:1",
        "/observations",
        "/" + "a" * 5_000,
    ],
)
def test_a_path_that_is_none_is_not_found_and_repeated_shortly(open_app: Application, path: str) -> None:
    got = ask(open_app, "GET", path)
    assert got.status_code == 404
    assert len(got.text) < 400
    assert "x-evil" not in got.headers


@pytest.mark.parametrize(
    ("path", "allowed"), [("/get-online-features", "POST"), ("/features", "GET, HEAD"), ("/readyz", "GET, HEAD")]
)
def test_another_method_is_told_which_is_wanted(open_app: Application, path: str, allowed: str) -> None:
    got = ask(open_app, "DELETE", path)
    assert got.status_code == 405
    assert got.headers["allow"] == allowed


def test_a_fault_of_the_server_tells_nothing_of_itself(folder: Path) -> None:
    with application_over(folder) as app:
        held = app._definitions.current

        def broken(*_words: Any, **_more: Any) -> None:
            raise RuntimeError("secret detail")

        held.server.read = broken
        got = ask(app, "POST", "/get-online-features", json=QUESTION)
    assert got.status_code == 500
    assert got.json() == {"error": "a fault of the server; its log lines tell more"}


def test_readiness_says_why_it_is_not(folder: Path) -> None:
    with application_over(folder) as app:
        app.draining = True
        got = ask(app, "GET", "/readyz")
        assert got.status_code == 503
        assert got.json() == {"error": "not ready: the server is being stopped", "hint": "ask another one."}
        assert got.headers["connection"] == "close"
        assert ask(app, "GET", "/healthz").status_code == 200
