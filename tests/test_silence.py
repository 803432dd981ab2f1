"""Silence: without consent, nothing happens.

Each case is a process of its own, audited from its first line to its exit. ``/proc`` shows what
Python's audit events do not: native threads, and sockets that no Python code opened.
"""

import ast
import functools
import pkgutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import tbot_otel
from support.otlp_files import make_start, to_line
from support.processes import run_python
from support.standins import GRPCStandin, HTTPStandin, Response

pytestmark = pytest.mark.integration

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

AUDITOR = """
import _thread, atexit, os, sys

events, thread_events, threads, modules = [], [], [], set(sys.modules)

def descriptors():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError:
            pass  # the descriptor of the listing itself
    return found

before = descriptors()

def hook(event, arguments):
    reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event.startswith("_thread."):
        thread_events.append(event)
    elif event not in harmless and not reads:
        events.append(event)

def record_threads(start):
    def start_recorded(function, *arguments, **options):
        target = getattr(getattr(function, "__self__", None), "_target", None) or function
        threads.append(f"{target.__module__}.{target.__qualname__}")
        return start(function, *arguments, **options)
    return start_recorded

for name in ("start_new", "start_new_thread", "start_joinable_thread"):
    if hasattr(_thread, name):
        setattr(_thread, name, record_threads(getattr(_thread, name)))

def report():
    # Python 3.12 and later have an event for each thread. One without a record is reported.
    happened = [*events, *thread_events[len(threads):]]
    import resource, time
    deadline = time.monotonic() + 10
    # A joined thread can take a moment to end.
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        os.waitpid(-1, os.WNOHANG)
        child = True
    except ChildProcessError:
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    foreign = [
        name for name in sorted(set(sys.modules) - modules)
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "tbot_otel"}
    ]
    tasks = len(os.listdir("/proc/self/task"))
    print((happened, threads, tasks, sorted(descriptors() - before), child, foreign))

atexit.register(report)  # the last handler to run
sys.addaudithook(hook)
"""

# Imports, classes, entry points and JSON, without this package.
BASELINE = """
import argparse, collections, enum, importlib.metadata, json, logging, typing
collections.namedtuple("Pair", "first second")
importlib.metadata.entry_points()
json.dumps([{}], indent=2)
"""
SDK_BASELINE = BASELINE + "import opentelemetry.sdk._logs.export"


class Audit(NamedTuple):
    """The actions of a process; by default, none."""

    events: list[str] = []  # noqa: RUF012 - never changed
    threads: list[str] = []  # noqa: RUF012 - never changed
    tasks: int = 1
    descriptors: list[str] = []  # noqa: RUF012 - never changed
    child: bool = False
    modules: list[str] = []  # noqa: RUF012 - never changed


def audit_process(
    script: str, environ: dict[str, str], status: int = 0, baseline: str = BASELINE
) -> Audit:
    """Run a script under audit, and return its actions.

    Args:
        script: The script.
        environ: Its variables.
        status: The expected exit status.
        baseline: A script whose events are harmless; empty if none are.
    """
    harmless = baseline_events(baseline) if baseline else set[str]()
    # The interpreter would write the modules' bytecode to files.
    environ = {"PYTHONDONTWRITEBYTECODE": "1", **environ}
    done = run_python("-c", f"harmless = {harmless}\n{AUDITOR}{script}", timeout=120, **environ)
    assert done.returncode == status, done.stderr
    return Audit(*ast.literal_eval(done.stdout.splitlines()[-1]))


@functools.cache
def baseline_events(script: str) -> set[str]:
    """Return the names of the events that this interpreter raises in a script."""
    return {*audit_process(script, {}, baseline="").events}


TRANSPORTS = ("grpc.", "requests.", "urllib3.")
OTLP = (*TRANSPORTS, "google.", "opentelemetry.exporter.", "opentelemetry.proto.")


