"""One poll of one provider: fetch, parse, check, append, and tell the ledger, all in one commit.

Whatever a provider sends ends in exactly one of three places: the log, the quarantine with its reason, or nowhere because
the log has it already. What fails on the way is an outcome of the poll, not an exception.
"""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import polars as pl
from deltalake.exceptions import DeltaError

from ingestion.checks import check_rows
from ingestion.checks.together import as_they_came, with_types_of_all
from ingestion.errors import (
    BatchError,
    CircuitOpenError,
    CommitError,
    IngestionError,
    PayloadError,
    SourceError,
    SupersededError,
)
from ingestion.instants import Clock, duration_us, system_clock, to_us
from ingestion.ledger import Part, Poll
from ingestion.revisions import WholeState
from ingestion.schema import INSTANT
from ingestion.sources.absent import with_all_columns
from ingestion.sources.base import Fetched, Payload, Source

if TYPE_CHECKING:
    from ingestion.checks import Checked
    from ingestion.log import ObservationLog
    from ingestion.providers import Provider
    from ingestion.report import AppendReport

Outcome = Literal["rows", "empty", "failed", "refused", "superseded"]
_TURNS: Final = 5
_STORE_WAITS: Final = (0.2, 1.0, 3.0)
_SEEING: Final = frozenset({"files"})
_OF_POLARS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # a panic is no Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class PollReport:
    """What one poll did.

    Attributes:
        provider: Whose.
        outcome: As in the ledger; `superseded` if other jobs kept polling first, which is not recorded.
        report: What the append did; `None` if nothing was to be stored.
        error: What failed, without credentials.
        flags: What the contract let pass and wants to be known.
        more: The source has more at once.
        bytes: How much was fetched.
        started: When it began.
        ended: When everything was in hand.
        batch: The rows that were stored or set aside, for whoever watches distributions; `None` if there are none.
    """

    provider: str
    outcome: Outcome
    started: datetime
    ended: datetime
    report: AppendReport | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()
    more: bool = False
    bytes: int = 0
    batch: pl.DataFrame | None = None


@dataclass(slots=True)
class Gathered:
    """The rows of a poll, those that a contract sets aside marked, and what could not be read at all.

    Attributes:
        rows: Typed by the contract; `None` if there are none.
        original: The same rows as they came.
        reasons: Why a row is set aside, or null.
        aside: Reason and payload of what could not be read, or was refused whole.
        flags: What the contract let pass.
        whole: All that was fetched is among the rows, so that what is not there does not exist.
    """

    rows: pl.DataFrame | None
    original: pl.DataFrame | None
    reasons: pl.Series | None
    aside: list[tuple[str, object]]
    flags: tuple[str, ...]
    whole: bool = True


def poll_once(provider: Provider, log: ObservationLog, source: Source, *, clock: Clock = system_clock) -> PollReport:
    """Poll a provider once.

    Args:
        provider: Its declaration.
        log: Its log.
        source: Its source.
        clock: Something that tells now.

    Returns:
        What was done. A poll that fails is recorded as such, if the store takes it.
    """
    started = clock()
    for _turn in range(_TURNS):
        started = clock()
        try:
            return _poll(provider, log, source, clock, started)
        except SupersededError:
            continue
        except (IngestionError, DeltaError, OSError) as error:
            return _failed(provider, log, source, clock, started, error)
    return PollReport(provider=provider.name, outcome="superseded", started=started, ended=clock())


def _poll(provider: Provider, log: ObservationLog, source: Source, clock: Clock, started: datetime) -> PollReport:
    progress = log.progress(seen=source.kind in _SEEING)
    fetched = source.fetch(progress, now=started)
    ended = clock()
    gathered = gather(provider, source, fetched.payloads)
    size = sum(len(payload.content) for payload in fetched.payloads)
    poll = Poll(
        source=source.kind,
        started=started,
        ended=ended,
        outcome="empty",
        bytes=size,
        version=fetched.version,
        cursor=progress.cursor if fetched.cursor is None else fetched.cursor,
        parts=_parts(source, fetched),
        notes=(*fetched.notes, *gathered.flags),
    )
    state = _whole_state(provider, fetched, gathered, started)
    report = _store(provider, log, gathered, fetched.payloads, poll, progress.after, state, clock)
    outcome = cast("Outcome", report.outcome or "empty")
    return PollReport(
        provider=provider.name,
        outcome=outcome,
        started=started,
        ended=ended,
        report=report,
        error=_first_reason(gathered) if outcome == "refused" or gathered.aside else None,
        flags=(*fetched.notes, *gathered.flags),
        more=fetched.more,
        bytes=size,
        batch=gathered.rows,
    )


