"""Prints what a batch takes, in seconds a record: the median of some batches.

Its words: whose work (``ours`` or ``theirs``), and of how many sessions (``one`` or ``many``).
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
from tbot_otel.record import SCOPE_NAME, of_start

SIZE = 512
BATCHES = 10
EVENT = StartEvent(run_mode="daemon", version="18.3.0", join_type="github")


class Kept(LogRecordExporter):
    """Keeps the last batch, and does nothing with it."""

    batch: Sequence[ReadableLogRecord] = ()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Keep a batch."""
        self.batch = batch
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - as its base has it
        """Do nothing."""
        return True


def received(sessions: str) -> Sequence[ReadableLogRecord]:
    """A batch as a batch processor hands it over, under a provider's usual Resource."""
    kept = Kept()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(kept, max_export_batch_size=SIZE, schedule_delay_millis=60_000)
    )
    logger = provider.get_logger(SCOPE_NAME)
    for _ in range(SIZE):
        if sessions == "many":
            logger.emit(of_start(EVENT, Session()))
        else:
            logger.emit(event_name="tbot.start", attributes=EVENT.attributes)
    provider.shutdown()
    return kept.batch


def main(side: str, sessions: str) -> None:
    """Measure a side."""
    kept = Kept()
    exporter = TbotLogExporter(kept)
    taken = []
    for _ in range(1 + BATCHES):
        batch = received(sessions)
        begin = time.perf_counter()
        if side == "ours":
            exporter.export(batch)
        else:
            encode_logs(batch).SerializeToString()
        taken.append(time.perf_counter() - begin)
        if len(kept.batch if side == "ours" else batch) != SIZE:
            sys.exit("the batch is not whole")
    # The first one still warms up.
    print(statistics.median(taken[1:]) / SIZE)


main(*sys.argv[1:])
