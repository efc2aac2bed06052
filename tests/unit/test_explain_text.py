"""Explanations as text and as HTML: the whole of them, as files beside the tests, and what every page must keep to."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from html_page import Page
from makers import at, table, temps, weather

import alignment as al

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
"""Set ASKNOWN_RENEW_GOLDEN=1 to write these files anew; then read what changed."""


def told() -> al.Explanation:
    """One of everything: revisions, a retraction, late rows, a null, an expired value, ages, a text that needs escaping."""
    rows = table(
        "station event_time received_time arrival_time temp sky is_retraction",
        ("a", "07:00", at("07:05"), "07:10", 6.0, "<clear>", None),
        ("a", "08:00", at("08:05"), "08:10", 7.25, "grey", None),
        ("a", "09:00", at("09:05"), "09:10", 8.0, "grey", None),
        ("a", "09:00", at("09:35"), "09:40", 8.5, "<clear>", None),
        ("a", "09:30", at("09:30"), "09:35", None, None, None),
        ("a", "09:40", at("09:41"), "09:45", 99.0, "grey", None),
        ("a", "09:40", at("09:50"), "09:50", None, None, True),
        ("a", "10:00", at("10:05"), "10:10", 9.0, "wet & grey", None),
    )
    view = weather(
        rows,
        al.latest("sky", skip_null=True),
        al.latest("temp", max_event_age="20m", name="fresh"),
        al.window("temp", "mean", "2h"),
        al.lag("temp", "24h"),
        al.event_age(),
    )
    return al.explain(view, "a", at("10:05"), as_of=at("12:00"))


@pytest.mark.parametrize("form", ["txt", "html", "notebook.html"])
def test_the_explanation_is_as_it_was(form):
    found = told()
    text = {"txt": found.__str__, "html": found.to_html, "notebook.html": found._repr_html_}[form]()
    file = GOLDEN / f"explanation.{form}"
    if os.environ.get("ASKNOWN_RENEW_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_the_page_stands_alone_and_adapts_to_light_and_dark():
    page = Page(told().to_html())
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"}
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "onclick"))
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in page.tags


def test_tables_can_be_read_without_looking():
    page = Page(told().to_html())
    regions = [attributes for _, attributes in page.tags if attributes.get("role") == "region"]
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in regions)
    assert len(regions) == sum(tag == "caption" for tag, _ in page.tags)
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}


def test_values_and_names_are_escaped():
    frame = temps(("a", "10:00", "10:10", 1.0)).with_columns(sky=pl.lit("<b>wet</b>"))
    page = al.explain(weather(frame, al.latest("sky", name="<i>&")), "a", at("11:00")).to_html()
    assert "weather__&lt;i&gt;&amp;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_notebook_shows_a_piece_with_inline_styles_and_not_everything():
    rows = [("a", f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}", 1.0) for hour in range(10) for minute in (0, 30)]
    features = [al.lag("temp", f"{minutes}m") for minutes in range(1, 13)]
    piece = al.explain(
        weather(temps(*rows), al.window("temp", "sum", "24h"), *features), "a", at("10:00")
    )._repr_html_()
    page = Page(piece)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"html", "style", "script"}
    assert "Used: 20 rows, the last 12 of them" in piece
    assert "And 1 more feature: see explanation.to_dict()." in piece
    assert sum(tag == "h2" for tag, _ in page.tags) == 12


def test_the_text_says_which_rows_are_not_shown():
    rows = [("a", f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}", 1.0) for hour in range(10) for minute in (0, 30)]
    found = al.explain(weather(temps(*rows), al.window("temp", "sum", "24h")), "a", at("10:00"))
    assert "used: 20 rows, the last 12 of them" in str(found)
    assert "used: 20 rows\n" in found.to_text()
    assert repr(found) == "Explanation(1 features, entity={'station': 'a'}, t=2026-01-05T10:00:00+00:00)"


def test_an_entity_that_nobody_knows_is_explained_too():
    found = al.explain(weather(temps(("a", "10:00", "10:10", 1.0)), al.latest("temp")), "nobody", at("11:00"))
    assert str(found) == (
        "Explanation: station='nobody' at 2026-01-05 11:00:00Z\n"
        "no rows of station='nobody'; there are 'a'\n\n"
        "weather__temp = null (missing)\n"
        "  latest('temp') of weather: events until 2026-01-05 11:00:00Z\n"
        "  used: nothing\n"
        "  not used: nothing\n"
        "  naive: a join on event time would have given the same"
    )


def test_of_many_entities_the_closest_are_named():
    rows = temps(*((f"site{number:02}", "10:00", "10:10", 1.0) for number in range(20)))
    found = al.explain(weather(rows, al.latest("temp")), "site7", at("11:00"))
    (note,) = found.notes
    assert note.startswith("no rows of station='site7'; there are 'site17', 'site07', ")
    assert note.endswith(" and 12 more")
    assert note in found.to_html().replace("&#x27;", "'")
    assert found.to_dict()["notes"] == [note]


# --- moved arrivals ---------------------------------------------------------------------------------------------------


def held_up(*features: al.Feature) -> al.Explanation:
    """Readings of 10:00 and 10:30, of which the second, given 10:40, is held up until noon."""
    view = weather(temps(("a", "10:00", "10:10", 1.0), ("a", "10:30", "10:40", 2.0)), *features)
    return al.explain(
        al.transform_arrivals(view, outages=al.Outage("weather", at("10:20"), at("12:00"))), "a", at("11:00")
    )


def test_what_moved_arrivals_is_said_and_the_given_arrival_stands_beside_the_moved_one():
    assert str(held_up(al.latest("temp"))) == (
        "Explanation: station='a' at 2026-01-05 11:00:00Z\n"
        "under: outage of weather from 2026-01-05 10:20:00Z to 2026-01-05 12:00:00Z\n\n"
        "weather__temp = 1.0 (present)\n"
        "  latest('temp') of weather: events until 2026-01-05 11:00:00Z\n"
        "  used: 1 row\n"
        "    row                 event               arrived  arrival is  revision  age  value\n"
        "    0    2026-01-05 10:00:00Z  2026-01-05 10:10:00Z    measured    1 of 1   1h    1.0\n"
        "  not used: 1 not yet arrived\n"
        "    row 1 of 2026-01-05 10:30:00Z: had not arrived: it arrived at 2026-01-05 12:00:00Z "
        "(given 2026-01-05 10:40:00Z), 1h after t\n"
        "  naive: a join on event time would have given 2.0 (present), from row 1 of 2026-01-05 10:30:00Z, "
        "which arrived at 2026-01-05 12:00:00Z (given 2026-01-05 10:40:00Z)"
    )


def test_the_page_and_the_plain_data_say_what_moved_arrivals_too():
    found = held_up(al.latest("temp"))
    page = found.to_html()
    assert "under: outage of weather from 2026-01-05 10:20:00Z to 2026-01-05 12:00:00Z" in page
    assert "arrived before it was moved" in page
    assert "2026-01-05 10:40:00Z" in page
    told = found.to_dict()
    outage = {"provider": "weather", "start": "2026-01-05T10:20:00+00:00", "end": "2026-01-05T12:00:00+00:00"}
    assert told["under"] == [{"outages": [outage]}]
    assert told["features"][0]["unused"][0]["given_arrival_time"] == "2026-01-05T10:40:00+00:00"


def test_a_moved_row_that_was_not_used_for_another_reason_says_when_it_arrived():
    view = weather(temps(("a", "10:00", "10:10", 1.0), ("a", "10:30", "10:40", 2.0)), al.latest("temp"))
    moved = al.transform_arrivals(view, delays={"weather": al.ShiftedDelay("5m")}, seed=3)
    again = al.transform_arrivals(moved, outages=[al.Outage("weather", at("10:00"), at("10:20"))])
    text = str(al.explain(again, "a", at("11:00")))
    assert (
        "under: delay of weather: 5m later; seed 3; then outage of weather from 2026-01-05 10:00:00Z to 2026-01-05 10:20:00Z\n"
        in text
    )
    assert (
        "row 0 of 2026-01-05 10:00:00Z: a newer event was picked: row 1 of 2026-01-05 10:30:00Z; "
        "it arrived at 2026-01-05 10:20:00Z (given 2026-01-05 10:10:00Z)"
    ) in text
