"""Measures this package against the bare interpreter and the plain SDK, and prints a page.

Every figure is of a process of its own, both sides of a row by turns, with compiled bytecode, in an
environment that holds nothing but what the row is about.
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
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

from collectors import (  # noqa: E402 - found by the line above
    Official,
    Rotel,
    build_official,
    free_port,
    silent,
)
from tbot_otel import (  # noqa: E402 - as above
    ExporterConfigurationError,
    Session,
    StartEvent,
    destination,
)
from tbot_otel.record import of_start, readable  # noqa: E402 - as above

PROTOCOLS = ("http/protobuf", "grpc")
# Where its exporter is installed; rotel refuses it.
JSON = "http/json"
MOST_EXITS = 5
MOST_LAUNCHES = 20
MOST_REPORTS = 10
GONE_AFTER = 30.0
PATIENCE = 60.0

BARE = ("-c", "pass")
COMMAND = str(Path(sysconfig.get_path("scripts")) / "tbot-otel")
START = str(HERE / "start.py")
PLAIN = str(HERE / "plain_sdk.py")
CALL = str(HERE / "call.py")
BATCH = str(HERE / "batch.py")
REPORT = str(HERE / "report.py")
# A tbot that stays, and reports by the one address.
DAEMON = (str(ROOT / "tests" / "agent.py"), "--daemon", "--work", str(GONE_AFTER + 2))
IMPORT = ("-c", "import opentelemetry.exporter.otlp.proto.http._log_exporter")

HEAD = """\
# Benchmarks

What `python benchmarks/run.py --runs {runs}` printed, on {python} with opentelemetry-sdk {sdk} and
tbot-otel {ours}, {cores} cores ({machine}).

Every time and peak memory (the resident set) is the median of many processes, ours and theirs by
turns, with compiled bytecode. A ratio is ours to theirs, the median of the pairs', and judged as it
is shown. A call of `record_start` is timed on top of `import opentelemetry.sdk._logs`, in the
caller's thread; a later call is made while the first one's record is under way.

| what | against | ours | theirs | ratio | goal | met | peak memory in MiB, ours / theirs |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


class Sample(NamedTuple):
    """What a process took, and what it printed."""

    seconds: float
    mebibytes: float
    output: str


Sides = tuple[list[Sample], list[Sample]]


class Bench:
    """Runs what is measured.

    Args:
        runs: How often each side of a row runs.
        healthy: A healthy Collector for each protocol.
        folder: The folder for compiled bytecode, and what else is written.
    """

    def __init__(self, runs: int, healthy: dict[str, Rotel | Official], folder: str) -> None:
        self.runs = runs
        self.healthy = healthy
        self.folder = folder
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.environ = {**kept, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}

    def compile(self) -> None:
        """Compile what either side may import."""
        paths = sysconfig.get_paths()
        folders = {paths["stdlib"], paths["purelib"], paths["platlib"], str(ROOT / "src")}
        words = ["-m", "compileall", "-q", "-x", "/(test|tests|idlelib|lib2to3)/", *folders]
        # What does not compile is imported by neither side: templates, other Pythons' files.
        subprocess.run([sys.executable, *words], env=self.environ, capture_output=True, check=False)

    def sample(self, *words: str, status: int = 0, environ: dict[str, str] | None = None) -> Sample:
        """Run this Python with words behind it.

        Args:
            words: The words behind ``python``.
            status: The status that it must end with.
            environ: The variables, beside those that it cannot do without.
        """
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
            output, errors = process.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        *printed, measured = output.splitlines()
        seconds, memory, ended = measured.split()
        if int(ended) != status:
            sys.exit(f"{' '.join(words)} ended with status {ended}: {errors}")
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return Sample(float(seconds), int(memory) / unit, "\n".join(printed))

    def by_turns(
        self,
        ours: tuple[str, ...],
        theirs: tuple[str, ...],
        *,
        status: int = 0,
        environ: dict[str, str] | None = None,
        most: int | None = None,
    ) -> Sides:
        """Run ours and theirs, again and again.

        Args:
            ours: The words behind ``python`` that are measured.
            theirs: The words that they are measured against.
            status: The status that ours must end with; theirs must end with 0.
            environ: The variables of both.
            most: The most runs, where they are long.
        """
        sides: Sides = ([], [])
        for _ in range(min(self.runs, most or self.runs)):
            sides[0].append(self.sample(*ours, status=status, environ=environ))
            sides[1].append(self.sample(*theirs, environ=environ))
        return sides

    @contextlib.contextmanager
    def collector(self, state: str, protocol: str = "http/protobuf") -> Iterator[dict[str, str]]:
        """The variables of an opt-in that sends to a Collector in a state."""
        with contextlib.ExitStack() as stack:
            if state == "healthy":
                endpoint = self.healthy[protocol].endpoint(protocol)
            else:
                port = free_port() if state == "refused" else stack.enter_context(silent())
                endpoint = f"http://127.0.0.1:{port}"
            yield {
                "TELEPORT_ANONYMOUS_TELEMETRY": "1",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            }

    def received(self, protocol: str) -> int:
        """How many starts the healthy Collector has received."""
        found = map(str, self.healthy[protocol].resources())
        return sum(resource.count("tbot.start") for resource in found)


