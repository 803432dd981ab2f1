"""The rows of docs/reliability.md that no other test proves.

Each fault meets `record_start`. Those that a part must bound or report itself also meet a pipeline
with the exporter, `run` and `relay`, which send with the same client.
"""

import contextlib
import datetime as dt
import http
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from support.agent import AGENT_PATH
from support.cases import FULL_ATTRIBUTES
from support.core import parse_responses
from support.forwarder import exchange, running_forwarder
from support.messages import encode_request, encode_start, http_request, new_session_id
from support.otlp import received_records
from support.processes import BASE_ENVIRON, WAIT_SECONDS, free_port, run_python
from support.relay import running_relay
from support.run import Command, exporting_to
from support.standins import HTTPStandin, Response, silent_port
from tbot_otel.connect import RESPONSE_TIMEOUT_SECONDS
from tbot_otel.relay.exporting import PROBE_TIMEOUT_SECONDS
from tbot_otel.sender import EXIT_TIMEOUT_SECONDS

OPT_IN = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}
# The time that a busy machine may add to a bound, in seconds.
MARGIN = 5.0
FLUSH_SECONDS = str(WAIT_SECONDS / 2)
# Nothing has happened yet, and the clock jumps during the wait at exit.
SHORT_FLUSH_SECONDS = "0.5"


class Fault(NamedTuple):
    """A Collector, or the way to it, with a fault.

    Attributes:
        endpoint: The endpoint.
        count_requests: Returns how many exports have arrived.
        environ: Variables.
        setup: Python code that each process runs first.
        flush_seconds: How long a program waits for an outcome.
    """

    endpoint: str
    count_requests: Callable[[], int] = lambda: 0
    environ: dict[str, str] = {}  # noqa: RUF012 - never changed
    setup: str = ""
    flush_seconds: str = FLUSH_SECONDS


@contextlib.contextmanager
def responding(*responses: Response, host: str = "127.0.0.1") -> Iterator[Fault]:
    """A Collector that gives these responses."""
    with HTTPStandin(*responses, host=host) as collector:
        yield Fault(collector.endpoint, lambda: len(collector.requests))


@contextlib.contextmanager
def certified(folder: Path, *names: str, days: int) -> Iterator[Fault]:
    """A Collector with a certificate for these names that is valid for a number of days."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days)
    authority.issue_cert(*names, not_after=end).configure_cert(context)
    with HTTPStandin(Response(), tls=context) as collector:
        environ = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(folder / "ca.pem")}
        yield Fault(collector.endpoint, lambda: len(collector.requests), environ)


@contextlib.contextmanager
def proxied(*, is_up: bool) -> Iterator[Fault]:
    """A Collector that only a proxy can reach."""
    with HTTPStandin(Response()) as proxy:
        address = proxy.endpoint if is_up else f"http://127.0.0.1:{free_port()}"
        yield Fault(
            "http://collector.invalid:4318", lambda: len(proxy.requests), {"http_proxy": address}
        )


HANGING_LOOKUP = """
import socket, time
look_up = socket.getaddrinfo
def hang(host, *arguments, **options):
    if host == "collector.invalid":
        time.sleep(3600)
    return look_up(host, *arguments, **options)
socket.getaddrinfo = hang
"""


@contextlib.contextmanager
def hanging_lookup() -> Iterator[Fault]:
    """A name server that does not respond."""
    yield Fault(
        "http://collector.invalid:4318", setup=HANGING_LOOKUP, flush_seconds=SHORT_FLUSH_SECONDS
    )


# The clock jumps a second after the first connection, while the process waits for a response.
JUMPING_CLOCK = """
import socket, time
clocks = time.time, time.time_ns
create_connection = socket.create_connection
jump_at = float("inf")
def connect(*arguments, **options):
    global jump_at
    jump_at = min(jump_at, time.monotonic() + 1)
    return create_connection(*arguments, **options)
def jumped():
    return {days} * 86400 * (time.monotonic() > jump_at)
