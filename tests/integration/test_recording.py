"""`--record` and `--dry-run`: a reviewer sees what left, or what would leave."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.agent import AGENT_PATH
from support.collectors import Official
from support.otlp import PROTOCOLS
from support.processes import run_python, wait_until
from support.standins import HTTPStandin, Response
from tbot_otel.run.launcher import ADDRESS_VARIABLE

OPT_IN = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}
HELPER = {"_TBOT_TELEMETRY_HELPER": "web01", "_TBOT_TELEMETRY_HELPER_VERSION": "1.2.3"}
RUN = ("-m", "tbot_otel", "run")
AGENT = (sys.executable, AGENT_PATH, "--status", "3")
EMIT = ("-m", "tbot_otel", "emit", "--tbot-version", "18.3.0")


def parse_line(line: str) -> ExportLogsServiceRequest:
    """Parse a line of a record file as the message that it stands for.

    The Collector and the newest SDK write an absent body as an empty one.
    """
    message = Parse(line, ExportLogsServiceRequest())
    message.resource_logs[0].scope_logs[0].log_records[0].ClearField("body")
    return message


def session_of(message: ExportLogsServiceRequest) -> str:
    """The session id of the only record of an export."""
    (logs,) = message.resource_logs
    (session,) = (item for item in logs.resource.attributes if item.key == "session.id")
    return str(session.value.string_value)


def read_log(log: Path) -> str:
    """Wait for the forwarder's last line, and return the log."""

    def read() -> str:
        text = log.read_text() if log.exists() else ""
        return text if "tbot's start" in text else ""

    return wait_until(read)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("command", ["run", "emit"])
def test_record(command: str, protocol: str, official: Official, tmp_path: Path) -> None:
    """A line is the export that the Collector received, in the form in which it writes exports."""
    file = tmp_path / "sent.jsonl"
    option = ("--record", str(file))
    words = (*RUN, *option, "--", *AGENT) if command == "run" else (*EMIT, *option)
    for _ in range(2):
        run_python(
            *words,
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=official.endpoint(protocol),
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            **OPT_IN,
        )
    lines = file.read_text().splitlines()
    assert len(lines) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    for line in lines:
        message = parse_line(line)
        received = {"resourceLogs": [official.find_json(session_of(message))]}
        assert parse_line(json.dumps(received)) == message
        assert without_empty(json.loads(line)) == without_empty(received)


