"""Everything that `ingestion` raises.

IngestionError
├── LogError                     the log itself
│   ├── LogNotFoundError         there is no log at that address
│   ├── LogExistsError           there is one already
│   ├── DefinitionError          a provider's definition cannot mean anything
│   ├── CommitError              the commit could not be made
│   ├── SupersededError          another job has polled the provider meanwhile
│   ├── AddressError             an address holds a user, a password or a query, or names no bucket
│   ├── StoreError               an object store refuses, fails or is out of reach; an OSError too
│   └── UnsafeStoreError         an object store would lose commits
├── BatchError                   what was handed to `append`
│   ├── MissingColumnError       a column is not there
│   ├── ReservedColumnError      a value column has a name the log needs
│   ├── NaiveTimeError           an instant has no time zone
│   ├── ColumnTypeError          a column has a type that cannot be kept
│   ├── SchemaChangeError        the columns are not those of the log
│   ├── UnknownArrivalError      nobody said when a row arrived
│   ├── EventAfterArrivalError   a measurement was known before it happened
│   ├── NullKeyError             a row without a key
│   └── BackfillRefusedError     history that would change what was dropped as unchanged
├── QuestionError                what was asked of the log
│   ├── UnknownColumnError       the log has no such column
│   └── PositionError            the log has not got that far
├── QuarantineError              a quarantined row is not there, or is done with
├── ErasureError                 an erasure cannot be made or is not complete
├── ProviderError                a declaration of providers cannot be read, or means nothing
├── MissingLibraryError          a library that an extra brings is not installed
├── SourceError                  a provider cannot be reached, or what it answers is of no use
│   ├── PayloadError             what was fetched cannot be parsed
│   └── CircuitOpenError         the provider failed so often that it is left alone for a while
└── SpoolError                   what keeps received rows until they are in the log
    ├── SpoolLockedError         another process has the folder
    ├── SpoolFullError           as much waits as may wait
    ├── SpoolWriteError          a record could not be made durable
    └── KeyReusedError           an idempotency key came again with other content
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

from alignment import errors as _errors


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known name that is nearest, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(map(repr, names))}."


class IngestionError(Exception):
    """Root of all errors of this package.

    Args:
        problem: What is wrong, with the value and the place.
        hint: What to do about it, ready to be pasted. Empty if there is nothing to say.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}\n\nhint: {hint}" if hint else problem)


class LogError(IngestionError):
    """Something about the log itself."""


class LogNotFoundError(LogError):
    """There is no log at that address.

    Attributes:
        root: The folder or address that was looked in.
        provider: The provider that was asked for.
    """

    def __init__(self, root: str, provider: str, known: Iterable[str] = ()) -> None:
        self.root = root
        self.provider = provider
        names = list(known)
        close = difflib.get_close_matches(provider, names, n=1, cutoff=0.6)
        if close:
            hint = f"did you mean {close[0]!r}?"
        elif names:
            hint = f"its logs are {', '.join(map(repr, names[:12]))}."
        else:
            hint = f'make it first: create_log("{root}", "{provider}", entities=["..."]).'
        super().__init__(f"{root!r} has no log of provider {provider!r}", hint)


class LogExistsError(LogError):
    """There is a log at that address already.

    Attributes:
        root: The folder or address.
        provider: The provider.
    """

    def __init__(self, root: str, provider: str) -> None:
        self.root = root
        self.provider = provider
        super().__init__(
            f"{root!r} has a log of provider {provider!r} already",
            f'open it: open_log("{root}", "{provider}"), or pass exist_ok=True.',
        )


class DefinitionError(LogError):
    """A provider's definition cannot mean anything.

    Attributes:
        argument: The argument at fault.
    """

    def __init__(self, argument: str, problem: str, hint: str) -> None:
        self.argument = argument
        super().__init__(problem, hint)


class CommitError(LogError):
    """The commit could not be made.

    Attributes:
        provider: The provider whose log it is.
        attempts: How often it was tried.
    """

    def __init__(self, provider: str, attempts: int, cause: object) -> None:
        self.provider = provider
        self.attempts = attempts
        super().__init__(
            f"provider {provider!r}: no commit after {attempts} attempts: {getattr(cause, 'problem', cause)}",
            "nothing of the batch is visible; call again with the same batch_id.",
        )


class SupersededError(LogError):
    """Another job has recorded a poll of the provider since this one began; nothing was stored.

    Attributes:
        provider: The provider.
        after: The record that this poll began after.
        found: The record that is there now.
    """

    def __init__(self, provider: str, after: int, found: int) -> None:
        self.provider = provider
        self.after = after
        self.found = found
        super().__init__(
            f"provider {provider!r}: another job has recorded a poll (log_sequence {found}) since this one began"
            f" (after {after})",
            "nothing was stored; poll again.",
        )


class AddressError(LogError):
    """An address holds a user, a password or a query, or names no bucket; it is not repeated here."""

    def __init__(self, fault: str = "holds a user or a password") -> None:
        told = _errors.AddressError(fault)
        super().__init__(told.problem, told.hint)