socket.create_connection = connect
time.time = lambda: clocks[0]() + jumped()
time.time_ns = lambda: clocks[1]() + jumped() * 10**9
"""


@contextlib.contextmanager
def jumping_clock(days: int) -> Iterator[Fault]:
    """A silent Collector, and a clock that jumps while processes wait for it."""
    with silent_port() as port:
        yield Fault(
            f"http://127.0.0.1:{port}",
            setup=JUMPING_CLOCK.format(days=days),
            flush_seconds=SHORT_FLUSH_SECONDS,
        )


# What each part answers, in this order: `record_start`, a pipeline, `run`, `relay`.
DELIVERED = ("DELIVERED", "DELIVERED", "200", "200")
WAITING = ("PENDING", "PENDING", "503 unavailable", "503 unavailable")
# What `record_start` answers alone.
SENT = ("DELIVERED",)
NOT_SENT = ("FAILED",)
HALF_RESPONSE = Response(body=b"\n", headers={"Content-Length": "10"}, resets=True)
FAULTS: dict[
    str, tuple[Callable[[Path], contextlib.AbstractContextManager[Fault]], tuple[str, ...]]
] = {
    "429": (lambda _: responding(Response(429)), NOT_SENT),
    "503": (lambda _: responding(Response(503)), NOT_SENT),
    "reset": (lambda _: responding(HALF_RESPONSE), NOT_SENT),
    "certificate expired": (lambda folder: certified(folder, "localhost", days=-1), NOT_SENT),
    "certificate of another name": (
        lambda folder: certified(folder, "x.invalid", days=1),
        NOT_SENT,
    ),
    "lookup hangs": (lambda _: hanging_lookup(), WAITING),
    "proxy": (lambda _: proxied(is_up=True), DELIVERED),
    "proxy is down": (lambda _: proxied(is_up=False), NOT_SENT),
    "IPv6": (
        lambda _: responding(Response(headers={"Connection": "close"}), host="::1"),
        SENT,
    ),
    "clock jumps ahead": (lambda _: jumping_clock(1), WAITING),
    "clock jumps back": (lambda _: jumping_clock(-1), WAITING),
}

RECORD_SCRIPT = """
import atexit, sys, time
def report():
    print(f"{time.monotonic() - ended:.3f}")
