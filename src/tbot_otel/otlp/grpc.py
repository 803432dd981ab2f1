"""The official exporter for ``grpc``, with its responses observed."""

from typing import TYPE_CHECKING, Any

from grpc import Compression, RpcError, ssl_channel_credentials
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import TLS_FILES
from tbot_otel.otlp.environment import has_credential_provider, standard_variable
from tbot_otel.otlp.responses import NOT_ACCEPTED

if TYPE_CHECKING:
    from tbot_otel.otlp.arguments import Arguments
    from tbot_otel.otlp.responses import ResponseObserver

_COMPRESSIONS = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}
# By default, gRPC waits up to two minutes before it tries a Collector again.
_CHANNEL_OPTIONS = (("grpc.max_reconnect_backoff_ms", 1000),)


class _ObservedExporter(OTLPLogExporter):
    """The official exporter, which observes each response.

    The base class stores its client in the private attribute `_client`, and creates another one
    each time it reconnects. If a release stops using that attribute, responses are not observed.
    """

    def __init__(self, observer: "ResponseObserver", **arguments: Any) -> None:
        self._observer = observer
        super().__init__(**arguments)

    @property
    def _client(self) -> Any:
        return self._observed_client

    @_client.setter
    def _client(self, client: Any) -> None:
        self._observed_client = client
        if client is not None:
            client.Export = _ObservedCall(client.Export, self._observer)


class _ObservedCall:
    """A gRPC method that observes each of its responses."""

    def __init__(self, call: Any, observer: "ResponseObserver") -> None:
        self._call = call
        self._observer = observer

    def __call__(self, **arguments: Any) -> None:
        try:
            self._observer.observe_grpc(self._call(**arguments))
        except RpcError as error:
            self._observer.problem = f"{NOT_ACCEPTED} ({error.code().name})"
            raise


def build_exporter(arguments: "Arguments", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter.

    Raises:
        ExporterConfigurationError: A client's key has no certificate, or the reverse: gRPC would
            abort the process.
    """
    authority = _read_file(arguments, "ca_file", "CERTIFICATE")
    key = _read_file(arguments, "key_file", "CLIENT_KEY")
    certificate = _read_file(arguments, "cert_file", "CLIENT_CERTIFICATE")
    if (key is None) != (certificate is None):
        raise ExporterConfigurationError(
            "tls: expected both a client key and a client certificate, or neither"
        )
    credentials = None
    has_files = authority is not None or key is not None
    if arguments.tls.keys() & {*TLS_FILES} or (has_files and not has_credential_provider("GRPC")):
        credentials = ssl_channel_credentials(authority, key, certificate)
    # The official exporter rejects the variable's value "none", which the specification allows.
    compression = arguments.compression or standard_variable("COMPRESSION") or ""
    return _ObservedExporter(
        observer,
        endpoint=arguments.endpoint,
        insecure=arguments.tls.get("insecure"),
        credentials=credentials,
        headers=arguments.headers,
        timeout=arguments.timeout_seconds,
        compression=_COMPRESSIONS.get(compression),
        channel_options=_CHANNEL_OPTIONS,
    )


def _read_file(arguments: "Arguments", argument: str, variable: str) -> bytes | None:
    path: Any = arguments.tls.get(argument) or standard_variable(variable)
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read() or None
