"""The endpoint of a job: health, metrics, and the door for rows that are pushed. Bare ASGI, served by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from ingestion.errors import MissingLibraryError
from ingestion.jobs.metrics import CONTENT_TYPE

try:
    import uvicorn
except ImportError as error:  # pragma: no cover - the extra is installed where tests run
    raise MissingLibraryError("uvicorn", "ingest", "a job's endpoint") from error

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

PUSHED: Final = "/observations/"
_JSON: Final = "application/json"
_WHY: Final = {
    errno.EADDRINUSE: "the port is taken",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    socket.EAI_NONAME: "there is no such host",
    socket.EAI_AGAIN: "there is no such host, or nobody to ask for it",
}
_PATHS: Final = {
    "/healthz": "is the process alive and the store reachable",
    "/readyz": "does it take rows",
    "/metrics": "numbers for Prometheus",
    f"{PUSHED}PROVIDER": "POST rows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is well and what is not.

    Attributes:
        checks: Name of the check to `"ok"`, or to what is wrong.
        facts: Numbers to go with it.
    """

    checks: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all checks are well."""
        return all(state == "ok" for state in self.checks.values())

    def to_dict(self) -> dict[str, Any]:
        """As the endpoint answers."""
        return {"status": "ok" if self.ok else "failing", "checks": self.checks, **self.facts}


class Endpoint:
    """The ASGI application of a job.

    Args:
        health: Looks whether the job lives; may take a moment.
        ready: Looks whether it takes rows.
        metrics: The numbers as text; called in a thread, for there may be many.
        push: The application that takes pushed rows, if there is one.
    """

    def __init__(
        self,
        *,
        health: Callable[[], Awaitable[Health]],
        ready: Callable[[], Health],
        metrics: Callable[[], bytes],
        push: Asgi | None = None,
    ) -> None:
        self._health, self._ready, self._metrics, self._push = health, ready, metrics, push

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith(PUSHED) and self._push is not None:
            await self._push(scope, receive, send)
            return
        status, media_type, body = await self._answer(path, scope["method"])
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, path: str, method: str) -> tuple[int, str, bytes]:
        if path not in {"/", "/healthz", "/readyz", "/metrics"}:
            return 404, _JSON, _body({"error": f"there is no {path}", "paths": _PATHS})
        if method not in {"GET", "HEAD"}:
            return 405, _JSON, _body({"error": f"{path} is for GET"})
        if path == "/":
            return 200, _JSON, _body({"paths": _PATHS})
        if path == "/metrics":
            return 200, CONTENT_TYPE, await asyncio.to_thread(self._metrics)
        found = await self._health() if path == "/healthz" else self._ready()
        return (200 if found.ok else 503), _JSON, _body(found.to_dict())


def _body(value: object) -> bytes:
    return json.dumps(value, default=str).encode() + b"\n"


class _Server(uvicorn.Server):
    """A server that leaves signals to the job."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: the job has its own handlers."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; bound before anything else is started, so that a port in use is an error at once.

    Raises:
        OSError: If the address is in use or not this machine's; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = _WHY.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {why}") from error


def server(app: Asgi, *, stop_within: float = 5.0) -> uvicorn.Server:
    """A server for an application; `serve(sockets=[...])` runs it in the loop of the caller.

    Args:
        app: The application.
        stop_within: Seconds that requests in flight have when it is told to exit.
    """
    return _Server(
        uvicorn.Config(
            app,
            loop="none",
            lifespan="off",
            interface="asgi3",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=max(1, round(stop_within)),
            timeout_keep_alive=30,
        )
    )
