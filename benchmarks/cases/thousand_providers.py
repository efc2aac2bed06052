"""A thousand providers that are polled every ten minutes by one process: its processor time and memory, and how quick it is.

Nothing is compressed: after the first poll of each, two minutes at the true rate are looked at, about 200 polls. Schedules are
spread over the whole ten minutes; each poll of 36 readings brings some that are new.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.answers import Verdict
from benchmarks.bench import OURS, Bench
from benchmarks.harness import Comparison, Result
from benchmarks.jobs import job, providers, quantile
from benchmarks.report import Report, Target

TITLE = "thousand providers: polled every 10 minutes by one process"
_PROVIDER = """
  p{number}:
    entities: [site]
    contract: {{columns: {{wind: {{dtype: Float64, min: 0, max: 100}}}}}}
    source:
      kind: http
      url: http://127.0.0.1:{port}/p{number}
      layout: {{records: data, columns: {{site: site, event_time: at, wind: wind}}, times: {{event_time: {{format: epoch_s}}}}}}
    schedule: {{every: 10m, jitter: 10m}}
    cadence: 10m
"""


def run(bench: Bench) -> Report:
    """The figures are of the job's process alone; providers are served by another."""
    if OURS in bench.without:
        return Report("thousand_providers", [], [])
    count, seconds = (200, 60) if bench.quick else (1000, 120)
    first = Result("first", f"first poll of each of {count:,}", "exact")
    slice_ = Result(OURS, f"{seconds} s at the true rate", "exact")
    nan = float("nan")
    share = visible = lag = nan
    with providers() as port, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        declared = "".join(_PROVIDER.format(number=number, port=port) for number in range(count))
        (folder / "asknown.yaml").write_text(f"root: logs\nproviders:{declared}")
        started = time.perf_counter()
        with job(folder) as running:
            while running.total("asknown_polls_total") < count and time.perf_counter() - started < 600:
                time.sleep(1)
            first.walls, first.cpus = [time.perf_counter() - started], [running.cpu_seconds()]
            first.peak_bytes = running.resident()
            time.sleep(15)  # until what follows the first polls is done
            before, cpu, begun = running.numbers(), running.cpu_seconds(), time.perf_counter()
            while time.perf_counter() - begun < seconds:
                time.sleep(5)
                slice_.peak_bytes = max(slice_.peak_bytes, running.resident())
            after, wall = running.numbers(), time.perf_counter() - begun
            slice_.walls, slice_.cpus = [wall], [running.cpu_seconds() - cpu]
            polls = sum(_polls(after).values()) - sum(_polls(before).values())
            slice_.name += f", {polls:.0f} polls"
            failed = sum(value for key, value in _polls(after).items() if 'outcome="failed"' in key)
            slice_.verdict = Verdict(count, int(failed), "failed polls" if failed else "")
            share = slice_.cpus[0] / wall
            visible = quantile(before, after, "asknown_visible_seconds", 0.99)
            lag = quantile(before, after, "asknown_loop_lag_seconds", 0.99)
    targets = [
        Target(f"{count:,} providers every 10 minutes, share of one processor", share, 0.25),
        Target("its memory", slice_.peak_bytes / 2**30 if slice_.peak_bytes else nan, 1.0, unit="GiB"),
        Target("received -> visible, 99 % at most", visible, 3.0, unit="s"),
        Target("event loop late, 99 % at most", lag, 0.5, unit="s"),
    ]
    return Report("thousand_providers", [Comparison(f"{count:,} providers", {"first": first, OURS: slice_})], targets)


def _polls(numbers: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in numbers.items() if key.startswith("asknown_polls_total")}
