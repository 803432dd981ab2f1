"""Several relays behind HAProxy, as in the examples: slow clients, and relays that end."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, count, repeat
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from connectrpc.client import ConnectClientSync
from pyqwest import SyncClient, SyncHTTPTransport

from support import agent
from support.collectors import Official
from support.fuzzing import LONG_PROFILE
from support.messages import PROTO, REPORT, http_request, new_session_id
from support.otlp import attribute_values
from support.processes import WAIT_SECONDS, free_port, running_server, wait_until
from support.relay import Relay, running_relay
from support.relay_examples import SECRET, read_example
from tbot_otel.connect import METHOD, PATH
from tbot_otel.relay.server import SHUTDOWN_TIMEOUT_SECONDS

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs HAProxy")

CALLS_IN_FLIGHT = 16
CLIENTS = 4
"""While the relays are reloaded, which takes half a minute. Each pauses after a call."""
PAUSE_SECONDS = 0.2
CALLS = 600 if LONG_PROFILE else 150
"""In each half of the load."""
SLOW_CLIENTS = 500 if LONG_PROFILE else 100
HONEST_CALLS = 100 if LONG_PROFILE else 40
MAX_CONNECTIONS = 100
STRANGERS = 130
"""More than HAProxy accepts."""


class Balancer(NamedTuple):
    """A running HAProxy."""

    port: int
    certificate: Path
    log: Path

    def lines(self, pattern: str) -> list[str]:
        """The lines of its log that a pattern matches."""
        return re.findall(f"^.*(?:{pattern}).*$", self.log.read_text(), re.MULTILINE)

    def connect(self, protocol: str = "http/1.1") -> ssl.SSLSocket:
        """Open a connection, from an address that only clients have."""
        client = socket.create_connection(("127.0.0.1", self.port), WAIT_SECONDS, ("127.0.0.2", 0))
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols([protocol])
        return context.wrap_socket(client, server_hostname="localhost")

    def report(self, secret: str = SECRET) -> tuple[str, int]:
        """Report a start over HTTP/1.1, and return its session id and the status."""
        session_id = new_session_id()
        body = agent.build_request(session_id, oneshot=True)
        connection = http.client.HTTPConnection("localhost", timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.sock = self.connect()
            try:
                connection.request("POST", f"/{secret}{PATH}", body, {"Content-Type": PROTO})
                return session_id, connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return session_id, 0


@contextlib.contextmanager
def running_balancer(
    folder: Path, relays: Sequence[Relay], max_connections: int = 2 * SLOW_CLIENTS
) -> Iterator[Balancer]:
    """Run HAProxy with the configuration of the example until the block ends."""
    authority = trustme.CA()
    certificate = folder / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "relay.pem"
    )
    port = free_port()
    replacements = {
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/haproxy": str(folder),
        # It may not exceed the limit of open files.
        "maxconn 8000": f"maxconn {max_connections}",
    }
    for number, relay in enumerate(relays, 1):
        replacements[f"10.0.0.1{number}:8126"] = f"127.0.0.1:{relay.port}"
    config = folder / "haproxy.cfg"
    config.write_text(read_example("haproxy.cfg", replacements))
    log = folder / "haproxy.log"
    with running_server(["haproxy", "-f", str(config)], log, port):
        yield Balancer(port, certificate, log)


@contextlib.contextmanager
def running_relays(folder: Path, collector: Official) -> Iterator[list[Relay]]:
    """Run three relays with a path secret, in the file ``secret``, until the block ends."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    with contextlib.ExitStack() as stack:
        endpoint = collector.endpoint("http/protobuf")
        options = ("--path-secret-file", str(secret))
        yield [stack.enter_context(running_relay(folder, endpoint, *options)) for _ in range(3)]


