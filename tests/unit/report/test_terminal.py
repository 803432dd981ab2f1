"""The report in a terminal."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from support.report_data import HOSTILE_VALUES, REPORT_NAMES, Start, make_document, report_of
from tbot_otel.report import wording
from tbot_otel.report.document import DESTINATION_KINDS, TABLES
from tbot_otel.report.html import render as render_page
from tbot_otel.report.terminal import MAX_ROWS, render, render_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.report.document import Document


def rendered(
    report: "Document",
    *,
    width: int = 80,
    encoding: str = "utf-8",
    is_terminal: bool = False,
    min_group: int = 5,
) -> str:
    """The report as text."""
    output = io.BytesIO()
    file = io.TextIOWrapper(output, encoding=encoding, newline="")
    console = Console(
        file=file,
        width=width,
        force_terminal=is_terminal,
        color_system="auto",
        legacy_windows=False,
    )
    render(report, console, min_group)
    file.flush()
    return output.getvalue().decode(encoding)


def words(text: str) -> str:
    """The text without the breaks of its lines and the spaces between columns."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", REPORT_NAMES)
def test_lines_fit(name: str) -> None:
    """No line is longer than 80 columns, or than those of a narrow terminal."""
    report = report_of(name)
    for width in (80, 60):
        text = rendered(report, width=width)
        assert max(cell_len(line) for line in text.splitlines()) <= width


def test_long_values_are_folded() -> None:
    """A value that does not fit has several lines, and loses nothing."""
    report = make_document([Start("2026-08-03", join_type="é" * 300)] * 5)
    # Among the use cases, the join methods, and those of each run mode.
    assert rendered(report).count("é") == 900


def test_table_without_rows() -> None:
    """A question that the starts do not answer is left out, here and on the page."""
    report = make_document([Start("2026-08-03", destinations="", destination_count=0)] * 5)
    assert wording.QUESTIONS["destinations"] not in rendered(report)
    assert "Each kind, alone or with others" not in render_page(report, 5)


@pytest.mark.parametrize(
    "name", [name for name in REPORT_NAMES if name not in ("empty", "hostile")]
)
def test_numbers_are_those_of_the_report(name: str) -> None:
    """Each table has the report's rows, the starts of those that it leaves out, and folded ones."""
    report = report_of(name)
    text = words(rendered(report, width=200))
    if wording.all_folded(report, 5):
        assert wording.all_folded(report, 5) in text
        return
    for table in (
        "use_case",
        "run_mode",
        "join_type",
        "version",
        "helper_version",
        "os_type",
        "host_arch",
    ):
        rows = report["tables"][table]["rows"]
        for row in rows[:MAX_ROWS]:
            values = [wording.describe(row[column]) for column in TABLES[table]]
            starts = int(row["starts"])
            assert (
                " ".join([*values, f"{starts:,}", wording.percent(starts, report["starts"])])
                in text
            )
        if rest := sum(int(row["starts"]) for row in rows[MAX_ROWS:]):
            assert wording.part(rest, report["starts"]) in text
        assert wording.folded(report["tables"][table]["folded"]) in text
    for kind in DESTINATION_KINDS:
        starts = sum(
            int(row["starts"])
            for row in report["tables"]["destinations"]["rows"]
            if kind in str(row["destinations"]).split("+")
        )
        assert not starts or f" {kind} {starts:,} " in text
    for sentence in (*wording.records(report), *wording.limits(5), wording.busiest_day(report)):
        assert sentence in text


def test_empty_report_says_why() -> None:
    """Without a start, the first line says so, and the others say what was read."""
    report = make_document([], duplicate=0, refused={"other_event": 3}, unreadable=2)
    assert rendered(report).splitlines() == [wording.NOTHING, *wording.records(report)]
    assert wording.records(report) == [
        "3 records read: 0 starts, 0 duplicates, 3 refused.",
        "Refused are records of another event: 3.",
        "Of the input, 2 parts could not be understood.",
    ]


def test_small_groups_name_their_limit() -> None:
    """A line says how many groups are folded, and below which number of starts."""
    starts = [Start("2026-08-03", version=f"18.{minor}.0") for minor in (1, 1, 2, 3, 3, 3)]
    text = rendered(make_document(starts, min_group=3), min_group=3)
    assert "\nNot shown: 2 groups, 3 starts\n" in text
    assert "Not shown are groups of fewer than 3 starts" in text


def test_lines_show_how_shares_change() -> None:
    """The lines beside join methods show shares of the time's starts, not starts."""
    starts = [
        Start(f"2026-08-0{day}", join_type=join_type)
        for day, counts in enumerate(((9, 9), (8, 0), (10, 30), (5, 5), (9, 9)), 1)
        for join_type, count in zip(("iam", "token"), counts, strict=True)
        for _ in range(count)
    ]
    text = rendered(make_document(starts))
    assert re.search(r"^iam +41 +44%   █▂▄ *$", text, re.MULTILINE)
    assert re.search(r"^token +53 +56%    ▆▄ *$", text, re.MULTILINE)
    each = "Each day from 2026-08-01 on, without a day that can be incomplete;"
    assert f"{each} █ is 100% of the starts." in words(text)
    assert f"{each} █ is 40 starts." in words(text)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_values_control_nothing(*, is_terminal: bool) -> None:
    """A value is text: no markup, and no character that controls a terminal."""
    text = rendered(report_of("hostile"), width=1_000, is_terminal=is_terminal)
    colors = re.findall(r"\x1b\[[0-9;]*m", text)
    assert len(colors) == text.count("\x1b")
    assert not is_terminal or colors
    for value in HOSTILE_VALUES:
        assert wording.describe(value) in text
        assert wording.describe(value).isprintable()


def test_color_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are colors only in a terminal, and none with NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    report = report_of("week")
    assert "\x1b" not in rendered(report)
    assert "\x1b[36" in rendered(report, is_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", rendered(report, is_terminal=True))


def test_bars_need_their_characters() -> None:
    """Where the encoding has no bars, there are none, and everything else is there."""
    text = rendered(report_of("week"), encoding="ascii")
    assert "one-shot  github" in text
    assert wording.busiest_day(report_of("week")) in text


def test_encoding() -> None:
    """Where the output cannot have bars, they are left out."""
    text = render_text(report_of("example"), 5, encoding="ascii", is_terminal=False).decode("ascii")
    assert "one-shot  github" in text
    assert "?" not in re.sub(r"(?m)^[A-Z].*\?$", "", text)
