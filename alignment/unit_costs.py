"""What the steps of a build cost on a machine that was measured.

`python -m benchmarks.unit_costs` measures them anew and prints them in the form of `UnitCosts`, so that a machine of one's own can be
passed to `plan_dataset(costs=...)`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCosts:
    """Processor seconds (of all threads together) per million of what the name says, of the local engine.

    Attributes:
        start: Processor seconds that a process takes once: imports, and the kernel out of its cache.
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
        spill_rows: Rows laid aside on disk and read back, under a memory limit.
        base_bytes: Resident memory of the process before anything is read.
        read_copies: How many times the columns that are read are resident at the peak: once as such, the rest until the allocator
            gives back what decoding took.
    """

    start: float = 1.0
    read_rows: float = 0.2
    read_values: float = 0.03
    check_frame_rows: float = 0.1
    summarize_rows: float = 0.055
    arrange_rows: float = 0.1
    sweep_rows: float = 0.017
    sweep_questions: float = 0.06
    window_events: float = 0.0055
    window_aggregates: float = 0.001
    gather_answers: float = 0.037
    finish_values: float = 0.05
    spill_rows: float = 0.63
    base_bytes: int = 315_000_000
    read_copies: float = 1.9

    def to_dict(self) -> dict[str, Any]:
        """The costs as plain data."""
        return asdict(self)


WITHIN = 2.0
"""An estimate of processor time is off by no more than this factor on the machine that was measured."""
MEMORY_WITHIN = 1.5
"""An estimate of memory is off by no more than this factor."""
