"""What the power forecaster knows of a site: declared once, for training rows and for serving."""

from pathlib import Path

import power_entities
import power_sources
from feast import FeatureService

import alignment as al
from serving.feast_objects import feast_view

HERE = Path(__file__).parent

sky_camera = feast_view(
    al.FeatureView(
        "sky_camera",
        ["site"],
        power_sources.sky_camera.open(HERE),
        [
            al.latest("cloud_cover"),
            al.latest("sky_vector"),
            al.window("cloud_cover", "mean", ["1h", "3h"]),
            al.event_age(name="image_age"),
        ],
        max_event_age="2h",
    ),
    source=power_sources.sky_camera,
    entities=[power_entities.site],
)

pyranometer = feast_view(
    al.FeatureView(
        "pyranometer",
        ["site"],
        power_sources.pyranometer.open(HERE),
        [
            al.latest("irradiance"),
            al.window("irradiance", ["mean", "slope"], "1h"),
            al.lag("irradiance", "24h"),
            al.sequence("irradiance", 6, step="10m"),
            al.event_age(name="irradiance_age"),
        ],
        max_event_age="2h",
    ),
    source=power_sources.pyranometer,
    entities=[power_entities.site],
)

weather_mast = feast_view(
    al.FeatureView(
        "weather_mast",
        ["site"],
        power_sources.weather_mast.open(HERE),
        [al.latest("air_temp"), al.latest("wind_speed")],
        max_event_age="6h",
    ),
    source=power_sources.weather_mast,
    entities=[power_entities.site],
)

inverter = feast_view(
    al.FeatureView(
        "inverter",
        ["site"],
        power_sources.inverter.open(HERE),
        [al.latest("dc_power_kw"), al.window("dc_power_kw", "mean", ["1h", "3h"])],
        max_event_age="2h",
    ),
    source=power_sources.inverter,
    entities=[power_entities.site],
)

meter = feast_view(
    al.FeatureView(
        "meter",
        ["site"],
        power_sources.meter.open(HERE),
        [al.latest("power_kw"), al.window("power_kw", "mean", "1h"), al.lag("power_kw", "24h")],
        max_event_age="2h",
    ),
    source=power_sources.meter,
    entities=[power_entities.site],
)

power = FeatureService(
    name="power",
    features=[sky_camera, pyranometer, weather_mast, inverter, meter],
    description="What the model of the power 20 minutes ahead is asked with.",
)
