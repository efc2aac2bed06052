"""Polling over HTTP against a real server that resets, hangs, truncates, repeats, reorders, and asks for patience."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ingestion.errors import CircuitOpenError, PayloadError, SourceError
from ingestion.sources.base import Fetched, Progress
from ingestion.sources.http_pull import HttpPull, HttpSource

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECRET = "s3cr3t/with+odd=chars"
ROWS = [{"plant": "north", "load_kw": 1.5}, {"plant": "south", "load_kw": 2.5}]


class Handler(BaseHTTPRequestHandler):
    """Does what the test's script says, one step per request; the last step is repeated."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers)))
        script = self.server.script
        step = script[min(number, len(script) - 1)] if isinstance(script, list) else script
        with contextlib.suppress(OSError):
            step(self)

    def log_message(self, *_: Any) -> None:
        """Nothing on the console."""

    def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def asked(self, name: str) -> str | None:
        return parse_qs(urlsplit(self.path).query).get(name, [None])[0]  # type: ignore[list-item]

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


Step = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Step | list[Step] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A reset connection is what the test wanted."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


QUICK: dict[str, Any] = {"wait": "1ms", "timeout": "2s", "deadline": "10s", "layout": {"format": "json"}}


@contextlib.contextmanager
def polling(server: Server, path: str = "/rows", **settings: Any) -> Iterator[HttpPull]:
    declared = HttpSource(**{"url": server.url + path, **QUICK, **settings})
    source = declared.open("meter", {"TOKEN": SECRET, "USER_NAME": "ann"}, clock=lambda: NOW)
    yield source
    source.close()


def fetch(source: HttpPull, cursor: dict[str, Any] | None = None, now: datetime = NOW) -> Fetched:
    fetched = source.fetch(Progress(cursor=cursor), now=now)
    json.dumps(fetched.cursor)  # it has to fit into the ledger
    return fetched


def rows(source: HttpPull, fetched: Fetched) -> list[dict[str, Any]]:
    return [row for payload in fetched.payloads for row in source.parse(payload).to_dicts()]


def page(some: object, **headers: str) -> Step:
    return lambda handler: handler.answer(json.dumps(some).encode(), **headers)


def status(code: int, **headers: str) -> Step:
    return lambda handler: handler.answer(b"not now", code, **headers)


# ---- one answer ------------------------------------------------------------------------------------------------------


def test_rows_come_with_where_and_when_they_came_from(server: Server) -> None:
    server.script = page(ROWS, Content_Type="application/json", ETag='"v1"')
    with polling(server, "/rows?kind=load", layout={}) as source:
        fetched = fetch(source)
        assert rows(source, fetched) == ROWS
    (payload,) = fetched.payloads
    assert payload.label == f"{server.url}/rows?kind=load"
    assert (payload.version, payload.received_time, payload.media_type) == ('"v1"', NOW, "application/json")
    assert (fetched.version, fetched.more) == ('"v1"', False)


@pytest.mark.parametrize(("sent", "asked"), [("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since")])
def test_what_has_not_changed_is_not_sent_again(server: Server, sent: str, asked: str) -> None:
    def step(handler: Handler) -> None:
        if handler.headers[asked] == "Sun, 01 Jun 2025 11:00:00 GMT":
            handler.answer(status=304)
        else:
            handler.answer(json.dumps(ROWS).encode(), **{sent: "Sun, 01 Jun 2025 11:00:00 GMT"})

    server.script = step
    with polling(server) as source:
        first = fetch(source)
        again = fetch(source, first.cursor)
        assert again.payloads == ()
        assert again.cursor is None  # nothing was read, so nothing advances
    # Another question is asked without the first one's tag.
    with polling(server, "/other") as other:
        assert len(fetch(other, first.cursor).payloads) == 1
    with polling(server, layout={"format": "json", "constants": {"x": 1}}) as other:
        assert len(fetch(other, first.cursor).payloads) == 1


def test_the_same_bytes_without_a_tag_are_nothing_new(server: Server) -> None:
    server.script = page(ROWS)
    with polling(server) as source:
        cursor = fetch(source).cursor
        assert fetch(source, cursor).payloads == ()
    with polling(server, conditional=False) as source:
        cursor = fetch(source).cursor
        assert len(fetch(source, cursor).payloads) == 1


