"""A stand-in for tbot: reports its start as tbot does, in parallel with its work, and exits.

It reports in one Connect call, with the official runtime or with an HTTP client, to the address in
its environment. When its work is done, it waits for the response: for at most 10 seconds if it runs
once, and not at all as a daemon. It prints the result of the call as one line of JSON.

Hundreds of tests start it: only the official runtime needs more than the standard library.
"""

import argparse
import contextlib
import gzip
import http.client
import json
import os
import threading
import time
import uuid
from urllib.parse import urlsplit

AGENT_PATH = __file__
"""The program to run in place of tbot."""
PATH = "/prehog.v1alpha.TbotReportingService/SubmitTbotEvent"

REPORT_TIMEOUT_SECONDS = 10.0
REPORTED = {
    "tbot.run_mode": "one-shot",
    "tbot.version": "18.3.0",
    "tbot.join_type": "github",
    "tbot.destinations_other": 2,
    "tbot.destinations_database": 1,
    "tbot.destinations_kubernetes": 0,
    "tbot.destinations_application": 0,
}
"""The attributes that leave for a report of an agent that runs once, without a helper."""


def build_request(session_id: str, *, oneshot: bool) -> bytes:
    """Build the report of a start: a SubmitTbotEventRequest (src/tbot_otel/connect/tbot.proto)."""
    start = b"".join(
        (
            _field(1, 1 if oneshot else 2),
            _field(2, "18.3.0"),
            _field(3, "github"),
            _field(4, os.environ.get("_TBOT_TELEMETRY_HELPER", "")),
            _field(5, os.environ.get("_TBOT_TELEMETRY_HELPER_VERSION", "")),
            _field(6, 2),
            _field(7, 1),
        )
    )
    return _field(1, session_id) + _field(3, start)


def _field(number: int, value: int | str | bytes) -> bytes:
    """Encode a field whose value or length fits in one byte. An empty text is left out."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data if data else b""


def call_with_runtime(address: str, request: bytes, timeout: float = REPORT_TIMEOUT_SECONDS) -> str:
    """Report with the official runtime, and return the code of the response."""
    from connectrpc.client import ConnectClientSync
    from connectrpc.errors import ConnectError

    from tbot_otel.connect import METHOD

    message = METHOD.input.from_binary(request)
    client = ConnectClientSync(address)
    try:
        client.execute_unary(request=message, method=METHOD, timeout_ms=int(timeout * 1000))
    except ConnectError as error:
        return error.code.value
    return "ok"


def call_with_http(address: str, request: bytes, timeout: float = REPORT_TIMEOUT_SECONDS) -> str:
    """Report with an HTTP client, as Go's Connect client does, and return the response's code."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=timeout)
    headers = {
        "Content-Type": "application/proto",
        "Connect-Protocol-Version": "1",
        "Content-Encoding": "gzip",
        "Accept-Encoding": "gzip",
    }
    with contextlib.closing(connection):
        connection.request("POST", url.path + PATH, gzip.compress(request), headers)
        response = connection.getresponse()
        body = response.read()
    return "ok" if response.status == 200 else str(json.loads(body)["code"])


CLIENTS = {"runtime": call_with_runtime, "raw": call_with_http}


def main() -> int:
    """Work, report, and exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", choices=CLIENTS, default="raw")
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--work", type=float, default=0.0, help="seconds")
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument(
        "--timeout", type=float, default=REPORT_TIMEOUT_SECONDS, help="of the report, in seconds"
    )
    options = parser.parse_args()
    session_id = str(uuid.uuid4())
    result = {"session": session_id, "answer": "none"}
    address = os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS")

    def report() -> None:
        begin = time.monotonic()
        try:
            request = build_request(session_id, oneshot=not options.daemon)
            result["answer"] = CLIENTS[options.client](str(address), request, options.timeout)
        except Exception as error:  # noqa: BLE001 - tbot ignores every error of its telemetry
            result["answer"] = type(error).__name__
        result["seconds"] = f"{time.monotonic() - begin:.3f}"

    reporting = threading.Thread(target=report, daemon=True)
    if address:
        reporting.start()
    time.sleep(options.work)
    if address and not options.daemon:
        reporting.join(options.timeout)
    print(json.dumps(result), flush=True)
    return int(options.status)


if __name__ == "__main__":
    # sys.exit would wait for a report that is still being sent.
    os._exit(main())