def gather(provider: Provider, source: Source, payloads: tuple[Payload, ...]) -> Gathered:
    """Parse and check what was fetched; nothing is decided by what the log holds.

    Args:
        provider: Whose contract it is.
        source: What parses.
        payloads: What was fetched.

    Returns:
        The rows, and what is to be set aside.
    """
    aside: list[tuple[str, object]] = []
    flags: dict[str, None] = {}
    checked: list[tuple[Checked, Payload]] = []
    definition = provider.definition()
    for payload in payloads:
        try:
            frame = source.parse(payload)
        except PayloadError as error:
            aside.append((f"cannot be parsed: {error.problem}", kept_payload(payload.content)))
            continue
        except _OF_POLARS as error:
            aside.append((f"cannot be parsed: {_first_line(error)}", kept_payload(payload.content)))
            continue
        if frame.is_empty():
            continue
        try:
            result = check_rows(frame, provider.contract, definition, received_time=payload.received_time)
        except _OF_POLARS as error:
            aside.append((f"cannot be checked: {_first_line(error)}", kept_payload(payload.content)))
            continue
        flags.update(dict.fromkeys(result.notes))
        checked.append((_received(result, payload.received_time), payload))
    checked, strange = _alike(checked, partial=provider.contract.updates == "columns")
    aside += strange
    whole = not aside and all(result.refused is None for result, _ in checked)
    if not checked:
        return Gathered(None, None, None, aside, tuple(flags), whole)
    rows = pl.concat([result.frame for result, _ in checked])
    original = as_they_came([result.original for result, _ in checked])
    reasons = pl.concat([_reasons(result) for result, _ in checked])
    return Gathered(rows, original, reasons, aside, tuple(flags), whole)


def _first_reason(gathered: Gathered) -> str | None:
    reasons = [reason for reason, _ in gathered.aside]
    if not reasons and gathered.reasons is not None:
        reasons = gathered.reasons.drop_nulls().head(1).to_list()
    return reasons[0] if reasons else None


def _received(result: Checked, received: datetime) -> Checked:
    """The rows with the instant at which they were in hand."""
    stamp = pl.lit(to_us(received), pl.Int64).cast(INSTANT).alias("received_time")
    return replace(result, frame=result.frame.with_columns(stamp))


def _reasons(result: Checked) -> pl.Series:
    if result.reasons is not None:
        return result.reasons.rename("reason")
    return pl.Series("reason", [None], pl.String).new_from_index(0, result.frame.height)


