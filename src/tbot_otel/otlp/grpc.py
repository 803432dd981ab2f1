"""The official exporter for ``grpc``, with its responses observed."""

import re
import threading
from inspect import signature
from typing import TYPE_CHECKING, Any

import grpc
from grpc import ChannelCredentials, Compression, RpcError, StatusCode
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.exporter.otlp.proto.grpc.version import __version__
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk._logs.export import LogRecordExportResult

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import credentials
from tbot_otel.otlp.responses import NOT_GRPC, TIMED_OUT, Rejection
from tbot_otel.otlp.send import SelfEncodingBatch
from tbot_otel.otlp.tls import CurrentFiles, check_files, read_file

if TYPE_CHECKING:
    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.settings import Settings

_COMPRESSIONS = {"none": Compression.NoCompression, "gzip": Compression.Gzip}
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
    "HTTP/2": NOT_GRPC,
    "http1": NOT_GRPC,
}
_TLS_DETAILS = re.compile(r"OPENSSL_internal:([A-Z0-9_]+)(?:: ([a-z ]+))?")


class _ObservedExporter(OTLPLogExporter):
    """The official exporter, with a client of ours.

    The base class keeps its client in the private attribute `_client`, and sets another one each
    time it reconnects. If a release stops using that attribute, it sends through its own channel,
    responses are not observed, and consent is asked once for each export. Without the private
    method `_translate_data`, a `SelfEncodingBatch` is encoded record by record.
    """

    def __init__(self, settings: "Settings", observer: "ResponseObserver") -> None:
        self._observer = observer
        self._observed_client = _Client(settings, observer)
        arguments: dict[str, Any] = {
            "stub": LogsServiceStub,
            "result": LogRecordExportResult,
            "endpoint": _target(settings),
            "insecure": not settings.is_secure,
            # Never used, unless by a release without `_client`.
            "credentials": grpc.ssl_channel_credentials() if settings.is_secure else None,
            "headers": tuple(settings.headers.items()),
            "timeout": settings.timeout_seconds,
            "compression": _COMPRESSIONS[settings.compression],
            "channel_options": _channel_options(settings),
        }
        if "retryable_error_codes" in signature(OTLPExporterMixin).parameters:
            arguments |= {"retryable_error_codes": _RETRYABLE_CODES, "signal": "logs"}
        # OTLPLogExporter's own constructor reads variables, and fails if one is empty.
        OTLPExporterMixin.__init__(self, **arguments)

    @property
    def _client(self) -> Any:
        return self._observed_client

    @_client.setter
    def _client(self, _: object) -> None:
        self._observer.is_attached = True

    def _translate_data(self, data: Any) -> Any:
        return (
            data.encode() if isinstance(data, SelfEncodingBatch) else super()._translate_data(data)
        )

    def shutdown(self, timeout_millis: float = 30_000, **arguments: Any) -> None:
        super().shutdown(timeout_millis, **arguments)
        self._observed_client.close()


class _Client:
    """Asks for consent, sends, and observes the responses, on a channel that has no interceptor.

    Args:
        settings: The settings of the exporter.
        observer: Observes each response, and is asked for consent before each request.
    """

    def __init__(self, settings: "Settings", observer: "ResponseObserver") -> None:
        self._settings = settings
        self._observer = observer
        self._credentials = CurrentFiles(settings, _load_credentials)
        self._lock = threading.Lock()
        # A channel is not closed before the last call on it has ended, which refers to it.
        self._channel: tuple[Any, ChannelCredentials | None] | None = None

    def Export(self, *, request: Any, timeout: float, **_: object) -> Any:  # noqa: N802 - the stub's name
        """Send a request. The metadata is the settings': instrumentation can change others."""
        self._observer.check_consent()
        try:
            channel = self._get_channel()
        except ExporterConfigurationError as error:
            # A file for TLS that is not there yet.
            self._observer.fail(str(error), can_retry=True)
            raise
        try:
            response = LogsServiceStub(channel).Export(  # type: ignore[no-untyped-call]
                request=request, metadata=tuple(self._settings.headers.items()), timeout=timeout
            )
        except RpcError as error:
            self._fail(error)
            raise
        self._observer.observe_grpc(response)
        return response

    def _get_channel(self) -> Any:
        credentials = self._credentials.get() if self._settings.is_secure else None
        with self._lock:
            if self._channel is None or self._channel[1] is not credentials:
                self._channel = _create_channel(self._settings, credentials), credentials
            return self._channel[0]

    def _fail(self, error: Any) -> None:
        code = error.code()
        reason = _describe(error)
        if reason.startswith("tls:"):
            self._credentials.expire()
        self._observer.fail(
            reason,
            can_retry=code in _RETRYABLE_CODES,
            is_timeout=code is StatusCode.DEADLINE_EXCEEDED,
            rejection=Rejection.ALL if code is StatusCode.INVALID_ARGUMENT else None,
        )

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel[0].close()


def _create_channel(settings: "Settings", credentials: ChannelCredentials | None) -> Any:
    """Create a channel below the public functions, which agents wrap with interceptors."""
    arguments = {
        "target": _target(settings),
        "options": _channel_options(settings),
        "compression": _COMPRESSIONS[settings.compression],
    }
    try:
        from grpc._channel import Channel

        core_credentials = None
        if credentials is not None:
            core_credentials = credentials._credentials  # noqa: SLF001 - has a fallback
        return Channel(credentials=core_credentials, **arguments)
    except (ImportError, AttributeError, TypeError):
        if credentials is None:
            return grpc.insecure_channel(**arguments)
        return grpc.secure_channel(credentials=credentials, **arguments)


def _target(settings: "Settings") -> str:
    return settings.endpoint if settings.url is None else settings.url.address


def _channel_options(settings: "Settings") -> tuple[tuple[str, Any], ...]:
    options: list[tuple[str, Any]] = [
        # As the official exporter says it.
        ("grpc.primary_user_agent", f"OTel-OTLP-Exporter-Python/{__version__}"),
        # By default, gRPC waits up to two minutes before it tries a Collector again.
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    proxy = settings.proxy
    if proxy is None:
        return *options, ("grpc.enable_http_proxy", 0)
    login = f"{proxy.login}@" if proxy.login else ""
    return *options, ("grpc.http_proxy", f"http://{login}{proxy.address}")


def _load_credentials(settings: "Settings") -> ChannelCredentials:
    if settings.credential_provider:
        return credentials.provide(settings.credential_provider, ChannelCredentials)
    # gRPC aborts the process for a key of another certificate, and tells nothing of the rest.
    check_files(settings)
    return grpc.ssl_channel_credentials(
        *(read_file(settings, name) for name in ("ca_file", "key_file", "cert_file"))
    )


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


def build_exporter(settings: "Settings", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter."""
    return _ObservedExporter(settings, observer)
