"""The pages as an application of their own: plain ASGI, one thread that reads, and nobody but this machine without a token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ingestion.jobs import logger
from serving.http.refusals import RefusalError
from serving.pages.pages import Pages, Reply
from serving.pages.plain import to_json

if TYPE_CHECKING:
    from serving.http.auth import Tokens

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]


class PagesApp:
    """Answers requests for pages.

    Args:
        pages: What is at each address.
        tokens: Who may look: the scope is `read`.
        base: The path before all of theirs.
    """

    def __init__(self, pages: Pages, *, tokens: Tokens, base: str = "") -> None:
        self._pages, self._tokens, self._base = pages, tokens, base
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pages")  # logs are not to be shared between threads
        self._say = logger("ui")

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],  # noqa: ARG002
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            self._tokens.check("read", scope)
            reply = await self.reply(scope)
        except RefusalError as refusal:
            body = to_json({"error": refusal.problem, "hint": refusal.hint}).encode() + b"\n"
            reply = Reply(refusal.status, "application/json", body, refusal.headers)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the server goes on
            self._say.error("fault", path=scope["path"][:100], exc_info=error)
            reply = Reply(500, "text/plain", b"a fault of the server; its log lines tell more\n")
        await send_reply(reply, scope, send)

    async def reply(self, scope: Scope) -> Reply:
        """The answer to a request that may be answered.

        Raises:
            RefusalError: If it is no GET.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise RefusalError(405, "pages are for GET", "open them in a browser.", ((b"allow", b"GET, HEAD"),))
        path = scope["path"].removeprefix(self._base)
        query = scope.get("query_string", b"").decode("latin-1")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._pages.answer, path, query)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def send_reply(reply: Reply, scope: Scope, send: Callable[[Message], Awaitable[None]]) -> None:
    """Send an answer; to HEAD its head alone."""
    length = b"%d" % len(reply.body)
    headers = [(b"content-type", reply.media_type.encode()), (b"content-length", length), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})
