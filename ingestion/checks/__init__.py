"""A provider's contract against what it sends."""

from ingestion.checks.casting import cast_column
from ingestion.checks.frames import ContractReport, Finding, check_frame
from ingestion.checks.rows import Checked, Flag, check_rows
from ingestion.checks.shift import MIN_BLOCKS, MIN_ROWS, UNITS, Shift, ShiftDetector, Unit, compare

__all__ = [
    "check_rows",
    "Checked",
    "Flag",
    "check_frame",
    "ContractReport",
    "Finding",
    "cast_column",
    "compare",
    "Shift",
    "ShiftDetector",
    "Unit",
    "UNITS",
    "MIN_ROWS",
    "MIN_BLOCKS",
]
