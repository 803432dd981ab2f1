"""Checks whether the standard variables can work, without importing an exporter or opening a file.

The official exporters find the same errors, but later, or in a log.
"""

import os

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment, tls
from tbot_otel.otlp.url import check_grpc_endpoint, split_url

# In the specification, the unit is the millisecond.
_MIN_IMPLAUSIBLE_TIMEOUT_SECONDS = 500
# The specification's port for the other transport.
_WRONG_PORTS = {"grpc": (":4318", "HTTP"), "http/protobuf": (":4317", "gRPC")}


def find_error() -> tuple[str, str] | None:
    """Find a variable with which nothing can be sent.

    Returns:
        The variable and its problem, which repeats no value; None if there is none.
    """
    protocol = environment.protocol()
    if protocol not in environment.EXPORTER_MODULES:
        return environment.variable_name("PROTOCOL"), environment.EXPECTED_PROTOCOL
    url = environment.endpoint()
    try:
        if protocol == "grpc":
            check_grpc_endpoint(url)
            uses_tls_files = True
        else:
            uses_tls_files = split_url(url).scheme == "https"
    except ExporterConfigurationError as error:
        return environment.variable_name("ENDPOINT"), str(error)
    for name in _find_file_variables(protocol) if uses_tls_files else ():
        if not os.access(os.environ[name], os.R_OK):
            return name, "expected a file that can be read"
    return None


def _find_file_variables(protocol: str) -> list[str]:
    """Return the variables that are set and whose files an exporter with TLS reads."""
    ca, certificate, key = map(
        environment.variable_name, ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    )
    names = [ca, certificate, key]
    if protocol != "grpc":
        # It reads the first CA file, and a key only for a certificate.
        cas = filter(os.environ.get, (ca, *tls.CA_VARIABLES))
        names = [next(cas, ca), certificate, *([key] if os.environ.get(certificate) else [])]
    return [name for name in names if os.environ.get(name)]


def find_likely_mistakes() -> list[str]:
    """Return a line for each variable that works, but probably not as it is meant.

    Each line names the variable, and repeats no value.
    """
    mistakes = []
    protocol = environment.protocol()
    variable = environment.variable_name("ENDPOINT")
    url = environment.endpoint()
    host = environment.printable_endpoint().rpartition("://")[2].partition("/")[0]
    port, transport = _WRONG_PORTS.get(protocol, ("", ""))
    if port and host.endswith(port):
        mistakes.append(f"{variable}: port {port[1:]} is for {transport}, not for {protocol}")
    if protocol == "http/protobuf":
        path = environment.LOGS_PATH
        if variable == "OTEL_EXPORTER_OTLP_ENDPOINT" and url.endswith(path * 2):
            mistakes.append(f"{variable}: expected no {path}, because it is added")
        elif "://" in url and not url.partition("://")[2].partition("/")[2]:
            mistakes.append(f"{variable}: expected a path, such as {path}")
    if (environment.timeout_seconds() or 0) >= _MIN_IMPLAUSIBLE_TIMEOUT_SECONDS:
        name = environment.variable_name("TIMEOUT")
        mistakes.append(f"{name}: expected seconds, but it looks like milliseconds")
    return mistakes
