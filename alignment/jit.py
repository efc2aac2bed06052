"""Compilation: how kernels are compiled, and where the result is kept.

The result is kept beside the package, else in the user's cache, else in a temporary folder of the user's own, under the hash
of all kernel sources: a function is never paired with an older version of one that it calls, which Numba's own check (the one
file that a function is in) lets happen.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

F = TypeVar("F", bound=Callable[..., object])
_PACKAGE = Path(__file__).parent
_njit = cast("Any", numba.njit)  # its annotations leave out the options that drop wrappers
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_CACHE_DIR = "CACHE_DIR"  # where Numba looks when a function is declared; put back at once


def _places() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        yield Path(given)
        return
    yield _PACKAGE / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asknown"
    yield (
        Path(tempfile.gettempdir()) / f"asknown-{os.getuid() if hasattr(os, 'getuid') else os.environ.get('USERNAME')}"
    )


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _folder() -> str | None:
    sources = [_PACKAGE / "codes.py", *sorted((_PACKAGE / "kernels").glob("*.py"))]
    stamp = hashlib.sha256(
        b"\0".join([numba.__version__.encode(), *(path.read_bytes() for path in sources)])
    ).hexdigest()
    found = (place / f"kernels-{stamp[:16]}" for place in _places() if _writable(place))
    return next((str(folder) for folder in found), None)


_FOLDER = _folder()


def jit(function: F) -> F:
    """Compile `function` on first use, for callers in Python: strict floating point, no interpreter lock, result kept on disk."""
    theirs = getattr(config, _CACHE_DIR)
    setattr(config, _CACHE_DIR, _FOLDER or theirs)
    try:
        compiled = _njit(cache=_FOLDER is not None, **_OPTIONS)(function)
    finally:
        setattr(config, _CACHE_DIR, theirs)
    return cast("F", compiled)


def inner(function: F) -> F:
    """Compile `function` with the kernels that call it; it cannot be called from Python."""
    compiled = _njit(no_cpython_wrapper=True, **_OPTIONS)(function)
    return cast("F", compiled)
