"""The page in a real Chromium: phone and desktop, dark and light, keyboard and screen reader."""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from messages import soon
from served import BLUE, PALE, RED, Served, encoded, served, write_video

pytest.importorskip("starlette", reason="the server needs keras-kedge[serve]")
pytest.importorskip("ai_edge_litert")
playwright = pytest.importorskip("playwright.sync_api", reason="needs keras-kedge[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM:
    pytest.skip("no chromium on PATH: apt install chromium", allow_module_level=True)

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
# Chromium asks its maker's hosts at its start without these.
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
TOKEN = "a-token-of-many-signs"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def until(page: Any, holds: str) -> None:
    """Wait until a script's expression holds. The page's own policy forbids it to evaluate any."""
    soon(lambda: page.evaluate(holds))


@contextmanager
def running(artefacts: Path, folder: Path) -> Iterator[Served]:
    """Run a server whose video has ended: 9 red frames, 6 unsure ones, 3 blue."""
    video = write_video(folder / "walk.avi", [RED] * 9 + [PALE] * 6 + [BLUE] * 3)
    words = ("--save-unsure", folder / "unsure", "--min-confidence", ".8")
    with served(artefacts / "tiny.tflite", "--video", video, *words) as server:
        soon(lambda: server.ask("/v1/state").json()["number"] == 18)
        yield server


@pytest.fixture(scope="module")
def shown(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server that no test changes."""
    with running(artefacts, tmp_path_factory.mktemp("shown")) as server:
        yield server


@pytest.fixture
def server(artefacts: Path, tmp_path: Path) -> Iterator[Served]:
    with running(artefacts, tmp_path) as server:
        yield server


@contextmanager
def opened(browser: Any, server: Served, size: dict[str, int], scheme: str) -> Iterator[Any]:
    """Open the page, and note what it asks for and its errors."""
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.asked, page.errors = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda line: line.type == "error" and page.errors.append(line.text))
    page.goto(server.address)
    until(page, "document.querySelectorAll('#unsure li').length == 6")
    until(page, "document.getElementById('live').naturalWidth > 0")
    yield page
    context.close()


LOOKS = [(PHONE, "dark"), (PHONE, "light"), (DESKTOP, "dark"), (DESKTOP, "light")]


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: f"{look[0]['width']}-{look[1]}")
def page(browser: Any, shown: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, shown, *request.param) as page:
        page.look = f"{request.param[0]['width']}-{request.param[1]}"
        yield page


@pytest.fixture
def desk(browser: Any, server: Served) -> Iterator[Any]:
    """Return a page whose images a test may label."""
    with opened(browser, server, DESKTOP, "light") as page:
        yield page


# The contrast of WCAG 2.2 of each text against what lies behind it, the smallest first.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!own || !node.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.textContent.trim()]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}"""


def test_the_page_shows_the_stream(page: Any, shown: Served) -> None:
    if folder := os.environ.get("KEDGE_SHOTS"):  # to look at
        page.screenshot(path=f"{folder}/{page.look}.png", full_page=True)
    assert page.text_content("#label") == "blue"
    assert page.text_content("#status") == "Live"
    bars = page.eval_on_selector_all(
        "#bars li span:first-child", "all => all.map(e => e.textContent)"
    )
    assert bars[0] == "blue" and len(bars) == 4
    history = page.locator("#history li")
    assert history.count() == 18
    assert "blue" in history.nth(0).text_content()
    assert "unknown" in history.nth(4).text_content()
    # Nothing is wider than the window.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.errors == []
    assert all(url.startswith(shown.address) for url in page.asked)


def test_text_is_readable_in_dark_and_light(page: Any) -> None:
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 20
    assert contrasts[0][0] >= 4.5, contrasts[0]


def test_a_screen_reader_hears_names_and_changes(page: Any) -> None:
    names = {"image": [], "button": [], "heading": []}  # type: dict[str, list[str]]
    for role, found in names.items():
        found += [each.strip() for each in page.get_by_role(role).all_text_contents()]
    assert names["heading"] == [
        "kedge " + page.text_content("#source"),
        "Live",
        "History",
        "Unsure images (6)",
    ]
    assert names["button"][:5] == ["red", "green", "blue", "dark", "Discard"]
    alts = page.eval_on_selector_all("img", "all => all.map(e => e.alt)")
    assert alts[0].startswith("Live image: blue, 9")
    assert all(alts) and len(set(alts)) == len(alts)
    groups = page.get_by_role("group").all()
    assert len(groups) == 6
    assert groups[0].get_attribute("aria-label").startswith("Label of ")
    assert page.get_attribute("#label", "aria-live") == "polite"
    assert page.get_attribute("html", "lang") == "en"
    assert page.get_by_role("status").first.text_content() == "Live"


def test_targets_are_large_enough_for_a_thumb(page: Any) -> None:
    sizes = page.eval_on_selector_all(
        "button", "all => all.map(e => e.getBoundingClientRect().toJSON())"
    )
    assert min(min(size["width"], size["height"]) for size in sizes) >= 44


def test_the_keyboard_labels_an_image(desk: Any, tmp_path: Path) -> None:
    desk.keyboard.press("Tab")
    assert desk.evaluate("document.activeElement.textContent") == "Skip to the history"
    assert desk.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    focused: list[str] = []
    while desk.evaluate("document.activeElement.tagName") != "BUTTON":
        desk.keyboard.press("Tab")
        focused.append(desk.evaluate("document.activeElement.id"))
        assert len(focused) < 9
    assert "history" in focused  # it scrolls, so it takes the keys
    assert desk.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    name = desk.evaluate("document.activeElement.closest('li').dataset.name")
    desk.keyboard.press("Tab")
    desk.keyboard.press("Enter")  # the second: green
    until(desk, "document.querySelectorAll('#unsure li').length == 5")
    assert (tmp_path / "labelled" / "green" / name).is_file()
    assert desk.text_content("#labelled") == "Labelled green"
    # The focus goes on to the next image.
    assert desk.evaluate("document.activeElement.tagName") == "BUTTON"
    desk.keyboard.press("Shift+Tab")
    desk.keyboard.press("Shift+Tab")


def test_a_click_labels_and_discards(desk: Any, tmp_path: Path) -> None:
    first = desk.locator("#unsure li").nth(0)
    name = first.get_attribute("data-name")
    first.get_by_role("button", name="blue").click()
    until(desk, "document.querySelectorAll('#unsure li').length == 5")
    assert (tmp_path / "labelled" / "blue" / name).is_file()
    desk.locator("#unsure li").nth(0).get_by_role("button", name="Discard").click()
    until(desk, "document.querySelectorAll('#unsure li').length == 4")
    assert len(list((tmp_path / "unsure").glob("*.jpg"))) == 4
    until(desk, "document.getElementById('unsure-count').textContent == '(4)'")


def test_a_server_that_ends_and_comes_back_is_told(
    browser: Any, artefacts: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "walk.avi", [RED] * 3)
    page = browser.new_page()
    with served(artefacts / "tiny.tflite", "--video", video) as server:
        page.goto(server.address)
        until(page, "document.getElementById('status').textContent == 'Live'")
        assert page.locator("#unsure-section").is_hidden()
        server.end()
        until(page, "document.getElementById('status').textContent == 'No connection'")
    page.close()


def test_a_token_opens_the_page(browser: Any, artefacts: Path) -> None:
    page = browser.new_page()
    with served(artefacts / "tiny.tflite", env={"KEDGE_TOKEN": TOKEN}) as server:
        page.goto(server.address)
        page.wait_for_url("**/login")
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('error').textContent == 'this is not the token'")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("#status")
        until(page, "document.getElementById('source').textContent == 'no source'")
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie") == ""  # no script reads it
    page.close()


def test_the_page_is_usable_while_fifty_ask(browser: Any, server: Served) -> None:
    page, stop = browser.new_page(), threading.Event()
    body = encoded(RED, side=600)

    def ask() -> int:
        wrong = 0
        while not stop.is_set():
            wrong += server.ask("/v1/classify", "POST", body).status != 200
        return wrong

    with ThreadPoolExecutor(50) as pool:
        asking = [pool.submit(ask) for _ in range(50)]
        try:
            page.goto(server.address)
            until(page, "document.querySelectorAll('#unsure li').length == 6")
            page.locator("#unsure li").nth(0).get_by_role("button", name="blue").click()
            until(page, "document.querySelectorAll('#unsure li').length == 5")
        finally:
            stop.set()
        assert sum(future.result() for future in asking) == 0
    page.close()
