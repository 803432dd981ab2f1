"""The files for TLS: read before their first use, and again when they have changed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.files import expect_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tbot_otel.otlp.settings import Settings

Loaded = TypeVar("Loaded")


class CurrentFiles(Generic[Loaded]):
    """What is made of the files for TLS, as they are now.

    Args:
        settings: They name the files.
        load: Reads the files. It raises `ExporterConfigurationError` if one cannot be used.
    """

    def __init__(self, settings: "Settings", load: "Callable[[Settings], Loaded]") -> None:
        self._settings = settings
        self._load = load
        self._loaded: Loaded | None = None
        self._stamps: list[object] | None = None

    def get(self) -> Loaded:
        """Return what was made of the files, again if they have changed.

        If they cannot be used, as when only one of a pair was written yet, the last ones are kept.

        Raises:
            ExporterConfigurationError: They cannot be used, and never could.
        """
        stamps: list[object] = [_stamp(path) for _, path in self._settings.tls_files.values()]
        if self._loaded is None or stamps != self._stamps:
            try:
                self._loaded = self._load(self._settings)
                self._stamps = stamps
            except ExporterConfigurationError:
                if self._loaded is None:
                    raise
        return self._loaded

    def expire(self) -> None:
        """Read the files again before their next use, although they look the same."""
        self._stamps = None


def _stamp(path: str) -> object:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def read_file(settings: "Settings", name: str) -> bytes | None:
    """Return the content of a file; None if none is named.

    Args:
        settings: They name the files.
        name: ``ca_file``, ``cert_file`` or ``key_file``.

    Raises:
        ExporterConfigurationError: It cannot be read, or is empty.
    """
    if name not in settings.tls_files:
        return None
    place, path = settings.tls_files[name]
    try:
        expect_file(path)
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from None
    if not content:
        raise ExporterConfigurationError(f"{place}: expected a file of PEM")
    return content


def _unreadable(place: str, error: Exception) -> ExporterConfigurationError:
    # An error of OpenSSL is an OSError whose number is not the system's.
    if isinstance(error, OSError) and not hasattr(error, "library") and error.errno:
        problem = os.strerror(error.errno)
        return ExporterConfigurationError(f"{place}: expected a file that can be read ({problem})")
    return ExporterConfigurationError(f"{place}: expected a file of PEM")


def check_files(settings: "Settings") -> None:
    """Check that the files can be used.

    Raises:
        ExporterConfigurationError: One cannot be used.
    """
    # Only an HTTP client takes a folder.
    if settings.protocol == "grpc":
        for name in settings.tls_files:
            read_file(settings, name)
    if settings.tls_files:
        create_context(settings)


def create_context(settings: "Settings", *, for_proxy: bool = False) -> "ssl.SSLContext":
    """Return the TLS settings of an HTTP client. Without a CA file, it trusts the system's store.

    Args:
        settings: They name the files.
        for_proxy: Whether it is for a proxy, which gets no client certificate.

    Raises:
        ExporterConfigurationError: A file cannot be used.
    """
    import ssl

    place, path = settings.tls_files.get("ca_file", ("", None))
    is_folder = path is not None and Path(path).is_dir()
    try:
        if path is not None:
            expect_file(path)
        context = ssl.create_default_context(
            cafile=None if is_folder else path, capath=path if is_folder else None
        )
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from None
    context.set_alpn_protocols(["http/1.1"])
    if "cert_file" in settings.tls_files and not for_proxy:
        # For the problem of a file that cannot be read.
        read_file(settings, "cert_file")
        read_file(settings, "key_file")
        place, certificate = settings.tls_files["cert_file"]
        _, key = settings.tls_files.get("key_file", ("", None))
        try:
            # The password keeps OpenSSL from asking for one.
            context.load_cert_chain(certificate, key, "")
        except OSError:
            raise ExporterConfigurationError(
                f"{place}: expected a client certificate and its key in PEM"
            ) from None
    return context
