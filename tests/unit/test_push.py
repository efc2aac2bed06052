"""`POST /observations/{provider}`: what is taken, what is refused and why, and that the answer means durable."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from ingestion.errors import ProviderError
from ingestion.providers import Provider, PushSource
from ingestion.push import PushApp, PushLimits
from ingestion.sources.layout import Layout, TimeFormat
from ingestion.spool import Flusher, LogSink, Spool, SpoolLimits
from ingestion.spool.disk import Disk

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
ROW = {"station": "mast", "event_time": "2026-01-05T09:50:00Z", "temp": 1.5}
ARROW = "application/vnd.apache.arrow.stream"


def provider(name: str = "weather", **source: Any) -> Provider:
    return Provider(
        name=name,
        entities=("station",),
        contract={"columns": {"station": "String", "temp": "Float64"}},
        source=PushSource(**source),
    )


class Desk:
    """A spool, the application before it and the logs behind it."""

    def __init__(self, folder: Path, *providers: Provider, disk: Disk | None = None, **how: Any) -> None:
        self.folder = folder
        self.providers = {each.name: each for each in providers or (provider(),)}
        limits = how.pop("spool_limits", None)
        self.spool = Spool(folder / "spool", limits=limits, disk=disk, clock=lambda: NOW)
        self.answers: list[tuple[str, int, int]] = []
        how.setdefault("environment", {})
        self.app = PushApp(
            self.spool, self.providers, clock=lambda: NOW, on_answer=lambda *told: self.answers.append(told), **how
        )

    def post(
        self,
        content: Any = None,
        *,
        path: str = "/observations/weather",
        host: str = "127.0.0.1",
        client: str = "127.0.0.1",
        method: str = "POST",
        **headers: str,
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named.setdefault("Content-Type", "application/json")

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(client, 5))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as web:
                return await web.request(method, path, content=body, headers=named)

        return asyncio.run(ask())

    def flush(self) -> None:
        flusher = Flusher(self.spool, lambda name: LogSink(self.providers[name], self.log(name), clock=lambda: NOW))
        for part in flusher.flush():
            assert part.error is None, part.error

    def log(self, name: str = "weather") -> Any:
        return self.providers[name].open(self.folder / "logs", clock=lambda: NOW)

    def rows(self, name: str = "weather") -> list[tuple[Any, ...]]:
        self.flush()
        return self.log(name).scan().collect().sort("log_sequence").select("station", "event_time", "temp").rows()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.spool.close()


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(*providers: Provider, **how: Any) -> Desk:
        made.append(Desk(tmp_path / str(len(made)), *providers, **how))
        return made[-1]

    yield make
    for each in made:
        each.spool.close()


def at(minute: int) -> datetime:
    return datetime(2026, 1, 5, 9, minute, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------------ what is taken


def test_one_row_is_taken_and_comes_into_the_log(desk: Desk) -> None:
    answer = desk.post(ROW)
    assert answer.status_code == 202
    told = answer.json()
    assert told["accepted"] == 1
    assert told["received_time"] == "2026-01-05T10:00:00+00:00"
    assert desk.rows() == [("mast", at(50), 1.5)]
    frame = desk.log().polls()
    assert frame.select("source", "outcome", "new", "batch_id").rows() == [("push", "rows", 1, told["batch"])]
    assert desk.answers == [("weather", 202, 1)]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        ([ROW, {**ROW, "temp": 2}], "application/json"),
        ({"rows": [ROW, {**ROW, "temp": 2}]}, "application/json; charset=utf-8"),
        (b"\n".join(json.dumps({**ROW, "temp": t}).encode() for t in (1.5, 2)) + b"\n\n", "application/x-ndjson"),
        ([ROW, {**ROW, "temp": 2}], "application/vnd.example+json"),
    ],
)
def test_many_rows_in_json(desk: Desk, content: Any, media_type: str) -> None:
    assert desk.post(content, Content_Type=media_type).json()["accepted"] == 2
    assert desk.rows() == [("mast", at(50), 1.5), ("mast", at(50), 2.0)]


@pytest.mark.parametrize("form", ["stream", "file"])
def test_many_rows_in_arrow(desk: Desk, form: str) -> None:
    frame = pl.DataFrame({"station": ["mast", "hut"], "event_time": [at(50), at(40)], "temp": [1.5, None]})
    buffer = io.BytesIO()
    (frame.write_ipc_stream if form == "stream" else frame.write_ipc)(buffer)
    answer = desk.post(buffer.getvalue(), Content_Type=f"application/vnd.apache.arrow.{form}")
    assert answer.json()["accepted"] == 2
    assert desk.rows() == [("mast", at(50), 1.5), ("hut", at(40), None)]


def test_forms_are_stored_in_the_order_in_which_they_came(desk: Desk) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"station": ["mast"], "event_time": [at(50)], "temp": [2.0]}).write_ipc_stream(buffer)
    desk.post(ROW)
    desk.post(buffer.getvalue(), Content_Type=ARROW)
    desk.post({**ROW, "temp": 3})
    assert [row[2] for row in desk.rows()] == [1.5, 2.0, 3.0]


def test_gzip_is_seen_through(desk: Desk) -> None:
    parts = gzip.compress(b"[" + json.dumps(ROW).encode()) + gzip.compress(b"]", mtime=0)  # two members
    assert desk.post(parts, Content_Encoding="gzip").status_code == 202
    assert len(desk.rows()) == 1


@pytest.mark.parametrize(("content", "media_type"), [([], "application/json"), (b"", "application/x-ndjson")])
def test_an_empty_list_is_a_sign_of_life(desk: Desk, content: Any, media_type: str) -> None:
    assert desk.post(content, Content_Type=media_type).json()["accepted"] == 0
    desk.flush()
    assert desk.log().polls()["outcome"].to_list() == ["empty"]
    assert desk.log().observed_through() is not None


def test_a_layout_names_columns_and_instants(desks: Callable[..., Desk]) -> None:
    layout = Layout(
        records="data.items",
        columns={"station": "id", "event_time": "t", "temp": "values.temp"},
        times={"event_time": TimeFormat(format="epoch_s")},
    )
    desk = desks(provider(layout=layout))
    body = {"data": {"items": [{"id": "mast", "t": at(50).timestamp(), "values": {"temp": 1.5}}]}}
    assert desk.post(body).json()["accepted"] == 1
    assert desk.rows() == [("mast", at(50), 1.5)]
    missing = desk.post({"data": {}})
    assert missing.status_code == 400
    assert "no rows at 'data.items': there is no 'items'" in missing.json()["error"]


def test_a_layout_that_needs_the_whole_document(desks: Callable[..., Desk]) -> None:
    columns = {"station": "$.station", "event_time": "at", "temp": "t"}
    desk = desks(provider(layout=Layout(records="rows", columns=columns)))
    body = {"station": "mast", "rows": [{"at": "2026-01-05T09:50:00Z", "t": 1.5}]}
    assert desk.post(body).json()["accepted"] == 1
    assert desk.rows() == [("mast", at(50), 1.5)]


def test_rows_that_break_the_contract_go_to_quarantine_and_the_rest_goes_on(desk: Desk) -> None:
    desk.post([ROW, {**ROW, "temp": "warm"}, {"station": None, "event_time": "2026-01-05T09:50:00Z", "temp": 1}])
    desk.post({**ROW, "event_time": "noon"})
    assert desk.rows() == [("mast", at(50), 1.5)]
    reasons = desk.log().quarantine()["reason"].to_list()
    assert len(reasons) == 3
    assert any("temp" in reason for reason in reasons)


def test_senders_do_not_stamp(desk: Desk) -> None:
    early = "2020-01-01T00:00:00Z"
    desk.post({**ROW, "received_time": early, "arrival_time": early, "arrival_kind": "declared"})
    desk.flush()
    row = desk.log().scan().collect().row(0, named=True)
    assert row["arrival_time"] >= NOW
    assert row["arrival_kind"] == "measured"


def test_numbers_that_no_type_holds_are_not_rounded(desk: Desk) -> None:
    assert desk.post(
        b'{"station":"mast","event_time":"2026-01-05T09:50:00Z","temp":1,"id":123456789012345678901234567890}'
    )
    assert len(desk.rows()) == 1


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "media_type", "said"),
    [
        (b"", "application/json", "empty where JSON was expected"),
        (b'{"a": 1', "application/json", "truncated, after 7 bytes"),
        (b'[{"a": 1}, x]', "application/json", "invalid character at byte 11, near '[{\"a\": 1}, x]'"),
        (b'[{"a": NaN}]', "application/json", "invalid character at byte 7"),
        (b"[1, 2]", "application/json", "row 1 is not an object: 1"),
        (b'[{"a": 1}, "b"]', "application/json", 'row 2 is not an object: "b"'),
        (b'"text"', "application/json", 'row 1 is not an object: "text"'),
        (b'{"a": 1}\n{"a":\n{"a": 3}', "application/x-ndjson", "line 2: Input data was truncated"),
        (b'{"a": 1}\n{"a": 2}\n7', "application/x-ndjson", "line 3 is not an object: 7"),
        (b'{"a": "\xff"}', "application/json", "not UTF-8 at byte 7"),
        (b'{"log_sequence": 1}', "application/json", "row 1 has a field 'log_sequence', which only the log fills"),
        (b"[" * 100_000, "application/json", "nested too deeply"),
        (b"nonsense", ARROW, "not whole Arrow IPC"),
        (b"", ARROW, "empty where Arrow was expected"),
        (b"ARROW1\0\0nonsense", ARROW, "not whole Arrow IPC"),
    ],
)
def test_malformed_bodies_name_the_place(desk: Desk, content: bytes, media_type: str, said: str) -> None:
    answer = desk.post(content, Content_Type=media_type)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert desk.spool.usage().records == 0


def test_arrow_that_was_tampered_with_is_refused_or_harmless(desk: Desk) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"station": ["mast"] * 50, "event_time": [at(50)] * 50, "temp": [1.5] * 50}).write_ipc_stream(buffer)
    whole = buffer.getvalue()
    for place in range(0, len(whole), 37):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        assert desk.post(bytes(changed), Content_Type=ARROW).status_code in (202, 400)
    for cut in range(0, len(whole), 101):
        assert desk.post(whole[:cut], Content_Type=ARROW).status_code in (202, 400)
    desk.flush()  # whatever was taken can be stored or set aside


def test_a_body_that_is_too_large(desks: Callable[..., Desk]) -> None:
    desk = desks(provider(max_bytes=1_000), limits=PushLimits(swell=2))
    answer = desk.post(b"[" + b" " * 1_000 + b"]")
    assert (answer.status_code, answer.json()["error"]) == (413, "a body may have 1,000 bytes")
    bomb = gzip.compress(b"[" + b" " * 1_000_000 + b"]", mtime=0)
    assert len(bomb) > 1_000 or desk.post(bomb, Content_Encoding="gzip").status_code == 413
    bomb = gzip.compress(b"[" + b" " * 100_000 + b"]", mtime=0)
    answer = desk.post(bomb, Content_Encoding="gzip")
    assert (answer.status_code, answer.json()["error"]) == (413, "a body may become 2,000 bytes")


def test_a_body_without_a_length_is_cut_off_when_it_gets_too_large(desks: Callable[..., Desk]) -> None:
    desk = desks(provider(max_bytes=1_000))
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * 100, "more_body": True}

    sent = raw(desk, receive)
    assert sent[0]["status"] == 413
    assert asked == 11  # and not a byte more is read
    assert desk.app._held == 0


def test_bodies_that_are_held_together_are_bounded(desks: Callable[..., Desk]) -> None:
    desk = desks(limits=PushLimits(together=500))
    answer = desk.post(b" " * 501)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"


def test_a_sender_that_leaves_has_sent_nothing(desk: Desk) -> None:
    messages = iter(
        [{"type": "http.request", "body": json.dumps(ROW).encode(), "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    assert raw(desk, receive) == []
    assert desk.spool.usage().records == 0
    assert desk.answers == [("weather", 499, 0)]


def raw(desk: Desk, receive: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/observations/weather",
        "client": ("127.0.0.1", 5),
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(desk.app(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Content_Type": "text/csv"}, "Content-Type 'text/csv' is not taken"),
        ({"Content_Type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"Content_Type": ""}, "there is no Content-Type"),
        ({"Content_Type": "application/json; charset=latin-1"}, "charset 'latin-1' is not taken"),
        ({"Content_Encoding": "br"}, "Content-Encoding 'br' is not taken"),
    ],
)
def test_what_is_not_understood_is_said(desk: Desk, headers: dict[str, str], said: str) -> None:
    answer = desk.post(ROW, **headers)
    assert answer.status_code == 415
    assert said in answer.json()["error"]


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"[]", mtime=0)[:-4], gzip.compress(b"[]", mtime=0)[:5]])
def test_gzip_that_is_damaged_or_cut_off(desk: Desk, content: bytes) -> None:
    assert desk.post(content, Content_Encoding="gzip").status_code == 400


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/observations/wether", "did you mean 'weather'?"),
        ("/observations/zzz", "those that take rows are 'weather'."),
        ("/observations/", "POST to /observations/PROVIDER."),
        ("/observations/weather/", "POST to /observations/PROVIDER."),
        ("/observations/../weather", "PROVIDER"),
        ("/observations/%2e%2e%2fweather", "PROVIDER"),
        ("/observations/weather%2Fx", "PROVIDER"),
        ("/observations/weather%00", "PROVIDER"),
        ("/observations/weather%0a", "PROVIDER"),
    ],
)
def test_paths_that_are_no_provider(desk: Desk, path: str, said: str) -> None:
    answer = desk.post(ROW, path=path)
    assert answer.status_code == 404
    assert said in answer.json()["hint"]


def test_a_provider_that_is_polled_takes_no_rows(desks: Callable[..., Desk]) -> None:
    silent = Provider(name="files", entities=("station",))
    answer = desks(provider(), silent).post(ROW, path="/observations/files")
    assert (answer.status_code, answer.json()["error"]) == (404, "provider 'files' takes no pushed rows")


def test_only_post(desk: Desk) -> None:
    answer = desk.post(b"", method="GET")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# ----------------------------------------------------------------------------------------------------- who may send


def test_tokens(desks: Callable[..., Desk]) -> None:
    two = provider("weather", token_env="A"), provider("load", token_env="B")
    desk = desks(*two, provider("open"), environment={"A": "token-a", "B": "token-b"})
    assert desk.post(ROW, Authorization="Bearer token-a").status_code == 202
    assert desk.post(ROW, Authorization="bearer token-a", client="10.0.0.9", host="store.example").status_code == 202
    nothing = desk.post(ROW)
    assert nothing.status_code == 401
    assert nothing.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer token-x", "Bearer ", "Basic token-a", "Bearer token-a2"):
        assert desk.post(ROW, Authorization=wrong).status_code == 401, wrong
    others = desk.post(ROW, Authorization="Bearer token-b")
    assert (others.status_code, others.json()["error"]) == (403, "this token is not for provider 'weather'")
    assert "token-a" not in nothing.text + others.text


def test_who_may_not_send_does_not_learn_names(desks: Callable[..., Desk]) -> None:
    desk = desks(provider(token_env="A"), environment={"A": "token-a"})
    far = {"client": "10.0.0.9", "host": "store.example"}
    unknown = desk.post(ROW, path="/observations/wether", **far)
    assert unknown.status_code == 401
    assert "weather" not in unknown.text
    known = desk.post(ROW, path="/observations/wether", Authorization="Bearer token-a", **far)
    assert (known.status_code, known.json()["hint"]) == (404, "did you mean 'weather'?")


def test_without_a_token_rows_are_taken_from_this_machine_only(desk: Desk) -> None:
    assert desk.post(ROW, host="localhost:8321").status_code == 202
    assert desk.post(ROW, host="[::1]:8321", client="::1").status_code == 202
    far = desk.post(ROW, client="10.0.0.9", host="store.example")
    assert far.status_code == 403
    assert "token_env: PUSH_TOKEN" in far.json()["hint"]
    rebound = desk.post(ROW, host="evil.example")  # a web page whose name was made to point here
    assert rebound.status_code == 403


def test_a_token_that_is_not_set_is_an_error_at_the_start(desks: Callable[..., Desk]) -> None:
    with pytest.raises(ProviderError, match="the environment variable 'A' is not set"):
        desks(provider(token_env="A"), environment={})


# ------------------------------------------------------------------------------------------- keys, limits, durability


def test_the_same_key_gets_the_same_answer(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = desk.post(ROW, Idempotency_Key="k1")
    assert desk.post(ROW, Idempotency_Key="k1").json() == first.json()
    other = desk.post({**ROW, "temp": 2}, Idempotency_Key="k1")
    assert (other.status_code, "came before with other content" in other.json()["error"]) == (422, True)
    desk.spool.close()
    desk = Desk(tmp_path)  # a restart
    assert desk.post(ROW, Idempotency_Key="k1").json() == first.json()
    assert len(desk.rows()) == 1  # a flush
    assert desk.post(ROW, Idempotency_Key="k1").json() == first.json()
    desk.spool.close()
    desk = Desk(tmp_path)
    assert desk.post(ROW, Idempotency_Key="k1").json() == first.json()
    assert len(desk.rows()) == 1
    desk.spool.close()


@pytest.mark.parametrize("key", ["", "x" * 256, "with space"])
def test_keys_that_are_none(desk: Desk, key: str) -> None:
    assert desk.post(ROW, Idempotency_Key=key).status_code == 400


def test_a_full_spool_asks_to_wait(desks: Callable[..., Desk]) -> None:
    desk = desks(spool_limits=SpoolLimits(records=1))
    assert desk.post(ROW).status_code == 202
    full = desk.post(ROW)
    assert (full.status_code, full.headers["retry-after"]) == (429, "1")
    assert len(desk.rows()) == 1
    assert desk.post({**ROW, "temp": 3}).status_code == 202


class SlowDisk(Disk):
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def sync(self, file: int) -> None:
        self.gate.wait(10)
        if self.fails:
            raise OSError("no space left")
        super().sync(file)


def test_nothing_is_answered_before_it_is_durable(desks: Callable[..., Desk]) -> None:
    disk = SlowDisk()
    desk = desks(disk=disk)
    desk.post(ROW)
    disk.gate.clear()
    answers: list[httpx.Response] = []
    sender = threading.Thread(target=lambda: answers.append(desk.post(ROW)))
    sender.start()
    sender.join(0.3)
    assert answers == []
    disk.gate.set()
    sender.join(10)
    assert answers[0].status_code == 202


def test_a_full_disk_is_said_and_the_next_row_is_taken(desks: Callable[..., Desk]) -> None:
    disk = SlowDisk()
    desk = desks(disk=disk)
    disk.fails = True
    answer = desk.post(ROW, Idempotency_Key="k")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    disk.fails = False
    assert desk.post(ROW, Idempotency_Key="k").status_code == 202
    assert len(desk.rows()) == 1


def test_a_job_that_stops_says_so(desk: Desk) -> None:
    desk.spool.close()
    assert desk.post(ROW).status_code == 503
