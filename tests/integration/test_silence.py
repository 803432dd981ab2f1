"""Silence: without consent, nothing happens.

Each process is audited from its first line to its exit. ``/proc`` shows what Python's audit events
do not: native threads, and sockets that no Python code opened. What one case does, the next cannot
hide, so that a process runs as many cases as it can.
"""

import functools
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import tbot_otel
from support.otlp_files import make_start, to_line
from support.processes import run_python
from support.standins import GRPCStandin, HTTPStandin, Response
from tbot_otel.testing import Auditor, AuditReport
from tbot_otel.testing._silence import REFUSALS

OPT_IN = "TELEPORT_ANONYMOUS_TELEMETRY"

# Imports, classes, entry points and JSON, without this package.
BASELINE = """
import argparse, collections, enum, importlib.metadata, json, logging, typing
collections.namedtuple("Pair", "first second")
importlib.metadata.entry_points()
json.dumps([{}], indent=2)
"""
SDK_BASELINE = BASELINE + "import opentelemetry.sdk._logs.export"


def audit_process(script: str, environ: Mapping[str, str], status: int = 0) -> AuditReport:
    """Run a script under audit.

    Args:
        script: The script.
        environ: Its variables.
        status: The expected exit status.
    """
    environ = {"PYTHONWARNINGS": "error", **environ}
    report = Auditor().run([sys.executable, "-c", script], env=environ, timeout=120)
    assert report.returncode == status, report.stderr
    return report


@functools.cache
def audit_baseline(script: str) -> AuditReport:
    """Run a script under audit that does nothing."""
    return audit_process(script, {})


def actions(report: AuditReport) -> list[str]:
    """Return the events of a process that `BASELINE` does not raise, and the findings."""
    harmless = audit_baseline(BASELINE).events
    events = [event for event in report.events if event not in harmless]
    return events + [str(finding) for finding in report.findings if finding.kind != "stderr"]


TRANSPORTS = ("grpc.", "requests.", "urllib3.")
OTLP = (*TRANSPORTS, "google.", "opentelemetry.exporter.", "opentelemetry.proto.")

UNNAMED = ["a thread that ran Python"] if sys.version_info < (3, 12) else []


def assert_idle(
    report: AuditReport,
    absent: tuple[str, ...] = OTLP,
    baseline: AuditReport | None = None,
    expected_events: Sequence[str] = (),
) -> None:
    """Check that a process with the SDK did nothing.

    Args:
        report: What it did.
        absent: The modules that it must not import.
        baseline: What the SDK does; by default, when it is imported.
        expected_events: Events that the process may raise besides.
    """
    baseline = baseline or audit_baseline(SDK_BASELINE)
    assert {*report.events} <= {*baseline.events, *expected_events}
    # The SDK starts threads for its batches, and when it is imported, for its resource detectors.
    # Python 3.11 names a thread only if it causes an event.
    harmless = ("opentelemetry.sdk.", "concurrent.futures.thread.", *UNNAMED)
    assert [name for name in report.names("thread") if not name.startswith(harmless)] == []
    kinds = ("audit", "file", "process", "socket")
    assert [report.names(kind) for kind in kinds] == [[], [], [], []]
    assert [name for name in report.names("import") if f"{name}.".startswith(absent)] == []


RECORD_START = """
from tbot_otel import StartEvent, Status, record_start
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
outcome = session.flush(30)
"""
COMMAND = """
import sys
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="tbot-otel")
sys.exit(command.load()({words!r}))
"""
COMMANDS = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="tbot-otel")
for words, status in {commands!r}:
    assert command.load()(words) == status
