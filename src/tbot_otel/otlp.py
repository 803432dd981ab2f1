"""The official OTLP exporter that arguments and the standard variables ask for."""

import logging
import os
import threading
from collections.abc import Mapping
from importlib import import_module

from tbot_otel import destination
from tbot_otel.errors import ExporterConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

    import requests
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk._logs.export import LogRecordExporter

_logger = logging.getLogger("tbot_otel")

_NO_SUCCESS = "the Collector gave no answer of success"
_NO_RECEIVER = "what answered is no OTLP receiver"
_TLS_FILES = ("ca_file", "cert_file", "key_file")
_GRPC_COMPRESSIONS = {"none": "NoCompression", "gzip": "Gzip", "deflate": "Deflate"}


class Arguments:
    """The arguments of an exporter, in the shapes and units of a declarative configuration file.

    They are those of ``otlp_http`` and ``otlp_grpc`` there
    (https://github.com/open-telemetry/opentelemetry-configuration), with the protocol in place of
    an encoding.

    Args:
        protocol: ``http/protobuf``, ``grpc`` or ``http/json``.
        endpoint: The URL; over HTTP with its path, such as ``http://localhost:4318/v1/logs``.
        headers: A list of mappings with ``name`` and ``value``, or a mapping of names to values.
        headers_list: The same in one text, ``name=value,name=value``; `headers` wins.
        compression: ``none``, ``gzip`` or ``deflate``.
        timeout: The time-out of an export, in milliseconds.
        tls: A mapping with ``ca_file``, ``key_file`` and ``cert_file``, and over gRPC ``insecure``.

    Raises:
        ExporterConfigurationError: One of them is not of its shape.
    """

    __slots__ = ("compression", "endpoint", "headers", "protocol", "timeout", "tls")

    def __init__(
        self,
        *,
        protocol: object = None,
        endpoint: object = None,
        headers: object = None,
        headers_list: object = None,
        compression: object = None,
        timeout: object = None,
        tls: object = None,
    ) -> None:
        self.protocol = _text("protocol", protocol)
        self.endpoint = _text("endpoint", endpoint)
        self.headers = _headers(_text("headers_list", headers_list) or "", headers)
        self.compression = _text("compression", compression)
        if self.compression not in (None, *_GRPC_COMPRESSIONS):
            raise ExporterConfigurationError("compression: expected none, gzip or deflate")
        self.timeout: float | None = None
        if timeout is not None:
            if (
                isinstance(timeout, bool)
                or not isinstance(timeout, int | float)
                or not (0 <= timeout < threading.TIMEOUT_MAX)
            ):
                raise ExporterConfigurationError("timeout: expected milliseconds")
            self.timeout = timeout / 1000
        if not isinstance(tls, Mapping | None):
            raise ExporterConfigurationError("tls: expected a mapping")
        self.tls = dict(tls or {})
        for name, value in self.tls.items():
            if name == "insecure":
                if not isinstance(value, bool | None):
                    raise ExporterConfigurationError("tls: expected true or false for insecure")
            elif name in _TLS_FILES:
                _text(f"tls.{name}", value)
            else:
                raise ExporterConfigurationError(
                    f"tls: expected only insecure, {', '.join(_TLS_FILES)}"
                )


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise ExporterConfigurationError(f"{name}: expected text")


def _headers(headers_list: str, headers: object) -> dict[str, str] | None:
    pairs = [tuple(pair.split("=", 1)) for pair in headers_list.split(",") if pair.strip()]
    try:
        if isinstance(headers, Mapping):
            pairs += headers.items()
        elif headers is not None:
            pairs += [(pair["name"], pair["value"] or "") for pair in headers]  # type: ignore[attr-defined]
        # gRPC takes names in lower case only, and to HTTP they are all one.
        return {name.strip().lower(): value.strip() for name, value in pairs} or None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ExporterConfigurationError("headers: expected pairs of name and value") from None


