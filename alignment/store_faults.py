"""What the client of an object store says, as what is wrong: which bucket, which key, which setting, and whether to ask again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Reason = Literal["no such bucket", "wrong keys", "not allowed", "no keys", "plain http", "out of reach", "failed"]

_OURS = re.compile(
    r"Generic \w+ error|object-store error|Error performing |lacked the necessary (?:privileges|authentication)"
)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"\b([345]\d\d) ([A-Z][A-Za-z -]*[A-Za-z])")
_ENDPOINT = re.compile(r"Error performing [A-Z]+ (https?://)(?:[^/@\s]*@)?([^/?\s]+)")
_ASKED = re.compile(r"Error performing ([A-Z]+) https?://[^/\s]+(/[^?\s]*)")
_AT_POLARS = re.compile(r"\(path: (\w+://[^/)]+)")
_NO_KEYS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "redentials")
_SECRETS = {
    "InvalidAccessKeyId": (
        "does not know the access key",
        "AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the store that gave it.",
    ),
    "SignatureDoesNotMatch": ("says that the secret does not fit the access key", "AWS_SECRET_ACCESS_KEY."),
    "InvalidToken": ("does not take the session token", "AWS_SESSION_TOKEN."),
    "ExpiredToken": ("says that the session token has expired", "AWS_SESSION_TOKEN: get a new one."),
}
_CONNECTION = (  # what is most telling first
    ("connection refused", "connection refused"),
    ("dns error", "the host name is not known"),
    ("failed to lookup address", "the host name is not known"),
    ("timed out", "no answer in time"),
    ("certificate", "its certificate is not trusted"),
    ("connection reset", "the connection was cut"),
    ("connection closed", "the connection was cut"),
    ("error sending request", "no connection"),
    ("error decoding response body", "the connection was cut"),
)


@dataclass(frozen=True, slots=True)
class StoreFault:
    """What is wrong with a store, or with what it was asked.

    Attributes:
        reason: Which of the things that go wrong.
        problem: What is wrong, with the address.
        hint: What to do about it.
    """

    reason: Reason
    problem: str
    hint: str

    @property
    def lasting(self) -> bool:
        """Whether asking again gets the same answer."""
        return self.reason not in ("out of reach", "failed")


def fault_of(error: BaseException, address: str = "") -> StoreFault | None:
    """What is wrong, if an error comes from a store's client and says so; None if it is about something else.

    A file that is not there is no fault. Neither marks of a terminal, nor XML, nor numbers of requests, nor any credential that the
    client repeats come along.

    Args:
        error: What `deltalake` or Polars raised.
        address: What was asked for; empty takes the bucket that the error names.

    Example:
        >>> fault_of(OSError("Generic S3 error: ... 404 Not Found <Code>NoSuchBucket</Code>"), "s3://attic/logs").reason
        'no such bucket'
    """
    text = str(error)
    found = _CODE.search(text)
    code = found[1] if found else ""
    missing = isinstance(error, FileNotFoundError) or type(error).__name__ == "TableNotFoundError"
    if not _OURS.search(text) or (missing and code != "NoSuchBucket"):
        return None
    if not address:
        named = _AT_POLARS.search(text)
        address = named[1] if named else ""
    place = f"the store of {address!r}" if address else "the object store"
    return _refusal(text, code, place, address) or _trouble(text, code, place)


def _refusal(text: str, code: str, place: str, address: str) -> StoreFault | None:
    if code == "NoSuchBucket":
        bucket = address.partition("://")[2].partition("/")[0]
        named = f" {bucket!r}" if bucket else " of that name"
        make = f"make the bucket first, e.g. aws s3 mb s3://{bucket or 'BUCKET'}."
        return StoreFault("no such bucket", f"{place} has no bucket{named}", f"correct the address, or {make}")
    if code in _SECRETS:
        said, what = _SECRETS[code]
        return StoreFault("wrong keys", f"{place} {said}", f"check {what}")
    if code == "AccessDenied":
        return StoreFault(
            "not allowed",
            f"{place} does not allow that with these keys (AccessDenied)",
            "whoever reads must be allowed to list and get under the prefix; whoever writes, to put and delete too.",
        )
    if "URL scheme is not allowed" in text:
        return StoreFault(
            "plain http",
            f"{place} is at an http:// address, and HTTP without TLS was not allowed",
            "export AWS_ALLOW_HTTP=true, or set AWS_ENDPOINT_URL to an https:// address.",
        )
    if any(mark in text for mark in _NO_KEYS):
        return StoreFault(
            "no keys",
            f"no credentials were found for {place}",
            "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., and AWS_ENDPOINT_URL=https://... if it is not Amazon's own.",
        )
    if "403 Forbidden" in text or "401 Unauthorized" in text or "lacked the necessary" in text:
        return StoreFault(
            "not allowed",
            f"{place} refuses the request ({code or '403 Forbidden'})",
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they are allowed to do under the prefix.",
        )
    return None


def _trouble(text: str, code: str, place: str) -> StoreFault:
    found = _ENDPOINT.search(text)
    endpoint = f" at {found[1]}{found[2]}" if found else ""
    status = _STATUS.search(text)
    if status:
        asked = _ASKED.search(text)
        answer = f"{status[1]} {status[2]}{f' ({code})' if code else ''}{f' to {asked[1]} {asked[2]}' if asked else ''}"
        reason: Reason = "out of reach" if status[1].startswith("5") else "failed"
        return StoreFault(reason, f"{place} fails: it answers {answer}", "try again later, or ask who runs it.")
    lower = text.lower()
    said = next((words for mark, words in _CONNECTION if mark in lower), "")
    if said:
        problem = f"{place} cannot be reached{endpoint}: {said}"
        return StoreFault("out of reach", problem, "check AWS_ENDPOINT_URL and the network, then try again.")
    return StoreFault(
        "failed", f"{place} fails{endpoint}", "the error that this one was raised from has what its client says."
    )
