"""Silence: without consent, nothing happens.

Each case is a process of its own, audited from its first line until it has exited. Linux tells
what audit events miss (native threads, sockets that no Python code opened) in ``/proc``.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

from collectors import Answer, Rotel, Standin, run

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

# What tells nobody anything; whatever else a process does is an event to look at.
AUDITOR = """
import _thread, atexit, os, sys

HARMLESS = {
    "builtins.id", "code.__new__", "compile", "exec", "import", "marshal.loads",
    "object.__delattr__", "object.__getattr__", "object.__setattr__", "os.listdir", "os.scandir",
    "sys._getframe",
}
events, threads, modules = [], [], set(sys.modules)

def descriptors():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink("/proc/self/fd/" + name))
        except FileNotFoundError:
            pass  # that of the listing itself
    return found

before = descriptors()

def hook(event, arguments):
    reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event not in HARMLESS and not reads:
        events.append(event)

def noting(start):
    def note(function, *arguments, **options):
        target = getattr(getattr(function, "__self__", None), "_target", None) or function
        threads.append(f"{target.__module__}.{target.__qualname__}")
        return start(function, *arguments, **options)
    return note

for name in ("start_new_thread", "start_joinable_thread"):
    if hasattr(_thread, name):
        setattr(_thread, name, noting(getattr(_thread, name)))

def report():
    happened = list(events)
    import resource, time
    deadline = time.monotonic() + 2
    # A thread that has been joined can take a moment to leave.
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

atexit.register(report)  # the first to register is the last to run
sys.addaudithook(hook)
"""


class Audit(NamedTuple):
    """What a process has done: nothing, unless said otherwise."""

    events: list[str] = []  # noqa: RUF012 - never changed
    threads: list[str] = []  # noqa: RUF012 - never changed
    tasks: int = 1
    descriptors: list[str] = []  # noqa: RUF012 - never changed
    child: bool = False
    modules: list[str] = []  # noqa: RUF012 - never changed


def audit(script: str, environ: dict[str, str], status: int = 0) -> Audit:
    """Run a script under audit, and return what it has done."""
    # A module's bytecode would be a file written, by the interpreter.
    environ = {"PYTHONDONTWRITEBYTECODE": "1", **environ}
    done = run("-c", AUDITOR + script, timeout=60, **environ)
    assert done.returncode == status, done.stderr
    return Audit(*ast.literal_eval(done.stdout.splitlines()[-1]))


TRANSPORTS = ("grpc.", "requests.", "urllib3.")
OTLP = (*TRANSPORTS, "google.", "opentelemetry.exporter.", "opentelemetry.proto.")


def assert_idle(done: Audit, absent: tuple[str, ...] = OTLP) -> None:
    """Check that a process with the SDK in it did nothing, and what else is not in it."""
    # The SDK's own threads: its batches, and a pool that detects resources when it is imported.
    threads = [
        name
        for name in done.threads
        if not name.startswith(("opentelemetry.sdk.", "concurrent.futures.thread."))
    ]
    modules = [name for name in done.modules if f"{name}.".startswith(absent)]
    assert done._replace(threads=threads, modules=modules) == Audit()


RECORD_START = """
from tbot_otel import StartEvent, Status, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
outcome = session.flush(5)
"""
RECORD_START_REFUSED = RECORD_START + "assert outcome.status is Status.REFUSED"
COMMAND = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="tbot-otel")
sys.exit(command.load()({words!r}))
"""

YES = ("1", "t", "T", "TRUE", "true", "True")
NO = ("", "0", "f", "F", "FALSE", "false", "False")
JUNK = ("yes", "on", "y", " 1", "1 ", "1\n", "tRUE", "2", "-1", "01", "1.0", "tr\u00fce", "\uff11")
NOT_AN_OPT_IN = [
    {},
    *({OPT_IN: value} for value in (*NO, *JUNK)),
    *({OPT_IN: value, "OTEL_SDK_DISABLED": "true"} for value in YES),
    *({OPT_IN: "1", "OTEL_SDK_DISABLED": value} for value in ("TRUE", "True", " true ")),
    *({OPT_IN: value, "DO_NOT_TRACK": "1"} for value in YES),
    *({OPT_IN: "1", "DO_NOT_TRACK": value} for value in ("true", "yes", "anything", "False", " ")),
]
OPTED_IN = {OPT_IN: "1"}


