"""Measures the relay against the Collector, a plain relay and an empty one, and prints a page.

It needs Linux, for ``/proc``, and h2load (nghttp2, https://nghttp2.org; Debian's package
nghttp2-client), the client of every row. Relay, Collector and client share the same cores.
"""

import argparse
import contextlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.agent import build_request  # noqa: E402 - found by the line above
from support.collectors import Official, build_official  # noqa: E402 - as above
from support.processes import free_port, running_server  # noqa: E402 - as above
from tbot_otel.connect import PATH  # noqa: E402 - as above
from tbot_otel.pipeline.record import PermittedRecord  # noqa: E402 - as above
from tbot_otel.policy import Permitted, decide  # noqa: E402 - as above
from tbot_otel.session import Start  # noqa: E402 - as above

EVENT = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0", "tbot.join_type": "github"}
RUN_SECONDS = 4
WORKERS = 2
CLIENT_COUNTS = (32, 256, 2048)
# Clients with a fixed rate would otherwise all call at the same moment.
SECONDS_BETWEEN_CLIENTS = 0.007
SESSION = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"

POSTS = "the Collector's own, single-record posts"
OVERLOAD_SECONDS = 10
OVERLOAD_RATES = (6_000, 16_000)

HEAD = """\
# Benchmarks of the relay

What `python benchmarks/relay.py` printed, on {python}, {cores} cores ({machine}) that the
client, the relay ({workers} workers) and the Collector (with its file exporter) share. A value is
the median of {runs} runs, with the sides by turns; a run of a rate takes {seconds} s. The empty
handler is the official Connect runtime on the same server, and exports nothing.

| what | against | ours | theirs | ratio | goal | met |
| --- | --- | --- | --- | --- | --- | --- |"""


class Load:
    """A run of h2load.

    Args:
        url: The URL to call.
        body: The file with the body of a call.
        content_type: Its content type.
        clients: The number of clients.
        rate: The calls per second; 0 for as many as possible.
        apart: The seconds between the starts of two clients.
    """

    def __init__(
        self,
        url: str,
        body: Path,
        content_type: str,
        *,
        clients: int,
        rate: int = 0,
        apart: float = 0,
    ) -> None:
        log = body.with_suffix(".log")
        words = ["h2load", "--h1", f"-c{clients}", f"--data={body}"]
        words += [f"--header=content-type: {content_type}", f"--log-file={log}"]
        if rate:
            words.append(f"--rps={rate / clients}")
        if apart:
            words += ["--rate=1", f"--rate-period={apart * 1e3:.0f}ms", f"-n{rate * RUN_SECONDS}"]
        else:
            words.append(f"-D{RUN_SECONDS}")
        log.unlink(missing_ok=True)
        done = subprocess.run([*words, url], capture_output=True, text=True, check=True)
        (succeeded,) = re.findall(r"status codes: (\d+) 2xx", done.stdout)
        self.rate = int(succeeded) / RUN_SECONDS
        self.failed = sum(map(int, re.findall(r"(\d+) [345]xx", done.stdout)))
        lines = [[*map(int, line.split())] for line in log.read_text().splitlines()]
        first = min(line[0] for line in lines)
        # The microseconds in which every client calls.
        window = range(first + int(clients * apart * 1e6), first + RUN_SECONDS * 10**6)
        times = sorted(took / 1e6 for at, status, took in lines if status == 200 and at in window)
        self.p99 = times[int(len(times) * 0.99)] if times else float("inf")


class Burst:
    """A run of h2load in which each call has its own connection, at a fixed rate.

    Args:
        url: The URL to call.
        body: The file with the body of a call.
        content_type: Its content type.
        rate: The calls per second.
        seconds: The length of the run.
    """

    def __init__(self, url: str, body: Path, content_type: str, rate: int, seconds: int) -> None:
        calls = rate * seconds
        log = body.with_suffix(".log")
        log.unlink(missing_ok=True)
        words = ["h2load", "--h1", f"-c{calls}", f"-n{calls}", f"--rate={rate}"]
        # As long as tbot waits.
        words += ["--connection-active-timeout=10", f"--data={body}", f"--log-file={log}"]
        words += [f"--header=content-type: {content_type}", url]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        (succeeded,) = re.findall(r"status codes: (\d+) 2xx", done.stdout)
        ((duration, unit),) = re.findall(r"finished in ([\d.]+)(m?s)", done.stdout)
        self.share = int(succeeded) / calls
        self.rate = int(succeeded) / (float(duration) / (1000 if unit == "ms" else 1))
        lines = (line.split() for line in log.read_text().splitlines())
        times = sorted(int(line[2]) / 1e6 for line in lines if line[1] == "200")
        self.p99 = times[int(len(times) * 0.99)] if times else float("inf")