def test_no_content_is_an_empty_answer(server: Server) -> None:
    server.script = status(204)
    with polling(server) as source:
        fetched = fetch(source)
    assert fetched.payloads == ()
    assert fetched.cursor is not None


@pytest.mark.parametrize("parts", [1, 2])
def test_gzip_is_undone_and_bounded(server: Server, parts: int) -> None:
    body = json.dumps(ROWS).encode()
    half = len(body) // parts
    zipped = b"".join(gzip.compress(body[i : i + half]) for i in range(0, len(body), half))
    server.script = lambda handler: handler.answer(zipped, Content_Encoding="gzip")
    with polling(server) as source:
        assert rows(source, fetch(source)) == ROWS
    bomb = gzip.compress(b" " * 10_000_000)
    server.script = lambda handler: handler.answer(bomb, Content_Encoding="gzip")
    with polling(server, max_bytes=100_000) as source, pytest.raises(SourceError, match="sends more than 100000 bytes"):
        fetch(source)


def test_an_encoding_that_was_not_asked_for_is_refused(server: Server) -> None:
    server.script = page(ROWS, Content_Encoding="br")
    with (
        polling(server) as source,
        pytest.raises(SourceError, match="sent content-encoding 'br', which was not asked for"),
    ):
        fetch(source)


def test_a_long_body_is_refused_before_it_comes_and_while_it_comes(server: Server) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.released.is_set():
            handler.wfile.write(b" " * 10_000)

    for step in (lambda handler: handler.answer(b" " * 2_000_000), endless):
        server.script = step
        with (
            polling(server, max_bytes=100_000) as source,
            pytest.raises(SourceError, match="sends more than 100000 bytes"),
        ):
            fetch(source)


# ---- faults ----------------------------------------------------------------------------------------------------------


def reset(handler: Handler) -> None:
    handler.reset()


def reset_inside_the_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"plant": "north"')
    handler.wfile.flush()
    handler.reset()


def short_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"plant": "north"}]')  # valid JSON, and yet not all of it
    handler.close_connection = True


def short_chunks(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'14\r\n[{"plant": "north"}]\r\n')
    handler.close_connection = True


def short_gzip(handler: Handler) -> None:
    handler.answer(gzip.compress(json.dumps(ROWS).encode())[:-4], Content_Encoding="gzip")


def no_http(handler: Handler) -> None:
    handler.wfile.write(b"hello\r\n\r\n")
    handler.close_connection = True


FAULTS = [
    reset,
    reset_inside_the_body,
    short_body,
    short_chunks,
    short_gzip,
    no_http,
    status(500),
    status(503),
    status(429),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_asked_over(server: Server, fault: Step) -> None:
    server.script = [fault, fault, page(ROWS)]
    with polling(server) as source:
        assert rows(source, fetch(source)) == ROWS
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (reset, "the connection broke: |the answer was cut off: "),
        (short_body, "the answer was cut off: "),
        (short_chunks, "the answer was cut off: "),
        (short_gzip, r"the answer was cut off inside its gzip data after \d+ bytes"),
        (status(503), "answered 503 Service Unavailable: 'not now'"),
    ],
)
def test_a_fault_that_stays_is_an_error_and_never_a_short_page(server: Server, fault: Step, problem: str) -> None:
    server.script = fault
    with polling(server, attempts=3) as source, pytest.raises(SourceError, match=problem):
        fetch(source)
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [400, 401, 404, 410, 501])
def test_what_asking_again_cannot_mend_is_asked_once(server: Server, code: int) -> None:
    server.script = status(code)
    with polling(server) as source, pytest.raises(SourceError, match=f"answered {code}"):
        fetch(source)
    assert len(server.requests) == 1


