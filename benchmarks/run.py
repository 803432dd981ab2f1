"""Measures this package against the bare interpreter and the plain SDK, and prints a page.

Each figure comes from processes of its own. Both sides of a row run by turns, with compiled
bytecode, in a minimal environment.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.agent import AGENT_PATH  # noqa: E402 - found by the line above
from support.collectors import Official, build_official  # noqa: E402 - as above
from support.processes import free_port  # noqa: E402 - as above
from support.standins import silent_port  # noqa: E402 - as above
from tbot_otel.pipeline.record import PermittedRecord  # noqa: E402 - as above
from tbot_otel.policy import Permitted, decide  # noqa: E402 - as above
from tbot_otel.session import Start  # noqa: E402 - as above

EVENT = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0", "tbot.join_type": "github"}
PROTOCOLS = ("http/protobuf", "grpc")
MAX_EXIT_RUNS = 5
MAX_LAUNCH_RUNS = 20
MAX_REPORT_RUNS = 15
PAUSE_SECONDS = 0.1
MEMORY_CHECK_SECONDS = 30.0
TIMEOUT_SECONDS = 60.0

BARE = ("-c", "pass")
COMMAND = str(Path(sysconfig.get_path("scripts")) / "tbot-otel")
START = str(HERE / "start.py")
PLAIN = str(HERE / "plain_sdk.py")
CALL = str(HERE / "call.py")
REPORT = str(HERE / "report.py")
# A tbot that reports its start and keeps running.
DAEMON = (AGENT_PATH, "--daemon", "--work", str(MEMORY_CHECK_SECONDS + 2))
IMPORT = ("-c", "import opentelemetry.exporter.otlp.proto.http._log_exporter")

HEAD = """\
# Benchmarks

What `python benchmarks/run.py --runs {runs}` printed, on {python} with opentelemetry-sdk {sdk} and
tbot-otel {ours}, {cores} cores ({machine}).

Each time and peak memory (resident set) is the median of the runs. Ours and theirs run by turns,
after equal pauses, with compiled bytecode. A ratio is that of the medians, and is compared with the
goal as shown. A call of `record_start` is timed in the caller's thread, the first with its imports.
Later calls happen while the first record is being sent.

| what | against | ours | theirs | ratio | middle half of the pairs | runs | goal | met | MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


class Sample(NamedTuple):
    """The time, the peak memory and the output of a process."""

    seconds: float
    mebibytes: float
    output: str


Sides = tuple[list[Sample], list[Sample]]


class Bench:
    """Runs the processes.

    Args:
        runs: The number of runs of each side of a row.
        healthy: A healthy Collector.
        folder: The folder for compiled bytecode and other files.
    """

    def __init__(self, runs: int, healthy: Official, folder: str) -> None:
        self.runs = runs
        self.healthy = healthy
        self.folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environ = {**kept, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}

    def compile(self) -> None:
        """Compile the modules that either side may import."""
        paths = sysconfig.get_paths()
        folders = {paths["stdlib"], paths["purelib"], paths["platlib"], str(ROOT / "src")}
        words = ["-m", "compileall", "-q", "-x", "/(test|tests|idlelib|lib2to3)/", *folders]
        # Neither side imports the files that do not compile, such as templates.
        subprocess.run([sys.executable, *words], env=self.environ, capture_output=True, check=False)

    def sample(self, *words: str, status: int = 0, environ: dict[str, str] | None = None) -> Sample:
        """Run this Python, and measure it.

        Args:
            words: The arguments of ``python``.
            status: The expected exit status.
            environ: Variables in addition to the minimal ones.
        """
        time.sleep(PAUSE_SECONDS)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "launch.py"), sys.executable, *words],
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        *lines, measurement = output.splitlines()
        seconds, memory, actual_status = measurement.split()
        if int(actual_status) != status:
            sys.exit(f"{' '.join(words)} exited with status {actual_status}: {errors}")
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return Sample(float(seconds), int(memory) / unit, "\n".join(lines))

    def by_turns(
        self,
        ours: tuple[str, ...],
        theirs: tuple[str, ...],
        *,
        status: int = 0,
        environ: dict[str, str] | None = None,
        max_runs: int | None = None,
    ) -> Sides:
        """Run ours and theirs by turns.

        Args:
            ours: The arguments of ``python`` to measure.
            theirs: The arguments to compare with.
            status: The expected exit status of ours; that of theirs is 0.
            environ: The variables of both.
            max_runs: The most runs, for long ones.
        """
        sides: Sides = ([], [])
        for _ in range(min(self.runs, max_runs or self.runs)):
            sides[0].append(self.sample(*ours, status=status, environ=environ))
            sides[1].append(self.sample(*theirs, environ=environ))
        return sides

    @contextlib.contextmanager
    def collector(self, state: str, protocol: str = "http/protobuf") -> Iterator[dict[str, str]]:
        """Variables that opt in and name a Collector in this state."""
        with contextlib.ExitStack() as stack:
            if state == "healthy":
                endpoint = self.healthy.endpoint(protocol)
            else:
                port = free_port() if state == "refused" else stack.enter_context(silent_port())
                endpoint = f"http://127.0.0.1:{port}"
            yield {
                "TELEPORT_ANONYMOUS_TELEMETRY": "1",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            }

    def count_received(self) -> int:
        """The number of starts that the healthy Collector has received."""
        found = map(str, self.healthy.resources())
        return sum(resource.count("tbot.start") for resource in found)


