"""One request at a time, politely: bounded in time and size, asked again where that helps, and never telling a secret."""

from __future__ import annotations

import base64
import functools
import logging
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # there, but not in the stubs

import httpx
import stamina

from ingestion.instants import Clock
from ingestion.sources.http_retry import RateLimit, Refused, retry_after
from ingestion.sources.parsing import shown
from ingestion.sources.redaction import Redactor

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({408, 425, 429})
_MAX_REDIRECTS: Final = 5
_RAISE_IT: Final = "raise max_bytes if that is right."


def _tells_no_headers(record: logging.LogRecord) -> bool:
    """Whether a debug record is free of the answer's headers: providers repeat credentials in them, e.g. in `Location`."""
    return "receive_response_headers.complete" not in str(record.msg)


for _name in ("httpcore.http11", "httpcore.http2"):
    logging.getLogger(_name).addFilter(_tells_no_headers)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a provider answered.

    Attributes:
        status: 200, 204 or 304; everything else is a `Refused`.
        headers: Of the answer.
        content: The body, its transport encoding undone.
        url: Where it came from, without credentials.
        received_time: When the last byte was in hand.
    """

    status: int
    headers: httpx.Headers
    content: bytes
    url: str
    received_time: datetime


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long, how much, how often.

    Attributes:
        connect: Seconds until a connection stands.
        read: Seconds without a byte.
        attempts: How often a request is sent at most.
        wait: Seconds before the second attempt; doubled each time, with as much again of jitter.
        longest_wait: Seconds that are waited at most before another attempt, also when the provider asks for more.
        max_bytes: Of a body, before and after its transport encoding is undone.
        hosts: Hosts besides the provider's own that redirects and links may lead to; they get no credentials.
    """

    connect: float
    read: float
    attempts: int
    wait: float
    longest_wait: float
    max_bytes: int
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What shows the provider who is asking.

    They are added below the client, so that no address, log record or error that the client makes has them.

    Attributes:
        headers: Name to value.
        parameters: Query parameter to value.
        secrets: All values that must not be shown.
        variables: The environment variables they came from.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    variables: tuple[str, ...] = ()


def basic(user: str, password: str) -> str:
    """The value of an `Authorization` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class _Signing(httpx.BaseTransport):
    """Adds the credentials to requests to the provider's own address, and to no others."""

    def __init__(self, below: httpx.BaseTransport, origin: httpx.URL, credentials: Credentials) -> None:
        self._below = below
        self._origin = origin
        self._credentials = credentials

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not _same_site(self._origin, request.url):
            return self._below.handle_request(request)
        url = request.url
        for name, value in self._credentials.parameters.items():
            url = url.copy_set_param(name, value)
        signed = httpx.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        signed.headers.update(dict(self._credentials.headers))
        return self._below.handle_request(signed)

    def close(self) -> None:
        self._below.close()


def _same_site(origin: httpx.URL, url: httpx.URL) -> bool:
    """The same host and port, or the same host now behind TLS."""
    if origin.host != url.host:
        return False
    same = (origin.scheme, origin.port) == (url.scheme, url.port)
    return same or (origin.scheme == "http" and url.scheme == "https" and origin.port is None and url.port is None)


