"""The settings of one exporter: its arguments, and for the rest the variables as they are now.

Every setting is checked here, and the exporters read no variable. `record_start` waits for this
module in its caller's thread, so it imports almost nothing.
"""

import os

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.otlp.arguments import TLS_FILES, Arguments, parse_headers
from tbot_otel.otlp.proxy import find_proxy
from tbot_otel.otlp.url import EXPECTED_HOST, EXPECTED_SCHEME, URL

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where HTTP clients find CAs instead of in the system's store."""
DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_TIMEOUT_SECONDS = 86_400.0
"""The longest timeout of an export, which stands for none: sockets and gRPC accept no infinity."""

TLS_VARIABLES = {
    "ca_file": "CERTIFICATE",
    "cert_file": "CLIENT_CERTIFICATE",
    "key_file": "CLIENT_KEY",
}
"""The variables of the files for TLS."""

_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_METADATA_CHARACTERS = frozenset("-._0123456789abcdefghijklmnopqrstuvwxyz")
# The client or the protocol sets them.
_RESERVED_HEADERS = {
    *("connection", "content-encoding", "content-length", "content-type", "expect", "host"),
    *("keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
}
# https://github.com/grpc/grpc/blob/master/doc/naming.md
_GRPC_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")


class Settings:
    """Everything that an exporter needs. It never changes, and most of it can be secret.

    Attributes:
        protocol: ``http/protobuf`` or ``grpc``.
        endpoint: The endpoint; over HTTP with its path.
        url: The endpoint's parts; None for a target of gRPC that is no URL.
        is_secure: Whether the connection uses TLS.
        headers: The headers, with names in lower case.
        compression: ``none``, ``gzip`` or ``deflate``.
        timeout_seconds: The timeout of an export.
        tls_files: The files for TLS, of ``ca_file``, ``cert_file`` and ``key_file`` those that are
            named: the argument or variable that names it, and its path.
        credential_provider: The variable that names a credential provider, and its name, if one is
            named.
        proxy: The proxy; None for a direct connection.
    """

    __slots__ = (
        "compression",
        "credential_provider",
        "endpoint",
        "headers",
        "is_secure",
        "protocol",
        "proxy",
        "timeout_seconds",
        "tls_files",
        "url",
    )

    def __init__(
        self,
        *,
        protocol: str,
        endpoint: str,
        url: URL | None,
        is_secure: bool,
        headers: dict[str, str],
        compression: str,
        timeout_seconds: float,
        tls_files: dict[str, tuple[str, str]],
        credential_provider: tuple[str, str] | None,
        proxy: URL | None,
    ) -> None:
        self.protocol: str = protocol
        self.endpoint: str = endpoint
        self.url: URL | None = url
        self.is_secure: bool = is_secure
        self.headers: dict[str, str] = headers
        self.compression: str = compression
        self.timeout_seconds: float = timeout_seconds
        self.tls_files: dict[str, tuple[str, str]] = tls_files
        self.credential_provider: tuple[str, str] | None = credential_provider
        self.proxy: URL | None = proxy


def read_settings(arguments: Arguments | None = None) -> Settings:
    """Read and check the settings. No file is opened. An argument wins over its variable.

    Args:
        arguments: The arguments of the exporter; None for no arguments.

    Raises:
        ExporterConfigurationError: One is invalid. The text begins with its name, and repeats no
            value.
    """
    arguments = arguments or Arguments()
    protocol = arguments.protocol or environment.protocol()
    if protocol not in environment.EXPORTER_MODULES:
        place = "protocol" if arguments.protocol else environment.variable_name("PROTOCOL")
        raise _error(place, environment.EXPECTED_PROTOCOL)
    is_grpc = protocol == "grpc"
    place, endpoint, url = _read_endpoint(arguments, is_grpc=is_grpc)
    is_secure = _is_secure(arguments, url) if is_grpc else url is not None and url.scheme == "https"
    return Settings(
        protocol=protocol,
        endpoint=endpoint,
        url=url,
        is_secure=is_secure,
        headers=_read_headers(arguments, is_grpc=is_grpc),
        compression=_read_compression(arguments, is_grpc=is_grpc),
        timeout_seconds=_read_timeout(arguments),
        tls_files=_find_tls_files(arguments, is_grpc=is_grpc) if is_secure else {},
        credential_provider=_find_credential_provider(
            arguments, is_grpc=is_grpc, is_secure=is_secure
        ),
        proxy=None if url is None else find_proxy(url, is_grpc=is_grpc),
    )


def printable_target(settings: Settings | None = None) -> str:
    """Return where an exporter sends, without the parts that can be secret.

    Args:
        settings: Its settings; None for the variables', even if they are invalid.
    """
    from tbot_otel.streams import printable

    if settings is None:
        try:
            settings = read_settings()
        except ExporterConfigurationError:
            return printable(f"{environment.printable_endpoint()} ({environment.protocol()})")
    url = environment.printable_url(settings.endpoint, is_grpc=settings.protocol == "grpc")
    target = f"{url} ({settings.protocol})"
    if settings.proxy is None:
        return target
    return f"{target} through the proxy {settings.proxy.scheme}://{settings.proxy.address}"


def _error(place: str, expected: str) -> ExporterConfigurationError:
    return ExporterConfigurationError(f"{place}: {expected}")


def _variable(name: str) -> tuple[str, str]:
    """Return a variable's full name, and its value; an empty one for a variable that is not set."""
    place = environment.variable_name(name)
    return place, os.environ.get(place, "").strip()


def _read_endpoint(arguments: Arguments, *, is_grpc: bool) -> tuple[str, str, URL | None]:
    place, text = "endpoint", (arguments.endpoint or "").strip()
    if not text:
        place = environment.variable_name("ENDPOINT")
        text = environment.endpoint(is_grpc=is_grpc)
    if is_grpc and text.startswith(_GRPC_SCHEMES) and text.isprintable():
        return place, text, None
    try:
        url = URL(text)
    except ValueError:
        if "://" not in text and not is_grpc:
            raise _error(place, EXPECTED_SCHEME) from None
        raise _error(place, EXPECTED_HOST) from None
    if url.scheme not in (("http", "https", "") if is_grpc else ("http", "https")):
        raise _error(place, EXPECTED_SCHEME)
    # gRPC would take it for a part of the host's name, and log it.
    if is_grpc and url.login:
        raise _error(place, "expected no login, which only http/protobuf sends")
    is_complete = not is_grpc and place != "OTEL_EXPORTER_OTLP_ENDPOINT"
    if url.fragment is not None or (url.query is not None and not is_complete):
        raise _error(place, f"expected no {'#' if is_complete else '? or #'}")
    return place, text, url


def _is_secure(arguments: Arguments, url: URL | None) -> bool:
    """Return whether gRPC uses TLS. A scheme wins, by the specification."""
    insecure = arguments.tls.get("insecure")
    if insecure is None:
        place, text = _variable("INSECURE")
        if text.lower() not in ("", "true", "false"):
            raise _error(place, "expected true or false")
        insecure = text.lower() == "true"
    if url is not None and url.scheme:
        return url.scheme == "https"
    return not insecure


def _read_headers(arguments: Arguments, *, is_grpc: bool) -> dict[str, str]:
    place, headers = "headers", arguments.headers
    if headers is None:
        place, text = _variable("HEADERS")
        try:
            headers = parse_headers(text)
        except ValueError:
            raise _error(place, "expected name=value, URL-encoded, separated by commas") from None
    for name, value in headers.items():
        if not name or not _TOKEN_CHARACTERS.issuperset(name) or _has_controls(value):
            raise _error(place, "expected names and values of HTTP headers")
        if name in _RESERVED_HEADERS:
            raise _error(place, f"expected no {name}")
        if is_grpc:
            if not _METADATA_CHARACTERS.issuperset(name) or not value.isascii():
                raise _error(place, "expected names and values of gRPC metadata, which are ASCII")
            if name.endswith("-bin") or name.startswith("grpc-"):
                raise _error(place, "expected no name with grpc- or -bin over gRPC")
    return headers


def _has_controls(value: str) -> bool:
    return any(char < " " or char == "\x7f" for char in value)


def _read_compression(arguments: Arguments, *, is_grpc: bool) -> str:
    place, compression = "compression", arguments.compression
    if compression is None:
        place, text = _variable("COMPRESSION")
        compression = text.lower() or "none"
    # gRPC has deflate, but the official Collector does not know it.
    allowed = ("none", "gzip") if is_grpc else ("none", "gzip", "deflate")
    if compression not in allowed:
        over = " over gRPC" if is_grpc else ""
        raise _error(place, f"expected {', '.join(allowed[:-1])} or {allowed[-1]}{over}")
    return compression


def _read_timeout(arguments: Arguments) -> float:
    seconds = arguments.timeout_seconds
    if seconds is None:
        place, text = _variable("TIMEOUT")
        try:
            seconds = float(text or DEFAULT_TIMEOUT_SECONDS)
        except ValueError:
            seconds = -1
        if not 0 <= seconds < float("inf"):
            raise _error(place, "expected seconds")
    # By the specification, 0 means no limit.
    return min(seconds or MAX_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS)


def _find_tls_files(arguments: Arguments, *, is_grpc: bool) -> dict[str, tuple[str, str]]:
    files = {}
    for name in TLS_FILES:
        place, path = _variable(TLS_VARIABLES[name])
        if argument := arguments.tls.get(name):
            place, path = f"tls.{name}", str(argument)
        if path:
            files[name] = place, path
    if "key_file" in files and "cert_file" not in files:
        raise _error(files["key_file"][0], "expected a client certificate, too")
    # Over HTTP, the certificate's file can hold the key.
    if is_grpc and "cert_file" in files and "key_file" not in files:
        raise _error(files["cert_file"][0], "expected a client key, too")
    if not is_grpc and "ca_file" not in files:
        for variable in CA_VARIABLES:
            if bundle := os.environ.get(variable):
                files["ca_file"] = variable, bundle
                break
    return files


def _find_credential_provider(
    arguments: Arguments, *, is_grpc: bool, is_secure: bool
) -> tuple[str, str] | None:
    # Over gRPC, a provider returns credentials for TLS, and files that are arguments win over it.
    if is_grpc and (not is_secure or arguments.tls.keys() & {*TLS_FILES}):
        return None
    return environment.credential_provider("GRPC" if is_grpc else "HTTP")
