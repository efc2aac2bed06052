"""The declarations of the providers of a served world: how each feed is asked, and how what it answers is laid out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ingestion.sources.simulated import FEEDS, SITES, STEP, Feed
from ingestion.sources.world_feeds import HISTORY, PAGE, PATHS, TOPIC, WorldTime


def declarations(address: str, speed: float, *, mqtt: str | None = None, root: str = "logs") -> dict[str, Any]:
    """The providers of a served world, as a file of declarations has them.

    Args:
        address: Where it is served, e.g. `http://127.0.0.1:8765`.
        speed: Its speed: schedules follow it.
        mqtt: `HOST:PORT` of the broker that the sky camera publishes to; `None` if it is polled too.
        root: Where the logs are to be.

    Returns:
        `root` and `providers`, ready for YAML.
    """
    time = WorldTime(anchor=datetime(2000, 1, 1, tzinfo=UTC), speed=speed)
    return {"root": root, "providers": {feed.provider: _declared(feed, address, time, mqtt) for feed in FEEDS}}


def _declared(feed: Feed, address: str, time: WorldTime, mqtt: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "description": f"simulated: {', '.join(feed.values)} of each site",
        "entities": ["site"],
        "contract": {"columns": {"site": {"dtype": "String", "categories": list(SITES)}, **_COLUMNS[feed.provider]}},
    }
    streamed = feed.provider == "sky_camera" and mqtt is not None
    if streamed:
        host, _, port = str(mqtt).partition(":")
        fields["source"] = {
            "kind": "mqtt",
            "host": host,
            "port": int(port or 1883),
            "topic": f"{TOPIC}/#",
            "layout": {"format": "json", **_LAYOUTS[feed.provider]},
        }
    else:
        fields["source"] = {"kind": "http", "url": address + PATHS[feed.provider], **_asked(feed.provider, time)}
        fields["source"]["pause"] = "15s"  # an outage on demand is short: it must not end minutes later
        fields["schedule"] = {"every": _length(time.real(STEP / 2), least=1), "jitter": "0s"}
    if feed.provider == "inverter":
        # a little shorter than what is served, so that rounding never takes the oldest event for a retracted one
        fields |= {"state": "whole", "window": _length(time.real(HISTORY - STEP), least=1)}
    usual = timedelta(minutes=sum(feed.delay_minutes) / 2)
    return fields | {
        "cadence": _length(time.real(STEP), least=2),
        "expected_delay": _length(time.real(usual), least=1),
        "down_after": _length(time.real(timedelta(hours=1)), least=10),
    }


def _asked(provider: str, time: WorldTime) -> dict[str, Any]:
    """How a feed is asked and laid out."""
    since = {"start": _length(time.real(HISTORY), least=1), "params": {"since": "{since}"}}
    formats = {"weather_mast": "csv", "meter": "ndjson"}
    asked: dict[str, Any] = {"layout": {"format": formats.get(provider, "json"), **_LAYOUTS[provider]}}
    if provider in ("sky_camera", "pyranometer", "meter"):
        asked |= since
    if provider == "pyranometer":
        asked["paging"] = {"kind": "next_link", "path": "paging.next"}
    if provider == "sky_camera":
        asked["paging"] = {"kind": "page_number", "size": PAGE, "stop": "short"}
    return asked


def _length(duration: timedelta, *, least: int) -> str:
    """A duration as a declaration writes it, in whole milliseconds."""
    milliseconds = max(1000 * least, round(duration / timedelta(milliseconds=1)))
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


_LAYOUTS: Final[dict[str, dict[str, Any]]] = {
    "sky_camera": {
        "columns": {
            "site": "camera",
            "event_time": "taken_at",
            "published_time": "sent_at",
            "cloud_cover": "cloud_cover",
            "sky_vector": "embedding",
        },
    },
    "pyranometer": {
        "records": "data",
        "columns": {"site": "station", "event_time": "time", "irradiance": "ghi"},
        "retraction": {"column": "status", "values": ["withdrawn"]},
    },
    "weather_mast": {
        "separator": ";",
        "decimal_comma": True,
        "columns": {"site": "site", "event_time": "observed", "air_temp": "air_temp", "wind_speed": "wind_speed"},
    },
    "inverter": {
        "records": "inverters",
        "columns": {"site": "site", "event_time": "t", "dc_power_kw": "dc.kw"},
        "times": {"event_time": {"format": "epoch_us"}},
        "state_time": {"path": "meta.generated", "format": "epoch_us"},
    },
    "meter": {"columns": {"site": "site", "event_time": "event_time", "power_kw": "power_kw"}},
}
_COLUMNS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "sky_camera": {
        "cloud_cover": {"dtype": "Float64", "min": 0, "max": 1},
        "sky_vector": {"dtype": "Array(Float32, 4)", "description": "mean brightness of the quarters of the picture"},
    },
    "pyranometer": {"irradiance": {"dtype": "Float64", "unit": "W/m2", "min": 0, "max": 2000}},
    "weather_mast": {
        "air_temp": {"dtype": "Float64", "unit": "degC", "min": -60, "max": 60},
        "wind_speed": {"dtype": "Float64", "unit": "m/s", "min": 0, "max": 60},
    },
    "inverter": {"dc_power_kw": {"dtype": "Float64", "unit": "kW", "min": 0, "max": 2000}},
    "meter": {"power_kw": {"dtype": "Float64", "unit": "kW", "min": 0, "max": 2000}},
}
