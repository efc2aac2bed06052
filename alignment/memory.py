"""A limit on memory: how it is written, how much of it is left, and how it is shared out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import MemoryLimitError

_MIB = 1 << 20
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 1 << 10, "m": _MIB, "g": 1 << 30, "t": 1 << 40}
_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)

RESERVE = 160 * _MIB
"""What the process still comes to need besides rows: compiled code, threads, memory that was given back and is not gone yet."""
LEAST = 96 * _MIB
"""With less than that left nothing is begun."""
_BEGUN = 96 * _MIB
_TIMES, _MOST_TIMES = 24, 1 << 24
"""Bytes for each row whose times are read, and of how many rows at once."""
_SLACK = 64 * _MIB
"""By so much the same process differs from one run to the next."""
COPIES = 2.5
"""How often a row's columns are in memory while it is answered from."""
BESIDES = 80.0
"""Bytes that a row takes besides its columns meanwhile; see `layout`."""
PER_QUESTION = 64.0
_MOST_BUCKETS = 1 << 10
_GROUPS = 4
"""Buckets there are per group, about: the more, the evener groups can be made."""


@dataclass(frozen=True, slots=True)
class Portions:
    """How much is worked on at a time, in bytes.

    Attributes:
        batch: Rows that are read at once.
        group: Entities that are answered at once, with what that takes.
        out: Rows of the result that are put together at once.
    """

    batch: int
    group: int
    out: int

    @classmethod
    def of(cls, room: int) -> Portions:
        """The portions of so many bytes."""
        return cls(batch=min(room // 24, 128 * _MIB), group=room // 2, out=min(room // 12, 256 * _MIB))


def question_cost(answer_width: float) -> float:
    """Bytes that a question takes besides its columns while it is answered, its answers among them."""
    return PER_QUESTION + 3 * answer_width


def buckets_under(cost: float, group: int) -> int:
    """In how many buckets rows are laid aside, so that groups of them can be answered one after the other.

    Args:
        cost: What answering from all of them at once takes, bytes.
        group: What one group may take.

    Example:
        >>> buckets_under(1e9, 2 << 30), buckets_under(10e9, 2 << 30), buckets_under(1e15, 2 << 30)
        (1, 32, 1024)
    """
    wanted = _GROUPS * cost / group
    return 1 if wanted <= _GROUPS else min(_MOST_BUCKETS, 1 << math.ceil(math.log2(wanted)))


def parse_bytes(limit: str | int, what: str = "memory_limit") -> int:
    """A number of bytes, written as a number or with a unit: `"4GiB"`, `"500 MB"`.

    Raises:
        MemoryLimitError: If it is none.

    Example:
        >>> parse_bytes("4GiB"), parse_bytes("500 MB"), parse_bytes(1024)
        (4294967296, 500000000, 1024)
    """
    found = _LIMIT.fullmatch(limit) if isinstance(limit, str) else None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    if found is not None:
        number, unit, binary = found.groups()
        size = float(number) * (_BINARY if binary and unit else _UNITS)[unit.lower()]
        if size >= 1:
            return int(size)
    raise MemoryLimitError(f"{what}={limit!r} is no amount of memory", f'e.g. {what}="4GiB".')


def size_text(size: float) -> str:
    """A number of bytes for people.

    Example:
        >>> size_text(4 << 30), size_text(1_500_000)
        ('4.0 GiB', '1.4 MiB')
    """
    for unit, text in ((1 << 40, "TiB"), (1 << 30, "GiB"), (_MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {text}"
    return f"{size:.0f} B"


def resident_bytes() -> int:
    """What this process has in memory now; 0 where the system does not say."""
    try:
        told = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def begun_bytes(rows: int) -> int:
    """What a build comes to have, besides what planning it took, before it looks at its limit: it reads all rows' times first.

    Example:
        >>> begun_bytes(0) >> 20, begun_bytes(6_000_000) >> 20, begun_bytes(10**9) >> 20
        (96, 233, 480)
    """
    return _BEGUN + _TIMES * min(rows, _MOST_TIMES)


def least_limit(used: float) -> int:
    """The least limit to name for a process that has so many bytes in memory, in whole MiB; `room_under` accepts it.

    Example:
        >>> least_limit(100 << 20) >> 20
        420
    """
    return -(-int(used + RESERVE + LEAST + _SLACK) // _MIB) * _MIB


def room_under(limit: str | int, *, planned: int | None = None, frames: bool = True) -> int:
    """How many bytes a limit leaves for rows.

    Args:
        limit: How much memory the process may take.
        planned: What a process that is only planned will have in memory, bytes; None for what this one has.
        frames: Whether frames were passed that are in memory.

    Raises:
        MemoryLimitError: If that is too little to begin.
    """
    allowed, used = parse_bytes(limit), resident_bytes() if planned is None else planned
    room = allowed - used - RESERVE
    if room < LEAST:
        has = "the process already has" if planned is None else "before it reads a row a build may have"
        instead = ", or pass paths instead of frames" if frames else ""
        raise MemoryLimitError(
            f"memory_limit={limit!r} leaves too little: {has} {size_text(used)} in memory",
            f'allow at least "{least_limit(used) // _MIB}MiB"{instead}.',
        )
    return room
