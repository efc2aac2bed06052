"""What is at each address: an overview, a page per provider, "what was known when" per view, and JSON beside each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from deltalake.exceptions import DeltaError

from alignment.errors import AlignmentError
from ingestion import IngestionError, system_clock
from serving.errors import ServingError
from serving.http.refusals import CLOSE, Headers, RefusalError
from serving.pages import known
from serving.pages.assets import asset
from serving.pages.freshness import Freshness, Signs, freshness, outages, signs_of
from serving.pages.habits import Habits, habits
from serving.pages.marks import entities_of
from serving.pages.plain import to_json
from serving.pages.questions import Query, UnknownNameError, address, entity_text, entity_words, length_text
from serving.pages.templating import rendered

if TYPE_CHECKING:
    from ingestion import Clock, ObservationLog
    from serving.pages.site import Site

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
MOST_ENTITIES: Final = 200
_PROVIDERS: Final = "/providers/"
_KNOWN: Final = "/known/"
_KEPT: Final = 64
# The chart library makes style elements; scripts come from files of ours and its own, never from a page.
_POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; object-src 'none';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_ALWAYS: Headers = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        status: Its HTTP status.
        media_type: What the body is.
        body: It.
        headers: Further headers.
    """

    status: int
    media_type: str
    body: bytes
    headers: Headers = ()


