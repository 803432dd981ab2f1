"""Where the standard variables send to, and how.

They are the specification's (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). The
official exporters read them; here is only what decides between those exporters, and what people
are shown.
"""

import os

from tbot_otel.errors import ExporterConfigurationError

PACKAGES = {
    "http/protobuf": "opentelemetry-exporter-otlp-proto-http",
    "grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "http/json": "opentelemetry-exporter-otlp-json-http",
}
"""The protocols, and the package with the official exporter of each."""

MODULES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
    "http/json": "opentelemetry.exporter.otlp.json.http",
}
"""The protocols, and the module of each exporter's package."""


def standard(name: str, signal: str = "LOGS") -> str | None:
    """Return ``OTEL_EXPORTER_OTLP_{signal}_{name}``, else the variable without a signal, if set."""
    prefix = "OTEL_EXPORTER_OTLP"
    return os.environ.get(f"{prefix}_{signal}_{name}") or os.environ.get(f"{prefix}_{name}") or None


def protocol(signal: str = "LOGS") -> str:
    """Return the protocol that the variables ask for: ``http/protobuf`` if they do not."""
    return (standard("PROTOCOL", signal) or "http/protobuf").strip()


def timeout() -> float | None:
    """Return the time-out of an export in seconds, as this SDK reads it; None if it is not set."""
    from threading import TIMEOUT_MAX

    try:
        seconds = float(standard("TIMEOUT") or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < TIMEOUT_MAX else None


def endpoint() -> str:
    """Return where the variables send logs to, without what could be secret in it.

    That is a user, a password, a query and a fragment.
    """
    if protocol() == "grpc":
        url = standard("ENDPOINT") or "http://localhost:4317"
    elif specific := os.environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        url = specific
    else:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        url = base.removesuffix("/") + "/v1/logs"
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    rest, _, hidden = rest.replace("#", "?").partition("?")
    # A ? or # that a password was not quoted for cannot be told from a query's.
    rest = "" if "@" in hidden else rest.rpartition("@")[2]
    return f"{scheme}{separator}{rest}"


def check(name: str) -> None:
    """Check that a protocol is known and its exporter installed, without importing that.

    Raises:
        ExporterConfigurationError: It is not.
    """
    from importlib.util import find_spec

    if name not in PACKAGES:
        raise ExporterConfigurationError(f"protocol: expected one of {', '.join(PACKAGES)}")
    try:
        found = find_spec(MODULES[name])
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ExporterConfigurationError(
            f"protocol {name}: the package {PACKAGES[name]} is not installed"
        )
