"""Measures `tbot-otel report` against DuckDB and against itself, and prints a table.

It needs Linux, for ``/proc``, and 1.3 KB of disk for each generated start. The two sides of a row
run by turns, each after the same pause.
"""

import argparse
import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.otlp_files import Shape, to_protobuf, write_starts  # noqa: E402 - found by that line

SMALL, MEDIUM = 1_000, 100_000
"""The starts of the reports whose time is mostly that of imports, and of the row of protobuf."""
PAUSE_SECONDS = 0.2

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
ONE_QUERY = "import duckdb; duckdb.sql('SELECT 1').fetchall()"


class Run(NamedTuple):
    """What a process and its children took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def run(*words: str | Path) -> Run:
    """Run a process, and measure it and its children."""
    time.sleep(PAUSE_SECONDS)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_at = time.perf_counter()
    with subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(resident_bytes, process_tree(process.pid))))
            # Short processes are timed to 2 ms; the polling of long ones must not cost.
            time.sleep(0.002 if time.perf_counter() - started_at < 5 else 0.05)
        seconds = time.perf_counter() - started_at
    if process.returncode:
        sys.exit(f"{words}: exit status {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, peak / 2**20)


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


def print_row(
    what: str,
    against: str,
    *,
    pairs: int,
    ours: Callable[[], Run],
    theirs: Callable[[], Run],
    goal: float,
    cpu: bool = False,
) -> list[Run]:
    """Run both sides by turns, print the ratio of their medians, and return our runs."""
    both = [(ours(), theirs()) for _ in range(pairs)]
    times = [
        [one.cpu_seconds if cpu else one.seconds for one in side]
        for side in zip(*both, strict=True)
    ]
    first, second = map(statistics.median, times)
    ratios = sorted(a / b for a, b in zip(*times, strict=True))
    spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[3 * len(ratios) // 4]:.2f}"
    print(
        f"| {what} | {against} | {first:.2f} s | {second:.2f} s | {first / second:.2f} "
        f"| {spread} | {pairs} | <= {goal} |",
        flush=True,
    )
    return [one for one, _ in both]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10_000_000, help="of the largest file")
    parser.add_argument("--large-pairs", type=int, default=3, help="pairs over the largest file")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of everything else")
    options = parser.parse_args()
    import duckdb

    # As pip installs them: with compiled bytecode, which the first runs write.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    load = os.getloadavg()[1]
    print(
        f"{platform.python_implementation()} {platform.python_version()}, DuckDB "
        f"{duckdb.__version__}, {os.cpu_count()} cores ({platform.system()}, "
        f"{platform.machine()}), load average before it {load:.1f}\n\n"
        "| what | against | ours | theirs | ratio of medians | middle half of the ratios | pairs "
        "| goal |\n| --- | --- | --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small, medium, binary, large = (
            folder / name for name in ("small", "medium", "binary", "large")
        )
        write_starts(small, Shape(SMALL))
        for form in ("html", "terminal", "json"):
            report(small, form)
        print_row(
            f"`--format html`, {SMALL:,} starts",
            "the same in the terminal",
            pairs=options.pairs,
            ours=lambda: report(small, "html"),
            theirs=lambda: report(small, "terminal"),
            goal=1.2,
        )
        print_row(
            f"the terminal, {SMALL:,} starts",
            "`import duckdb` and one query",
            pairs=options.pairs,
            ours=lambda: report(small, "terminal"),
            theirs=lambda: run("-c", ONE_QUERY),
            goal=2.1,
        )
        write_starts(medium, Shape(min(MEDIUM, options.starts)))
        binary.write_bytes(to_protobuf(medium.read_text().splitlines()))
        print_row(
            "processor time, `format: proto`",
            "JSON",
            pairs=options.pairs,
            ours=lambda: report(binary, "json"),
            theirs=lambda: report(medium, "json"),
            goal=2.2,
            cpu=True,
        )
        write_starts(large, Shape(options.starts))
        runs = print_row(
            f"the whole report as a page, {options.starts:,} starts",
            "DuckDB's query that only counts join methods",
            pairs=options.large_pairs,
            ours=lambda: report(large, "html"),
            theirs=lambda: run("-c", QUERY, large),
            goal=0.6,
        )
        peak = max(one.peak_mib for one in runs)
        print(f"| peak memory, all processes | | {peak:.0f} MiB | | | | | <= 600 MiB |")


if __name__ == "__main__":
    main()
