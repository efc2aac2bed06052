"""Which engine a build should use: all at once, in groups of entities under a memory limit, or on Spark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignment.estimates import MOST_ROWS
from alignment.memory import (
    RESERVE,
    Portions,
    begun_bytes,
    buckets_under,
    least_limit,
    parse_bytes,
    resident_bytes,
    room_under,
    size_text,
)
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
    engine: str | None = None,
    resident: int | None = None,
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
        engine: The one that is asked for; None for the one that will do.
        resident: What the process has in memory that planned so far, bytes; None asks.

    Raises:
        MemoryLimitError: If `memory_limit` is none, or leaves too little to begin.
    """
    if engine is not None and engine != "local":
        will_do = advise(
            *(reads, passes, peak, seconds),
            memory=memory,
            memory_limit=None,
            costs=costs,
            certain=certain,
            resident=resident,
        )
        return _asked_for(engine, passes, will_do)
    most = int(peak * MEMORY_WITHIN)
    read = sum(read.extent.stored_rows or read.extent.rows_most or 0 for read in reads if not read.extent.in_memory)
    begun = max(resident_bytes() if resident is None else resident, costs.base_bytes - RESERVE) + begun_bytes(read)
    if memory_limit is not None:
        memory = parse_bytes(memory_limit)
        room_under(memory_limit, planned=begun, frames=any(read.extent.in_memory for read in reads))
    longest = max(reads, key=lambda read: read.extent.rows_most or 0)
    too_many = (longest.extent.rows_most or 0) > MOST_ROWS
    spilled = sum(one.bytes for one in passes)
    if seconds > LONG:
        return _on_spark(
            passes, f"it takes about {hours(seconds)} of processor time, which Spark divides by its cores."
        )
    if not too_many and (memory is None or most <= memory):
        there = "allowed" if memory_limit is not None else "there are"
        fits = "" if memory is None else f" of the {size_text(memory)} {there}"
        unless = "" if memory is not None else "; if that is more than there is, pass memory_limit="
        what = "what could be counted" if not certain else "everything at once"
        return Advice(
            {"engine": "local"}, f"{what} takes about {size_text(peak)}, at most {size_text(most)}{fits}{unless}."
        )
    limit = memory_limit if memory_limit is not None else _limit(memory if memory is not None else most, begun)
    group = Portions.of(room_under(limit, planned=begun)).group
    buckets = max(buckets_under(one.cost, group) if one.divisible else 1 for one in passes)
    why = (
        f"{longest.name} has {longest.extent.rows_most or 0:,} rows, and {MOST_ROWS:,} are the most that fit into one read"
        if too_many
        else f"everything at once would take up to {size_text(most)}, more than the {size_text(memory or 0)} there are"
    )
    laid_aside = sum(one.rows for one in passes) / 1e6 * costs.spill_rows
    return Advice({"engine": "local", "memory_limit": str(limit)}, f"{why}.", buckets, spilled, laid_aside)


def _on_spark(passes: Sequence[Together], reason: str) -> Advice:
    from alignment.engines.spark.run import bucket_count

    return Advice(
        {"engine": "spark"}, reason, max(bucket_count(one.rows, 1) for one in passes), sum(one.bytes for one in passes)
    )


def _asked_for(engine: str, passes: Sequence[Together], will_do: Advice) -> Advice:
    """The engine that is asked for, and what is known of it."""
    instead = "" if will_do.arguments == {"engine": engine} else f" {will_do.code} would do: {will_do.reason}"
    if engine != "spark":
        return Advice(
            {"engine": engine}, f"it is asked for; memory and time are told of the local engine alone.{instead}"
        )
    found = _on_spark(passes, "")
    shuffles = "one shuffle" if len(passes) == 1 else f"{len(passes)} shuffles, one after the other"
    buckets = (
        "one bucket" if found.buckets == 1 else f"at least {found.buckets:,} buckets, more the more cores there are"
    )
    reason = f"it is asked for, and takes {shuffles}, in {buckets}.{instead}"
    return Advice(found.arguments, reason, found.buckets, found.spilled_bytes)


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


def _limit(memory: int, begun: int) -> str:
    """A limit that leaves something to others: whole GiB, or MiB below four; not less than can be kept."""
    share, least = int(memory * _SHARE), least_limit(begun)
    if share < least:
        return f"{least // _MIB}MiB"
    return f"{share // _GIB}GiB" if share // _GIB >= 4 and share // _GIB * _GIB >= least else f"{share // _MIB}MiB"
