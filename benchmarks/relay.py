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
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.agent import build_request  # noqa: E402 - found by the line above
from support.collectors import Official, build_official  # noqa: E402 - as above
from support.processes import free_port, running_server  # noqa: E402 - as above
from tbot_otel.connect import PATH, Report  # noqa: E402 - as above
from tbot_otel.policy import Permitted, decide  # noqa: E402 - as above
from tbot_otel.relay.batch import ReportBatch  # noqa: E402 - as above

EVENT = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0", "tbot.join_type": "github"}
RUN_SECONDS = 4
WORKERS = 2
# Clients with a fixed rate would otherwise all call at the same moment.
SECONDS_BETWEEN_CLIENTS = 0.007
CLIENTS = 256
RATES = (3_000, 4_000)
SESSION = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"

POSTS = "the Collector's own, single-record posts"
EMPTY = "an empty handler"
PLAIN = "a plain relay"
OVERLOAD_SECONDS = 10
OVERLOAD_RATES = (6_000, 16_000)

HEAD = """\
What `python benchmarks/relay.py` printed, on {python}, {cores} cores ({machine}) that the
client, the relays ({workers} workers each) and the Collector (with its file exporter) share. A
value is a median, and a ratio the median of those of {runs} pairs, with the lowest and the highest
one; the sides take turns, and a run of a rate takes {seconds} s. {empty} is the official Connect
runtime on the same server, and exports nothing; {plain} also exports batches of the SDK's records,
and acknowledges after the export. Load at the beginning: {load:.1f}.

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
        self.p50, self.p99 = (
            times[int(len(times) * share)] if times else float("inf") for share in (0.5, 0.99)
        )


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


def row(
    what: str, against: str, pairs: list[tuple[float, float]], form: str, goal: str = "-"
) -> str:
    """A row of the page, from pairs of our value and the other one."""
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ratio = statistics.median(ratios)
    met = "-"
    if goal != "-":
        limit = float(goal.split()[1])
        is_met = ratio >= limit if goal.startswith(">=") else ratio <= limit
        met = "yes" if is_met else "**no**"
    values = (form.format(statistics.median(side)) for side in zip(*pairs, strict=True))
    spread = f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"| {' | '.join((what, against, *values, spread, goal, met))} |"


def rows(folder: Path, endpoint: str, runs: int) -> Iterator[str]:
    """Measure, and yield the rows of the page."""
    call, record = folder / "call", folder / "record"
    call.write_bytes(build_request(SESSION, oneshot=False))
    record.write_bytes(single_record())
    with (
        relay("ours", folder) as (url, pid),
        relay("empty", folder) as (empty, empty_pid),
        relay("plain", folder) as (plain, plain_pid),
    ):
        relays = {url: pid, empty: empty_pid, plain: plain_pid}

        def load(to: str, clients: int, rate: int = 0, apart: float = 0) -> Load:
            return Load(to, call, "application/proto", clients=clients, rate=rate, apart=apart)

        def post(clients: int, rate: int = 0, apart: float = 0) -> Load:
            kind = "application/x-protobuf"
            return Load(
                f"{endpoint}/v1/logs", record, kind, clients=clients, rate=rate, apart=apart
            )

        def measure_cost(to: str, clients: int) -> tuple[float, float]:
            before = seconds_of(processes(relays[to]))
            rate = load(to, clients).rate
            used = seconds_of(processes(relays[to])) - before
            return rate, used / (rate * RUN_SECONDS) * 1e6

        for to in relays:
            load(to, 32)
        for clients, least, most in ((32, "-", "<= 1.6"), (CLIENTS, ">= 0.4", "-")):
            samples = []
            for _ in range(runs):
                ours, handler, other = (measure_cost(to, clients) for to in relays)
                samples.append((ours, handler, other, post(clients).rate))
            what = f"acknowledged starts a second, {clients} clients"
            yield row(what, POSTS, [(o[0], p) for o, *_, p in samples], "{:,.0f}", least)
            yield row(what, PLAIN, [(o[0], p[0]) for o, _, p, _ in samples], "{:,.0f}")
            what = f"processor time of a start, {clients} clients"
            yield row(what, EMPTY, [(o[1], e[1]) for o, e, *_ in samples], "{:.0f} µs", most)
            yield row(what, PLAIN, [(o[1], p[1]) for o, _, p, _ in samples], "{:.0f} µs")
        for rate in RATES:
            sides = [
                (
                    load(url, CLIENTS, rate, SECONDS_BETWEEN_CLIENTS),
                    load(empty, CLIENTS, rate, SECONDS_BETWEEN_CLIENTS),
                    post(CLIENTS, rate, SECONDS_BETWEEN_CLIENTS),
                )
                for _ in range(runs + 2)
            ]
            against = f"{EMPTY} and two of {POSTS}"
            for name, goal in (("p99", "<= 1.5"), ("p50", "-")):
                pairs = [
                    (getattr(o, name) * 1e3, (getattr(e, name) + 2 * getattr(p, name)) * 1e3)
                    for o, e, p in sides
                ]
                what = f"{name} at {rate:,} calls a second, {CLIENTS} clients"
                yield row(what, against, pairs, "{:.1f} ms", goal)
        peaks = (peak_of(processes(pid)), peak_of(processes(empty_pid)))
        yield row("peak memory of a worker", EMPTY, [peaks], "{:.0f} MiB", "<= 2")
        for rate in OVERLOAD_RATES:
            shares: list[Any] = [
                tuple(
                    Burst(to, call, "application/proto", rate, OVERLOAD_SECONDS).share * 100
                    for to in (url, empty)
                )
                for _ in range(runs)
            ]
            what = f"acknowledged share of {rate:,} calls a second, a connection each"
            yield row(what, EMPTY, shares, "{:.1f}%", ">= 0.95")


def single_record() -> bytes:
    """The Collector's request with one record."""
    permitted = decide("tbot.start", EVENT)
    assert isinstance(permitted, Permitted)  # noqa: S101 - it is valid
    batch = ReportBatch([Report(SESSION, time.time_ns(), permitted)])
    return batch.encode().SerializeToString()


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=5, help="pairs of a row; two more for a percentile"
    )
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
                    empty=EMPTY.capitalize(),
                    plain=PLAIN,
                    load=os.getloadavg()[0],
                ),
                flush=True,
            )
            for line in rows(folder, endpoint, runs):
                print(line, flush=True)
            print(f"\nLoad at the end: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
