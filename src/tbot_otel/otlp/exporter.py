"""The official exporter, built at its first use in each process."""

import logging
import os

from tbot_otel.consent import OptInSampler
from tbot_otel.errors import ExporterConfigurationError
from tbot_otel.forking import importing
from tbot_otel.otlp.responses import ResponseObserver
from tbot_otel.otlp.send import build_exporter, export_and_observe
from tbot_otel.session import Outcome, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk._logs.export import LogRecordExporter

    from tbot_otel.otlp.settings import Settings
    from tbot_otel.pipeline.record import PermittedRecord

_logger = logging.getLogger("tbot_otel")


class LazyExporter:
    """Sends records with the official exporter, which it builds when it has the first one.

    Args:
        get_settings: Returns the settings of the official exporter. If it raises
            ExporterConfigurationError, or the exporter cannot be built, that is logged once, and
            nothing is sent.
        exporter: An exporter that is used in place of an official one.
    """

    def __init__(
        self,
        get_settings: "Callable[[], Settings]",
        exporter: "LogRecordExporter | None" = None,
    ) -> None:
        self._get_settings = get_settings
        self._given_exporter = exporter
        self._problem: str | None = None
        self._is_shutdown = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._observer = ResponseObserver(OptInSampler().should_sample)
        self._exporter = self._given_exporter

    @property
    def last_problem(self) -> str | None:
        """Why the last attempt failed; None if there was none, or it has not ended."""
        return self._observer.last_problem

    def disable(self, problem: str) -> None:
        """Log why nothing is sent, and send nothing."""
        self._problem = problem
        _logger.error("TbotLogExporter sends nothing: %s", problem)

    def send(self, batch: "Sequence[PermittedRecord]") -> Outcome:
        """Send records, and return their outcome. Consent is asked before each attempt."""
        exporter = None if self._is_shutdown else self._get_exporter()
        if exporter is None:
            return Outcome(Status.FAILED, self._problem or "the exporter is shut down")
        return export_and_observe(exporter, self._observer, batch)

    def _get_exporter(self) -> "LogRecordExporter | None":
        if self._pid != os.getpid():
            # A forked child must not use its parent's connections.
            self._reset()
        with importing():
            if self._exporter is None and self._problem is None:
                try:
                    self._exporter = build_exporter(self._get_settings(), self._observer)
                except ExporterConfigurationError as error:
                    self.disable(str(error))
        return None if self._problem else self._exporter

    def shutdown(self) -> None:
        """Shut the exporter down. Later records fail."""
        self._is_shutdown = True
        if self._exporter is not None and self._pid == os.getpid():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no type here

    def force_flush(self, timeout_millis: int) -> bool:
        """Flush the exporter. Success does not prove delivery."""
        if self._exporter is None or self._pid != os.getpid():
            return True
        return self._exporter.force_flush(timeout_millis)
