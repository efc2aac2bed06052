"""Messages on their way into the spool: read, kept in order, acknowledged only when they are durable."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ingestion.errors import PayloadError, SpoolFullError, SpoolWriteError
from ingestion.instants import Clock, to_us
from ingestion.spool.bodies import Body, read_body
from ingestion.spool.frames import Header, Record

if TYPE_CHECKING:
    from ingestion.providers.provider import Provider
    from ingestion.spool.wal import Spool

_WAIT = 0.5


class Say(Protocol):
    """Where what happens to a connection is told; structlog's loggers are such."""

    def info(self, event: str, /, **fields: Any) -> Any:
        """Something went as it should."""

    def warning(self, event: str, /, **fields: Any) -> Any:
        """Something did not, and is dealt with."""


class Intake:
    """One provider's messages into the spool.

    Args:
        provider: Whose messages they are.
        source: The kind of source, for the ledger.
        spool: Where they are kept.
        clock: Something that tells now.
        say: Where it is told what was set aside, and what must wait.

    Attributes:
        messages: How many messages are durable.
        rows: How many rows they had.
        unread: How many could not be read.
        connected: Whether the broker is reached.
        problem: Why it was not when that was last tried, if it was not.
    """

    def __init__(self, provider: Provider, source: str, spool: Spool, clock: Clock, say: Say) -> None:
        self.provider = provider
        self.say = say
        self.messages = self.rows = self.unread = 0
        self.connected = False
        self.problem: str | None = None
        self.quiet_since = time.monotonic()
        self._source = source
        self._spool = spool
        self._clock = clock
        self._layout = provider.layout

    def record(
        self,
        content: bytes,
        *,
        label: str,
        media_type: str = "",
        key: str | None = None,
        offset: int | None = None,
        epoch: int = 0,
    ) -> Record:
        """A message as a record; one that cannot be read is kept as it is, and goes to the quarantine."""
        problem = ""
        try:
            essence = media_type.partition(";")[0].strip().lower()
            known = essence if "json" in essence or "arrow" in essence else ""
            body = read_body(content, known, self._layout, provider=self.provider.name, label=label)
        except PayloadError as error:
            problem = error.problem
            body = Body("raw", content, 0)
            self.unread += 1
            self.say.warning("cannot be read, set aside", provider=self.provider.name, at=label, problem=problem)
        header = Header(
            provider=self.provider.name,
            source=self._source,
            received_us=to_us(self._clock()),
            rows=body.rows,
            form=body.form,
            media_type=body.media_type,
            key=key,
            digest="",
            offset=offset,
            epoch=epoch,
            label=label,
            problem=problem,
        )
        return Record(header, body.content)

    async def keep(self, records: Sequence[Record]) -> None:
        """Keep records, all or none, and return when they are durable; as long as that cannot be, wait."""
        if not records:
            return
        told = False
        while True:
            try:
                await asyncio.wrap_future(self._spool.put_all(records))
                break
            except (SpoolFullError, SpoolWriteError) as error:
                if not told:
                    self.say.warning("must wait", provider=self.provider.name, problem=error.problem)
                told = True
                await asyncio.sleep(_WAIT)
        self.quiet_since = time.monotonic()
        self.messages += len(records)
        self.rows += sum(record.header.rows for record in records)

    async def idle(self, every: float) -> None:
        """Say in the ledger that the connection lives and nothing was waiting, if nothing has come for so many seconds."""
        if time.monotonic() - self.quiet_since < every:
            return
        header = Header(
            provider=self.provider.name, source=self._source, received_us=to_us(self._clock()), rows=0, idle=True
        )
        await self.keep([Record(header, b"")])
        self.messages -= 1


def located(error: BaseException, place: str | None) -> str:
    """What an error says, after the address at which it happened."""
    text = str(error) or repr(error)
    return f"{place}: {text}" if place else text


def digest_of(*parts: bytes) -> str:
    """A short digest of some bytes."""
    found = hashlib.blake2b(digest_size=12)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()
