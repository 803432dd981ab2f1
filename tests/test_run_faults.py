"""`tbot-otel run` where everything fails: tbot runs as it would have, and what it is told is true.

The command, the forwarder and the Collector are stopped at each step, and the machine refuses what
they need. What belongs to a command is found by a variable that it alone has.
"""

import contextlib
import errno
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import pytest

from collectors import PATIENCE, Answer, Request, Rotel, Standin, silent
from tbot_otel.launcher import ADDRESS
from test_faults import AWAY, HTTP_RETRIES, PROTOCOLS, partial
from test_protocols import GrpcStandin
from test_run import AGENT

# What a machine with two busy cores may add to a promised time, in seconds.
SLACK = 1.8
NOT_REPORTED = "tbot-otel run: tbot's report goes where it would without this: "
UNDELIVERED = "tbot's start is not delivered"
TOO_LATE = f"{UNDELIVERED}: the Collector has not taken it in time"


T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Look again and again until something is there, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} seconds: {look}")


class Command:
    """A command under `tbot-otel run`, in a session of its own, until the block ends.

    Args:
        words: The command.
        options: The options of `run`; without `run` if None.
        around: The words of whatever starts all of it.
        environ: The variables, beside the consent.
    """

    def __init__(
        self,
        *words: str,
        options: tuple[str, ...] | None = (),
        around: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self._mark = f"TEST_MARK={uuid.uuid4()}"
        self.pipe = -1
        name, _, mark = self._mark.partition("=")
        run = () if options is None else (sys.executable, "-m", "tbot_otel", "run", *options, "--")
        kept = {name: os.environ[name] for name in ("PATH", "HOME")}
        self.process = subprocess.Popen(
            [*around, *run, *words],
            env={
                **kept,
                name: mark,
                "PYTHONWARNINGS": "error",
                "TELEPORT_ANONYMOUS_TELEMETRY": "1",
                **(environ or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        for pid in {self.process.pid, *self._all()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            # It fails where the command has ended before.
            self.process.communicate(timeout=PATIENCE)

    def _all(self) -> dict[int, bytes]:
        found = {}
        for folder in Path("/proc").iterdir():
            # Whatever ends meanwhile is none.
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and self._mark.encode() in (
                    (folder / "environ").read_bytes().split(b"\0")
                ):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes()
        return found

    def ours(self) -> set[int]:
        """The processes of ours; the command's own, too, until it has become the command."""
        return {pid for pid, words in self._all().items() if b"\0tbot_otel\0run\0" in words}

    def forwarder(self) -> int:
        """Wait for the forwarder, and return its process id."""

        def look() -> int | None:
            for pid in self.ours():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/fd/1").readlink() == Path(os.devnull):
                        return pid
            return None

        return int(until(look) or 0)

    def says(self) -> str:
        """Wait for a line on its standard output, and return it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().removesuffix("\n")

    def ends(self) -> tuple[int, str, str]:
        """Wait for its end, and return its status and what it wrote."""
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, stdout, stderr

    def let_go(self) -> None:
        """Let a forwarder go on that is held while it imports."""
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1

    def leaves(self, seconds: float = 5) -> None:
        """Wait until nothing of ours is there."""
        until(lambda: not self.ours(), seconds)


def logged(log: Path) -> list[str]:
    """The lines of a log, without their times and where a start was not delivered to."""
    prefix = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} tbot-otel run: "
    lines = [re.sub(prefix, "", line) for line in log.read_text().splitlines()]
    return [
        re.sub(r"(not delivered) to \S+ \((?:http/protobuf|grpc)\)", r"\1", line) for line in lines
    ]


def agent(*words: str) -> tuple[str, ...]:
    """The stand-in for tbot, with a status of its own."""
    return (sys.executable, AGENT, "--status", "3", *words)


# The least of a tbot: no thread, and each step on standard output. It runs where an agent cannot.
ASK = """
import contextlib, http.client, os, sys, time, uuid
from urllib.parse import urlsplit
print("err", file=sys.stderr)
print(*sys.argv, os.getcwd(), os.umask(0), flush=True)
address = os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS")
if address:
    import agent
    url, session = urlsplit(address), str(uuid.uuid4())
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    headers = {"Content-Type": "application/proto", "Connect-Protocol-Version": "1"}
    try:
        with contextlib.closing(connection):
            body = agent.request(session, oneshot=True).to_binary()
            connection.request("POST", url.path + agent.PATH, body, headers)
            print(session, flush=True)
            answer = connection.getresponse().status
    except OSError as error:
        answer = type(error).__name__
    print(answer, flush=True)
if "stay" in sys.argv:
    time.sleep(60)
sys.exit(7)
"""
ASKING = (sys.executable, "-c", ASK)
TESTS = {"PYTHONPATH": str(Path(__file__).parent)}

# Modules that cannot be found, and one whose import waits until somebody has opened a pipe and
# closed it: the forwarder is held there.
SITE = """
import os, sys

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("TEST_HIDES"):
            return None
        if name == "waitress.server" and (pipe := os.environ.pop("TEST_HOLDS", None)):
            with open(pipe, "rb") as file:
                file.read()
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a Python that hides a module and holds the forwarder, and finds tests."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": os.pathsep.join((str(folder), *TESTS.values()))}


def to(endpoint: str, protocol: str = "http/protobuf") -> dict[str, str]:
    """The variables of a Collector."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


@contextlib.contextmanager
def held(
    site: dict[str, str], *words: str, endpoint: str, options: tuple[str, ...] = ()
) -> Iterator[Command]:
    """A command whose forwarder imports until it is let go."""
    pipe = Path(site["PYTHONPATH"].partition(os.pathsep)[0]) / str(uuid.uuid4())
    os.mkfifo(pipe)

    def connect() -> int:
        # It fails until the forwarder reads.
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return 0

    environ = site | to(endpoint) | {"TEST_HOLDS": str(pipe)}
    with Command(*words, options=options, environ=environ) as command:
        command.pipe = until(connect)
        yield command


class Case(NamedTuple):
    """A Collector that fails, what tbot is told, when, and what the log says."""

    protocol: str
    collector: Callable[[], contextlib.AbstractContextManager[tuple[str, list[Request]]]]
    answer: str
    seconds: tuple[float, float]
    says: str


@contextlib.contextmanager
def away(how: str) -> Iterator[tuple[str, list[Request]]]:
    """A Collector that takes nothing."""
    with AWAY[how]() as port:
        yield f"http://127.0.0.1:{port}", []


@contextlib.contextmanager
def nowhere() -> Iterator[tuple[str, list[Request]]]:
    """A name that does not resolve (https://www.rfc-editor.org/rfc/rfc6761#section-6.4)."""
    yield "http://collector.invalid:4318", []


@contextlib.contextmanager
def answers(*given: Answer) -> Iterator[tuple[str, list[Request]]]:
    """A Collector that answers."""
    with Standin(*given) as collector:
        yield collector.endpoint, collector.requests


@contextlib.contextmanager
def grpc_answers(*codes: str) -> Iterator[tuple[str, list[Request]]]:
    """A Collector that answers over gRPC."""
    with GrpcStandin(*codes) as collector:
        yield collector.endpoint, collector.requests


AT_ONCE = (0, 4)
IN_TIME = (0, 8 + SLACK)
# The clock starts where the connection can have been made first: when the forwarder was forked.
AT_THE_END = (8 - SLACK, 8 + SLACK)
DELIVERED = "tbot's start is delivered to "
REJECTION = Answer(200, partial(1).SerializeToString(), {"Content-Type": "application/x-protobuf"})
HTTP, GRPC = PROTOCOLS
CASES = {
    "late": Case(HTTP, functools.partial(answers, Answer(delay=2)), "ok", (2, 8), DELIVERED),
    "too late": Case(
        HTTP, functools.partial(answers, Answer(delay=9)), "unavailable", AT_THE_END, TOO_LATE
    ),
    "silent": Case(HTTP, functools.partial(away, "silent"), "unavailable", AT_THE_END, TOO_LATE),
    "silent, gRPC": Case(
        GRPC, functools.partial(away, "silent"), "unavailable", IN_TIME, UNDELIVERED
    ),
    "down": Case(HTTP, functools.partial(away, "refused"), "unavailable", IN_TIME, UNDELIVERED),
    "down, gRPC": Case(
        GRPC, functools.partial(away, "refused"), "unavailable", IN_TIME, UNDELIVERED
    ),
    "no such name": Case(HTTP, nowhere, "unavailable", IN_TIME, UNDELIVERED),
    "no such name, gRPC": Case(GRPC, nowhere, "unavailable", IN_TIME, UNDELIVERED),
    "400": Case(
        HTTP,
        functools.partial(answers, Answer(400)),
        "unavailable",
        AT_ONCE,
        f"{UNDELIVERED}: the Collector answered 400",
    ),
    "503": Case(HTTP, functools.partial(answers, Answer(503)), "unavailable", IN_TIME, UNDELIVERED),
    "503, then 200": Case(
        HTTP, functools.partial(answers, Answer(503), Answer()), "ok", (0, 8), DELIVERED
    ),
    "rejected": Case(
        HTTP,
        functools.partial(answers, REJECTION),
        "unavailable",
        AT_ONCE,
        f"{UNDELIVERED}: the Collector rejected 1 of the records sent",
    ),
    "denied, gRPC": Case(
        GRPC,
        functools.partial(grpc_answers, "PERMISSION_DENIED"),
        "unavailable",
        AT_ONCE,
        UNDELIVERED,
    ),
    "unavailable, gRPC": Case(
        GRPC, functools.partial(grpc_answers, "UNAVAILABLE"), "unavailable", IN_TIME, UNDELIVERED
    ),
}


class Ran(NamedTuple):
    """What a command did, and what arrived meanwhile."""

    status: int
    stderr: str
    told: dict[str, str]
    log: list[str]
    arrived: bool


def report(name: str, folder: Path) -> Ran:
    """Report to a Collector that fails."""
    case = CASES[name]
    log = folder / f"{name}.log"
    with (
        case.collector() as (endpoint, requests),
        Command(
            *agent(),
            options=("--log", str(log)),
            environ=to(endpoint, case.protocol),
        ) as command,
    ):
        status, stdout, stderr = command.ends()
        command.leaves()
        told = json.loads(stdout)
        arrived = any(told["session"].encode() in request.body for request in requests)
        return Ran(status, stderr, told, logged(log), arrived)


# The command starts when its standard input ends, and tells the address before.
WAITS = ("sh", "-c", f'echo "${ADDRESS}"; read go; exec "$@"', "sh")


def speak(address: str, request: str) -> bytes:
    """Send the beginning of a request as tbot could, and return the answer's."""
    url = urlsplit(address)
    with socket.create_connection((str(url.hostname), int(url.port or 0)), PATIENCE) as connection:
        connection.sendall(f"{request}\r\nHost: {url.hostname}\r\n\r\n".encode())
        return connection.recv(4096)


@contextlib.contextmanager
def importing(site: dict[str, str]) -> Iterator[Command]:
    """The report is sent, and the forwarder not yet there to take it."""
    with (
        Standin(Answer()) as collector,
        held(site, *ASKING, endpoint=collector.endpoint) as command,
    ):
        command.says()
        command.says()
        yield command


@contextlib.contextmanager
def serving(_: dict[str, str]) -> Iterator[Command]:
    """The forwarder waits for the report."""
    with (
        Standin(Answer()) as collector,
        Command(*WAITS, *ASKING, environ=TESTS | to(collector.endpoint)) as command,
    ):
        assert speak(command.says(), "GET / HTTP/1.1").startswith(b"HTTP/1.1 404")
        yield command


@contextlib.contextmanager
def exporting(_: dict[str, str], *, answered: bool = False) -> Iterator[Command]:
    """The Collector has the record, and has not answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Command(*ASKING, environ=TESTS | to(endpoint)) as command:
            connection, _address = server.accept()
            with connection:
                assert connection.recv(2**16).startswith(b"POST /v1/logs ")
                if answered:
                    os.kill(command.forwarder(), signal.SIGSTOP)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                yield command


STEPS: dict[str, Callable[[dict[str, str]], contextlib.AbstractContextManager[Command]]] = {
    "importing": importing,
    "serving": serving,
    "exporting": exporting,
    "answered": functools.partial(exporting, answered=True),
}
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


CLOSED = {"ConnectionResetError", "ConnectionRefusedError", "RemoteDisconnected"}


class Stopped(NamedTuple):
    """What a command did whose forwarder was killed or stopped, and for how long."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def stop(step: str, how: str, site: dict[str, str]) -> Stopped:
    """Kill or stop the forwarder at a step."""
    with STEPS[step](site) as command:
        forwarder = command.forwarder()
        os.kill(forwarder, SIGNALS[how])
        began = time.monotonic()
        status, stdout, stderr = command.ends()
        seconds = time.monotonic() - began
        command.let_go()
        # One that was only stopped leaves when it goes on.
        with contextlib.suppress(ProcessLookupError):
            os.kill(forwarder, signal.SIGCONT)
        command.leaves()
    return Stopped(status, stdout, stderr, seconds)


EARLY = (3, 9)


def early(seconds: int, folder: Path, site: dict[str, str]) -> Ran:
    """Report to a forwarder that imports for some seconds, and then to a silent Collector."""
    log = folder / f"early-{seconds}.log"
    options = ("--log", str(log))
    with (
        silent() as port,
        held(site, *agent(), endpoint=f"http://127.0.0.1:{port}", options=options) as command,
    ):
        time.sleep(seconds)
        command.let_go()
        status, stdout, stderr = command.ends()
        command.leaves()
    return Ran(status, stderr, json.loads(stdout), logged(log), arrived=False)


class Waiting(NamedTuple):
    """What is under way, by its name."""

    reports: dict[str, Future[Ran]]
    stops: dict[tuple[str, str], Future[Stopped]]
    early: dict[int, Future[Ran]]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory, site: dict[str, str]) -> Iterator[Waiting]:
    """Everything that takes as long as a tbot waits, some of it at a time."""
    folder = tmp_path_factory.mktemp("logs")
    with ThreadPoolExecutor(6) as pool:
        yield Waiting(
            {name: pool.submit(report, name, folder) for name in CASES},
            {(step, how): pool.submit(stop, step, how, site) for step in STEPS for how in SIGNALS},
            {seconds: pool.submit(early, seconds, folder, site) for seconds in EARLY},
        )
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", CASES)
def test_collector_fails(name: str, waiting: Waiting) -> None:
    """Whatever the Collector does, tbot runs as ever, is told the truth in time, as is the log."""
    case = CASES[name]
    ran = waiting.reports[name].result(PATIENCE * 6)
    assert (ran.status, ran.stderr) == (3, "")
    assert ran.told["answer"] == case.answer
    least, most = case.seconds
    assert least <= float(ran.told["seconds"]) < most
    (line,) = ran.log
    assert line.startswith(case.says)
    assert ran.arrived or case.answer != "ok"


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize("step", STEPS)
def test_forwarder_ends(step: str, how: str, waiting: Waiting) -> None:
    """A forwarder that is killed or stopped costs tbot its report, and no more than its 10 s."""
    ran = waiting.stops[step, how].result(PATIENCE * 6)
    assert (ran.status, ran.stderr) == (7, "err\n")
    answer = ran.stdout.split()[-1]
    if how == "stopped":
        assert answer == "TimeoutError"
        assert ran.seconds < 10 + SLACK
    else:
        # Closed or refused, which a client sees at once.
        assert answer in CLOSED
        assert ran.seconds < 5


@pytest.mark.parametrize("protocol", PROTOCOLS if HTTP_RETRIES else [GRPC])
def test_collector_comes_up(protocol: str, tmp_path: Path) -> None:
    """A Collector that comes up while it is tried again gets the report, and tbot is told."""
    late = Rotel(tmp_path)
    environ = TESTS | to(late.endpoint(protocol), protocol)
    with Command(*ASKING, environ=environ) as command:
        command.says()
        session = command.says()
        # Nothing but an attempt that failed shows on this side.
        time.sleep(0.5)
        with late.running():
            assert command.ends() == (7, "200\n", "err\n")
            late.find(session)


@pytest.mark.parametrize("seconds", EARLY)
def test_deadline_of_the_early(seconds: int, waiting: Waiting) -> None:
    """The 8 seconds count from the connection, also if there was nobody to accept it."""
    ran = waiting.early[seconds].result(PATIENCE * 6)
    assert (ran.status, ran.stderr) == (3, "")
    assert ran.told["answer"] == "unavailable"
    assert 8 - SLACK <= float(ran.told["seconds"]) < max(seconds, 8) + SLACK
    assert ran.log == [TOO_LATE]


MOMENTS = {"before": 0, "importing": 1, "exporting": 1, "delivered": 1}
KILLS: dict[str, Callable[[int], None]] = {
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "its group": lambda pid: os.killpg(pid, signal.SIGKILL),
}
ENDED = {"SIGKILL": -9, "SIGTERM": -15, "its group": -9}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_command_is_killed(moment: str, kill: str, site: dict[str, str], tmp_path: Path) -> None:
    """A command that is killed ends at once; what it reported before arrives; and we leave."""
    log = tmp_path / "log"
    log.touch()
    # Asked a second time, the Collector takes it: by then the command has ended.
    given = [Answer(503, delay=0.5), Answer()] if moment == "exporting" else [Answer()]
    words = ("sh", "-c", "echo; echo; exec sleep 60") if moment == "before" else (*ASKING, "stay")
    with (
        Standin(*given) as collector,
        held(site, *words, endpoint=collector.endpoint, options=("--log", str(log))) as command,
    ):
        if moment != "importing":
            command.let_go()
        command.says()
        session = command.says()
        if moment == "exporting":
            until(lambda: collector.requests)
        if moment == "delivered":
            until(lambda: logged(log))
        KILLS[kill](command.process.pid)
        status, _, stderr = command.ends()
        assert status == ENDED[kill]
        assert stderr in ("", "err\n")
        command.let_go()
        command.leaves()
    sessions = [session.encode() in request.body for request in collector.requests]
    assert sessions == [True] * MOMENTS[moment] * len(given)
    lines = logged(log)
    if MOMENTS[moment]:
        assert [line.startswith(DELIVERED) for line in lines] == [True] * MOMENTS[moment]
    else:
        assert lines == ["tbot has reported no start"]


def test_leaves() -> None:
    """After a delivered report nothing of ours runs or listens, and no zombie is left."""
    with (
        Standin(Answer()) as collector,
        Command(*WAITS, *ASKING, "stay", environ=TESTS | to(collector.endpoint)) as command,
    ):
        url = urlsplit(command.says())
        assert command.process.stdin is not None
        command.process.stdin.close()
        command.process.stdin = None
        assert [command.says() for _ in range(3)][-1] == "200"
        command.leaves()
        assert command.process.poll() is None
        pid = command.process.pid
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
        address = (str(url.hostname), int(url.port or 0))

        def refuses_connections() -> bool:
            with socket.socket() as client:
                return client.connect_ex(address) == errno.ECONNREFUSED

        # A process that ends has no name any more some moments before it has closed everything.
        until(refuses_connections, 5)


STAYS = """
import os, sys, time
from tbot_otel import forwarder
forwarder.STAY = 1.0
forwarder.forward(int(sys.argv[1]), "/secret", tbot=os.getppid(), born=time.monotonic())
"""


def test_stay() -> None:
    """Without a report the forwarder leaves after its longest stay, though tbot goes on."""
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", STAYS, str(server.fileno())],
            pass_fds=[server.fileno()],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert time.monotonic() - began > 1


# Refuses system calls: of `clone`, threads or processes alone.
REFUSES = """
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


def refuses(**calls: str) -> tuple[str, ...]:
    """The words that start a command to which system calls are refused."""
    named = {call.replace("_of_", " "): error for call, error in calls.items()}
    # The C library then uses clone.
    return (sys.executable, "-c", REFUSES, json.dumps({"clone3": "ENOSYS", **named}))


def shell(*lines: str, own: str = "--mount") -> tuple[str, ...]:
    """The words that start a command behind lines of a shell, in namespaces of its own."""
    return (
        "unshare",
        "--user",
        "--map-root-user",
        own,
        "sh",
        "-ec",
        "\n".join((*lines, 'exec "$@"')),
        "sh",
    )


# The only port that there is, is taken.
PORTS = """
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
# What this user may have: as root, it is another one's, who may yet read root's files.
LIMITED: tuple[str, ...] = ("prlimit", "--nproc=0")
if os.geteuid() == 0:
    caps = "+dac_override,+dac_read_search"
    LIMITED = (
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        f"--inh-caps={caps}",
        f"--ambient-caps={caps}",
        *LIMITED,
    )

# What surrounds the command, what we say of it, and what tbot may be answered.
UNSET: set[str] = set()
OK = {"200"}
FAULTS: dict[str, tuple[tuple[str, ...], str, set[str]]] = {
    "nothing": ((), "", OK),
    "no process": (
        refuses(clone_of_process="EAGAIN"),
        "Resource temporarily unavailable",
        UNSET,
    ),
    "no processes left": (LIMITED, "Resource temporarily unavailable", UNSET),
    "no session": (refuses(setsid="EPERM"), "Operation not permitted", UNSET),
    "no thread": (refuses(clone_of_thread="EAGAIN"), "", CLOSED),
    "no socket": (refuses(socket="EACCES"), "Permission denied", UNSET),
    "no address": (refuses(bind="EADDRNOTAVAIL"), "Cannot assign requested address", UNSET),
    "no watch": (refuses(pidfd_open="ENOSYS"), "", OK),
    # An address can be had there, and not be reached.
    "no network": (shell(own="--net"), "", {"OSError"}),
    "no port": (
        (*shell(own="--net"), sys.executable, "-c", PORTS),
        "Address already in use",
        UNSET,
    ),
    "no /dev": (shell("mount -t tmpfs none /dev"), "No such file or directory", UNSET),
    "no /dev/fd": (
        shell(
            "null=$(mktemp)",
            "mount --bind /dev/null $null",
            "mount -t tmpfs none /dev",
            "touch /dev/null",
            "mount --bind $null /dev/null",
            "umount $null",
            "rm $null",
        ),
        "No such file or directory",
        UNSET,
    ),
    "no space": (
        shell(
            "mount -t tmpfs -o size=4k none /mnt",
            "cat /dev/zero >/mnt/full 2>/mnt/said || true",
            "export HOME=/mnt TMPDIR=/mnt PYTHONPYCACHEPREFIX=/mnt",
        ),
        "",
        OK,
    ),
    "process 1": (
        ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"),
        "",
        OK,
    ),
    **{
        f"{count} descriptors": (("prlimit", f"--nofile={count}:"), said, told)
        for count, said, told in (
            (5, "Too many open files", UNSET),
            # Which step it is that fails differs from one Python to the next.
            *((count, "|Too many open files", CLOSED | OK | {"503"}) for count in range(6, 13)),
            (32, "", OK),
        )
    },
    **{
        f"{size} MiB": (("prlimit", f"--as={size * 2**20}:"), "", CLOSED | OK | {"503"})
        for size in (32, 64, 128, 256)
    },
}
# The command itself has what it needs.
UNLIMITED = ("prlimit", "--nofile=1024:", "--as=unlimited:")


@pytest.mark.parametrize("name", FAULTS)
def test_machine_refuses(name: str, tmp_path: Path) -> None:
    """Whatever the machine refuses us, the command runs as without us, and is answered in time."""
    around, said, told = FAULTS[name]
    with Standin(Answer()) as collector:
        ran = {}
        for options in (("--log", str(tmp_path / "log")), None):
            with Command(
                *UNLIMITED,
                *ASKING,
                options=options,
                around=around,
                environ=TESTS | to(collector.endpoint),
            ) as command:
                ran[options] = command.ends()
                command.leaves()
    (status, stdout, stderr), direct = ran.values()
    facts, *rest = stdout.splitlines(keepends=True)
    assert (status, facts) == direct[:2] == (7, direct[1])
    lines = [f"{NOT_REPORTED}{words}\n" if words else "" for words in said.split("|")]
    assert stderr in [line + direct[2] for line in lines]
    if not told or stderr != direct[2]:
        assert rest == []
        return
    # What could not even connect has sent no report before.
    *session, answer = stdout.split()[len(facts.split()) :]
    assert answer in told
    if answer == "200":
        arrived = [session[0].encode() in request.body for request in collector.requests]
        assert arrived == [True]


LEVELS = {
    "": ["delivered", "undelivered", "broken"],
    "Error": ["broken"],
    "none": [],
    "debug": ["delivered", "undelivered", "broken"],
    "nonsense": ["delivered", "undelivered", "broken"],
}
ENDS = {
    "delivered": (Answer(), "", DELIVERED),
    "undelivered": (Answer(400), "", f"{UNDELIVERED}: the Collector answered 400"),
    "broken": (Answer(), "waitress.server", f"{UNDELIVERED} (ModuleNotFoundError)"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("level", LEVELS)
def test_log_level(level: str, end: str, tmp_path: Path, site: dict[str, str]) -> None:
    """What becomes of a report is logged once, if its level is, and never on tbot's streams."""
    answer, hidden, says = ENDS[end]
    log = tmp_path / "log"
    with (
        Standin(answer) as collector,
        Command(
            *ASKING,
            options=(f"--log={log}",),
            environ=site | to(collector.endpoint) | {"OTEL_LOG_LEVEL": level, "TEST_HIDES": hidden},
        ) as command,
    ):
        status, _, stderr = command.ends()
        command.leaves()
    assert (status, stderr) == (7, "err\n")
    first, *more = logged(log) or [""]
    assert first.startswith(says if end in LEVELS[level] else "")
    assert bool(first) == (end in LEVELS[level])
    # The details are for whoever asks for them.
    assert ("Traceback" in "".join(more)) == bool(more) == (level == "debug" and end == "broken")
    assert log.stat().st_mode & 0o777 == 0o600


def no_reader(folder: Path) -> Path:
    """A pipe that nobody reads."""
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


UNOPENED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no folder": (lambda folder: folder / "none" / "log", "No such file or directory"),
    "a folder": (lambda folder: folder, "Is a directory"),
    "no reader": (no_reader, "No such device or address"),
}


@pytest.mark.parametrize("name", UNOPENED)
def test_log_is_not_opened(name: str, tmp_path: Path) -> None:
    """Of a log that cannot be opened there is one line, and nothing else is different."""
    make, said = UNOPENED[name]
    with (
        Standin(Answer()) as collector,
        Command(
            *ASKING,
            options=("--log", str(make(tmp_path))),
            environ=TESTS | to(collector.endpoint),
        ) as command,
    ):
        status, _, stderr = command.ends()
        command.leaves()
    assert (status, stderr) == (7, f"tbot-otel run: --log: {said}\nerr\n")
    # The report is delivered without it.
    assert len(collector.requests) == 1


UNWRITTEN = {
    "full": ("/dev/full", ()),
    "no larger": ("log", ("prlimit", "--fsize=0:")),
    "pipe": ("pipe", ()),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_log_is_not_written(name: str, tmp_path: Path) -> None:
    """A log that takes no line keeps nothing from the Collector, nor the answer from tbot."""
    log, around = UNWRITTEN[name]
    reader = os.open(no_reader(tmp_path), os.O_RDONLY | os.O_NONBLOCK)
    with (
        Standin(Answer()) as collector,
        Command(
            *WAITS,
            *ASKING,
            options=("--log", str(tmp_path / log)),
            around=around,
            environ=TESTS | to(collector.endpoint),
        ) as command,
    ):
        command.says()
        os.close(reader)
        status, stdout, stderr = command.ends()
        command.leaves()
    assert (status, stdout.split()[-1], stderr) == (7, "200", "err\n")
    assert len(collector.requests) == 1


SAYS = ("sh", "-c", f'echo "${ADDRESS}"; exit 7')
MISSING = f"{NOT_REPORTED}it needs the extra: pip install 'tbot-otel[run]'\n"
OWN = "http://127.0.0.1:9/own"
UNFORWARDED = {
    "no connectrpc": ({"TEST_HIDES": "connectrpc"}, MISSING),
    "no waitress": ({"TEST_HIDES": "waitress"}, MISSING),
    "own address": (
        {ADDRESS: OWN},
        f"tbot-otel run: {ADDRESS} is set already: tbot's report goes there\n",
    ),
    "unknown protocol": ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"}, ""),
    "no http/json": (
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "TEST_HIDES": "opentelemetry.exporter.otlp.json",
        },
        "",
    ),
}


@pytest.mark.parametrize("name", UNFORWARDED)
def test_not_forwarded(name: str, site: dict[str, str]) -> None:
    """Where nothing can be sent, or an address is set, there is no forwarder."""
    variables, said = UNFORWARDED[name]
    with Command(*SAYS, environ=site | variables) as command:
        assert command.ends() == (7, f"{variables.get(ADDRESS, '')}\n", said)
        assert not command.ours()


@pytest.mark.parametrize(
    ("word", "status"), [("true", 0), ("false", 1), ("/", 126), ("/nonexistent", 127)]
)
def test_stderr_takes_nothing(word: str, status: int) -> None:
    """A standard error that takes no line changes nothing of the status."""
    around = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    with Command(word, around=around, environ={ADDRESS: OWN}) as command:
        assert command.ends() == (status, "", "")
