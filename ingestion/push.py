"""`POST /observations/{provider}`: rows that providers send by themselves, answered when they are durable. Bare ASGI."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import hmac
import ipaddress
import math
import os
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ingestion.errors import (
    KeyReusedError,
    MissingLibraryError,
    PayloadError,
    ProviderError,
    SpoolError,
    SpoolFullError,
    SpoolWriteError,
)
from ingestion.instants import Clock, from_us, system_clock, to_us
from ingestion.spool.flush import batch_name
from ingestion.spool.frames import Header, Record
from ingestion.spool.wal import Receipt, Spool

try:
    import msgspec

    from ingestion.spool.bodies import ARROW, JSON, LINES, Body, read_body
except ImportError as error:  # pragma: no cover - the extra is installed where tests run
    raise MissingLibraryError(error.name or "msgspec", "ingest", "receiving rows over HTTP") from error

if TYPE_CHECKING:
    from ingestion.providers.provider import Provider
    from ingestion.sources.layout import Layout

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATH: Final = re.compile(r"/observations/(?P<provider>[A-Za-z0-9][A-Za-z0-9_.-]*)")
_TAKEN: Final = JSON | LINES | ARROW
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost"})
_IN_A_THREAD: Final = 1 << 20
_MOST_BYTES: Final = 8_000_000
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class PushLimits:
    """What a sender may send.

    Attributes:
        swell: How many times greater a compressed body may become.
        together: How many bytes of bodies are held at a time.
        retry_after: Seconds that a sender is asked to wait when too much waits for the logs.
    """

    swell: int = 16
    together: int = 256_000_000
    retry_after: float = 1.0


class _RefusalError(Exception):
    """An answer other than 202."""

    def __init__(
        self, status: int, problem: str, hint: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.status, self.problem, self.hint, self.headers = status, problem, hint, headers
        super().__init__(problem)


class _UnauthorizedError(_RefusalError):
    """The sender did not show who it is."""

    def __init__(self, problem: str) -> None:
        asked = (b"www-authenticate", b'Bearer realm="asknown"')
        super().__init__(401, problem, "send it as: Authorization: Bearer TOKEN.", (asked,))


class _TooLargeError(_RefusalError):
    """More than the provider takes at a time."""

    def __init__(self, most: int) -> None:
        headers = ((b"connection", b"close"),)
        super().__init__(413, f"a body may have {most:,} bytes", "send it in parts.", headers)


class _GoneError(Exception):
    """The sender left before its body was whole."""


@dataclass(frozen=True, slots=True)
class _Target:
    """A provider that takes pushed rows."""

    name: str
    layout: Layout
    token: bytes | None
    most: int


class PushApp:
    """The application.

    Args:
        spool: Where rows are kept until they are in a log.
        providers: Those that take pushed rows, by name; others may be among them and are not offered.
        environment: Where bearer tokens are looked up by the names that providers give; that of the process if `None`.
        limits: What a sender may send.
        clock: Something that tells now.
        on_answer: Told the provider (empty if there is none), the status and the rows of each request.

    Raises:
        ProviderError: If a provider names an environment variable that is not set.
    """

    def __init__(
        self,
        spool: Spool,
        providers: Mapping[str, Provider],
        *,
        environment: Mapping[str, str] | None = None,
        limits: PushLimits | None = None,
        clock: Clock | None = None,
        on_answer: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._spool = spool
        self._limits = limits or PushLimits()
        self._clock = clock or system_clock
        self._on_answer = on_answer or (lambda _provider, _status, _rows: None)
        known = os.environ if environment is None else environment
        self._targets = {
            name: _target(provider, known)
            for name, provider in providers.items()
            if getattr(provider.source, "kind", None) == "push"
        }
        self._others = {name for name in providers if name not in self._targets}
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        found = PATH.fullmatch(scope["path"])
        name = found["provider"] if found else ""
        rows = 0
        try:
            answer = await self._take(name, scope, receive)
            rows = answer["accepted"]
            await _send(send, 202, answer)
            status = 202
        except _RefusalError as refusal:
            status = refusal.status
            told = {"error": refusal.problem} | ({"hint": refusal.hint} if refusal.hint else {})
            await _send(send, status, told, refusal.headers)
        except _GoneError:
            status = 499
        self._on_answer(name if name in self._targets else "", status, rows)

    async def _take(self, name: str, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = _headers(scope)
        target = self._authorized(name, scope, headers)
        if scope["method"] != "POST":
            raise _RefusalError(405, f"{scope['path']} is for POST", headers=((b"allow", b"POST"),))
        media_type = _media_type(headers)
        key = _key(headers)
        content = await self._content(target, headers, receive)
        received_us = to_us(self._clock())
        body = await self._read(content, media_type, target)
        header = Header(
            provider=target.name,
            source="push",
            received_us=received_us,
            rows=body.rows,
            form=body.form,
            media_type=body.media_type,
            key=key,
            digest=hashlib.blake2b(content, digest_size=16, person=b"asknown").hexdigest() if key else "",
        )
        receipt = await self._keep(Record(header, body.content))
        return {
            "accepted": receipt.rows,
            "batch": batch_name(receipt.segment, target.name),
            "received_time": from_us(receipt.received_us).isoformat(),
        }

    # ---------------------------------------------------------------------------------------------------------- asking

    def _authorized(self, name: str, scope: Scope, headers: Mapping[str, str]) -> _Target:
        """The provider that is meant, if this sender may send its rows.

        Raises:
            _UnauthorizedError: If it does not show a token, or a wrong one.
            _RefusalError: If it may not, or there is no such provider.
        """
        target = self._targets.get(name)
        shown = _bearer(headers)
        if target is not None and target.token is not None:
            if shown is None:
                raise _UnauthorizedError("a bearer token is needed")
            if not hmac.compare_digest(shown, target.token):
                if self._is_known(shown):
                    raise _RefusalError(403, f"this token is not for provider {name!r}")
                raise _UnauthorizedError("the bearer token is not right")
            return target
        if not _is_local(scope, headers) and (target is not None or shown is None or not self._is_known(shown)):
            if target is None:
                raise _UnauthorizedError("a bearer token is needed")
            raise _RefusalError(
                403,
                f"provider {name!r} has no token, so its rows are taken from this machine only",
                "name an environment variable that has one: source: {kind: push, token_env: PUSH_TOKEN}.",
            )
        if target is None:
            raise self._unknown(name, scope)
        return target

    def _is_known(self, shown: bytes) -> bool:
        found = [hmac.compare_digest(shown, each.token) for each in self._targets.values() if each.token is not None]
        return any(found)

    def _unknown(self, name: str, scope: Scope) -> _RefusalError:
        if not name:
            return _RefusalError(404, f"there is no {scope['path'][:200]!r}", "POST to /observations/PROVIDER.")
        if name in self._others:
            return _RefusalError(404, f"provider {name!r} takes no pushed rows", "declare source: {kind: push}.")
        close = difflib.get_close_matches(name, list(self._targets), n=1, cutoff=0.6)
        if close:
            hint = f"did you mean {close[0]!r}?"
        else:
            hint = f"those that take rows are {', '.join(map(repr, sorted(self._targets)[:12])) or 'none'}."
        return _RefusalError(404, f"there is no provider {name[:100]!r}", hint)

    # --------------------------------------------------------------------------------------------------------- reading

    async def _content(self, target: _Target, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The body, decompressed.

        Raises:
            _TooLargeError: If it is too great.
            _RefusalError: If it is cut off, or compressed in another way.
            _GoneError: If the sender left.
        """
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip", ""):
            raise _RefusalError(
                415, f"Content-Encoding {coding[:40]!r} is not taken", "send it plain, or compressed with gzip."
            )
        told = headers.get("content-length", "")
        if told.isdecimal() and int(told) > target.most:
            raise _TooLargeError(target.most)
        content = await self._received(target.most, receive)
        if coding in ("identity", ""):
            return content
        most = target.most * self._limits.swell
        return await asyncio.to_thread(_unzipped, content, most) if len(content) > 65_536 else _unzipped(content, most)

    async def _received(self, most: int, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                chunk = message.get("body", b"")
                size += len(chunk)
                self._held += len(chunk)
                if size > most:
                    raise _TooLargeError(most)
                if self._held > self._limits.together:
                    raise self._busy("too many bodies at a time")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        finally:
            self._held -= size

    async def _read(self, content: bytes, media_type: str, target: _Target) -> Body:
        """The rows of a body.

        Raises:
            _RefusalError: If there are none to be found in it.
        """
        if not content.strip() and media_type in LINES:
            return Body("ndjson", b"", 0)
        how = {"provider": target.name, "label": "the body"}
        try:
            if len(content) > _IN_A_THREAD:
                return await asyncio.to_thread(read_body, content, media_type, target.layout, **how)
            return read_body(content, media_type, target.layout, **how)
        except PayloadError as error:
            raise _RefusalError(400, error.problem, error.hint) from error

    async def _keep(self, record: Record) -> Receipt:
        """Hand the rows to the spool and wait until they are durable.

        Raises:
            _RefusalError: If they cannot be kept.
        """
        try:
            return await asyncio.wrap_future(self._spool.put(record))
        except KeyReusedError as error:
            raise _RefusalError(422, error.problem, error.hint) from error
        except SpoolFullError as error:
            raise self._busy("as much waits for the log as may wait") from error
        except SpoolWriteError as error:
            raise _RefusalError(
                503, "the rows could not be written to the disk; none was taken", "send again later.", self._later()
            ) from error
        except SpoolError as error:
            raise _RefusalError(503, "the job is being stopped; none was taken", headers=self._later()) from error

    def _busy(self, problem: str) -> _RefusalError:
        return _RefusalError(429, f"{problem}; none was taken", "send again later.", self._later())

    def _later(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"retry-after", str(max(1, math.ceil(self._limits.retry_after))).encode()),)