def words(environ: dict[str, str]) -> str:
    """Name a case by its environment."""
    return ascii(" ".join(f"{name}={value}" for name, value in environ.items()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tbot.yaml, and with a tbot that is a child when it is asked anything."""
    folder = tmp_path_factory.mktemp("tbot")
    (folder / "tbot.yaml").write_text("version: v2\noutputs: [{type: identity}]\n")
    tbot = folder / "tbot"
    tbot.write_text("#!/bin/sh\necho 'Teleport v18.3.0 git: go1.24.9'\n")
    tbot.chmod(0o755)
    return folder


def test_import_adds_nothing() -> None:
    """The package is one module: a bare interpreter and it."""
    script = "import sys; bare = set(sys.modules); import tbot_otel; print(set(sys.modules) - bare)"
    done = run("-c", script)
    assert (done.stdout, done.stderr) == ("{'tbot_otel'}\n", "")


@pytest.mark.parametrize("environ", [{}, OPTED_IN], ids=words)
@pytest.mark.parametrize(
    "room",
    [
        *("errors", "events", "consent", "destination", "policy", "session", "otlp", "start"),
        *("launcher", "forwarder", "cli", "cli.emit", "cli.run"),
    ],
)
def test_import_is_silent(room: str, environ: dict[str, str]) -> None:
    """A room that a process meets without consent stands on the standard library alone."""
    assert audit(f"import tbot_otel.{room}", environ) == Audit()


@pytest.mark.parametrize("room", ["record", "resource", "exporter", "bot_config", "cli.preview"])
def test_import_is_no_action(room: str) -> None:
    """Any other room does nothing when it is imported, and imports no OTLP exporter."""
    assert_idle(audit(f"import tbot_otel.{room}", OPTED_IN))


@pytest.mark.parametrize("environ", NOT_AN_OPT_IN, ids=words)
@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(RECORD_START_REFUSED, 0, id="record_start"),
        pytest.param(COMMAND.format(words=["emit", "--config", "FOLDER/tbot.yaml"]), 0, id="emit"),
        pytest.param(COMMAND.format(words=["status"]), 3, id="status"),
    ],
)
def test_without_consent(script: str, status: int, environ: dict[str, str], folder: Path) -> None:
    """Whatever is no opt-in: no socket, file, thread or child, and no OpenTelemetry."""
    script = script.replace("FOLDER", str(folder))
    assert audit(script, {"PATH": str(folder), **environ}, status) == Audit()


# A command that cannot be run leaves the process as it is, to be looked at.
RUN = COMMAND.format(words=["run", "--", "/dev/null"])
BECOMES_THE_COMMAND = Audit(events=["os.exec"])


@pytest.mark.parametrize("environ", NOT_AN_OPT_IN, ids=words)
def test_run_without_consent(environ: dict[str, str]) -> None:
    """Whatever is no opt-in: the process becomes the command, and does nothing else."""
    # In the C locale the interpreter has set a variable, which is undone.
    environ = {"LANG": "C.UTF-8", **environ}
    assert audit(RUN, environ, 126) == BECOMES_THE_COMMAND


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"},
        {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/xml"},
        {"TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS": "https://relay.example"},
    ],
    ids=words,
)
def test_run_with_nowhere_to_send(environ: dict[str, str]) -> None:
    """With consent, but nothing to do for us, the process becomes the command just so."""
    done = audit(RUN, {"LANG": "C.UTF-8", **OPTED_IN, **environ}, 126)
    assert done == BECOMES_THE_COMMAND


@pytest.mark.parametrize("environ", [{}, OPTED_IN], ids=words)
@pytest.mark.parametrize("option", [[], ["--json"]], ids=str)
def test_events(option: list[str], environ: dict[str, str]) -> None:
    """To print what can be collected takes nothing, with consent or without."""
    assert audit(COMMAND.format(words=["events", *option]), environ) == Audit()


@pytest.mark.parametrize("environ", [{}, OPTED_IN], ids=words)
@pytest.mark.parametrize("command", [["preview", "--tbot-version", "18.3.0"], ["status"]], ids=str)
def test_looking_sends_nothing(command: list[str], environ: dict[str, str]) -> None:
    """Status and preview open, write and start nothing, with consent or without."""
    status = 3 if command == ["status"] and not environ else 0
    assert_idle(audit(COMMAND.format(words=command), environ, status), TRANSPORTS)


PIPELINE = """
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import {processor}
from tbot_otel import TbotLogExporter
provider = LoggerProvider()
provider.add_log_record_processor({processor}(TbotLogExporter()))
"""
PIPELINES = {
    "batch": PIPELINE.format(processor="BatchLogRecordProcessor"),
    "simple": PIPELINE.format(processor="SimpleLogRecordProcessor"),
}
PIPELINES["autoconfigured"] = """
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize(swallow_exceptions=False)
# The distribution sets a variable, and what it is built with opens the interpreter itself.
events[:] = [event for event in events if event not in ("os.putenv", "ctypes.dlopen")]
from opentelemetry._logs import get_logger_provider
provider = get_logger_provider()
"""
AUTOCONFIGURED = {
    "OTEL_LOGS_EXPORTER": "tbot",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests",
    "PYTHONWARNINGS": "ignore",  # the oldest SDK imports what it deprecates
}
EMIT = """
provider.get_logger("a library").emit(event_name={name!r}, attributes={{"tbot.run_mode": "daemon"}})
"""
RECORD_INTO = """
from tbot_otel import StartEvent, record_start
record_start(StartEvent(run_mode="daemon", version="18.3.0"), logger_provider=provider)
"""


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    "environ",
    [
        {},
        {OPT_IN: "yes"},
        {OPT_IN: "1", "OTEL_SDK_DISABLED": "TRUE"},
        {OPT_IN: "1", "DO_NOT_TRACK": "anything"},
    ],
    ids=words,
)
def test_pipeline_without_consent(pipeline: str, environ: dict[str, str]) -> None:
    """In a configured pipeline, a start that is emitted without consent has no effect at all."""
    script = PIPELINES[pipeline] + EMIT.format(name="tbot.start") + RECORD_INTO
    assert_idle(audit(script, AUTOCONFIGURED | environ))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipeline_with_records_of_others(pipeline: str) -> None:
    """With consent, the records of other libraries have no effect either."""
    script = PIPELINES[pipeline] + EMIT.format(name=None) + EMIT.format(name="a.start")
    assert_idle(audit(script, AUTOCONFIGURED | OPTED_IN))


def test_consent_is_withdrawn() -> None:
    """A start that is still in a batch when consent ends has no effect."""
    script = PIPELINES["batch"] + EMIT.format(name="tbot.start")
    withdraw = f"os.environ.pop({OPT_IN!r}); events.remove('os.unsetenv')"
    assert_idle(audit(script + withdraw, OPTED_IN))


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc", "http/json"])
def test_constructor(protocol: str) -> None:
    """With consent, an exporter that has seen no record has opened and imported nothing."""
    script = f"from tbot_otel import TbotLogExporter; it = TbotLogExporter(protocol={protocol!r})"
    assert_idle(audit(script, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, **OPTED_IN}))


def test_audit_sees_what_record_start_does() -> None:
    """The audit can fail: with consent it sees the connection, the thread and the imports."""
    with Standin(Answer()) as collector:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        done = audit(RECORD_START, OPTED_IN | endpoint)
    assert "socket.connect" in done.events
    assert any(name.startswith("tbot_otel.") for name in done.threads)
    assert {"opentelemetry", "requests", "google.protobuf"} <= {*done.modules}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_audit_sees_what_a_pipeline_does(pipeline: str) -> None:
    """The audit can fail: with consent it sees a pipeline's connection."""
    script = PIPELINES[pipeline] + EMIT.format(name="tbot.start")
    with Standin(Answer()) as collector:
        endpoint = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # the distribution's is grpc
        }
        assert "socket.connect" in audit(script, AUTOCONFIGURED | OPTED_IN | endpoint).events


def test_audit_sees_what_grpc_does(rotel: Rotel) -> None:
    """The audit can fail: it sees threads and sockets that Python does not know of."""
    provider = "LoggerProvider(shutdown_on_exit=False)"
    script = PIPELINES["simple"].replace("LoggerProvider()", provider)
    endpoint = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": rotel.endpoint("grpc"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    done = audit(script + EMIT.format(name="tbot.start"), OPTED_IN | endpoint)
    assert done.tasks > 1
    assert any(name.startswith("socket:") for name in done.descriptors)


def test_audit_sees_what_run_does() -> None:
    """The audit can fail: with consent it sees the socket and the fork."""
    done = audit(RUN, {"LANG": "C.UTF-8", **OPTED_IN}, 126)
    assert {"socket.bind", "os.fork", "os.putenv"} <= {*done.events}


def test_audit_sees_a_child_and_a_file(folder: Path, tmp_path: Path) -> None:
    """The audit can fail: it sees tbot when it is asked for its version, and a file written."""
    script = COMMAND.format(words=["preview", "-o", str(tmp_path / "out.json")])
    done = audit(script, {"PATH": str(folder)})
    assert {"subprocess.Popen", "open"} <= {*done.events}
    assert done.child
