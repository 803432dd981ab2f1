"""Builds the official exporter that arguments and variables select, and sends with it."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module

from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp import environment
from tbot_otel.otlp.quiet import hidden_logs
from tbot_otel.otlp.responses import describe_error
from tbot_otel.session import Outcome, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.sdk._logs.export import LogRecordExporter

    from tbot_otel.otlp.responses import ResponseObserver
    from tbot_otel.otlp.settings import Settings
    from tbot_otel.pipeline.record import PermittedRecord

_export_logger = logging.getLogger("tbot_otel.export")


class SelfEncodingBatch(Sequence["PermittedRecord"]):
    """A batch that builds its own OTLP message."""

    @abstractmethod
    def encode(self) -> "ExportLogsServiceRequest":
        """Return the OTLP message of the records."""


def build_exporter(settings: "Settings", observer: "ResponseObserver") -> "LogRecordExporter":
    """Build the official exporter for the protocol. It opens no file and no connection.

    Args:
        settings: The settings.
        observer: Is asked for consent before each attempt, and observes the Collector's responses.
            Over HTTP, a credential provider that brings its own session prevents both.

    Raises:
        ExporterConfigurationError: The exporter's package or the credential provider is not
            installed, or fails.
    """
    protocol = settings.protocol
    try:
        module = import_module(f"tbot_otel.otlp.{protocol.partition('/')[0]}")
        with hidden_logs():
            exporter: LogRecordExporter = module.build_exporter(settings, observer)
    except ExporterConfigurationError:
        raise
    except Exception as error:
        # Only after a failure, because the check takes time.
        environment.check_installed(protocol)
        problem = f"its exporter cannot be used ({describe_error(error)})"
        if isinstance(error, ImportError) and error.name:
            problem = f"the module {error.name} cannot be imported"
        raise ExporterConfigurationError(f"protocol {protocol}: {problem}") from error
    return exporter


def export_and_observe(
    exporter: "LogRecordExporter",
    observer: "ResponseObserver",
    batch: "Sequence[PermittedRecord]",
) -> Outcome:
    """Export a batch, and return its outcome.

    Args:
        exporter: An exporter that `build_exporter` returned, or any other.
        observer: The observer that was given to `build_exporter`.
        batch: The records.

    Returns:
        DELIVERED, UNOBSERVED, REFUSED or FAILED.
    """
    from opentelemetry.context import attach, detach, set_value
    from opentelemetry.sdk._logs.export import LogRecordExportResult

    observer.reset()
    problem = "the exporter reported a failure"
    succeeded = False
    # An instrumented HTTP or gRPC client would add a trace's ids to the request.
    token = attach(set_value(_suppression_key(), True))
    try:
        with hidden_logs():
            succeeded = exporter.export(batch) is LogRecordExportResult.SUCCESS
    except Exception as error:  # noqa: BLE001 - an exporter's error must not reach the caller
        problem = f"the export failed ({describe_error(error)})"
    finally:
        detach(token)
    outcome = observer.outcome
    if outcome is None and succeeded:
        return Outcome(Status.UNOBSERVED, "the response was not observed")
    if outcome is None or (
        outcome.status in (Status.DELIVERED, Status.UNOBSERVED) and not succeeded
    ):
        outcome = Outcome(Status.FAILED, problem)
    if outcome.status is Status.FAILED:
        _export_logger.warning("not delivered, %d in the batch: %s", len(batch), outcome.reason)
    return outcome


def _suppression_key() -> str:
    """Return the key that turns instrumentation off.

    The API has no public name for it. Without the private one, instrumentation still reads the
    older key.
    """
    from opentelemetry import context

    return str(getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"))


def import_exporter_module() -> "ModuleType":
    """Import what the variables' protocol needs, and return the official exporter's module."""
    protocol = environment.protocol()
    import_module(f"tbot_otel.otlp.{protocol.partition('/')[0]}")
    return import_module(f"{environment.EXPORTER_MODULES[protocol]}._log_exporter")