class StoreError(LogError, OSError):
    """An object store refuses, fails or is out of reach; what its client said is the `__cause__`.

    Attributes:
        reason: `"no such bucket"`, `"wrong keys"`, `"not allowed"`, `"no keys"`, `"plain http"`, `"out of reach"` or `"failed"`.
        lasting: Whether asking again gets the same answer.
    """

    def __init__(self, told: _errors.StoreError) -> None:
        self.reason = told.reason
        self.lasting = told.lasting
        super().__init__(told.problem, told.hint)

    @classmethod
    def of(cls, error: BaseException, address: str = "") -> Self | None:
        """What an error of a store's client says; None if it is about something else.

        Args:
            error: What `deltalake` or Polars raised.
            address: What was asked for; empty takes the bucket that the error names.
        """
        told = _errors.StoreError.of(error, address)
        return None if told is None else cls(told)


class UnsafeStoreError(LogError):
    """An object store let two writers make the same commit; one of them would have been lost.

    Attributes:
        address: Where.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"the store of {address!r} takes two commits where only the first may come",
            "use one that refuses a put to a name that is taken (If-None-Match: *); the page on object storage names some.",
        )


class BatchError(IngestionError):
    """Something about the frame that was handed over."""


class MissingColumnError(BatchError):
    """A column is not there.

    Attributes:
        column: The name that was looked for.
        provider: The provider whose batch lacks it.
    """

    def __init__(self, column: str, provider: str, available: Iterable[str], *, hint: str = "") -> None:
        self.column = column
        self.provider = provider
        names = list(available)
        close = difflib.get_close_matches(column, names, n=1, cutoff=0.6)
        if not hint and close:
            hint = f'did you mean {close[0]!r}? Rename it: frame.rename({{"{close[0]}": "{column}"}}).'
        elif not hint:
            shown = ", ".join(map(repr, names[:12])) or "none"
            hint = f"its columns are {shown}{', ...' if len(names) > 12 else ''}."
        super().__init__(f"provider {provider!r}: the batch has no column {column!r}", hint)


class ReservedColumnError(BatchError):
    """A value column has a name that the log needs for itself.

    Attributes:
        column: The name.
    """

    def __init__(self, column: str, provider: str) -> None:
        self.column = column
        super().__init__(
            f"provider {provider!r}: the column name {column!r} is the log's own",
            f'rename it: frame.rename({{"{column}": "source_{column}"}}), or drop it: frame.drop("{column}").',
        )


class NaiveTimeError(BatchError):
    """An instant has no time zone.

    Attributes:
        column: The column (or argument) with naive instants.
    """

    def __init__(self, column: str, place: str) -> None:
        self.column = column
        super().__init__(
            f"{place}: {column!r} has no time zone",
            f'say what zone it is in, e.g. pl.col("{column}").dt.replace_time_zone("UTC").',
        )


class ColumnTypeError(BatchError):
    """A column has a type that cannot be kept there.

    Attributes:
        column: The column.
        dtype: Its type, as text.
    """

    def __init__(self, column: str, dtype: object, place: str, hint: str) -> None:
        self.column = column
        self.dtype = str(dtype)
        super().__init__(f"{place}: column {column!r} has type {dtype}", hint)


class SchemaChangeError(BatchError):
    """The columns of a batch are not those of the log.

    Attributes:
        column: The first column that differs.
        provider: The provider.
    """

    def __init__(self, column: str, provider: str, problem: str, hint: str) -> None:
        self.column = column
        self.provider = provider
        super().__init__(f"provider {provider!r}: {problem}", hint)


class UnknownArrivalError(BatchError):
    """Rows without an arrival, and no rule to give them one.

    Attributes:
        provider: The provider.
        rows: How many rows.
    """

    def __init__(self, provider: str, rows: int, problem: str) -> None:
        self.provider = provider
        self.rows = rows
        super().__init__(
            f"provider {provider!r}: {problem}",
            'say how late they were: append(frame, delay=alignment.FixedDelay("45m"), ...).',
        )


class EventAfterArrivalError(BatchError):
    """A measurement arrived before it happened, by more than the clock tolerance.

    Attributes:
        provider: The provider.
        rows: How many rows.
    """

    def __init__(self, provider: str, rows: int, first: str, tolerance: str) -> None:
        self.provider = provider
        self.rows = rows
        super().__init__(
            f"provider {provider!r}: {rows} rows have an event_time later than their arrival by more than"
            f" {tolerance}; first: {first}",
            'if they tell the future, the provider is of kind="forecast"; if its clock is off, widen clock_tolerance="1m";'
            ' on_bad_row="quarantine" sets them aside.',
        )


class NullKeyError(BatchError):
    """Rows without a key.

    Attributes:
        provider: The provider.
        column: The key column.
        rows: How many rows.
    """

    def __init__(self, provider: str, column: str, rows: int, reason: str) -> None:
        self.provider = provider
        self.column = column
        self.rows = rows
        super().__init__(
            f"provider {provider!r}: {rows} rows: {reason}",
            f'drop them: frame.drop_nulls("{column}"), or set on_bad_row="quarantine".',
        )


class BackfillRefusedError(BatchError):
    """History between measured arrivals of a provider that drops unchanged rows.

    Attributes:
        provider: The provider.
        rows: How many rows.
    """

    def __init__(self, provider: str, rows: int, first: str) -> None:
        self.provider = provider
        self.rows = rows
        super().__init__(
            f"provider {provider!r} drops unchanged rows, and {rows} rows arrived between measured arrivals of their key;"
            f" first: {first}",
            "a dropped row may have confirmed the value after them; load them into a log without drop_unchanged.",
        )


class QuestionError(IngestionError):
    """Something about what was asked of the log."""


class UnknownColumnError(QuestionError):
    """The log has no such column.

    Attributes:
        column: The name.
    """

    def __init__(self, column: str, provider: str, available: Iterable[str]) -> None:
        self.column = column
        names = list(available)
        close = difflib.get_close_matches(column, names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}?" if close else f"its columns are {', '.join(map(repr, names))}."
        super().__init__(f"the log of {provider!r} has no column {column!r}", hint)


class PositionError(QuestionError):
    """The log has not got as far as that position.

    Attributes:
        position: What was asked.
        head: The greatest position there is.
    """

    def __init__(self, position: int, head: int, provider: str) -> None:
        self.position = position
        self.head = head
        super().__init__(
            f"the log of {provider!r} ends at position {head}; position {position} does not exist yet",
            "pass position=None for all there is, or copy the newer log here.",
        )


class QuarantineError(IngestionError):
    """A quarantined row is not there, or there is a decision on it already.

    Attributes:
        provider: Whose log.
        sequence: The `log_sequence` that was asked for; `None` if it is not about one row.
    """

    def __init__(self, provider: str, sequence: int | None, problem: str, hint: str) -> None:
        self.provider = provider
        self.sequence = sequence
        super().__init__(f"provider {provider!r}: {problem}", hint)


class ErasureError(IngestionError):
    """An erasure cannot be made, or is not complete."""


class ProviderError(IngestionError):
    """A declaration of providers cannot be read, or means nothing.

    Attributes:
        place: The file and the field at fault.
    """

    def __init__(self, place: str, problem: str, hint: str) -> None:
        self.place = place
        super().__init__(f"{place}: {problem}", hint)


class MissingLibraryError(IngestionError):
    """A library that an extra brings is not installed.

    Attributes:
        library: What is missing.
        extra: The extra that has it.
    """

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        self.library = library
        self.extra = extra
        super().__init__(f"{purpose} needs {library}, which is not installed", f"pip install 'asknown[{extra}]'")


class SourceError(IngestionError):
    """A provider cannot be reached, or what it answers is of no use.

    Attributes:
        provider: The provider.
        place: What was asked, without credentials.
    """

    def __init__(self, provider: str, place: str, problem: str, hint: str = "") -> None:
        self.provider = provider
        self.place = place
        super().__init__(f"provider {provider!r}: {place}: {problem}", hint)


class PayloadError(SourceError):
    """What was fetched cannot be parsed."""


class CircuitOpenError(SourceError):
    """The provider failed so often that it is left alone for a while."""


class SpoolError(IngestionError):
    """What keeps received rows until they are in the log cannot do it."""


class SpoolLockedError(SpoolError):
    """Another process has the folder.

    Attributes:
        folder: The spool's folder.
        owner: The process that has it, as far as it is known.
    """

    def __init__(self, folder: str, owner: str = "") -> None:
        self.folder = folder
        self.owner = owner
        who = f"process {owner}" if owner else "another process"
        super().__init__(f"the spool {folder!r} is in use by {who}", "give each process a folder of its own.")


class SpoolFullError(SpoolError):
    """As much waits for the log as may wait; nothing was taken.

    Attributes:
        folder: The spool's folder.
        waiting: What waits, as text.
    """

    def __init__(self, folder: str, waiting: str) -> None:
        self.folder = folder
        self.waiting = waiting
        super().__init__(f"the spool {folder!r} is full: {waiting} wait for the log", "send again later.")


class SpoolWriteError(SpoolError):
    """A record could not be made durable; it is not in the spool.

    Attributes:
        folder: The spool's folder.
    """

    def __init__(self, folder: str, cause: object) -> None:
        self.folder = folder
        super().__init__(f"the spool {folder!r} cannot be written: {cause}", "make room on the disk, then send again.")


class KeyReusedError(SpoolError):
    """An idempotency key came again with other content; nothing was taken.

    Attributes:
        provider: The provider.
        key: The key.
    """

    def __init__(self, provider: str, key: str) -> None:
        self.provider = provider
        self.key = key
        super().__init__(
            f"provider {provider!r}: the idempotency key {key!r} came before with other content",
            "use a new key for new content.",
        )
