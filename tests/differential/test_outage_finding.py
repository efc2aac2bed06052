"""Outages found in arrivals, against plain loops, and against the outages that were put in."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alignment as al
import ingestion
from alignment.heartbeats import heartbeats_of
from ingestion.sources.simulated import SimulatedWorld

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
INSTANT = pl.Datetime("us", "UTC")


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


# ---- the rule as plain loops -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One drawn row, in minutes."""

    site: str
    event: int
    arrival: int
    gone: bool = False


def usual_of(gaps: list[int]) -> int | None:
    """The gap in which a random instant lies: half of the time passes in gaps that are no longer."""
    passed = 0
    for gap in sorted(gaps):
        passed += gap
        if 2 * passed >= sum(gaps):
            return gap
    return None


def gaps_of(instants: set[int]) -> list[tuple[int, int]]:
    ordered = sorted(instants)
    return list(itertools.pairwise(ordered))


def silences_of(rows: list[Row], longer_than: int | None, until: int | None) -> list[tuple[int, int, int, int]]:
    """Last arrival, next one, the limit and the usual gap."""
    arrivals = {row.arrival for row in rows}
    usual = usual_of([b - a for a, b in gaps_of(arrivals)])
    limit = longer_than if longer_than is not None else None if usual is None else 8 * usual
    gaps = gaps_of(arrivals)
    if until is not None and arrivals:
        gaps.append((max(arrivals), until))
    if limit is None:
        return []
    return [(a, b, limit, usual or 0) for a, b in gaps if b - a > limit]


def is_lost(rows: list[Row], last: int, following: int, usual: int) -> bool:
    known = [row.event for row in rows if row.arrival <= last and not row.gone]
    later = [row.event for row in rows if not row.gone and known and row.event > max(known)]
    step = usual_of([b - a for a, b in gaps_of({row.event for row in rows if not row.gone})])
    if not later or step is None or usual == 0:
        return False
    return 2 * (min(later) - max(known) - step) > (following - last) - usual


def expected(
    rows: list[Row], longer_than: int | None, until: int | None, *, per_entity: bool
) -> set[tuple[datetime, datetime, bool, tuple[str, ...] | None]]:
    if until is not None:
        rows = [row for row in rows if row.arrival <= until]
    whole = silences_of(rows, longer_than, until)
    found: set[tuple[datetime, datetime, bool, tuple[str, ...] | None]] = set()
    found |= {(at(a) + US, at(b), is_lost(rows, a, b, usual), None) for a, b, _, usual in whole}
    for site in {row.site for row in rows} if per_entity else ():
        mine = [row for row in rows if row.site == site]
        for a, b, limit, usual in silences_of(mine, longer_than, until):
            shared = sum(max(0, min(b, d) - max(a, c)) for c, d, _, _ in whole)
            if b - a - shared > limit:
                found.add((at(a) + US, at(b), is_lost(mine, a, b, usual), (site,)))
    return found


def frame_of(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "site": [row.site for row in rows],
            "event_time": [at(row.event) for row in rows],
            "arrival_time": [at(row.arrival) for row in rows],
            "is_retraction": [row.gone for row in rows],
            "kw": [1.0] * len(rows),
        },
        schema={"site": pl.String, "event_time": INSTANT, "arrival_time": INSTANT, "is_retraction": pl.Boolean, "kw": pl.Float64},
    )  # fmt: skip


