"""Take the reports of any number of tbots, and hand their starts to one Collector, until stopped.

A tbot reports to it by TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS, and only if its own user opted in: the
relay asks for no consent of its own.
"""

import argparse
import os
import re
from pathlib import Path

from tbot_otel.errors import TbotOtelError


class _OptionError(TbotOtelError):
    """An option that cannot be used."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 8126),
        metavar="HOST:PORT",
        help="where to listen (127.0.0.1:8126)",
    )
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="how many processes (1)"
    )
    parser.add_argument(
        "--path-secret-file",
        type=Path,
        metavar="FILE",
        help="a file with a secret that the path of a call begins with",
    )
    for option, brief in (("--tls-cert", "the certificate chain"), ("--tls-key", "its key")):
        parser.add_argument(option, type=Path, metavar="FILE", help=f"{brief} for TLS, as PEM")


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if not match or not 0 < int(match[3]) < 2**16:
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return match[1] or match[2], int(match[3])


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,2}", text):
        raise argparse.ArgumentTypeError("expected a number from 1 to 999")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    from tbot_otel import consent, destination

    if consent.sdk_is_disabled(os.environ):
        raise _OptionError("OTEL_SDK_DISABLED: it turns off what the relay is for")
    destination.check(destination.protocol())
    if (options.tls_cert is None) != (options.tls_key is None):
        raise _OptionError("--tls-cert, --tls-key: expected both or neither")
    try:
        from tbot_otel.relay import server
    except ModuleNotFoundError:
        raise _OptionError("it needs the extra: pip install 'tbot-otel[relay]'") from None
    prefix = _prefix(options.path_secret_file)
    _check_tls(options.tls_cert, options.tls_key)
    host, port = options.listen
    address = _address_of(host, port)
    server.check()
    server.serve(
        address,
        port,
        workers=options.workers,
        prefix=prefix,
        certificate=options.tls_cert,
        key=options.tls_key,
    )
    return 0


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    import ssl

    if certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, "")
    except OSError as error:
        problem = "expected PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise _OptionError(f"--tls-cert, --tls-key: {problem}") from None


def _address_of(host: str, port: int) -> str:
    """Return the address of a name, as the server takes no other, if one can listen there."""
    import socket

    try:
        family, *_, (address, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        # Its text may have the address in it, and a name's error has a number below 0.
        known = error.errno is not None and error.errno > 0
        problem = os.strerror(error.errno or 0) if known else "no such host"
        raise _OptionError(f"--listen: {problem}") from None
    return str(address)


def _prefix(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "expected ASCII"
        raise _OptionError(f"--path-secret-file: {problem}") from None
    if not re.fullmatch("[A-Za-z0-9_-]{16,256}", secret):
        raise _OptionError("--path-secret-file: expected 16 to 256 of A-Z, a-z, 0-9, _ and -")
    return f"/{secret}"
