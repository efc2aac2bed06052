"""The way to Redis: from an address in the environment, never shown, and with errors that say what to look at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.errors import MissingExtraError, OptionError
from serving.online.errors import StateUnavailableError

URL_VARIABLE = "ASKNOWN_REDIS_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where the state is shared.

    Attributes:
        url_variable: The environment variable with the address: `redis://[user:password@]host:port/db`, or `rediss://` for TLS
            (`?ssl_ca_certs=/path` names the authority).
        namespace: What all keys begin with; deployments that share a Redis take different ones.
        timeout: Seconds that a command may take before the state counts as unreachable.
        lock_for: Seconds after which a replica that stopped in the middle of building the state is taken for dead.
    """

    url_variable: str = URL_VARIABLE
    namespace: str = "asknown"
    timeout: float = 2.0
    lock_for: float = 30.0


class Connection:
    """Commands to one Redis.

    Args:
        settings: Where it is.
        url: Its address, instead of the one in the environment.

    Raises:
        MissingExtraError: If the client library is not installed.
        OptionError: If the environment has no address, or one that is none.
    """

    def __init__(self, settings: RedisSettings, *, url: str | None = None) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtraError("redis", "redis", "state shared in Redis") from error
        self.settings = settings
        source = settings.url_variable if url is None else "the address given"
        url = os.environ.get(settings.url_variable, "") if url is None else url
        if not url:
            raise OptionError(
                f"the environment has no {settings.url_variable}",
                f"export {settings.url_variable}=redis://127.0.0.1:6379/0",
            )
        try:
            # A read is asked once more on a fresh connection: an idle one may have been cut meanwhile.
            self.client = redis.Redis.from_url(
                url,
                socket_timeout=settings.timeout,
                socket_connect_timeout=settings.timeout,
                retry=Retry(NoBackoff(), 1),
                health_check_interval=0,
            )
            options = self.client.connection_pool.connection_kwargs
        except (ValueError, TypeError):
            raise OptionError(
                f"{source} is not the address of a Redis",
                "write redis://host:6379/0, or rediss://user:password@host:6380/0 for TLS.",
            ) from None
        self.place = f"Redis at {options.get('host', options.get('path', 'localhost'))}:{options.get('port', 6379)}"
        self._errors = (redis.RedisError, OSError)

    def __repr__(self) -> str:
        return f"Connection({self.place!r})"

    @contextlib.contextmanager
    def reached(self) -> Iterator[Any]:
        """The client.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or refuses.
        """
        try:
            yield self.client
        except self._errors as error:
            raise StateUnavailableError(f"{self.place}: {type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Look whether rows can be kept there.

        Raises:
            StateUnavailableError: If Redis cannot be reached, or would throw rows away when it is full.
        """
        with self.reached() as client:
            memory = client.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            raise StateUnavailableError(
                f"{self.place} drops keys when it is full (maxmemory-policy {policy}): rows would be missing unnoticed",
                "CONFIG SET maxmemory-policy noeviction",
            )

    def close(self) -> None:
        """Let go of all connections."""
        self.client.close()
