"""ClickHouse's own engine, in a process that serves a part of its HTTP interface.

The part is that which the Collector's exporter and `ClickHouse.query` use. Settings and logins are
ignored, and bodies must not be compressed.
"""

import contextlib
import importlib
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from support.paths import TESTS
from support.processes import BASE_ENVIRON, WAIT_SECONDS, free_port, running_server


class ClickHouse(NamedTuple):
    """A running server."""

    port: int

    @property
    def endpoint(self) -> str:
        """The endpoint for the Collector's exporter."""
        return f"http://127.0.0.1:{self.port}?compress=none"

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a query, and return its rows."""
        url = f"http://127.0.0.1:{self.port}/?default_format=JSONEachRow"
        try:
            with urllib.request.urlopen(url, sql.encode(), WAIT_SECONDS) as response:
                return [json.loads(line) for line in response]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from None


def clickhouse_problem() -> str | None:
    """The reason that the engine cannot run here, if there is one."""
    return None if find_spec("chdb") else "it has no library for CPython 3.15"


@contextlib.contextmanager
def running_clickhouse(folder: Path) -> Iterator[ClickHouse]:
    """Run a server until the block ends. Its data are in the folder, also for a later server."""
    port = free_port()
    command = [sys.executable, "-m", "support.clickhouse", str(folder / "clickhouse"), str(port)]
    environ = {**BASE_ENVIRON, "TZ": "UTC", "PYTHONPATH": str(TESTS)}
    with running_server(command, folder / "clickhouse.log", port, environ=environ):
        yield ClickHouse(port)


def _serve(folder: str, port: int) -> None:
    # It has no types.
    session: Any = importlib.import_module("chdb.session").Session(folder)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parameters = parse_qs(urlsplit(self.path).query)
            body = self._body()
            try:
                with lock:
                    status, response = 200, self._run(parameters, body)
            except Exception as error:  # noqa: BLE001 - the engine's own error goes to the client
                status, response = 500, str(error).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(response)))
            self.end_headers()
            self.wfile.write(response)

        def _run(self, parameters: dict[str, list[str]], body: bytes) -> bytes:
            if "query" in parameters:
                # An insert: the body has its rows.
                body = parameters["query"][0].encode() + b"\n" + body
            if body == HELLO.encode():
                return _hello(session)
            return bytes(session.query(body, parameters["default_format"][0]).bytes())

        def _body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


HELLO = "SELECT displayName(), version(), revision(), timezone()"
"""The first query of the exporter's driver. The response chooses the revision of later blocks."""

_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def _hello(session: Any) -> bytes:
    """Respond with revision 0: the engine's blocks have no block info.

    The driver expects this one response in its own revision: with block info, and a byte after each
    column's type (https://clickhouse.com/docs/interfaces/formats/Native).
    """
    values = ["displayName()", "version()", "toUInt32(0) AS `revision()`", "timezone()"]
    block = _BLOCK_INFO + bytes([len(values), 1])
    for value in values:
        column = bytes(session.query(f"SELECT {value}", "Native").bytes())
        # After the numbers of columns and rows, the name and the type, each with its length.
        name_end = 3 + column[2]
        type_end = name_end + 1 + column[name_end]
        block += column[2:type_end] + b"\x00" + column[type_end:]
    return block


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
