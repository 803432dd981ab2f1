"""`tbot-otel run` under faults: tbot runs as it would have, and gets a true response in time.

The command, the forwarder and the Collector are stopped at each step, and the machine refuses
resources.
"""

import contextlib
import errno
import functools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import pytest

import tbot_otel
from support.agent import AGENT_PATH
from support.collectors import MakeCollector
from support.otlp import HTTP_EXPORTER_RETRIES, PROTOCOLS, partial_success
from support.processes import BASE_ENVIRON, WAIT_SECONDS, wait_until
from support.run import (
    CONSENTING_ENVIRON,
    REPORTING_COMMAND,
    TESTS_ON_PATH,
    Command,
    exporting_to,
    run_words,
)
from support.standins import (
    UNREACHABLE_PORTS,
    GRPCStandin,
    HTTPStandin,
    ReceivedRequest,
    Response,
    silent_port,
)
from tbot_otel.connect import RESPONSE_TIMEOUT_SECONDS
from tbot_otel.consent import OPT_IN
from tbot_otel.run.launcher import ADDRESS_VARIABLE

NO_REPORT = "tbot-otel run: tbot makes no report: "
NOT_DELIVERED = "tbot's start was not delivered"
TIMED_OUT = f"{NOT_DELIVERED}: the Collector did not respond in time"


def log_messages(log: Path) -> list[str]:
    """The messages of a log, without their times and the endpoint of a failed delivery."""
    prefix = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} tbot-otel run: "
    lines = [re.sub(prefix, "", line) for line in log.read_text().splitlines()]
    return [
        re.sub(r"(not delivered) to \S+ \((?:http/protobuf|grpc)\)", r"\1", line) for line in lines
    ]


def agent_command(*words: str) -> tuple[str, ...]:
    """The stand-in for tbot, which exits with status 3."""
    return (sys.executable, AGENT_PATH, "--status", "3", *words)


PACKAGE = Path(tbot_otel.__file__).parent

# TEST_HIDDEN_MODULE cannot be imported. The import of waitress.server, in the forwarder, waits
# until the pipe TEST_IMPORT_GATE has been opened and closed.
SITECUSTOMIZE = """
import os, sys

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("TEST_HIDDEN_MODULE"):
            return None
        if name == "waitress.server" and (pipe := os.environ.pop("TEST_IMPORT_GATE", None)):
            with open(pipe, "rb") as file:
                file.read()
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)
"""


