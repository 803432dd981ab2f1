"""Reports a start as tbot does, and prints the seconds until each response.

`tbot-otel run` runs it. It calls immediately, so the first response comes from a forwarder that is
not ready yet. Later calls go to the forwarder and to a Collector by turns. Its arguments are the
Collector's port, and a file with the request for the Collector.
"""

import _socket
import os
import sys
import time

ADDRESS = os.environ["TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS"].removeprefix("http://127.0.0.1:")
PATH = "prehog.v1alpha.TbotReportingService/SubmitTbotEvent"
SESSION = "0b7f1f2e-5d0c-4c39-8a54-3f1d9e6b7a20"
CALL_COUNT = 15


def post(port: int, path: str, kind: str, body: bytes) -> float:
    """Post a body on a new connection, and return the seconds until the response."""
    head = f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    started_at = time.perf_counter()
    connection = _socket.socket()
    connection.connect(("127.0.0.1", port))
    connection.sendall(head.encode() + body)
    response = b""
    while b"\r\n\r\n" not in response:
        response += connection.recv(4096)
    taken = time.perf_counter() - started_at
    connection.close()
    if b" 200 " not in response.partition(b"\r\n")[0]:
        sys.exit(f"the response was {response!r}")
    return taken


def main(collector: str, record: str) -> None:
    """Call, and print a pair of times per line: the forwarder's and the Collector's."""
    port, _, secret = ADDRESS.partition("/")
    start = '{"runMode":"RUN_MODE_DAEMON","version":"18.3.0","joinType":"github"}'
    report = f'{{"distinctId":"{SESSION}","start":{start}}}'.encode()
    cold = post(int(port), f"{secret}/{PATH}", "application/json", report)
    with open(record, "rb") as file:
        encoded = file.read()
    for _ in range(CALL_COUNT):
        warm = post(int(port), f"{secret}/{PATH}", "application/json", report)
        own = post(int(collector), "v1/logs", "application/x-protobuf", encoded)
        print(warm, own)
    print(cold)


main(*sys.argv[1:])
