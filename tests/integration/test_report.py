"""Counting starts: `tbot-otel report` over files, against the plainest counting."""

import csv
import gzip
import json
import re
import subprocess
import sys
import uuid
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.commands import run_main
from support.otlp_files import (
    DAY_NS,
    FIRST_DAY_NS,
    Shape,
    compress_zstd,
    make_start,
    to_line,
    write_starts,
)
from support.paths import ROOT
from support.processes import BASE_ENVIRON, MAIN_SCRIPT, WAIT_SECONDS, run_python
from support.report_data import HELPER, count
from support.setup_code import override_constants
from tbot_otel.registry import START
from tbot_otel.report.document import TABLES, Document

SECRET = "web01"
DAY = date(1970, 1, 1) + timedelta(days=FIRST_DAY_NS // DAY_NS)


def run_report(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return run_main("report", *words)


def read_json(*words: str | Path) -> Document:
    """Run the command, and return its JSON."""
    return parse_json(run_report(*words, "--format", "json"))


def parse_json(done: subprocess.CompletedProcess[str]) -> Document:
    """Return the JSON of a command that succeeded."""
    assert (done.returncode, done.stderr) == (0, "")
    report: Document = json.loads(done.stdout)
    return report


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with three starts in two exports."""
    path = tmp_path / "starts.jsonl"
    day = FIRST_DAY_NS + DAY_NS
    path.write_text(
        to_line(make_start(), make_start({"join_type": "github"}, time_ns=day))
        + to_line(make_start({"version": "18.4.0"}, host=None, time_ns=day + DAY_NS - 1))
    )
    return path


DAYS = [str(DAY), str(DAY + timedelta(1)), str(DAY + timedelta(2))]


def test_json(file: Path) -> None:
    """The document has the promised shape."""
    report = read_json(file, "--min-group", "2")
    assert {**report, "tables": {}, "changes": {}} == {
        "starts": 3,
        "period": {"first": DAYS[0], "last": DAYS[1]},
        "records": {"read": 3, "duplicate": 0, "refused": {}, "unreadable": 0, "future": 0},
        "tables": {},
        "changes": {},
    }
    assert report["changes"] == {
        "periods": [{"first": None, "last": None, "starts": 0}] * 2,
        "rows": [],
        "compared": 0,
        "smallest_visible": None,
        "smallest_visible_version": None,
    }
    tables = report["tables"]
    assert list(tables) == list(TABLES)
    assert tables["day"] == {
        "rows": [{"day": DAYS[0], "starts": 1}, {"day": DAYS[1], "starts": 2}],
        "folded": {"groups": 0, "starts": 0},
    }
    assert tables["join_type"] == {
        "rows": [{"join_type": "token", "starts": 2}],
        "folded": {"groups": 1, "starts": 1},
    }
    assert tables["os_type"]["rows"] == [{"os_type": "linux", "starts": 2}]
    assert tables["destinations"]["rows"] == [
        {"destinations": "", "destination_count": 0, "starts": 3}
    ]


@pytest.mark.parametrize(
    ("words", "starts", "outside"),
    [
        ([], 3, 0),
        (["--since", DAYS[1]], 2, 1),
        (["--until", DAYS[1]], 1, 2),
        (["--since", DAYS[0], "--until", DAYS[2]], 3, 0),
        (["--since", DAYS[2], "--until", "9999-12-31"], 0, 3),
        (["--since", "0001-01-01", "--until", "1970-01-01"], 0, 3),
    ],
    ids=str,
)
def test_period(file: Path, words: list[str], starts: int, outside: int) -> None:
    """--since is inclusive, --until is exclusive, and what is outside is counted."""
    report = read_json(file, *words)
    refused = {"outside_period": outside} if outside else {}
    assert (report["starts"], report["records"]["refused"]) == (starts, refused)
    assert report["records"]["read"] == 3


def test_helpers(tmp_path: Path) -> None:
    """A helper's name counts only if it is known or allowed; --allow-helper allows more."""
    file = tmp_path / "starts.jsonl"
    helper = {"helper": HELPER, "helper_version": "1.2.3"}
    file.write_text(to_line(make_start(helper), make_start(helper)))
    for words, expected in (
        ([], {"helper": "_OTHER", "helper_version": "", "starts": 2}),
        (["--allow-helper", HELPER], {**helper, "starts": 2}),
    ):
        report = read_json(file, "--min-group", "1", *words)
        assert report["tables"]["helper_version"]["rows"] == [expected]


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    """Rotated files are found by folder and by pattern; a file counts once, hidden ones do not."""
    folder = tmp_path / "rotated"
    (folder / "old").mkdir(parents=True)
    paths = [folder / name for name in ("starts.jsonl", "starts-1.jsonl.gz", "old/starts.zst")]
    compressions: tuple[Any, ...] = (bytes, gzip.compress, compress_zstd)
    for path, compress in zip(paths, compressions, strict=True):
        path.write_bytes(compress(to_line(make_start()).encode()))
    (folder / ".hidden").write_text(SECRET)
    for words, starts in (
        ([folder], 3),
        ([folder, paths[0], folder], 3),
        ([folder / "starts*"], 2),
        ([folder / "**" / "starts*"], 3),
        ([paths[1], paths[2]], 2),
        ([tmp_path / "rot*"], 3),
        ([folder / "*"], 3),
        ([folder / "**"], 3),
    ):
        report = read_json(*words)
        assert (report["starts"], report["records"]["unreadable"]) == (starts, 0)


def test_pipe(file: Path) -> None:
    """A pipe can be read, as shells make for a process substitution."""
    script = f'{sys.executable} -m tbot_otel report <(gzip -c "$1") --format json'
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(file)],
        env=BASE_ENVIRON,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["starts"] == 3


def test_other_signals_and_unfinished_lines(file: Path) -> None:
    """Lines of other signals, damaged lines and an unfinished line are counted, and not shown."""
    text = file.read_text()
    file.write_text(
        '{"resourceSpans":[{"scopeSpans":[]}]}\n{"resourceMetrics":[]}\n'
        + text
        + f'{SECRET}\n{{"x":"{SECRET}"}}\n'
        + "[" * 10**6
        + "\n"
        + text[: len(text) // 3]
    )
    line = f"4 parts of the input were not understood, the first is line 5 of {file}"
    for form in ("terminal", "html", "csv", "json"):
        done = run_report(file, "--format", form)
        assert (done.returncode, done.stderr) == (0, f"tbot-otel report: {line}\n")
        assert SECRET not in done.stdout
    records = json.loads(done.stdout)["records"]
    assert records == {
        "read": 5,
        "duplicate": 0,
        "refused": {"other_signal": 2},
        "unreadable": 4,
        "future": 0,
    }


def test_nothing_understood(file: Path) -> None:
    """If no start was found and something was not understood, the exit status is 1."""
    file.write_text('{\n  "resourceLogs": []\n}\n')
    line = (
        f"3 parts of the input were not understood, the first is line 1 of {file}; "
        "it looks like pretty-printed JSON: convert it with jq -c ."
    )
    for form in ("json", "csv"):
        done = run_report(file, "--format", form)
        assert (done.returncode, done.stderr) == (1, f"tbot-otel report: {line}\n")
    assert run_report(file, "--since", "2026-01-01", "--format", "json").returncode == 1


# Some lines are longer than a block.
@pytest.mark.parametrize("starts_per_line", [5, 200])
def test_worker_processes(tmp_path: Path, starts_per_line: int) -> None:
    """Many blocks are read by more processes, with the same numbers; the first record counts."""
    file = tmp_path / "starts.jsonl"
    write_starts(file, Shape(2_000, starts_per_line, kinds=300))
    # Sessions that begin in each block, and are repeated at the end.
    sessions = [str(uuid.uuid4()) for _ in range(100)]
    lines = file.read_text().splitlines(keepends=True)
    for number, session in enumerate(sessions):
        first = make_start({"join_type": "oracle"}, session_id=session)
        lines[number * len(lines) // len(sessions)] += to_line(first)
    again = [make_start({"join_type": "env0"}, session_id=session) for session in sessions]
    file.write_text("".join([*lines, to_line(*again)]))
    (tmp_path / "database").mkdir()
    expected = count(file, folder=tmp_path / "database", min_group=1)
    setup = override_constants("tbot_otel.report.reader", BLOCK_BYTES=100_000)
    words = ("report", str(file), "--min-group", "1", "--format", "json")
    report = parse_json(run_python("-c", f"{setup}\n{MAIN_SCRIPT}", *words))
    assert report == expected
    methods = {row["join_type"] for row in report["tables"]["join_type"]["rows"]}
    assert ("oracle" in methods, "env0" in methods) == (True, False)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_starts(file: Path, tmp_path: Path, format: str) -> None:
    """The starts are rows without session id and time, sorted, and not folded."""
    import duckdb

    file.write_text(file.read_text() + file.read_text() + to_line(make_start(time_ns=1)))
    out = tmp_path / f"starts.{format}"
    done = run_report(file, "--format", format, "-o", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if format == "csv":
        header, *rows = csv.reader(out.read_text().splitlines())
    else:
        relation = duckdb.read_parquet(str(out))
        header = relation.columns
        rows = [[str(value) for value in row] for row in relation.fetchall()]
    assert header == [
        "day",
        *(attribute.name.removeprefix("tbot.") for attribute in START.attributes),
        *("os_type", "host_arch"),
    ]
    assert rows == [
        ["1970-01-01", "daemon", "18.3.0", "token", "", "", *"0000", "linux", "amd64"],
        [DAYS[0], "daemon", "18.3.0", "token", "", "", *"0000", "linux", "amd64"],
        [DAYS[1], "daemon", "18.3.0", "github", "", "", *"0000", "linux", "amd64"],
        [DAYS[1], "daemon", "18.4.0", "token", "", "", *"0000", "not reported", "not reported"],
    ]
    assert "not folded" in re.sub(r"\s+", " ", run_report("--help").stdout)


def test_benchmark() -> None:
    """The benchmark runs in its short form, and prints each row of the page."""
    script = ROOT / "benchmarks" / "report_speed.py"
    done = run_python(
        str(script), "--starts", "200", "--large-pairs", "1", "--pairs", "1", timeout=WAIT_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    page = (script.parent / "results" / "report.txt").read_text()
    rows = [
        [re.sub(r"[\d,]+ starts", "N starts", row).split(" | ")[0] for row in rows_of(text)]
        for text in (done.stdout, page)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5


def rows_of(page: str) -> list[str]:
    """The rows of the table in a page."""
    return [line for line in page.splitlines() if line.startswith("| ")][2:]
