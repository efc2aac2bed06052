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
        "Explanation: station='nobody' at 2026-01-05 11:00:00Z\n\n"
        "weather__temp = null (missing)\n"
        "  latest('temp') of weather: events until 2026-01-05 11:00:00Z\n"
        "  used: nothing\n"
        "  not used: nothing\n"
        "  naive: a join on event time would have given the same"
    )
