"""The application: one table of routes, one function per route, plain ASGI. Whatever is asked, the answer is JSON or Arrow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ingestion import IngestionError
from ingestion.jobs import logger
from serving.http import contract, encoding, openapi, services
from serving.http.metrics import CONTENT_TYPE, OTHER
from serving.http.refusals import CLOSE, GoneError, Headers, RefusalError, refusal_of, shown
from serving.online import read_service, resolve

if TYPE_CHECKING:
    from datetime import datetime

    from serving.http.auth import Tokens
    from serving.http.crew import Crew
    from serving.http.definitions import Definitions, Held
    from serving.http.metrics import Metrics
    from serving.http.pushing import Pushing
    from serving.http.settings import HttpLimits
    from serving.http.ui import Ui
    from serving.online import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Reply = tuple[bytes, bytes]

PUSHED: Final = "/observations/"
JSON: Final = contract.JSON.encode()
ARROW: Final = contract.ARROW.encode()
_IN_A_THREAD: Final = 20_000
"""Answers with more values than this are computed in a thread, so that small ones need not wait for them."""
_THREADS: Final = 4


class Application:
    """Answers requests.

    Args:
        definitions: What is evaluated.
        tokens: Who may ask.
        limits: What one may ask for.
        crew: The workers, for what concerns all of them.
        push: What takes pushed rows, if anything does.
        ui: What answers with pages for people, if anything does.
        waits: Whether reading waits for another process, so that the loop must not.

    Attributes:
        metrics: What counts, once the definitions are known.
        draining: Whether the process is about to stop.
    """

    def __init__(
        self,
        definitions: Definitions,
        *,
        tokens: Tokens,
        limits: HttpLimits,
        crew: Crew,
        push: Pushing | None = None,
        ui: Ui | None = None,
        waits: bool = False,
    ) -> None:
        self._definitions, self._tokens, self._limits, self._crew, self._push = definitions, tokens, limits, crew, push
        self._ui = ui
        self._most_here = 0 if waits else _IN_A_THREAD
        self._pool = ThreadPoolExecutor(4 * _THREADS if waits else _THREADS, thread_name_prefix="read")
        self._in_flight = 0
        self._say = logger("serve")
        self.metrics: Metrics | None = None
        self.draining = False
        self._routes: dict[str, tuple[str, str, str, Callable[[Scope, Receive], Awaitable[Reply]]]] = {
            "/get-online-features": ("POST", "read", "get-online-features", self._features),
            "/resolve": ("POST", "read", "resolve", self._resolve),
            "/features": ("GET", "read", OTHER, self._catalogue),
            "/metrics": ("GET", "read", OTHER, self._metrics_text),
            "/admin/definitions": ("GET", "admin", "admin", self._held),
            "/admin/reload": ("POST", "admin", "admin", self._reload),
            "/admin/switch": ("POST", "admin", "admin", self._switch),
            "/openapi.json": ("GET", "", OTHER, self._openapi),
            "/readyz": ("GET", "", OTHER, self._readyz),
            "/healthz": ("GET", "", OTHER, self._healthz),
            "/health": ("GET", "", OTHER, self._healthz),
            "/": ("GET", "", OTHER, self._paths),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        route, status = OTHER, 200
        self._in_flight += 1
        try:
            path: str = scope["path"]
            if path.startswith(PUSHED):
                route = "observations"
                status = await self._pushed(scope, receive, send)
                return
            if self._ui is not None and self._ui.has(path):
                self._check_load()
                status = await self._ui(scope, send)
                return
            method, wanted, route, handler = self._routes.get(path) or self._unknown(path)
            if scope["method"] != method:
                _check_method(path, method, scope["method"])
            if wanted:
                self._tokens.check(wanted, scope)
                self._check_load()
            media_type, body = await handler(scope, receive)
            await self._send(send, 200, media_type, body)
        except GoneError:
            status = 499
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the server goes on
            status = await self._refuse(error, scope, send)
        finally:
            self._in_flight -= 1
            if self.metrics is not None:
                self.metrics.answered(route, status, time.perf_counter() - began)

    # --------------------------------------------------------------------------------------------------------- routes

    async def _features(self, scope: Scope, receive: Receive) -> Reply:
        asked = contract.read_question(await self._body(scope, receive), self._limits)
        held = self._definitions.named(asked.definition)
        as_of = contract.read_instant(asked.as_of)
        in_arrow = asked.format == "arrow" or _wants_arrow(scope)

        def answer() -> Reply:
            found, names = self._read(held, asked, as_of)
            if in_arrow:
                return ARROW, encoding.as_arrow(found, definition=held.definition, status=asked.status, ages=asked.ages)
            return JSON, encoding.as_json(
                found, names, definition=held.definition, status=asked.status, ages=asked.ages
            )

        height = len(next(iter(asked.entities.values()), ()))
        if as_of is None and max(height, 1) * max(len(asked.features), 20) <= self._most_here:
            return answer()
        return await asyncio.get_running_loop().run_in_executor(self._pool, answer)

    def _read(self, held: Held, asked: contract.FeaturesRequest, as_of: datetime | None) -> tuple[Answer, list[str]]:
        height = len(next(iter(asked.entities.values()), (None,)))
        if asked.feature_service is None:
            columns, names = held.plan(asked.features, full=asked.full_feature_names)
            self._check_size(len(columns), height)
            found = held.server.read(columns, asked.entities, as_of=as_of)
        else:
            service = services.named(held, asked.feature_service)
            services.check_variant(service, asked.variant)
            self._check_size(len(service.features), height)
            found = read_service(
                held.server, service, asked.entities, as_of, variant=asked.variant, sources=asked.sources
            )
            names = held.names([column.name for column in found.columns], full=asked.full_feature_names)
        if self.metrics is not None:
            self.metrics.served(found, height)
        return found, names

    async def _resolve(self, scope: Scope, receive: Receive) -> Reply:
        asked = contract.read_resolve(await self._body(scope, receive))
        held = self._definitions.named(asked.definition)
        service = services.named(held, asked.feature_service)
        as_of = contract.read_instant(asked.as_of)
        found = await self._in_thread(resolve, held.server, service, as_of)
        return JSON, _line({**found.to_dict(), "definition": held.definition})

    async def _catalogue(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        return JSON, _line(services.catalogue(self._definitions.current))

    async def _metrics_text(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        held = self._definitions.current
        if self.metrics is None:
            raise RefusalError(503, "there are no numbers yet", "ask again.")
        ready = sum(each["ready"] for each in self._crew.members())
        newest = services.arrival_ages(held)
        text = self.metrics.text(readiness=held.server.readiness(), newest=newest, ready_workers=ready)
        return CONTENT_TYPE.encode(), text

    async def _held(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        return JSON, _line({"definitions": self._definitions.describe(), "workers": self._crew.members()})

    async def _reload(self, scope: Scope, receive: Receive) -> Reply:
        await self._body(scope, receive)
        return JSON, _line(await self._crew.reload())

    async def _switch(self, scope: Scope, receive: Receive) -> Reply:
        definition = contract.read_switch(await self._body(scope, receive))
        return JSON, _line(await self._crew.switch(self._definitions.to_switch_to(definition)))

    async def _openapi(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        return JSON, openapi.document()

    async def _paths(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        pages = {} if self._ui is None else {"/ui": "Pages for people"}
        return JSON, _line({"paths": openapi.paths() | pages})

    async def _healthz(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        return JSON, _line({"status": "ok"})

    async def _readyz(self, scope: Scope, receive: Receive) -> Reply:  # noqa: ARG002
        ready = self._definitions.current.server.readiness()
        reason, hint = ready.reason, ready.hint
        if self.draining:
            reason, hint = "the server is being stopped", "ask another one."
        if reason:
            raise RefusalError(503, f"not ready: {reason}", hint, ((b"retry-after", b"1"),))
        told = {"status": "ready", "behind": ready.behind, "positions": dict(ready.positions)}
        through = ready.complete_through
        return JSON, _line(told | {"complete_through": None if through is None else encoding.iso(through)})

    async def _pushed(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Hand a request to what takes rows; returns the status of its answer.

        Raises:
            RefusalError: If nothing takes rows, this sender may not, or its body does not come.
        """
        if self._push is None:
            self._tokens.check("push", scope)
            raise RefusalError(404, "no rows are taken here", "start the server with --providers FILE.")
        if scope["path"].removeprefix(PUSHED) not in self._push.guarded:  # those ask for a token of their own
            self._tokens.check("push", scope)
        self._check_load()
        status = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.body_seconds
        late = False

        async def receive_in_time() -> Message:
            nonlocal late
            try:
                async with asyncio.timeout_at(deadline):
                    return await receive()
            except TimeoutError:
                late = True
                return {"type": "http.disconnect"}

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._push(scope, receive_in_time, send_and_see)
        if late and not status:
            raise self._too_slow()
        return status or 499

    # --------------------------------------------------------------------------------------------------------- limits

    def _check_load(self) -> None:
        if self._in_flight > self._limits.together:
            raise RefusalError(503, "too many requests at a time", "ask again later.", ((b"retry-after", b"1"),))

    def _check_size(self, width: int, height: int) -> None:
        limits = self._limits
        if width > limits.features or width * height > limits.values:
            raise RefusalError(
                413,
                f"{width:,} features of {height:,} rows are asked for; {limits.features:,} features and {limits.values:,} values may be",
                "ask for them in parts.",
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            RefusalError: If it is too great, compressed, or does not come in time.
            GoneError: If the client left.
        """
        most = self._limits.body_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > most:
                raise self._too_large()
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise RefusalError(
                    415, f"Content-Encoding {shown(value.decode('latin-1'))} is not taken", "send it plain.", CLOSE
                )
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body", False):
                    whole: bytes = message.get("body", b"")
                    if len(whole) > most:
                        raise self._too_large()
                    return whole
                chunks = []
                size = 0
                while message["type"] == "http.request":
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
                    message = await receive()
        except TimeoutError:
            raise self._too_slow() from None
        raise GoneError

    def _too_large(self) -> RefusalError:
        return RefusalError(413, f"a body may have {self._limits.body_bytes:,} bytes", "send it in parts.", CLOSE)

    def _too_slow(self) -> RefusalError:
        return RefusalError(408, f"the body did not come within {self._limits.body_seconds:g} s", headers=CLOSE)

    def _unknown(self, path: str) -> Any:
        raise RefusalError(404, f"there is no {shown(path)}", "GET / lists what there is.")

    # -------------------------------------------------------------------------------------------------------- sending

    async def _in_thread(self, work: Callable[..., Any], *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *words)

    async def _refuse(self, error: Exception, scope: Scope, send: Send) -> int:
        refusal = refusal_of(error)
        if refusal is None:
            if isinstance(error, IngestionError | OSError):
                self._say.error("the logs cannot be read", path=scope["path"][:100], error=str(error).splitlines()[0])
                refusal = RefusalError(503, "the logs cannot be read now", "ask again.", ((b"retry-after", b"1"),))
            else:
                self._say.error("fault", path=scope["path"][:100], exc_info=error)
                refusal = RefusalError(500, "a fault of the server; its log lines tell more")
        told = {"error": refusal.problem} | ({"hint": refusal.hint} if refusal.hint else {})
        await self._send(send, refusal.status, JSON, _line(told), refusal.headers)
        return refusal.status

    async def _send(self, send: Send, status: int, media_type: bytes, body: bytes, headers: Headers = ()) -> None:
        fixed = ((b"content-type", media_type), (b"content-length", b"%d" % len(body)))
        if self.draining:
            headers = (*headers, *CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
        await send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """End the threads."""
        if self._ui is not None:
            self._ui.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _check_method(path: str, method: str, asked: str) -> None:
    """Refuse another method than the route's.

    Raises:
        RefusalError: If it is another, and not HEAD for GET.
    """
    if asked != "HEAD" or method != "GET":
        allowed = b"POST" if method == "POST" else b"GET, HEAD"
        hint = f"send a {method}; GET /openapi.json describes it."
        raise RefusalError(405, f"{path} is for {method}", hint, ((b"allow", allowed),))


def _wants_arrow(scope: Scope) -> bool:
    return any(name == b"accept" and ARROW in value for name, value in scope["headers"])


def _line(value: Any) -> bytes:
    return encoding.encode(value) + b"\n"
