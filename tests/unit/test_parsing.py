"""Bytes to rows: every format, every way of writing an instant, and what is said of bytes that are not whole."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingestion.errors import PayloadError
from ingestion.sources import times
from ingestion.sources.layout import Layout, RetractionRule, StateTime, TimeFormat
from ingestion.sources.parsing import parse_payload, state_time_of
from ingestion.sources.times import read_instants

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def parse(content: bytes, label: str = "page", **layout: Any) -> pl.DataFrame:
    return parse_payload(content, Layout(**layout), provider="meter", label=label)


def instants(values: list[Any], **how: Any) -> tuple[list[datetime | None], list[str | None]]:
    read, problems = read_instants(pl.Series("t", values), TimeFormat(**how))
    assert read.dtype == pl.Datetime("us", "UTC")
    return read.to_list(), problems.to_list()


def arrow_file(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def arrow_stream(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


# ---- formats ---------------------------------------------------------------------------------------------------------


def test_geojson_gives_its_features_by_paths() -> None:
    content = json.dumps(
        {
            "metadata": {"generated": 1_748_779_200_000},
            "features": [
                {
                    "id": "us1",
                    "properties": {"time": 1_748_779_200_123, "mag": 4.5},
                    "geometry": {"coordinates": [-120.5, 38.25, 7]},
                },
                {"id": "us2", "properties": {"time": 1_748_779_200_000, "mag": None}, "geometry": None},
            ],
        }
    ).encode()
    frame = parse(
        content,
        records="features",
        columns={
            "quake_id": "id",
            "event_time": "properties.time",
            "mag": "properties.mag",
            "lon": "geometry.coordinates.0",
            "depth_km": "geometry.coordinates.2",
            "generated": "$.metadata.generated",
        },
        constants={"net": "us"},
        times={"event_time": TimeFormat(format="epoch_ms")},
    )
    assert frame.to_dicts() == [
        {
            "quake_id": "us1",
            "event_time": NOON + timedelta(milliseconds=123),
            "mag": 4.5,
            "lon": -120.5,
            "depth_km": 7,
            "generated": 1_748_779_200_000,
            "net": "us",
        },
        {
            "quake_id": "us2",
            "event_time": NOON,
            "mag": None,
            "lon": None,
            "depth_km": None,
            "generated": 1_748_779_200_000,
            "net": "us",
        },
    ]


ROWS = pl.DataFrame(
    {"plant": ["north", "south"], "event_time": [NOON, NOON + timedelta(hours=1)], "load_kw": [1.5, None]}
)
AS_JSON = [
    {"plant": "north", "event_time": "2025-06-01T12:00:00Z", "load_kw": 1.5},
    {"plant": "south", "event_time": "2025-06-01T15:00:00+02:00", "load_kw": None},
]


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("json", json.dumps(AS_JSON).encode()),
        ("json", b"\xef\xbb\xbf" + json.dumps(AS_JSON).encode()),
        ("ndjson", "\n".join(json.dumps(row) for row in AS_JSON).encode()),
        ("ndjson", b"\n" + "\r\n\r\n".join(json.dumps(row) for row in AS_JSON).encode() + b"\r\n"),
        ("csv", b"plant,event_time,load_kw\nnorth,2025-06-01T12:00:00Z,1.5\nsouth,2025-06-01 13:00Z,\n"),
        (
            "csv",
            b'\xef\xbb\xbfplant,event_time,load_kw\r\n"north",20250601T120000Z,1.5\r\nsouth,2025-06-01T13:00:00.000Z,\r\n',
        ),
        ("parquet", parquet(ROWS)),
        ("arrow", arrow_file(ROWS)),
        ("arrow", arrow_stream(ROWS)),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_format_gives_the_same_rows(form: str, content: bytes, zipped: bool) -> None:
    content = gzip.compress(content, mtime=0) if zipped else content
    assert parse(content, format=form).equals(ROWS)


@pytest.mark.parametrize(
    ("label", "media_type", "content"),
    [
        ("https://x.example/rows?format=csv", "text/csv; charset=utf-8", b"a\n1\n"),
        ("day.csv.gz", "", gzip.compress(b"a\n1\n", mtime=0)),
        ("day.NDJSON", "application/octet-stream", b'{"a":1}\n'),
        ("x", "application/geo+json", b'{"a":1}'),
        ("x", "", b'[{"a":1}]'),
        ("x", "", parquet(pl.DataFrame({"a": [1]}))),
        ("x", "", arrow_file(pl.DataFrame({"a": [1]}))),
    ],
)
def test_the_format_is_guessed_from_media_type_name_and_first_bytes(
    label: str, media_type: str, content: bytes
) -> None:
    frame = parse_payload(content, Layout(), provider="meter", label=label, media_type=media_type)
    assert frame.to_dicts() == [{"a": 1}]


def test_paths_lead_into_structs_and_lists_of_tables() -> None:
    frame = pl.DataFrame({"a": [{"b": [1, 2]}, {"b": [3]}], "c": ["x", "y"]})
    found = parse(parquet(frame), format="parquet", columns={"second": "a.b.1", "whole": "a.b", "gone": "a.z"})
    assert found.to_dicts() == [{"second": 2, "whole": [1, 2]}, {"second": None, "whole": [3]}]


def test_a_document_may_be_one_row_and_a_name_may_have_dots() -> None:
    assert parse(b'{"a.b": 1, "a": {"b": 2}}', format="json", columns={"x": "a.b"}).to_dicts() == [{"x": 1}]


def test_no_rows_are_no_error() -> None:
    frame = parse(
        b'{"rows": []}', format="json", records="rows", columns={"event_time": "t", "v": "v"}, constants={"p": 1}
    )
    assert frame.schema == {"event_time": pl.Datetime("us", "UTC"), "v": pl.Null(), "p": pl.Int64()}
    assert frame.height == 0
    assert parse(b"a,b\n", format="csv").height == 0
    assert parse(b"", format="ndjson").height == 0


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2, None], pl.Int64(), [1, 2, None]),
        ([1, 2.5], pl.Float64(), [1.0, 2.5]),
        # 2**53 + 1 is no float: beside a fraction both are kept as text, never rounded
        ([2**53 + 1, 0.5], pl.String(), ["9007199254740993", "0.5"]),
        ([2**53 + 1, 1], pl.Int64(), [2**53 + 1, 1]),
        ([2**64, -1], pl.Int128(), [2**64, -1]),
        ([2**130], pl.String(), [str(2**130)]),
        ([True, None], pl.Boolean(), [True, None]),
        ([True, 1], pl.String(), ["true", "1"]),
        ([1.5, "n/a"], pl.String(), ["1.5", "n/a"]),
        ([[1, 2.5], None, []], pl.List(pl.Float64()), [[1.0, 2.5], None, []]),
        ([["a"], [None]], pl.List(pl.String()), [["a"], [None]]),
        ([[1], 2], pl.String(), ["[1]", "2"]),
        ([{"a": [1, "é"]}], pl.String(), ['{"a":[1,"é"]}']),
        ([None, None], pl.Null(), [None, None]),
    ],
)
def test_json_values_keep_what_they_are(values: list[Any], dtype: pl.DataType, expected: list[Any]) -> None:
    content = json.dumps([{"v": value} for value in values]).encode()
    found = parse(content, format="json")["v"]
    assert (found.dtype, found.to_list()) == (dtype, expected)


def test_nan_is_not_null() -> None:
    nan, null = parse(b'[{"v": NaN}, {"v": null}]', format="json")["v"].to_list()
    assert math.isnan(nan)
    assert null is None


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert parse(b'[{"v": "a\\ud800b"}]', format="json")["v"].to_list() == ["a\ufffdb"]


@pytest.mark.parametrize(
    ("texts", "dtype", "expected"),
    [
        (["1", "-2", ""], pl.Int64(), [1, -2, None]),
        (["1", "2.5", "1e3"], pl.Float64(), [1.0, 2.5, 1000.0]),
        (["007", "12"], pl.String(), ["007", "12"]),  # an identifier, not a number
        (["00.5", "1"], pl.String(), ["00.5", "1"]),
        (["12345678901234567890"], pl.String(), ["12345678901234567890"]),
        (["0.5", "1234567890123456789"], pl.String(), ["0.5", "1234567890123456789"]),
        (["true", "False"], pl.Boolean(), [True, False]),
        (["x", '""'], pl.String(), ["x", ""]),
        (["", ""], pl.Null(), [None, None]),
        (["1.5", "n/a"], pl.String(), ["1.5", "n/a"]),
        (["1.5", "-Infinity"], pl.Float64(), [1.5, -math.inf]),
    ],
)
def test_csv_reads_numbers_only_where_nothing_is_lost(
    texts: list[str], dtype: pl.DataType, expected: list[Any]
) -> None:
    content = "v,w\n" + "".join(f"{text},x\n" for text in texts)
    found = parse(content.encode(), format="csv")["v"]
    assert (found.dtype, found.to_list()) == (dtype, expected)


def test_csv_of_other_habits() -> None:
    content = "Zähler;Wert;Zeit\n12;1,5;01.06.2025 14:00\n13;k.A.;01.06.2025 14:15\n".encode("latin-1")
    frame = parse(
        content,
        format="csv",
        separator=";",
        decimal_comma=True,
        encoding="latin-1",
        nulls=("k.A.",),
        text=("meter",),
        columns={"meter": "Zähler", "kw": "Wert", "event_time": "Zeit"},
        times={"event_time": TimeFormat(format="strptime", pattern="%d.%m.%Y %H:%M", zone="Europe/Berlin")},
    )
    assert frame.to_dicts() == [
        {"meter": "12", "kw": 1.5, "event_time": NOON},
        {"meter": "13", "kw": None, "event_time": NOON + timedelta(minutes=15)},
    ]


def test_a_point_beside_a_decimal_comma_may_mean_thousands_and_stays_text() -> None:
    frame = parse(b"a;b\n1.234;x\n1,5;y\n", format="csv", separator=";", decimal_comma=True)
    assert frame["a"].to_list() == ["1.234", "1,5"]


def test_lost_and_other_columns() -> None:
    content = b'[{"a": 1, "b": 2}, {"a": 3}]'
    lost = parse(content, format="json", columns={"x": "a", "y": "b", "z": "gone"})
    assert lost.to_dicts() == [{"x": 1, "y": 2}, {"x": 3, "y": None}]  # z, which no row has, is not there at all
    kept = parse(content, format="json", columns={"x": "a"}, others="keep")
    assert kept.columns == ["x", "b"]


def test_rows_without_any_declared_column_are_no_empty_answer() -> None:
    with pytest.raises(PayloadError) as caught:
        parse(b"id;at\na;1\n", format="csv", columns={"station": "id", "event_time": "at"})
    assert str(caught.value) == (
        "provider 'meter': page: there is no column 'id' (for station)\n\nhint: it is one of 'id;at'."
    )
    assert parse(b"id,at\n", format="csv", columns={"station": "id", "event_time": "at"}).is_empty()


def test_a_table_must_have_what_is_named() -> None:
    columns = {"event_time": "at", "load_kw": "kwh"}
    with pytest.raises(PayloadError, match=r"there is no column 'kwh' \(for load_kw\)\n\nhint: did you mean 'kw'"):
        parse(b"at,kw\n2025-06-01T12:00:00Z,1\n", format="csv", columns=columns)
    frame = parse(b"at,kw\n2025-06-01T12:00:00Z,1\n", format="csv", columns=columns, optional=("load_kw",))
    assert frame.columns == ["event_time"]


def test_json_may_lack_what_is_not_required() -> None:
    content, columns = b'[{"meter": "a", "kw": 1}]', {"meter": "metr", "load_kw": "kw"}
    assert parse(content, format="json", columns=columns).columns == ["load_kw"]
    with pytest.raises(PayloadError, match=r"there is no field 'metr' \(for meter\)\n\nhint: did you mean 'meter'"):
        parse(content, format="json", columns=columns, required=("meter",))


def test_absent_is_not_null() -> None:
    content = b'[{"a": null, "b": 2}, {"a": 3}, {"b": 4}]'
    frame = parse(content, format="json", columns={"x": "a", "y": "b", "z": "c"}, mark_absent=True)
    assert frame["__absent"].to_list() == [["z"], ["y", "z"], ["x", "z"]]
    assert frame["z"].to_list() == [None, None, None]
    assert parse(b'[{"a": 1}]', format="json", mark_absent=True)["__absent"].to_list() == [[]]


def test_our_own_names_are_refused_in_a_payload() -> None:
    with pytest.raises(PayloadError, match="has a field '__absent', which is a name of our own"):
        parse(b'[{"a": 1, "__absent": ["a"]}]', format="json")


def test_a_rule_tells_retractions() -> None:
    content = b'[{"id": 1, "status": "ok"}, {"id": 2, "status": "deleted"}, {"id": 3}, {"id": 4, "status": true}]'
    rule = RetractionRule(column="status", values=("deleted", True))
    frame = parse(content, format="json", columns={"id": "id"}, retraction=rule)
    assert frame["is_retraction"].to_list() == [False, True, False, True]
    assert frame.columns == ["id", "is_retraction"]
    assert parse(b"id,status\n1,deleted\n", format="csv", retraction=rule)["is_retraction"].to_list() == [True]


# ---- instants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-06-01T12:00:00Z", NOON),
        ("2025-06-01t12:00z", NOON),
        ("2025-06-01 14:00:00.000+02:00", NOON),
        ("20250601T083000-0330", NOON),
        ("2025-06-01T12:00:00 UTC", NOON),
        ("2025-05-31T24:00:00Z", datetime(2025, 6, 1, tzinfo=UTC)),
        ("2025-06-01T12:00:00.000001Z", NOON + timedelta(microseconds=1)),
        # finer than we keep rounds up: nothing is known before it was
        ("2025-06-01T12:00:00.0000001Z", NOON + timedelta(microseconds=1)),
        ("2025-06-01T11:59:59.9999999Z", NOON),
        ("1969-12-31T23:59:59,5Z", datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
    ],
)
def test_iso_instants(text: str, expected: datetime) -> None:
    assert instants([text]) == ([expected], [None])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("soon", "'soon' is not an ISO 8601 instant"),
        ("2025-02-30T12:00Z", "'2025-02-30T12:00Z' is not an ISO 8601 instant"),
        ("2025-06-01T25:00Z", "'2025-06-01T25:00Z' is not an ISO 8601 instant"),
        ("2025-06-01T12:00+25:00", "'2025-06-01T12:00+25:00' is not an ISO 8601 instant"),
        ("2025-06-01T12:00", "'2025-06-01T12:00' has no time zone"),
        ("2025-06-01", "'2025-06-01' is a date without a time: its layout needs zone and date_means"),
    ],
)
def test_what_is_no_instant_says_why(text: str, problem: str) -> None:
    assert instants(["2025-06-01T12:00Z", text, None]) == ([NOON, None, None], [None, problem, None])


@pytest.mark.parametrize(
    ("style", "values", "expected"),
    [
        ("epoch_s", [1_748_779_200], NOON),
        ("epoch_s", [1_748_779_200.25], NOON + timedelta(milliseconds=250)),
        ("epoch_s", ["1748779200.1234567"], NOON + timedelta(microseconds=123_457)),
        ("epoch_ms", [1_748_779_200_001], NOON + timedelta(milliseconds=1)),
        ("epoch_us", [1_748_779_200_000_001], NOON + timedelta(microseconds=1)),
        ("epoch_ns", [1_748_779_200_000_000_001], NOON + timedelta(microseconds=1)),
        ("epoch_ns", ["1748779200000000000"], NOON),
    ],
)
def test_numbers_since_1970(style: Any, values: list[Any], expected: datetime) -> None:
    assert instants(values, format=style) == ([expected], [None])


def test_numbers_that_are_no_instants() -> None:
    assert instants([2**62, 0], format="epoch_s") == (
        [None, datetime(1970, 1, 1, tzinfo=UTC)],
        [f"'{2**62}' is not an instant in s since 1970", None],
    )
    assert instants(["x", "nan"], format="epoch_ms")[0] == [None, None]


def test_local_times_in_a_gap_and_doubled_ones() -> None:
    # Berlin 2025: 02:00 to 03:00 does not exist on 30 March, and 02:00 to 03:00 comes twice on 26 October.
    found, _ = instants(["2025-03-30T02:30:00", "2025-10-26T02:30:00", "2025-10-26T03:00:00"], zone="Europe/Berlin")
    assert found == [
        datetime(2025, 3, 30, 1, tzinfo=UTC),
        datetime(2025, 10, 26, 0, 30, tzinfo=UTC),
        datetime(2025, 10, 26, 2, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("means", "expected"),
    [("start", datetime(2025, 10, 25, 22, tzinfo=UTC)), ("end", datetime(2025, 10, 26, 23, tzinfo=UTC))],
)
def test_a_date_is_the_start_or_the_end_of_its_day(means: Any, expected: datetime) -> None:
    # 26 October 2025 has 25 hours in Berlin.
    want = [expected]
    assert instants(["2025-10-26"], format="date", zone="Europe/Berlin", date_means=means)[0] == want
    assert instants([date(2025, 10, 26)], zone="Europe/Berlin", date_means=means)[0] == want
    pattern = {"format": "strptime", "pattern": "%Y%m%d", "zone": "Europe/Berlin", "date_means": means}
    assert instants(["20251026"], **pattern)[0] == want


def test_strptime_with_its_own_offset_and_without_a_zone() -> None:
    assert instants(["01/06/25 14:00 +0200"], format="strptime", pattern="%d/%m/%y %H:%M %z")[0] == [NOON]
    found, problems = instants(["01/06/25 14:00", "no"], format="strptime", pattern="%d/%m/%y %H:%M")
    assert found == [None, None]
    assert problems == ["'01/06/25 14:00' has no time zone", "'no' does not look like '%d/%m/%y %H:%M'"]


def test_typed_instants_are_turned_and_rounded_up() -> None:
    exact = pl.Series("t", [1_748_779_200_000_000_001], dtype=pl.Int64).cast(pl.Datetime("ns", "Asia/Tokyo"))
    assert read_instants(exact, TimeFormat())[0].to_list() == [NOON + timedelta(microseconds=1)]
    naive = pl.Series("t", [datetime(2025, 6, 1, 14)])  # noqa: DTZ001 - naive is the point
    assert read_instants(naive, TimeFormat(zone="Europe/Berlin"))[0].to_list() == [NOON]
    assert read_instants(naive, TimeFormat())[1].to_list() == ["'2025-06-01 14:00:00.000000' has no time zone"]


def test_one_bad_instant_spoils_its_row_and_no_other() -> None:
    content = b"event_time,v\n2025-06-01T12:00Z,1\nsoon,2\n,3\n"
    frame = parse(content, format="csv")
    assert frame["event_time"].to_list() == [NOON, None, None]
    assert frame["__broken"].to_list() == [None, "event_time: 'soon' is not an ISO 8601 instant", None]


def test_where_no_instant_can_be_read_the_layout_is_wrong() -> None:
    with pytest.raises(PayloadError) as caught:
        parse(b"event_time,v\n2025-06-01T12:00,1\n,2\n", label="june.csv")
    assert str(caught.value) == (
        "provider 'meter': june.csv: no value of 'event_time' can be read: '2025-06-01T12:00' has no time zone\n\n"
        'hint: say how it is written, e.g. times: {event_time: {format: iso, zone: "Europe/Berlin"}}.'
    )


def test_a_whole_state_says_of_what_instant_it_tells() -> None:
    layout = Layout(records="rows", state_time=StateTime(path="meta.at", format="epoch_ms"))
    told = {"provider": "usgs", "label": "all.json"}
    assert state_time_of(b'{"meta": {"at": 1748779200000}}', layout, **told) == NOON
    assert state_time_of(b'{"meta": {}}', layout, **told) is None
    assert state_time_of(b"{}", Layout(), **told) is None
    with pytest.raises(PayloadError, match="meta.at: 'soon' is not an instant"):
        state_time_of(b'{"meta": {"at": "soon"}}', layout, **told)


# ---- bytes that are not whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "content", "problem"),
    [
        (
            "json",
            b'{"rows": [{"a": 1}, {"a"',
            'the JSON is cut off after 24 bytes, which begin with \'{"rows": [{"a": 1}, {"a"\'',
        ),
        ("json", b"<html>Sorry</html>", "not JSON at character 0: '<html>Sorry</html>'"),
        ("json", b" ", "empty where JSON was expected"),
        ("json", b'[{"a": 1}, 2]', "row 1 is not an object: '2'"),
        ("json", b'[{"a": "\xff"}]', "not text in utf-8 at byte 8: '\ufffd\"}]'"),
        ("json", b"[" * 100_000, f"JSON that is nested too deeply, begins with '{'[' * 80}'"),
        ("ndjson", b'{"a": 1}\n{"a": \n', "line 2 is not JSON: '{\"a\":'"),
        ("ndjson", b"[1]\n", "line 1 is not an object: '[1]'"),
        ("csv", b"a,b\n1,2\n3", "not CSV: CSV parse error: Expected 2 columns, got 1: 3"),
        ("csv", b"a,b\n1,2,3\n", "not CSV: CSV parse error: Expected 2 columns, got 3: 1,2,3"),
        ("csv", b"a,a\n1,2\n", "its header names 'a' twice"),
        (
            "csv",
            b'a,b\n1,"cut',
            "the CSV is cut off inside a quoted field, or its quotation marks are wrong: unexpected end of data",
        ),
        ("csv", b"", "empty where CSV was expected"),
        ("csv", b"a,b\n1,\0\n", "not CSV: a zero byte at byte 6"),
        (
            "parquet",
            parquet(ROWS)[:-8],
            f"the Parquet is cut off after {len(parquet(ROWS)) - 8} bytes: its footer is missing",
        ),
        ("parquet", b"<html>", "not Parquet, begins with '<html>'"),
        ("arrow", b"", "empty where Arrow was expected"),
    ],
)
def test_bytes_that_are_not_whole_name_the_place(form: Any, content: bytes, problem: str) -> None:
    with pytest.raises(PayloadError) as caught:
        parse(content, label="https://x.example/rows", format=form)
    assert str(caught.value).split("\n", maxsplit=1)[0] == f"provider 'meter': https://x.example/rows: {problem}"
    assert caught.value.__cause__ is None


def test_gzip_that_is_cut_off_damaged_or_a_bomb() -> None:
    whole = gzip.compress(b"a\n1\n" * 100, mtime=0)
    with pytest.raises(PayloadError, match=rf"the gzip data is cut off after {len(whole) - 9} bytes"):
        parse(whole[:-9], format="csv")
    with pytest.raises(PayloadError, match="the gzip data is damaged: CRC check failed"):
        parse(whole[:-8] + b"\0\0\0\0" + whole[-4:], format="csv")
    with pytest.raises(PayloadError, match="the gzip data becomes more than 100 bytes"):
        parse_payload(whole, Layout(), provider="meter", label="x.csv", max_bytes=100)


def test_rows_that_are_elsewhere_are_an_error_with_the_names_there() -> None:
    with pytest.raises(
        PayloadError, match=r"no rows at 'features'; it begins with .*\n\nhint: its top-level fields are 'error'\."
    ):
        parse(b'{"error": "try later"}', format="json", records="features")


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": {"t": {"zone": "Berlin"}}},
        {"times": {"t": {"format": "strptime"}}},
        {"times": {"t": {"format": "date", "zone": "UTC"}}},
        {"times": {"t": {"format": "strptime", "pattern": "%Y-%m-%d"}}},
        {"columns": {"a": "a"}, "constants": {"a": 1}},
        {"columns": {"__absent": "a"}},
        {"decimal_comma": True},
        {"encoding": "klingon"},
        {"format": "xml"},
        {"colunms": {}},
    ],
)
def test_layouts_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Layout.model_validate(wrong)


# ---- laws ------------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
JSON_ROWS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c.d", "é"]), SCALARS, max_size=4), max_size=6)


def same(left: Any, right: Any) -> bool:
    return left == right or (left != left and right != right)  # noqa: PLR0124 - NaN


@given(JSON_ROWS)
def test_nothing_is_lost_from_json(rows: list[dict[str, Any]]) -> None:
    for form, content in (
        ("json", json.dumps(rows).encode()),
        ("ndjson", "\n".join(json.dumps(row) for row in rows).encode()),
    ):
        frame = parse(content, format=form)
        for name in frame.columns:
            column = frame[name]
            for row, found in zip(rows, column.to_list(), strict=True):
                sent = row.get(name)
                if column.dtype == pl.String and sent is not None and not isinstance(sent, str):
                    assert same(json.loads(found), sent)
                else:
                    assert same(found, sent)


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=6))
def test_texts_survive_csv(rows: list[tuple[str, str]]) -> None:
    rows = [tuple(text.replace("\0", "").replace("\r", "") for text in row) for row in rows]  # type: ignore[misc]
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("a", "b"), *rows])
    frame = parse(buffer.getvalue().encode("utf-8", "surrogatepass"), format="csv", text=("a", "b"))
    assert [tuple(row) for row in frame.rows()] == rows


LOCALS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - Hypothesis wants them naive


@given(
    st.lists(LOCALS, min_size=1, max_size=5),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "UTC"]),
)
def test_an_instant_is_the_same_however_it_is_written(locals_: list[datetime], zone: str) -> None:
    exact = [local.replace(tzinfo=UTC) for local in locals_]
    zoned = [moment.astimezone(ZoneInfo(zone)) for moment in exact]
    texts = [moment.isoformat() for moment in zoned if moment.utcoffset().seconds % 60 == 0]  # type: ignore[union-attr]
    micros = [(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in exact]
    assert [instants([text])[0] for text in texts] == [[datetime.fromisoformat(text).astimezone(UTC)] for text in texts]
    assert instants(micros, format="epoch_us")[0] == exact
    assert instants([str(Decimal(value) / 1_000_000) for value in micros], format="epoch_s")[0] == exact
    assert instants([f"{value}000" for value in micros], format="epoch_ns")[0] == exact


ISO_TEXTS = st.one_of(
    st.none(),
    st.builds(
        "{}-{}-{}{}{}:{}:{}{}{}".format,
        st.sampled_from(["0001", "1969", "2025", "9999", "12025"]),
        st.sampled_from(["01", "02", "12", "13"]),
        st.sampled_from(["01", "28", "29", "31"]),
        st.sampled_from(["T", " "]),
        st.sampled_from(["00", "23", "24"]),
        st.sampled_from(["00", "59", "60"]),
        st.sampled_from(["00", "59", "60"]),
        st.sampled_from(["", ".1", ".123456", ".1234567", "."]),
        st.sampled_from(["Z", "+00:00", "-00:30", "+23:59", "+24:00", "+0530", ""]),
    ),
)


@given(st.lists(ISO_TEXTS, min_size=1, max_size=3))
def test_the_short_way_for_usual_instants_says_the_same(texts: list[str | None]) -> None:
    short = instants([*texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(times, "_of_usual_iso", lambda _: None)
        assert instants([*texts]) == short


@given(st.data())
def test_no_damage_ends_in_anything_but_a_payload_error(data: st.DataObject) -> None:
    frame = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "y"], "c": [[1.5], [], None]})
    form, content = data.draw(
        st.sampled_from(
            [
                ("parquet", parquet(frame)),
                ("arrow", arrow_file(frame)),
                ("arrow", arrow_stream(frame)),
                ("json", b'[{"a": 1, "b": "x"}, {"a": 2}]'),
                ("csv", b'a,b\n1,"x"\n2,y\n'),
                ("csv", gzip.compress(b'a,b\n1,"x"\n2,y\n', mtime=0)),
            ]
        )
    )
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(PayloadError):
        parse(bytes(damaged[:cut]), format=form)