drawn_rows = st.lists(
    st.builds(
        lambda site, event, delay, gone: Row(site, event, event + delay, gone),
        st.sampled_from("abc"),
        st.sampled_from([0, 10, 20, 30, 40, 50, 60, 120, 180, 190, 200, 400]),
        st.sampled_from([0, 5, 10, 60, 150]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=25,
)


@given(
    rows=drawn_rows,
    longer_than=st.sampled_from([None, None, 20, 60, 100]),
    until=st.sampled_from([None, None, 100, 200, 1000]),
    per_entity=st.booleans(),
)
def test_found_outages_are_those_of_the_plain_loops(
    rows: list[Row], longer_than: int | None, until: int | None, per_entity: bool
) -> None:
    observations = al.Observations(frame_of(rows), entities=["site"], on_tie="last")
    found = al.find_outages(
        observations,
        None if longer_than is None else f"{longer_than}m",
        provider="meter",
        per_entity=per_entity,
        until=None if until is None else at(until),
    )
    told = [(one.start, one.end, one.lost, one.entities) for one in found]
    assert len(set(told)) == len(told)
    assert set(told) == expected(rows, longer_than, until, per_entity=per_entity)
    assert [one.start for one in found] == sorted(one.start for one in found)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def every_ten(count: int, *, sites: str = "ab", skip: tuple[int, int] = (0, 0), late: bool = True) -> list[Row]:
    """Events every ten minutes that arrive 5 minutes later; those due in `skip` at its end, or never."""
    rows = []
    for place, site in enumerate(sites):
        for number in range(count):
            due = 10 * number + 5 + place
            if not skip[0] <= due < skip[1]:
                rows.append(Row(site, 10 * number, due))
            elif late:
                rows.append(Row(site, 10 * number, skip[1]))
    return rows


def found_in(rows: list[Row], longer_than: str | None = None, **more: object) -> list[al.Outage]:
    observations = al.Observations(frame_of(rows), entities=["site"])
    return al.find_outages(observations, longer_than, provider="meter", **more)  # type: ignore[arg-type]


def test_an_outage_is_caught_up_or_lost() -> None:
    # b's reading of minute 90 arrives at 96; then nothing until 190
    held_up = found_in(every_ten(30, skip=(100, 190)))
    assert held_up == [al.Outage("meter", at(96) + US, at(190))]
    # the next one that is not lost is a's of minute 190, at 195
    gone = found_in(every_ten(30, skip=(100, 190), late=False))
    assert gone == [al.Outage("meter", at(96) + US, at(195), lost=True)]


def test_a_correction_of_something_old_right_before_an_outage_does_not_make_it_caught_up() -> None:
    rows = [*every_ten(30, skip=(100, 190), late=False), Row("a", 0, 98)]
    assert found_in(rows) == [al.Outage("meter", at(98) + US, at(195), lost=True)]


def test_silence_exactly_as_long_as_it_may_be_is_none() -> None:
    rows = every_ten(30, sites="a", skip=(100, 195))
    assert found_in(rows, "100m") == []  # from 95 to 195
    assert found_in(rows, "99m") == [al.Outage("meter", at(95) + US, at(195))]


def test_rows_of_one_delivery_do_not_make_the_usual_gap_short() -> None:
    # 50 sites within 50 seconds, every ten minutes: half of the gaps are of a second
    rows = [(f"s{site}", 10 * n, 10 * n + 5 + site / 60) for n in range(30) for site in range(50)]
    rows = [row for row in rows if not 100 <= row[2] < 190]
    frame = pl.DataFrame(
        {
            "site": [site for site, _, _ in rows],
            "event_time": [at(event) for _, event, _ in rows],
            "arrival_time": [at(arrival) for _, _, arrival in rows],
        }
    )
    found = al.find_outages(al.Observations(frame, entities=["site"]), provider="meter")
    assert [(one.start, one.end) for one in found] == [(at(95 + 49 / 60) + US, at(195))]


def test_an_entity_that_was_silent_while_others_were_not_is_a_partial_outage() -> None:
    rows = [row for row in every_ten(60, sites="abc") if row.site != "b" or not 200 <= row.arrival < 300]
    rows = [row for row in rows if not 400 <= row.arrival < 480]
    assert found_in(rows) == [al.Outage("meter", at(397) + US, at(485), lost=True)]
    assert found_in(rows, per_entity=True) == [
        al.Outage("meter", at(196) + US, at(306), lost=True, entities=["b"]),
        al.Outage("meter", at(397) + US, at(485), lost=True),
    ]


def test_a_silence_that_goes_on_ends_where_one_says() -> None:
    rows = every_ten(30, sites="a")  # the last one arrives at 295
    assert found_in(rows) == []
    assert found_in(rows, until=at(375)) == []
    assert found_in(rows, until=at(376)) == [al.Outage("meter", at(295) + US, at(376))]
    assert found_in(rows, until=at(200)) == []


def test_nobody_is_no_provider() -> None:
    with pytest.raises(al.DefinitionError) as caught:
        al.find_outages(al.Observations(frame_of([]), entities=["site"]))
    assert str(caught.value) == (
        "it is not said whose outages these are: a plain frame has no provider"
        '\n\nhint: pass provider="weather", or a view: its name stands for it.'
    )
    view = al.FeatureView("meter", ["site"], frame_of(every_ten(30, skip=(100, 190))), [al.latest("kw")])
    assert [one.provider for one in al.find_outages(view)] == ["meter"]
    assert [one.provider for one in al.find_outages(view, provider="other")] == ["other"]
    assert al.find_outages(al.Observations(frame_of([]), entities=["site"]), provider="meter", per_entity=True) == []


# ---- there and back --------------------------------------------------------------------------------------------------


def test_outages_that_were_injected_are_found_and_do_the_same_again() -> None:
    world = SimulatedWorld(seed=1, start=datetime(2026, 6, 1, tzinfo=UTC), days=20)
    view = al.FeatureView("meter", ["site"], world.observations("meter"), [al.latest("power_kw")])
    assert al.find_outages(view, until=world.end) == []
    drawn = al.draw_outages(
        "meter", world.start + timedelta(days=1), world.end - timedelta(days=1),
        per_month=15, seed=8, slow=0.0, lost=0.4, partial=0.3, entities=world.sites,
    )  # fmt: skip
    assert {one.lost for one in drawn} == {False, True}
    (held_up,) = al.transform_arrivals(view, outages=drawn)
    found = al.find_outages(held_up, per_entity=True)
    each = [(one, entity) for one in drawn for entity in one.entities or [None]]  # of each entity an outage of its own
    assert len(found) == len(each) > len(drawn) > 8
    for put_in, entity in each:
        near = [
            one
            for one in found
            if put_in.start - timedelta(minutes=20) < one.start <= put_in.start
            and put_in.end <= one.end < put_in.end + timedelta(minutes=20)
        ]
        assert [(one.lost, one.entities) for one in near if one.entities in (None, (entity,))] == [
            (put_in.lost, None if entity is None else (entity,))
        ]
    (again,) = al.transform_arrivals(view, outages=found)
    columns = ["site", "event_time", "arrival_time", "power_kw"]
    first, second = (
        known.observations.lazy().select(columns).sort("site", "event_time", "arrival_time").collect()
        for known in (held_up, again)
    )
    assert first.equals(second)


class Hands:
    """A clock that is set by hand."""

    now = NOON

    def __call__(self) -> datetime:
        return self.now


def polled_log(root: Path, rows: list[Row], down: tuple[int, int]) -> ingestion.ObservationLog:
    """A log of a job that polled every ten minutes, and whose polls failed for some time."""
    clock, newest = Hands(), 0
    log = ingestion.create_log(root, "meter", entities=["site"], clock=clock)
    for minute in range(10, 210, 10):
        clock.now = at(minute)
        failed = down[0] <= minute < down[1]
        due = [] if failed else [row for row in rows if newest < row.arrival <= minute]
        poll = ingestion.Poll(
            source="http",
            started=clock.now,
            ended=clock.now,
            outcome="failed" if failed else "rows" if due else "empty",
        )
        if due:
            log.append(frame_of(due).drop("arrival_time", "is_retraction"), poll=poll)
        else:
            log.record_poll(poll)
        newest = newest if failed else minute
    return log


def view_of(log: ingestion.ObservationLog) -> al.FeatureView:
    return al.FeatureView("kw", observations=log, features=[al.latest("kw"), al.window("kw", "count", "1h")])


def test_outages_of_a_ledger_do_to_another_log_what_they_did(tmp_path: Path) -> None:
    rows = [row for row in every_ten(20) if not 20 < row.arrival < 50]  # nothing is sent then, and polls are empty
    held_up = polled_log(tmp_path / "held up", rows, (80, 130))
    free = polled_log(tmp_path / "free", rows, (0, 0))
    margin = timedelta(milliseconds=500)
    found = ingestion.outages_of(held_up, "25m")
    assert found == [al.Outage("meter", at(70) + margin + US, at(130) + margin)]
    told = ingestion.outages(held_up, "25m").row(0, named=True)
    assert (told["last_heartbeat"], told["end"], told["catch_up_rows"]) == (at(70) + margin, at(130) + margin, 12)
    assert ingestion.outages_of(free, "25m") == []
    (moved,) = al.transform_arrivals([view_of(free)], outages=found)
    ticks = al.make_spine(pl.DataFrame({"site": ["a", "b"]}), NOON, at(200), "5m")
    lived = al.point_in_time_join(ticks, [view_of(held_up)], status=True)
    assert al.point_in_time_join(ticks, [moved], status=True).equals(lived)
    assert not al.point_in_time_join(ticks, [view_of(free)], status=True).equals(lived)
    assert heartbeats_of([moved]).tolist() == heartbeats_of([view_of(held_up)]).tolist()


def test_outages_of_a_ledger_are_those_that_it_lists_and_perhaps_the_one_that_goes_on(tmp_path: Path) -> None:
    log = polled_log(tmp_path, every_ten(20, late=False, skip=(61, 129)), (70, 130))
    margin = timedelta(milliseconds=500)
    lost = al.Outage("meter", at(60) + margin + US, at(130) + margin, lost=True)
    assert ingestion.outages_of(log, "25m") == [lost]
    later = at(300)
    assert ingestion.outages_of(log, "25m", now=later) == [lost, al.Outage("meter", at(200) + margin + US, later)]
    assert ingestion.outages(log, "25m", now=later)["last_heartbeat"].to_list() == [at(60) + margin, at(200) + margin]
