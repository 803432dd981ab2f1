"""Runs a program under audit, and reports what it did."""

import ast
import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from tbot_otel.consent import OPT_IN
from tbot_otel.testing._environment import telemetry_variables

REFUSALS: tuple[Mapping[str, str], ...] = (
    {},
    {OPT_IN: "0"},
    {OPT_IN: "yes"},
    {OPT_IN: "1", "DO_NOT_TRACK": "1"},
    {OPT_IN: "1", "OTEL_SDK_DISABLED": "true"},
)
"""Variables without consent, one mapping for each reason."""

_SITE = str(Path(__file__).with_name("_site"))
_LOG_VARIABLE = "_TBOT_OTEL_AUDIT_LOG"
# With these, coverage.py starts in child processes, and writes a file there.
_COVERAGE_PREFIXES = ("COVERAGE_", "COV_CORE_")
_POLL_INTERVAL_SECONDS = 0.02
_NO_EXIT_HANDLERS = (
    "the program ended without its exit handlers, by os._exit or a signal: native threads and "
    "sockets are not known"
)


class Finding(NamedTuple):
    """Something that a process did."""

    kind: str
    """``socket``, ``thread``, ``file``, ``import``, ``process``, ``stderr`` or ``audit``."""
    name: str
    """What it was, such as ``connect 127.0.0.1:4318``."""
    process: str = ""
    """The command of the process, if it is not the first one."""

    def __str__(self) -> str:
        where = f" (in: {_shorten(self.process)})" if self.process else ""
        return f"{self.kind}: {self.name}{where}"


@dataclass(frozen=True)
class AuditReport:
    """What a program and its Python child processes did, from their start to their exit."""

    returncode: int
    """The exit status of the program; negative for a signal."""
    stdout: str
    """What they wrote to standard output."""
    stderr: str
    """What they wrote to standard error."""
    findings: tuple[Finding, ...]
    """What they did. An import is here if the module is not of the standard library."""
    events: tuple[str, ...]
    """The audit events that Python raised, each once. Reading a file and starting a thread are left
    out."""

    def names(self, kind: str) -> list[str]:
        """Return the names of the findings of a kind."""
        return [finding.name for finding in self.findings if finding.kind == kind]

    def problems(self, allow: Collection[str] = ()) -> list[str]:
        """Return the findings that are not silent, in words.

        A helper may start processes and import its own libraries, so that of the imports only
        OpenTelemetry's count.

        Args:
            allow: Findings that are left out, as shell patterns such as ``file: open *.yaml``.
        """
        found: Counter[Finding] = Counter()
        for finding in self.findings:
            if finding.kind == "import" and not finding.name.startswith("opentelemetry"):
                continue
            text = f"{finding.kind}: {finding.name}"
            if finding.kind == "process" or any(fnmatchcase(text, pattern) for pattern in allow):
                continue
            # A package of OpenTelemetry has dozens of modules.
            name = ".".join(finding.name.split(".")[:2])
            found[finding._replace(name=name) if finding.kind == "import" else finding] += 1
        return [
            str(finding) if count == 1 or finding.kind == "import" else f"{finding}, {count} times"
            for finding, count in found.items()
        ]


