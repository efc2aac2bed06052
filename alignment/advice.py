"""Which engine a build should use: all at once, in groups of entities under a memory limit, or on Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignment.errors import MemoryLimitError
from alignment.estimates import MOST_ROWS
from alignment.memory import LEAST, Portions, buckets_under, parse_bytes, size_text
from alignment.unit_costs import MEMORY_WITHIN, UnitCosts

if TYPE_CHECKING:
    from alignment.dry_run import Read

LONG = 4 * 3_600
"""Processor seconds beyond which one machine is taken to be too slow."""
_SHARE = 0.8
"""Of the memory there is, what a limit is set to."""
_GIB, _MIB = 1 << 30, 1 << 20


@dataclass(frozen=True, slots=True)
class Together:
    """Reads that are answered together, entity by entity.

    Attributes:
        rows: How many rows, the spine's among them.
        bytes: What they take on disk, uncompressed.
        cost: What answering from all of them at once takes in memory, as engines reckon it that divide them.
        divisible: Whether they can be divided by entity.
    """

    rows: int
    bytes: int
    cost: float
    divisible: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """Which engine to use.

    Attributes:
        arguments: What to pass to `build_dataset`.
        reason: Why, in one sentence.
        buckets: Into how many buckets entities would be divided.
        spilled_bytes: What would be kept on disk meanwhile, in memory's size.
        spill_seconds: Processor seconds that this takes besides.
    """

    arguments: dict[str, str]
    reason: str
    buckets: int = 1
    spilled_bytes: int = 0
    spill_seconds: float = 0.0

    @property
    def options(self) -> str:
        """The same on the command line."""
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.arguments.items())

    @property
    def code(self) -> str:
        """The same in Python."""
        return ", ".join(f'{name}="{value}"' for name, value in self.arguments.items())

    def to_dict(self) -> dict[str, Any]:
        """The advice as plain data."""
        return {
            "arguments": self.arguments,
            "reason": self.reason,
            "buckets": self.buckets,
            "spilled_bytes": self.spilled_bytes,
            "spill_seconds": self.spill_seconds,
            "code": self.code,
            "options": self.options,
        }


def advise(
    reads: Sequence[Read],
    passes: Sequence[Together],
    peak: int,
    seconds: float,
    *,
    memory: int | None,
    memory_limit: str | int | None,
    costs: UnitCosts,
    certain: bool = True,
) -> Advice:
    """Which engine to use.

    Args:
        reads: What is read.
        passes: The same as engines read them that do not hold all at once.
        peak: Memory with everything at once, about.
        seconds: Processor time so, about.
        memory: How much there is, bytes; None if that is not known.
        memory_limit: How much may be used; None to find one.
        costs: What the steps cost.
        certain: Whether all reads could be counted.

    Raises:
        MemoryLimitError: If `memory_limit` is none, or leaves too little to begin.
    """
    most = int(peak * MEMORY_WITHIN)
    if memory_limit is not None:
        memory = parse_bytes(memory_limit)
    longest = max(reads, key=lambda read: read.extent.rows_most or 0)
    too_many = (longest.extent.rows_most or 0) > MOST_ROWS
    spilled = sum(one.bytes for one in passes)
    if seconds > LONG:
        from alignment.engines.spark.run import ROWS_PER_BUCKET

        return Advice(
            {"engine": "spark"},
            f"it takes about {hours(seconds)} of processor time, which Spark divides by its cores.",
            max(-(-one.rows // ROWS_PER_BUCKET) for one in passes),
            spilled,
        )
    if not too_many and (memory is None or most <= memory):
        there = "allowed" if memory_limit is not None else "there are"
        fits = "" if memory is None else f" of the {size_text(memory)} {there}"
        unless = "" if memory is not None else "; if that is more than there is, pass memory_limit="
        what = "what could be counted" if not certain else "everything at once"
        return Advice(
            {"engine": "local"}, f"{what} takes about {size_text(peak)}, at most {size_text(most)}{fits}{unless}."
        )
    limit = memory_limit if memory_limit is not None else _limit(memory if memory is not None else most, costs)
    room = parse_bytes(limit) - costs.base_bytes  # of a new process
    if room < LEAST:
        raise MemoryLimitError(
            f"memory_limit={limit!r} leaves too little: a process that has read nothing takes {size_text(costs.base_bytes)}",
            f'allow at least "{_limit(0, costs)}".',
        )
    group = Portions.of(room).group
    buckets = max(buckets_under(one.cost, group) if one.divisible else 1 for one in passes)
    why = (
        f"{longest.name} has {longest.extent.rows_most or 0:,} rows, and {MOST_ROWS:,} are the most that fit into one read"
        if too_many
        else f"everything at once would take up to {size_text(most)}, more than the {size_text(memory or 0)} there are"
    )
    laid_aside = sum(one.rows for one in passes) / 1e6 * costs.spill_rows
    return Advice({"engine": "local", "memory_limit": str(limit)}, f"{why}.", buckets, spilled, laid_aside)


def hours(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        >>> hours(0.42), hours(75), hours(9000), hours(400000)
        ('0.42 s', '75 s', '2.5 h', '4.6 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _limit(memory: int, costs: UnitCosts) -> str:
    """A limit that leaves something to others: whole GiB, or MiB below four; not less than can be kept."""
    share = max(int(memory * _SHARE), costs.base_bytes + LEAST + _MIB)
    return f"{share // _GIB}GiB" if share >= 4 * _GIB else f"{share // _MIB}MiB"
