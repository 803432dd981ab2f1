"""The exporter: the plugin, and the last gate of whatever pipeline it is plugged into."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from tbot_otel import otlp, session
from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.forking import importing
from tbot_otel.policy import Permitted, Refused, decide
from tbot_otel.record import EventLogRecord, readable
from tbot_otel.session import Outcome, Session, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tbot_otel.policy import Reason

_logger = logging.getLogger("tbot_otel")


def anonymise(record: ReadableLogRecord) -> tuple[ReadableLogRecord | None, Permitted | Refused]:
    """Copy what policy permits of a record into a new one, under the anonymous Resource.

    Args:
        record: A log record of any origin. Of its session, only one that this process made is
            kept; any other record becomes part of the process's own.

    Returns:
        The new record, or None where it may not leave; and what policy decided.
    """
    source = record.log_record
    verdict = decide(source.event_name, source.attributes)
    if isinstance(verdict, Refused):
        return None, verdict
    observed = _nanoseconds(source.observed_timestamp)
    copy = EventLogRecord(
        verdict.event_name,
        verdict.attributes,
        _session(record) or session.current(),
        timestamp=_nanoseconds(source.timestamp) or observed or time.time_ns(),
        observed_timestamp=observed,
    )
    return readable(copy), verdict


def _session(record: ReadableLogRecord) -> Session | None:
    own = getattr(record.log_record, "session", None)
    return own if isinstance(own, Session) and own.belongs_here() else None


def _settle(record: ReadableLogRecord, outcome: Outcome) -> None:
    if own := _session(record):
        own.settle(outcome)


def _nanoseconds(value: object) -> int | None:
    # What the wire's 64 bits cannot hold would cost the whole batch.
    return value if isinstance(value, int) and 0 < value < 2**63 else None


class TbotLogExporter(LogRecordExporter):
    """Exports the events of the registry over OTLP, with consent, and nothing else.

    It is the entry point ``tbot`` of ``opentelemetry_logs_exporter``: use it by
    ``OTEL_LOGS_EXPORTER=tbot``, in a declarative configuration file, or in code with any
    processor. Whatever record of other events it sees, it drops unread. Its constructor needs no
    argument and never raises, and nothing is imported or opened before the first record that may
    leave.

    Args:
        exporter: In code, an exporter to hand the records over to in place of an official one.
        protocol: ``http/protobuf`` (unless its variable says otherwise), ``grpc`` or ``http/json``.
        endpoint: The URL; over HTTP with its path, such as ``http://localhost:4318/v1/logs``.
        headers: A list of mappings with ``name`` and ``value``, or a mapping of names to values.
        headers_list: The same in one text, ``name=value,name=value``; `headers` wins.
        compression: ``none``, ``gzip`` or ``deflate``.
        timeout: The time-out of an export, in milliseconds.
        tls: A mapping with ``ca_file``, ``key_file`` and ``cert_file``, and over gRPC ``insecure``.
        unknown: Any other argument is logged and ignored.

    What is not given is read from the standard ``OTEL_EXPORTER_OTLP_*`` variables. An argument or
    variable that cannot be used is logged once, and nothing is sent.

    Attributes:
        left_out: How often something did not leave as it came, by reason.
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
        **unknown: object,
    ) -> None:
        self.left_out: Counter[Reason] = Counter()
        self._given = exporter
        self._exporter = exporter
        self._arguments = otlp.Arguments()
        self._problem: str | None = None
        self._shutdown = False
        self._reset()
        for name in unknown:
            _logger.warning("TbotLogExporter: the argument %s is unknown, and ignored", name)
        try:
            self._arguments = otlp.Arguments(
                protocol=protocol,
                endpoint=endpoint,
                headers=headers,
                headers_list=headers_list,
                compression=compression,
                timeout=timeout,
                tls=tls,
            )
        except ExporterConfigurationError as error:
            self._give_up(error)
        if exporter is not None and not callable(getattr(exporter, "export", None)):
            self._given = self._exporter = None
            self._give_up(ExporterConfigurationError("exporter: expected a LogRecordExporter"))

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._answers = otlp.Answers()
        self._exporter = self._given

    def _give_up(self, error: ExporterConfigurationError) -> None:
        self._problem = str(error)
        _logger.error("TbotLogExporter sends nothing: %s", error)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export what may leave of a batch, and drop the rest.

        Returns:
            FAILURE if something that may leave was not delivered, else SUCCESS.
        """
        consent = OptInSampler().should_sample()
        permitted = []
        for record in batch:
            if not consent.granted:
                _settle(record, Outcome(Status.REFUSED, consent.reason))
                continue
            copy, verdict = anonymise(record)
            if isinstance(verdict, Refused):
                self.left_out[verdict.reason] += 1
                _settle(record, Outcome(Status.REFUSED, verdict.reason.value))
            elif copy is not None:
                for _, reason in verdict.left_out:
                    self.left_out[reason] += 1
                permitted.append(copy)
        if not permitted:
            return LogRecordExportResult.SUCCESS
        problem = self._deliver(permitted)
        if problem is None:
            outcome = Outcome(Status.DELIVERED, "the Collector took it")
        else:
            outcome = Outcome(Status.FAILED, problem)
        for record in permitted:
            _settle(record, outcome)
        return LogRecordExportResult.SUCCESS if problem is None else LogRecordExportResult.FAILURE

    def _deliver(self, batch: Sequence[ReadableLogRecord]) -> str | None:
        """Hand a batch over, and return why it was not delivered."""
        exporter = None if self._shutdown else self._open()
        if exporter is None:
            return self._problem or "the exporter is shut down"
        return otlp.send(exporter, self._answers, batch)

    def _open(self) -> LogRecordExporter | None:
        if self._pid != os.getpid():
            # A forked child must not write to its parent's connections.
            self._reset()
        with importing():
            if self._exporter is None and self._problem is None:
                try:
                    self._exporter = otlp.build(self._arguments, self._answers)
                except ExporterConfigurationError as error:
                    self._give_up(error)
        return None if self._problem else self._exporter

    def shutdown(self) -> None:
        """Shut the official exporter down; whatever is exported later fails."""
        self._shutdown = True
        if self._exporter is not None and self._pid == os.getpid():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the official exporter. It is no proof of delivery."""
        if self._exporter is None or self._pid != os.getpid():
            return True
        return self._exporter.force_flush(timeout_millis)
