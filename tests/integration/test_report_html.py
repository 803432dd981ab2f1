"""The report's page: its numbers, its markup, and how Chromium shows it."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pytest

from support.browser import Browser
from support.report_data import REPORTS
from tbot_otel.report import wording
from tbot_otel.report.document import Document
from tbot_otel.report.html import render

CHARTED = ("run_mode", "join_type", "version")


_RECTANGLE = re.compile(r"M([\d.]+),[-\d.e]+h[\d.]+v([\d.]+)h-[\d.]+Z")


class Bar(NamedTuple):
    """A bar of a chart: its color, and its place and size in pixels."""

    color: str
    x: float
    height: float


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        elements: The elements outside of charts, each with the names of its attributes.
        urls: The values of attributes that can refer to something.
        svg_elements: The elements of charts.
        svg_attributes: The names of their attributes.
        bars: The bars of each chart.
        tables: The cells of each row, by the table's caption.
        words: The text outside of charts and styles.
        policy: The content security policy.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.urls: set[str] = set()
        self.svg_elements: set[str] = set()
        self.svg_attributes: set[str] = set()
        self.bars: list[list[Bar]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words = ""
        self.policy = ""
        self._in_svg = self._in_style = self._in_caption = False
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        given = {name: value or "" for name, value in attrs}
        if tag == "svg":
            self._in_svg = True
            self.bars.append([])
        if self._in_svg:
            self.svg_elements.add(tag)
            self.svg_attributes |= {*given}
            shape = _RECTANGLE.fullmatch(given.get("d", ""))
            if shape and given.get("fill", "").startswith("var("):
                self.bars[-1].append(Bar(given["fill"], float(shape[1]), float(shape[2])))
            return
        self.elements.add(" ".join([tag, *given]))
        self.urls |= {given[name] for name in ("href", "src") if name in given}
        if given.get("http-equiv"):
            self.policy = given["content"]
        self._in_style |= tag == "style"
        if tag == "table":
            self._rows = []
        elif tag == "caption":
            self._in_caption, self._caption = True, ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Note that an element ends."""
        if tag == "svg":
            self._in_svg = False
        elif tag == "style":
            self._in_style = False
        elif tag == "caption":
            self._in_caption = False
        elif tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows
            self._rows = []

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self._in_svg or self._in_style:
            return
        self.words += data
        if self._in_caption:
            self._caption += data
        elif self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip("\n")


@functools.cache
def report_of(name: str) -> Document:
    """One of the reports."""
    return REPORTS[name]()


@functools.cache
def text_of(name: str) -> str:
    """Its page."""
    return render(report_of(name), 5)


def ranking(page: Page, caption: str) -> dict[tuple[str, ...], int]:
    """The starts of each row of a table with bars, by the row's values."""
    rows = page.tables[caption][1:]
    for title in page.tables:
        if title.startswith(f"{caption}, after the first"):
            rows += page.tables[title][1:]
    return {tuple(values): int(starts.replace(",", "")) for *values, starts, _, _ in rows}


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
  for (const svg of document.querySelectorAll("svg")) {
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
VISIBLE = "[...document.querySelectorAll('.wide, .narrow')].map(e => e.offsetHeight && e.className)"


@pytest.mark.parametrize("name", REPORTS)
def test_page_fits(browser: Browser, tmp_path: Path, name: str) -> None:
    """The page fits a phone and a desk, requests nothing, and breaks no rule of its policy."""
    path = tmp_path / "report.html"
    path.write_text(text_of(name), encoding="utf-8")
    charts = 0 if name == "empty" else len(CHARTED)
    for width, shown in ((360, "narrow"), (1280, "wide")):
        browser.open(path, width)
        # Three columns of words without end do not fit a phone. Their table scrolls.
        scrolling = ["table"] if (name, width) == ("hostile", 360) else []
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
