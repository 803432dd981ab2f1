"""Measures `tbot-otel report` against DuckDB and the libraries that it uses, and prints a page.

It needs Linux, for ``/proc``, and 1.3 KB of disk for each generated start.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.otlp_files import Shape, write_starts  # noqa: E402 - found by the line above

SMALL = 1_000
"""The starts of the reports whose time is mostly that of imports."""

# It only counts join methods: without policy, deduplication and the other tables.
QUERY = """
import sys, duckdb
print(duckdb.sql(f'''
    SELECT attribute.value.stringValue, count(*) FROM (
        SELECT unnest(record.attributes) AS attribute FROM (
            SELECT unnest(scope.logRecords) AS record FROM (
                SELECT unnest(logs.scopeLogs) AS scope FROM (
                    SELECT unnest(resourceLogs) AS logs
                    FROM read_json('{sys.argv[1]}', format = 'newline_delimited')))))
    WHERE attribute.key = 'tbot.join_type' GROUP BY ALL
''').fetchall())
"""
IMPORTS = """
import duckdb, msgspec, numpy, rich.console, rich.table
duckdb.sql("SELECT 1").fetchall()
"""
CHART = """
import time
started_at = time.perf_counter()
import vl_convert
vl_convert.vegalite_to_svg({
    "data": {"values": [{"day": day, "starts": day % 7} for day in range(90)]},
    "mark": "bar",
    "encoding": {"x": {"field": "day"}, "y": {"field": "starts", "type": "quantitative"}},
})
print(time.perf_counter() - started_at)
"""

HEAD = """\
# Benchmarks of the report

What `python benchmarks/report_speed.py` printed, on {python} with DuckDB {duckdb}, {cores} cores
({machine}).

The data are generated, in the form of the official Collector's file exporter: {per_line} starts a
line, {size:.2f} GB for {large:,} starts. There are {kinds:,} distinct sets of attributes over
{days} days, a few of them frequent, and {duplicate:.0%} of the records are there twice.

Both sides run by turns. A time over {large:,} starts is of one run, over a tenth of them the
median of 3, any other the median of {runs}. Memory is the resident set of all processes together.

| what | against | ours | theirs | ratio | goal | met |
| --- | --- | --- | --- | --- | --- | --- |"""


class Run(NamedTuple):
    """What a process took."""

    seconds: float
    peak_mib: float
    output: str


def run(*words: str | Path) -> Run:
    """Run a process, and measure it and its children."""
    started_at = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *map(str, words)], stdout=output)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(resident_bytes, process_tree(process.pid))))
            # Short processes are timed to 2 ms; the polling of long ones must not cost.
            time.sleep(0.002 if time.perf_counter() - started_at < 5 else 0.05)
        seconds = time.perf_counter() - started_at
        if process.returncode:
            sys.exit(f"{words}: exit status {process.returncode}")
        output.seek(0)
        return Run(seconds, peak / 2**20, output.read().decode())


def process_tree(pid: int) -> list[int]:
    """The process and its children."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += process_tree(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def report(file: Path, form: str) -> Run:
    """Run the command."""
    return run("-m", "tbot_otel", "report", file, "--format", form)


def by_turns(count: int, *measures: Callable[[], Run]) -> list[list[Run]]:
    """The runs of each, by turns."""
    rounds = [[measure() for measure in measures] for _ in range(count)]
    return [list(runs) for runs in zip(*rounds, strict=True)]


def seconds(runs: Sequence[Run]) -> float:
    """The median time."""
    return statistics.median(run.seconds for run in runs)


def row(what: str, against: str, ours: float, theirs: float, goal: float) -> str:
    """A row of times."""
    ratio = ours / theirs
    met = "yes" if ratio <= goal else "**no**"
    return (
        f"| {what} | {against} | {ours:.2f} s | {theirs:.2f} s | {ratio:.2f} | <= {goal} | {met} |"
    )


def memory_row(what: str, mib: float) -> str:
    """A row of memory."""
    met = "yes" if mib <= 1024 else "**no**"
    return f"| peak memory, {what} | - | {mib:.0f} MiB | - | - | <= 1 GiB | {met} |"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10_000_000, help="of the largest file")
    parser.add_argument("--runs", type=int, default=7, help="of what takes seconds")
    options = parser.parse_args()
    import duckdb

    large = Shape(options.starts)
    tenth = Shape(options.starts // 10)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {name: folder / f"{name}.jsonl" for name in ("large", "tenth", "long", "small")}
        write_starts(files["large"], large)
        write_starts(files["tenth"], tenth)
        write_starts(files["long"], tenth._replace(starts_per_line=8_000))
        write_starts(files["small"], Shape(SMALL))
        print(
            HEAD.format(
                python=f"{platform.python_implementation()} {platform.python_version()}",
                duckdb=duckdb.__version__,
                cores=os.cpu_count(),
                machine=f"{platform.system()}, {platform.machine()}",
                per_line=large.starts_per_line,
                kinds=large.kinds,
                days=large.days,
                duplicate=large.duplicate,
                size=files["large"].stat().st_size / 1e9,
                large=large.records,
                runs=options.runs,
            ),
            flush=True,
        )
        tenths = [report(files["tenth"], "json")]
        ours = report(files["large"], "json")
        tenths.append(report(files["tenth"], "json"))
        theirs = run("-c", QUERY, files["large"])
        tenths.append(report(files["tenth"], "json"))
        lengthy = report(files["long"], "json")
        count = f"{large.records:,}"
        tenth_seconds = seconds(tenths)
        print(
            row(
                f"the whole report, {count} starts",
                "DuckDB's query that only counts join methods",
                ours.seconds,
                theirs.seconds,
                0.7,
            )
        )
        print(memory_row(f"{count} starts, 50 a line", ours.peak_mib))
        print(memory_row(f"{tenth.records:,} starts, 8,000 a line", lengthy.peak_mib))
        print(
            row(
                f"the whole report, {count} starts",
                f"10 times that of {tenth.records:,}",
                ours.seconds,
                10 * tenth_seconds,
                1.15,
            ),
            flush=True,
        )
        terminal, imports = by_turns(
            options.runs, lambda: report(files["small"], "terminal"), lambda: run("-c", IMPORTS)
        )
        print(
            row(
                f"the report over {SMALL:,} starts, terminal",
                "importing its libraries, and a query",
                seconds(terminal),
                seconds(imports),
                2,
            ),
            flush=True,
        )
        html, json, chart = by_turns(
            options.runs,
            lambda: report(files["small"], "html"),
            lambda: report(files["small"], "json"),
            lambda: run("-c", CHART),
        )
        first_chart = statistics.median(float(run.output) for run in chart)
        print(
            row(
                f"`--format html`, {SMALL:,} starts",
                "JSON, and 2 times the library's first chart",
                seconds(html),
                seconds(json) + 2 * first_chart,
                1,
            )
        )


if __name__ == "__main__":
    main()