class Answers(threading.local):
    """What the Collector answered, which the official exporters do not tell.

    It is that of the thread's last export: the exporter calls back in the thread that exports.

    Attributes:
        refusal: Why the answer is none of success; None where it is one, or was not seen.
    """

    refusal: str | None = None

    def forget(self) -> None:
        """Forget the last export's."""
        self.refusal = None

    def read(self, response: "requests.Response", **_: object) -> None:
        """Read an answer over HTTP, as the response hook of a `requests.Session`."""
        if 200 <= response.status_code < 300:
            self.refusal = _partial_success(response)
        else:
            self.refusal = f"the Collector answered {response.status_code}"

    def read_grpc(self, response: "ExportLogsServiceResponse") -> None:
        """Read an answer of success over gRPC."""
        self.refusal = _refusal(response.partial_success.rejected_log_records)


def _partial_success(response: "requests.Response") -> str | None:
    # The exporter has imported these.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    if not response.content:
        return None
    kind = response.headers.get("Content-Type", "")
    try:
        if kind.startswith("application/json"):
            partial = response.json().get("partialSuccess") or {}
            rejected = int(partial.get("rejectedLogRecords") or 0)
        elif kind.startswith("text/"):
            return _NO_RECEIVER
        else:
            answer = ExportLogsServiceResponse.FromString(response.content)
            rejected = answer.partial_success.rejected_log_records
    except (AttributeError, TypeError, ValueError, DecodeError):
        return _NO_RECEIVER
    return _refusal(rejected)


def _refusal(rejected: int) -> str | None:
    return f"the Collector rejected {rejected} of the records sent" if rejected else None


def _has_credential_provider(transport: str) -> bool:
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}"
    return any(os.environ.get(f"{prefix}_{logs}CREDENTIAL_PROVIDER") for logs in ("LOGS_", ""))


def build(arguments: Arguments, answers: Answers) -> "LogRecordExporter":
    """Build the official exporter of the protocol asked for. An argument wins over its variable.

    Args:
        arguments: What is asked for beside the variables.
        answers: What shall see the Collector's answers, where they can be seen: over gRPC, and over
            ``http/protobuf`` unless a credential provider brings its own session.

    Raises:
        ExporterConfigurationError: The protocol is unknown, its package is not installed, or its
            exporter does not take the arguments or variables.
    """
    name = arguments.protocol or destination.protocol()
    builders = {"http/protobuf": _http_protobuf, "grpc": _grpc, "http/json": _http_json}
    try:
        return builders[name](arguments, answers)
    except ExporterConfigurationError:
        raise
    except Exception as error:
        # Only now, as it looks for what the builder has found.
        destination.check(name)
        raise ExporterConfigurationError(
            f"protocol {name}: the exporter does not take its arguments or OTEL_EXPORTER_OTLP_* "
            f"variables ({type(error).__name__})"
        ) from error


def send(
    exporter: "LogRecordExporter", answers: Answers, batch: "Sequence[ReadableLogRecord]"
) -> str | None:
    """Hand a batch over to an exporter, and return why it was not delivered.

    Args:
        exporter: An exporter that `build` returned, or one of another's making.
        answers: What `build` was given.
        batch: What to deliver.
    """
    from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
    from opentelemetry.sdk._logs.export import LogRecordExportResult

    answers.forget()
    # Instrumented HTTP and gRPC clients would put the ids of a trace into the request.
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        delivered = exporter.export(batch) is LogRecordExportResult.SUCCESS
    except Exception as error:  # noqa: BLE001 - whatever an exporter raises stays here
        said = "the Collector gave no answer" if isinstance(error, OSError) else "it failed"
        problem = answers.refusal or f"{said} ({type(error).__name__})"
        _logger.warning("%d records were not delivered: %s", len(batch), problem)
        return problem
    finally:
        detach(token)
    if not delivered:
        # The official exporter has logged it.
        return answers.refusal or _NO_SUCCESS
    if answers.refusal:
        _logger.warning("%d records were not delivered: %s", len(batch), answers.refusal)
    return answers.refusal


def import_exporter() -> "ModuleType":
    """Import the official exporter that the variables ask for, and return its module."""
    return import_module(f"{destination.MODULES[destination.protocol()]}._log_exporter")


def to_json(batch: "Sequence[ReadableLogRecord]") -> str:
    """Return what an export of a batch sends, as OTLP/JSON."""
    from google.protobuf.json_format import MessageToJson
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    # OTLP/JSON has enums as numbers (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
    return str(MessageToJson(encode_logs(batch), use_integers_for_enums=True))


