"""The pytest plugin for programs that record starts, and its example."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.paths import ROOT, TESTS
from support.processes import free_port, wait_until
from support.standins import HTTPStandin, Response
from tbot_otel import StartEvent, Status, record_start
from tbot_otel.testing import REFUSALS, Auditor, StartReceiver

pytest_plugins = ["pytester", "tbot_otel.testing"]

EXAMPLE = ROOT / "examples" / "testing"
OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

SILENT_HELPER = """
import json, os, subprocess, sys
from tbot_otel import StartEvent, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
subprocess.run(["true"], check=True, stdin=subprocess.DEVNULL)
subprocess.run([sys.executable, "-c", "print('tbot runs')"], check=True)
print(open("/etc/hosts").readable())
"""


def helper(code: str, *words: str) -> list[str]:
    """The command of a helper that does more than a silent one."""
    return [sys.executable, "-c", SILENT_HELPER + code, *words]


def problems(command: list[str], **arguments: object) -> list[str]:
    """Run a command that has to be silent, and return the lines of the failure after the first."""
    with pytest.raises(AssertionError) as caught:
        Auditor().assert_silent(command, **arguments)  # type: ignore[arg-type]
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"not silent: {sys.executable} -c ")
    return [line.removeprefix("  ") for line in lines]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_silent_helper(tbot_silence: Auditor, refusal: Mapping[str, str]) -> None:
    """A helper that starts processes and reads files is silent without consent."""
    report = tbot_silence.assert_silent(helper(""), env=refusal)
    assert (report.returncode, report.stdout, report.stderr) == (0, "tbot runs\nTrue\n", "")
    assert report.names("process") == [
        "subprocess.Popen true",
        f"subprocess.Popen {sys.executable} -c print('tbot runs')",
    ]


SOCKET = """
import socket
with socket.socket() as s:
    s.connect_ex(("127.0.0.1", 9))
