"""Delay models: what is fitted, how it is applied, what is said of how good it is; values typed by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import alignment as al
from alignment import stable_hash
from alignment.definitions import describe_view, read_view
from ingestion import create_log
from ingestion.sources.simulated import SimulatedWorld

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
US = pl.Datetime("us", "UTC")


def at(day: int, clock: str = "00:00") -> datetime:
    """An instant so many days after Monday, 5 January 2026."""
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return MONDAY + timedelta(days=day, hours=hours, minutes=minutes, seconds=seconds[0] if seconds else 0)


def ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def measured(*rows: tuple[object, ...], columns: str = "event_time arrival_time") -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=columns.split(), orient="row", infer_schema_length=None)
    times = [name for name in frame.columns if name.endswith("_time")]
    return frame.with_columns(pl.col(times).cast(US)).with_columns(value=pl.lit(1.0))


def rule_of(*batches: tuple[datetime, datetime], days: int = 1, **arguments: object) -> al.EmpiricalDelay:
    """A rule of typed batches, origin and arrival, measured from Monday on."""
    return al.EmpiricalDelay(
        **{
            "provider": "meter",
            "travels": "event",
            "by": ("hour",),
            "origins_ms": tuple(ms(origin) for origin, _ in batches),
            "delays_ms": tuple(ms(arrival) - ms(origin) for origin, arrival in batches),
            "stretch_ms": (ms(at(0)), ms(at(days))),
        }
        | arguments  # type: ignore[arg-type]
    )


def arrivals(rule: al.DelayRule, *events: datetime) -> list[datetime]:
    return rule.arrival_times(pl.DataFrame({"event_time": pl.Series(events, dtype=US)})).to_list()


ONE_DAY = rule_of(
    (at(0, "09:00"), at(0, "09:10")),
    (at(0, "10:00"), at(0, "13:00")),  # these three caught up after an outage
    (at(0, "11:00"), at(0, "13:00")),
    (at(0, "12:00"), at(0, "13:00")),
    (at(0, "14:00"), at(0, "14:20")),
)


# --- applying ---------------------------------------------------------------------------------------------------------


def test_a_day_takes_over_the_arrivals_of_the_measured_day():
    days = [at(70, "09:00"), at(70, "10:00"), at(70, "11:00"), at(70, "12:00"), at(70, "14:00")]
    assert arrivals(ONE_DAY, *days) == [
        at(70, "09:10"),
        at(70, "13:00"),
        at(70, "13:00"),
        at(70, "13:00"),
        at(70, "14:20"),
    ]


def test_between_two_batches_that_arrived_together_a_row_arrives_with_them():
    assert arrivals(ONE_DAY, at(70, "10:07"), at(70, "11:59")) == [at(70, "13:00"), at(70, "13:00")]


def test_elsewhere_a_row_takes_the_delay_of_the_nearest_batch():
    # 09:20 is nearer to 09:00 (10 minutes), 13:10 to 14:00 (20 minutes); before the first and after the last there is one.
    got = arrivals(ONE_DAY, at(70, "09:20"), at(70, "13:10"), at(70, "03:00"), at(70, "23:00"))
    assert got == [at(70, "09:30"), at(70, "13:30"), at(70, "03:10"), at(70, "23:20")]


def test_halfway_the_earlier_batch_counts():
    assert arrivals(ONE_DAY, at(70, "09:30")) == [at(70, "09:40")]


def test_a_forecast_counts_from_its_issue():
    frame = pl.DataFrame(
        {"event_time": [at(72), at(73)], "issue_time": [at(70, "09:00"), at(70, "09:00")]},
        schema={"event_time": US, "issue_time": US},
    )
    rule = rule_of((at(0, "09:00"), at(0, "09:10")), travels="issue")
    assert rule.arrival_times(frame).to_list() == [at(70, "09:10"), at(70, "09:10")]


def test_the_clock_is_that_of_the_zone_on_both_sides_of_a_clock_change():
    # 08:00 UTC is 09:00 in Berlin in winter; in summer 09:00 there is 07:00 UTC.
    a_day = (ms(at(-1, "23:00")), ms(at(0, "23:00")))  # from midnight to midnight in Berlin
    rule = rule_of(
        (at(0, "08:00"), at(0, "08:10")), (at(0, "09:00"), at(0, "09:50")), stretch_ms=a_day, zone="Europe/Berlin"
    )
    july = datetime(2026, 7, 6, tzinfo=UTC)
    assert arrivals(rule, july + 7 * HOUR, july + 8 * HOUR) == [
        july + 7 * HOUR + 10 * MINUTE,
        july + 8 * HOUR + 50 * MINUTE,
    ]


def test_by_weekday_a_monday_borrows_a_monday():
    batches = [(at(day, "12:00"), at(day, "12:00") + day * MINUTE) for day in range(14)]
    rule = rule_of(*batches, days=14, by=("weekday",))
    got = arrivals(rule, *[at(day, "12:00") for day in range(70, 84)])
    delays = [(arrival - at(70 + place, "12:00")) // MINUTE for place, arrival in enumerate(got)]
    assert all(delay % 7 == place % 7 for place, delay in enumerate(delays))  # day n and n + 7 are one weekday


def test_without_hours_a_day_may_borrow_from_any_whole_hour():
    batches = [(at(0) + n * HOUR, at(0) + n * HOUR + n * MINUTE) for n in range(72)]
    rule = rule_of(*batches, days=3, by=())
    days = [at(day) for day in range(70, 470)]
    starts = {(arrival - day) // MINUTE for arrival, day in zip(arrivals(rule, *days), days, strict=True)}
    assert starts == set(range(49))  # a stretch of a day may begin at any hour of the first two days


def test_every_measured_day_is_drawn_about_as_often():
    batches = [(at(day, "12:00"), at(day, "12:00") + day * MINUTE) for day in range(4)]
    rule = rule_of(*batches, days=4)
    noons = [at(day, "12:00") for day in range(1000)]
    drawn = [(arrival - noon) // MINUTE for arrival, noon in zip(arrivals(rule, *noons), noons, strict=True)]
    assert {day: drawn.count(day) for day in range(4)} == {0: 211, 1: 278, 2: 258, 3: 253}


def test_entities_have_delays_of_their_own_where_they_were_measured():
    rule = rule_of(
        (at(0, "09:00"), at(0, "09:10")),
        (at(0, "09:00"), at(0, "10:00")),
        by=("hour", "station"),
        groups=(("a",), ("b",)),
        members=(0, 1),
    )
    frame = pl.DataFrame({"event_time": pl.Series([at(70, "09:00")] * 2, dtype=US), "station": ["b", "a"]})
    assert rule.arrival_times(frame).to_list() == [at(70, "10:00"), at(70, "09:10")]
    unknown = frame[:1].with_columns(station=pl.lit("c"))
    assert rule.arrival_times(unknown)[0] in {at(70, "09:10"), at(70, "10:00")}  # then all of them tell


def test_keys_that_travel_alone_are_late_on_their_own():
    batches = [(at(0, "12:00"), at(0, "12:00") + n * MINUTE) for n in range(60)]
    rule = rule_of(*batches, travels="key", keys=("station", "event_time"))
    frame = pl.DataFrame(
        {"station": [f"s{n}" for n in range(600)], "event_time": pl.Series([at(70, "12:00")] * 600, dtype=US)}
    )
    delays = (rule.arrival_times(frame) - at(70, "12:00")).dt.total_minutes()
    assert delays.n_unique() > 55
    assert 27 < delays.mean() < 32  # type: ignore[operator]


def test_polled_keys_arrive_with_a_poll():
    polls = [at(0) + n * HOUR + 3 * MINUTE for n in range(1, 25)]
    batches = [(poll - late, poll) for poll in polls for late in (70 * MINUTE, 40 * MINUTE, 20 * MINUTE)]
    rule = rule_of(*sorted(batches), travels="key", keys=("id",), polled=True)
    frame = pl.DataFrame(
        {
            "id": list(range(200)),
            "event_time": pl.Series([at(70, "01:00") + n * 6 * MINUTE for n in range(200)], dtype=US),
        }
    )
    told = rule.arrival_times(frame)
    assert set(told.dt.minute()) == {3}
    assert (told >= frame["event_time"]).all()


def test_another_draw_or_seed_or_provider_is_another_history():
    batches = [(at(day, "12:00"), at(day, "12:00") + day * MINUTE) for day in range(50)]
    rule = rule_of(*batches, days=50)
    days = [at(day, "12:00") for day in range(100, 150)]
    histories = {tuple(arrivals(one, *days)) for one in (
        rule,
        rule_of(*batches, days=50, seed=1),
        rule_of(*batches, days=50, draw=1),
        rule_of(*batches, days=50, provider="other"),
    )}  # fmt: skip
    assert len(histories) == 4
    assert arrivals(rule, *days) == arrivals(rule_of(*batches, days=50), *days)


def test_a_row_without_an_origin_has_no_arrival():
    frame = pl.DataFrame({"event_time": pl.Series([None, at(70, "09:00")], dtype=US)})
    assert ONE_DAY.arrival_times(frame).to_list() == [None, at(70, "09:10")]


def test_no_rows_have_no_arrivals():
    assert ONE_DAY.arrival_times(pl.DataFrame(schema={"event_time": US})).dtype == US


def test_a_column_that_the_rule_goes_by_must_be_there():
    rule = rule_of((at(0), at(0)), travels="key", keys=("id",))
    with pytest.raises(al.MissingColumnError) as error:
        arrivals(rule, at(70))
    assert str(error.value) == (
        "the frame that the delays of 'meter' are applied to has no column 'id'\n\nhint: its columns are 'event_time'."
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"origins_ms": ()},
        {"delays_ms": (-1,)},
        {"travels": "alone"},
        {"travels": "key"},
        {"block_days": 0},
        {"members": (0,)},
        {"zone": "Mars"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(arguments):
    with pytest.raises(al.DefinitionError):
        rule_of(**{"origins_ms": (0,), "delays_ms": (0,)} | arguments)


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_hashes_are_the_same_everywhere():
    frame = pl.DataFrame({"a": ["x", "longer than eight bytes", None], "b": [1, 2, 3]})
    start = stable_hash.salt(0, "meter", 0)
    assert int(start) == 2177643693011770822
    assert stable_hash.row_hashes(frame.get_columns(), start).tolist() == [
        7078542336618952261,
        2836501089938294721,
        11450009287669770941,
    ]
    # The first number that SplitMix64 gives from the seed 0, by its authors.
    assert int(stable_hash.mixed(np.array([0]), np.uint64(0))[0]) == 0xE220A8397B1DCDAF


def test_hashes_depend_on_values_not_on_types_or_places():
    start = stable_hash.salt("x")
    texts = pl.Series(["a", "bb", "a", "c" * 20])
    found = stable_hash.row_hashes([texts], start)
    assert found[0] == found[2]
    assert stable_hash.row_hashes([texts.cast(pl.Categorical)], start).tolist() == found.tolist()
    assert stable_hash.row_hashes([texts[3:]], start)[0] == found[3]
    small, large = (stable_hash.row_hashes([pl.Series([7, -1], dtype=kind)], start) for kind in (pl.Int8, pl.Int64))
    assert small.tolist() == large.tolist()
    instants = pl.Series([at(0)], dtype=US)
    for unit in ("ms", "ns"):
        same = stable_hash.row_hashes([instants.dt.cast_time_unit(unit)], start)
        assert same.tolist() == stable_hash.row_hashes([instants], start).tolist()


def test_hashes_of_texts_tell_ends_apart():
    start = stable_hash.salt("x")
    texts = ["", "\0", "\0\0", "abcdefgh", "abcdefgh\0", "abcdefghi", None]
    assert len(set(stable_hash.row_hashes([pl.Series(texts)], start).tolist())) == len(texts)


def test_draws_do_not_depend_on_the_seed_of_python_s_hashes():
    code = (
        "import polars as pl, alignment as al\n"
        "from datetime import datetime, UTC\n"
        "rule = al.EmpiricalDelay(provider='p', travels='key', keys=('id',), origins_ms=tuple(range(0, 10**8, 10**5)),"
        " delays_ms=tuple(range(1000)), stretch_ms=(0, 10**8))\n"
        "frame = pl.DataFrame({'id': ['a', 'b', 'c'], 'event_time': [datetime(2026, 1, d, tzinfo=UTC) for d in (1, 2, 3)]})\n"
        "print(rule.arrival_times(frame).to_physical().to_list())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


# --- fitting ----------------------------------------------------------------------------------------------------------


def hourly(days: int, late: timedelta = 10 * MINUTE, **columns: object) -> pl.DataFrame:
    """An event an hour, each so late."""
    events = pl.Series("event_time", [at(0) + n * HOUR for n in range(24 * days)], dtype=US)
    return pl.DataFrame(events).with_columns(arrival_time=pl.col("event_time") + late, value=1.0, **columns)


def test_what_was_there_when_measuring_began_tells_nothing():
    frame = measured(
        (at(0), at(3)), (at(1), at(3)), (at(2), at(3)), (at(4), at(4, "01:00")), (at(5), at(5, "01:00")), (at(6), at(6, "01:00"))
    )  # fmt: skip
    rule = al.fit_delay(al.Observations(frame, []))
    assert rule.delays_ms == (3_600_000, 3_600_000, 3_600_000)  # of days 4, 5 and 6


def test_the_first_arrival_of_a_key_decides():
    twice = pl.concat([hourly(4), hourly(4, 2 * HOUR)])
    assert set(al.fit_delay(al.Observations(twice, [], on_tie="last")).delays_ms) == {600_000}


def test_a_retraction_is_no_arrival_of_a_value():
    frame = hourly(4).with_columns(is_retraction=False)
    before = frame.with_columns(arrival_time=pl.col("event_time") + MINUTE, is_retraction=True)
    assert set(al.fit_delay(al.Observations(pl.concat([before, frame]), [])).delays_ms) == {600_000}


def test_rows_whose_arrival_was_not_measured_tell_nothing():
    declared = hourly(4, 5 * HOUR).with_columns(arrival_kind=pl.lit("declared"), station=pl.lit("a"))
    rows = pl.concat([declared, hourly(4).with_columns(arrival_kind=pl.lit("measured"), station=pl.lit("b"))])
    assert set(al.fit_delay(al.Observations(rows, ["station"])).delays_ms) == {600_000}


def test_stamps_after_until_are_not_looked_at():
    frame = pl.concat([hourly(4), hourly(8, HOUR).filter(pl.col("event_time") >= at(4))])
    assert set(al.fit_delay(al.Observations(frame, []), until=at(4)).delays_ms) == {600_000}


def stations(late_by_station: bool) -> pl.DataFrame:
    shift = pl.col("n") * MINUTE if late_by_station else pl.col("hour") * MINUTE
    hours = (
        hourly(4).with_row_index("hour").join(pl.DataFrame({"station": ["a", "b", "c"], "n": [1, 2, 3]}), how="cross")
    )
    return hours.with_columns(pl.col("arrival_time") + shift).drop("hour", "n")


def test_stations_of_one_event_that_arrive_together_travel_together():
    assert al.fit_delay(al.Observations(stations(late_by_station=False), ["station"])).travels == "event"


def test_stations_that_arrive_one_by_one_travel_alone():
    rule = al.fit_delay(al.Observations(stations(late_by_station=True), ["station"]))
    assert (rule.travels, rule.keys) == ("key", ("station", "event_time"))


def test_a_series_of_its_own_travels_by_event():
    assert al.fit_delay(al.Observations(hourly(4), [])).travels == "event"


def test_ids_travel_alone():
    rows = hourly(4).with_row_index("id")
    rule = al.fit_delay(al.Observations(rows, [], key=["id"]))
    assert (rule.travels, rule.keys) == ("key", ("id",))


def test_a_forecast_run_travels_as_one():
    runs = hourly(4).rename({"event_time": "issue_time"})
    steps = runs.join(pl.DataFrame({"lead": [1, 2, 3]}), how="cross")
    rows = steps.with_columns(event_time=pl.col("issue_time") + pl.col("lead") * HOUR).drop("lead")
    rule = al.fit_delay(al.Observations(rows, [], "forecast"))
    assert rule.travels == "issue"
    assert set(rule.delays_ms) == {600_000}


def test_runs_of_each_entity_travel_alone_but_their_steps_together():
    runs = (
        hourly(4)
        .rename({"event_time": "issue_time"})
        .join(pl.DataFrame({"farm": ["a", "b"], "late": [0, 40]}), how="cross")
    )
    runs = runs.with_columns(pl.col("arrival_time") + pl.col("late") * MINUTE).drop("late")
    steps = runs.join(pl.DataFrame({"lead": [1, 2, 3]}), how="cross")
    rows = steps.with_columns(event_time=pl.col("issue_time") + pl.col("lead") * HOUR).drop("lead")
    rule = al.fit_delay(al.Observations(rows, ["farm"], "forecast"), by=["farm"])
    assert (rule.travels, rule.keys) == ("key", ("farm", "issue_time"))
    assert len(rule.origins_ms) == 2 * 95  # the last issue is younger than the greater delay
    assert rule.arrival_times(rows).to_list() == rows["arrival_time"].to_list()


def test_keys_that_travel_alone_catch_up_together():
    batches = [(at(0, "09:00"), at(0, "09:04"))]
    batches += [(at(0, "10:00") + n * 10 * MINUTE, at(0, "12:00")) for n in range(8)]  # down until noon
    rule = rule_of(*batches, (at(0, "13:00"), at(0, "13:30")), travels="key", keys=("station", "event_time"))
    events = [at(70, "10:00") + n * 7 * MINUTE for n in range(11)]
    frame = pl.DataFrame({"station": "s", "event_time": pl.Series(events, dtype=US)})
    told = rule.arrival_times(frame)
    near_the_start = told[:2].to_list()  # 10:00 and 10:07 may take the delay of 09:00
    assert set(told[2:]) == {at(70, "12:00")}
    assert near_the_start[0] == at(70, "12:00")


def test_forecasts_without_issue_have_no_delay():
    with pytest.raises(al.DelayFitError, match="are forecasts without an issue_time"):
        al.fit_delay(al.Observations(hourly(4), [], "forecast"))


def test_a_bulk_load_is_too_little():
    rows = hourly(4).with_columns(arrival_time=pl.lit(at(5)))
    with pytest.raises(al.DelayFitError) as error:
        al.fit_delay(al.Observations(rows, []), provider="meter")
    assert str(error.value) == (
        "provider 'meter': too little was measured to fit a delay: 96 keys, which first arrived at 1 instants, 0 of them new then\n\n"
        'hint: declare a delay instead, e.g. al.FixedDelay("45m").'
    )


def test_by_must_name_something():
    with pytest.raises(al.MissingColumnError, match="did you mean 'station'"):
        al.fit_delay(al.Observations(stations(late_by_station=True), ["station"]), by="sation")


def test_delays_go_by_the_hour_if_it_explains_them():
    rows = hourly(8).with_columns(arrival_time=pl.col("event_time") + pl.col("event_time").dt.hour() * MINUTE)
    assert al.fit_delay(al.Observations(rows, [])).by == ("hour",)
    assert al.fit_delay(al.Observations(rows, []), by=None).by == ()
    noise = rows.with_columns(arrival_time=pl.col("event_time") + (pl.int_range(pl.len()) * 7919 % 60) * MINUTE)
    assert al.fit_delay(al.Observations(noise, [])).by == ()


def outages() -> pl.DataFrame:
    """Ten days of events every ten minutes, five minutes late; on days 2 and 6 nothing came from 10:00 until 13:00."""
    events = pl.Series("event_time", [at(0) + n * 10 * MINUTE for n in range(1440)], dtype=US)
    rows = pl.DataFrame(events).with_columns(arrival_time=pl.col("event_time") + 5 * MINUTE, value=1.0)
    for day in (2, 6):
        held_up = pl.col("arrival_time").is_between(at(day, "10:00"), at(day, "13:00"))
        rows = rows.with_columns(
            arrival_time=pl.when(held_up).then(at(day, "13:00")).otherwise("arrival_time").cast(US)
        )
    return rows


def test_an_outage_is_caught_up_at_one_instant_as_often_as_it_was_measured():
    rule = al.fit_delay(al.Observations(outages(), []), by="hour")
    history = outages().select("event_time").with_columns(
        pl.col("event_time") + timedelta(days=offset) for offset in [100]
    )  # fmt: skip
    history = pl.concat([history.with_columns(pl.col("event_time") + timedelta(days=10 * n)) for n in range(10)])
    told = history.with_columns(arrival=rule.arrival_times(history))
    together = told.group_by("arrival").len().filter(pl.col("len") > 1)
    assert set(together["len"]) == {18}  # of 10:00 to 12:50
    assert set(together["arrival"].dt.to_string("%H:%M")) == {"13:00"}
    assert 8 <= together.height <= 30  # of 100 days a fifth
    assert (told["arrival"] - told["event_time"]).max() == 180 * MINUTE  # nothing is clipped


def test_the_simulated_sky_camera_is_late_as_it_was():
    frame = SimulatedWorld(seed=1, days=90).observations("sky_camera")
    firsts = frame.filter(~pl.col("is_retraction")).unique(["site", "event_time"], keep="first", maintain_order=True)
    rule = al.fit_delay(al.Observations(frame, ["site"]), by=None)
    assert (rule.travels, rule.polled) == ("key", False)

    def told(arrivals: pl.Series) -> tuple[list[float], int]:
        minutes = (arrivals - firsts["event_time"]).dt.total_seconds() / 60
        together = arrivals.value_counts().filter(pl.col("count") >= 10)
        return [round(minutes.quantile(q) or 0.0) for q in (0.05, 0.5, 0.95)], together.height

    assert told(firsts["arrival_time"]) == ([26, 31, 38], 20)
    quantiles, outages = told(rule.arrival_times(firsts))
    assert quantiles == [26, 31, 38]
    assert 10 <= outages <= 30  # 18 when it was written; each one instant, at which all sites were caught up


def test_a_run_that_arrived_together_is_kept_by_its_ends():
    rule = al.fit_delay(al.Observations(outages(), []), by="hour")
    first, last = rule.stretch_ms
    rows = outages().select("event_time", "arrival_time").rows()
    whole = rule_of(
        *[row for row in rows if first <= ms(row[0]) <= last],
        days=10,
        stretch_ms=rule.stretch_ms,
        provider="observations",
    )
    assert len(rule.origins_ms) == len(whole.origins_ms) - 2 * 16
    days = [at(100) + n * 7 * MINUTE for n in range(5000)]
    assert arrivals(rule, *days) == arrivals(whole, *days)


def test_a_long_history_is_thinned_but_keeps_its_outages():
    rule = al.fit_delay(al.Observations(outages(), []), by="hour", max_batches=100)
    assert 50 <= len(rule.origins_ms) <= 100
    assert rule.stretch_ms[0] == ms(at(0, "00:05"))
    assert max(rule.delays_ms) == 180 * 60_000


def test_a_silence_of_two_days_is_drawn_in_one_piece():
    rows = hourly(20)
    held_up = pl.col("arrival_time").is_between(at(5), at(7))
    rows = rows.with_columns(arrival_time=pl.when(held_up).then(at(7)).otherwise("arrival_time").cast(US))
    assert al.fit_delay(al.Observations(rows, [])).block_days == 3
    assert al.fit_delay(al.Observations(rows, []), block_days=1).block_days == 1


def test_the_fixed_rule_is_the_median():
    rows = hourly(4).with_columns(
        arrival_time=pl.col("event_time") + pl.when(pl.int_range(pl.len()) % 3 == 0).then(HOUR).otherwise(10 * MINUTE)
    )
    assert al.fit_fixed_delay(al.Observations(rows, [])) == al.FixedDelay("600s")


def test_a_daily_publication_is_found_in_its_zone():
    events = pl.Series("event_time", [datetime(2026, 3, 20, tzinfo=UTC) + n * HOUR for n in range(24 * 20)], dtype=US)
    frame = pl.DataFrame(events).with_columns(value=1.0)
    truth = al.PublishSchedule("06:15", "Europe/Berlin", days=1)
    rows = al.Observations(frame.with_columns(arrival_time=truth.arrival_times(frame)), [])
    assert al.fit_publish_schedule(rows, zone="Europe/Berlin") == truth


def test_a_schedule_of_runs_goes_by_the_issue():
    frame = pl.DataFrame(
        {"event_time": pl.Series([at(9)], dtype=US), "issue_time": pl.Series([at(3, "18:00")], dtype=US)}
    )
    assert al.PublishSchedule("06:00", "UTC", day_of="issue").arrival_times(frame).to_list() == [at(4, "06:00")]
    with pytest.raises(al.DefinitionError):
        al.PublishSchedule("06:00", "UTC", day_of="run")  # type: ignore[arg-type]


# --- plain data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        ONE_DAY,
        rule_of(
            (at(0), at(0, "00:01")), travels="key", keys=("id",), polled=True, seed=3, draw=4, zone="Europe/Berlin"
        ),
        rule_of((at(0), at(0, "00:01")), by=("hour", "s"), groups=(("a",),), members=(0,), block_days=2),
        al.ShiftedDelay("-15m"),
        al.PublishSchedule("06:00", "UTC", day_of="issue"),
    ],
)
def test_a_view_with_a_delay_rule_is_made_again_from_json(rule):
    frame = pl.DataFrame({"event_time": [at(1)], "x": [1.0]}, schema={"event_time": US, "x": pl.Float64})
    view = al.FeatureView("v", [], frame, [al.latest("x")], delay=rule)
    again = read_view(json.loads(json.dumps(describe_view(view))), frame)
    assert again.observations.delay == rule
    assert describe_view(again) == describe_view(view)


def test_what_is_no_empirical_delay_is_refused():
    with pytest.raises(al.DefinitionError):
        al.EmpiricalDelay.from_dict({"rule": "fixed"})


def test_a_rule_says_what_it_is():
    assert repr(ONE_DAY) == (
        "EmpiricalDelay('meter': p50 1h, p90 2.6h, p100 3h; 5 batches, one per event, 2026-01-05 .. 2026-01-06, by hour; seed 0, draw 0)"
    )


# --- where it is used -------------------------------------------------------------------------------------------------


def keyed_rule() -> al.EmpiricalDelay:
    return rule_of((at(0), at(0, "00:07")), travels="key", keys=("station", "event_time"))


def test_a_view_passes_entities_on_to_its_rule():
    frame = pl.DataFrame({"station": ["a"], "event_time": pl.Series([at(1)], dtype=US), "x": [1.0]})
    view = al.FeatureView("v", ["station"], frame, [al.latest("x")], delay=keyed_rule())
    spine = pl.DataFrame({"station": "a", "prediction_time": pl.Series([at(1, "00:06"), at(1, "00:07")], dtype=US)})
    assert al.point_in_time_join(spine, [view])["v__x"].to_list() == [None, 1.0]
    dataset = al.build_dataset(spine, [view], as_of=at(2))
    assert "'modelled': 1" in str(dataset.manifest)
    assert "empirical" in str(dataset.manifest)


def test_history_in_a_log_is_stamped_by_a_fitted_rule_and_marked(tmp_path):
    log = create_log(tmp_path, "meter", entities=["station"])
    frame = pl.DataFrame({"station": ["a", "b"], "event_time": pl.Series([at(1), at(2)], dtype=US), "x": [1.0, 2.0]})
    log.append(frame, backfill=True, delay=keyed_rule())
    rows = log.scan().collect().sort("station")
    assert rows["arrival_time"].to_list() == [at(1, "00:07"), at(2, "00:07")]
    assert rows["arrival_kind"].to_list() == ["modelled", "modelled"]


@pytest.mark.parametrize("rule", [al.FixedDelay("1h"), rule_of((at(0), at(0, "01:00")))])
def test_a_revision_that_moves_its_event_back_does_not_arrive_before_the_one_it_replaces(tmp_path, rule):
    log = create_log(tmp_path, "quakes", entities=[], key=["id"])
    rows = {"id": ["q", "q", "r"], "event_time": pl.Series([at(1, "10:00"), at(1, "09:50"), at(1, "09:00")], dtype=US)}
    log.append(pl.DataFrame(rows | {"mag": [3.0, 3.1, 1.0]}), backfill=True, delay=rule)
    assert log.scan().collect().sort("log_sequence")["arrival_time"].to_list() == [
        at(1, "11:00"),
        at(1, "11:00"),
        at(1, "10:00"),
    ]


def test_a_log_s_own_measured_stamps_are_fitted_and_others_left_out(tmp_path):
    log = create_log(tmp_path, "meter", entities=[])
    log.append(hourly(4))
    log.append(
        pl.DataFrame({"event_time": pl.Series([at(-9)], dtype=US), "value": [1.0]}),
        backfill=True,
        delay=al.FixedDelay("9h"),
    )
    rule = al.fit_delay(log)
    assert rule.provider == "meter"
    assert set(rule.delays_ms) == {600_000}


# --- how good it is ---------------------------------------------------------------------------------------------------


def test_precision_and_recall_are_those_of_plain_loops():
    late = [5, 70, 10, 200, 30, 5, 90, 61, 0, 15] * 12
    rows = [(at(0) + n * 17 * MINUTE, at(0) + n * 17 * MINUTE + minutes * MINUTE) for n, minutes in enumerate(late)]
    since, back, rule = at(0, "12:00"), 3 * HOUR, al.FixedDelay("30m")
    report = al.assess_delay({"half": rule}, al.Observations(measured(*rows), []), since=since, lookback="3h", times=7)
    held = [(event, arrival) for event, arrival in rows if event > since]
    first, last = since + back, max(arrival for _, arrival in held)
    times = [first + (last - first) * n / 6 for n in range(7)]
    both = shown = there = 0
    for t in times:
        for event, arrival in held:
            if not t - back < event <= t:
                continue
            true, told = arrival <= t, event + 30 * MINUTE <= t
            both, shown, there = both + (true and told), shown + told, there + true
    assert (both, shown, there) == (47, 59, 51)
    got = report.scores.row(0, named=True)
    assert (got["precision"], got["recall"], got["visible_bias"]) == (
        both / shown,
        both / there,
        (shown - there) / there,
    )
    assert math.isclose(got["f1"], 2 * both / (shown + there))
    assert report.rows == len(held)


def test_features_under_a_rule_are_those_of_the_join():
    rows = al.Observations(hourly(8, 20 * MINUTE).with_columns(value=pl.int_range(pl.len()).cast(pl.Float64)), [])
    report = al.assess_delay(al.FixedDelay("80m"), rows, since=at(4), lookback="4h", times=50)
    features = {row["feature"]: row for row in report.features.to_dicts()}
    assert features["value"]["bias"] == -1.0  # always the event before
    assert features["value"]["differs"] == 1.0
    assert features["value_count_4h"]["bias"] == -1.0
    scores = report.scores.row(0, named=True)
    assert (scores["age_bias_s"], scores["age_error_s"], scores["latest_differs"]) == (3600.0, 3600.0, 1.0)


def test_the_true_rule_is_perfect():
    report = al.compare_delays(al.Observations(hourly(8), []), 0.5)
    perfect = report.scores.filter(rule="empirical").row(0, named=True)
    assert [perfect[name] for name in ("precision", "recall", "f1", "visible_bias", "latest_differs")] == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert report.best("f1") == "fixed"  # as good, and named first
    assert report.scores["rule"].to_list() == ["fixed", "daily", "empirical"]


def test_fitting_can_tell_how_good_it_is():
    rule = al.fit_delay(al.Observations(hourly(8), []), holdout=0.5)
    assert rule.assessment is not None
    assert rule.assessment.since == at(0, "00:10") + (at(7, "23:10") - at(0, "00:10")) / 2
    assert rule == al.fit_delay(al.Observations(hourly(8), []))


def test_a_report_is_text_json_and_html():
    report = al.compare_delays(al.Observations(hourly(8), []), 0.5)
    text = str(report)
    assert text.splitlines()[0] == (
        "Delay rules against measured arrivals: observations, 96 keys new after 2026-01-08 23:40:00Z, "
        "1,000 prediction times up to 2026-01-12 23:10:00Z, 1h back"
    )
    assert "fixed: each row 10m later" in text
    assert "daily: at 23:00 UTC, on the day of the event" in text
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["scores"][0]["recall"] == 1.0
    assert report.to_html().startswith("<!doctype html>")
    assert "<script" not in report._repr_html_()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (al.FixedDelay("1836s"), "each row 30.6m later"),
        (al.PublishSchedule("06:00", "UTC"), "at 06:00 UTC, on the day after that of the event"),
        (al.PublishSchedule("06:00", "UTC", days=3, day_of="issue"), "at 06:00 UTC, 3 days after that of the issue"),
        (al.PublishSchedule("06:00", "UTC", days=-1), "at 06:00 UTC, on the day before that of the event"),
        (al.PublishSchedule("06:00", "UTC", days=-2), "at 06:00 UTC, 2 days before that of the event"),
    ],
)
def test_rules_are_told_in_words(rule, told):
    report = al.assess_delay({"one": rule}, al.Observations(hourly(8), []), since=at(4), times=10)
    assert f"one: {told}" in str(report)


def test_a_period_without_stamps_cannot_be_assessed():
    with pytest.raises(al.DelayFitError, match="nothing was measured after"):
        al.assess_delay(al.FixedDelay("1h"), al.Observations(hourly(4), []), since=at(9))


@pytest.mark.parametrize("arguments", [{"times": 0}, {"draws": 0}, {"rules": {"x": 3}}])
def test_an_assessment_that_means_nothing_is_refused(arguments):
    given = {"rules": al.FixedDelay("1h"), "since": at(2)} | arguments
    with pytest.raises(al.DefinitionError):
        al.assess_delay(given.pop("rules"), al.Observations(hourly(4), []), **given)


def test_a_share_held_out_is_between_none_and_all():
    with pytest.raises(al.DefinitionError):
        al.compare_delays(al.Observations(hourly(4), []), 1.0)
