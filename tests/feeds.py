"""Real providers' feeds on the loopback: what they would have served at an instant, made of what they once sent.

`UsgsFeed` answers as the earthquake feed of the USGS does: its whole state of the last seven days as GeoJSON. `NesoFeed` answers
as the data portal of NESO does: pages of CKAN's `datastore_search`. Both serve nothing that had not arrived by `arrived`.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import socket
import struct
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import polars as pl

Fault = Literal["500", "503", "429", "reset", "hang", "truncated", "malformed"]
WINDOW = timedelta(days=7)
NESO_RESOURCE = "b1ae17c2-cc5e-4254-9bbf-3eddcf30d033"
CKAN_LIMIT, CKAN_MOST = 100, 32_000


class Feed:
    """A provider on a port of the loopback, from `with` on until it ends.

    Attributes:
        arrived: Serve what had arrived by this instant; set it to let time go on.
        fault: What is wrong with the next answers; None answers well.
        faults: Faults for the next requests, one each, before `fault` counts.
        hang: How many seconds an answer that hangs takes.
        requests: Path and query of every request, in order.
    """

    media_type = "application/json"

    def __init__(self, arrived: datetime) -> None:
        self.arrived = arrived
        self.fault: Fault | None = None
        self.faults: list[Fault | None] = []
        self.hang = 30.0
        self.requests: list[str] = []
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def body(self, path: str, query: dict[str, str]) -> bytes | None:
        """What is served at a path; None if there is nothing."""
        raise NotImplementedError

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        fault = self.faults.pop(0) if self.faults else self.fault
        if fault == "reset":
            # Closing with nothing lingering sends a reset instead of an end.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(handler.connection.detach())
            handler.close_connection = True
            return
        if fault == "hang":
            self._stopped.wait(self.hang)
            handler.close_connection = True
            return
        if fault in ("500", "503", "429"):
            handler.send_response(int(fault))
            if fault != "500":
                handler.send_header("Retry-After", "1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        parts = urlsplit(handler.path)
        body = self.body(parts.path, dict(parse_qsl(parts.query)))
        if body is None:
            handler.send_error(404)
            return
        self._send(handler, body, fault)

    def _send(self, handler: BaseHTTPRequestHandler, body: bytes, fault: Fault | None) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if fault is None and handler.headers.get("If-None-Match") == tag:
            handler.send_response(304)
            handler.send_header("ETag", tag)
            handler.end_headers()
            return
        if fault == "malformed":
            body = body[: len(body) // 2]
        packed = "gzip" in handler.headers.get("Accept-Encoding", "")
        content = gzip.compress(body, 1, mtime=0) if packed else body
        handler.send_response(200)
        handler.send_header("Content-Type", self.media_type)
        handler.send_header("ETag", tag)
        handler.send_header("Last-Modified", format_datetime(self.arrived.astimezone(UTC), usegmt=True))
        handler.send_header("Content-Length", str(len(content)))
        if packed:
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        if fault == "truncated":
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
        else:
            handler.wfile.write(content)


def _handler(feed: Feed) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                feed.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _ms(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


class UsgsFeed(Feed):
    """The USGS's summary feed of all earthquakes of the past week.

    Args:
        frame: `quakes_usgs/observations.parquet`.
        arrived: The first capture by default.
    """

    PATH = "/earthquakes/feed/v1.0/summary/all_week.geojson"
    media_type = "application/json; charset=utf-8"

    def __init__(self, frame: pl.DataFrame, arrived: datetime | None = None) -> None:
        self.frame = frame.sort("arrival_time", maintain_order=True)
        self.arrivals: list[datetime] = self.frame["arrival_time"].unique().sort().to_list()
        super().__init__(arrived or self.arrivals[0])

    @property
    def url(self) -> str:
        return self.base + self.PATH

    def known(self) -> pl.DataFrame:
        """Every quake that was there and had not been taken back, however old: what a log should know."""
        last = (
            self.frame.filter(pl.col("arrival_time") <= self.arrived)
            .group_by("net", "quake_id", maintain_order=True)
            .last()
        )
        return last.filter(pl.col("op") != "delete").sort("event_time", "quake_id")

    def state(self) -> pl.DataFrame:
        """The quakes that the feed has: those of the last seven days."""
        return self.known().filter(pl.col("event_time") > self.arrived - WINDOW)

    def body(self, path: str, query: dict[str, str]) -> bytes | None:  # noqa: ARG002 - the feed is one file
        if path != self.PATH:
            return None
        quakes = self.state().sort("event_time", descending=True)
        metadata = {
            "generated": _ms(self.arrived),
            "url": f"https://earthquake.usgs.gov{self.PATH}",
            "title": "USGS All Earthquakes, Past Week",
            "status": 200,
            "api": "1.14.1",
            "count": quakes.height,
        }
        spans = [quakes[name] for name in ("lon", "lat", "depth_km")]
        document: dict[str, Any] = {
            "type": "FeatureCollection",
            "metadata": metadata,
            "features": [_feature(quake) for quake in quakes.iter_rows(named=True)],
        }
        if quakes.height:
            document["bbox"] = [*(span.min() for span in spans), *(span.max() for span in spans)]
        return json.dumps(document, separators=(",", ":")).encode()


def _feature(quake: dict[str, Any]) -> dict[str, Any]:
    name, net = quake["quake_id"], quake["net"]
    properties = {
        "mag": quake["mag"],
        "place": quake["place"],
        "time": _ms(quake["event_time"]),
        "updated": _ms(quake["source_updated"]),
        "tz": None,
        "url": f"https://earthquake.usgs.gov/earthquakes/eventpage/{name}",
        "detail": f"https://earthquake.usgs.gov/earthquakes/feed/v1.0/detail/{name}.geojson",
        "felt": None,
        "cdi": None,
        "mmi": None,
        "alert": None,
        "status": "automatic",
        "tsunami": 0,
        "sig": 0,
        "net": net,
        "code": name.removeprefix(net),
        "ids": f",{name},",
        "sources": f",{net},",
        "types": ",origin,phase-data,",
        "nst": None,
        "dmin": None,
        "rms": None,
        "gap": None,
        "magType": "ml",
        "type": "earthquake",
        "title": f"M {quake['mag']} - {quake['place']}",
    }
    point = {"type": "Point", "coordinates": [quake["lon"], quake["lat"], quake["depth_km"]]}
    return {"type": "Feature", "properties": properties, "geometry": point, "id": name}


class NesoFeed(Feed):
    """NESO's 14-day wind forecast, as CKAN pages it: the newest run alone, half-hours from about now on.

    Args:
        frame: `energy_neso_wind/observations.parquet`.
        arrived: The first capture by default.
        names: Our columns to the portal's, where they are to differ.
    """

    PATH = "/api/3/action/datastore_search"
    media_type = "application/json;charset=utf-8"
    NAMES: ClassVar = {
        "event_time": "Datetime",
        "issue_time": "ForecastDatetime",
        "capacity_mw": "Capacity",
        "wind_forecast_mw": "Wind_Forecast",
    }

    def __init__(
        self, frame: pl.DataFrame, arrived: datetime | None = None, names: dict[str, str] | None = None
    ) -> None:
        self.frame = frame.sort("arrival_time", "event_time", maintain_order=True)
        self.arrivals: list[datetime] = self.frame["arrival_time"].unique().sort().to_list()
        self.names = {**self.NAMES, **(names or {})}
        super().__init__(arrived or self.arrivals[0])

    @property
    def url(self) -> str:
        return self.base + self.PATH

    def known(self) -> pl.DataFrame:
        """Every row that was ever served."""
        return self.frame.filter(pl.col("arrival_time") <= self.arrived)

    def state(self) -> pl.DataFrame:
        """The rows that the portal has: the last capture's."""
        rows = self.known()
        return rows.filter(pl.col("arrival_time") == rows["arrival_time"].max())

    def records(self) -> list[dict[str, Any]]:
        text = "%Y-%m-%dT%H:%M:%S"
        shown = self.state().select(
            pl.int_range(1, pl.len() + 1).alias("_id"),
            pl.col("event_time").dt.strftime(text).alias(self.names["event_time"]),
            pl.col("event_time").dt.strftime("%Y-%m-%dT00:00:00").alias("Date"),
            (pl.col("event_time").dt.hour() * 2 + pl.col("event_time").dt.minute() // 30 + 1).alias(
                "Settlement_Period"
            ),
            pl.col("capacity_mw").alias(self.names["capacity_mw"]),
            pl.col("wind_forecast_mw").alias(self.names["wind_forecast_mw"]),
            pl.col("issue_time").dt.strftime(text).alias(self.names["issue_time"]),
        )
        return shown.to_dicts()

    def body(self, path: str, query: dict[str, str]) -> bytes | None:
        if path != self.PATH or "resource_id" not in query:
            return None
        records = self.records()
        limit = min(int(query.get("limit", CKAN_LIMIT)), CKAN_MOST)
        offset = int(query.get("offset", 0))
        types = {"_id": "int", "Settlement_Period": "int4"} | dict.fromkeys(
            [self.names["event_time"], self.names["issue_time"], "Date"], "timestamp"
        )
        resource = query["resource_id"]

        def link(at: int) -> str:
            return f"{self.PATH}?{urlencode({**query, 'resource_id': resource, 'offset': at})}"

        links = {"start": link(0), "next": link(offset + limit)}
        if offset:
            links["prev"] = link(max(0, offset - limit))
        result = {
            "include_total": True,
            "limit": limit,
            "offset": offset,
            "records_format": "objects",
            "resource_id": resource,
            "total_estimation_threshold": None,
            "records": records[offset : offset + limit],
            "fields": [{"id": name, "type": types.get(name, "float8")} for name in (records or [{}])[0]],
            "_links": links,
            "total": len(records),
            "total_was_estimated": False,
        }
        help_page = f"{self.base}/api/3/action/help_show?name=datastore_search"
        return json.dumps({"help": help_page, "success": True, "result": result}).encode()