"""
DATAGRAM = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    s.sendto(b"", ("::1", 9))
"""
NATIVE_THREAD = """
import ctypes
function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(0)
sleep = ctypes.cast(ctypes.CDLL(None).pause, ctypes.c_void_p)
ctypes.CDLL(None).pthread_create(ctypes.byref(ctypes.c_ulong()), None, sleep, None)
"""
NATIVE_THREAD_IN_PYTHON = """
import ctypes
library, thread = ctypes.CDLL(None), ctypes.c_ulong()
function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: None)
library.pthread_create(ctypes.byref(thread), None, function, None)
library.pthread_join(thread, None)
"""
NATIVE_SOCKETS = """
import ctypes
library = ctypes.CDLL(None)
library.socket(2, 1, 0)
library.listen(library.socket(2, 1, 0), 1)
"""
NATIVE_FILE = """
import ctypes
ctypes.CDLL(None).open(b"/dev/full", os.O_RDWR)
"""
THREAD = """
import threading
def upload(): sys.version
thread = threading.Thread(target=upload)
thread.start()
thread.join()
"""
RAW_THREAD = """
import _thread, time
_thread.start_new_thread(time.sleep, (0,))
time.sleep(0.1)
"""
BACKGROUND = """
subprocess.Popen([sys.executable, "-c", '''
import os, time, sys
os.setsid()
time.sleep(0.5)
print("late", file=sys.stderr)
'''])
"""
FORK = """
if os.fork() == 0:
    os.mkdir("new")
    os._exit(0)
os.wait()
"""
EXEC = """
os.execv(sys.executable, [sys.executable, "-c", "import os; os.mkdir('new')"])
"""
CLOSED_DESCRIPTORS = """
os.closerange(3, 256)
open("new", "w").close()
"""
THREAD_NAMES = (
    ["thread: __main__.upload"]
    if sys.version_info >= (3, 12)
    else ["thread: a thread that ran Python"]
)
RAW_THREAD_NAMES = (
    ["thread: time.sleep"] if sys.version_info >= (3, 12) else ["thread: a thread that ran Python"]
)
IN_FORK = textwrap.shorten(" ".join(helper(FORK)), 100, placeholder=" ...")
IN_CHILD = f"{sys.executable} -c import os; os.mkdir('new')"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(SOCKET, ["socket: open (IPv4)", "socket: connect 127.0.0.1:9"], id="socket"),
        pytest.param(DATAGRAM, ["socket: open (IPv6)", "socket: sendto ::1:9"], id="datagram"),
        pytest.param(
            "import socket; socket.getaddrinfo('127.0.0.1', 4318)",
            ["socket: getaddrinfo 127.0.0.1:4318"],
            id="lookup",
        ),
        pytest.param(THREAD, THREAD_NAMES, id="thread"),
        pytest.param(RAW_THREAD, RAW_THREAD_NAMES, id="raw thread"),
        pytest.param(
            NATIVE_THREAD_IN_PYTHON, ["thread: a thread that ran Python"], id="native thread"
        ),
        pytest.param("open('new', 'a')", ["file: open new"], id="file"),
        pytest.param("os.mkdir('new')", ["file: os.mkdir new"], id="folder"),
        pytest.param(
            "import sqlite3; sqlite3.connect('new').close()",
            ["file: sqlite3.connect new"],
            id="database",
        ),
        pytest.param(NATIVE_FILE, ["file: /dev/full is open"], id="native file"),
        pytest.param(
            "import opentelemetry.version",
            ["import: opentelemetry", "import: opentelemetry.version"],
            id="import",
        ),
        pytest.param(
            "import opentelemetry.version; del sys.modules['opentelemetry.version']",
            ["import: opentelemetry", "import: opentelemetry.version"],
            id="hidden import",
        ),
        pytest.param("print('a'); print('b', file=sys.stderr)", ["stderr: b"], id="message"),
        pytest.param(BACKGROUND, ["stderr: late"], id="background"),
        pytest.param(FORK, [f"file: os.mkdir new (in: {IN_FORK})"], id="fork"),
        pytest.param(EXEC, [f"file: os.mkdir new (in: {IN_CHILD})"], id="exec"),
        pytest.param(CLOSED_DESCRIPTORS, ["file: open new"], id="closed descriptors"),
        pytest.param(
            "subprocess.run([sys.executable, '-c', \"import os; os.mkdir('new')\"])",
            [f"file: os.mkdir new (in: {IN_CHILD})"],
            id="child",
        ),
        pytest.param("sys.exit(3)", ["exit status 3, expected 0"], id="status"),
    ],
)
def test_loud_helper(code: str, expected: list[str], tmp_path: Path) -> None:
    """The failure names everything that a helper did, and nothing else."""
    assert problems(helper(code), cwd=tmp_path) == expected


def test_native_code(tmp_path: Path) -> None:
    """What native code has started or opened is found where it still exists at the exit."""
    (thread,) = problems(helper(NATIVE_THREAD), cwd=tmp_path)
    assert thread.startswith("thread: ")
    assert thread.endswith(" (native)")
    opened, listening = problems(helper(NATIVE_SOCKETS), cwd=tmp_path)
    assert re.fullmatch(r"socket: socket:\[\d+\] is open \(not connected\)", opened)
    assert re.fullmatch(r"socket: socket:\[\d+\] is open \(tcp\)", listening)


GRPC = """
import grpc
channel = grpc.insecure_channel("127.0.0.1:PORT")
try:
    channel.unary_unary("/a/b")(b"", timeout=0.1)
except grpc.RpcError:
    pass
"""


def test_grpc() -> None:
    """The threads of gRPC are found: no audit event shows them."""
    found = problems(helper(GRPC.replace("PORT", str(free_port()))))
    assert any(line.startswith("thread: ") and " (native)" in line for line in found)


