"""The URL of an endpoint. `status` waits for this module, so it imports almost nothing."""

from urllib.parse import unquote, urlsplit

from tbot_otel.errors import ExporterConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib.parse import SplitResult

INVALID_ENDPOINT = "the endpoint has no valid host and port"
"""The problem of an endpoint whose host or port cannot be used."""


def split_url(url: str) -> "SplitResult":
    """Split an endpoint.

    Raises:
        ExporterConfigurationError: It is not a URL of HTTP.
    """
    try:
        parts = urlsplit(url.strip())
        # The property raises ValueError for an invalid port.
        is_valid = parts.hostname is not None and parts.port != 0
    except ValueError:
        is_valid = False
    else:
        if parts.scheme not in ("http", "https"):
            raise ExporterConfigurationError("the endpoint has no http:// or https://")
    if not is_valid:
        raise ExporterConfigurationError(INVALID_ENDPOINT)
    return parts


def check_grpc_endpoint(url: str) -> None:
    """Check an endpoint for gRPC, which may have no scheme.

    Raises:
        ExporterConfigurationError: It is not a URL, or has a login.
    """
    try:
        host = urlsplit(url if "://" in url else f"//{url}").netloc
    except ValueError:
        raise ExporterConfigurationError("the endpoint is not a valid URL") from None
    # gRPC would take it for a part of the host's name, and log it.
    if "@" in host:
        raise ExporterConfigurationError("the endpoint has a login, which only http/protobuf sends")


def basic_authorization(url: "SplitResult") -> str | None:
    """Return the value of the header for the user and the password of a URL, if it has them."""
    if not (url.username or url.password):
        return None
    import base64

    login = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"
