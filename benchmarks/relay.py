"""Measures the relay against the Collector, a plain relay and an empty one, and prints a page.

It needs h2load (nghttp2, https://nghttp2.org; Debian's package nghttp2-client), which is the client
of every row, and Linux, whose ``/proc`` tells what processes took. Relay, Collector and client
share the same cores.
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

from agent import request  # noqa: E402 - found by the line above
from collectors import Official, build_official, free_port, running  # noqa: E402 - as above
from tbot_otel import Session, StartEvent  # noqa: E402 - as above
from tbot_otel.connect import PATH  # noqa: E402 - as above
from tbot_otel.record import of_start, readable  # noqa: E402 - as above

SECONDS = 4
WORKERS = 2
CLIENTS = (32, 256, 2048)
# So that the calls of clients that each call at a fixed rate are spread, and not all at once.
APART = 0.007
SESSION = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"

HEAD = """\
# Benchmarks of the relay

What `python benchmarks/relay.py` printed, on {python}, {cores} cores ({machine}), which the
client, the relay ({workers} workers) and the Collector share. A rate is the median of {runs} runs
of {seconds} s, the sides by turns; a goal is for the number of clients with our highest rate.

| what | against | ours | theirs | ratio | goal | met |
| --- | --- | --- | --- | --- | --- | --- |"""


class Load:
    """What h2load saw.

    Args:
        rate: The calls a second, if not as many as there can be.
        apart: The seconds between the first calls of two clients.
    """

    def __init__(
        self, url: str, body: Path, kind: str, *, clients: int, rate: int = 0, apart: float = 0
    ) -> None:
        log = body.with_suffix(".log")
        words = ["h2load", "--h1", f"-c{clients}", f"--data={body}"]
        words += [f"--header=content-type: {kind}", f"--log-file={log}"]
        if rate:
            words.append(f"--rps={rate / clients}")
        if apart:
            words += ["--rate=1", f"--rate-period={apart * 1e3:.0f}ms", f"-n{rate * SECONDS}"]
        else:
            words.append(f"-D{SECONDS}")
        log.unlink(missing_ok=True)
        done = subprocess.run([*words, url], capture_output=True, text=True, check=True)
        (taken,) = re.findall(r"status codes: (\d+) 2xx", done.stdout)
        self.rate = int(taken) / SECONDS
        self.failed = sum(map(int, re.findall(r"(\d+) [345]xx", done.stdout)))
        lines = [[*map(int, line.split())] for line in log.read_text().splitlines()]
        first = min(line[0] for line in lines)
        # While every client calls, in microseconds.
        window = range(first + int(clients * apart * 1e6), first + SECONDS * 10**6)
        times = sorted(took / 1e6 for at, status, took in lines if status == 200 and at in window)
        self.p99 = times[int(len(times) * 0.99)] if times else float("inf")


def processes(parent: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def seconds_of(pids: list[int]) -> float:
    """The processor time that processes have taken."""
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
    """Run a relay: its URL and process id."""
    port = free_port()
    if name == "ours":
        words = ["-m", "tbot_otel", "relay", f"--listen=127.0.0.1:{port}", f"--workers={workers}"]
    else:
        words = ["-m", "granian", "--interface=asgi", "--loop=uvloop", "--no-ws", f"--port={port}"]
        # As many connections as ours takes.
        words += ["--backlog=4096", "--backpressure=8192"]
        words += [f"--workers={workers}", f"{name}_relay:application"]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with running([sys.executable, *words], folder / f"{name}-{workers}.log", port) as process:
        time.sleep(2)
        yield f"http://127.0.0.1:{port}{PATH}", process.pid


def row(*cells: object) -> str:
    """A row of the page."""
    return f"| {' | '.join(map(str, cells))} |"


def yes(met: bool) -> str:
    """Whether a goal is met."""
    return "yes" if met else "**no**"


def rows(folder: Path, endpoint: str, runs: int) -> Iterator[str]:
    """Measure."""
    call, record = folder / "call", folder / "record"
    call.write_bytes(request(SESSION, oneshot=False).to_binary())
    event = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")
    session = Session.reported(SESSION, time.time_ns())
    batch = [readable(of_start(event, session))]
    record.write_bytes(encode_logs(batch).SerializeToString())

    def direct(clients: int) -> Load:
        return Load(f"{endpoint}/v1/logs", record, "application/x-protobuf", clients=clients)

    with (
        relay("ours", folder) as (url, pid),
        relay("plain", folder) as (plain, _),
        relay("plain", folder, 1) as (single, _),
    ):

        def loaded(to: str, clients: int, rate: int = 0, apart: float = 0) -> Load:
            return Load(to, call, "application/proto", clients=clients, rate=rate, apart=apart)

        loaded(url, 32)
        rates: dict[int, dict[str, float]] = {}
        costs: dict[int, float] = {}
        for clients in CLIENTS:
            seen: dict[str, list[float]] = {"ours": [], "direct": [], "plain": [], "single": []}
            spent = []
            for _ in range(runs):
                before = seconds_of(processes(pid))
                load = loaded(url, clients)
                spent.append((seconds_of(processes(pid)) - before) / (load.rate * SECONDS))
                seen["ours"].append(load.rate)
                seen["direct"].append(direct(clients).rate)
                seen["plain"].append(loaded(plain, clients).rate)
                seen["single"].append(loaded(single, clients).rate)
            rates[clients] = {name: statistics.median(values) for name, values in seen.items()}
            costs[clients] = statistics.median(spent)
        best = max(rates, key=lambda clients: rates[clients]["ours"])
        for side, against, goal in (
            ("direct", "the Collector's own, single-record posts", 0.4),
            ("plain", "a plain relay, as many workers", 10),
            ("single", "a plain relay, one worker", 0),
        ):
            for clients, rate in rates.items():
                ratio = rate["ours"] / rate[side]
                told = goal and clients == best
                judged = (f">= {goal}", yes(ratio >= goal)) if told else ("-", "-")
                yield row(
                    f"acknowledged starts a second, {clients:,} clients",
                    *(against, f"{rate['ours']:,.0f}", f"{rate[side]:,.0f}", f"{ratio:.2f}"),
                    *judged,
                )
        half = int(rates[best]["ours"] / 2)
        for apart, what, goal in (
            (APART, "p99 at half of that rate, 256 clients", 25e-3),
            (0, "the same, and the 256 call at the same moment", 0),
        ):
            seconds = statistics.median([loaded(url, 256, half, apart).p99 for _ in range(runs)])
            judged = (f"<= {goal * 1e3:.0f} ms", yes(seconds <= goal)) if goal else ("-", "-")
            yield row(what, "-", f"{seconds * 1e3:.1f} ms", "-", "-", *judged)
        for clients, cost in costs.items():
            grown = cost / costs[CLIENTS[0]]
            cells = (f"{cost * 1e6:.0f} µs", f"{costs[CLIENTS[0]] * 1e6:.0f} µs", f"{grown:.2f}")
            what = f"processor time of a start, {clients:,} clients"
            yield row(what, f"{CLIENTS[0]} clients", *cells, "<= 1.1", yes(grown <= 1.1))
        peak = peak_of(processes(pid))
    with relay("empty", folder) as (url, pid):
        Load(url, call, "application/proto", clients=CLIENTS[-1])
        empty = peak_of(processes(pid))
    cells = (f"{peak:.0f} MiB", f"{empty:.0f} MiB", f"{peak / empty:.2f}")
    what = f"peak memory of a worker, {CLIENTS[-1]:,} clients"
    yield row(what, "empty handler", *cells, "<= 2", yes(peak <= 2 * empty))


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
                    seconds=SECONDS,
                ),
                flush=True,
            )
            for line in rows(folder, endpoint, runs):
                print(line, flush=True)


if __name__ == "__main__":
    main()
