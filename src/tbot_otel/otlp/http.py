"""The official exporter for ``http/protobuf``, with an HTTP client that identifies no one."""

from inspect import signature
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

from tbot_otel.otlp import environment, tls
from tbot_otel.otlp.client import HTTPClient
from tbot_otel.otlp.proxy import find_proxy
from tbot_otel.otlp.url import split_url

if TYPE_CHECKING:
    from tbot_otel.otlp.arguments import Arguments
    from tbot_otel.otlp.responses import ResponseObserver


def build_exporter(arguments: "Arguments", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter. A credential provider brings its own session, which is not observed."""
    settings: dict[str, Any] = {
        "endpoint": arguments.endpoint,
        "headers": arguments.headers,
        "timeout": arguments.timeout_seconds,
        "compression": Compression(arguments.compression) if arguments.compression else None,
    }
    if environment.has_credential_provider("HTTP"):
        return OTLPLogExporter(
            **settings,
            certificate_file=tls.find_path(arguments, "ca_file"),
            client_key_file=tls.find_path(arguments, "key_file"),
            client_certificate_file=tls.find_path(arguments, "cert_file"),
        )
    url = split_url(arguments.endpoint or environment.endpoint())
    context = tls.create_context(arguments) if url.scheme == "https" else None
    client = HTTPClient(observer, context, find_proxy(url, context))
    observer.is_attached = True
    # SDK 1.45 added this private argument. Without it, the exporter takes a `requests.Session`.
    # Without that either, building it fails: its own client could send cookies or `.netrc`.
    if "_transport" in signature(OTLPLogExporter).parameters:
        settings["_transport"] = client
    else:
        from tbot_otel.otlp.requests_session import ClientSession

        settings["session"] = ClientSession(client)
    return OTLPLogExporter(**settings)
