"""The SQL of docs/report.md, in ClickHouse's own engine, gives the numbers of the command."""

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.clickhouse import ClickHouse, running_clickhouse
from support.collectors import Official
from support.otlp_files import Shape, write_starts
from support.paths import ROOT
from support.processes import WAIT_SECONDS, run_python, wait_until
from tbot_otel.report.document import TABLES, Document

PAGE = ROOT / "docs" / "report.md"
BLOCKS = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
VIEW, *STATEMENTS = [
    part.strip() for block in BLOCKS for part in block.split(";\n") if part.strip()
]
ONE_COLUMN, BY_TIME, RELEASES, DUPLICATE = STATEMENTS
pytestmark = pytest.mark.usefixtures("chdb")
SHAPE = Shape(2_000, kinds=300, days=5, duplicate=0.05)


class Collected(NamedTuple):
    """The same starts in ClickHouse and in the command's report."""

    clickhouse: ClickHouse
    report: Document


@pytest.fixture(scope="module")
def collected(
    official_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collected]:
    """Starts that the official Collector wrote to ClickHouse and to a file."""
    folder = tmp_path_factory.mktemp("clickhouse")
    generated, received = folder / "generated.jsonl", folder / "received.jsonl"
    write_starts(generated, SHAPE)
    with running_clickhouse(folder) as clickhouse:
        exporters = {
            "file": {"path": str(received)},
            "clickhouse": {
                "endpoint": clickhouse.endpoint,
                "database": "otel",
                "logs_table_name": "tbot_starts",
            },
        }
        collector = Official(official_binary, folder, exporters=exporters)
        with collector.running():
            for line in generated.read_bytes().splitlines():
                request = urllib.request.Request(
                    f"{collector.endpoint('http/protobuf')}/v1/logs",
                    line,
                    {"Content-Type": "application/json"},
                )
                urllib.request.urlopen(request, timeout=WAIT_SECONDS).close()
            wait_until(lambda: count_rows(clickhouse) == SHAPE.records)
        clickhouse.query(VIEW)
        done = run_python("-m", "tbot_otel", "report", str(received), "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        report: Document = json.loads(done.stdout)
        assert report["records"]["read"] == SHAPE.records
        yield Collected(clickhouse, report)


def count_rows(clickhouse: ClickHouse) -> int:
    """The number of records in the table."""
    return int(clickhouse.query("SELECT count() AS count FROM otel.tbot_starts")[0]["count"])


def as_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose 64-bit numbers are numbers."""
    numbers = ("starts", "destination_count", "groups", "duplicate")
    return {name: int(value) if name in numbers else value for name, value in row.items()}


def rows_of(clickhouse: ClickHouse, query: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    return [as_numbers(row) for row in clickhouse.query(query)]


@pytest.mark.parametrize(
    "table", [name for name in TABLES if not name.startswith(("day_", "week"))]
)
def test_table(collected: Collected, table: str) -> None:
    """The query of a table returns its rows, in the same order, and what is folded beside them."""
    expected = collected.report["tables"][table]["rows"]
    assert expected
    columns = TABLES[table]
    if columns == ("day",):
        query = BY_TIME.replace(", join_type", "")
        assert rows_of(collected.clickhouse, query) == expected
        return
    rows = rows_of(collected.clickhouse, ONE_COLUMN.replace("join_type", ", ".join(columns)))
    shown = [row for row in rows if row in expected]
    assert shown == expected
    if len(columns) == 1:
        assert rows == expected


@pytest.mark.parametrize("column", ["run_mode", "join_type", "version"])
def test_table_by_time(collected: Collected, column: str) -> None:
    """The query by time returns the rows of its table, which has the shortest fitting unit."""
    table = collected.report["tables"][f"day_{column}"]
    rows = rows_of(collected.clickhouse, BY_TIME.replace("join_type", column))
    assert rows
    assert table["unit"] == "day"
    names = {str(row[column]) for row in table["rows"]}
    # Of many versions, 16.x stands for those that begin so.
    sums = Counter[tuple[str, str]]()
    for row in rows:
        major = f"{row[column].partition('.')[0]}.x"
        sums[row["day"], major if major in names else row[column]] += row["starts"]
    shown = {(str(row["day"]), str(row[column])): row["starts"] for row in table["rows"]}
    assert {key: starts for key, starts in sums.items() if key in shown} == shown


def test_releases(collected: Collected) -> None:
    """The query of releases returns the shares of weeks."""
    expected = collected.report["tables"]["week_release"]["rows"]
    assert expected
    rows = rows_of(collected.clickhouse, RELEASES)
    assert [row for row in rows if row in expected] == expected


def test_duplicate(collected: Collected) -> None:
    """The last one returns the duplicates."""
    duplicate = {"duplicate": collected.report["records"]["duplicate"]}
    assert duplicate["duplicate"]
    assert rows_of(collected.clickhouse, DUPLICATE) == [duplicate]
