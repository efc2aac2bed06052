"""Everything that `alignment` raises.

AlignmentError
├── FrameError                  a frame has not the form that was asked for
│   ├── MissingColumnError      a column is not there
│   ├── MissingFileError        there is no file at a path or address; a FileNotFoundError too
│   ├── DuplicateColumnError    two columns would have one name
│   ├── ColumnTypeError         a column has a type that cannot be used here
│   ├── NaiveTimeError          an instant has no time zone
│   ├── NullTimeError           an instant that must be known is null
│   ├── NullKeyError            an observation has no entity
│   └── KeyTypeError            spine and observations disagree on a key's type
├── RevisionError               the rows contradict the rules of time
│   ├── AmbiguousRevisionsError two rows claim to be the same revision
│   ├── EventAfterArrivalError  a measurement was known before it happened
│   └── UnknownArrivalError     nobody said when a row arrived
├── DefinitionError             a declaration cannot mean anything
│   ├── DurationError           a text is not a duration
│   ├── FeatureError            a feature's arguments do not fit
│   ├── ViewError               a view's arguments do not fit
│   ├── LabelError              a label's arguments do not fit
│   ├── ServiceError            a service's arguments do not fit
│   └── UnknownEngineError      no engine has that name
├── DelayFitError               too little was measured to fit a delay
├── AggregateOverflowError      an integer sum does not fit in 64 bits
├── MemoryLimitError            a memory limit is none, or cannot be kept
├── SpillError                  what does not fit in memory does not fit on the disk either
├── AddressError                an address holds a user, a password or a query, or names no bucket
├── StoreError                  an object store refuses, fails or is out of reach; an OSError too
└── DatasetError                a data set cannot be written, read or rebuilt
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

from alignment.store_faults import StoreFault, fault_of

_PLURAL = ("observations", "entities", "scores")


def have(place: str) -> str:
    """The verb for a place: the observations have, the spine has.

    Example:
        >>> have("the observations of view 'mast'"), have("the entities"), have("the log of 'entities'")
        ('have', 'have', 'has')
    """
    return "have" if place.partition(" of ")[0].partition(",")[0].endswith(_PLURAL) else "has"


class AlignmentError(Exception):
    """Root of all errors of this package.

    Args:
        problem: What is wrong, with the value and the place.
        hint: What to do about it, ready to be pasted. Empty if there is nothing to say.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(f"{problem}\n\nhint: {hint}" if hint else problem)


class FrameError(AlignmentError):
    """A frame has not the form that was asked for."""


class MissingColumnError(FrameError):
    """A column is not there.

    Attributes:
        column: The name that was looked for.
        place: The frame that lacks it.
    """

    def __init__(
        self, column: str, place: str, available: Iterable[str], *, argument: str | None = None, log: bool = False
    ) -> None:
        self.column = column
        self.place = place
        names = list(available)
        close = difflib.get_close_matches(column, names, n=1, cutoff=0.6)
        if log and not names:
            hint = "the log has no rows and no schema yet: append a batch first, or create it with schema={...}."
        elif close and argument:
            hint = f'did you mean {close[0]!r}? Pass {argument}="{close[0]}".'
        elif close:
            hint = f"did you mean {close[0]!r}?"
        else:
            shown = ", ".join(repr(name) for name in names[:12]) or "none"
            hint = f"its columns are {shown}{', ...' if len(names) > 12 else ''}."
            if argument:
                hint += f' Pass {argument}="..." to name another.'
        super().__init__(f"{place} {have(place)} no column {column!r}", hint)


class MissingFileError(FrameError, FileNotFoundError):
    """There is no file at a path or address; what the system or the store said is the `__cause__`.

    Attributes:
        place: The frame that it was to be.
        path: The path or address, as it was given.
    """

    def __init__(self, path: str, place: str) -> None:
        self.place = place
        self.path = path
        where = "" if "://" in path or path.startswith(("/", "~")) else ", relative to the folder of this process"
        super().__init__(
            f"{place}: there is no Parquet file at {path!r}", f"correct the path{where}, or write the file first."
        )


class DuplicateColumnError(FrameError):
    """Two columns would have one name."""


class ColumnTypeError(FrameError):
    """A column has a type that cannot be used here."""


class NaiveTimeError(FrameError):
    """An instant has no time zone.

    Attributes:
        column: The column (or argument) with naive instants.
    """

    def __init__(self, column: str, place: str, hint: str = "") -> None:
        self.column = column
        super().__init__(
            f"{place}: {column!r} has no time zone",
            hint or f'say what zone it is in, e.g. pl.col("{column}").dt.replace_time_zone("UTC").',
        )


class NullTimeError(FrameError):
    """An instant that must be known is null."""


class NullKeyError(FrameError):
    """An observation has no entity."""


class KeyTypeError(FrameError):
    """Spine and observations disagree on a key's type."""


class RevisionError(AlignmentError):
    """The rows contradict the rules of time."""


class AmbiguousRevisionsError(RevisionError):
    """Two different rows have the same key and arrival, and no `log_sequence` orders them."""


class EventAfterArrivalError(RevisionError):
    """A measurement arrived before it happened."""


class UnknownArrivalError(RevisionError):
    """Rows without an arrival, and no rule to give them one."""


class DefinitionError(AlignmentError):
    """A declaration cannot mean anything."""


class DurationError(DefinitionError):
    """A text is not a duration, or a duration of the wrong sign."""


class FeatureError(DefinitionError):
    """A feature's arguments do not fit each other or the view."""


class ViewError(DefinitionError):
    """A view's arguments do not fit each other."""


class LabelError(DefinitionError):
    """A label's arguments do not fit each other or the views."""


class ServiceError(DefinitionError):
    """A feature service's arguments do not fit each other or the views."""


class UnknownEngineError(DefinitionError):
    """No engine has that name."""


class DelayFitError(AlignmentError):
    """Too little was measured to fit a delay, or to say how good one is."""


class AggregateOverflowError(AlignmentError):
    """An integer sum does not fit in 64 bits."""


class MemoryLimitError(AlignmentError):
    """A memory limit is none, or cannot be kept."""


class SpillError(AlignmentError):
    """What does not fit in memory does not fit on the disk either."""


class AddressError(AlignmentError):
    """An address holds a user, a password or a query, or names no bucket; it is not repeated here."""

    def __init__(self, fault: str = "holds a user or a password") -> None:
        super().__init__(
            f"the address {fault}",
            "write s3://bucket/prefix; credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.",
        )


class StoreError(AlignmentError, OSError):
    """An object store refuses, fails or is out of reach; what its client said is the `__cause__`.

    Attributes:
        reason: `"no such bucket"`, `"wrong keys"`, `"not allowed"`, `"no keys"`, `"plain http"`, `"out of reach"` or `"failed"`.
        lasting: Whether asking again gets the same answer.
    """

    def __init__(self, fault: StoreFault) -> None:
        self.reason = fault.reason
        self.lasting = fault.lasting
        super().__init__(fault.problem, fault.hint)

    @classmethod
    def of(cls, error: BaseException, address: str = "") -> Self | None:
        """What an error of a store's client says; None if it is about something else.

        Args:
            error: What `deltalake` or Polars raised.
            address: What was asked for; empty takes the bucket that the error names.
        """
        fault = fault_of(error, address)
        return None if fault is None else cls(fault)


class DatasetError(AlignmentError):
    """A data set cannot be written, read or rebuilt."""
