"""From the spool into a real log: providers apart, failures tried again, what cannot be read set aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingestion.errors import CommitError
from ingestion.providers import Provider, PushSource
from ingestion.spool import Flushed, Flusher, Header, LogSink, Record, Spool


def provider(name: str, **more: Any) -> Provider:
    columns = {"station": "String", "temp": "Float64", "wind": "Float64"}
    contract = {"columns": columns, **more}
    return Provider(name=name, entities=("station",), contract=contract, source=PushSource(), drop_unchanged=False)


def lines(name: str, *rows: str, **more: Any) -> Record:
    header = Header(provider=name, source="push", received_us=1_767_600_000_000_000, rows=len(rows), **more)
    return Record(header, "\n".join(rows).encode())


def row(temp: object, station: str = "mast", minute: int = 0) -> str:
    return f'{{"station":"{station}","event_time":"2026-01-05T08:{minute:02}:00Z","temp":{temp},"wind":1}}'


class Shaky(LogSink):
    """Fails as often as it is told to."""

    failures = 0

    def store(self, records: Sequence[Record], **how: Any) -> Any:
        if self.failures:
            Shaky.failures -= 1
            raise CommitError("shaky", 1, "the store is away")
        return super().store(records, **how)


def test_a_provider_that_fails_holds_up_itself_alone_and_keeps_its_order(tmp_path: Path) -> None:
    good, shaky = provider("good"), provider("shaky")
    told: list[Flushed] = []

    def sink_of(name: str) -> LogSink:
        return (Shaky if name == "shaky" else LogSink)({"good": good, "shaky": shaky}[name], logs[name])

    logs = {each.name: each.open(tmp_path / "logs") for each in (good, shaky)}
    with Spool(tmp_path / "spool") as spool:
        flusher = Flusher(spool, sink_of, wait_least=0.0, on_flushed=told.append)
        Shaky.failures = 2
        for turn in range(3):
            spool.put(lines("good", row(turn, minute=turn)))
            spool.put(lines("shaky", row(turn, minute=turn))).result()
            flusher.flush()
        assert [part.attempts for part in told if part.error is not None] == [1, 2]
        assert spool.usage().records == 0
    for log in logs.values():
        assert log.scan().collect().sort("log_sequence")["temp"].to_list() == [0.0, 1.0, 2.0]


def test_rows_that_are_absent_keep_their_values(tmp_path: Path) -> None:
    one = provider("one", updates="columns")
    log = one.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        flusher = Flusher(spool, lambda _name: LogSink(one, log))
        key = '"station":"mast","event_time":"2026-01-05T08:00:00Z"'
        for text in (f'{{{key},"temp":1,"wind":2}}', f'{{{key},"temp":3}}', f'{{{key},"wind":null}}'):
            spool.put(lines("one", text)).result()
            assert flusher.flush()[0].error is None
    frame = log.scan().collect().sort("log_sequence")
    assert frame.select("temp", "wind").rows() == [(1.0, 2.0), (3.0, 2.0), (3.0, None)]


def test_one_record_that_cannot_be_read_does_not_touch_the_others(tmp_path: Path) -> None:
    one = provider("one")
    log = one.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        spool.put(lines("one", row(1)))
        spool.put(lines("one", '{"station":'))  # it was read when it came; the spool's disk is to blame
        spool.put(lines("one", row(2, minute=1)))
        spool.put(lines("one", form="raw", problem="no JSON")).result()
        part = Flusher(spool, lambda _name: LogSink(one, log)).flush()[0]
    assert part.report.outcome == "rows"
    assert log.scan().collect()["temp"].to_list() == [1.0, 2.0]
    assert sorted(reason[:16] for reason in log.quarantine()["reason"]) == ["cannot be parsed"] * 2


def test_types_that_the_log_does_not_take_are_set_aside_and_nothing_is_stuck(tmp_path: Path) -> None:
    free = Provider(name="free", entities=("station",), source=PushSource())  # no contract: the first batch decides
    log = free.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        flusher = Flusher(spool, lambda _name: LogSink(free, log))
        for temp in ("1.5", '"warm"', "2.5"):
            spool.put(lines("free", row(temp))).result()
            assert flusher.flush()[0].error is None
        assert spool.usage().records == 0
    assert log.scan().collect().select(pl.col("temp").cast(pl.Float64)).to_series().to_list() == [1.5, 2.5]
    assert log.quarantine().height == 1
    assert log.polls()["outcome"].to_list() == ["rows", "refused", "rows"]


def test_only_the_fields_that_say_so_are_idle(tmp_path: Path) -> None:
    one = provider("one")
    log = one.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        flusher = Flusher(spool, lambda _name: LogSink(one, log))
        for idle in (True, False):
            spool.put(lines("one", idle=idle)).result()
            flusher.flush()
    assert log.polls()["outcome"].to_list() == ["idle", "empty"]


def test_the_thread_flushes_and_stop_flushes_the_rest(tmp_path: Path) -> None:
    one = provider("one")
    log = one.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        flusher = Flusher(spool, lambda _name: LogSink(one, log), every=30.0)
        flusher.start()
        spool.put(lines("one", row(1))).result()
        flusher.stop()
        assert spool.usage().records == 0
    assert log.scan().collect().height == 1


@pytest.mark.parametrize("count", [1, 3])
def test_rows_keep_when_each_was_received(tmp_path: Path, count: int) -> None:
    one = provider("one")
    log = one.open(tmp_path / "logs")
    with Spool(tmp_path / "spool") as spool:
        for turn in range(count):
            header = Header(provider="one", source="push", received_us=1_767_600_000_000_000 + turn, rows=2)
            rows = "\n".join(row(n, station=f"s{turn}{n}") for n in range(2))
            spool.put(Record(header, rows.encode())).result()
        Flusher(spool, lambda _name: LogSink(one, log)).flush()
    files = log.table.files()["path"]
    stored = pl.concat([log.table.read([path]).collect() for path in files], how="diagonal")
    received = stored.filter(pl.col("station").is_not_null()).sort("log_sequence")["received_time"].dt.epoch("us")
    assert (received - 1_767_600_000_000_000).to_list() == [turn for turn in range(count) for _ in range(2)]
