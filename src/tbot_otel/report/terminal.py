"""The report in a terminal."""

import io
import math
from typing import NamedTuple

from tbot_otel.report import wording
from tbot_otel.report.destinations import destinations
from tbot_otel.report.document import TABLES
from tbot_otel.report.history import MAX_UNITS, history, releases, side_by_side

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from rich.console import Console, RenderableType
    from rich.table import Table

    from tbot_otel.report.document import Document

MAX_ROWS = 10
"""The most rows of a table that are printed."""

_BAR_COLUMNS = 12
_LEVELS = " ▁▂▃▄▅▆▇█"


class _Table(NamedTuple):
    title: str
    headings: "Sequence[str]"
    """Of the columns with values."""
    rows: "list[tuple[list[str], int]]"
    lines: "Mapping[str, str]"
    """The line of bars of each row, by its first value, in place of one bar."""
    notes: "Sequence[str]"


def render(document: "Document", console: "Console", min_group: int) -> None:
    """Print the report.

    Args:
        document: The report.
        console: Where to. It decides on the width, the colors, and whether there are bars.
        min_group: The number of starts below which the report's rows are folded.
    """
    sentences = wording.records(document)
    if document["starts"]:
        starts = wording.count(document["starts"], "start")
        _print(console, f"{starts} of tbot, {wording.period(document)}", "bold")
        if nothing := wording.all_folded(document, min_group):
            _print(console, nothing)
        else:
            _print_changes(document, console, min_group)
            # The characters of bars are not in every encoding.
            has_bars = not console.options.ascii_only
            for table in _tables(document, has_bars=has_bars):
                if table.rows or any(table.notes):
                    _print_table(document["starts"], console, table, has_bars=has_bars)
            _print_releases(document, console, has_bars=has_bars)
            for column in ("join_type", "destinations"):
                _print_side_by_side(document, console, column)
        _print(console, f"\n{wording.QUESTIONS['records']}", "bold")
        sentences = [*wording.limits(min_group), *sentences]
    else:
        _print(console, wording.NOTHING, "bold")
    for sentence in sentences:
        _print(console, sentence)


def render_text(document: "Document", min_group: int, *, encoding: str, is_terminal: bool) -> bytes:
    """Return the report as text.

    Args:
        document: The report.
        min_group: The number of starts below which its rows are folded.
        encoding: The text's encoding.
        is_terminal: Whether it is for this terminal: in its width, and in color, unless the
            variable NO_COLOR is set.
    """
    from rich.console import Console

    # If rich wrote to standard output, it would exit when the reader closes its end.
    text = io.BytesIO()
    # It has the encoding, so that bars that cannot be written in it are left out.
    file = io.TextIOWrapper(text, encoding, errors="replace", newline="")
    width = None if is_terminal else 80
    render(document, Console(file=file, force_terminal=is_terminal, width=width), min_group)
    file.flush()
    return text.getvalue()


def _print(console: "Console", text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False)


def _tables(document: "Document", *, has_bars: bool) -> list[_Table]:
    def own(name: str, title: str = "", *, by_time: bool = False, note: str = "") -> _Table:
        rows = [
            ([wording.describe(row[column]) for column in TABLES[name]], int(row["starts"]))
            for row in document["tables"][name]["rows"]
        ]
        lines, meaning = _lines_of_bars(document, name) if by_time and has_bars else ({}, "")
        headings = [wording.COLUMNS[column] for column in TABLES[name]]
        notes = (wording.folded(document["tables"][name]["folded"]), meaning, note)
        return _Table(title or wording.QUESTIONS[name], headings, rows, lines, notes)

    def sums(column: str, title: str, starts: "Mapping[Any, int]") -> _Table:
        rows = [([wording.describe(value)], count) for value, count in starts.items()]
        notes = (wording.folded(document["tables"]["destinations"]["folded"]),)
        return _Table(title, [wording.COLUMNS[column]], rows, {}, notes)

    by_kind, by_combination, counts = destinations(document)
    return [
        own("use_case"),
        own("run_mode", by_time=True, note=wording.busiest_day(document)),
        own("join_type", by_time=True),
        own("version", by_time=True),
        sums("destinations", wording.QUESTIONS["destinations"], by_kind),
        sums("destinations", "Which kinds together?", by_combination),
        sums("destination_count", "How many destinations?", counts),
        own("helper_version", wording.QUESTIONS["helper"]),
        own("os_type"),
        own("host_arch", "On which architecture?"),
    ]


