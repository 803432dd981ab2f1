"""Run Python programs and servers, choose ports, and wait for conditions."""

import contextlib
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

WAIT_SECONDS = 60.0
"""How long a test waits for a condition that is expected to become true soon."""

MAIN_SCRIPT = "import sys; from tbot_otel.cli import main; sys.exit(main(sys.argv[1:]))"
BASE_ENVIRON = {
    name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
}
"""The variables that a process under test keeps."""

# Below the ports that kernels choose for clients: a client could take one in the meantime.
_PORTS = range(16_000, 32_000)
_used_ports: set[int] = set()

T = TypeVar("T")


def _worker_ports() -> range:
    """The ports of this worker of pytest-xdist; workers do not share any."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(_PORTS) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return _PORTS[worker * size : (worker + 1) * size]


def free_port() -> int:
    """Return a port that nothing listens on and that was not returned before."""
    while True:
        port = random.choice(_worker_ports())  # noqa: S311 - not a secret
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _used_ports:
                _used_ports.add(port)
                return port


def wait_until(condition: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
    """Call the condition until its result is true, and return that result."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, f"not true within {seconds} seconds: {condition}"
        time.sleep(0.02)


def wait_for_exit(pid: int, seconds: float) -> None:
    """Wait until a process has exited that is not a child of this one, or for some seconds."""
    with contextlib.suppress(ProcessLookupError), open(os.pidfd_open(pid)) as process:
        select.select([process], [], [], seconds)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens on a port."""

    def listens() -> bool:
        assert process.poll() is None, f"the server exited with status {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_until(listens)


@contextlib.contextmanager
def running_server(
    command: list[str], log: Path, *ports: int, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends.

    Args:
        command: The command.
        log: The file for its output.
        ports: The ports that it listens on; the block starts when it does.
        environ: The variables; by default, those of this process.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environ
        )
    try:
        for port in ports:
            wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_python(
    *arguments: str, timeout: float = 60, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run this Python in an environment that holds only the given variables.

    Args:
        arguments: The arguments of ``python``.
        timeout: In seconds.
        environ: The variables, in addition to those that a process needs.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "PYTHONWARNINGS": "error", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def install_tbot_script(folder: Path, script: str) -> str:
    """Write a shell script named ``tbot`` into a folder, and return the PATH that finds it."""
    tbot = folder / "tbot"
    tbot.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tbot.chmod(0o755)
    return str(folder)