def _target(provider: Provider, environment: Mapping[str, str]) -> _Target:
    source = provider.source
    variable: str | None = getattr(source, "token_env", None)
    token = None
    if variable is not None:
        if not environment.get(variable):
            _no_token(provider.name, variable)
        token = environment[variable].encode()
    return _Target(provider.name, provider.layout, token, int(getattr(source, "max_bytes", _MOST_BYTES)))


def _no_token(provider: str, variable: str) -> NoReturn:
    """Refuse to run open what was meant to be closed.

    Raises:
        ProviderError: Always.
    """
    raise ProviderError(
        f"provider {provider!r}: source.token_env",
        f"the environment variable {variable!r} is not set",
        f"export {variable}=..., or leave token_env out to take rows from this machine only.",
    )


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _bearer(headers: Mapping[str, str]) -> bytes | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" and token.strip() else None


def _is_local(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, by an address of this machine: no web page of another site can do that."""
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return not host or name.lower() in _LOCAL_NAMES or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _media_type(headers: Mapping[str, str]) -> str:
    """What the body is said to be.

    Raises:
        _RefusalError: If it is said to be nothing that is taken here.
    """
    told = headers.get("content-type", "")
    essence, _, parameters = told.partition(";")
    essence = essence.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise _RefusalError(415, f"charset {charset[1][:40]!r} is not taken", "send UTF-8.")
    if essence in _TAKEN or (essence.startswith("application/") and essence.endswith("+json")):
        return essence
    problem = f"Content-Type {essence[:80]!r} is not taken" if essence else "there is no Content-Type"
    hint = "send application/json, application/x-ndjson or application/vnd.apache.arrow.stream."
    raise _RefusalError(415, problem, hint)


def _key(headers: Mapping[str, str]) -> str | None:
    """The idempotency key.

    Raises:
        _RefusalError: If it is none.
    """
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise _RefusalError(400, "the Idempotency-Key must be 1 to 255 visible ASCII characters", "use a UUID.")
    return key


def _unzipped(content: bytes, most: int) -> bytes:
    """What gzip data, perhaps of several members, was before.

    Raises:
        _RefusalError: If it is damaged, cut off, or becomes greater than `most`.
    """
    parts: list[bytes] = []
    size = 0
    rest = content
    while rest:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(rest, most - size + 1)
        except zlib.error as error:
            raise _RefusalError(400, f"the gzip data is damaged: {error}") from error
        size += len(part)
        if size > most:
            raise _RefusalError(413, f"a body may become {most:,} bytes", "send it in parts.")
        if not member.eof:
            raise _RefusalError(400, f"the gzip data is cut off after {len(content):,} bytes")
        parts.append(part)
        rest = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


async def _send(
    send: Send, status: int, body: Mapping[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    content = _encode(body) + b"\n"
    fixed = ((b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": content})
