"""A relay in a process of its own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import trustme
from cryptography import x509

from support.cases import FULL_ATTRIBUTES
from support.messages import PROTO, encode_request, encode_start, new_session_id
from support.processes import BASE_ENVIRON, MAIN_SCRIPT, WAIT_SECONDS, free_port, wait_until
from tbot_otel.connect import PATH

START_SECONDS = 120.0
"""How long a relay may take to start. Its imports are slow on a busy machine."""


class Relay:
    """The process of a relay."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, host: str, port: int) -> None:
        self.process = process
        self._log = log
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        """The URL that it listens on, without TLS."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else self.url_for("http")

    def url_for(self, scheme: str) -> str:
        """The URL that it listens on, with the host name of its certificate."""
        return f"{scheme}://localhost:{self.port}"

    def output(self) -> str:
        """The text that it has printed so far."""
        return self._log.read_text()

    def worker_pids(self) -> set[int]:
        """The process ids of its workers."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        pids = set()
        for child in children:
            # It may have exited already.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # Another child is multiprocessing's resource tracker.
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    pids.add(int(child))
        return pids

    def reload(self) -> None:
        """Let new workers replace the present ones."""
        old_workers = self.worker_pids()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not self.worker_pids() & old_workers)

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((self.host, self.port), WAIT_SECONDS)

    def started_worker_count(self) -> int:
        """The number of workers that have started so far."""
        return self.output().count("INFO: listens on ")

    def listens(self) -> bool:
        """Whether it accepts connections."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    def get(self, path: str) -> tuple[int, str]:
        """Send a GET request, and return the HTTP status and the JSON field ``status``."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}").get("status", "")

    def post(
        self,
        body: bytes | Iterable[bytes],
        content_type: str = PROTO,
        *,
        path: str = PATH,
        source: str | None = None,
        **headers: str,
    ) -> tuple[int, str, str]:
        """Post a body, and return the HTTP status and Connect's code and message.

        Args:
            body: The body, or its chunks.
            content_type: Its content type.
            path: The path.
            source: The address to connect from.
            headers: More headers, with ``_`` for ``-``.
        """
        connection = http.client.HTTPConnection(
            self.host, self.port, WAIT_SECONDS, (source, 0) if source else None
        )
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            # It may respond before it has read the whole body, and close.
            with contextlib.suppress(BrokenPipeError):
                connection.request("POST", path, body, {"Content-Type": content_type, **more})
            response = connection.getresponse()
            text = response.read()
        error = json.loads(text) if response.status != 200 and text else {}
        return response.status, error.get("code", ""), error.get("message", "")

    def report(self, session_id: str | None = None, **headers: str) -> tuple[int, str]:
        """Post the report of a start, and return the HTTP status and Connect's code."""
        session_id = session_id or new_session_id()
        body = encode_request(encode_start(FULL_ATTRIBUTES), session_id=session_id)
        return self.post(body, **headers)[:2]

    def stop(self) -> int:
        """Stop it, and return its exit status."""
        self.process.terminate()
        return self.process.wait(2 * WAIT_SECONDS)


@contextlib.contextmanager
def running_relay(
    folder: Path,
    endpoint: str,
    *options: str,
    setup: str = "",
    host: str = "127.0.0.1",
    wrapper: Sequence[str] = (),
    **environ: str,
) -> Iterator[Relay]:
    """Run a relay until the block ends. It must exit with 0 and never print a traceback.

    Args:
        folder: The folder for its output.
        endpoint: The endpoint that it exports to.
        options: Its options, except ``--listen``.
        setup: Python code that each of its processes runs first.
        host: The address that it listens on.
        wrapper: The words of a program that becomes it.
        environ: Its variables.
    """
    port = free_port()
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    log = folder / f"relay-{port}.log"
    # Its workers are new processes. Each Python runs the module of this name when it starts.
    modules = folder / f"setup-{port}"
    modules.mkdir()
    # Not multiprocessing's resource tracker, which would import what the setup imports.
    is_tracker = 'any("resource_tracker" in word for word in __import__("sys").orig_argv)'
    (modules / "sitecustomize.py").write_text(
        f"if not {is_tracker}:\n{indent(setup or 'pass', ' ')}"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", MAIN_SCRIPT, "relay", "--listen", listen, *options],
            env={
                **BASE_ENVIRON,
                "PYTHONWARNINGS": "error",
                "PYTHONPATH": str(modules),
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    relay = Relay(process, log, host, port)
    workers = int(options[options.index("--workers") + 1]) if "--workers" in options else 1

    def has_started() -> bool:
        assert process.poll() is None, relay.output()
        return relay.started_worker_count() >= workers

    try:
        wait_until(has_started, START_SECONDS)
        yield relay
        if process.poll() is None:
            assert relay.stop() == 0
        assert "Traceback" not in relay.output(), relay.output()
    finally:
        if process.poll() is None:
            # The main process first: it would replace its workers.
            workers_left = relay.worker_pids()
            process.kill()
            process.wait()
            for worker in workers_left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def write_certificate(folder: Path, authority: trustme.CA) -> str:
    """Write a new certificate and its key, and return the certificate's serial number."""
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert")
    issued.private_key_pem.write_to_path(folder / "key")
    certificate = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    return f"{certificate.serial_number:X}"


def report_over_tls(relay: Relay, secret: str, authority: trustme.CA) -> tuple[int, str]:
    """Report a start, and return the HTTP status and the serial number of the certificate."""
    # A default context reads all authorities of the machine, which takes longer than the call.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    connection = http.client.HTTPSConnection(
        "localhost", relay.port, timeout=WAIT_SECONDS, context=context
    )
    body = encode_request(encode_start(FULL_ATTRIBUTES), session_id=new_session_id())
    with contextlib.closing(connection):
        connection.request(
            "POST", f"{secret and f'/{secret}'}{PATH}", body, {"Content-Type": PROTO}
        )
        certificate: Any = connection.sock.getpeercert()
        return connection.getresponse().status, certificate["serialNumber"].lstrip("0")
