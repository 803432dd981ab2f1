"""Our HTTP client as a `requests.Session`, for SDKs that have no transport interface."""

import io
from typing import TYPE_CHECKING

import requests
from requests.structures import CaseInsensitiveDict

if TYPE_CHECKING:
    from tbot_otel.otlp.client import HTTPClient


class ClientSession(requests.Session):
    """A session that sends through an `HTTPClient`, and nothing through `requests`.

    Args:
        client: The client, which has its own TLS settings and proxies.
    """

    def __init__(self, client: "HTTPClient") -> None:
        super().__init__()
        self._client = client

    def request(  # type: ignore[override]
        self, method: str, url: str, *, data: bytes, timeout: float, **_: object
    ) -> requests.Response:
        """Send an export."""
        result = self._client.request(method, url, data=data, timeout=timeout)
        if result.error is not None:
            if self._client.is_connection_error(result.error):
                raise requests.ConnectionError(str(result.error))
            raise result.error
        response = requests.Response()
        response.status_code = result.status_code or 0
        response.reason = result.reason or ""
        response.headers = CaseInsensitiveDict(result.headers().items())
        response.raw = io.BytesIO(result.content())
        return response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        super().close()
