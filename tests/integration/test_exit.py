"""Programs that record a start and end: each delivers it, and ends as it would without consent.

In the long profile, each program runs a hundred times.
"""

import importlib.util
import sys
from typing import NamedTuple

import pytest

from support.fuzzing import LONG_PROFILE
from support.otlp import received_records
from support.processes import run_python
from support.standins import HTTPStandin, Response, silent_port

RUNS = 100 if LONG_PROFILE else 1
# Python 3.12.0 to 3.12.2 start none.
STARTS_THREADS_AT_EXIT = sys.version_info[:2] != (3, 12)

# A busy machine can need more than 2 seconds for a delivery, or for imports.
PRELUDE = """
import os, signal, sys, threading, time
from tbot_otel import StartEvent, record_start

def record(**options):
    session = record_start(StartEvent(run_mode="daemon", version="18.3.0"), **options)
    from tbot_otel import forking, sender
    forking.FORK_WAIT_TIMEOUT_SECONDS = sender.EXIT_TIMEOUT_SECONDS = 60
    os.write(1, f"{session.id}\\n".encode())
    return session

"""


class Program(NamedTuple):
    """A program that records starts."""

    script: str
    starts: int = 1


FORK = """
if os.fork() == 0:
    record()
else:
    os.wait()
"""
MULTIPROCESSING = """
from multiprocessing import get_context
child = get_context("fork").Process(target=record)
child.start()
child.join()
"""
PROVIDER = """
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from tbot_otel import TbotLogExporter
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(TbotLogExporter()))
record(logger_provider=provider)
"""
OPENTELEMETRY = """
record()
import opentelemetry.sdk.trace.export, opentelemetry.sdk._logs.export
import opentelemetry.exporter.otlp.proto.http._log_exporter, grpc
"""
EXECUTORS = """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
pool = ThreadPoolExecutor()
pool.submit(record).result()
pool.submit(time.sleep, 0.2)
ProcessPoolExecutor()
"""
THREAD = """
thread = threading.Thread(target=record)
thread.start()
thread.join()
"""
WITHOUT_PRIVATE_NAME = """
import concurrent.futures.thread
del threading._register_atexit
record()
"""
AFTER_MAIN_THREAD = """
record().flush(60)

def record_late():
    threading.main_thread().join()
    record()

threading.Thread(target=record_late).start()
"""
PROGRAMS = {
    "ends": Program("record()"),
    "exits": Program("record(); sys.exit(7)"),
    "raises": Program("record(); raise RuntimeError"),
    "is interrupted": Program("record(); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"),
    "records often": Program("for _ in range(20): record()", 20),
    "forks": Program(FORK),
    "records and forks": Program(f"record()\n{FORK}", 2),
    "forks while importing": Program(f"record()\ntime.sleep(0.02)\n{FORK}", 2),
    "uses threads": Program(THREAD),
    "uses executors": Program(EXECUTORS),
    "imports OpenTelemetry": Program(OPENTELEMETRY),
    "uses OpenTelemetry": Program(PROVIDER),
    "uses multiprocessing": Program(MULTIPROCESSING),
    "lacks the private name": Program(WITHOUT_PRIVATE_NAME),
}
if importlib.util.find_spec("billiard"):  # It comes with Celery, for the newest SDK.
    PROGRAMS["uses billiard"] = Program(MULTIPROCESSING.replace("multiprocessing", "billiard"))
if STARTS_THREADS_AT_EXIT:
    PROGRAMS["outlives its main thread"] = Program(AFTER_MAIN_THREAD, 2)


def end(program: str, **environ: str) -> tuple[list[str], int, str]:
    """Run a program, and return the ids of its sessions, its exit status, and its stderr."""
    # Python 3.12 warns of a fork while threads run.
    environ = {"PYTHONWARNINGS": "error,ignore::DeprecationWarning", **environ}
    done = run_python("-c", PRELUDE + program, timeout=120, **environ)
    return done.stdout.split(), done.returncode, done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_delivers(name: str) -> None:
    """Every start is delivered once, and the program's status and messages are its own."""
    script, starts = PROGRAMS[name]
    _, status, errors = end(script)
    recorded: list[str] = []
    with HTTPStandin(Response()) as collector:
        environ = {
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        }
        for _ in range(RUNS):
            sessions, *ended = end(script, **environ)
            assert ended == [status, errors]
            assert len(sessions) == starts
            recorded += sessions
    received = [resource["session.id"] for resource, _ in received_records(collector.requests)]
    assert sorted(map(str, received)) == sorted(recorded)


@pytest.mark.parametrize("variable", ["DO_NOT_TRACK", "OTEL_SDK_DISABLED"])
def test_consent_withdrawn(variable: str) -> None:
    """If consent is withdrawn right after the call, nothing leaves."""
    script = f"""
session = record_start(StartEvent(run_mode="daemon", version="18.3.0"))
os.environ[{variable!r}] = "true"
"""
    with HTTPStandin(Response()) as collector:
        environ = {
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        }
        for _ in range(RUNS):
            assert end(script, **environ) == ([], 0, "")
            assert end(f"{script}print(session.flush(60).status.name)", **environ) == (
                *(["REFUSED"], 0, ""),
            )
    assert collector.requests == []


LATE_SCRIPT = """
import atexit

def report():
    print(record_start(StartEvent(run_mode="daemon", version="18.3.0")).flush(60).status.name)

def report_late():
    threading.main_thread().join()
    report()

"""


@pytest.mark.parametrize(
    "ending", ["atexit.register(report)", "threading.Thread(target=report_late).start()"]
)
def test_late_first_call(ending: str) -> None:
    """A first call after the main thread has ended fails, and prints nothing."""
    with HTTPStandin(Response()) as collector:
        ended = end(
            LATE_SCRIPT + ending,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    assert ended == (["FAILED"], 0, "")
    assert collector.requests == []


INTERRUPTED_SCRIPT = """
from concurrent.futures import ThreadPoolExecutor

signal.signal(signal.SIGALRM, signal.default_int_handler)
pool = ThreadPoolExecutor()
record()
from tbot_otel import session
wait = session.Start.wait
waiting = threading.Event()

def interrupted_wait(*arguments):
    if not waiting.is_set():
        waiting.set()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
    return wait(*arguments)

def work():
    waiting.wait()
    time.sleep(0.5)
    os.write(1, b"worked")

session.Start.wait = interrupted_wait
pool.submit(work)
"""


def test_interrupted_wait() -> None:
    """A signal ends the wait, prints nothing, and does not cut the program's own work short."""
    with silent_port() as port:
        sessions, *ended = end(
            INTERRUPTED_SCRIPT,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        )
    assert ended == [0, ""]
    assert sessions[1:] == ["worked"]


CALLER_IMPORTS_SCRIPT = """
caller = threading.get_ident()
names = set()

def hook(event, arguments):
    if event == "import" and threading.get_ident() == caller:
        names.add(arguments[0].partition(".")[0])

sys.addaudithook(hook)
record_start(StartEvent(run_mode="daemon", version="18.3.0"))
print("opentelemetry" in names, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("has_private_name", [True, False])
def test_caller_imports(has_private_name: bool) -> None:
    """The caller imports OpenTelemetry only where its import could fail at exit."""
    removal = "import concurrent.futures.thread; del threading._register_atexit\n"
    output, *ended = end(
        ("" if has_private_name else removal) + CALLER_IMPORTS_SCRIPT,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
    )
    assert ended[0] == 0
    assert output == [str(not (has_private_name and STARTS_THREADS_AT_EXIT))]
