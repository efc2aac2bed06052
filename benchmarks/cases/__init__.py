"""One file per case; each has `TITLE` and `run(bench) -> Report`. Listed in the order in which they run."""

CASES = (
    "latest",
    "feast_offline",
    "windows",
    "training_set",
    "snapshot",
    "growth",
    "startup",
    "explain",
    "bulk_load",
    "thousand_providers",
    "steady_files",
    "push_http_batches",
    "push_http_single",
    "nats_consume",
    "mqtt_consume",
    "replay",
    "serve_in_process",
    "serve_http",
)
