"""Whoever calls record_start returns at once, also from inside another call of it."""

import pytest

from support.otlp import received_records
from support.processes import run_python
from support.standins import GRPCStandin, HTTPStandin, accepting_standin, silent_port

PRELUDE = """
import os, signal, sys, threading, time
from tbot_otel import StartEvent, Status, record_start
EVENT = StartEvent(run_mode="daemon", version="18.3.0")
sessions = []
def record(*_):
    sessions.append(record_start(EVENT))
"""
# Each calls record_start while the main thread is in it: at each line, in a signal handler, in a
# finalizer.
CALLERS = {
    "a trace function": """
import opentelemetry.sdk._logs
depth = 0
def trace(frame, event, _):
    global depth
    if "tbot_otel" in frame.f_code.co_filename and not depth and len(sessions) < 40:
        depth += 1
        record()
        depth -= 1
    return trace
sys.settrace(trace)
record()
sys.settrace(None)
""",
    "a signal handler": """
signal.signal(signal.SIGALRM, record)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
for _ in range(10):
    record()
    time.sleep(0.003)
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "a finalizer": """
class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        if len(sessions) < 40:
            record()
import gc
gc.set_threshold(1)
for _ in range(10):
    Cycle()
    record()
gc.set_threshold(700)
""",
}
REPORT = """
for session in sessions:
    outcome = session.flush(30)
    full = outcome.status is Status.FAILED and outcome.reason.startswith("64 starts")
    assert full or outcome.status is Status.DELIVERED, outcome
    if not full:
        print(session.id)
"""


def received_ids(collector: HTTPStandin | GRPCStandin) -> list[str]:
    """The ids of the starts that arrived."""
    return sorted(str(logs["session.id"]) for logs, _ in received_records(collector.requests))


@pytest.mark.parametrize("caller", CALLERS)
def test_nested_calls(caller: str) -> None:
    """A start that is recorded while another is being recorded is sent, once."""
    with accepting_standin("http/protobuf") as collector:
        done = run_python(
            *("-c", PRELUDE + CALLERS[caller] + REPORT),
            timeout=120,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    assert len(ids) > 10
    assert received_ids(collector) == sorted(ids)


FIRST_CALL = """
import importlib, pkgutil
# The handler runs while the first call imports a module: that many have been imported.
count = int(sys.argv[1])
class Finder:
    def find_spec(self, name, path=None, target=None):
        global count
        if threading.current_thread() is threading.main_thread():
            count -= 1
            if count == 0:
                signal.raise_signal(signal.SIGUSR1)
signal.signal(signal.SIGUSR1, record)
sys.meta_path.insert(0, Finder())
record()
"""


def test_nested_first_calls() -> None:
    """So is one that a signal handler records during an import of the first call."""
    with accepting_standin("http/protobuf") as collector:
        for count in (1, 2, 3, 5, 8):
            done = run_python(
                *("-c", PRELUDE + FIRST_CALL + REPORT, str(count)),
                timeout=120,
                TELEPORT_ANONYMOUS_TELEMETRY="1",
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            )
            assert done.returncode == 0, (count, done.stderr)
            assert 1 <= len(done.stdout.split()) <= 2
            assert {*done.stdout.split()} <= {*received_ids(collector)}


NESTED_FLUSH = """
signal.signal(signal.SIGALRM, lambda *_: print(sessions[0].flush(0.2).status.name))
record()
before = time.monotonic()
for _ in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(sessions[0].flush(0.5).status.name)
assert time.monotonic() - before < 30
"""


def test_nested_flush() -> None:
    """A flush in a signal handler that interrupts a flush of the same session ends in time."""
    with silent_port() as port:
        done = run_python(
            *("-c", PRELUDE + NESTED_FLUSH),
            timeout=60,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="60",
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PENDING"] * 6


HANGING_PROVIDER = """
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
class Hanging:
    def export(self, batch):
        threading.Event().wait()
    def shutdown(self):
        pass
provider = LoggerProvider(shutdown_on_exit=False)
provider.add_log_record_processor(SimpleLogRecordProcessor(Hanging()))
stuck = record_start(EVENT, logger_provider=provider)
record()
print(sessions[0].flush(30).status.name, stuck.outcome.status.name)
"""


def test_hanging_provider() -> None:
    """A pipeline that hangs holds up no other start."""
    with accepting_standin("http/protobuf") as collector:
        done = run_python(
            *("-c", PRELUDE + HANGING_PROVIDER),
            timeout=60,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    assert done.stdout.split() == ["DELIVERED", "PENDING"], done.stderr


CHANGED_LATER = """
record()
# As a vendor's distribution does.
for name in ("ENDPOINT", "LOGS_ENDPOINT"):
    os.environ[f"OTEL_EXPORTER_OTLP_{name}"] = sys.argv[1]
os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=vendor"
os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = sys.argv[2]
print(sessions[0].flush(30).status.name)
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_variables_that_change_later(protocol: str) -> None:
    """Where a start is sent, and with which headers, is decided when it is recorded."""
    with accepting_standin(protocol) as collector, accepting_standin("http/protobuf") as vendor:
        done = run_python(
            *("-c", PRELUDE + CHANGED_LATER, vendor.endpoint, "http/protobuf"),
            timeout=60,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        )
    assert done.stdout.split() == ["DELIVERED"], done.stderr
    (request,) = collector.requests
    assert "authorization" not in {name.lower() for name in request.headers}
    assert vendor.requests == []
