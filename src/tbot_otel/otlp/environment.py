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
UNSUPPORTED_PROTOCOL = f"protocol: expected {' or '.join(EXPORTER_MODULES)}"


def standard_variable(name: str, signal: str = "LOGS") -> str | None:
    """Return ``OTEL_EXPORTER_OTLP_{signal}_{name}``, else ``OTEL_EXPORTER_OTLP_{name}``, if set."""
    prefix = "OTEL_EXPORTER_OTLP"
    return os.environ.get(f"{prefix}_{signal}_{name}") or os.environ.get(f"{prefix}_{name}") or None


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
    """Return the endpoint for logs without the parts that can be secret.

    Those are the user, the password, the query and the fragment.
    """
    if protocol() == "grpc":
        url = standard_variable("ENDPOINT") or "http://localhost:4317"
    elif logs_endpoint := os.environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"):
        url = logs_endpoint
    else:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
        url = base.removesuffix("/") + "/v1/logs"
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    rest, _, secret = rest.replace("#", "?").partition("?")
    # An unquoted ? or # in a password looks like the start of a query.
    rest = "" if "@" in secret else rest.rpartition("@")[2]
    return f"{scheme}{separator}{rest}"


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
