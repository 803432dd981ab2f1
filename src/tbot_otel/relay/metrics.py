"""The relay's metrics of itself, by the OpenTelemetry API; no attribute says who called."""

import os
import uuid
from importlib import import_module

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tbot_otel import __version__, destination
from tbot_otel.errors import ExporterConfigurationError

_PROTOCOLS = ("http/protobuf", "grpc")


class Metrics:
    """What the relay counts and measures.

    It goes where ``OTEL_METRICS_EXPORTER=otlp`` and the ``OTEL_EXPORTER_OTLP_*`` variables say, or
    to the provider that the process has, or nowhere.
    """

    def __init__(self) -> None:
        self._provider = _provider()
        meter = (self._provider or metrics.get_meter_provider()).get_meter("tbot_otel", __version__)
        self._calls = meter.create_counter(
            "tbot_otel.relay.calls", "{call}", "Calls, by the status of their answer."
        )
        self._in_flight = meter.create_up_down_counter(
            "tbot_otel.relay.calls.in_flight", "{call}", "Calls that are not answered yet."
        )
        self._size = meter.create_histogram(
            "tbot_otel.relay.export.size", "{report}", "Reports of an export."
        )
        self._duration = meter.create_histogram(
            "tbot_otel.relay.export.duration", "s", "Time of an export."
        )

    def began(self) -> None:
        """Count a call that came."""
        self._in_flight.add(1)

    def answered(self, status: int) -> None:
        """Count the answer to a call that came."""
        self._in_flight.add(-1)
        self._calls.add(1, {"http.response.status_code": status})

    def exported(self, size: int, seconds: float, *, delivered: bool) -> None:
        """Measure an export."""
        attributes = {} if delivered else {"error.type": "unavailable"}
        self._size.record(size, attributes)
        self._duration.record(seconds, attributes)

    def shutdown(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider() -> MeterProvider | None:
    wanted = os.environ.get("OTEL_METRICS_EXPORTER", "").strip()
    if wanted in ("", "none"):
        return None
    if wanted != "otlp":
        raise ExporterConfigurationError("OTEL_METRICS_EXPORTER: expected otlp or none")
    protocol = destination.protocol("METRICS")
    if protocol not in _PROTOCOLS:
        raise ExporterConfigurationError(
            f"the metrics' protocol: expected one of {', '.join(_PROTOCOLS)}"
        )
    module = import_module(f"{destination.MODULES[protocol]}.metric_exporter")
    reader = PeriodicExportingMetricReader(module.OTLPMetricExporter())
    # Each worker counts for itself; SDKs before 1.45 give it no id.
    return MeterProvider([reader], Resource.create({"service.instance.id": str(uuid.uuid4())}))
