"""Delivered means that the Collector accepted this export, and that certificates may change."""

import contextlib
import os
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from support.agent import AGENT_PATH
from support.otlp import PROTOCOLS
from support.processes import WAIT_SECONDS, run_python, wait_until
from support.standins import GRPCStandin, HTTPStandin, Response, tunnel_proxy
from tbot_otel import Outcome, Status
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe
from tbot_otel.otlp.settings import read_settings

pytestmark = pytest.mark.usefixtures("opted_in")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Exporting(contextlib.AbstractContextManager["Exporting"]):
    """An exporter.

    Args:
        arguments: Its arguments.
    """

    def __init__(self, **arguments: Any) -> None:
        self._observer = ResponseObserver()
        self._exporter = build_exporter(
            read_settings(Arguments(**{"timeout": WAIT_SECONDS * 1000} | arguments)),
            self._observer,
        )

    def __call__(self) -> Outcome:
        """Export no records."""
        return export_and_observe(self._exporter, self._observer, [])

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no type here


@contextlib.contextmanager
def scripted_port(*connections: Sequence[Sequence[bytes]]) -> Iterator[tuple[int, list[int]]]:
    """A port that gives each connection its responses.

    Args:
        connections: For each connection, the pieces that are sent after each request.

    Yields:
        The port, and for each connection how many of its requests have been responded to.
    """
    counts: list[int] = []
    remaining = list(connections)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            index = len(counts)
            counts.append(0)
            for pieces in remaining[index]:
                length = 0
                if not self.rfile.readline():
                    # The client has closed the connection.
                    return
                while line := self.rfile.readline().strip().lower():
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                self.rfile.read(length)
                for piece in pieces:
                    self.wfile.write(piece)
                counts[index] += 1
            # Until the client closes the connection.
            self.rfile.read()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield int(server.server_address[1]), counts
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "pieces",
    [[OK + OK], [OK, OK], [OK + OK[:9], OK[9:]], [OK + b"x"], [OK, b"\r\n"]],
    ids=["together", "later", "in parts", "a byte", "a line"],
)
def test_unsolicited_bytes(pieces: list[bytes]) -> None:
    """What comes after a response is not the response to the next export."""
    with scripted_port([pieces, [OK]], [[REFUSED]]) as (port, counts):
        with Exporting(endpoint=f"http://127.0.0.1:{port}/v1/logs") as export:
            assert export().status is Status.DELIVERED
            wait_until(lambda: counts == [1])
            outcome = export()
        wait_until(lambda: counts == [1, 1])
    assert outcome.reason == "the Collector responded with 400"


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
INTERIM += b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 Other\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("through_proxy", [False, True])
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (INTERIM + OK, "the Collector accepted it"),
        (INTERIM + REFUSED, "the Collector responded with 400"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + OK,
            "the Collector responded with 101",
        ),
    ],
    ids=["accepted", "refused", "101"],
)
def test_interim_responses(
    response: bytes, reason: str, through_proxy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses that come before the final one are skipped, also behind a proxy."""
    with scripted_port([[response]]) as (port, _):
        endpoint = f"http://127.0.0.1:{port}"
        if through_proxy:
            monkeypatch.setenv("http_proxy", endpoint)
            endpoint = "http://collector.invalid"
        with Exporting(endpoint=f"{endpoint}/v1/logs") as export:
            assert export().reason == reason


def test_interim_responses_of_a_tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy can respond with them before it opens its tunnel."""
    with (
        Certificates(tmp_path) as certificates,
        certificates.serve("http/protobuf") as collector,
        tunnel_proxy(INTERIM + b"HTTP/1.1 200 OK\r\n\r\n") as (address, _),
    ):
        monkeypatch.setenv("https_proxy", address)
        endpoint = collector.endpoint.replace("localhost", "collector.invalid")
        with Exporting(
            endpoint=f"{endpoint}/v1/logs", tls={"ca_file": str(certificates.ca_file)}
        ) as export:
            assert export().status is Status.DELIVERED


class Certificates(contextlib.AbstractContextManager["Certificates"]):
    """An authority, the files of a client in a folder, and servers that check both.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.cert_file = folder / "cert.pem"
        self.key_file = folder / "key.pem"
        self.write_ca()

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    @property
    def tls(self) -> dict[str, str]:
        """The argument that names the files."""
        names = ("ca_file", "cert_file", "key_file")
        return {name: str(getattr(self, name)) for name in names}

    def renew(self) -> None:
        """Replace the authority, whose certificate is not written yet."""
        self.authority = trustme.CA()

    def write_ca(self) -> None:
        """Write the certificate of the authority."""
        self.authority.cert_pem.write_to_path(self.ca_file)

    def write_client(self, *, half: bool = False) -> None:
        """Write a new certificate of a client, and its key unless only half is written."""
        client = self.authority.issue_cert("client.example")
        client.cert_chain_pems[0].write_to_path(self.cert_file)
        if not half:
            client.private_key_pem.write_to_path(self.key_file)

    def serve(
        self, protocol: str, *, checks_clients: bool = False, **arguments: Any
    ) -> HTTPStandin | GRPCStandin:
        """Return a stand-in with a certificate of the authority."""
        server = self.authority.issue_cert("localhost", "127.0.0.1", "collector.invalid")
        if protocol == "grpc":
            pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
            ca = self.authority.cert_pem.bytes() if checks_clients else None
            credentials = grpc.ssl_server_credentials([pair], ca, checks_clients)
            return GRPCStandin(credentials=credentials, **arguments)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.configure_cert(context)
        if checks_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            self.authority.configure_trust(context)
        return HTTPStandin(Response(), tls=context, **arguments)


def exporting_to(collector: HTTPStandin | GRPCStandin, tls: dict[str, str]) -> Exporting:
    """An exporter to a stand-in with TLS. Some of its exports fail, so it does not try for long."""
    endpoint = collector.endpoint.replace("localhost", "127.0.0.1")
    if isinstance(collector, GRPCStandin):
        return Exporting(protocol="grpc", endpoint=endpoint, tls=tls, timeout=5_000)
    return Exporting(endpoint=f"{endpoint}/v1/logs", tls=tls, timeout=5_000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_that_appear(protocol: str, tmp_path: Path) -> None:
    """Files that are missing at first, or pipes, and files later, work from then on."""
    certificates = Certificates(tmp_path)
    certificates.ca_file.unlink()
    with (
        certificates.serve(protocol, checks_clients=True) as collector,
        exporting_to(collector, certificates.tls) as export,
    ):
        outcome = export()
        assert outcome.reason == (
            "tls.ca_file: expected a file that can be read (No such file or directory)"
        )
        assert outcome.can_retry
        os.mkfifo(certificates.ca_file)
        assert export().reason == "tls.ca_file: expected a file of PEM"
        certificates.ca_file.unlink()
        certificates.write_ca()
        assert export().reason.startswith("tls.cert_file: ")
        certificates.write_client()
        assert export().status is Status.DELIVERED


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_renewed_ca(protocol: str, tmp_path: Path) -> None:
    """A CA file that changes is read again, and connections of before are not used again."""
    certificates = Certificates(tmp_path)
    tls = {"ca_file": str(certificates.ca_file)}
    with certificates.serve(protocol) as collector, exporting_to(collector, tls) as export:
        assert export().status is Status.DELIVERED
        certificates.renew()
        certificates.write_ca()
        # The Collector still has a certificate of the old authority.
        assert export().reason.startswith("tls: the Collector's certificate is not trusted")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_renewed_client_certificate(protocol: str, tmp_path: Path) -> None:
    """A pair is read again when it is complete. Of a half-written one, the old one is kept."""
    certificates = Certificates(tmp_path)
    certificates.write_client()
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other")
    other.cert_file, other.key_file = certificates.cert_file, certificates.key_file
    with (
        certificates.serve(protocol, checks_clients=True) as collector,
        exporting_to(collector, certificates.tls) as export,
    ):
        assert export().status is Status.DELIVERED
        other.write_client(half=True)
        assert export().status is Status.DELIVERED
        other.write_client()
        assert export().status is Status.FAILED
        certificates.write_client()
        assert wait_until(lambda: export().status is Status.DELIVERED)


def test_calls_on_the_old_channel(tmp_path: Path) -> None:
    """Over gRPC, a call on the old channel finishes after the files have changed."""
    certificates = Certificates(tmp_path)
    certificates.write_client()
    arrived, released = threading.Event(), threading.Event()

    def hold_the_first() -> None:
        if not arrived.is_set():
            arrived.set()
            released.wait(WAIT_SECONDS)

    outcomes: list[Outcome] = []
    with (
        certificates.serve("grpc", checks_clients=True, on_request=hold_the_first) as collector,
        exporting_to(collector, certificates.tls) as export,
    ):
        slow = threading.Thread(target=lambda: outcomes.append(export()))
        slow.start()
        assert arrived.wait(WAIT_SECONDS)
        certificates.write_client()
        assert export().status is Status.DELIVERED
        released.set()
        slow.join(WAIT_SECONDS)
    assert [outcome.status for outcome in outcomes] == [Status.DELIVERED]


@pytest.mark.parametrize("command", ["emit", "run"])
def test_quiet_grpc(command: str, tmp_path: Path) -> None:
    """Over gRPC, an untrusted certificate is told in our one line, and in none of gRPC's."""
    certificates = Certificates(tmp_path)
    log = tmp_path / "log"
    words = {
        "emit": ["emit", "--oneshot", "--tbot-version=18.3.0"],
        "run": ["run", "--log", str(log), "--", sys.executable, AGENT_PATH],
    }[command]
    with certificates.serve("grpc") as collector:
        certificates.renew()
        certificates.write_ca()
        done = run_python(
            *("-m", "tbot_otel", *words),
            timeout=WAIT_SECONDS,
            TELEPORT_ANONYMOUS_TELEMETRY="1",
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint.replace("localhost", "127.0.0.1"),
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificates.ca_file),
        )
        if command == "run":
            wait_until(log.read_text)
    lines = done.stderr.splitlines()
    assert len(lines) == (1 if command == "emit" else 0), lines
    assert done.stderr.startswith("tbot-otel: not delivered to " if command == "emit" else "")
