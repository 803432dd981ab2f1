"""The relay's own metrics. No attribute identifies a caller."""

import os
import uuid
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tbot_otel import __version__
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.otlp.quiet import hidden_logs

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REPORTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Metrics:
    """The relay's instruments.

    With ``OTEL_METRICS_EXPORTER=otlp``, they are exported as the ``OTEL_EXPORTER_OTLP_*`` variables
    say, together with the SDK's own metrics of its exporters. Without it, they belong to the
    process's own meter provider, if it has one.

    Args:
        count_waiting: Returns the number of reports whose export has not begun.
    """

    def __init__(self, count_waiting: Callable[[], int]) -> None:
        self._provider = _create_provider()
        if self._provider is not None:
            # The SDK's exporters take it from there.
            metrics.set_meter_provider(self._provider)
        meter = metrics.get_meter_provider().get_meter("tbot_otel", __version__)

        def observe_waiting(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count_waiting())]

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
        meter.create_observable_up_down_counter(
            "tbot_otel.relay.queue.size",
            [observe_waiting],
            "{report}",
            "Reports whose export has not begun.",
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

    def record_call(self) -> None:
        """Count a new call."""
        self._in_flight.add(1)

    def record_response(self, status: int, reason: str, seconds: float) -> None:
        """Record the response to a call.

        Args:
            status: The HTTP status.
            reason: Why the call was refused; empty if it was not.
            seconds: The time since the head of the call.
        """
        attributes: dict[str, str | int] = {"http.response.status_code": status}
        self._in_flight.add(-1)
        self._call_duration.record(seconds, attributes)
        # A new mapping, because SDKs before 1.45 keep the one that they are given.
        self._calls.add(1, {**attributes, "error.type": reason} if reason else attributes)

    def record_export(self, size: int, seconds: float, *, delivered: bool) -> None:
        """Record the size and duration of an export."""
        attributes = {} if delivered else {"error.type": "unavailable"}
        self._export_size.record(size, attributes)
        self._export_duration.record(seconds, attributes)

    def shutdown(self) -> None:
        """Export the remaining measurements."""
        if self._provider is not None:
            self._provider.shutdown()


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


def _create_provider() -> MeterProvider | None:
    exporter = _create_exporter()
    if exporter is None:
        return None
    # Each worker counts its own calls, and SDKs before 1.45 add no instance id.
    resource = Resource.create({"service.instance.id": str(uuid.uuid4())})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "tbot-otel-relay"}))
    return MeterProvider([PeriodicExportingMetricReader(exporter)], resource)