def assert_idle(
    audit: Audit, absent: tuple[str, ...] = OTLP, expected_events: list[str] | None = None
) -> None:
    """Check that a process with the SDK did nothing and did not import the absent modules."""
    # The SDK starts threads for its batches, and when it is imported, for its resource detectors.
    threads = [
        name
        for name in audit.threads
        if not name.startswith(("opentelemetry.sdk.", "concurrent.futures.thread."))
    ]
    modules = [name for name in audit.modules if f"{name}.".startswith(absent)]
    assert audit._replace(threads=threads, modules=modules) == Audit(events=expected_events or [])


RECORD_START = """
from tbot_otel import StartEvent, Status, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
outcome = session.flush(30)
"""
RECORD_START_REFUSED = RECORD_START + "assert outcome.status is Status.REFUSED"
COMMAND = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="tbot-otel")
sys.exit(command.load()({words!r}))
"""

TRUE_VALUES = ("1", "t", "T", "TRUE", "true", "True")
FALSE_VALUES = ("", "0", "f", "F", "FALSE", "false", "False")
INVALID_VALUES = (
    *("yes", "on", "y", " 1", "1 ", "1\n", "tRUE", "2", "-1", "01", "1.0", "tr\u00fce", "\uff11"),
)
WITHOUT_CONSENT = [
    {},
    *({OPT_IN: value} for value in (*FALSE_VALUES, *INVALID_VALUES)),
    *({OPT_IN: value, "OTEL_SDK_DISABLED": "true"} for value in TRUE_VALUES),
    *({OPT_IN: "1", "OTEL_SDK_DISABLED": value} for value in ("TRUE", "True", " true ")),
    *({OPT_IN: value, "DO_NOT_TRACK": "1"} for value in TRUE_VALUES),
    *({OPT_IN: "1", "DO_NOT_TRACK": value} for value in ("true", "yes", "anything", "False", " ")),
]
WITH_CONSENT = {OPT_IN: "1"}


def environ_id(environ: dict[str, str]) -> str:
    """Return the id of a case with these variables."""
    return ascii(" ".join(f"{name}={value}" for name, value in environ.items()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tbot.yaml, and a tbot that prints its version."""
    folder = tmp_path_factory.mktemp("tbot")
    (folder / "tbot.yaml").write_text("version: v2\noutputs: [{type: identity}]\n")
    tbot = folder / "tbot"
    tbot.write_text("#!/bin/sh\necho 'Teleport v18.3.0 git: go1.24.9'\n")
    tbot.chmod(0o755)
    return folder


def test_baselines_are_harmless() -> None:
    """The baselines inspect the interpreter's own objects and list folders, and do nothing else."""
    for baseline in (BASELINE, SDK_BASELINE):
        events = baseline_events(baseline)
        assert "import" in events
        acting = {
            event
            for event in events
            if event.partition(".")[0]
            not in ("builtins", "code", "compile", "exec", "import", "marshal", "object", "sys")
        }
        assert acting <= {"os.listdir", "os.scandir"}


@pytest.mark.parametrize("package", ["tbot_otel", "tbot_otel.run", "tbot_otel.otlp"])
def test_import_of_package(package: str) -> None:
    """Importing these packages imports no other module."""
    script = "import sys; bare = {*sys.modules}; import PACKAGE; print(*{*sys.modules} - bare)"
    done = run_python("-c", script.replace("PACKAGE", package))
    assert ({*done.stdout.split()}, done.stderr) == ({"tbot_otel", package}, "")


