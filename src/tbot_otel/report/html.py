"""The report as one HTML page, with charts that are drawn while it is written.

No value of a record reaches a chart. The page names its series, and the template escapes each name.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from tbot_otel.report import wording
from tbot_otel.report.charts import SIZES, Drawing, curve, draw
from tbot_otel.report.destinations import destinations
from tbot_otel.report.document import TABLES
from tbot_otel.report.history import MAX_VERSIONS, history, releases, side_by_side, version_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tbot_otel.report.document import Document

MAX_SERIES = 5
"""The most values that a chart tells apart. page.css has a color for each."""
MAX_VISIBLE_ROWS = 10
"""The most rows of a ranking that are visible before the reader opens the others."""

_REST = "all others"


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
        drawings: The drawing of each size.
    """

    title: str
    unit: str
    fact: str
    notes: list[str]
    labels: list[str]
    totals: list[int]
    series: list[Series]
    drawings: dict[str, Drawing]


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


class Grid(NamedTuple):
    """A table of words and numbers.

    Attributes:
        caption: What it shows.
        headings: The headings of its columns.
        rows: The cells of each row.
        words: How many columns have words, before those with numbers.
        curves: The path of each row's bars in its last column; empty if there are none.
        notes: How to read it.
    """

    caption: str
    headings: list[str]
    rows: list[list[str]]
    words: int = 1
    curves: Sequence[str] = ()
    notes: str = ""


class Section(NamedTuple):
    """A question, the first sentence of its answer, and what is behind it."""

    id: str
    question: str
    answer: str
    chart: Chart | None = None
    grids: Sequence[Grid] = ()
    rankings: Sequence[Ranking] = ()


class Figure(NamedTuple):
    """A figure at the top of the page: its name, the figure, and the starts behind it."""

    name: str
    value: str
    basis: str