def _http_protobuf(arguments: Arguments, answers: Answers) -> "LogRecordExporter":
    from http.cookiejar import DefaultCookiePolicy

    import requests
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url

    def login(request: requests.PreparedRequest) -> requests.PreparedRequest:
        user, password = get_auth_from_url(str(request.url))
        return HTTPBasicAuth(user, password)(request) if user or password else request

    class Session(requests.Session):
        _settings: "Any" = None

        def merge_environment_settings(
            self, url: "Any", proxies: "Any", stream: "Any", verify: "Any", cert: "Any"
        ) -> "Any":
            # Once, as each export asks for the same, and requests then looks at every variable.
            if self._settings is None:
                # REQUESTS_CA_BUNDLE is for whoever names no CA for the export.
                verify = verify or self.verify
                self._settings = super().merge_environment_settings(
                    url, proxies, stream, verify, cert
                )
            return self._settings

        def send(self, request: "Any", **settings: "Any") -> requests.Response:
            try:
                return super().send(request, **settings)
            except (requests.ConnectionError, requests.Timeout) as error:
                # By its type, as its text repeats the URL.
                answers.refusal = f"the Collector gave no answer ({type(error).__name__})"
                raise

    session = None
    if not _has_credential_provider("HTTP"):
        session = Session()
        session.hooks["response"].append(answers.read)
        # A redirect would make a GET of the export, a cookie tie one record to the next, and .netrc
        # add a person's own login in place of the endpoint's.
        session.max_redirects = 0
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.auth = login
    return OTLPLogExporter(
        compression=Compression(arguments.compression) if arguments.compression else None,
        session=session,
        **_http(arguments),
    )


def _http_json(arguments: Arguments, _: Answers) -> "LogRecordExporter":
    from opentelemetry.exporter.otlp.common.http import Compression
    from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter

    exporter: LogRecordExporter = OTLPLogExporter(
        compression=Compression(arguments.compression) if arguments.compression else None,
        **_http(arguments),
    )
    return exporter


def _http(arguments: Arguments) -> "dict[str, Any]":
    return {
        "endpoint": arguments.endpoint,
        "headers": arguments.headers,
        "timeout": arguments.timeout,
        "certificate_file": arguments.tls.get("ca_file"),
        "client_key_file": arguments.tls.get("key_file"),
        "client_certificate_file": arguments.tls.get("cert_file"),
    }


def _grpc(arguments: Arguments, answers: Answers) -> "LogRecordExporter":
    from grpc import Compression, RpcError, ssl_channel_credentials
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    class Exporter(OTLPLogExporter):
        @property
        def _client(self) -> "Any":
            return self._told

        # The official exporter makes another each time that it connects.
        @_client.setter
        def _client(self, client: "Any") -> None:
            self._told = client
            if client is not None:
                export = client.Export

                def told(**call: "Any") -> None:
                    try:
                        answers.read_grpc(export(**call))
                    except RpcError as error:
                        answers.refusal = f"{_NO_SUCCESS} ({error.code().name})"
                        raise

                client.Export = told

    def read(argument: str, variable: str) -> bytes | None:
        path = arguments.tls.get(argument) or destination.standard(variable)
        if not path:
            return None
        with open(path, "rb") as file:
            return file.read() or None

    authority = read("ca_file", "CERTIFICATE")
    key = read("key_file", "CLIENT_KEY")
    certificate = read("cert_file", "CLIENT_CERTIFICATE")
    if (key is None) != (certificate is None):
        # gRPC ends the process at one without the other.
        raise ExporterConfigurationError("tls: expected a client's key and certificate, or neither")
    credentials = None
    named = authority is not None or key is not None
    if arguments.tls.keys() & {*_TLS_FILES} or (named and not _has_credential_provider("GRPC")):
        credentials = ssl_channel_credentials(authority, key, certificate)
    # As a variable, the official exporter does not know the specification's "none".
    compression = _GRPC_COMPRESSIONS.get(
        arguments.compression or destination.standard("COMPRESSION") or ""
    )
    return Exporter(
        endpoint=arguments.endpoint,
        insecure=arguments.tls.get("insecure"),
        credentials=credentials,
        headers=arguments.headers,
        timeout=arguments.timeout,
        compression=Compression[compression] if compression else None,
        # Of itself, gRPC waits up to two minutes before it looks for a Collector that is back.
        channel_options=(("grpc.max_reconnect_backoff_ms", 1000),),  # type: ignore[arg-type]
    )
