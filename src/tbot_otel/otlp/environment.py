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
LOGS_PATH = "/v1/logs"
"""The standard path of logs over HTTP."""


def variable_name(name: str, signal: str = "LOGS") -> str:
    """Return ``OTEL_EXPORTER_OTLP_{signal}_{name}`` if set, else ``OTEL_EXPORTER_OTLP_{name}``."""
    own = f"OTEL_EXPORTER_OTLP_{signal}_{name}"
    return own if os.environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{name}"


def standard_variable(name: str, signal: str = "LOGS") -> str | None:
    """Return the value of the variable that `variable_name` returns, if it is set."""
    return os.environ.get(variable_name(name, signal), "").strip() or None


def protocol(signal: str = "LOGS") -> str:
    """Return the selected protocol; ``http/protobuf`` by default."""
    return standard_variable("PROTOCOL", signal) or "http/protobuf"


def unsupported_protocol(signal: str = "LOGS") -> str:
    """Return the problem that the selected protocol is not supported."""
    return f"{variable_name('PROTOCOL', signal)}: {EXPECTED_PROTOCOL}"


def endpoint(*, is_grpc: bool | None = None) -> str:
    """Return the endpoint for logs that the variables name. Any part of it can be secret.

    Args:
        is_grpc: Whether the protocol is gRPC; None for the variables' protocol.
    """
    if protocol() == "grpc" if is_grpc is None else is_grpc:
        return standard_variable("ENDPOINT") or "http://localhost:4317"
    url = standard_variable("ENDPOINT") or "http://localhost:4318"
    if variable_name("ENDPOINT") == "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT":
        return url
    return (url if url.endswith("://") else url.removesuffix("/")) + LOGS_PATH


def printable_endpoint() -> str:
    """Return the endpoint for logs as `printable_url` does."""
    return printable_url(endpoint(), is_grpc=protocol() == "grpc")


def printable_url(url: str, *, is_grpc: bool) -> str:
    """Return an endpoint without the parts that can be secret.

    Those are the user, the password, the query, the fragment, and a path that is not the standard
    one, in place of which there are dots.
    """
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("http", "https"):
        # It can be a part of a login or a query.
        scheme, separator, rest = "", "", url
    authority, slash, path = rest.replace("#", "?").partition("?")[0].partition("/")
    if "@" in rest.removeprefix(authority):
        # An unquoted /, ? or # in a password looks like the end of the host.
        return f"{scheme}{separator}..."
    if path and (is_grpc or slash + path != LOGS_PATH):
        path = "..."
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def check_installed(protocol: str) -> None:
    """Check that the exporter of a supported protocol is installed, without importing it.

    Raises:
        ExporterConfigurationError: It is not.
    """
    from importlib.util import find_spec

    try:
        installed = find_spec(EXPORTER_MODULES[protocol]) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise ExporterConfigurationError(missing_package(protocol))


def missing_package(protocol: str) -> str:
    """Return the problem that the exporter of a supported protocol is not installed."""
    package = EXPORTER_MODULES[protocol].replace(".", "-")
    return f"protocol {protocol}: the package {package} is not installed"


def credential_provider(transport: str) -> tuple[str, str] | None:
    """Return the variable that names a credential provider of this SDK, and its name, if one does.

    Args:
        transport: ``HTTP`` or ``GRPC``.
    """
    for signal in ("LOGS_", ""):
        name = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_{signal}CREDENTIAL_PROVIDER"
        if provider := os.environ.get(name, "").strip():
            return name, provider
    return None