@pytest.fixture(scope="module")
def sitecustomize(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables that install SITECUSTOMIZE and let Python import the tests' support code."""
    folder = tmp_path_factory.mktemp("sitecustomize")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return {"PYTHONPATH": os.pathsep.join((str(folder), *TESTS_ON_PATH.values()))}


@contextlib.contextmanager
def waiting_in_import(
    sitecustomize: dict[str, str], *words: str, endpoint: str, options: tuple[str, ...] = ()
) -> Iterator[Command]:
    """A command whose forwarder waits in an import until `open_gate`."""
    pipe = Path(sitecustomize["PYTHONPATH"].partition(os.pathsep)[0]) / str(uuid.uuid4())
    os.mkfifo(pipe)

    def connect() -> int:
        # This fails until the forwarder has opened the other end.
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    environ = sitecustomize | exporting_to(endpoint) | {"TEST_IMPORT_GATE": str(pipe)}
    with Command(*words, options=options, environ=environ) as command:
        command.import_gate = wait_until(connect)
        yield command


class Case(NamedTuple):
    """A faulty Collector, tbot's response, the bounds of its time in seconds, and the log line.

    The lower bound counts from the start of the command, the upper one from the report.
    """

    protocol: str
    collector: Callable[[], contextlib.AbstractContextManager[tuple[str, list[ReceivedRequest]]]]
    answer: str
    seconds: tuple[float, float]
    log_line: str
    timeout: str = "10"
    """The timeout of an export in seconds. The default is longer than that of the answer."""


@contextlib.contextmanager
def no_collector(how: str) -> Iterator[tuple[str, list[ReceivedRequest]]]:
    """A Collector that cannot be reached."""
    with UNREACHABLE_PORTS[how]() as port:
        yield f"http://127.0.0.1:{port}", []


@contextlib.contextmanager
def no_such_host() -> Iterator[tuple[str, list[ReceivedRequest]]]:
    """A name that does not resolve (https://www.rfc-editor.org/rfc/rfc6761#section-6.4)."""
    yield "http://collector.invalid:4318", []


@contextlib.contextmanager
def http_collector(*responses: Response) -> Iterator[tuple[str, list[ReceivedRequest]]]:
    """A Collector that gives these responses over HTTP."""
    with HTTPStandin(*responses) as collector:
        yield collector.endpoint, collector.requests


@contextlib.contextmanager
def grpc_collector(*codes: str) -> Iterator[tuple[str, list[ReceivedRequest]]]:
    """A Collector that gives these responses over gRPC."""
    with GRPCStandin(*codes) as collector:
        yield collector.endpoint, collector.requests


# A response at the timeout of 8 seconds comes before tbot gives up after 10, and an immediate one
# does not wait for the timeout.
IMMEDIATELY = (0, 7)
IN_TIME = (0, 10)
AT_THE_TIMEOUT = (RESPONSE_TIMEOUT_SECONDS, 10)
DELIVERED = "tbot's start was delivered to "
REJECTION = Response(
    200, partial_success(1).SerializeToString(), {"Content-Type": "application/x-protobuf"}
)
HTTP, GRPC = PROTOCOLS
CASES = {
    "late": Case(
        HTTP, functools.partial(http_collector, Response(delay=2)), "ok", (2, 10), DELIVERED
    ),
    "too late": Case(
        HTTP,
        functools.partial(http_collector, Response(delay=12)),
        "unavailable",
        AT_THE_TIMEOUT,
        TIMED_OUT,
    ),
    "silent": Case(
        HTTP, functools.partial(no_collector, "silent"), "unavailable", AT_THE_TIMEOUT, TIMED_OUT
    ),
    "silent, gRPC": Case(
        GRPC, functools.partial(no_collector, "silent"), "unavailable", IN_TIME, NOT_DELIVERED
    ),
    "down": Case(
        HTTP, functools.partial(no_collector, "refused"), "unavailable", IN_TIME, NOT_DELIVERED, "1"
    ),
    "down, gRPC": Case(
        GRPC, functools.partial(no_collector, "refused"), "unavailable", IN_TIME, NOT_DELIVERED, "1"
    ),
    "no such name": Case(HTTP, no_such_host, "unavailable", IN_TIME, NOT_DELIVERED, "1"),
    "no such name, gRPC": Case(GRPC, no_such_host, "unavailable", IN_TIME, NOT_DELIVERED, "1"),
    "400": Case(
        HTTP,
        functools.partial(http_collector, Response(400)),
        "unavailable",
        IMMEDIATELY,
        f"{NOT_DELIVERED}: the Collector responded with 400",
    ),
    "503": Case(
        HTTP,
        functools.partial(http_collector, Response(503)),
        "unavailable",
        IN_TIME,
        NOT_DELIVERED,
    ),
    "503, then 200": Case(
        HTTP, functools.partial(http_collector, Response(503), Response()), "ok", IN_TIME, DELIVERED
    ),
    "rejected": Case(
        HTTP,
        functools.partial(http_collector, REJECTION),
        "unavailable",
        IMMEDIATELY,
        f"{NOT_DELIVERED}: the Collector rejected 1 of the records sent",
    ),
    "denied, gRPC": Case(
        GRPC,
        functools.partial(grpc_collector, "PERMISSION_DENIED"),
        "unavailable",
        IMMEDIATELY,
        NOT_DELIVERED,
    ),
    "unavailable, gRPC": Case(
        GRPC,
        functools.partial(grpc_collector, "UNAVAILABLE"),
        "unavailable",
        IN_TIME,
        NOT_DELIVERED,
        "1",
    ),
}


# Prints the address, and starts the command when standard input ends.
PRINT_ADDRESS_AND_WAIT = ("sh", "-c", f'echo "${ADDRESS_VARIABLE}"; read go; exec "$@"', "sh")


def send_request_line(address: str, request: str) -> bytes:
    """Send a request line to the forwarder, and return the start of the response."""
    url = urlsplit(address)
    with socket.create_connection(
        (str(url.hostname), int(url.port or 0)), WAIT_SECONDS
    ) as connection:
        connection.sendall(f"{request}\r\nHost: {url.hostname}\r\n\r\n".encode())
        return connection.recv(4096)


class ReportResult(NamedTuple):
    """The result of a command that reported, and whether its report arrived."""

    status: int
    stderr: str
    printed: dict[str, str]
    log: list[str]
    arrived: bool
    seconds_since_start: float


def report_to(case: Case, log: Path) -> ReportResult:
    """Report to a faulty Collector."""
    started_at = time.monotonic()
    with (
        case.collector() as (endpoint, requests),
        Command(
            *PRINT_ADDRESS_AND_WAIT,
            *agent_command(),
            options=("--log", str(log)),
            environ=exporting_to(endpoint, case.protocol)
            | {"OTEL_EXPORTER_OTLP_TIMEOUT": case.timeout},
        ) as command,
    ):
        # On a busy machine, the forwarder's start could take most of the time of the response.
        send_request_line(command.read_line(), "GET / HTTP/1.1")
        status, stdout, stderr = command.wait()
        seconds = time.monotonic() - started_at
        command.wait_for_forwarder_exit()
        printed = json.loads(stdout)
        arrived = any(printed["session"].encode() in request.body for request in requests)
        return ReportResult(status, stderr, printed, log_messages(log), arrived, seconds)


@contextlib.contextmanager
def step_importing(sitecustomize: dict[str, str]) -> Iterator[Command]:
    """The report was sent, and the forwarder is not ready yet."""
    with (
        HTTPStandin(Response()) as collector,
        waiting_in_import(
            sitecustomize, *REPORTING_COMMAND, endpoint=collector.endpoint
        ) as command,
    ):
        command.read_line()
        command.read_line()
        yield command


@contextlib.contextmanager
def step_serving(_: dict[str, str]) -> Iterator[Command]:
    """The forwarder waits for the report."""
    with (
        HTTPStandin(Response()) as collector,
        Command(
            *PRINT_ADDRESS_AND_WAIT,
            *REPORTING_COMMAND,
            environ=TESTS_ON_PATH | exporting_to(collector.endpoint),
        ) as command,
    ):
        assert send_request_line(command.read_line(), "GET / HTTP/1.1").startswith(b"HTTP/1.1 404")
        yield command


@contextlib.contextmanager
def step_exporting(_: dict[str, str], *, responded: bool = False) -> Iterator[Command]:
    """The Collector has received the record and has not responded."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_SECONDS)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Command(*REPORTING_COMMAND, environ=TESTS_ON_PATH | exporting_to(endpoint)) as command:
            connection, _address = server.accept()
            with connection:
                assert connection.recv(2**16).startswith(b"POST /v1/logs ")
                if responded:
                    os.kill(command.forwarder(), signal.SIGSTOP)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                yield command


STEPS: dict[str, Callable[[dict[str, str]], contextlib.AbstractContextManager[Command]]] = {
    "importing": step_importing,
    "serving": step_serving,
    "exporting": step_exporting,
    "responded": functools.partial(step_exporting, responded=True),
}
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


CONNECTION_ERRORS = {"ConnectionResetError", "ConnectionRefusedError", "RemoteDisconnected"}


class StopResult(NamedTuple):
    """The result of a command whose forwarder was killed or stopped."""

    status: int
    stderr: str
    answer: str
    seconds: float
    """How long the command waited for the answer afterwards."""


def stop_forwarder(step: str, number: int, sitecustomize: dict[str, str]) -> StopResult:
    """Kill or stop the forwarder at a step, and wait for the command."""
    with STEPS[step](sitecustomize) as command:
        forwarder = command.forwarder()
        os.kill(forwarder, number)
        stopped_at = time.monotonic()
        status, stdout, stderr = command.wait()
        seconds_since = time.monotonic() - stopped_at
        command.open_gate()
        # A stopped forwarder exits once it continues.
        with contextlib.suppress(ProcessLookupError):
            os.kill(forwarder, signal.SIGCONT)
        command.wait_for_forwarder_exit()
    *_, seconds, answer = stdout.split()
    # The report may have begun before or after the signal.
    return StopResult(status, stderr, answer, min(seconds_since, float(seconds)))


@pytest.mark.parametrize("name", CASES)
def test_faulty_collector(name: str, tmp_path: Path) -> None:
    """With a faulty Collector, tbot runs as usual, and its response and the log are true."""
    case = CASES[name]
    result = report_to(case, tmp_path / "log")
    assert (result.status, result.stderr) == (3, "")
    assert result.printed["answer"] == case.answer
    least, most = case.seconds
    assert least <= result.seconds_since_start
    assert float(result.printed["seconds"]) < most
    (line,) = result.log
    assert line.startswith(case.log_line)
    assert result.arrived or case.answer != "ok"


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize("step", STEPS)
def test_forwarder_stops(step: str, how: str, sitecustomize: dict[str, str]) -> None:
    """A killed or stopped forwarder costs tbot its report, and at most 10 seconds."""
    result = stop_forwarder(step, SIGNALS[how], sitecustomize)
    assert (result.status, result.stderr) == (7, "err\n")
    if how == "stopped":
        assert result.answer == "TimeoutError"
        assert result.seconds < 15
    else:
        # The client sees the closed or refused connection immediately.
        assert result.answer in CONNECTION_ERRORS
        assert result.seconds < 9


@pytest.mark.parametrize("protocol", PROTOCOLS if HTTP_EXPORTER_RETRIES else [GRPC])
def test_late_collector(protocol: str, make_collector: MakeCollector, tmp_path: Path) -> None:
    """A Collector that starts during the retries gets the report, and tbot gets its 200."""
    late = make_collector(tmp_path, None)
    environ = TESTS_ON_PATH | exporting_to(late.endpoint(protocol), protocol)
    with Command(*REPORTING_COMMAND, environ=environ) as command:
        command.read_line()
        session = command.read_line()
        # Let the first attempt fail.
        time.sleep(0.5)
        with late.running():
            status, stdout, stderr = command.wait()
            assert (status, stdout.split()[-1], stderr) == (7, "200", "err\n")
            late.find(session)


@pytest.mark.parametrize("seconds", [6, 9])
def test_deadline_of_an_early_report(
    seconds: int, sitecustomize: dict[str, str], tmp_path: Path
) -> None:
    """The 8 seconds start with the connection, even if it is accepted later."""
    log = tmp_path / "log"
    words = agent_command("--timeout", "30")
    options = ("--log", str(log))
    started_at = time.monotonic()
    with (
        silent_port() as port,
        waiting_in_import(
            sitecustomize, *words, endpoint=f"http://127.0.0.1:{port}", options=options
        ) as command,
    ):
        time.sleep(seconds)
        command.open_gate()
        status, stdout, stderr = command.wait()
        responded_at = time.monotonic()
        command.wait_for_forwarder_exit()
    printed = json.loads(stdout)
    assert (status, printed["answer"], stderr) == (3, "unavailable", "")
    assert responded_at - started_at >= RESPONSE_TIMEOUT_SECONDS
    # 8 seconds from the acceptance would be later.
    assert float(printed["seconds"]) < seconds + 7
    assert log_messages(log) == [TIMED_OUT]


REPORTS_BY_MOMENT = {"before": 0, "importing": 1, "exporting": 1, "delivered": 1}
KILLS: dict[str, Callable[[int], None]] = {
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "its group": lambda pid: os.killpg(pid, signal.SIGKILL),
}
STATUS_BY_KILL = {"SIGKILL": -9, "SIGTERM": -15, "its group": -9}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("moment", REPORTS_BY_MOMENT)
def test_command_is_killed(
    moment: str, kill: str, sitecustomize: dict[str, str], tmp_path: Path
) -> None:
    """A killed command dies at once, its earlier report arrives, and the forwarder exits."""
    log = tmp_path / "log"
    log.touch()
    # The Collector accepts the second attempt, after the command has died.
    responses = [Response(503, delay=0.5), Response()] if moment == "exporting" else [Response()]
    words = (
        ("sh", "-c", "echo; echo; exec sleep 60")
        if moment == "before"
        else (*REPORTING_COMMAND, "stay")
    )
    with (
        HTTPStandin(*responses) as collector,
        waiting_in_import(
            sitecustomize, *words, endpoint=collector.endpoint, options=("--log", str(log))
        ) as command,
    ):
        if moment != "importing":
            command.open_gate()
        command.read_line()
        session = command.read_line()
        if moment == "exporting":
            wait_until(lambda: collector.requests)
        if moment == "delivered":
            wait_until(lambda: log_messages(log))
        KILLS[kill](command.process.pid)
        status, _, stderr = command.wait()
        assert status == STATUS_BY_KILL[kill]
        assert stderr in ("", "err\n")
        command.open_gate()
        command.wait_for_forwarder_exit()
    sessions = [session.encode() in request.body for request in collector.requests]
    assert sessions == [True] * REPORTS_BY_MOMENT[moment] * len(responses)
    lines = log_messages(log)
    if REPORTS_BY_MOMENT[moment]:
        assert [line.startswith(DELIVERED) for line in lines] == [True] * REPORTS_BY_MOMENT[moment]
    else:
        assert lines == ["tbot did not report a start"]


def test_exit_after_delivery() -> None:
    """After a delivered report, the forwarder does not run or listen, and is not a zombie."""
    with (
        HTTPStandin(Response()) as collector,
        Command(
            *PRINT_ADDRESS_AND_WAIT,
            *REPORTING_COMMAND,
            "stay",
            environ=TESTS_ON_PATH | exporting_to(collector.endpoint),
        ) as command,
    ):
        url = urlsplit(command.read_line())
        assert command.process.stdin is not None
        command.process.stdin.close()
        command.process.stdin = None
        assert [command.read_line() for _ in range(3)][-1].split()[-1] == "200"
        command.wait_for_forwarder_exit()
        assert command.process.poll() is None
        pid = command.process.pid
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
        address = (str(url.hostname), int(url.port or 0))

        def refuses_connections() -> bool:
            with socket.socket() as client:
                return client.connect_ex(address) == errno.ECONNREFUSED

        # An exiting process loses its command line shortly before it closes its files.
        wait_until(refuses_connections)


IDLE_SCRIPT = """
import os, sys, time
from tbot_otel.run import forwarder
forwarder.IDLE_TIMEOUT_SECONDS = 1.0
now = time.monotonic()
forwarder.forward(int(sys.argv[1]), "/secret", command_pid=os.getppid(), forked_at=now)
"""


def test_idle_timeout() -> None:
    """Without a report, the forwarder exits after its idle timeout, although tbot still runs."""
    started_at = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", IDLE_SCRIPT, str(server.fileno())],
            pass_fds=[server.fileno()],
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - started_at > 1


# Makes system calls fail, with a seccomp filter. `clone` can fail for threads or processes alone.
SECCOMP_SCRIPT = """
import ctypes, errno, json, os, platform, struct, sys
numbers = {
    "x86_64": dict(clone=56, clone3=435, bind=49, setsid=112, pidfd_open=434, socket=41),
    "aarch64": dict(clone=220, clone3=435, bind=200, setsid=157, pidfd_open=434, socket=198),
}[platform.machine()]
THREAD = 0x10000
program = []

def add(code, k, yes=0, no=0):
    program.append(struct.pack("HBBI", code, yes, no, k))

for call, error in json.loads(sys.argv[1]).items():
    name, _, what = call.partition(" ")
    add(0x20, 0)
    add(0x15, numbers[name], no=3 if what else 1)
    if what:
        add(0x20, 16)
        add(0x45, THREAD, yes=int(what == "process"), no=int(what == "thread"))
    add(0x06, 0x50000 | getattr(errno, error))
add(0x06, 0x7FFF0000)
rules = ctypes.create_string_buffer(b"".join(program))
libc = ctypes.CDLL(None, use_errno=True)
program = struct.pack("HP", len(program), ctypes.addressof(rules))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def failing_calls(**errors: str) -> tuple[str, ...]:
    """The words that start a command in which system calls fail."""
    by_call = {call.replace("_of_", " "): error for call, error in errors.items()}
    # Without clone3, the C library uses clone.
    return (sys.executable, "-c", SECCOMP_SCRIPT, json.dumps({"clone3": "ENOSYS", **by_call}))


def in_namespace(*lines: str, namespace: str = "--mount") -> tuple[str, ...]:
    """The words that run shell lines in a new namespace and start a command in it."""
    return (
        "unshare",
        "--user",
        "--map-root-user",
        namespace,
        "sh",
        "-ec",
        "\n".join((*lines, 'exec "$@"')),
        "sh",
    )


# The only port of the namespace is in use.
ONE_PORT_SCRIPT = """
import fcntl, os, socket, struct, sys
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("40000 40000")
with socket.socket() as server:
    # SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(server, 0x8914, struct.pack("16sH14x", b"lo", 1))
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.set_inheritable(True)
    os.execvp(sys.argv[1], sys.argv[1:])
"""
# The limit of processes does not apply to root, so root becomes a user who may read root's files.
UNPRIVILEGED: tuple[str, ...] = ()
if os.geteuid() == 0:
    caps = "+dac_override,+dac_read_search"
    UNPRIVILEGED = (
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        f"--inh-caps={caps}",
        f"--ambient-caps={caps}",
    )


def in_control_group(**files: str) -> tuple[str, ...]:
    """The words that start a command in a mount namespace whose control group has these files."""
    lines = [f"echo {content} > $group/{name}" for name, content in files.items()]
    return in_namespace(
        "mount -t tmpfs none /sys/fs/cgroup",
        "group=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)",
        "mkdir -p $group",
        *lines,
    )


# The wrapper, the problem on standard error, and the responses that tbot may get.
NO_ADDRESS: set[str] = set()
DELIVERED_STATUS = {"200"}
FAULTS: dict[str, tuple[tuple[str, ...], str, set[str]]] = {
    "nothing": ((), "", DELIVERED_STATUS),
    "no process": (
        failing_calls(clone_of_process="EAGAIN"),
        "Resource temporarily unavailable",
        NO_ADDRESS,
    ),
    **{
        f"{count} processes": (
            (*UNPRIVILEGED, "prlimit", f"--nproc={count}:"),
            "fewer than 64 processes are allowed",
            NO_ADDRESS,
        )
        for count in (0, 5, 63)
    },
    **{
        f"{name} in the control group": (in_control_group(**files), problem, responses)
        for name, files, problem, responses in (
            (
                "few processes",
                {"pids.max": "70", "pids.current": "10"},
                "the control group has room for fewer than 64 processes",
                NO_ADDRESS,
            ),
            (
                "little memory",
                {"memory.oom.group": "1", "memory.max": "100000000", "memory.current": "50000000"},
                "the control group has less than 64 MiB of memory left",
                NO_ADDRESS,
            ),
            (
                "no limits",
                {"pids.max": "max", "memory.oom.group": "1", "memory.max": "max"},
                "",
                DELIVERED_STATUS,
            ),
            (
                "little memory, but separate kills,",
                {"memory.oom.group": "0", "memory.max": "100000000", "memory.current": "50000000"},
                "",
                DELIVERED_STATUS,
            ),
        )
    },
    "no session": (failing_calls(setsid="EPERM"), "Operation not permitted", NO_ADDRESS),
    "no thread": (failing_calls(clone_of_thread="EAGAIN"), "", CONNECTION_ERRORS),
    "no socket": (failing_calls(socket="EACCES"), "Permission denied", NO_ADDRESS),
    "no address": (
        failing_calls(bind="EADDRNOTAVAIL"),
        "Cannot assign requested address",
        NO_ADDRESS,
    ),
    "no pidfd": (failing_calls(pidfd_open="ENOSYS"), "", DELIVERED_STATUS),
    # In it, an address can be bound but not reached.
    "no network": (in_namespace(namespace="--net"), "", {"OSError"}),
    "no port": (
        (*in_namespace(namespace="--net"), sys.executable, "-c", ONE_PORT_SCRIPT),
        "Address already in use",
        NO_ADDRESS,
    ),
    "no /dev": (in_namespace("mount -t tmpfs none /dev"), "No such file or directory", NO_ADDRESS),
    "no /dev/fd": (
        in_namespace(
            "null=$(mktemp)",
            "mount --bind /dev/null $null",
            "mount -t tmpfs none /dev",
            "touch /dev/null",
            "mount --bind $null /dev/null",
            "umount $null",
            "rm $null",
        ),
        "No such file or directory",
        NO_ADDRESS,
    ),
    "no space": (
        in_namespace(
            "mount -t tmpfs -o size=4k none /mnt",
            "cat /dev/zero >/mnt/full 2>/mnt/errors || true",
            # Only the package is compiled again: to compile all modules could take too long.
            f"mount --bind /mnt {shlex.quote(str(PACKAGE / '__pycache__'))}",
            "export HOME=/mnt TMPDIR=/mnt",
        ),
        "",
        DELIVERED_STATUS,
    ),
    "process 1": (
        ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"),
        "",
        DELIVERED_STATUS,
    ),
    **{
        f"{count} descriptors": (("prlimit", f"--nofile={count}:"), problem, responses)
        for count, problem, responses in (
            (5, "Too many open files", NO_ADDRESS),
            # Which step fails differs between Python versions.
            *(
                (count, "|Too many open files", CONNECTION_ERRORS | DELIVERED_STATUS | {"503"})
                for count in range(6, 13)
            ),
            (32, "", DELIVERED_STATUS),
        )
    },
    **{
        f"{size} MiB": (
            ("prlimit", f"--as={size * 2**20}:"),
            "",
            CONNECTION_ERRORS | DELIVERED_STATUS | {"503"},
        )
        for size in (32, 64, 128, 256)
    },
}
# The command itself gets the usual limits.
USUAL_LIMITS = ("prlimit", "--nofile=1024:", "--as=unlimited:")


# Runs commands in its network namespace, each with a Collector and a vendor's server on loopback.
# It prints what they received, and to which addresses connections were opened.
NETWORK_SCRIPT = """
import contextlib, ctypes, fcntl, json, os, signal, socket, struct, subprocess, sys, threading
from support.processes import wait_until
from support.standins import HTTPStandin, Response
with socket.socket() as interface:
    # SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(interface, 0x8914, struct.pack("16sH14x", b"lo", 1))
# PR_SET_CHILD_SUBREAPER: the forwarder becomes a child of this process.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
opened = set()

def sniff(packets):
    while True:
        packet = packets.recv(2**16)
        tcp = packet[14 + 4 * (packet[14] & 15):]
        if packet[12:14] != b"\\x08\\x00" or packet[23] != 6:
            opened.add("not TCP over IPv4")
        elif tcp[13] & 0x12 == 2:  # SYN without ACK
            opened.add(f"{socket.inet_ntoa(packet[30:34])}:{int.from_bytes(tcp[2:4])}")

packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
threading.Thread(target=sniff, args=[packets], daemon=True).start()
for line in sys.stdin:
    words, environ = json.loads(line)
    signal.alarm(60)
    opened.clear()
    with HTTPStandin(Response()) as vendor, HTTPStandin(Response()) as collector:
        environ |= {"TEST_VENDOR": vendor.endpoint}
        environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        command = subprocess.run(words, env=environ, capture_output=True, text=True)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        # After this connection, all earlier ones are known.
        with socket.create_server(("127.0.0.1", 0)) as last:
            address = last.getsockname()
            socket.create_connection(address).close()
            wait_until(lambda: f"127.0.0.1:{address[1]}" in opened)
        print(json.dumps({
            "output": (command.returncode, command.stdout, command.stderr),
            "vendor": len(vendor.requests),
            "collector": [request.body.hex() for request in collector.requests],
            "opened": sorted(
                opened
                - {collector.endpoint.removeprefix("http://"), f"127.0.0.1:{address[1]}"}
            ),
        }), flush=True)
"""


class Network:
    """A network namespace in which commands run that report."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Self]:
        """Keep the namespace until the block ends."""
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        words = ("unshare", *user, "--net", sys.executable, "-c", NETWORK_SCRIPT)
        environ = BASE_ENVIRON | TESTS_ON_PATH
        pipe = subprocess.PIPE
        with subprocess.Popen(words, env=environ, stdin=pipe, stdout=pipe, text=True) as process:
            yield cls(process)

    def report(
        self,
        options: tuple[str, ...] | None,
        wrapper: tuple[str, ...] = (),
        environ: dict[str, str] = TESTS_ON_PATH,
    ) -> dict[str, Any]:
        """Run a command that reports, and return what NETWORK_SCRIPT prints."""
        words = [*wrapper, *run_words(options), *USUAL_LIMITS, *REPORTING_COMMAND]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps((words, CONSENTING_ENVIRON | environ)) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A network of its own, for all tests."""
    with Network.running() as network:
        yield network


@pytest.fixture(scope="module")
def direct(network: Network) -> tuple[str, str]:
    """What the command prints without `run`: it reports to the vendor."""
    result = network.report(None)
    status, stdout, stderr = result["output"]
    assert (status, result["vendor"], result["collector"]) == (7, 1, [])
    return stdout.splitlines(keepends=True)[0], stderr


def assert_here_or_nowhere(result: dict[str, Any], most: int) -> None:
    """Check that a command reported to the Collector, at most that often, or to nobody."""
    assert (result["output"][0], result["vendor"]) == (7, 0)
    assert len(result["collector"]) <= most
    # The forwarder's own address.
    assert len(result["opened"]) <= 1
    assert all(address.startswith("127.0.0.1:") for address in result["opened"])


# These have a network of their own.
NETWORK_FAULTS = ("no network", "no port", "process 1")


@pytest.mark.parametrize("name", FAULTS)
def test_missing_resources(
    name: str, network: Network, direct: tuple[str, str], tmp_path: Path
) -> None:
    """Without a resource, the command runs as it would directly, and its response is true.

    Whatever fails, a report goes to the configured Collector or to nobody.
    """
    wrapper, problem, responses = FAULTS[name]
    options = ("--log", str(tmp_path / "log"))
    if name in NETWORK_FAULTS:
        with (
            HTTPStandin(Response()) as collector,
            Command(
                *USUAL_LIMITS,
                *REPORTING_COMMAND,
                options=options,
                wrapper=wrapper,
                environ=TESTS_ON_PATH | exporting_to(collector.endpoint),
            ) as command,
        ):
            status, stdout, stderr = command.wait()
            command.wait_for_forwarder_exit()
        received = [request.body.hex() for request in collector.requests]
    else:
        result = network.report(options, wrapper)
        assert_here_or_nowhere(result, 1)
        status, stdout, stderr = result["output"]
        received = result["collector"]
    facts, *rest = stdout.splitlines(keepends=True)
    assert (status, facts) == (7, direct[0])
    assert stderr.endswith(direct[1])
    assert "Traceback" not in stderr
    # The interpreter itself may have complained before.
    said = re.findall("(?m)^tbot-otel.*", stderr)
    without_log = "tbot-otel run: --log: Too many open files"
    assert [line for line in said if line != without_log] in [
        [f"{NO_REPORT}{words}"] if words else [] for words in problem.split("|")
    ]
    if not responses or any(line.startswith(NO_REPORT) for line in said):
        assert rest == []
        return
    # A command that could not connect has printed no session.
    *session, _, answer = stdout.split()[len(facts.split()) :]
    assert answer in responses
    if answer == "200":
        assert [session[0].encode().hex() in body for body in received] == [True]


REFUSALS = {
    "DO_NOT_TRACK": {"DO_NOT_TRACK": "1"},
    "OTEL_SDK_DISABLED": {"OTEL_SDK_DISABLED": "true"},
    "unknown protocol": {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"},
    "no extra": {"TEST_HIDDEN_MODULE": "waitress"},
    "no exporter": {"TEST_HIDDEN_MODULE": "opentelemetry.exporter.otlp.proto.http"},
    "broken forwarder": {"TEST_HIDDEN_MODULE": "waitress.server"},
}


@pytest.mark.parametrize("name", REFUSALS)
def test_here_or_nowhere(name: str, network: Network, sitecustomize: dict[str, str]) -> None:
    """If a report may not or cannot be sent, it goes to nobody: tbot's vendor gets none either."""
    assert_here_or_nowhere(network.report((), environ=sitecustomize | REFUSALS[name]), 0)


@pytest.mark.usefixtures("direct")
def test_vendor_would_receive() -> None:
    """Without `run`, the same command reports to the vendor."""


@pytest.mark.parametrize("hidden", ["", "tbot_otel.run.forwarder", "waitress.server"])
def test_command_runs_once(hidden: str, sitecustomize: dict[str, str], tmp_path: Path) -> None:
    """The forwarder never becomes the command, even if it cannot be imported."""
    runs = tmp_path / "runs"
    environ = sitecustomize | exporting_to("http://127.0.0.1:9") | {"TEST_HIDDEN_MODULE": hidden}
    with Command("sh", "-c", 'echo "$$" >>"$0"', str(runs), environ=environ) as command:
        command.wait()
        command.wait_for_forwarder_exit()
        assert runs.read_text() == f"{command.process.pid}\n"


OUTCOMES = {
    "delivered": (Response(), "", DELIVERED),
    "undelivered": (Response(400), "", f"{NOT_DELIVERED}: the Collector responded with 400"),
    "broken": (Response(), "waitress.server", f"{NOT_DELIVERED} (ModuleNotFoundError)"),
}


@pytest.mark.parametrize(
    ("level", "outcome", "is_logged"),
    [
        *(("", outcome, True) for outcome in OUTCOMES),
        *(("Error", "undelivered", False), ("Error", "broken", True), ("none", "broken", False)),
        *(("debug", "broken", True), ("nonsense", "delivered", True)),
    ],
)
def test_log_level(
    *, level: str, outcome: str, is_logged: bool, tmp_path: Path, sitecustomize: dict[str, str]
) -> None:
    """The outcome is logged once, if its level is enabled, and never on tbot's streams."""
    response, hidden, log_line = OUTCOMES[outcome]
    log = tmp_path / "log"
    with (
        HTTPStandin(response) as collector,
        Command(
            *REPORTING_COMMAND,
            options=(f"--log={log}",),
            environ=sitecustomize
            | exporting_to(collector.endpoint)
            | {"OTEL_LOG_LEVEL": level, "TEST_HIDDEN_MODULE": hidden},
        ) as command,
    ):
        status, _, stderr = command.wait()
        command.wait_for_forwarder_exit()
    assert (status, stderr) == (7, "err\n")
    lines = log_messages(log)
    if level == "nonsense":
        assert lines.pop(0) == "OTEL_LOG_LEVEL: expected debug, info, warn, error or none"
    first, *more = lines or [""]
    assert first.startswith(log_line if is_logged else "")
    assert bool(first) == is_logged
    # Only the level debug has a traceback. CPython 3.15 cannot format that of a broken package.
    has_traceback = "traceback" in "".join(more).lower()
    assert has_traceback == bool(more) == (level == "debug" and outcome == "broken")
    assert log.stat().st_mode & 0o777 == 0o600


def make_pipe(folder: Path) -> Path:
    """Make a named pipe that has no reader."""
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


LOGS_THAT_DO_NOT_OPEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (lambda folder: folder / "none" / "log", "No such file or directory"),
    "a folder": (lambda folder: folder, "Is a directory"),
    "no reader": (make_pipe, "No such device or address"),
}


@pytest.mark.parametrize("name", LOGS_THAT_DO_NOT_OPEN)
def test_log_cannot_be_opened(name: str, tmp_path: Path) -> None:
    """If the log cannot be opened, there is one line, and the report is delivered."""
    make, problem = LOGS_THAT_DO_NOT_OPEN[name]
    with (
        HTTPStandin(Response()) as collector,
        Command(
            *REPORTING_COMMAND,
            options=("--log", str(make(tmp_path))),
            environ=TESTS_ON_PATH | exporting_to(collector.endpoint),
        ) as command,
    ):
        status, _, stderr = command.wait()
        command.wait_for_forwarder_exit()
    assert (status, stderr) == (7, f"tbot-otel run: --log: {problem}\nerr\n")
    assert len(collector.requests) == 1


LOGS_THAT_CANNOT_BE_WRITTEN = {
    "full": ("/dev/full", ()),
    "no larger": ("log", ("prlimit", "--fsize=0:")),
    "pipe": ("pipe", ()),
}


@pytest.mark.parametrize("name", LOGS_THAT_CANNOT_BE_WRITTEN)
def test_log_cannot_be_written(name: str, tmp_path: Path) -> None:
    """If the log cannot be written, the report is delivered and tbot gets its 200."""
    log, wrapper = LOGS_THAT_CANNOT_BE_WRITTEN[name]
    reader = os.open(make_pipe(tmp_path), os.O_RDONLY | os.O_NONBLOCK)
    with (
        HTTPStandin(Response()) as collector,
        Command(
            *PRINT_ADDRESS_AND_WAIT,
            *REPORTING_COMMAND,
            options=("--log", str(tmp_path / log)),
            wrapper=wrapper,
            environ=TESTS_ON_PATH | exporting_to(collector.endpoint),
        ) as command,
    ):
        command.read_line()
        os.close(reader)
        status, stdout, stderr = command.wait()
        command.wait_for_forwarder_exit()
    assert (status, stdout.split()[-1], stderr) == (7, "200", "err\n")
    assert len(collector.requests) == 1


PRINT_VARIABLES = ("sh", "-c", f'echo "${OPT_IN} ${ADDRESS_VARIABLE}"; exit 7')
MISSING_EXTRA = f"{NO_REPORT}needs the extra 'run': pip install 'tbot-otel[run]'\n"
OWN_ADDRESS = "http://127.0.0.1:9/own"
UNSUPPORTED = f"{NO_REPORT}OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc\n"
EXPORTERS = "opentelemetry.exporter.otlp.proto"
# The variables, the opt-in that the command finds, and the line on standard error.
NOT_FORWARDED_CASES: dict[str, tuple[dict[str, str], str, str]] = {
    "no connectrpc": ({"TEST_HIDDEN_MODULE": "connectrpc"}, "0", MISSING_EXTRA),
    "no waitress": ({"TEST_HIDDEN_MODULE": "waitress"}, "0", MISSING_EXTRA),
    "own address": (
        {ADDRESS_VARIABLE: OWN_ADDRESS},
        "1",
        f"tbot-otel run: {ADDRESS_VARIABLE} is already set, so tbot's report goes there\n",
    ),
    **{
        f"protocol {protocol}": ({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}, "0", UNSUPPORTED)
        for protocol in ("http/xml", "http/json", "HTTP/PROTOBUF")
    },
    **{
        f"no exporter for {protocol}": (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "TEST_HIDDEN_MODULE": f"{EXPORTERS}.{protocol[:4]}",
            },
            "0",
            (
                f"{NO_REPORT}protocol {protocol}: the package "
                f"opentelemetry-exporter-otlp-proto-{protocol[:4]} is not installed\n"
            ),
        )
        for protocol in PROTOCOLS
    },
    # tbot does not know these variables.
    **{
        f"{name}, {address or 'no address'}": ({name: value, ADDRESS_VARIABLE: address}, "0", "")
        for name, value in (("DO_NOT_TRACK", "1"), ("OTEL_SDK_DISABLED", "true"))
        for address in ("", OWN_ADDRESS)
    },
    # The command's own refusal is not changed.
    **{
        f"opt-in {value!r}": ({OPT_IN: value, "DO_NOT_TRACK": "1"}, value, "")
        for value in ("", "0", "false", "no")
    },
}


@pytest.mark.parametrize("name", NOT_FORWARDED_CASES)
def test_not_forwarded(name: str, sitecustomize: dict[str, str]) -> None:
    """If a report may not or cannot be sent, the command is told not to report.

    If an address is set, the report goes there.
    """
    variables, opt_in, stderr = NOT_FORWARDED_CASES[name]
    with Command(*PRINT_VARIABLES, environ=sitecustomize | variables) as command:
        address = variables.get(ADDRESS_VARIABLE, "")
        assert command.wait() == (7, f"{opt_in} {address}\n", stderr)
        assert not command.run_processes()