# Modules that import OpenTelemetry or PyYAML, but no OTLP exporter.
LIBRARY_MODULES = ["bot_config", "exporter", "gate", "processor", "record", "recording", "resource"]
# Modules that a process imports only with consent, or for a report of another process.
SENDING_MODULES = [
    *("connect", "connect.tbot_pb", "otlp.batch", "otlp.encoding", "otlp.grpc", "otlp.http"),
    "run.server",
    "otlp.requests_session",
    *("relay.app", "relay.batch", "relay.committer", "relay.exporting", "relay.metrics"),
    *("relay.log", "relay.problems", "relay.server"),
]
# Modules of the report, whose libraries start threads. The report sends nothing.
REPORT_MODULES = [
    "report.count",
    "report.output",
    "report.parse",
    "report.reader",
    "report.workers",
]
STANDARD_LIBRARY_MODULES = [
    name
    for module in pkgutil.walk_packages(tbot_otel.__path__, "tbot_otel.")
    if (name := module.name.removeprefix("tbot_otel."))
    not in (*LIBRARY_MODULES, *SENDING_MODULES, *REPORT_MODULES, "__main__")
]


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
@pytest.mark.parametrize("module", STANDARD_LIBRARY_MODULES)
def test_import_is_silent(module: str, environ: dict[str, str]) -> None:
    """A module that a process imports without consent imports only the standard library."""
    assert audit_process(f"import tbot_otel.{module}", environ) == Audit()


@pytest.mark.parametrize("module", LIBRARY_MODULES)
def test_import_does_nothing(module: str) -> None:
    """The other modules that no record has to pass do nothing when they are imported."""
    assert_idle(audit_process(f"import tbot_otel.{module}", WITH_CONSENT, baseline=SDK_BASELINE))


@pytest.mark.parametrize("environ", WITHOUT_CONSENT, ids=environ_id)
@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(RECORD_START_REFUSED, 0, id="record_start"),
        pytest.param(COMMAND.format(words=["emit", "--config", "FOLDER/tbot.yaml"]), 0, id="emit"),
        pytest.param(COMMAND.format(words=["status", "--check"]), 3, id="status"),
    ],
)
def test_without_consent(script: str, status: int, environ: dict[str, str], folder: Path) -> None:
    """Without consent: no socket, file, thread or child process, and no OpenTelemetry."""
    script = script.replace("FOLDER", str(folder))
    assert audit_process(script, {"PATH": str(folder), **environ}, status) == Audit()


# If the command cannot be run, the process remains and prints its audit.
RUN = COMMAND.format(words=["run", "--", "/dev/null"])
ONLY_EXEC = Audit(events=["os.exec"])
ONLY_PUTENV_AND_EXEC = Audit(events=["os.putenv", "os.exec"])
# In the C locale, the interpreter sets LC_CTYPE, and `run` removes it.
RUN_ENVIRON = {"LANG": "C.UTF-8"}


@pytest.mark.parametrize("environ", WITHOUT_CONSENT, ids=environ_id)
def test_run_without_consent(environ: dict[str, str]) -> None:
    """Without consent, `run` executes the command and does nothing else.

    If another variable refuses, it also tells the command not to report.
    """
    opts_in = environ.get(OPT_IN, "") in ("1", "t", "T", "true", "TRUE", "True")
    expected = ONLY_PUTENV_AND_EXEC if opts_in else ONLY_EXEC
    assert audit_process(RUN, RUN_ENVIRON | environ, 126) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"}, ONLY_PUTENV_AND_EXEC),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/xml"}, ONLY_PUTENV_AND_EXEC),
        ({"TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS": "https://relay.example"}, ONLY_EXEC),
    ],
    ids=["protocol", "protocol of logs", "address"],
)
def test_run_without_forwarder(environ: dict[str, str], expected: Audit) -> None:
    """With consent, but without a use for the forwarder, `run` only executes the command."""
    assert audit_process(RUN, RUN_ENVIRON | WITH_CONSENT | environ, 126) == expected


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
@pytest.mark.parametrize("option", [[], ["--markdown"], ["--json"]], ids=str)
def test_events(option: list[str], environ: dict[str, str]) -> None:
    """`events` needs only the standard library, with consent or without."""
    assert audit_process(COMMAND.format(words=["events", *option]), environ) == Audit()


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
@pytest.mark.parametrize("command", [["preview", "--tbot-version", "18.3.0"], ["status"]], ids=str)
def test_preview_and_status(command: list[str], environ: dict[str, str]) -> None:
    """`preview` and `status` open, write and start nothing, with consent or without."""
    status = 3 if command == ["status"] and not environ else 0
    script = COMMAND.format(words=command)
    assert_idle(audit_process(script, environ, status, baseline=SDK_BASELINE), TRANSPORTS)


