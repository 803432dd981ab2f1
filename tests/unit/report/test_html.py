"""The report's page: its numbers, its markup, and how Chromium shows it."""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from importlib import resources
from typing import NamedTuple

import pytest

from support.report_data import (
    HOSTILE_VALUES,
    RELEASES,
    REPORT_NAMES,
    Start,
    make_document,
    report_of,
)
from tbot_otel.report import wording
from tbot_otel.report.document import DESTINATION_KINDS, TABLES, Document
from tbot_otel.report.history import MAX_UNITS, MAX_VERSIONS
from tbot_otel.report.html import MAX_SERIES, render

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ELEMENTS = {
    *("html lang", "head", "title", "style", "body", "header", "main", "figure", "figcaption"),
    *("meta charset", "meta name content", "meta http-equiv content", "link rel href"),
    *("h1", "h2 id", "h3", "p", "p class", "ul", "ul class aria-label", "li", "a href"),
    *("nav aria-label", "section id aria-labelledby", "dl class", "dt", "dd", "strong", "small"),
    *("bdi", "wbr", "details", "summary", "div", "div class", "div class role aria-label"),
    *("div class tabindex role aria-label", "span", "span style", "span class style"),
    *("table", "table class", "caption", "thead", "tbody", "tr", "th scope", "th scope class"),
    *("td", "td class"),
}
"""The elements of the page outside of its charts, with their attributes."""
SVG_ELEMENTS = {"svg", "path", "text"}
SVG_ATTRIBUTES = {
    *(
        "class",
        "d",
        "fill",
        "width",
        "height",
        "viewbox",
        "x",
        "y",
        "role",
        "aria-label",
        "preserveaspectratio",
    ),
}
CHARTED = ("run_mode", "join_type", "version")


_RECTANGLE = re.compile(r"M([\d.]+),[\d.]+h[\d.]+v([\d.]+)h-[\d.]+z")


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
        curves: How many pictures are not charts.
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
        self.curves = 0
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
            self.curves += "role" in given
        if self._in_svg:
            self.svg_elements.add(tag)
            self.svg_attributes |= {*given}
            self.bars[-1] += [
                Bar(given["fill"], float(x), float(height))
                for x, height in _RECTANGLE.findall(given.get("d", ""))
            ]
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
def text_of(name: str) -> str:
    """Its page."""
    return render(report_of(name), 5)


@functools.cache
def page_of(name: str) -> Page:
    """Its page, parsed."""
    return Page(text_of(name))


def ranking(page: Page, caption: str) -> dict[tuple[str, ...], int]:
    """The starts of each row of a table with bars, by the row's values."""
    # A table without rows is left out.
    rows = page.tables.get(caption, [])[1:]
    for title in page.tables:
        if title.startswith(f"{caption}, after the first"):
            rows += page.tables[title][1:]
    return {tuple(values): int(starts.replace(",", "")) for *values, starts, _, _ in rows}


def column_sums(report: Document, table: str, *columns: str) -> dict[tuple[str, ...], int]:
    """The starts of a table's rows, by the values of some of its columns."""
    sums = Counter[tuple[str, ...]]()
    for row in report["tables"][table]["rows"]:
        sums[tuple(wording.describe(row[column]) for column in columns)] += int(row["starts"])
    return dict(sums)


RANKINGS = {
    "Use cases": ("use_case", *TABLES["use_case"]),
    "Run modes": ("run_mode", "run_mode"),
    "Join methods": ("join_type", "join_type"),
    "Versions": ("version", "version"),
    "Kinds together": ("destinations", "destinations"),
    "Number of destinations": ("destinations", "destination_count"),
    "Helpers": ("helper", "helper"),
    "Versions of helpers": ("helper_version", *TABLES["helper_version"]),
    "Operating systems": ("os_type", "os_type"),
    "Architectures": ("host_arch", "host_arch"),
}


