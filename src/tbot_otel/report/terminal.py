"""The report in a terminal."""

import io
import math
from typing import NamedTuple

from tbot_otel.report import wording
from tbot_otel.report.document import TABLES
from tbot_otel.report.summaries import destinations, history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rich.console import Console, RenderableType

    from tbot_otel.report.document import Document

MAX_ROWS = 10
"""The most rows of a table that are printed."""

_MAX_UNITS = 20
_BAR_COLUMNS = 12
_LEVELS = " ▁▂▃▄▅▆▇█"


class _Table(NamedTuple):
    title: str
    columns: "Sequence[str]"
    rows: "list[tuple[list[Any], int]]"
    name: str
    """Of the report's table whose rows these are, or were added up."""
    by_time: bool = False
    note: str = ""


def render(report: "Document", console: "Console", min_group: int) -> None:
    """Print the report.

    Args:
        report: The report.
        console: Where to. It decides on the width, the colors, and whether there are bars.
        min_group: The number of starts below which the report's rows are folded.
    """
    sentences = wording.records(report)
    if report["starts"]:
        starts = wording.count(report["starts"], "start")
        _print(console, f"{starts} of tbot, {wording.period(report)}", "bold")
        for table in _tables(report):
            _print_table(report, console, table, min_group)
        _print(console, f"\n{wording.QUESTIONS['records']}", "bold")
        sentences = [*wording.LIMITS, *sentences]
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


def _tables(report: "Document") -> list[_Table]:
    def own(name: str, title: str = "", *, by_time: bool = False, note: str = "") -> _Table:
        rows = [
            ([row[column] for column in TABLES[name]], int(row["starts"]))
            for row in report["tables"][name]["rows"]
        ]
        return _Table(title or wording.QUESTIONS[name], TABLES[name], rows, name, by_time, note)

    def sums(column: str, title: str, starts: "Mapping[Any, int]") -> _Table:
        rows = [([value], count) for value, count in starts.items()]
        return _Table(title, (column,), rows, "destinations")

    by_kind, by_combination, counts = destinations(report)
    return [
        own("use_case"),
        own("run_mode", by_time=True, note=wording.busiest_day(report)),
        own("join_type", by_time=True),
        own("version", by_time=True),
        sums("destinations", wording.QUESTIONS["destinations"], by_kind),
        sums("destinations", "Which kinds together?", by_combination),
        sums("destination_count", "How many destinations?", counts),
        own("helper_version", wording.QUESTIONS["helper"]),
        own("os_type"),
        own("host_arch", "On which architecture?"),
    ]


def _print_table(report: "Document", console: "Console", table: _Table, min_group: int) -> None:
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns:
        grid.add_column(wording.COLUMNS[column], overflow="fold")
    grid.add_column("Starts", justify="right", no_wrap=True)
    grid.add_column("Share", justify="right", no_wrap=True)
    # The characters of bars are not in every encoding.
    has_bars = not console.options.ascii_only
    has_lines = has_bars and table.by_time
    lines, note = _sparklines(report, table.name) if has_lines else ({}, "")
    if has_bars:
        grid.add_column("", no_wrap=True)
    largest = max((starts for _, starts in table.rows), default=0)
    shown, hidden = table.rows[:MAX_ROWS], table.rows[MAX_ROWS:]
    for values, starts in shown:
        cells: list[RenderableType] = [Text(wording.describe(value)) for value in values]
        cells += [f"{starts:,}", wording.percent(starts, report["starts"])]
        if has_lines:
            cells.append(Text(lines.get(str(values[0]), ""), style="cyan"))
        elif has_bars:
            cells.append(Bar(largest, 0, starts, width=_BAR_COLUMNS, color="cyan"))
        grid.add_row(*cells)
    _print(console, f"\n{table.title}", "bold")
    if shown:
        console.print(grid)
    if hidden:
        rest = sum(starts for _, starts in hidden)
        rows = wording.count(len(hidden), "more row")
        _print(console, f"{rows}: {wording.part(rest, report['starts'])}", "dim")
    for line in (
        wording.folded(report["tables"][table.name]["folded"], min_group),
        note,
        table.note,
    ):
        if line:
            _print(console, line, "dim")


def _sparklines(report: "Document", column: str) -> tuple[dict[str, str], str]:
    """A line of characters for each value of a column, and a sentence that explains them.

    The lines of run modes show starts. The others show shares of all starts.
    """
    unit, labels, totals, parts = history(report, column, _MAX_UNITS)
    if len(labels) == 1 or not parts:
        return {}, ""
    bases = [1] * len(labels) if column == "run_mode" else [total or 1 for total in totals]
    heights = {
        value: [count / base for count, base in zip(counts, bases, strict=True)]
        for value, counts in parts.items()
    }
    highest = max(map(max, heights.values()))
    lines = {
        value: "".join(_LEVELS[math.ceil(8 * height / highest)] for height in row)
        for value, row in heights.items()
    }
    meaning = f"{highest:,.0f} starts" if column == "run_mode" else f"{highest:.0%} of the starts"
    return lines, f"Each {unit} from {labels[0]} on; {_LEVELS[-1]} is {meaning}."