def test_the_whole_message(server: Server) -> None:
    server.script = status(401)
    with polling(server, "/rows?page=1", auth={"bearer_env": "TOKEN"}) as source, pytest.raises(SourceError) as caught:
        fetch(source)
    assert str(caught.value) == (
        f"provider 'meter': {server.url}/rows?page=1: answered 401 Unauthorized: 'not now'\n\n"
        "hint: are the credentials in TOKEN right?"
    )


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    source = HttpSource(url=url, **QUICK).open("meter", {})
    with pytest.raises(SourceError, match="cannot connect: "):
        fetch(source)
    source.close()


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    server.script = lambda _: server.released.wait(20) and None
    began = time.monotonic()
    with (
        polling(server, timeout="100ms", attempts=2) as source,
        pytest.raises(SourceError, match="nothing came for 0.1 s"),
    ):
        fetch(source)
    assert time.monotonic() - began < 3


def test_a_server_that_drips_is_given_up_at_the_deadline(server: Server) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.released.wait(0.02):
            handler.wfile.write(b" ")

    server.script = drip
    began = time.monotonic()
    with (
        polling(server, timeout="1s", deadline="300ms") as source,
        pytest.raises(SourceError, match="the deadline passed"),
    ):
        fetch(source)
    assert time.monotonic() - began < 2


# ---- patience --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server: Server, code: int, as_date: bool) -> None:
    # Against the answer's own Date: the provider's clock is years away from ours.
    then = datetime(2031, 1, 1, tzinfo=UTC)
    asks = format_datetime(then + timedelta(seconds=1), usegmt=True) if as_date else "1"

    def busy(handler: Handler) -> None:
        handler.send_response_only(code)
        handler.send_header("Date", format_datetime(then, usegmt=True))
        handler.send_header("Retry-After", asks)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.script = [busy, page(ROWS)]
    began = time.monotonic()
    with polling(server) as source:
        assert rows(source, fetch(source)) == ROWS
    assert 1.0 <= time.monotonic() - began < 4


def test_a_long_retry_after_ends_the_fetch_and_is_kept_to(server: Server) -> None:
    server.script = [status(429, Retry_After="3600"), page(ROWS)]
    with polling(server, longest_wait="1s") as source:
        with pytest.raises(SourceError, match="answered 429 Too Many Requests, asks to wait 3600 s"):
            fetch(source)
        with pytest.raises(CircuitOpenError, match=r"left alone until 2025-06-01T13:00:00\+00:00"):
            fetch(source, now=NOW + timedelta(minutes=59))
        assert len(server.requests) == 1
        assert rows(source, fetch(source, now=NOW + timedelta(hours=1))) == ROWS


def test_a_provider_that_keeps_failing_is_left_alone_then_probed(server: Server) -> None:
    server.script = [status(500)] * 3 + [page(ROWS)]
    with polling(server, attempts=1, failures=2, pause="5m") as source:
        for _ in range(2):
            with pytest.raises(SourceError, match="answered 500"):
                fetch(source)
        with pytest.raises(CircuitOpenError) as caught:
            fetch(source, now=NOW + timedelta(minutes=4))
        assert str(caught.value) == (
            f"provider 'meter': {server.url}/rows: failed 2 times in a row;"
            " it is left alone until 2025-06-01T12:05:00+00:00"
        )
        with pytest.raises(SourceError, match="answered 500"):  # the probe fails
            fetch(source, now=NOW + timedelta(minutes=5))
        with pytest.raises(CircuitOpenError):
            fetch(source, now=NOW + timedelta(minutes=6))
        assert rows(source, fetch(source, now=NOW + timedelta(minutes=10))) == ROWS  # the next one does not
    assert len(server.requests) == 4


@pytest.mark.parametrize("deadline", ["60s", "10s"])
def test_requests_are_kept_apart(server: Server, deadline: str) -> None:
    server.script = numbered([[{"v": 1}], [{"v": 2}]])
    slept: list[float] = []
    settings = {**QUICK, "deadline": deadline, "paging": {"kind": "page_number"}, "rate": {"requests": 1, "per": "7s"}}
    source = HttpSource(url=server.url, **settings).open("meter", {}, monotonic=lambda: sum(slept), sleep=slept.append)
    with contextlib.closing(source):
        if deadline == "60s":
            assert rows(source, fetch(source)) == [{"v": 1}, {"v": 2}]
            assert slept == [7.0, 7.0]
        else:  # the third request could be sent at 14 s only
            with pytest.raises(SourceError, match="the rate limit leaves no time for another request"):
                fetch(source)
            assert slept == [7.0]


