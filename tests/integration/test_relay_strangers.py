"""Strangers who do not read, who stay, or who only open connections keep no tbot from reporting."""

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from support.messages import http_request
from support.processes import wait_until
from support.relay import START_SECONDS, Relay, report_over_tls, running_relay, write_certificate
from support.relay_clients import exported_points, open_files
from support.relay_examples import SECRET
from support.setup_code import override_constants
from support.standins import HTTPStandin, Response
from tbot_otel.connect import PATH

MAX_CONNECTIONS = 40
STRANGERS = 60
HONEST_CALLS = 20
LIMITED = override_constants("tbot_otel.relay.server", MAX_CONNECTIONS=MAX_CONNECTIONS)
# The responses to all of them fill the socket's buffers.
REQUEST_COUNT = 2000
UNREAD_REQUESTS = [
    http_request(method="GET", target="/healthz", body=b""),
    http_request(method="GET", target="/readyz", body=b""),
    http_request(target=PATH),
    http_request(target=f"/{SECRET}{PATH}", body=b"x"),
]


def connect_with_tls(relay: Relay) -> ssl.SSLSocket:
    """Open a connection with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(relay.connect())


@contextlib.contextmanager
def strangers(
    connect: Callable[[], socket.socket], data: bytes, count: int = STRANGERS
) -> Iterator[None]:
    """Open connections, send bytes on each, and read nothing, until the block ends."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            # The relay may have closed it already.
            with contextlib.suppress(OSError):
                connection = stack.enter_context(connect())
                connection.setblocking(False)
                connection.send(data)
        yield


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_unread_responses(encrypted: bool, tmp_path: Path) -> None:
    """A connection is closed after each response but an acknowledgment, whether it is read or not.

    So strangers over the limit of connections delay no report.
    """
    authority = trustme.CA()
    (tmp_path / "secret").write_text(SECRET)
    options = ["--path-secret-file", str(tmp_path / "secret")]
    if encrypted:
        write_certificate(tmp_path, authority)
        options += ["--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key")]
    with (
        HTTPStandin(Response()) as standin,
        running_relay(tmp_path, standin.endpoint, *options, setup=LIMITED) as relay,
    ):
        (worker,) = relay.worker_pids()

        def report() -> int:
            if encrypted:
                return report_over_tls(relay, SECRET, authority)[0]
            return relay.report(path=f"/{SECRET}{PATH}")[0]

        def connect() -> socket.socket:
            return connect_with_tls(relay) if encrypted else relay.connect()

        assert report() == 200
        before = open_files(worker)
        for request in UNREAD_REQUESTS:
            data = request.replace(b"Connection: close\r\n", b"") * REQUEST_COUNT
            with strangers(connect, data):
                assert [report() for _ in range(HONEST_CALLS)] == [200] * HONEST_CALLS
                wait_until(lambda: not open_files(worker) - before)
        calls = "calls with an unknown secret: "
        wait_until(lambda: calls in relay.output())
        # Once a minute.
        assert relay.output().count(calls) == 1


def test_handshakes(tmp_path: Path) -> None:
    """Silent handshakes up to the limit of descriptors delay reports only for some seconds.

    Handshakes without TLS or a common version are counted, and logged without an address.
    """
    authority = trustme.CA()
    write_certificate(tmp_path, authority)
    options = ["--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key")]
    # The server raises the soft limit to the hard one.
    limits = ["prlimit", "--nofile=104:104"]
    with (
        HTTPStandin(Response()) as standin,
        running_relay(
            tmp_path,
            standin.endpoint,
            *options,
            setup=LIMITED,
            wrapper=limits,
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="500",
        ) as relay,
    ):
        old = ssl.create_default_context()
        authority.configure_trust(old)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            old.wrap_socket(relay.connect(), server_hostname="localhost")
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(relay.connect(), server_hostname="localhost")
        with relay.connect() as connection:
            connection.sendall(http_request(target=PATH))
            connection.recv(1)
        for reason in (b"not_tls", b"no_common_version", b"certificate_refused"):
            wait_until(lambda: any(reason in request.body for request in standin.requests))  # noqa: B023 - called now
        with strangers(relay.connect, b"", 150):
            wait_until(lambda: "no file descriptors left" in relay.output())
        wait_until(lambda: relay.started_worker_count() == 2, START_SECONDS)
        assert "worker-1 ended by itself (SIGKILL)" in relay.output()
        for _ in range(HONEST_CALLS):
            assert report_over_tls(relay, "", authority)[0] == 200
        assert relay.stop() == 0
        assert exported_points(standin)["tbot_otel.relay.worker.crashes"] == {(): 1}
        output = relay.output()
    for line in (
        "WARNING: connections without TLS to the port for TLS: 1",
        "WARNING: TLS connections without a common version (1.3): 1",
        "WARNING: TLS connections whose client refused the certificate: 1",
    ):
        assert output.count(line) == 1
    ports = set(re.findall(r"127\.0\.0\.1:(\d+)", output))
    assert ports == {str(relay.port), standin.endpoint.rpartition(":")[2]}
