"""The definitions that are served, and those that are held beside them until somebody switches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import alignment as al
from alignment.definitions import definition_hash, describe_service
from ingestion import Clock, system_clock
from serving.declarations import read_declarations
from serving.http.refusals import RefusalError, shown
from serving.online import FeatureServer, OnlineSettings

MOST_HELD: Final = 3
_SHORTEST: Final = 8
_MOST_PLANS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Held:
    """One set of definitions with the server that evaluates it.

    Attributes:
        definition: Hash of all its views and services.
        server: What answers.
        services: Feature services by name.
        since: When it was loaded.
        short: Column names to the names of their features.
    """

    definition: str
    server: FeatureServer
    services: Mapping[str, al.FeatureService]
    since: datetime
    short: Mapping[str, str] = field(default_factory=dict)
    plans: dict[tuple[bool, tuple[str, ...]], tuple[list[str], list[str]]] = field(default_factory=dict)

    def plan(self, features: Sequence[str], *, full: bool) -> tuple[list[str], list[str]]:
        """The columns that are meant, and what they are called in an answer; kept, for clients ask the same again.

        Args:
            features: As a client names them.
            full: Whether names are to have the view's.

        Raises:
            UnknownFeatureError: If there is no such feature.
            RefusalError: If two would have the same name.
        """
        key = (full, tuple(features))
        found = self.plans.get(key)
        if found is None:
            columns = self.server.names(features)
            found = columns, self.names(columns, full=full)
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            self.plans[key] = found
        return found

    def names(self, columns: Sequence[str], *, full: bool) -> list[str]:
        """What columns are called in an answer.

        Raises:
            RefusalError: If two would have the same name.
        """
        if full:
            return list(columns)
        names = [self.short.get(name) or name.partition("__")[2] or name for name in columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RefusalError(
                400, f"two features are called {shown(twice)}", "ask for them with full_feature_names: true."
            )
        return names


class Definitions:
    """Sets of definitions by hash, one of which answers whoever names none.

    Args:
        open_server: Makes a server of views, not yet started.
        online: How it follows the logs, if it is made here.
        clock: Something that tells now.
        on_open: Called with every server before it is started; what it returns is called when the server is closed.
    """

    def __init__(
        self,
        open_server: Callable[[Sequence[al.FeatureView]], FeatureServer] | None = None,
        *,
        online: OnlineSettings | None = None,
        clock: Clock = system_clock,
        on_open: Callable[[FeatureServer], Callable[[], None]] | None = None,
    ) -> None:
        self._on_open = on_open
        self._closers: dict[str, Callable[[], None]] = {}
        self._open = open_server or (lambda views: FeatureServer(views, settings=online, clock=clock))
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._current: Held | None = None

    @property
    def current(self) -> Held:
        """What answers whoever names no definition.

        Raises:
            RefusalError: If nothing is loaded yet.
        """
        if self._current is None:
            raise RefusalError(503, "the definitions are still being loaded", "ask again.", ((b"retry-after", b"1"),))
        return self._current

    def load(self, path: Path) -> Held:
        """Read a views file and hold what it declares; the first that is loaded is served.

        Args:
            path: The file.

        Returns:
            What is held; what was held already if the file says the same.

        Raises:
            DeclarationError: If the file cannot be read or declares nothing.
            AlignmentError: What a declaration in it is refused for.
            IngestionError: What a log is refused for.
        """
        return self.prepare(path)()

    def prepare(self, path: Path) -> Callable[[], Held]:
        """Read a views file and open its logs, without reading their rows.

        Args:
            path: The file.

        Returns:
            What does the rest of `load`.

        Raises:
            DeclarationError: If the file cannot be read or declares nothing.
            AlignmentError: What a declaration in it, or a duration of the settings, is refused for.
            IngestionError: What a log is refused for.
            UnservableViewError: If a view is not over a log.
        """
        declared = read_declarations(path)
        server = self._open(declared.views)
        return lambda: self._hold(server, declared.services)

    def hold(self, views: Sequence[al.FeatureView], *, services: Sequence[al.FeatureService] = ()) -> Held:
        """Start a server for views and hold it beside the others; the oldest that is not served makes room.

        Args:
            views: The views.
            services: Feature services over them.
        """
        return self._hold(self._open(views), services)

    def _hold(self, server: FeatureServer, services: Sequence[al.FeatureService]) -> Held:
        described = {service.name: describe_service(service) for service in services}
        definition = definition_hash({"views": server.definitions, "services": described})
        with self._lock:
            if (found := self._held.get(definition)) is not None:
                return found
        if self._on_open is not None:
            self._closers[definition] = self._on_open(server)
        server.start()
        short = {name: feature.name for name, (_, feature) in server.features.items()}
        held = Held(definition, server, {each.name: each for each in services}, self._clock(), short)
        with self._lock:
            self._held[definition] = held
            if self._current is None:
                self._current = held
            surplus = [each for each in self._held.values() if each is not self._current and each is not held]
            leaving = surplus[: max(0, len(self._held) - MOST_HELD)]
            for each in leaving:
                del self._held[each.definition]
        for each in leaving:
            self._close(each)
        return held

    def named(self, definition: str | None) -> Held:
        """The definitions that a question is for.

        Args:
            definition: Their hash, or its beginning; None are those served now.

        Raises:
            RefusalError: If none are held under this hash.
        """
        if definition is None:
            return self.current
        found = self._held.get(definition)
        if found is None and len(definition) >= _SHORTEST:
            found = next((held for name, held in self._held.items() if name.startswith(definition)), None)
        if found is None:
            raise RefusalError(
                404,
                f"no definitions {shown(definition)} are held",
                f"those are {', '.join(name[:12] for name in self._held)}; leave it out for those served now.",
            )
        return found

    def to_switch_to(self, definition: str) -> str:
        """The hash of definitions that are held.

        Args:
            definition: It, or its beginning.

        Raises:
            RefusalError: If none are held under it.
        """
        try:
            return self.named(definition).definition
        except RefusalError as refusal:
            held = ", ".join(name[:12] for name in self._held)
            hint = f"held are {held}; POST /admin/reload loads what the views file says now."
            raise RefusalError(refusal.status, refusal.problem, hint) from None

    def switch(self, definition: str) -> Held:
        """Serve definitions that are held.

        Args:
            definition: Their hash, or its beginning.

        Raises:
            RefusalError: If they are not held, or are not ready to answer.
        """
        held = self.named(definition)
        ready = held.server.readiness()
        if not ready.ready:
            raise RefusalError(409, f"definitions {held.definition[:12]} are not ready: {ready.reason}", "wait for it.")
        with self._lock:
            self._current = held
        return held

    def describe(self) -> list[dict[str, Any]]:
        """What is held, oldest first."""
        return [
            {
                "definition": name,
                "served": held is self._current,
                "since": held.since.isoformat().replace("+00:00", "Z"),
                "ready": held.server.readiness().ready,
                "views": dict(held.server.definitions),
                "services": sorted(held.services),
            }
            for name, held in list(self._held.items())
        ]

    def close(self) -> None:
        """Stop following the logs."""
        for held in self._held.values():
            self._close(held)

    def _close(self, held: Held) -> None:
        held.server.close()
        if closer := self._closers.pop(held.definition, None):
            closer()
