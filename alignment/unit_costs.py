"""What the steps of a build cost on a machine that was measured.

`python -m benchmarks.unit_costs` measures them anew and prints them in the form of `UnitCosts`, so that a machine of one's own can be
passed to `plan_dataset(costs=...)`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Seconds per million of what the name says, of the local engine with all its threads.

    Attributes:
        start: Seconds that a process takes once: imports, and the kernel out of its cache.
        read_rows: Rows read from a log or Parquet files: keys and times.
        read_values: Values read with them.
        check_frame_rows: Rows of a frame, which are only checked.
        summarize_rows: Rows whose times the manifest counts.
        arrange_rows: Rows and questions brought into the order of the kernel.
        sweep_rows: Rows that one pass of the kernel applies.
        sweep_questions: Questions times what is picked for each.
        window_events: Questions times events in their window, of each window.
        window_aggregates: The same for each aggregate besides.
        gather_answers: Values of answers made columns of.
        finish_values: Values of the result hashed and written.
        base_bytes: Resident memory of the process before anything is read.
        read_copies: How many times the columns that are read are resident at the peak: once as such, the rest until the allocator
            gives back what decoding took.
    """

    start: float = 1.0
    read_rows: float = 0.15
    read_values: float = 0.03
    check_frame_rows: float = 0.02
    summarize_rows: float = 0.04
    arrange_rows: float = 0.13
    sweep_rows: float = 0.02
    sweep_questions: float = 0.05
    window_events: float = 0.006
    window_aggregates: float = 0.002
    gather_answers: float = 0.05
    finish_values: float = 0.03
    base_bytes: int = 310_000_000
    read_copies: float = 1.75

    def to_dict(self) -> dict[str, Any]:
        """The costs as plain data."""
        return asdict(self)


WITHIN = 2.0
"""An estimate of time is off by no more than this factor on the machine that was measured, when nothing else runs there."""
MEMORY_WITHIN = 1.5
"""An estimate of memory is off by no more than this factor."""