def row(
    what: str,
    against: str,
    sides: Sides,
    *,
    ratio: float | None = None,
    seconds: float | None = None,
    extra: float | None = None,
) -> str:
    """Return a row of the page.

    Args:
        what: The measurement.
        against: What it is compared with.
        sides: The samples of ours, and of theirs if there are any.
        ratio: The goal as a ratio to theirs.
        seconds: The goal as a time of ours.
        extra: The goal as a time in addition to theirs.
    """
    times = [statistics.median(sample.seconds for sample in side) for side in sides if side]
    memory = [statistics.median(sample.mebibytes for sample in side) for side in sides if side]
    shown = [_format_time(median) for median in times]
    ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(*sides, strict=False)]
    part = round(times[0] / times[1], 2) if ratios else None
    low, _, high = statistics.quantiles(ratios) if len(ratios) > 1 else (0.0, 0.0, 0.0)
    goal, met = "-", "-"
    if ratio is not None and part is not None:
        goal, met = f"<= {ratio}", "yes" if part <= ratio else "**no**"
    if seconds is not None:
        goal, met = f"<= {_format_time(seconds)}", "yes" if times[0] <= seconds else "**no**"
        shown[0] += f" (worst {_format_time(max(sides[0]).seconds)})"
    if extra is not None:
        goal, met = (
            f"<= + {_format_time(extra)}",
            "yes" if times[0] <= times[1] + extra else "**no**",
        )
    cells = (
        *(what, against, shown[0], shown[1] if sides[1] else "-"),
        *(("-", "-") if part is None else (f"{part:.2f}", f"{low:.2f} to {high:.2f}")),
        *(str(len(sides[0])), goal, met),
        " / ".join(f"{median:.1f}" for median in memory),
    )
    return f"| {' | '.join(cells)} |"


def _format_time(seconds: float) -> str:
    units = (("s", 1.0), ("ms", 1e3), ("µs", 1e6))
    unit, factor = next((pair for pair in units if seconds * pair[1] >= 1), units[-1])
    return f"{seconds * factor:.3g} {unit}"


def measure_no_consent(bench: Bench) -> Iterator[str]:
    """The cost without consent."""
    for what, words, status, goal in (
        ("`import tbot_otel`", ("-c", "import tbot_otel"), 0, 1.15),
        ("process with `record_start`, not opted in", (START,), 0, 2.0),
        ("`tbot-otel emit`, not opted in", (COMMAND, "emit"), 0, 3.0),
        ("`tbot-otel status`, not opted in", (COMMAND, "status"), 3, 3.0),
    ):
        sides = bench.by_turns(words, BARE, status=status)
        yield row(what, "bare interpreter", sides, ratio=goal)


def measure_calls(bench: Bench) -> Iterator[str]:
    """The time that `record_start` takes in its caller."""
    for state in ("healthy", "refused", "silent"):
        first, later, imported = [], [], []
        for _ in range(bench.runs):
            with bench.collector(state) as environ:
                sample = bench.sample(CALL, environ=environ)
            module, one, *others = map(float, sample.output.split())
            first.append(sample._replace(seconds=one))
            later += [sample._replace(seconds=other) for other in others]
            imported.append(sample._replace(seconds=module + one))
        what = f"call of `record_start`, Collector {state}"
        # Missed on Python 3.12, where the caller imports the SDK.
        yield row(f"{what}: the first", "-", (first, []), seconds=12e-3)
        yield row(f"{what}: a later one", "-", (later, []), seconds=1e-3)
        # No goal: the import statement is not part of the call.
        yield row(f"{what}: the first and its import statement", "-", (imported, []))


def measure_starts(bench: Bench) -> Iterator[str]:
    """A process that records one start with a healthy Collector."""
    for protocol in PROTOCOLS:
        before = bench.count_received()
        with bench.collector("healthy", protocol) as environ:
            sides = bench.by_turns((START,), (PLAIN, protocol), environ=environ)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while bench.count_received() < before + 2 * bench.runs:
            if time.monotonic() > deadline:
                sys.exit(f"{protocol}: the Collector did not receive every record")
            time.sleep(0.1)
        goal = {"http/protobuf": 0.8, "grpc": 1.0}[protocol]
        yield row(f"process with one start, {protocol}", "plain SDK", sides, ratio=goal)


def measure_exits(bench: Bench) -> Iterator[str]:
    """A process that records one start without a working Collector."""
    for state in ("refused", "silent"):
        for protocol in PROTOCOLS:
            with bench.collector(state, protocol) as environ:
                sides = bench.by_turns(
                    (START,), (PLAIN, protocol), environ=environ, max_runs=MAX_EXIT_RUNS
                )
            what = f"process with one start, {protocol}, Collector {state}"
            yield row(what, "plain SDK", sides, seconds=2.3)


