"""Commands under `tbot-otel run`, and a minimal tbot.

A marker variable identifies the processes of each command.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Self

from support.paths import TESTS
from support.processes import WAIT_SECONDS, wait_for_exit, wait_until

CONSENTING_ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ["HOME"],
    "PYTHONWARNINGS": "error",
    "TELEPORT_ANONYMOUS_TELEMETRY": "1",
}


def run_words(options: tuple[str, ...] | None) -> tuple[str, ...]:
    """The words of ``tbot-otel run`` with options; None for no words."""
    return () if options is None else (sys.executable, "-m", "tbot_otel", "run", *options, "--")


class Command:
    """A command under `tbot-otel run`, in its own session, killed at the end of the block.

    Args:
        words: The command.
        options: The options of `run`; None to start the command directly.
        wrapper: The words of a program that starts all of it.
        environ: Variables in addition to the consent.
    """

    def __init__(
        self,
        *words: str,
        options: tuple[str, ...] | None = (),
        wrapper: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self._marker = f"TEST_MARKER={uuid.uuid4()}"
        self.import_gate = -1
        name, _, marker = self._marker.partition("=")
        self.process = subprocess.Popen(
            [*wrapper, *run_words(options), *words],
            env={**CONSENTING_ENVIRON, name: marker, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open_gate()
        for pid in {self.process.pid, *self._marked_processes()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):
            # It fails if communicate() was called before.
            self.process.communicate(timeout=WAIT_SECONDS)

    def _marked_processes(self) -> dict[int, bytes]:
        found = {}
        for folder in Path("/proc").iterdir():
            # The process may have exited since.
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and self._marker.encode() in (
                    (folder / "environ").read_bytes().split(b"\0")
                ):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes()
        return found

    def run_processes(self) -> set[int]:
        """The launcher, until it has become the command, and the forwarder."""
        return {
            pid for pid, words in self._marked_processes().items() if b"\0tbot_otel\0run\0" in words
        }

    def forwarder(self) -> int:
        """Wait for the forwarder, and return its process id."""

        def find() -> int | None:
            for pid in self.run_processes():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/fd/1").readlink() == Path(os.devnull):
                        return pid
            return None

        return int(wait_until(find) or 0)

    def read_line(self) -> str:
        """Wait for a line of its standard output, and return it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().removesuffix("\n")

    def wait(self) -> tuple[int, str, str]:
        """Wait for its exit, and return its status, standard output and standard error."""
        stdout, stderr = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, stdout, stderr

    def open_gate(self) -> None:
        """Let a forwarder continue that waits in an import."""
        if self.import_gate >= 0:
            os.close(self.import_gate)
        self.import_gate = -1

    def wait_for_forwarder_exit(self) -> None:
        """Wait until the launcher and the forwarder have exited."""

        def have_exited() -> bool:
            pids = self.run_processes()
            for pid in pids:
                wait_for_exit(pid, 1)
            return not pids

        wait_until(have_exited)


# A minimal tbot without threads, which prints each step, and at last the seconds that its report
# took and the response. It runs where the agent cannot.
REPORT_SCRIPT = """
import contextlib, http.client, os, sys, time, uuid
from urllib.parse import urlsplit
print("err", file=sys.stderr)
print(*sys.argv, os.getcwd(), os.umask(0), flush=True)
address = None
if os.environ["TELEPORT_ANONYMOUS_TELEMETRY"] == "1":
    address = os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS", os.environ.get("TEST_VENDOR"))
if address:
    from support import agent
    url, session = urlsplit(address), str(uuid.uuid4())
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    headers = {"Content-Type": "application/proto", "Connect-Protocol-Version": "1"}
    begin = time.monotonic()
    try:
        with contextlib.closing(connection):
            body = agent.build_request(session, oneshot=True)
            connection.request("POST", url.path + agent.PATH, body, headers)
            print(session, flush=True)
            answer = connection.getresponse().status
    except OSError as error:
        answer = type(error).__name__
    print(f"{time.monotonic() - begin:.3f}", answer, flush=True)
if "stay" in sys.argv:
    time.sleep(60)
sys.exit(7)
"""
REPORTING_COMMAND = (sys.executable, "-c", REPORT_SCRIPT)
TESTS_ON_PATH = {"PYTHONPATH": str(TESTS)}


def exporting_to(endpoint: str, protocol: str = "http/protobuf") -> dict[str, str]:
    """Variables that name a Collector."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
