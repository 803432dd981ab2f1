"""Stand-ins for Collectors: servers on loopback that give prepared responses."""

import contextlib
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import grpc

from support.processes import WAIT_SECONDS, free_port

TLS = b"\x16"
"""The first byte of a connection over TLS."""


class Response(NamedTuple):
    """An HTTP response of a stand-in."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    delay: float = 0.0
    """In seconds."""
    closes: bool = False
    """Whether the connection is closed afterwards, without a header that says so."""
    resets: bool = False
    """Whether the connection is reset afterwards."""


class ReceivedRequest(NamedTuple):
    """A request that a stand-in received."""

    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: int
    """In nanoseconds since 1970-01-01 UTC."""
    head: bytes
    """The bytes before the body; over gRPC, the metadata in the same form."""


class HTTPStandin:
    """An HTTP server that gives these responses in turn, and repeats the last one.

    Args:
        responses: The responses.
        host: The address that it listens on.
        tls: The server's TLS settings; None for plain text.
        on_request: Called after a request has arrived, before the response.
    """

    def __init__(
        self,
        *responses: Response,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        on_request: Callable[[], None] | None = None,
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self.connection_count = 0
        self._remaining = list(responses)
        standin = self
        lock = threading.Lock()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                standin.connection_count += 1
                # The client may fail the handshake of TLS, or close the connection.
                with contextlib.suppress(OSError):
                    while self.respond():
                        pass

            def respond(self) -> bool:
                """Respond to a request, and return whether another one may follow."""
                head = self.rfile.read(1)
                # TLS may have no end of a line.
                head += b"" if head == TLS else self.rfile.readline()
                if head and b" HTTP/1." not in head:
                    self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    return False
                while not head.endswith(b"\r\n\r\n"):
                    if not (line := self.rfile.readline()):
                        return False
                    head += line
                first, *lines = head.decode("latin-1").splitlines()
                fields = (line.partition(":") for line in lines if line)
                headers = {name.lower(): value.strip() for name, _, value in fields}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                with lock:
                    path = first.split()[1]
                    request = ReceivedRequest(path, headers, body, time.time_ns(), head)
                    standin.requests.append(request)
                    response = standin.choose_response(request)
                if on_request is not None:
                    on_request()
                time.sleep(response.delay)
                sent = {"Content-Length": str(len(response.body)), **response.headers}
                lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
                lines += [f"{name}: {value}" for name, value in sent.items()]
                self.wfile.write("\r\n".join([*lines, "", ""]).encode() + response.body)
                if response.resets:
                    linger = struct.pack("ii", True, 0)
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    # The server would end the stream before it closes the socket.
                    self.rfile.close()
                    self.request.close()
                ends = {headers.get("connection"), sent.get("Connection")}
                return not (response.closes or response.resets or "close" in ends)

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True
            request_queue_size = 64

        self._server = Server((host, 0), Handler)
        self.port = int(self._server.server_address[1])
        self.endpoint = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        if tls is not None:
            # The handshake happens on the connection's own thread.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.endpoint = f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def choose_response(self, _: ReceivedRequest) -> Response:
        """Return the response to a request."""
        return self._remaining.pop(0) if len(self._remaining) > 1 else self._remaining[0]


class GRPCStandin:
    """A gRPC server that gives these status codes in turn, and repeats the last one."""

    def __init__(
        self,
        *codes: str,
        credentials: object = None,
        body: bytes = b"",
        on_request: Callable[[], None] | None = None,
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        remaining = list(codes or ["OK"])
        lock = threading.Lock()

        def respond(request: bytes, context: Any) -> bytes:
            with lock:
                metadata = dict(context.invocation_metadata())
                head = "".join(f"{name}: {value}\r\n" for name, value in metadata.items()).encode()
                self.requests.append(ReceivedRequest("", metadata, request, time.time_ns(), head))
                code = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if on_request is not None:
                on_request()
            if code != "OK":
                context.abort(grpc.StatusCode[code], "upstream: Connection refused")
            return body

        # Without serializers, a message is its bytes.
        handlers = {"Export": grpc.unary_unary_rpc_method_handler(respond)}
        service = "opentelemetry.proto.collector.logs.v1.LogsService"
        self._server = grpc.server(
            ThreadPoolExecutor(2),
            handlers=[grpc.method_handlers_generic_handler(service, handlers)],
        )
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
            self.endpoint = f"http://127.0.0.1:{self.port}"
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
            self.endpoint = f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(10)


def accepting_standin(
    protocol: str,
    response: Response = Response(),  # noqa: B008 - never changed
) -> HTTPStandin | GRPCStandin:
    """A stand-in that accepts every export over a protocol, over HTTP with this response."""
    return GRPCStandin() if protocol == "grpc" else HTTPStandin(response)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port that nothing listens on."""
    yield free_port()


