"""What spooled records become in a provider's log: read by its layout, checked by its contract, one batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from ingestion.checks import Checked, Flag, check_rows
from ingestion.checks.together import as_they_came
from ingestion.errors import BatchError, PayloadError
from ingestion.instants import Clock, from_us
from ingestion.ledger import Outcome, Poll
from ingestion.schema import INSTANT
from ingestion.sources.base import Progress
from ingestion.sources.parsing import parse_payload
from ingestion.spool.flush import cursor_of
from ingestion.spool.frames import Header, Record

if TYPE_CHECKING:
    from ingestion.log import ObservationLog
    from ingestion.providers.provider import Provider
    from ingestion.report import AppendReport
    from ingestion.sources.layout import Layout

_SENDERS_MAY_NOT = ("received_time", "arrival_time", "arrival_kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What became of a provider's part of a segment.

    Attributes:
        append: What the log did.
        outcome: As the ledger has it, as far as it is known before the commit.
        flags: What the contract noticed.
        refused: Why the contract refused rows, if it did.
        oldest_us: When the first of the rows was received.
        rows: How many rows there were.
        bytes: How many bytes they were.
    """

    append: AppendReport
    outcome: str
    flags: tuple[Flag, ...] = ()
    refused: str | None = None
    oldest_us: int
    rows: int
    bytes: int


@dataclass(slots=True)
class _Part:
    """Records that were read together."""

    frame: pl.DataFrame
    received: pl.Series


