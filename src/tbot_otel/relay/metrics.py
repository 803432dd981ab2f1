"""The relay's own metrics. No attribute identifies a caller."""

import os
import threading
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tbot_otel import __version__
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.otlp.quiet import hidden_logs

if TYPE_CHECKING:
    from tbot_otel.relay.log import ChangeLog

SHUTDOWN_TIMEOUT_SECONDS = 3.0
"""How long a stopping process waits for the export of its last measurements."""

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_INVALID = {"error.type": "invalid"}
_REPORTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class WorkerMetrics:
    """The instruments of a worker.

    With ``OTEL_METRICS_EXPORTER=otlp``, they are exported as the ``OTEL_EXPORTER_OTLP_*`` variables
    say, together with the SDK's own metrics of its exporters. Without it, they belong to the
    process's own meter provider, if it has one.

    Args:
        change_log: Logs whether metrics are exported.
    """

    def __init__(self, change_log: "ChangeLog") -> None:
        self._provider = _create_provider(change_log)
        if self._provider is not None:
            # The SDK's exporters take it from there.
            metrics.set_meter_provider(self._provider)
        self._meter = meter = metrics.get_meter_provider().get_meter("tbot_otel", __version__)
        self._calls = meter.create_counter(
            "tbot_otel.relay.calls", "{call}", "Calls, by the status and the reason of a refusal."
        )
        self._call_duration = meter.create_histogram(
            "tbot_otel.relay.call.duration",
            "s",
            "Time from the head of a call to its response.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._in_flight = meter.create_up_down_counter(
            "tbot_otel.relay.calls.in_flight", "{call}", "Calls without a response yet."
        )
        self._export_size = meter.create_histogram(
            "tbot_otel.relay.export.size",
            "{report}",
            "Reports in an export.",
            explicit_bucket_boundaries_advisory=_REPORTS,
        )
        self._export_duration = meter.create_histogram(
            "tbot_otel.relay.export.duration",
            "s",
            "Duration of an export.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._failed_handshakes = meter.create_counter(
            "tbot_otel.relay.tls.failures", "{handshake}", "TLS handshakes that failed."
        )

    def observe(self, count_waiting: Callable[[], int], is_ready: Callable[[], bool]) -> None:
        """Export what these functions return at each time.

        Args:
            count_waiting: Returns the number of reports whose export has not begun.
            is_ready: Returns whether the Collector accepted the last export or probe.
        """
        self._meter.create_observable_up_down_counter(
            "tbot_otel.relay.queue.size",
            [lambda _: [Observation(count_waiting())]],
            "{report}",
            "Reports whose export has not begun.",
        )
        # Without a unit, Prometheus adds nothing to its name.
        self._meter.create_observable_gauge(
            "tbot_otel.relay.ready",
            [lambda _: [Observation(int(is_ready()))]],
            description="1 if the Collector accepted the last export or probe, 0 if not.",
        )

    def record_call(self) -> None:
        """Count a new call."""
        self._in_flight.add(1)

    def record_response(self, status: int, reason: str, seconds: float, line: int | None) -> None:
        """Record the response to a call.

        Args:
            status: The HTTP status.
            reason: Why the call was refused; empty if it was not.
            seconds: The time since the head of the call.
            line: The line of the call's secret; None if there is none.
        """
        attributes: dict[str, str | int] = {"http.response.status_code": status}
        self._in_flight.add(-1)
        self._call_duration.record(seconds, attributes)
        # A new mapping, because SDKs before 1.45 keep the one that they are given.
        attributes = dict(attributes)
        if reason:
            attributes["error.type"] = reason
        if line is not None:
            attributes["tbot_otel.relay.secret.line"] = line
        self._calls.add(1, attributes)

    def record_export(self, size: int, seconds: float, *, delivered: bool) -> None:
        """Record the size and duration of an export."""
        attributes = {} if delivered else {"error.type": "unavailable"}
        self._export_size.record(size, attributes)
        self._export_duration.record(seconds, attributes)

    def record_failed_handshake(self, reason: str) -> None:
        """Count a TLS handshake that failed."""
        self._failed_handshakes.add(1, {"error.type": reason})

    def shutdown(self) -> None:
        """Export the remaining measurements."""
        _shut_down(self._provider)


