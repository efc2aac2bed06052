"""The pages and their JSON, asked without a browser."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import polars as pl
import pytest
from http_serving import READ, TOKENS, application, bearer
from http_serving import ask as ask_app
from http_serving import make as make_served
from pages_site import HOSTILE, NOTE, NOW, ROWS, at, make, pages

import alignment as al
import ingestion
from serving.cli import run
from serving.http import Tokens
from serving.pages import Pages, PagesApp, Site
from serving.pages.freshness import freshness, outages, signs_of
from serving.pages.habits import habits
from serving.pages.marks import is_current, marks_of
from serving.pages.plain import iso


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def site(folder: Path) -> Pages:
    return pages(folder / "views.py")


def ask(site: Pages, address: str, status: int = 200) -> str:
    """The body at an address, which has that status."""
    parts = urlsplit(address)
    reply = site.answer(httpx.URL(address).path, parts.query)
    body = reply.body.decode()
    assert reply.status == status, body
    return body


def told(site: Pages, address: str, status: int = 200) -> Any:
    """The same of JSON, read strictly."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(ask(site, address, status), parse_constant=refuse)


def known(site: Pages, t: datetime, *more: str, view: str = "weather", entity: str = "a") -> Any:
    return told(site, f"/known/{view}.json?" + "&".join([f"entity={entity}", f"t={iso(t)}", *more]))


# ------------------------------------------------------------------------------------------------------------ overview


def test_the_overview_tells_how_fresh_every_provider_is(site: Pages) -> None:
    weather, wind = told(site, "/index.json")["providers"]
    assert (weather["provider"], weather["rows"], weather["quarantined"], weather["state"]) == ("weather", 9, 1, "up")
    assert weather["last_heartbeat"] == "2026-01-05T11:40:00Z"  # the last row that arrived; it is noon
    assert (weather["silent_for"], weather["event_age"]) == (20 * 60, 40 * 60)
    assert (wind["kind"], wind["rows"], wind["silent_for"]) == ("forecast", 4, 5 * 3600)
    page = ask(site, "/")
    assert "20m ago" in page
    assert "40m ago" in page
    assert 'href="/providers/weather"' in page
    assert 'href="/known/wind"' in page


def test_a_folder_of_logs_shows_the_newest_value_of_every_column(folder: Path) -> None:
    by_root = pages(folder / "logs")
    views = {each["view"]: each["features"] for each in told(by_root, "/index.json")["views"]}
    assert views == {"weather": ["weather__temp", "weather__note"], "wind": ["wind__speed"]}
    assert [cell["value"] for cell in known(by_root, at(9))["vector"]["features"]] == [8.0, None]


def test_a_provider_is_down_once_it_is_silent_for_long(folder: Path) -> None:
    signs = signs_of(ingestion.open_log(folder / "logs", "weather"))
    limit = timedelta(hours=1)
    assert freshness(signs, at(12, 39, 59), down_after=limit).state == "up"  # silent since 11:40
    assert freshness(signs, at(12, 40), down_after=limit).state == "down"
    assert freshness(signs, at(6), down_after=limit).state == "unknown"  # nothing had arrived by then


def test_without_a_limit_ten_usual_gaps_are_too_long(folder: Path) -> None:
    # Signs of life at 6:30, 7:30, 8:30, 10:00, 10:30, 11:10, 11:30, 11:40: gaps of 60, 60, 90, 30, 40, 20 and 10 minutes.
    found = freshness(signs_of(ingestion.open_log(folder / "logs", "weather")), NOW)
    assert (found.usual_gap, found.down_after) == (timedelta(minutes=40), timedelta(minutes=400))
    assert (found.down_by, found.rare_gap) == ("usual", timedelta(seconds=5292))  # 60 + 0.94 * 30 minutes