UNREACHABLE_PORTS = {"refused": refused_port, "silent": silent_port}


@contextlib.contextmanager
def _serving(
    handler: type[socketserver.BaseRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve connections on threads until the block ends. Yields the port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


@contextlib.contextmanager
def streaming_port(head: bytes, chunk: bytes, pause: float) -> Iterator[tuple[int, list[int]]]:
    """A port that responds to each request with a head, and then with a chunk again and again.

    Args:
        head: The first bytes of the response.
        chunk: The bytes that follow without an end.
        pause: The pause after each chunk, in seconds.

    Yields:
        The port, and the number of bytes that each connection was sent.
    """
    sent: list[int] = []
    stopped = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(WAIT_SECONDS)
            self.request.recv(65536)
            index = len(sent)
            sent.append(0)
            with contextlib.suppress(OSError):
                self.request.sendall(head)
                while not stopped.is_set():
                    self.request.sendall(chunk)
                    sent[index] += len(chunk)
                    stopped.wait(pause)

    with _serving(Handler) as port:
        try:
            yield port, sent
        finally:
            stopped.set()


def _pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            copy += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _connect(client: socket.socket, address: tuple[str, int], sent: bytearray) -> None:
    """Relay bytes both ways until both sides end, and append the client's to `sent`."""
    with socket.create_connection(address) as upstream:
        back = threading.Thread(target=_pump, args=(upstream, client, bytearray()))
        back.start()
        _pump(client, upstream, sent)
        back.join()


@contextlib.contextmanager
def tunnel_proxy(
    response: bytes = b"HTTP/1.1 200 OK\r\n\r\n", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy for CONNECT, which finds every name on this machine.

    Args:
        response: Its response to a request.
        tls: Its TLS settings; None for plain text.

    Yields:
        Its endpoint, and the head of each request.
    """
    heads: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.rfile.readline()
            heads.append(head)
            self.request.sendall(response)
            if b" 200 " in response:
                port = int(head.split()[1].rpartition(b":")[2])
                _connect(self.request, ("127.0.0.1", port), bytearray())

    with _serving(Handler, tls) as port:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", heads


@contextlib.contextmanager
def socks_proxy() -> Iterator[tuple[str, list[str]]]:
    """A SOCKS 5 proxy (RFC 1928, RFC 1929), which finds every name on this machine.

    Yields:
        Its address, and each login and each host that it was told.
    """
    told: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def read_text(self) -> str:
            return self.rfile.read(self.rfile.read(1)[0]).decode()

        def handle(self) -> None:
            _, count = self.rfile.read(2)
            method = max(self.rfile.read(count))
            self.request.sendall(bytes([5, method]))
            if method == 2:  # user and password
                self.rfile.read(1)
                told.append(f"{self.read_text()}:{self.read_text()}")
                self.request.sendall(b"\1\0")
            # 3 is a name, 1 an address of 4 bytes.
            is_name = self.rfile.read(4)[3] == 3
            told.append(self.read_text() if is_name else socket.inet_ntoa(self.rfile.read(4)))
            port = int.from_bytes(self.rfile.read(2))
            self.request.sendall(b"\5\0\0\1" + bytes(6))
            _connect(self.request, ("127.0.0.1", port), bytearray())

    with _serving(Handler) as port:
        yield f"127.0.0.1:{port}", told


@contextlib.contextmanager
def recording_proxy(endpoint: str) -> Iterator[tuple[str, list[bytearray]]]:
    """A proxy for an endpoint: yields its own endpoint, and the bytes sent in each connection."""
    host, port = endpoint.removeprefix("http://").split(":")
    connections: list[bytearray] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sent = bytearray()
            connections.append(sent)
            _connect(self.request, (host, int(port)), sent)

    with _serving(Handler) as own_port:
        yield f"http://127.0.0.1:{own_port}", connections
