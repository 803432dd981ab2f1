"""Many starts under `tbot-otel run` with random faults.

``HYPOTHESIS_PROFILE=long`` runs 2,000 instead of 10.
"""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.collectors import Official
from support.fuzzing import LONG_PROFILE
from support.processes import free_port
from support.run import REPORTING_COMMAND, TESTS_ON_PATH, Command, exporting_to

START_COUNT = 2000 if LONG_PROFILE else 10
# These change what `run` gets, and the command itself has the usual limits.
WRAPPERS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "7 descriptors": ("prlimit", "--nofile=7:"),
    "10 descriptors": ("prlimit", "--nofile=10:"),
    "64 MiB": ("prlimit", f"--as={64 * 2**20}:"),
    "closed input": ("sh", "-c", 'exec "$@" <&-', "sh"),
    "closed input and error": ("sh", "-c", 'exec "$@" <&- 2>&-', "sh"),
}
USUAL_LIMITS = ("prlimit", "--nofile=1024:", "--as=unlimited:")


class RestartingCollector:
    """A Collector that can be killed and started again, and keeps what it has received."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.port = free_port()
        self.received = ""

    def start(self) -> None:
        """Start it, if it does not run."""
        self.kill()
        collector = Official(self._binary, self._folder, self.port)
        self._stack.enter_context(collector.running())

    def kill(self) -> None:
        """End it, if it runs. Its next start would overwrite its file."""
        self._stack.close()
        file = self._folder / "received.jsonl"
        if file.exists():
            self.received += file.read_text()
            file.unlink()


@pytest.fixture
def collector(official_binary: Path, tmp_path: Path) -> Iterator[RestartingCollector]:
    """A Collector that runs."""
    collector = RestartingCollector(official_binary, tmp_path)
    collector.start()
    yield collector
    collector.kill()


def test_starts(collector: RestartingCollector) -> None:
    """Every command ends with its own status, and an acknowledged report is in the Collector."""
    seed = os.environ.get("FUZZ_SEED") or str(random.randrange(2**32))  # noqa: S311 - not a secret
    rng = random.Random(seed)  # noqa: S311 - not a secret
    endpoint = f"http://localhost:{collector.port}"
    acknowledged = set()
    for number in range(START_COUNT):
        if number % 5 == 0:
            collector.start()
        wrapper = rng.choice([*WRAPPERS])
        fault = rng.choice(["none", "none", "forwarder killed", "Collector killed"])
        if number == 0:
            # Not all reports may fail.
            wrapper, fault = "nothing", "none"
        # pytest prints it if the test fails.
        print(f"FUZZ_SEED={seed}, start {number}: {wrapper}, {fault}")
        with Command(
            *USUAL_LIMITS,
            *REPORTING_COMMAND,
            wrapper=WRAPPERS[wrapper],
            environ={**TESTS_ON_PATH, **exporting_to(endpoint), "OTEL_EXPORTER_OTLP_TIMEOUT": "2"},
        ) as command:
            # At any moment from the fork on.
            command.process.poll()
            if fault == "forwarder killed":
                for pid in command.run_processes() - {command.process.pid}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            elif fault == "Collector killed":
                collector.kill()
            status, stdout, _ = command.wait()
            # Without memory for a thread, it exits after a minute.
            if wrapper != "64 MiB":
                command.wait_for_forwarder_exit()
        assert status == 7
        # The last lines are the session, and the seconds with the answer.
        *_, session, _, answer = ("", "", *stdout.split())
        if answer == "200":
            acknowledged.add(session)
    collector.kill()
    assert acknowledged
    assert not [session for session in acknowledged if session not in collector.received]
