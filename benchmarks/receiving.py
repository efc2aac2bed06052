"""What the cases of received rows share: `asknown ingest run` as a process, and a look into the log afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

import ingestion
from benchmarks.answers import Verdict
from benchmarks.bench import OURS
from benchmarks.environments import HERE
from benchmarks.harness import Comparison, Result
from benchmarks.load import rows
from benchmarks.report import Report, Target

CONTRACT = "{columns: {station: String, temp: Float64, wind: Float64, n: Int64}}"
_JOB = [sys.executable, "-c", "from serving.cli import main; main()", "ingest", "run", "--port", "0"]


@dataclass
class Job:
    """A job that runs."""

    folder: Path
    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Processor seconds that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> int:
        """Greatest resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        return 0

    def log(self, provider: str) -> ingestion.ObservationLog:
        return ingestion.open_log(self.folder / "logs", provider)

    def stored(self, provider: str) -> int:
        with contextlib.suppress(ingestion.LogNotFoundError):
            return int(self.log(provider).scan(columns=["n"]).select(pl.len()).collect().item())
        return 0

    def until_stored(self, provider: str, count: int, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while self.stored(provider) < count and time.monotonic() < end:
            time.sleep(0.2)


@contextlib.contextmanager
def job(name: str, source: str) -> Iterator[Job]:
    """A job with one provider, ended when it is no longer needed."""
    with tempfile.TemporaryDirectory(prefix="asknown-bench-") as scratch:
        folder = Path(scratch)
        declared = f"{{entities: [station], contract: {CONTRACT}, drop_unchanged: false, source: {source}}}"
        (folder / "asknown.yaml").write_text(f"root: logs\nproviders:\n  {name}: {declared}\n")
        said = folder / "errors.txt"
        with said.open("w") as errors:
            process = subprocess.Popen(
                _JOB,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(HERE.parent), "NO_COLOR": "1"},
            )
        try:
            yield Job(folder, process, _port(process, said))
            process.terminate()
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[str], said: Path) -> int:
    """The port that a job says it listens on.

    Raises:
        RuntimeError: If it ends before.
    """
    while process.poll() is None:
        for line in said.read_text().splitlines():
            if '"listening"' in line:
                return int(str(json.loads(line)["listening"]).rpartition(":")[2])
        time.sleep(0.05)
    raise RuntimeError(said.read_text())


def load(
    job_: Job, provider: str, *, size: int, connections: int, seconds: float, rate: float = 0.0
) -> dict[str, float]:
    """Let the sender post, and return what it says."""
    words = [str(job_.port), provider, str(size), str(connections), str(seconds), str(rate)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *words], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def delays(log: ingestion.ObservationLog, base: int) -> pl.Series:
    """Of each row but the first `base`, the seconds from when it was received until it is visible: its effective arrival, restamps included."""
    files = DeltaTable(log.address).file_uris()
    received = pl.scan_parquet(files).select("log_sequence", "received_time").collect()
    rows = (
        log.scan(columns=[])
        .select("log_sequence", "arrival_time")
        .collect()
        .join(received, on="log_sequence")
        .sort("log_sequence")[base:]
    )
    return (rows["arrival_time"] - rows["received_time"]).dt.total_microseconds() / 1e6


def result(title: str, seconds: float, cpu: float, peak: int, found: Verdict, parts: dict[str, float]) -> Comparison:
    """One measurement in the form of the suite."""
    one = Result(OURS, "asknown", "exact", walls=[seconds], cpus=[cpu], parts=[parts], peak_bytes=peak, verdict=found)
    return Comparison(title, {OURS: one})


def push_report(case: str, seconds: float, *, size: int, connections: int, bound: float, unit: str) -> Report:
    """Post as much as can be, then at the bound; the log is looked into before anything is claimed.

    The first says how much is taken, the second how soon it is visible while as much is taken as was asked for.
    """
    comparisons, targets = [], []
    with job("load", "{kind: push}") as running:
        load(running, "load", size=size, connections=connections, seconds=1.0)  # the first commits import and compile
        for how, rate in (("as many as can be", 0.0), ("at the bound", bound / (size if unit == "rows" else 1))):
            before, base = running.cpu(), _settled(running)
            told = load(running, "load", size=size, connections=connections, seconds=seconds, rate=rate)
            found = _count(running, base, told)
            late = delays(running.log("load"), base)
            parts = {**told, **{f"visible_p{q}": float(late.quantile(q / 100) or "nan") for q in (50, 99)}}
            title = (
                f"{case}, {how}: {told['posts']:,.0f} posts of {size} in {told['seconds']:.1f} s, {connections} connections;"
                f" answered p50 {1000 * told['p50']:.0f} ms, p99 {1000 * told['p99']:.0f} ms;"
                f" visible p50 {parts['visible_p50']:.1f} s, p99 {parts['visible_p99']:.1f} s"
            )
            comparisons.append(result(title, told["seconds"], running.cpu() - before, running.peak(), found, parts))
            if not rate:
                per_second = told[unit] / told["seconds"]
                targets.append(
                    Target(f"{unit} per second, durable, {size} a post", per_second, bound, at_most=False, unit="/s")
                )
            else:
                text = f"received to visible, p99, at {bound:,.0f} {unit}/s"
                targets.append(Target(text, parts["visible_p99"], 3.0, unit="s"))
    return Report(case, comparisons, targets)


def messages(count: int) -> Iterator[bytes]:
    """One row each."""
    for start in range(0, count, 1_000):
        for row in rows(start, min(1_000, count - start)):
            yield json.dumps(row).encode()


def consume_report(case: str, source: str, count: int) -> Report:
    """Let a job consume what waits at a broker; the time is from the first message that it has in hand to the last row visible."""
    with job("load", source) as running:
        before = running.cpu()
        running.until_stored("load", count)
        log = running.log("load")
        numbers = log.scan(columns=["n"]).select("n").collect()["n"]
        wrong = abs(count - numbers.len()) + numbers.len() - numbers.n_unique()
        text = "" if not wrong else f"{numbers.len():,} rows in the log, {numbers.n_unique():,} different"
        received = pl.scan_parquet(DeltaTable(log.address).file_uris()).select(pl.col("received_time").min()).collect()
        visible = log.scan(columns=[]).select(pl.col("arrival_time").max()).collect()
        seconds = (visible.item() - received.item()).total_seconds()
        one = result(
            f"{case}: {count:,} messages in {seconds:.1f} s, {count / seconds:,.0f} messages/s",
            seconds,
            running.cpu() - before,
            running.peak(),
            Verdict(count, wrong, text),
            {"messages": count, "per_second": count / seconds},
        )
    return Report(case, [one], [])


def _settled(running: Job) -> int:
    count, last = -1, -2
    while count != last:
        last = count
        time.sleep(2.5)
        count = running.stored("load")
    return count


def _count(running: Job, base: int, told: dict[str, float]) -> Verdict:
    """Both runs of the sender count from 0: the rows of the second are looked at."""
    sent = int(told["rows"])
    running.until_stored("load", base + sent)
    log = running.log("load")
    numbers = log.scan(columns=["n"]).select("n", "log_sequence").collect().sort("log_sequence")["n"][base:]
    wrong = abs(sent - numbers.len()) + numbers.len() - numbers.n_unique()
    text = "" if not wrong else f"{numbers.len():,} rows in the log, {numbers.n_unique():,} different, {sent:,} sent"
    return Verdict(sent, wrong, text)
