"""The official exporter for ``http/protobuf``, with an HTTP client that identifies no one."""

from inspect import signature
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.version import __version__

from tbot_otel.otlp import credentials
from tbot_otel.otlp.client import HTTPClient

if TYPE_CHECKING:
    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.settings import Settings


def build_exporter(settings: "Settings", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter. A credential provider brings its own session, which is not observed.

    Raises:
        ExporterConfigurationError: The credential provider cannot be used.
    """
    arguments: dict[str, Any] = {
        "endpoint": settings.endpoint,
        "headers": settings.headers,
        "timeout": settings.timeout_seconds,
        "compression": Compression(settings.compression),
    }
    if settings.credential_provider:
        import requests

        paths = {name: path for name, (_, path) in settings.tls_files.items()}
        return OTLPLogExporter(
            **arguments,
            certificate_file=paths.get("ca_file"),
            client_key_file=paths.get("key_file"),
            client_certificate_file=paths.get("cert_file"),
            session=credentials.provide(settings.credential_provider, requests.Session),
        )
    client = HTTPClient(settings, f"OTel-OTLP-Exporter-Python/{__version__}", observer)
    observer.is_attached = True
    # SDK 1.45 added this private argument. Without it, the exporter takes a `requests.Session`.
    # Without that either, building it fails: its own client could send cookies or `.netrc`.
    if "_transport" in signature(OTLPLogExporter).parameters:
        arguments["_transport"] = client
    else:
        from tbot_otel.otlp.requests_session import ClientSession

        arguments["session"] = ClientSession(client)
    return OTLPLogExporter(**arguments)
