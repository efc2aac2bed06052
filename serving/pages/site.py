"""What the pages are about: the logs of a folder, or the views of a file with the logs that they read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import alignment as al
import ingestion
from ingestion import ObservationLog
from serving.declarations import read_declarations
from serving.errors import NoLogsError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Site:
    """Logs and views, read again when they change. Not to be shared between threads, like the logs.

    Args:
        target: A Python file that declares `views`, or a folder or address that holds logs.
        storage_options: Passed through to the store of such logs.

    Attributes:
        target: As given; pages name it in the commands that they suggest.
        has_views_file: Whether it is a file of declarations.
    """

    def __init__(self, target: str | Path, *, storage_options: dict[str, str] | None = None) -> None:
        self.target = str(target)
        self.has_views_file = self.target.endswith(".py")
        self._options = storage_options
        self._read: tuple[tuple[int, int], dict[str, al.FeatureView]] | None = None
        self._opened: dict[str, ObservationLog] = {}

    def check(self) -> None:
        """Say what is wrong with the target before anything is served.

        Raises:
            NoLogsError: If nothing holds logs there.
            DeclarationError: If the views file is refused.
            AlignmentError: What a declaration in it is refused for.
            IngestionError: What opening a log in it is refused for.
        """
        if self.has_views_file:
            self.views()
        elif "://" not in self.target and not Path(self.target).is_dir():
            raise NoLogsError(self.target)

    def views(self) -> Mapping[str, al.FeatureView]:
        """The views by name: the declared ones, or one per log with the newest value of every column.

        Raises:
            DeclarationError: If the views file is refused.
            AlignmentError: What a declaration in it is refused for.
            IngestionError: What opening a log is refused for.
        """
        if not self.has_views_file:
            return {name: view for name, log in self.logs().items() if (view := view_of(log)) is not None}
        path = Path(self.target)
        mark = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        if self._read is None or self._read[0] != mark:
            self._read = mark, {view.name: view for view in read_declarations(path).views}
        return self._read[1]

    def logs(self) -> Mapping[str, ObservationLog]:
        """The logs by provider, in the order of their names.

        Raises:
            DeclarationError: If the views file is refused.
            AlignmentError: What a declaration in it is refused for.
            IngestionError: What opening a log is refused for.
        """
        if self.has_views_file:
            found: dict[str, ObservationLog] = {}
            for view in self.views().values():
                source: object = view.observations.source
                if isinstance(source, ObservationLog):
                    found[source.provider] = source
            return dict(sorted(found.items()))
        names = ingestion.list_logs(self.target, storage_options=self._options)
        for name in names:
            if name not in self._opened:
                self._opened[name] = ingestion.open_log(self.target, name, storage_options=self._options)
        return {name: self._opened[name] for name in sorted(names)}


def view_of(log: ObservationLog) -> al.FeatureView | None:
    """The newest value of every column of a log, where nobody declared features; None while the log has no columns."""
    taken = {*log.entities, *(log.key or ())}
    columns = [name for name in log.columns if name not in taken]
    if not columns:
        return None
    return al.FeatureView(log.provider, observations=log, features=[al.latest(name) for name in columns])
