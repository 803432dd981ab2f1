"""Run a forwarder of `tbot-otel run`, and connect to it."""

import contextlib
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from support.messages import KIB
from support.processes import MAIN_SCRIPT, WAIT_SECONDS, wait_until
from tbot_otel.connect import PATH

# Prints its address, and runs until its input ends.
COMMAND = ("/bin/sh", "-c", 'echo "$TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"; exec cat')


class Address(NamedTuple):
    """The address that a forwarder listens on, the path of the call, and the process ids."""

    host: str
    port: int
    path: str
    command_pid: int
    forwarder_pid: int

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((self.host, self.port), WAIT_SECONDS)

    def refuses_connections(self) -> bool:
        """Whether nothing listens anymore."""
        try:
            self.connect().close()
        except ConnectionError:
            return True
        return False


def find_forwarder(marker: str, command_pid: int) -> int:
    """Return the process id of the forwarder of a command, by a variable in its environment."""
    for folder in Path("/proc").iterdir():
        # The process may have exited since.
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and int(folder.name) != command_pid:
                variables = (folder / "environ").read_bytes().split(b"\0")
                if marker.encode() in variables:
                    return int(folder.name)
    return 0


@contextlib.contextmanager
def running_forwarder(
    endpoint: str, setup: str = "", options: tuple[str, ...] = (), **environ: str
) -> Iterator[Address]:
    """Run a command with ``tbot-otel run`` until the block ends. Its forwarder must exit too.

    Args:
        endpoint: The endpoint that the forwarder exports to.
        setup: Python code that runs first.
        options: The options of ``run``.
        environ: Variables in addition to the consent and the endpoint.
    """
    marker = str(uuid.uuid4())
    process = subprocess.Popen(
        [sys.executable, "-c", f"{setup}\n{MAIN_SCRIPT}", "run", *options, "--", *COMMAND],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONWARNINGS": "error",
            "TELEPORT_ANONYMOUS_TELEMETRY": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "TEST_MARKER": marker,
            **environ,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Popen's own block closes the input and waits for the command.
    with process:
        assert process.stdout
        url = urlsplit(process.stdout.readline().strip())
        pid = wait_until(lambda: find_forwarder(f"TEST_MARKER={marker}", process.pid))
        address = Address(str(url.hostname), int(url.port or 0), url.path + PATH, process.pid, pid)
        yield address
    wait_until(address.refuses_connections)


def exchange(address: Address, sent: bytes, *, half_closed: bool = False) -> bytes:
    """Send bytes, and return all bytes received until the forwarder closes the connection."""
    received = b""
    with address.connect() as connection:
        connection.sendall(sent.replace(b"{path}", address.path.encode()))
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(64 * KIB):
            received += part
    return received
