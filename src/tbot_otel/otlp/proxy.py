"""The HTTP proxy of an endpoint, from the variables and settings that `urllib.request` reads."""

import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import tls
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.url import basic_authorization

if TYPE_CHECKING:
    import ssl
    from urllib.parse import SplitResult


def find_proxy(url: "SplitResult", tls_context: "ssl.SSLContext | None") -> Any:
    """Return the `urllib3.ProxyManager` for an endpoint; None if it has no proxy.

    Args:
        url: The endpoint.
        tls_context: The TLS settings for it.

    Raises:
        ExporterConfigurationError: It is a SOCKS proxy, and PySocks is not installed.
    """
    # The import takes as long as the rest of the client. Two systems have settings, too.
    if sys.platform not in ("darwin", "win32") and not any(
        name.lower().endswith("_proxy") for name in os.environ
    ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    host = url.netloc.rpartition("@")[2]
    if not address or proxy_bypass(host) or _is_in_network(url.hostname, proxies.get("no", "")):
        return None
    if "://" not in address:
        address = f"http://{address}"
    import urllib3

    if address.lower().startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socks") is None:
            raise ExporterConfigurationError("proxy: a SOCKS proxy needs the package PySocks")
        from urllib3.contrib import socks

        return socks.SOCKSProxyManager(address, ssl_context=tls_context)
    parts = urlsplit(address)
    login = basic_authorization(parts)
    return urllib3.ProxyManager(
        address,
        proxy_headers={"proxy-authorization": login} if login else None,
        proxy_ssl_context=tls.create_context(Arguments()) if parts.scheme == "https" else None,
        ssl_context=tls_context,
    )


def _is_in_network(host: str | None, networks: str) -> bool:
    """Return whether a host is an IP address in a network of ``NO_PROXY``."""
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(host or "")
    except ValueError:
        return False
    for network in networks.split(","):
        try:
            if "/" in network and address in ip_network(network.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