def processes(parent: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def seconds_of(pids: list[int]) -> float:
    """The processor time that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_of(pids: list[int]) -> float:
    """The highest peak memory of processes, in MiB."""
    peaks = [
        int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
        for pid in pids
    ]
    return max(peaks) / 2**10


@contextlib.contextmanager
def relay(name: str, folder: Path, workers: int = WORKERS) -> Iterator[tuple[str, int]]:
    """Run a relay until the block ends. Yields its URL and process id."""
    port = free_port()
    if name == "ours":
        words = ["-m", "tbot_otel", "relay", f"--listen=127.0.0.1:{port}", f"--workers={workers}"]
    else:
        words = ["-m", "granian", "--interface=asgi", "--loop=uvloop", "--no-ws", f"--port={port}"]
        # As many connections as ours accepts.
        words += ["--backlog=4096", "--backpressure=8192"]
        words += [f"--workers={workers}", f"{name}_relay:application"]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with running_server(
        [sys.executable, *words], folder / f"{name}-{workers}.log", port
    ) as process:
        time.sleep(2)
        yield f"http://127.0.0.1:{port}{PATH}", process.pid


def row(*cells: object) -> str:
    """A row of the page."""
    return f"| {' | '.join(map(str, cells))} |"


def verdict(met: bool) -> str:
    """The cell that says whether a goal is met."""
    return "yes" if met else "**no**"


def rows(folder: Path, endpoint: str, runs: int) -> Iterator[str]:
    """Measure, and yield the rows of the page."""
    call, record = folder / "call", folder / "record"
    call.write_bytes(build_request(SESSION, oneshot=False).to_binary())
    permitted = decide("tbot.start", EVENT)
    assert isinstance(permitted, Permitted)  # noqa: S101 - for the type checker
    batch = [PermittedRecord(permitted, Start(SESSION))]
    record.write_bytes(encode_logs(batch).SerializeToString())

    def direct(clients: int) -> Load:
        return Load(f"{endpoint}/v1/logs", record, "application/x-protobuf", clients=clients)

    with (
        relay("ours", folder) as (url, pid),
        relay("empty", folder) as (empty, empty_pid),
        relay("plain", folder) as (plain, _),
        relay("plain", folder, 1) as (single, _),
    ):

        def load_relay(to: str, clients: int, rate: int = 0, apart: float = 0) -> Load:
            return Load(to, call, "application/proto", clients=clients, rate=rate, apart=apart)

        def measure_cost(to: str, parent: int, clients: int) -> tuple[float, float]:
            before = seconds_of(processes(parent))
            rate = load_relay(to, clients).rate
            return rate, (seconds_of(processes(parent)) - before) / (rate * RUN_SECONDS)

        load_relay(url, 32)
        rates: dict[int, dict[str, float]] = {}
        costs: dict[int, tuple[float, float]] = {}
        for clients in CLIENT_COUNTS:
            samples: dict[str, list[float]] = {"ours": [], "direct": [], "plain": [], "single": []}
            used: list[tuple[float, float]] = []
            for _ in range(runs):
                acknowledged, cost = measure_cost(url, pid, clients)
                used.append((cost, measure_cost(empty, empty_pid, clients)[1]))
                samples["ours"].append(acknowledged)
                samples["direct"].append(direct(clients).rate)
                samples["plain"].append(load_relay(plain, clients).rate)
                samples["single"].append(load_relay(single, clients).rate)
            rates[clients] = {name: statistics.median(values) for name, values in samples.items()}
            costs[clients] = (
                statistics.median(ours for ours, _ in used),
                statistics.median(theirs for _, theirs in used),
            )
        best = max(rates, key=lambda clients: rates[clients]["ours"])
        for side, against, goal in (
            ("direct", POSTS, 0.4),
            ("plain", "a plain relay, as many workers", 10),
            ("single", "a plain relay, one worker", 0),
        ):
            for clients, rate in rates.items():
                ratio = rate["ours"] / rate[side]
                has_goal = goal and clients == best
                goal_cells = (f">= {goal}", verdict(ratio >= goal)) if has_goal else ("-", "-")
                yield row(
                    f"acknowledged starts a second, {clients:,} clients",
                    *(against, f"{rate['ours']:,.0f}", f"{rate[side]:,.0f}", f"{ratio:.2f}"),
                    *goal_cells,
                )
        for clients, (cost, theirs) in costs.items():
            has_goal = clients == CLIENT_COUNTS[0]
            goal_cells = ("<= 1.7", verdict(cost <= 1.7 * theirs)) if has_goal else ("-", "-")
            yield row(
                f"processor time of a start, {clients:,} clients",
                *("an empty handler", f"{cost * 1e6:.0f} µs", f"{theirs * 1e6:.0f} µs"),
                *(f"{cost / theirs:.2f}", *goal_cells),
            )
        half = int(rates[best]["ours"] / 2)
        for apart, what, has_goal in (
            (SECONDS_BETWEEN_CLIENTS, "p99 at half of our highest rate, 256 clients", True),
            (0, "the same, and the 256 call at the same moment", False),
        ):
            pairs = [
                [load_relay(to, 256, half, apart).p99 for to in (url, empty)] for _ in range(runs)
            ]
            seconds, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            goal_cells = ("<= 1.2", verdict(seconds <= 1.2 * theirs)) if has_goal else ("-", "-")
            yield row(
                what,
                *("an empty handler", f"{seconds * 1e3:.1f} ms", f"{theirs * 1e3:.1f} ms"),
                *(f"{seconds / theirs:.2f}", *goal_cells),
            )
        peak, empty_peak = (peak_of(processes(parent)) for parent in (pid, empty_pid))
        cells = (f"{peak:.0f} MiB", f"{empty_peak:.0f} MiB", f"{peak / empty_peak:.2f}")
        what = f"peak memory of a worker, {CLIENT_COUNTS[-1]:,} clients"
        yield row(what, "an empty handler", *cells, "<= 2", verdict(peak <= 2 * empty_peak))
        sides = {
            "ours": (url, call, "application/proto"),
            "an empty handler": (empty, call, "application/proto"),
            POSTS: (f"{endpoint}/v1/logs", record, "application/x-protobuf"),
        }
        yield from overload_rows(sides, runs)


def overload_rows(sides: dict[str, tuple[str, Path, str]], runs: int) -> Iterator[str]:
    """Measure calls that have a connection each, and yield the rows of the page."""
    for rate in OVERLOAD_RATES:
        samples: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(runs):
            for name, call in sides.items():
                samples[name].append(Burst(*call, rate, OVERLOAD_SECONDS).share)
        shares = {name: statistics.median(values) for name, values in samples.items()}
        ours = shares.pop("ours")
        for against, share in shares.items():
            goal_cells = (
                (">= 0.9", verdict(ours >= 0.9 * share)) if against != POSTS else ("-", "-")
            )
            yield row(
                f"acknowledged share of {rate:,} calls a second, a connection each",
                *(against, f"{ours:.1%}", f"{share:.1%}", f"{ours / share:.2f}", *goal_cells),
            )


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with Official(build_official(), folder).running() as collector:
            endpoint = collector.endpoint("http/protobuf")
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
            python = f"{platform.python_implementation()} {platform.python_version()}"
            machine = f"{platform.system()}, {platform.machine()}"
            print(
                HEAD.format(
                    python=python,
                    cores=os.cpu_count(),
                    machine=machine,
                    workers=WORKERS,
                    runs=runs,
                    seconds=RUN_SECONDS,
                ),
                flush=True,
            )
            for line in rows(folder, endpoint, runs):
                print(line, flush=True)


if __name__ == "__main__":
    main()
