"""Reads the Python file that declares views, services, a label and a spine for the command line.

A views file is a program: it is run, and these names are taken from it.

    views      a list of `alignment.FeatureView`
    services   optional, a list of `alignment.FeatureService` over these views
    label      optional, what `alignment.label(...)` returned
    spine      optional, a frame with the entity columns and `prediction_time`
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import alignment as al
from alignment.errors import AlignmentError
from alignment.service_binding import bind
from ingestion.errors import IngestionError
from serving.errors import DeclarationError

_EXAMPLE = 'views = [al.FeatureView("weather", ...)]'


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """What a views file declares.

    Attributes:
        path: The file.
        views: Its views, at least one.
        services: Its feature services.
        label: Its label, if it has one.
        spine: Its spine, if it has one.
    """

    path: Path
    views: list[al.FeatureView]
    label: Any | None
    spine: Any | None
    services: list[al.FeatureService] = field(default_factory=list)

    def service(self, name: str) -> al.FeatureService:
        """The service of that name.

        Raises:
            DeclarationError: If there is none.
        """
        for service in self.services:
            if service.name == name:
                return service
        names = ", ".join(repr(service.name) for service in self.services)
        feature = self.views[0].column_names[0]
        raise DeclarationError(
            str(self.path),
            f"it declares no service {name!r}",
            f"its services are {names}"
            if names
            else f'add one: services = [al.FeatureService("{name}", ["{feature}"])]',
        )


def read_declarations(path: Path) -> Declarations:
    """Run a views file and take its declarations.

    The file runs as a program of its own, with its folder first on the import path, like `python views.py` would.

    Args:
        path: The Python file.

    Returns:
        What it declares.

    Raises:
        DeclarationError: If there is no such file, it fails, it has no list `views`, or its `services` are none.
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
    services = _services(path, names.get("services", []), views)
    return Declarations(
        path=path, views=list(views), label=names.get("label"), spine=names.get("spine"), services=services
    )


def _services(path: Path, given: Any, views: Sequence[al.FeatureView]) -> list[al.FeatureService]:
    """The services of a views file, each one fitting its views.

    Raises:
        DeclarationError: If it is not a list of services, or two have one name.
    """
    services = [given] if isinstance(given, al.FeatureService) else given
    if not isinstance(services, Sequence) or not all(isinstance(one, al.FeatureService) for one in services):
        raise DeclarationError(
            str(path),
            "'services' is not a list of services",
            'e.g. services = [al.FeatureService("power", ["weather__temp"])]',
        )
    names = [service.name for service in services]
    for service in services:
        bind(service, views)
        if names.count(service.name) > 1:
            raise DeclarationError(str(path), f"two services are called {service.name!r}", "name them apart")
    return list(services)


def _line(error: Exception, path: Path) -> int | None:
    """The last line of the views file itself that the error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return frames[-1].lineno if frames else None