class Pages:
    """The pages of a site. Not to be shared between threads, like its logs.

    Args:
        site: What they are about.
        base: The path before all of theirs, such as `/ui`; empty where they are alone.
        clock: Tells now.
    """

    def __init__(self, site: Site, *, base: str = "", clock: Clock = system_clock) -> None:
        self._site, self._base, self._clock = site, base, clock
        self._kept: dict[tuple[str, str], tuple[int, Any]] = {}

    def answer(self, path: str, query: str = "") -> Reply:
        """The page, or the JSON, at an address.

        Args:
            path: Without `base`, not percent-encoded.
            query: What follows `?`.

        Returns:
            The page; a page with what is wrong, and status 400, 404 or 503, where it cannot be shown.
        """
        if path.startswith("/static/"):
            found = asset(path.removeprefix("/static/"))
            if found is not None:
                return Reply(
                    200, *found, headers=((b"x-content-type-options", b"nosniff"), (b"cache-control", b"max-age=86400"))
                )
        as_json = path.endswith(".json")
        try:
            asked = Query(query)
            template, told = self._found(path, asked)
        except ValueError as error:  # more parts than anybody's address has
            return self._refused(
                RefusalError(400, f"the address cannot be read: {error}", "open the overview."), as_json=as_json
            )
        except RefusalError as refusal:
            return self._refused(refusal, as_json=as_json, instead=self._instead(refusal, path, asked))
        except (ServingError, AlignmentError, IngestionError, OSError, DeltaError) as error:
            return self._refused(_reading(error), as_json=as_json)
        if template == "json":
            return Reply(
                200,
                JSON,
                to_json({name: value for name, value in told.items() if name != "place"}).encode() + b"\n",
                _ALWAYS,
            )
        return self._page(200, template, told)

    # ----------------------------------------------------------------------------------------------------- addresses

    def _found(self, path: str, query: Query) -> tuple[str, dict[str, Any]]:
        """The template and its data; "json" as the template where JSON was asked for.

        Raises:
            RefusalError: If there is nothing at this address.
            UnknownNameError: If no provider, or no view, has that name.
        """
        if path in ("", "/"):
            return "overview.html", self._overview()
        if path == "/index.json":
            return "json", self._overview()
        if path.startswith(_PROVIDERS):
            name, as_json = self._named(path.removeprefix(_PROVIDERS), self._site.logs(), "provider")
            told = self._provider(self._site.logs()[name], query, f"{_PROVIDERS}{name}")
            return "json" if as_json else "provider.html", told
        if path.startswith(_KNOWN):
            name, as_json = self._named(path.removeprefix(_KNOWN), self._site.views(), "view")
            told = self._known(self._site.views()[name], query, f"{_KNOWN}{name}")
            return "json" if as_json else "entities.html" if "entities" in told else "known.html", told
        raise RefusalError(404, f"there is no page {path[:100]!r}", "the overview lists what there is.")

    def _named(self, asked: str, there: Iterable[str], what: str) -> tuple[str, bool]:
        """The name that a path ends in, and whether its JSON is meant; names may end in `.json` themselves.

        Raises:
            UnknownNameError: If there is no such name.
        """
        names = list(there)
        short = asked.removesuffix(".json")
        if asked in names or short not in names:
            if asked not in names:
                raise UnknownNameError(what, short, names, self._site.target)
            return asked, False
        return short, True

    def _overview(self) -> dict[str, Any]:
        now = self._clock()
        logs, views = self._site.logs(), self._site.views()
        return {
            "now": now,
            "providers": [
                {**self._fresh(log, now).to_dict(), "href": self._path(_PROVIDERS, name)} for name, log in logs.items()
            ],
            "views": [
                {
                    "view": name,
                    "kind": view.kind,
                    "entities": view.spine_entities,
                    "features": view.column_names,
                    "provider": None if view.observations.source is None else view.observations.source.provider,
                    "href": self._path(_KNOWN, name),
                }
                for name, view in views.items()
            ],
        }

    def _provider(self, log: ObservationLog, query: Query, path: str) -> dict[str, Any]:
        now = self._clock()
        asked = query.length("down_after")
        if asked is not None and asked <= timedelta(0):
            raise RefusalError(400, "down_after=0s is no silence at all", "write down_after=30m")
        fresh = self._fresh(log, now, asked)
        judged = (fresh.down_after, fresh.state)  # an outage may begin while the log stays as it is
        down, count = self._keep("outages", log, judged, lambda: outages(log, now, fresh.down_after))
        found: Habits = self._keep("habits", log, None, lambda: habits(log))
        return {
            "now": now,
            "provider": log.provider,
            "freshness": fresh.to_dict(),
            "down_after_text": "" if fresh.down_after is None else length_text(fresh.down_after),
            "down_after_asked": asked is not None,
            "habits": found.to_dict(),
            "outages": down,
            "outage_count": count,
            "views": {
                name: self._path(_KNOWN, name)
                for name, view in self._site.views().items()
                if view.observations.source is not None and view.observations.source.provider == log.provider
            },
            "links": {"json": address(f"{self._base}{_quoted(path)}.json", [("down_after", query.one("down_after"))])},
        }

    def _known(self, view: Any, query: Query, path: str) -> dict[str, Any]:
        here = f"{self._base}{_quoted(path)}"
        if view.spine_entities and not any(query.all("entity")):
            shown, count = entities_of(view, MOST_ENTITIES)
            return {
                "view": view.name,
                "columns": view.spine_entities,
                "provider": None if view.observations.source is None else view.observations.source.provider,
                "count": count,
                "entities": [
                    {"entity": each, "text": entity_text(each), "href": address(here, entity_words(each))}
                    for each in shown
                ],
                "links": {"self": here, "json": f"{here}.json"},
            }
        return known.known(view, query, here)

    # ---------------------------------------------------------------------------------------------------------- parts

    def _fresh(self, log: ObservationLog, now: Any, down_after: timedelta | None = None) -> Freshness:
        signs: Signs = self._keep("signs", log, None, lambda: signs_of(log))
        return freshness(signs, now, down_after=down_after)

    def _keep(self, what: str, log: ObservationLog, of: object, make: Callable[[], _Kept]) -> _Kept:
        """What a log at its position gives, made once."""
        key, position = (f"{what} {of}", log.address), log.position()
        kept = self._kept.get(key)
        if kept is None or kept[0] != position:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            kept = self._kept[key] = position, make()
        found: _Kept = kept[1]
        return found

    def _path(self, prefix: str, name: str) -> str:
        return f"{self._base}{_quoted(prefix + name)}"

    def _page(self, status: int, template: str, told: dict[str, Any], headers: Headers = ()) -> Reply:
        body = rendered(template, base=self._base, site=self._site, **told)
        return Reply(status, HTML, body.encode(), (*_ALWAYS, *headers))

    def _instead(self, refusal: RefusalError, path: str, query: Query) -> str | None:
        """The page that a refusal's hint names; None if it names none."""
        here = f"{self._base}{_quoted(path)}"
        if not isinstance(refusal, UnknownNameError):
            return here if refusal.hint.startswith(f"{here} ") else None
        if refusal.close is None:
            return None
        if refusal.what == "feature":
            return here + query.text(feature=refusal.close)
        return self._path(_PROVIDERS if refusal.what == "provider" else _KNOWN, refusal.close) + query.text()

    def _refused(self, refusal: RefusalError, *, as_json: bool, instead: str | None = None) -> Reply:
        headers = tuple(header for header in refusal.headers if header not in CLOSE)
        told = {"status": refusal.status, "problem": refusal.problem, "hint": refusal.hint, "instead": instead}
        if as_json:
            body = to_json({"error": refusal.problem, "hint": refusal.hint}).encode() + b"\n"
            return Reply(refusal.status, JSON, body, (*_ALWAYS, *headers))
        return self._page(refusal.status, "error.html", told, headers)


def _reading(error: Exception) -> RefusalError:
    """What to say where the views file or the rows are at fault, not the address."""
    problem, _, hint = str(error).partition("\n\nhint: ")
    return RefusalError(503, f"this cannot be read now: {problem[:500]}", hint[:500] or "ask again.")


def _quoted(path: str) -> str:
    return quote(path)
