"""The ledger: every attempt to get something from a provider, kept in the provider's own log.

A poll is one record of the log, committed together with the rows that it brought, so that neither can be there without the
other. Rows and polls have stamps and sequence numbers alike: at any (t, p) the ledger tells what a job could have told then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Outcome = Literal["rows", "empty", "failed", "refused", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file, page or message range of a poll.

    Attributes:
        label: Where it came from, without credentials.
        version: The source's own version of it.
        bytes: Its size.
    """

    label: str
    version: str | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One attempt, as the ledger keeps it.

    Attributes:
        source: The kind of source: `http`, `files`, `sql`, `push`, `nats`, ...
        started: When it began.
        ended: When everything was in hand, or the attempt had failed.
        outcome: `rows` or `empty` prove that the provider lives (R20); `failed` and `refused` do not; `idle` says that a
            stream was connected and brought nothing, which tells nothing of the provider.
        bytes: How much came.
        version: The source's version: an ETag, a digest, a range of offsets.
        cursor: Where the next poll goes on; `None` leaves it as it was.
        parts: What it consisted of, where that matters to the next poll: files.
        error: Why it failed; without credentials.
        notes: What was flagged: new columns, new categories, shifts.
    """

    source: str
    started: datetime
    ended: datetime
    outcome: Outcome
    bytes: int = 0
    version: str | None = None
    cursor: dict[str, Any] | None = None
    parts: tuple[Part, ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()
