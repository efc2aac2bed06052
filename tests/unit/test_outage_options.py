"""`--outage`: one text, one outage."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import alignment as al
import ingestion
from serving.cli import run
from serving.errors import OptionError
from serving.outage_options import EXAMPLE, FORM, parse_outage, parse_outages

EIGHT, NOON = datetime(2026, 6, 1, 8, tzinfo=UTC), datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("meter,2026-06-01T08:00:00Z,2026-06-01T12:00:00Z", al.Outage("meter", EIGHT, NOON)),
        (" meter , 2026-06-01T10:00+02:00 , 4h ", al.Outage("meter", EIGHT, NOON)),
        ("meter,2026-06-01T08:00Z,3h60m,lost", al.Outage("meter", EIGHT, NOON, lost=True)),
        ("meter,2026-06-01T08:00Z,4h,slow=2.5", al.Outage("meter", EIGHT, NOON, slow=2.5)),
        ("meter,2026-06-01T08:00Z,4h,entity=dune", al.Outage("meter", EIGHT, NOON, entities=["dune"])),
        (
            "meter,2026-06-01T08:00Z,4h,entity=dune,lost,entity=a:b=1",  # a colon is part of a column's name
            al.Outage("meter", EIGHT, NOON, lost=True, entities=["dune", {"a:b": "1"}]),
        ),
        (
            "meter,2026-06-01T08:00Z,4h,entity=site=dune/panel=7",
            al.Outage("meter", EIGHT, NOON, entities=[{"site": "dune", "panel": "7"}]),
        ),
        (
            '{"provider": "meter", "start": "2026-06-01T08:00Z", "end": "2026-06-01T12:00Z", "entities": [["dune", 7]]}',
            al.Outage("meter", EIGHT, NOON, entities=[("dune", 7)]),
        ),
    ],
)
def test_a_text_means_an_outage(text: str, expected: al.Outage) -> None:
    assert parse_outage(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("meter", "--outage 'meter' is not an outage"),
        (",2026-06-01T08:00Z,4h", "--outage ',2026-06-01T08:00Z,4h' is not an outage"),
        ("meter,2026-06-01T08:00Z", "--outage 'meter,2026-06-01T08:00Z' is not an outage"),
        ("meter,2026-06-01T08:00,4h", "--outage 'meter,2026-06-01T08:00,4h': FROM '2026-06-01T08:00' has no zone"),
        ("meter,2h,4h", "--outage 'meter,2h,4h': FROM '2h' is not an instant"),
        ("meter,2026-06-01T08:00Z,4", "--outage 'meter,2026-06-01T08:00Z,4': TO='4' is not a duration"),
        (
            "meter,2026-06-01T08:00Z,2026-06-01T07:00Z",
            (
                "--outage 'meter,2026-06-01T08:00Z,2026-06-01T07:00Z': the outage of 'meter' ends at "
                "2026-06-01T07:00:00+00:00, not after its start 2026-06-01T08:00:00+00:00"
            ),
        ),
        (
            "meter,2026-06-01T08:00Z,4h,slow=x",
            "--outage 'meter,2026-06-01T08:00Z,4h,slow=x': 'x' is not a number",
        ),
        (
            "meter,2026-06-01T08:00Z,4h,slow=0.5",
            "--outage 'meter,2026-06-01T08:00Z,4h,slow=0.5': the outage of 'meter' has slow=0.5",
        ),
        ("meter,2026-06-01T08:00Z,4h,gone", "--outage 'meter,2026-06-01T08:00Z,4h,gone': 'gone' means nothing"),
        ('{"provider": "meter"}', """--outage '{"provider": "meter"}' is not an outage: 'start' is missing"""),
        ("{", "--outage '{' is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("@missing.json", "--outage '@missing.json' cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_outage_is_named(text: str, problem: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_outages([text])
    assert caught.value.problem == problem
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("meter,2026-06-01T08:00,4h", "write --outage meter,2026-06-01T08:00:00Z,4h"),
        (
            "meter,2026-06-01T08:00,2026-06-01T12:00,lost",
            "write --outage meter,2026-06-01T08:00:00Z,2026-06-01T12:00:00Z,lost",
        ),
        ("meter,2026-06-01T08:00Z,2026-06-01T12:00", "write --outage meter,2026-06-01T08:00Z,2026-06-01T12:00:00Z"),
        ("meter,2h,4h", f"write --outage {FORM}, e.g. {EXAMPLE}"),
        ("meter,2026-06-01T08:00Z,12:00", f"write --outage {FORM}, e.g. {EXAMPLE}"),
    ],
)
def test_what_to_write_instead_can_be_pasted(text: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_outage(text)
    assert caught.value.hint == hint


def test_an_outage_of_an_entity_without_rows_is_told() -> None:
    rows = pl.DataFrame(
        {
            "site": ["dune", "ridge"],
            "panel": [7, 8],
            "event_time": [EIGHT] * 2,
            "arrival_time": [EIGHT] * 2,
            "kw": [1.0] * 2,
        }
    )
    one = al.FeatureView("meter", ["site"], rows, [al.latest("kw")])
    two = al.FeatureView("meter", ["site", "panel"], rows, [al.latest("kw")])
    start = "meter,2026-06-01T08:00Z,4h,"
    for view, entity, hint in [
        (one, "entity=dunne", "did you mean 'dune'? There are 'dune', 'ridge'"),
        (one, "entity=dune,entity=x", "there are 'dune', 'ridge'"),
        (two, "entity=site=dune/panel=8", "did you mean 'dune/7'? There are 'dune/7', 'ridge/8'"),
    ]:
        with pytest.raises(OptionError, match="of which there are no rows") as caught:
            parse_outages([start + entity], [view])
        assert caught.value.hint == hint
        assert parse_outages([start + entity]), "without views nobody knows"
    empty = al.FeatureView("meter", ["site"], rows.clear(), [al.latest("kw")])
    assert parse_outages([start + "entity=dunne"], [empty])


def test_a_start_may_be_counted_from_now_where_a_command_says_so() -> None:
    assert parse_outage("meter,2h,2h", now=datetime(2026, 6, 1, 6, tzinfo=UTC)) == al.Outage(
        "meter", EIGHT, EIGHT.replace(hour=10)
    )
    assert parse_outage("meter,0s,4h", now=EIGHT) == al.Outage("meter", EIGHT, NOON)


def test_a_file_holds_one_outage_or_a_list_and_may_say_more_than_is_read(tmp_path: Path) -> None:
    outages = [al.Outage("meter", EIGHT, NOON, slow=3), al.Outage("mast", EIGHT, NOON, entities=["a"], lost=True)]
    path = tmp_path / "outages.json"
    path.write_text(json.dumps([outage.to_dict() | {"catch_up_rows": 4} for outage in outages]))
    assert parse_outages([f"@{path}", "meter,2026-06-01T08:00Z,4h"]) == [*outages, al.Outage("meter", EIGHT, NOON)]
    path.write_text(json.dumps(outages[0].to_dict()))
    assert parse_outages([f"@{path}"]) == outages[:1]
    assert parse_outages(None) == []


def test_what_a_ledger_shows_can_be_given_to_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = ingestion.create_log(tmp_path, "meter", entities=["site"])
    sites = [("dune", 10 * n) for n in (*range(12), *range(30, 40))] + [("ridge", 10 * n) for n in range(40)]
    frame = pl.DataFrame(
        {
            "site": [site for site, _ in sites],
            "event_time": [EIGHT + timedelta(minutes=minute) for _, minute in sites],
            "arrival_time": [EIGHT + timedelta(minutes=minute + 5) for _, minute in sites],
            "kw": [1.0] * len(sites),
        }
    )
    log.append(frame)
    command = ["outages", str(tmp_path), "meter", "--down-after", "1h"]
    assert run([*command, "--for-replay", "--per-entity"]) == 0
    path = tmp_path / "outages.json"
    path.write_text(capsys.readouterr().out)
    dune, going_on = parse_outages([f"@{path}"])
    start = EIGHT + timedelta(minutes=115, microseconds=1)
    assert dune == al.Outage("meter", start, EIGHT + timedelta(minutes=305), lost=True, entities=["dune"])
    assert (going_on.start, going_on.entities) == (EIGHT + timedelta(minutes=395, microseconds=1), None)  # until now
    assert run([*command, "--for-replay"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert run([*command, "--per-entity"]) == 2
    assert "--per-entity says nothing without --for-replay" in capsys.readouterr().err


def test_entities_get_the_types_that_the_views_have() -> None:
    kinds = {"site": pl.String, "panel": pl.Int32, "since": pl.Date, "roof": pl.Boolean}
    frame = pl.DataFrame(
        {
            "site": ["7"],
            "panel": [7],
            "since": [date(2026, 1, 1)],
            "roof": [True],
            "event_time": [EIGHT],
            "arrival_time": [NOON],
            "kw": [1.0],
        },
        schema_overrides=kinds,
    )
    words = "meter,2026-06-01T08:00Z,4h,entity="

    def entities(text: str, *columns: str) -> tuple[object, ...] | None:
        view = al.FeatureView("meter", columns, frame, [al.latest("kw")])
        (outage,) = parse_outages([words + text], [view])
        return outage.entities

    assert entities("7", "site") == ("7",)
    assert entities("7", "panel") == (7,)
    assert entities("2026-01-01", "since") == (date(2026, 1, 1),)
    assert entities("true", "roof") == (True,)
    assert al.Outage("meter", EIGHT, NOON, entities=[{"site": "7", "panel": 7}]).entities == entities(
        "site=7/panel=7", "site", "panel"
    )
    with pytest.raises(OptionError) as caught:
        entities("dune", "panel")
    assert caught.value.problem == (
        "--outage of 'meter': the entity 'dune' cannot be a value of 'panel', which is Int32"
    )
