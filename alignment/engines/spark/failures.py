"""Errors of this package that were raised on executors, told here as what they are."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from alignment import errors
from alignment.errors import AlignmentError

_TAG = "asknown-error: "


@contextlib.contextmanager
def labelled() -> Iterator[None]:
    """Write what an error is into a note, which Spark carries to the driver with the traceback.

    Raises:
        AlignmentError: What was raised inside.
    """
    try:
        yield
    except AlignmentError as error:
        told = {"kind": type(error).__name__, "problem": error.problem, "hint": error.hint}
        error.add_note(_TAG + json.dumps(told))
        raise


@contextlib.contextmanager
def spark_errors() -> Iterator[None]:
    """Let an error that executors raised for `engine="spark"` be what it was there, class, message and hint.

    A Spark frame is computed when it is asked for its rows, so an error in them comes out there, wrapped by Spark.

    Raises:
        AlignmentError: If that is what an executor raised; anything else is passed on.

    Example:
        >>> with spark_errors():
        ...     print("rows = frame.collect()")
        rows = frame.collect()
    """
    try:
        yield
    except Exception as error:
        found = found_in(str(error))
        if found is None:
            raise
        raise found from error


def found_in(message: str) -> AlignmentError | None:
    """The error that a message of Spark's tells of; None if it tells of none of ours."""
    line = next((line for line in message.splitlines() if _TAG in line), None)
    if line is None:
        return None
    told = json.JSONDecoder().raw_decode(line.partition(_TAG)[2])[0]
    kind = getattr(errors, told["kind"], AlignmentError)
    found: AlignmentError = kind.__new__(kind)
    AlignmentError.__init__(found, told["problem"], told["hint"])
    return found
