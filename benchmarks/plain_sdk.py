"""Records one start, with the plain SDK. Its one word is the protocol."""

import sys

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
elif sys.argv[1] == "http/json":
    from opentelemetry.exporter.otlp.json.http._log_exporter import (  # type: ignore[no-redef]
        OTLPLogExporter,
    )
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[assignment]
        OTLPLogExporter,
    )

attributes = {"tbot.run_mode": "daemon", "tbot.version": "18.3.0", "tbot.join_type": "github"}
counts = {f"tbot.destinations_{of}": 0 for of in ("other", "database", "kubernetes", "application")}
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
provider.get_logger("plain").emit(event_name="tbot.start", attributes={**attributes, **counts})
provider.shutdown()