def without_empty(value: Any) -> Any:
    """A JSON value without empty members, which a writer can leave out."""
    if isinstance(value, dict):
        members = {name: without_empty(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member not in ({}, "", 0, None)}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def test_record_is_written_before_the_first_attempt(tmp_path: Path) -> None:
    """A line is the message on the wire, and retries and failures add and remove none."""
    file = tmp_path / "sent.jsonl"
    with HTTPStandin(Response(503), Response(400)) as standin:
        done = run_python(
            *EMIT,
            *("--record", str(file)),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=standin.endpoint,
            **OPT_IN,
        )
    assert done.returncode == 1
    (line,) = file.read_text().splitlines()
    assert len(standin.requests) == 2
    for request in standin.requests:
        sent = ExportLogsServiceRequest.FromString(request.body)
        sent.resource_logs[0].scope_logs[0].log_records[0].ClearField("body")
        assert sent == parse_line(line)
        assert file.stat().st_ctime_ns <= request.arrived_at


def test_dry_run(tmp_path: Path) -> None:
    """A dry run takes tbot's own report and sends nothing. The log says what policy changed."""
    file, log = tmp_path / "would-be-sent.jsonl", tmp_path / "log"
    options = ("--dry-run", "--record", str(file), "--log", str(log))
    with HTTPStandin(Response()) as standin:
        done = run_python(
            *(*RUN, *options, "--", *AGENT),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=standin.endpoint,
            **OPT_IN,
            **HELPER,
        )
        assert (done.returncode, done.stderr) == (3, "")
        printed = json.loads(done.stdout)
        assert printed["answer"] == "ok"
        text = read_log(log)
    assert standin.requests == []
    (line,) = file.read_text().splitlines()
    assert session_of(parse_line(line)) == printed["session"]
    assert "web01" not in line + text
    assert printed["session"] not in text
    first, second, last = [entry.partition(" tbot-otel run: ")[2] for entry in text.splitlines()]
    assert first == "tbot.helper: the value is not a known one and was replaced with _OTHER"
    assert second == "tbot.helper_version: it belongs to a helper that is not known"
    target = f"{standin.endpoint}/v1/logs (http/protobuf)"
    assert last == f"tbot's start was not sent to {target}: dry run"


def test_log_on_standard_error() -> None:
    """`--log -` logs to the standard error that `run` was given, also if that is a socket."""
    with HTTPStandin(Response()) as standin:
        done = run_python(
            *(*RUN, "--log", "-", "--", *AGENT),
            timeout=60,
            OTEL_EXPORTER_OTLP_ENDPOINT=standin.endpoint,
            **OPT_IN,
        )
    assert done.returncode == 3
    assert "tbot's start was delivered to" in done.stderr


@pytest.mark.parametrize(
    "option", [["--dry-run"], ["--record", "FILE"], ["--dry-run", "--record=FILE"]]
)
def test_own_address(option: list[str], tmp_path: Path) -> None:
    """With an address of the user's own, neither option is possible."""
    environ = {**OPT_IN, ADDRESS_VARIABLE: "http://127.0.0.1:9"}
    option = [word.replace("FILE", str(tmp_path / "sent.jsonl")) for word in option]
    done = run_python(*RUN, *option, "--", "echo", timeout=60, **environ)
    line = f"--record, --dry-run: expected {ADDRESS_VARIABLE} not to be set"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tbot-otel run: {line} (see tbot-otel run --help)\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("consent", "reason"),
    [
        ({}, "TELEPORT_ANONYMOUS_TELEMETRY is not set"),
        ({"TELEPORT_ANONYMOUS_TELEMETRY": "0"}, "TELEPORT_ANONYMOUS_TELEMETRY opts out"),
        ({**OPT_IN, "DO_NOT_TRACK": "1"}, "DO_NOT_TRACK asks not to be tracked"),
    ],
    ids=str,
)
def test_own_address_without_consent(consent: dict[str, str], reason: str, tmp_path: Path) -> None:
    """Without consent, the command is started. A dry run says why it has nothing to show."""
    record = ("--record", str(tmp_path / "sent.jsonl"))
    environ = {**consent, ADDRESS_VARIABLE: "http://127.0.0.1:9"}
    done = run_python(*RUN, *record, "--", "echo", "started", timeout=60, **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    done = run_python(*RUN, *record, "--dry-run", "--", "echo", "started", timeout=60, **environ)
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert done.stderr == f"tbot-otel run: --dry-run has nothing to show: {reason}\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["missing/file", "link"])
@pytest.mark.parametrize("command", ["run", "run --dry-run", "emit"])
def test_file_cannot_be_opened(command: str, name: str, tmp_path: Path) -> None:
    """A record that cannot be written is one line. Only a dry run needs it."""
    (tmp_path / "link").symlink_to("link")
    option = ("--record", str(tmp_path / name))
    program, *dry_run = command.split()
    words = (*RUN, *dry_run, *option, "--", *AGENT) if program == "run" else (*EMIT, *option)
    with HTTPStandin(Response()) as standin:
        environ = {**OPT_IN, "OTEL_EXPORTER_OTLP_ENDPOINT": standin.endpoint}
        done = run_python(*words, timeout=60, **environ)
        problem = os.strerror(2) if name == "missing/file" else os.strerror(40)
        assert f": --record: {problem}\n" in done.stderr
        if dry_run:
            assert (done.returncode, done.stdout) == (2, "")
        else:
            assert done.returncode == (3 if program == "run" else 0)
            wait_until(lambda: standin.requests)
    assert len(standin.requests) == (not dry_run)


@pytest.mark.parametrize("command", ["run", "emit"])
def test_disk_is_full(command: str) -> None:
    """A record that cannot be written does not keep the start from being sent."""
    option = ("--record", "/dev/full")
    words = (*RUN, "--log", "-", *option, "--", *AGENT) if command == "run" else (*EMIT, *option)
    with HTTPStandin(Response()) as standin:
        done = run_python(
            *words, timeout=60, OTEL_EXPORTER_OTLP_ENDPOINT=standin.endpoint, **OPT_IN
        )
        assert done.returncode == (3 if command == "run" else 0)
        assert "--record: No space left on device" in done.stderr
        assert len(standin.requests) == 1


@pytest.mark.parametrize("command", ["run", "emit"])
def test_without_consent(command: str, tmp_path: Path) -> None:
    """Without consent, no file is created."""
    option = ("--record", str(tmp_path / "sent.jsonl"))
    words = (*RUN, *option, "--", *AGENT) if command == "run" else (*EMIT, *option)
    done = run_python(*words, timeout=60)
    assert done.returncode == (3 if command == "run" else 0)
    assert not [*tmp_path.iterdir()]
