"""Serving the pages by themselves, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn

from ingestion.jobs import Redactor, configure_logging, logger
from serving.http import HttpLimits, HttpSettings, Tokens
from serving.http.auth import VARIABLES
from serving.http.protocol import protocol_class
from serving.http.run import listen
from serving.pages.app import PagesApp
from serving.pages.assets import plotly_file
from serving.pages.pages import Pages

if TYPE_CHECKING:
    from serving.pages.site import Site

PORT: Final = 8322


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesSettings:
    """Where pages are served.

    Attributes:
        host: Address to listen at.
        port: Its port; 0 takes a free one.
        as_json: Lines as JSON; None decides by the terminal.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    as_json: bool | None = None


def serve_pages(
    site: Site,
    settings: PagesSettings,
    *,
    environment: Mapping[str, str] | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve the pages of a site until SIGTERM or SIGINT.

    Args:
        site: What they are about.
        settings: Where.
        environment: Where the token is; that of the process if None.
        started: Called with the address once it listens.

    Raises:
        ServingError: If it cannot listen, or there is nothing to show.
        AlignmentError: What a declaration in the views file is refused for.
        IngestionError: What opening a log in it is refused for.
    """
    known = os.environ if environment is None else environment
    tokens = Tokens(known)
    plotly_file()
    site.check()
    secrets = [known[variable] for variable in VARIABLES.values() if known.get(variable)]
    configure_logging(as_json=settings.as_json, verbose=False, redact=Redactor(secrets))
    with listen(HttpSettings(views=Path(site.target), host=settings.host, port=settings.port)) as listening:
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        app = PagesApp(Pages(site), tokens=tokens)
        config = uvicorn.Config(
            app, loop="asyncio", http=protocol_class(HttpLimits()), lifespan="off", interface="asgi3", ws="none",
            access_log=False, log_config=None, server_header=False, date_header=False, proxy_headers=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        logger("ui").info("started", listening=address, of=site.target)
        if started is not None:
            started(address)
        try:
            asyncio.run(_until_told(_Uvicorn(config), listening))
        finally:
            app.close()


class _Uvicorn(uvicorn.Server):
    """A server that leaves signals to us: its own way ends the process as a signal would."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: there are handlers already."""
        yield


async def _until_told(server: uvicorn.Server, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
            loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    await server.serve(sockets=[listening])
