"""A NATS JetStream stream into the spool: from the message after the last in the log, each once, in order.

The stream's sequence numbers are the offsets. The cursor that counts is in the provider's log; the consumer at the server is
made anew with each connection, and goes away by itself. A server that comes back without its latest messages, or with a new
stream under the old name, counts from a lower number again; such messages get a greater epoch, so that they are not taken
for known ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.security import NatsCredentials, NatsToken
from faststream.security import BaseSecurity, SASLPlaintext
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy as JsAckPolicy
from nats.js.api import ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamInfo
from nats.js.errors import NotFoundError

from ingestion.errors import SourceError
from ingestion.instants import Clock, to_us
from ingestion.sources.brokers import NatsSource
from ingestion.sources.intake import Intake
from ingestion.sources.settings import from_environment, seconds_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from ingestion.spool.wal import Spool

_COLLECT = 0.2
_LOOK = 2.0
_FORGET = 300.0
_ACK_WAIT = 3_600.0


class NatsConsumer:
    """Consumes one stream.

    Args:
        source: Which.
        intake: Where messages go.
        spool: Where they are kept, for the place of those that wait there.
        start: The (epoch, sequence) of the last message in the log.
        environment: Where credentials are.
        clock: Something that tells now.
    """

    def __init__(
        self,
        source: NatsSource,
        intake: Intake,
        spool: Spool,
        start: tuple[int, int] | None,
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._source = source
        self._intake = intake
        self._provider = intake.provider.name
        self._say = intake.say
        self._clock = clock
        self._environment = environment
        self._place = max(start or (0, 0), spool.last_place(self._provider) or (0, 0))
        self._epoch = self._place[0]
        self._lost = asyncio.Event()
        self._failed: BaseException | None = None

    async def session(self) -> None:
        """Connect, and consume until the connection is lost.

        Raises:
            NatsError: If the server cannot be reached, or refuses.
            SourceError: If there is no such stream.
        """
        self._lost, self._failed = asyncio.Event(), None
        async with self._connected(self._lost) as broker:
            stream = await self._stream(broker)
            config = self._config(stream)
            name = await self._name(broker, stream)
            subscriber = broker.subscriber(
                self._source.subject,
                stream=JStream(self._source.stream, declare=False),
                durable=name,
                config=config,
                pull_sub=PullSub(batch_size=self._source.batch, timeout=_COLLECT, batch=True),
                ack_policy=AckPolicy.MANUAL,
                no_reply=True,
                decoder=_as_it_came,
            )
            subscriber(self._take)
            await broker.start()
            self._intake.connected = True
            self._say.info("connected", provider=self._provider, stream=self._source.stream, after=self._place[1])
            try:
                await self._watch(broker, name)
            finally:
                self._intake.connected = False
                await subscriber.stop()  # before the connection is closed: its loop would never wait again

    @contextlib.asynccontextmanager
    async def _connected(self, lost: asyncio.Event) -> AsyncIterator[NatsBroker]:
        told = False

        async def disconnected() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            nonlocal told
            if not told:
                self._say.warning("not reached", provider=self._provider, problem=str(error) or repr(error))
            told = True

        broker = NatsBroker(
            list(self._source.servers),
            name=f"asknown {self._provider}",
            security=self._security(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            drain_timeout=1,
            disconnected_cb=disconnected,
            error_cb=failed,
            apply_types=False,
            logger=None,
            graceful_timeout=5.0,
        )
        try:
            await broker.connect()
            yield broker
        finally:
            client = broker._connection  # noqa: SLF001 - `stop` leaves a connection open that was being made again
            with contextlib.suppress(NatsError, asyncio.TimeoutError, OSError):
                await broker.stop()
            if client is not None and not client.is_closed:
                await client.close()

    async def _stream(self, broker: NatsBroker) -> StreamInfo:
        """What the server says of the stream; where to go on is decided by it.

        Raises:
            SourceError: If there is no such stream.
        """
        try:
            stream = await broker.connection.jetstream().stream_info(self._source.stream)
        except NotFoundError as error:
            raise SourceError(
                self._provider,
                f"stream {self._source.stream!r}",
                "there is no such stream",
                f"make it: nats stream add {self._source.stream}.",
            ) from error
        created = to_us(stream.created) if stream.created is not None else 0
        epoch, last = self._place
        fields = {"provider": self._provider, "stream": self._source.stream}
        if created > epoch and last:
            self._say.warning("the stream was made anew; all of it is taken", **fields, last_known=last)
            self._place = (created, 0)
        elif stream.state.last_seq < last:
            self._say.warning(
                "the stream ends before what is known of it; what comes now is taken as new",
                **fields,
                last_known=last,
                last_there=stream.state.last_seq,
            )
            self._place = (to_us(self._clock()), stream.state.last_seq)
        elif not last:
            self._place = (max(created, epoch), 0)
        self._epoch = self._place[0]
        missed = stream.state.first_seq - self._place[1] - 1
        if last and self._place[1] and missed > 0:
            self._say.warning("the stream has dropped messages that were not taken yet", **fields, messages=missed)
        return stream

    async def _name(self, broker: NatsBroker, stream: StreamInfo) -> str:
        """A name for the consumer; a work queue takes one consumer only, so an earlier one must go."""
        if stream.config.retention != RetentionPolicy.WORK_QUEUE:
            return f"asknown-{secrets.token_hex(8)}"
        name = f"asknown-{self._provider}".replace(".", "_")
        with contextlib.suppress(NotFoundError):
            await broker.connection.jetstream().delete_consumer(self._source.stream, name)
        return name

    def _config(self, stream: StreamInfo) -> ConsumerConfig:
        last = self._place[1]
        queue = stream.config.retention == RetentionPolicy.WORK_QUEUE  # which starts with what is left
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if last and not queue else DeliverPolicy.ALL,
            opt_start_seq=last + 1 if last and not queue else None,
            ack_policy=JsAckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT,
            max_ack_pending=2 * self._source.batch,
            inactive_threshold=_FORGET,
        )

    async def _take(self, messages: list[Msg]) -> None:
        """Keep a batch, then acknowledge it.

        After a batch that failed none is taken in this session: FastStream goes on with the next, and then the place of that
        would pass for the place of all before it.
        """
        if self._failed is not None:
            return
        try:
            await self._keep(messages)
        except BaseException as error:
            self._failed = error
            self._lost.set()
            raise
        for message in messages:
            with contextlib.suppress(NatsError):
                await message.ack()

    async def _keep(self, messages: list[Msg]) -> None:
        records = []
        last = self._place[1]
        for message in messages:
            sequence = message.metadata.sequence.stream
            if sequence <= last:
                continue
            last = sequence
            records.append(
                self._intake.record(
                    message.data,
                    label=f"{message.subject} #{sequence}",
                    media_type=_media_type(message.headers),
                    offset=sequence,
                    epoch=self._epoch,
                )
            )
        await self._intake.keep(records)
        self._place = (self._epoch, last)

    async def _watch(self, broker: NatsBroker, name: str) -> None:
        """Until the connection or the consumer is gone.

        Raises:
            BaseException: What a batch failed with.
        """
        every = seconds_of(self._source.idle_every)
        jetstream = broker.connection.jetstream()
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _LOOK)
            if self._failed is not None:
                raise self._failed
            if self._lost.is_set():
                self._say.warning("lost", provider=self._provider, stream=self._source.stream)
                return
            try:
                since = time.monotonic()
                info = await jetstream.consumer_info(self._source.stream, name)
            except NotFoundError:
                self._say.warning("the server dropped the consumer", provider=self._provider)
                return
            except (TimeoutError, NatsError):
                continue
            if not info.num_pending and not info.num_ack_pending and self._intake.quiet_since < since:
                await self._intake.idle(every)

    def _security(self) -> BaseSecurity | None:
        source, tls = self._source, self._source.tls
        if source.token_env is not None:
            return NatsToken(self._secret(source.token_env), use_ssl=tls)
        if source.credentials_env is not None:
            return NatsCredentials(self._secret(source.credentials_env), use_ssl=tls)
        if source.user_env is not None and source.password_env is not None:
            user, password = self._secret(source.user_env), self._secret(source.password_env)
            return SASLPlaintext(username=user, password=password, use_ssl=tls)
        return BaseSecurity(use_ssl=True) if tls else None

    def _secret(self, variable: str) -> str:
        return from_environment(variable, self._environment, provider=self._provider, place="nats")


async def _as_it_came(message: Any) -> Any:
    """FastStream would decode each message; they are read in our own way."""
    return message.raw_message


def _media_type(headers: Mapping[str, str] | None) -> str:
    found = headers or {}
    return next((value for name, value in found.items() if name.lower() == "content-type"), "")
