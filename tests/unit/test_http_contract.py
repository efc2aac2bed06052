"""What is asked over HTTP and what is answered, without a port."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from http_serving import QUESTION, ask, make
from http_serving import application as application_over

from serving.http.app import Application
from serving.http.encoding import as_json
from serving.online import Answer, AnsweredColumn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    make(place)
    return place


@pytest.fixture(scope="module")
def app(folder: Path):
    with application_over(folder) as found:
        yield found


def answer(app: Application, **question: Any) -> dict[str, Any]:
    got = ask(app, "POST", "/get-online-features", json={**QUESTION, **question})
    assert got.status_code == 200, got.text
    assert got.headers["content-type"] == "application/json"
    return dict(got.json())


def refused(app: Application, question: Any, **more: Any) -> tuple[int, str]:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    got = ask(app, "POST", "/get-online-features", content=body, **more)
    assert set(got.json()) <= {"error", "hint"}
    return got.status_code, got.json()["error"]


def test_an_answer_has_the_form_of_feasts_feature_server(app: Application) -> None:
    got = answer(app, features=["weather:temp", "weather:name"], entities={"station": ["a", "b", "nobody"]})
    assert set(got) == {"metadata", "results"}
    assert got["metadata"]["feature_names"] == ["station", "temp", "name"]
    station, temp, name = got["results"]
    assert station == {
        "values": ["a", "b", "nobody"],
        "statuses": ["PRESENT"] * 3,
        "event_timestamps": ["1970-01-01T00:00:00Z"] * 3,
    }
    assert temp["values"] == [22.0, None, None]  # b's is three hours old, and may be two
    assert temp["statuses"] == ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert temp["event_timestamps"][2] == "1970-01-01T00:00:00Z"
    assert name["values"] == ["Ännchen \u2028", None, None]
    assert name["statuses"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]


def test_every_answer_tells_instant_positions_and_definition(app: Application) -> None:
    metadata = answer(app)["metadata"]
    age = datetime.now(UTC) - datetime.fromisoformat(metadata["t"])
    assert timedelta(0) < age < timedelta(seconds=30)
    assert metadata["positions"] == {"weather": 6}  # seven rows, counted from 0
    assert len(metadata["definition"]) == 64


@pytest.mark.parametrize(
    "question", [{}, {"features": ["weather"]}, {"features": [], "feature_service": "basic"}, {"format": "arrow"}]
)
def test_the_definition_of_an_answer_can_be_asked_again(app: Application, question: dict[str, Any]) -> None:
    definition = ask(app, "GET", "/features").json()["definition"]
    got = ask(app, "POST", "/get-online-features", json={**QUESTION, **question, "definition": definition})
    assert got.status_code == 200
    if question.get("format") == "arrow":
        told = pa.ipc.open_stream(io.BytesIO(got.content)).schema.metadata[b"definition"].decode()
    else:
        told = got.json()["metadata"]["definition"]
    assert told == definition
    assert ask(app, "POST", "/resolve", json={"feature_service": "basic"}).json()["definition"] == definition


def test_an_unknown_definition_to_switch_to_is_to_be_loaded_first(app: Application) -> None:
    got = ask(app, "POST", "/admin/switch", json={"definition": "0" * 64})
    assert got.status_code == 404
    assert got.json()["hint"].endswith("POST /admin/reload loads what the views file says now.")


def test_full_names_have_the_views_name(app: Application) -> None:
    assert answer(app, full_feature_names=True)["metadata"]["feature_names"] == ["station", "weather__temp"]


def test_a_feature_may_be_named_as_its_column_and_a_view_is_all_of_it(app: Application) -> None:
    assert answer(app, features=["weather__temp"])["metadata"]["feature_names"] == ["station", "temp"]
    names = answer(app, features=["weather"])["metadata"]["feature_names"]
    assert names == ["station", "temp", "name", "big", "temp_mean_1h", "temp_count_1h", "temp_sequence_3", "event_age"]


def test_a_service_is_its_features(app: Application) -> None:
    got = ask(app, "POST", "/get-online-features", json={"feature_service": "basic", "entities": {"station": ["a"]}})
    assert got.json()["metadata"]["feature_names"] == ["station", "temp", "big"]
    assert [result["values"] for result in got.json()["results"][1:]] == [[22.0], [2**53 + 1]]


def test_integers_keep_all_their_digits(app: Application) -> None:
    body = ask(app, "POST", "/get-online-features", json={**QUESTION, "features": ["weather:big"]}).text
    assert "9007199254740993" in body


def test_what_is_not_finite_is_text(app: Application) -> None:
    got = answer(app, features=["weather:temp", "weather:temp_sequence_3"], entities={"station": ["c", "a"]})
    assert got["results"][1]["values"] == ["NaN", 22.0]
    assert got["results"][2]["values"] == [[None, "Infinity", "NaN"], [20.0, 21.0, 22.0]]


def test_status_and_ages_come_on_request(app: Application) -> None:
    got = answer(app, entities={"station": ["a", "b", "d", "nobody"]}, status=True, ages=True)
    temp = got["results"][1]
    assert temp["status"] == ["present", "expired", "null", "missing"]
    t = datetime.fromisoformat(got["metadata"]["t"])
    events = [datetime.fromisoformat(text) for text in temp["event_timestamps"]]
    assert temp["event_age"][0] == (t - events[0]).total_seconds()
    assert 600 < temp["event_age"][0] < 700
    assert temp["event_age"][3] is None
    assert 0 < temp["arrival_age"][0] < 90


def test_an_instant_before_all_rows_knows_nothing(app: Application) -> None:
    got = answer(app, as_of="2020-01-01T00:00:00.000001+01:00")
    assert got["metadata"]["t"] == "2019-12-31T23:00:00.000001Z"
    assert got["results"][1]["statuses"] == ["NOT_FOUND"]


def test_arrow_has_the_columns_of_the_join_and_the_facts_in_its_schema(app: Application) -> None:
    question = {**QUESTION, "features": ["weather:temp", "weather:temp_sequence_3"], "status": True, "ages": True}
    by_header = ask(
        app, "POST", "/get-online-features", json=question, headers={"Accept": "application/vnd.apache.arrow.stream"}
    )
    by_field = ask(app, "POST", "/get-online-features", json={**question, "format": "arrow"})
    for got in (by_header, by_field):
        assert got.headers["content-type"] == "application/vnd.apache.arrow.stream"
        read = pa.ipc.open_stream(io.BytesIO(got.content)).read_all()
        assert read["weather__temp"].to_pylist() == [22.0]
        assert read["weather__temp__status"].to_pylist() == ["present"]
        assert read["weather__temp__event_age"].type == pa.duration("us")
        assert read["weather__temp_sequence_3"].to_pylist() == [[20.0, 21.0, 22.0]]
        assert set(read.schema.metadata) >= {b"t", b"positions", b"definition"}
        assert json.loads(read.schema.metadata[b"positions"]) == {"weather": 6}


def test_no_rows_are_no_values(app: Application) -> None:
    assert answer(app, entities={"station": []})["results"][1]["values"] == []


@pytest.mark.parametrize(
    ("question", "status", "complaint"),
    [
        ({**QUESTION, "asof": "2026-01-01T00:00:00Z"}, 400, "unknown field `asof`"),
        ({**QUESTION, "as_of": "2026-01-01T00:00:00"}, 400, "as_of='2026-01-01T00:00:00' has no zone"),
        ({**QUESTION, "as_of": "yesterday"}, 400, "as_of='yesterday' is not an instant"),
        ({**QUESTION, "as_of": "0001-01-01T00:00:00+14:00"}, 400, "is not an instant"),
        ({**QUESTION, "as_of": "2999-01-01T00:00:00Z"}, 400, "is later than what is known"),
        ({**QUESTION, "features": ["weather:nope"]}, 404, "there is no feature 'weather:nope'"),
        ({**QUESTION, "features": ["../../etc/passwd"]}, 404, "there is no feature '../../etc/passwd'"),
        ({"feature_service": "../x", "entities": {}}, 404, "there is no feature service '../x'"),
        ({**QUESTION, "definition": "0" * 64}, 404, "are held"),
        ({**QUESTION, "features": []}, 400, "name either features or a feature_service"),
        ({**QUESTION, "feature_service": "basic"}, 400, "both features and a feature_service are named"),
        ({**QUESTION, "variant": "full"}, 400, "variant and sources are about a feature_service"),
        ({"feature_service": "basic", "variant": "x", "entities": {"station": ["a"]}}, 404, "has no variant 'x'"),
        ({**QUESTION, "entities": {}}, 400, "needs the entity 'station'"),
        ({**QUESTION, "entities": {"station": ["a"], "x": [1, 2]}}, 400, "entities['x'] has 2"),
        (
            {**QUESTION, "entities": {"station": [["a"]]}},
            400,
            "Expected `bool | int | float | str | null`, got `array` - at `$.entities[...][0]`",
        ),
        ({**QUESTION, "entities": {"station": [2**64]}}, 400, "entities['station'][0] has more than 64 bits"),
        ({**QUESTION, "entities": {"station": [7]}}, 400, "entity 'station' is String, and 7 is int"),
        ({**QUESTION, "entities": {"station": [True]}}, 400, "entity 'station' is String, and true is bool"),
        ({**QUESTION, "entities": ["a"]}, 400, "Expected `object`, got `array` - at `$.entities`"),
        ({**QUESTION, "format": "csv"}, 400, "Invalid enum value 'csv' - at `$.format`"),
        ([], 400, "Expected `object`, got `array`"),
        (b"", 400, "Input data was truncated"),
        (b'{"features": ["weather:temp"]', 400, "Input data was truncated"),
        (b"\xff\xfe", 400, "JSON is malformed"),
        (b'{"entities": {"station": ["\\ud800"]}, "features": ["weather:temp"]}', 400, "the body is not"),
        (b'{"entities": {"station": ["a"]}, "features": ["weather:temp"], "as_of": NaN}', 400, "JSON is malformed"),
        (b"[" * 200_000, 400, "the body is not"),
        (b'{"entities": ' + b'{"a":' * 100_000, 400, "the body is not"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_value_and_place(
    app: Application, question: Any, status: int, complaint: str
) -> None:
    got, error = refused(app, question)
    assert got == status
    assert complaint in error


def test_two_features_of_one_name_need_full_names(tmp_path: Path) -> None:
    make(tmp_path)
    views = (tmp_path / "features.py").read_text()
    (tmp_path / "features.py").write_text(
        f'{views}\nviews.append(al.FeatureView("w2", ["station"], log, [al.latest("temp")]))\n'
    )
    with application_over(tmp_path) as two:
        question = {**QUESTION, "features": ["weather:temp", "w2:temp"]}
        assert refused(two, question) == (400, "two features are called 'temp'")
        full = answer(two, features=question["features"], full_feature_names=True)
        assert full["metadata"]["feature_names"] == ["station", "weather__temp", "w2__temp"]


def test_what_is_served_is_listed_with_types(app: Application) -> None:
    got = ask(app, "GET", "/features").json()
    (view,) = got["views"]
    assert view["entities"] == ["station"]
    assert view["provider"] == "weather"
    assert view["features"][0] == {
        "name": "temp",
        "reference": "weather:temp",
        "column": "weather__temp",
        "dtype": "Float64",
    }
    assert got["services"][0]["features"] == ["weather__temp", "weather__big"]


def test_a_service_without_variants_resolves_to_itself(app: Application) -> None:
    got = ask(app, "POST", "/resolve", json={"feature_service": "basic"})
    assert got.status_code == 200
    assert got.json()["variant"] == "basic"
    assert got.json()["positions"] == {"weather": 6}


def test_metrics_count_values_by_status_and_never_name_what_was_asked(app: Application) -> None:
    answer(app, entities={"station": ["a", "b", "nobody"]})
    refused(app, {**QUESTION, "features": ["weather:secret"]})
    ask(app, "GET", "/some-path")
    text = ask(app, "GET", "/metrics").text
    assert 'asknown_served_values_total{feature="weather__temp",status="expired"}' in text
    assert 'asknown_http_seconds_bucket{route="get-online-features",le="0.001"}' in text
    assert 'asknown_newest_arrival_age_seconds{view="weather"}' in text
    assert "asknown_behind_seconds" in text
    assert "secret" not in text
    assert "some-path" not in text


@pytest.mark.parametrize("values", [[0.1 + 0.2, -0.0, 5e-324, 1e308, 2**53 + 0.0], [1e16, 123456789.123456789]])
def test_floats_read_back_as_the_same_number(values: list[float]) -> None:
    column = AnsweredColumn(
        "v__x", "p", pl.Float64(), values, ["present"] * len(values), [0] * len(values), [0] * len(values)
    )
    whole = Answer(datetime(2026, 1, 1, tzinfo=UTC), {"p": 1}, {"k": list(range(len(values)))}, [column], "d")
    read = json.loads(as_json(whole, ["x"], definition="d"))["results"][1]["values"]
    assert [math.copysign(1, value) for value in read] == [math.copysign(1, value) for value in values]
    assert read == values


def test_instants_durations_and_dates_are_iso_and_seconds() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)
    cells = {
        pl.Datetime("us", "UTC"): (moment, "2026-03-01T12:00:00.000250Z"),
        pl.Duration("us"): (timedelta(hours=1, microseconds=1), 3600.000001),
        pl.Date(): (moment.date(), "2026-03-01"),
        pl.Binary(): (b"\x00\xff", "AP8="),
        pl.Struct({"a": pl.Float64}): ({"a": float("-inf")}, {"a": "-Infinity"}),
    }
    columns = [
        AnsweredColumn(f"v__{n}", "p", dtype, [cell], ["present"], [1], [1])
        for n, (dtype, (cell, _)) in enumerate(cells.items())
    ]
    whole = Answer(moment, {"p": 1}, {}, columns, "d")
    read = json.loads(as_json(whole, [str(n) for n in range(len(cells))], definition="d"))
    assert [result["values"][0] for result in read["results"]] == [text for _, text in cells.values()]
    assert read["results"][0]["event_timestamps"] == ["1970-01-01T00:00:00.000001Z"]