@pytest.fixture(name="folder", scope="module")
def folder_of_relays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `relays`."""
    return tmp_path_factory.mktemp("relays")


@pytest.fixture(scope="module")
def relays(folder: Path, official: Official) -> Iterator[list[Relay]]:
    """Three relays, for tests that end none of them."""
    with running_relays(folder, official) as relays:
        yield relays


def test_slow_clients(relays: list[Relay], tmp_path: Path) -> None:
    """Bodies that never end stay with HAProxy. Reports beside them are acknowledged."""
    begin = http_request(target=f"/{SECRET}{PATH}")[:-1]
    chunk = http_request("Transfer-Encoding: chunked", target=f"/{SECRET}{PATH}", body=b"1\r\nx")
    with (
        running_balancer(tmp_path, relays) as balancer,
        contextlib.ExitStack() as stack,
    ):
        slow = []
        for number in range(SLOW_CLIENTS):
            slow.append(stack.enter_context(balancer.connect()))
            slow[-1].sendall(chunk if number % 2 else begin)
        statuses = [balancer.report()[1] for _ in range(HONEST_CALLS // 2)]
        # It offers HTTP/2 as well.
        transport = SyncHTTPTransport(tls_ca_cert=balancer.certificate.read_bytes())
        runtime = ConnectClientSync(
            f"https://localhost:{balancer.port}/{SECRET}",
            http_client=SyncClient(transport),
        )
        # It raises an error if the report is not acknowledged.
        for _ in range(HONEST_CALLS // 2):
            request = agent.build_request(new_session_id(), oneshot=True)
            runtime.execute_unary(request=METHOD.input.from_binary(request), method=METHOD)
        responses = Counter(client.recv(len(b"HTTP/1.1 408")) for client in slow)
        stranger = socket.create_connection(
            ("127.0.0.1", balancer.port), source_address=("127.0.0.2", 0)
        )
        with stranger:
            stranger.sendall(REPORT)
            with contextlib.suppress(ConnectionResetError):
                stranger.recv(1)
        failed = wait_until(lambda: balancer.lines("connection failed"))
        log = balancer.log.read_text()
    assert statuses == [200] * (HONEST_CALLS // 2)
    assert responses == {b"HTTP/1.1 408": SLOW_CLIENTS}
    # A relay responds with another status, and none was chosen for them.
    slow_calls = balancer.lines("^408 ")
    assert slow_calls
    assert [line for line in slow_calls if "tbots/<NOSRV>" not in line] == []
    assert len(balancer.lines("^200 HTTP/1.1 .*relays/relay[123],")) == HONEST_CALLS
    assert failed
    assert SECRET not in log
    assert "SubmitTbotEvent" not in log
    assert "127.0.0.2" not in log


def test_refuses(relays: list[Relay], tmp_path: Path) -> None:
    """Requests that are not a report, and bodies larger than a relay accepts, stay with HAProxy."""
    with running_balancer(tmp_path, relays) as balancer:

        def respond(request: bytes) -> bytes:
            with balancer.connect() as client:
                client.sendall(request)
                return client.recv(len(b"HTTP/1.1 404"))

        assert respond(http_request(method="GET", target="/readyz")) == b"HTTP/1.1 404"
        large = http_request(target=f"/{SECRET}{PATH}", body=bytes(4097))
        assert respond(large) == b"HTTP/1.1 413"
        assert respond(http_request(target=f"/{SECRET}{PATH}")) == b"HTTP/1.1 200"


def http2_request(stream_id: int) -> bytes:
    """An HTTP/2 request for ``GET /``."""
    block = b"\x82\x87\x84\x01\x01x"
    return len(block).to_bytes(3, "big") + b"\x01\x05" + stream_id.to_bytes(4, "big") + block


def requests_of_stranger(protocol: str) -> Iterator[bytes]:
    """Many requests, and then one at a time, without end. HTTP/2 allows 100 at once."""
    if protocol == "h2":
        yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
        yield b"".join(http2_request(2 * number + 1) for number in range(90))
        yield from (http2_request(2 * number + 1) for number in count(90))
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield request * 1000
    yield from repeat(request)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_unread_responses(protocol: str, relays: list[Relay], tmp_path: Path) -> None:
    """Strangers over the limit of connections who ask on and read nothing delay no report."""
    stop = threading.Event()
    with (
        running_balancer(tmp_path, relays, MAX_CONNECTIONS) as balancer,
        ThreadPoolExecutor(STRANGERS) as threads,
        contextlib.ExitStack() as stack,
    ):

        def ask() -> None:
            # Those over the limit wait for the others.
            with contextlib.suppress(OSError):
                stranger = stack.enter_context(balancer.connect(protocol))
                for requests in requests_of_stranger(protocol):
                    stranger.sendall(requests)
                    if stop.wait(1):
                        return

        stack.callback(stop.set)
        for _ in range(STRANGERS):
            threads.submit(ask)
        statuses = [balancer.report()[1] for _ in range(HONEST_CALLS)]
    assert statuses == [200] * HONEST_CALLS


def acknowledged(calls: Sequence[Future[tuple[str, int]]]) -> set[str]:
    """The session ids of the calls that were acknowledged."""
    return {session_id for session_id, status in (call.result() for call in calls) if status == 200}


def received_session_ids(collector: Official) -> Counter[object]:
    """How often a Collector has received each session id."""
    return Counter(
        attribute_values(logs["resource"]["attributes"])["session.id"]
        for logs in collector.resources()
    )


def test_relays_end(official_binary: Path, tmp_path: Path) -> None:
    """During load, one relay is killed and one drained: no acknowledged start is lost."""
    with (
        Official(official_binary, tmp_path).running() as collector,
        running_relays(tmp_path, collector) as relays,
        running_balancer(tmp_path, relays) as balancer,
        ThreadPoolExecutor(CALLS_IN_FLIGHT) as clients,
    ):
        killed, drained, _ = relays
        first = [clients.submit(balancer.report) for _ in range(CALLS)]
        first[CALLS // 3].result()
        # As a machine or a container ends.
        workers = killed.worker_pids()
        killed.process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        delivered = acknowledged(first)
        wait_until(lambda: balancer.lines("relay1 is DOWN"))
        second = [clients.submit(balancer.report) for _ in range(CALLS)]
        second[CALLS // 3].result()
        drained.process.terminate()
        delivered |= acknowledged(second)
        assert drained.process.wait(SHUTDOWN_TIMEOUT_SECONDS + WAIT_SECONDS) == 0
        wait_until(lambda: delivered <= received_session_ids(collector).keys())
        received = received_session_ids(collector)
    used = Counter(re.findall("relays/(relay[123]),", balancer.log.read_text()))
    repeated = received.total() - len(received)
    print(f"failed: {2 * CALLS - len(delivered)} of {2 * CALLS}, repeated: {repeated}, {used}")
    # HAProxy asks another relay, also for the calls in flight on the one that is killed.
    assert len(delivered) == 2 * CALLS
    assert received.keys() == delivered
    assert repeated <= CALLS_IN_FLIGHT
    assert used.keys() == {"relay1", "relay2", "relay3"}


def test_new_secret(folder: Path, relays: list[Relay], tmp_path: Path) -> None:
    """During load, the secret of all relays is changed: no call fails."""
    new_secret = "0123456789abcdef-new"
    stop = threading.Event()

    def report_until_stopped() -> list[int]:
        statuses = []
        while not stop.wait(PAUSE_SECONDS):
            statuses.append(balancer.report()[1])
        return statuses

    with (
        running_balancer(tmp_path, relays) as balancer,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        assert balancer.report(new_secret)[1] == 404
        (folder / "secret").write_text(f"{SECRET}\n{new_secret}\n")
        calls = [clients.submit(report_until_stopped) for _ in range(CLIENTS)]
        try:
            for relay in relays:
                relay.reload()
        finally:
            stop.set()
        assert Counter(chain(*(call.result() for call in calls))).keys() == {200}
        assert {balancer.report(new_secret)[1] for _ in relays} == {200}
