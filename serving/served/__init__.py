"""What was served: kept as it was answered, and held against what training says."""

from serving.served.audit import audit
from serving.served.erasing import ServedPlace
from serving.served.reading import last_served, read_served, training_frame
from serving.served.report import AuditReport, Difference
from serving.served.writer import ServedCounts, ServedLog

__all__ = [
    "AuditReport",
    "Difference",
    "ServedCounts",
    "ServedLog",
    "ServedPlace",
    "audit",
    "last_served",
    "read_served",
    "training_frame",
]
