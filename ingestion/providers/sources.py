"""The kinds of sources that a declaration may name."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from ingestion.providers.push_source import PushSource
from ingestion.sources.brokers import BrokerSource, MqttSource, NatsSource
from ingestion.sources.files import FilesSource
from ingestion.sources.http_pull import HttpSource
from ingestion.sources.python import PythonSource
from ingestion.sources.sql import SqlSource

SourceConfig = Annotated[
    BrokerSource | FilesSource | HttpSource | MqttSource | NatsSource | PushSource | PythonSource | SqlSource,
    Field(discriminator="kind"),
]
"""Where rows come from; `kind` says which of them it is."""

POLLED: Final = frozenset({"files", "http", "sql", "python"})
"""The kinds that a job goes and fetches from; the others send by themselves."""