# ---- pages -----------------------------------------------------------------------------------------------------------

PAGES = [[{"v": 1}, {"v": 2}], [{"v": 3}, {"v": 4}], [{"v": 5}]]
ALL = [{"v": v} for v in range(1, 6)]


def numbered(pages: list[Any], first: int = 1) -> Step:
    def step(handler: Handler) -> None:
        number = int(handler.asked("page") or first) - first
        page(pages[number] if number < len(pages) else [])(handler)

    return step


def by_offset(handler: Handler) -> None:
    begin, size = int(handler.asked("skip") or 0), int(handler.asked("limit") or 2)
    page({"rows": ALL[begin : begin + size], "total": len(ALL)})(handler)


def by_token(handler: Handler) -> None:
    number = int(handler.asked("after") or 0)
    more = number + 1 < len(PAGES)
    page({"rows": PAGES[number], "meta": {"next": str(number + 1) if more else None}})(handler)


def by_next_link(handler: Handler) -> None:
    number = int(handler.asked("page") or 0)
    page({"rows": PAGES[number], **({"next": f"?page={number + 1}"} if number < 2 else {})})(handler)


def by_link_header(handler: Handler) -> None:
    number = int(handler.asked("page") or 0)
    link = {"Link": f'<{handler.path.partition("?")[0]}?page={number + 1}>; rel="next", </x>; rel="prev"'}
    page(PAGES[number], **(link if number < 2 else {}))(handler)


