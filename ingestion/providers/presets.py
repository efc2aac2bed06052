"""Declarations of real public feeds, ready to be taken.

`usgs`: the earthquake feed of the US Geological Survey, a GeoJSON document with all earthquakes of the past seven days
(https://earthquake.usgs.gov/earthquakes/feed/v1.0/geojson.php). `properties.time` and `updated` are milliseconds since 1970,
`geometry.coordinates` is longitude, latitude and depth in km, `metadata.generated` the instant of the state. Times, places
and magnitudes of a quake are revised, so its id is the key; a quake that is taken back is missing from then on, and one older
than seven days just left the window.

`neso_wind`: the forecast of operational metered wind of the National Energy System Operator of Great Britain, half-hourly, 14
days ahead, published eight times a day (https://www.neso.energy/data-portal/14-days-ahead-operational-metered-wind-forecasts),
from its CKAN data store. A request answers with the newest run; `ForecastDatetime` is when that was produced, and all instants
are UTC. The portal asks for at most two requests a minute (https://www.neso.energy/data-portal/api-guidance), so the run is
asked for in one page, the largest that CKAN gives. Supported by National Energy SO Open Data.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from ingestion.errors import ProviderError, nearest
from ingestion.providers.provider import Provider

_USGS: Final[dict[str, Any]] = {
    "description": "USGS: all earthquakes of the past seven days, worldwide",
    "entities": ["net"],
    "key": ["quake_id"],
    "state": "whole",
    "window": "7d",
    "contract": {
        "columns": {
            "net": {"dtype": "String", "description": "network that is the preferred source"},
            "quake_id": {"dtype": "String"},
            "source_updated": {"dtype": "Datetime(us, UTC)", "description": "when the USGS last changed it; a claim"},
            "mag": {"dtype": "Float64", "min": -5, "max": 10, "description": "magnitude"},
            "lon": {"dtype": "Float64", "unit": "deg", "min": -180, "max": 180},
            "lat": {"dtype": "Float64", "unit": "deg", "min": -90, "max": 90},
            "depth_km": {"dtype": "Float64", "unit": "km", "min": -100, "max": 1000},
            "place": {"dtype": "String"},
        },
        "on_lost_column": "refuse",
    },
    "source": {
        "kind": "http",
        "url": "https://earthquake.usgs.gov/earthquakes/feed/v1.0/summary/all_week.geojson",
        "layout": {
            "format": "json",
            "records": "features",
            "columns": {
                "net": "properties.net",
                "quake_id": "id",
                "event_time": "properties.time",
                "source_updated": "properties.updated",
                "mag": "properties.mag",
                "lon": "geometry.coordinates.0",
                "lat": "geometry.coordinates.1",
                "depth_km": "geometry.coordinates.2",
                "place": "properties.place",
            },
            "times": {"event_time": {"format": "epoch_ms"}, "source_updated": {"format": "epoch_ms"}},
            "state_time": {"path": "metadata.generated", "format": "epoch_ms"},
        },
    },
    "schedule": {"every": "10m"},
    "cadence": "10m",
    "down_after": "1h",
}
_NESO_WIND: Final[dict[str, Any]] = {
    "description": "NESO: operational metered wind of Great Britain, half-hourly, 14 days ahead",
    "entities": ["zone"],
    "kind": "forecast",
    "contract": {
        "columns": {
            "zone": {"dtype": "String", "categories": ["GB"]},
            "wind_forecast_mw": {"dtype": "Float64", "unit": "MW", "min": 0, "max": 100_000},
            "capacity_mw": {"dtype": "Float64", "unit": "MW", "min": 0, "max": 200_000},
        },
    },
    "source": {
        "kind": "http",
        "url": "https://api.neso.energy/api/3/action/datastore_search",
        "params": {"resource_id": "b1ae17c2-cc5e-4254-9bbf-3eddcf30d033"},
        "paging": {
            "kind": "offset",
            "size": 32_000,
            "size_parameter": "limit",
            "stop": "short",
            "total_path": "result.total",
        },
        "rate": {"requests": 2, "per": "1m"},
        "layout": {
            "format": "json",
            "records": "result.records",
            "columns": {
                "event_time": "Datetime",
                "issue_time": "ForecastDatetime",
                "wind_forecast_mw": "Wind_Forecast",
                "capacity_mw": "Capacity",
            },
            "constants": {"zone": "GB"},
            "times": {
                "event_time": {"format": "iso", "zone": "UTC"},
                "issue_time": {"format": "iso", "zone": "UTC"},
            },
        },
    },
    "schedule": {"every": "15m"},
    "history": "75m",  # 0.95 of the runs of April 2026 had been published by then
    "cadence": "3h",
    "down_after": "12h",
}
PRESETS: Final[dict[str, dict[str, Any]]] = {"usgs": _USGS, "neso_wind": _NESO_WIND}
"""The presets by name, as a file would write them."""


def preset_fields(name: str) -> dict[str, Any]:
    """The fields of a preset, as a file would write them.

    Raises:
        ProviderError: If there is no such preset.
    """
    if name not in PRESETS:
        raise ProviderError("preset", f"{name!r} is unknown", nearest(name, PRESETS))
    return copy.deepcopy(PRESETS[name])


def preset(name: str, /, **fields: Any) -> Provider:
    """The provider of a preset.

    Args:
        name: `usgs` or `neso_wind`; also the provider's name, unless `fields` has another.
        fields: What is to be different; of a mapping, such as `source={"url": ...}`, only the fields that it names.

    Raises:
        ProviderError: If there is no such preset, or a field means nothing.
    """
    return Provider(**{"name": name, **merged(preset_fields(name), fields)})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` over it: mappings are merged field by field, a source of another kind replaces the whole."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            kind = old.get("kind")
            result[name] = merged(old, value) if value.get("kind", kind) == kind else value
    return result
