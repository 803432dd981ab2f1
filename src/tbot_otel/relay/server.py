"""The server: granian's processes, each with the service in it."""

import functools
import logging
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import uvloop  # noqa: F401 - a worker would miss it too late
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings, HTTP2Settings

from tbot_otel.connect import MOST_BYTES
from tbot_otel.relay.service import Service

DRAIN_WITHIN = 15
"""The longest that calls in flight are waited for when the relay is stopped, in seconds."""

MOST_CONNECTIONS = 8192
"""The connections that a worker has at most; more wait in the kernel's backlog."""

_HEADERS_WITHIN = 5_000  # milliseconds
_MOST_HEADER_BYTES = 2**14
_BACKLOG = 4096
_OTHER_DESCRIPTORS = 64


def check() -> None:
    """Check the variables as a worker does, in a process of its own: gRPC does not bear a fork.

    Raises:
        ExporterConfigurationError: They cannot be used.
    """
    with ProcessPoolExecutor(1, get_context("fork")) as process:
        process.submit(_check).result()


def _check() -> None:
    _log()
    Service()


def serve(
    host: str,
    port: int,
    *,
    workers: int,
    prefix: str,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and then until what is in flight is answered."""
    Granian(
        "tbot_otel.relay",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        websockets=False,
        loop=Loops.uvloop,
        backlog=_BACKLOG,
        backpressure=_descriptors(MOST_CONNECTIONS + _OTHER_DESCRIPTORS) - _OTHER_DESCRIPTORS,
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADERS_WITHIN, max_buffer_size=_MOST_HEADER_BYTES
        ),
        http2_settings=HTTP2Settings(
            initial_connection_window_size=MOST_BYTES,
            initial_stream_window_size=MOST_BYTES,
            max_headers_size=_MOST_HEADER_BYTES,
        ),
        ssl_cert=certificate,
        ssl_key=key,
        workers_kill_timeout=DRAIN_WITHIN,
        respawn_failed_workers=True,
    ).serve(target_loader=functools.partial(_load, prefix=prefix))


def _descriptors(wanted: int) -> int:
    """Return how many of the descriptors that are wanted there can be, and let them be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _load(_: str, *, prefix: str) -> Service:
    _log()
    return Service(prefix)


def _log() -> None:
    # Other loggers repeat what stands in variables: headers, and an endpoint's query.
    logging.getLogger().addHandler(logging.NullHandler())
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("tbot-otel relay: %(message)s"))
    for name in ("tbot_otel.relay", "asyncio"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("tbot_otel.relay").setLevel(logging.INFO)
