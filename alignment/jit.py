"""Compilation: how kernels are compiled, and where the result is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba
from numba.core import config

F = TypeVar("F", bound=Callable[..., object])


def _choose_cache() -> bool:
    """Keep compiled code beside the package or in the user's cache; failing both, in a temporary folder.

    Numba looks at the first two by itself and fails where neither can be written.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return True
    candidates = [Path(__file__).parent / "__pycache__", Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")]
    if any(_writable(folder) for folder in candidates):
        return True
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    fallback = Path(tempfile.gettempdir()) / f"asknown-kernels-{owner}"
    try:
        fallback.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    if not _writable(fallback) or (hasattr(os, "getuid") and fallback.stat().st_uid != os.getuid()):
        return False
    config.CACHE_DIR = str(fallback)
    return True


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


_CACHE = _choose_cache()


def jit(function: F) -> F:
    """Compile `function` on first use: strict floating point, no interpreter lock, result kept on disk."""
    compiled: F = numba.njit(nogil=True, cache=_CACHE, fastmath=False, error_model="numpy")(function)
    return compiled
