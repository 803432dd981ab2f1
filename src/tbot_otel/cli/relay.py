"""Receive the reports of many tbots, and export their starts to one Collector.

TELEPORT_ANONYMOUS_TELEMETRY_ADDRESS tells a tbot where to report. A tbot does
so only if its own user opted in with TELEPORT_ANONYMOUS_TELEMETRY, so the relay
asks for no consent of its own. It needs the extra:
pip install 'tbot-otel[relay]'.

Examples:
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 tbot-otel relay
  tbot-otel relay --listen 0.0.0.0:8126 --path-secret-file path-secret

How to operate it:
https://github.com/tbot-otel/tbot-otel/blob/main/docs/relay.md
"""

import argparse
import os
import re

from tbot_otel.cli._parser import OptionError, number_up_to
from tbot_otel.errors import missing_extra
from tbot_otel.files import expect_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.cli._parser import Parser


_REQUIRED_MODULES = ("connectrpc", "granian", "uvloop")


def configure(parser: "Parser") -> None:
    """Add the options."""
    parser.add_argument(
        "--listen",
        type=_parse_address,
        default=("127.0.0.1", 8126),
        metavar="HOST:PORT",
        help="where to listen (127.0.0.1:8126)",
    )
    parser.add_argument(
        "--workers",
        type=number_up_to(999),
        default=1,
        metavar="N",
        help="the number of worker processes (1)",
    )
    parser.add_argument(
        "--path-secret-file",
        metavar="FILE",
        help="a file of secrets, one per line; the path of a call must start with one of them",
    )
    for option, brief in (("--tls-cert", "the certificate chain"), ("--tls-key", "its key")):
        parser.add_argument(option, metavar="FILE", help=f"{brief} for TLS, in PEM")
    parser.add_allow_helper()


def _parse_address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if not match or not 0 < int(match[3]) < 2**16:
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return match[1] or match[2], int(match[3])


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from tbot_otel.otlp import environment

    if problem := find_problem():
        raise OptionError(problem)
    environment.check_installed(environment.protocol())
    if (options.tls_cert is None) != (options.tls_key is None):
        raise OptionError("--tls-cert, --tls-key: expected both or neither")
    from pathlib import Path

    from tbot_otel.otlp.quiet import silence_grpc
    from tbot_otel.relay import server

    silence_grpc()

    def read_prefixes() -> list[str]:
        _check_tls(options.tls_cert, options.tls_key)
        return _read_prefixes(options.path_secret_file)

    host, port = options.listen
    server.serve(
        _resolve_address(host, port),
        port,
        workers=options.workers,
        read_prefixes=read_prefixes,
        allowed_helpers=options.allowed_helpers,
        certificate=Path(options.tls_cert) if options.tls_cert else None,
        key=Path(options.tls_key) if options.tls_key else None,
    )
    return 0


def find_problem() -> str | None:
    """Return why the relay cannot start, as far as that is known without importing it."""
    from importlib.util import find_spec

    from tbot_otel import consent
    from tbot_otel.otlp import environment

    if consent.is_sdk_disabled(os.environ):
        return "OTEL_SDK_DISABLED: the relay cannot export with it"
    protocol = environment.protocol()
    if protocol not in environment.EXPORTER_MODULES:
        return environment.unsupported_protocol()
    if protocol != "grpc" and environment.credential_provider("HTTP"):
        return (
            "the relay cannot observe the Collector's responses: "
            "a credential provider's session hides them"
        )
    if not all(map(find_spec, _REQUIRED_MODULES)):
        return missing_extra("relay")
    return None


def _check_tls(certificate: str | None, key: str | None) -> None:
    import ssl

    if certificate is None or key is None:
        return
    try:
        for path in (certificate, key):
            expect_file(path)
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, "")
    except OSError as error:
        problem = "expected PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise OptionError(f"--tls-cert, --tls-key: {problem}") from None


def _resolve_address(host: str, port: int) -> str:
    """Return the IP address of a host, because the server needs one, and try to bind it."""
    import socket

    try:
        family, *_, (address, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((address, port))
    except (OSError, UnicodeError) as error:
        # The error's text can repeat the address. A failed lookup has a negative number, and a name
        # that cannot be encoded for a lookup has none.
        number = getattr(error, "errno", None) or 0
        problem = os.strerror(number) if number > 0 else "no such host"
        raise OptionError(f"--listen: {problem}") from None
    return str(address)


def _read_prefixes(path: str | None) -> list[str]:
    import logging
    import stat

    if path is None:
        return [""]
    try:
        expect_file(path)
        with open(path, encoding="ascii") as file:
            is_readable_by_others = os.fstat(file.fileno()).st_mode & stat.S_IROTH
            secrets = file.read().split("\n")
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "expected ASCII"
        raise OptionError(f"--path-secret-file: {problem}") from None
    secrets = [secret.strip() for secret in secrets if secret.strip()]
    if not secrets or not all(re.fullmatch("[A-Za-z0-9_-]{16,256}", secret) for secret in secrets):
        raise OptionError(
            "--path-secret-file: expected lines of 16 to 256 of A-Z, a-z, 0-9, _ and -"
        )
    if is_readable_by_others:
        logging.getLogger("tbot_otel.relay").warning(
            "--path-secret-file: other users of this machine can read it"
        )
    return [f"/{secret}" for secret in secrets]
