"""Who may ask what: a bearer token per scope, and without one only this machine."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final

from serving.errors import OptionError
from serving.http.refusals import RefusalError

VARIABLES: Final = {
    "read": "ASKNOWN_READ_TOKEN",
    "push": "ASKNOWN_PUSH_TOKEN",
    "admin": "ASKNOWN_ADMIN_TOKEN",
}
_SHORTEST: Final = 8
_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost"})
_ASKED: Final = ((b"www-authenticate", b'Bearer realm="asknown"'),)


class Tokens:
    """The tokens of the scopes, kept as hashes.

    Args:
        environment: Where they are looked up, by the names in `VARIABLES`.

    Raises:
        OptionError: If one is too short to be a secret, or not of visible ASCII characters.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._known: dict[str, bytes] = {}
        for scope, variable in VARIABLES.items():
            token = environment.get(variable, "")
            if not token:
                continue
            if len(token) < _SHORTEST or not all("!" <= letter <= "~" for letter in token):
                raise OptionError(
                    f"the token in {variable} is not at least {_SHORTEST} visible ASCII characters",
                    f"export {variable}=$(openssl rand -hex 24)",
                )
            self._known[scope] = _digest(token.encode())

    @property
    def open_scopes(self) -> list[str]:
        """Scopes without a token: open to this machine, closed to others."""
        return [scope for scope in VARIABLES if scope not in self._known]

    def check(self, wanted: str, scope: MutableMapping[str, Any]) -> None:
        """Let a request pass.

        Args:
            wanted: The scope that it needs.
            scope: The request, as ASGI has it.

        Raises:
            RefusalError: If it may not: 401 without a token or with an unknown one, 403 with that of another scope.
        """
        token = self._known.get(wanted)
        if token is None:
            if not is_local(scope):
                raise RefusalError(
                    403,
                    f"there is no token for {wanted!r}, so only this machine may",
                    f"start the server with {VARIABLES[wanted]} set.",
                )
            return
        shown = _bearer(scope["headers"])
        if shown is None:
            raise RefusalError(401, "a bearer token is needed", "send it as: Authorization: Bearer TOKEN.", _ASKED)
        digest = _digest(shown)
        matches = [name for name, known in self._known.items() if hmac.compare_digest(digest, known)]
        if wanted in matches:
            return
        if matches:
            raise RefusalError(
                403, f"this token is not for {wanted!r}", f"send the one in the server's {VARIABLES[wanted]}."
            )
        raise RefusalError(
            401, "the bearer token is not right", f"send the one in the server's {VARIABLES[wanted]}.", _ASKED
        )


def is_local(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request comes from this machine, by an address of this machine, and neither through a proxy nor from another site's page."""
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    for name, value in scope["headers"]:
        if name in (b"host", b"origin") and not _is_local_address(value):
            return False
        if name in (b"x-forwarded-for", b"forwarded"):
            return False
    return True


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip() or None if scheme.lower() == b"bearer" else None
    return None


def _digest(token: bytes) -> bytes:
    return hashlib.blake2b(token, digest_size=32).digest()


@lru_cache(256)
def _is_local_address(value: bytes) -> bool:
    """Whether `host:port`, or the address of a page, names this machine."""
    text = value.decode("latin-1").lower().rpartition("://")[2]
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    return name in _LOCAL_NAMES or _is_loopback(name)


@lru_cache(256)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