@pytest.mark.parametrize(
    ("gaps", "down_after", "down_by"),
    [
        ([60] * 9 + [1200], 3292, "rare"),  # one in a hundred exceeds 60 + 0.91 * 1140 s; thrice that is 3,292.2 s
        ([60] * 9 + [120], 600, "usual"),
        ([0.01] * 10, 1, "least"),
    ],
)
def test_the_page_says_what_the_limit_is_made_of(
    tmp_path: Path, gaps: list[float], down_after: int, down_by: str
) -> None:
    log = ingestion.create_log(tmp_path, "p", entities=[])
    arrivals = [at(6) + timedelta(seconds=sum(gaps[:n])) for n in range(len(gaps) + 1)]
    for arrival in arrivals:
        log.append(pl.DataFrame({"event_time": [arrival], "arrival_time": [arrival], "x": [1.0]}))
    found = freshness(signs_of(log), NOW)
    whole = 60 if down_after >= 600 else 1
    assert (found.down_after, found.down_by) == (timedelta(seconds=-(-down_after // whole) * whole), down_by)
    assert freshness(signs_of(log), NOW, down_after=timedelta(hours=1)).down_by == "asked"
    said = {
        "usual": "this is ten times 1m, its usual gap",
        "rare": "this is three times 18m 17s, which one gap in a hundred exceeds, and more than ten times 1m, its usual one",
        "least": "this is the least there is",
    }
    page = ask(pages(tmp_path), "/providers/p")
    assert [word for word, text in said.items() if text in page] == [down_by]
    assert "nobody said" not in ask(pages(tmp_path), "/providers/p?down_after=1h")


def test_a_provider_s_tiles_say_what_they_count(site: Pages) -> None:
    page = ask(site, "/providers/weather")
    assert "<dd>0.29<small>" in page  # 2 rows more than 7 keys
    assert "<dd>0<small>down after 6h 40m of silence</small>" in page
    assert "Measurements by station; log position 9." in page


# ----------------------------------------------------------------------------------------------------------- providers


def test_habits_are_what_a_loop_over_the_rows_finds(folder: Path) -> None:
    found = habits(ingestion.open_log(folder / "logs", "weather"))
    rows = [("a", event, arrival) for event, arrival, _, _ in ROWS] + [(HOSTILE, at(11, 20), at(11, 40))]
    first: dict[tuple[str, datetime], timedelta] = {}
    count: dict[tuple[str, datetime], int] = {}
    for entity, event, arrival in rows:
        key = (entity, event)
        count[key] = count.get(key, 0) + 1
        first[key] = min(first.get(key, arrival - event), arrival - event)
    by_hour = {each["start"]: each for each in found.over_time}
    for hour in range(6, 12):
        keys = [key for key in first if key[1].hour == hour]
        there = by_hour[at(hour)]
        assert there["keys"] == len(keys)
        assert there["revisions"] == sum(count[key] - 1 for key in keys) / len(keys)
    assert by_hour[at(7)]["q50"] == 30 * 60  # the correction came later, and does not count
    assert by_hour[at(9)]["q50"] == 130 * 60
    assert by_hour[at(11)]["q50"] == 25 * 60  # half way between 30 and 20 minutes
    assert (found.rows, found.keys, found.retractions, found.every) == (9, 7, 1, "hour")
    assert sum(each["keys"] for each in found.histogram) == 7
    assert found.histogram[-1] == {"from": pytest.approx(7_584), "until": None, "keys": 1}  # 130 minutes


def test_of_forecasts_delays_are_measured_from_the_issue(folder: Path) -> None:
    found = habits(ingestion.open_log(folder / "logs", "wind"))
    assert found.delay_of == "issue"
    assert [each["q50"] for each in found.over_time] == [3600, 3600]
    assert [each["revisions"] for each in found.over_time] == [1, 1]  # each event was issued twice


def test_habits_of_years_are_grouped_so_that_a_page_stays_small(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "old", entities=[])
    days = [datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(9_000)]
    log.append(pl.DataFrame({"event_time": days, "arrival_time": [day + timedelta(hours=1) for day in days], "x": 1}))
    found = habits(log)
    assert found.every == "30 days"
    assert len(found.over_time) <= 401
    assert sum(each["keys"] for each in found.over_time) == 9_000


def test_outages_are_those_of_the_ledger_and_may_go_on(folder: Path) -> None:
    log = ingestion.open_log(folder / "logs", "weather")
    found, count = outages(log, at(14), timedelta(minutes=70))
    assert [(each["start"], each["end"], each["lasted"]) for each in found] == [
        (at(9, 40), at(10), timedelta(minutes=20)),  # after 8:30 it was silent until 10:00
        (at(12, 50), None, timedelta(minutes=70)),
    ]
    assert count == 2
    assert outages(log, at(14), None) == ([], 0)


def test_the_address_says_which_silence_is_an_outage(site: Pages) -> None:
    assert told(site, "/providers/weather.json")["outages"] == []
    found = told(site, "/providers/weather.json?down_after=70m")
    assert [each["start"] for each in found["outages"]] == ["2026-01-05T09:40:00Z"]
    assert "2026-01-05 09:40:00" in ask(site, "/providers/weather?down_after=70m")


def test_an_outage_that_begins_while_the_log_stays_as_it_is_is_seen(folder: Path) -> None:
    now = [NOW]
    moving = Pages(Site(folder / "views.py"), clock=lambda: now[0])
    assert told(moving, "/providers/weather.json?down_after=2h")["outages"] == []
    now[0] = at(14)
    assert [each["end"] for each in told(moving, "/providers/weather.json?down_after=2h")["outages"]] == [None]


# --------------------------------------------------------------------------------------------------- what was known when


def test_the_vector_is_what_the_join_gives_at_every_instant_that_matters(site: Pages, folder: Path) -> None:
    log = ingestion.open_log(folder / "logs", "weather")
    view = Site(folder / "views.py").views()["weather"]
    arrivals = sorted({row[1] for row in ROWS})
    instants = [at(5), *(arrival + timedelta(microseconds=us) for arrival in arrivals for us in (-1, 0)), at(23)]
    spine = pl.DataFrame({"station": "a", "prediction_time": instants})
    joined = al.point_in_time_join(spine, [view], status=True)
    for row in joined.iter_rows(named=True):
        cells = known(site, row["prediction_time"], "part=vector")["vector"]["features"]
        assert [cell["value"] for cell in cells] == [row[name] for name in view.column_names]
        assert [cell["status"] for cell in cells] == [row[f"{name}__status"] for name in view.column_names]
    assert log.position() == 9


def test_at_a_quarter_to_eleven_the_withdrawn_row_is_gone_and_the_corrected_one_is_there(site: Pages) -> None:
    found = known(site, at(10, 45))["vector"]
    assert {cell["name"]: (cell["value"], cell["status"]) for cell in found["features"]} == {
        "temp": (None, "expired"),  # of 7:00, since 8:00 is withdrawn and 9:00 and 10:00 came at 11:10
        "note": (None, "null"),
        "temp_mean_3h": (None, "retracted"),
        "temp_count_3h": (0, "retracted"),
        "temp_lag_2h": (7.5, "present"),
        "temp_sequence_3": ([None, 6.0, 7.5], "present"),
    }
    assert [(cell["text"]) for cell in found["ages"]] == [
        "3h 45m",
        "45m",
    ]  # the event of 7:00, which arrived at 10:00 again


def test_what_changed_between_two_instants_is_marked(site: Pages) -> None:
    found = known(site, at(7, 30), f"was={iso(at(7, 29))}")["vector"]["features"]
    changed = {cell["name"]: (cell["was"], cell["text"]) for cell in found if cell["changed"]}
    assert changed == {
        "temp": ("6", "7"),
        "temp_mean_3h": ("6", "6.5"),
        "temp_count_3h": ("1", "2"),
        "temp_sequence_3": ("-, -, 6", "-, 6, 7"),
    }
    same = known(site, at(7, 31), f"was={iso(at(7, 30))}")["vector"]["features"]
    assert not any(cell["changed"] for cell in same)


def test_the_picture_has_one_mark_per_revision_and_says_when_each_counts(site: Pages) -> None:
    marks = known(site, at(11, 30))["picture"]["marks"]
    found = [(mark["event"], mark["arrival"], mark["revision"], mark["revisions"], mark["current"]) for mark in marks]
    expected = []
    for event, arrival, _, withdrawn in ROWS:
        same = sorted(other[1] for other in ROWS if other[0] == event)
        place = same.index(arrival)
        until = iso(same[place + 1]) if place + 1 < len(same) else None
        expected.append((iso(event), iso(arrival), place + 1, len(same), [] if withdrawn else [[iso(arrival), until]]))
    assert sorted(found) == sorted(expected)
    assert [mark["event"] for mark in marks if mark["retraction"]] == ["2026-01-05T08:00:00Z"]


def test_the_picture_says_how_many_revisions_lie_outside_and_shows_them_if_asked(site: Pages) -> None:
    address = f"/known/weather.json?entity=a&t={iso(at(7))}&from={iso(at(6))}&span=2h"
    found = told(site, address)["picture"]
    assert (found["top"], found["bottom"]) == (iso(at(6)), iso(at(8)))
    assert found["outside"] == 3  # of 6:00 to 8:00: at 8:30, 10:00 and 10:30
    page = ask(site, address.replace(".json", ""))
    assert "3 revisions of these events arrived outside this window." in page
    found = told(site, f"{address}&late=1")["picture"]
    assert (found["top"], found["bottom"], found["outside"]) == (iso(at(6)), iso(at(10, 30)), 0)
    page = ask(site, f"{address.replace('.json', '')}&late=1")
    assert "outside this window" not in page
    assert "arrivals in the window alone" in page
    wind = f"/known/wind.json?entity=s&t={iso(at(9))}&from={iso(at(8))}"
    found = told(site, f"{wind}&span=4h")["picture"]
    assert (found["top"], found["outside"]) == (iso(at(4)), 2)  # a window earlier; one run came at 1:00
    assert told(site, f"{wind}&span=12h")["picture"]["top"] == iso(at(1))


def test_delays_that_are_all_the_same_are_one_bar(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "p", entities=[])
    events = [at(0) + timedelta(minutes=n) for n in range(300)]
    late = [timedelta(hours=24)] * 299 + [timedelta(hours=48)]
    arrivals = [event + delay for event, delay in zip(events, late, strict=True)]
    log.append(pl.DataFrame({"event_time": events, "arrival_time": arrivals, "x": 1}))
    bars = [each for each in habits(log).histogram if each["keys"]]
    assert bars == [
        {"from": 86_400, "until": 86_832, "keys": 299},  # half a percent wide
        {"from": 86_400 + 40 * 432, "until": None, "keys": 1},
    ]


@pytest.mark.parametrize("kind", ["measurement", "forecast", "with ids"])
def test_the_marks_that_count_at_t_are_the_snapshot_at_t(kind: str) -> None:
    draw = random.Random(kind)
    rows = []
    for n in range(60):
        event, withdrawn = draw.randrange(4), draw.random() < 0.25
        rows.append(
            {
                "id": draw.randrange(5),
                "event_time": at(1, event) if kind != "with ids" or not withdrawn else None,
                "arrival_time": at(2, draw.randrange(30)),
                "issue_time": None if withdrawn and draw.random() < 0.5 else at(0, draw.randrange(3)),
                "is_retraction": withdrawn,
                "log_sequence": n,
                "x": n,
            }
        )
    arguments: dict[str, Any] = {"measurement": {}, "forecast": {"kind": "forecast"}, "with ids": {"key": ["id"]}}[kind]
    frame = pl.DataFrame(rows)
    view = al.FeatureView("v", [], frame, [al.latest("x")], **arguments)
    marks = marks_of(view, {}, at(0), at(3)).rows
    for minute in range(31):
        t = at(2, minute)
        counting = sorted((mark["event"], int(mark["values"]["x"])) for mark in marks if is_current(mark, t))
        assert counting == sorted(al.snapshot(view, t).select("event_time", "x").iter_rows())


def test_every_issue_of_a_forecast_is_a_key_of_its_own(site: Pages) -> None:
    found = known(site, at(9), view="wind", entity="s")
    assert [(mark["event"], mark["issue"], mark["revisions"]) for mark in found["picture"]["marks"]] == [
        ("2026-01-05T09:00:00Z", "2026-01-05T00:00:00Z", 1),
        ("2026-01-05T09:00:00Z", "2026-01-05T06:00:00Z", 1),
        ("2026-01-05T12:00:00Z", "2026-01-05T00:00:00Z", 1),
        ("2026-01-05T12:00:00Z", "2026-01-05T06:00:00Z", 1),
    ]
    assert found["vector"]["features"][0]["value"] == 4.5
    assert [cell["feature"] for cell in found["vector"]["ages"]] == ["@event_age", "@arrival_age", "@issue_age"]
    assert "issued (UTC)" in ask(site, "/known/wind?entity=s&t=2026-01-05T09:00:00Z&feature=wind__speed_forecast_3h")


def test_a_cell_is_explained_as_explain_does(site: Pages, folder: Path) -> None:
    view = Site(folder / "views.py").views()["weather"]
    found = known(site, at(10, 45), "feature=weather__temp_lag_2h")["explanation"]
    expected = al.explain(view, "a", at(10, 45)).to_dict()
    assert found == next(one for one in expected["features"] if one["feature"] == "weather__temp_lag_2h")
    page = ask(site, f"/known/weather?entity=a&t={iso(at(10, 45))}&feature=weather__temp_lag_2h")
    assert "Why weather__temp_lag_2h is 7.5" in page
    counts = re.search(
        r"^  not used: (.*)$",
        al.explain(view, "a", at(10, 45), features="weather__temp_lag_2h").to_text(),
        re.MULTILINE,
    )
    assert counts is not None
    assert f"Not used: {counts[1]}</h3>" in page  # in the words of the text form
    assert '<td class="instant">3h 45m</td><td>weather</td>' in page  # of 7:00
    assert "had not arrived" in page or "outside" in page


@pytest.mark.parametrize(
    "name",
    ["self", "earlier", "later", "arrival_before", "arrival_after", "window_before", "wider", "narrower", "late"],
)
def test_a_link_leads_to_a_page_that_says_the_same_of_itself(site: Pages, name: str) -> None:
    link = known(site, at(10, 45), "feature=weather__temp")["links"][name]
    page = ask(site, link)
    again = told(site, link.replace("/known/weather?", "/known/weather.json?"))
    assert again["links"]["self"] == link
    assert ask(site, again["links"]["self"]) == page
    assert again["window"]["from"] <= again["t"] <= again["window"]["until"]


def test_arrivals_can_be_walked_one_by_one(site: Pages) -> None:
    instants, links = [], known(site, at(5, 30), "from=2026-01-05T00:00:00Z", "span=24h")["links"]
    while links["arrival_after"] is not None:
        words = dict(parse_qsl(urlsplit(links["arrival_after"]).query))
        instants.append(datetime.fromisoformat(words["t"]))
        links = told(site, links["arrival_after"].replace("weather?", "weather.json?"))["links"]
    assert instants == sorted({row[1] for row in ROWS})


def test_a_slider_may_give_seconds_since_1970(site: Pages) -> None:
    assert (
        known(site, at(8))["vector"] == told(site, f"/known/weather.json?entity=a&t={int(at(8).timestamp())}")["vector"]
    )


def test_without_t_a_page_shows_the_last_arrival(site: Pages) -> None:
    found = told(site, "/known/weather.json?entity=a")
    assert (found["t"], found["links"]["arrival_after"]) == ("2026-01-05T11:30:00Z", None)


def test_without_an_entity_a_page_lists_what_there_is(site: Pages) -> None:
    found = told(site, "/known/weather.json")
    assert [each["entity"]["station"] for each in found["entities"]] == [HOSTILE, "a"]
    for each in found["entities"]:
        assert told(site, each["href"].replace("weather?", "weather.json?"))["entity"] == each["entity"]


def test_many_revisions_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "fast", entities=[])
    events = [at(0) + timedelta(seconds=n) for n in range(10_000)]
    words = {f"text_{n}": ["word " * 100] for n in range(8)}
    rows = pl.DataFrame({"event_time": events, "arrival_time": [event + timedelta(seconds=2) for event in events]})
    log.append(rows.join(pl.DataFrame(words), how="cross"))
    fast = pages(tmp_path)
    address = "/known/fast?t=2026-01-05T02:00:00Z&from=2026-01-05T00:00:00Z&span=3h&feature=fast__text_1"
    page = ask(fast, address)
    assert "One in 7 of 10,000 events is drawn" in page
    assert len(page.encode()) < 1_000_000
    assert (
        len(told(fast, address.replace("fast?", "fast.json?"))["picture"]["marks"]) == 1_429
    )  # 10,000 / 7, rounded up


def test_entities_of_several_columns_and_other_types_have_addresses_too(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "p", entities=["number", "day", "text"])
    log.append(
        pl.DataFrame(
            {
                "number": [7, 8],
                "day": [date(2026, 1, 1), date(2026, 1, 2)],
                "text": ["a=b&c", "text=x"],
                "event_time": [at(6)] * 2,
                "arrival_time": [at(7)] * 2,
                "x": [1.0, float("nan")],
            }
        )
    )
    p = pages(tmp_path)
    found = told(p, "/known/p.json")["entities"]
    shown = [told(p, each["href"].replace("/p?", "/p.json?")) for each in found]
    assert [each["entity"] for each in shown] == [
        {"number": 7, "day": "2026-01-01", "text": "a=b&c"},
        {"number": 8, "day": "2026-01-02", "text": "text=x"},
    ]
    assert [each["vector"]["features"][0]["value"] for each in shown] == [1.0, "NaN"]
    assert "is not a Int64" in ask(p, "/known/p?entity=number=seven&entity=day=2026-01-01&entity=text=x", 400)
    assert "lacks &#39;day&#39;" in ask(p, "/known/p?entity=number=7&entity=text=x", 400)


def test_nan_that_stays_nan_has_not_changed(tmp_path: Path) -> None:
    log = ingestion.create_log(tmp_path, "p", entities=[])
    log.append(pl.DataFrame({"event_time": [at(6)], "arrival_time": [at(7)], "x": [float("nan")]}))
    cell = told(pages(tmp_path), f"/known/p.json?t={iso(at(9))}&was={iso(at(8))}")["vector"]["features"][0]
    assert (cell["value"], cell["changed"]) == ("NaN", False)


def test_a_view_of_a_frame_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "views.py").write_text(
        "import alignment as al, polars as pl\n"
        "from datetime import datetime, UTC\n"
        "frame = pl.DataFrame({'s': ['a'], 'event_time': [datetime(2026, 1, 5, 6, tzinfo=UTC)], 'temp': [1.0]})\n"
        "views = [al.FeatureView('a/b.json', ['s'], frame, [al.latest('temp')], delay=al.FixedDelay('45m'), entity_map={'site': 's'})]\n"
    )
    p = pages(tmp_path / "views.py")
    assert "read frames, not logs" in ask(p, "/")
    link = told(p, "/index.json")["views"][0]["href"]
    (entity,) = told(p, f"{link}.json")["entities"]
    assert entity["text"] == "site a"
    assert ask(p, entity["href"])
    found = told(p, entity["href"].replace(f"{link}?", f"{link}.json?"))
    assert (found["t"], found["provider"], found["vector"]["features"][0]["value"]) == (
        "2026-01-05T06:45:00Z",
        None,
        1.0,
    )


def test_a_changed_views_file_is_read_again_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path)
    p = pages(folder / "views.py")
    assert len(told(p, "/index.json")["views"]) == 2
    (folder / "views.py").write_text((folder / "views.py").read_text() + "\nviews = views[:1]\n")
    assert len(told(p, "/index.json")["views"]) == 1
    (folder / "views.py").write_text("views = []\n")
    assert "it has no list of views" in ask(p, "/", 503)


