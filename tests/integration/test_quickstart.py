"""The quick start prints the record with each kind of Collector, and where none is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.collectors import Rotel
from support.paths import ROOT
from support.processes import run_python
from support.standins import HTTPStandin, Response

QUICKSTART = str(ROOT / "examples" / "quickstart")
RECEIVER = "the OTLP receiver in examples/quickstart"
# Where rotel cannot load the shared library of this Python, the receiver takes its place.
WITHOUT_OFFICIAL = RECEIVER if Rotel.problem() else "rotel"

SESSION_ID = re.compile(r"Str\([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\)")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \+0000 UTC")

SILENT = "import time; time.sleep(600)"
ENDING = """
import os, sys
print(*range(12), sep="\\n")
sys.exit(f"consent: {os.environ.get('TELEPORT_ANONYMOUS_TELEMETRY')}")
"""
REFUSING = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(400)

host, port = sys.argv[sys.argv.index("--otlp-http-endpoint") + 1].split(":")
with HTTPServer((host, int(port)), Handler) as server, open(os.environ["PID_FILE"], "w") as file:
    print(os.getpid(), file=file, flush=True)
    print("Starting Rotel", flush=True)
    server.serve_forever()
"""
# The quick start with another time limit, which is the first argument.
WITH_TIMEOUT = """
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

sys.dont_write_bytecode = True
loader = SourceFileLoader("quickstart", sys.argv[2])
sys.modules["quickstart"] = quickstart = module_from_spec(spec_from_loader("quickstart", loader))
loader.exec_module(quickstart)
quickstart.TIMEOUT_SECONDS = float(sys.argv[1])
sys.exit(quickstart.main())
"""


def run_quickstart(path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the quick start with only one folder on PATH."""
    return run_python(*arguments, QUICKSTART, timeout=150, PATH=str(path), **environ)


def hide_rotel(folder: Path) -> str:
    """Return a PYTHONPATH that makes rotel look as if it were not installed."""
    (folder / "rotel.py").write_text("raise ModuleNotFoundError\n")
    return str(folder)


def install_rotel(folder: Path, program: str, mode: int = 0o755) -> str:
    """Write a program in the place of rotel's, and return the PYTHONPATH that finds it."""
    agent = folder / "rotel" / "rotel-agent"
    agent.parent.mkdir()
    (agent.parent / "__init__.py").touch()
    agent.write_text(f"#!{sys.executable}\n{program}\n")
    agent.chmod(mode)
    return str(folder)


def collectors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The Collectors that the quick start tried."""
    return re.findall(r"(?m)^Collector: (.+)$", done.stdout)


def received_record(done: subprocess.CompletedProcess[str]) -> str:
    """The record that the quick start printed at its end."""
    assert done.returncode == 0, done.stderr
    _, rest = done.stdout.split("\nThe Collector received:\n\n")
    record, report = rest.split("\n$ tbot-otel report --min-group 1 starts.jsonl\n\n")
    assert "1 start" in report
    assert re.search(r"(?m)^ *kubernetes .*\b1\b", report)
    assert record.startswith("ResourceLog #0\n")
    assert "\nEventName: tbot.start\n" in record
    return record


def test_official(official_binary: Path, tmp_path: Path) -> None:
    """It uses an official Collector on PATH, and its own receiver prints the same record.

    The proxies and the pipeline that the user has configured have no effect.
    """
    records = []
    with HTTPStandin(Response()) as other:
        proxies = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
        environ = {
            **dict.fromkeys((*proxies, "ALL_PROXY", "all_proxy"), other.endpoint),
            "NO_PROXY": "example.com",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{other.endpoint}/v1/logs",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SDK_DISABLED": "true",
        }
        for name in ("otelcol", "otelcol-contrib"):
            official = tmp_path / name
            official.symlink_to(official_binary)
            done = run_quickstart(tmp_path, **environ)
            official.unlink()
            assert collectors(done) == [str(official)]
            records.append(received_record(done))
        done = run_quickstart(tmp_path, PYTHONPATH=hide_rotel(tmp_path), **environ)
        assert collectors(done) == [RECEIVER]
        records.append(received_record(done))
    for record in records:
        assert len(SESSION_ID.findall(record)) == 1
        assert len(TIME.findall(record)) == 2
    assert len({SESSION_ID.sub("", TIME.sub("", record)) for record in records}) == 1
    assert other.requests == []


@pytest.mark.parametrize("name", [WITHOUT_OFFICIAL])
def test_without_official(name: str, tmp_path: Path) -> None:
    """It uses rotel if there is no official Collector."""
    done = run_quickstart(tmp_path)
    assert collectors(done)[-1] == name
    record = received_record(done)
    assert "     -> service.name: Str(tbot)\n" in record
    assert "     -> tbot.destinations_other: Int(2)\n" in record


@pytest.mark.parametrize(
    ("program", "mode", "problem"),
    [
        (
            ENDING,
            0o755,
            "it ended with status 1. Its last lines:\n"
            + "".join(f"    {number}\n" for number in range(3, 12))
            # Only the command that sends has it.
            + "    consent: None\n",
        ),
        (
            "import sys; print('Starting Rotel'); sys.exit(3)",
            0o755,
            "it ended with status 3. Its last lines:\n    Starting Rotel\n",
        ),
        ("", 0o644, "[Errno 13] Permission denied: "),
    ],
    ids=["at-start", "while-sending", "not-executable"],
)
def test_collector_ends(program: str, mode: int, problem: str, tmp_path: Path) -> None:
    """It shows the last lines of a Collector that ends, and uses the next one without a wait."""
    pythonpath = install_rotel(tmp_path, program, mode)
    done = run_quickstart(tmp_path, "-c", WITH_TIMEOUT, "3600", PYTHONPATH=pythonpath)
    assert f"It does not work here: {problem}" in done.stderr
    assert collectors(done) == ["rotel", RECEIVER]
    received_record(done)


def test_collector_is_silent(tmp_path: Path) -> None:
    """It does not wait forever for a Collector."""
    pythonpath = install_rotel(tmp_path, SILENT)
    done = run_quickstart(tmp_path, "-c", WITH_TIMEOUT, "0.1", PYTHONPATH=pythonpath)
    assert "It does not work here: no result after 0.1 s. Its last lines:\n" in done.stderr
    assert collectors(done) == ["rotel", RECEIVER]


def test_collector_refuses(tmp_path: Path) -> None:
    """It fails if the Collector refuses the record, and it stops the Collector."""
    pid_file = tmp_path / "pid"
    pythonpath = install_rotel(tmp_path, REFUSING)
    done = run_quickstart(tmp_path, PYTHONPATH=pythonpath, PID_FILE=str(pid_file))
    assert done.returncode == 1
    assert "tbot-otel: not delivered to http://127.0.0.1:" in done.stderr
    assert collectors(done) == ["rotel"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_refused(tmp_path: Path) -> None:
    """It starts no Collector, and fails, if nothing may be sent."""
    done = run_quickstart(tmp_path, DO_NOT_TRACK="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Nothing was sent: DO_NOT_TRACK asks not to be tracked.\n"
