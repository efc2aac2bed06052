"""R20 online: a server falls back and resolves as a training set at the same (t, p) does."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from compare import column_values, same

import alignment as al
import ingestion
from ingestion import ObservationLog, create_log
from serving.declarations import read_declarations
from serving.errors import DeclarationError
from serving.online import AsOfError, FeatureServer, NotReadyError, OnlineSettings, read_service, resolve

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
AT_ONCE = OnlineSettings(clock_allowance="0s")


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def logs(tmp_path: Path, clock: Hands) -> dict[str, ObservationLog]:
    schema = {"site": pl.String, "ghi": pl.Float64}
    return {
        name: create_log(tmp_path, name, entities=["site"], schema=schema, publish_margin="0s", clock=clock)
        for name in ("satellite", "backup")
    }


def send(log: ObservationLog, minute: float, ghi: float | None, site: str = "a", **more: Any) -> None:
    frame = pl.DataFrame(
        {"site": [site], "event_time": [at(minute)], "ghi": [ghi]},
        schema={"site": pl.String, "event_time": pl.Datetime("us", "UTC"), "ghi": pl.Float64},
    )
    log.append(frame.with_columns(**more))


def poll(log: ObservationLog, minute: float, outcome: Any = "empty") -> None:
    log.record_poll(ingestion.Poll(source="http", started=at(minute), ended=at(minute), outcome=outcome))


def views(logs: dict[str, ObservationLog]) -> list[al.FeatureView]:
    return [
        al.FeatureView(name, ["site"], log, [al.latest("ghi", max_event_age="45m"), al.window("ghi", "mean", "1h")])
        for name, log in logs.items()
    ]


def power(**more: Any) -> al.FeatureService:
    given: dict[str, Any] = {
        "fallbacks": {"satellite__ghi": ["backup__ghi", 0.0], "satellite__ghi_mean_1h": "backup__ghi_mean_1h"},
        "down_after": {"satellite": "30m"},
        "variants": [al.Variant("full"), al.Variant("no_satellite", needs=["backup"], max_age="2h")],
    }
    return al.FeatureService("power", ["satellite__ghi", "satellite__ghi_mean_1h"], **given | more)


def test_a_server_falls_back_while_a_provider_is_down(logs, clock):
    send(logs["satellite"], 0, 100.0)
    clock.now = at(20)
    send(logs["backup"], 20, 90.0)
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    clock.now = at(29)
    server.catch_up()
    first = read_service(server, power(), {"site": ["a", "b"]}, sources=True)
    assert [column.name for column in first.columns] == [
        *("satellite__ghi", "satellite__ghi__source", "satellite__ghi_mean_1h", "satellite__ghi_mean_1h__source"),
    ]
    # Nothing is known of b: the constant answers, and for the mean nothing does.
    assert first.columns[0].values == [100.0, 0.0]
    assert first.columns[1].values == ["satellite__ghi", "constant"]
    assert first.columns[2].status == ["present", "missing"]
    assert resolve(server, power()).variant == "full"

    clock.now = at(30)  # 30 minutes after the last heartbeat: down
    server.catch_up()
    second = read_service(server, power(), {"site": ["a", "b"]})
    assert second.columns[0].values == [90.0, 0.0]
    assert second.columns[0].events == [1_780_316_400_000_000, None]  # 12:20 of the backup, nothing of the constant
    assert second.positions == {"satellite": 0, "backup": 0}
    assert second.definition == first.definition
    assert second.definition != server.read(None, {"site": ["a"]}).definition

    found = resolve(server, power())
    assert (found.variant, found.features) == ("no_satellite", ("satellite__ghi", "satellite__ghi_mean_1h"))
    assert [(one.variant, one.fits, one.reason) for one in found.variants] == [
        ("full", False, "'satellite' is down: silent for 0:30:00, may be for 30m"),
        ("no_satellite", True, ""),
    ]
    assert [(one.provider, one.last_heartbeat, one.down, one.down_after) for one in found.providers] == [
        ("satellite", at(0), True, "30m"),
        ("backup", at(20), False, None),
    ]
    assert (found.t, found.positions) == (at(30), {"satellite": 0, "backup": 0})


def test_an_empty_poll_keeps_a_provider_up_and_a_failed_one_does_not(logs, clock):
    send(logs["satellite"], 0, 100.0)
    clock.now = at(20)
    poll(logs["satellite"], 20)
    clock.now = at(40)
    poll(logs["satellite"], 40, "failed")
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    server.catch_up()
    assert read_service(server, power(), {"site": ["a"]}).columns[0].values == [100.0]
    assert resolve(server, power()).providers[0].last_heartbeat == at(20)
    clock.now = at(50)
    server.catch_up()
    # Down, and the backup has never sent anything; the value itself is 50 minutes old.
    assert read_service(server, power(), {"site": ["a"]}).columns[0].values == [0.0]


def test_no_variant_fits_and_each_says_why(logs, clock):
    send(logs["satellite"], 0, 100.0)
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    clock.now = at(60)
    server.catch_up()
    found = resolve(server, power(down_after="30m"))
    assert (found.variant, found.features) == (None, ())
    assert [one.reason for one in found.variants] == [
        "'satellite' is down: silent for 1:00:00, may be for 30m",
        "'backup' has never been heard of",
    ]


def test_a_variant_that_fits_but_comes_later_says_so_and_ages_are_told(logs, clock):
    send(logs["satellite"], 0, 100.0)
    send(logs["backup"], 0, 90.0)
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    clock.now = at(10)
    server.catch_up()
    variants = [
        al.Variant("fresh", max_age={"satellite": "5m"}),
        al.Variant("full"),
        al.Variant("no_satellite", needs=["backup"]),
    ]
    found = resolve(server, power(variants=variants))
    assert [one.reason for one in found.variants] == [
        "'satellite' is not fresh enough: silent for 0:10:00, may be for 5m",
        "",
        "'full' comes first",
    ]


def test_a_provider_that_lives_and_sends_nothing_new_is_not_fresh(logs, clock):
    variants = [al.Variant("full", max_event_age="20m"), al.Variant("no_satellite", needs=["backup"])]
    service = power(variants=variants)
    send(logs["satellite"], 0, 100.0)
    send(logs["backup"], 0, 90.0)
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    server.catch_up()
    assert resolve(server, service).variant == "full"
    clock.now = at(21)
    poll(logs["satellite"], 21)
    server.catch_up()
    found = resolve(server, service)
    assert [one.reason for one in found.variants] == ["'satellite' is not fresh enough: no event of the last 20m", ""]
    send(logs["satellite"], 15, 110.0)
    server.catch_up()
    clock.now = at(22)
    server.catch_up()
    assert resolve(server, service).variant == "full"  # what came since is added to what was known


def test_a_service_without_variants_resolves_to_itself(logs, clock):
    send(logs["satellite"], 0, 100.0)
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    server.catch_up()
    assert resolve(server, power(variants=())).variant == "power"
    clock.now = at(31)
    server.catch_up()
    assert resolve(server, power(variants=())).variant is None
    assert resolve(server, power(variants=()), at(5)).variant == "power"  # as it was then


def test_what_cannot_be_resolved_is_refused(logs, clock):
    server = FeatureServer(views(logs), settings=AT_ONCE, clock=clock)
    with pytest.raises(NotReadyError):
        resolve(server, power())
    server.catch_up()
    with pytest.raises(AsOfError, match=r"later than what is known: 2026-06-01T1\d:\d\d:\S+00:00"):
        resolve(server, power(), at(5))
    with pytest.raises(AsOfError, match="has no zone"):
        resolve(server, power(), datetime(2026, 6, 1))  # noqa: DTZ001
    with pytest.raises(al.ServiceError, match="has no variant 'half'"):
        read_service(server, power(), {"site": ["a"]}, variant="half")
    with pytest.raises(al.ServiceError, match="no view has a feature"):
        read_service(server, al.FeatureService("power", ["grid__ghi"]), {"site": ["a"]})


def test_each_answer_on_the_way_is_that_of_the_training_set_at_its_t_and_position(logs, clock):
    draw = random.Random(20260601)
    declared = views(logs)
    services = [
        power(),
        power(skip_null=True, down_after="20m"),
        power(down_after={"satellite": "10m", "backup": "15m"}, variants=[al.Variant("full", max_age="7m")]),
        power(
            down_after=None,
            variants=[al.Variant("full", max_event_age="20m"), al.Variant("no_satellite", needs=["backup"])],
        ),
    ]
    server = FeatureServer(declared, settings=AT_ONCE, clock=clock)
    server.catch_up()
    asked: list[tuple[al.FeatureService, Any, Any]] = []
    for _ in range(16):
        clock.now += timedelta(minutes=draw.choice([1, 2, 5, 10, 15]), microseconds=draw.choice([0, 0, 1]))
        minute = (clock.now - NOON) / timedelta(minutes=1)
        log = logs[draw.choice(["satellite", "backup", "backup"])]
        what = draw.choice(["row", "row", "late", "null", "retract", "empty", "failed", "nothing"])
        late = draw.choice([5, 20, 60])
        if what in ("row", "late", "null"):
            send(
                log,
                minute - late * (what == "late"),
                None if what == "null" else draw.uniform(0, 500),
                draw.choice("ab"),
            )
        elif what == "retract":
            send(log, minute - late, None, draw.choice("ab"), is_retraction=True)
        elif what != "nothing":
            poll(log, minute, what)
        server.catch_up()
        for service in services:
            asked.append(
                (
                    service,
                    read_service(server, service, {"site": ["b", "a", "c"]}, sources=True),
                    resolve(server, service),
                )
            )
    seen = set()
    for service, answer, resolution in asked:
        spine = pl.DataFrame({"site": ["b", "a", "c"]}).with_columns(prediction_time=pl.lit(answer.t))
        found = al.point_in_time_join(
            spine, declared, service=service, status=True, sources=True, positions=dict(answer.positions)
        )
        for column in answer.columns:
            assert all(map(same, column.values, column_values(found[column.name])))
            if not column.name.endswith("__source"):
                assert column.status == found[f"{column.name}__status"].to_list()
            else:
                seen |= set(column.values)
        chosen = [
            variant.name
            for variant in service.variants
            if al.point_in_time_join(
                spine, declared, service=service, variant=variant.name, positions=dict(answer.positions)
            ).height
        ]
        assert chosen == ([] if resolution.variant is None else [resolution.variant])
        seen.add(resolution.variant)
    assert seen == {
        *("satellite__ghi", "satellite__ghi_mean_1h", "backup__ghi", "backup__ghi_mean_1h", "constant"),
        *("full", "no_satellite", None),
    }


def test_a_views_file_may_declare_services(tmp_path, logs):
    file = tmp_path / "features.py"
    head = f"""
import alignment as al, ingestion
views = [al.FeatureView("satellite", ["site"], ingestion.open_log({str(tmp_path)!r}, "satellite"), [al.latest("ghi")])]
"""
    file.write_text(head + 'services = [al.FeatureService("power", ["satellite__ghi"], down_after="1h")]\n')
    assert [service.name for service in read_declarations(file).services] == ["power"]
    file.write_text(head)
    assert read_declarations(file).services == []
    file.write_text(head + 'services = al.FeatureService("power", ["satellite"])\n')
    assert [service.name for service in read_declarations(file).services] == ["power"]
    for text, complaint in [
        ('services = ["power"]', "is not a list of services"),
        ('services = [al.FeatureService("p", ["satellite"])] * 2', "two services are called 'p'"),
    ]:
        file.write_text(head + text)
        with pytest.raises(DeclarationError, match=complaint):
            read_declarations(file)
    file.write_text(head + 'services = [al.FeatureService("p", ["satellite__ghj"])]')
    with pytest.raises(al.ServiceError, match="did you mean 'satellite__ghi'"):
        read_declarations(file)
