"""A provider's contract against what it sends."""

from ingestion.checks.casting import cast_column
from ingestion.checks.frames import ContractReport, Finding, check_frame
from ingestion.checks.rows import Checked, Flag, check_rows

__all__ = [
    "check_rows",
    "Checked",
    "Flag",
    "check_frame",
    "ContractReport",
    "Finding",
    "cast_column",
]
