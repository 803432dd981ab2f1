"""The exporter plugin, the last gate of any pipeline."""

import logging
from collections.abc import Collection, Mapping, Sequence

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.otlp.arguments import Arguments
from tbot_otel.otlp.exporter import LazyExporter
from tbot_otel.otlp.settings import read_settings
from tbot_otel.pipeline.gate import Gate, settle
from tbot_otel.session import Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import Counter

    from tbot_otel.policy import Reason

_logger = logging.getLogger("tbot_otel")


class TbotLogExporter(LogRecordExporter):
    """Exports the registry's events over OTLP, with consent, and drops every other record unread.

    It is the entry point ``tbot`` in ``opentelemetry_logs_exporter``. Use it with
    ``OTEL_LOGS_EXPORTER=tbot``, in a declarative configuration file, or in code with any
    processor. The constructor needs no argument and never raises. Nothing is imported or opened
    before the first record that may leave.

    Args:
        exporter: In code, an exporter that gets the records in place of an official one. Its
            success is `Status.UNOBSERVED`.
        protocol: ``http/protobuf`` (the default, unless its variable is set) or ``grpc``.
        endpoint: The URL; over HTTP with its path, such as ``http://localhost:4318/v1/logs``.
        headers: A list of mappings with ``name`` and ``value``, or a mapping of names to values.
        headers_list: The same as text, ``name=value,name=value``. `headers` wins.
        compression: ``none``, ``gzip`` or ``deflate``.
        timeout: The timeout of an export, in milliseconds.
        tls: A mapping with ``ca_file``, ``key_file`` and ``cert_file``, and over gRPC ``insecure``.
        allowed_helpers: The names of helpers that may leave besides the known ones. docs/events.md
            says which names can be allowed. A name that cannot is logged and ignored.
        unknown: Any other argument is logged and ignored.

    An argument that is absent is read from the standard ``OTEL_EXPORTER_OTLP_*`` variables. If an
    argument or variable is invalid, that is logged once, and nothing is sent.

    Attributes:
        changes: How often a value or a record did not leave as it came, by reason.
    """

    def __init__(
        self,
        exporter: LogRecordExporter | None = None,
        *,
        protocol: str | None = None,
        endpoint: str | None = None,
        headers: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        headers_list: str | None = None,
        compression: str | None = None,
        timeout: float | None = None,
        tls: Mapping[str, object] | None = None,
        allowed_helpers: Collection[str] = (),
        **unknown: object,
    ) -> None:
        self._gate = Gate(allowed_helpers)
        self.changes: Counter[Reason] = self._gate.changes
        for name in unknown:
            _logger.warning("TbotLogExporter: ignored the unknown argument %s", name)
        arguments = Arguments()
        problem = ""
        try:
            arguments = Arguments(
                protocol=protocol,
                endpoint=endpoint,
                headers=headers,
                headers_list=headers_list,
                compression=compression,
                timeout=timeout,
                tls=tls,
            )
        except ExporterConfigurationError as error:
            problem = str(error)
        if exporter is not None and not callable(getattr(exporter, "export", None)):
            exporter, problem = None, "exporter: expected a LogRecordExporter"
        self._exporter = LazyExporter(lambda: read_settings(arguments), exporter)
        if problem:
            self._exporter.disable(problem)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export the records that may leave, and drop the rest.

        Consent is asked for here, and again before each attempt of the official exporter.

        Returns:
            FAILURE if a record that may leave was not accepted, else SUCCESS.
        """
        consent = OptInSampler().should_sample()
        copies = [self._gate.copy(record, consent) for record in batch]
        permitted = [copy for copy in copies if copy is not None]
        if not permitted:
            return LogRecordExportResult.SUCCESS
        outcome = self._exporter.send(permitted)
        for record in permitted:
            settle(record, outcome)
        failed = outcome.status is Status.FAILED
        return LogRecordExportResult.FAILURE if failed else LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Shut the official exporter down. Later exports fail."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the official exporter. Success does not prove delivery."""
        return self._exporter.force_flush(timeout_millis)
