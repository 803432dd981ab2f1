"""The report as one HTML page, with charts that are drawn while it is written.

No value of a record reaches a chart: a chart has days and numbers, and refers to its series by
position. The page names the series, and its template escapes every name.
"""

import math
import re
from typing import NamedTuple

from tbot_otel.report import wording
from tbot_otel.report.document import TABLES
from tbot_otel.report.summaries import destinations, history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from tbot_otel.report.document import Document

MAX_SERIES = 5
"""The most values that a chart tells apart. page.css has a color for each."""
MAX_VERSIONS = 9
"""The most versions that a chart tells apart. page.css has a color for each, in their order."""
MAX_BARS = 62
"""The most bars of a chart. Longer periods have a bar for each week, month, year or more."""
MAX_VISIBLE_ROWS = 10
"""The most rows of a ranking that are visible before the reader opens the others."""

_REST = "all others"
_CHART_SIZES = {"wide": (670, 220), "narrow": (256, 180)}
"""The width and height in pixels of a chart's bars, at most."""
_LABEL_PIXELS = 85
_MAX_BAR_PIXELS = 50
_VEGA_CONFIG = {
    "aria": False,  # the page describes each chart
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "labelFont": "system-ui, sans-serif",
        "labelFontSize": 12,
        "labelPadding": 6,
        "domainColor": "var(--line)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line)",
    },
}


class Series(NamedTuple):
    """A part of a chart's bars: its name, its color, and its starts in each bar."""

    name: str
    color: str
    counts: list[int]


class Chart(NamedTuple):
    """A chart with its table.

    Attributes:
        title: What it shows.
        unit: The length of time of each bar.
        fact: What a reader should see first, in a sentence.
        notes: How to read it.
        labels: The start of each bar's time.
        totals: The starts of each bar.
        series: The parts of the bars, from the bottom to the top.
        svgs: The SVG of each size.
    """

    title: str
    unit: str
    fact: str
    notes: list[str]
    labels: list[str]
    totals: list[int]
    series: list[Series]
    svgs: dict[str, str]


class Ranking(NamedTuple):
    """A table of values and their starts, with bars.

    Attributes:
        caption: What it shows.
        headings: The headings of the values.
        rows: The values and the starts of each row.
        largest: The starts of the longest bar.
        folded: The sentence on its small groups; empty if there are none.
    """

    caption: str
    headings: list[str]
    rows: list[tuple[list[str], int]]
    largest: int
    folded: str


class Section(NamedTuple):
    """A question, the first sentence of its answer, and the chart and rankings behind it."""

    id: str
    question: str
    answer: str
    chart: Chart | None
    rankings: "tuple[Ranking, ...]"


class Figure(NamedTuple):
    """A figure at the top of the page: its name, the figure, and the starts behind it."""

    name: str
    value: str
    basis: str


