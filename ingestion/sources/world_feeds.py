"""The simulated world of the worked example, served: five providers on the loopback, each in another shape.

The world goes on as one watches it. At the `anchor` its calendar is that of the wall clock; from there its time runs `speed`
times as fast, and every instant that is served is put back on the wall clock: an event ten simulated minutes after the
anchor happens, at speed 60, ten real seconds after it. So delays, outages and corrections keep their order and their
proportions, nothing is served before it happened, and a log can stamp arrivals by the wall clock. Everything follows from
seed, speed and anchor: a server that is started again with the same ones serves the same world.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import polars as pl

from ingestion.instants import Clock, from_us, system_clock, to_us
from ingestion.sources.simulated import FEEDS, SITES, SimulatedWorld
from ingestion.sources.world_outages import FeedOutage, FeedOutages

if TYPE_CHECKING:
    from ingestion.sources.world_mqtt import CameraPublisher

PORT: Final = 8765
SPEED: Final = 60.0
HISTORY: Final = timedelta(days=2)
"""How much of the simulated past is served."""
PROVIDERS: Final = tuple(feed.provider for feed in FEEDS)
_WARM_UP: Final = timedelta(days=2)
"""After so long the clouds have forgotten how the world began, to the last bit."""
PAGE: Final = 200
TOPIC: Final = "world/sky_camera"
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldTime:
    """Simulated time on the wall clock.

    Attributes:
        anchor: The instant at which both are the same.
        speed: How many simulated seconds pass in a real one.
    """

    anchor: datetime
    speed: float = SPEED

    def simulated(self, wall: datetime) -> datetime:
        """What the simulated clocks show."""
        return from_us(to_us(self.anchor) + round((to_us(wall) - to_us(self.anchor)) * self.speed))

    def on_the_wall(self, instants: str) -> pl.Expr:
        """A column of simulated instants as those at which they come true; order is kept."""
        anchor = to_us(self.anchor)
        past = (pl.col(instants).dt.epoch("us") - anchor) / self.speed
        return (past.round().cast(pl.Int64) + anchor).cast(pl.Datetime("us", "UTC")).alias(instants)

    def real(self, simulated: timedelta) -> timedelta:
        """How long a simulated duration takes."""
        return simulated / self.speed


@dataclass
class LiveWorld:
    """What the providers of a world have published, on the wall clock.

    Args:
        time: How simulated time runs.
        seed: Which world.
        sites: Its sites.
        outages: What keeps providers from publishing, or from answering.

    Example:
        >>> anchor = datetime(2026, 6, 1, 12, tzinfo=UTC)
        >>> world = LiveWorld(time=WorldTime(anchor=anchor, speed=60), seed=5)
        >>> rows = world.published("meter", anchor)
        >>> rows.columns
        ['site', 'event_time', 'published_time', 'power_kw', 'is_retraction']
        >>> bool((rows["event_time"] < rows["published_time"]).all() and (rows["published_time"] <= anchor).all())
        True
    """

    time: WorldTime
    seed: int = 5
    sites: tuple[str, ...] = SITES
    outages: FeedOutages = field(default_factory=FeedOutages)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _frames: dict[tuple[str, datetime], pl.DataFrame] = field(default_factory=dict, repr=False)

    def published(self, provider: str, now: datetime) -> pl.DataFrame:
        """Every revision that a provider has published by an instant, of the events of the last two simulated days or more.

        Args:
            provider: One of `PROVIDERS`.
            now: By the wall clock.

        Returns:
            `site`, `event_time`, `published_time`, the provider's values, `is_retraction`; in order of publication.
        """
        return self.outages.published(provider, self._rows(provider, now)).filter(pl.col("published_time") <= now)

    def current(self, provider: str, now: datetime, *, since: datetime | None = None) -> pl.DataFrame:
        """The last revision of every event, as published by an instant; perhaps only what was published from `since` on."""
        rows = self.published(provider, now)
        last = rows.group_by("site", "event_time", maintain_order=True).last().select(rows.columns)
        if since is not None:
            last = last.filter(pl.col("published_time") >= since)
        return last.sort("published_time", "event_time", "site")

    def oldest(self, now: datetime) -> datetime:
        """The events after this instant are those of the last two simulated days."""
        return now - self.time.real(HISTORY)

    def _rows(self, provider: str, now: datetime) -> pl.DataFrame:
        block = self._block(self.time.simulated(now))
        with self._lock:
            if (provider, block) not in self._frames:
                self._frames = {key: frame for key, frame in self._frames.items() if key[1] == block}
                self._frames[provider, block] = self._simulate(provider, block)
            return self._frames[provider, block]

    @property
    def _block_days(self) -> int:
        """How many days are simulated at once: some minutes of real time."""
        return max(1, math.ceil(self.time.speed / 300))

    def _block(self, simulated: datetime) -> datetime:
        """The midnight at which the block of an instant begins."""
        day = (simulated - datetime(1970, 1, 1, tzinfo=UTC)) // _DAY
        return datetime(1970, 1, 1, tzinfo=UTC) + day // self._block_days * self._block_days * _DAY

    def _simulate(self, provider: str, block: datetime) -> pl.DataFrame:
        start = block - HISTORY - _WARM_UP
        days = (HISTORY + _WARM_UP) // _DAY + self._block_days + 1
        world = SimulatedWorld(seed=self.seed, start=start, days=days, sites=self.sites)
        return (
            world.observations(provider)
            .filter(pl.col("event_time") >= block - HISTORY)
            .rename({"arrival_time": "published_time"})
            .with_columns(self.time.on_the_wall("event_time"), self.time.on_the_wall("published_time"))
        )


# ---- shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is served at a path."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _json(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer(body=json.dumps(value, separators=(",", ":")).encode(), status=status, headers=headers)


def _instant(text: str | None, otherwise: datetime) -> datetime:
    """An instant of a query.

    Raises:
        ValueError: If it is none, or has no zone.
    """
    if text is None:
        return otherwise
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return instant


def _images(world: LiveWorld, now: datetime, query: dict[str, str]) -> Answer:
    """The sky camera: a bare JSON list in pages with numbers."""
    rows = world.current("sky_camera", now, since=_instant(query.get("since"), world.oldest(now)))
    page = max(1, int(query.get("page", 1)))
    return _json([image(row) for row in rows[(page - 1) * PAGE : page * PAGE].iter_rows(named=True)])


def image(row: dict[str, Any]) -> dict[str, Any]:
    """A photograph as the sky camera tells of it."""
    return {
        "camera": row["site"],
        "taken_at": _text(row["event_time"]),
        "cloud_cover": row["cloud_cover"],
        "embedding": None if row["sky_vector"] is None else list(row["sky_vector"]),
        "sent_at": _text(row["published_time"]),
    }


def _readings(world: LiveWorld, now: datetime, query: dict[str, str]) -> Answer:
    """The pyranometer: JSON in pages, each with the address of the next; what was withdrawn says so."""
    since = _instant(query.get("since"), world.oldest(now))
    until = _instant(query.get("until"), now)
    offset = int(query.get("offset", 0))
    rows = world.current("pyranometer", min(until, now), since=since)
    following = None
    if offset + PAGE < rows.height:
        asked = {"since": _text(since), "until": _text(until), "offset": offset + PAGE}
        following = f"/pyranometer/readings?{urlencode(asked, quote_via=quote)}"
    data = [
        {
            "station": row["site"],
            "time": _text(row["event_time"]),
            "ghi": row["irradiance"],
            "status": "withdrawn" if row["is_retraction"] else "ok",
        }
        for row in rows[offset : offset + PAGE].iter_rows(named=True)
    ]
    return _json({"data": data, "paging": {"count": rows.height, "next": following}})


def _table(world: LiveWorld, now: datetime, _query: dict[str, str]) -> Answer:
    """The weather mast: the whole table again and again, as CSV with commas for points, and an ETag."""
    rows = (
        world.current("weather_mast", now).filter(pl.col("event_time") > world.oldest(now)).sort("event_time", "site")
    )
    lines = ["site;observed;air_temp;wind_speed"]
    for row in rows.iter_rows(named=True):
        numbers = (repr(row[name]).replace(".", ",") for name in ("air_temp", "wind_speed"))
        lines.append(";".join((row["site"], _text(row["event_time"]), *numbers)))
    body = ("\r\n".join(lines) + "\r\n").encode()
    newest = rows["published_time"].max()
    headers = [("ETag", f'"{hashlib.sha256(body).hexdigest()[:32]}"')]
    if isinstance(newest, datetime):
        headers.append(("Last-Modified", format_datetime(newest.astimezone(UTC), usegmt=True)))
    return Answer(body=body, media_type="text/csv; charset=utf-8", headers=tuple(headers))


def _state(world: LiveWorld, now: datetime, _query: dict[str, str]) -> Answer:
    """The inverters: their whole state; what is missing there no longer exists."""
    generated = to_us(now)
    rows = world.current("inverter", now).filter(
        ~pl.col("is_retraction"), pl.col("event_time") > world.oldest(from_us(generated))
    )
    inverters = [
        {"site": row["site"], "t": to_us(row["event_time"]), "dc": {"kw": row["dc_power_kw"]}}
        for row in rows.iter_rows(named=True)
    ]
    return _json({"meta": {"generated": generated, "count": len(inverters)}, "inverters": inverters})


def _lines(world: LiveWorld, now: datetime, query: dict[str, str]) -> Answer:
    """The meter: a JSON object per line."""
    rows = world.current("meter", now, since=_instant(query.get("since"), world.oldest(now)))
    lines = [
        json.dumps({"site": row["site"], "event_time": _text(row["event_time"]), "power_kw": row["power_kw"]})
        for row in rows.iter_rows(named=True)
    ]
    return Answer(body="".join(f"{line}\n" for line in lines).encode(), media_type="application/x-ndjson")


PATHS: Final[dict[str, str]] = {
    "sky_camera": "/sky_camera/images",
    "pyranometer": "/pyranometer/readings",
    "weather_mast": "/weather_mast/table.csv",
    "inverter": "/inverter/state.json",
    "meter": "/meter/lines.ndjson",
}
_SHAPES: Final[dict[str, Callable[[LiveWorld, datetime, dict[str, str]], Answer]]] = {
    "sky_camera": _images,
    "pyranometer": _readings,
    "weather_mast": _table,
    "inverter": _state,
    "meter": _lines,
}


# ---- the server ------------------------------------------------------------------------------------------------------


class WorldServer:
    """The feeds of a world on a port of the loopback, from `with` on until it ends.

    Besides the feeds (`PATHS`): `GET /world` tells what there is; `GET /truth/{provider}` what had been published, for whoever
    wants to compare; `POST /outage/{provider}` begins an outage (`?seconds=90` also ends it; `lost=1`, `slow=3`, `site=dune`), `DELETE
    /outage/{provider}` ends it; `POST /freeze` serves nothing new until `DELETE /freeze`.

    Args:
        world: What is served.
        port: 0 takes a free one.
        clock: The wall clock.
        outages: Known beforehand, by provider; they are added to the world's.
    """

    def __init__(
        self,
        world: LiveWorld,
        *,
        port: int = PORT,
        clock: Clock = system_clock,
        outages: Mapping[str, Sequence[FeedOutage]] | None = None,
    ) -> None:
        self.world = world
        self.clock = clock
        self.started = clock()
        for name, planned in (outages or {}).items():
            world.outages.add(name, planned)
        self._frozen: datetime | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="world", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def now(self) -> datetime:
        """The wall clock, or when the world was frozen."""
        return self._frozen or self.clock()

    def is_down(self, provider: str) -> bool:
        """Whether a provider answers nothing."""
        return any(outage.silences for outage in self.world.outages.going_on(provider, self.clock()))

    def begin_outage(self, provider: str, length: timedelta | None = None, **more: Any) -> None:
        """Let a provider fail from now on, for so long or until `end_outage`.

        Args:
            provider: Which.
            length: How long; None until it is ended.
            more: `lost`, `slow` and `sites`, as `FeedOutage` takes them.

        Raises:
            ValueError: If they mean nothing.
        """
        now = self.clock()
        outage = FeedOutage(start=now, end=None if length is None else now + length, **more)
        self.world.outages.add(provider, [outage])

    def end_outage(self, provider: str) -> None:
        """Let a provider answer again."""
        self.world.outages.end(provider, self.clock())

    @property
    def frozen(self) -> bool:
        """Whether nothing new is served."""
        return self._frozen is not None

    def freeze(self) -> None:
        """Serve nothing that is published from now on."""
        self._frozen = self._frozen or self.clock()

    def thaw(self) -> None:
        """Go on, with what was published meanwhile."""
        self._frozen = None

    def status(self) -> dict[str, Any]:
        """What there is, as plain values."""
        now = self.now()
        return {
            "now": _text(now),
            "simulated": _text(self.world.time.simulated(now)),
            "speed": self.world.time.speed,
            "anchor": _text(self.world.time.anchor),
            "seed": self.world.seed,
            "frozen": self.frozen,
            "providers": {name: self._told(name) for name in PROVIDERS},
        }

    def _told(self, provider: str) -> dict[str, Any]:
        outages = self.world.outages.going_on(provider, self.clock())
        return {
            "url": self.address + PATHS[provider],
            "down": self.is_down(provider),
            "outages": [outage.to_dict() for outage in outages],
        }

    def truth(self, provider: str) -> dict[str, Any]:
        """What a provider had published by now: the current revision of each event, retracted ones left out."""
        now = self.now()
        rows = self.world.current(provider, now).filter(~pl.col("is_retraction")).drop("is_retraction")
        texts = [
            {name: _text(value) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows.with_columns(pl.col(pl.Array(pl.Float32, 4)).arr.to_list()).iter_rows(named=True)
        ]
        return {"now": _text(now), "oldest": _text(self.world.oldest(now)), "events": texts}

    def answer(self, method: str, target: str) -> Answer:
        """What a request gets."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        provider = next((name for name, path in PATHS.items() if path == parts.path), None)
        try:
            if method == "GET" and provider is not None:
                if self.is_down(provider):
                    return _json({"error": "down"}, status=503, headers=(("Retry-After", "1"),))
                return _SHAPES[provider](self.world, self.now(), query)
            return self._order(method, parts.path, query)
        except (ValueError, OverflowError) as error:
            return _json({"error": str(error)}, status=400)

    def _order(self, method: str, path: str, query: dict[str, str]) -> Answer:
        first, _, name = path.strip("/").partition("/")
        if method == "GET" and first in ("", "world") and not name:
            return _json(self.status())
        if first in ("truth", "outage") and name not in PROVIDERS:
            return _json({"error": f"no provider {name!r}; there are {', '.join(PROVIDERS)}"}, status=404)
        if (method, first) == ("GET", "truth"):
            return _json(self.truth(name))
        if (method, first) == ("POST", "outage"):
            self._begin_asked(name, query)
        elif (method, first) == ("DELETE", "outage"):
            self.end_outage(name)
        elif (method, first) == ("POST", "freeze"):
            self.freeze()
        elif (method, first) == ("DELETE", "freeze"):
            self.thaw()
        else:
            return _json({"error": f"nothing at {path!r}"}, status=404)
        return _json(self.status())

    def _begin_asked(self, provider: str, query: dict[str, str]) -> None:
        seconds, slow, sites = query.get("seconds"), query.get("slow"), query.get("site")
        self.begin_outage(
            provider,
            None if seconds is None else timedelta(seconds=float(seconds)),
            lost=query.get("lost", "0") in ("1", "true"),
            slow=None if slow is None else float(slow),
            sites=None if sites is None else tuple(sites.split(",")),
        )


def _handler(server: WorldServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            self._respond("GET")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._respond("POST")

        def do_DELETE(self) -> None:
            self._respond("DELETE")

        def _respond(self, method: str) -> None:
            answer = server.answer(method, self.path)
            tag = dict(answer.headers).get("ETag")
            same = tag is not None and self.headers.get("If-None-Match") == tag
            with contextlib.suppress(ConnectionError):
                self.send_response(304 if same else answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if not same:
                    self.send_header("Content-Type", answer.media_type)
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if not same:
                    self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            """Requests are the pollers' business."""

    return Handler


def publisher(server: WorldServer, mqtt: str) -> CameraPublisher:
    """What publishes the sky camera's photographs to an MQTT server, in a `with` statement.

    Args:
        server: The world that is served.
        mqtt: `HOST:PORT`.
    """
    from ingestion.sources.world_mqtt import CameraPublisher

    return CameraPublisher(server, mqtt)
