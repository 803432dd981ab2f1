"""A stand-in for tbot: reports its start as tbot does, in parallel with its work, and exits.

It reports in one Connect call, by the official runtime or by hand, to the address in its
environment. When its work is done, it waits for the answer for at most 10 seconds if it runs once,
and not at all as a daemon. What came of the call is one line of JSON on standard output.
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

from connectrpc.client import ConnectClientSync
from connectrpc.errors import ConnectError
from protobuf import Oneof

from tbot_otel.connect import METHOD, PATH
from tbot_otel.connect.tbot_pb import SubmitTbotEventRequest, TbotStartEvent

WAIT = 10.0
REPORTED = {
    "tbot.run_mode": "one-shot",
    "tbot.version": "18.3.0",
    "tbot.join_type": "github",
    "tbot.destinations_other": 2,
    "tbot.destinations_database": 1,
    "tbot.destinations_kubernetes": 0,
    "tbot.destinations_application": 0,
}
"""What becomes of a report of one that runs once, without a helper."""


def request(session_id: str, *, oneshot: bool) -> SubmitTbotEventRequest:
    """The report of a start."""
    mode = TbotStartEvent.RunMode.ONE_SHOT if oneshot else TbotStartEvent.RunMode.DAEMON
    start = TbotStartEvent(
        run_mode=mode,
        version="18.3.0",
        join_type="github",
        helper=os.environ.get("_TBOT_TELEMETRY_HELPER", ""),
        helper_version=os.environ.get("_TBOT_TELEMETRY_HELPER_VERSION", ""),
        destinations_other=2,
        destinations_database=1,
    )
    return SubmitTbotEventRequest(distinct_id=session_id, event=Oneof("start", start))


def call_runtime(address: str, message: SubmitTbotEventRequest) -> str:
    """Report by the official runtime, and return the code of the answer."""
    client = ConnectClientSync(address)
    try:
        client.execute_unary(request=message, method=METHOD, timeout_ms=int(WAIT * 1000))
    except ConnectError as error:
        return error.code.value
    return "ok"


def call_raw(address: str, message: SubmitTbotEventRequest) -> str:
    """Report by hand, as Go's client does, and return the code of the answer."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=WAIT)
    headers = {
        "Content-Type": "application/proto",
        "Connect-Protocol-Version": "1",
        "Content-Encoding": "gzip",
        "Accept-Encoding": "gzip",
    }
    with contextlib.closing(connection):
        connection.request("POST", url.path + PATH, gzip.compress(message.to_binary()), headers)
        answer = connection.getresponse()
        body = answer.read()
    return "ok" if answer.status == 200 else str(json.loads(body)["code"])


CLIENTS = {"runtime": call_runtime, "raw": call_raw}


def main() -> int:
    """Work, report, and exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", choices=CLIENTS, default="raw")
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--work", type=float, default=0.0, help="seconds")
    parser.add_argument("--status", type=int, default=0)
    options = parser.parse_args()
    session_id = str(uuid.uuid4())
    told = {"session": session_id, "answer": "none"}
    address = os.environ.get("TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS")

    def report() -> None:
        begin = time.monotonic()
        try:
            message = request(session_id, oneshot=not options.daemon)
            told["answer"] = CLIENTS[options.client](str(address), message)
        except Exception as error:  # noqa: BLE001 - tbot goes on, whatever it is
            told["answer"] = type(error).__name__
        told["seconds"] = f"{time.monotonic() - begin:.3f}"

    reporting = threading.Thread(target=report, daemon=True)
    if address:
        reporting.start()
    time.sleep(options.work)
    if address and not options.daemon:
        reporting.join(WAIT)
    print(json.dumps(told), flush=True)
    return int(options.status)


if __name__ == "__main__":
    # Not by sys.exit: a report that is still under way is left behind.
    os._exit(main())
