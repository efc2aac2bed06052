"""Where a server listens and what it lets a client do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.online import OnlineSettings

PORT: Final = 8320


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one client, and all together, may ask for.

    Attributes:
        body_bytes: The greatest body of a question; that of pushed rows is the provider's.
        entities: Rows of a question.
        features: Features of a question.
        values: Rows times features.
        head_bytes: The request line and all headers.
        head_seconds: From the connection, or the first byte of a request, to the end of its headers.
        body_seconds: From there to the end of the body.
        idle_seconds: How long a connection may wait for its next request, and how long sent bytes may stay unacknowledged.
        together: Requests in flight in one process.
        connections: Connections of one process.
    """

    body_bytes: int = 4_000_000
    entities: int = 10_000
    features: int = 1_000
    values: int = 500_000
    head_bytes: int = 32_768
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 60.0
    together: int = 512
    connections: int = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How features are served.

    Attributes:
        views: The Python file that declares them.
        host: Address to listen at; this machine alone, unless said otherwise.
        port: Its port; 0 takes a free one.
        workers: Processes.
        root: Where the logs are that pushed rows go to; None as the file of providers says.
        providers: The file that declares the providers whose rows may be pushed; None takes none.
        state: A local folder for rows that are not in a log yet; None puts it beside the logs.
        served_log: Where answers are written down; None writes none.
        sample: The share of answers that is.
        redis: Whether rows are kept in the Redis that the environment names, for all replicas, and not in each process.
        online: How the logs are followed.
        limits: What a client may do.
        drain_seconds: How long questions are still answered after SIGTERM, while `/readyz` says 503.
        stop_within: How long requests in flight have after that.
        storage_options: Passed through to the store.
        as_json: Lines as JSON; None decides by the terminal.
        verbose: Tell more.
    """

    views: Path
    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 1
    root: str | None = None
    providers: Path | None = None
    state: Path | None = None
    served_log: str | None = None
    sample: float = 1.0
    redis: bool = False
    online: OnlineSettings = field(default_factory=OnlineSettings)
    limits: HttpLimits = field(default_factory=HttpLimits)
    drain_seconds: float = 1.0
    stop_within: float = 10.0
    storage_options: dict[str, str] | None = None
    as_json: bool | None = None
    verbose: bool = False
