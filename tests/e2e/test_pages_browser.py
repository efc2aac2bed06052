"""The pages in a real browser: by keyboard alone, light and dark, wide and narrow, with a hostile provider, without scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import pytest
from pages_site import HOSTILE, make
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from services import program

KNOWN = "/known/weather?entity=a&t=2026-01-05T10:00:00Z&from=2026-01-05T06:00:00Z&span=12h"
PAGES = {
    "overview": "/",
    "provider": "/providers/weather?down_after=70m",
    "entities": "/known/weather",
    "known": f"{KNOWN}&feature=weather__temp_mean_3h&was=2026-01-05T09:00:00Z",
    "forecast": "/known/wind?entity=s&t=2026-01-05T08:00:00Z&from=2026-01-05T00:00:00Z&span=24h&feature=wind__speed_forecast_3h",
    "error": "/known/weather?entity=nobody",
}
FITS = "document.documentElement.scrollWidth <= innerWidth"
# Text whose contrast with what lies behind it is below WCAG AA: 4.5 to 1, of large text 3 to 1.
TOO_FAINT = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => { const n = (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3]) layers.push(colour);
    }
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, noscript, style, .hidden, .skip")) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const under = behind(element);
    const colour = over(parse(element instanceof SVGElement ? style.fill : style.color), under);
    const [a, b] = [light(colour), light(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = program("chromium", package="chromium")
    with sync_playwright() as playwright:
        # As root, as which CI may run, Chromium starts only without its sandbox; it visits nothing but our own server.
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `asknown ui views.py` answers."""
    folder = make(tmp_path_factory.mktemp("site"))
    command = [sys.executable, "-c", "from serving.cli import main; main()", "ui", "views.py", "--port", "0"]
    with (folder / "lines.txt").open("w") as lines:
        process = subprocess.Popen(command, cwd=folder, stderr=lines, env={**os.environ, "NO_COLOR": "1"})
    end = time.monotonic() + 60
    try:
        while not (
            told := re.search(r"pages of views\.py: (http://127\.0\.0\.1:\d+)/", (folder / "lines.txt").read_text())
        ):
            assert process.poll() is None, (folder / "lines.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        for path in (KNOWN, PAGES["forecast"]):  # where no kernel is compiled yet, this waits for it
            with urlopen(told[1] + path, timeout=300) as answer:
                assert answer.status == 200
        yield told[1]
        process.terminate()
        assert process.wait(15) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(15)


@pytest.fixture(scope="module")
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    found = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    found.set_default_timeout(60_000)
    yield found
    found.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """A fresh page that must not complain, ask anybody else, or open a dialog."""
    page = context.new_page()
    wrong: list[str] = []

    def on_request(request: Any) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob") and not request.url.startswith(f"{address}/"):
            wrong.append(f"request to {request.url}")

    def on_console(message: Any) -> None:
        missing = "the server responded with a status of 404" in message.text  # of the page that is to be missing
        if message.type in ("error", "warning") and not (missing and "nobody" in message.location["url"]):
            wrong.append(f"{message.type}: {message.text}")

    def on_dialog(dialog: Any) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", on_dialog)
    yield page
    page.close()
    assert wrong == []


def eventually(holds: Callable[[], Any], seconds: float = 10) -> bool:
    """Whether it holds before long; a page's policy lets no script of ours wait inside it."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Press Tab until what has the focus matches."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def features(page: Page) -> list[str]:
    """Each row of the features: its name, value, status, and what it was before."""
    parts = "['th', '[data-part=text]', '[data-part=status]', '[data-part=was]']"
    script = f"rows => rows.map((row) => {parts}.map((part) => row.querySelector(part).textContent.trim()).join(' '))"
    found: list[str] = page.locator("#features tbody tr").evaluate_all(script)
    return found


def drawn(page: Page) -> dict[str, int]:
    """The kinds of marks in the picture, and how many there are of each."""
    page.wait_for_selector('[data-chart="known"] .main-svg')
    found: dict[str, int] = page.evaluate(
        """() => Object.fromEntries(document.querySelector('[data-chart="known"]').data
            .filter((trace) => trace.mode === "markers").map((trace) => [trace.name, trace.x.length]))"""
    )
    return found


# -------------------------------------------------------------------------------------------------------------- keyboard


def test_all_pages_can_be_walked_by_keyboard_alone(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    skip = page.locator(".skip")
    assert (skip.bounding_box() or {"x": -1})["x"] >= 0  # it shows itself
    page.keyboard.press("Enter")
    tab_to(page, 'a[href="/providers/weather"]')
    outline = page.evaluate(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "solid3px"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("weather")
    tab_to(page, "#down_after")
    page.keyboard.press("Control+a")
    page.keyboard.type("70m")
    page.keyboard.press("Enter")
    page.wait_for_url("**/providers/weather?down_after=70m")
    tab_to(page, "section[aria-labelledby=outages] summary")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2026-01-05 09:40:00")).to_be_visible()

    page.goto("/known/weather")
    tab_to(page, 'a[href="/known/weather?entity=a"]')
    page.keyboard.press("Enter")
    page.wait_for_url("**/known/weather?entity=a&t=*")  # the address holds all of it once the page is there


def test_arrow_keys_move_t_and_enter_explains_a_cell(page: Page) -> None:
    page.goto(KNOWN)
    assert drawn(page) == {"replaced": 1, "not yet arrived": 4, "current": 3}
    assert features(page)[0] == "temp 8 present same"
    tab_to(page, "#slider")
    for _ in range(6):  # five minutes each: 8:00 is withdrawn at 10:30
        page.keyboard.press("ArrowRight")
    expect(page.locator("#now")).to_have_text("2026-01-05 10:30:00")
    assert drawn(page) == {"replaced": 2, "not yet arrived": 3, "current": 2, "retraction": 1}
    row = page.locator('tr[data-feature="weather__temp_count_3h"]')
    expect(row).to_have_class("changed")
    assert features(page)[3] == "temp_count_3h 0 retracted 1"
    assert page.locator("#slider").get_attribute("aria-valuetext") == "2026-01-05 10:30:00 UTC"
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#now")).to_have_text("2026-01-05 10:25:00")
    expect(row.locator('[data-part="text"]')).to_have_text("1")

    tab_to(page, '#features tr[data-feature="weather__temp_count_3h"] a')
    page.keyboard.press("Enter")
    expect(page.locator("#why")).to_have_text("Why weather__temp_count_3h is 1")
    assert focused(page) == "explanation"
    expect(page.locator("#explanation")).to_contain_text("had not arrived")
    assert "feature=weather__temp_count_3h" in page.url
    shown, url = features(page), page.url
    page.reload()
    assert (features(page), page.url) == (shown, url)  # a link reproduces the page
    expect(page.locator("#why")).to_have_text("Why weather__temp_count_3h is 1")

    tab_to(page, "#arrival_after")
    page.keyboard.press("Enter")
    expect(page.locator("#now")).to_have_text("2026-01-05 10:30:00")
    expect(page.locator("#why")).to_have_text("Why weather__temp_count_3h is 0")  # it follows t
    page.go_back()
    expect(page.locator("h1")).to_contain_text("station a")


def test_back_goes_through_where_t_was_and_one_move_of_the_slider_is_one_step(page: Page) -> None:
    page.goto(KNOWN)
    now, was = page.locator("#now"), page.locator("#was")
    page.locator("#later").click()
    expect(now).to_have_text("2026-01-05 10:05:00")
    page.locator("#arrival_after").click()
    expect(now).to_have_text("2026-01-05 10:30:00")
    expect(was).to_have_text("2026-01-05 10:05:00 UTC")
    page.locator("#slider").focus()
    for _ in range(12):  # fast: some of these instants are never asked for
        page.keyboard.press("ArrowRight")
    expect(now).to_have_text("2026-01-05 11:30:00")
    expect(was).to_have_text("2026-01-05 10:30:00 UTC")
    for instant in ("10:30", "10:05", "10:00"):
        page.go_back()
        expect(now).to_have_text(f"2026-01-05 {instant}:00")
    page.go_forward()
    expect(now).to_have_text("2026-01-05 10:05:00")
    expect(was).to_have_text("2026-01-05 10:00:00 UTC")


def test_a_mark_that_arrived_outside_the_picture_is_not_drawn_at_its_edge(page: Page) -> None:
    page.goto("/known/weather?entity=a&t=2026-01-05T07:30:00Z&from=2026-01-05T06:00:00Z&span=2h")
    assert drawn(page) == {"current": 2}  # three more arrived after 8:00
    page.get_by_role("link", name="Show them too").click()
    page.wait_for_url("**late=1*")
    assert drawn(page) == {"not yet arrived": 3, "current": 2}
    edges = page.evaluate(
        """() => { const chart = document.querySelector('[data-chart="known"]');
                   const room = chart._fullLayout._size;
                   const bottom = chart.getBoundingClientRect().top + room.t + room.h;
                   return [...chart.querySelectorAll('.points path')].map((mark) => bottom - mark.getBoundingClientRect().bottom); }"""
    )
    assert min(edges) >= 0  # none is cut
    page.get_by_role("link", name="arrivals in the window alone").click()
    expect(page.get_by_text("3 revisions of these events arrived outside this window")).to_be_visible()


def test_outages_lie_in_the_time_that_the_charts_above_show(page: Page) -> None:
    page.goto(PAGES["provider"])
    for kind in ("outages", "delays", "histogram"):
        page.wait_for_selector(f'[data-chart="{kind}"] .main-svg')
    axis = (
        "kind => [...document.querySelectorAll('.chart')].find((e) => e.dataset.chart === kind)._fullLayout.xaxis.range"
    )
    first, last = page.evaluate(axis, "outages")
    # Events from 6:00 to 11:00; one outage from 9:40 to 10:00, one from 12:50 to this day, ten months later at least.
    assert first[:19].replace("T", " ") == "2026-01-05 05:43:36"
    assert last[:19].replace("T", " ") == "2026-01-05 13:06:24"
    assert page.evaluate(axis, "histogram")[0] == 0


def test_numbers_of_the_features_stay_in_one_line(page: Page) -> None:
    page.goto(f"{KNOWN}&was=2026-01-05T07:00:00Z")
    row = page.locator('tr[data-feature="weather__temp"] [data-part="was"]')
    row.evaluate("cell => { cell.textContent = '-0.300474123'; }")
    one = row.evaluate("cell => cell.getClientRects()[0].height")
    row.evaluate("cell => { cell.textContent = '8'; }")
    assert row.evaluate("cell => cell.getClientRects()[0].height") == one


# ------------------------------------------------------------------------------------------------------------------ looks


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_light_and_dark_wide_and_narrow(page: Page, name: str) -> None:
    page.goto(PAGES[name])
    for chart in page.locator(".chart").all():
        chart.locator(".main-svg").first.wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert eventually(lambda: page.evaluate(FITS)), (scheme, width)  # once charts have fitted themselves
            assert page.evaluate(TOO_FAINT) == [], (scheme, width)
    assert page.locator("h1").count() == 1
    assert page.evaluate(
        "document.querySelectorAll('[id]').length === new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
    )
    unnamed = "[...document.querySelectorAll('a, button, input:not([type=hidden])')].filter((e) => !e.closest('.chart') && !(e.textContent.trim() || e.ariaLabel || (e.labels || []).length)).length"
    assert page.evaluate(unnamed) == 0
    if folder := os.environ.get("ASKNOWN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_nothing_of_the_overview_s_tables_is_cut_off_where_it_is_narrow(page: Page) -> None:
    page.set_viewport_size({"width": 500, "height": 900})
    page.goto("/")
    hidden = "tables => tables.map((e) => [e.scrollWidth - e.clientWidth, e.scrollHeight - e.clientHeight])"
    assert page.locator(".scroll").evaluate_all(hidden) == [[0, 0], [0, 0]]
    before = "cell => getComputedStyle(cell, '::before').content"
    assert page.locator("tbody td").first.evaluate(before) == '"state: "'


# --------------------------------------------------------------------------------------------------- hostile, no scripts


def test_what_a_hostile_provider_sends_is_text(page: Page) -> None:
    page.goto(f"/known/weather?entity={quote(HOSTILE)}&feature=weather__note")
    assert drawn(page) == {"current": 1}
    expect(page.locator("h1")).to_contain_text(HOSTILE)
    expect(page.locator("#features")).to_contain_text("<img src=x onerror=")
    page.locator("#earlier").click()
    expect(page.locator("#now")).to_have_text("2026-01-05 11:39:00")
    assert page.locator("main img").count() == 0
    x, y = page.evaluate(
        """() => { const box = document.querySelector('[data-chart="known"] .points path').getBoundingClientRect();
                   return [box.x + box.width / 2, box.y + box.height / 2]; }"""
    )
    page.mouse.move(x, y)
    expect(page.locator('[data-chart="known"] .hovertext')).to_contain_text("onerror")
    assert page.locator("svg image").count() == 0


def test_without_scripts_everything_but_the_picture_works(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto(KNOWN)
    slider = page.locator("#slider")
    slider.focus()
    for _ in range(6):
        slider.press("ArrowRight")
    page.locator("#slide button").click()
    expect(page.locator("#now")).to_have_text("2026-01-05 10:30:00")
    expect(page.locator("#features tbody tr").first).to_have_class("changed")
    page.locator("#later").click()
    expect(page.locator("#now")).to_have_text("2026-01-05 10:35:00")
    page.locator('#features tr[data-feature="weather__temp"] a').click()
    expect(page.locator("#why")).to_have_text("Why weather__temp is null")
    page.locator("summary").click()
    expect(page.locator("details")).to_contain_text("not yet arrived")
    context.close()
