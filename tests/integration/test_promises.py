"""The tests that prove the promises have their cases, and the privacy page shows what happens."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from support.otlp import PROTOCOLS
from support.paths import ROOT
from support.standins import accepting_standin
from support.starts import record_start_in_process

PRIVACY = ROOT / "docs" / "privacy.md"
PROOF = ROOT / "docs" / "proof.md"
TEST = re.compile(r"`([a-z/]+/test_\w+\.py)::(test_\w+)(\[[^`]+\])?`")


def collect(files: list[str]) -> set[str]:
    """Collect the tests of some files, in another process."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return {*done.stdout.splitlines()}


def test_cases_exist(request: pytest.FixtureRequest) -> None:
    """Each case of a test that the page names is collected."""
    cases = {
        f"tests/{file}::{test}{case}"
        for file, test, case in TEST.findall(PROOF.read_text())
        if case
    }
    # A run of all tests has collected them.
    missing = cases - {item.nodeid for item in request.session.items}
    if missing:
        missing -= collect(sorted({case.partition("::")[0] for case in missing}))
    assert sorted(missing) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_user_agent(protocol: str) -> None:
    """The user agent names the versions of libraries, and over gRPC the system."""
    with accepting_standin(protocol) as collector:
        record_start_in_process(
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
        )
    (request,) = collector.requests
    version = r"\d+\.\d+\.\d+"
    exporter = rf"OTel-OTLP-Exporter-Python/{version}"
    libraries = rf" grpc-python/{version} grpc-c/{version} \(\w+; chttp2\)"
    expected = exporter + libraries if protocol == "grpc" else exporter
    assert re.fullmatch(expected, request.headers["user-agent"])


def transcripts() -> list[tuple[str, list[str]]]:
    """The commands with strace in the page, and the lines that each prints."""
    found = []
    consoles = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for block in consoles.findall(PRIVACY.read_text()):
        for transcript in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = transcript.splitlines()
            if command.startswith("strace"):
                found.append((command, lines))
    return found


def shortened(line: str) -> str:
    """A line of strace as the page shows it, without numbers that differ."""
    line = re.sub(r'execve\("[^"]*/bin/tbot-otel"', 'execve(".../bin/tbot-otel"', line)
    line = re.sub(r'execve\("[^"]*/true"', 'execve("/usr/bin/true"', line)
    line = re.sub(r"0x[0-9a-f]+ /\* \d+ vars \*/", "...", line)
    return re.sub(r"^\[pid +\d+\]", "[pid  4711]", line)


if shutil.which("strace"):

    @pytest.mark.parametrize(
        ("command", "lines"), transcripts(), ids=["run", "emit", "files", "consent"]
    )
    def test_transcript(command: str, lines: list[str]) -> None:
        """Each command with strace prints what the page shows."""
        consent = {"TELEPORT_ANONYMOUS_TELEMETRY": "1"}
        has_consent = "..." in lines
        scripts = sysconfig.get_path("scripts")
        done = subprocess.run(
            ["sh", "-c", command],
            env={
                "PATH": f"{scripts}:{os.environ['PATH']}",
                "HOME": "/nonexistent",
                "PYTHONDONTWRITEBYTECODE": "1",
                **(consent if has_consent else {}),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        printed = [shortened(line) for line in (done.stdout + done.stderr).splitlines()]
        if has_consent:
            calls = [line for line in lines if line.startswith("[pid")]
            assert calls
            assert [line for line in calls if line not in printed] == []
        else:
            assert printed == lines
