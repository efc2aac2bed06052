"""Reads the Python file that declares views, a label and a spine for the command line.

A views file is a program: it is run, and these names are taken from it.

    views   a list of `alignment.FeatureView`
    label   optional, what `alignment.label(...)` returned
    spine   optional, a frame with the entity columns and `prediction_time`
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alignment as al
from alignment.errors import AlignmentError
from ingestion.errors import IngestionError
from serving.errors import DeclarationError

_EXAMPLE = 'views = [al.FeatureView("weather", ...)]'


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """What a views file declares.

    Attributes:
        path: The file.
        views: Its views, at least one.
        label: Its label, if it has one.
        spine: Its spine, if it has one.
    """

    path: Path
    views: list[al.FeatureView]
    label: Any | None
    spine: Any | None


def read_declarations(path: Path) -> Declarations:
    """Run a views file and take its declarations.

    The file runs as a program of its own, with its folder first on the import path, like `python views.py` would.

    Args:
        path: The Python file.

    Returns:
        What it declares.

    Raises:
        DeclarationError: If there is no such file, it fails, or it has no list `views`.
        AlignmentError: What a declaration in the file is refused for.
        IngestionError: What opening a log in the file is refused for.
    """
    if not path.is_file():
        raise DeclarationError(str(path), "there is no such file", f"write one that says: {_EXAMPLE}")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        names = runpy.run_path(str(path), run_name="__views__")
    except SyntaxError as error:
        raise DeclarationError(str(path), f"line {error.lineno}: {error.msg}", "correct the line") from error
    except (AlignmentError, IngestionError):
        raise
    except Exception as error:
        raise DeclarationError(
            str(path), f"line {_line(error, path)}: {type(error).__name__}: {error}", f"run it by itself: python {path}"
        ) from error
    finally:
        sys.path.remove(folder)
    views = names.get("views")
    if isinstance(views, al.FeatureView):
        views = [views]
    if not isinstance(views, Sequence) or not views or not all(isinstance(view, al.FeatureView) for view in views):
        raise DeclarationError(str(path), "it has no list of views called 'views'", f"add a line such as: {_EXAMPLE}")
    return Declarations(path=path, views=list(views), label=names.get("label"), spine=names.get("spine"))


def _line(error: Exception, path: Path) -> int | None:
    """The last line of the views file itself that the error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1].lineno if frames else None
