"""Declarations of providers: who sends what, from where, when, and under which contract."""

from ingestion.providers.contract import ColumnRule, Contract
from ingestion.providers.dtypes import dtype_text, parse_dtype
from ingestion.providers.loading import Declared, load_providers
from ingestion.providers.presets import PRESETS, preset
from ingestion.providers.provider import Alerts, Provider, Publication
from ingestion.providers.push_source import PushSource
from ingestion.providers.schedule import Schedule, Timetable
from ingestion.providers.sources import POLLED, SourceConfig
from ingestion.sources.brokers import BrokerSource, MqttSource, NatsSource
from ingestion.sources.files import FilesSource
from ingestion.sources.http_pull import HttpSource
from ingestion.sources.layout import Layout, TimeFormat
from ingestion.sources.python import PythonSource
from ingestion.sources.sql import SqlSource

__all__ = [
    # declarations
    "Provider",
    "Contract",
    "ColumnRule",
    "Schedule",
    "Timetable",
    "Publication",
    "Alerts",
    # sources
    "SourceConfig",
    "FilesSource",
    "HttpSource",
    "SqlSource",
    "PushSource",
    "NatsSource",
    "MqttSource",
    "BrokerSource",
    "PythonSource",
    "Layout",
    "TimeFormat",
    "POLLED",
    # files and presets
    "load_providers",
    "Declared",
    "preset",
    "PRESETS",
    # types of columns
    "parse_dtype",
    "dtype_text",
]
