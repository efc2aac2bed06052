"""Rows against their contract: what is set aside, why, and what becomes of the rest."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion import ProviderDefinition, create_log
from ingestion.checks import Checked, cast_column, check_rows
from ingestion.providers import ColumnRule, Contract, parse_dtype

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEMP = ColumnRule(dtype="Float64", unit="degC", min=-60, max=60)
STATION = ProviderDefinition(provider="mast", entities=("station",))
QUAKES = ProviderDefinition(provider="quakes", entities=("net",), key=("quake_id",))
RUNS = ProviderDefinition(provider="runs", entities=("zone",), kind="forecast")


def rows(**columns: list[Any]) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    keys = {"station": ["a"] * height, "event_time": [NOON] * height}
    return pl.DataFrame({**keys, **columns}, strict=False)


def contract(policies: dict[str, Any] | None = None, **columns: Any) -> Contract:
    return Contract(columns=columns, **(policies or {}))


def check(frame: pl.DataFrame, promised: Contract, definition: ProviderDefinition = STATION, **more: Any) -> Checked:
    return check_rows(frame, promised, definition, **more)


def reasons(checked: Checked) -> list[str | None]:
    return [None] * checked.frame.height if checked.reasons is None else checked.reasons.to_list()


# ------------------------------------------------------------------------------------------------------------- good rows


def test_rows_that_keep_the_contract_have_no_reasons_and_its_types() -> None:
    checked = check(rows(temp=[12, 13]), contract(temp=TEMP))
    assert checked.reasons is None
    assert checked.refused is None
    assert checked.flags == ()
    assert checked.frame.schema["temp"] == pl.Float64
    assert checked.frame["temp"].to_list() == [12.0, 13.0]


def test_an_empty_batch_is_neither_refused_nor_flagged() -> None:
    checked = check(pl.DataFrame(), contract(temp=TEMP))
    assert (checked.frame.height, checked.refused, checked.flags, checked.reasons) == (0, None, (), None)


def test_a_contract_without_columns_promises_nothing() -> None:
    checked = check(rows(temp=["warm"], wind=[2]), Contract())
    assert checked.frame.schema["temp"] == pl.String
    assert checked.frame.columns == ["station", "event_time", "temp", "wind"]
    assert checked.flags == ()


def test_the_bounds_themselves_are_allowed() -> None:
    checked = check(rows(temp=[-60.0, 60.0]), contract(temp=TEMP))
    assert reasons(checked) == [None, None]


# ------------------------------------------------------------------------------------------------- reasons, rule by rule


def test_a_reason_names_column_rule_value_and_unit() -> None:
    checked = check(rows(temp=[21.5, 412.0, -273.15]), contract(temp=TEMP))
    assert reasons(checked) == [
        None,
        "temp=412.0 is above max 60 degC",
        "temp=-273.15 is below min -60 degC",
    ]


def test_not_a_number_is_not_within_a_range() -> None:
    checked = check(rows(temp=[float("nan"), None]), contract(temp=TEMP))
    assert reasons(checked) == ["temp=NaN is no number, and has a range", None]


def test_not_a_number_is_kept_where_there_is_no_range() -> None:
    checked = check(rows(temp=[float("nan")]), contract(temp="Float64"))
    assert reasons(checked) == [None]


def test_a_null_is_a_value_unless_the_contract_says_otherwise() -> None:
    strict = ColumnRule(dtype="Float64", nullable=False)
    checked = check(rows(temp=[None, 1.0], wind=[None, 2.0]), contract(temp="Float64", wind=strict))
    assert reasons(checked) == ["wind is null", None]


def test_a_value_that_is_none_of_the_categories_is_set_aside() -> None:
    rule = ColumnRule(dtype="String", categories=("on", "off"))
    checked = check(rows(state=["on", "standby", None]), contract(state=rule))
    assert reasons(checked) == [None, "state='standby' is not among its categories", None]


def test_all_that_is_wrong_with_a_row_is_said_in_the_order_of_the_contract() -> None:
    frame = rows(temp=[99.0], n=[None]).with_columns(station=pl.lit(None, pl.String))
    checked = check(frame, contract(temp=TEMP, n=ColumnRule(dtype="Int64", nullable=False)))
    assert reasons(checked) == ["station is null; temp=99.0 is above max 60 degC; n is null"]


def test_numbers_written_as_text_are_numbers() -> None:
    checked = check(rows(temp=["21.5", " 3", "n/a", None]), contract(temp=TEMP))
    assert checked.frame["temp"].to_list() == [21.5, 3.0, None, None]
    assert reasons(checked) == [None, None, "temp='n/a' is no Float64", None]


def test_a_long_value_is_shortened_in_the_reason() -> None:
    checked = check(rows(temp=["1", "x" * 500]), contract(temp=TEMP))
    assert reasons(checked)[1] == f"temp='{'x' * 80}...' is no Float64"


def test_a_fraction_is_no_whole_number() -> None:
    checked = check(rows(n=[3.0, 3.5]), contract(n="Int64"))
    assert checked.frame["n"].to_list() == [3, None]
    assert reasons(checked) == [None, "n=3.5 is no Int64"]


def test_a_list_of_another_length_is_no_such_array() -> None:
    checked = check(rows(embedding=[[0.5, 1.0], [0.5]]), contract(embedding="Array(Float32, 2)"))
    assert checked.frame["embedding"].to_list() == [[0.5, 1.0], None]
    assert reasons(checked) == [None, "embedding=[0.5] is no Array(Float32, 2)"]


def test_instants_written_as_text_need_an_offset() -> None:
    frame = rows(temp=[1.0, 2.0, 3.0]).with_columns(
        event_time=pl.Series(["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01 12:00"])
    )
    checked = check(frame, contract(temp=TEMP))
    assert checked.frame["event_time"].to_list() == [NOON, NOON, None]
    assert reasons(checked) == [None, None, "event_time='2026-03-01 12:00' is no instant with an offset"]


def test_naive_instants_are_no_instants() -> None:
    frame = rows(temp=[1.0]).with_columns(event_time=pl.lit(datetime(2026, 3, 1, 12)))  # noqa: DTZ001 - that is the point
    assert reasons(check(frame, contract(temp=TEMP))) == [
        "event_time=2026-03-01 12:00:00.000000 is no instant with an offset"
    ]


def test_what_a_parser_could_not_read_is_the_reason() -> None:
    frame = rows(temp=[1.0, 2.0]).with_columns(__broken=pl.Series([None, "line 7 has 3 fields"]))
    checked = check(frame, contract(temp=TEMP))
    assert reasons(checked) == [None, "cannot be read: line 7 has 3 fields"]
    assert "__broken" not in checked.frame.columns
    assert "__broken" not in checked.original.columns


def test_the_original_is_kept_for_the_quarantine() -> None:
    checked = check(rows(temp=["n/a", "2"]), contract(temp=TEMP))
    assert checked.original["temp"].to_list() == ["n/a", "2"]
    assert checked.set_aside == 1


# ---------------------------------------------------------------------------------------------------------------- keys


def test_a_row_without_its_key_is_set_aside() -> None:
    frame = pl.DataFrame({"net": ["ak", "ak"], "quake_id": ["1", None], "event_time": [NOON, NOON], "mag": [1.0, 2.0]})
    assert reasons(check(frame, contract(mag="Float64"), QUAKES)) == [None, "quake_id is null"]


def test_entities_without_a_rule_are_text() -> None:
    frame = pl.DataFrame({"station": [7], "event_time": [NOON], "temp": [1.0]})
    assert check(frame, contract(temp=TEMP)).frame["station"].to_list() == ["7"]


def test_a_key_may_have_a_rule_of_its_own() -> None:
    frame = pl.DataFrame({"station": ["7", "x", "900"], "event_time": [NOON] * 3, "temp": [1.0] * 3})
    checked = check(frame, contract(station=ColumnRule(dtype="Int32", max=100), temp=TEMP))
    assert checked.frame["station"].to_list() == [7, None, 900]
    assert reasons(checked) == [None, "station='x' is no Int32", "station=900 is above max 100"]


def test_a_batch_without_its_key_column_is_refused() -> None:
    checked = check(rows(temp=[1.0]).drop("station"), contract(temp=TEMP))
    assert checked.refused == "there is no column 'station'"
    assert checked.frame.schema["station"] == pl.String


def test_a_batch_without_event_times_is_refused() -> None:
    checked = check(rows(temp=[1.0]).drop("event_time"), contract(temp=TEMP))
    assert checked.refused == "there is no column 'event_time'"


def test_a_forecast_needs_its_issue_if_the_batch_has_issues() -> None:
    frame = pl.DataFrame({"zone": ["GB"] * 2, "event_time": [NOON] * 2, "issue_time": [NOON, None], "mw": [1.0, 2.0]})
    assert reasons(check(frame, contract(mw="Float64"), RUNS)) == [None, "issue_time is null"]
    assert reasons(check(frame.drop("issue_time"), contract(mw="Float64"), RUNS)) == [None, None]


# --------------------------------------------------------------------------------------------------------- retractions


def test_a_retraction_needs_its_key_only() -> None:
    strict = ColumnRule(dtype="Float64", nullable=False, min=0)
    frame = pl.DataFrame(
        {"net": ["ak", "ak"], "quake_id": ["1", "2"], "event_time": [None, NOON], "is_retraction": [True, None]},
        schema_overrides={"event_time": pl.Datetime("us", "UTC")},
    ).with_columns(mag=pl.Series([None, -1.0]))
    assert reasons(check(frame, contract(mag=strict), QUAKES)) == [None, "mag=-1.0 is below min 0"]


def test_a_batch_of_retractions_loses_no_columns() -> None:
    frame = pl.DataFrame({"net": ["ak"], "quake_id": ["1"], "is_retraction": [True]})
    checked = check(frame, contract(mag=ColumnRule(dtype="Float64", nullable=False)), QUAKES)
    assert (checked.refused, checked.reasons) == (None, None)
    assert checked.frame["mag"].to_list() == [None]


# ------------------------------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("policy", "expected", "refused"),
    [
        ("quarantine", ["temp=99.0 is above max 60 degC", None], None),
        ("flag", [None, None], None),
        (
            "refuse",
            [
                "temp=99.0 is above max 60 degC",
                "the batch was refused: temp=99.0 is above max 60 degC (1 of 2 rows)",
            ],
            "temp=99.0 is above max 60 degC (1 of 2 rows)",
        ),
    ],
)
def test_broken_rows_follow_their_policy(policy: str, expected: list[str | None], refused: str | None) -> None:
    checked = check(rows(temp=[99.0, 1.0]), contract({"on_broken_row": policy}, temp=TEMP))
    assert reasons(checked) == expected
    assert checked.refused == refused
    assert checked.frame["temp"].to_list() == [99.0, 1.0]
    (flag,) = checked.flags
    assert (flag.kind, flag.column, flag.policy, flag.count, flag.row) == ("range", "temp", policy, 1, 0)


def test_a_value_that_cannot_be_stored_is_set_aside_even_if_broken_rows_are_flagged() -> None:
    checked = check(rows(temp=["n/a", "1"]), contract({"on_broken_row": "flag"}, temp=TEMP))
    assert reasons(checked) == ["temp='n/a' is no Float64", None]


def test_a_column_of_another_type_is_told_apart_from_single_values() -> None:
    checked = check(rows(temp=["warm", "cold", None]), contract(temp=TEMP))
    assert reasons(checked) == ["temp='warm' is no Float64", "temp='cold' is no Float64", None]
    assert [(flag.kind, flag.count) for flag in checked.flags] == [("changed_type", 2)]


def test_a_batch_with_a_column_of_another_type_can_be_refused() -> None:
    policies = {"on_changed_type": "refuse"}
    assert check(rows(temp=["warm", "cold"]), contract(policies, temp=TEMP)).refused == (
        "temp='warm' is no Float64 (2 of 2 rows)"
    )
    assert check(rows(temp=["warm", "1"]), contract(policies, temp=TEMP)).refused is None


@pytest.mark.parametrize(
    ("policy", "columns", "added", "refused", "flags"),
    [
        ("flag", ["station", "event_time", "temp"], (), None, 1),
        ("ignore", ["station", "event_time", "temp"], (), None, 0),
        ("add", ["station", "event_time", "temp", "gust"], ("gust",), None, 1),
        ("refuse", ["station", "event_time", "temp"], (), "column 'gust' (Float64) has no rule", 1),
    ],
)
def test_new_columns_follow_their_policy(
    policy: str, columns: list[str], added: tuple[str, ...], refused: str | None, flags: int
) -> None:
    checked = check(rows(temp=[1.0], gust=[2.0]), contract({"on_new_column": policy}, temp=TEMP))
    assert checked.frame.columns == columns
    assert (checked.added, checked.refused, len(checked.flags)) == (added, refused, flags)


def test_a_new_column_without_any_value_is_not_added_yet() -> None:
    checked = check(rows(temp=[1.0], gust=[None]), contract({"on_new_column": "add"}, temp=TEMP))
    assert checked.added == ()


def test_a_column_that_the_log_needs_for_itself_is_left_out() -> None:
    checked = check(rows(temp=[1.0], batch_id=["x"]), Contract())
    assert checked.frame.columns == ["station", "event_time", "temp"]
    assert str(checked.flags[0]) == "new column: column 'batch_id' is the log's own (1 row left out)"


def test_a_lost_column_refuses_the_batch_unless_it_may_be_null() -> None:
    lost = check(rows(temp=[1.0]), contract(temp=TEMP, wind="Float64"))
    assert lost.refused == "there is no column 'wind'"
    assert reasons(lost) == ["the batch was refused: there is no column 'wind'"]
    null = check(rows(temp=[1.0]), contract({"on_lost_column": "null"}, temp=TEMP, wind="Float32"))
    assert (null.refused, null.reasons) == (None, None)
    assert null.frame["wind"].to_list() == [None]
    assert null.frame.schema["wind"] == pl.Float32
    assert str(null.flags[0]) == "lost column: there is no column 'wind' (1 row taken for null)"


def test_new_categories_follow_their_policy() -> None:
    rule = ColumnRule(dtype="String", categories=("on",))
    flagged = check(rows(state=["off"]), contract({"on_new_category": "flag"}, state=rule))
    assert (flagged.reasons, flagged.refused) == (None, None)
    assert flagged.notes == ("new category: state='off' is not among its categories (1 row kept)",)
    refused = check(rows(state=["off"]), contract({"on_new_category": "refuse"}, state=rule))
    assert refused.refused == "state='off' is not among its categories (1 of 1 rows)"


def test_rows_from_the_future_refuse_the_batch_if_the_contract_says_so() -> None:
    # Clock tolerance 5 s and publish margin 0.5 s: the log may stamp it 5.5 s after it was in hand at the earliest.
    promised = contract({"on_clock_fault": "refuse"}, temp=TEMP)
    frame = rows(temp=[1.0])
    on_the_bound = NOON - timedelta(seconds=5.5)
    assert check(frame, promised, received_time=on_the_bound).refused is None
    late = check(frame, promised, received_time=on_the_bound - timedelta(microseconds=1))
    assert late.refused == "event_time is later than its arrival can be (1 of 1 rows)"
    assert check(frame, contract(temp=TEMP), received_time=NOON - timedelta(days=1)).refused is None


# ------------------------------------------------------------------------------------------------------ partial updates


def test_a_column_that_is_not_sent_is_absent_where_updates_are_columns() -> None:
    strict = ColumnRule(dtype="Float64", nullable=False)
    checked = check(rows(temp=[1.0, 2.0]), contract({"updates": "columns"}, temp=TEMP, wind=strict))
    assert checked.frame["__absent"].to_list() == [["wind"], ["wind"]]
    assert (checked.refused, checked.reasons, checked.flags) == (None, None, ())


def test_absent_is_not_null() -> None:
    strict = ColumnRule(dtype="Float64", nullable=False)
    frame = rows(wind=[None, None]).with_columns(__absent=pl.Series([["wind"], []], dtype=pl.List(pl.String)))
    checked = check(frame, contract({"updates": "columns"}, wind=strict))
    assert reasons(checked) == [None, "wind is null"]


# ----------------------------------------------------------------------------------------------------------------- laws

VALUES = st.sampled_from(["1", "61", "-61", "n/a", "", "nan", " 7 ", "1e3", None])
STATES = st.sampled_from(["on", "off", "broken", None])
PROMISED = contract(
    temp=TEMP, state=ColumnRule(dtype="String", categories=("on", "off")), n=ColumnRule(dtype="Int8", nullable=False)
)
ROW = st.tuples(st.sampled_from(["a", "b", None]), VALUES, STATES, st.sampled_from(["1", "1.0", "1.5", "300", None]))


def batch(drawn: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {"station": pl.String, "temp": pl.String, "state": pl.String, "n": pl.String}
    return pl.DataFrame(drawn, schema=schema, orient="row").with_columns(event_time=pl.lit(NOON))


@given(st.lists(ROW, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_irrelevant(drawn: list[tuple[Any, ...]], random: Any) -> None:
    order = list(range(len(drawn)))
    random.shuffle(order)
    one = check(batch(drawn), PROMISED)
    other = check(batch([drawn[number] for number in order]), PROMISED)
    assert reasons(other) == [reasons(one)[number] for number in order]
    assert other.frame.equals(one.frame[order])


@given(st.lists(ROW, min_size=1, max_size=12), st.lists(ROW, max_size=12))
def test_good_rows_are_not_touched_by_others(drawn: list[tuple[Any, ...]], others: list[tuple[Any, ...]]) -> None:
    alone = check(batch(drawn), PROMISED)
    together = check(batch([*drawn, *others]), PROMISED)
    assert reasons(together)[: len(drawn)] == reasons(alone)
    assert together.frame.head(len(drawn)).equals(alone.frame)


@given(st.lists(ROW, min_size=1, max_size=12))
def test_what_passed_once_passes_again_unchanged(drawn: list[tuple[Any, ...]]) -> None:
    checked = check(batch(drawn), PROMISED)
    good = [number for number, reason in enumerate(reasons(checked)) if reason is None]
    again = check(checked.frame[good], PROMISED)
    assert again.reasons is None
    assert again.frame.equals(checked.frame[good])


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70).map(float)), max_size=20))
def test_a_cast_loses_nothing_or_says_so(values: list[float | None]) -> None:
    came = pl.Series("value", values, dtype=pl.Float64)
    for dtype in (pl.Int64(), pl.Int8(), pl.String(), pl.Boolean()):
        cast, fails = cast_column(came, dtype)
        assert cast.dtype == dtype
        for before, after, failed in zip(came, cast, fails, strict=True):
            assert (after is None) == (before is None or failed)
            if after is not None:
                assert float(after) == before or before != before  # noqa: PLR0124 - NaN as text is NaN again


# Every type that a parser may bring, and every type that a contract may ask for.
CAME = [
    pl.Series("c", [1, 2**62, None], dtype=pl.Int64),
    pl.Series("c", [2**63, 1, None], dtype=pl.UInt64),
    pl.Series("c", [2**100, 1, None], dtype=pl.Int128),
    pl.Series("c", [1.5, math.nan, math.inf, None]),
    pl.Series("c", ["1", "x", "", None, "2026-03-01", "[1]", "true", "9" * 400, "1e5", "\u0661", "-0", "1_000"]),
    pl.Series("c", [True, None]),
    pl.Series("c", [b"x", None]),
    pl.Series("c", [date(2026, 3, 1), None]),
    pl.Series("c", [time(12), None]),
    pl.Series("c", [datetime(2026, 3, 1), None]),  # noqa: DTZ001 - naive instants come too
    pl.Series("c", [datetime(9999, 1, 1, tzinfo=UTC), None], dtype=pl.Datetime("ms", "UTC")),
    pl.Series("c", [timedelta(days=1), None]),
    pl.Series("c", [[1, 2], None, []]),
    pl.Series("c", [["a"], None]),
    pl.Series("c", [[1.0, 2.0], None], dtype=pl.Array(pl.Float64, 2)),
    pl.Series("c", [{"a": 1}, None]),
    pl.Series("c", [None, None]),
    pl.Series("c", ["a", None], dtype=pl.Categorical),
    pl.Series("c", [Decimal("1.50"), Decimal("1.00"), None]),
]
ASKED = ["Float64", "Float32", "Int8", "UInt64", "Boolean", "String", "Binary", "Date", "Time", "Duration(us)"]
ASKED += ["Datetime(us, UTC)", "Datetime(ns, UTC)", "Datetime(ms)", "Datetime(us, Europe/Berlin)", "Decimal(10, 2)"]
ASKED += ["List(Float32)", "List(String)", "Array(Float32, 2)", "List(List(Int8))", "List(Date)"]


@pytest.mark.parametrize("asked", ASKED)
def test_whatever_comes_is_of_its_type_or_has_a_reason(asked: str) -> None:
    for values in CAME:
        for came in (values, values.clear()):
            frame = pl.DataFrame({"c": came}).with_columns(station=pl.lit("a"), event_time=pl.lit(NOON))
            checked = check(frame, contract(c=asked))
            assert checked.frame.schema["c"] == parse_dtype(asked)
            lost = [
                before is not None and after is None for before, after in zip(came, checked.frame["c"], strict=True)
            ]
            assert [reason is not None for reason in reasons(checked)] == lost


@pytest.mark.parametrize(
    "name", ["event_time", "received_time", "is_retraction", "arrival_kind", "station", "__absent"]
)
def test_whatever_stands_in_the_log_s_own_columns_is_judged_and_not_raised(name: str) -> None:
    for values in CAME:
        frame = pl.DataFrame({name: values}).with_columns(temp=pl.lit(1.0))
        for policies in ({}, {"updates": "columns"}):
            checked = check(frame, contract(policies, temp=TEMP))
            assert checked.frame.height == frame.height


def test_a_duration_is_kept_in_the_quarantine_as_text(tmp_path: Path) -> None:
    log = create_log(tmp_path, "mast", entities=["station"], clock=lambda: NOON)
    frame = rows(open_for=[timedelta(hours=1), timedelta(hours=2)])
    log.append(frame, reasons=pl.Series([None, "too long"]))
    assert log.quarantine()["payload"].str.json_path_match("$.open_for").to_list() == ["PT2H"]


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_a_number_with_too_many_digits_for_its_decimal_is_a_row_at_fault(dtype: type[pl.DataType]) -> None:
    values = [1.5, 1e15, float("inf"), 99_999_999_999_999.99, 1e300 if dtype == pl.Float64 else 1e38, -1e15, None]
    cast, fails = cast_column(pl.Series(values, dtype=dtype), pl.Decimal(20, 6))
    too_many = [False, True, True, dtype == pl.Float32, True, True, False]
    assert fails.to_list() == too_many
    assert cast[0] == Decimal("1.5")
    rounded, fails = cast_column(pl.Series([99.994, 99.996]), pl.Decimal(4, 2))
    assert (rounded.to_list(), fails.to_list()) == ([None, None], [True, True])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (
            pl.Int64(),
            ["9007199254740993.0", "9223372036854775808", "1e3", "1.0000000000000000001"],
            [2**53 + 1, None, 1000, None],
        ),
        (pl.UInt64(), ["18446744073709551615", "-1"], [2**64 - 1, None]),
        (
            pl.Float64(),
            ["9007199254740993", "9007199254740993.0", "9007199254740994.0", "0.1"],
            [None, None, 2.0**53 + 2, 0.1],
        ),
        (pl.Float64(), [Decimal(2**53 + 1), Decimal(2**53)], [None, 2.0**53]),
        (pl.Float64(), [Decimal("0.1"), Decimal("12345678901234567.89")], [0.1, None]),
        (pl.Float32(), [2**24 + 1, 2**24, -(2**24)], [None, 2.0**24, -(2.0**24)]),
        (pl.Float32(), ["16777217", "16777216"], [None, 2.0**24]),
        (
            pl.Decimal(20, 2),
            ["1000000000000.005", "1.50", "1.500", "1e3", "1e-3", "+.5"],
            [None, "1.50", "1.50", "1000.00", None, "0.50"],
        ),
        (pl.Decimal(20, 2), [Decimal("1.005"), Decimal("1.010")], [None, "1.01"]),
        (pl.Decimal(4, 2), ["99.99", "100", "1e2", "nan"], ["99.99", None, None, None]),
        (pl.Time(), ["12:00:00.123456789", "12:00:00.1234567891"], [time(12, 0, 0, 123456), None]),
        (
            pl.List(pl.String),
            ['["a", "b,]\\"c"]', "[a, b]", '["a"', '[["a"]]', "[]"],
            [["a", 'b,]"c'], ["a", "b"], None, None, []],
        ),
        (pl.List(pl.Float64), ["[1, 2.5, null]", '["1", "x"]'], [[1.0, 2.5, None], None]),
    ],
    ids=str,
)
def test_no_digit_is_lost_in_a_cast(dtype: pl.DataType, values: list[Any], expected: list[Any]) -> None:
    came = pl.Series(values)
    cast, fails = cast_column(came, dtype)
    decimals = isinstance(dtype, pl.Decimal)
    assert cast.to_list() == [Decimal(e) if decimals and e is not None else e for e in expected]
    assert fails.to_list() == [e is None for e in expected]
    assert came.to_list() == values  # what came is untouched


@pytest.mark.parametrize("end", ["", "Z", "+01:00"])
@pytest.mark.parametrize(
    ("unit", "fraction", "fits"),
    [
        ("ms", ".123", True),
        ("ms", ".1230", True),
        ("ms", ".1234", False),
        ("us", ".123456", True),
        ("us", ".1234567", False),
    ],
)
def test_text_that_is_finer_than_the_unit_is_no_such_instant(unit: Any, fraction: str, fits: bool, end: str) -> None:
    dtype = pl.Datetime(unit, "UTC" if end else None)
    _, fails = cast_column(pl.Series([f"2026-01-05T10:00:00{fraction}{end}"]), dtype)
    assert fails.to_list() == [not fits]


def test_nanoseconds_of_the_event_round_up() -> None:
    checked = check_rows(
        rows(temp=[1.0]).with_columns(event_time=pl.lit("2026-03-01T12:00:00.000000001Z")), Contract(), STATION
    )
    assert checked.reasons is None
    assert checked.frame["event_time"].to_list() == [NOON + timedelta(microseconds=1)]
