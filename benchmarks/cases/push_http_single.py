"""Rows pushed over HTTP, one a post, by a sender on the same two cores: posts that wait share a sync of the disk."""

from __future__ import annotations

from benchmarks.bench import OURS, Bench
from benchmarks.receiving import push_report
from benchmarks.report import Report

TITLE = "push over HTTP, one row a post: posts per second, durable; received to visible"


def run(bench: Bench) -> Report:
    if OURS in bench.without:
        return Report("push_http_single", [], [])
    seconds = 5.0 if bench.quick else 30.0
    return push_report("push_http_single", seconds, size=1, connections=32, bound=1_000, unit="posts")
