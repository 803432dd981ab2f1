"""The official exporter for ``grpc``, with its responses observed."""

import re
from typing import TYPE_CHECKING, Any

from grpc import Compression, RpcError, StatusCode, ssl_channel_credentials
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import TLS_FILES
from tbot_otel.otlp.environment import has_credential_provider, standard_variable
from tbot_otel.otlp.responses import NOT_OTLP, TIMED_OUT, Rejection
from tbot_otel.otlp.send import SelfEncodingBatch
from tbot_otel.otlp.tls import read_file
from tbot_otel.otlp.url import check_grpc_endpoint

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
# https://opentelemetry.io/docs/specs/otlp/#failures
_RETRYABLE_CODES = (
    StatusCode.CANCELLED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.ABORTED,
    StatusCode.OUT_OF_RANGE,
    StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS,
)
# How gRPC's details begin where the Collector did not respond, and parts of them. No other field
# distinguishes these errors. Details of another form lead to the status code's name.
_LOCAL_ERRORS = ("failed to connect", "errors resolving", "DNS resolution", "Socket closed")
_DETAILS = {
    "resol": "the Collector's name was not found",
    "Hostname Verification": "tls: the Collector's certificate is not trusted "
    "(it is for another name)",
    "Connection refused": "the Collector refused the connection",
    "Connection reset": "the Collector reset the connection",
    "Socket closed": "the Collector closed the connection before it responded",
    "HTTP/2": NOT_OTLP,
    "http1": NOT_OTLP,
}
_TLS_DETAILS = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)(?:: ([a-z ]+))?")


class _ObservedExporter(OTLPLogExporter):
    """The official exporter, which asks for consent before each attempt and observes each response.

    The base class stores its client in the private attribute `_client`, and creates another one
    each time it reconnects. If a release stops using that attribute, responses are not observed,
    and consent is asked once for each export. Without the private method `_translate_data`, an
    `SelfEncodingBatch` is encoded record by record.
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
        if hasattr(client, "Export"):
            client.Export = _ObservedCall(client.Export, self._observer)
            self._observer.is_attached = True

    def _translate_data(self, data: Any) -> Any:
        return (
            data.encode() if isinstance(data, SelfEncodingBatch) else super()._translate_data(data)
        )


class _ObservedCall:
    """A gRPC method that asks for consent and observes each of its responses."""

    def __init__(self, call: Any, observer: "ResponseObserver") -> None:
        self._call = call
        self._observer = observer

    def __call__(self, **arguments: Any) -> Any:
        self._observer.check_consent()
        try:
            response = self._call(**arguments)
        except RpcError as error:
            code = error.code()
            self._observer.fail(
                _describe(error),
                can_retry=code in _RETRYABLE_CODES,
                rejection=Rejection.ALL if code is StatusCode.INVALID_ARGUMENT else None,
            )
            raise
        self._observer.observe_grpc(response)
        return response


def _describe(error: Any) -> str:
    """Return what happened, without a value."""
    code = error.code()
    if code is StatusCode.DEADLINE_EXCEEDED:
        return TIMED_OUT
    details = str(error.details())
    if code is StatusCode.UNAVAILABLE and details.startswith(_LOCAL_ERRORS):
        if match := _TLS_DETAILS.search(details):
            if match[1] == "CERTIFICATE_VERIFY_FAILED":
                return f"tls: the Collector's certificate is not trusted ({match[2]})"
            return f"tls: the connection failed ({match[1]})"
        for part, reason in _DETAILS.items():
            if part in details:
                return reason
    return f"the Collector did not accept the export ({code.name})"


def build_exporter(arguments: "Arguments", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter.

    Raises:
        ExporterConfigurationError: The endpoint has a login. Or a file for TLS cannot be read. Or a
            client's key has no certificate, or the reverse: gRPC would abort the process.
    """
    check_grpc_endpoint(arguments.endpoint or standard_variable("ENDPOINT") or "")
    authority = read_file(arguments, "ca_file")
    key = read_file(arguments, "key_file")
    certificate = read_file(arguments, "cert_file")
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
