"""Received rows on their way into the logs: durable before they are answered, stored once."""

from ingestion.spool.erasing import SpoolPlace
from ingestion.spool.flush import Flushed, Flusher, Sink, batch_name, place_in
from ingestion.spool.frames import Header, Record
from ingestion.spool.keys import KeyLimits
from ingestion.spool.sink import LogSink, StoreReport
from ingestion.spool.wal import Damage, Receipt, Spool, SpoolLimits, Usage

__all__ = [
    # the write-ahead segments
    "Spool",
    "SpoolLimits",
    "KeyLimits",
    "Header",
    "Record",
    "Receipt",
    "Usage",
    "Damage",
    # into the logs
    "Flusher",
    "Flushed",
    "Sink",
    "LogSink",
    "StoreReport",
    "batch_name",
    "place_in",
    # out of it, for an erasure
    "SpoolPlace",
]