@pytest.mark.parametrize("name", [name for name in REPORT_NAMES if name != "empty"])
def test_tables_have_the_numbers_of_the_report(name: str) -> None:
    """Each table has the report's rows and numbers, and says how many starts were folded."""
    report, page = report_of(name), page_of(name)
    if wording.all_folded(report, 5):
        assert not page.tables
        return
    for caption, (table, *columns) in RANKINGS.items():
        assert ranking(page, caption) == column_sums(report, table, *columns)
        assert wording.folded(report["tables"][table]["folded"]) in page.words
    assert ranking(page, "Each kind, alone or with others") == {
        (kind,): starts
        for kind in DESTINATION_KINDS
        if (
            starts := sum(
                int(row["starts"])
                for row in report["tables"]["destinations"]["rows"]
                if kind in str(row["destinations"]).split("+")
            )
        )
    }


@pytest.mark.parametrize("name", [name for name in REPORT_NAMES if name != "empty"])
def test_charts_have_the_numbers_of_the_report(name: str) -> None:
    """Each legend adds up to the table of its values, and each chart's table to all starts."""
    report, page = report_of(name), page_of(name)
    charts = [caption for caption in page.tables if ", each " in caption]
    # A report whose tables are all folded has none.
    assert len(charts) == (0 if wording.all_folded(report, 5) else len(CHARTED))
    assert len(page.bars) == 2 * len(charts) + page.curves
    for column, caption in zip(CHARTED, charts, strict=False):
        (_, *names, last), *rows = page.tables[caption]
        assert last == "All starts"
        assert len(rows) <= MAX_UNITS
        numbers = [[int(cell.replace(",", "")) for cell in row[1:]] for row in rows]
        *series, totals = (list(cells) for cells in zip(*numbers, strict=True))
        assert [sum(parts) for parts in zip(*series, strict=True)] == totals
        assert sum(totals) == report["starts"]
        table = report["tables"][column]
        for value, counts in zip(names, series, strict=True):
            if value == "all others":
                continue
            starts = sum(
                int(row["starts"])
                for row in table["rows"]
                if re.fullmatch(value_pattern(value), wording.describe(row[column]))
            )
            # Versions that are added up can have some that are folded in their table.
            most = table["folded"]["starts"] if value.endswith(".x") else 0
            assert 0 <= sum(counts) - starts <= most
            assert (
                f"{value} {sum(counts):,} ({wording.percent(sum(counts), report['starts'])})"
                in (page.words)
            )


def test_versions_are_in_their_order() -> None:
    """The newest version is at the bottom; many versions are added up by their first number."""
    shown = {str(row["version"]) for row in report_of("example")["tables"]["day_version"]["rows"]}
    assert shown < {*RELEASES}
    for name, versions in (
        ("example", [*sorted(shown, reverse=True), "all others"]),
        ("years", [f"{major}.x" for major in range(19, 13, -1)]),
    ):
        (caption,) = (title for title in page_of(name).tables if title.startswith("Versions, each"))
        _, *names, _ = page_of(name).tables[caption][0]
        assert names == versions


def value_pattern(name: str) -> str:
    """A pattern of the values that a chart's name stands for: ``18.x`` is each version of it."""
    return re.escape(name[:-1]) + ".*" if re.fullmatch(r"(\d+\.)+x", name) else re.escape(name)


@pytest.mark.parametrize("name", REPORT_NAMES)
def test_page_says_what_was_read(name: str) -> None:
    """The page has the period, the limits, and what was read and refused."""
    report, words = report_of(name), page_of(name).words
    for sentence in (*wording.records(report), *wording.limits(5), wording.period(report)):
        assert sentence in words
    assert (wording.NOTHING in words) == (not report["starts"])


def test_empty_page_has_no_chart() -> None:
    """A page without starts has no chart, no table, and no link to one."""
    page = page_of("empty")
    assert (page.bars, page.tables, page.urls) == ([], {}, {"data:,"})


