"""What is wrong with a provider, told once when it begins and once when it is over.

`evaluate` is pure: a status in, findings out. The book makes incidents of findings: one that is open already is not told again,
one that is gone is over once it has stayed away for a while. The book is a small file, so a restart repeats nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ingestion.storage import sync_file

if TYPE_CHECKING:
    from ingestion.jobs.status import Status
    from ingestion.providers import Provider

Kind = Literal["overdue", "failing", "delay", "quarantine", "schema", "distribution"]
Event = Literal["opened", "recovered"]

FAILURES: Final = 3
"""Polls in a row that must fail."""
ENOUGH_ARRIVALS: Final = 20
"""Arrivals without which nobody knows what is usual."""
SETTLE: Final = timedelta(minutes=10)
"""How long a condition must stay away to be over, where the provider's own pace says nothing."""
OUTBOX: Final = 1_000
"""Messages that wait for delivery; the oldest go first."""
BOOK: Final = "incidents.json"
"""The file in a job's state folder."""
_AT_ONCE: Final = frozenset({"overdue", "failing"})
_SCHEMA: Final = ("new column", "lost column", "changed type")
_DISTRIBUTION: Final = ("shift", "new category")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong now.

    Attributes:
        provider: With whom.
        kind: What.
        summary: In a sentence.
        detail: Numbers to go with it.
    """

    provider: str
    kind: Kind
    summary: str
    detail: dict[str, Any] = field(default_factory=dict)


def evaluate(provider: Provider, status: Status, *, shifts: Sequence[str] = ()) -> list[Finding]:
    """What is wrong with a provider; pure.

    - `overdue`: as the status says;
    - `failing`: three polls in a row failed or were refused;
    - `delay`: the two newest arrivals both came later than the quantile of the usual delay, of at least twenty before;
    - `quarantine`: of the newest batch more than the allowed share was set aside;
    - `schema`: the newest batch had new, lost or changed columns;
    - `distribution`: the newest batch is not like the recent past, or has categories that were never declared.

    Args:
        provider: Its declaration, which says what is not to be told.
        status: How it is doing.
        shifts: What was found about the newest batch's distributions.
    """
    recent, wanted = status.recent, provider.alerts
    found: list[Finding] = []

    def find(kind: Kind, summary: str, **detail: Any) -> None:
        found.append(Finding(provider=provider.name, kind=kind, summary=summary, detail=detail))

    if wanted.overdue and status.overdue is not None:
        find("overdue", status.overdue, missed=status.missed, last_arrival=_text(recent.last_arrival))
    if recent.failures >= FAILURES:
        error = recent.last_poll.error if recent.last_poll is not None else None
        find("failing", f"{recent.failures} polls in a row failed: {_line(error)}", failures=recent.failures)
    if recent.delays is not None and recent.delays.count >= ENOUGH_ARRIVALS and _is_late(status):
        find(
            "delay",
            f"rows are {_seconds(recent.delay)} late, {_seconds(recent.delay_limit)} is usual at most",
            delay_seconds=recent.delay,
            limit_seconds=recent.delay_limit,
            quantile=wanted.delay_quantile,
        )
    rate = recent.quarantine_rate
    if wanted.quarantine_rate is not None and rate > wanted.quarantine_rate:
        find("quarantine", f"{rate:.1%} of the newest batch was set aside", rate=rate, waiting=recent.quarantined)
    changes = [note for note in recent.notes if note.startswith(_SCHEMA)]
    if wanted.schema_changes and changes:
        find("schema", "; ".join(changes), notes=changes)
    shifted = [*shifts, *(note for note in recent.notes if note.startswith(_DISTRIBUTION))]
    if wanted.shifts and shifted:
        find("distribution", "; ".join(shifted), notes=shifted)
    return found


def _is_late(status: Status) -> bool:
    recent = status.recent
    newest = [recent.delay, recent.delay_before]
    return recent.delay_limit is not None and all(each is not None and each > recent.delay_limit for each in newest)


def _line(error: str | None) -> str:
    return (error or "no reason was given").splitlines()[0]


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


# ----------------------------------------------------------------------------------------------------------- incidents


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that is wrong, from when on, and until when.

    Attributes:
        id: Names it; the same in both messages about it.
        provider: With whom.
        kind: What.
        summary: As it was when it began.
        detail: Numbers from then.
        opened: When it was first found.
        closed: When it was over; `None` while it goes on.
        gone_since: Since when it has not been found any more.
    """

    id: str
    provider: str
    kind: str
    summary: str
    opened: datetime
    detail: dict[str, Any] = field(default_factory=dict)
    closed: datetime | None = None
    gone_since: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """The incident as plain values; instants as text."""
        plain = asdict(self)
        return {name: _text(value) if isinstance(value, datetime) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Incident:
        """The incident that `to_dict` wrote; what a later release added is ignored."""
        known = {name: value for name, value in plain.items() if name in cls.__slots__}
        for name in ("opened", "closed", "gone_since"):
            if known.get(name) is not None:
                known[name] = datetime.fromisoformat(known[name])
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message: an incident was opened, or is over.

    Attributes:
        event: Which of the two.
        incident: The incident.
    """

    event: Event
    incident: Incident


class IncidentBook:
    """Incidents that are open, and messages that wait for delivery.

    Args:
        path: The file that keeps them; `None` keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._open: dict[str, dict[str, Incident]] = {}
        self._changed = False
        self.outbox: list[Notice] = []
        self._load()

    def open(self) -> list[Incident]:
        """The incidents that go on, oldest first."""
        incidents = (incident for of_one in self._open.values() for incident in of_one.values())
        return sorted(incidents, key=lambda incident: incident.opened)

    def update(
        self, provider: str, findings: Iterable[Finding], now: datetime, *, settle: timedelta | None = None
    ) -> list[Notice]:
        """Compare what is wrong now with what was; `save` makes it last.

        Args:
            provider: The provider that was looked at.
            findings: All that is wrong with it now.
            now: The instant.
            settle: How long a condition must stay away to be over; one that comes back before is the same incident. A provider
                that is overdue or failing is well again at once.

        Returns:
            What has begun and what is over.
        """
        found = {finding.kind: finding for finding in findings}
        known = self._open.get(provider, {})
        if not found and not known:
            return []
        after: dict[str, Incident] = {}
        notices: list[Notice] = []
        for finding in found.values():
            incident = known.get(finding.kind)
            if incident is None:
                incident = _opened(finding, now)
                notices.append(Notice(event="opened", incident=incident))
            after[finding.kind] = replace(incident, gone_since=None)
        for kind, incident in known.items():
            if kind in after:
                continue
            gone = min(incident.gone_since or now, now)  # the clock may have jumped back
            if kind in _AT_ONCE or now - gone >= (SETTLE if settle is None else settle):
                notices.append(Notice(event="recovered", incident=replace(incident, gone_since=None, closed=gone)))
            else:
                after[kind] = replace(incident, gone_since=gone)
        if after != known:
            self._changed = True
            self._open[provider] = after
        self.outbox = [*self.outbox, *notices][-OUTBOX:] if notices else self.outbox
        return notices

    def forget(self, providers: Iterable[str]) -> None:
        """Drop the incidents of all providers but these: nobody watches the others any more."""
        known = set(providers)
        self._open = {name: of_one for name, of_one in self._open.items() if name in known}

    def delivered(self, notice: Notice) -> None:
        """A message has arrived, or never will; `save` makes it last."""
        with contextlib.suppress(ValueError):
            self.outbox.remove(notice)
            self._changed = True

    def save(self) -> None:
        """Write the file, whole or not at all, if anything has changed."""
        if self._path is None or not self._changed:
            return
        content = {
            "version": 1,
            "open": [incident.to_dict() for incident in self.open()],
            "outbox": [{"event": notice.event, "incident": notice.incident.to_dict()} for notice in self.outbox],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
        sync_file(draft)
        draft.replace(self._path)
        self._changed = False

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            incidents, self.outbox = _read(self._path)
        except (ValueError, KeyError, TypeError):  # a file that somebody else wrote: begin anew, and keep it for a look
            self._path.replace(self._path.with_suffix(".unreadable"))
            return
        for incident in incidents:
            self._open.setdefault(incident.provider, {})[incident.kind] = incident


def open_incidents(folder: Path) -> list[Incident]:
    """The incidents that a job keeps in its state folder; none if there is no such file, or it cannot be read."""
    try:
        return _read(folder / BOOK)[0]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _read(path: Path) -> tuple[list[Incident], list[Notice]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    waiting = [Notice(event=each["event"], incident=Incident.from_dict(each["incident"])) for each in content["outbox"]]
    return [Incident.from_dict(plain) for plain in content["open"]], waiting


def _opened(finding: Finding, now: datetime) -> Incident:
    return Incident(
        id=uuid.uuid4().hex,
        provider=finding.provider,
        kind=finding.kind,
        summary=finding.summary,
        detail=finding.detail,
        opened=now,
    )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that tells of a folder's incidents, for as long as the block lasts.

    Yields:
        False if another process does, so that two jobs do not tell everything twice.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - no such lock outside POSIX
        yield True
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "incidents.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