def kept_payload(content: bytes) -> object:
    r"""A payload for the quarantine, whole: text, or an object that says how the bytes are written.

    Example:
        >>> kept_payload(b"a,b"), kept_payload(b"\xff\xfe")
        ('a,b', {'encoding': 'base64', 'content': '//4='})
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"encoding": "base64", "content": base64.b64encode(content).decode()}


def _alike(
    checked: list[tuple[Checked, Payload]], *, partial: bool
) -> tuple[list[tuple[Checked, Payload]], list[tuple[str, object]]]:
    """Payloads with the columns of the first; of others nobody can tell what is absent and what is null.

    Where rows are partial, what a payload lacks is absent. Types that differ become one that holds all values as they are.
    """
    if not checked:
        return [], []
    if partial:
        frames = with_all_columns([r.frame for r, _ in checked], [r.original.columns for r, _ in checked])
        checked = [(replace(r, frame=frame), payload) for (r, payload), frame in zip(checked, frames, strict=True)]
    (first, origin), *others = checked
    wanted = first.frame.columns
    kept, strange = [(first, origin)], []
    frames = [first.frame]
    for result, payload in others:
        odd = sorted(set(result.frame.columns) ^ set(wanted))
        text = f"{payload.label}: other columns than {origin.label}: {', '.join(odd)}"
        if not odd:
            frames, mixed = with_types_of_all(frames, result.frame.select(wanted))
            if mixed is None:
                kept.append((result, payload))
                continue
            text = f"{payload.label}: {mixed!r} is {result.frame.schema[mixed]} and {frames[0].schema[mixed]} in {origin.label}"
        strange.append((text, kept_payload(payload.content)))
    return [(replace(r, frame=frame), payload) for (r, payload), frame in zip(kept, frames, strict=True)], strange


def _parts(source: Source, fetched: Fetched) -> tuple[Part, ...]:
    if source.kind not in _SEEING:
        return ()
    return tuple(
        Part(label=payload.label, version=payload.version, bytes=len(payload.content)) for payload in fetched.payloads
    )


def _whole_state(provider: Provider, fetched: Fetched, gathered: Gathered, started: datetime) -> WholeState | None:
    """What a whole state is compared with; `None` if there is nothing to compare, or not all of it could be read.

    Raises:
        PayloadError: If the state is empty: more likely a fault than the end of everything.
        SourceError: If it is only a part.
    """
    if provider.state != "whole" or not fetched.payloads or not gathered.whole:
        return None
    if fetched.partial:
        hint = "nothing was retracted; let one fetch bring all of it."
        raise SourceError(provider.name, fetched.payloads[0].label, "a whole state came in parts", hint)
    if gathered.rows is None:
        label = fetched.payloads[0].label
        raise PayloadError(
            provider.name, label, "the whole state is empty", "nothing was retracted; look at the source."
        )
    if provider.window is None:
        return WholeState()
    told = fetched.state_time or started
    return WholeState(since_us=to_us(told - timedelta(microseconds=duration_us(provider.window, "window"))))


def _store(
    provider: Provider,
    log: ObservationLog,
    gathered: Gathered,
    payloads: tuple[Payload, ...],
    poll: Poll,
    after: int,
    state: WholeState | None,
    clock: Clock,
) -> AppendReport:
    batch_id = f"poll-{uuid.uuid4().hex}"
    refused = replace(poll, outcome="refused")

    def nothing(aside: list[tuple[str, object]]) -> AppendReport:
        return log.record_poll(refused if aside else poll, after=after, batch_id=batch_id, aside=aside, clock=clock)

    if gathered.rows is None:
        return _patiently(lambda: nothing(gathered.aside))
    rows = gathered.rows
    try:
        return _patiently(
            lambda: log.append(
                rows,
                batch_id=batch_id,
                arrivals="stamp",
                poll=replace(poll, outcome="rows"),
                after=after,
                whole_state=state,
                reasons=gathered.reasons,
                original=gathered.original,
                aside=gathered.aside,
                evolve=not provider.contract.columns or provider.contract.on_new_column == "add",
                clock=clock,
            )
        )
    except BatchError as error:
        plain = gathered.original if gathered.original is not None else rows
        reason = error.problem
        with contextlib.suppress(*_OF_POLARS):
            kept: list[tuple[str, object]] = [(reason, row) for row in _plain_rows(plain)]
            return _patiently(lambda: nothing([*gathered.aside, *kept]))
    except _OF_POLARS as error:
        reason = f"cannot be stored: {_first_line(error)}"
    whole: list[tuple[str, object]] = [(reason, kept_payload(payload.content)) for payload in payloads]
    return _patiently(lambda: nothing(whole))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _plain_rows(frame: pl.DataFrame) -> list[Any]:
    from ingestion.batch import payloads

    return list(payloads(frame, pl.int_range(frame.height, eager=True)).str.json_decode(infer_schema_length=None))


def _patiently(commit: Callable[[], AppendReport]) -> AppendReport:
    """Try a commit again where the store failed; the batch id makes sure that it is made once.

    Raises:
        CommitError: If the store keeps failing.
        OSError: The same.
    """
    for wait in _STORE_WAITS:
        try:
            return commit()
        except (CommitError, OSError):
            time.sleep(wait)
    return commit()


def _failed(
    provider: Provider, log: ObservationLog, source: Source, clock: Clock, started: datetime, error: Exception
) -> PollReport:
    problem = error.problem if isinstance(error, IngestionError) else f"{type(error).__name__}: {error}"
    ended = clock()
    poll = Poll(source=source.kind, started=started, ended=ended, outcome="failed", error=problem)
    if not isinstance(error, CircuitOpenError):  # then nothing was attempted
        with contextlib.suppress(CommitError, DeltaError, OSError):
            log.record_poll(poll, clock=clock)
    return PollReport(provider=provider.name, outcome="failed", started=started, ended=ended, error=problem)
