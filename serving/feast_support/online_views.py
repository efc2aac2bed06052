"""The Feast views that are read online, evaluated by feature servers: over providers' logs, or over what was written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.feast_support.declared import DEFINITION, followed_view, is_followed
from serving.feast_support.plain_logs import PlainLogs, latest_view
from serving.online import Answer, FeatureServer, OnlineSettings

if TYPE_CHECKING:
    from pathlib import Path

    from feast import FeatureView

    import alignment as al


@dataclass(slots=True)
class _Group:
    """Views that are followed and answered together, at one instant."""

    settings: OnlineSettings
    views: dict[str, al.FeatureView]
    known: dict[str, Any]
    server: FeatureServer | None = None


class OnlineViews:
    """Answers what the features of Feast views are now.

    Views over providers' logs share one server, so that one answer holds at one instant; so do plain views, whose server sees
    what was just written. A server is made anew when a view is asked for that it does not know, or not so.

    Args:
        logs: The logs of the plain views.
        settings: How providers' logs are followed.
        repo_path: The feature repository's folder.
        redis_url: Where rows are kept, for several replicas; None is the memory of this process.
    """

    def __init__(
        self, logs: PlainLogs, settings: OnlineSettings, repo_path: Path | None, *, redis_url: str | None = None
    ) -> None:
        plain = OnlineSettings(
            poll_every=settings.poll_every,
            clock_allowance="1us",  # what was just written was stamped by this clock
            max_behind=settings.max_behind,
            keep_events=settings.keep_events,
        )
        self._logs = logs
        self._repo_path = repo_path
        self._redis_url = redis_url
        self._groups = {True: _Group(settings, {}, {}), False: _Group(plain, {}, {})}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Open all logs anew at the next question."""
        with self._lock:
            for group in self._groups.values():
                if group.server is not None:
                    group.server.close()
                group.views, group.known, group.server = {}, {}, None

    def read(
        self, asked: Sequence[tuple[FeatureView, Sequence[str]]], entities: Mapping[str, Sequence[Any]]
    ) -> Answer | None:
        """Features of some views, all over providers' logs or all plain.

        Args:
            asked: Feast views and the names of their features.
            entities: Join key to values, one per row.

        Returns:
            The answer, or None if nothing was ever written for any of these plain views.
        """
        group = self._groups[is_followed(asked[0][0])]
        with self._lock:
            for view, _ in asked:
                self._learn(group, view)
            names = [
                column
                for view, features in asked
                if (mine := group.views.get(view.name)) is not None
                for column in (f"{view.name}__{feature}" for feature in features)
                if column in mine.column_names
            ]
            if not names:
                return None
            if group.server is None:
                group.server = self._server(group)
            group.server.catch_up()
            return group.server.read(names, entities)

    def _server(self, group: _Group) -> FeatureServer:
        backend = None
        if self._redis_url is not None:
            from serving.online.redis_backend import RedisBackend

            backend = RedisBackend(self._redis_url, group.settings)
        return FeatureServer(list(group.views.values()), settings=group.settings, backend=backend)

    def _learn(self, group: _Group, view: FeatureView) -> None:
        definition = _definition(view)
        if group.known.get(view.name) == definition:
            return
        if is_followed(view):
            found: al.FeatureView | None = followed_view(view, self._repo_path)
        else:
            log = self._logs.find(view.name)
            found = latest_view(view, log) if log is not None and log.columns else None
        if found is None:
            return
        group.known[view.name] = definition
        group.views[view.name] = found
        if group.server is not None:
            group.server.close()
            group.server = None


def _definition(view: FeatureView) -> Any:
    """What of a Feast view decides how it is evaluated."""
    if DEFINITION in view.tags:
        return view.tags[DEFINITION], view.batch_source
    return (
        view.ttl,
        view.batch_source if is_followed(view) else None,
        tuple((field.name, field.dtype) for field in view.features),
    )
