"""Who reports: one provider of images, three of sensors, and the meter whose next values are forecast."""

from serving.feast_support.sources import LogSource

LOGS = "data/logs"

sky_camera = LogSource(
    root=LOGS, provider="sky_camera", description="Cloud cover and a vector of each sky image, 24 to 40 minutes late."
)
pyranometer = LogSource(
    root=LOGS, provider="pyranometer", description="Irradiance, 20 to 34 minutes late; corrected the next morning."
)
weather_mast = LogSource(root=LOGS, provider="weather_mast", description="Temperature and wind, 22 to 38 minutes late.")
inverter = LogSource(root=LOGS, provider="inverter", description="DC power, 20 to 30 minutes late.")
meter = LogSource(root=LOGS, provider="meter", description="Power fed in, 20 to 30 minutes late.")
