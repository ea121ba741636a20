"""The page in a real browser: it opens from disk without errors or requests, and its controls work."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from analysis.page.content import RecordedEpisode
from analysis.page.filmstrip import make_filmstrip
from analysis.page.pictures import data_uri, sheet, webp
from analysis.page.render import write_page
from helpers.pages import PREDICTION, page_content, several

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = {"width": 375, "height": 760}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium; `bash scripts/ensure-browser.sh` installs it as root")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(base, store, tmp_path_factory):
    """A page with every section that small cells can have, long names among them."""
    content = page_content(several(base), predictions=(PREDICTION,))
    frames = [store["images"][i].swapaxes(0, 1).reshape(32, 64, 3) for i in range(9)]
    picture = data_uri(webp(sheet(frames), 32))

    def film(intervention, count, episode):
        steps, phases = tuple(range(count)), ("cue",) * 2 + ("decision",) * (count - 2)
        change = tuple(0.01 * step for step in steps)
        facts = (count, 2, picture, picture, steps, phases, change, "success", True)
        return RecordedEpisode("K=8", 0, "p@1", episode, intervention, *facts)

    episodes = (film("none", 5, 0), film("zero", 9, 0), film("none", 9, 1))
    long_name = (("a-very-long-name-of-a-file-that-a-report-wrote-beside-this-page.csv", "rates"),)
    content = dataclasses.replace(content, episodes=episodes, filmstrip=make_filmstrip(store), files=long_name)
    return write_page(content, tmp_path_factory.mktemp("page"))


@pytest.fixture
def visit(browser, file):
    """`visit(size)` → the page, opened from disk; at the end it has made no request, no error and no message."""
    contexts, noise = [], []

    def opened(size, scheme="light"):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda r: noise.append(r.url) if not r.url.startswith(("data:", file.as_uri())) else None)
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert noise == []


def visible(page, selector):
    return [element for element in page.locator(selector).all() if element.is_visible()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_answer_is_on_the_first_screen(visit, scheme):
    page = visit(DESK, scheme)
    for selector in ("h1", ".answer .lead", ".state", ".film img >> nth=0", ".dots circle >> nth=0"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < DESK["height"], selector
    ink, paper = page.evaluate("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
    assert ink != paper


@pytest.mark.parametrize("size", [PHONE, {"width": 320, "height": 640}, {"width": 768, "height": 1024}, DESK])
def test_nothing_overflows(visit, size):
    page = visit(size)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    small = page.evaluate(
        "[...document.querySelectorAll('main p, main td, main th, main li, main svg text')]"
        ".filter((e) => e.getClientRects().length && parseFloat(getComputedStyle(e).fontSize) < 11).length"
    )
    assert small == 0  # no text is smaller than 11 pixels


def test_predictions_are_filtered_by_verdict(visit):
    page = visit(DESK)
    rows = page.locator("#verdicts tbody tr")
    words = [row.get_attribute("data-verdict") for row in rows.all()]
    for word in ("supported", "refuted", "undecided"):
        page.locator(f".filter button[data-filter={word}]").click()
        assert len(visible(page, "#verdicts tbody tr")) == words.count(word)
        assert page.locator("#verdict-count").text_content() == f"{words.count(word)} of {len(words)} verdicts shown"
    page.locator('.filter button[data-filter=""]').click()
    assert len(visible(page, "#verdicts tbody tr")) == len(words)
    page.locator(".tally a").first.click()  # the counts on the first screen filter too
    assert page.locator(".filter button[aria-pressed=true]").get_attribute("data-filter") == "supported"


def test_buttons_show_another_metric_and_quantity(visit):
    page = visit(DESK)
    for group, key, value in (("dots", "metric", "success"), ("heat", "quantity", "own")):
        page.locator(f".choices[data-group={group}] button[data-value={value}]").click()
        (shown,) = visible(page, f"[data-panel={group}]")
        assert shown.get_attribute(f"data-{key}") == value


def test_a_mark_says_what_it_is(visit):
    page = visit(DESK)
    mark = page.locator(".dots circle").first
    mark.hover()
    assert page.locator("#tip").text_content() == mark.get_attribute("data-tip")
    page.locator(".heat td[data-tip]").first.focus()
    assert page.locator("#tip").text_content().startswith("seed 0: ")


def test_an_episode_plays(visit):
    page = visit(DESK)
    player = page.locator(".player:not([hidden])")
    slider, now = player.locator("input[type=range]"), player.locator(".now")
    before = player.locator(".frame").first.evaluate("(e) => getComputedStyle(e).backgroundPosition")
    slider.fill("7")
    assert now.nth(0).text_content() == "step 4, decision, the episode has ended"
    assert now.nth(1).text_content() == "step 7, decision"
    assert player.locator(".frame").first.evaluate("(e) => getComputedStyle(e).backgroundPosition") != before
    player.locator(".play").click()
    page.wait_for_function("document.querySelector('.player:not([hidden]) input').value === '8'")
    overlay = player.locator(".overlay").first
    assert not overlay.is_visible()
    page.locator("#attention").check()
    assert overlay.is_visible()
    page.locator(".choices[data-group=films] select[data-key=number]").select_option("1")
    assert page.locator(".player:not([hidden])").get_attribute("data-number") == "1"


def test_light_and_dark_are_exchanged(visit):
    page = visit(DESK)
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) != before


def test_the_keyboard_reaches_the_answer_first(visit):
    page = visit(DESK)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.hash") == "#overview"


def test_the_page_prints(visit):
    page = visit(DESK, "dark")
    page.emulate_media(media="print")
    assert not page.locator("header.top").is_visible() and not visible(page, ".choices")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") < 20
