"""Drawn outages: how many, how long, of which sort; and the same ones again whatever else is asked for."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import alignment as al

MAY, YEAR_LATER = datetime(2026, 5, 1, tzinfo=UTC), datetime(2027, 5, 1, tzinfo=UTC)
SITES = ["dune", "harbour", "ridge"]
SHAPE: dict[str, Any] = {"per_month": 6, "seed": 11, "partial": 0.5, "entities": SITES}


def test_a_longer_span_begins_with_the_same_outages_and_a_later_one_ends_with_them() -> None:
    year = al.draw_outages("meter", MAY, YEAR_LATER, **SHAPE)
    for end in (MAY + timedelta(days=40), MAY + timedelta(days=100, hours=7, seconds=1)):
        assert al.draw_outages("meter", MAY, end, **SHAPE) == [one for one in year if one.start < end]
    late = MAY + timedelta(days=33, hours=13)
    assert al.draw_outages("meter", late, YEAR_LATER, **SHAPE) == [one for one in year if one.start >= late]
    exactly = year[5].start
    assert year[5] in al.draw_outages("meter", exactly, YEAR_LATER, **SHAPE)
    assert year[5] not in al.draw_outages("meter", MAY, exactly, **SHAPE)


def test_what_a_provider_draws_does_not_depend_on_the_others_nor_on_the_order_of_entities() -> None:
    alone = al.draw_outages(["meter"], MAY, YEAR_LATER, **SHAPE)
    together = al.draw_outages(["mast", "meter"], MAY, YEAR_LATER, **SHAPE)
    assert [one for one in together if one.provider == "meter"] == alone
    assert [one.start for one in together] == sorted(one.start for one in together)
    turned = al.draw_outages(["meter"], MAY, YEAR_LATER, **SHAPE | {"entities": SITES[::-1]})
    assert [set(one.entities or ()) for one in turned] == [set(one.entities or ()) for one in alone]
    named = [{"site": "dune", "panel": 1}, {"panel": 2, "site": "dune"}]
    other = [{"panel": 1, "site": "dune"}, {"site": "dune", "panel": 2}]
    first, second = (al.draw_outages("meter", MAY, YEAR_LATER, **SHAPE | {"entities": who}) for who in (named, other))
    assert first == second
    assert al.draw_outages(["meter"], MAY, YEAR_LATER, **SHAPE | {"seed": 12}) != alone
    assert [one.start for one in al.draw_outages("mast", MAY, YEAR_LATER, **SHAPE)] != [one.start for one in alone]


def test_shares_rates_and_lengths_are_those_that_were_asked_for() -> None:
    providers = [f"p{number}" for number in range(20)]
    drawn = al.draw_outages(
        providers, MAY, YEAR_LATER, per_month=10, seed=1, lost=0.3, slow=0.2, slower=4, lasting=("30m", "2h"),
        partial=0.25, entities=SITES,
    )  # fmt: skip
    expected = 20 * 365 / 30 * 10  # 2433 outages, give or take 49
    assert abs(len(drawn) - expected) < 4 * expected**0.5
    share = {
        "lost": sum(one.lost for one in drawn),
        "slow": sum(one.slow == 4.0 for one in drawn),
        "partial": sum(one.entities is not None for one in drawn),
    }
    assert {name: round(count / len(drawn), 1) for name, count in share.items()} == {
        "lost": 0.3,
        "slow": 0.2,
        "partial": pytest.approx(0.25, abs=0.06),
    }
    assert not any(one.lost and one.slow for one in drawn)
    assert {one.slow for one in drawn} == {None, 4.0}
    lengths = [(one.end - one.start) for one in drawn]
    assert timedelta(minutes=30) <= min(lengths) < timedelta(minutes=31)
    assert timedelta(minutes=119) < max(lengths) <= timedelta(hours=2)
    assert {len(one.entities or ()) for one in drawn} == {0, 1, 2}  # never all of them
    assert {name for one in drawn for name in one.entities or ()} == set(SITES)
    hours = [sum(one.start.hour // 6 == quarter for one in drawn) / len(drawn) for quarter in range(4)]
    assert all(0.2 < quarter < 0.3 for quarter in hours)


def test_each_provider_may_have_its_own_rate() -> None:
    rates = {"mast": 30, "meter": 0}
    drawn = al.draw_outages(["mast", "meter"], MAY, YEAR_LATER, per_month=rates, seed=1)
    assert {one.provider for one in drawn} == {"mast"}
    assert abs(len(drawn) - 365) < 80
    assert any(one.end > other.start for one, other in itertools.pairwise(drawn)), "they may overlap"


def test_days_before_1970_have_outages_too() -> None:
    start = datetime(1969, 12, 1, tzinfo=UTC)
    drawn = al.draw_outages("meter", start, datetime(1970, 1, 5, tzinfo=UTC), per_month=60, seed=1)
    assert drawn[0].start < datetime(1969, 12, 3, tzinfo=UTC)
    assert drawn[-1].start > datetime(1970, 1, 3, tzinfo=UTC)


def test_draws_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import json, alignment as al; from datetime import UTC, datetime; "
        "drawn = al.draw_outages({'meter': 1, 'mast': 2}, datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 8, 1, "
        "tzinfo=UTC), per_month=6, seed=11, partial=0.5, entities=['dune', 'harbour', 'ridge']); "
        "print(json.dumps([one.to_dict() for one in drawn]))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    here = al.draw_outages(["meter", "mast"], MAY, datetime(2026, 8, 1, tzinfo=UTC), **SHAPE)
    assert [al.Outage.from_dict(one) for one in json.loads(told[0])] == here


def test_one_length_is_that_of_all() -> None:
    drawn = al.draw_outages("meter", MAY, YEAR_LATER, per_month=4, seed=1, lasting="2h")
    assert {one.end - one.start for one in drawn} == {timedelta(hours=2)}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"seed": -1}, "seed=-1 is not a seed"),
        ({"seed": True}, "seed=True is not a seed"),
        ({"lost": 1.5}, "lost is 1.5, not a share of the outages"),
        ({"lost": 0.75, "slow": 0.5}, "lost + slow is 1.25, not a share of the outages"),
        ({"slower": 0.5}, "slower=0.5 is not a factor of 1 or more"),
        ({"entities": None}, "partial=0.5 needs two entities or more, and there are 0"),
        ({"entities": ["dune", "dune"]}, "partial=0.5 needs two entities or more, and there are 1"),
        ({"lasting": ("7h", "1h")}, "lasting=('7h', '1h'): no whole second is between them"),
        ({"lasting": ("1ms", "2ms")}, "lasting=('1ms', '2ms'): no whole second is between them"),
        ({"lasting": ("1h",)}, "lasting=('1h',) is not a least and a greatest length"),
        ({"per_month": -1}, "per_month=-1 is not a number of outages"),
        ({"per_month": {"mast": 1}}, "per_month says nothing of 'meter'"),
        ({"per_month": "x"}, "per_month='x' is not a number of outages"),
        ({"per_month": True}, "per_month=True is not a number of outages"),
        ({"lost": "x"}, "lost is 'x', not a share of the outages"),
        ({"slower": "x"}, "slower='x' is not a factor of 1 or more"),
        ({"providers": None}, "providers=None is neither a provider's name nor a list of names"),
        ({"providers": ["mast", 5]}, "providers=['mast', 5] is neither a provider's name nor a list of names"),
        ({"providers": ""}, "providers='' is neither a provider's name nor a list of names"),
        ({"entities": "ab"}, "entities='ab' is one value, not a list of them"),
        ({"entities": 5}, "entities=5 is one value, not a list of them"),
        ({"end": MAY - timedelta(1)}, "end=2026-04-30T00:00:00+00:00 is before start=2026-05-01T00:00:00+00:00"),
        (
            {"lasting": ("1h", "9999999d")},
            "lasting=('1h', '9999999d'): outages that begin before 2027-05-01T00:00:00+00:00 could end after the year 9999",
        ),
    ],
)
def test_arguments_out_of_range_are_named(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(al.DefinitionError) as caught:
        al.draw_outages(**{"providers": "meter", "start": MAY, "end": YEAR_LATER} | SHAPE | wrong)
    assert caught.value.problem == problem
    assert caught.value.hint
