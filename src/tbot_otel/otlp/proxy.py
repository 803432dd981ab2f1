"""The HTTP or SOCKS proxy of an endpoint, from the variables and the system's settings."""

import os
import sys

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.url import URL

_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def find_proxy(url: URL, *, is_grpc: bool) -> URL | None:
    """Return the proxy of an endpoint; None if it has none. An endpoint on loopback has none.

    Raises:
        ExporterConfigurationError: It is not the URL of a proxy that can be used.
    """
    # Only these systems have settings besides the variables.
    has_variables = any(name.lower().endswith("_proxy") for name in os.environ)
    if (not has_variables and sys.platform not in ("darwin", "win32")) or url.is_loopback:
        return None
    if is_grpc:
        place, address, exceptions = _read_grpc_variables()
    elif has_variables:
        place, address, exceptions = _read_http_variables(url.scheme)
    else:
        place, address, exceptions = _read_system_settings(url)
    if not address or _is_exception(url, exceptions):
        return None
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
    except ValueError:
        raise ExporterConfigurationError(f"{place}: expected the URL of a proxy") from None
    if is_grpc and proxy.scheme != "http":
        # gRPC ignores any other proxy, too.
        return None
    if proxy.scheme not in _SCHEMES:
        raise ExporterConfigurationError(f"{place}: expected an HTTP or SOCKS proxy")
    if proxy.scheme.startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socks") is None:
            raise ExporterConfigurationError(f"{place}: a SOCKS proxy needs the package PySocks")
    return proxy


def _first_of(*names: str) -> tuple[str, str]:
    """Return the first of these variables that is set, even if it is empty, and its value."""
    name = next((name for name in names if name in os.environ), "")
    return name, os.environ.get(name, "").strip()


def _read_grpc_variables() -> tuple[str, str, str]:
    # https://github.com/grpc/grpc/blob/master/doc/environment_variables.md
    place, address = _first_of("grpc_proxy", "https_proxy", "http_proxy")
    return place, address, _first_of("no_grpc_proxy", "no_proxy")[1]


def _read_http_variables(scheme: str) -> tuple[str, str, str]:
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper()]
    # In a CGI program, it is a header of the request.
    if names[1] == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ:
        del names[1]
    place, address = _first_of(*names)
    if not address:
        place, address = _first_of("all_proxy", "ALL_PROXY")
    return place, address, _first_of("no_proxy", "NO_PROXY")[1]


def _read_system_settings(url: URL) -> tuple[str, str, str]:
    from urllib.request import getproxies, proxy_bypass

    exceptions = "*" if proxy_bypass(url.address) else ""
    return "the system's proxy", getproxies().get(url.scheme, ""), exceptions


def _is_exception(url: URL, exceptions: str) -> bool:
    """Return whether a value of ``NO_PROXY`` covers an endpoint."""
    host = url.host.lower()
    for exception in exceptions.lower().split(","):
        pattern = exception.strip()
        if "/" in pattern:
            if _is_in_network(host, pattern):
                return True
        elif pattern in ("*", host, f"[{host}]", f"{url.address.lower()}") or (
            (name := pattern.removeprefix("*").removeprefix("."))
            and (host == name or host.endswith(f".{name}"))
        ):
            return True
    return False


def _is_in_network(host: str, network: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
