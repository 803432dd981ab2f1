"""The official exporter for ``http/protobuf``, with an HTTP client that identifies no one."""

from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from tbot_otel.otlp.environment import has_credential_provider

if TYPE_CHECKING:
    from tbot_otel.otlp.arguments import Arguments
    from tbot_otel.otlp.responses import ResponseObserver


class _ExportSession(requests.Session):
    """An HTTP client without redirects, cookies and ``.netrc``.

    A redirect would turn the export into a GET, a cookie would link one record to the next, and
    ``.netrc`` would replace the endpoint's login with a person's own.
    """

    def __init__(self, observer: "ResponseObserver") -> None:
        super().__init__()
        self._observer = observer
        self._environment_settings: Any = None
        self.hooks["response"].append(observer.observe_http)
        self.max_redirects = 0
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.auth = _authenticate

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Look up the environment's proxies and CAs once instead of at each export."""
        if self._environment_settings is None:
            # A CA file for the export wins over REQUESTS_CA_BUNDLE.
            self._environment_settings = super().merge_environment_settings(
                url, proxies, stream, verify or self.verify, cert
            )
        return self._environment_settings

    def send(self, request: Any, **settings: Any) -> requests.Response:
        """Send a request, and observe a failure to connect or respond."""
        try:
            return super().send(request, **settings)
        except (requests.ConnectionError, requests.Timeout) as error:
            # The type alone: the error's text repeats the URL.
            self._observer.problem = f"the Collector did not respond ({type(error).__name__})"
            raise


def _authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
    user, password = get_auth_from_url(str(request.url))
    return HTTPBasicAuth(user, password)(request) if user or password else request


def build_exporter(arguments: "Arguments", observer: "ResponseObserver") -> OTLPLogExporter:
    """Build the exporter. A credential provider brings its own session, which is not observed."""
    tls: dict[str, Any] = arguments.tls
    return OTLPLogExporter(
        endpoint=arguments.endpoint,
        headers=arguments.headers,
        timeout=arguments.timeout_seconds,
        certificate_file=tls.get("ca_file"),
        client_key_file=tls.get("key_file"),
        client_certificate_file=tls.get("cert_file"),
        compression=Compression(arguments.compression) if arguments.compression else None,
        session=None if has_credential_provider("HTTP") else _ExportSession(observer),
    )
