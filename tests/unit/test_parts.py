"""What is carried from one stretch of time to the next, by hand: instants are minutes after noon, rows in order of arrival."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

import alignment as al
from alignment.carrying import Removals, carried
from alignment.durations import instant_us
from alignment.parts import bucket_of, plan_passes

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def rows(*given: tuple[float, float, float | None, bool], ids: list[str] | None = None) -> pl.DataFrame:
    """Event, arrival, value, whether it is a retraction."""
    frame = pl.DataFrame(
        {
            "site": ["a"] * len(given),
            "event_time": [at(event) for event, _, _, _ in given],
            "arrival_time": [at(arrival) for _, arrival, _, _ in given],
            "load": [value for _, _, value, _ in given],
            "is_retraction": [gone for _, _, _, gone in given],
            "log_sequence": range(len(given)),
        },
        schema_overrides={"load": pl.Float64},
    )
    return frame if ids is None else frame.with_columns(ident=pl.Series(ids))


def kept(frame: pl.DataFrame, *features: Any, after: float, as_of: float | None = None, **options: Any) -> list[int]:
    key = ["ident"] if "ident" in frame.columns else None
    view = al.FeatureView("meter", ["site"], frame, features, key=key)
    views = plan_passes([view])[0].views
    as_of_us = None if as_of is None else instant_us(at(as_of), "as_of")
    found = carried(views, frame, after_us=instant_us(at(after), "after"), as_of_us=as_of_us, **options)
    return found.arg_true().to_list()


def test_the_newest_event_and_what_bounded_features_reach_are_carried():
    frame = rows((0, 1, 1.0, False), (10, 11, 2.0, False), (20, 21, 3.0, False), (30, 31, 4.0, False))
    assert kept(frame, al.latest("load"), after=40, removals=0) == [3]
    assert kept(frame, al.lag("load", "15m"), after=40, removals=0) == [2, 3]  # at 40 and later: 25 and later
    assert kept(frame, al.window("load", "sum", "25m"), after=40, removals=0) == [2, 3]  # from 15 on, not 15 itself


def test_a_superseded_revision_goes_and_one_that_nothing_supersedes_yet_stays():
    frame = rows((30, 31, 1.0, False), (30, 35, 2.0, False), (30, 50, 3.0, False))
    assert kept(frame, al.latest("load"), after=40, removals=0) == [1, 2]


def test_what_arrived_after_as_of_supersedes_nothing():
    frame = rows((10, 11, 1.0, False), (30, 36, 2.0, False))
    assert kept(frame, al.latest("load"), after=40, as_of=35, removals=0) == [0]
    assert kept(frame, al.latest("load"), after=40, as_of=36, removals=0) == [1]


def test_an_event_more_is_carried_for_every_retraction_that_may_come():
    frame = rows((0, 1, 1.0, False), (10, 11, 2.0, False), (20, 21, 3.0, False))
    assert kept(frame, al.latest("load"), after=40, removals=1) == [1, 2]
    assert kept(frame, al.latest("load"), after=40) == [0, 1, 2]  # however many may come


def test_an_event_that_was_taken_away_fills_no_place():
    frame = rows((10, 11, 1.0, False), (20, 21, 2.0, False), (20, 25, None, True))
    assert kept(frame, al.latest("load"), after=40, removals=0) == [0, 1, 2]


def hour_of(minutes: float) -> int:
    return instant_us(at(minutes), "t") // 3_600_000_000


def test_of_events_of_which_hour_retractions_are_known_the_newest_that_cannot_all_go_are_carried():
    events = [(minutes, minutes + 1, 1.0, False) for minutes in (0, 61, 62, 121, 122, 181)]
    frame = rows(*events)
    for hours, expected in [
        ({}, [5]),
        ({hour_of(181): 1}, [4, 5]),  # two of which one may go
        ({hour_of(181): 1, hour_of(121): 1}, [3, 4, 5]),
        ({hour_of(181): 1, hour_of(121): 2}, [2, 3, 4, 5]),
        ({hour_of(181): 1, hour_of(121): 2, hour_of(61): 2}, [0, 1, 2, 3, 4, 5]),
        ({hour_of(121): 2, hour_of(0): 9}, [5]),  # older ones do not matter
        ({hour_of(241): 9}, [5]),  # nor do those of events that are yet to come
    ]:
        removals = Removals(tuple(sorted(hours)), tuple(hours[hour] for hour in sorted(hours)))
        assert kept(frame, al.latest("load"), after=190, removals=removals) == expected
    two = Removals((hour_of(181),), (1,))
    assert kept(frame, al.sequence("load", 2), after=190, removals=two) == [3, 4, 5]
    assert kept(frame, al.latest("load"), after=190, as_of=150, removals=two) == [3, 4]


def test_each_series_that_is_cut_together_may_lose_all_that_the_retractions_take():
    frame = rows(*[(minutes, minutes + 1, 1.0, False) for minutes in (0, 10, 20, 61, 62)]).with_columns(
        sensor=pl.Series(["p", "p", "p", "q", "q"])
    )
    view = al.FeatureView("meter", ["site", "sensor"], frame, [al.latest("load")])
    found = carried(
        plan_passes([view])[0].views,
        frame,
        after_us=instant_us(at(70), "after"),
        as_of_us=None,
        removals=Removals((hour_of(20),), (1,)),
    )
    assert found.arg_true().to_list() == [1, 2, 3, 4]  # p may lose its last; a floor that suits p suits q


def test_a_series_of_fewer_events_than_a_sequence_shows_is_carried_whole():
    frame = rows((0, 1, 1.0, False), (10, 11, 2.0, False))
    assert kept(frame, al.sequence("load", 3), al.window("load", "sum", "5m"), after=40, removals=0) == [0, 1]


def test_where_nulls_are_skipped_any_event_may_be_the_one():
    frame = rows((0, 1, 1.0, False), (10, 11, None, False), (20, 21, None, False))
    assert kept(frame, al.latest("load", skip_null=True), after=40, removals=0) == [0, 1, 2]


def test_an_id_is_carried_however_old_its_event_which_may_move():
    frame = rows((0, 1, 1.0, False), (10, 11, 2.0, False), (20, 21, 3.0, False), ids=["p", "q", "p"])
    assert kept(frame, al.latest("load"), after=40, removals=0) == [1, 2]


def test_an_id_that_moved_out_of_reach_goes_whole_or_not_at_all():
    frame = rows((30, 31, 1.0, False), (0, 35, 2.0, False), ids=["p", "p"])
    window = al.window("load", "sum", "25m")
    assert kept(frame, window, after=40, removals=0) == []
    # Where the older row is elsewhere, the one that moved the event away from the window must reach it.
    assert kept(frame, window, after=40, removals=0, alone=True) == [1]
    assert kept(frame[1:], window, after=40, removals=0, alone=True) == [0]


def test_what_any_view_of_the_rows_needs_is_carried():
    frame = rows((0, 1, 1.0, False), (30, 31, 2.0, False))
    observed = al.Observations(frame, ["site"])
    near = al.FeatureView("near", ["site"], observed, [al.window("load", "sum", "5m")])
    far = al.FeatureView("far", ["site"], observed, [al.window("load", "sum", "2h")])
    for views in ([near, far], [far, near]):
        one = plan_passes(views)[0]
        assert len(one.inputs) == 1
        found = carried(one.views, frame, after_us=instant_us(at(40), "after"), as_of_us=None, removals=0)
        assert found.to_list() == [True, True]


def test_a_key_has_one_bucket_in_every_type_that_holds_it():
    values = pl.Series("site", [1, 2, 3, 250])
    wide = bucket_of(pl.DataFrame({"site": values}), ["site"], 1 << 20)
    for dtype in (pl.UInt8, pl.Int16, pl.UInt64, pl.Int128):
        assert bucket_of(pl.DataFrame({"site": values.cast(dtype)}), ["site"], 1 << 20).equals(wide)
    texts = pl.DataFrame({"site": ["a", "b"]})
    named = texts.with_columns(pl.col("site").cast(pl.Enum(["b", "a"])))
    assert bucket_of(texts, ["site"], 1 << 20).equals(bucket_of(named, ["site"], 1 << 20))
    assert wide.n_unique() == 4


def test_without_keys_all_rows_are_one_bucket():
    assert bucket_of(pl.DataFrame({"x": [1, 2]}), [], 8).to_list() == [0, 0]


def test_rows_that_nothing_orders_come_with_all_that_may_tell_them_apart():
    frame = rows((0, 1, 1.0, False)).with_columns(note=pl.lit("x"))
    for given, options, expected in (
        (frame, {}, False),
        (frame.drop("log_sequence"), {}, True),
        (frame.drop("log_sequence"), {"on_tie": "last"}, False),
    ):
        view = al.FeatureView("meter", ["site"], given, [al.latest("load")], **options)
        assert ("note" in plan_passes([view])[0].inputs[0].columns) is expected
