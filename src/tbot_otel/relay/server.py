"""The server: granian's worker processes, each with a `RelayApp`."""

import functools
import logging
import resource
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import uvloop  # noqa: F401 - if it is missing, fail here and not in a worker
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from tbot_otel.relay.app import RelayApp

SHUTDOWN_TIMEOUT_SECONDS = 15
"""How long a stopping relay waits for its calls."""
MAX_CONNECTIONS = 8192
"""The most connections of a worker. More wait in the kernel's backlog."""

_HEADER_TIMEOUT_MILLIS = 5_000
_MAX_HEADER_BYTES = 2**14
_BACKLOG = 4096
_RESERVED_FDS = 64


def check() -> None:
    """Check the variables in another process, because gRPC does not survive a fork.

    Raises:
        ExporterConfigurationError: They are invalid.
    """
    with ProcessPoolExecutor(1, get_context("fork")) as process:
        process.submit(_check).result()


def _check() -> None:
    _configure_log()
    RelayApp()


def serve(
    host: str,
    port: int,
    *,
    workers: int,
    prefix: str,
    allowed_helpers: Collection[str],
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the calls in flight."""
    Granian(
        "tbot_otel.relay",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        # Unlike HTTP/2, it has a timeout for silent connections.
        http=HTTPModes.http1,
        workers=workers,
        websockets=False,
        loop=Loops.uvloop,
        backlog=_BACKLOG,
        backpressure=_raise_fd_limit(MAX_CONNECTIONS + _RESERVED_FDS) - _RESERVED_FDS,
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADER_TIMEOUT_MILLIS, max_buffer_size=_MAX_HEADER_BYTES
        ),
        ssl_cert=certificate,
        ssl_key=key,
        workers_kill_timeout=SHUTDOWN_TIMEOUT_SECONDS,
        respawn_failed_workers=True,
    ).serve(
        target_loader=functools.partial(_load_app, prefix=prefix, allowed_helpers=allowed_helpers)
    )


def _raise_fd_limit(wanted: int) -> int:
    """Raise the limit of open descriptors as far as allowed, and return it; `wanted` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _load_app(_: str, *, prefix: str, allowed_helpers: Collection[str]) -> RelayApp:
    _configure_log()
    return RelayApp(prefix, allowed_helpers)


def _configure_log() -> None:
    # Other loggers repeat variables: headers, and an endpoint's query.
    logging.getLogger().addHandler(logging.NullHandler())
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("tbot-otel relay: %(message)s"))
    for name in ("tbot_otel.relay", "asyncio"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("tbot_otel.relay").setLevel(logging.INFO)
