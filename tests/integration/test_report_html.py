"""The report's page: its numbers, its markup, and how Chromium shows it."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from support.browser import Browser
from support.report_data import REPORT_NAMES, report_of
from tbot_otel.report import wording
from tbot_otel.report.html import render

CHARTED = ("run_mode", "join_type", "version")


@functools.cache
def text_of(name: str) -> str:
    """The page of a report."""
    return render(report_of(name), 5)


def palettes() -> list[dict[str, str]]:
    """The colors of light and of dark pages, by name."""
    css = (resources.files("tbot_otel.report") / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part))
        for part in css.split("@media screen and (prefers-color-scheme: dark)")[:2]
    )
    assert light.keys() == dark.keys()
    return [light, dark]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium that runs no scripts of pages."""
    with Browser.running(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


# What is wider than its place, or lies over another label.
MISPLACED = """(() => {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("page");
  for (const svg of document.querySelectorAll("svg:not(.curve)")) {
    const boxes = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    for (const [n, a] of boxes.filter(box => box.width).entries()) {
      if (a.left < 0 || a.right > innerWidth) found.push(`label ${n}`);
      for (const b of boxes.slice(0, n))
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
          found.push(`labels ${n}`);
    }
  }
  for (const table of document.querySelectorAll(".ranking"))
    if (table.scrollWidth > table.clientWidth) found.push("table");
  return found;
})()"""
VISIBLE = """[...document.querySelectorAll('.wide, .narrow')].map(
  e => e.getBoundingClientRect().height && e.className.baseVal)"""


@pytest.mark.parametrize("name", REPORT_NAMES)
def test_page_fits(browser: Browser, tmp_path: Path, name: str) -> None:
    """The page fits a phone and a desk, requests nothing, and breaks no rule of its policy."""
    path = tmp_path / "report.html"
    path.write_text(text_of(name), encoding="utf-8")
    charts = 0 if name in ("empty", "one-folded") else len(CHARTED)
    for width, shown in ((360, "narrow"), (1280, "wide")):
        browser.open(path, width)
        # Columns of words without end do not fit. Their table scrolls.
        scrolling = ["table"] if name == "hostile" else []
        assert sorted({*browser.evaluate(MISPLACED)}) == scrolling
        assert [size for size in browser.evaluate(VISIBLE) if size] == [shown] * charts
        assert (browser.requests, browser.messages) == ([path.as_uri()], [])


def test_page_follows_the_color_scheme(browser: Browser, tmp_path: Path) -> None:
    """The page and its charts are dark where the reader prefers it, but not on paper."""
    path = tmp_path / "report.html"
    path.write_text(text_of("week"), encoding="utf-8")
    light, dark = palettes()
    colors = """["html", "svg text", "svg path[fill*=series]"].map(selector => {
      const style = getComputedStyle(document.querySelector(selector));
      return selector == "html" ? style.backgroundColor : style.fill;
    })"""
    for is_dark, media, palette in ((0, "screen", light), (1, "screen", dark), (1, "print", light)):
        browser.open(path, 1280, dark=bool(is_dark), media=media)
        expected = [palette["page"], palette["muted"], palette["series-0"]]
        assert [to_hex(color) for color in browser.evaluate(colors)] == expected


def to_hex(color: str) -> str:
    """A color as the style sheet writes it."""
    return "#" + "".join(f"{int(channel):02x}" for channel in re.findall(r"\d+", color))


def test_page_prints(browser: Browser, tmp_path: Path) -> None:
    """On A4 and Letter, the wide charts, all rankings and no closed table of one are printed."""
    path = tmp_path / "report.html"
    path.write_text(text_of("example"), encoding="utf-8")
    for width, height in ((210, 297), (215.9, 279.4)):
        pixels = round((width - 30) / 25.4 * 96)
        browser.open(path, pixels, media="print")
        assert browser.evaluate(MISPLACED) == []
        assert [size for size in browser.evaluate(VISIBLE) if size] == ["wide"] * len(CHARTED)
        assert not browser.evaluate(
            "[...document.querySelectorAll('figure details, nav')].some(e => e.offsetHeight)"
        )
        assert browser.pdf(width, height).startswith(b"%PDF-")


def test_page_works_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    """Tab reaches each link, each table that opens, and its scrollable rows; Enter opens it."""
    path = tmp_path / "report.html"
    path.write_text(text_of("example"), encoding="utf-8")
    browser.open(path, 1280)
    focused = "document.activeElement.tagName + (document.activeElement.className || '')"
    reached = []
    for _ in range(60):
        browser.press("Tab")
        if browser.evaluate(focused) == "BODY":
            break
        reached.append(browser.evaluate(focused))
        if reached[-1] == "SUMMARY":
            browser.press("Enter")
    summaries = browser.evaluate("document.querySelectorAll('summary').length")
    assert Counter(reached) == {
        "A": len(wording.QUESTIONS),
        "SUMMARY": summaries,
        "DIVscroll": len(CHARTED),
    }
    assert browser.evaluate("document.querySelectorAll('details[open]').length") == summaries
