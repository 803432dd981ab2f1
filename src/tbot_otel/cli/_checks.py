"""Finds what is wrong, or is probably meant otherwise, in the variables. It opens no connection."""

import os

from tbot_otel.consent import OPT_IN
from tbot_otel.otlp import environment
from tbot_otel.otlp.settings import MAX_TIMEOUT_SECONDS, TLS_VARIABLES, Settings, read_settings

# In the specification, the unit is the millisecond.
_MIN_IMPLAUSIBLE_TIMEOUT_SECONDS = 500
# The specification's port for the other transport.
_WRONG_PORTS = {"grpc": (4318, "HTTP"), "http/protobuf": (4317, "gRPC")}
_OTHER_PROTOCOLS = {"grpc": "http/protobuf", "http/protobuf": "grpc"}
_NAMES = ("PROTOCOL", "ENDPOINT", "HEADERS", "COMPRESSION", "TIMEOUT", "INSECURE")
_VARIABLES = {
    *(OPT_IN, f"{OPT_IN}_ADDRESS", "OTEL_SDK_DISABLED", "DO_NOT_TRACK", "OTEL_LOG_LEVEL"),
    *("_TBOT_TELEMETRY_HELPER", "_TBOT_TELEMETRY_HELPER_VERSION"),
    *(
        f"OTEL_EXPORTER_OTLP_{form}{name}"
        for form in ("", "LOGS_")
        for name in (*_NAMES, *TLS_VARIABLES.values())
    ),
}
_OTHER_SIGNALS = ("TRACES_", "METRICS_", "PROFILES_")
# As similar as a name of 25 letters is with two of them wrong.
_MIN_SIMILARITY = 0.92
# Parts of the reasons of a failure that one gets from a port for something else.
_MISMATCHES = (
    *("responded with 400", "is not HTTP/1.1", "is not gRPC", "closed the connection"),
    *("reset the connection", "UNIMPLEMENTED", "UNAVAILABLE", "CERTIFICATE_REQUIRED"),
    "WRONG_VERSION_NUMBER",
)


def read_checked_settings() -> Settings:
    """Return the settings of an exporter that can be built now, as far as variables decide.

    Raises:
        ExporterConfigurationError: Nothing can be sent. The text begins with the variable.
    """
    settings = read_settings()
    if settings.tls_files:
        from tbot_otel.otlp import tls

        tls.check_files(settings)
    if settings.credential_provider:
        from tbot_otel.otlp import credentials

        credentials.find(settings.credential_provider)
    return settings


def find_likely_mistakes(settings: Settings | None) -> list[str]:
    """Return a line for each variable that works, but probably not as it is meant.

    Each line names the variable, and repeats no value.

    Args:
        settings: The settings; None if a variable is invalid.
    """
    return [*_find_misspelled_variables(), *(_find_mistakes(settings) if settings else ())]


def _find_misspelled_variables() -> list[str]:
    mistakes = []
    for name in sorted(os.environ):
        known = name
        for signal in _OTHER_SIGNALS:
            known = known.replace(signal, "LOGS_", 1)
        if known not in _VARIABLES and (meant := _find_similar_variable(name.upper())):
            mistakes.append(f"{name}: it is not read; is it {meant}?")
    return mistakes


def _find_similar_variable(name: str) -> str | None:
    # A mistake leaves the first or the last letters as they are. difflib takes time to import.
    similar = [
        variable
        for variable in _VARIABLES
        if abs(len(variable) - len(name)) < 4
        and (variable[:3] == name[:3] or variable[-3:] == name[-3:])
    ]
    if not similar:
        return None
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, similar, 1, _MIN_SIMILARITY)), None)


def _find_mistakes(settings: Settings) -> list[str]:
    mistakes = []
    variable = environment.variable_name("ENDPOINT")
    url = settings.url
    is_grpc = settings.protocol == "grpc"
    port, transport = _WRONG_PORTS[settings.protocol]
    if url is not None and url.port == port:
        mistakes.append(f"{variable}: port {port} is for {transport}, not for {settings.protocol}")
    if url is not None and is_grpc:
        if not url.scheme and settings.is_secure:
            mistakes.append(f"{variable}: without http:// or https://, gRPC uses TLS")
        if url.port is None:
            mistakes.append(f"{variable}: expected a port, such as 4317; gRPC uses 443 without one")
    elif url is not None:
        path = environment.LOGS_PATH
        if variable == "OTEL_EXPORTER_OTLP_ENDPOINT" and url.path.endswith(path * 2):
            mistakes.append(f"{variable}: expected no {path}, because it is added")
        elif url.path in ("", "/"):
            mistakes.append(f"{variable}: expected a path, such as {path}")
    if _MIN_IMPLAUSIBLE_TIMEOUT_SECONDS <= settings.timeout_seconds < MAX_TIMEOUT_SECONDS:
        name = environment.variable_name("TIMEOUT")
        mistakes.append(f"{name}: expected seconds, but it looks like milliseconds")
    return mistakes


def find_likely_cause(reason: str, settings: Settings) -> str | None:
    """Return what a failure of the check most likely means; None if the reason says it.

    Args:
        reason: Why the Collector did not accept the export.
        settings: How it was sent.
    """
    if not any(part in reason for part in _MISMATCHES):
        return None
    if "WRONG_VERSION_NUMBER" in reason:
        return "the port probably has no TLS, so expected http://"
    causes = [f"is for {_OTHER_PROTOCOLS[settings.protocol]} and not for {settings.protocol}"]
    if not settings.is_secure:
        causes.insert(0, "expects TLS, that is https://")
    elif "cert_file" not in settings.tls_files:
        causes.insert(0, "expects a client certificate")
    return f"the port probably {', or '.join(causes)}"
