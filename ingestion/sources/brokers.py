"""Message brokers as sources: what a declaration says of them. They are spoken to through FastStream (`consuming`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ingestion.sources.layout import Layout
from ingestion.sources.settings import Duration, SourceSettings


def _address(text: str) -> str:
    """An address without credentials.

    Raises:
        ValueError: If it has some.
    """
    parts = urlsplit(text if "://" in text else f"//{text}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address must not hold credentials; name environment variables: user_env, password_env.")
    return text


Address = Annotated[str, AfterValidator(_address)]


class NatsSource(SourceSettings):
    """A NATS JetStream stream.

    Messages are taken from the one after the last that is in the log; where that is stands in the log, not at the server.

    Attributes:
        kind: `nats`.
        servers: Their addresses, without credentials.
        stream: The stream.
        subject: The subject, or a pattern of subjects; `>` takes all of the stream.
        layout: How the rows in a message are laid out; `None`: by our own names.
        token_env: The environment variable that holds a token.
        user_env: The one that holds a user name.
        password_env: The one that holds its password.
        credentials_env: The one that holds the path of a credentials file.
        tls: Whether the connection is encrypted.
        batch: How many messages are taken at a time.
        idle_every: How often a stream that is connected and brings nothing is said to be so in the ledger.
    """

    kind: Literal["nats"] = "nats"
    servers: tuple[Address, ...] = Field(default=("nats://127.0.0.1:4222",), min_length=1)
    stream: str = Field(min_length=1)
    subject: str = ">"
    layout: Layout | None = None
    token_env: str | None = None
    user_env: str | None = None
    password_env: str | None = None
    credentials_env: str | None = None
    tls: bool = False
    batch: int = Field(default=500, ge=1, le=10_000)
    idle_every: Duration = "1m"

    @property
    def place(self) -> str:
        """Where the servers are, for messages."""
        return ", ".join(self.servers)


class MqttSource(SourceSettings):
    """Topics of an MQTT server, in a session that it keeps while we are away.

    Attributes:
        kind: `mqtt`.
        host: The server.
        port: Its port.
        topic: The topic, or a filter with `+` and `#`.
        qos: 1. With 0 the server would forget what we did not get; with 2 it would not say that a message comes again.
        client_id: The name of the session; `None`: `asknown-` and the provider's name. Each job needs its own.
        version: Of the protocol.
        session_expiry: How long the server keeps the session while we are away; version 5.0 only, in 3.1.1 the server decides.
        layout: How the rows in a message are laid out; `None`: by our own names.
        user_env: The environment variable that holds a user name.
        password_env: The one that holds its password.
        tls: Whether the connection is encrypted.
        batch: How many messages are taken at a time.
        idle_every: How often a connection that brings nothing is said to be so in the ledger.
    """

    kind: Literal["mqtt"] = "mqtt"
    host: Address = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65_535)
    topic: str = Field(min_length=1)
    qos: Literal[1] = 1
    client_id: str | None = None
    version: Literal["3.1.1", "5.0"] = "5.0"
    session_expiry: Duration = "7d"
    layout: Layout | None = None
    user_env: str | None = None
    password_env: str | None = None
    tls: bool = False
    batch: int = Field(default=500, ge=1, le=10_000)
    idle_every: Duration = "1m"

    @property
    def place(self) -> str:
        """Where the server is, for messages."""
        return f"mqtt://{self.host}:{self.port}"


class BrokerSource(SourceSettings):
    """Any other broker that FastStream speaks to: Kafka, RabbitMQ, Redis, ...

    A message is acknowledged when it is durable. A Kafka message that comes again is recognised by its topic, partition and
    offset; with other brokers a crash between the two may repeat a message.

    Attributes:
        kind: `broker`.
        broker: FastStream's class, e.g. `faststream.kafka:KafkaBroker`.
        options: What the class is called with, e.g. `bootstrap_servers`.
        options_env: The same, but the values are names of environment variables: for credentials and addresses that hold
            some.
        subscriber: What its `subscriber` method is called with by name, e.g. `group_id`.
        channels: What it is called with by place: topics, queues.
        layout: How the rows in a message are laid out; `None`: by our own names.
    """

    kind: Literal["broker"] = "broker"
    broker: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    options: dict[str, Any] = Field(default_factory=dict)
    options_env: dict[str, str] = Field(default_factory=dict)
    subscriber: dict[str, Any] = Field(default_factory=dict)
    channels: tuple[str, ...] = Field(min_length=1)
    layout: Layout | None = None


CONSUMED = frozenset({"nats", "mqtt", "broker"})
"""The kinds of sources that a job consumes: it keeps a connection, and messages come."""
