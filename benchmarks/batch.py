"""Prints the seconds per record of a batch: the median of some batches.

Its arguments are the side (``ours`` or ``theirs``) and the sessions (``one`` or ``many``).
"""

import statistics
import sys
import time
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)

from tbot_otel import Session, StartEvent, TbotLogExporter
from tbot_otel.pipeline.record import SCOPE_NAME, start_record

BATCH_SIZE = 512
BATCH_COUNT = 10
EVENT = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")


class KeepingExporter(LogRecordExporter):
    """Keeps the last batch."""

    batch: Sequence[ReadableLogRecord] = ()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Keep a batch."""
        self.batch = batch
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the signature of the base class
        """Do nothing."""
        return True


def processed_batch(sessions: str) -> Sequence[ReadableLogRecord]:
    """A batch from a batch processor, with a provider's usual Resource."""
    keeping = KeepingExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(
            keeping, max_export_batch_size=BATCH_SIZE, schedule_delay_millis=60_000
        )
    )
    logger = provider.get_logger(SCOPE_NAME)
    for _ in range(BATCH_SIZE):
        if sessions == "many":
            logger.emit(start_record(EVENT, Session()))
        else:
            logger.emit(event_name="tbot.start", attributes=EVENT.attributes)
    provider.shutdown()
    return keeping.batch


def main(side: str, sessions: str) -> None:
    """Measure one side."""
    keeping = KeepingExporter()
    exporter = TbotLogExporter(keeping)
    durations = []
    for _ in range(1 + BATCH_COUNT):
        batch = processed_batch(sessions)
        started_at = time.perf_counter()
        if side == "ours":
            exporter.export(batch)
        else:
            encode_logs(batch).SerializeToString()
        durations.append(time.perf_counter() - started_at)
        if len(keeping.batch if side == "ours" else batch) != BATCH_SIZE:
            sys.exit("the batch is incomplete")
    # The first batch warms up.
    print(statistics.median(durations[1:]) / BATCH_SIZE)


main(*sys.argv[1:])
