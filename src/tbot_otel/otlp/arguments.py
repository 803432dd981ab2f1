"""The arguments of an OTLP exporter, validated."""

import threading
from collections.abc import Mapping

from tbot_otel.errors import ExporterConfigurationError

COMPRESSIONS = ("none", "gzip", "deflate")
TLS_FILES = ("ca_file", "cert_file", "key_file")


class Arguments:
    """The arguments of an exporter, in the shapes and units of a declarative configuration file.

    They are the ones of ``otlp_http`` and ``otlp_grpc`` there
    (https://github.com/open-telemetry/opentelemetry-configuration), with `protocol` in place of
    ``encoding``.

    Args:
        protocol: ``http/protobuf`` or ``grpc``.
        endpoint: The URL; over HTTP with its path, such as ``http://localhost:4318/v1/logs``.
        headers: A list of mappings with ``name`` and ``value``, or a mapping of names to values.
        headers_list: The same as text, ``name=value,name=value``. `headers` wins.
        compression: ``none``, ``gzip`` or ``deflate``.
        timeout: The timeout of an export, in milliseconds.
        tls: A mapping with ``ca_file``, ``key_file`` and ``cert_file``, and over gRPC ``insecure``.

    Raises:
        ExporterConfigurationError: An argument does not have its shape.
    """

    __slots__ = ("compression", "endpoint", "headers", "protocol", "timeout_seconds", "tls")

    def __init__(
        self,
        *,
        protocol: object = None,
        endpoint: object = None,
        headers: object = None,
        headers_list: object = None,
        compression: object = None,
        timeout: object = None,
        tls: object = None,
    ) -> None:
        self.protocol: str | None = _parse_text("protocol", protocol)
        self.endpoint: str | None = _parse_text("endpoint", endpoint)
        self.headers: dict[str, str] | None = _parse_headers(
            _parse_text("headers_list", headers_list), headers
        )
        self.compression: str | None = _parse_text("compression", compression)
        if self.compression not in (None, *COMPRESSIONS):
            raise ExporterConfigurationError("compression: expected none, gzip or deflate")
        self.timeout_seconds: float | None = _parse_timeout(timeout)
        self.tls: dict[str, object] = _parse_tls(tls)


def _parse_text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise ExporterConfigurationError(f"{name}: expected text")


def parse_headers(text: str) -> dict[str, str]:
    """Return the headers in ``name=value,name=value``, with names in lower case.

    The official exporters read this format
    (https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables).

    Raises:
        ValueError: The text does not have it.
    """
    headers = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name or equals):
            continue
        if not equals or not pair.isascii() or any(char in '"\\;' or char < " " for char in value):
            raise ValueError(pair)
        # One with a space is not encoded.
        if "%" in pair and " " not in value:
            from urllib.parse import unquote

            name, value = unquote(name), unquote(value)
        headers[name.lower()] = value
    return headers


def _parse_headers(headers_list: str | None, headers: object) -> dict[str, str] | None:
    if headers_list is None and headers is None:
        return None
    try:
        parsed = parse_headers(headers_list or "")
        if isinstance(headers, Mapping):
            pairs = [*headers.items()]
        else:
            pairs = [(pair["name"], pair["value"] or "") for pair in headers or ()]  # type: ignore[attr-defined]
        # gRPC requires lower case, and HTTP ignores case.
        parsed.update({name.strip().lower(): value.strip() for name, value in pairs})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ExporterConfigurationError("headers: expected pairs of name and value") from None
    return parsed or None


def _parse_timeout(milliseconds: object) -> float | None:
    if milliseconds is None:
        return None
    if (
        isinstance(milliseconds, bool)
        or not isinstance(milliseconds, int | float)
        or not (0 <= milliseconds < threading.TIMEOUT_MAX)
    ):
        raise ExporterConfigurationError("timeout: expected milliseconds")
    return milliseconds / 1000


def _parse_tls(tls: object) -> dict[str, object]:
    if not isinstance(tls, Mapping | None):
        raise ExporterConfigurationError("tls: expected a mapping")
    settings = dict(tls or {})
    for name, value in settings.items():
        if name == "insecure":
            if not isinstance(value, bool | None):
                raise ExporterConfigurationError("tls: expected true or false for insecure")
        elif name in TLS_FILES:
            _parse_text(f"tls.{name}", value)
        else:
            raise ExporterConfigurationError(f"tls: expected only insecure, {', '.join(TLS_FILES)}")
    return settings
