"""What every source of a provider's rows has in common: it fetches bytes, and it parses them.

`fetch` does the I/O and decides nothing; `parse` is pure, so that it can be tried on stored bytes. Where the next fetch goes
on is not remembered by the source: it comes from the provider's own log, where it was committed together with the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a provider has been read.

    Attributes:
        cursor: What the last successful poll left for the next one; `None` before the first.
        after: The `log_sequence` of that poll's record, -1 before the first; an append says it, and is refused if another
            job has recorded a poll since.
        seen: The versions of the parts that are stored, by label: of files, name to version.
    """

    cursor: dict[str, Any] | None = None
    after: int = -1
    seen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Some bytes that a fetch brought: a page, a file, a result.

    Attributes:
        content: The bytes as they came, after transport encodings.
        label: Where they came from, without credentials: an address, the name of a file.
        version: The source's own version of them: an ETag, a digest.
        media_type: What the source says they are, e.g. `text/csv`; empty if it says nothing.
        received_time: When the last of them was in hand.
    """

    content: bytes
    label: str
    received_time: datetime
    version: str | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What one fetch brought.

    Attributes:
        payloads: In the order in which they are to be stored.
        cursor: Where the next fetch goes on, once these payloads are stored; `None` leaves it as it is.
        version: The source's version of the whole: an ETag, a range.
        more: There is more to fetch at once.
        partial: This is only a part of one answer, and the rest comes with the next fetch; no whole state can be told by it.
        state_time: Of a whole state, the instant that it tells of, if the source says so.
        notes: What is to be told of it, for the ledger.
    """

    payloads: tuple[Payload, ...] = ()
    cursor: dict[str, Any] | None = None
    version: str | None = None
    more: bool = False
    partial: bool = False
    state_time: datetime | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Source(Protocol):
    """Something that can be polled. Used by one thread at a time."""

    kind: str

    def fetch(self, progress: Progress, *, now: datetime) -> Fetched:
        """The bytes that came after `progress`.

        Raises:
            SourceError: If the provider cannot be reached or answers what cannot be used.
        """
        ...

    def parse(self, payload: Payload) -> pl.DataFrame:
        """The rows in some bytes; pure.

        Raises:
            PayloadError: If they are not what was expected.
        """
        ...

    def close(self) -> None:
        """Give back connections."""
        ...