def render(report: "Document", min_group: int) -> str:
    """Render the report as an HTML page: one file that loads nothing and has no scripts.

    Args:
        report: The report.
        min_group: The number of starts below which its rows are folded.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tbot_otel", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pieces"] = _pieces
    page = environment.get_template("page.html.jinja")
    return page.render(
        figures=_figures(report) if report["starts"] else [],
        max_visible_rows=MAX_VISIBLE_ROWS,
        report=report,
        sections=_sections(report, min_group) if report["starts"] else [],
        wording=wording,
    )


def _pieces(text: str) -> list[str]:
    """The text in pieces between which a line can break: after separators, or 20 characters."""
    return re.findall(r"[^\s_/:]{1,20}[\s_/:]*|[\s_/:]+", text)


def _figures(report: "Document") -> list[Figure]:
    days = wording.count(len(report["tables"]["day"]["rows"]), "day")
    figures = [Figure("Starts", f"{report['starts']:,}", f"on {days}")]
    for table in ("run_mode", "join_type", "version"):
        for row in report["tables"][table]["rows"][:1]:
            name = f"Most common {wording.COLUMNS[table].lower()}"
            basis = wording.part(int(row["starts"]), report["starts"])
            figures.append(Figure(name, wording.describe(row[table]), basis))
    return figures


def _sections(report: "Document", min_group: int) -> list[Section]:
    def section(table: str, answer: str, *rankings: Ranking, chart: Chart | None = None) -> Section:
        return Section(table.replace("_", "-"), wording.QUESTIONS[table], answer, chart, rankings)

    def ranking(caption: str, table: str) -> Ranking:
        rows = report["tables"][table]["rows"]
        columns = TABLES[table]
        pairs = [([row[column] for column in columns], int(row["starts"])) for row in rows]
        return rank(caption, table, columns, pairs)

    def sums(caption: str, column: str, starts: "Mapping[Any, int]") -> Ranking:
        pairs = [([value], count) for value, count in starts.items()]
        return rank(caption, "destinations", (column,), pairs)

    def rank(
        caption: str, table: str, columns: "Iterable[str]", pairs: "list[tuple[list[Any], int]]"
    ) -> Ranking:
        return Ranking(
            caption,
            [wording.COLUMNS[column] for column in columns],
            [([*map(wording.describe, values)], starts) for values, starts in pairs],
            max((starts for _, starts in pairs), default=0),
            wording.folded(report["tables"][table]["folded"], min_group),
        )

    by_kind, by_combination, counts = destinations(report)
    return [
        section("use_case", _most_common(report, "use_case"), ranking("Use cases", "use_case")),
        section(
            "run_mode",
            wording.busiest_day(report),
            ranking("Run modes", "run_mode"),
            chart=_chart(report, "run_mode", "Starts by run mode"),
        ),
        section(
            "join_type",
            _most_common(report, "join_type"),
            ranking("Join methods", "join_type"),
            chart=_chart(report, "join_type", "Join methods", shares=True),
        ),
        section(
            "version",
            _most_common(report, "version"),
            ranking("Versions", "version"),
            chart=_chart(report, "version", "Versions", shares=True),
        ),
        section(
            "destinations",
            "A start can have several destinations, of several kinds.",
            sums("Each kind, alone or with others", "destinations", by_kind),
            sums("Kinds together", "destinations", by_combination),
            sums("Number of destinations", "destination_count", counts),
        ),
        section(
            "helper",
            _most_common(report, "helper"),
            ranking("Helpers", "helper"),
            ranking("Versions of helpers", "helper_version"),
        ),
        section(
            "os_type",
            _most_common(report, "os_type"),
            ranking("Operating systems", "os_type"),
            ranking("Architectures", "host_arch"),
        ),
    ]


def _most_common(report: "Document", table: str) -> str:
    for row in report["tables"][table]["rows"]:
        values = " · ".join(wording.describe(row[column]) for column in TABLES[table])
        return f"Most common: {values}, {wording.part(int(row['starts']), report['starts'])}."
    return "Every group is too small to be shown."


def _chart(report: "Document", column: str, title: str, *, shares: bool = False) -> Chart:
    unit, labels, totals, parts = history(report, column, MAX_BARS)
    if column == "version":
        parts = _group_versions(parts)
    names = sorted(parts, key=lambda name: -sum(parts[name]))
    if column == "version":
        # The newest at the bottom: its growth is easiest to see from a straight line.
        names = sorted(names[:MAX_VERSIONS], key=_version_key, reverse=True)
        step = (MAX_VERSIONS - 1) / max(len(names) - 1, 1)
        colors = [f"var(--version-{round(n * step)})" for n in range(len(names))]
    else:
        names = names[:MAX_SERIES]
        colors = [f"var(--series-{n})" for n in range(len(names))]
    series = [
        Series(wording.describe(name), color, parts[name])
        for name, color in zip(names, colors, strict=True)
    ]
    rest = [total - sum(one.counts[n] for one in series) for n, total in enumerate(totals)]
    notes = [f"One bar for each {unit}."]
    if unit == "week":
        notes.append("Weeks begin on Monday.")
    if unit != "day" and len(labels) > 1:
        notes.append(f"The first and the last {unit} can be incomplete.")
    if any(rest):
        series.append(Series(_REST, "var(--rest)", rest))
        notes.append(
            f"“{_REST}”: less common values, and groups of a day that are too small to be shown."
        )
    if shares:
        fact = _largest_increase(series, totals, unit)
    else:
        most = max(totals)
        fact = f"The most starts in one {unit}: {most:,}, from {labels[totals.index(most)]}."
    svgs = _draw(labels, series, shares=shares)
    return Chart(f"{title}, each {unit}", unit, fact, notes, labels, totals, series, svgs)


def _largest_increase(series: list[Series], totals: list[int], unit: str) -> str:
    def increase(one: Series) -> float:
        return one.counts[-1] / totals[-1] - one.counts[0] / totals[0]

    known = [one for one in series if one.name != _REST]
    if len(totals) == 1:
        return f"There is only one {unit}."
    if not known or increase(most := max(known, key=increase)) <= 0:
        return f"No share is larger in the last {unit} than in the first."
    return (
        f"Largest increase: {most.name}, from {wording.part(most.counts[0], totals[0])} in the "
        f"first {unit} to {wording.part(most.counts[-1], totals[-1])} in the last."
    )


def _group_versions(parts: dict[str, list[int]]) -> dict[str, list[int]]:
    """Add up versions with the same first numbers, ``18.3.x`` or ``18.x``, if there are many."""
    for numbers in (2, 1):
        if len(parts) <= MAX_VERSIONS:
            break
        start = re.compile(rf"(?:\d+\.){{{numbers}}}")
        groups: dict[str, list[int]] = {}
        for version, counts in parts.items():
            name = f"{match[0]}x" if (match := start.match(version)) else version
            known = groups.get(name, [0] * len(counts))
            groups[name] = [a + b for a, b in zip(known, counts, strict=True)]
        parts = groups
    return parts


def _version_key(version: str) -> tuple[list[int], bool, str]:
    numbers, _, stage = version.partition("-")
    return [int(number) for number in re.findall(r"\d{1,9}", numbers)], not stage, stage


def _draw(labels: list[str], series: list[Series], *, shares: bool) -> dict[str, str]:
    import vl_convert

    values = [
        {"bar": label, "series": position, "starts": one.counts[n]}
        for position, one in enumerate(series)
        for n, label in enumerate(labels)
        if one.counts[n]
    ]
    svgs = {}
    highest = max(map(sum, zip(*(one.counts for one in series), strict=True)))
    for size, (max_width, height) in _CHART_SIZES.items():
        width = min(max_width, _MAX_BAR_PIXELS * len(labels))
        label_every = math.ceil(len(labels) / max(1, width // _LABEL_PIXELS))
        spec: dict[str, Any] = {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "config": _VEGA_CONFIG,
            "background": None,
            "padding": {"left": 8, "top": 8, "right": 16, "bottom": 4},
            "width": width,
            "height": height,
            "data": {"values": values},
            "mark": {"type": "bar", "stroke": "var(--page)", "strokeWidth": 0.5},
            "encoding": {
                "x": {
                    "field": "bar",
                    "type": "ordinal",
                    "scale": {"domain": labels, "paddingInner": 0.12, "paddingOuter": 0.06},
                    "axis": {
                        "title": None,
                        "values": labels[::label_every],
                        "labelAngle": 0,
                        "labelOverlap": False,
                    },
                },
                "y": {
                    "field": "starts",
                    "type": "quantitative",
                    "aggregate": "sum",
                    "stack": "normalize" if shares else "zero",
                    "axis": {
                        "title": None,
                        "format": "%" if shares else ",d",
                        "tickCount": 4 if shares else min(4, highest),
                        "domain": False,
                        "ticks": False,
                    },
                },
                "color": {
                    "field": "series",
                    "type": "ordinal",
                    "legend": None,
                    "scale": {
                        "domain": [*range(len(series))],
                        "range": [one.color for one in series],
                    },
                },
                "order": {"field": "series", "type": "ordinal"},
            },
        }
        svgs[size] = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return svgs
