"""The SQL of docs/report.md, in ClickHouse's own engine, gives the numbers of the command."""

import json
import re
import urllib.request
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
*QUERIES, FOLDED, DUPLICATE = STATEMENTS
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


def table_of(query: str) -> str:
    """The table that a query answers, by its columns."""
    columns = tuple(re.findall(r"^SELECT (.*), count\(\)", query)[0].split(", "))
    (name,) = (name for name, table in TABLES.items() if table == columns)
    return name


def test_every_table_has_a_query() -> None:
    """There is a query for each table."""
    assert sorted(map(table_of, QUERIES)) == sorted(TABLES)


@pytest.mark.parametrize("query", QUERIES, ids=table_of)
def test_query(collected: Collected, query: str) -> None:
    """A query returns the rows of its table, in the same order."""
    rows = collected.report["tables"][table_of(query)]["rows"]
    assert rows
    assert list(map(as_numbers, collected.clickhouse.query(query))) == rows


def test_folded_and_duplicate(collected: Collected) -> None:
    """The other two return what was folded, and the duplicates."""
    folded = collected.report["tables"]["use_case"]["folded"]
    assert folded["groups"]
    assert list(map(as_numbers, collected.clickhouse.query(FOLDED))) == [folded]
    duplicate = {"duplicate": collected.report["records"]["duplicate"]}
    assert duplicate["duplicate"]
    assert list(map(as_numbers, collected.clickhouse.query(DUPLICATE))) == [duplicate]
