"""The relay's own metrics. No attribute identifies a caller."""

import os
import uuid
from importlib import import_module

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tbot_otel import __version__
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment


class Metrics:
    """The relay's instruments.

    With ``OTEL_METRICS_EXPORTER=otlp``, they are exported as the ``OTEL_EXPORTER_OTLP_*`` variables
    say. Without it, they belong to the process's own meter provider, if it has one.
    """

    def __init__(self) -> None:
        self._provider = _create_provider()
        meter = (self._provider or metrics.get_meter_provider()).get_meter("tbot_otel", __version__)
        self._calls = meter.create_counter(
            "tbot_otel.relay.calls", "{call}", "Calls, by the status of the response."
        )
        self._in_flight = meter.create_up_down_counter(
            "tbot_otel.relay.calls.in_flight", "{call}", "Calls without a response yet."
        )
        self._size = meter.create_histogram(
            "tbot_otel.relay.export.size", "{report}", "Reports in an export."
        )
        self._duration = meter.create_histogram(
            "tbot_otel.relay.export.duration", "s", "Duration of an export."
        )

    def record_call(self) -> None:
        """Count a new call."""
        self._in_flight.add(1)

    def record_response(self, status: int) -> None:
        """Count the response to a call."""
        self._in_flight.add(-1)
        self._calls.add(1, {"http.response.status_code": status})

    def record_export(self, size: int, seconds: float, *, delivered: bool) -> None:
        """Record the size and duration of an export."""
        attributes = {} if delivered else {"error.type": "unavailable"}
        self._size.record(size, attributes)
        self._duration.record(seconds, attributes)

    def shutdown(self) -> None:
        """Export the remaining measurements."""
        if self._provider is not None:
            self._provider.shutdown()


def _create_provider() -> MeterProvider | None:
    selected = os.environ.get("OTEL_METRICS_EXPORTER", "").strip()
    if selected in ("", "none"):
        return None
    if selected != "otlp":
        raise ExporterConfigurationError("OTEL_METRICS_EXPORTER: expected otlp or none")
    protocol = environment.protocol("METRICS")
    if protocol not in environment.EXPORTER_MODULES:
        raise ExporterConfigurationError(f"metrics {environment.UNSUPPORTED_PROTOCOL}")
    module = import_module(f"{environment.EXPORTER_MODULES[protocol]}.metric_exporter")
    reader = PeriodicExportingMetricReader(module.OTLPMetricExporter())
    # Each worker counts its own calls, and SDKs before 1.45 add no instance id.
    return MeterProvider([reader], Resource.create({"service.instance.id": str(uuid.uuid4())}))
