"""Files that pages load: ours, and the chart library as its own package installed it. Nothing comes from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from serving.errors import MissingExtraError

PLOTLY: Final = "plotly.min.js"
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FOLDER: Final = Path(__file__).parent / "static"


def version_of_plotly() -> str:
    """The version of the chart library; addresses name it, so that a new one is not taken for the old."""
    return version("plotly")


def asset(name: str) -> tuple[str, bytes] | None:
    """The type and content of a file; None if there is none of that name."""
    if name == PLOTLY:
        return _TYPES[".js"], _plotly()
    known = {path.name: path for path in _FOLDER.iterdir()}
    path = known.get(name)
    return None if path is None else (_TYPES[path.suffix], path.read_bytes())


@cache
def _plotly() -> bytes:
    return plotly_file().read_bytes()


def plotly_file() -> Path:
    """The chart library's script, inside its installed package, which is not imported for it.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("plotly", "ui", "the pages' charts")
    return Path(spec.submodule_search_locations[0]) / "package_data" / PLOTLY
