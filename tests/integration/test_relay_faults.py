"""The relay beside odd Collectors, a full disk and missing metrics: each response is true."""

import contextlib
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from support.processes import WAIT_SECONDS, free_port, wait_until
from support.relay import running_relay
from support.relay_examples import relay_server, report_start
from support.standins import HTTPStandin, Response

ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REJECTED = ACCEPTED.replace(b"200 OK", b"400 Bad Request")
METRICS_TO_NOBODY = {
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
}


@contextlib.contextmanager
def odd_collector(*responses: tuple[float, bytes]) -> Iterator[str]:
    """A Collector that sends these bytes after these seconds, each to one request."""
    remaining = list(responses)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                if line == b"\r\n":
                    self.rfile.read(length)
                    delay, response = remaining.pop(0)
                    time.sleep(delay)
                    with contextlib.suppress(OSError):
                        self.wfile.write(response)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


# What the Collector sends for each report and how many seconds later, and the relay's response.
ODD_RESPONSES = [
    # Two different ones.
    (0, REJECTED + ACCEPTED, 400),
    (0, REJECTED, 400),
    (0, ACCEPTED, 200),
    # Twice the same.
    (0, ACCEPTED * 2, 200),
    (0, REJECTED, 400),
    (0, ACCEPTED, 200),
    # Late.
    (3, ACCEPTED, 503),
    (0, REJECTED, 400),
    (0, ACCEPTED, 200),
]


def test_odd_responses(tmp_path: Path) -> None:
    """A response that belongs to no request, or to an earlier one, acknowledges no report."""
    with (
        odd_collector(*((delay, response) for delay, response, _ in ODD_RESPONSES)) as endpoint,
        running_relay(tmp_path, endpoint, OTEL_EXPORTER_OTLP_TIMEOUT="1") as relay,
    ):
        statuses = [relay.report()[0] for _ in ODD_RESPONSES]
    assert statuses == [status for *_, status in ODD_RESPONSES]


def test_full_disk(tmp_path: Path) -> None:
    """If its log cannot be written, the relay responds as usual, and stops in time."""
    metrics = f"http://127.0.0.1:{free_port()}/v1/metrics"
    with HTTPStandin(Response(404), Response()) as standin:
        server = relay_server(
            standin.endpoint, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics, **METRICS_TO_NOBODY
        )
        words = ["sh", "-c", 'exec "$@" > /dev/full 2>&1', "sh", *server.words]
        with server._replace(words=words).running(tmp_path / "empty.log") as process:
            assert [report_start(server)[1] for _ in range(2)] == ["unavailable", "ok"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 0


def test_missing_metrics_endpoint(tmp_path: Path) -> None:
    """The log says once that metrics are not exported. Calls and the exit are not delayed."""
    metrics = f"http://127.0.0.1:{free_port()}/v1/metrics"
    with (
        HTTPStandin(Response()) as standin,
        running_relay(
            tmp_path,
            standin.endpoint,
            *("--workers", "2"),
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics,
            OTEL_EXPORTER_OTLP_METRICS_TIMEOUT="1",
            **METRICS_TO_NOBODY,
        ) as relay,
    ):
        problem = "WARNING: metrics are not exported: the exporter reported a failure"
        wait_until(lambda: problem in relay.output())
        assert relay.report() == (200, "")
        assert relay.stop() == 0
        assert relay.output().count(problem) == 1