class Auditor:
    """Runs programs under audit: the fixture ``tbot_silence``. It needs Linux and CPython."""

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
    ) -> AuditReport:
        """Run a Python program until it and its child processes have ended.

        Args:
            command: The program and its arguments, such as ``[sys.executable, "helper.py"]``.
            env: Variables in addition to those of this process, of which the settings of telemetry
                are removed.
            cwd: The working directory; by default, that of this process.
            timeout: The longest wait, in seconds.

        Raises:
            subprocess.TimeoutExpired: The program or a child process still runs. It is killed.
            RuntimeError: The program is not Python, or does not import ``sitecustomize``.
        """
        with tempfile.TemporaryDirectory(prefix="tbot-otel-") as folder:
            log, stdout, stderr = (Path(folder, name) for name in ("log", "stdout", "stderr"))
            log.touch()
            with stdout.open("wb") as output, stderr.open("wb") as errors:
                process = subprocess.Popen(
                    command,
                    env=_environ(log, env or {}),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                )
            _wait(process, f"{_LOG_VARIABLE}={log}", timeout)
            messages = stderr.read_text(errors="replace")
            processes = _parse(log.read_text())
            if not processes:
                raise RuntimeError(
                    f"{_shorten(shlex.join(command))}: no audit; expected a Python program that "
                    f"imports sitecustomize, which -E, -I and -S prevent. Its output: {messages}"
                )
            findings = [found for audited in processes for found in audited.findings()]
            findings += [Finding("stderr", line) for line in messages.splitlines()]
            events = dict.fromkeys(event for audited in processes for event in audited.events)
            return AuditReport(
                process.returncode,
                stdout.read_text(errors="replace"),
                messages,
                tuple(findings),
                tuple(events),
            )

    def assert_silent(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
        returncode: int = 0,
        allow: Collection[str] = (),
    ) -> AuditReport:
        """Run a Python program, and check that it does nothing that telemetry does.

        Args:
            command: See `run`.
            env: See `run`.
            cwd: See `run`.
            timeout: See `run`.
            returncode: The exit status that is expected.
            allow: See `AuditReport.problems`.

        Raises:
            AssertionError: It opened a socket, started a thread, wrote a file, imported
                OpenTelemetry, or wrote to standard error; or its exit status is another one.
            subprocess.TimeoutExpired: See `run`.
            RuntimeError: See `run`.
        """
        __tracebackhide__ = True
        report = self.run(command, env=env, cwd=cwd, timeout=timeout)
        problems = report.problems(allow)
        if report.returncode != returncode:
            problems.insert(0, f"exit status {report.returncode}, expected {returncode}")
        if problems:
            raise AssertionError(
                "\n  ".join([f"not silent: {_shorten(shlex.join(command))}", *problems])
            )
        return report


def _shorten(command: str) -> str:
    return textwrap.shorten(command, 100, placeholder=" ...")


def _environ(log: Path, env: Mapping[str, str]) -> dict[str, str]:
    removed = telemetry_variables()
    removed += (name for name in os.environ if name.startswith(_COVERAGE_PREFIXES))
    environ = {name: value for name, value in os.environ.items() if name not in removed}
    # Otherwise, the interpreter writes bytecode to files.
    environ |= {"PYTHONDONTWRITEBYTECODE": "1", **env, _LOG_VARIABLE: str(log)}
    path = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = f"{_SITE}{os.pathsep}{path}" if path else _SITE
    return environ


def _wait(process: subprocess.Popen[bytes], variable: str, timeout: float) -> None:
    """Wait for a process and for all that have inherited a variable from it."""
    deadline = time.monotonic() + timeout
    try:
        while process.poll() is None or _processes_with(variable):
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(process.args, timeout)  # noqa: TRY301 - kills first
            time.sleep(_POLL_INTERVAL_SECONDS)
    except BaseException:
        while pids := _processes_with(variable):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
            time.sleep(_POLL_INTERVAL_SECONDS)
        process.wait()
        raise


def _processes_with(variable: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        # It may have ended, or be another user's.
        with contextlib.suppress(OSError):
            if os.fsencode(variable) in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


class _Process:
    """The part of a log that is about one process, until that executes another program."""

    def __init__(self, command: str, *, is_first: bool) -> None:
        self._command = "" if is_first else command
        self.noted: list[tuple[str, str]] = []
        self.found_at_end: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.ended = False

    def end(self, found: list[tuple[str, str]], events: list[str], has_child: bool) -> None:
        # It is called again if the process could not execute the other program.
        self.found_at_end, self.events, self.ended = found, events, True
        if has_child and "process" not in dict(self.noted):
            found.append(("process", "a child process"))

    def findings(self) -> list[Finding]:
        found = [Finding(*values, self._command) for values in self.noted + self.found_at_end]
        # A child process is often ended by a signal.
        if not self.ended and not self._command:
            found.append(Finding("audit", _NO_EXIT_HANDLERS))
        return found


def _parse(log: str) -> list[_Process]:
    processes: list[_Process] = []
    current: dict[int, _Process] = {}
    for line in log.splitlines():
        pid, kind, *values = ast.literal_eval(line)
        if kind == "start":
            current[pid] = _Process(*values, is_first=not processes)
            processes.append(current[pid])
        elif kind == "end":
            current[pid].end(*values)
        else:
            current[pid].noted.append((kind, *values))
    return processes
