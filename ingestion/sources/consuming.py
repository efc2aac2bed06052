"""Consuming brokers: a connection per provider, made again whenever it is lost, messages into the spool."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ingestion.errors import IngestionError, MissingLibraryError, ProviderError, SpoolError
from ingestion.instants import Clock, system_clock
from ingestion.sources.brokers import BrokerSource, MqttSource, NatsSource
from ingestion.sources.intake import Intake, Say, located
from ingestion.spool.flush import place_in

if TYPE_CHECKING:
    from ingestion.providers.provider import Provider
    from ingestion.sources.base import Progress
    from ingestion.spool.wal import Spool

_WAITS = (0.5, 15.0)


class _Consumer(Protocol):
    async def session(self) -> None:
        """Connect, and consume until the connection is lost."""


class Consuming:
    """One provider's broker into the spool.

    Args:
        provider: Whose `source` is a broker.
        spool: Where messages are kept until they are in the log.
        progress: How far the provider's log is; `log.progress()`.
        environment: Where credentials are; that of the process if `None`.
        clock: Something that tells now.
        say: Where it is told what happens to the connection; Python's logging if `None`.

    Attributes:
        intake: Counts what came, and knows whether the broker is reached.

    Raises:
        ProviderError: If the provider's source is no broker.
        MissingLibraryError: If FastStream is not installed.
    """

    def __init__(
        self,
        provider: Provider,
        spool: Spool,
        progress: Progress,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        say: Say | None = None,
    ) -> None:
        source = provider.source
        kind = getattr(source, "kind", None)
        known = os.environ if environment is None else environment
        now = clock or system_clock
        self.intake = Intake(provider, kind or "", spool, now, say or _Plain())
        self._place = getattr(source, "place", None)
        self._consumer: _Consumer
        try:
            if isinstance(source, NatsSource):
                from ingestion.sources.nats_jetstream import NatsConsumer

                self._consumer = NatsConsumer(source, self.intake, spool, place_in(progress.cursor), known, now)
            elif isinstance(source, MqttSource):
                from ingestion.sources.mqtt import MqttConsumer

                self._consumer = MqttConsumer(source, self.intake, spool, known)
            elif isinstance(source, BrokerSource):
                from ingestion.sources.any_broker import BrokerConsumer

                self._consumer = BrokerConsumer(source, self.intake, spool, known)
            else:
                raise ProviderError(
                    f"provider {provider.name!r}: source", f"kind {kind!r} is no broker", "use nats, mqtt or broker."
                )
        except ImportError as error:
            raise MissingLibraryError(error.name or "faststream", "brokers", f"consuming {kind}") from error

    async def run(self) -> None:
        """Consume until cancelled; a broker that fails or goes away is tried again, ever less often.

        Raises:
            SpoolError: If the spool is closed.
        """
        wait = _WAITS[0]
        while True:
            before = self.intake.messages
            try:
                await self._consumer.session()
            except SpoolError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a client raises, the connection is made again
                self._tell(error, wait)
            if self.intake.messages > before:
                wait = _WAITS[0]
            await asyncio.sleep(wait)
            wait = min(2 * wait, _WAITS[1])

    def _tell(self, error: BaseException, wait: float) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        problem = error.problem if isinstance(error, IngestionError) else located(error, self._place)
        self.intake.problem = problem
        self.intake.say.warning("not consuming", provider=self.intake.provider.name, problem=problem, again_in=wait)


class _Plain:
    """Python's logging, as far as it is needed here."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("asknown.consuming")

    def info(self, event: str, /, **fields: Any) -> None:
        """Something went as it should."""
        self._logger.info("%s %s", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Something did not, and is dealt with."""
        self._logger.warning("%s %s", event, fields)
