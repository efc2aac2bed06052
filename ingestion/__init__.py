"""Data in: the observation log, its positions, and what keeps it whole."""

from alignment.settling import Quantiles
from ingestion.batch import check_batch
from ingestion.compaction import CompactionReport
from ingestion.datasets import Holding, register_dataset, registered_datasets
from ingestion.definition import ProviderDefinition
from ingestion.erase import ErasablePlace, ErasureReport, is_hash_of
from ingestion.errors import (
    AddressError,
    BackfillRefusedError,
    BatchError,
    CircuitOpenError,
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
    MissingLibraryError,
    NaiveTimeError,
    NullKeyError,
    PayloadError,
    PositionError,
    ProviderError,
    QuarantineError,
    QuestionError,
    ReservedColumnError,
    SchemaChangeError,
    SourceError,
    StoreError,
    SupersededError,
    UnknownArrivalError,
    UnknownColumnError,
    UnsafeStoreError,
)
from ingestion.info import LogInfo
from ingestion.instants import Clock, system_clock
from ingestion.interchange import SqlNames, snapshot_sql, sql_names
from ingestion.ledger import Part, Poll, heartbeats, is_down, outages, outages_of
from ingestion.log import ObservationLog, create_log, list_logs, open_log
from ingestion.profiling import ColumnProfile, Profile, profile
from ingestion.quarantine import (
    DropReport,
    ReleaseReport,
    drop_quarantined,
    quarantine_reasons,
    release_quarantined,
)
from ingestion.reading import FilesReport
from ingestion.removal import Removal
from ingestion.report import AppendReport
from ingestion.revisions import WholeState

__all__ = [
    # logs
    "create_log",
    "open_log",
    "list_logs",
    "ObservationLog",
    "ProviderDefinition",
    "check_batch",
    "Clock",
    "system_clock",
    "WholeState",
    # as SQL
    "snapshot_sql",
    "sql_names",
    "SqlNames",
    # the ledger
    "Poll",
    "Part",
    "heartbeats",
    "is_down",
    "outages",
    "outages_of",
    # the quarantine
    "quarantine_reasons",
    "release_quarantined",
    "drop_quarantined",
    # data sets, erasure
    "register_dataset",
    "registered_datasets",
    "ErasablePlace",
    "is_hash_of",
    # reports
    "LogInfo",
    "profile",
    "Profile",
    "ColumnProfile",
    "Quantiles",
    "AppendReport",
    "ReleaseReport",
    "DropReport",
    "FilesReport",
    "CompactionReport",
    "Removal",
    "Holding",
    "ErasureReport",
    # errors
    "IngestionError",
    "LogError",
    "LogNotFoundError",
    "LogExistsError",
    "DefinitionError",
    "CommitError",
    "AddressError",
    "StoreError",
    "UnsafeStoreError",
    "SupersededError",
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
    "ProviderError",
    "MissingLibraryError",
    "SourceError",
    "PayloadError",
    "CircuitOpenError",
    "QuarantineError",
]
