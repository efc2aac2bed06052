"""Laws of fitted delays: an arrival depends on its row alone (R23), and is that of the rule as plain loops."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import AUTUMN, BERLIN, PLAIN, SPRING

import alignment as al

US = pl.Datetime("us", "UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR, DAY = 3_600_000, 86_400_000
MASK = 2**64 - 1
INSTANTS = sorted({instant + timedelta(days=shift) for instant in (*PLAIN, *SPRING, *AUTUMN) for shift in (0, 1, 40)})
STATIONS = ["a", "b", "", "longer than a word of eight bytes"]


def us(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


# --- the rule as plain loops ------------------------------------------------------------------------------------------


def mix(number: int, start: int) -> int:
    z = ((number & MASK) ^ start) + 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def salt(*parts: Any) -> int:
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hash_text(text: str) -> int:
    data = text.encode()
    found = mix(len(data), 0)
    for begin in range(0, len(data), 8):
        found = mix(int.from_bytes(data[begin : begin + 8], "little"), found)
    return found


def midnight(day: int, zone: str) -> int:
    """UTC microseconds at which a local day begins; neither UTC nor Berlin changes its clocks at midnight."""
    local = datetime(1970, 1, 1) + timedelta(days=day)  # noqa: DTZ001 - the wall clock
    return us(local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))


def stretch_of(rule: al.EmpiricalDelay, block: int, begin: int) -> int:
    start, end = (bound * 1000 for bound in rule.stretch_ms)
    length = rule.block_days * DAY * 1000
    drawn = mix(block, salt(rule.seed, rule.provider, rule.draw, "block"))
    if not {"hour", "weekday"} & set(rule.by):
        starts = [
            begin + n * HOUR * 1000
            for n in range((start - begin) // (HOUR * 1000) - 1, (end - begin) // (HOUR * 1000) + 2)
        ]
        starts = [one for one in starts if one >= start]
        whole = [one for one in starts if one + length <= end]
        return whole[drawn % len(whole)] if whole else starts[0]
    first = start // (DAY * 1000) - rule.block_days - 2
    days = range(first, end // (DAY * 1000) + 3)
    covered = {day: min(midnight(day, rule.zone) + length, end) - max(midnight(day, rule.zone), start) for day in days}
    fits = [day for day in days if midnight(day, rule.zone) >= start and midnight(day, rule.zone) + length <= end]
    fits = fits or [day for day in days if covered[day] == max(covered.values())]
    if "weekday" in rule.by:
        fits = [day for day in fits if day % 7 == block * rule.block_days % 7] or fits
    return midnight(fits[drawn % len(fits)], rule.zone)


def arrival_of(rule: al.EmpiricalDelay, row: dict[str, Any]) -> int:
    origin = row["issue_time"] if row.get("issue_time") is not None else row["event_time"]
    x = us(origin)
    day = (origin.astimezone(ZoneInfo(rule.zone)).replace(tzinfo=None) - datetime(1970, 1, 1)).days  # noqa: DTZ001
    block = day // rule.block_days
    begin = midnight(block * rule.block_days, rule.zone)
    shift = begin - stretch_of(rule, block, begin)
    place = (x - shift) // 1000
    batches = [(o, d) for o, d in zip(rule.origins_ms, rule.delays_ms, strict=True)]
    if rule.groups:
        mine = (str(row["station"]),)
        if mine in rule.groups:
            own = rule.groups.index(mine)
            batches = [batch for batch, member in zip(batches, rule.members, strict=True) if member == own]
        batches = sorted(batches, key=lambda batch: batch[0])
    exact = [batch for batch in batches if batch[0] == place]
    before = [batch for batch in batches if batch[0] < place]
    after = [batch for batch in batches if batch[0] > place]
    if rule.travels != "key":
        if exact:
            together, donor = exact[0][0] + exact[0][1], exact[0]
        else:
            left, right = (before or after[:1])[-1], (after or before[-1:])[0]
            donor = left if place - left[0] <= right[0] - place else right
            same = before and after and sum(left) == sum(right)
            together = sum(right) if same else None
        if together is not None and together * 1000 + shift >= x:
            return together * 1000 + shift
        return x + donor[1] * 1000
    near = exact or [*before[-2:], *after[:2]]
    drawn = salt(rule.seed, rule.provider, rule.draw, "key")
    for name in rule.keys:
        value = row[name]
        drawn = mix(hash_text(value) if isinstance(value, str) else us(value), drawn)
    donor = near[drawn % len(near)]
    arrival = x + donor[1] * 1000
    polls = sorted({(o + d) * 1000 for o, d in zip(rule.origins_ms, rule.delays_ms, strict=True)})
    if not rule.polled or len(polls) == 1:
        run = [o for o, d in zip(rule.origins_ms, rule.delays_ms, strict=True) if o + d == sum(donor)]
        together = sum(donor) * 1000 + shift
        return together if min(run) <= place <= max(run) and together >= x else arrival
    moved = arrival - shift
    right = next((poll for poll in polls[1:] if poll >= moved), polls[-1])
    left = polls[polls.index(right) - 1]
    poll = left if moved - left <= right - moved else right
    poll = right if poll + shift < x else poll
    gap = median(b - a for a, b in itertools.pairwise(polls))
    return poll + shift if abs(poll - moved) <= gap and poll + shift >= x else arrival


# --- draws ------------------------------------------------------------------------------------------------------------


@st.composite
def rules(draw: st.DrawFn, kinds: Sequence[str] = ("event", "issue", "key", "polled")) -> al.EmpiricalDelay:
    kind = draw(st.sampled_from(kinds))
    travels = "key" if kind == "polled" else kind
    by = draw(st.sampled_from([(), ("hour",), ("weekday",), ("hour", "station"), ("station",)]))
    grouped = "station" in by
    origins = draw(st.lists(st.integers(0, 3 * 24 * 4), min_size=1, max_size=12, unique=not grouped))
    start = us(datetime(2026, 1, 4, 23, tzinfo=UTC)) // 1000
    members = [draw(st.integers(0, 1)) for _ in origins] if grouped else []
    members = [0, *members[1:-1], 1] if len(members) > 1 else members
    groups = tuple((name,) for name in STATIONS[: len(set(members))])
    delays = [draw(st.sampled_from([0, 10, 45, 60, 600, 4000])) * 60_000 for _ in origins]
    batches = dict(zip(zip(members or [0] * len(origins), sorted(origins), strict=True), delays, strict=True))
    # Of one group no two batches have one origin, unless keys travel alone.
    ordered = sorted(batches)
    return al.EmpiricalDelay(
        provider=draw(st.sampled_from(["meter", "é"])),
        travels=travels,
        by=by,
        origins_ms=tuple(start + quarter * 900_000 for _, quarter in ordered),
        delays_ms=tuple(batches[one] for one in ordered),
        stretch_ms=(start, start + draw(st.sampled_from([DAY // 2, DAY, 3 * DAY, 3 * DAY + HOUR // 2]))),
        zone=draw(st.sampled_from(["UTC", BERLIN])),
        groups=groups if grouped else (),
        members=tuple(member for member, _ in ordered) if grouped else (),
        keys=draw(st.sampled_from([("station", "event_time"), ("station",)])) if travels == "key" else (),
        block_days=draw(st.sampled_from([1, 2])),
        polled=kind == "polled",
        seed=draw(st.integers(0, 2)),
        draw=draw(st.integers(0, 2)),
    )


rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "station": st.sampled_from(STATIONS),
            "event_time": st.sampled_from(INSTANTS),
            "issue_time": st.sampled_from(INSTANTS),
        }
    ),
    min_size=1,
    max_size=25,
)


def frame_of(rows: list[dict[str, Any]], rule: al.EmpiricalDelay) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={"station": pl.String, "event_time": US, "issue_time": US})
    return frame if rule.travels == "issue" else frame.drop("issue_time")


@pytest.mark.parametrize("kind", ["event", "issue", "key", "polled"])
@given(data=st.data(), rows=rows_of)
def test_arrivals_are_those_of_plain_loops(kind, data, rows):
    rule = data.draw(rules([kind]))
    frame = frame_of(rows, rule)
    assert rule.arrival_times(frame).to_physical().to_list() == [arrival_of(rule, row) for row in frame.to_dicts()]


@given(rule=rules(), rows=rows_of, data=st.data())
def test_an_arrival_depends_on_its_row_alone(rule, rows, data):
    frame = frame_of(rows, rule)
    told = rule.arrival_times(frame)
    order = data.draw(st.permutations(range(len(rows))))
    assert rule.arrival_times(frame[order]).to_list() == told.gather(order).to_list()
    cut = data.draw(st.integers(0, len(rows)))
    halves = [rule.arrival_times(half) for half in (frame[:cut], frame[cut:])]
    assert pl.concat(halves).to_list() == told.to_list()


@given(rule=rules(), rows=rows_of)
def test_nothing_arrives_before_it_is_there(rule, rows):
    frame = frame_of(rows, rule)
    origin = frame["issue_time"] if rule.travels == "issue" else frame["event_time"]
    assert (rule.arrival_times(frame) >= origin).all()


@given(rule=rules(), rows=rows_of)
def test_rows_that_travel_together_arrive_together(rule, rows):
    frame = frame_of(rows, rule)
    batch = {"issue": ["issue_time"], "event": ["event_time"], "key": ["event_time", *rule.keys]}[rule.travels]
    group = list(dict.fromkeys([*batch, *rule.columns]))
    told = frame.with_columns(arrival=rule.arrival_times(frame))
    assert told.group_by(group).agg(pl.col("arrival").n_unique())["arrival"].max() == 1


@given(rule=rules())
def test_a_rule_is_made_again_from_json(rule):
    assert al.EmpiricalDelay.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@given(rule=rules(), rows=rows_of, data=st.data())
def test_views_under_a_rule_do_not_depend_on_the_order_of_rows_nor_on_other_entities(rule, rows, data):
    rule = al.EmpiricalDelay.from_dict(rule.to_dict() | {"travels": "event"}) if rule.travels == "issue" else rule
    frame = frame_of(rows, rule).with_columns(
        arrival_time=pl.col("event_time") + timedelta(minutes=7), x=pl.int_range(pl.len()).cast(pl.Float64)
    )
    frame = frame.unique(["station", "event_time"], keep="first", maintain_order=True)
    spine = pl.DataFrame({"station": ["a"] * len(INSTANTS), "prediction_time": pl.Series(INSTANTS, dtype=US)})

    def answers(seen: pl.DataFrame) -> pl.DataFrame:
        view = al.FeatureView("v", ["station"], seen, [al.latest("x"), al.window("x", ["count", "sum"], "2d")])
        return al.point_in_time_join(spine, al.transform_arrivals(view, delays={"v": rule}))

    whole = answers(frame)
    assert answers(frame[data.draw(st.permutations(range(frame.height)))]).equals(whole)
    assert answers(frame.filter(pl.col("station") == "a")).equals(whole)
