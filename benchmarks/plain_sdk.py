"""Records one start with the plain SDK. Its argument is the protocol."""

import sys

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[assignment]
        OTLPLogExporter,
    )

attributes = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0", "tbot.join_type": "github"}
counts = {
    f"tbot.destinations_{kind}": 0 for kind in ("other", "database", "kubernetes", "application")
}
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
provider.get_logger("plain").emit(event_name="tbot.start", attributes={**attributes, **counts})
provider.shutdown()