def row(
    what: str,
    against: str,
    sides: Sides,
    *,
    ratio: float | None = None,
    seconds: float | None = None,
    more: float | None = None,
) -> str:
    """Return a row of the page.

    Args:
        what: What is measured.
        against: What it is measured against.
        sides: The samples of ours, and of theirs if there are any.
        ratio: The goal, as a part of theirs.
        seconds: The goal, as a time of ours.
        more: The goal, as a time on top of theirs.
    """
    times = [statistics.median(sample.seconds for sample in side) for side in sides if side]
    memory = [statistics.median(sample.mebibytes for sample in side) for side in sides if side]
    shown = [_time(median) for median in times]
    # By pairs, as what else the machine does drifts.
    ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(*sides, strict=False)]
    part = round(statistics.median(ratios), 2) if ratios else None
    goal, met = "-", "-"
    if ratio is not None and part is not None:
        goal, met = f"<= {ratio}", "yes" if part <= ratio else "**no**"
    if seconds is not None:
        goal, met = f"<= {_time(seconds)}", "yes" if times[0] <= seconds else "**no**"
        shown[0] += f" (worst {_time(max(sides[0]).seconds)})"
    if more is not None:
        goal, met = f"<= + {_time(more)}", "yes" if times[0] <= times[1] + more else "**no**"
    cells = (
        *(what, against, shown[0], shown[1] if sides[1] else "-"),
        *("-" if part is None else f"{part:.2f}", goal, met),
        " / ".join(f"{median:.1f}" for median in memory),
    )
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    units = (("s", 1.0), ("ms", 1e3), ("µs", 1e6))
    unit, factor = next((pair for pair in units if seconds * pair[1] >= 1), units[-1])
    return f"{seconds * factor:.3g} {unit}"


def silence(bench: Bench) -> Iterator[str]:
    """What there is without consent: next to nothing."""
    for what, words, status, goal in (
        ("`import tbot_otel`", ("-c", "import tbot_otel"), 0, 1.15),
        ("process with `record_start`, not opted in", (START,), 0, 2.0),
        ("`tbot-otel emit`, not opted in", (COMMAND, "emit"), 0, 3.0),
        ("`tbot-otel status`, not opted in", (COMMAND, "status"), 3, 3.0),
    ):
        sides = bench.by_turns(words, BARE, status=status)
        yield row(what, "bare interpreter", sides, ratio=goal)


def call(bench: Bench) -> Iterator[str]:
    """What `record_start` takes of its caller's time."""
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
        yield row(f"{what}: the first", "-", (first, []), seconds=1e-3)
        yield row(f"{what}: a later one", "-", (later, []), seconds=1e-3)
        # An import statement is no call, so there is no goal.
        yield row(f"{what}: the first and its import statement", "-", (imported, []))


def start(bench: Bench) -> Iterator[str]:
    """A process that records one start, and the Collector receives it."""
    for protocol in bench.healthy:
        before = bench.received(protocol)
        with bench.collector("healthy", protocol) as environ:
            sides = bench.by_turns((START,), (PLAIN, protocol), environ=environ)
        deadline = time.monotonic() + PATIENCE
        while bench.received(protocol) < before + 2 * bench.runs:
            if time.monotonic() > deadline:
                sys.exit(f"{protocol}: the Collector has not received every record")
            time.sleep(0.1)
        yield row(f"process with one start, {protocol}", "plain SDK", sides, ratio=1.0)


def leave(bench: Bench) -> Iterator[str]:
    """A process that records one start, and no Collector receives it."""
    for state in ("refused", "silent"):
        for protocol in PROTOCOLS:
            with bench.collector(state, protocol) as environ:
                sides = bench.by_turns(
                    (START,), (PLAIN, protocol), environ=environ, most=MOST_EXITS
                )
            what = f"process with one start, {protocol}, Collector {state}"
            yield row(what, "plain SDK", sides, seconds=2.3)


def batch(bench: Bench) -> Iterator[str]:
    """What the exporter itself does to a record."""
    # A process mostly is one start: a batch of many sessions is here to know, and has no goal.
    for sessions, of, goal in (
        ("one", "the process's own session", 0.5),
        ("many", "as many sessions", None),
    ):
        ours, theirs = bench.by_turns(
            (BATCH, "ours", sessions),
            (BATCH, "theirs", sessions),
            environ={"TELEPORT_ANONYMOUS_TELEMETRY": "1"},
        )
        for side in (ours, theirs):
            side[:] = [sample._replace(seconds=float(sample.output)) for sample in side]
        what = f"exporter's own work, a record of 512 of {of}"
        yield row(what, "OTLP encoding of the batch as received", (ours, theirs), ratio=goal)