# ------------------------------------------------------------------------------------------------- what cannot be shown


@pytest.mark.parametrize(
    ("address", "status", "problem", "hint"),
    [
        ("/nowhere", 404, "there is no page '/nowhere'", "the overview lists what there is."),
        ("/providers/wether", 404, "there is no provider 'wether' in VIEWS", "did you mean 'weather'?"),
        ("/providers/x", 404, "there is no provider 'x' in VIEWS", "there are: weather, wind."),
        ("/providers/weather?down_after=soon", 400, "down_after='soon' is not a length of time", "write down_after=6h"),
        ("/providers/weather?down_after=0s", 400, "down_after='0s' is not a length of time", "write down_after=6h"),
        ("/known/winds", 404, "there is no view 'winds' in VIEWS", "did you mean 'wind'?"),
        ("/known/wind?entity=t", 404, "view 'wind' has no rows of 'site t'", "/known/wind lists the entities that have some."),
        ("/known/wind?entity=s&t=noon", 400, "t='noon' is not an instant", "write t=2026-06-01T12:00:00Z"),
        ("/known/wind?entity=s&t=2026-01-05T10:00", 400, "t='2026-01-05T10:00' has no zone", "write t=2026-01-05T10:00:00Z for UTC."),
        ("/known/wind?entity=s&t=9999-01-05T10:00:00Z", 400, "t='9999-01-05T10:00:00Z' is too far away", "name an instant near the observations."),
        ("/known/wind?entity=s&t=99999999999999999999", 400, "t='99999999999999999999' is not an instant", "write t=2026-06-01T12:00:00Z"),
        ("/known/wind?entity=s&span=1000w", 400, "span='1000w' is more than ten years", "write span=365d"),
        ("/known/wind?entity=s&span=-6h", 400, "span='-6h' is not a length of time", "write span=6h"),
        ("/known/wind?entity=s&from=x", 400, "from='x' is not an instant", "write from=2026-06-01T12:00:00Z"),
        (
            "/known/wind?entity=s&feature=wind__sped_forecast_3h",
            404,
            "there is no feature 'wind__sped_forecast_3h' in view 'wind'",
            "did you mean 'wind__speed_forecast_3h'?",
        ),
        ("/known/wind?" + "&".join(["a=b"] * 60), 400, "the address cannot be read: Max number of fields exceeded", "open the overview."),
    ],
)  # fmt: skip
def test_a_refusal_names_the_value_and_the_fix(
    site: Pages, folder: Path, address: str, status: int, problem: str, hint: str
) -> None:
    path, _, query = address.partition("?")
    found = told(site, f"{path}.json?{query}", status)
    problem = problem.replace("/nowhere", "/nowhere.json").replace("VIEWS", repr(str(folder / "views.py"))[1:-1])
    assert found == {"error": problem, "hint": hint}
    page = ask(site, address, status)
    assert hint.replace("'", "&#39;") in page
    assert 'role="alert"' in page


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("/providers/wether?down_after=70m", "/providers/weather?down_after=70m"),
        ("/known/winds?entity=s", "/known/wind?entity=s"),
        ("/known/wind?entity=t", "/known/wind"),
        ("/known/wind?entity=s&feature=wind__sped_forecast_3h", "/known/wind?entity=s&feature=wind__speed_forecast_3h"),
        ("/known/weather?entity=a&t=%3Cb%3E&feature=weather__tmp", None),
        ("/providers/x", None),
    ],
)
def test_a_refusal_links_the_page_that_its_hint_names(folder: Path, address: str, link: str | None) -> None:
    for base in ("", "/ui"):
        site = pages(folder / "views.py", base=base)
        path, _, query = address.partition("?")
        page = site.answer(path, query).body.decode()
        links = re.findall(r'<p><a href="([^"]*)">(?!Back)', page)
        assert links == ([] if link is None else [f"{base}{link}".replace("&", "&amp;")])
        for other in links:
            assert ask(site, other.removeprefix(base).replace("&amp;", "&"))


