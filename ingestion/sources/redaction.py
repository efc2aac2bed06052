"""Addresses and messages without what must not be read in them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

HIDDEN = "***"
_SOUNDS_SECRET = re.compile(
    r"(?:^|[-_.])(?:api-?key|key|token|secret|sig|signature|pass|passwd|password|pwd|auth|credential|credentials|session)"
    r"(?:$|[-_.])|(?:token|secret|password|apikey|api_key|signature|credential|accesskey)",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"(?:^|[-_.])(?:page|next|continuation|cursor|sort|order|partition|primary)[-_.]?(?:token|key)$", re.IGNORECASE
)


def sounds_secret(name: str) -> bool:
    """Whether a parameter or header of that name is likely to carry a credential.

    Example:
        >>> [sounds_secret(name) for name in ("api_key", "X-Auth-Token", "pageToken", "keyword", "page")]
        [True, True, False, False, False]
    """
    return _SOUNDS_SECRET.search(name) is not None and _HARMLESS.search(name) is None


class Redactor:
    """Takes known secrets out of texts, and what sounds like one out of addresses.

    Args:
        secrets: The values themselves.
        parameters: Names of query parameters whose values are never shown.
    """

    def __init__(self, secrets: Iterable[str] = (), *, parameters: Iterable[str] = ()) -> None:
        self._parameters = frozenset(parameters)
        shapes: set[str] = set()
        for secret in filter(None, secrets):
            escaped = {secret, secret.encode("unicode_escape").decode("ascii"), json.dumps(secret)[1:-1]}
            shapes |= {_however_quoted(text) for text in escaped}
            shapes.add(re.escape(base64.b64encode(secret.encode()).decode("ascii").rstrip("=")) + "=*")
        longest_first = sorted(shapes, key=len, reverse=True)
        self._secret = re.compile("|".join(longest_first)) if shapes else None

    def __repr__(self) -> str:
        return "Redactor()"

    def text(self, text: str) -> str:
        """A text without the secrets."""
        return text if self._secret is None else self._secret.sub(HIDDEN, text)

    def holds_secret(self, text: str) -> bool:
        """Whether one of the secrets is in a text."""
        return self._secret is not None and self._secret.search(text) is not None

    def url(self, url: str) -> str:
        """An address without user, password, fragment, and values of parameters that are or sound secret."""
        parts = urlsplit(url)
        query = [
            (name, HIDDEN if name in self._parameters or sounds_secret(name) else value)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        plain = urlunsplit((parts.scheme, host_of(url), parts.path, urlencode(query, safe="*:/,+"), ""))
        return self.text(plain)

    def without_parameters(self, url: str) -> str:
        """An address without the parameters that carry credentials."""
        parts = urlsplit(url)
        kept = [
            piece
            for piece in parts.query.split("&")
            if piece and unquote(piece.partition("=")[0]) not in self._parameters
        ]
        return urlunsplit((parts.scheme, host_of(url), parts.path, "&".join(kept), ""))


def _however_quoted(secret: str) -> str:
    """A pattern for a text with any of its characters percent-encoded, as addresses have them."""
    parts = []
    for character in secret:
        quoted = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        parts.append(f"(?:{re.escape(character)}|(?i:{quoted}){'|[+]' if character == ' ' else ''})")
    return "".join(parts)


def host_of(url: str) -> str:
    """Host and port, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]
