"""The files for TLS that arguments and variables name. An argument wins over its variable."""

import os

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.environment import standard_variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

    from tbot_otel.otlp.arguments import Arguments

_FILES = {
    "ca_file": ("CERTIFICATE", "the CA file"),
    "cert_file": ("CLIENT_CERTIFICATE", "the client certificate"),
    "key_file": ("CLIENT_KEY", "the client key"),
}
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where programs find CAs instead of in the system's store."""


def find_path(arguments: "Arguments", name: str) -> str | None:
    """Return the path of a file, if one is named.

    Args:
        arguments: The arguments of the exporter.
        name: ``ca_file``, ``cert_file`` or ``key_file``.
    """
    path = arguments.tls.get(name)
    return str(path) if path else standard_variable(_FILES[name][0])


def read_file(arguments: "Arguments", name: str) -> bytes | None:
    """Return the content of a file; None if none is named, or it is empty.

    Args:
        arguments: The arguments of the exporter.
        name: ``ca_file``, ``cert_file`` or ``key_file``.

    Raises:
        ExporterConfigurationError: It cannot be read.
    """
    path = find_path(arguments, name)
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read() or None
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> ExporterConfigurationError:
    # An error of OpenSSL is an OSError whose number is not the system's.
    problem = "expected a path of PEM"
    if isinstance(error, OSError) and not hasattr(error, "library"):
        problem = os.strerror(error.errno or 0)
    return ExporterConfigurationError(f"tls: {_FILES[name][1]} cannot be read ({problem})")


def create_context(arguments: "Arguments") -> "ssl.SSLContext":
    """Return the TLS settings of an HTTP client.

    It trusts the CA file of the export, else that of `CA_VARIABLES`, else the system's store.

    Raises:
        ExporterConfigurationError: A file cannot be used.
    """
    import ssl
    from pathlib import Path

    variables = (os.environ.get(name) for name in CA_VARIABLES)
    path = find_path(arguments, "ca_file") or next(filter(None, variables), None)
    is_folder = path is not None and Path(path).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if is_folder else path, capath=path if is_folder else None
        )
    except (OSError, ValueError) as error:
        raise _unreadable("ca_file", error) from None
    context.set_alpn_protocols(["http/1.1"])
    certificate = find_path(arguments, "cert_file")
    if certificate:
        read_file(arguments, "cert_file")
        read_file(arguments, "key_file")
        try:
            # The password keeps OpenSSL from asking for one.
            context.load_cert_chain(certificate, find_path(arguments, "key_file"), "")
        except OSError:
            raise ExporterConfigurationError(
                "tls: the client certificate and key cannot be used (expected PEM)"
            ) from None
    return context