def test_where_a_view_is_called_as_its_provider_the_trail_names_it_once(folder: Path) -> None:
    page = ask(pages(folder / "logs"), "/known/weather?entity=a")
    trail = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.findall(r"<nav.*?</nav>", page, re.DOTALL)[0])).strip()
    assert trail == "asknown Overview / weather / what was known when / station a"


def test_a_plus_in_a_zone_need_not_be_encoded(site: Pages) -> None:
    assert told(site, "/known/weather.json?entity=a&t=2026-01-05T10:00:00+01:00")["t"] == "2026-01-05T09:00:00Z"


def test_a_window_of_minutes_or_of_years_is_shown(site: Pages) -> None:
    for span in ("1us", "1s", "10m", "3650d"):
        page = ask(site, f"/known/weather?entity=a&t=2026-01-05T10:00:00Z&span={span}")
        assert "Revisions" in page


def test_a_folder_without_logs_says_what_to_run(tmp_path: Path) -> None:
    assert f"asknown world write {tmp_path} --days 7" in ask(pages(tmp_path), "/")


def test_a_log_without_rows_says_what_to_run(tmp_path: Path) -> None:
    ingestion.create_log(tmp_path, "new", entities=["s"])
    ingestion.create_log(tmp_path, "typed", entities=["s"], schema={"s": pl.String, "x": pl.Float64})
    p = pages(tmp_path)
    assert "has no rows yet" in ask(p, "/providers/new")
    assert f"asknown log append {tmp_path} new FILE.parquet" in ask(p, "/providers/new")
    assert "unknown" in ask(p, "/")
    assert [view["view"] for view in told(p, "/index.json")["views"]] == ["typed"]
    assert f"asknown log append {tmp_path} typed FILE.parquet" in ask(p, "/known/typed")