# The library of the charts has a pair of sockets for its signals, which has no address.
CHECK_SOCKETS = """
import atexit, os

def check():
    sockets = "".join(
        open("/proc/self/net/" + name).read() for name in ("tcp", "tcp6", "udp", "udp6")
    )
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            continue
        if target.startswith("socket:[") and f" {target[8:-1]} " in sockets:
            os._exit(9)

atexit.register(check)
"""


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
@pytest.mark.parametrize("form", ["terminal", "html", "json", "csv", "parquet"])
def test_report(form: str, environ: dict[str, str], tmp_path: Path) -> None:
    """`report` opens no socket, and imports no OpenTelemetry, with consent or without."""
    file = tmp_path / "starts.jsonl"
    file.write_text(to_line(make_start()))
    words = ["report", str(file), "--format", form, "-o", str(tmp_path / "out")]
    script = CHECK_SOCKETS + COMMAND.format(words=words)
    audit = audit_process(script, environ, baseline="")
    opened = [
        name for name in audit.events if name.startswith(("socket.", "subprocess.", "os.exec"))
    ]
    modules = [name for name in audit.modules if f"{name}.".startswith((*OTLP, "opentelemetry."))]
    assert (opened, modules, audit.child) == ([], [], False)
    assert "open" in audit.events


def test_sockets_are_found() -> None:
    """The check for sockets of the network finds one."""
    script = CHECK_SOCKETS + "import socket; server = socket.create_server(('127.0.0.1', 0))"
    assert run_python("-c", script).returncode == 9


PIPELINE = """
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import {processor}
from tbot_otel import TbotLogExporter
provider = LoggerProvider()
provider.add_log_record_processor({processor}(TbotLogExporter()))
"""
AUTOCONFIGURE = """
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize(swallow_exceptions=False)
from opentelemetry._logs import get_logger_provider
provider = get_logger_provider()
"""
PIPELINES = {
    "batch": PIPELINE.format(processor="BatchLogRecordProcessor"),
    "simple": PIPELINE.format(processor="SimpleLogRecordProcessor"),
    "autoconfigured": AUTOCONFIGURE,
}
AUTOCONFIGURATION = {
    "OTEL_LOGS_EXPORTER": "tbot",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests",
    "PYTHONWARNINGS": "ignore",  # the oldest SDK imports deprecated names
}
EMIT = """
provider.get_logger("a library").emit(event_name={name!r}, attributes={{"tbot.run_mode": "daemon"}})
"""
RECORD_INTO_PIPELINE = """
from tbot_otel import StartEvent, record_start
record_start(StartEvent(run_mode="daemon", version="18.3.0"), logger_provider=provider)
"""


@functools.cache
def pipeline_events(pipeline: str) -> list[str]:
    """Return the events of a pipeline without an exporter of this package."""
    script = PIPELINES[pipeline].replace("tbot_otel", "opentelemetry.sdk._logs.export")
    script = script.replace("TbotLogExporter", "ConsoleLogRecordExporter")
    environ = AUTOCONFIGURATION | {"OTEL_LOGS_EXPORTER": "console"}
    return audit_process(script, environ, baseline=SDK_BASELINE).events


def assert_pipeline_idle(script: str, pipeline: str, environ: dict[str, str]) -> None:
    """Check that a script does no more in a pipeline than the pipeline without our exporter."""
    audit = audit_process(
        PIPELINES[pipeline] + script, AUTOCONFIGURATION | environ, baseline=SDK_BASELINE
    )
    assert_idle(audit, expected_events=pipeline_events(pipeline))


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {OPT_IN: "yes"},
        {OPT_IN: "1", "OTEL_SDK_DISABLED": "TRUE"},
        {OPT_IN: "1", "DO_NOT_TRACK": "anything"},
    ],
    ids=environ_id,
)
def test_pipeline_without_consent(pipeline: str, environ: dict[str, str]) -> None:
    """Without consent, a start that is emitted into a pipeline has no effect."""
    assert_pipeline_idle(EMIT.format(name="tbot.start") + RECORD_INTO_PIPELINE, pipeline, environ)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipeline_with_foreign_records(pipeline: str) -> None:
    """With consent, the records of other libraries have no effect."""
    script = EMIT.format(name=None) + EMIT.format(name="a.start")
    assert_pipeline_idle(script, pipeline, WITH_CONSENT)


