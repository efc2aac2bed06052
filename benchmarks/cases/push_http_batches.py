"""Rows pushed over HTTP, 500 a post, by a sender on the same two cores: answered means on the disk."""

from __future__ import annotations

from benchmarks.bench import OURS, Bench
from benchmarks.receiving import push_report
from benchmarks.report import Report

TITLE = "push over HTTP, 500 rows a post: rows per second, durable; received to visible"


def run(bench: Bench) -> Report:
    if OURS in bench.without:
        return Report("push_http_batches", [], [])
    seconds = 5.0 if bench.quick else 30.0
    return push_report("push_http_batches", seconds, size=500, connections=8, bound=20_000, unit="rows")
