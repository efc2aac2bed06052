"""Idempotency keys with the answers that were given: who sends again is answered again, and nothing is stored twice.

While a record waits in a segment, its key is known from there. Before the segment is deleted its keys go to a journal,
which is bounded by age and number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from ingestion.spool.disk import Disk

JOURNAL = "keys.journal"
_SLACK = 4_096
_LINE = tuple[str, str, str, int, str, int]


class Answer(NamedTuple):
    """What was answered to the first request with a key.

    Attributes:
        digest: Of the content.
        rows: How many rows it had.
        segment: The segment that took it.
        received_us: When it was in hand.
    """

    digest: str
    rows: int
    segment: str
    received_us: int


class Entry(NamedTuple):
    """A key and its answer; `scope` is the source's kind and the provider."""

    scope: str
    key: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """How many keys are remembered, and for how long.

    Attributes:
        age: Older answers are forgotten.
        number: Keys of one provider; the oldest are forgotten first.
        windows: Other numbers, by the kind of source. A broker's packet ids come round, so few are remembered.
    """

    age: timedelta = timedelta(hours=24)
    number: int = 250_000
    windows: Mapping[str, int] = field(default_factory=lambda: {"mqtt": 32_768})

    def of(self, scope: str) -> int:
        """How many keys of `scope` are remembered."""
        return self.windows.get(scope.split("/", 1)[0], self.number)


class KeyJournal:
    """Answers by key, those of flushed segments kept in a file. The spool guards it with its own lock."""

    def __init__(self, folder: Path, disk: Disk, limits: KeyLimits, now: datetime) -> None:
        self._path = folder / JOURNAL
        self._disk = disk
        self._limits = limits
        self._books: dict[str, dict[str, Answer]] = {}
        self._lines = 0
        self.unreadable = 0
        self._load()
        self.forget(now)

    def __len__(self) -> int:
        return sum(map(len, self._books.values()))

    def get(self, scope: str, key: str) -> Answer | None:
        """The answer that was given, if it is remembered."""
        return self._books.get(scope, {}).get(key)

    def remember(self, entry: Entry) -> None:
        """Know an answer whose record is durable in a segment."""
        book = self._books.setdefault(entry.scope, {})
        book.pop(entry.key, None)
        book[entry.key] = entry.answer
        if len(book) > self._limits.of(entry.scope):
            del book[next(iter(book))]

    def keep(self, entries: Iterable[Entry], now: datetime) -> None:
        """Write answers to the journal; they are durable when this returns.

        Raises:
            OSError: If they cannot be written.
        """
        lines = [msgspec.json.encode((e.scope, e.key, *e.answer)) for e in entries]
        if lines:
            self._disk.append(self._path, b"\n".join(lines) + b"\n")
            self._lines += len(lines)
        self.forget(now)
        if self._lines > 2 * len(self) + _SLACK:
            self._rewrite()

    def remove(self, doomed: Callable[[str, str], bool]) -> int:
        """Forget keys, in the file too; returns how many.

        Raises:
            OSError: If the file cannot be written.
        """
        gone = [(scope, key) for scope, book in self._books.items() for key in book if doomed(scope, key)]
        for scope, key in gone:
            del self._books[scope][key]
        if self._path.exists():
            self._rewrite()  # it may still have lines of keys that were forgotten before
        return len(gone)

    def forget(self, now: datetime) -> None:
        """Drop answers that are too old."""
        oldest = int((now - self._limits.age).timestamp() * 1_000_000)
        for scope, book in list(self._books.items()):
            stale = []
            for key, answer in book.items():
                if answer.received_us >= oldest:
                    break
                stale.append(key)
            for key in stale:
                del book[key]
            if not book:
                del self._books[scope]

    def _load(self) -> None:
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # the last line was not written to its end; its segment is still there
            self._disk.cut(self._path, whole)
        for line in content[:whole].splitlines():
            self._lines += 1
            try:
                scope, key, digest, rows, segment, us = msgspec.json.decode(line, type=_LINE)
            except msgspec.MsgspecError:
                self.unreadable += 1
                continue
            self.remember(Entry(scope, key, Answer(digest, rows, segment, us)))

    def _rewrite(self) -> None:
        lines = [
            msgspec.json.encode((scope, key, *answer))
            for scope, book in self._books.items()
            for key, answer in book.items()
        ]
        self._disk.replace(self._path, b"\n".join(lines) + b"\n" if lines else b"")
        self._lines = len(lines)


def scope_of(source: str, provider: str) -> str:
    """The name under which the keys of a provider's source are kept."""
    return f"{source}/{provider}"
