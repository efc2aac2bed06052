"""Which rows of the online state may go: instants are small whole numbers, `oldest` is the earliest that is still asked at."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

import alignment as al
from alignment.online import CompiledView, needed_rows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000


def compiled(*features: object, kind: str = "measurement", key: list[str] | None = None) -> CompiledView:
    frame = pl.DataFrame(
        {
            "station": ["a"],
            "event_time": [EPOCH],
            "arrival_time": [EPOCH],
            "issue_time": [EPOCH],
            "id": ["k"],
            "x": [1.0],
        }
    )
    return CompiledView(al.FeatureView("v", ["station"], frame, list(features), kind=kind, key=key))  # type: ignore[arg-type]


def rows(*given: tuple[int, int, int, bool], **more: list[object]) -> pl.DataFrame:
    """Entity, event, arrival (seconds), whether it is a retraction; in log order."""
    frame = pl.DataFrame(
        {
            "@entity": [entity for entity, _, _, _ in given],
            "@event": [event * SECOND for _, event, _, _ in given],
            "@arrival": [arrival * SECOND for _, _, arrival, _ in given],
            "@order": range(len(given)),
            "@retraction": [gone for _, _, _, gone in given],
        },
        schema_overrides={"@entity": pl.Int64, "@order": pl.Int64},
    )
    return frame.with_columns(**{name: pl.Series(values, dtype=pl.Int64) for name, values in more.items()})


def kept(view: CompiledView, frame: pl.DataFrame, oldest: int, keep: int = 2, **options: object) -> list[int]:
    stays, _ = needed_rows(view, frame, oldest=oldest * SECOND, keep_events=keep, **options)  # type: ignore[arg-type]
    assert stays.dtype == pl.Boolean
    assert not stays.null_count()
    return stays.arg_true().to_list()


@pytest.mark.parametrize(("oldest", "expected"), [(49, [0, 1]), (50, [1]), (51, [1])])
def test_a_row_goes_once_what_supersedes_it_is_visible_at_every_instant_asked_at(oldest, expected):
    frame = rows((1, 10, 20, False), (1, 10, 50, False))
    assert kept(compiled(al.latest("x")), frame, oldest) == expected


def test_a_retraction_stays_with_the_row_that_it_took_back():
    # Without the row the kernel would take the retraction for one of an unknown key, and say missing for retracted.
    frame = rows((1, 10, 20, False), (1, 10, 25, False), (1, 10, 30, True))
    assert kept(compiled(al.latest("x")), frame, 100) == [1, 2]


def test_rows_below_the_floor_of_every_feature_go():
    # At 7200 s the window (t - 1 h, t] begins just after 3600 s.
    view = compiled(al.window("x", "mean", "1h"))
    frame = rows((1, 3_600, 3_600, False), (1, 3_601, 3_601, False), (1, 7_000, 7_000, False))
    assert kept(view, frame, 7_200) == [1, 2]


def test_features_without_a_floor_keep_the_newest_events_of_each_entity_and_a_mark():
    frame = rows(*((1, event, event, False) for event in (10, 20, 30, 40)), (2, 10, 10, False))
    stays, marks = needed_rows(compiled(al.latest("x")), frame, oldest=100 * SECOND, keep_events=2)
    assert stays.arg_true().to_list() == [2, 3, 4]
    assert marks == {1: 30 * SECOND}
    assert kept(compiled(al.latest("x")), frame, 100, whole={1}) == [0, 1, 2, 3, 4]


def test_a_lag_without_tolerance_keeps_events_from_where_it_begins_to_look():
    # At 100 s it looks from 70 s back: 60 and 50 are kept for it, besides all that is newer.
    frame = rows(*((1, event, event, False) for event in (40, 50, 60, 80, 90)))
    assert kept(compiled(al.latest("x"), al.lag("x", "30s")), frame, 100) == [1, 2, 3, 4]


def test_a_sequence_keeps_as_many_events_as_it_shows():
    frame = rows(*((1, event, event, False) for event in (10, 20, 30, 40)))
    assert kept(compiled(al.sequence("x", 3)), frame, 100, keep=1) == [1, 2, 3]


def test_all_that_stays_of_an_id_goes_together():
    # Id 7 moves from 10 to 90 by a row that is not visible yet; id 8 stays where it is; 80 and 90 are the newest.
    view = compiled(al.latest("x"), key=["id"])
    frame = rows((1, 10, 20, False), (1, 15, 20, False), (1, 80, 80, False), (1, 90, 150, False), (1, 85, 85, False))
    keyed = frame.with_columns(pl.Series("@key", [7, 8, 1, 7, 2], dtype=pl.Int64))
    assert kept(view, keyed, 100) == [0, 2, 3, 4]


def test_a_newer_issue_that_moves_an_id_out_of_reach_stays_with_the_older_one():
    # Without it the older issue, whose event is still in the window, would count again (R10).
    view = compiled(al.window("x", "sum", "40s"), kind="forecast", key=["id"])
    frame = rows((1, 90, 10, False), (1, 20, 30, False), **{"@issue": [5, 25], "@key": [7, 7]})
    assert kept(view, frame, 100) == [0, 1]
    assert kept(view, frame, 131) == []


def test_a_retraction_of_all_issues_stays_and_an_issue_is_superseded_by_itself_alone():
    view = compiled(al.forecast("x", "1h", "2h"), al.latest("x"), kind="forecast")
    frame = rows(
        (1, 90, 10, False), (1, 90, 20, False), (1, 90, 25, False), (1, 90, 30, True), **{"@issue": [5, 6, 6, None]}
    )
    assert kept(view, frame, 100) == [0, 2, 3]


def test_a_revision_that_came_too_late_for_a_notice_leaves_the_one_before():
    # The event is at 20,000 s; a notice of 2 h asks for arrivals by 12,800 s (R10).
    view = compiled(al.forecast("x", "30m", min_notice="2h"), kind="forecast")
    frame = rows((1, 20_000, 100, False), (1, 20_000, 200, False), (1, 20_000, 15_000, False), **{"@issue": [50] * 3})
    assert kept(view, frame, 16_000) == [1, 2]
    assert kept(compiled(al.forecast("x", "30m"), kind="forecast"), frame, 16_000) == [2]
    late = rows((1, 20_000, 14_000, False), (1, 20_000, 15_000, False), **{"@issue": [50] * 2})
    assert kept(view, late, 16_000) == [1]  # neither was given it


def test_of_retractions_alone_the_last_stays():
    frame = rows((1, 10, 20, True), (1, 10, 25, True))
    assert kept(compiled(al.latest("x")), frame, 100) == [1]
