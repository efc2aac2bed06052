"""Answers that say no: what is wrong, with value and place, and what to do about it."""

from __future__ import annotations

from alignment.errors import AlignmentError
from serving.errors import ServingError
from serving.online.errors import NotReadyError, UnknownFeatureError

Headers = tuple[tuple[bytes, bytes], ...]
CLOSE: Headers = ((b"connection", b"close"),)


class RefusalError(Exception):
    """An answer other than 200.

    Attributes:
        status: Its status.
        problem: What is wrong.
        hint: What to do about it.
        headers: Headers to go with it.
    """

    def __init__(self, status: int, problem: str, hint: str = "", headers: Headers = ()) -> None:
        self.status, self.problem, self.hint, self.headers = status, problem, hint, headers
        super().__init__(problem)


class GoneError(Exception):
    """The client left before its question was whole."""


def shown(value: object, most: int = 80) -> str:
    """A value that a client sent, as an answer may repeat it: short, and printable."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def refusal_of(error: Exception) -> RefusalError | None:
    """What to answer to an error that a question has brought about; None if it is our own fault."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, NotReadyError):
        return RefusalError(503, error.problem, error.hint, ((b"retry-after", b"1"),))
    if isinstance(error, ServingError):
        status = 404 if isinstance(error, UnknownFeatureError) else 400
        return RefusalError(status, _short(error.problem), _short(error.hint))
    if isinstance(error, AlignmentError):
        problem, _, hint = str(error).partition("\n\nhint: ")
        return RefusalError(400, _short(problem), _short(hint))
    return None


def _short(text: str, most: int = 500) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
