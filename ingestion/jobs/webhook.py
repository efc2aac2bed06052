"""Alerts to an address on the web: one JSON object per message, tried again for a day, the address itself never told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ingestion.errors import MissingLibraryError, ProviderError
from ingestion.jobs.observability import logger

try:
    import httpx
except ImportError as error:  # pragma: no cover - the extra is installed where tests run
    raise MissingLibraryError("httpx", "ingest", "a webhook") from error

if TYPE_CHECKING:
    from ingestion.jobs.alerts import Notice

TIMEOUT: Final = 10.0
GIVE_UP_AFTER: Final = timedelta(days=1)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 300.0


class Webhook:
    """Sends messages, one at a time.

    The body has `version` (1), `event` (`opened` or `recovered`), `id` (the same in both), `provider`, `kind`, `summary`, `text`
    (a line for people, which chat tools show), `opened`, `closed` (null while it goes on), `detail` and `root`. The header
    `Idempotency-Key` is the same whenever a message is sent again.

    Args:
        address: Where to; from the environment, for it often contains a secret.
        root: Where the logs are, so that a receiver can tell jobs apart.
        transport: Tests put one in.
    """

    name = "webhook"

    def __init__(self, address: str, *, root: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._address, self._root = address, root
        self._client = httpx.AsyncClient(timeout=TIMEOUT, transport=transport, follow_redirects=False)
        self._say = logger("alerts")
        self.first_wait = _FIRST_WAIT

    @classmethod
    def from_environment(cls, variable: str, environment: Mapping[str, str], *, root: str) -> Webhook:
        """The webhook whose address an environment variable has.

        Raises:
            ProviderError: If it is not set, or has no such address.
        """
        address = environment.get(variable, "")
        if not address.startswith(("https://", "http://")):
            problem = "is not set" if not address else "does not begin with https:// or http://"
            raise ProviderError("webhook_env", f"the environment variable {variable!r} {problem}", "export it.")
        return cls(address, root=root)

    def body(self, notice: Notice) -> dict[str, Any]:
        """What is sent."""
        incident = notice.incident.to_dict()
        del incident["gone_since"]
        mark = "RECOVERED" if notice.event == "recovered" else "ALERT"
        text = f"{mark} {notice.incident.provider} {notice.incident.kind}: {notice.incident.summary}"
        return {"version": 1, "event": notice.event, "text": text, "root": self._root, **incident}

    async def send(self, notice: Notice, *, now: datetime) -> bool:
        """Send a message until it is taken.

        Args:
            notice: The message.
            now: The instant; one that is older than a day is given up after the first try.

        Returns:
            Whether it was taken.
        """
        wait = self.first_wait
        incident = notice.incident
        age = now - (incident.closed or incident.opened)
        spent = 0.0
        while True:
            problem, final = await self._attempt(notice)
            if problem is None:
                return True
            if final or age + timedelta(seconds=spent) >= GIVE_UP_AFTER:
                self._say.error("not delivered", sink=self.name, provider=incident.provider, problem=problem)
                return False
            self._say.warning("tried again later", sink=self.name, provider=incident.provider, problem=problem)
            pause = wait * random.uniform(1.0, 1.5)  # noqa: S311 - so that jobs do not all come back at once
            await asyncio.sleep(pause)
            spent += pause
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _attempt(self, notice: Notice) -> tuple[str | None, bool]:
        """What went wrong, if anything, and whether it will always."""
        key = f"{notice.incident.id}-{notice.event}"
        try:
            answer = await self._client.post(
                self._address, json=self.body(notice), headers={"Idempotency-Key": key, "User-Agent": "asknown"}
            )
        except httpx.HTTPError as error:
            return type(error).__name__, False
        except Exception as error:  # noqa: BLE001 - e.g. an address that is none
            return type(error).__name__, True
        if answer.is_success:
            return None, True
        return f"answered {answer.status_code}", answer.status_code < 500 and answer.status_code not in {408, 425, 429}

    async def close(self) -> None:
        """Give back connections."""
        await self._client.aclose()