def launch(bench: Bench) -> Iterator[str]:
    """What `tbot-otel run` adds to the start of a command."""
    words = (COMMAND, "run", "--", "true")
    sides = bench.by_turns(words, BARE)
    yield row("`tbot-otel run -- true`, not opted in", "bare interpreter", sides, ratio=1.3)
    for state in ("healthy", "refused", "silent"):
        with bench.collector(state) as environ:
            ours, theirs = [], []
            for _ in range(min(bench.runs, MOST_LAUNCHES)):
                ours.append(bench.sample(*words, environ=environ))
                # What the forwarder does meanwhile is in neither side.
                wait_until(lambda: not forwarders())
                theirs.append(bench.sample(*BARE, environ=environ))
        what = f"`tbot-otel run -- true`, opted in, Collector {state}"
        yield row(what, "bare interpreter", (ours, theirs), ratio=1.6)


def answer(bench: Bench) -> Iterator[str]:
    """How long tbot waits for its answer."""
    session = Session.reported("0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20", time.time_ns())
    event = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")
    record = Path(bench.folder) / "record"
    record.write_bytes(encode_logs([readable(of_start(event, session))]).SerializeToString())
    port = str(bench.healthy["http/protobuf"].http_port)
    cold: list[Sample] = []
    imported: list[Sample] = []
    plain: list[Sample] = []
    warm: Sides = ([], [])
    command = (COMMAND, "run", "--", sys.executable, "-I", "-S", REPORT, port, str(record))
    for _ in range(min(bench.runs, MOST_REPORTS)):
        with bench.collector("healthy") as environ:
            sample = bench.sample(*command, environ=environ)
        *pairs, first = sample.output.splitlines()
        cold.append(sample._replace(seconds=float(first)))
        for pair in pairs:
            for side, seconds in zip(warm, pair.split(), strict=True):
                side.append(sample._replace(seconds=float(seconds)))
        wait_until(lambda: not forwarders())
        with bench.collector("healthy") as environ:
            imported.append(bench.sample(*IMPORT, environ=environ))
            plain.append(bench.sample(PLAIN, "http/protobuf", environ=environ))
    what = "tbot's call to its answer, forwarder"
    # The exporter imports its HTTP client when it is made, and so not on the other side.
    yield row(f"{what} just forked", "importing the OTLP exporter", (cold, imported), ratio=1.5)
    yield row(f"{what} just forked", "plain SDK, process with one start", (cold, plain))
    yield row(f"{what} ready", "Collector's own answer to the record", warm, more=5e-3)


def gone(bench: Bench) -> Iterator[str]:
    """What is left of us when a report is delivered and tbot goes on."""
    with bench.collector("healthy") as environ:
        process = subprocess.Popen(
            [COMMAND, "run", "--", sys.executable, *DAEMON],
            env={**bench.environ, **environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(GONE_AFTER)
        left = sum(forwarders().values())
        output, _ = process.communicate(timeout=PATIENCE)
    if json.loads(output)["answer"] != "ok":
        sys.exit(f"the report was not delivered: {output}")
    met = "**no**" if left else "yes"
    what = f"memory of ours {GONE_AFTER:.0f} s after a delivered report"
    yield f"| {what} | - | {left} KiB | - | - | 0 | {met} | - |"


def forwarders() -> dict[int, int]:
    """The forwarders on this machine: process id and resident memory in KiB."""
    command = ["ps", "-A", "-o", "pid=,rss=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = (line.split(maxsplit=3) for line in lines if f"{COMMAND} run " in line)
    return {int(pid): int(memory) for pid, memory, *_ in found}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("a forwarder does not leave")
        time.sleep(0.05)


BENCHMARKS = {
    "silence": silence,
    "call": call,
    "start": start,
    "exit": leave,
    "batch": batch,
    "run": launch,
    "answer": answer,
    "gone": gone,
}


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--runs", type=int, default=40, help=f"runs of each side (exits: at most {MOST_EXITS})"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(unknown)}")
    if options.runs < 1:
        parser.error("--runs: expected 1 or more")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.ExitStack() as stack:
            rotel = stack.enter_context(Rotel(folder).running())
            healthy: dict[str, Rotel | Official] = dict.fromkeys(PROTOCOLS, rotel)
            with contextlib.suppress(ExporterConfigurationError):
                destination.check(JSON)
                official = Official(build_official(), folder)
                healthy[JSON] = stack.enter_context(official.running())
            bench = Bench(options.runs, healthy, temporary)
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
