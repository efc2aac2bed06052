"""`POST /observations/{provider}` beside the features: the spool of a job, filled by requests and emptied into the logs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.jobs import Receiving, Workplace
from ingestion.providers import Provider, load_providers
from serving.errors import OptionError
from serving.http.auth import VARIABLES

if TYPE_CHECKING:
    from serving.http.settings import HttpSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Pushing:
    """What takes pushed rows in one worker.

    A provider that names a token of its own asks for that; all others for the one of the scope `push`. Each worker has a spool of
    its own, and the first also empties those that an earlier run with more workers left.

    Args:
        settings: Where the providers are declared, the logs and the spool are.
        environment: Where tokens are.
        worker: Which worker this is.

    Attributes:
        names: Providers that take pushed rows.
        guarded: Those of them that ask for a token of their own.

    Raises:
        OptionError: If no provider of the file takes pushed rows.
        SpoolLockedError: If another server uses the same folder.
    """

    def __init__(self, settings: HttpSettings, environment: Mapping[str, str], *, worker: int = 0) -> None:
        declared = load_providers(_file(settings))
        push_token = VARIABLES["push"] if environment.get(VARIABLES["push"]) else None
        pushed = [provider for provider in declared.providers.values() if _is_pushed(provider)]
        self.guarded = frozenset(provider.name for provider in pushed if _source(provider).token_env is not None)
        providers = [_guarded(provider, push_token) for provider in pushed]
        if not providers:
            raise OptionError(f"{settings.providers} has no provider that is pushed", "declare source: {kind: push}.")
        self.names = [provider.name for provider in providers]
        root = declared.root if settings.root is None and declared.root else settings.root or "logs"
        self._workplace = Workplace(
            providers, root=root, storage_options=settings.storage_options, environment=environment
        )
        state = settings.state or (Path("asknown-serve") if "://" in root else Path(root).expanduser() / "_serve")
        self._receiving = Receiving(self._workplace, state / f"spool-{worker}", self.names)
        self._left = []
        if worker == 0:
            for folder in sorted(state.glob("spool-*")):
                if int(folder.name.rpartition("-")[2]) >= settings.workers:
                    self._left.append(Receiving(self._workplace, folder, self.names))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to empty the spool."""
        for each in self._left:
            await asyncio.to_thread(each.close)
        await self._receiving.start()
        self._task = asyncio.create_task(self._receiving.work(), name="receiving")

    async def stop(self) -> None:
        """Put what waits into the logs, and close the spool."""
        if self._task is not None:
            self._task.cancel()
        await self._receiving.stop()
        self._workplace.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._receiving.push(scope, receive, send)

    def check(self) -> dict[str, str]:
        """Whether rows are taken."""
        return self._receiving.check()


def _file(settings: HttpSettings) -> Path:
    if settings.providers is None:
        raise OptionError("no file declares providers", "say --providers FILE.")
    return settings.providers


def _is_pushed(provider: Provider) -> bool:
    return provider.source is not None and provider.source.kind == "push"


def _source(provider: Provider) -> Any:
    return provider.source


def _guarded(provider: Provider, variable: str | None) -> Provider:
    """The provider, asking for the token of the scope if it names none of its own."""
    source = _source(provider)
    if variable is None or source.token_env is not None:
        return provider
    return provider.model_copy(update={"source": source.model_copy(update={"token_env": variable})})