class LogSink:
    """Stores records in a provider's log.

    Args:
        provider: Whose records they are.
        log: Its log; opened by the thread that stores.
        clock: Something that tells now, instead of the log's own clock.
    """

    def __init__(self, provider: Provider, log: ObservationLog, *, clock: Clock | None = None) -> None:
        self._provider = provider
        self._log = log
        self._clock = clock
        self._layout = provider.layout

    def progress(self) -> Progress:
        """How far a broker's stream is in the log."""
        return self._log.progress()

    def store(
        self, records: Sequence[Record], *, batch_id: str, stream: tuple[str, int], after: int | None
    ) -> StoreReport:
        """Append the rows of some records as one batch, with the poll that they are.

        Raises:
            SupersededError: If another job has stored records of the same stream.
            CommitError: If the commit could not be made.
        """
        how: dict[str, Any] = {"batch_id": batch_id, "stream": stream, "after": after, "clock": self._clock}
        try:
            return self._append(records, how)
        except (BatchError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            problem = error.problem if isinstance(error, BatchError) else str(error).splitlines()[0]
        aside = [(f"cannot be stored: {problem}", _text(record)) for record in records if record.header.rows]
        poll = _poll(records, "refused", (), problem)
        return _report(records, self._log.record_poll(poll, aside=aside, **how), poll)

    def _append(self, records: Sequence[Record], how: dict[str, Any]) -> StoreReport:
        aside: list[tuple[str, object]] = []
        parts = [part for part in self._read(records, aside) if part.frame.height]
        checked = [self._check(part) for part in parts]
        flags = [flag for each in checked for flag in each.flags]
        refused = next((each.refused for each in checked if each.refused is not None), None)
        good = any(each.refused is None for each in checked)
        nothing: Outcome = "idle" if all(record.header.idle for record in records) else "empty"
        outcome: Outcome = "rows" if good else "refused" if refused or aside else nothing
        poll = _poll(records, outcome, flags, refused)
        if not parts:
            return _report(records, self._log.record_poll(poll, aside=aside, **how), poll)
        report = self._log.append(
            pl.concat(map(_stamped, checked, parts), how="diagonal_relaxed"),
            arrivals="stamp",
            evolve=self._evolves,
            reasons=pl.concat(map(_reasons, checked)),
            original=as_they_came([each.original for each in checked]),
            aside=aside,
            poll=poll,
            **how,
        )
        return _report(records, report, poll, flags)

    @property
    def _evolves(self) -> bool:
        contract = self._provider.contract
        return not contract.columns or contract.on_new_column == "add"

    def _check(self, part: _Part) -> Checked:
        provider = self._provider
        received = part.received.max()
        return check_rows(
            part.frame,
            provider.contract,
            provider.definition(),
            received_time=received if isinstance(received, datetime) else None,
        )

    def _read(self, records: Sequence[Record], aside: list[tuple[str, object]]) -> Iterable[_Part]:
        """The rows of the records, those with lines of JSON in one go; what cannot be read goes to `aside`."""
        for form, group in groupby(records, key=lambda record: record.header.form):
            same = list(group)
            if form == "ndjson":
                yield from self._lines(same, aside)
                continue
            for record in same:
                if form == "raw":
                    aside.append((f"cannot be parsed: {record.header.problem}", _text(record)))
                else:
                    yield from self._document(record, aside)

    def _lines(self, records: list[Record], aside: list[tuple[str, object]]) -> Iterable[_Part]:
        layout = self._layout.model_copy(update={"format": "ndjson", "records": None})
        lines = b"\n".join(record.payload for record in records if record.payload)
        try:
            frame = self._parsed(lines, layout, records[0].header)
        except PayloadError as error:
            if len(records) == 1:
                aside.append((f"cannot be parsed: {error.problem}", _text(records[0])))
                return
            for record in records:
                yield from self._lines([record], aside)
            return
        yield _Part(frame, _received(records))

    def _document(self, record: Record, aside: list[tuple[str, object]]) -> Iterable[_Part]:
        try:
            frame = self._parsed(record.payload, self._layout, record.header)
        except PayloadError as error:
            aside.append((f"cannot be parsed: {error.problem}", _text(record)))
            return
        received = pl.Series([record.header.received_us], dtype=pl.Int64).cast(INSTANT)
        yield _Part(frame, received.new_from_index(0, frame.height))

    def _parsed(self, content: bytes, layout: Layout, header: Header) -> pl.DataFrame:
        """Rows, without the columns that only we may fill.

        Raises:
            PayloadError: If there are no rows in the bytes.
        """
        label = header.label or header.source
        frame = parse_payload(content, layout, provider=self._provider.name, label=label, media_type=header.media_type)
        return frame.drop(_SENDERS_MAY_NOT, strict=False)


def _report(records: Sequence[Record], append: AppendReport, poll: Poll, flags: Sequence[Flag] = ()) -> StoreReport:
    return StoreReport(
        append=append,
        outcome=poll.outcome,
        flags=tuple(flags),
        refused=poll.error,
        oldest_us=min(record.header.received_us for record in records),
        rows=sum(record.header.rows for record in records),
        bytes=poll.bytes,
    )


def _received(records: Sequence[Record]) -> pl.Series:
    stamps = pl.Series([record.header.received_us for record in records], dtype=pl.Int64).cast(INSTANT)
    times = pl.Series([record.header.rows for record in records], dtype=pl.UInt32)
    return stamps.to_frame("at").select(pl.col("at").repeat_by(times).explode(empty_as_null=False)).to_series()


def _stamped(checked: Checked, part: _Part) -> pl.DataFrame:
    return checked.frame.with_columns(part.received.alias("received_time"))


def _reasons(checked: Checked) -> pl.Series:
    if checked.reasons is not None:
        return checked.reasons
    return pl.Series([None], dtype=pl.String).new_from_index(0, checked.frame.height)


def _poll(records: Sequence[Record], outcome: Outcome, flags: Sequence[Flag], refused: str | None) -> Poll:
    first = records[0].header
    stamps = [record.header.received_us for record in records]
    places = [record.header.offset for record in records if record.header.offset is not None]
    return Poll(
        source=first.source,
        started=from_us(min(stamps)),
        ended=from_us(max(stamps)),
        outcome=outcome,
        bytes=sum(len(record.payload) for record in records),
        version=f"{places[0]}-{places[-1]}" if places else None,
        cursor=cursor_of(records),
        error=refused,
        notes=tuple(dict.fromkeys(str(flag) for flag in flags)),
    )


def _text(record: Record) -> str:
    if record.header.form == "document" and record.header.media_type.startswith("application/vnd.apache.arrow"):
        return record.payload.hex()
    return record.payload.decode("utf-8", "backslashreplace")
