"""The command line: options, output and exit statuses."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cases import EMPTY_ATTRIBUTES
from support.collectors import Collector
from support.commands import run_main
from support.credentials import install_credential_providers
from support.otlp import record_attributes
from support.paths import ROOT
from support.processes import MAIN_SCRIPT, free_port, install_tbot_script, run_python
from support.standins import (
    HTTPStandin,
    Response,
    accepting_standin,
    refused_port,
    silent_port,
)
from tbot_otel.cli import _start_options, main

SECRET = "web01"
SCRIPT = str(Path(sysconfig.get_path("scripts")) / "tbot-otel")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("", 0),
        ("nonsense", 2),
        ("status", 3),
        ("emit", 0),
    ],
)
def test_module_and_command(words: str, status: int) -> None:
    """``python -m tbot_otel`` does the same as the installed command."""
    module = run_python("-m", "tbot_otel", *words.split())
    command = run_python(SCRIPT, *words.split())
    assert module.returncode == status
    assert (module.returncode, module.stdout, module.stderr) == (
        *(command.returncode, command.stdout, command.stderr),
    )


@pytest.mark.parametrize(
    "words",
    [
        *(
            "preview --oneshot --tbot-version 18.3.0",
            "preview --daemon --tbot-version 18.3.0 --json",
        ),
        *("events", "events --json", "run --help", "status", "completion fish"),
    ],
)
def test_closed_pipe(words: str) -> None:
    """A command whose reader has closed the pipe exits silently with the status of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = subprocess.run(
            [SCRIPT, *words.split()], stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words",
    [
        *(
            "preview --daemon --tbot-version 18.3.0",
            "preview --daemon --tbot-version 18.3.0 --json",
        ),
        *("events", "events --json", "status", "status --json"),
        *("completion bash", "run --help"),
    ],
)
def test_full_disk(words: str) -> None:
    """Output that cannot be written ends a command with status 2 and one line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SCRIPT, *words.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    name, *_ = words.split()
    line = f"tbot-otel {name}: standard output: No space left on device"
    hint = " (see tbot-otel run --help)" if name == "run" else ""
    assert (done.returncode, done.stderr) == (2, f"{line}{hint}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_messages_that_cannot_be_written(redirection: str, tmp_path: Path) -> None:
    """Without a standard error, a command has the same output and exit status."""
    (tmp_path / "start.jsonl").touch()
    for words, exit_status in (
        ("emit --tbot-version 18.3.0", 0),
        ("preview --json --config examples/tbot.yaml", 0),
        (f"report {tmp_path}/start.jsonl", 2),
    ):
        done = subprocess.run(
            ["sh", "-c", f"exec {SCRIPT} {words} {redirection}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == exit_status
        assert done.stdout[:1] == ("{" if "--json" in words else "")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii"])
def test_text_that_cannot_be_encoded(encoding: str) -> None:
    """Characters that standard output cannot have are escaped."""
    done = run_python(
        *("-m", "tbot_otel", "status"),
        PYTHONIOENCODING=encoding,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://h\udcff:4318",
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert "to:         http://h\\udcff:4318/v1/logs" in done.stdout.splitlines()


def test_run_imports_no_parser() -> None:
    """Every start of tbot waits for the imports of run: it needs neither a parser nor a library."""

    def imported(*words: str) -> set[str]:
        done = run_python("-X", "importtime", *words)
        assert done.returncode == 0
        return {*re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE)}

    modules = imported("-c", MAIN_SCRIPT, "run", "--", "true") - imported("-c", "pass")
    assert modules - {*sys.builtin_module_names} == {
        *("tbot_otel", "tbot_otel.cli", "tbot_otel.cli.run", "tbot_otel.consent"),
        *("tbot_otel.errors", "tbot_otel.otlp", "tbot_otel.otlp.environment"),
        *("tbot_otel.run", "tbot_otel.run.launcher"),
    }


def check_status(protocol: str, endpoint: str, **environ: str) -> tuple[int, str]:
    """Check an endpoint, and return the exit status and the last line.

    Args:
        protocol: The protocol.
        endpoint: The endpoint.
        environ: More variables. With a ``PYTHONPATH``, a process of its own checks it.
    """
    variables = {
        "TELEPORT_ANONYMOUS_TELEMETRY": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        **environ,
    }
    if "PYTHONPATH" in environ:
        done = run_python("-m", "tbot_otel", "status", "--check", timeout=60, **variables)
    else:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            done = run_main("status", "--check")
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_check(protocol: str, collector: Collector) -> None:
    """A Collector accepts an export without records."""
    result = check_status(protocol, collector.endpoint(protocol))
    assert result == (0, "check:      accepted")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_check_sends_no_record(protocol: str) -> None:
    """The check makes one request without a record."""
    with accepting_standin(protocol) as standin:
        assert check_status(protocol, standin.endpoint)[0] == 0
    assert [request.body for request in standin.requests] == [b""]


def test_check_with_an_at_sign_in_the_query() -> None:
    """An @ in the query is not taken for the end of a login, also when a proxy is chosen."""
    with HTTPStandin(Response()) as standin:
        target = "/v1/logs?key=a@b"
        url = f"{standin.endpoint}{target}"
        result = check_status(
            "http/protobuf",
            "",
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=url,
            HTTP_PROXY=f"http://127.0.0.1:{free_port()}",
            NO_PROXY="127.0.0.1",
        )
    assert result == (0, "check:      accepted")
    assert [request.path for request in standin.requests] == [target]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(404), "the Collector responded with 404"),
        (Response(401), "the Collector responded with 401"),
        (
            Response(body=b"<html>", headers={"Content-Type": "text/html"}),
            "the response is not from an OTLP receiver",
        ),
    ],
)
def test_check_reads_the_response(response: Response, reason: str) -> None:
    """A response that does not accept the export is a failure."""
    with HTTPStandin(response) as standin:
        result = check_status("http/protobuf", standin.endpoint)
    assert result == (1, f"check:      failed, {reason}")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("no_collector", [refused_port, silent_port])
def test_check_without_a_collector(
    no_collector: Callable[[], contextlib.AbstractContextManager[int]], protocol: str
) -> None:
    """Without a Collector, the check fails."""
    with no_collector() as port:
        result = check_status(protocol, f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert result[0] == 1
    assert result[1].startswith("check:      failed, ")


def test_check_with_an_exporter_that_cannot_be_built(tmp_path: Path) -> None:
    """The check fails if the credential provider does."""
    variable = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER"
    result = check_status(
        "http/protobuf",
        f"http://127.0.0.1:{free_port()}",
        **{variable: "channel"},
        PYTHONPATH=install_credential_providers(tmp_path),
    )
    reason = f"{variable}: the credential provider failed (KeyError)"
    assert result == (1, f"check:      failed, {reason}")


def test_check_that_is_not_observed(tmp_path: Path) -> None:
    """A credential provider's session hides the response."""
    with HTTPStandin(Response()) as standin:
        result = check_status(
            "http/protobuf",
            standin.endpoint,
            OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER="session",
            PYTHONPATH=install_credential_providers(tmp_path),
        )
    reason = "the response was not observed"
    assert result == (0, f"check:      unobserved, {reason}")
    assert len(standin.requests) == 1


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo Teleport v18.3.0 git:v18.3.0-0-gabcdef1 go1.24.9", "18.3.0"),
        ("echo Teleport Enterprise v18.3.0 git:v18.3.0-0-gabcdef1 go1.24.9", "18.3.0"),
        ("echo Teleport v19.0.0-dev git: go1.24.9", "19.0.0-dev"),
        ("echo Teleport v18.0.0-dev.someone.1+build.meta git: go1.24.9", "18.0.0-dev"),
        ("echo Teleport v18.3.0", "18.3.0"),
        ("echo a warning; echo Teleport v18.3.0 git:; echo Proxy version: 17.0.0", "18.3.0"),
        ("echo Teleport v18.3.0 git:; exit 1", "18.3.0"),
        ("printf 'Teleport v18.3.0 \\377\\n'", "18.3.0"),
        ("echo Teleport v18.3.0 >&2", "_OTHER"),
        (f"echo Teleport v{SECRET}", "_OTHER"),
        ("echo Teleport 18.3.0", "_OTHER"),
        ("echo v18.3.0", "_OTHER"),
        ("exit 0", "_OTHER"),
        ("exit 127", "_OTHER"),
        ("kill -9 $$", "_OTHER"),
        ('cat >/dev/null; test "$*" = version && echo Teleport v18.3.0', "18.3.0"),
    ],
)
def test_tbot_version(
    script: str,
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The version is the one that `tbot version` prints, or _OTHER if that is unreadable."""
    path = f"{install_tbot_script(tmp_path, script)}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    assert main(["preview", "--json"]) == 0
    assert record_attributes(capsys.readouterr().out)["tbot.version"] == version


@pytest.mark.parametrize("content", ["", "#!/no/such/program\n", "\0\1\2"])
def test_tbot_that_does_not_run(
    content: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file named tbot that is not a program is ignored."""
    monkeypatch.setenv("PATH", install_tbot_script(tmp_path, ""))
    (tmp_path / "tbot").write_text(content)
    assert main(["preview", "--json"]) == 0
    assert record_attributes(capsys.readouterr().out)["tbot.version"] == "_OTHER"


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", "_OTHER"),
        ("exec cat /dev/zero", "_OTHER"),
        ("echo Teleport v18.3.0 git:; exec sleep 600", "18.3.0"),
        ("echo Teleport v18.3.0 git:; exec cat /dev/zero", "18.3.0"),
        ("sleep 600 & echo $! >$0.pid; echo Teleport v18.3.0", "18.3.0"),
        ("sleep 600 & echo $! >$0.pid; printf 'Teleport v18.3.0'", "18.3.0"),
        ("sleep 600 & echo $! >$0.pid", "_OTHER"),
        ("exec >&-; exec sleep 600", "_OTHER"),
    ],
)
def test_tbot_version_without_an_end(
    script: str,
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Output without an end, and a pipe that another process keeps, are not waited for."""
    path = f"{install_tbot_script(tmp_path, script)}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(_start_options, "_TBOT_VERSION_TIMEOUT_SECONDS", 3600.0)
    assert main(["preview", "--daemon", "--json"]) == 0
    printed = capsys.readouterr()
    assert record_attributes(printed.out)["tbot.version"] == version
    assert len(printed.err.splitlines()) == (version == "_OTHER")
    pid = tmp_path / "tbot.pid"
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_tbot_version_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tbot version` gets no standard input, which could be without an end."""
    path = install_tbot_script(tmp_path, "cat >/dev/null; echo Teleport v18.3.0")
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
    kept, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    try:
        assert main(["preview", "--daemon", "--json"]) == 0
    finally:
        os.dup2(kept, 0)
        for fd in (kept, reader, writer):
            os.close(fd)
    assert record_attributes(capsys.readouterr().out)["tbot.version"] == "18.3.0"


@pytest.mark.parametrize("dribble", ["", "while :; do echo; sleep 0.01; done"])
def test_tbot_version_that_takes_too_long(
    dribble: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A `tbot version` that prints nothing of use is killed in time."""
    script = f'echo $$ >"$0.pid"; {dribble or "exec sleep 600"}'
    path = f"{install_tbot_script(tmp_path, script)}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(_start_options, "_TBOT_VERSION_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(_start_options, "_MAX_TBOT_VERSION_BYTES", 10**9)
    assert main(["preview", "--json"]) == 0
    assert record_attributes(capsys.readouterr().out)["tbot.version"] == "_OTHER"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "tbot.pid").read_text()), 0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("preview", True),
        ("preview --tbot-version=18.3.0", False),
        ("preview --config=missing.yaml", False),
        ("emit", False),
        ("status", False),
        ("events", False),
    ],
)
def test_tbot_version_is_run_only_if_needed(
    words: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tbot version` is not run where the version is not needed, as for emit without consent."""
    monkeypatch.setenv("PATH", install_tbot_script(tmp_path, ': > "$0.ran"'))
    with contextlib.suppress(SystemExit):
        main(words.split())
    assert (tmp_path / "tbot.ran").exists() is expected


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_emit(protocol: str, collector: Collector, tmp_path: Path) -> None:
    """A start arrives, and the line names the endpoint, the protocol and the session."""
    config = tmp_path / "tbot.yaml"
    config.write_text("oneshot: true\nonboarding: {join_method: iam}\n")
    done = run_python(
        *("-m", "tbot_otel", "emit", "--tbot-version=18.3.0", "--config", str(config)),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint(protocol),
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        TELEPORT_ANONYMOUS_TELEMETRY="1",
    )
    assert (done.returncode, done.stdout) == (0, "")
    path = "" if protocol == "grpc" else "/v1/logs"
    target = re.escape(f"{collector.endpoint(protocol)}{path} ({protocol})")
    line = re.fullmatch(
        rf"tbot-otel: delivered to {target}, session ([0-9a-f-]{{36}})\n", done.stderr
    )
    assert line
    assert collector.find(line[1]).attributes == EMPTY_ATTRIBUTES | {
        "tbot.run_mode": "one-shot",
        "tbot.version": "18.3.0",
        "tbot.join_type": "iam",
    }


# Imports first, because they take seconds on a busy machine.
TIMED_EMIT_SCRIPT = """
import sys, time
from tbot_otel.cli import main
from tbot_otel.otlp import grpc, http
before = time.monotonic()
status = main(["emit", "--tbot-version=18.3.0"])
print(time.monotonic() - before)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("no_collector", "protocol"), [(refused_port, "http/protobuf"), (silent_port, "grpc")]
)
def test_emit_without_a_collector(
    no_collector: Callable[[], contextlib.AbstractContextManager[int]], protocol: str
) -> None:
    """Without a Collector, emit fails within the configured timeout."""
    with no_collector() as port:
        done = run_python(
            *("-c", TIMED_EMIT_SCRIPT),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
            TELEPORT_ANONYMOUS_TELEMETRY="1",
        )
    assert done.returncode == 1
    path = "" if protocol == "grpc" else "/v1/logs"
    target = f"http://127.0.0.1:{port}{path} ({protocol})"
    *log_lines, last_line = done.stderr.splitlines()
    assert last_line.startswith(f"tbot-otel: not delivered to {target}: ")
    assert all(line.startswith("tbot-otel: ") for line in log_lines)
    # The SDK alone takes 7 seconds and more.
    assert float(done.stdout) < 6


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "delivered to {}, session "),
        (b"\x0a\x02\x08\x01", "not delivered to {}: the Collector rejected 1 of the records sent"),
    ],
)
def test_emit_reads_the_response(
    body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that the Collector rejects in a response of 200 was not delivered."""
    with HTTPStandin(Response(body=body)) as standin:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", standin.endpoint)
        status = main(["emit", "--tbot-version=18.3.0"])
    expected = f"tbot-otel: {expected}".format(f"{standin.endpoint}/v1/logs (http/protobuf)")
    assert status == (1 if "not delivered" in expected else 0)
    assert capsys.readouterr().err.splitlines()[-1].startswith(expected)
    assert len(standin.requests) == 1


def test_emit_hides_the_query() -> None:
    """A failed delivery does not print the endpoint's query."""
    done = run_python(
        *("-m", "tbot_otel", "emit", "--tbot-version", "18.3.0"),
        TELEPORT_ANONYMOUS_TELEMETRY="1",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://127.0.0.1:{free_port()}/v1/logs?key={SECRET}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert done.returncode == 1
    assert SECRET not in done.stderr
    assert "not delivered to" in done.stderr


def test_emit_hides_headers() -> None:
    """A malformed header is named by its variable, and not printed."""
    with HTTPStandin(Response()) as collector:
        done = run_python(
            *("-m", "tbot_otel", "emit", "--tbot-version", "18.3.0"),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization: {SECRET}",
        )
    assert done.returncode == 1
    assert SECRET not in done.stderr
    assert "OTEL_EXPORTER_OTLP_HEADERS: expected name=value" in done.stderr
    assert collector.requests == []


NOISY_EMIT_SCRIPT = """
import logging, sys
from tbot_otel.cli import main

configure = logging.basicConfig

def configure_and_log(**options):
    configure(**options)
    for name in ("another", "opentelemetry.sdk", "tbot_otel"):
        logging.getLogger(name).warning("a line of %s", name)

logging.basicConfig = configure_and_log
sys.exit(main(["emit", "--daemon", "--tbot-version=18.3.0"]))
"""


def test_emit_shows_only_its_own_log() -> None:
    """Other loggers, which can repeat variables, do not get through to standard error."""
    with HTTPStandin(Response()) as collector:
        done = run_python(
            *("-c", NOISY_EMIT_SCRIPT),
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
    first, second = done.stderr.splitlines()
    assert first == "tbot-otel: a line of tbot_otel"
    assert second.startswith("tbot-otel: delivered to ")


SOCKET_AUDIT_SCRIPT = """
import sys
sys.addaudithook(lambda event, _: event.startswith("socket.") and print(event, file=sys.stderr))
from tbot_otel.cli import main
sys.exit(main(["preview", "--json", "--daemon", "--tbot-version=18.3.0"]))
"""


@pytest.mark.parametrize(
    ("consent", "protocol"), [("0", "grpc"), ("1", "http/protobuf"), ("1", "grpc")]
)
def test_preview_opens_no_socket(consent: str, protocol: str) -> None:
    """The preview opens no socket."""
    done = run_python(
        *("-c", SOCKET_AUDIT_SCRIPT),
        TELEPORT_ANONYMOUS_TELEMETRY=consent,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert record_attributes(done.stdout)["tbot.version"] == "18.3.0"
