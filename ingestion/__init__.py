"""Data in: the observation log, its positions, and what keeps it whole."""

from ingestion.batch import DelayRule
from ingestion.definition import ProviderDefinition
from ingestion.errors import (
    BackfillRefusedError,
    BatchError,
    ColumnTypeError,
    CommitError,
    DefinitionError,
    ErasureError,
    EventAfterArrivalError,
    IngestionError,
    LogError,
    LogExistsError,
    LogNotFoundError,
    MissingColumnError,
    NaiveTimeError,
    NullKeyError,
    PositionError,
    QuestionError,
    ReservedColumnError,
    SchemaChangeError,
    UnknownArrivalError,
    UnknownColumnError,
)
from ingestion.instants import Clock, system_clock
from ingestion.log import ObservationLog, create_log, list_logs, open_log
from ingestion.reading import FilesReport
from ingestion.report import AppendReport

__all__ = [
    # logs
    "create_log",
    "open_log",
    "list_logs",
    "ObservationLog",
    "ProviderDefinition",
    "DelayRule",
    "Clock",
    "system_clock",
    # reports
    "AppendReport",
    "FilesReport",
    # errors
    "IngestionError",
    "LogError",
    "LogNotFoundError",
    "LogExistsError",
    "DefinitionError",
    "CommitError",
    "BatchError",
    "MissingColumnError",
    "ReservedColumnError",
    "NaiveTimeError",
    "ColumnTypeError",
    "SchemaChangeError",
    "UnknownArrivalError",
    "EventAfterArrivalError",
    "NullKeyError",
    "BackfillRefusedError",
    "QuestionError",
    "UnknownColumnError",
    "PositionError",
    "ErasureError",
]
