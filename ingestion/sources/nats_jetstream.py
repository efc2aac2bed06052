"""A NATS JetStream stream into the spool: from the message after the last in the log, each once, in order.

The stream's sequence numbers are the offsets. The cursor that counts is in the provider's log; the consumer at the server is
made anew with each connection, and goes away by itself. A server that comes back without its latest messages, or with a new
stream under the old name, counts from a lower number again; such messages get a greater epoch, so that they are not taken
for known ones.

FastStream makes the connection; messages come by nats-py, the client below it. FastStream 0.7's batch subscriber catches
`nats.errors.TimeoutError` where a fetch that runs out raises `asyncio.TimeoutError`: its task ends, and what had come is
dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from faststream.nats import NatsBroker
from faststream.nats.security import NatsCredentials, NatsToken
from faststream.security import BaseSecurity, SASLPlaintext
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamInfo
from nats.js.errors import NotFoundError

from ingestion.errors import SourceError
from ingestion.instants import Clock, to_us
from ingestion.sources.brokers import NatsSource
from ingestion.sources.intake import Intake, located
from ingestion.sources.settings import from_environment, seconds_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from ingestion.spool.wal import Spool

_NO_LIMIT = 0
_LOOK = 2.0
_FORGET = 300.0
_ACK_WAIT = 3_600.0


class _Arrived:
    """Messages that have come and are not taken yet."""

    def __init__(self) -> None:
        self._messages: deque[Msg] = deque()
        self._some = asyncio.Event()

    async def put(self, message: Msg) -> None:
        """A message has come."""
        self._messages.append(message)
        self._some.set()

    async def take(self, most: int) -> list[Msg]:
        """What has come, but not more than so many; waits for one."""
        await self._some.wait()
        taken = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
        if not self._messages:
            self._some.clear()
        return taken


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
        self._delivered = 0
        self._busy = False
        self._each = False

    async def session(self) -> None:
        """Connect, and consume until the connection is lost.

        Raises:
            NatsError: If the server cannot be reached, or refuses.
            SourceError: If there is no such stream.
        """
        lost = asyncio.Event()
        self._delivered = 0
        async with self._connected(lost) as broker:
            jetstream = broker.connection.jetstream()
            stream = await self._stream(jetstream)
            name = await self._name(jetstream, stream)
            arrived = _Arrived()
            await jetstream.subscribe(
                self._source.subject,
                cb=arrived.put,
                durable=name,
                stream=self._source.stream,
                config=self._config(stream),
                manual_ack=True,
                pending_msgs_limit=_NO_LIMIT,  # the server sends no more than may be unacknowledged
                pending_bytes_limit=_NO_LIMIT,
            )
            self._intake.connected = True
            self._say.info("connected", provider=self._provider, stream=self._source.stream, after=self._place[1])
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._consume(arrived))
                    tasks.create_task(self._watch(jetstream, name, lost))
            finally:
                self._intake.connected = False

    @contextlib.asynccontextmanager
    async def _connected(self, lost: asyncio.Event) -> AsyncIterator[NatsBroker]:
        told = False

        async def disconnected() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            nonlocal told
            self._intake.problem = problem = located(error, self._source.place)
            if not told:
                self._say.warning("not reached", provider=self._provider, problem=problem)
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
            client = broker._connection  # noqa: SLF001 - `stop` drains, and leaves a connection open that was just made again
            if client is not None:
                await client.close()
            with contextlib.suppress(NatsError, TimeoutError, OSError):
                await broker.stop()

    async def _stream(self, jetstream: JetStreamContext) -> StreamInfo:
        """What the server says of the stream; where to go on is decided by it.

        Raises:
            SourceError: If there is no such stream.
        """
        try:
            stream = await jetstream.stream_info(self._source.stream)
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
            self._place = (max(to_us(self._clock()), epoch + 1), stream.state.last_seq)
        elif not last:
            self._place = (max(created, epoch), 0)
        self._epoch = self._place[0]
        missed = stream.state.first_seq - self._place[1] - 1
        if last and self._place[1] and missed > 0:
            self._say.warning("the stream has dropped messages that were not taken yet", **fields, messages=missed)
        return stream

    async def _name(self, jetstream: JetStreamContext, stream: StreamInfo) -> str:
        """A name for the consumer; a work queue takes one consumer only, so an earlier one must go."""
        if stream.config.retention != RetentionPolicy.WORK_QUEUE:
            return f"asknown-{secrets.token_hex(8)}"
        name = f"asknown-{self._provider}".replace(".", "_")
        with contextlib.suppress(NotFoundError):
            await jetstream.delete_consumer(self._source.stream, name)
        return name

    def _config(self, stream: StreamInfo) -> ConsumerConfig:
        last = self._place[1]
        queue = stream.config.retention == RetentionPolicy.WORK_QUEUE  # which starts with what is left
        self._each = queue
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE if last and not queue else DeliverPolicy.ALL,
            opt_start_seq=last + 1 if last and not queue else None,
            ack_policy=AckPolicy.EXPLICIT if queue else AckPolicy.ALL,
            ack_wait=_ACK_WAIT,
            max_ack_pending=2 * self._source.batch,
            inactive_threshold=_FORGET,
        )

    async def _consume(self, arrived: _Arrived) -> None:
        """Take batches, one after the other: the next is taken when this one is durable."""
        while True:
            messages = await arrived.take(self._source.batch)
            self._count(messages)
            self._busy = True
            try:
                await self._keep(messages)
            finally:
                self._busy = False
            for message in messages if self._each else messages[-1:]:
                await message.ack()

    def _count(self, messages: list[Msg]) -> None:
        """See that no delivery is missing: the place of a later one would pass for the place of all before it.

        Raises:
            SourceError: If one is.
        """
        for message in messages:
            number = message.metadata.sequence.consumer
            if number > self._delivered + 1:
                raise self._problem(f"{number - self._delivered - 1} messages were lost on their way")
            self._delivered = max(self._delivered, number)

    def _problem(self, problem: str) -> SourceError:
        return SourceError(self._provider, f"stream {self._source.stream!r}", problem)

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

    async def _watch(self, jetstream: JetStreamContext, name: str, lost: asyncio.Event) -> None:
        """Look whether what was delivered has come, and say that the stream lives.

        Raises:
            SourceError: If the connection or the consumer is gone, or messages were delivered that did not come.
        """
        every = seconds_of(self._source.idle_every)
        behind = -1
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(lost.wait(), _LOOK)
            if lost.is_set():
                raise self._problem("the connection is lost")
            try:
                info = await jetstream.consumer_info(self._source.stream, name)
            except NotFoundError:
                raise self._problem("the server has dropped the consumer") from None
            except (TimeoutError, NatsError):
                continue
            sent = info.delivered.consumer_seq if info.delivered is not None else 0
            if sent > self._delivered and not self._busy:
                if behind == self._delivered:  # for the second time, and nothing has come in between
                    raise self._problem(f"{sent - self._delivered} messages were lost on their way")
                behind = self._delivered
            if not info.num_pending and not info.num_ack_pending:
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


def _media_type(headers: Mapping[str, str] | None) -> str:
    found = headers or {}
    return next((value for name, value in found.items() if name.lower() == "content-type"), "")
