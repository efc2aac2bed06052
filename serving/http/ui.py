"""`GET /ui`: the pages for people beside the features, over the same views file; made when somebody first looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.http.refusals import RefusalError

if TYPE_CHECKING:
    from serving.http.auth import Tokens
    from serving.pages import PagesApp

PREFIX: Final = "/ui"
Message = MutableMapping[str, Any]


class Ui:
    """The pages of one worker.

    Args:
        views: The file that declares the views; it is read again for the pages, whose logs are their own.
        tokens: Who may look: the scope is `read`.
    """

    def __init__(self, views: Path, tokens: Tokens) -> None:
        self._views, self._tokens = views, tokens
        self._app: PagesApp | None = None
        self._making = asyncio.Lock()

    @staticmethod
    def has(path: str) -> bool:
        """Whether a path is one of the pages'."""
        return path == PREFIX or path.startswith(f"{PREFIX}/")

    async def __call__(self, scope: MutableMapping[str, Any], send: Callable[[Message], Awaitable[None]]) -> int:
        """Answer one request; returns the status of the answer.

        Raises:
            RefusalError: If it may not be answered, or what pages need is not installed.
        """
        self._tokens.check("read", scope)
        async with self._making:
            if self._app is None:  # elsewhere than in the loop: templates and readers are imported for it
                self._app = await asyncio.to_thread(self._made)
        from serving.pages import send_reply

        reply = await self._app.reply(scope)
        await send_reply(reply, scope, send)
        return reply.status

    def _made(self) -> PagesApp:
        try:
            from serving.pages import Pages, PagesApp, Site
        except ImportError as error:
            raise RefusalError(
                501, f"pages need {error.name}, which is not installed here", "pip install 'asknown[ui]'"
            ) from error
        return PagesApp(Pages(Site(self._views), base=PREFIX), tokens=self._tokens, base=PREFIX)

    def close(self) -> None:
        """End what reads."""
        if self._app is not None:
            self._app.close()
