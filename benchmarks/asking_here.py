"""The client of `serve_in_process`: asks one store from within its own process and prints what it took, as JSON.

python -m benchmarks.asking_here asknown|redis|feast FOLDER BODIES SECONDS
"""

from __future__ import annotations

import json
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[[dict[str, Any]], Any]


def asknown(folder: Path, url: str | None) -> tuple[Ask, Callable[[], None]]:
    """A `FeatureServer` that follows its log, as `asknown serve` has one."""
    from serving.online import FeatureServer

    views = runpy.run_path(str(folder / "views.py"))["views"]
    backend: Any = None
    if url is not None:
        from serving.online import RedisBackend

        backend = RedisBackend(url)
    server = FeatureServer(views, backend=backend).start()
    return lambda body: server.read(body["features"], body["entities"]), server.close


def feast(folder: Path) -> tuple[Ask, Callable[[], None]]:
    """Feast's SDK over the store of its repository."""
    from feast import FeatureStore

    store = FeatureStore(str(folder))

    def ask(body: dict[str, Any]) -> Any:
        rows = [{"entity": entity} for entity in body["entities"]["entity"]]
        return store.get_online_features(features=body["features"], entity_rows=rows)

    return ask, lambda: None


def main() -> None:
    """Ask for so many seconds, one question after the other."""
    kind, folder, bodies, seconds = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    url = sys.argv[5] if len(sys.argv) > 5 else None
    ask, close = feast(folder) if kind == "feast" else asknown(folder, url)
    asked = [json.loads(line) for line in bodies.read_bytes().splitlines()]
    for body in asked[:10]:
        ask(body)
    walls: list[float] = []
    cpu, begin = time.thread_time(), time.perf_counter()
    while time.perf_counter() < begin + seconds:
        body = asked[len(walls) % len(asked)]
        since = time.perf_counter()
        ask(body)
        walls.append(time.perf_counter() - since)
    cpu = time.thread_time() - cpu
    close()
    cuts = statistics.quantiles(walls, n=100)
    print(json.dumps({"requests": len(walls), "p50": cuts[49], "p99": cuts[98], "cpu": cpu / len(walls)}))


if __name__ == "__main__":
    main()