"""

REFUSING_ENVIRONS = [
    *({OPT_IN: value} for value in ("", "f", "False", "on", " 1", "1\n", "tRUE", "2", "\uff11")),
    *({OPT_IN: "1", "OTEL_SDK_DISABLED": value} for value in ("TRUE", " true ")),
    *({OPT_IN: "true", "DO_NOT_TRACK": value} for value in ("yes", "anything", "False", " ")),
]
WITH_CONSENT = {OPT_IN: "1"}


def environ_id(environ: Mapping[str, str]) -> str:
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
        events = audit_baseline(baseline).events
        assert "import" in events
        acting = {
            event
            for event in events
            if event.partition(".")[0]
            not in ("builtins", "code", "compile", "exec", "import", "marshal", "object", "sys")
        } - {"cpython.run_command", "function.__new__"}
        assert acting <= {"os.listdir", "os.scandir"}


@pytest.mark.parametrize("package", ["tbot_otel", "tbot_otel.run", "tbot_otel.otlp"])
def test_import_of_package(package: str) -> None:
    """Importing these packages imports no other module."""
    script = "import sys; bare = {*sys.modules}; import PACKAGE; print(*{*sys.modules} - bare)"
    done = run_python("-c", script.replace("PACKAGE", package))
    assert ({*done.stdout.split()}, done.stderr) == ({"tbot_otel", package}, "")


# Modules that import OpenTelemetry or PyYAML, but no OTLP exporter.
LIBRARY_MODULES = [
    "cli._bot_config",
    *("pipeline.exporter", "pipeline.gate", "pipeline.processor"),
    *("pipeline.record", "pipeline.recording", "pipeline.resource"),
]
# Modules that a process imports only with consent, or for a report of another process.
SENDING_MODULES = [
    *("connect", "connect.tbot_pb", "otlp.grpc", "otlp.http"),
    "run.server",
    "otlp.requests_session",
    *("relay.app", "relay.batch", "relay.bodies", "relay.calls", "relay.committer"),
    *("relay.exporting", "relay.log", "relay.metrics", "relay.problems", "relay.readiness"),
    "relay.server",
]
# Modules of the report, whose libraries start threads. The report sends nothing.
REPORT_MODULES = [
    "report.count",
    "report.inputs",
    "report.otlp_json",
    "report.otlp_protobuf",
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
    # The tests of other programs import the first. PyInstaller runs its hooks.
    and name.partition(".")[0] not in ("testing", "_pyinstaller")
]


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
def test_import_is_silent(environ: dict[str, str]) -> None:
    """The modules that a process imports without consent import only the standard library."""
    script = "\n".join(f"import tbot_otel.{module}" for module in STANDARD_LIBRARY_MODULES)
    assert actions(audit_process(script, environ)) == []


def test_import_does_nothing() -> None:
    """The other modules that no record has to pass do nothing when they are imported."""
    script = "\n".join(f"import tbot_otel.{module}" for module in LIBRARY_MODULES)
    assert_idle(audit_process(script, WITH_CONSENT))


WITHOUT_CONSENT = """
import os
from tbot_otel.cli import main
def check():
    RECORD_START
    assert outcome.status is Status.REFUSED
    assert main(["emit", "--config", "FOLDER/tbot.yaml"]) == 0
    assert main(["status", "--check"]) == 3
check()
""".replace("RECORD_START", RECORD_START.strip().replace("\n", "\n    "))


@pytest.mark.parametrize("environ", REFUSALS, ids=environ_id)
def test_without_consent(environ: Mapping[str, str], folder: Path) -> None:
    """Without consent: no socket, file, thread or child process, and no OpenTelemetry."""
    script = WITHOUT_CONSENT.replace("FOLDER", str(folder))
    assert actions(audit_process(script, {"PATH": str(folder), **environ})) == []


def test_without_consent_by_other_values(folder: Path) -> None:
    """The same holds for other values that refuse: `test_consent` has all of them."""
    script = f"""{WITHOUT_CONSENT.replace("FOLDER", str(folder))}
for environ in {REFUSING_ENVIRONS!r}:
    os.environ.update(environ)
    check()
    for name in environ:
        del os.environ[name]