def test_record_start_with_consent() -> None:
    """A helper that ignores a refusal fails for every reason at once."""
    with HTTPStandin(Response()) as collector:
        code = (
            f"os.environ.update({OPT_IN}='1', OTEL_EXPORTER_OTLP_ENDPOINT={collector.endpoint!r})"
        )
        command = [sys.executable, "-c", f"import os\n{code}\n{SILENT_HELPER}session.flush(60)"]
        found = problems(command, env={OPT_IN: "0"})
    assert len(collector.requests) == 1
    assert f"socket: connect {collector.endpoint.removeprefix('http://')}" in found
    # CPython 3.11 does not tell the name.
    names = ("thread: tbot_otel.sender._Sender._run", "thread: a thread that ran Python")
    assert {*names} & {*found}
    assert "import: opentelemetry.sdk" in found


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 15)"])
def test_no_exit_handlers(end: str) -> None:
    """A program that ends without its exit handlers is not called silent."""
    status = 0 if "_exit" in end else -15
    (problem,) = problems(helper(end), returncode=status)
    assert problem.startswith("audit: the program ended without its exit handlers")


def test_allow(tmp_path: Path) -> None:
    """What a helper does on its own account can be allowed."""
    code = "print('ready', file=sys.stderr); open('new.yaml', 'w').close(); os.mkdir('new')"
    command = helper(code)
    allow = ["stderr: ready", "file: open *.yaml", "file: os.mkdir /*"]
    assert problems(command, cwd=tmp_path, allow=allow) == ["file: os.mkdir new"]
    (tmp_path / "new").rmdir()
    allow[-1] = "file: os.mkdir new"
    report = Auditor().assert_silent(command, cwd=tmp_path, allow=allow)
    assert report.stderr == "ready\n"
    assert "open new.yaml" in report.names("file")


@pytest.mark.parametrize(
    "command", [["true"], [sys.executable, "-I", "-c", ""]], ids=["true", "-I"]
)
def test_not_audited(command: list[str]) -> None:
    """A program that cannot be audited is an error."""
    with pytest.raises(RuntimeError, match="no audit; expected a Python program"):
        Auditor().run(command)


def test_timeout(tmp_path: Path) -> None:
    """A child that outlives the helper for too long is an error, and is killed."""
    code = "print(subprocess.Popen(['sleep', '600']).pid, file=open('pid', 'w'))"
    with pytest.raises(subprocess.TimeoutExpired):
        Auditor().run(helper(code), cwd=tmp_path, timeout=5)
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/status")
    # Without a parent that waits for it, it remains as a zombie.
    wait_until(lambda: not status.exists() or "\nState:\tZ" in status.read_text())


def test_sitecustomize(tmp_path: Path) -> None:
    """The machine's own sitecustomize runs too."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.from_machine = True")
    code = "print(sys.from_machine, __import__('sitecustomize').__file__)"
    report = Auditor().assert_silent(helper(code), env={"PYTHONPATH": str(tmp_path)})
    assert report.stdout.endswith(f"True {tmp_path / 'sitecustomize.py'}\n")


HOSTILE = {
    OPT_IN: "1",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
    "_TBOT_TELEMETRY_HELPER": "example-helper",
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is opted in, with settings for another Collector, and a proxy."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("hostile")
def test_silence_on_opted_in_machine(tbot_silence: Auditor) -> None:
    """The settings of the machine do not reach the program."""
    code = "print([name for name in os.environ if name.startswith(('OTEL_', 'TELEPORT_'))])"
    assert tbot_silence.assert_silent(helper(code)).stdout.endswith("\n[]\n")


@pytest.mark.usefixtures("hostile")
def test_starts(tbot_starts: StartReceiver) -> None:
    """The starts of this process and of a child arrive, as policy permits them, in order."""
    assert tbot_starts.received == []
    event = StartEvent(run_mode="one-shot", version="v18.3.0-acme", helper="a-secret")
    session = record_start(event)
    assert session.flush(60).status is Status.DELIVERED
    # A busy machine may need longer than the process waits at its exit.
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    subprocess.run(helper("session.flush(60)"), check=True, env=environ)
    first, second = tbot_starts.wait(2)
    assert first.event_name == second.event_name == "tbot.start"
    assert first.attributes == {
        "tbot.run_mode": "one-shot",
        "tbot.version": "18.3.0",
        "tbot.join_type": "",
        "tbot.helper": "_OTHER",
        "tbot.destinations_other": 0,
        "tbot.destinations_database": 0,
        "tbot.destinations_kubernetes": 0,
        "tbot.destinations_application": 0,
    }
    assert second.attributes["tbot.run_mode"] == "daemon"
    assert "tbot.helper" not in second.attributes
    assert first.resource_attributes["service.name"] == "tbot"
    assert first.session_id == session.id != second.session_id
    assert first.timestamp == session._start.time
    assert tbot_starts.received == [first, second]


TBOT = """
import os, sys, uuid
sys.path.insert(0, TESTS)
from support import agent
report = agent.build_request(str(uuid.uuid4()), oneshot=True)
print(agent.call_with_runtime(os.environ["TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"], report))
""".replace("TESTS", repr(str(TESTS)))


def test_start_under_run(tbot_starts: StartReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of a tbot under `run` arrives, and that of another tbot stays on the machine."""
    tbot = [sys.executable, "-c", TBOT]
    done = subprocess.run(tbot, check=True, capture_output=True, text=True)
    assert done.stdout == "unimplemented\n"
    monkeypatch.delenv("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS")
    command = [sys.executable, "-m", "tbot_otel", "run", "--", *tbot]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (start,) = tbot_starts.wait()
    assert start.attributes["tbot.run_mode"] == "one-shot"