atexit.register(report)
from tbot_otel import StartEvent, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
print(session.flush(float(sys.argv[1])).status.name)
ended = time.monotonic()
"""
PIPELINE_SCRIPT = """
import os, sys
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(TbotLogExporter()))
event = StartEvent(run_mode="daemon", version="18.3.0")
outcome = record_start(event, logger_provider=provider).flush(float(sys.argv[1]))
print(outcome.status.name, flush=True)
os._exit(0)
"""


def in_time(seconds: float, limit: float) -> None:
    """Check that something did not take longer than its limit."""
    assert seconds < limit + MARGIN


def meet_with_record_start(fault: Fault, _: Path, environ: dict[str, str]) -> str:
    """Record a start. The process must exit within its limit."""
    done = run_python("-c", fault.setup + RECORD_SCRIPT, fault.flush_seconds, timeout=60, **environ)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    answer, seconds = done.stdout.split()
    in_time(float(seconds), EXIT_TIMEOUT_SECONDS)
    return answer


def meet_with_pipeline(fault: Fault, _: Path, environ: dict[str, str]) -> str:
    """Record a start in a pipeline. The caller must not wait for it."""
    done = run_python(
        "-c", fault.setup + PIPELINE_SCRIPT, fault.flush_seconds, timeout=60, **environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def meet_with_run(fault: Fault, _: Path, environ: dict[str, str]) -> str:
    """Report to a forwarder, which must exit when the command has exited."""
    body = encode_request(encode_start(FULL_ATTRIBUTES), session_id=new_session_id())
    with running_forwarder(fault.endpoint, fault.setup, options=(), **environ) as address:
        begin = time.monotonic()
        (status,), codes = parse_responses(exchange(address, http_request(body=body)))
        in_time(time.monotonic() - begin, RESPONSE_TIMEOUT_SECONDS)
    return " ".join([str(status), *codes])


def meet_with_relay(fault: Fault, folder: Path, environ: dict[str, str]) -> str:
    """Report to a relay, which must stop with status 0."""
    with running_relay(folder, fault.endpoint, setup=fault.setup, **environ) as relay:
        begin = time.monotonic()
        status, code = relay.report()
        in_time(time.monotonic() - begin, RESPONSE_TIMEOUT_SECONDS)
        if status != http.HTTPStatus.OK:
            begin = time.monotonic()
            assert relay.get("/readyz")[0] == http.HTTPStatus.SERVICE_UNAVAILABLE
            in_time(time.monotonic() - begin, PROBE_TIMEOUT_SECONDS)
        assert relay.stop() == 0
    return f"{status} {code}".strip()


PARTS = (meet_with_record_start, meet_with_pipeline, meet_with_run, meet_with_relay)


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str, tmp_path: Path) -> None:
    """Each part answers truly and in time, and what it calls delivered has arrived."""
    make_fault, expected = FAULTS[name]
    with make_fault(tmp_path) as fault:
        environ = {**OPT_IN, "OTEL_EXPORTER_OTLP_ENDPOINT": fault.endpoint, **fault.environ}
        if "FAILED" in expected:
            environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
        parts = PARTS[: len(expected)]
        with ThreadPoolExecutor(len(parts)) as threads:
            answers = [threads.submit(part, fault, tmp_path, environ) for part in parts]
        assert tuple(answer.result() for answer in answers) == expected
        if "DELIVERED" in expected:
            assert fault.count_requests() == len(parts)


# --- the machine


def read_only(kept: str = "/nothing") -> tuple[str, ...]:
    """The words that start a command without any writable mount but one, a home and ``TMPDIR``."""
    script = f"""
mount --make-rprivate /
while read -r device folder rest; do
    [ "$folder" = {kept} ] || mount -o remount,bind,ro "$folder" || true
