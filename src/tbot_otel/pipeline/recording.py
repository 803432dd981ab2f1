"""Records exports in a file, in the form of the official Collector's file exporter."""

import logging
import os
from collections.abc import Callable, Sequence

from opentelemetry.sdk._logs import ReadableLogRecord

from tbot_otel.otlp.exporter import LazyExporter
from tbot_otel.otlp.settings import Settings
from tbot_otel.pipeline.record import PermittedRecord
from tbot_otel.session import Outcome, Status

_logger = logging.getLogger("tbot_otel")


def to_json(batch: Sequence[ReadableLogRecord], *, indent: int | None = 2) -> str:
    """Return the export of a batch as OTLP/JSON; without an indent, on one line."""
    from google.protobuf.json_format import MessageToJson
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    # OTLP/JSON has enums as numbers (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
    return str(MessageToJson(encode_logs(batch), indent=indent, use_integers_for_enums=True))


class RecordFile:
    """A file with a line of OTLP/JSON for each export.

    Args:
        fd: Its descriptor, open for appending.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, batch: Sequence[ReadableLogRecord]) -> None:
        """Append an export. A failure is logged, and does not keep the export from being sent."""
        line = f"{to_json(batch, indent=None)}\n".encode()
        try:
            # One write, so that another process's line cannot come in between.
            if os.write(self._fd, line) < len(line):
                _logger.warning("--record: the last line is incomplete")
        except OSError as error:
            _logger.warning("--record: %s", error.strerror)


class RecordingExporter(LazyExporter):
    """Records each export before its first attempt.

    Args:
        get_settings: See `LazyExporter`.
        file: The file; None for no file.
        dry_run: Whether nothing is sent. The outcome is then REFUSED.
    """

    def __init__(
        self,
        get_settings: Callable[[], Settings],
        file: RecordFile | None,
        *,
        dry_run: bool = False,
    ) -> None:
        super().__init__(get_settings)
        self._file = file
        self._dry_run = dry_run

    def send(self, batch: Sequence[PermittedRecord]) -> Outcome:
        """Record an export, and send it unless this is a dry run."""
        if self._file is not None:
            self._file.write(batch)
        if self._dry_run:
            return Outcome(Status.REFUSED, "dry run")
        return super().send(batch)