class HttpClient:
    """Asks one provider.

    Args:
        origin: Where the provider is; the credentials go nowhere else.
        credentials: What shows it who is asking.
        limits: How long, how much, how often.
        rate: Keeps requests apart.
        redactor: Takes secrets out of what is shown.
        clock: Tells when an answer was in hand.
        monotonic: Seconds that never go back.
        sleep: Waits some seconds.
        proxy: A proxy to go through.
        transport: In place of the network.
    """

    def __init__(
        self,
        origin: httpx.URL,
        credentials: Credentials,
        *,
        limits: Limits,
        redactor: Redactor,
        clock: Clock,
        rate: RateLimit | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        proxy: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._origin = origin
        self._credentials = credentials
        self._limits = limits
        self._rate = rate
        self._redactor = redactor
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        below = transport or httpx.HTTPTransport(verify=_tls(), proxy=proxy)
        self._client = httpx.Client(transport=_Signing(below, origin, credentials), trust_env=False)

    def __repr__(self) -> str:
        return f"HttpClient({self._redactor.url(str(self._origin))!r})"

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def get(self, url: httpx.URL, headers: Mapping[str, str], *, until: float) -> Answer:
        """The answer to a request, asked again while that may help.

        Args:
            url: What is asked for.
            headers: Sent along.
            until: Of the monotonic clock: when all must be over.

        Raises:
            Refused: If there is no usable answer.
        """
        limits = self._limits
        attempts = stamina.retry_context(
            on=lambda error: self._worth_another(error, until),
            attempts=limits.attempts,
            timeout=max(0.001, until - self._monotonic()),
            wait_initial=limits.wait,
            wait_jitter=limits.wait,
            wait_max=limits.longest_wait,
        )
        for attempt in attempts:
            with attempt:
                return self._once(url, headers, until)
        raise Refused("no attempt is allowed", again=False)  # pragma: no cover - stamina makes at least one

    def _worth_another(self, error: Exception, until: float) -> bool | float:
        """Whether to ask again: no, when we please, or after so many seconds."""
        if not isinstance(error, Refused) or not error.again:
            return False
        left = until - self._monotonic()
        if error.wait is None:
            return left > self._limits.wait
        wait = error.wait.total_seconds()
        return max(wait, 0.001) if wait <= min(self._limits.longest_wait, left) else False

    def _once(self, url: httpx.URL, headers: Mapping[str, str], until: float) -> Answer:
        """One request, and where it is redirected to.

        Raises:
            Refused: If the answer is no use.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_address(url)
            self._keep_apart(until)
            try:
                answer = self._send(url, headers, until)
            except httpx.HTTPError as error:
                raise self._failure(error) from None
            if isinstance(answer, Answer):
                return answer
            url = answer
        raise Refused(f"redirected more than {_MAX_REDIRECTS} times", again=False)

    def _check_address(self, url: httpx.URL) -> None:
        """Go nowhere that the declaration does not name.

        Raises:
            Refused: If the address is elsewhere.
        """
        shown_url = self._redactor.url(str(url))
        if url.scheme not in {"http", "https"} or not url.host:
            raise Refused(f"led to {shown_url}, which is no web address", again=False)
        if url.host != self._origin.host and url.host not in self._limits.hosts:
            raise Refused(
                f"led to another host, {shown_url}", again=False, hint=f"if that is right: hosts: [{url.host}]."
            )
        if self._origin.scheme == "https" and url.scheme == "http":
            raise Refused(f"led from https to http, {shown_url}", again=False)

    def _keep_apart(self, until: float) -> None:
        if self._rate is None:
            return
        wait = self._rate.wait()
        if self._monotonic() + wait > until:
            raise Refused("the rate limit leaves no time for another request before the deadline", again=False)
        if wait:
            self._sleep(wait)
        self._rate.used()

    def _send(self, url: httpx.URL, headers: Mapping[str, str], until: float) -> Answer | httpx.URL:
        """An answer, or where it says to look instead.

        Raises:
            Refused: If the answer is an error, too long or too late.
        """
        left = until - self._monotonic()
        if left <= 0:
            raise Refused("the deadline passed", again=False)
        limits = self._limits
        timeout = httpx.Timeout(min(limits.read, left), connect=min(limits.connect, left))
        plain = httpx.URL(self._redactor.without_parameters(str(url)))
        request = self._client.build_request(
            "GET", plain, headers={"accept-encoding": "gzip", **headers}, timeout=timeout
        )
        response = self._client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return plain.join(response.headers["location"])
            if response.status_code in {204, 304}:
                content = b""
            elif response.status_code == 200:
                content = self._body(response, until)
            else:
                raise self._bad_status(response, until)
        finally:
            response.close()
        shown_url = self._redactor.url(str(plain))
        return Answer(
            status=response.status_code,
            headers=response.headers,
            content=content,
            url=shown_url,
            received_time=self._clock(),
        )

    def _body(self, response: httpx.Response, until: float) -> bytes:
        """The whole body, or an error: one that was cut off is no short one.

        Raises:
            Refused: If it is too long, too late, cut off, or encoded in an unknown way.
        """
        most = self._limits.max_bytes
        told = response.headers.get("content-length")
        if told is not None and told.isdecimal() and int(told) > most:
            raise Refused(_too_long(most), again=False, hint=_RAISE_IT)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"identity", "", "gzip", "x-gzip"}:
            raise Refused(f"sent content-encoding {encoding!r}, which was not asked for", again=False)
        body = _Body(most, zipped=encoding.endswith("gzip"))
        for chunk in response.iter_raw():
            body.add(chunk)
            if self._monotonic() > until:
                raise Refused(f"the deadline passed while the body came ({body.received} bytes so far)", again=False)
        if told is not None and told.isdecimal() and int(told) != body.received:
            raise Refused(f"the answer was cut off: {body.received} of {told} bytes came", again=True)
        return body.whole()

    def _bad_status(self, response: httpx.Response, until: float) -> Refused:
        """What a status other than success means."""
        status = response.status_code
        try:
            start = b""
            for chunk in response.iter_bytes():
                start += chunk
                if len(start) >= 400 or self._monotonic() > until:
                    break
        except httpx.HTTPError:
            start = b""
        said = f": {shown(self._redactor.text(start.decode('utf-8', 'replace')))}" if start.strip() else ""
        again = status in _AGAIN or (status >= 500 and status not in {501, 505})
        wait = retry_after(response.headers.get("retry-after"), date=response.headers.get("date"), now=self._clock())
        hint = ""
        if status in {401, 403, 407}:
            variables = ", ".join(self._credentials.variables)
            hint = (
                f"are the credentials in {variables} right?"
                if variables
                else "say who is asking: auth: {bearer_env: ...}."
            )
        asked = f", asks to wait {wait.total_seconds():.0f} s" if again and wait is not None else ""
        problem = f"answered {status} {response.reason_phrase}".rstrip() + asked + said
        return Refused(problem, again=again, wait=wait if again else None, hint=hint)

    def _failure(self, error: httpx.HTTPError) -> Refused:
        """What a failure of the connection means, in words."""
        limits, said = self._limits, self._redactor.text(str(error) or type(error).__name__)
        if isinstance(error, httpx.ConnectTimeout):
            return Refused(f"no connection within {limits.connect:g} s", again=True)
        if isinstance(error, httpx.TimeoutException):
            return Refused(f"nothing came for {limits.read:g} s", again=True)
        if isinstance(error, httpx.ConnectError):
            return Refused(f"cannot connect: {said}", again=True)
        if isinstance(error, httpx.RemoteProtocolError):
            return Refused(f"the answer was cut off: {said}", again=True)
        return Refused(f"the connection broke: {said}", again=isinstance(error, httpx.TransportError))


def _too_long(most: int) -> str:
    return f"sends more than {most} bytes"


@functools.cache
def _tls() -> ssl.SSLContext:
    """What is trusted; read once, since a thousand providers would read it a thousand times."""
    return httpx.create_ssl_context()


def proxy_for(url: httpx.URL, environment: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for an address (`https_proxy`, `all_proxy`, `no_proxy`)."""
    named = {name.lower(): value for name, value in environment.items() if value}
    proxies = {kind: named[f"{kind}_proxy"] for kind in ("http", "https", "all", "no") if f"{kind}_proxy" in named}
    found = proxies.get(url.scheme, proxies.get("all"))
    if found is None or proxy_bypass_environment(url.host, proxies):
        return None
    return found if "://" in found else f"http://{found}"


class _Body:
    """Bytes as they come, decoded within a bound."""

    def __init__(self, most: int, *, zipped: bool) -> None:
        self.received = 0
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self._decoder = zlib.decompressobj(31) if zipped else None

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refused: If they are too many or damaged.
        """
        self.received += len(chunk)
        while chunk:
            decoder = self._decoder
            if decoder is None:
                plain, chunk = chunk, b""
            else:
                try:
                    plain = decoder.decompress(chunk, self._most - self._size + 1)
                except zlib.error as error:
                    raise Refused(f"the answer is damaged: {error}", again=True) from None
                chunk = decoder.unused_data
                if chunk:  # gzip may be several, one after the other
                    self._decoder = zlib.decompressobj(31)
            self._parts.append(plain)
            self._size += len(plain)
            if self._size > self._most:
                raise Refused(_too_long(self._most), again=False, hint=_RAISE_IT)

    def whole(self) -> bytes:
        """All bytes.

        Raises:
            Refused: If the encoded data ended early.
        """
        if self._decoder is not None and self.received and not self._decoder.eof:
            raise Refused(f"the answer was cut off inside its gzip data after {self.received} bytes", again=True)
        return b"".join(self._parts)
