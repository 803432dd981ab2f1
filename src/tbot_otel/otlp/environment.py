"""The standard ``OTEL_EXPORTER_OTLP_*`` variables: which exporter they select, and where it sends.

The specification defines them (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). The
official exporters read them. This module reads what selects an exporter, and what people are shown.
"""

import os

from tbot_otel.errors import ExporterConfigurationError

EXPORTER_MODULES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
"""The supported protocols, and the module of the official exporters for each.

The distribution has the same name with hyphens.
"""
EXPECTED_PROTOCOL = f"expected {' or '.join(EXPORTER_MODULES)}"
UNSUPPORTED_PROTOCOL = f"protocol: {EXPECTED_PROTOCOL}"
LOGS_PATH = "/v1/logs"
"""The standard path of logs over HTTP."""


def variable_name(name: str, signal: str = "LOGS") -> str:
    """Return ``OTEL_EXPORTER_OTLP_{signal}_{name}`` if set, else ``OTEL_EXPORTER_OTLP_{name}``."""
    own = f"OTEL_EXPORTER_OTLP_{signal}_{name}"
    return own if os.environ.get(own) else f"OTEL_EXPORTER_OTLP_{name}"


def standard_variable(name: str, signal: str = "LOGS") -> str | None:
    """Return the value of the variable that `variable_name` returns, if it is set."""
    return os.environ.get(variable_name(name, signal)) or None


def protocol(signal: str = "LOGS") -> str:
    """Return the selected protocol; ``http/protobuf`` by default."""
    return (standard_variable("PROTOCOL", signal) or "http/protobuf").strip()


def timeout_seconds() -> float | None:
    """Return an export's timeout in seconds, the unit of this SDK; None if it is not set."""
    from threading import TIMEOUT_MAX

    try:
        seconds = float(standard_variable("TIMEOUT") or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < TIMEOUT_MAX else None


def endpoint() -> str:
    """Return the endpoint for logs as the exporters read it. Any part of it can be secret."""
    if protocol() == "grpc":
        return standard_variable("ENDPOINT") or "http://localhost:4317"
    if logs_endpoint := os.environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        return logs_endpoint
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    return base.removesuffix("/") + LOGS_PATH


def printable_endpoint() -> str:
    """Return the endpoint for logs without the parts that can be secret.

    Those are the user, the password, the query, the fragment, and a path that is not the standard
    one, in place of which there are dots.
    """
    url = endpoint()
    scheme, separator, rest = url.partition("://")
    if scheme not in ("http", "https"):
        # It can be a part of a login or a query.
        scheme, separator, rest = "", "", url
    authority, slash, path = rest.replace("#", "?").partition("?")[0].partition("/")
    if "@" in rest.removeprefix(authority):
        # An unquoted /, ? or # in a password looks like the end of the host.
        return f"{scheme}{separator}..."
    if path and (protocol() == "grpc" or slash + path != LOGS_PATH):
        path = "..."
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def check_protocol(name: str) -> None:
    """Check that a protocol is supported and its exporter installed, without importing it.

    Raises:
        ExporterConfigurationError: It is not.
    """
    from importlib.util import find_spec

    module = EXPORTER_MODULES.get(name)
    if module is None:
        raise ExporterConfigurationError(UNSUPPORTED_PROTOCOL)
    try:
        installed = find_spec(module) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise ExporterConfigurationError(missing_package(name))


def missing_package(protocol: str) -> str:
    """Return the problem that the exporter of a supported protocol is not installed."""
    package = EXPORTER_MODULES[protocol].replace(".", "-")
    return f"protocol {protocol}: the package {package} is not installed"


def has_credential_provider(transport: str) -> bool:
    """Return whether a credential provider of this SDK is named for ``HTTP`` or ``GRPC``."""
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}"
    return any(os.environ.get(f"{prefix}_{logs}CREDENTIAL_PROVIDER") for logs in ("LOGS_", ""))