def _print_table(total: int, console: "Console", table: _Table, *, has_bars: bool) -> None:
    from rich.bar import Bar
    from rich.text import Text

    grid = _grid(table.headings)
    grid.add_column("Starts", justify="right", no_wrap=True)
    grid.add_column("Share", justify="right", no_wrap=True)
    if has_bars:
        grid.add_column("", no_wrap=True)
    largest = max((starts for _, starts in table.rows), default=0)
    shown, hidden = table.rows[:MAX_ROWS], table.rows[MAX_ROWS:]
    for values, starts in shown:
        cells: list[RenderableType] = [Text(value) for value in values]
        cells += [f"{starts:,}", wording.percent(starts, total)]
        if has_bars and table.lines:
            cells.append(Text(table.lines.get(values[0], ""), style="cyan"))
        elif has_bars:
            cells.append(Bar(largest, 0, starts, width=_BAR_COLUMNS, color="cyan"))
        grid.add_row(*cells)
    _print(console, f"\n{table.title}", "bold")
    if shown:
        console.print(grid)
    if hidden:
        rest = sum(starts for _, starts in hidden)
        rows = wording.count(len(hidden), "more row")
        _print(console, f"{rows}: {wording.part(rest, total)}", "dim")
    for line in filter(None, table.notes):
        _print(console, line, "dim")


def _grid(headings: "Iterable[str]") -> "Table":
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    return grid


def _lines_of_bars(document: "Document", column: str) -> tuple[dict[str, str], str]:
    """A line of characters for each value of a column, and a sentence that explains them.

    The lines of run modes show starts. The others show shares of all starts.
    """
    unit, labels, totals, parts, complete = history(document, column)
    if len(labels) == 1 or len(labels) > MAX_UNITS or not parts:
        return {}, ""
    bases = [1] * len(labels) if column == "run_mode" else [total or 1 for total in totals]
    heights = {
        value: [
            count / base if final else 0.0
            for count, base, final in zip(counts, bases, complete, strict=True)
        ]
        for value, counts in parts.items()
    }
    highest = max(map(max, heights.values()))
    if not highest:
        return {}, ""
    lines = {
        wording.describe(value): "".join(_LEVELS[math.ceil(8 * height / highest)] for height in row)
        for value, row in heights.items()
    }
    meaning = f"{highest:,.0f} starts" if column == "run_mode" else f"{highest:.0%} of the starts"
    left_out = "" if all(complete) else f", without a {unit} that can be incomplete"
    return lines, f"Each {unit} from {labels[0]} on{left_out}; {_LEVELS[-1]} is {meaning}."


def _print_changes(document: "Document", console: "Console", min_group: int) -> None:
    _print(console, f"\n{wording.QUESTIONS['changes']}", "bold")
    _print(console, wording.changes(document))
    changes = wording.list_changes(document, min_group)
    _print_words(console, ("Of", "Value", "Change", "Before", "After"), changes[:MAX_ROWS], 3)
    if len(changes) > MAX_ROWS:
        _print(console, wording.count(len(changes) - MAX_ROWS, "more change"), "dim")
    if changes:
        _print(console, wording.CHANGES_NOTE, "dim")


def _print_releases(document: "Document", console: "Console", *, has_bars: bool) -> None:
    weeks, found = releases(document)
    if not found:
        return
    _print(console, "\nHow fast is a release taken up?", "bold")
    rows = [
        [
            one.name,
            one.since or wording.FIRST_WEEK,
            one.majority_since or wording.NEVER,
            "".join(_LEVELS[math.ceil(8 * (share or 0))] for share in one.shares)
            if has_bars
            else "",
        ]
        for one in found
    ]
    _print_words(console, ("Release", "Since the week of", "More than half since", ""), rows, 4)
    note = (
        f"Each week from {weeks[0]} on; {_LEVELS[-1]} is 100% of the starts. " if has_bars else ""
    )
    _print(console, f"{note}{wording.SMALL_NOTE}", "dim")


def _print_side_by_side(document: "Document", console: "Console", column: str) -> None:
    modes = wording.mode_totals(document)
    found = side_by_side(document, column)
    rows = [[wording.describe(value), *wording.of_modes(counts, modes)] for value, counts in found]
    if not rows:
        return
    heading = wording.COLUMNS[column]
    _print(console, f"\n{heading} of each run mode", "bold")
    _print_words(console, (heading, *map(wording.describe, modes)), rows[:MAX_ROWS], 1)
    if len(rows) > MAX_ROWS:
        _print(console, wording.count(len(rows) - MAX_ROWS, "more row"), "dim")


def _print_words(
    console: "Console", headings: "Sequence[str]", rows: "Iterable[Sequence[str]]", words: int
) -> None:
    """Print a table whose first columns have words, and the others numbers."""
    from rich.text import Text

    grid = _grid(headings[:words])
    for heading in headings[words:]:
        grid.add_column(heading, justify="right")
    for row in rows:
        grid.add_row(*map(Text, row))
    if grid.row_count:
        console.print(grid)