def measure_launches(bench: Bench) -> Iterator[str]:
    """The cost of `tbot-otel run` for the start of a command."""
    words = (COMMAND, "run", "--", "true")
    sides = bench.by_turns(words, BARE)
    yield row("`tbot-otel run -- true`, not opted in", "bare interpreter", sides, ratio=1.15)
    for state in ("healthy", "refused", "silent"):
        with bench.collector(state) as environ:
            ours, theirs = [], []
            for _ in range(min(bench.runs, MAX_LAUNCH_RUNS)):
                ours.append(bench.sample(*words, environ=environ))
                # The forwarder's own work must not slow the other side.
                ended_at = time.monotonic()
                wait_for_no_forwarder()
                pause = time.monotonic() - ended_at
                theirs.append(bench.sample(*BARE, environ=environ))
                time.sleep(pause)
        what = f"`tbot-otel run -- true`, opted in, Collector {state}"
        yield row(what, "bare interpreter", (ours, theirs), ratio=1.35)


def measure_responses(bench: Bench) -> Iterator[str]:
    """The time until tbot gets its response."""
    permitted = decide("tbot.start", EVENT)
    assert isinstance(permitted, Permitted)  # noqa: S101 - for the type checker
    record = Path(bench.folder) / "record"
    record.write_bytes(encode_logs([PermittedRecord(permitted, Start())]).SerializeToString())
    port = str(bench.healthy.http_port)
    cold: list[Sample] = []
    imported: list[Sample] = []
    plain: list[Sample] = []
    warm: Sides = ([], [])
    command = (COMMAND, "run", "--", sys.executable, "-I", "-S", REPORT, port, str(record))
    for _ in range(min(bench.runs, MAX_REPORT_RUNS)):
        with bench.collector("healthy") as environ:
            sample = bench.sample(*command, environ=environ)
        *pairs, first = sample.output.splitlines()
        cold.append(sample._replace(seconds=float(first)))
        for pair in pairs:
            for side, seconds in zip(warm, pair.split(), strict=True):
                side.append(sample._replace(seconds=float(seconds)))
        wait_for_no_forwarder()
        with bench.collector("healthy") as environ:
            imported.append(bench.sample(*IMPORT, environ=environ))
            plain.append(bench.sample(PLAIN, "http/protobuf", environ=environ))
    what = "tbot's call to its response, forwarder"
    yield row(f"{what} just forked", "importing the OTLP exporter", (cold, imported))
    yield row(f"{what} just forked", "plain SDK, process with one start", (cold, plain), ratio=1.0)
    yield row(f"{what} ready", "Collector's own response to the record", warm, extra=3e-3)


def measure_memory_left(bench: Bench) -> Iterator[str]:
    """The memory that this package uses after a delivered report, while tbot still runs."""
    with bench.collector("healthy") as environ:
        process = subprocess.Popen(
            [COMMAND, "run", "--", sys.executable, *DAEMON],
            env={**bench.environ, **environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(MEMORY_CHECK_SECONDS)
        kibibytes = sum(forwarders().values())
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    if json.loads(output)["answer"] != "ok":
        sys.exit(f"the report was not delivered: {output}")
    met = "**no**" if kibibytes else "yes"
    what = f"memory in use {MEMORY_CHECK_SECONDS:.0f} s after a delivered report"
    yield f"| {what} | - | {kibibytes} KiB | - | - | 0 | {met} | - |"


def forwarders() -> dict[int, int]:
    """The forwarders on this machine: process ids and resident memory in KiB."""
    command = ["ps", "-A", "-o", "pid=,rss=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = (line.split(maxsplit=3) for line in lines if f"{COMMAND} run " in line)
    return {int(pid): int(memory) for pid, memory, *_ in found}


def wait_for_no_forwarder() -> None:
    """Wait until no forwarder runs."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while forwarders():
        if time.monotonic() > deadline:
            sys.exit("a forwarder does not exit")
        time.sleep(0.05)


BENCHMARKS = {
    "no-consent": measure_no_consent,
    "call": measure_calls,
    "start": measure_starts,
    "exit": measure_exits,
    "run": measure_launches,
    "response": measure_responses,
    "memory-left": measure_memory_left,
}


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--runs", type=int, default=40, help=f"runs of each side (exits: at most {MAX_EXIT_RUNS})"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(unknown)}")
    if options.runs < 1:
        parser.error("--runs: expected 1 or more")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.ExitStack() as stack:
            official = stack.enter_context(Official(build_official(), folder).running())
            bench = Bench(options.runs, official, temporary)
            bench.compile()
            head = HEAD.format(
                runs=options.runs,
                python=f"{platform.python_implementation()} {platform.python_version()}",
                sdk=metadata.version("opentelemetry-sdk"),
                ours=metadata.version("tbot-otel"),
                cores=os.cpu_count(),
                machine=f"{platform.system()}, {platform.machine()}",
            )
            print(head, flush=True)
            for name in options.names or BENCHMARKS:
                for line in BENCHMARKS[name](bench):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