class ServerMetrics:
    """The instruments of the main process.

    Args:
        change_log: Logs whether metrics are exported.
    """

    def __init__(self, change_log: "ChangeLog") -> None:
        self._provider = _create_provider(change_log)
        provider = self._provider or metrics.NoOpMeterProvider()
        meter = provider.get_meter("tbot_otel", __version__)
        self._reloads = meter.create_counter(
            "tbot_otel.relay.reloads", "{reload}", "Reloads of the secrets and the certificate."
        )
        self._crashes = meter.create_counter(
            "tbot_otel.relay.worker.crashes", "{process}", "Workers that ended by themselves."
        )
        # An increase can only be seen from a first value.
        for attributes in ({}, _INVALID):
            self._reloads.add(0, attributes)
        self._crashes.add(0)

    def record_reload(self, *, valid: bool) -> None:
        """Count a reload, or one that invalid files prevented."""
        self._reloads.add(1, {} if valid else _INVALID)

    def record_crash(self) -> None:
        """Count a worker that ended by itself."""
        self._crashes.add(1)

    def shutdown(self) -> None:
        """Export the remaining measurements."""
        _shut_down(self._provider)


def check() -> None:
    """Check the variables.

    Raises:
        ExporterConfigurationError: They are invalid.
    """
    if (exporter := _create_exporter()) is not None:
        exporter.shutdown()


def _create_exporter() -> Any:
    """Create the official exporter that the variables select; None for none."""
    selected = os.environ.get("OTEL_METRICS_EXPORTER", "").strip()
    if selected in ("", "none"):
        return None
    if selected != "otlp":
        raise ExporterConfigurationError("OTEL_METRICS_EXPORTER: expected otlp or none")
    protocol = environment.protocol("METRICS")
    if protocol not in environment.EXPORTER_MODULES:
        raise ExporterConfigurationError(environment.unsupported_protocol("METRICS"))
    try:
        environment.check_installed(protocol)
        module = import_module(f"{environment.EXPORTER_MODULES[protocol]}.metric_exporter")
        with hidden_logs():
            return module.OTLPMetricExporter(**_compression(protocol))
    except ExporterConfigurationError as error:
        raise ExporterConfigurationError(f"metrics {error}") from None
    except Exception as error:
        raise ExporterConfigurationError(
            f"metrics protocol {protocol}: the exporter rejects its OTEL_EXPORTER_OTLP_* "
            f"variables ({type(error).__name__})"
        ) from error


def _compression(protocol: str) -> dict[str, Any]:
    """Return an argument for the variable's value "none", which the gRPC exporter rejects."""
    if protocol != "grpc" or environment.standard_variable("COMPRESSION", "METRICS") != "none":
        return {}
    from grpc import Compression

    return {"compression": Compression.NoCompression}


def _create_provider(change_log: "ChangeLog") -> MeterProvider | None:
    exporter = _create_exporter()
    if exporter is None:
        return None
    export = exporter.export

    def export_and_log(*arguments: Any, **options: Any) -> MetricExportResult:
        problem: str | None = "the exporter reported a failure"
        try:
            with hidden_logs():
                result: MetricExportResult = export(*arguments, **options)
        except Exception as error:
            problem = f"the export failed ({type(error).__name__})"
            raise
        else:
            if result is MetricExportResult.SUCCESS:
                problem = None
            return result
        finally:
            change_log.log_change(problem)

    exporter.export = export_and_log
    # Each process counts for itself, and SDKs before 1.45 add no instance id.
    resource = Resource.create({"service.instance.id": str(uuid.uuid4())})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "tbot-otel-relay"}))
    # The relay shuts it down. At the interpreter's exit it would take longer than that may.
    return MeterProvider(
        [PeriodicExportingMetricReader(exporter)], resource, shutdown_on_exit=False
    )


def _shut_down(provider: MeterProvider | None) -> None:
    """Export what is left, for a bounded time."""
    if provider is None:
        return
    thread = threading.Thread(target=provider.shutdown, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_TIMEOUT_SECONDS)
