"""Laws of feature services: what a training set chooses, source by source and row by row, is what plain loops choose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import oracle_services as oracle
import polars as pl
import pytest
from compare import same
from fakes import PolledLog
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import INSTANT, MICROSECOND, PLAIN

import alignment as al

FEW = settings(max_examples=max(1, settings().max_examples // 4))
NAMES = ("satellite", "backup", "grid")
LIMITS = ["10m", "30m", "1h", None]
FEATURES = ("x", "x_mean_30m", "n")


def micros(instant: datetime) -> int:
    return (instant - datetime.fromisoformat("1970-01-01T00:00:00+00:00")) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Case:
    """Three providers, a service over them, and what is asked."""

    logs: dict[str, PolledLog]
    fallbacks: dict[str, list[Any]]
    down_after: dict[str, str]
    needs: list[dict[str, tuple[str | None, str | None]]]
    skip_null: bool
    spine: pl.DataFrame
    as_of: datetime | None
    positions: dict[str, int] | None

    @property
    def views(self) -> list[al.FeatureView]:
        features = [al.latest("x", max_event_age="30m"), al.window("x", "mean", "30m"), al.latest("n")]
        return [al.FeatureView(name, ["site"], self.logs[name], features) for name in NAMES]

    @property
    def service(self) -> al.FeatureService:
        variants = [
            al.Variant(
                f"v{i}",
                needs=list(needed),
                max_age={p: age for p, (age, _) in needed.items() if age is not None},
                max_event_age={p: age for p, (_, age) in needed.items() if age is not None},
            )
            for i, needed in enumerate(self.needs)
        ]
        return al.FeatureService(
            "power",
            [f"{name}__{feature}" for feature in FEATURES for name in NAMES],
            fallbacks=self.fallbacks,
            down_after=self.down_after,
            variants=variants,
            skip_null=self.skip_null,
        )

    def beats(self, provider: str) -> list[int]:
        position = None if self.positions is None else self.positions.get(provider)
        return [micros(t) for t in self.logs[provider].heartbeats(position=position)["arrival_time"]]

    def rows(self, provider: str) -> list[tuple[int, int]]:
        """Arrival and event of what is no retraction."""
        position = None if self.positions is None else self.positions.get(provider)
        frame = self.logs[provider].scan(position=position).filter(~pl.col("is_retraction")).collect()
        return [(micros(came), micros(event)) for came, event in frame.select("arrival_time", "event_time").rows()]


@st.composite
def logs(draw: st.DrawFn, name: str) -> PolledLog:
    """A few rows and empty polls, numbered in the order of arrival."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 8),  # event
                st.sampled_from([0, 0, 5, 10, 30]),  # minutes until it arrives
                st.sampled_from([1.5, 2.25, None, -3.0]),
                st.sampled_from([False, False, False, True]),
                st.sampled_from("ab"),
            ),
            max_size=7,
        )
    )
    polls = draw(st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0, 1])), max_size=3))
    came = [
        (PLAIN[event] + timedelta(minutes=wait), (event, value, gone, site)) for event, wait, value, gone, site in rows
    ]
    came += [(PLAIN[tick] + timedelta(minutes=late), None) for tick, late in polls]
    numbered = [(t, what, number) for number, (t, what) in enumerate(sorted(came, key=lambda one: one[0]))]
    frame = pl.DataFrame(
        [
            {"site": w[3], "event_time": PLAIN[w[0]], "arrival_time": t, "is_retraction": w[2], "log_sequence": n}
            | {"x": None if w[2] else w[1], "n": None if w[2] or w[1] is None else n}
            for t, w, n in numbered
            if w is not None
        ],
        schema={
            "site": pl.String,
            "event_time": INSTANT,
            "arrival_time": INSTANT,
            "is_retraction": pl.Boolean,
            "log_sequence": pl.Int64,
            "x": pl.Float64,
            "n": pl.Int32,
        },
    )
    empty = pl.DataFrame(
        [{"arrival_time": t, "log_sequence": n} for t, w, n in numbered if w is None],
        schema={"arrival_time": INSTANT, "log_sequence": pl.Int64},
    )
    return PolledLog(frame, name, ["site"], empty=empty)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A service over three providers, and what is asked of it."""
    found = {name: draw(logs(name)) for name in NAMES}
    down_after = {name: limit for name in NAMES if (limit := draw(st.sampled_from(LIMITS))) is not None}
    fallbacks = {}
    for feature in FEATURES:
        others = draw(st.sampled_from([[], ["backup"], ["backup", "grid"], ["grid", "backup"]]))
        chain: list[Any] = [f"{name}__{feature}" for name in others]
        if draw(st.booleans()):
            chain.append(7)
        if chain:
            fallbacks[f"satellite__{feature}"] = chain
    needs = []
    for place in range(draw(st.integers(0, 3))):
        some = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        ages = st.sampled_from(["5m", "40m", None, None])
        needs.append({name: (draw(ages), draw(ages)) for name in some})
        if place and not any(p in down_after or any(both) for p, both in needs[-2].items()):
            needs.pop()  # the one before could never be passed over
    asked = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abz"),
                st.integers(0, 11),
                st.sampled_from([timedelta(0), -MICROSECOND, MICROSECOND, timedelta(minutes=5)]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    spine = pl.DataFrame(
        {
            "site": [site for site, _, _ in asked],
            "prediction_time": pl.Series([PLAIN[i] + shift for _, i, shift in asked], dtype=INSTANT),
        }
    )
    positions = {name: draw(st.integers(-1, 8)) for name in NAMES} if draw(st.booleans()) else None
    as_of = draw(st.sampled_from([None, PLAIN[4], PLAIN[8]]))
    return Case(found, fallbacks, down_after, needs, draw(st.booleans()), spine, as_of, positions)


def span(text: str | None) -> int | None:
    return None if text is None else int(text[:-1]) * {"m": 60, "h": 3600}[text[-1]] * 1_000_000


def expected_source(case: Case, raw: pl.DataFrame, feature: str, row: int) -> tuple[str, Any, str]:
    """Source, value and status of one cell, by the loops of the oracle over the raw features."""
    chain = [feature, *case.fallbacks.get(feature, [])]
    t = micros(raw["prediction_time"][row])
    as_of = None if case.as_of is None else micros(case.as_of)
    statuses = [None if name == 7 else str(raw[f"{name}__status"][row]) for name in chain]
    down = [
        name != 7 and oracle.is_down(case.beats(p := name.split("__")[0]), t, span(case.down_after.get(p)), as_of)
        for name in chain
    ]
    at = oracle.source(statuses, down, skip_null=case.skip_null) if len(chain) > 1 else 0
    if chain[at] == 7:
        return "constant", 7.0 if feature.endswith(("x", "30m")) else 7, "present"
    return chain[at], raw[chain[at]][row], str(raw[f"{chain[at]}__status"][row])


@pytest.mark.parametrize("engine", ["local", "duckdb"])
@FEW
@given(cases())
def test_each_cell_is_from_the_source_that_plain_loops_choose(engine, case):
    common: dict[str, Any] = {"as_of": case.as_of, "positions": case.positions, "status": True, "engine": engine}
    raw = al.point_in_time_join(case.spine, case.views, **common)
    found = al.point_in_time_join(case.spine, case.views, service=case.service, sources=True, **common)
    for feature in case.service.features:
        for row in range(case.spine.height):
            source, value, status = expected_source(case, raw, feature, row)
            assert same(found[feature][row], value)
            assert found[f"{feature}__status"][row] == status
            if feature in case.fallbacks:
                assert found[f"{feature}__source"][row] == source


@given(cases())
def test_the_rows_of_a_variant_are_those_at_which_plain_loops_choose_it(case):
    as_of = None if case.as_of is None else micros(case.as_of)
    beats = {name: case.beats(name) for name in NAMES}
    needs = [{p: (span(age), span(event_age)) for p, (age, event_age) in needed.items()} for needed in case.needs]
    rows = {name: case.rows(name) for name in NAMES}
    limits = {name: limit for name in NAMES if (limit := span(case.down_after.get(name))) is not None}
    spine = case.spine.with_row_index("row")
    chosen = [oracle.variant(needs, beats, rows, micros(t), limits, as_of) for t in spine["prediction_time"]]
    whole = al.point_in_time_join(spine, case.views, service=case.service, as_of=case.as_of, positions=case.positions)
    for place in range(len(needs)):
        found = al.point_in_time_join(
            spine, case.views, service=case.service, variant=f"v{place}", as_of=case.as_of, positions=case.positions
        )
        assert found["row"].to_list() == [row for row, one in enumerate(chosen) if one == place]
        assert found.equals(whole.filter(pl.col("row").is_in(found["row"].implode())), null_equal=True)