def test_too_few_starts(tbot_starts: StartReceiver) -> None:
    """A start that does not arrive fails the test."""
    with pytest.raises(AssertionError, match=r"^expected 1 starts within 0.1 seconds, received 0$"):
        tbot_starts.wait(timeout=0.1)


def test_other_records(tbot_starts: StartReceiver) -> None:
    """A helper's own log records, and its traces, are no starts."""
    code = """
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
provider = LoggerProvider()
provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter()))
provider.get_logger("helper").emit(event_name="helper.ready", body="ready")
session.flush(60)
"""
    subprocess.run(helper(code), check=True)
    assert len(tbot_starts.wait()) == 1


# Tests as a user writes them.
USERS_CONFTEST = "pytest_plugins = ['tbot_otel.testing']\n"
USERS_TESTS = {
    "test_pending_start": """
from tbot_otel import StartEvent, record_start

def test(tbot_starts):
    record_start(StartEvent(run_mode="daemon", version="18.3.0"))
""",
    "test_environment": """
import os

before = dict(os.environ)

def test(tbot_starts):
    assert before["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=secret"
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in os.environ

def test_restored():
    for values in (before, os.environ):
        values.pop("PYTEST_CURRENT_TEST", None)
        values.pop("PYTEST_VERSION", None)
    assert before == dict(os.environ)
""",
    "test_elsewhere": """
import sys
import pytest

@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

def test(tbot_silence):
    raise AssertionError
""",
    "test_loud": """
import sys

def test(tbot_silence):
    tbot_silence.assert_silent([sys.executable, "-c", "import os; os.mkdir('new')"])
""",
}


def test_users_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixtures do what their page says, in a process of its own, with warnings as errors.

    - A start that is sent after its test does not go to the machine's own Collector.
    - The settings of the machine are removed during a test, and restored after it.
    - Where the audit is not possible, its tests are skipped, and say why.
    - A test that fails prints what the helper did, and no code of this package.
    """
    pytester.makeconftest(USERS_CONFTEST)
    pytester.makepyfile(**USERS_TESTS)
    with HTTPStandin(Response()) as collector:
        environ = HOSTILE | {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"}
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        result = pytester.runpytest_subprocess("-rs", "-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, skipped=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * AssertionError: not silent: *",
            "E *file: os.mkdir new",
            "SKIPPED *: tbot_silence needs CPython on Linux: *",
        ]
    )
    result.stdout.no_fnmatch_line("*_silence.py*")
    assert collector.requests == []


@pytest.mark.usefixtures("hostile")
def test_example(tmp_path: Path) -> None:
    """The tests of the example pass, as its reader runs them."""
    folder = tmp_path / "testing"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