def render(document: "Document", min_group: int) -> str:
    """Render the report as an HTML page: one file that loads nothing and has no scripts.

    Args:
        document: The report.
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
    nothing = wording.NOTHING if not document["starts"] else wording.all_folded(document, min_group)
    return environment.get_template("page.html.jinja").render(
        figures=[] if nothing else _figures(document),
        max_visible_rows=MAX_VISIBLE_ROWS,
        nothing=nothing,
        report=document,
        limits=wording.limits(min_group),
        sections=[] if nothing else _sections(document, min_group),
        wording=wording,
    )


def _pieces(text: str) -> list[str]:
    """The text in pieces between which a line can break: after separators, or 20 characters."""
    return re.findall(r"[^\s_/:]{1,20}[\s_/:]*|[\s_/:]+", text)


def _figures(document: "Document") -> list[Figure]:
    days = wording.count(len(document["tables"]["day"]["rows"]), "day")
    figures = [Figure("Starts", f"{document['starts']:,}", f"on {days}")]
    for table in ("run_mode", "join_type", "version"):
        for row in document["tables"][table]["rows"][:1]:
            name = f"Most common {wording.COLUMNS[table].lower()}"
            basis = wording.part(int(row["starts"]), document["starts"])
            figures.append(Figure(name, wording.describe(row[table]), basis))
    return figures


def _sections(document: "Document", min_group: int) -> list[Section]:
    answers = {
        "changes": wording.changes(document),
        "run_mode": wording.busiest_day(document),
        "destinations": "A start can have several destinations, of several kinds.",
    }
    charts = {
        "run_mode": _chart(document, "run_mode", "Starts by run mode"),
        "join_type": _chart(document, "join_type", "Join methods", shares=True),
        "version": _chart(document, "version", "Versions", shares=True),
    }
    grids = {
        "changes": _changes(document, min_group),
        "run_mode": [
            _side_by_side(document, "join_type", "Join methods of each run mode"),
            _side_by_side(document, "destinations", "Kinds of destinations of each run mode"),
        ],
        "version": _releases(document),
    }
    rankings = {
        name: [one for one in found if one.rows or one.folded]
        for name, found in _rankings(document).items()
    }
    return [
        Section(
            name.replace("_", "-"),
            question,
            answers.get(name) or _most_common(document, name),
            charts.get(name),
            [one for one in grids.get(name, []) if one.rows],
            rankings.get(name, []),
        )
        for name, question in wording.QUESTIONS.items()
        if name != "records"
    ]


def _rankings(document: "Document") -> dict[str, list[Ranking]]:
    """Return the rankings of each section."""
    ranking = partial(_ranking, document)
    by_kind, by_combination, counts = destinations(document)
    return {
        "use_case": [ranking("Use cases", "use_case")],
        "run_mode": [ranking("Run modes", "run_mode")],
        "join_type": [ranking("Join methods", "join_type")],
        "version": [ranking("Versions", "version")],
        "destinations": [
            ranking("Each kind, alone or with others", "destinations", by_kind),
            ranking("Kinds together", "destinations", by_combination),
            ranking("Number of destinations", "destinations", counts, "destination_count"),
        ],
        "helper": [ranking("Helpers", "helper"), ranking("Versions of helpers", "helper_version")],
        "os_type": [ranking("Operating systems", "os_type"), ranking("Architectures", "host_arch")],
    }


def _ranking(
    document: "Document",
    caption: str,
    table: str,
    sums: "Mapping[Any, int] | None" = None,
    column: str = "",
) -> Ranking:
    """Return the rows of a table, or sums of its rows by a column, by default the first one."""
    columns: Sequence[str] = TABLES[table]
    if sums is None:
        pairs = [
            ([row[name] for name in columns], int(row["starts"]))
            for row in document["tables"][table]["rows"]
        ]
    else:
        columns = [column or columns[0]]
        pairs = [([value], count) for value, count in sums.items()]
    return Ranking(
        caption,
        [wording.COLUMNS[name] for name in columns],
        [([*map(wording.describe, values)], starts) for values, starts in pairs],
        max((starts for _, starts in pairs), default=0),
        wording.folded(document["tables"][table]["folded"]),
    )


def _most_common(document: "Document", table: str) -> str:
    for row in document["tables"][table]["rows"]:
        values = " · ".join(wording.describe(row[column]) for column in TABLES[table])
        return f"Most common: {values}, {wording.part(int(row['starts']), document['starts'])}."
    return "Every group is too small to be shown."


def _changes(document: "Document", min_group: int) -> list[Grid]:
    rows = wording.list_changes(document, min_group)
    headings = ["Of", "Value", "Change", "Before", "After"]
    return (
        [Grid("Changes", headings, [[*row] for row in rows], 3, notes=wording.CHANGES_NOTE)]
        if rows
        else []
    )


def _side_by_side(document: "Document", column: str, caption: str) -> Grid:
    modes = wording.mode_totals(document)
    rows = [
        [wording.describe(value), *wording.of_modes(counts, modes)]
        for value, counts in side_by_side(document, column)
    ]
    headings = [wording.COLUMNS[column], *map(wording.describe, modes)]
    return Grid(caption, headings, rows, notes=wording.SMALL_NOTE)


def _releases(document: "Document") -> list[Grid]:
    weeks, found = releases(document)
    if not found:
        return []
    rows = [
        [
            one.name,
            one.since or wording.FIRST_WEEK,
            one.majority_since or wording.NEVER,
            wording.list_shares(one.shares),
        ]
        for one in found
    ]
    headings = ["Release", "Since the week of", "More than half since", "Share by week"]
    curves = [curve(one.shares) for one in found]
    period = f"In the week of {weeks[0]}"
    if len(weeks) > 1:
        period = f"From the week of {weeks[0]} to that of {weeks[-1]}"
    note = f"{period}. {wording.SMALL_NOTE}"
    return [Grid("Releases", headings, rows, 4, curves, note)]


def _chart(document: "Document", column: str, title: str, *, shares: bool = False) -> Chart:
    unit, labels, totals, parts, complete = history(document, column)
    names = sorted(parts, key=lambda name: -sum(parts[name]))
    if column == "version":
        # The newest at the bottom: its growth is easiest to see from a straight line.
        names = sorted(names[:MAX_VERSIONS], key=version_key, reverse=True)
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
    if not all(complete):
        notes.append(f"A pale bar is of a {unit} that can be incomplete.")
    if any(rest):
        series.append(Series(_REST, "var(--rest)", rest))
        notes.append(
            f"“{_REST}”: less common values, and those with a {unit} of too few starts to be shown."
        )
    most = max(totals)
    fact = f"The most starts in one {unit}: {most:,}, from {labels[totals.index(most)]}."
    if shares:
        fact = f"Shares of the starts of each {unit}."
    bars = [(one.color, one.counts) for one in series]
    drawings = {size: draw(size, labels, bars, complete, shares=shares) for size in SIZES}
    return Chart(f"{title}, each {unit}", unit, fact, notes, labels, totals, series, drawings)