@pytest.mark.parametrize("name", REPORT_NAMES)
def test_page_is_only_what_its_template_has(name: str) -> None:
    """A page has no element or attribute but its own, and refers only to parts of itself."""
    page = page_of(name)
    assert page.elements <= ELEMENTS
    assert page.svg_elements <= SVG_ELEMENTS
    assert page.svg_attributes <= SVG_ATTRIBUTES
    assert {url for url in page.urls if not url.startswith("#")} == {"data:,"}
    assert page.policy == POLICY
    assert "url(" not in text_of(name)
    assert "@import" not in text_of(name)


def test_values_stay_text() -> None:
    """A value is text, without the characters that control or reorder text, and in no chart."""
    page, text = page_of("hostile"), text_of("hostile")
    assert HOSTILE_VALUES[1] in {row[1] for row in page.tables["Changes"]}
    for value in HOSTILE_VALUES:
        assert wording.describe(value) in page.words
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text
    )


def test_small_groups_name_their_limit() -> None:
    """The page names the number below which rows were folded; once, if all are."""
    few = Page(render(make_document([Start("2026-08-03")] * 8, min_group=9), 9))
    assert few.words.count("fewer than 9 starts") == 2
    assert "All groups have fewer than 9 starts" in few.words
    assert "use --min-group 1" in few.words
    starts = [Start("2026-08-03", version=version) for version in ("18.1.0", *["18.2.0"] * 9)]
    some = Page(render(make_document(starts, min_group=9), 9))
    assert some.words.count("fewer than 9 starts") == 1
    assert "Not shown: 1 group, 1 start." in some.words


def palettes() -> list[dict[str, str]]:
    """The colors of light and of dark pages, by name."""
    css = (resources.files("tbot_otel.report") / "page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part))
        for part in css.split("@media screen and (prefers-color-scheme: dark)")[:2]
    )
    assert light.keys() == dark.keys()
    return [light, dark]


def linear(color: str) -> list[float]:
    """The linear red, green and blue of a color."""
    channels = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    weights = (0.2126, 0.7152, 0.0722)
    low, high = sorted(
        sum(w * c for w, c in zip(weights, linear(color), strict=True)) for color in (first, second)
    )
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_colors_have_contrast(palette: dict[str, str]) -> None:
    """Text has a contrast of 4.5 with the page, and the parts of charts one of 3."""
    for name in ("ink", "muted", "link"):
        assert contrast(palette[name], palette["page"]) >= 4.5
    parts = [name for name in palette if name.startswith(("series-", "version-", "rest"))]
    assert len(parts) == MAX_SERIES + MAX_VERSIONS + 1
    for name in parts:
        assert contrast(palette[name], palette["page"]) >= 3
    # Without any color vision, versions still have an order.
    steps = [contrast(palette[f"version-{n}"], palette["page"]) for n in range(MAX_VERSIONS)]
    assert steps == sorted(steps, reverse=True)


# How people with each kind of color blindness see linear colors: Machado, Oliveira and Fernandes,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
SIGHT = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        *((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216)),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        *((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413)),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        *((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602)),
        (0.004733, 0.691367, 0.303900),
    ),
}


def oklab(channels: list[float]) -> tuple[float, ...]:
    """A linear color in Oklab, where distances are those that people see."""
    matrix = (
        *((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566)),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    cones = [max(0, dot(row, channels)) ** (1 / 3) for row in matrix]
    second = (
        *((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099)),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    return tuple(dot(row, cones) for row in second)


def dot(first: Iterable[float], second: Iterable[float]) -> float:
    """The sum of products."""
    return sum(a * b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_series_can_be_told_apart(palette: dict[str, str], sight: str) -> None:
    """The colors of values differ for every kind of sight."""
    names = [*(f"series-{n}" for n in range(MAX_SERIES)), "rest"]
    seen = [
        oklab([min(1, max(0, dot(row, linear(palette[name])))) for row in SIGHT[sight]])
        for name in names
    ]
    assert min(math.dist(a, b) for a, b in itertools.combinations(seen, 2)) > 0.09