"""
    assert {*actions(audit_process(script, {"PATH": str(folder)}))} == {"os.putenv", "os.unsetenv"}


# If the command cannot be run, the process remains and prints its audit.
RUN = COMMAND.format(words=["run", "--", "/dev/null"])
ONLY_EXEC = ["os.exec", "process: os.exec /dev/null"]
ONLY_PUTENV_AND_EXEC = ["os.putenv", *ONLY_EXEC]
# In the C locale, the interpreter sets LC_CTYPE, and `run` removes it.
RUN_ENVIRON = {"LANG": "C.UTF-8"}


@pytest.mark.parametrize("environ", REFUSALS, ids=environ_id)
def test_run_without_consent(environ: Mapping[str, str]) -> None:
    """Without consent, `run` executes the command and does nothing else.

    If another variable refuses, it also tells the command not to report.
    """
    expected = ONLY_PUTENV_AND_EXEC if environ.get(OPT_IN) == "1" else ONLY_EXEC
    assert actions(audit_process(RUN, {**RUN_ENVIRON, **environ}, 126)) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"}, ONLY_PUTENV_AND_EXEC),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/xml"}, ONLY_PUTENV_AND_EXEC),
        ({"TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS": "https://relay.example"}, ONLY_EXEC),
    ],
    ids=["protocol", "protocol of logs", "address"],
)
def test_run_without_forwarder(environ: dict[str, str], expected: list[str]) -> None:
    """With consent, but without a use for the forwarder, `run` only executes the command."""
    assert actions(audit_process(RUN, RUN_ENVIRON | WITH_CONSENT | environ, 126)) == expected


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
def test_events(environ: dict[str, str]) -> None:
    """`events` needs only the standard library, with consent or without."""
    commands = [(["events", *option], 0) for option in ([], ["--markdown"], ["--json"])]
    assert actions(audit_process(COMMANDS.format(commands=commands), environ)) == []


@pytest.mark.parametrize("environ", [{}, WITH_CONSENT], ids=environ_id)
def test_preview_and_status(environ: dict[str, str]) -> None:
    """`preview` and `status` open, write and start nothing, with consent or without."""
    commands = [(["preview", "--tbot-version", "18.3.0"], 0), (["status"], 0 if environ else 3)]
    assert_idle(audit_process(COMMANDS.format(commands=commands), environ), TRANSPORTS)


def test_report(tmp_path: Path) -> None:
    """`report` opens no socket, and imports no OpenTelemetry, even with consent."""
    file = tmp_path / "starts.jsonl"
    file.write_text(to_line(make_start()))
    commands = [
        (["report", str(file), "--format", form, "-o", str(tmp_path / form)], 0)
        for form in ("terminal", "html", "json", "csv", "parquet")
    ]
    report = audit_process(COMMANDS.format(commands=commands), WITH_CONSENT)
    assert not any(event.startswith("socket.") for event in report.events)
    # The library of the charts has a pair of sockets for its signals, which has no address.
    assert [name for name in report.names("socket") if not name.endswith("(unix)")] == []
    assert report.names("process") == []
    modules = [*report.names("import")]
    assert [name for name in modules if f"{name}.".startswith((*OTLP, "opentelemetry."))] == []
    assert "open" in report.events


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
def audit_pipeline(pipeline: str) -> AuditReport:
    """Run a pipeline without an exporter of this package under audit."""
    script = PIPELINES[pipeline].replace("tbot_otel", "opentelemetry.sdk._logs.export")
    script = script.replace("TbotLogExporter", "ConsoleLogRecordExporter")
    return audit_process(script, AUTOCONFIGURATION | {"OTEL_LOGS_EXPORTER": "console"})


def assert_pipeline_idle(
    script: str, pipeline: str, environ: dict[str, str], expected_events: Sequence[str] = ()
) -> None:
    """Check that a script does no more in a pipeline than the pipeline without our exporter."""
    report = audit_process(PIPELINES[pipeline] + script, AUTOCONFIGURATION | environ)
    assert_idle(report, OTLP, audit_pipeline(pipeline), expected_events)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipeline_without_consent(pipeline: str) -> None:
    """Without consent, a start that is emitted into a pipeline has no effect."""
    script = EMIT.format(name="tbot.start") + RECORD_INTO_PIPELINE
    assert_pipeline_idle(script, pipeline, WITH_CONSENT | {"DO_NOT_TRACK": "anything"})


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipeline_with_foreign_records(pipeline: str) -> None:
    """With consent, the records of other libraries have no effect."""
    script = EMIT.format(name=None) + EMIT.format(name="a.start")
    assert_pipeline_idle(script, pipeline, WITH_CONSENT)


def test_consent_is_withdrawn() -> None:
    """A start that is still in a batch when consent ends has no effect."""
    script = EMIT.format(name="tbot.start") + f"import os; os.environ.pop({OPT_IN!r})"
    assert_pipeline_idle(script, "batch", WITH_CONSENT, ["os.unsetenv"])


def test_constructor() -> None:
    """With consent, exporters without a record have opened and imported nothing."""
    script = """