def test_consent_is_withdrawn() -> None:
    """A start that is still in a batch when consent ends has no effect."""
    withdraw = f"os.environ.pop({OPT_IN!r}); events.remove('os.unsetenv')"
    assert_pipeline_idle(EMIT.format(name="tbot.start") + withdraw, "batch", WITH_CONSENT)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc", "http/xml"])
def test_constructor(protocol: str) -> None:
    """With consent, an exporter without a record has opened and imported nothing."""
    script = f"from tbot_otel import TbotLogExporter; it = TbotLogExporter(protocol={protocol!r})"
    environ = WITH_CONSENT | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    assert_idle(audit_process(script, environ, baseline=SDK_BASELINE))


# The tests below show that the audit can fail.


def test_audit_sees_record_start() -> None:
    """With consent, the audit sees the connection, the thread and the imports."""
    with HTTPStandin(Response()) as standin:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint}
        audit = audit_process(RECORD_START, WITH_CONSENT | endpoint)
    assert "socket.connect" in audit.events
    assert any(name.startswith("tbot_otel.") for name in audit.threads)
    assert {"opentelemetry", "google.protobuf"} <= {*audit.modules}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_audit_sees_pipeline(pipeline: str) -> None:
    """With consent, the audit sees a pipeline's connection."""
    script = PIPELINES[pipeline] + EMIT.format(name="tbot.start")
    with HTTPStandin(Response()) as standin:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # the distribution's default is grpc
        }
        audit = audit_process(
            script, AUTOCONFIGURATION | WITH_CONSENT | environ, baseline=SDK_BASELINE
        )
    assert "socket.connect" in audit.events
    assert "socket.connect" not in pipeline_events(pipeline)


def test_audit_sees_grpc() -> None:
    """The audit sees threads and sockets that Python does not know."""
    script = PIPELINES["simple"].replace(
        "LoggerProvider()", "LoggerProvider(shutdown_on_exit=False)"
    )
    with GRPCStandin() as standin:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        audit = audit_process(script + EMIT.format(name="tbot.start"), WITH_CONSENT | environ)
    assert audit.tasks > 1
    assert any(name.startswith("socket:") for name in audit.descriptors)


def test_audit_sees_run() -> None:
    """With consent, the audit sees the socket and the fork of `run`."""
    audit = audit_process(RUN, RUN_ENVIRON | WITH_CONSENT, 126)
    assert {"socket.bind", "os.fork", "os.putenv"} <= {*audit.events}


def test_audit_sees_child_and_file(folder: Path, tmp_path: Path) -> None:
    """The audit sees the child process that prints tbot's version, and a file that is written."""
    script = COMMAND.format(words=["preview", "-o", str(tmp_path / "out.json")])
    audit = audit_process(script, {"PATH": str(folder)})
    assert {"subprocess.Popen", "open"} <= {*audit.events}
    assert audit.child


@pytest.mark.parametrize("function", ["start_new", "start_new_thread"])
def test_audit_sees_thread(function: str) -> None:
    """The audit sees a thread, and on newer interpreters one that was not recorded."""
    script = f"import _thread; _thread.{function}(print, ())\n"
    assert audit_process(script, {}).threads == ["builtins.print"]
    has_events = sys.version_info >= (3, 12)
    unrecorded = audit_process(script + "threads.clear()", {})
    assert unrecorded == Audit(events=["_thread.start_new_thread"] if has_events else [])
