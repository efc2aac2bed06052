"""HTTP/1.1 as uvicorn speaks it, with limits on clients that are slow or send too much before they have asked anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.settings import HttpLimits

_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
_REFUSED: Final = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


class LimitedProtocol(HttpToolsProtocol):
    """A connection that must say in time, and shortly, what it wants."""

    limits = HttpLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._head = 0
        self._in_head = True
        self._waiting: asyncio.TimerHandle | None = None
        sock: Any = transport.get_extra_info("socket")
        if sock is not None and _TCP_USER_TIMEOUT is not None:  # a client that never reads what was sent
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(self.limits.idle_seconds * 1000))
        if len(self.connections) > self.limits.connections:
            self._refuse(b"503 Service Unavailable", b'{"error":"too many connections at a time"}\n')
            return
        self._waiting = self.loop.call_later(self.limits.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._no_longer_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece, unless the head becomes too long."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head += len(data)
            # a piece may hold the end of the head and much of a body; on_headers_complete has the last word
            if self._head > self.limits.head_bytes and b"\r\n\r\n" not in data:
                self._too_long()
                return
            if self._waiting is None:
                self._waiting = self.loop.call_later(self.limits.head_seconds, self._too_slow)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too long.

        Raises:
            HttpParserError: If it is; the parser then stops.
        """
        self._no_longer_waiting()
        self._in_head, self._head = False, 0
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > self.limits.head_bytes:
            self._too_long()
            raise httptools.HttpParserError("the head is too long")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is not HTTP, in the form of all other refusals."""
        if not self.transport.is_closing():
            self._refuse(b"400 Bad Request", b'{"error":"this is not HTTP/1.1"}\n')

    def _no_longer_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self._refuse(b"408 Request Timeout", b'{"error":"the head of the request did not come in time"}\n')

    def _too_long(self) -> None:
        if not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", b'{"error":"the head of the request is too long"}\n')

    def _refuse(self, status: bytes, body: bytes) -> None:
        self._no_longer_waiting()
        self.transport.write(_REFUSED % (status, len(body), body))
        self.transport.close()


def protocol_class(limits: HttpLimits) -> type[asyncio.Protocol]:
    """The protocol of a server with these limits."""
    return type("ItsProtocol", (LimitedProtocol,), {"limits": limits})