from tbot_otel import TbotLogExporter
exporters = [TbotLogExporter(protocol=name) for name in ("http/protobuf", "grpc", "http/xml")]
exporters.append(TbotLogExporter())
"""
    assert_idle(audit_process(script, WITH_CONSENT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}))


# The tests below show that the audit can fail. test_testing.py has more of them.


def test_audit_sees_record_start() -> None:
    """With consent, the audit sees the connection, the thread and the imports."""
    with HTTPStandin(Response()) as standin:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint}
        report = audit_process(RECORD_START, WITH_CONSENT | endpoint)
    assert f"connect {standin.endpoint.removeprefix('http://')}" in report.names("socket")
    # CPython 3.11 does not tell the name.
    names = ("tbot_otel.sender._Sender._run", "a thread that ran Python")
    assert {*names} & {*report.names("thread")}
    assert {"opentelemetry", "google.protobuf"} <= {*report.names("import")}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_audit_sees_pipeline(pipeline: str) -> None:
    """With consent, the audit sees a pipeline's connection."""
    script = PIPELINES[pipeline] + EMIT.format(name="tbot.start")
    with HTTPStandin(Response()) as standin:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # the distribution's default is grpc
        }
        report = audit_process(script, AUTOCONFIGURATION | WITH_CONSENT | environ)
    assert "socket.connect" in report.events
    assert "socket.connect" not in audit_pipeline(pipeline).events


def test_audit_sees_grpc() -> None:
    """The audit sees threads and sockets that Python does not know."""
    script = PIPELINES["simple"].replace(
        "LoggerProvider()", "LoggerProvider(shutdown_on_exit=False)"
    )
    # These threads run until the exit. Where the system has a module of this name, they are waited
    # for longer.
    script = f"import sitecustomize; sitecustomize.THREAD_END_TIMEOUT_SECONDS = 0.5\n{script}"
    with GRPCStandin() as standin:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        report = audit_process(script + EMIT.format(name="tbot.start"), WITH_CONSENT | environ)
    assert any(name.endswith(" (native)") for name in report.names("thread"))
    assert any(name.startswith("socket:") for name in report.names("socket"))


def test_audit_sees_run() -> None:
    """With consent, the audit sees the socket and the fork of `run`."""
    report = audit_process(RUN, RUN_ENVIRON | WITH_CONSENT, 126)
    assert {"socket.bind", "os.fork", "os.putenv"} <= {*report.events}


def test_audit_sees_child_and_file(folder: Path, tmp_path: Path) -> None:
    """The audit sees the child process that prints tbot's version, and a file that is written."""
    file = tmp_path / "out.json"
    report = audit_process(
        COMMAND.format(words=["preview", "-o", str(file)]), {"PATH": str(folder)}
    )
    assert report.names("process") == [f"subprocess.Popen {folder / 'tbot'} version"]
    # It is written under another name first.
    opened, renamed = report.names("file")
    assert opened.replace("open ", "os.rename ") == renamed
    assert file.exists()
