"""The server: granian's worker processes, each with a `RelayApp`."""

import logging
import logging.config
import multiprocessing
import resource
import signal
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvloop  # noqa: F401 - if it is missing, fail here and not in a worker
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from tbot_otel.errors import TbotOtelError
from tbot_otel.otlp import environment
from tbot_otel.relay import exporting, log, metrics
from tbot_otel.relay.app import AppSettings, RelayApp

SHUTDOWN_TIMEOUT_SECONDS = 15
"""How long a stopping relay waits for its calls."""
RESPAWN_INTERVAL_SECONDS = 10.0
"""How long an old worker goes on after SIGHUP, beside the one that replaces it."""
MAX_CONNECTIONS = 8192
"""The most connections of a worker. More wait in the kernel's backlog."""

_HEADER_TIMEOUT_MILLIS = 5_000
_MAX_HEADER_BYTES = 2**14
_BACKLOG = 4096
_RESERVED_FDS = 64

_logger = logging.getLogger("tbot_otel.relay")


class _AppLoader:
    """Loads the application in a worker process. It is pickled each time that one starts."""

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings

    def __call__(self, _: str) -> RelayApp:
        return RelayApp(self.settings)


class _Server(Granian):  # type: ignore[misc, valid-type]  # it is a variable there
    """The server, which replaces its workers on SIGHUP only if the new settings are valid."""

    def __init__(
        self,
        reload_settings: Callable[[], None],
        server_metrics: metrics.ServerMetrics,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._reload_settings = reload_settings
        self._server_metrics = server_metrics

    def signal_handler_reload(self, *arguments: Any, **options: Any) -> None:
        try:
            self._reload_settings()
        except TbotOtelError as error:
            _logger.warning("reload failed, keeping the old secrets and certificate: %s", error)
            self._server_metrics.record_reload(valid=False)
        else:
            _logger.info("replacing the workers")
            self._server_metrics.record_reload(valid=True)
            super().signal_handler_reload(*arguments, **options)

    # Private. Without these two, a crash is logged without its signal, and is not counted.
    def _respawn_workers(self, *arguments: Any, **options: Any) -> None:
        self._record_crashes()
        super()._respawn_workers(*arguments, **options)

    def _stop_workers(self) -> None:
        self._record_crashes()
        super()._stop_workers()
        self._server_metrics.shutdown()

    def _record_crashes(self) -> None:
        for worker in self.wrks:
            status = worker.inner.exitcode
            if status:
                how = signal.Signals(-status).name if status < 0 else f"status {status}"
                _logger.error("worker-%d ended by itself (%s)", worker.idx + 1, how)
                self._server_metrics.record_crash()


def serve(
    host: str,
    port: int,
    *,
    workers: int,
    read_prefixes: Callable[[], Sequence[str]],
    allowed_helpers: Collection[str],
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the calls in flight.

    Args:
        host: The IP address to listen on.
        port: The port to listen on.
        workers: The number of worker processes.
        read_prefixes: Checks the files that the options name, and returns the paths that can
            precede that of a call. It is called here, and again on SIGHUP.
        allowed_helpers: See `policy.decide`.
        certificate: The certificate chain.
        key: Its key.

    Raises:
        TbotOtelError: A file or a variable is invalid.
    """
    logging.config.dictConfig(log.CONFIG)
    prefixes = read_prefixes()
    exporting.check()
    metrics.check()
    # Not fork: this process has threads when it starts a worker.
    multiprocessing.set_start_method("spawn")
    if not ip_address(host).is_loopback and not (certificate and all(prefixes)):
        _logger.warning(
            "others on the network can add starts or see the path's secret: expected "
            "--path-secret-file, and --tls-cert and --tls-key unless TLS is terminated in front"
        )
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    url = f"{'https' if certificate else 'http'}://{authority}"
    metrics_log = log.ChangeLog("metrics are exported", "metrics are not exported")
    loader = _AppLoader(
        AppSettings(
            log.ChangeLog("the Collector accepts exports", "the Collector does not accept exports"),
            metrics_log,
            prefixes,
            allowed_helpers,
            f"listens on {url}, exports to {environment.printable_endpoint()}",
        )
    )

    def reload_settings() -> None:
        loader.settings = loader.settings._replace(prefixes=read_prefixes())

    _Server(
        reload_settings,
        metrics.ServerMetrics(metrics_log),
        address=host,
        port=port,
        workers=workers,
        ssl_cert=certificate,
        ssl_key=key,
        backpressure=_raise_fd_limit(MAX_CONNECTIONS + _RESERVED_FDS) - _RESERVED_FDS,
        **_server_options(),
    ).serve(target_loader=loader)


def _server_options() -> dict[str, Any]:
    return {
        "target": "tbot_otel.relay",
        "interface": Interfaces.RSGI,
        # Unlike HTTP/2, it has a timeout for silent connections.
        "http": HTTPModes.http1,
        "websockets": False,
        "loop": Loops.uvloop,
        "backlog": _BACKLOG,
        "http1_settings": HTTP1Settings(
            header_read_timeout=_HEADER_TIMEOUT_MILLIS, max_buffer_size=_MAX_HEADER_BYTES
        ),
        "log_dictconfig": log.CONFIG,
        # Its line that it listens comes too early.
        "log_level": LogLevels.warning,
        "workers_kill_timeout": SHUTDOWN_TIMEOUT_SECONDS,
        "respawn_failed_workers": True,
        "respawn_interval": RESPAWN_INTERVAL_SECONDS,
    }


def _raise_fd_limit(wanted: int) -> int:
    """Raise the limit of open descriptors as far as allowed, and return it; `wanted` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