WAYS: dict[str, tuple[Step, dict[str, Any], str | None, int]] = {
    "page numbers": (numbered(PAGES), {"kind": "page_number"}, None, 4),
    "page numbers from 0": (numbered(PAGES, first=0), {"kind": "page_number", "first": 0}, None, 4),
    "until a short page": (numbered(PAGES), {"kind": "page_number", "size": 2, "stop": "short"}, None, 3),
    "offset": (by_offset, {"kind": "offset", "parameter": "skip", "size": 2, "size_parameter": "limit"}, "rows", 4),
    "offset and total": (by_offset, {"kind": "offset", "parameter": "skip", "total_path": "total"}, "rows", 3),
    "token": (by_token, {"kind": "token", "path": "meta.next", "parameter": "after"}, "rows", 3),
    "next link": (by_next_link, {"kind": "next_link", "path": "next"}, "rows", 3),
    "link header": (by_link_header, {"kind": "link_header"}, None, 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_all_pages_are_read(server: Server, way: str) -> None:
    server.script, paging, records, requests = WAYS[way]
    with polling(server, paging=paging, layout={"format": "json", "records": records}) as source:
        fetched = fetch(source)
        assert rows(source, fetched) == ALL
    assert len(server.requests) == requests
    assert fetched.more is False
    assert fetched.cursor is not None
    assert fetched.cursor["since"] == NOW.isoformat()


@pytest.mark.parametrize("way", WAYS)
def test_a_long_reading_goes_on_where_it_stopped(server: Server, way: str) -> None:
    server.script, paging, records, _ = WAYS[way]
    settings = {"paging": {**paging, "pages_per_fetch": 1}, "layout": {"format": "json", "records": records}}
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(5):
        with polling(server, **settings) as source:  # another process each time
            fetched = fetch(source, cursor)
            found += rows(source, fetched)
            cursor = fetched.cursor
        if not fetched.more:
            break
        assert cursor is not None
        assert cursor["since"] is None  # not yet all of it
    assert found == ALL
    assert cursor is not None
    assert cursor["since"] == NOW.isoformat()


def test_parts_of_a_whole_state_are_no_use(server: Server) -> None:
    server.script = numbered(PAGES)
    paging = {"kind": "page_number", "pages_per_fetch": 2}
    with polling(server, paging=paging, resume=False) as source, pytest.raises(SourceError) as caught:
        fetch(source)
    assert str(caught.value) == (
        f"provider 'meter': {server.url}/rows: there is more than one fetch takes (2 pages so far), and parts are no use"
        " here\n\nhint: raise max_bytes, or pages_per_fetch of its paging."
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("broken", [1, 2])
def test_a_page_that_fails_fails_the_fetch_and_a_fault_that_passes_does_not(
    server: Server, way: str, broken: int
) -> None:
    step, paging, records, _ = WAYS[way]
    settings = {"paging": paging, "layout": {"format": "json", "records": records}}
    for fault in FAULTS:
        server.script = [step] * broken + [fault, step]
        server.requests.clear()
        with polling(server, **settings) as source:
            assert rows(source, fetch(source)) == ALL
    server.script = [step] * broken + [status(500)]
    server.requests.clear()
    with polling(server, **settings) as source, pytest.raises(SourceError, match="answered 500"):
        fetch(source)


def test_a_repeated_page_is_asked_for_again(server: Server) -> None:
    true, wrong = numbered(PAGES), page(PAGES[0])
    server.script = [true, wrong, wrong, true]
    with polling(server, paging={"kind": "page_number"}) as source:
        assert rows(source, fetch(source)) == ALL


def test_pages_that_never_end_are_an_error(server: Server) -> None:
    server.script = page(PAGES[0])  # a server that does not know the parameter
    with polling(server, paging={"kind": "page_number"}) as source, pytest.raises(SourceError) as caught:
        fetch(source)
    assert str(caught.value) == (
        f"provider 'meter': {server.url}/rows: page 2 repeats an earlier one\n\n"
        "hint: does the provider know the paging parameter? If it ends that way, say stop: same."
    )
    with polling(server, paging={"kind": "page_number", "stop": "same"}) as source:
        assert rows(source, fetch(source)) == PAGES[0]
    # Links that go round: a, b, a.
    server.script = lambda handler: page({"at": handler.path, "next": "/b" if handler.path == "/a" else "/a"})(handler)
    with (
        polling(server, "/a", paging={"kind": "next_link", "path": "next"}) as source,
        pytest.raises(SourceError, match="page 2 leads back to an earlier one|page 3 repeats an earlier one"),
    ):
        fetch(source)


def test_an_unreadable_page_is_handed_on_and_the_cursor_stays(server: Server) -> None:
    server.script = [numbered(PAGES), lambda handler: handler.answer(b"<html>sorry</html>")]
    with polling(server, paging={"kind": "page_number"}) as source:
        fetched = fetch(source)
        assert source.parse(fetched.payloads[0]).to_dicts() == PAGES[0]
        with pytest.raises(PayloadError, match="not JSON at character 0: '<html>sorry</html>'"):
            source.parse(fetched.payloads[1])
    assert fetched.cursor is None


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_corrections_are_looked_back_for(server: Server) -> None:
    server.script = page(ROWS)
    settings = {"start": "30d", "look_back": "7d", "params": {"from": "{since}", "to": "{until}"}}
    with polling(server, **settings) as source:
        cursor = fetch(source).cursor
        fetch(source, cursor, now=NOW + timedelta(days=1))
        with contextlib.suppress(SourceError):
            server.script = status(404)
            fetch(source, cursor, now=NOW + timedelta(days=2))
    assert [path for path, _ in server.requests] == [
        "/rows?from=2025-05-02T12%3A00%3A00Z&to=2025-06-01T12%3A00%3A00Z",
        "/rows?from=2025-05-25T12%3A00%3A00Z&to=2025-06-02T12%3A00%3A00Z",
        "/rows?from=2025-05-25T12%3A00%3A00Z&to=2025-06-03T12%3A00%3A00Z",
    ]


def test_long_spans_are_read_window_by_window(server: Server) -> None:
    server.script = page([])
    settings = {"start": "2025-05-30T00:00:00Z", "window": "1d", "instants": {"format": "date"}}
    with polling(server, "/{since}/{until}", **settings) as source:
        fetched = fetch(source)
        while fetched.more:
            fetched = fetch(source, fetched.cursor)
    assert [path for path, _ in server.requests] == [
        "/2025-05-30/2025-05-31",
        "/2025-05-31/2025-06-01",
        "/2025-06-01/2025-06-01",
    ]


@pytest.mark.parametrize(
    ("style", "written"),
    [
        ({"format": "epoch_s"}, "1748779200"),
        ({"format": "epoch_ms"}, "1748779200000"),
        ({"format": "date", "zone": "Pacific/Auckland"}, "2025-06-02"),
        ({"format": "strftime", "pattern": "%d.%m.%Y-%H.%M", "zone": "Europe/Berlin"}, "01.06.2025-14.00"),
    ],
)
def test_instants_are_written_as_the_provider_wants_them(server: Server, style: dict[str, str], written: str) -> None:
    server.script = page([])
    with polling(server, "/{until}", instants=style) as source:
        fetch(source)
    assert server.requests[0][0] == f"/{written}"


def test_a_whole_state_says_of_when_it_tells(server: Server) -> None:
    server.script = page({"at": "2025-06-01T11:59:00Z", "rows": ROWS})
    with polling(server, layout={"format": "json", "records": "rows", "state_time": {"path": "at"}}) as source:
        assert fetch(source).state_time == NOW - timedelta(minutes=1)


# ---- other hosts, and secrets ----------------------------------------------------------------------------------------


def test_redirects_stay_on_the_host(server: Server) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    step: Step = lambda handler: (  # noqa: E731
        page(ROWS)(handler) if handler.path == "/end" else handler.answer(status=302, Location="/end")
    )
    server.script = step
    with polling(server) as source:
        assert rows(source, fetch(source)) == ROWS
    server.script = lambda handler: handler.answer(status=302, Location=f"{elsewhere}/end?token=x")
    with polling(server) as source, pytest.raises(SourceError) as caught:
        fetch(source)
    assert f"led to another host, {elsewhere}/end?token=***\n\nhint: if that is right: hosts: [localhost]." in str(
        caught.value
    )
    server.script = lambda handler: handler.answer(status=301, Location="/rows")
    with polling(server) as source, pytest.raises(SourceError, match="redirected more than 5 times"):
        fetch(source)
    for target, problem in (("file:///etc/passwd", "no web address"), ("http://[", "led to another host")):
        server.script = lambda handler, target=target: handler.answer(status=302, Location=target)  # type: ignore[misc]
        with polling(server) as source, pytest.raises(SourceError, match=problem):
            fetch(source)


AUTHS: dict[str, dict[str, Any]] = {
    "bearer": {"bearer_env": "TOKEN"},
    "basic": {"basic_env": ("USER_NAME", "TOKEN")},
    "header": {"header_env": {"X-Api-Key": "TOKEN"}},
    "query": {"query_env": {"key": "TOKEN"}},
}


@pytest.mark.parametrize("auth", AUTHS)
def test_credentials_reach_the_provider_and_no_other_host(server: Server, auth: str) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.script = [lambda handler: handler.answer(status=302, Location=f"{elsewhere}/end"), page(ROWS)]
    with polling(server, auth=AUTHS[auth], hosts=("localhost",)) as source:
        assert rows(source, fetch(source)) == ROWS
    (first, first_headers), (second, second_headers) = server.requests
    sent = {
        "bearer": first_headers.get("Authorization") == f"Bearer {SECRET}",
        "basic": first_headers.get("Authorization") == "Basic YW5uOnMzY3IzdC93aXRoK29kZD1jaGFycw==",
        "header": first_headers.get("X-Api-Key") == SECRET,
        "query": parse_qs(urlsplit(first).query).get("key") == [SECRET],
    }
    assert sent[auth]
    assert second == "/end"
    assert not {"Authorization", "X-Api-Key"} & set(second_headers)


def test_the_provider_itself_keeps_its_credentials_over_pages(server: Server) -> None:
    # The provider repeats the key in its links, as some do.
    server.script = lambda handler: page(
        {
            "rows": PAGES[int(handler.asked("page") or 0)],
            "next": f"{server.url}{handler.path.partition('&page')[0]}&page=1"
            if handler.asked("page") is None
            else None,
        }
    )(handler)
    settings = {"paging": {"kind": "next_link", "path": "next", "pages_per_fetch": 1}, "auth": AUTHS["query"]}
    with polling(server, "/rows?a=b", layout={"format": "json", "records": "rows"}, **settings) as source:
        first = fetch(source)
        second = fetch(source, first.cursor)
        assert rows(source, first) + rows(source, second) == PAGES[0] + PAGES[1]
    assert all(parse_qs(urlsplit(path).query)["key"] == [SECRET] for path, _ in server.requests)
    assert SECRET not in repr((first, second))
    assert "s3cr3t" not in json.dumps([first.cursor, second.cursor])


@pytest.mark.parametrize("auth", AUTHS)
def test_credentials_are_nowhere_to_be_read(server: Server, auth: str, caplog: pytest.LogCaptureFixture) -> None:
    """All that comes out of the source is searched: messages, tracebacks, reprs, logs, labels, cursors."""
    caplog.set_level(logging.DEBUG)
    said = io.StringIO()

    def echo(code: int) -> Step:
        def step(handler: Handler) -> None:
            shown = f"you sent {handler.path} {handler.headers}"
            handler.answer(json.dumps([{"v": 1}]).encode() if code == 200 else shown.encode(), code, ETag=f'"{SECRET}"')

        return step

    def echo_redirect(handler: Handler) -> None:
        handler.answer(status=302, Location=f"http://other.invalid{handler.path}&again={SECRET}")

    steps = [echo(200), echo(400), echo(500), echo(429), echo_redirect, reset, short_body, short_gzip, no_http]
    for step in steps:
        server.script = step
        with polling(server, "/rows?page=1", auth=AUTHS[auth], attempts=2, timeout="500ms") as source:
            try:
                fetched = fetch(source)
            except SourceError as error:
                traceback.print_exception(error, file=said)
                print(repr(error), vars(error), file=said)
            else:
                labels = [(payload.label, payload.version, payload.media_type) for payload in fetched.payloads]
                print(fetched.cursor, labels, file=said)
            print(source, repr(source), repr(source._client), vars(source), vars(source._declared), file=said)
    declared = HttpSource(url=server.url, auth=AUTHS[auth])
    print(declared, repr(declared), declared.model_dump_json(), file=said)
    with pytest.raises(SourceError) as caught:
        declared.open("meter", {"TOKEN": SECRET, "USER_NAME": ""} if auth == "basic" else {})
    traceback.print_exception(caught.value, file=said)
    text = said.getvalue() + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "answered 400" in text
    for shape in (SECRET, "s3cr3t", "with%2Bodd", "YW5uOnMzY3IzdC93aXRoK29kZD1jaGFycw"):
        assert shape not in text


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("window", [None, "20m"])
@pytest.mark.parametrize("ahead_for", [range(3, 4), range(3, 10), range(3, 20), range(18)])
def test_a_clock_that_was_an_hour_ahead_for_a_while_loses_no_rows(
    server: Server, monkeypatch: pytest.MonkeyPatch, dated: bool, window: str | None, ahead_for: range
) -> None:
    """Each poll asks for what came since; the provider has a row every five minutes, and its clock is right."""
    real = NOW
    made: list[datetime] = []
    stored: set[str] = set()

    def serve(handler: Handler) -> None:
        since, until = (datetime.fromisoformat(str(handler.asked(name))) for name in ("since", "until"))
        rows = [at.isoformat() for at in made if since <= at <= until]
        handler.answer(json.dumps(rows).encode())

    told = (lambda *_: format_datetime(real, usegmt=True)) if dated else (lambda *_: "")
    monkeypatch.setattr(Handler, "date_time_string", told)
    server.script = serve
    cursor: dict[str, Any] | None = None
    now = NOW
    settings = {
        "start": (NOW - timedelta(minutes=30)).isoformat(),
        "window": window,
        "params": {"since": "{since}", "until": "{until}"},
    }
    source = HttpSource(**{"url": server.url, **QUICK, **settings}).open("meter", {}, clock=lambda: now)
    with contextlib.closing(source):
        for number in range(28):
            real = NOW + timedelta(minutes=5 * number)
            made.append(real - timedelta(minutes=1))
            now = real + timedelta(hours=1 if number in ahead_for else 0)
            for _ in range(20):
                fetched = source.fetch(Progress(cursor=json.loads(json.dumps(cursor))), now=now)
                cursor = fetched.cursor or cursor
                stored.update(*(json.loads(payload.content) for payload in fetched.payloads))
                if not fetched.more:
                    break
            else:
                pytest.fail("there is always more at once")
        assert stored == {at.isoformat() for at in made}