def test_a_window_without_events_leads_back_to_them(site: Pages) -> None:
    page = ask(site, "/known/weather?entity=a&t=2026-03-01T00:00:00Z")
    assert "has no events between" in page
    assert "last arrival" in page


# ------------------------------------------------------------------------------------------------------------- safety


ADDRESSES = (
    "/",
    "/providers/weather",
    "/known/weather",
    "/known/weather?entity=a&feature=weather__temp",
    f"/known/weather?entity={HOSTILE}&feature=weather__note",
    f"/known/weather?entity=a&t={HOSTILE}",
    f"/known/{HOSTILE}",
    f"/providers/{NOTE}",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_providers_and_addresses_say_is_never_markup(site: Pages, address: str) -> None:
    path, _, query = address.partition("?")
    for suffix in ("", ".json"):
        reply = site.answer(path + suffix if path != "/" else "/", query)
        body = reply.body.decode()
        assert "<script>" not in body
        assert "<img" not in body
        policy = dict(reply.headers)[b"content-security-policy"].decode()
        assert "default-src 'self'; script-src 'self';" in policy


@pytest.mark.parametrize("address", ADDRESSES)
def test_pages_have_no_scripts_of_their_own_and_name_nothing_elsewhere(site: Pages, address: str) -> None:
    path, _, query = address.partition("?")
    body = site.answer(path, query).body.decode()
    for script in re.findall(r"<script[^>]*>", body):
        assert "src=" in script or 'type="application/json"' in script
    assert not re.search(r"<[^>]*\s(on\w+|style)=", body)
    for link in re.findall(r"(?:href|src|action)=\"([^\"]*)\"", body):
        assert link.startswith(("/", "#")), link
    for link in re.findall(r"(?:href|src)=\"(/static/[^\"]*)\"", body):
        assert site.answer(link.partition("?")[0]).status == 200


def test_hostile_values_are_shown_as_they_are(site: Pages) -> None:
    found = told(site, f"/known/weather.json?entity={HOSTILE}")
    assert found["vector"]["features"][1]["value"] == NOTE
    assert found["picture"]["marks"][0]["values"]["note"] == NOTE
    assert "&lt;img src=x onerror=" in ask(site, f"/known/weather?entity={HOSTILE}")


def test_files_outside_the_folder_of_assets_are_not_served(site: Pages) -> None:
    for name in ("../pages.py", "..%2Fpages.py", "/etc/passwd", ""):
        assert site.answer(f"/static/{name}").status == 404


# ------------------------------------------------------------------------------------------------------- as a server


def get(app: Any, path: str, **more: Any) -> httpx.Response:
    return ask_app(app, more.pop("method", "GET"), path, **more)


def test_pages_are_for_this_machine_unless_there_is_a_token(folder: Path) -> None:
    for environment, client, headers, status in (
        ({}, "127.0.0.1", {}, 200),
        ({}, "192.0.2.1", {}, 403),
        ({}, "127.0.0.1", {"Host": "evil.example"}, 403),
        (TOKENS, "127.0.0.1", {}, 401),
        (TOKENS, "192.0.2.1", bearer(READ), 200),
    ):
        app = PagesApp(pages(folder / "views.py"), tokens=Tokens(environment))
        assert get(app, "/", client=client, headers=headers).status_code == status
        app.close()


def test_head_has_no_body_and_nothing_can_be_posted(folder: Path) -> None:
    app = PagesApp(pages(folder / "views.py"), tokens=Tokens({}))
    head = get(app, "/providers/weather", method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1_000
    assert get(app, "/", method="POST").status_code == 405
    app.close()


def test_a_fault_is_told_without_its_details(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = pages(folder / "views.py")
    monkeypatch.setattr(site, "answer", lambda *_: 1 / 0)
    app = PagesApp(site, tokens=Tokens({}))
    found = get(app, "/")
    assert (found.status_code, found.text) == (500, "a fault of the server; its log lines tell more\n")
    app.close()


def test_the_feature_server_has_the_pages_under_ui(tmp_path: Path) -> None:
    from serving.http.ui import Ui

    make_served(tmp_path)
    with application(tmp_path, environment=TOKENS) as app:
        app._ui = Ui(tmp_path / "features.py", Tokens(TOKENS))
        assert get(app, "/ui").status_code == 401
        page = get(app, "/ui", headers=bearer(READ))
        assert page.status_code == 200
        links = re.findall(r"(?:href|src)=\"(/[^\"]*)\"", page.text)
        assert all(link.startswith("/ui/") for link in links)
        for link in set(links):
            assert get(app, link, headers=bearer(READ)).status_code == 200, link
        found = get(app, "/ui/known/weather.json?entity=a", headers=bearer(READ)).json()
        assert found["vector"]["features"][0]["value"] == 22.0
        assert get(app, found["links"]["self"], headers=bearer(READ)).status_code == 200
        assert get(app, "/uix", headers=bearer(READ)).status_code == 404
        assert get(app, "/").json()["paths"]["/ui"] == "Pages for people"


def test_requests_at_the_same_time_are_all_answered(folder: Path) -> None:
    app = PagesApp(pages(folder / "views.py"), tokens=Tokens({}))

    async def many() -> list[int]:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as session:
            paths = ["/", "/providers/weather", "/known/weather?entity=a"] * 4
            return [found.status_code for found in await asyncio.gather(*map(session.get, paths))]

    assert set(asyncio.run(many())) == {200}
    app.close()


# ----------------------------------------------------------------------------------------------------- the command line


def test_what_cannot_be_shown_is_said_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("views.py").write_text("views = []\n")
    for words, code, problem in (
        (["nowhere"], 3, "there are no logs at 'nowhere'"),
        (["nowhere.py"], 2, "nowhere.py: there is no such file"),
        (["views.py"], 2, "it has no list of views called 'views'"),
        ([".", "--host", "192.0.2.1"], 3, "192.0.2.1"),
    ):
        assert run(["ui", *words, "--port", "0"]) == code
        assert problem in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("serving.pages")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("serving.pages")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run(["ui", str(tmp_path)]) == 3
    assert "pip install 'asknown[ui]'" in capsys.readouterr().err
