"""Any broker that FastStream speaks to, by configuration: a message is acknowledged when it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from faststream import AckPolicy

from ingestion.errors import MissingLibraryError, SourceError, SpoolError
from ingestion.sources.brokers import BrokerSource
from ingestion.sources.intake import Intake
from ingestion.sources.settings import from_environment
from ingestion.spool.wal import Spool


class BrokerConsumer:
    """Consumes one subscription.

    Args:
        source: Which.
        intake: Where messages go.
        spool: Where they are kept, for the keys of those that are known.
        environment: Where credentials are.
    """

    def __init__(self, source: BrokerSource, intake: Intake, spool: Spool, environment: Mapping[str, str]) -> None:
        self._source = source
        self._intake = intake
        self._provider = intake.provider.name
        self._spool = spool
        self._environment = environment

    async def session(self) -> None:
        """Connect, and consume; FastStream's client reconnects by itself.

        Raises:
            SourceError: If FastStream has no such broker, or it does not take the options.
        """
        broker = self._broker()
        try:
            subscriber = broker.subscriber(
                *self._source.channels,
                **self._source.subscriber,
                ack_policy=AckPolicy.NACK_ON_ERROR,
                no_reply=True,
                decoder=_as_it_came,
            )
        except TypeError as error:
            raise SourceError(
                self._provider, self._source.broker, f"its subscriber takes no such option: {error}"
            ) from error
        subscriber(self._take)
        try:
            await broker.start()
            self._intake.connected = True
            self._intake.say.info("connected", provider=self._provider, channels=list(self._source.channels))
            await asyncio.Event().wait()
        finally:
            self._intake.connected = False
            await broker.stop()

    async def _take(self, message: Any) -> None:
        """Keep a message; FastStream acknowledges it after that, and asks for it again after an error."""
        try:
            await self._keep(message)
        except Exception as error:
            self._intake.say.warning("not kept", provider=self._provider, problem=str(error) or repr(error))
            raise

    async def _keep(self, message: Any) -> None:
        key = _key(message.raw_message)
        if key is not None and self._spool.knows("broker", self._provider, key):
            return
        record = self._intake.record(
            _bytes(message.body),
            label=key or self._source.channels[0],
            media_type=message.content_type or "",
            key=key,
        )
        await self._intake.keep([record])

    def _broker(self) -> Any:
        """FastStream's broker.

        Raises:
            SourceError: If there is no such class, or it does not take the options.
            MissingLibraryError: If the library below it is not installed.
        """
        module, _, name = self._source.broker.partition(":")
        secret = {
            option: from_environment(variable, self._environment, provider=self._provider, place=self._source.broker)
            for option, variable in self._source.options_env.items()
        }
        try:
            made = getattr(import_module(module), name)
            return made(**self._source.options, **secret, apply_types=False, logger=None)
        except ImportError as error:
            extra = module.rpartition(".")[2]
            raise MissingLibraryError(error.name or module, "brokers", f"{module} (faststream[{extra}])") from error
        except (AttributeError, TypeError) as error:
            raise SourceError(self._provider, self._source.broker, f"cannot be made: {error}") from error


def _key(raw: Any) -> str | None:
    """What names a message for ever: of Kafka, its topic, partition and offset."""
    offset, partition = getattr(raw, "offset", None), getattr(raw, "partition", None)
    if callable(offset) and callable(partition):  # confluent's messages have methods
        return f"{raw.topic()}/{partition()}/{offset()}"
    if isinstance(offset, int) and isinstance(partition, int):
        return f"{raw.topic}/{partition}/{offset}"
    return None


def _bytes(body: Any) -> bytes:
    """A message's content.

    Raises:
        SpoolError: If it is no content, as of a Kafka message without a value.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    raise SpoolError(f"a message of type {type(body).__name__} has no content")


async def _as_it_came(message: Any) -> Any:
    """FastStream would decode the message; it is read in our own way."""
    return message