done < /proc/mounts 2>/dev/null
! touch /tmp/file 2>/dev/null
unset HOME
export TMPDIR=/nonexistent
exec "$@"
"""
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh")


def test_read_only(tmp_path: Path) -> None:
    """Without a writable file system, a home or a folder for temporary files, starts arrive.

    The relay's processes share a number, for which Python needs ``/dev/shm``.
    """
    with HTTPStandin(Response()) as collector:
        environ = {**OPT_IN, **exporting_to(collector.endpoint)}
        script = (sys.executable, "-c", RECORD_SCRIPT, FLUSH_SECONDS)
        with Command(*script, options=None, wrapper=read_only(), environ=environ) as command:
            assert command.wait()[1].startswith("DELIVERED\n")
        agent = (sys.executable, AGENT_PATH)
        with Command(*agent, wrapper=read_only(), environ=environ) as command:
            assert json.loads(command.wait()[1])["answer"] == "ok"
        wrapper = read_only("/dev/shm")  # noqa: S108 - not a file of ours
        with running_relay(tmp_path, collector.endpoint, wrapper=wrapper) as relay:
            assert relay.report() == (200, "")
    assert len(received_records(collector.requests)) == 3


def test_no_shared_memory() -> None:
    """Without shared memory, a relay says in one line that it needs some, and does not start."""
    words = [*read_only(), sys.executable, "-m", "tbot_otel", "relay"]
    listen = f"--listen=127.0.0.1:{free_port()}"
    done = subprocess.run(
        [*words, listen], env=BASE_ENVIRON, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    problem = "expected a writable /dev/shm, which the workers share"
    assert done.stderr.splitlines()[-1] == f"tbot-otel relay: {problem}"
    assert "Traceback" not in done.stderr


def test_huge_environment(tmp_path: Path) -> None:
    """With 1 MB of variables, starts arrive."""
    huge = {f"X{number}": "x" * 100_000 for number in range(10)}
    with HTTPStandin(Response()) as collector:
        environ = {**OPT_IN, **exporting_to(collector.endpoint), **huge}
        done = run_python("-c", RECORD_SCRIPT, FLUSH_SECONDS, timeout=60, **environ)
        assert done.stdout.startswith("DELIVERED\n")
        with Command(sys.executable, AGENT_PATH, environ=environ) as command:
            assert json.loads(command.wait()[1])["answer"] == "ok"
        with running_relay(tmp_path, collector.endpoint, **huge) as relay:
            assert relay.report() == (200, "")
    assert len(received_records(collector.requests)) == 3


def test_few_descriptors(tmp_path: Path) -> None:
    """With 64 descriptors for each of its processes, a relay acknowledges what arrives."""
    with (
        HTTPStandin(Response()) as collector,
        running_relay(tmp_path, collector.endpoint, wrapper=("prlimit", "--nofile=64:64")) as relay,
    ):
        assert relay.report() == (200, "")
    assert len(received_records(collector.requests)) == 1


SHORTAGES = {
    "thread": "import threading; threading.stack_size(2**46)",
    "descriptor": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
    **{
        f"{size} MiB": (
            "import resource; pages = int(open('/proc/self/statm').read().split()[0]);"
            f"size = pages * resource.getpagesize() + {size} * 2**20;"
            "resource.setrlimit(resource.RLIMIT_AS, (size, size))"
        )
        for size in (1, 10)
    },
}
SHORTAGE_SCRIPT = """
import sys
from tbot_otel import StartEvent, record_start
event = StartEvent(run_mode="daemon", version="18.3.0")
{shortage}
outcome = record_start(event).flush(30)
print(outcome.status.name)
sys.exit(7)
"""


@pytest.mark.parametrize("name", SHORTAGES)
def test_shortage(name: str) -> None:
    """If the machine refuses a resource, the start fails, and the program goes on."""
    with HTTPStandin(Response()) as collector:
        environ = {**OPT_IN, **exporting_to(collector.endpoint)}
        done = run_python(
            "-c", SHORTAGE_SCRIPT.format(shortage=SHORTAGES[name]), timeout=60, **environ
        )
    assert (done.returncode, done.stdout) == (7, "FAILED\n"), done.stderr
    assert collector.requests == []


SPAWN_SCRIPT = """
import multiprocessing, sys
from tbot_otel import StartEvent, record_start
def record():
    record_start(StartEvent(run_mode="daemon", version="18.3.0"))
    from tbot_otel import sender
    sender.EXIT_TIMEOUT_SECONDS = 60
    sys.exit(7)
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=record)
        child.start()
        child.join()
        print(child.exitcode)
"""


def test_spawn(tmp_path: Path) -> None:
    """A start of a child that was spawned arrives, and the child's status is its own."""
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN_SCRIPT)
    with HTTPStandin(Response()) as collector:
        done = run_python(str(script), timeout=60, **OPT_IN, **exporting_to(collector.endpoint))
    assert (done.stdout, done.stderr) == ("7\n7\n", "")
    assert len(received_records(collector.requests)) == 2


THREADS_SCRIPT = """
from concurrent.futures import ThreadPoolExecutor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from tbot_otel import StartEvent, TbotLogExporter, record_start
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(TbotLogExporter()))
event = StartEvent(run_mode="daemon", version="18.3.0")
with ThreadPoolExecutor(8) as threads:
    sessions = [threads.submit(record_start, event, logger_provider=provider) for _ in range(40)]
print({session.result().flush(30).status.name for session in sessions})
"""


def test_threads_of_a_pipeline() -> None:
    """Starts that many threads record in one pipeline arrive once each."""
    with HTTPStandin(Response()) as collector:
        done = run_python(
            "-c", THREADS_SCRIPT, timeout=60, **OPT_IN, **exporting_to(collector.endpoint)
        )
    assert (done.stdout, done.stderr) == ("{'DELIVERED'}\n", "")
    sessions = {resource["session.id"] for resource, _ in received_records(collector.requests)}
    assert len(received_records(collector.requests)) == len(sessions) == 40
